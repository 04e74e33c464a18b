package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/value"

	"varve/arrival"
	"varve/ingest"
	"varve/jsonwalk"
)

// JSON receives messages of JSON: an object on a line for each sample,
//
//	{"labels":{"__name__":"up","job":"a"},"timestamp_ms":1700000000000,"value":"1"}
//
// as Varve's forwarder writes them. The value is a number, or a string: a decimal number, NaN, +Inf or -Inf. "stale":true makes the NaN a stale marker, "start_ms" is
// a start timestamp, and "histogram" in the place of the value is a native histogram, see parseHistogram. Members of other names say
// nothing. A line that can't be read is refused alone; a message in which no line can is malformed.
type JSON struct {
	sink   ingest.Sink
	limits ingest.Limits
	meter  *ingest.Meter
	seed   arrival.Seed
	logger *slog.Logger
	now    func() time.Time
	free   sync.Pool // of *reading
	lines  ingest.RareLines
}

var _ ingest.Receiver = (*JSON)(nil)

// NewJSON returns a receiver that writes to sink. now is the clock of durations and of the rate of log lines.
func NewJSON(sink ingest.Sink, limits ingest.Limits, metrics *ingest.Metrics, logger *slog.Logger, now func() time.Time) *JSON {
	return &JSON{
		sink: sink, limits: limits.WithDefaults(), meter: metrics.Meter("json"), logger: logger, now: now,
		seed: arrival.Seed(sink.Seed().Hash([]byte("json lines")).Lo),
	}
}

// reading is one message while it is received. It is pooled: a float sample of a known series allocates nothing.
type reading struct {
	j     *JSON
	batch arrival.Batch
	// labels runs beside batch.Rows: the object that names the row's series, in the message.
	labels      []jsonwalk.Value
	refused     []arrival.Reason // beside batch.Rows as well
	unknown     []arrival.Unknown
	unknownRows []uint32
	sets        *ingest.LabelSets
	result      arrival.Result
	example     error
	// lines are those with something in them, good those that could be read.
	lines, good int

	// held is what was taken from the budget, wanted what is needed of it.
	held, wanted int64
}

// What things of a message take in memory.
const (
	rowBytes       = 40 + 48
	sampleBytes    = 8 + 8 + 8
	histogramBytes = 40 + 200
	holdStep       = 64 << 10
	keptRows       = 1 << 16
)

// Receive implements ingest.Receiver.
func (j *JSON) Receive(ctx context.Context, message []byte) (arrival.Result, error) {
	began := j.now()
	q, _ := j.free.Get().(*reading)
	if q == nil {
		q = &reading{j: j, sets: ingest.NewLabelSets(j.limits)}
	}
	err := q.receive(ctx, message)
	result := q.result
	code := http.StatusNoContent
	switch {
	case err != nil:
		code, _ = ingest.Status(err)
		result = arrival.Result{}
	case result.Rejected.Total() > 0:
		code = http.StatusBadRequest
		j.log(&result, q.example)
	}
	j.meter.Answered(code, j.now().Sub(began), len(message), len(message), &result)
	q.release()
	return result, err
}

func (j *JSON) log(result *arrival.Result, example error) {
	if j.lines.Due(ingest.LogRefusals, j.now()) {
		j.logger.Warn("JSON message not accepted in full", "refused", result.Rejected.String(), "example", example)
	}
}

func (q *reading) release() {
	q.j.meter.Held(-q.held)
	q.j.limits.InFlight.Release(q.held)
	q.held, q.wanted = 0, 0
	q.batch.Reset()
	clear(q.unknown)
	clear(q.labels)
	q.labels, q.refused, q.unknown, q.unknownRows = q.labels[:0], q.refused[:0], q.unknown[:0], q.unknownRows[:0]
	q.sets.Clear()
	q.result, q.example, q.lines, q.good = arrival.Result{}, nil, 0, 0
	if cap(q.batch.Rows) > keptRows || cap(q.batch.Times) > keptRows || cap(q.batch.Histograms) > keptRows/16 || cap(q.unknown) > keptRows/16 {
		return
	}
	q.j.free.Put(q)
}

func (q *reading) receive(ctx context.Context, message []byte) error {
	if int64(len(message)) > q.j.limits.DecodedBytesMax {
		return fmt.Errorf("%w: %d bytes, at most %d", ingest.ErrTooBig, len(message), q.j.limits.DecodedBytesMax)
	}
	for rest := message; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte{'\n'})
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		q.lines++
		if err := q.line(line); err != nil {
			return err
		}
	}
	if q.lines > 0 && q.good == 0 {
		return fmt.Errorf("%w message: %w", ingest.ErrMalformed, q.example)
	}
	return q.write(ctx)
}

// refuse counts something that is not stored.
func (q *reading) refuse(reason arrival.Reason, items int, err error) {
	q.result.Rejected[reason] += items
	if q.example == nil {
		q.example = err
	}
}

