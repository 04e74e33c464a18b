package archive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// target is a scraped process of the tests: counters, gauges, constants and a classic
// histogram, all with the stamps of its scrapes.
type target struct {
	refs   []storage.SeriesRef
	values []float64
	r      *rand.Rand
	jitter int64
}

// newTarget makes the series of the i-th target: a third constants, a third counters, the
// rest gauges and buckets.
func newTarget(t testing.TB, a *archive.Archive, i, series int) *target {
	g := &target{r: rand.New(rand.NewPCG(uint64(i), 7)), values: make([]float64, series), jitter: int64(i*37) % 15000}
	unknown := make([]arrival.Unknown, series)
	for k := range unknown {
		name, le := fmt.Sprintf("metric_%d", k/4), ""
		if k%8 >= 6 {
			name, le = fmt.Sprintf("metric_%d_bucket", k/8), fmt.Sprint(k%8)
		}
		unknown[k].Labels = labels.NewBuilder(labels.EmptyLabels()).Set("__name__", name).Set("job", "test").
			Set("instance", fmt.Sprint(i)).Set("k", fmt.Sprint(k%4)).Set("le", le).Labels()
	}
	require.NoError(t, a.Resolve(context.Background(), unknown))
	for _, u := range unknown {
		require.NotZero(t, u.Ref)
		g.refs = append(g.refs, u.Ref)
	}
	return g
}

// scrape appends the target's samples at about a time.
func (g *target) scrape(b *arrival.Batch, at int64) {
	at += g.jitter + g.r.Int64N(4)
	for k, ref := range g.refs {
		switch k % 8 {
		case 0, 3:
			g.values[k] += float64(g.r.IntN(50))
		case 1:
			g.values[k] += float64(g.r.IntN(3)) * 0.01
		case 4:
			g.values[k] = math.Round(g.r.NormFloat64()*1000) / 10
		case 6:
			g.values[k] += float64(g.r.IntN(2))
		case 7:
			g.values[k] += float64(g.r.IntN(3))
		}
		b.Rows = append(b.Rows, arrival.Row{Ref: ref, First: uint32(len(b.Times)), Count: 1})
		b.Times = append(b.Times, at)
		b.Values = append(b.Values, math.Float64bits(g.values[k]))
	}
}

// BenchmarkSeal seals a day of 15 s samples: 20 targets of 200 series.
func BenchmarkSeal(b *testing.B) {
	samples := 0
	var took time.Duration
	var bytes int
	for b.Loop() {
		b.StopTimer()
		dir := testkit.MemoryDir(b)
		o := options()
		o.MemoryBytes = 512 << 20
		a := testkit.Open(b, dir, o)
		var targets []*target
		for i := range 20 {
			targets = append(targets, newTarget(b, a, i, 200))
		}
		for at := day0; at < day0+86400_000; at += 15_000 {
			batch := &arrival.Batch{}
			for _, g := range targets {
				g.scrape(batch, at)
			}
			_, err := a.Write(context.Background(), batch)
			require.NoError(b, err)
			if at%900_000 == 0 {
				require.NoError(b, a.Maintain(true))
			}
		}
		require.NoError(b, a.Maintain(true))
		b.StartTimer()
		r, err := a.Seal(context.Background(), format.DayOf(day0), nil)
		require.NoError(b, err)
		b.StopTimer()
		samples, took, bytes = samples+r.Samples, took+r.Took, bytes+r.BundleBytes
		require.NoError(b, a.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(samples)/took.Seconds()/1e6, "Msamples/s")
	b.ReportMetric(float64(bytes)/float64(samples), "B/sample")
}

// TestSealBetweenSteps seals a day that is sealed already, and at every step of it lets a
// late sample arrive and be cut, opens a query, and takes a copy as a kill would leave
// one. Queries that are open keep seeing what they saw; new ones see everything; the
// copies open whole and can be sealed to the end.
func TestSealBetweenSteps(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o := options()
	o.MemtableBytes = 64 << 10
	a := testkit.Open(t, dir, o)
	a.SmallSeals()
	m := model{}
	put := func(points ...point) {
		t.Helper()
		require.Equal(t, len(points), write(t, a, points).Samples)
		m.add(points)
	}
	r := rand.New(rand.NewPCG(3, 3))
	fill := func(every int64) {
		for at := day0; at < day0+86400_000; at += every {
			var points []point
			for i := range 40 {
				if i%4 != 3 || at%7 == 0 {
					points = append(points, point{series: i, t: at + r.Int64N(3), v: float64(r.IntN(100))})
				}
			}
			put(points...)
		}
		require.NoError(t, a.Maintain(true))
	}
	fill(1_800_000)
	_, err := a.Seal(context.Background(), format.DayOf(day0), nil)
	require.NoError(t, err)
	fill(2_400_000) // late: resealing takes all bundles over

	mint, maxt := day0, day0+86400_000-1
	type pinned struct {
		q    storage.Querier
		want string
		when string
	}
	var queries []pinned
	look := func(q storage.Querier) string {
		return read(t, storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return unclosed{q}, nil }), mint, maxt)
	}
	steps := map[string]int{}
	pin := func(when string) {
		q, err := a.Querier(mint, maxt)
		require.NoError(t, err)
		queries = append(queries, pinned{q, m.dump(mint, maxt), when})
		requireSame(t, m.dump(mint, maxt), look(q), "a new query, "+when)
	}
	close := func() {
		for _, p := range queries {
			require.NoError(t, p.q.Close())
		}
		queries = nil
	}
	defer func() { close() }()
	late := 0
	a.OnStep(func(step string) {
		steps[step]++
		when := fmt.Sprintf("%s %d", step, steps[step])
		if steps[step] > 3 {
			return // Many batches, each a step.
		}
		late++
		put(point{series: late % 40, t: day0 + int64(late)*777, v: -1}, point{series: (late + 20) % 40, t: day0 + 1_800_000, v: -2})
		require.NoError(t, a.Maintain(true))
		pin(when)
		for _, p := range queries {
			requireSame(t, p.want, look(p.q), "the query of "+p.when+", "+when)
		}
		b, to := crash(t, dir, o)
		requireSame(t, m.dump(mint, maxt), read(t, b, mint, maxt), "after a kill, "+when)
		b.SmallSeals()
		testkit.SealAll(t, b)
		requireSame(t, m.dump(mint, maxt), read(t, b, mint, maxt), "after a kill and sealing on, "+when)
		require.NoError(t, b.Close())
		testkit.Check(t, to)
	})
	pin("the beginning")
	report, err := a.Seal(context.Background(), format.DayOf(day0), nil)
	require.NoError(t, err)
	require.Positive(t, report.Replaced)
	waiting, err := a.Reclaim()
	require.NoError(t, err)
	require.Equal(t, 1, waiting, "queries are open")
	close()
	waiting, err = a.Reclaim()
	require.NoError(t, err)
	require.Zero(t, waiting)
	for _, step := range []string{"raised", "batch", "sealed", "dropped files", "reclaimed"} {
		require.Positive(t, steps[step], step)
	}
	a.OnStep(nil)
	testkit.SealAll(t, a)
	requireSame(t, m.dump(mint, maxt), read(t, a, mint, maxt), "at the end")
	days, err := a.Days()
	require.NoError(t, err)
	require.Len(t, days, 1)
	require.False(t, days[0].Runs)
}

