package archive_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
	"varve/rollup"
)

const (
	dayMillis = 86400_000
	aDay      = 24 * time.Hour
)

// keptRule keeps samples and the buckets of two resolutions for some days, -1 for ever, of the series that match.
func keptRule(selector string, raw, fine, coarse int) archive.RetentionRule {
	r := archive.RetentionRule{Text: selector}
	if selector != "" {
		r.Matchers = [][]*labels.Matcher{{matcher(selector)}}
	}
	for _, days := range []int{raw, fine, coarse} {
		keep := archive.Forever
		if days >= 0 {
			keep = time.Duration(days) * aDay
		}
		r.Keep = append(r.Keep, keep)
	}
	return r
}

// keptArchive has a sample an hour of ten series on each of the days before its clock, sealed and rolled up.
func keptArchive(t testing.TB, dir string, days int, o archive.Options) (*archive.Archive, model) {
	a := testkit.Open(t, dir, o)
	m := model{}
	var points []point
	for d := range days {
		for s := range 10 {
			for h := range 24 {
				points = append(points, point{series: s, t: day0 + int64(d)*dayMillis + int64(h)*3600_000 + 1, v: float64(s*1000 + d*100 + h)})
			}
		}
	}
	write(t, a, points)
	m.add(points)
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	_, err := a.Roll(context.Background(), daysOf(-1)[0], nil)
	require.NoError(t, err)
	rollAll(t, a, days, -1)
	return a, m
}

func keptOptions(days int) (archive.Options, *atomic.Int64) {
	o := rollOptions()
	now := &atomic.Int64{}
	now.Store(day0 + int64(days)*dayMillis)
	o.Now = func() time.Time { return time.UnixMilli(now.Load()) }
	return o, now
}

// bucketsOf prints, for each series that a planner finds, from when it has samples and all of its buckets.
func bucketsOf(t testing.TB, a *archive.Archive) string {
	t.Helper()
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	return bucketsIn(t, q)
}

