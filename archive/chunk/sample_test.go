package chunk_test

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"pgregory.net/rapid"

	"varve/archive/chunk"
)

// sample is one sample in a form that compares by bits.
type sample struct {
	Time, Start int64
	Kind        chunkenc.ValueType
	Bits        uint64                     // of a float
	Histogram   string                     // all of a histogram but its hint
	Hint        histogram.CounterResetHint // of a histogram
}

func describe(h *histogram.Histogram) string {
	return fmt.Sprintf("%d %x %d %d %x %v %v %v %v %x", h.Schema, math.Float64bits(h.ZeroThreshold), h.Count, h.ZeroCount,
		math.Float64bits(h.Sum), h.PositiveSpans, h.NegativeSpans, h.PositiveBuckets, h.NegativeBuckets, bitsOf(h.CustomValues))
}

func describeFloat(h *histogram.FloatHistogram) string {
	return fmt.Sprintf("%d %x %x %x %x %v %v %x %x %x", h.Schema, math.Float64bits(h.ZeroThreshold), math.Float64bits(h.Count),
		math.Float64bits(h.ZeroCount), math.Float64bits(h.Sum), h.PositiveSpans, h.NegativeSpans,
		bitsOf(h.PositiveBuckets), bitsOf(h.NegativeBuckets), bitsOf(h.CustomValues))
}

// current returns the iterator's sample.
func current(it chunkenc.Iterator, kind chunkenc.ValueType) sample {
	s := sample{Time: it.AtT(), Start: it.AtST(), Kind: kind}
	switch kind {
	case chunkenc.ValFloat:
		_, v := it.At()
		s.Bits = math.Float64bits(v)
	case chunkenc.ValHistogram:
		_, h := it.AtHistogram(nil)
		s.Histogram, s.Hint = describe(h), h.CounterResetHint
	case chunkenc.ValFloatHistogram:
		_, h := it.AtFloatHistogram(nil)
		s.Histogram, s.Hint = describeFloat(h), h.CounterResetHint
	}
	return s
}

func collect(it chunkenc.Iterator) []sample {
	var out []sample
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		out = append(out, current(it, kind))
	}
	if it.Err() != nil {
		panic(it.Err())
	}
	return out
}

// upstreamSamples reads a piece with upstream's iterator.
func upstreamSamples(p chunk.Piece) []sample {
	c, err := chunkenc.FromData(p.Encoding, p.Data)
	if err != nil {
		panic(err)
	}
	return collect(c.Iterator(nil))
}

func columnSamples(c *chunk.Column) []sample {
	var it chunk.Iterator
	it.Reset(c)
	return collect(&it)
}

// arrival is a sample as a sender sends it.
type arrival struct {
	time, start int64
	bits        uint64
	int         *histogram.Histogram
	float       *histogram.FloatHistogram
}

func (a arrival) addTo(b *chunk.RareBuilder) error {
	switch {
	case a.int != nil:
		return b.AppendHistogram(a.time, a.start, a.int)
	case a.float != nil:
		return b.AppendFloatHistogram(a.time, a.start, a.float)
	default:
		b.AppendFloat(a.time, a.start, a.bits)
		return nil
	}
}

// sample is what is to be read back, but for the hint.
func (a arrival) sample() sample {
	s := sample{Time: a.time, Start: a.start}
	switch {
	case a.int != nil:
		s.Kind, s.Histogram = chunkenc.ValHistogram, describe(a.int)
		if value.IsStaleNaN(a.int.Sum) {
			s.Histogram = describe(&histogram.Histogram{Sum: a.int.Sum})
		}
	case a.float != nil:
		s.Kind, s.Histogram = chunkenc.ValFloatHistogram, describeFloat(a.float)
		if value.IsStaleNaN(a.float.Sum) {
			s.Histogram = describeFloat(&histogram.FloatHistogram{Sum: a.float.Sum})
		}
	default:
		s.Kind, s.Bits = chunkenc.ValFloat, a.bits
	}
	return s
}

// histograms draws histograms of one series: mostly growing counts in one layout,
// now and then a reset, another layout, schema, bounds or hint, or a stale marker.
type histograms struct {
	layout int
	counts [4]int64
}