// TestSealGenerations seals a day more often than there are generations, each time with
// a late sample.
func TestSealGenerations(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, options())
	m := model{}
	for i := range 300 {
		p := []point{{series: i % 3, t: day0 + int64(i*i%1000)*1000, v: float64(i)}}
		write(t, a, p)
		m.add(p)
		require.NoError(t, a.Maintain(true))
		_, err := a.Seal(context.Background(), format.DayOf(day0), nil)
		require.NoError(t, err)
		if i%16 == 0 {
			_, err = a.Reclaim()
			require.NoError(t, err)
		}
		requireSame(t, m.dump(day0, day0+86400_000), read(t, a, day0, day0+86400_000), fmt.Sprint("round ", i))
	}
	_, err := a.Reclaim()
	require.NoError(t, err)
}

// TestSealOverwrites counts what a later arrival replaced, once, and where the older value
// was sealed already too.
func TestSealOverwrites(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	send := func(v float64, at ...int64) {
		var points []point
		for _, ts := range at {
			points = append(points, point{series: 1, t: day0 + ts, v: v})
		}
		write(t, a, points)
		require.NoError(t, a.Maintain(true))
	}
	seal := func() int {
		r, err := a.Seal(context.Background(), format.DayOf(day0), nil)
		require.NoError(t, err)
		return r.Overwritten
	}
	send(1, 1, 2, 3, 4)
	send(2, 2, 3)
	send(2, 2) // the same again is no overwrite
	require.Equal(t, 2, seal())
	send(1, 1)
	send(3, 4)
	require.Equal(t, 1, seal())
	require.Equal(t, 0, seal())
}

// TestSealIntervals seals series of all intervals from 1 ms to 1 h, some of which need
// many chunks a day, together with their neighbours.
func TestSealIntervals(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, options())
	m := model{}
	add := func(series int, from, until, every int64) {
		var points []point
		for at := from; at < until; at += every {
			points = append(points, point{series: series, t: day0 + at, v: float64(at % 1000)})
		}
		write(t, a, points)
		m.add(points)
	}
	add(1, 0, 86400_000, 3_600_000)
	add(2, 5, 86400_000, 15_000)
	add(6, 38_500_000, 40_000_000, 100)  // cut into stretches
	add(11, 38_500_000, 40_000_000, 100) // of the same group or not, with the same times
	add(16, 60_000_000, 60_010_000, 1)   // a burst, cut by number
	add(21, 7, 86400_000, 60_000)
	add(26, 86399_999, 86400_000, 1)
	for range 2 {
		testkit.SealAll(t, a)
		requireSame(t, m.dump(day0, day0+86400_000), read(t, a, day0, day0+86400_000), "all")
		requireSame(t, m.dump(day0+39_000_000, day0+61_000_000), read(t, a, day0+39_000_000, day0+61_000_000), "a part")
		add(6, 39_000_050, 39_001_000, 100) // late
		add(1, 1, 10, 1)
	}
}
