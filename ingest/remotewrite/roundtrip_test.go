package remotewrite_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/remotewrite"
)

// receiver is a handler over a sink in memory.
type receiver struct {
	*remotewrite.Handler
	sink *ingesttest.Sink
}

func newReceiver() *receiver {
	return newLimitedReceiver(ingest.Limits{})
}

func newLimitedReceiver(limits ingest.Limits) *receiver {
	sink := ingesttest.NewSink()
	return &receiver{remotewrite.New(sink, limits, ingest.NewMetrics(prometheus.NewRegistry()), discard, fixedNow, remotewrite.Options{}), sink}
}

// drawn is where random messages come from.
type drawn struct{ *rapid.T }

func (d drawn) pick(label string, n int) int { return rapid.IntRange(0, n-1).Draw(d.T, label) }

func (d drawn) float() float64 {
	return rapid.OneOf(
		rapid.SampledFrom([]float64{0, 1, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.Float64frombits(value.StaleNaN), math.Float64frombits(0x7ff8_0000_dead_beef)}),
		rapid.Float64(),
	).Draw(d.T, "float")
}

func (d drawn) millis() int64 {
	return rapid.OneOf(
		rapid.Int64Range(1_600_000_000_000, 1_800_000_000_000),
		rapid.SampledFrom([]int64{0, 1, -1, math.MinInt64, math.MaxInt64, 1 << 35, 1 << 42}),
		rapid.Int64(),
	).Draw(d.T, "millis")
}

func (d drawn) text() string {
	return rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "job", "é", "with space", "\n"}), rapid.StringN(1, 20, -1)).Draw(d.T, "text")
}

// labels draws a valid label set, not always sorted, sometimes with empty values.
func (d drawn) labels() pairs {
	used := map[string]bool{"__name__": true}
	var out pairs
	add := func(name, text string) {
		out = append(out, struct{ Name, Value string }{name, text})
	}
	add("__name__", fmt.Sprintf("metric_%d%s", d.pick("metric", 5), []string{"", "_bucket", "_sum", "_total"}[d.pick("suffix", 4)]))
	for range d.pick("labels", 6) {
		name := d.text()
		if used[name] {
			continue
		}
		used[name] = true
		value := d.text()
		if d.pick("empty", 8) == 0 {
			value = ""
		}
		add(name, value)
	}
	if d.pick("unsorted", 3) == 0 {
		for i := range out {
			j := d.pick("swap", len(out))
			out[i], out[j] = out[j], out[i]
		}
	}
	return out
}

// histogram draws a valid histogram in the form of 2.0; 1.0 has the same fields.
func (d drawn) histogram() writev2.Histogram {
	h := writev2.Histogram{
		Sum: d.float(), Timestamp: d.millis(), StartTimestamp: d.millis(),
		ResetHint: writev2.Histogram_ResetHint(d.pick("hint", 4)),
	}
	custom := d.pick("custom", 3) == 0
	n := d.pick("buckets", 6)
	var deltas []int64
	var counts []float64
	total, last := uint64(0), int64(0)
	for range n {
		c := int64(d.pick("count", 1000))
		deltas, counts = append(deltas, c-last), append(counts, float64(c))
		last = c
		total += uint64(c)
	}
	h.PositiveSpans = []writev2.BucketSpan{{Offset: int32(d.pick("offset", 5)), Length: uint32(n)}}
	zero := uint64(0)
	if custom {
		h.Schema = -53
		for i := range n + 5 {
			h.CustomValues = append(h.CustomValues, float64(i))
		}
	} else {
		h.Schema = int32(d.pick("schema", 14)) - 4
		h.ZeroThreshold = 0.001
		zero = uint64(d.pick("zero", 10))
	}
	total += zero
	if math.IsNaN(h.Sum) {
		total += 3
	}
	if d.pick("float histogram", 2) == 0 {
		h.Count = &writev2.Histogram_CountFloat{CountFloat: float64(total)}
		h.ZeroCount = &writev2.Histogram_ZeroCountFloat{ZeroCountFloat: float64(zero)}
		h.PositiveCounts = counts
	} else {
		h.Count = &writev2.Histogram_CountInt{CountInt: total}
		h.ZeroCount = &writev2.Histogram_ZeroCountInt{ZeroCountInt: zero}
		h.PositiveDeltas = deltas
	}
	return h
}

func histogram1(h writev2.Histogram) prompb.Histogram {
	b, err := h.Marshal()
	if err != nil {
		panic(err)
	}
	var out prompb.Histogram
	if err := out.Unmarshal(b); err != nil {
		panic(err)
	}
	return out
}