var spanSets = [][]histogram.Span{
	{{Offset: 0, Length: 2}},
	{{Offset: 0, Length: 2}, {Offset: 1, Length: 2}},
	{{Offset: -3, Length: 1}, {Offset: 0, Length: 0}, {Offset: 5, Length: 2}},
	nil,
}

func (g *histograms) draw(t *rapid.T) *histogram.Histogram {
	switch rapid.IntRange(0, 19).Draw(t, "turn") {
	case 0:
		return &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	case 1:
		g.counts = [4]int64{}
	case 2, 3:
		g.layout = rapid.IntRange(0, len(spanSets)-1).Draw(t, "layout")
	}
	for i := range g.counts {
		g.counts[i] += int64(rapid.IntRange(0, 9).Draw(t, "more"))
	}
	h := &histogram.Histogram{
		Count: uint64(g.counts[0] + g.counts[1] + g.counts[2] + g.counts[3]),
		Sum:   math.Float64frombits(rapid.SampledFrom(append(oddValues[:7:7], math.Float64bits(3.5))).Draw(t, "sum")),
		CounterResetHint: rapid.SampledFrom([]histogram.CounterResetHint{
			0, 0, 0, 0, histogram.CounterReset, histogram.NotCounterReset, histogram.GaugeType, histogram.GaugeType,
		}).Draw(t, "hint"),
	}
	if rapid.IntRange(0, 9).Draw(t, "custom") == 0 {
		h.Schema = histogram.CustomBucketsSchema
		h.CustomValues = rapid.SampledFrom([][]float64{{1, 2}, {0.5, 2.25}, {-1, 1e300}}).Draw(t, "bounds")
		h.PositiveSpans, h.PositiveBuckets = spanSets[0], []int64{g.counts[0], g.counts[1] - g.counts[0]}
		return h
	}
	h.Schema = rapid.SampledFrom([]int32{3, 3, 3, 3, -4, 8}).Draw(t, "schema")
	h.ZeroThreshold = rapid.SampledFrom([]float64{1e-128, 1e-128, 1e-128, 0.25, 0}).Draw(t, "threshold")
	h.ZeroCount = uint64(g.counts[3])
	h.PositiveSpans, h.PositiveBuckets = g.side(g.layout)
	h.NegativeSpans, h.NegativeBuckets = g.side((g.layout + 1) % len(spanSets))
	return h
}

func (g *histograms) side(layout int) ([]histogram.Span, []int64) {
	spans := spanSets[layout]
	var deltas []int64
	var last int64
	for _, s := range spans {
		for range s.Length {
			count := g.counts[len(deltas)%len(g.counts)]
			deltas = append(deltas, count-last)
			last = count
		}
	}
	return slices.Clone(spans), deltas
}

// drawArrivals draws what a RareBuilder is for: any kinds in runs, in and out of order.
func drawArrivals(t *rapid.T, n int) []arrival {
	var g histograms
	var out []arrival
	now := rapid.Int64Range(-20, 60).Draw(t, "now")
	kind, hasStart := 0, false
	for range n {
		if rapid.IntRange(0, 5).Draw(t, "switch") == 0 {
			kind = rapid.IntRange(0, 2).Draw(t, "kind")
			hasStart = rapid.Bool().Draw(t, "has start")
		}
		now += rapid.SampledFrom([]int64{1, 1, 1, 1, 2, 3, 0, -4}).Draw(t, "step")
		a := arrival{time: now}
		if hasStart {
			a.start = now - rapid.Int64Range(1, 50).Draw(t, "age")
			if a.start == 0 {
				a.start = -1
			}
		}
		switch kind {
		case 0:
			a.bits = drawValues(t, 1)[0]
		case 1:
			a.int = g.draw(t)
		case 2:
			a.float = g.draw(t).ToFloat(nil)
			if value.IsStaleNaN(a.float.Sum) {
				a.float = &histogram.FloatHistogram{Sum: a.float.Sum}
			}
		}
		out = append(out, a)
	}
	return out
}
