package chunk_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/archive/chunk"
)

// sealedSeries is what goes into a bundle of one series.
type sealedSeries struct {
	ref    uint64
	clock  chunk.ClockID
	times  []int64
	values []float64
	starts []int64
	base   int
}

// fixedClock is a clock at hand.
type fixedClock []int64

func (c fixedClock) Times() ([]int64, error) { return c, nil }

var bundleKey = []byte("a bundle's key")

// seal makes a bundle of the series, whose clocks' times are given.
func seal(t require.TestingT, clocks map[chunk.ClockID][]int64, series []sealedSeries) []byte {
	var b chunk.BundleBuilder
	for _, s := range series {
		require.NoError(t, b.Add(s.ref, s.clock, clocks[s.clock], s.base, &chunk.Column{Times: s.times, Values: s.values, Starts: s.starts}))
	}
	require.Equal(t, len(series), b.Len())
	data := b.Append([]byte("before"), bundleKey)
	require.Equal(t, "before", string(data[:6]))
	require.LessOrEqual(t, len(data)-6, b.Size()+16*len(series))
	return data[6:]
}

// sealedPieces returns the pieces of a series in a bundle.
func sealedPieces(b *chunk.Bundle, ref uint64, clocks map[chunk.ClockID][]int64) []chunk.Piece {
	var pieces []chunk.Piece
	first, end := b.Find(ref)
	for i := first; i < end; i++ {
		s := &chunk.Sealed{Bundle: b, Chunk: i}
		if id := b.Clock(i); id != chunk.NoClock {
			s.Clock = fixedClock(clocks[id])
		}
		pieces = append(pieces, chunk.Piece{MinMillis: math.MinInt64, MaxMillis: math.MaxInt64, Sealed: s})
	}
	return pieces
}

func drawClock(t *rapid.T, n int) []int64 { return drawTimes(t, n) }

// drawFloats draws values of all forms, with what disturbs them.
func drawFloats(t *rapid.T, n int) []float64 {
	values := make([]float64, n)
	form := rapid.IntRange(0, 7).Draw(t, "form")
	exponent := rapid.IntRange(-3, 18).Draw(t, "exponent")
	level := float64(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "level"))
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	for i := range values {
		switch form {
		case 0: // constant
		case 1: // a counter with resets
			level += float64(r.IntN(100))
			if r.IntN(50) == 0 {
				level = 0
			}
		case 2: // decimals
			level += float64(r.IntN(2001) - 1000)
		case 3: // sums of decimals
			level += float64(r.IntN(1000)) / 1000
		case 4:
			level = r.NormFloat64() * 100
		case 5:
			level = math.Float64frombits(r.Uint64())
		case 6: // edges of 2^53 and int64
			level = math.Ldexp(1, 50+r.IntN(16)) + float64(r.IntN(5)-2)
		case 7: // a toggle
			level = float64(r.IntN(2) * 7)
		}
		values[i] = level
		if form == 2 {
			values[i] /= math.Pow(10, float64(exponent))
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "disturbances") {
		at := rapid.IntRange(0, n-1).Draw(t, "at")
		odd := math.Float64frombits(rapid.SampledFrom(append(oddValues[:len(oddValues):len(oddValues)], rapid.Uint64().Draw(t, "bits"))).Draw(t, "odd"))
		for range rapid.IntRange(1, 5).Draw(t, "length") {
			if at < n {
				values[at] = odd
				at++
			}
		}
	}
	return values
}

// drawSome draws a part of a clock with at least one time.
func drawSome(t *rapid.T, clock []int64) []int64 {
	switch rapid.IntRange(0, 2).Draw(t, "presence") {
	case 0:
		first := rapid.IntRange(0, len(clock)-1).Draw(t, "first")
		return clock[first:rapid.IntRange(first+1, len(clock)).Draw(t, "end")]
	case 1:
		absent := rapid.SliceOfN(rapid.Bool(), len(clock), len(clock)).Draw(t, "absent")
		absent[rapid.IntRange(0, len(clock)-1).Draw(t, "present")] = false
		var times []int64
		for i, at := range clock {
			if !absent[i] {
				times = append(times, at)
			}
		}
		return times
	default:
		return clock
	}
}