func bucketsIn(t testing.TB, q storage.Querier) string {
	t.Helper()
	v := q.(archived)
	set := v.SelectArchived(context.Background(), math.MinInt64, math.MaxInt64, matcher(`__name__=~.+`))
	var lines []string
	for set.Next() {
		s := set.At()
		for _, resolution := range v.Resolutions() {
			var c rollup.Columns
			require.NoError(t, s.Buckets(resolution, math.MinInt64, math.MaxInt64, &c))
			for i := range c.Ends {
				r := c.Row(i)
				lines = append(lines, fmt.Sprintf("%s %d %d: %d %v %v %v %v %d %d", s.Labels(), resolution, c.Ends[i], r.Count, r.First, r.Last, r.Sum, r.Correction, r.FirstMillis, r.LastMillis))
			}
		}
	}
	require.NoError(t, set.Err())
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func daysOf(days ...int) []format.Day {
	out := make([]format.Day, 0, len(days))
	for _, d := range days {
		out = append(out, format.DayOf(day0)+format.Day(d))
	}
	return out
}

func names(t testing.TB, a *archive.Archive, mint, maxt int64) []string {
	t.Helper()
	q, err := a.Querier(mint, maxt)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	out, _, err := q.LabelValues(context.Background(), "i", nil)
	require.NoError(t, err)
	return out
}

// TestExpiry hides what is past its age at once, drops it when the readers of before are gone, keeps the buckets
// of days whose samples are gone, and is the same after a restart.
func TestExpiry(t *testing.T) {
	const days = 10
	o, now := keptOptions(days)
	dir := testkit.MemoryDir(t)
	a, m := keptArchive(t, dir, days, o)
	all := bucketsOf(t, a)
	require.NotEmpty(t, all)
	since := func(d int) string { return m.dump(day0+int64(d)*dayMillis, math.MaxInt64) }
	rows := func(fine, coarse int) string {
		var kept []string
		for _, line := range strings.Split(all, "\n") {
			var resolution, end int64
			_, err := fmt.Sscanf(line[strings.LastIndex(line, "}")+1:], "%d %d:", &resolution, &end)
			require.NoError(t, err)
			first := fine
			if resolution == 3600_000 {
				first = coarse
			}
			if end > day0+int64(first)*dayMillis {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "\n")
	}
	before, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	rules := func(r ...archive.RetentionRule) {
		require.NoError(t, a.SetRetention(archive.Retention{Rules: r}))
	}
	rules(keptRule("", 3, 5, -1))
	look := func() {
		t.Helper()
		requireSame(t, since(7), read(t, a, math.MinInt64, math.MaxInt64), "samples")
		requireSame(t, "", read(t, a, math.MinInt64, day0+7*dayMillis-1), "samples before")
		requireSame(t, rows(5, 0), bucketsOf(t, a), "buckets")
		require.Len(t, names(t, a, math.MinInt64, day0+dayMillis/2), 10, "buckets of an hour are kept")
		require.Len(t, names(t, a, day0+6*dayMillis+5, day0+6*dayMillis+10), 10)
	}
	look()
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	require.Equal(t, day0+7*dayMillis, q.(interface{ RawSince() int64 }).RawSince())
	require.NoError(t, q.Close())
	requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, fixedView{before}, 0, 0), "a view that was open sees all")

	kept, err := a.Retention()
	require.NoError(t, err)
	require.Equal(t, daysOf(7, 5), []format.Day{kept.Levels[0].Cutoff, kept.Levels[1].Cutoff})
	expiring, err := a.Expiring(context.Background())
	require.NoError(t, err)
	require.Len(t, expiring, 2)
	require.EqualValues(t, 10, expiring[0].Series)
	require.EqualValues(t, 7*240, expiring[0].Samples)

	size := func() (n uint64) {
		require.NoError(t, a.Settle())
		s, err := a.Retention()
		require.NoError(t, err)
		return s.DiskBytes
	}
	full := size()
	r, err := a.Expire(context.Background(), append(daysOf(7, 5), format.MinDay))
	require.NoError(t, err)
	require.EqualValues(t, 10, r.Series)
	require.Len(t, r.Levels, 2)
	require.EqualValues(t, 7*240, r.Levels[0].Samples)
	look()
	waiting, err := a.Reclaim()
	require.NoError(t, err)
	require.Equal(t, 1, waiting)
	requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, fixedView{before}, 0, 0), "a view that was open still sees all")
	require.NoError(t, before.Close())
	waiting, err = a.Reclaim()
	require.NoError(t, err)
	require.Zero(t, waiting)
	requireFreed(t, full, size)
	look()
	b, to := crash(t, dir, func() archive.Options {
		o := o
		o.Retention = archive.Retention{Rules: []archive.RetentionRule{keptRule("", 3, 5, -1)}}
		return o
	}())
	requireSame(t, since(7), read(t, b, math.MinInt64, math.MaxInt64), "samples after a kill")
	requireSame(t, rows(5, 0), bucketsOf(t, b), "buckets after a kill")
	require.NoError(t, b.Close())
	testkit.Check(t, to)

	// What is too old is refused for itself. Late samples are taken, and no bucket without samples is touched.
	res := write(t, a, []point{{series: 1, t: day0 + 7*dayMillis - 1}, {series: 1, t: day0 + 7*dayMillis, v: 5}})
	require.Equal(t, 1, res.Rejected[arrival.ReasonRetention])
	require.Equal(t, 1, res.Samples)
	m.add([]point{{series: 1, t: day0 + 7*dayMillis, v: 5}})
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	status, err := a.Days()
	require.NoError(t, err)
	for _, d := range status {
		require.GreaterOrEqual(t, d.Day, daysOf(7)[0])
		_, err := a.Roll(context.Background(), d.Day, nil)
		require.NoError(t, err)
	}
	_, err = a.Roll(context.Background(), daysOf(6)[0], nil)
	require.NoError(t, err)
	requireSame(t, since(7), read(t, a, math.MinInt64, math.MaxInt64), "samples with a late one")

	// All of it.
	now.Add(20 * dayMillis)
	write(t, a, []point{{series: 77, t: now.Load(), v: 1}})
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule("", 3, 5, 7)}}))
	require.Equal(t, []string{"77"}, names(t, a, math.MinInt64, math.MaxInt64))
	require.Empty(t, bucketsOf(t, a))
	_, err = a.Expire(context.Background(), daysOf(27, 25, 23))
	require.NoError(t, err)
	_, err = a.Reclaim()
	require.NoError(t, err)
	require.NoError(t, a.SetRetention(archive.Retention{}))
	require.Equal(t, []string{"77"}, names(t, a, math.MinInt64, math.MaxInt64), "what expired does not come back")
	require.NoError(t, a.Close())
	for f, most := range map[format.Family]int{
		format.FamilyHot: 1, format.FamilyRaw: 0, format.RollupFamily(3600_000): 0, format.FamilyExemplars: 0, format.FamilyDirty: 0, format.FamilyClocks: 0, format.FamilyActive: 1,
	} {
		require.LessOrEqual(t, len(recordsOf(t, dir, f)), most, format.FamilyNames[f])
	}
	a = testkit.Open(t, dir, o)
	require.Equal(t, []string{"77"}, names(t, a, math.MinInt64, math.MaxInt64))
	status, err = a.Days()
	require.NoError(t, err)
	for _, d := range status {
		require.GreaterOrEqual(t, d.Day, daysOf(27)[0])
	}
}

