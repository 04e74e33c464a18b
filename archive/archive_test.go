package archive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/internal/testkit"
)

// TestMain fails when a test leaves a goroutine or an object of RocksDB behind.
func TestMain(m *testing.M) { testkit.Main(m) }

// day0 is a time of the tests: the last day of a month, so that they cross day and month.
var day0 = time.Date(2025, 1, 31, 0, 0, 0, 0, time.UTC).UnixMilli()

func clock() time.Time { return time.UnixMilli(day0 + 3*86400_000) }

func options() archive.Options {
	o := testkit.Options()
	o.Now = clock
	return o
}

func seriesLabels(i int) labels.Labels {
	return labels.FromStrings("__name__", fmt.Sprintf("metric_%d", i%5), "job", fmt.Sprintf("job%d", i%3), "instance", fmt.Sprintf("host%d", i%7), "i", fmt.Sprint(i))
}

// point is one sample of the model.
type point struct {
	series int
	t      int64
	v      float64
}

// resolve returns the ref of a label set.
func resolve(t testing.TB, a *archive.Archive, ls labels.Labels) storage.SeriesRef {
	u := []arrival.Unknown{{Labels: ls}}
	require.NoError(t, a.Resolve(context.Background(), u))
	require.NotZero(t, u[0].Ref)
	return u[0].Ref
}

// write stores points in one batch.
func write(t testing.TB, a *archive.Archive, points []point) arrival.Result {
	b := &arrival.Batch{}
	for _, p := range points {
		b.Rows = append(b.Rows, arrival.Row{Ref: resolve(t, a, seriesLabels(p.series)), First: uint32(len(b.Times)), Count: 1})
		b.Times = append(b.Times, p.t)
		b.Values = append(b.Values, math.Float64bits(p.v))
	}
	res, err := a.Write(context.Background(), b)
	require.NoError(t, err)
	return res
}

type model map[int]map[int64]uint64

func (m model) add(points []point) {
	for _, p := range points {
		if m[p.series] == nil {
			m[p.series] = map[int64]uint64{}
		}
		m[p.series][p.t] = math.Float64bits(p.v)
	}
}

// dump formats the model between two times as read formats the archive.
func (m model) dump(mint, maxt int64) string {
	lines := []string{}
	for i, samples := range m {
		times := []int64{}
		for t := range samples {
			if t >= mint && t <= maxt {
				times = append(times, t)
			}
		}
		if len(times) == 0 {
			continue
		}
		sort.Slice(times, func(x, y int) bool { return times[x] < times[y] })
		b := strings.Builder{}
		b.WriteString(seriesLabels(i).String())
		for _, t := range times {
			writeSample(&b, t, samples[t])
		}
		lines = append(lines, b.String())
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// writeSample adds a sample to a line. Tests format millions, which is what they would spend most of their time
// on if it was done by package fmt under the race detector.
func writeSample(b *strings.Builder, at int64, bits uint64) {
	var room [48]byte
	line := strconv.AppendInt(append(room[:0], ' '), at, 10)
	b.Write(strconv.AppendUint(append(line, '='), bits, 16))
}

// read formats all samples between two times that match, series without samples left out.
func read(t testing.TB, a storage.Queryable, mint, maxt int64, ms ...*labels.Matcher) string {
	q, err := a.Querier(mint, maxt)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	if len(ms) == 0 {
		ms = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")}
	}
	set := q.Select(context.Background(), true, nil, ms...)
	lines := []string{}
	for set.Next() {
		s := set.At()
		it := s.Iterator(nil)
		b := strings.Builder{}
		b.WriteString(s.Labels().String())
		n := 0
		for it.Next() != 0 {
			ts, v := it.At()
			writeSample(&b, ts, math.Float64bits(v))
			n++
		}
		require.NoError(t, it.Err())
		if n > 0 {
			lines = append(lines, b.String())
		}
	}
	require.NoError(t, set.Err())
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// requireSame fails with the first line that differs: the whole is too long to read.
func requireSame(t testing.TB, want, got, message string) {
	t.Helper()
	if want == got {
		return
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) || w[i] != g[i] {
			t.Fatalf("%s: %d lines, want %d; line %d:\n%.1500s\nwant:\n%.1500s", message, len(g), len(w), i, append(g, "")[min(i, len(g))], w[i])
		}
	}
	t.Fatalf("%s: %d lines too many", message, len(g)-len(w))
}

// crash copies the archive's files as a kill would leave them and opens the copy.
// A copy during which RocksDB made or dropped files is no image of one moment, so it is taken again.
func crash(t testing.TB, dir string, o archive.Options) (*archive.Archive, string) {
	to := filepath.Join(testkit.MemoryDir(t), "copy")
	for {
		before := listing(t, dir)
		out, err := exec.Command("cp", "-a", dir, to).CombinedOutput()
		if err == nil && listing(t, dir) == before {
			break
		}
		require.NoError(t, os.RemoveAll(to), string(out))
	}
	a, err := archive.Open(to, o)
	require.NoError(t, err)
	<-a.Started()
	require.NoError(t, a.StartError())
	return a, to
}

func listing(t testing.TB, dir string) string {
	var b strings.Builder
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, path, info.Size())
		}
		return nil
	}))
	return b.String()
}

