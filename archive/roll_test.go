package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
	"varve/rollup"
)

func rollOptions() archive.Options {
	o := options()
	o.Resolutions = []time.Duration{5 * time.Minute, time.Hour}
	return o
}

// archived is what a Querier has for a planner.
type archived interface {
	SelectArchived(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) *archive.ArchivedSet
	Resolutions() []int64
	Close() error
}

// printColumns writes rows so that equal ones look alike, NaN by their bits.
func printColumns(c *rollup.Columns) string {
	out := ""
	for i := range c.Ends {
		r := c.Row(i)
		if r.Count == 0 {
			r = rollup.Row{Ended: r.Ended}
		}
		out += fmt.Sprintf("%d: n %d at %d..%d", c.Ends[i], r.Count, r.FirstMillis, r.LastMillis)
		for _, v := range []float64{r.First, r.Last, r.Min, r.Max, r.Sum, r.Correction} {
			out += fmt.Sprintf(" %x", math.Float64bits(v))
		}
		out += fmt.Sprintf(" resets %d changes %d ended %v", r.Resets, r.Changes, r.Ended)
		if h := c.HistogramRow(i); h != nil {
			out += fmt.Sprintf(" histograms %d at %d..%d %v %v sum %v correction %v resets %d changes %d hints %d",
				h.Count, h.FirstMillis, h.LastMillis, h.First, h.Last, h.Sum, h.Correction, h.Resets, h.Changes, h.Hints)
		}
		out += "\n"
	}
	return out
}

// requireRolled shows that wherever buckets are said to be complete they are what the samples
// give. It returns how many there are, and how many series have a day that is not covered.
func requireRolled(t testing.TB, a *archive.Archive, mint, maxt int64) (buckets, uncovered int) {
	t.Helper()
	q, err := a.Querier(mint, maxt)
	require.NoError(t, err)
	v := q.(archived)
	defer v.Close()
	set := v.SelectArchived(context.Background(), mint, maxt, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	var got, want rollup.Columns
	for set.Next() {
		s := set.At()
		for level, resolution := range v.Resolutions() {
			days := 0
			err := s.Covered(resolution, func(from, to int64) {
				days += int((to - from) / 86400_000)
				// Where samples have expired there is nothing to compare with.
				if from = max(from, s.RawSince()); from >= to {
					return
				}
				require.NoError(t, s.Buckets(resolution, from, to, &got))
				var b rollup.Builder
				var fine rollup.Columns
				b.Begin(v.Resolutions()[0], &fine)
				it := s.Raw(nil, from+1, to)
				for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
					if kind == chunkenc.ValFloat {
						b.Float(it.At())
					} else {
						b.Histogram(it.AtFloatHistogram(nil))
					}
				}
				require.NoError(t, it.Err())
				b.Finish()
				want = fine
				if level > 0 {
					want = rollup.Columns{}
					rollup.Coarsen(&want, resolution, &fine)
				}
				requireSame(t, printColumns(&want), printColumns(&got), fmt.Sprintf("%s at %d ms from %d to %d", s.Labels(), resolution, from, to))
				buckets += got.Len()
			})
			require.NoError(t, err)
			if days < 3 {
				uncovered++
			}
		}
	}
	require.NoError(t, set.Err())
	return buckets, uncovered
}

var errEnough = errors.New("enough")

