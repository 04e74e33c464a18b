package nats

import (
	"encoding/json"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"varve/forward"
)

// jsonPrefix is what all objects of a series begin with.
func jsonPrefix(ls labels.Labels) ([]byte, error) {
	b, err := json.Marshal(ls)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(`{"labels":`), b...), `,"timestamp_ms":`...), nil
}

// appendFloat appends an object for a sample, and a newline:
//
//	{"labels":{"__name__":"up","job":"a"},"timestamp_ms":1700000000000,"value":"1"}
//
// The value is a string, as in Prometheus' API: the shortest decimal that reads back as the same number, NaN, +Inf or -Inf. A stale
// marker is NaN with "stale":true; other payloads of NaN are lost. "start_ms" is there if a start timestamp is known.
func appendFloat(dst, prefix []byte, f *forward.Float) []byte {
	dst = appendTimes(dst, prefix, f.TimeMillis, f.StartMillis)
	dst = append(dst, `,"value":`...)
	dst = appendNumber(dst, f.Value)
	if value.IsStaleNaN(f.Value) {
		dst = append(dst, `,"stale":true`...)
	}
	return append(dst, "}\n"...)
}

func appendTimes(dst, prefix []byte, timeMillis, startMillis int64) []byte {
	dst = append(dst, prefix...)
	dst = strconv.AppendInt(dst, timeMillis, 10)
	if startMillis != 0 {
		dst = append(dst, `,"start_ms":`...)
		dst = strconv.AppendInt(dst, startMillis, 10)
	}
	return dst
}

func appendNumber(dst []byte, v float64) []byte {
	dst = append(dst, '"')
	dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
	return append(dst, '"')
}

// resetHints are the names of hints; the empty one is left out.
var resetHints = map[histogram.CounterResetHint]string{histogram.CounterReset: "reset", histogram.NotCounterReset: "not_reset", histogram.GaugeType: "gauge"}

// appendHistogram appends an object for a native histogram, and a newline. In the place of the value it has
//
//	"histogram":{"kind":"int","schema":2,"count":"9","sum":"12.5","zero_threshold":"0.001","zero_count":"2",
//	  "positive_spans":[[-2,2],[3,1]],"positive_buckets":["1","2","1"],"reset_hint":"reset"}
//
// The kind is int or float. A span is its offset to the one before, or in the schema if it is the first, and its length in buckets. Buckets are
// counts, neither cumulated nor differences. negative_spans, negative_buckets and custom_values are alike; lists that are empty
// are left out, and so is reset_hint (reset, not_reset or gauge) if it says nothing. Numbers are strings as those of samples. A stale
// marker has a sum of NaN and "stale":true beside the histogram.
func appendHistogram(dst, prefix []byte, h *forward.Histogram) []byte {
	dst = appendTimes(dst, prefix, h.TimeMillis, h.StartMillis)
	sum := 0.0
	if h.Int != nil {
		sum = h.Int.Sum
		dst = appendIntHistogram(dst, h.Int)
	} else {
		sum = h.Float.Sum
		dst = appendFloatHistogram(dst, h.Float)
	}
	if value.IsStaleNaN(sum) {
		dst = append(dst, `,"stale":true`...)
	}
	return append(dst, "}\n"...)
}

func appendIntHistogram(dst []byte, h *histogram.Histogram) []byte {
	dst = append(dst, `,"histogram":{"kind":"int","schema":`...)
	dst = strconv.AppendInt(dst, int64(h.Schema), 10)
	dst = append(dst, `,"count":"`...)
	dst = strconv.AppendUint(dst, h.Count, 10)
	dst = append(dst, `","zero_count":"`...)
	dst = strconv.AppendUint(dst, h.ZeroCount, 10)
	dst = append(dst, '"')
	dst = appendShape(dst, h.Sum, h.ZeroThreshold, h.CounterResetHint, h.CustomValues)
	dst = appendSpans(dst, "positive", h.PositiveSpans)
	dst = appendDeltas(dst, "positive", h.PositiveBuckets)
	dst = appendSpans(dst, "negative", h.NegativeSpans)
	dst = appendDeltas(dst, "negative", h.NegativeBuckets)
	return append(dst, '}')
}

func appendFloatHistogram(dst []byte, h *histogram.FloatHistogram) []byte {
	dst = append(dst, `,"histogram":{"kind":"float","schema":`...)
	dst = strconv.AppendInt(dst, int64(h.Schema), 10)
	dst = append(dst, `,"count":`...)
	dst = appendNumber(dst, h.Count)
	dst = append(dst, `,"zero_count":`...)
	dst = appendNumber(dst, h.ZeroCount)
	dst = appendShape(dst, h.Sum, h.ZeroThreshold, h.CounterResetHint, h.CustomValues)
	dst = appendSpans(dst, "positive", h.PositiveSpans)
	dst = appendNumbers(dst, "positive_buckets", h.PositiveBuckets)
	dst = appendSpans(dst, "negative", h.NegativeSpans)
	dst = appendNumbers(dst, "negative_buckets", h.NegativeBuckets)
	return append(dst, '}')
}

// appendShape appends what both kinds have alike.
func appendShape(dst []byte, sum, zeroThreshold float64, hint histogram.CounterResetHint, bounds []float64) []byte {
	dst = append(dst, `,"sum":`...)
	dst = appendNumber(dst, sum)
	dst = append(dst, `,"zero_threshold":`...)
	dst = appendNumber(dst, zeroThreshold)
	if name := resetHints[hint]; name != "" {
		dst = append(dst, `,"reset_hint":"`...)
		dst = append(dst, name...)
		dst = append(dst, '"')
	}
	return appendNumbers(dst, "custom_values", bounds)
}

// appendList begins a list of a member, or goes on in it.
func appendList(dst []byte, i int, name string) []byte {
	if i > 0 {
		return append(dst, ',')
	}
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	return append(dst, `":[`...)
}

func appendSpans(dst []byte, sign string, spans []histogram.Span) []byte {
	for i, s := range spans {
		dst = appendList(dst, i, sign+"_spans")
		dst = append(dst, '[')
		dst = strconv.AppendInt(dst, int64(s.Offset), 10)
		dst = append(dst, ',')
		dst = strconv.AppendUint(dst, uint64(s.Length), 10)
		dst = append(dst, ']')
	}
	return appendEnd(dst, len(spans))
}

func appendDeltas(dst []byte, sign string, deltas []int64) []byte {
	count := int64(0)
	for i, d := range deltas {
		count += d
		dst = appendList(dst, i, sign+"_buckets")
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, count, 10)
		dst = append(dst, '"')
	}
	return appendEnd(dst, len(deltas))
}

func appendNumbers(dst []byte, name string, values []float64) []byte {
	for i, v := range values {
		dst = appendList(dst, i, name)
		dst = appendNumber(dst, v)
	}
	return appendEnd(dst, len(values))
}

func appendEnd(dst []byte, n int) []byte {
	if n == 0 {
		return dst
	}
	return append(dst, ']')
}
