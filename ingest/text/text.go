// Package text takes bodies of text of any size: the exposition formats of Prometheus and
// OpenMetrics, and CSV. They are how data of any age comes from files and from scripts.
//
// The nouns:
//
//   - Input makes the HTTP handlers, each for one path.
//   - A window is the part of a body that is in memory. It ends at no particular place; the readers
//     of the two formats take whole lines or records from it, and what is left moves to its start.
//   - A batch gathers samples of a window and writes them before the window moves: the bytes that
//     name a series are looked at again where nobody knows their key.
//
// The answer is 204 without a body when all of a body was stored, as clients of VictoriaMetrics' paths of
// the same names expect, and JSON otherwise (200 where verbose was asked for, 400 where something was
// refused): how many lines were read, how many samples stored and what was refused, with the number of its
// line. A line is refused alone: the others of the body are stored. A body that breaks off, or that meets trouble
// on our side, is stored up to there; sending all of it again harms nothing.
//
// Memory is bounded whatever the body: one window, and what its lines stand for. A line of a known
// series allocates nothing. Nothing here authenticates, speaks TLS, or judges how old a sample may be.
//
// An Input and its handlers may be used by several goroutines.
package text

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"varve/arrival"
	"varve/ingest"
)

// Options are what an Input is made of beyond what all inputs are. A zero field means its default.
type Options struct {
	// WindowBytesMax bounds the part of a body that is in memory; a request that is smaller needs less.
	// Samples are written once a window. Default 4 MiB.
	WindowBytesMax int
	// LineBytesMax bounds a line, or a record of CSV, inclusive. Default 1 MiB, at most half of a window.
	LineBytesMax int
}

func (o Options) withDefaults() Options {
	if o.WindowBytesMax <= 0 {
		o.WindowBytesMax = 4 << 20
	}
	if o.LineBytesMax <= 0 {
		o.LineBytesMax = 1 << 20
	}
	o.WindowBytesMax = max(o.WindowBytesMax, 2*firstWindowBytes)
	o.LineBytesMax = min(o.LineBytesMax, o.WindowBytesMax/2)
	return o
}

// Input takes text.
type Input struct {
	sink   ingest.Sink
	limits ingest.Limits
	o      Options
	meters [formatCount]*ingest.Meter
	logger *slog.Logger
	now    func() time.Time
	free   sync.Pool // of *reading
	lines  ingest.RareLines
}

// format is what a body is in, as metrics tell apart.
type format uint8

const (
	formatText format = iota
	formatCSV
	formatCount
)

func (f format) String() string { return [formatCount]string{"import_prometheus", "import_csv"}[f] }

// New returns an input that writes to sink. now is the clock of lines without a time, of
// durations and of the rate of log lines.
func New(sink ingest.Sink, limits ingest.Limits, metrics *ingest.Metrics, logger *slog.Logger, now func() time.Time, o Options) *Input {
	in := &Input{sink: sink, limits: limits.WithDefaults(), o: o.withDefaults(), logger: logger, now: now}
	for f := range formatCount {
		in.meters[f] = metrics.Meter(f.String())
	}
	return in
}

// reading is what one request needs while it is read. It is pooled.
type reading struct {
	window
	batch
	// nowMillis is the time of lines without one.
	nowMillis int64
	// extra are labels that every series gets.
	extra []labels.Label
	lines uint64 // with something in them
	// seed is that of the keys of series as the body names them.
	seed arrival.Seed
}

func (in *Input) reading() *reading {
	r, _ := in.free.Get().(*reading)
	if r == nil {
		r = &reading{}
		r.batch.init(in.sink, in.limits)
	}
	return r
}

// answer is what a client is told.
type answer struct {
	Lines    uint64   `json:"lines"`
	Samples  int      `json:"samples"`
	Refused  int      `json:"refused"`
	Dropped  int      `json:"dropped,omitempty"`
	Reasons  string   `json:"reasons,omitempty"`
	Examples []string `json:"examples,omitempty"`
	Error    string   `json:"error,omitempty"`
}

// serve answers a request: prepare reads its parameters, read its body.
func (in *Input) serve(w http.ResponseWriter, r *http.Request, f format, prepare func(q url.Values, x *reading) error, read func(ctx context.Context, x *reading) error) {
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		w.Header().Set("Allow", "POST, PUT")
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	}
	began := in.now()
	x := in.reading()
	x.batch.held, x.batch.meter = 0, in.meters[f]
	returned := false
	defer func() {
		// After a panic the reading is in an unknown state and is not used again.
		x.batch.release()
		if returned {
			in.free.Put(x)
		}
	}()
	err := x.begin(in, r, prepare)
	var from *body
	if err == nil {
		if from, err = openBody(r); err == nil {
			x.window.reset(from, &x.batch, in.o.WindowBytesMax, in.o.LineBytesMax)
			err = read(r.Context(), x)
		}
	}
	code, a := in.respond(w, r, x, err)
	in.log(r, f, code, &a)
	received, decoded := 0, 0
	if from != nil {
		received, decoded = int(from.wire.read), int(x.window.read)
		from.close()
	}
	counted := x.batch.result
	if ingest.ComesAgain(code) {
		counted = arrival.Result{} // It is when all has come.
	}
	in.meters[f].Answered(code, in.now().Sub(began), received, decoded, &counted)
	in.meters[f].Told(&counted.Rejected, func() string { return strings.Join(a.Examples, "; ") })
	x.end()
	returned = true
}

