package chunk_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/archive/chunk"
)

// thinned is the plain model of Column.Thin.
func thinned(samples []sample, first, last, step, lookback int64) []sample {
	keep := map[int]bool{}
	for t := first; t <= last; t += step {
		for i := len(samples) - 1; i >= 0; i-- {
			if samples[i].Time <= t {
				if samples[i].Time > t-lookback {
					keep[i] = true
				}
				break
			}
		}
		if step <= 0 {
			break
		}
	}
	var out []sample
	for i, s := range samples {
		if keep[i] {
			out = append(out, s)
		}
	}
	return out
}

// TestThinIsTheModel shows that thinning keeps what each step sees, of all kinds.
func TestThinIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c chunk.Column
		require.NoError(t, c.Decode(drawPieces(t, rapid.Bool().Draw(t, "floats")), math.MinInt64, math.MaxInt64))
		first := rapid.Int64Range(-40, 90).Draw(t, "first")
		last := first + rapid.Int64Range(-5, 120).Draw(t, "range")
		step := rapid.Int64Range(0, 30).Draw(t, "step")
		lookback := rapid.Int64Range(0, 40).Draw(t, "lookback")
		want := thinned(columnSamples(&c), first, last, step, lookback)
		c.Thin(first, last, step, lookback)
		require.Equal(t, want, columnSamples(&c))
		again := slices.Clone(want)
		c.Thin(first, last, step, lookback)
		require.Equal(t, again, columnSamples(&c), "thinning twice changes nothing more")
	})
}

// TestThinWide shows that bounds and times at the ends of int64 don't overflow.
func TestThinWide(t *testing.T) {
	times := []int64{math.MinInt64, -5, 5, math.MaxInt64}
	f := func(first, last, step, lookback int64, want ...int64) {
		t.Helper()
		var c chunk.Column
		require.NoError(t, c.Decode([]chunk.Piece{floatPiece(times, make([]uint64, 4))}, math.MinInt64, math.MaxInt64))
		c.Thin(first, last, step, lookback)
		require.Equal(t, want, append([]int64(nil), c.Times...))
	}
	f(math.MinInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MinInt64, -5, 5)
	f(math.MinInt64, math.MaxInt64, 1, 1, times...)
	f(math.MinInt64, math.MaxInt64, 1<<62, 10, math.MinInt64, -5)
	f(math.MaxInt64, math.MaxInt64, 1, 1, math.MaxInt64)
	f(math.MinInt64, math.MinInt64, 1, 1, math.MinInt64)
	f(4, 4, 0, 10, -5)
	f(4, 4, 0, 9)
	f(10, 0, 1, 10)
}
