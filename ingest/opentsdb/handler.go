package opentsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"varve/arrival"
	"varve/ingest"
	"varve/jsonwalk"
)

// Handler is the endpoint for points over HTTP: POST /api/put. The body is a point or an array of points as JSON, plain or in gzip.
// Of the parameters, details and summary choose the form of the answer; sync and sync_timeout are taken and change nothing.
//
// The answer is 204 when all points are on disk, and 400 when some were refused, with the rest on disk. With summary or details it is 200 or 400
// with counts, and with details each refused point that is known by name and the reason. A body that can't be read is a 400
// in OpenTSDB's form of errors; of it nothing is stored, unless it holds more than 65 536 points. 413, 429 and 503 have that form too, the last two with
// Retry-After.
type Handler struct {
	opts   Options
	port   *ingest.Port
	seed   arrival.Seed
	logger *slog.Logger
	now    func() time.Time
	free   sync.Pool // of *put
	lines  ingest.RareLines
}

// New returns a handler that writes to sink. now is the clock of durations and of the rate of log lines.
func New(opts Options, sink ingest.Sink, limits ingest.Limits, metrics *ingest.Metrics, logger *slog.Logger, now func() time.Time) (*Handler, error) {
	if err := opts.normalize(); err != nil {
		return nil, err
	}
	h := &Handler{opts: opts, port: ingest.NewPort(sink, limits, metrics.Meter("opentsdb"), now), logger: logger, now: now}
	h.seed = h.port.Seed(opts.encoding("json"))
	return h, nil
}

// put is one request. It is pooled.
type put struct {
	h    *Handler
	d    *ingest.Delivery
	body []byte
	// sets is a second opinion on labels where the refused points are to be named.
	sets     *ingest.LabelSets
	identity []byte
	tags     []pair
	flags    flags
	points   int
	details  []byte
	// named is how many points are in details.
	named  int
	nameIt func(place uint64, sets *ingest.LabelSets) error
}

// ServeHTTP handles one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeError(w, http.StatusMethodNotAllowed, "Method not allowed", "The HTTP method ["+quoted(r.Method)+"] is not permitted for this endpoint")
		return
	}
	q, _ := h.free.Get().(*put)
	if q == nil {
		q = &put{h: h, sets: ingest.NewLabelSets(h.port.Limits())}
		q.nameIt = q.name
	}
	q.flags = flagsOf(r.URL.RawQuery)
	q.d = h.port.Delivery()
	code, returned := http.StatusServiceUnavailable, false
	defer func() {
		q.d.End(code)
		if returned {
			q.release() // After a panic nobody knows what state it is in.
		}
	}()
	code = q.handle(w, r)
	returned = true
}

// What a pooled request keeps.
const keptDetails = 64 << 10

func (q *put) release() {
	if cap(q.details) > keptDetails || cap(q.identity) > keptDetails {
		return
	}
	clear(q.tags)
	q.d, q.body, q.tags, q.details, q.points, q.named = nil, nil, q.tags[:0], q.details[:0], 0, 0
	q.h.free.Put(q)
}

// handle answers the request and returns the status.
func (q *put) handle(w http.ResponseWriter, r *http.Request) int {
	err := q.take(r)
	if err != nil {
		code, retryAfter := ingest.Status(err)
		if retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(retryAfter.Seconds())))))
		}
		q.h.log(r, code, err.Error())
		writeError(w, code, message(code, err), q.h.cut(err.Error()))
		return code
	}
	refused := q.d.Result().Rejected.Total()
	code := http.StatusOK
	if refused > 0 {
		code = http.StatusBadRequest
		q.h.log(r, code, q.d.Refusals())
	}
	switch {
	case q.flags.details || q.flags.summary:
		q.writeSummary(w, code, refused)
	case refused > 0:
		writeError(w, code, "One or more data points had errors", q.d.Refusals())
	default:
		code = http.StatusNoContent
		w.WriteHeader(code)
	}
	return code
}

var (
	errNoContent = fmt.Errorf("%w request: Missing request content", ingest.ErrMalformed)
	errNoPoints  = fmt.Errorf("%w request: No datapoints found in content", ingest.ErrMalformed)
)

