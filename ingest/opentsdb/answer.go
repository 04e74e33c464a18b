package opentsdb

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"varve/jsonwalk"
)

// flags are the parameters of a put that change its answer.
type flags struct{ details, summary, timeout bool }

// flagsOf reads them: a parameter counts if it is named, whatever its value is.
func flagsOf(query string) (f flags) {
	for query != "" {
		var parameter string
		parameter, query, _ = strings.Cut(query, "&")
		name, _, _ := strings.Cut(parameter, "=")
		switch name {
		case "details":
			f.details = true
		case "summary":
			f.summary = true
		case "sync_timeout":
			f.timeout = true
		}
	}
	return f
}

// message is OpenTSDB's word for a status.
func message(code int, err error) string {
	switch code {
	case http.StatusRequestEntityTooLarge:
		return "Request Entity Too Large"
	case http.StatusUnsupportedMediaType:
		return "Unsupported content encoding"
	case http.StatusTooManyRequests:
		return "Too many data points, please throttle"
	case http.StatusServiceUnavailable:
		return "Storage exception"
	}
	// Behind the name of the class.
	text := err.Error()
	if _, behind, ok := strings.Cut(text, "request: "); ok {
		text = behind
	}
	head, _, _ := strings.Cut(text, ": ")
	return head
}

func writeHeaders(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
}

// writeError answers with an error as OpenTSDB writes them.
func writeError(w http.ResponseWriter, code int, message, details string) {
	type told struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Details string `json:"details,omitempty"`
	}
	body, err := json.Marshal(map[string]told{"error": {code, message, details}})
	if err != nil {
		http.Error(w, message, code)
		return
	}
	writeHeaders(w, code)
	// A client that is gone needs no answer.
	_, _ = w.Write(body)
}

// writeSummary answers with counts, and with the points that were refused if details are asked for. What is refused without being named there, such as a point too far ahead of
// the clock, is in "rejected", which OpenTSDB doesn't have.
func (q *put) writeSummary(w http.ResponseWriter, code, refused int) {
	body := append(make([]byte, 0, 64+len(q.details)), `{"failed":`...)
	body = strconv.AppendInt(body, int64(refused), 10)
	body = append(body, `,"success":`...)
	body = strconv.AppendInt(body, int64(q.points-refused), 10)
	if q.flags.timeout {
		body = append(body, `,"timeouts":0`...)
	}
	if q.flags.details {
		body = append(body, `,"errors":[`...)
		body = append(body, q.details...)
		body = append(body, ']')
	}
	if refused > q.named {
		body = append(body, `,"rejected":`...)
		body = appendQuoted(body, q.d.Refusals())
	}
	writeHeaders(w, code)
	_, _ = w.Write(append(body, '}'))
}

// detailsMax bounds the list of points that were refused.
const detailsMax = 1 << 20

// detail adds a point to the list of those that were refused. What stands in the body is JSON already.
func (q *put) detail(p *point, err error) {
	if len(q.details) > detailsMax {
		return
	}
	q.named++
	dst := q.details
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	dst = append(dst, `{"datapoint":`...)
	if p == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendMember(append(dst, `{"metric":`...), p.metric)
		dst = appendMember(append(dst, `,"timestamp":`...), p.timestamp)
		dst = append(dst, `,"value":`...)
		switch p.value.Kind {
		case jsonwalk.Number, jsonwalk.NotFinite, jsonwalk.True, jsonwalk.False:
			// A text, as OpenTSDB keeps it.
			dst = append(append(append(dst, '"'), p.value.Raw...), '"')
		default:
			dst = appendMember(dst, p.value)
		}
		dst = appendMember(append(dst, `,"tags":`...), p.tags)
		dst = append(dst, '}')
	}
	dst = appendQuoted(append(dst, `,"error":`...), err.Error())
	q.details = append(dst, '}')
}

// memberMax bounds what is told of one member of a point.
const memberMax = 16 << 10

// appendMember appends a value as it came.
func appendMember(dst []byte, v jsonwalk.Value) []byte {
	switch {
	case v.Kind == jsonwalk.None, v.Kind == jsonwalk.NotFinite, len(v.Raw) > memberMax, !utf8.Valid(v.Raw):
		return append(dst, "null"...)
	case v.Kind == jsonwalk.String:
		return append(append(append(dst, '"'), v.Raw...), '"')
	case v.Kind == jsonwalk.Object, v.Kind == jsonwalk.Array:
		// A NaN within is no JSON for others.
		if !json.Valid(v.Raw) {
			return append(dst, "null"...)
		}
	}
	return append(dst, v.Raw...)
}

func appendQuoted(dst []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return append(dst, `""`...)
	}
	return append(dst, text...)
}

// versionAnswer is what clients are told that ask what they talk to; they know OpenTSDB's numbers alone.
const versionAnswer = `{"version":"2.4.0","short_revision":"varve","full_revision":"varve","repo_status":"MODIFIED","timestamp":"0","user":"varve","host":"varve","repo":"varve"}`

// Version is the endpoint of GET and POST /api/version, which some clients ask at their start.
func Version() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodPost:
			writeHeaders(w, http.StatusOK)
			_, _ = w.Write([]byte(versionAnswer))
		default:
			w.Header().Set("Allow", "GET, HEAD, POST")
			writeError(w, http.StatusMethodNotAllowed, "Method not allowed", "")
		}
	})
}