func (d drawn) request1() *prompb.WriteRequest {
	var req prompb.WriteRequest
	for range d.pick("series", 8) {
		var ts prompb.TimeSeries
		for _, l := range d.labels() {
			ts.Labels = append(ts.Labels, prompb.Label{Name: l.Name, Value: l.Value})
		}
		for range []int{1, 1, 1, 0, 2, 3}[d.pick("samples", 6)] {
			ts.Samples = append(ts.Samples, prompb.Sample{Value: d.float(), Timestamp: d.millis()})
		}
		for range []int{0, 0, 1, 2}[d.pick("histograms", 4)] {
			ts.Histograms = append(ts.Histograms, histogram1(d.histogram()))
		}
		for range []int{0, 0, 1, 2}[d.pick("exemplars", 4)] {
			ts.Exemplars = append(ts.Exemplars, prompb.Exemplar{Labels: []prompb.Label{{Name: "trace_id", Value: d.text()}}, Value: d.float(), Timestamp: d.millis()})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	for range d.pick("metadata", 3) {
		req.Metadata = append(req.Metadata, prompb.MetricMetadata{
			Type: prompb.MetricMetadata_MetricType(d.pick("type", 9)), MetricFamilyName: d.text(), Help: d.text(), Unit: d.text(),
		})
	}
	return &req
}

func (d drawn) request2() *writev2.Request {
	var req writev2.Request
	symbols := writev2.NewSymbolTable()
	for range d.pick("series", 8) {
		var ts writev2.TimeSeries
		for _, l := range d.labels() {
			ts.LabelsRefs = append(ts.LabelsRefs, symbols.Symbolize(l.Name), symbols.Symbolize(l.Value))
		}
		if d.pick("native", 3) == 0 {
			for range 1 + d.pick("histograms", 2) {
				ts.Histograms = append(ts.Histograms, d.histogram())
			}
		} else {
			for range []int{1, 1, 1, 2, 3}[d.pick("samples", 5)] {
				s := writev2.Sample{Value: d.float(), Timestamp: d.millis()}
				if d.pick("start", 2) == 0 {
					s.StartTimestamp = d.millis()
				}
				ts.Samples = append(ts.Samples, s)
			}
		}
		for range []int{0, 0, 1, 2}[d.pick("exemplars", 4)] {
			ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: []uint32{symbols.Symbolize("trace_id"), symbols.Symbolize(d.text())}, Value: d.float(), Timestamp: d.millis()})
		}
		if d.pick("metadata", 2) == 0 {
			ts.Metadata = writev2.Metadata{Type: writev2.Metadata_MetricType(d.pick("type", 9)), HelpRef: symbols.Symbolize(d.text()), UnitRef: symbols.Symbolize(d.text())}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	return &req
}

// TestRoundTrip1 shows that whatever upstream encodes as 1.0 is stored as upstream
// decodes it, bit for bit, whether the series are new or known.
func TestRoundTrip1(t *testing.T) {
	r := newReceiver()
	rapid.Check(t, func(t *rapid.T) {
		req := drawn{t}.request1()
		body, err := req.Marshal()
		require.NoError(t, err)
		var decoded prompb.WriteRequest
		require.NoError(t, decoded.Unmarshal(body))
		want := newReference()
		want.request1(&decoded)
		for range 2 {
			r.sink.Clear()
			answer := r.post(t, contentType1, snappy.Encode(nil, body))
			require.Equal(t, dump(want.written, want.families), dump(r.sink.Written(), r.sink.Families()))
			require.Equal(t, codeOf(want.refused), answer.code, answer.body)
		}
	})
}

// TestRoundTrip2 shows the same for 2.0.
func TestRoundTrip2(t *testing.T) {
	r := newReceiver()
	rapid.Check(t, func(t *rapid.T) {
		req := drawn{t}.request2()
		body, err := req.Marshal()
		require.NoError(t, err)
		var decoded writev2.Request
		require.NoError(t, decoded.Unmarshal(body))
		want := newReference()
		want.request2(&decoded)
		for range 2 {
			r.sink.Clear()
			answer := r.post(t, contentType2, snappy.Encode(nil, body))
			require.Equal(t, dump(want.written, want.families), dump(r.sink.Written(), r.sink.Families()))
			require.Equal(t, codeOf(want.refused), answer.code, answer.body)
			if !want.refused {
				samples, histograms, exemplars := 0, 0, 0
				for _, s := range want.written {
					samples, histograms, exemplars = samples+len(s.Samples), histograms+len(s.Histograms), exemplars+len(s.Exemplars)
				}
				require.Equal(t, []int{samples, histograms, exemplars}, answer.written)
			}
		}
	})
}

func codeOf(refused bool) int {
	if refused {
		return 400
	}
	return 204
}