// take reads, decodes and writes the body.
func (q *put) take(r *http.Request) (err error) {
	if q.body, err = q.d.ReadBody(r); err != nil {
		return err
	}
	walk := jsonwalk.NewReader(q.body, 0)
	switch walk.Peek() {
	case 0:
		return errNoContent
	case '{':
		err = q.point(r.Context(), &walk)
	case '[':
		err = q.array(r.Context(), &walk)
	default:
		err = fmt.Errorf("%w: want an object or an array", jsonwalk.ErrSyntax)
	}
	if err == nil && (walk.Peek() != 0 || walk.Pos() < len(q.body)) {
		err = fmt.Errorf("%w: something behind its end at byte %d", jsonwalk.ErrSyntax, walk.Pos())
	}
	if errors.Is(err, jsonwalk.ErrSyntax) {
		return fmt.Errorf("%w request: Unable to parse the given JSON: %w", ingest.ErrMalformed, err)
	}
	if err != nil {
		return err
	}
	if q.points == 0 {
		return errNoPoints
	}
	return q.d.Write(r.Context(), q.nameIt)
}

func (q *put) array(ctx context.Context, walk *jsonwalk.Reader) error {
	walk.Open('[')
	for first := true; ; first = false {
		more, err := walk.Next(first, ']')
		if err != nil || !more {
			return err
		}
		if err := q.point(ctx, walk); err != nil {
			return err
		}
	}
}

// point takes the element that comes next.
func (q *put) point(ctx context.Context, walk *jsonwalk.Reader) error {
	q.points++
	if walk.Peek() != '{' {
		_, err := walk.Value()
		q.refuse(arrival.ReasonInvalidLine, errNoObject, nil)
		return err
	}
	place := walk.Pos()
	var p point
	if err := readPoint(walk, &p); err != nil {
		return err
	}
	millis, bits, reason, err := p.judge()
	if err != nil {
		q.refuse(reason, err, &p)
		return nil
	}
	q.identity = p.appendIdentity(q.identity[:0])
	if err := q.d.Add(q.h.seed.Hash(q.identity), uint64(place), millis, bits); err != nil {
		return err
	}
	if !q.d.Full() {
		return nil
	}
	return q.d.Write(ctx, q.nameIt)
}

// name adds the labels of the point at a place of the body.
func (q *put) name(place uint64, sets *ingest.LabelSets) (err error) {
	labelsMax := q.h.port.Limits().LabelsMax
	q.tags, err = q.h.opts.addPoint(sets, q.body, place, q.tags, labelsMax)
	if err == nil && q.flags.details {
		q.sets.Clear()
		if q.tags, err = q.h.opts.addPoint(q.sets, q.body, place, q.tags, labelsMax); err == nil {
			_, err = q.sets.Series()
		}
	}
	if err != nil && q.flags.details {
		walk := jsonwalk.NewReader(q.body, int(place))
		var p point
		if readPoint(&walk, &p) == nil {
			q.detail(&p, err)
		}
	}
	return err
}

// refuse counts a point that was found wrong while it was read.
func (q *put) refuse(reason arrival.Reason, err error, p *point) {
	q.d.Refuse(reason, 1, err)
	if q.flags.details {
		q.detail(p, err)
	}
}

func (h *Handler) cut(text string) string {
	if limit := h.port.Limits().ErrorBytesMax; len(text) > limit {
		return strings.ToValidUTF8(text[:limit], "")
	}
	return text
}

// log writes a line about an answer that is not a success, unless there was one not long ago: the metrics count them all.
func (h *Handler) log(r *http.Request, code int, reason string) {
	level, class := slog.LevelWarn, ingest.LogRefusals
	if code >= 500 {
		level, class = slog.LevelError, ingest.LogFailures
	}
	if h.lines.Due(class, h.now()) {
		h.logger.Log(r.Context(), level, "OpenTSDB points not accepted in full",
			"code", code, "remote", r.RemoteAddr, "sender", quoted(r.UserAgent()), "reason", h.cut(reason))
	}
}