// requireFreed shows that the disk gets back what was dropped. RocksDB may work some of it in beside, so it may take a while.
func requireFreed(t testing.TB, before uint64, size func() uint64) {
	t.Helper()
	for began, n := time.Now(), size(); n >= before; n = size() {
		require.Less(t, time.Since(began), 2*time.Minute, "%d bytes, which were %d", n, before)
	}
}

// fixedView is a view for each that asks.
type fixedView struct{ view storage.Querier }

func (v fixedView) Querier(int64, int64) (storage.Querier, error) { return unclosed{v.view}, nil }

// TestExpiryOfRules has rules that hide earlier what some series have, of samples and of buckets, in queries, label
// APIs, exemplars and writes.
func TestExpiryOfRules(t *testing.T) {
	const days = 6
	o, _ := keptOptions(days)
	a, m := keptArchive(t, testkit.MemoryDir(t), days, o)
	b := &arrival.Batch{}
	for d := range days {
		for s := range 10 {
			b.Rows = append(b.Rows, arrival.Row{Ref: resolve(t, a, seriesLabels(s))})
			b.Exemplars = append(b.Exemplars, arrival.Exemplar{Row: uint32(len(b.Rows) - 1), Exemplar: exemplar.Exemplar{Labels: labels.FromStrings("x", "y"), Ts: day0 + int64(d)*dayMillis + 1, HasTs: true}})
		}
	}
	_, err := a.Write(context.Background(), b)
	require.NoError(t, err)
	// Jobs are series modulo 3: job0 keeps a day of all, job1 four days, the others all.
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{
		keptRule(`job=job0`, 1, 1, 1), keptRule(`job=job1`, 4, 5, 5),
	}}))
	first := func(series int) int { return []int{5, 2, 0}[series%3] }
	want := model{}
	for s, samples := range m {
		want[s] = map[int64]uint64{}
		for at, v := range samples {
			if at >= day0+int64(first(s))*dayMillis {
				want[s][at] = v
			}
		}
	}
	requireSame(t, want.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "samples")
	texts := func(mint, maxt int64, jobs ...int) {
		t.Helper()
		var series []string
		for s := range 10 {
			if slices.Contains(jobs, s%3) {
				series = append(series, fmt.Sprint(s))
			}
		}
		require.Equal(t, series, append([]string(nil), names(t, a, mint, maxt)...), "from %d to %d", mint-day0, maxt-day0)
		q, err := a.Querier(mint, maxt)
		require.NoError(t, err)
		defer func() { require.NoError(t, q.Close()) }()
		set := q.Select(context.Background(), true, &storage.SelectHints{Start: mint, End: maxt, Func: "series"}, matcher(`__name__=~.+`))
		n := 0
		for set.Next() {
			n++
		}
		require.NoError(t, set.Err())
		require.Len(t, series, n)
	}
	texts(day0, day0+dayMillis-1, 2)
	texts(day0+10, day0+dayMillis-10, 2)
	texts(day0+dayMillis, day0+2*dayMillis-1, 1, 2) // buckets alone
	texts(day0+dayMillis+10, day0+2*dayMillis-100, 1, 2)
	texts(day0+2*dayMillis, day0+3*dayMillis-1, 1, 2)
	texts(day0+2*dayMillis+10, day0+3*dayMillis-100, 1, 2)
	texts(day0+5*dayMillis+10, day0+6*dayMillis-100, 0, 1, 2)
	texts(math.MinInt64, math.MaxInt64, 0, 1, 2)
	texts(math.MinInt64, day0+5*dayMillis-1, 1, 2)
	texts(math.MinInt64, day0+dayMillis-1, 2)

	e, err := a.ExemplarQuerier(context.Background())
	require.NoError(t, err)
	found, err := e.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{matcher(`__name__=~.+`)})
	require.NoError(t, err)
	for _, s := range found {
		for i := range 10 {
			if labels.Equal(s.SeriesLabels, seriesLabels(i)) {
				require.Len(t, s.Exemplars, days-first(i), s.SeriesLabels.String())
			}
		}
	}
	require.Len(t, found, 10)

	var points []point
	for s := range 10 {
		for d := range days {
			points = append(points, point{series: s, t: day0 + int64(d)*dayMillis + 7, v: 1})
		}
	}
	refused := 0
	for _, p := range points {
		if p.t < day0+int64(first(p.series))*dayMillis {
			refused++
		} else {
			want[p.series][p.t] = math.Float64bits(1)
		}
	}
	res := write(t, a, points)
	require.Equal(t, refused, res.Rejected[arrival.ReasonRetention])
	require.Equal(t, len(points)-refused, res.Samples)
	requireSame(t, want.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "samples with those that came")

	expiring, err := a.Expiring(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 4, expiring[0].Series)
	require.EqualValues(t, 4*24*5, expiring[0].Samples)
	// A rule that is taken back shows again what was not removed.
	require.NoError(t, a.SetRetention(archive.Retention{}))
	m.add(nil)
	for s := range want {
		for at, v := range want[s] {
			m[s][at] = v
		}
	}
	requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "samples without rules")
}

