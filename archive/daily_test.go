package archive_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/internal/testkit"
)

// TestDailyIterator walks three days and a gap of three at random, from before the first sample to
// behind the last, and compares each step with an iterator that decoded all at once.
func TestDailyIterator(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	r := rand.New(rand.NewPCG(3, 3))
	var points []point
	for at := day0 - 5*86400_000; at < day0+86400_000; at += 1 + r.Int64N(900_000) {
		if at < day0-3*86400_000 || at > day0 {
			points = append(points, point{series: 1, t: at, v: float64(len(points))})
		}
	}
	points = append(points, point{series: 1, t: day0, v: -1})
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, true)
	mint, maxt := day0-6*86400_000, day0+2*86400_000
	q, err := a.Querier(mint, maxt)
	require.NoError(t, err)
	defer q.Close()
	everything := labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")
	whole := q.Select(context.Background(), true, nil, everything)
	require.True(t, whole.Next())
	set := q.(archived).SelectArchived(context.Background(), mint, maxt, everything)
	require.True(t, set.Next())
	s := set.At()
	var daily chunkenc.Iterator
	for round := range draws(60, 200) {
		from := mint + r.Int64N(maxt-mint)
		if r.IntN(3) == 0 {
			from = mint
		}
		to := maxt
		if round == 0 {
			to = math.MaxInt64
		}
		daily = s.Raw(daily, from, to)
		want := whole.At().Iterator(nil)
		skip := want.Seek(from)
		first := true
		for at := from; ; {
			var got chunkenc.ValueType
			kind := skip
			switch {
			case r.IntN(4) > 0:
				if got = daily.Next(); !first {
					kind = want.Next()
				}
			default:
				at = max(at, from) + r.Int64N(20*3600_000)
				if got = daily.Seek(at); first || want.AtT() < at {
					kind = want.Seek(at)
				} else {
					kind = chunkenc.ValFloat
				}
			}
			first = false
			require.Equal(t, kind, got)
			if got == chunkenc.ValNone {
				break
			}
			wantT, wantV := want.At()
			gotT, gotV := daily.At()
			require.Equal(t, wantT, gotT)
			require.Equal(t, wantV, gotV)
			at = gotT
		}
		require.Equal(t, chunkenc.ValNone, daily.Next())
		require.NoError(t, daily.Err())
	}
}
