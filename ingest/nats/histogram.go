package nats

import (
	"errors"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"varve/arrival"
	"varve/jsonwalk"
)

var errHistogram = errors.New("the histogram can't be read")

// resetHints are the names of hints.
var resetHints = map[string]histogram.CounterResetHint{"": histogram.UnknownCounterReset, "reset": histogram.CounterReset, "not_reset": histogram.NotCounterReset, "gauge": histogram.GaugeType}

// jsonHistogram is a histogram in place.
type jsonHistogram struct {
	kind, schema, count, sum, zeroThreshold, zeroCount, hint, custom jsonwalk.Value
	// Spans and buckets, positive ones first.
	spans, buckets [2]jsonwalk.Value
}

// parseHistogram reads a native histogram,
//
//	{"kind":"int","schema":2,"count":"9","sum":"12.5","zero_threshold":"0.001","zero_count":"2",
//	  "positive_spans":[[-2,2],[3,1]],"positive_buckets":["1","2","1"],"reset_hint":"reset"}
//
// of the kind int or float. A span is an offset and a length. Buckets are counts, neither cumulated nor differences. negative_spans, negative_buckets
// and custom_values are alike. What is left out is zero or empty. stale makes a sum of NaN a stale marker. What it says is not checked.
func parseHistogram(v jsonwalk.Value, stale bool) (h arrival.Histogram, err error) {
	if v.Kind != jsonwalk.Object {
		return h, errHistogram
	}
	var o jsonHistogram
	if err := o.read(v.Raw); err != nil {
		return h, err
	}
	d := histogramReader{}
	schema := d.schema(o.schema)
	sum, zeroThreshold, custom := d.float(o.sum), d.float(o.zeroThreshold), d.floats(o.custom)
	hint, known := resetHints[o.hint.Text()]
	if stale && sum != sum {
		sum = math.Float64frombits(value.StaleNaN)
	}
	positive, negative := d.spans(o.spans[0]), d.spans(o.spans[1])
	switch o.kind.Text() {
	case "int":
		h.Int = &histogram.Histogram{
			CounterResetHint: hint, Schema: schema, Count: d.count(o.count), Sum: sum, ZeroThreshold: zeroThreshold, ZeroCount: d.count(o.zeroCount), CustomValues: custom,
			PositiveSpans: positive, PositiveBuckets: d.deltas(o.buckets[0]), NegativeSpans: negative, NegativeBuckets: d.deltas(o.buckets[1]),
		}
	case "float":
		h.Float = &histogram.FloatHistogram{
			CounterResetHint: hint, Schema: schema, Count: d.float(o.count), Sum: sum, ZeroThreshold: zeroThreshold, ZeroCount: d.float(o.zeroCount), CustomValues: custom,
			PositiveSpans: positive, PositiveBuckets: d.floats(o.buckets[0]), NegativeSpans: negative, NegativeBuckets: d.floats(o.buckets[1]),
		}
	default:
		d.failed = true
	}
	if d.failed || !known {
		return arrival.Histogram{}, errHistogram
	}
	return h, nil
}

func (o *jsonHistogram) read(raw []byte) error {
	members := map[string]*jsonwalk.Value{
		"kind": &o.kind, "schema": &o.schema, "count": &o.count, "sum": &o.sum, "zero_threshold": &o.zeroThreshold, "zero_count": &o.zeroCount,
		"reset_hint": &o.hint, "custom_values": &o.custom, "positive_spans": &o.spans[0], "negative_spans": &o.spans[1],
		"positive_buckets": &o.buckets[0], "negative_buckets": &o.buckets[1],
	}
	r := jsonwalk.NewReader(raw, 0)
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
		if member := members[key.Text()]; member != nil {
			*member = v
		}
	}
}

// histogramReader reads members and remembers whether one was not what it has to be.
type histogramReader struct{ failed bool }

func (d *histogramReader) float(v jsonwalk.Value) float64 {
	if v.Kind == jsonwalk.None {
		return 0
	}
	f, ok := number(v)
	d.failed = d.failed || !ok
	return f
}

func (d *histogramReader) count(v jsonwalk.Value) uint64 {
	if v.Kind == jsonwalk.None {
		return 0
	}
	n, err := strconv.ParseUint(v.Text(), 10, 64)
	d.failed = d.failed || err != nil
	return n
}

func (d *histogramReader) schema(v jsonwalk.Value) int32 {
	n, ok := whole(v)
	d.failed = d.failed || !ok && v.Kind != jsonwalk.None || n < math.MinInt32 || n > math.MaxInt32
	return int32(n)
}

// each calls f for the elements of a list, which may be left out.
func (d *histogramReader) each(v jsonwalk.Value, f func(jsonwalk.Value)) {
	if v.Kind == jsonwalk.None {
		return
	}
	r := jsonwalk.NewReader(v.Raw, 0)
	if v.Kind != jsonwalk.Array || !r.Open('[') {
		d.failed = true
		return
	}
	for first := true; !d.failed; first = false {
		more, err := r.Next(first, ']')
		if err == nil && !more {
			return
		}
		var element jsonwalk.Value
		if err == nil {
			element, err = r.Value()
		}
		if err != nil {
			d.failed = true
			return
		}
		f(element)
	}
}

func (d *histogramReader) floats(v jsonwalk.Value) (all []float64) {
	d.each(v, func(v jsonwalk.Value) { all = append(all, d.float(v)) })
	return all
}

// deltas reads counts and returns how each differs from the one before.
func (d *histogramReader) deltas(v jsonwalk.Value) (all []int64) {
	last := int64(0)
	d.each(v, func(v jsonwalk.Value) {
		n, ok := whole(v)
		d.failed = d.failed || !ok || n < 0
		all = append(all, n-last)
		last = n
	})
	return all
}

func (d *histogramReader) spans(v jsonwalk.Value) (all []histogram.Span) {
	d.each(v, func(v jsonwalk.Value) {
		var pair []int64
		d.each(v, func(v jsonwalk.Value) {
			n, ok := whole(v)
			d.failed = d.failed || !ok || len(pair) == 2
			pair = append(pair, n)
		})
		if d.failed || len(pair) != 2 || pair[0] < math.MinInt32 || pair[0] > math.MaxInt32 || pair[1] < 0 || pair[1] > math.MaxUint32 {
			d.failed = true
			return
		}
		all = append(all, histogram.Span{Offset: int32(pair[0]), Length: uint32(pair[1])})
	})
	return all
}
