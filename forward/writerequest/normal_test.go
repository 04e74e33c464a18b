package writerequest_test

import (
	"math"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// bitsOf are the floats' bits, since a NaN equals nothing. No floats are nil.
func bitsOf(values []float64) (out []uint64) {
	for _, v := range values {
		out = append(out, math.Float64bits(v))
	}
	return out
}

// point is a sample, an exemplar without its labels.
type point struct {
	Millis, Start int64
	Bits          uint64
}

// bars is a histogram of either version.
type bars struct {
	Millis, Start  int64
	Schema         int32
	Hint           int32
	IsFloat        bool
	Counts         [2]uint64
	Bits           []uint64
	Spans          []writev2.BucketSpan
	PositiveSpans  int
	Deltas         [2][]int64
	PositiveCounts []uint64
	NegativeCounts []uint64
	Custom         []uint64
}

func barsOf(h *writev2.Histogram) bars {
	b := bars{
		Millis: h.Timestamp, Start: h.StartTimestamp, Schema: h.Schema, Hint: int32(h.ResetHint), IsFloat: h.IsFloatHistogram(),
		Counts: [2]uint64{h.GetCountInt(), h.GetZeroCountInt()},
		Bits:   bitsOf([]float64{h.Sum, h.ZeroThreshold, h.GetCountFloat(), h.GetZeroCountFloat()}),
		Spans:  append(append([]writev2.BucketSpan(nil), h.PositiveSpans...), h.NegativeSpans...), PositiveSpans: len(h.PositiveSpans),
		PositiveCounts: bitsOf(h.PositiveCounts), NegativeCounts: bitsOf(h.NegativeCounts), Custom: bitsOf(h.CustomValues),
	}
	b.Deltas[0] = append(b.Deltas[0], h.PositiveDeltas...)
	b.Deltas[1] = append(b.Deltas[1], h.NegativeDeltas...)
	return b
}

// barsOf1 copies field by field, since a marshal would lose the sign of zeros.
func barsOf1(h *prompb.Histogram) bars {
	two := writev2.Histogram{
		Sum: h.Sum, Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, NegativeDeltas: h.NegativeDeltas, NegativeCounts: h.NegativeCounts,
		PositiveDeltas: h.PositiveDeltas, PositiveCounts: h.PositiveCounts, ResetHint: writev2.Histogram_ResetHint(h.ResetHint),
		Timestamp: h.Timestamp, CustomValues: h.CustomValues,
	}
	if h.IsFloatHistogram() {
		two.Count = &writev2.Histogram_CountFloat{CountFloat: h.GetCountFloat()}
		two.ZeroCount = &writev2.Histogram_ZeroCountFloat{ZeroCountFloat: h.GetZeroCountFloat()}
	} else {
		two.Count = &writev2.Histogram_CountInt{CountInt: h.GetCountInt()}
		two.ZeroCount = &writev2.Histogram_ZeroCountInt{ZeroCountInt: h.GetZeroCountInt()}
	}
	for _, s := range h.PositiveSpans {
		two.PositiveSpans = append(two.PositiveSpans, writev2.BucketSpan{Offset: s.Offset, Length: s.Length})
	}
	for _, s := range h.NegativeSpans {
		two.NegativeSpans = append(two.NegativeSpans, writev2.BucketSpan{Offset: s.Offset, Length: s.Length})
	}
	return barsOf(&two)
}

// plain is a series in a form that can be compared.
type plain struct {
	Labels         any
	Metadata       any
	Samples        []point
	Bars           []bars
	Exemplars      []point
	ExemplarLabels []string
}

func normal1(r *prompb.WriteRequest) any {
	var out []plain
	for i := range r.Timeseries {
		ts := &r.Timeseries[i]
		p := plain{Labels: ts.Labels}
		for _, s := range ts.Samples {
			p.Samples = append(p.Samples, point{s.Timestamp, 0, math.Float64bits(s.Value)})
		}
		for j := range ts.Histograms {
			p.Bars = append(p.Bars, barsOf1(&ts.Histograms[j]))
		}
		for _, e := range ts.Exemplars {
			p.Exemplars = append(p.Exemplars, point{e.Timestamp, 0, math.Float64bits(e.Value)})
			text := ""
			for _, l := range e.Labels {
				text += l.Name + "=" + l.Value
			}
			p.ExemplarLabels = append(p.ExemplarLabels, text)
		}
		out = append(out, p)
	}
	return []any{out, r.Metadata}
}

func normal2(series []resolved) (out []plain) {
	for i := range series {
		s := &series[i]
		p := plain{Labels: s.Labels, Metadata: s.Metadata}
		for _, x := range s.Samples {
			p.Samples = append(p.Samples, point{x.Timestamp, x.StartTimestamp, math.Float64bits(x.Value)})
		}
		for j := range s.Histograms {
			p.Bars = append(p.Bars, barsOf(&s.Histograms[j]))
		}
		for _, e := range s.Exemplars {
			p.Exemplars = append(p.Exemplars, point{e.Ts, 0, math.Float64bits(e.Value)})
			p.ExemplarLabels = append(p.ExemplarLabels, e.Labels.String())
		}
		out = append(out, p)
	}
	return out
}
