package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

var staleMarker = math.Float64frombits(value.StaleNaN)

// newestLine prints a newest sample, the value bit for bit.
func newestLine(ls labels.Labels, t int64, v float64, h *histogram.FloatHistogram) string {
	if h != nil {
		return fmt.Sprintf("%s %d %s", ls, t, h)
	}
	return fmt.Sprintf("%s %d %x", ls, t, math.Float64bits(v))
}

// latest prints what Latest says of the series that match one of the selectors.
func latest(t testing.TB, a *archive.Archive, selectors ...string) string {
	t.Helper()
	var all [][]*labels.Matcher
	for _, s := range selectors {
		all = append(all, matchersOf(t, s))
	}
	var lines []string
	require.NoError(t, a.Latest(context.Background(), all, func(ls labels.Labels, at int64, v float64, h *histogram.FloatHistogram) error {
		lines = append(lines, newestLine(ls, at, v, h))
		return nil
	}))
	return strings.Join(lines, "\n")
}

// latestBySelect prints what Latest should: the last sample of each series that is no stale
// marker, found by reading all of them.
func latestBySelect(t testing.TB, a storage.Queryable, selector string) string {
	t.Helper()
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(context.Background(), true, nil, matchersOf(t, selector)...)
	var lines []string
	for set.Next() {
		line := ""
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if kind == chunkenc.ValFloat {
				if at, v := it.At(); !value.IsStaleNaN(v) {
					line = newestLine(set.At().Labels(), at, v, nil)
				}
				continue
			}
			if at, h := it.AtFloatHistogram(nil); !value.IsStaleNaN(h.Sum) {
				line = newestLine(set.At().Labels(), at, 0, h)
			}
		}
		require.NoError(t, it.Err())
		if line != "" {
			lines = append(lines, line)
		}
	}
	require.NoError(t, set.Err())
	return strings.Join(lines, "\n")
}

const everySeries = `{__name__=~".+"}`

// TestLatestAgainstSelect writes months at random, with stale markers, overwrites, late samples and deletes, moves
// it through memory, runs, bundles and restarts, and compares each time with the last of all samples.
func TestLatestAgainstSelect(t *testing.T) {
	for seed := range draws(2, 4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 77))
			dir := testkit.MemoryDir(t)
			o := options()
			a := testkit.Open(t, dir, o)
			now := clock().UnixMilli()
			same := func(step string) {
				t.Helper()
				requireSame(t, latestBySelect(t, a, everySeries), latest(t, a, everySeries), step)
				requireSame(t, latestBySelect(t, a, `{job=~"job[12]"}`), latest(t, a, `{job="job1"}`, `{job=~"job[12]"}`, `metric_1{job="job2"}`), step)
			}
			for step := range 30 {
				switch k := r.IntN(10); {
				case k < 5:
					var points []point
					for range 1 + r.IntN(300) {
						// Series 30 to 39 are silent for long.
						p := point{series: r.IntN(30), t: now - r.Int64N(3*86400_000), v: float64(r.IntN(100))}
						switch r.IntN(8) {
						case 0:
							p.t = now - r.Int64N(3600_000)
						case 1:
							p.series, p.t = 30+r.IntN(10), now-(100+r.Int64N(100))*86400_000+r.Int64N(1000)
						}
						if r.IntN(10) == 0 {
							p.v = staleMarker
						}
						points = append(points, p)
					}
					write(t, a, points)
				case k < 6:
					require.NoError(t, a.Maintain(true))
				case k < 7:
					testkit.SealAll(t, a)
				case k < 8:
					require.NoError(t, a.Close())
					a = testkit.Open(t, dir, o)
				default:
					to := now - r.Int64N(2*86400_000)*r.Int64N(2)
					deleteSeries(t, a, fmt.Sprintf(`{i=~"%d.*"}`, 1+r.IntN(3)), to-r.Int64N(150*86400_000), to)
				}
				same(fmt.Sprintf("step %d", step))
			}
		})
	}
}

// TestLatestHistograms shows that native histograms are found, and stale ones passed over, wherever they are.
func TestLatestHistograms(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, options())
	ls := labels.FromStrings("__name__", "latency")
	stale := &histogram.Histogram{Sum: staleMarker}
	b := &arrival.Batch{
		Rows: []arrival.Row{{Ref: resolve(t, a, ls)}},
		Histograms: []arrival.Histogram{
			{TimeMillis: day0, Int: tsdbutil.GenerateTestHistogram(1)},
			{TimeMillis: day0 + 1000, Int: tsdbutil.GenerateTestHistogram(2)},
			{TimeMillis: day0 + 2000, Int: stale},
		},
	}
	_, err := a.Write(context.Background(), b)
	require.NoError(t, err)
	want := newestLine(ls, day0+1000, 0, tsdbutil.GenerateTestHistogram(2).ToFloat(nil))
	require.Equal(t, want, latest(t, a, everySeries))
	require.NoError(t, a.Maintain(true))
	require.Equal(t, want, latest(t, a, everySeries))
	sealAll(t, a, false)
	require.Equal(t, want, latest(t, a, everySeries))
}

