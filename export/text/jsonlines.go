package text

import (
	"context"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/export"
)

// lineSamplesMax is how many samples a line has, so that lines are some 300 kB.
const lineSamplesMax = 10_000

// jsonLines writes lines as VictoriaMetrics' /api/v1/export does and its /api/v1/import takes:
//
//	{"metric":{"__name__":"up","job":"a"},"values":[1,null,"Infinity"],"timestamps":[1700000000000,...]}
//
// Times are Unix ms, null is NaN. A series has several lines if it is long, and lines of their own for NaN and infinite values,
// since older VictoriaMetrics, such as 1.79, refuses lines that have one. Native histograms are lines of another form,
// that VictoriaMetrics passes over, with histograms in the place of values. The counts of buckets are absolute; spans
// are pairs of offset and length as in Prometheus; custom_values are the bounds of custom buckets. Numbers of floats
// histograms may be fractions. What is 0 or empty is left out, but for count and sum:
//
//	{"metric":{...},"histograms":[{"schema":3,"zero_threshold":1e-128,"zero_count":2,"count":5,"sum":18.4,"float":true,"gauge":true,
//	"positive_spans":[[0,2]],"positive_counts":[1,2],"negative_spans":[],"negative_counts":[],"custom_values":[]}],"timestamps":[...]}
func (w *writer) jsonLines(ctx context.Context) error {
	l := &lineWriter{w: w}
	return w.walk(ctx, nil, nil, func(p *export.Piece) error {
		if p.First {
			l.begin(p.Labels)
		}
		if err := l.samples(p.Samples); err != nil {
			return err
		}
		return l.line()
	})
}

// lineWriter makes the lines of a series: values and times grow side by side.
type lineWriter struct {
	w      *writer
	metric []byte
	values []byte
	times  []byte
	n      int
	// histograms tells what the line has, special that its values are NaN or infinite.
	histograms     bool
	special        bool
	histogram      *histogram.Histogram
	floatHistogram *histogram.FloatHistogram
}

func (l *lineWriter) begin(ls labels.Labels) {
	b := append(l.metric[:0], `{"metric":{`...)
	first := true
	ls.Range(func(x labels.Label) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, x.Name)
		b = append(b, ':')
		b = appendString(b, x.Value)
	})
	l.metric = append(b, '}', ',')
}

func (l *lineWriter) samples(it chunkenc.Iterator) error {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		isHistogram, special := kind != chunkenc.ValFloat, false
		if !isHistogram {
			_, v := it.At()
			special = math.IsNaN(v) || math.IsInf(v, 0)
		}
		if isHistogram != l.histograms || special != l.special || l.n >= lineSamplesMax {
			if err := l.line(); err != nil {
				return err
			}
			l.histograms, l.special = isHistogram, special
		}
		t, ok := l.sample(kind, it)
		if !ok {
			continue
		}
		l.times = append(strconv.AppendInt(l.times, t, 10), ',')
		l.values = append(l.values, ',')
		l.n++
	}
	return it.Err()
}

// sample appends the value of a sample; ok is false for stale markers.
func (l *lineWriter) sample(kind chunkenc.ValueType, it chunkenc.Iterator) (t int64, ok bool) {
	switch kind {
	case chunkenc.ValFloat:
		var v float64
		if t, v, ok = l.w.float(it); ok {
			l.values = appendJSONFloat(l.values, v)
		}
		return t, ok
	case chunkenc.ValHistogram:
		// Deltas become counts.
		t, l.histogram = it.AtHistogram(l.histogram)
		if ok = !value.IsStaleNaN(l.histogram.Sum); ok {
			l.values = appendHistogram(l.values, l.histogram.ToFloat(nil), false)
		}
	default:
		t, l.floatHistogram = it.AtFloatHistogram(l.floatHistogram)
		if ok = !value.IsStaleNaN(l.floatHistogram.Sum); ok {
			l.values = appendHistogram(l.values, l.floatHistogram, true)
		}
	}
	if !ok {
		l.w.stats.StaleMarkers++
		return t, false
	}
	if it.AtST() != 0 {
		l.w.stats.StartTimestamps++
	}
	l.w.stats.Samples++
	l.w.sampled = true
	return t, true
}

// line writes what has come together.
func (l *lineWriter) line() error {
	if l.n == 0 {
		return nil
	}
	b := append(l.w.buf[:0], l.metric...)
	if l.histograms {
		b = append(b, `"histograms":[`...)
	} else {
		b = append(b, `"values":[`...)
	}
	b = append(b, l.values[:len(l.values)-1]...)
	b = append(b, `],"timestamps":[`...)
	b = append(b, l.times[:len(l.times)-1]...)
	l.w.buf = append(b, ']', '}', '\n')
	l.values, l.times, l.n = l.values[:0], l.times[:0], 0
	return l.w.put()
}

func appendJSONFloat(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, "null"...)
	case math.IsInf(v, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(b, `"-Infinity"`...)
	}
	return appendFloat(b, v)
}

func appendHistogram(b []byte, h *histogram.FloatHistogram, isFloat bool) []byte {
	b = strconv.AppendInt(append(b, `{"schema":`...), int64(h.Schema), 10)
	number := func(name string, v float64) {
		b = appendJSONFloat(append(append(append(b, ',', '"'), name...), '"', ':'), v)
	}
	if h.ZeroThreshold != 0 {
		number("zero_threshold", h.ZeroThreshold)
	}
	if h.ZeroCount != 0 {
		number("zero_count", h.ZeroCount)
	}
	number("count", h.Count)
	number("sum", h.Sum)
	if isFloat {
		b = append(b, `,"float":true`...)
	}
	if h.CounterResetHint == histogram.GaugeType {
		b = append(b, `,"gauge":true`...)
	}
	buckets := func(sign string, spans []histogram.Span, counts []float64) {
		if len(spans) == 0 {
			return
		}
		b = append(append(append(b, `,"`...), sign...), `_spans":[`...)
		for i, s := range spans {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(append(b, '['), int64(s.Offset), 10)
			b = append(strconv.AppendUint(append(b, ','), uint64(s.Length), 10), ']')
		}
		b = append(append(append(b, `],"`...), sign...), `_counts":`...)
		b = appendFloats(b, counts)
	}
	buckets("positive", h.PositiveSpans, h.PositiveBuckets)
	buckets("negative", h.NegativeSpans, h.NegativeBuckets)
	if len(h.CustomValues) > 0 {
		b = appendFloats(append(b, `,"custom_values":`...), h.CustomValues)
	}
	return append(b, '}')
}

func appendFloats(b []byte, vs []float64) []byte {
	b = append(b, '[')
	for i, v := range vs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONFloat(b, v)
	}
	return append(b, ']')
}

// appendString appends a string of JSON. Bytes that are no UTF-8 become the replacement character.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