// TestWrongClock shows that a clock years ahead hides and refuses nothing but what the newest samples allow.
func TestWrongClock(t *testing.T) {
	const days = 5
	o, now := keptOptions(days)
	a, m := keptArchive(t, testkit.MemoryDir(t), days, o)
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule("", 5, 5, 5)}}))
	now.Add(10 * 365 * dayMillis)
	requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "years ahead")
	kept, err := a.Retention()
	require.NoError(t, err)
	require.Equal(t, daysOf(days)[0], kept.Today)
	now.Add(-20 * 365 * dayMillis)
	requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "years behind")
	_, err = a.Expire(context.Background(), daysOf(1000, 1000, 1000))
	require.NoError(t, err)
	kept, err = a.Retention()
	require.NoError(t, err)
	require.Equal(t, daysOf(days)[0], kept.Levels[0].Floor, "no floor is higher than the newest day")
}

// TestExpireRefuses shows that samples that buckets need don't expire, whoever asks.
func TestExpireRefuses(t *testing.T) {
	const days = 4
	o, _ := keptOptions(days)
	dir := testkit.MemoryDir(t)
	a, m := keptArchive(t, dir, days, o)
	refused := func(what string) {
		t.Helper()
		_, err := a.Expire(context.Background(), append(daysOf(2), format.MinDay, format.MinDay))
		require.ErrorIs(t, err, archive.ErrKept)
		require.ErrorContains(t, err, what)
		requireSame(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), what)
	}
	p := []point{{series: 3, t: day0 + dayMillis + 5, v: 1}}
	write(t, a, p)
	m.add(p)
	require.NoError(t, a.Maintain(true))
	refused("wait to be sealed")
	sealAll(t, a, false)
	refused("rolled up anew")
	require.NoError(t, a.Close())
	a = testkit.Open(t, dir, o)
	refused("rolled up anew")
	rollAll(t, a, days, -1)
	d, ok := deleteSeries(t, a, `{i="5"}`, day0+5, day0+10)
	require.True(t, ok)
	refused("a delete holds the day")
	_, err := a.Undelete(d.ID)
	require.NoError(t, err)
	refused("rolled up anew")
	_, err = a.Roll(context.Background(), daysOf(-1)[0], nil)
	require.NoError(t, err)
	rollAll(t, a, days, -1)
	_, err = a.Expire(context.Background(), append(daysOf(2), format.MinDay, format.MinDay))
	require.NoError(t, err)
	requireSame(t, m.dump(day0+2*dayMillis, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64), "after it")
}

