package digest_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/digest"
)

// TestOrderAndCuts shows that neither the order of samples nor how they are parted counts.
func TestOrderAndCuts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var whole, shuffled, first, second digest.Series
	times := make([]int64, 1000)
	values := make([]float64, len(times))
	for i := range times {
		times[i], values[i] = int64(i*15000)+random.Int64N(100)-5000, random.NormFloat64()
		whole.Float(times[i], values[i])
		if i < 300 {
			first.Float(times[i], values[i])
		} else {
			second.Float(times[i], values[i])
		}
	}
	for _, i := range random.Perm(len(times)) {
		shuffled.Float(times[i], values[i])
	}
	require.Equal(t, whole, shuffled)
	second.Add(first)
	second.Add(digest.Series{})
	require.Equal(t, whole, second)
	require.EqualValues(t, 1000, whole.Samples)
	require.Equal(t, times[0], whole.FirstMillis)
	var copied digest.Series
	copied.Add(whole)
	require.Equal(t, whole, copied)
}

// TestTellsApart shows that what looks alike is not the same: bits of NaNs, signs of zero, times and values that
// are exchanged, a sample that is missing or twice there.
func TestTellsApart(t *testing.T) {
	type sample struct {
		t int64
		v float64
	}
	all := [][]sample{
		{}, {{0, 0}}, {{0, 0}, {0, 0}}, {{1, 0}}, {{0, math.Copysign(0, -1)}}, {{0, 1}},
		{{0, math.NaN()}}, {{0, math.Float64frombits(value.StaleNaN)}}, {{0, math.Float64frombits(value.NormalNaN | 1<<40)}},
		{{1, 2}, {2, 1}}, {{1, 1}, {2, 2}}, {{1, 1}, {2, 1}}, {{1, 2}, {2, 2}}, {{-1, 1}, {2, 2}}, {{-1, 1}}, {{1, -1}},
	}
	seen := map[digest.Series]int{}
	hashes := map[uint64]int{}
	for i, samples := range all {
		var s digest.Series
		for _, x := range samples {
			s.Float(x.t, x.v)
		}
		require.NotContains(t, seen, s, "%d", i)
		require.NotContains(t, hashes, s.Hash, "%d", i)
		seen[s], hashes[s.Hash] = i, i
	}
}

// TestHistograms shows that spans with empty buckets and reset hints don't count, and that all else does.
func TestHistograms(t *testing.T) {
	of := func(change func(h *histogram.Histogram)) digest.Series {
		h := tsdbutil.GenerateTestHistogram(3)
		change(h)
		var s digest.Series
		s.Histogram(10, h)
		return s
	}
	plain := of(func(*histogram.Histogram) {})
	require.Equal(t, plain, of(func(h *histogram.Histogram) { h.CounterResetHint = histogram.CounterReset }))
	require.Equal(t, plain, of(func(h *histogram.Histogram) {
		last := int64(0)
		for _, d := range h.PositiveBuckets {
			last += d
		}
		h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: 2, Length: 2})
		h.PositiveBuckets = append(h.PositiveBuckets, -last, 0)
	}), "empty buckets behind")
	for name, change := range map[string]func(*histogram.Histogram){
		"count":     func(h *histogram.Histogram) { h.Count++ },
		"zero":      func(h *histogram.Histogram) { h.ZeroCount++ },
		"sum":       func(h *histogram.Histogram) { h.Sum = math.Float64frombits(value.StaleNaN) },
		"schema":    func(h *histogram.Histogram) { h.Schema++ },
		"threshold": func(h *histogram.Histogram) { h.ZeroThreshold *= 2 },
		"positive":  func(h *histogram.Histogram) { h.PositiveBuckets[1]++ },
		"negative":  func(h *histogram.Histogram) { h.NegativeBuckets[1]++ },
		"offset":    func(h *histogram.Histogram) { h.PositiveSpans[1].Offset++ },
		"sides": func(h *histogram.Histogram) {
			h.PositiveSpans, h.PositiveBuckets, h.NegativeSpans, h.NegativeBuckets = nil, nil, h.PositiveSpans, h.PositiveBuckets
		},
		"bounds": func(h *histogram.Histogram) { h.CustomValues = []float64{1} },
	} {
		require.NotEqual(t, plain, of(change), name)
	}
	var float, moved digest.Series
	h := tsdbutil.GenerateTestHistogram(3)
	float.FloatHistogram(10, h.ToFloat(nil))
	require.NotEqual(t, plain.Hash, float.Hash)
	moved.FloatHistogram(11, h.ToFloat(nil))
	require.NotEqual(t, float.Hash, moved.Hash)
	wide := h.ToFloat(nil)
	wide.PositiveSpans = append(wide.PositiveSpans, histogram.Span{Offset: 1, Length: 1})
	wide.PositiveBuckets = append(wide.PositiveBuckets, 0)
	var same digest.Series
	same.FloatHistogram(10, wide)
	require.Equal(t, float, same)
}

func BenchmarkFloat(b *testing.B) {
	var s digest.Series
	for i := 0; b.Loop(); i++ {
		s.Float(int64(i)*15000, float64(i)*0.5)
	}
}