// TestLatestOfBuckets shows that where a rule hides the samples the buckets say the last one with its time,
// also one that came at midnight, and that nothing is said of series of which nothing is kept.
func TestLatestOfBuckets(t *testing.T) {
	const days = 12
	o, _ := keptOptions(days)
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, o)
	var points []point
	for d := range days {
		for s := range 10 {
			if s >= 5 && d > s-5 {
				continue // Series 5 to 9 end on days 0 to 4.
			}
			for h := range 24 {
				points = append(points, point{series: s, t: day0 + int64(d)*dayMillis + int64(h)*3600_000 + 1, v: float64(s*1000 + d*100 + h)})
			}
		}
	}
	// Series 6 has its last sample at midnight, 7 a stale marker behind it, 8 was deleted at its end.
	points = append(points, point{series: 6, t: day0 + 2*dayMillis, v: 6.5}, point{series: 7, t: day0 + 3*dayMillis - 5000, v: staleMarker})
	write(t, a, points)
	gone, ok := deleteSeries(t, a, `{i="8"}`, day0+3*dayMillis, day0+4*dayMillis)
	require.True(t, ok)
	want := latest(t, a, everySeries)
	requireSame(t, latestBySelect(t, a, everySeries), want, "samples")
	require.Contains(t, want, `i="6"`)
	require.NoError(t, a.Maintain(true))
	_, err := a.Clean(context.Background(), []format.TombstoneID{gone.ID}, nil)
	require.NoError(t, err)
	sealAll(t, a, false)
	_, err = a.Roll(context.Background(), daysOf(-1)[0], nil)
	require.NoError(t, err)
	rollAll(t, a, days, -1)
	requireSame(t, want, latest(t, a, everySeries), "sealed and rolled up")
	for _, keep := range [][3]int{{6, -1, -1}, {6, 9, -1}} {
		require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule("", keep[0], keep[1], keep[2])}}))
		requireSame(t, want, latest(t, a, everySeries), fmt.Sprint("kept ", keep))
	}
	_, err = a.Expire(context.Background(), daysOf(6, 3, -1))
	require.NoError(t, err)
	_, err = a.Reclaim()
	require.NoError(t, err)
	requireSame(t, want, latest(t, a, everySeries), "expired")
	require.NoError(t, a.Close())
	a = testkit.Open(t, dir, o)
	requireSame(t, want, latest(t, a, everySeries), "opened again")
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule("", 6, 9, 9)}}))
	got := latest(t, a, everySeries)
	require.NotContains(t, got, `i="5"`)
	require.Contains(t, got, `i="9"`)
}

// TestLatestLimits shows that Latest fails as a query does where it asks for too much, and that it ends with its context
// and with what it calls.
func TestLatestLimits(t *testing.T) {
	o := options()
	o.QuerySeriesMax, o.QueryBytesMax = 5, 2000
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	for i := range 6 {
		write(t, a, []point{{series: i, t: day0}})
	}
	nothing := func(labels.Labels, int64, float64, *histogram.FloatHistogram) error { return nil }
	select1 := func(s ...string) (out [][]*labels.Matcher) {
		for _, s := range s {
			out = append(out, matchersOf(t, s))
		}
		return out
	}
	require.ErrorIs(t, a.Latest(context.Background(), select1(everySeries), nothing), archive.ErrQueryLimit)
	require.ErrorIs(t, a.Latest(context.Background(), select1(`{i=~"[0-2]"}`, `{i=~"[3-5]"}`), nothing), archive.ErrQueryLimit)
	require.NoError(t, a.Latest(context.Background(), select1(`{i=~"[0-4]"}`, `{i=~"[0-4]"}`), nothing))
	require.NoError(t, a.Latest(context.Background(), nil, nothing))
	var points []point
	r := rand.New(rand.NewPCG(1, 500))
	for i := range 500 {
		points = append(points, point{series: 0, t: day0 + int64(i)*100, v: r.Float64()})
	}
	write(t, a, points)
	require.ErrorIs(t, a.Latest(context.Background(), select1(`{i="0"}`), nothing), archive.ErrQueryLimit)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, a.Latest(ended, select1(`{i="1"}`), nothing), context.Canceled)
	enough := errors.New("enough")
	calls := 0
	require.ErrorIs(t, a.Latest(context.Background(), select1(`{i=~"[1-4]"}`), func(labels.Labels, int64, float64, *histogram.FloatHistogram) error {
		calls++
		return enough
	}), enough)
	require.Equal(t, 1, calls)
}

// BenchmarkLatest asks for 10 000 live series with a day of samples each, of which a tenth has been silent for
// 100 days.
func BenchmarkLatest(b *testing.B) {
	o := options()
	now := day0 + 20*3600_000
	o.Now = func() time.Time { return time.UnixMilli(now) }
	o.QuerySeriesMax = 1 << 20
	a := testkit.Open(b, testkit.MemoryDir(b), o)
	const series = 10_000
	refs := make([]storage.SeriesRef, series)
	for i := range refs {
		refs[i] = resolve(b, a, seriesLabels(i))
	}
	for at := now - 18*3600_000; at <= now; at += 60_000 {
		batch := &arrival.Batch{}
		for i, ref := range refs {
			t := at
			if i%10 == 0 {
				t -= 100 * 86400_000
			}
			batch.Rows = append(batch.Rows, arrival.Row{Ref: ref, First: uint32(i), Count: 1})
			batch.Times = append(batch.Times, t)
			batch.Values = append(batch.Values, math.Float64bits(float64(i)))
		}
		_, err := a.Write(context.Background(), batch)
		require.NoError(b, err)
	}
	require.NoError(b, a.Maintain(true))
	selectors := [][]*labels.Matcher{matchersOf(b, everySeries)}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		require.NoError(b, a.Latest(context.Background(), selectors, func(labels.Labels, int64, float64, *histogram.FloatHistogram) error {
			n++
			return nil
		}))
		require.Equal(b, series, n)
	}
}