// drawBundle draws clocks and series, some alike or near each other.
func drawBundle(t *rapid.T) (map[chunk.ClockID][]int64, []sealedSeries) {
	clocks := map[chunk.ClockID][]int64{}
	ids := []chunk.ClockID{0, 3, 1<<16 | 2, 900<<16 | 65535, math.MaxUint64 - 1}
	for _, id := range ids {
		clocks[id] = drawClock(t, rapid.IntRange(1, 200).Draw(t, "samples"))
	}
	var series []sealedSeries
	ref := rapid.SampledFrom([]uint64{0, 1, 1 << 40, math.MaxUint64 - 1<<20}).Draw(t, "ref")
	for i := range rapid.IntRange(1, 12).Draw(t, "series") {
		s := sealedSeries{ref: ref, clock: rapid.SampledFrom(ids).Draw(t, "clock"), base: -1}
		s.times = drawSome(t, clocks[s.clock])
		if rapid.IntRange(0, 4).Draw(t, "inline") == 0 {
			s.clock = chunk.NoClock
		}
		if i > 0 && rapid.Bool().Draw(t, "like the one before") {
			s.clock, s.times = series[i-1].clock, series[i-1].times
		}
		s.values = drawFloats(t, len(s.times))
		if i > 0 && len(series[i-1].values) == len(s.values) {
			switch rapid.IntRange(0, 2).Draw(t, "values") {
			case 0:
				s.values = series[i-1].values
			case 1:
				for j, v := range series[i-1].values {
					s.values[j] = v + float64(j%3)
				}
				s.base = i - 1
			}
		}
		if rapid.IntRange(0, 5).Draw(t, "starts") == 0 {
			s.starts = make([]int64, len(s.times))
			for j := range s.starts {
				s.starts[j] = s.times[0] - int64(1000*(j/50))
			}
		}
		series = append(series, s)
		ref += rapid.SampledFrom([]uint64{1, 1, 1, 2, 300}).Draw(t, "gap")
	}
	return clocks, series
}

// TestBundleRoundTrip shows that every bit of any series comes back, from the whole and
// from any stretch of time, in order and out of order.
func TestBundleRoundTrip(t *testing.T) {
	var b chunk.Bundle
	var c chunk.Column
	rapid.Check(t, func(t *rapid.T) {
		clocks, series := drawBundle(t)
		last := series[len(series)-1].ref
		require.NoError(t, chunk.ParseBundle(bundleKey, seal(t, clocks, series), last, &b))
		require.Equal(t, len(series), b.Len())
		for range 20 {
			s := series[rapid.IntRange(0, len(series)-1).Draw(t, "which")]
			mint := rapid.SampledFrom(s.times).Draw(t, "mint") + rapid.Int64Range(-1, 1).Draw(t, "before")
			maxt := rapid.SampledFrom(s.times).Draw(t, "maxt") + rapid.Int64Range(-1, 1).Draw(t, "after")
			checkSealed(t, &b, &c, clocks, &s, mint, maxt)
		}
		for i := range series {
			s := &series[i]
			require.Equal(t, s.ref, b.Ref(i))
			require.Equal(t, s.clock, b.Clock(i))
			checkSealed(t, &b, &c, clocks, s, math.MinInt64, math.MaxInt64)
		}
	})
}

func checkSealed(t require.TestingT, b *chunk.Bundle, c *chunk.Column, clocks map[chunk.ClockID][]int64, s *sealedSeries, mint, maxt int64) {
	require.NoError(t, c.Decode(sealedPieces(b, s.ref, clocks), mint, maxt))
	first, _ := slices.BinarySearch(s.times, mint)
	end, found := slices.BinarySearch(s.times, maxt)
	if found {
		end++
	}
	end = max(first, end)
	require.Equal(t, s.times[first:end], append([]int64{}, c.Times...))
	require.Equal(t, bitsOf(s.values[first:end]), append([]uint64{}, bitsOf(c.Values)...))
	if s.starts == nil {
		require.Nil(t, c.Starts)
	} else if slices.ContainsFunc(s.starts[first:end], func(start int64) bool { return start != 0 }) {
		require.Equal(t, s.starts[first:end], c.Starts)
	}
}
