// Package remotewrite receives Prometheus remote write 1.0 and 2.0 over HTTP.
//
// Handler is one endpoint for both: the headers say which message the body holds.
// It answers as the protocols ask where they ask, and otherwise so that no sender
// loses data or repeats bad data for ever:
//
//   - 204 when everything is on disk.
//   - 400 when the body is malformed, with nothing written, or when a part of it was
//     refused: then the rest is on disk, and the text says how much was refused and
//     why. Senders never repeat a 400.
//   - 405, 413 and 415 for the wrong method, too much, and a content type or encoding
//     that nobody here reads. 405 and 415 are decided before the body is read.
//   - 429 with Retry-After for more than the rate that was configured, and for nothing
//     else: some senders drop what gets one.
//   - 503 with Retry-After for everything that is not the sender's fault. Senders
//     repeat it until it works, so bad data must never get one.
//
// The decoder is the package's own. It fills an arrival.Batch straight from the
// body and allocates nothing for a float sample of a known series; request.go
// tells the steps. Bodies, decoded forms and the structures that small messages
// expand to are all taken from one budget before they are allocated.
//
// A Handler is safe for use by several goroutines. It does not authenticate, sets no
// timeouts (the http.Server does) and does not judge timestamps (the archive does).
package remotewrite

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"varve/arrival"
	"varve/ingest"
)

// Handler is the remote write endpoint.
type Handler struct {
	requests pool
	meters   [versionCount]*ingest.Meter
	logger   *slog.Logger
	now      func() time.Time
	lines    ingest.RareLines
}

// Options say what is made of requests beyond what the protocols say. The zero value is
// nothing.
type Options struct {
	// TenantLabel is the name of the label in which the tenant is stored that a request
	// names in X-Scope-OrgID (Cortex, Mimir, Loki) or X-Scope-Org-ID. It takes the place of
	// a label of that name. Empty, or a request that names none: no label.
	TenantLabel string
	// OTelHistograms makes classic histograms of those that OpenTelemetry's Python exporter
	// sends in 1.0: their buckets count apart and bear the name of the histogram. See
	// bucketFinder.
	OTelHistograms bool
}

// New returns a handler that writes to sink. now is the clock of durations and of
// the rate of log lines.
func New(sink ingest.Sink, limits ingest.Limits, metrics *ingest.Metrics, logger *slog.Logger, now func() time.Time, o Options) *Handler {
	h := &Handler{logger: logger, now: now}
	h.requests.limits, h.requests.sink, h.requests.o = limits.WithDefaults(), sink, o
	for p := range versionCount {
		h.meters[p] = metrics.Meter(p.String())
	}
	return h
}

// answer is what a request gets.
type answer struct {
	code       int
	text       string
	retryAfter time.Duration
	result     arrival.Result
	// received and decoded are the sizes of the body.
	received, decoded int
}

// ServeHTTP handles one write request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.now()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST is allowed", http.StatusMethodNotAllowed)
		return
	}
	proto, ok := negotiate(r.Header)
	var a answer
	if ok {
		a = h.handle(r, proto)
	} else {
		a = answer{
			code: http.StatusUnsupportedMediaType,
			text: "want Content-Type " + mediaType + ", with proto=" + message1 + " or proto=" + message2 + ", and Content-Encoding snappy",
		}
	}
	if proto == version2 {
		writtenHeaders(w.Header(), &a.result)
	}
	h.log(r.Context(), r, proto, &a)
	switch {
	case a.code == http.StatusNoContent:
		w.WriteHeader(http.StatusNoContent)
	default:
		if a.code == http.StatusServiceUnavailable || a.code == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", strconv.Itoa(retrySeconds(a.retryAfter)))
		}
		http.Error(w, cut(a.text, h.requests.limits.ErrorBytesMax), a.code)
	}
	h.meters[proto].Answered(a.code, h.now().Sub(start), a.received, a.decoded, &a.result)
	h.meters[proto].Told(&a.result.Rejected, func() string { return a.text })
}

// handle reads, decodes and writes one request.
func (h *Handler) handle(r *http.Request, proto protocol) answer {
	a, err := h.take(r.Context(), proto, r, nil)
	if err == nil {
		return a
	}
	refusal := answerTo(err)
	refusal.received, refusal.decoded = a.received, a.decoded
	return refusal
}