// object is a line in place.
type object struct {
	labels, time, start, value, stale, histogram jsonwalk.Value
}

// parseObject reads a line. Errors are of the class jsonwalk.ErrSyntax.
func parseObject(line []byte) (o object, err error) {
	r := jsonwalk.NewReader(line, 0)
	if !r.Open('{') {
		return o, fmt.Errorf("%w: want an object", jsonwalk.ErrSyntax)
	}
	for first := true; ; first = false {
		more, err := r.Next(first, '}')
		if err != nil {
			return o, err
		}
		if !more {
			break
		}
		key, err := r.Key()
		if err != nil {
			return o, err
		}
		v, err := r.Value()
		if err != nil {
			return o, err
		}
		switch {
		case key.Is("labels"):
			o.labels = v
		case key.Is("timestamp_ms"):
			o.time = v
		case key.Is("start_ms"):
			o.start = v
		case key.Is("value"):
			o.value = v
		case key.Is("stale"):
			o.stale = v
		case key.Is("histogram"):
			o.histogram = v
		}
	}
	if r.Peek() != 0 || r.Pos() < len(line) {
		return o, fmt.Errorf("%w: something behind the object", jsonwalk.ErrSyntax)
	}
	return o, nil
}

var (
	errLabels   = errors.New("the labels are no object")
	errTime     = errors.New("timestamp_ms or start_ms is no whole number")
	errValue    = errors.New("the value is no number")
	errBoth     = errors.New("want a value or a histogram")
	errLabel    = errors.New("a label is no string")
	errOverhead = fmt.Errorf("%w: what its lines hold needs too much memory", ingest.ErrTooBig)
)

// line takes a line. Its error is about the whole message.
func (q *reading) line(line []byte) error {
	o, err := parseObject(line)
	if err != nil {
		q.refuse(arrival.ReasonInvalidLine, 1, err)
		return nil
	}
	q.good++
	if o.labels.Kind != jsonwalk.Object {
		q.refuse(arrival.ReasonInvalidLabels, 1, errLabels)
		return nil
	}
	millis, ok := whole(o.time)
	start := int64(0)
	if o.start.Kind != jsonwalk.None && ok {
		start, ok = whole(o.start)
	}
	if !ok {
		q.refuse(arrival.ReasonInvalidLine, 1, errTime)
		return nil
	}
	switch {
	case (o.value.Kind == jsonwalk.None) == (o.histogram.Kind == jsonwalk.None):
		q.refuse(arrival.ReasonInvalidLine, 1, errBoth)
		return nil
	case o.histogram.Kind != jsonwalk.None:
		return q.addHistogram(&o, millis, start)
	}
	v, ok := number(o.value)
	if !ok {
		q.refuse(arrival.ReasonInvalidValue, 1, errValue)
		return nil
	}
	bits := math.Float64bits(v)
	if o.stale.Kind == jsonwalk.True && v != v {
		bits = value.StaleNaN
	}
	return q.addSample(o.labels, millis, start, bits)
}

// whole reads a whole number.
func whole(v jsonwalk.Value) (int64, bool) {
	if v.Kind != jsonwalk.Number && v.Kind != jsonwalk.String || v.Escaped || len(v.Raw) > 20 {
		return 0, false
	}
	n, err := strconv.ParseInt(v.Text(), 10, 64)
	return n, err == nil
}

// number reads a number or a string that says one.
func number(v jsonwalk.Value) (float64, bool) {
	if v.Kind != jsonwalk.Number && v.Kind != jsonwalk.String || v.Escaped {
		return 0, false
	}
	switch string(v.Raw) {
	case "NaN":
		return math.Float64frombits(value.NormalNaN), true
	case "+Inf", "Inf":
		return math.Inf(1), true
	case "-Inf":
		return math.Inf(-1), true
	}
	n, ok := jsonwalk.Float(v.Raw)
	return n, ok && !math.IsInf(n, 0)
}

// need takes memory from the budget.
func (q *reading) need(bytes int) error {
	if q.wanted += int64(bytes); q.wanted <= q.held {
		return nil
	}
	// Twice what the largest message may have is more than any that says something needs.
	if q.wanted > 4*q.j.limits.DecodedBytesMax+holdStep {
		return errOverhead
	}
	step := max(holdStep, q.wanted-q.held)
	if !q.j.limits.InFlight.TryAcquire(step) {
		return ingest.ErrOverload
	}
	q.held += step
	q.j.meter.Held(step)
	return nil
}

