package nats

import (
	"bytes"
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
	port   *ingest.Port
	seed   arrival.Seed
	logger *slog.Logger
	now    func() time.Time
	free   sync.Pool // of *reading
	lines  ingest.RareLines
}

var _ ingest.Receiver = (*JSON)(nil)

// NewJSON returns a receiver that writes to sink. now is the clock of durations and of the rate of log lines.
func NewJSON(sink ingest.Sink, limits ingest.Limits, metrics *ingest.Metrics, logger *slog.Logger, now func() time.Time) *JSON {
	j := &JSON{port: ingest.NewPort(sink, limits, metrics.Meter("json"), now), logger: logger, now: now}
	j.seed = j.port.Seed("json lines")
	return j
}

// reading is one message while it is received. It is pooled: a float sample of a known series allocates nothing.
type reading struct {
	j       *JSON
	d       *ingest.Delivery
	message []byte
	name    func(place uint64, sets *ingest.LabelSets) error // addLabels, made once
	// lines are those with something in them, good those that could be read.
	lines, good int
}

// histogramBytes is what a histogram takes beside its buckets.
const histogramBytes = 40 + 200

// Receive implements ingest.Receiver. All lines say their time.
func (j *JSON) Receive(ctx context.Context, message []byte, _ []ingest.Sent) (arrival.Result, error) {
	q, _ := j.free.Get().(*reading)
	if q == nil {
		q = &reading{j: j}
		q.name = q.addLabels
	}
	q.d = j.port.Delivery()
	q.d.Took(len(message), len(message))
	err := q.receive(ctx, message)
	result := *q.d.Result()
	code := http.StatusNoContent
	switch {
	case err != nil:
		code, _ = ingest.Status(err)
	case result.Rejected.Total() > 0:
		code = http.StatusBadRequest
		j.log(q.d.Refusals())
	}
	q.d.End(code)
	q.d, q.message, q.lines, q.good = nil, nil, 0, 0
	j.free.Put(q)
	return result, err
}

func (j *JSON) log(refusals string) {
	if j.lines.Due(ingest.LogRefusals, j.now()) {
		j.logger.Warn("JSON message not accepted in full", "reason", refusals)
	}
}

func (q *reading) receive(ctx context.Context, message []byte) error {
	if most := q.j.port.Limits().DecodedBytesMax; int64(len(message)) > most {
		return fmt.Errorf("%w: %d bytes, at most %d", ingest.ErrTooBig, len(message), most)
	}
	q.message = message
	for at := 0; at < len(message); {
		end := len(message)
		if n := bytes.IndexByte(message[at:], '\n'); n >= 0 {
			end = at + n
		}
		if line := bytes.TrimSpace(message[at:end]); len(line) > 0 {
			q.lines++
			if err := q.line(at, end); err != nil {
				return err
			}
			if q.d.Full() {
				if err := q.d.Write(ctx, q.name); err != nil {
					return err
				}
			}
		}
		at = end + 1
	}
	if q.lines > 0 && q.good == 0 {
		return fmt.Errorf("%w message: %s", ingest.ErrMalformed, strings.Join(q.d.Examples()[:1], ""))
	}
	return q.d.Write(ctx, q.name)
}

// object is a line in place.
type object struct {
	labels jsonwalk.Value
	// labelsAt is where they begin in the message.
	labelsAt                             int
	time, start, value, stale, histogram jsonwalk.Value
}

// parseObject reads the line that begins at a byte of what it ends. Errors are of the class jsonwalk.ErrSyntax.
func parseObject(ended []byte, at int) (o object, err error) {
	r := jsonwalk.NewReader(ended, at)
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
			o.labels, o.labelsAt = v, r.Pos()-len(v.Raw)
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
	if r.Peek() != 0 || r.Pos() < len(ended) {
		return o, fmt.Errorf("%w: something behind the object", jsonwalk.ErrSyntax)
	}
	return o, nil
}

var (
	errLabels = errors.New("the labels are no object")
	errTime   = errors.New("timestamp_ms or start_ms is no whole number")
	errValue  = errors.New("the value is no number")
	errBoth   = errors.New("want a value or a histogram")
	errLabel  = errors.New("a label is no string")
)

// line takes the line from one byte of the message to another. Its error is about the whole message.
func (q *reading) line(at, end int) error {
	o, err := parseObject(q.message[:end], at)
	if err != nil {
		q.d.Refuse(arrival.ReasonInvalidLine, 1, err)
		return nil
	}
	q.good++
	if o.labels.Kind != jsonwalk.Object {
		q.d.Refuse(arrival.ReasonInvalidLabels, 1, errLabels)
		return nil
	}
	millis, ok := whole(o.time)
	start := int64(0)
	if o.start.Kind != jsonwalk.None && ok {
		start, ok = whole(o.start)
	}
	if !ok {
		q.d.Refuse(arrival.ReasonInvalidLine, 1, errTime)
		return nil
	}
	switch {
	case (o.value.Kind == jsonwalk.None) == (o.histogram.Kind == jsonwalk.None):
		q.d.Refuse(arrival.ReasonInvalidLine, 1, errBoth)
		return nil
	case o.histogram.Kind != jsonwalk.None:
		return q.addHistogram(&o, millis, start)
	}
	v, ok := number(o.value)
	if !ok {
		q.d.Refuse(arrival.ReasonInvalidValue, 1, errValue)
		return nil
	}
	bits := math.Float64bits(v)
	if o.stale.Kind == jsonwalk.True && v != v {
		bits = value.StaleNaN
	}
	if err := q.d.Add(q.key(&o), o.place(), millis, bits); err != nil || start == 0 {
		return err
	}
	return q.d.Since(start)
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

// key is that of the labels as they are written.
func (q *reading) key(o *object) arrival.Key { return q.j.seed.Hash(o.labels.Raw) }

// place is where the labels are in the message.
func (o *object) place() uint64 { return uint64(o.labelsAt)<<32 | uint64(len(o.labels.Raw)) }

func (q *reading) addHistogram(o *object, millis, start int64) error {
	h, err := parseHistogram(o.histogram, o.stale.Kind == jsonwalk.True)
	limits := q.j.port.Limits()
	if err == nil && h.Int != nil {
		err = limits.CheckHistogram(h.Int)
	} else if err == nil {
		err = limits.CheckFloatHistogram(h.Float)
	}
	if err != nil {
		q.d.Refuse(arrival.ReasonInvalidHistogram, 1, err)
		return nil
	}
	h.TimeMillis, h.StartMillis = millis, start
	// A bucket takes at least four bytes there and eight here, a span six and eight.
	return q.d.AddHistogram(q.key(o), o.place(), &h, int64(histogramBytes+3*len(o.histogram.Raw)))
}

// addLabels adds the members of the object at a place of the message, which was read over before.
func (q *reading) addLabels(place uint64, sets *ingest.LabelSets) error {
	from := int(place >> 32)
	r := jsonwalk.NewReader(q.message[:from+int(uint32(place))], from)
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
