package chunk_test

import (
	"math"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/archive/chunk"
)

// TestRareBuilderKeepsEverything shows that upstream's iterators read from the pieces
// what was appended, in order of arrival and with the spans as they were sent, that the
// pieces' bounds are right, and that the pieces of a snapshot stay as they were.
func TestRareBuilderKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		arrivals := drawArrivals(t, rapid.IntRange(1, 150).Draw(t, "n"))
		half := rapid.IntRange(0, len(arrivals)).Draw(t, "snapshot at")
		var b chunk.RareBuilder
		var early []chunk.Piece
		var frozen [][]byte
		var want []sample
		for i, a := range arrivals {
			if i == half {
				early = b.Pieces(nil)
				for _, p := range early {
					frozen = append(frozen, slices.Clone(p.Data))
				}
			}
			require.NoError(t, a.addTo(&b))
			want = append(want, a.sample())
		}
		var have []sample
		for _, p := range b.Pieces(nil) {
			samples := upstreamSamples(p)
			require.Len(t, samples, p.Samples)
			require.LessOrEqual(t, p.Samples, 120)
			require.Equal(t, samples[0].Time, p.MinMillis)
			require.Equal(t, samples[len(samples)-1].Time, p.MaxMillis)
			for i, s := range samples {
				require.True(t, i == 0 || s.Time > samples[i-1].Time)
				s.Hint = 0
				have = append(have, s)
			}
		}
		require.Equal(t, want, have)
		for i, p := range early {
			require.Equal(t, frozen[i], p.Data)
		}
		require.Positive(t, b.Bytes())
		b.Reset()
		require.Zero(t, b.Bytes())
		require.Empty(t, b.Pieces(nil))
	})
}

func counterReset(p chunk.Piece) chunkenc.CounterResetHeader {
	c, err := chunkenc.FromData(p.Encoding, p.Data)
	if err != nil {
		panic(err)
	}
	return c.(interface {
		GetCounterResetHeader() chunkenc.CounterResetHeader
	}).GetCounterResetHeader()
}

// TestRareBuilderCuts shows where a chunk of histograms ends and what the next one's
// header says, for integer and float histograms, with and without start timestamps.
func TestRareBuilderCuts(t *testing.T) {
	base := func() *histogram.Histogram {
		return &histogram.Histogram{
			Schema: 1, Count: 9, Sum: 5, ZeroThreshold: 0.001, ZeroCount: 2,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{3, 1},
		}
	}
	type change func(h *histogram.Histogram)
	// f appends base and a changed base one after the other.
	f := func(name string, mutate change, wantPieces int, want chunkenc.CounterResetHeader) {
		t.Helper()
		for _, start := range []int64{0, 500} {
			for _, float := range []bool{false, true} {
				var b chunk.RareBuilder
				second := base()
				mutate(second)
				if float {
					require.NoError(t, b.AppendFloatHistogram(1000, start, base().ToFloat(nil)))
					require.NoError(t, b.AppendFloatHistogram(2000, start, second.ToFloat(nil)))
				} else {
					require.NoError(t, b.AppendHistogram(1000, start, base()))
					require.NoError(t, b.AppendHistogram(2000, start, second))
				}
				pieces := b.Pieces(nil)
				require.Len(t, pieces, wantPieces, "%s float=%v start=%d", name, float, start)
				require.Equal(t, want, counterReset(pieces[len(pieces)-1]), "%s float=%v start=%d", name, float, start)
			}
		}
	}
	f("same", func(*histogram.Histogram) {}, 1, chunkenc.UnknownCounterReset)
	f("more", func(h *histogram.Histogram) { h.Count, h.PositiveBuckets[0] = 10, 4 }, 1, chunkenc.UnknownCounterReset)
	f("count fell", func(h *histogram.Histogram) { h.Count, h.ZeroCount = 8, 1 }, 2, chunkenc.CounterReset)
	f("bucket fell", func(h *histogram.Histogram) { h.PositiveBuckets[0] = 2 }, 2, chunkenc.CounterReset)
	f("said so", func(h *histogram.Histogram) { h.CounterResetHint = histogram.CounterReset }, 2, chunkenc.CounterReset)
	f("schema", func(h *histogram.Histogram) { h.Schema = 2 }, 2, chunkenc.UnknownCounterReset)
	f("zero threshold", func(h *histogram.Histogram) { h.ZeroThreshold = 0.002 }, 2, chunkenc.UnknownCounterReset)
	f("gauge", func(h *histogram.Histogram) { h.CounterResetHint = histogram.GaugeType }, 2, chunkenc.GaugeType)
	f("a bucket more", func(h *histogram.Histogram) {
		h.PositiveSpans = []histogram.Span{{Offset: 0, Length: 3}}
		h.PositiveBuckets = append(h.PositiveBuckets, 0)
	}, 2, chunkenc.NotCounterReset)
	f("a used bucket less", func(h *histogram.Histogram) {
		h.PositiveSpans, h.PositiveBuckets = []histogram.Span{{Offset: 0, Length: 1}}, []int64{5}
	}, 2, chunkenc.CounterReset)
	f("spans and schema", func(h *histogram.Histogram) {
		h.Schema, h.PositiveSpans, h.PositiveBuckets = 0, []histogram.Span{{Offset: 0, Length: 1}}, []int64{7}
	}, 2, chunkenc.UnknownCounterReset)
	f("other spans of negative buckets", func(h *histogram.Histogram) {
		h.Count, h.NegativeSpans, h.NegativeBuckets = 10, []histogram.Span{{Offset: 4, Length: 1}}, []int64{1}
	}, 2, chunkenc.NotCounterReset)
}