// row returns the row of a series, which is the last one if the labels are written as those of the line before.
func (q *reading) row(labels jsonwalk.Value) (*arrival.Row, error) {
	b := &q.batch
	if n := len(b.Rows); n > 0 && bytes.Equal(q.labels[n-1].Raw, labels.Raw) {
		return &b.Rows[n-1], nil
	}
	if err := q.need(rowBytes); err != nil {
		return nil, err
	}
	b.Rows = append(b.Rows, arrival.Row{Key: q.j.seed.Hash(labels.Raw), First: uint32(len(b.Times))})
	q.labels = append(q.labels, labels)
	q.refused = append(q.refused, arrival.ReasonNone)
	return &b.Rows[len(b.Rows)-1], nil
}

func (q *reading) addSample(labels jsonwalk.Value, millis, start int64, bits uint64) error {
	row, err := q.row(labels)
	if err != nil {
		return err
	}
	if err := q.need(sampleBytes); err != nil {
		return err
	}
	b := &q.batch
	if start != 0 || len(b.Starts) > 0 {
		if missing := len(b.Times) - len(b.Starts); missing > 0 {
			b.Starts = append(b.Starts, make([]int64, missing)...)
		}
		b.Starts = append(b.Starts, start)
	}
	b.Times = append(b.Times, millis)
	b.Values = append(b.Values, bits)
	row.Count++
	return nil
}

func (q *reading) addHistogram(o *object, millis, start int64) error {
	// A bucket takes at least four bytes there and eight here, a span six and eight.
	if err := q.need(histogramBytes + 3*len(o.histogram.Raw)); err != nil {
		return err
	}
	h, err := parseHistogram(o.histogram, o.stale.Kind == jsonwalk.True)
	if err == nil && h.Int != nil {
		err = q.j.limits.CheckHistogram(h.Int)
	} else if err == nil {
		err = q.j.limits.CheckFloatHistogram(h.Float)
	}
	if err != nil {
		q.refuse(arrival.ReasonInvalidHistogram, 1, err)
		return nil
	}
	if _, err := q.row(o.labels); err != nil {
		return err
	}
	h.Row, h.TimeMillis, h.StartMillis = uint32(len(q.batch.Rows)-1), millis, start
	q.batch.Histograms = append(q.batch.Histograms, h)
	return nil
}

// write resolves the series and writes the batch.
func (q *reading) write(ctx context.Context) error {
	if len(q.batch.Rows) == 0 {
		return nil
	}
	if q.j.sink.Lookup(q.batch.Rows) > 0 {
		if err := q.resolve(ctx); err != nil {
			return err
		}
		q.countRefused()
	}
	if !slices.ContainsFunc(q.batch.Rows, func(r arrival.Row) bool { return r.Ref != 0 }) {
		return nil
	}
	written, err := q.j.sink.Write(ctx, &q.batch)
	if err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	q.result.Add(&written)
	return nil
}

// resolve names the series that the sink doesn't know.
func (q *reading) resolve(ctx context.Context) error {
	for i := range q.batch.Rows {
		row := &q.batch.Rows[i]
		if row.Ref != 0 {
			continue
		}
		q.sets.Clear()
		err := addLabels(q.sets, q.labels[i])
		if err == nil {
			u := arrival.Unknown{Key: row.Key}
			if u.Labels, err = q.sets.Series(); err == nil {
				q.unknown = append(q.unknown, u)
				q.unknownRows = append(q.unknownRows, uint32(i))
			}
		}
		if err != nil {
			q.refused[i] = arrival.ReasonInvalidLabels
			q.refuse(arrival.ReasonNone, 0, err)
		}
	}
	if len(q.unknown) == 0 {
		return nil
	}
	if err := q.j.sink.Resolve(ctx, q.unknown); err != nil {
		return fmt.Errorf("resolve series: %w", err)
	}
	for i := range q.unknown {
		at := q.unknownRows[i]
		if q.batch.Rows[at].Ref = q.unknown[i].Ref; q.unknown[i].Ref == 0 {
			q.refused[at] = q.unknown[i].Refused
		}
	}
	return nil
}

// addLabels adds the members of an object that was read over before.
func addLabels(sets *ingest.LabelSets, labels jsonwalk.Value) error {
	r := jsonwalk.NewReader(labels.Raw, 0)
	r.Open('{')
	for first := true; ; first = false {
		more, err := r.Next(first, '}')
		if err != nil || !more {
			return err
		}
		key, err := r.Key()
		if err != nil {
			return err
		}
		v, err := r.Value()
		if err != nil {
			return err
		}
		if v.Kind != jsonwalk.String {
			return errLabel
		}
		sets.Add(key.Text(), v.Text())
	}
}

// countRefused counts what the rows without a series hold.
func (q *reading) countRefused() {
	for i := range q.batch.Rows {
		if r := &q.batch.Rows[i]; r.Ref == 0 {
			q.result.Rejected[q.refused[i]] += int(r.Count)
		}
	}
	for i := range q.batch.Histograms {
		if at := q.batch.Histograms[i].Row; q.batch.Rows[at].Ref == 0 {
			q.result.Rejected[q.refused[at]]++
		}
	}
}
