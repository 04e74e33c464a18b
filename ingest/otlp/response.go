package otlp

import (
	"encoding/json"
	"net/http"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/protobuf/encoding/protowire"
)

// encoding is the form of a body: that of the answer is the request's.
type encoding uint8

const (
	encodingProto encoding = iota
	encodingJSON
)

// The content types of OTLP over HTTP.
const (
	contentTypeProto = "application/x-protobuf"
	contentTypeJSON  = "application/json"
)

func (e encoding) contentType() string {
	if e == encodingJSON {
		return contentTypeJSON
	}
	return contentTypeProto
}

// success encodes an ExportMetricsServiceResponse. rejected counts data points; text
// may be empty only if there are none.
func (e encoding) success(rejected int64, text string) ([]byte, error) {
	response := pmetricotlp.NewExportResponse()
	if rejected > 0 || text != "" {
		response.PartialSuccess().SetRejectedDataPoints(rejected)
		response.PartialSuccess().SetErrorMessage(text)
	}
	if e == encodingJSON {
		return response.MarshalJSON()
	}
	return response.MarshalProto()
}

// Codes of google.rpc.Code.
const (
	rpcInvalidArgument   = 3
	rpcResourceExhausted = 8
	rpcUnimplemented     = 12
	rpcUnavailable       = 14
)

// rpcCode is the code of google.rpc.Status that goes with an HTTP status.
func rpcCode(status int) int32 {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		return rpcResourceExhausted
	case http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		return rpcUnimplemented
	case http.StatusBadRequest:
		return rpcInvalidArgument
	}
	return rpcUnavailable
}

// failure encodes a google.rpc.Status. The text has no control characters.
func (e encoding) failure(status int, text string) ([]byte, error) {
	code := rpcCode(status)
	if e == encodingJSON {
		return json.Marshal(struct {
			Code    int32  `json:"code"`
			Message string `json:"message"`
		}{code, text})
	}
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(code))
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, text), nil
}