// rollAll rolls up days, all the way or up to some batch.
func rollAll(t testing.TB, a *archive.Archive, days int, batches int) {
	t.Helper()
	for d := range days {
		_, err := a.Roll(context.Background(), format.DayOf(day0)+format.Day(d), func(context.Context, time.Duration) error {
			if batches--; batches == 0 {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			require.NoError(t, err)
		}
	}
}

// TestRollAgainstSamples writes three days at random: counters, gauges, odd values, histograms,
// at midnight, late and again; seals, rolls up, ends that in the middle, reopens and kills; and
// shows at each moment that buckets which are said to be complete are what the samples give.
func TestRollAgainstSamples(t *testing.T) {
	seeds := 3
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 5))
			dir, o := testkit.MemoryDir(t), rollOptions()
			a := testkit.Open(t, dir, o)
			a.SmallSeals()
			mint, maxt := day0, day0+3*86400_000
			at := func() int64 {
				switch r.IntN(4) {
				case 0:
					return day0 + int64(r.IntN(4))*86400_000 // midnight
				case 1:
					return day0 + int64(r.IntN(3*288))*300_000 // the edge of a bucket
				default:
					return day0 + r.Int64N(3*86400_000)
				}
			}
			for range 40 {
				var points []point
				for range r.IntN(200) {
					p := point{series: r.IntN(24), t: at(), v: float64(r.IntN(1000)) / 8}
					if r.IntN(8) == 0 {
						p.v = oddValues[r.IntN(len(oddValues))]
					}
					points = append(points, p)
				}
				write(t, a, points)
				for range r.IntN(10) {
					b := &arrival.Batch{Rows: []arrival.Row{{Ref: resolve(t, a, seriesLabels(20+r.IntN(8)))}}}
					h := arrival.Histogram{TimeMillis: at()}
					if r.IntN(2) == 0 {
						h.Int = tsdbutil.GenerateTestHistogram(r.Int64N(50))
					} else {
						h.Float = tsdbutil.GenerateTestCustomBucketsFloatHistogram(r.Int64N(50))
					}
					b.Histograms = append(b.Histograms, h)
					_, err := a.Write(context.Background(), b)
					require.NoError(t, err)
				}
				switch r.IntN(8) {
				case 0, 1:
					require.NoError(t, a.Maintain(true))
				case 2, 3:
					require.NoError(t, a.Maintain(true))
					sealAll(t, a, r.IntN(2) == 0)
				case 4:
					rollAll(t, a, 3, 1+r.IntN(4))
				case 5:
					rollAll(t, a, 3, -1)
				case 6:
					require.NoError(t, a.Close())
					a = testkit.Open(t, dir, o)
					a.SmallSeals()
				case 7:
					b, _ := crash(t, dir, o)
					requireRolled(t, b, mint, maxt)
					require.NoError(t, b.Close())
				}
				requireRolled(t, a, mint, maxt)
			}
			require.NoError(t, a.Maintain(true))
			sealAll(t, a, false)
			rollAll(t, a, 3, -1)
			n, uncovered := requireRolled(t, a, mint, maxt)
			require.Zero(t, uncovered)
			require.Greater(t, n, 2000)
		})
	}
}

// TestRollTouchesWhatIsLate shows that a late sample makes one series of one day be rolled up
// anew, and one at midnight that of the day before too.
func TestRollTouchesWhatIsLate(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), rollOptions())
	var points []point
	for i := range 200 {
		for s := range 20 {
			points = append(points, point{series: s, t: day0 + int64(i)*900_001, v: float64(i)})
		}
	}
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	rollAll(t, a, 3, -1)
	day := format.DayOf(day0)
	roll := func(d format.Day) int {
		report, err := a.Roll(context.Background(), d, nil)
		require.NoError(t, err)
		return report.Series
	}
	require.Zero(t, roll(day)+roll(day+1)+roll(day+2), "all is rolled up")
	write(t, a, []point{{series: 3, t: day0 + 86400_000 + 5, v: 7}, {series: 5, t: day0 + 86400_000, v: 8}})
	_, uncovered := requireRolled(t, a, day0, day0+3*86400_000)
	require.Equal(t, 4, uncovered, "two series at two resolutions, while the samples are in memory")
	require.NoError(t, a.Maintain(true))
	_, uncovered = requireRolled(t, a, day0, day0+3*86400_000)
	require.Equal(t, 4, uncovered, "and while they are in runs")
	sealAll(t, a, false)
	_, uncovered = requireRolled(t, a, day0, day0+3*86400_000)
	require.Equal(t, 4, uncovered, "and while they are sealed")
	require.Equal(t, 1, roll(day), "the series with a sample at midnight")
	require.Equal(t, 2, roll(day+1))
	require.Zero(t, roll(day+2))
	_, uncovered = requireRolled(t, a, day0, day0+3*86400_000)
	require.Zero(t, uncovered)
}