// take decodes and writes the body of a request or, without one, a message. After an error the
// answer has the sizes alone.
func (h *Handler) take(ctx context.Context, proto protocol, r *http.Request, message []byte) (a answer, err error) {
	q := h.requests.get(proto)
	meter := h.meters[proto]
	var held int64
	// There is no recover: after a panic the request's memory is in an unknown state
	// and must not be used again, but its share of the budget must come back.
	returned := false
	defer func() {
		meter.Held(-held)
		if !returned {
			h.requests.limits.InFlight.Release(q.held)
		}
	}()
	if r != nil {
		q.setTenant(h.requests.tenantOf(r.Header))
		if err = q.read(r); err == nil {
			err = q.decompress(q.wire)
		}
	} else {
		err = q.open(message)
	}
	if err == nil && h.requests.o.OTelHistograms && proto == version1 {
		err = q.turnHistograms()
	}
	held = q.held
	meter.Held(held)
	if err == nil {
		a, err = q.write(ctx)
	}
	a.received, a.decoded = q.received, len(q.body)
	returned = true
	h.requests.put(q)
	return a, err
}

// write decodes the body and hands it to the sink.
func (q *request) write(ctx context.Context) (a answer, err error) {
	if err := q.decode(ctx); err != nil {
		return answer{}, err
	}
	if q.writable() {
		if a.result, err = q.sink.Write(ctx, &q.batch); err != nil {
			return answer{}, err
		}
	}
	if a.result.Example != "" {
		q.report.tell(a.result.Example)
	}
	a.result.Rejected.Add(&q.report.rejected)
	a.code = http.StatusNoContent
	if a.result.Rejected.Total() > 0 {
		a.code = http.StatusBadRequest
		a.text = q.report.text(&a.result.Rejected, q.limits.ErrorBytesMax)
	}
	return a, nil
}

// writable says whether there is anything to write: a request of which everything
// was refused needs no sync.
func (q *request) writable() bool {
	if len(q.batch.Metadata) > 0 {
		return true
	}
	for i := range q.batch.Rows {
		if q.batch.Rows[i].Ref != 0 {
			return true
		}
	}
	return false
}

// answerTo says what a sender is told about an error. Whatever is not known to be
// the sender's fault is ours.
func answerTo(err error) answer {
	a := answer{text: err.Error()}
	a.code, a.retryAfter = ingest.Status(err)
	var unavailable *arrival.Unavailable
	switch {
	case a.code == http.StatusBadRequest:
		a.text += "; nothing is written"
	case errors.As(err, &unavailable):
		a.retryAfter = unavailable.RetryAfter
	}
	return a
}

// The headers in which 2.0 says what was written, in their canonical form.
const (
	headerSamples    = "X-Prometheus-Remote-Write-Samples-Written"
	headerHistograms = "X-Prometheus-Remote-Write-Histograms-Written"
	headerExemplars  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

// writtenHeaders counts what the operator's rules leave out as written: a sender would take it for
// lost, and sending it again would change nothing.
func writtenHeaders(h http.Header, result *arrival.Result) {
	values := []string{
		strconv.Itoa(result.Samples + result.DroppedSamples),
		strconv.Itoa(result.Histograms + result.DroppedHistograms),
		strconv.Itoa(result.Exemplars + result.DroppedExemplars),
	}
	h[headerSamples], h[headerHistograms], h[headerExemplars] = values[0:1:1], values[1:2:2], values[2:3:3]
}

// retrySeconds rounds up to whole seconds, at least one: a sender without a wait
// would be back at once.
func retrySeconds(d time.Duration) int {
	return max(1, int(math.Ceil(d.Seconds())))
}

func cut(text string, bytesMax int) string {
	if len(text) <= bytesMax {
		return text
	}
	return text[:bytesMax]
}

// log writes a line about an answer that is not a success, unless there was one not
// long ago: the metrics count them all. r is nil for a message.
func (h *Handler) log(ctx context.Context, r *http.Request, proto protocol, a *answer) {
	if a.code == http.StatusNoContent {
		return
	}
	level, class := slog.LevelWarn, ingest.LogRefusals
	if a.code == http.StatusServiceUnavailable {
		level, class = slog.LevelError, ingest.LogFailures
	}
	if !h.lines.Due(class, h.now()) {
		return
	}
	attrs := []any{"protocol", proto.String(), "code", a.code, "reason", a.text}
	if r != nil {
		attrs = append(attrs, "remote", r.RemoteAddr, "sender", strconv.QuoteToASCII(cut(r.UserAgent(), 64)),
			"version", strconv.QuoteToASCII(cut(r.Header.Get("X-Prometheus-Remote-Write-Version"), 16)))
	}
	h.logger.Log(ctx, level, "remote write not accepted in full", attrs...)
}
