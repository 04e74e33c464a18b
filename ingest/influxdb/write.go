package influxdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"varve/arrival"
	"varve/ingest"
)

// Write returns the handler for POST /write, as InfluxDB 1.x has it. Of its parameters
// precision and consistency are checked; db and rp may become labels. u and p are for
// whoever authenticates.
func (in *Input) Write() http.Handler { return &writeHandler{in: in, way: wayWrite1} }

// WriteV2 returns the handler for POST /api/v2/write, as InfluxDB 2.x has it, with the
// parameters precision, bucket and org.
func (in *Input) WriteV2() http.Handler { return &writeHandler{in: in, way: wayWrite2} }

type writeHandler struct {
	in  *Input
	way way
}

// ServeHTTP handles one write request.
//
// 204: everything is on disk. 400: some lines are refused for good and the text names
// them, the rest is on disk; or nothing of the request could be read. 405, 413, 415: as
// HTTP has them. 429 and 503 with Retry-After: the same request should come again.
func (h *writeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.in.head(w, r)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		h.refuse(w, http.StatusMethodNotAllowed, "only POST is allowed")
		return
	}
	q := r.URL.Query()
	precision, err := ParsePrecision(q.Get("precision"))
	if err == nil && h.way == wayWrite1 {
		err = checkConsistency(q.Get("consistency"))
	}
	if err != nil {
		h.in.log(h.way, r.RemoteAddr, http.StatusBadRequest, err.Error())
		h.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	values := [requestParameters]string{}
	if h.way == wayWrite1 {
		values = [requestParameters]string{q.Get("db"), q.Get("rp")}
		h.in.databases.add(values[0])
	} else {
		values[2], values[3] = q.Get("bucket"), q.Get("org")
	}
	extra := h.in.names.extraLabels(values)
	if err := extra.force(q["extra_label"]); err != nil {
		h.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	d := h.in.decoder(h.way, precision, extra)
	code := http.StatusServiceUnavailable
	returned := false
	defer func() {
		// After a panic the decoder's state is unknown: its share of the budget comes back,
		// its memory is not used again.
		if returned {
			d.end(code)
		} else {
			d.delivery.End(code)
		}
	}()
	code = h.serve(w, r, d)
	returned = true
}

// serve reads and answers a request, and returns the status.
func (h *writeHandler) serve(w http.ResponseWriter, r *http.Request, d *decoder) int {
	body, err := d.delivery.ReadBody(r)
	if err == nil {
		err = d.all(r.Context(), body)
	}
	code, text, retryAfter := d.answer(err)
	if code == http.StatusNoContent {
		w.WriteHeader(code)
		return code
	}
	if code == http.StatusTooManyRequests && h.way == wayWrite1 {
		// Version 1 has no rates: its clients, Telegraf among them, drop what any 4xx is answered to.
		code = http.StatusServiceUnavailable
	}
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(retryAfter.Seconds()))))
	}
	h.in.log(h.way, r.RemoteAddr, code, text)
	h.refuse(w, code, text)
	return code
}

// answer is what is said of what was decoded, or of the error that ended it.
func (d *decoder) answer(err error) (code int, text string, retryAfter time.Duration) {
	switch {
	case err != nil:
		code, retryAfter = ingest.Status(err)
		return code, err.Error(), retryAfter
	case d.delivery.Result().Rejected.Total() > 0:
		return http.StatusBadRequest, d.refusals(), 0
	}
	return http.StatusNoContent, "", 0
}

// refusals names what was refused in the form of InfluxDB, which clients search for the
// words partial write and unable to parse.
func (d *decoder) refusals() string {
	result := d.delivery.Result()
	examples := d.allExamples()
	for reason, n := range result.Rejected {
		if n > 0 && toldByCount(arrival.Reason(reason)) {
			examples = append(examples, fmt.Sprintf("%s: %d", arrival.Reason(reason), n))
		}
	}
	var b strings.Builder
	// A body of which nothing is stored for its lines' own faults has no prefix, as in InfluxDB.
	whole := result.Samples+result.Dropped.Total() == 0 &&
		result.Rejected.Total() == result.Rejected[arrival.ReasonInvalidLine]+result.Rejected[arrival.ReasonInvalidLabels]
	if !whole {
		b.WriteString("partial write: ")
	}
	dropped := fmt.Sprintf(" dropped=%d", result.Rejected.Total())
	for i, e := range examples {
		if b.Len()+1+len(e)+len(dropped) > d.in.limits.ErrorBytesMax {
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e)
	}
	if !whole {
		b.WriteString(dropped)
	}
	return b.String()
}

// allExamples are texts about what was refused here and by the delivery.
func (d *decoder) allExamples() []string {
	return slices.Concat(d.examples, d.delivery.Examples())
}

// toldByCount says whether a reason may have no example of each thing: the archive gives one at most.
func toldByCount(r arrival.Reason) bool {
	return r != arrival.ReasonInvalidLine && r != arrival.ReasonInvalidLabels
}

// head sets the headers that every answer of InfluxDB has.
func (in *Input) head(w http.ResponseWriter, r *http.Request) {
	id := in.requests.of(r)
	header := w.Header()
	header.Set("X-Influxdb-Build", "OSS")
	header.Set("X-Influxdb-Version", in.version)
	header.Set("Request-Id", id)
	header.Set("X-Request-Id", id)
}

// refuse answers with an error in the form of the way's version.
func (h *writeHandler) refuse(w http.ResponseWriter, code int, text string) {
	text = cut(text, h.in.limits.ErrorBytesMax)
	if h.way == wayWrite2 {
		answerJSON(w, code, errorV2{Code: codeV2(code), Message: text})
		return
	}
	refuseV1(w, code, text)
}

// errorV1 and errorV2 are the errors of InfluxDB 1.x and 2.x.
type errorV1 struct {
	Error string `json:"error"`
}

type errorV2 struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// codeV2 is the name that InfluxDB 2.x gives to a status.
func codeV2(code int) string {
	switch code {
	case http.StatusBadRequest:
		return "invalid"
	case http.StatusMethodNotAllowed:
		return "method not allowed"
	case http.StatusRequestEntityTooLarge:
		return "request too large"
	case http.StatusUnsupportedMediaType:
		return "unsupported media type"
	case http.StatusTooManyRequests:
		return "too many requests"
	case http.StatusServiceUnavailable:
		return "unavailable"
	}
	return "internal error"
}

func refuseV1(w http.ResponseWriter, code int, text string) {
	w.Header().Set("X-Influxdb-Error", strings.ReplaceAll(printable([]byte(text)), `\n`, " "))
	answerJSON(w, code, errorV1{text})
}

// answerJSON writes v and a newline, as InfluxDB ends its answers.
func answerJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only the types of this package are written
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// The client is gone if this fails, and has nothing to be told.
	_, _ = w.Write(append(b, '\n'))
}

var errConsistency = errors.New("invalid consistency level")

// checkConsistency takes the levels of InfluxDB. All mean the same here: on this disk.
func checkConsistency(level string) error {
	switch strings.ToLower(level) {
	case "", "any", "one", "quorum", "all":
		return nil
	}
	return errConsistency
}
