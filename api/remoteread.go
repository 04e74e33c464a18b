package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// remoteReadExpansionMax is how many times larger than its limit a remote read
// request may be once it is decompressed.
const remoteReadExpansionMax = 4

// checkRemoteRead refuses requests whose size or regular expressions are over the
// limits before upstream's handler compiles anything. Upstream reads the request
// again from memory; it is small.
func (a *API) checkRemoteRead(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		compressed, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		if err := a.checkReadRequest(compressed); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(compressed))
		next.ServeHTTP(w, r)
	})
}

func (a *API) checkReadRequest(compressed []byte) error {
	size, err := snappy.DecodedLen(compressed)
	if err != nil {
		return err
	}
	if most := remoteReadExpansionMax * a.o.Limits.FormBytes; int64(size) > most {
		return fmt.Errorf("the request is %d bytes long when decompressed, at most %d are allowed", size, most)
	}
	decoded, err := snappy.Decode(nil, compressed)
	if err != nil {
		return err
	}
	var req prompb.ReadRequest
	if err := proto.Unmarshal(decoded, &req); err != nil {
		return err
	}
	if n := len(req.Queries); n > selectorsMax {
		return fmt.Errorf("%d queries in one request, at most %d are allowed", n, selectorsMax)
	}
	for _, q := range req.Queries {
		for _, m := range q.Matchers {
			regex := m.Type == prompb.LabelMatcher_RE || m.Type == prompb.LabelMatcher_NRE
			if regex && len(m.Value) > a.o.Limits.RegexBytes {
				return fmt.Errorf("the regular expression for label %q is %d bytes long, at most %d are allowed", m.Name, len(m.Value), a.o.Limits.RegexBytes)
			}
		}
	}
	return nil
}