// values that a codec may spoil.
var oddValues = []float64{
	math.Float64frombits(value.StaleNaN), math.Float64frombits(value.NormalNaN), math.Float64frombits(0x7ff8dead00000001), math.Inf(1), math.Inf(-1),
	math.Copysign(0, -1), 0, math.SmallestNonzeroFloat64, math.MaxFloat64, 1e15, 0.1,
}

// sealAll seals every day that has runs, or some of them.
func sealAll(t testing.TB, a *archive.Archive, some bool) {
	t.Helper()
	days, err := a.Days()
	require.NoError(t, err)
	for i, d := range days {
		if !d.Runs || some && i%2 == 0 {
			continue
		}
		_, err := a.Seal(context.Background(), d.Day, nil)
		require.NoError(t, err)
	}
	_, err = a.Reclaim()
	require.NoError(t, err)
}

// TestAgainstModel writes at random (in order, late, again, in the past, odd
// values), cuts, flushes, seals, reopens, crashes at random, and compares everything with a
// model after each step.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			dir := testkit.MemoryDir(t)
			o := options()
			o.MemtableBytes = 64 << 10
			a, err := archive.Open(dir, o)
			require.NoError(t, err)
			<-a.Started()
			if seed%2 == 0 {
				a.SmallSeals()
			}
			m := model{}
			at := day0 + 86400_000 - 600_000
			kinds := []int{}
			for step := range 60 {
				k := r.IntN(24)
				kinds = append(kinds, k)
				switch {
				case k < 12:
					points := []point{}
					for range 1 + r.IntN(200) {
						p := point{series: r.IntN(40), t: at, v: float64(r.IntN(1000)) / 8}
						switch r.IntN(12) {
						case 0:
							p.t -= r.Int64N(30_000)
						case 1:
							p.t -= r.Int64N(40 * 86400_000)
						case 2:
							p.t = -r.Int64N(50 * 365 * 86400_000)
						case 3:
							p.v = oddValues[r.IntN(len(oddValues))]
						}
						points = append(points, p)
						at += r.Int64N(2000)
					}
					res := write(t, a, points)
					require.Equal(t, len(points), res.Samples)
					m.add(points)
				case k < 14:
					require.NoError(t, a.Maintain(true))
				case k < 15:
					require.NoError(t, a.Maintain(false))
				case k < 17:
					require.NoError(t, a.Close())
					testkit.Check(t, dir)
					a = testkit.Open(t, dir, o)
					if seed%3 == 0 {
						a.SmallSeals()
					}
				case k < 19:
					b, to := crash(t, dir, o)
					require.NoError(t, a.Close())
					testkit.Check(t, dir)
					a, dir = b, to
				case k < 22:
					sealAll(t, a, r.IntN(3) == 0)
				}
				mint, maxt := int64(math.MinInt64), int64(math.MaxInt64)
				if r.IntN(2) == 0 {
					mint = at - r.Int64N(3*86400_000)
					maxt = mint + r.Int64N(86400_000)
				}
				requireSame(t, m.dump(mint, maxt), read(t, a, mint, maxt), fmt.Sprintf("seed %d step %d kinds %v", seed, step, kinds))
			}
			require.NoError(t, a.Close())
			testkit.Check(t, dir)
		})
	}
}

