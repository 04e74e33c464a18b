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
	_ "varve/internal/testkit/draws"
)

// rarePieces are the pieces of a RareBuilder that was given the arrivals.
func rarePieces(t require.TestingT, arrivals []arrival) []chunk.Piece {
	var b chunk.RareBuilder
	for _, a := range arrivals {
		require.NoError(t, a.addTo(&b))
	}
	return b.Pieces(nil)
}

// resealed is the column after a way through a bundle.
func resealed(t require.TestingT, c *chunk.Column, clock []int64, mint, maxt int64) *chunk.Column {
	var b chunk.BundleBuilder
	id := chunk.ClockID(1 << 16)
	if clock == nil {
		id = chunk.NoClock
	}
	require.NoError(t, b.Add(77, id, clock, -1, c))
	var bundle chunk.Bundle
	require.NoError(t, chunk.ParseBundle(bundleKey, b.Append(nil, bundleKey), 77, &bundle))
	var out chunk.Column
	require.NoError(t, out.Decode(sealedPieces(&bundle, 77, map[chunk.ClockID][]int64{id: clock}), mint, maxt))
	return &out
}

// TestBundleOfAllKinds shows that floats and histograms of both kinds, in any turn and
// with start timestamps, come back from a bundle with their hints, whole and in part.
func TestBundleOfAllKinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rarePieces(t, drawArrivals(t, rapid.IntRange(1, 60).Draw(t, "n")))
		var c chunk.Column
		require.NoError(t, c.Decode(pieces, math.MinInt64, math.MaxInt64))
		want := columnSamples(&c)
		clock := slices.Clone(c.Times)
		switch rapid.IntRange(0, 2).Draw(t, "clock") {
		case 0:
			clock = nil
		case 1:
			clock = append([]int64{clock[0] - 5, clock[0] - 1}, clock...)
			clock = append(clock, clock[len(clock)-1]+1)
		}
		again := resealed(t, &c, clock, math.MinInt64, math.MaxInt64)
		require.Equal(t, want, columnSamples(again))
		wantChunks, err := c.Chunks(nil)
		require.NoError(t, err)
		haveChunks, err := again.Chunks(nil)
		require.NoError(t, err)
		require.Equal(t, wantChunks, haveChunks, "what is known of resets")

		mint := rapid.SampledFrom(c.Times).Draw(t, "mint")
		maxt := rapid.SampledFrom(c.Times).Draw(t, "maxt")
		want = slices.DeleteFunc(want, func(s sample) bool { return s.Time < mint || s.Time > maxt })
		have := columnSamples(resealed(t, &c, clock, mint, maxt))
		require.Equal(t, len(want), len(have))
		for i := range want {
			require.Equal(t, want[i], have[i])
		}
	})
}

// TestSealedMergesWithRuns shows that a sealed piece counts as the first to arrive among
// the runs of its day, whatever the kinds, as its samples in runs would.
func TestSealedMergesWithRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		early := rarePieces(t, drawArrivals(t, rapid.IntRange(1, 40).Draw(t, "early")))
		late := rarePieces(t, drawArrivals(t, rapid.IntRange(0, 40).Draw(t, "late")))
		var first, want, have chunk.Column
		require.NoError(t, first.Decode(early, math.MinInt64, math.MaxInt64))
		require.NoError(t, want.Decode(slices.Concat(early, late), math.MinInt64, math.MaxInt64))

		var b chunk.BundleBuilder
		require.NoError(t, b.Add(5, chunk.NoClock, nil, -1, &first))
		var bundle chunk.Bundle
		require.NoError(t, chunk.ParseBundle(nil, b.Append(nil, nil), 5, &bundle))
		pieces := append(sealedPieces(&bundle, 5, nil), late...)
		require.NoError(t, have.Decode(pieces, math.MinInt64, math.MaxInt64))
		wantSamples, haveSamples := columnSamples(&want), columnSamples(&have)
		require.Equal(t, len(wantSamples), len(haveSamples))
		for i := range wantSamples {
			if haveSamples[i].Hint == histogram.UnknownCounterReset {
				wantSamples[i].Hint = histogram.UnknownCounterReset // Runs may know more.
			}
			require.Equal(t, wantSamples[i], haveSamples[i])
		}
	})
}

// TestOverwritten shows that a column counts the samples that lost against others of
// their time, and not those that were sent twice.
func TestOverwritten(t *testing.T) {
	f := func(want int, arrivals ...arrival) {
		t.Helper()
		var c chunk.Column
		require.NoError(t, c.Decode(rarePieces(t, arrivals), math.MinInt64, math.MaxInt64))
		require.Equal(t, want, c.Overwritten)
	}
	float := func(at int64, v float64) arrival { return arrival{time: at, bits: math.Float64bits(v)} }
	counts := func(at int64, zero uint64) arrival {
		return arrival{time: at, int: &histogram.Histogram{Count: zero, ZeroCount: zero}}
	}
	f(0, float(1, 1), float(2, 2))
	f(0, float(1, 1), float(2, 2), float(1, 1))
	f(1, float(1, 1), float(2, 2), float(1, 3))
	f(2, float(1, 1), float(2, 2), float(1, 3), float(2, 4))
	f(1, float(1, 0), float(1, math.Copysign(0, -1)))
	f(0, float(1, math.NaN()), float(1, math.NaN()))
	f(0, counts(1, 1), counts(2, 2), counts(1, 1))
	f(1, counts(1, 1), counts(2, 2), counts(1, 2))
	f(1, float(1, 0), counts(1, 1))
	f(1, counts(1, 1), float(1, 0))
	f(1, float(1, 1), float(1, 2), float(1, 2))
}