// TestRetentionChecks refuses policies that can't be kept.
func TestRetentionChecks(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), rollOptions())
	f := func(want string, rules ...archive.RetentionRule) {
		t.Helper()
		require.ErrorContains(t, a.SetRetention(archive.Retention{Rules: rules}), want)
	}
	f("less than 2 days", keptRule("", 1, 5, 5))
	f("less than 2 days", keptRule("", 1, 1, -1))
	f("no whole days", keptRule("", 0, 0, 0))
	f("there are 3", archive.RetentionRule{Keep: []time.Duration{aDay}})
	f("at most", make([]archive.RetentionRule, 300)...)
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule("", 1, 1, 1)}}))
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule("", 2, 1, -1)}}))
}

// TestTrim removes the series of a rule from days that others keep: their bytes, names and exemplars go, nothing else of the
// days changes, and a day is not looked at again until late samples come.
func TestTrim(t *testing.T) {
	const days = 6
	o, _ := keptOptions(days)
	dir := testkit.MemoryDir(t)
	a, m := keptArchive(t, dir, days, o)
	size := func(a *archive.Archive) (n uint64) {
		require.NoError(t, a.Settle())
		s, err := a.Retention()
		require.NoError(t, err)
		return s.DiskBytes
	}
	before, buckets := size(a), bucketsOf(t, a)
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{
		keptRule(`job=job0`, 2, 2, 2), keptRule(`job=job1`, 3, 4, -1),
	}}))
	samples, rows := read(t, a, math.MinInt64, math.MaxInt64), bucketsOf(t, a)
	require.NotEqual(t, buckets, rows)
	kept, err := a.Retention()
	require.NoError(t, err)
	require.Len(t, kept.Trims, 5)
	want := uint64(0)
	for i, trim := range kept.Trims {
		// The first has the bucket of midnight alone, of which there is none here.
		require.Equal(t, daysOf(i - 1)[0], trim.Day)
		r, err := a.Trim(context.Background(), trim.Day, nil)
		require.NoError(t, err)
		want += r.Samples
	}
	require.EqualValues(t, 4*4*24+3*3*24, want, "four series of job0 lose four days, three of job1 three")
	kept, err = a.Retention()
	require.NoError(t, err)
	require.Empty(t, kept.Trims, "no day is looked at again")
	requireSame(t, samples, read(t, a, math.MinInt64, math.MaxInt64), "samples")
	requireSame(t, rows, bucketsOf(t, a), "buckets")
	requireFreed(t, before, func() uint64 { return size(a) })

	// Without rules what went stays away: samples, and names of days without anything.
	require.NoError(t, a.SetRetention(archive.Retention{}))
	requireSame(t, samples, read(t, a, math.MinInt64, math.MaxInt64), "samples without rules")
	requireSame(t, rows, bucketsOf(t, a), "buckets without rules")
	require.Equal(t, []string{"1", "2", "4", "5", "7", "8"}, names(t, a, math.MinInt64, day0+dayMillis))
	res := write(t, a, []point{{series: 1, t: day0 + 5}, {series: 0, t: day0 + 5, v: 3}})
	require.Equal(t, 1, res.Rejected[arrival.ReasonRetention], "its buckets can't be made anew")
	m[0] = map[int64]uint64{day0 + 5: math.Float64bits(3)}
	require.Contains(t, read(t, a, math.MinInt64, day0+dayMillis), model{0: m[0]}.dump(math.MinInt64, math.MaxInt64), "one of which nothing was left begins anew")
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	rollAll(t, a, days, -1)
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
	a = testkit.Open(t, dir, o)
	require.Contains(t, bucketsOf(t, a), seriesLabels(0).String()+fmt.Sprintf(" 300000 %d: 1 3 3", day0+300_000))
	requireRolled(t, a, day0, day0+days*dayMillis)
}