// TestRareBuilderAfterGauge shows that nothing is said of a counter histogram that
// follows a gauge histogram in another layout.
func TestRareBuilderAfterGauge(t *testing.T) {
	for _, float := range []bool{false, true} {
		var b chunk.RareBuilder
		for i, h := range []*histogram.Histogram{
			{Count: 5, CounterResetHint: histogram.GaugeType},
			{Count: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{1}},
		} {
			if float {
				require.NoError(t, b.AppendFloatHistogram(int64(i), 0, h.ToFloat(nil)))
			} else {
				require.NoError(t, b.AppendHistogram(int64(i), 0, h))
			}
		}
		pieces := b.Pieces(nil)
		require.Len(t, pieces, 2)
		require.Equal(t, chunkenc.GaugeType, counterReset(pieces[0]))
		require.Equal(t, chunkenc.UnknownCounterReset, counterReset(pieces[1]))
	}
}

// TestRareBuilderLongSeries shows that a chunk ends at 120 samples and that the next
// one's header then says that the counter was not reset.
func TestRareBuilderLongSeries(t *testing.T) {
	for _, float := range []bool{false, true} {
		var b chunk.RareBuilder
		for i := range 300 {
			h := &histogram.Histogram{Count: uint64(i), Sum: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{int64(i)}}
			if float {
				require.NoError(t, b.AppendFloatHistogram(int64(i), 0, h.ToFloat(nil)))
			} else {
				require.NoError(t, b.AppendHistogram(int64(i), 0, h))
			}
		}
		pieces := b.Pieces(nil)
		require.Len(t, pieces, 3)
		require.Equal(t, 120, pieces[1].Samples)
		require.Equal(t, chunkenc.UnknownCounterReset, counterReset(pieces[0]))
		require.Equal(t, chunkenc.NotCounterReset, counterReset(pieces[1]))
		require.Equal(t, chunkenc.NotCounterReset, counterReset(pieces[2]))
	}
	var b chunk.RareBuilder
	for i := range 121 {
		b.AppendFloat(int64(i), -5, math.Float64bits(1))
	}
	require.Len(t, b.Pieces(nil), 2)
}

// TestRareBuilderRefuses shows that histograms which no chunk can hold are refused as
// the sender's fault and leave the builder as it was.
func TestRareBuilderRefuses(t *testing.T) {
	var b chunk.RareBuilder
	require.NoError(t, b.AppendHistogram(1, 0, &histogram.Histogram{Count: 1}))
	before := b.Pieces(nil)
	f := func(h *histogram.Histogram) {
		t.Helper()
		require.ErrorIs(t, b.AppendHistogram(2, 0, h), chunk.ErrHistogram)
		fh := &histogram.FloatHistogram{
			Schema: h.Schema, PositiveSpans: h.PositiveSpans, NegativeSpans: h.NegativeSpans,
			CustomValues: h.CustomValues, PositiveBuckets: make([]float64, len(h.PositiveBuckets)),
		}
		require.ErrorIs(t, b.AppendFloatHistogram(2, 0, fh), chunk.ErrHistogram)
		require.Equal(t, before, b.Pieces(nil))
	}
	f(&histogram.Histogram{Schema: 9})
	f(&histogram.Histogram{Schema: -5})
	f(&histogram.Histogram{Schema: 1000})
	f(&histogram.Histogram{CustomValues: []float64{1}})
	f(&histogram.Histogram{PositiveBuckets: []int64{1}})
	f(&histogram.Histogram{PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1}})
	f(&histogram.Histogram{NegativeSpans: []histogram.Span{{Length: math.MaxUint32}, {Length: math.MaxUint32}}})
}

// TestRareBuilderCopies shows that a histogram may be overwritten after it was appended,
// and that appending doesn't change it.
func TestRareBuilderCopies(t *testing.T) {
	var b chunk.RareBuilder
	h := &histogram.Histogram{
		Schema: histogram.CustomBucketsSchema, Count: 4, Sum: 2, CustomValues: []float64{1, 2},
		PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{3, -2},
	}
	want := describe(h)
	require.NoError(t, b.AppendHistogram(1, 0, h))
	require.NoError(t, b.AppendHistogram(2, 0, h))
	require.Equal(t, want, describe(h))
	h.PositiveSpans[0].Length, h.PositiveBuckets[0], h.CustomValues[0] = 1, 9, 0
	for _, p := range b.Pieces(nil) {
		for _, s := range upstreamSamples(p) {
			require.Equal(t, want, s.Histogram)
		}
	}
}