// TestBundleHistogramsSmall shows that what histograms of a series have in common is
// written once, and that a bucket goes on where a new one appears beside it.
func TestBundleHistogramsSmall(t *testing.T) {
	var b chunk.RareBuilder
	h := histogram.Histogram{Schema: 3, ZeroThreshold: 0x1p-128, Sum: 0.5}
	raw := 0
	for i := range 960 {
		n := 20 + i/320
		h.PositiveSpans = []histogram.Span{{Offset: -4, Length: uint32(n)}}
		h.PositiveBuckets = make([]int64, n)
		h.Count = 0
		for j := range n {
			count := int64((i - 320*max(0, j-19)) * (j%5 + 1))
			h.PositiveBuckets[j] += count
			if j+1 < n {
				h.PositiveBuckets[j+1] = -count
			}
			h.Count += uint64(count)
		}
		h.Sum += 0.25
		require.NoError(t, b.AppendHistogram(int64(i)*15000, 0, &h))
	}
	for _, p := range b.Pieces(nil) {
		raw += len(p.Data)
	}
	var c chunk.Column
	require.NoError(t, c.Decode(b.Pieces(nil), math.MinInt64, math.MaxInt64))
	require.Equal(t, columnSamples(&c), columnSamples(resealed(t, &c, c.Times, math.MinInt64, math.MaxInt64)))
	require.Equal(t, chunkenc.ValHistogram, c.Kinds[0])

	var bundle chunk.BundleBuilder
	require.NoError(t, bundle.Add(1, 0, c.Times, -1, &c))
	size := len(bundle.Append(nil, nil))
	require.Less(t, size, 400, "of %d in runs", raw)
}

// TestBundleOverlappingSpans shows that spans which no sound histogram has come back too.
func TestBundleOverlappingSpans(t *testing.T) {
	var b chunk.RareBuilder
	for i, spans := range [][]histogram.Span{
		{{Offset: 0, Length: 2}, {Offset: -2, Length: 2}},
		{{Offset: 0, Length: 4}},
		{{Offset: math.MaxInt32, Length: 1}, {Offset: math.MaxInt32, Length: 1}, {Offset: math.MinInt32, Length: 2}},
	} {
		require.NoError(t, b.AppendHistogram(int64(i), 0, &histogram.Histogram{
			Count: 99, Schema: 2, PositiveSpans: spans, PositiveBuckets: []int64{9, -2, 30, -5}, NegativeSpans: spans, NegativeBuckets: []int64{1, 1, 1, 1},
		}))
	}
	var c chunk.Column
	require.NoError(t, c.Decode(b.Pieces(nil), math.MinInt64, math.MaxInt64))
	require.Equal(t, columnSamples(&c), columnSamples(resealed(t, &c, c.Times, math.MinInt64, math.MaxInt64)))
}

// TestBundleManyBuckets shows that histograms with more buckets than a chunk may have are
// spread over chunks.
func TestBundleManyBuckets(t *testing.T) {
	const buckets, samples = 300_000, 15
	var b chunk.RareBuilder
	h := histogram.Histogram{
		Schema: 3, PositiveSpans: []histogram.Span{{Offset: -4, Length: buckets}}, PositiveBuckets: make([]int64, buckets),
	}
	for i := range samples {
		h.Sum = float64(i)
		h.PositiveBuckets[i]++
		require.NoError(t, b.AppendHistogram(int64(i)*15000, 0, &h))
	}
	var c chunk.Column
	require.NoError(t, c.Decode(b.Pieces(nil), math.MinInt64, math.MaxInt64))
	var builder chunk.BundleBuilder
	require.NoError(t, builder.Add(1, 0, c.Times, -1, &c))
	require.Equal(t, 2, builder.Len())
	var want, have chunk.Iterator
	want.Reset(&c)
	have.Reset(resealed(t, &c, c.Times, math.MinInt64, math.MaxInt64))
	for range samples {
		require.Equal(t, want.Next(), have.Next())
		_, x := want.AtHistogram(nil)
		_, y := have.AtHistogram(nil)
		require.True(t, x.Equals(y), "at %d", want.AtT())
	}

	h.PositiveSpans[0].Length, h.PositiveBuckets = 2_000_000, make([]int64, 2_000_000)
	b.Reset()
	require.NoError(t, b.AppendHistogram(1, 0, &h))
	require.NoError(t, c.Decode(b.Pieces(nil), math.MinInt64, math.MaxInt64))
	require.Error(t, builder.Add(2, 0, c.Times, -1, &c))
	require.Equal(t, 2, builder.Len())
}
