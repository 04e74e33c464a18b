package chunk_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive/chunk"
)

// TestHidden decodes overlapping pieces with hidden stretches, of floats and of histograms, and compares
// with pieces that were made without the hidden samples.
func TestHidden(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		var hiding, without []chunk.Piece
		for range 1 + r.IntN(5) {
			var all, shown chunk.RareBuilder
			var spans chunk.Spans
			for at := int64(r.IntN(20)); at < 200 && r.IntN(4) > 0; at += 2 {
				to := at + r.Int64N(40)
				spans = append(spans, chunk.Span{FromMillis: at, ToMillis: to})
				at = to + r.Int64N(40)
			}
			kind := r.IntN(3)
			at := r.Int64N(50)
			for range 1 + r.IntN(50) {
				v := r.Int64N(100)
				for _, b := range []*chunk.RareBuilder{&all, &shown} {
					if b == &shown && slices.ContainsFunc(spans, func(s chunk.Span) bool { return at >= s.FromMillis && at <= s.ToMillis }) {
						continue
					}
					switch kind {
					case 0:
						b.AppendFloat(at, 0, math.Float64bits(float64(v)))
					case 1:
						require.NoError(t, b.AppendHistogram(at, at/2, tsdbutil.GenerateTestHistogram(v)))
					case 2:
						require.NoError(t, b.AppendFloatHistogram(at, 0, tsdbutil.GenerateTestFloatHistogram(v)))
					}
				}
				at += 1 + r.Int64N(8)
			}
			begin := len(hiding)
			hiding, without = all.Pieces(hiding), shown.Pieces(without)
			for i := begin; len(spans) > 0 && i < len(hiding); i++ {
				hiding[i].Hidden = &spans
			}
		}
		for i := range 5 {
			mint := r.Int64N(250) - 20
			maxt := mint + r.Int64N(250)
			if i == 0 {
				mint, maxt = math.MinInt64, math.MaxInt64
			}
			var got, want chunk.Column
			require.NoError(t, got.Decode(hiding, mint, maxt))
			require.NoError(t, want.Decode(without, mint, maxt))
			require.Equal(t, listed(&want), listed(&got), "seed %d from %d to %d", seed, mint, maxt)
			if i == 0 { // Others count some outside of the range, as their pieces reach.
				require.Equal(t, want.Overwritten, got.Overwritten)
			}

			pieces, err := got.Recode(nil)
			require.NoError(t, err)
			var back chunk.Column
			require.NoError(t, back.Decode(pieces, mint, maxt))
			require.Equal(t, listed(&want), listed(&back), "recoded, seed %d", seed)
		}
	}
}

// listed are the column's samples without their hints.
func listed(c *chunk.Column) []sample {
	out := columnSamples(c)
	for i := range out {
		out[i].Hint = 0
	}
	return out
}

// TestHiddenHints shows that a histogram behind a hidden one says nothing of the sample before it, and does not
// tell of a reset that only the hidden ones saw.
func TestHiddenHints(t *testing.T) {
	var b chunk.RareBuilder
	for at, v := range []int64{1, 50, 5, 6, 7, 8} { // A reset before the third opens a piece.
		require.NoError(t, b.AppendHistogram(int64(at), 0, tsdbutil.GenerateTestHistogram(v)))
	}
	pieces := b.Pieces(nil)
	require.Len(t, pieces, 2)
	hints := func() (out []histogram.CounterResetHint) {
		var c chunk.Column
		require.NoError(t, c.Decode(pieces, 0, 10))
		for _, s := range columnSamples(&c) {
			out = append(out, s.Hint)
		}
		return out
	}
	const unknown, none = histogram.UnknownCounterReset, histogram.NotCounterReset
	all := hints()
	require.Equal(t, none, all[3])
	pieces[0].Hidden = &chunk.Spans{{FromMillis: 1, ToMillis: 1}}
	require.Equal(t, []histogram.CounterResetHint{unknown, unknown, none, none, none}, hints())
	pieces[1].Hidden = &chunk.Spans{{FromMillis: 2, ToMillis: 2}, {FromMillis: 4, ToMillis: 4}}
	require.Equal(t, []histogram.CounterResetHint{unknown, unknown, unknown}, hints())
}