// TestViewStands shows that a Querier keeps seeing what it could see when it was
// opened, while runs and bitmaps move to disk, and sees each sample once.
func TestViewStands(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	m := model{}
	add := func(from int) {
		points := []point{}
		for i := range 200 {
			points = append(points, point{series: i % 20, t: day0 + int64(from+i)*1000, v: float64(from + i)})
		}
		write(t, a, points)
		m.add(points)
	}
	add(0)
	before := m.dump(math.MinInt64, math.MaxInt64)
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	require.NoError(t, a.Maintain(true))
	require.NoError(t, a.Maintain(true))
	standing := storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return unclosed{q}, nil })
	require.Equal(t, before, read(t, standing, 0, 0))
	require.NoError(t, q.Close())
	require.NoError(t, a.Maintain(true))
	require.Equal(t, before, read(t, a, math.MinInt64, math.MaxInt64))
	add(200)
	require.Equal(t, m.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64))
}

// unclosed lets one Querier serve several reads.
type unclosed struct{ storage.Querier }

func (unclosed) Close() error { return nil }

// TestRefusals shows that a sample too far ahead is refused for itself alone, and
// that a row without a series harms nothing beside it.
func TestRefusals(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	ref := resolve(t, a, seriesLabels(1))
	other := resolve(t, a, seriesLabels(2))
	now := clock().UnixMilli()
	b := &arrival.Batch{
		Rows:   []arrival.Row{{Ref: ref, First: 0, Count: 3}, {Ref: 0, First: 3, Count: 1}, {Ref: other, First: 4, Count: 1}},
		Times:  []int64{now, now + 600_001, now + 600_000, now, now},
		Values: []uint64{1, 2, 3, 4, 5},
	}
	res, err := a.Write(context.Background(), b)
	require.NoError(t, err)
	require.Equal(t, 3, res.Samples)
	require.Equal(t, 1, res.Rejected[arrival.ReasonFuture])
	require.Regexp(t, `^too_far_in_future: \{__name__=.*\} at 20\d\d-\d\d-\d\dT[0-9:.]+Z$`, res.Example)
	want := fmt.Sprintf("%s %d=1 %d=3\n%s %d=5", seriesLabels(1), now, now+600_000, seriesLabels(2), now)
	require.Equal(t, want, read(t, a, math.MinInt64, math.MaxInt64))
}