// TestDeleteWithoutSamples shows that a delete hides and removes the buckets that it touches where their
// samples have expired, and leaves the others as they are.
func TestDeleteWithoutSamples(t *testing.T) {
	const days = 6
	o, now := keptOptions(days)
	dir := testkit.MemoryDir(t)
	a, _ := keptArchive(t, dir, days, o)
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule(`job=job0`, 2, -1, -1), keptRule("", 4, -1, -1)}}))
	_, err := a.Expire(context.Background(), append(daysOf(2), format.MinDay, format.MinDay))
	require.NoError(t, err)
	_, err = a.Reclaim()
	require.NoError(t, err)
	for _, d := range daysOf(2, 3) {
		_, err := a.Trim(context.Background(), d, nil)
		require.NoError(t, err)
	}
	all := strings.Split(bucketsOf(t, a), "\n")
	hour := func(d, h int) int64 { return day0 + int64(d)*dayMillis + int64(h)*3600_000 }
	// One hour and a half of a day below the floor, and of one from which a rule removed the samples.
	spans := [][2]int64{{hour(1, 5) + 1, hour(1, 6) + 1800_000}, {hour(3, 10), hour(3, 11)}}
	for _, span := range spans {
		_, ok := deleteSeries(t, a, `{i=~"0|1"}`, span[0], span[1])
		require.True(t, ok)
	}
	touched := func(line string) bool {
		var resolution, end int64
		_, err := fmt.Sscanf(line[strings.LastIndex(line, "}")+1:], "%d %d:", &resolution, &end)
		require.NoError(t, err)
		for i, span := range spans {
			// Series 1 has samples on the day of the second, so that its buckets are made anew.
			if (strings.Contains(line, `i="0"`) || strings.Contains(line, `i="1"`)) && (i == 0 || strings.Contains(line, `i="0"`)) && end >= span[0] && end-resolution < span[1] {
				return true
			}
		}
		return false
	}
	var left []string
	for _, line := range all {
		if !touched(line) {
			left = append(left, line)
		}
	}
	requireSame(t, strings.Join(left, "\n"), bucketsOf(t, a), "while it can be undone")
	now.Add(1000 * dayMillis)
	require.NotEqual(t, len(all), len(left))
	buckets := uint64(0)
	for _, d := range a.LiveDeletes() {
		r, err := a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
		require.NoError(t, err)
		buckets += r.Deletes[0].Buckets
	}
	require.EqualValues(t, len(all)-len(left), buckets, "the receipts say so")
	var got []string
	for _, line := range strings.Split(bucketsOf(t, a), "\n") {
		if !strings.Contains(line, `i="1"`) {
			got = append(got, line)
		}
	}
	left = slices.DeleteFunc(left, func(line string) bool { return strings.Contains(line, `i="1"`) })
	requireSame(t, strings.Join(left, "\n"), strings.Join(got, "\n"), "buckets that were not touched")
	rollAll(t, a, days, -1)
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
	a = testkit.Open(t, dir, o)
	requireRolled(t, a, day0, day0+days*dayMillis)
}

// TestTrimsAfterRestart shows that a start knows of days whose samples are not sealed: they are listed for what rules remove of them, and wait.
func TestTrimsAfterRestart(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o, _ := keptOptions(5)
	o.Retention = archive.Retention{Rules: []archive.RetentionRule{keptRule("job=job0", 2, 2, 2), keptRule("", 9, 9, 9)}}
	a := open(t, dir, o)
	require.NoError(t, a.SetRetention(archive.Retention{}))
	write(t, a, []point{{0, day0 + 5, 1}, {1, day0 + 5, 1}, {1, day0 + 5*dayMillis, 1}})
	require.NoError(t, a.SetRetention(o.Retention))
	require.NoError(t, a.Maintain(true))
	for range 2 {
		kept, err := a.Retention()
		require.NoError(t, err)
		require.Len(t, kept.Trims, 1)
		require.Equal(t, format.DayOf(day0), kept.Trims[0].Day)
		require.True(t, kept.Trims[0].Raw)
		_, err = a.Trim(context.Background(), format.DayOf(day0), nil)
		require.ErrorIs(t, err, archive.ErrKept)
		require.NoError(t, a.Close())
		a = open(t, dir, o)
	}
	require.NoError(t, a.Close())
}