// begin reads the parameters that both formats have.
func (x *reading) begin(in *Input, r *http.Request, prepare func(q url.Values, x *reading) error) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("%w query: %w", ingest.ErrMalformed, err)
	}
	x.nowMillis = in.now().UnixMilli()
	if text := q.Get("timestamp"); text != "" {
		if x.nowMillis, err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("%w timestamp %s: want Unix milliseconds", ingest.ErrMalformed, quoted(text))
		}
	}
	x.extra = x.extra[:0]
	for _, text := range q["extra_label"] {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return fmt.Errorf("%w extra_label %s: want name=value", ingest.ErrMalformed, quoted(text))
		}
		// The last of a name stays.
		x.extra = slices.DeleteFunc(x.extra, func(l labels.Label) bool { return l.Name == name })
		x.extra = append(x.extra, labels.Label{Name: name, Value: value})
	}
	slices.SortFunc(x.extra, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	return prepare(q, x)
}

// seedFor is a seed for the keys of an encoding, which the extra labels are a part of.
func (x *reading) seedFor(encoding string) arrival.Seed {
	name := append([]byte("text import "), encoding...)
	name = append(name, 0)
	for _, l := range x.extra {
		name = arrival.AppendLabel(name, l.Name, l.Value)
	}
	return arrival.Seed(x.batch.sink.Seed().Hash(name).Lo)
}

// name adds a pair of a series, unless an extra label stands in its place.
func (x *reading) name(sets *ingest.LabelSets, name, value string) {
	for i := range x.extra {
		if x.extra[i].Name == name {
			return
		}
	}
	sets.Add(name, value)
}

func (x *reading) addExtra(sets *ingest.LabelSets) {
	for i := range x.extra {
		sets.Add(x.extra[i].Name, x.extra[i].Value)
	}
}

// end makes the reading ready for the next request.
func (x *reading) end() {
	x.lines = 0
	clear(x.extra)
	x.extra = x.extra[:0]
	x.window.end()
	x.batch.end()
}

// respond writes the answer and returns it.
func (in *Input) respond(w http.ResponseWriter, r *http.Request, x *reading, err error) (code int, a answer) {
	result := &x.batch.result
	a = answer{
		Lines: x.lines, Samples: result.Samples, Refused: result.Rejected.Total(), Dropped: result.Dropped.Total(),
		Reasons: result.Rejected.String(), Examples: x.batch.examples,
	}
	verbose := r.URL.Query().Get("verbose")
	switch {
	case err != nil:
		var retryAfter time.Duration
		code, retryAfter = ingest.Status(err)
		if retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(max(1, int((retryAfter+time.Second-1)/time.Second))))
		}
		a.Error = err.Error()
	case a.Refused > 0:
		code = http.StatusBadRequest
	case verbose != "" && verbose != "0" && verbose != "false":
		code = http.StatusOK
	default:
		w.WriteHeader(http.StatusNoContent)
		return http.StatusNoContent, a
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A client that is gone gets no answer, and there is nobody to tell.
	_ = json.NewEncoder(w).Encode(&a)
	return code, a
}

// log writes a line about what was not taken in full, unless there was one not long ago.
func (in *Input) log(r *http.Request, f format, code int, a *answer) {
	if code < 300 {
		return
	}
	level, class := slog.LevelWarn, ingest.LogRefusals
	if code >= 500 {
		level, class = slog.LevelError, ingest.LogFailures
	}
	if !in.lines.Due(class, in.now()) {
		return
	}
	example := ""
	if len(a.Examples) > 0 {
		example = a.Examples[0]
	}
	in.logger.Log(r.Context(), level, "import not accepted in full", "protocol", f.String(), "code", code, "remote", r.RemoteAddr,
		"refused", a.Reasons, "example", example, "error", a.Error)
}

// quotedBytes keeps one hostile string from filling the text of an error.
const quotedBytes = 48

func quoted[T ~string | ~[]byte](s T) string {
	if len(s) > quotedBytes {
		return strconv.QuoteToASCII(string(s[:quotedBytes])) + "..."
	}
	return strconv.QuoteToASCII(string(s))
}