// TestCutLog shows that a write-ahead log which lost its acknowledged end is
// noticed, and that the archive then stays down and says what to do.
func TestCutLog(t *testing.T) {
	dir := t.TempDir()
	o := options()
	a, err := archive.Open(dir, o)
	require.NoError(t, err)
	<-a.Started()
	for i := range 50 {
		write(t, a, []point{{series: i, t: day0, v: 1}})
	}
	require.NoError(t, a.Close())
	logs, err := filepath.Glob(filepath.Join(dir, "db", "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, logs)
	st, err := os.Stat(logs[len(logs)-1])
	require.NoError(t, err)
	require.NoError(t, os.Truncate(logs[len(logs)-1], st.Size()-2000))
	_, err = archive.Open(dir, o)
	require.ErrorIs(t, err, archive.ErrCorrupt)
	require.ErrorContains(t, err, "was cut short")
}

// TestFormerRollups shows that an archive of a build before the first release, with one family for all rollups, is refused by all that reads
// archives, in words that say what to do.
func TestFormerRollups(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, archive.MakeFormer(dir))
	_, open := archive.Open(dir, options())
	_, check := archive.Check(dir, func(archive.Fault) {})
	_, inspect := archive.Inspect(t.Context(), dir, 1)
	_, adopt := archive.Adopt(dir, options())
	for _, err := range []error{open, check, inspect, adopt} {
		require.ErrorContains(t, err, "a build before the first release")
		require.ErrorContains(t, err, "varve export tsdb")
		require.ErrorContains(t, err, dir)
		require.NotErrorIs(t, err, archive.ErrCorrupt)
	}
}

// TestLabels shows that label names and values are those of series with a sample in
// the time range, to the millisecond.
func TestLabels(t *testing.T) {
	for _, cut := range []bool{false, true} {
		a := testkit.Open(t, testkit.MemoryDir(t), options())
		write(t, a, []point{{series: 1, t: day0 + 1000}, {series: 2, t: day0 + 5000}, {series: 3, t: day0 + 86400_000}})
		if cut {
			require.NoError(t, a.Maintain(true))
			require.NoError(t, a.Maintain(true))
		}
		f := func(mint, maxt int64, want ...string) {
			t.Helper()
			q, err := a.Querier(mint, maxt)
			require.NoError(t, err)
			got, _, err := q.LabelValues(context.Background(), "i", nil)
			require.NoError(t, err)
			require.Equal(t, want, append([]string{}, got...))
			got, _, err = q.LabelValues(context.Background(), "i", nil, labels.MustNewMatcher(labels.MatchRegexp, "job", ".+"))
			require.NoError(t, err)
			require.Equal(t, want, append([]string{}, got...))
			names, _, err := q.LabelNames(context.Background(), nil)
			require.NoError(t, err)
			if len(want) > 0 {
				require.Equal(t, []string{"__name__", "i", "instance", "job"}, names)
			} else {
				require.Empty(t, names)
			}
			require.NoError(t, q.Close())
		}
		f(math.MinInt64, math.MaxInt64, "1", "2", "3")
		f(day0, day0+86400_000-1, "1", "2")
		f(day0+1000, day0+1000, "1")
		f(day0+1001, day0+4999, []string{}...)
		f(day0+1001, day0+5000, "2")
		f(day0+5000, day0+86400_000, "2", "3")
		f(day0+5001, day0+2*86400_000, "3")
	}
}

// TestMatchers holds every kind of matcher against filtering by hand.
func TestMatchers(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	m := model{}
	points := []point{}
	for i := range 60 {
		points = append(points, point{series: i, t: day0 + int64(i)*1000, v: 1})
	}
	write(t, a, points)
	m.add(points)
	for _, sel := range []string{
		"job=job1", "job!=job1", "job=~job[12]", "job!~job[12]", "job=~job1|job2", "nope=", "nope!=", "nope=~.*", "nope!~.*", "nope=~.+",
		"i=~1.*", "i=~(1|2)", "i!~1.*", "instance=~host[0-3]", "job=", "job!=", "job=~", "job!~", "i=~.*5", "nope!=x", "nope=x", "job=~job1|",
	} {
		t.Run(sel, func(t *testing.T) {
			x := matcher(sel)
			for _, with := range [][]*labels.Matcher{{x}, {x, matcher("__name__=metric_1")}, {x, matcher("__name__=~metric_[12]")}} {
				want := model{}
				for i, s := range m {
					ls := seriesLabels(i)
					ok := true
					for _, y := range with {
						ok = ok && y.Matches(ls.Get(y.Name))
					}
					if ok {
						want[i] = s
					}
				}
				require.Equal(t, want.dump(math.MinInt64, math.MaxInt64), read(t, a, math.MinInt64, math.MaxInt64, with...))
			}
		})
	}
}

func matcher(s string) *labels.Matcher {
	for _, op := range []struct {
		text string
		t    labels.MatchType
	}{{"!=", labels.MatchNotEqual}, {"!~", labels.MatchNotRegexp}, {"=~", labels.MatchRegexp}, {"=", labels.MatchEqual}} {
		if name, v, ok := strings.Cut(s, op.text); ok {
			return labels.MustNewMatcher(op.t, name, v)
		}
	}
	panic(s)
}

// TestInspect shows that an archive's contents are counted, offline and running, and
// that the largest comes first.
func TestInspect(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o := options()
	a, err := archive.Open(dir, o)
	require.NoError(t, err)
	<-a.Started()
	var points []point
	for i := range 400 {
		points = append(points, point{series: i % 10, t: clock().UnixMilli() - int64(400-i)*1000, v: float64(i)})
	}
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	running, err := a.Survey(context.Background(), 3)
	require.NoError(t, err)
	require.Equal(t, uint64(10), running.Series)
	require.Len(t, running.Metrics, 3)
	require.NoError(t, a.Close())
	s, err := archive.Inspect(context.Background(), dir, 3)
	require.NoError(t, err)
	require.Equal(t, uint64(10), s.Series)
	require.Equal(t, uint64(2), s.Metrics[0].Count)
	require.Greater(t, s.Metrics[0].Bytes, uint64(200))
	require.Greater(t, s.DiskBytes, s.Metrics[0].Bytes)
	require.Equal(t, uint64(10), s.Pairs[0].Count+s.Pairs[1].Count+s.Pairs[2].Count, "the largest pairs are of job")

	// What is sealed counts too, and is less.
	a = testkit.Open(t, dir, o)
	testkit.SealAll(t, a)
	require.NoError(t, a.Close())
	sealed, err := archive.Inspect(context.Background(), dir, 3)
	require.NoError(t, err)
	require.Equal(t, uint64(2), sealed.Metrics[0].Count)
	require.Positive(t, sealed.Metrics[0].Bytes)
	require.Less(t, sealed.Metrics[0].Bytes, s.Metrics[0].Bytes)
}

// TestExemplarsAndMetadata shows that both are read back after a restart, and that
// an exemplar is found by time and by matcher.
func TestExemplarsAndMetadata(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a, err := archive.Open(dir, options())
	require.NoError(t, err)
	<-a.Started()
	b := &arrival.Batch{
		Rows:  []arrival.Row{{Ref: resolve(t, a, seriesLabels(1)), Count: 1}},
		Times: []int64{day0}, Values: []uint64{1},
		Exemplars: []arrival.Exemplar{
			{Exemplar: exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "x"), Value: 1.5, Ts: day0, HasTs: true}},
			{Exemplar: exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "y"), Value: 2.5, Ts: day0 + 86400_000, HasTs: true}},
		},
		Metadata: []arrival.Metadata{{Family: "metric_1", Metadata: metadata.Metadata{Type: "counter", Help: "help", Unit: "s"}}},
	}
	res, err := a.Write(context.Background(), b)
	require.NoError(t, err)
	require.Equal(t, 2, res.Exemplars)
	require.NoError(t, a.Close())
	a = testkit.Open(t, dir, options())
	m, ok := a.MetadataOf("metric_1")
	require.True(t, ok)
	require.Equal(t, metadata.Metadata{Type: "counter", Help: "help", Unit: "s"}, m)
	q, err := a.ExemplarQuerier(context.Background())
	require.NoError(t, err)
	got, err := q.Select(day0, day0+1000, []*labels.Matcher{matcher("job=~job.*")}, []*labels.Matcher{matcher("__name__=metric_1")})
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Len(t, got[0].Exemplars, 1)
	require.Equal(t, 1.5, got[0].Exemplars[0].Value)
	got, err = q.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{matcher("__name__=metric_1")})
	require.NoError(t, err)
	require.Len(t, got[0].Exemplars, 2)
}

// TestWriteAllocations shows that a sample costs no allocation from the decoded batch
// to the acknowledgement: what a write allocates does not grow with its samples.
func TestWriteAllocations(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	var rows []arrival.Row
	for i := range 2000 {
		rows = append(rows, arrival.Row{Ref: resolve(t, a, seriesLabels(i)), First: uint32(i), Count: 1})
	}
	b := &arrival.Batch{Rows: rows, Times: make([]int64, len(rows)), Values: make([]uint64, len(rows))}
	at := day0
	write := func() {
		at += 15_000
		for i := range b.Times {
			b.Times[i], b.Values[i] = at, math.Float64bits(float64(i)*float64(at%977))
		}
		_, err := a.Write(context.Background(), b)
		require.NoError(t, err)
	}
	for range 50 {
		write()
	}
	// Every 22nd sample of a series closes its tail; the log of pieces grows by doubling.
	require.Less(t, testing.AllocsPerRun(44, write)/float64(len(rows)), 0.02)
}
