package direct_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/digest"
	"varve/intake"
	"varve/intake/blocks"
	"varve/intake/direct"
	"varve/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// begin is a midnight in the past of the tests' archives.
var begin = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC).UnixMilli()

// model is what a data directory holds: by labels and time, the hash of a sample.
type model map[string]map[int64]digest.Series

func (m model) float(ls labels.Labels, at int64, v float64) {
	var d digest.Series
	d.Float(at, v)
	m.put(ls, at, d)
}

func (m model) put(ls labels.Labels, at int64, d digest.Series) {
	if m[ls.String()] == nil {
		m[ls.String()] = map[int64]digest.Series{}
	}
	m[ls.String()][at] = d
}

// modelOf reads all that there is.
func modelOf(t testing.TB, q storage.Queryable) model {
	t.Helper()
	m := model{}
	querier, err := q.Querier(0, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, querier.Close()) }()
	set := querier.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchNotEqual, prommodel.MetricNameLabel, ""))
	for set.Next() {
		ls := set.At().Labels()
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			var d digest.Series
			switch kind {
			case chunkenc.ValFloat:
				d.Float(it.At())
			case chunkenc.ValHistogram:
				d.Histogram(it.AtHistogram(nil))
			case chunkenc.ValFloatHistogram:
				d.FloatHistogram(it.AtFloatHistogram(nil))
			}
			m.put(ls, it.AtT(), d)
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return m
}

func (m model) samples() (n uint64) {
	for _, s := range m {
		n += uint64(len(s))
	}
	return n
}

func requireSame(t testing.TB, want, got model) {
	t.Helper()
	require.Equal(t, len(want), len(got), "series")
	for name, samples := range want {
		require.Equal(t, len(samples), len(got[name]), name)
		for at, d := range samples {
			require.Equal(t, d, got[name][at], "%s at %d", name, at)
		}
	}
}

// dataDir makes a data directory as a server does: compacted blocks, some of samples out of order, deletes, histograms, and a head.
func dataDir(t testing.TB, days int) (string, model) {
	t.Helper()
	dir := t.TempDir()
	o := tsdb.DefaultOptions()
	o.MaxBlockChunkSegmentSize, o.WALSegmentSize = 1<<20, 1<<20 // upstream sets the space of a whole one aside
	o.RetentionDuration = 0
	o.MinBlockDuration, o.MaxBlockDuration = 2*time.Hour.Milliseconds(), 18*time.Hour.Milliseconds()
	o.OutOfOrderTimeWindow = 6 * time.Hour.Milliseconds()
	db, err := tsdb.Open(dir, nil, nil, o, nil)
	require.NoError(t, err)
	db.DisableCompactions()
	random, m := rand.New(rand.NewPCG(1, 7)), model{}
	sets := make([]labels.Labels, 20)
	for i := range sets {
		sets[i] = labels.FromStrings(prommodel.MetricNameLabel, fmt.Sprintf("metric_%d", i%3), "instance", fmt.Sprintf("host-%d.example", i), "job", "node")
	}
	for step := range int64(days) * 24 * 10 {
		at := begin + step*360_000 + 7
		app := db.Appender(t.Context())
		for i, ls := range sets {
			if i == 3 && step%2 == 0 { // stale for a while
				continue
			}
			v := math.Round(random.NormFloat64()*100) / 8
			_, err := app.Append(0, ls, at+int64(i), v)
			require.NoError(t, err)
			m.float(ls, at+int64(i), v)
		}
		h, ls := tsdbutil.GenerateTestHistogram(step%50), labels.FromStrings(prommodel.MetricNameLabel, "latency", "job", "api")
		_, err := app.AppendHistogram(0, ls, at, h, nil)
		require.NoError(t, err)
		m.put(ls, at, digestOf(at, h, nil))
		fh, ls := tsdbutil.GenerateTestFloatHistogram(step%50), labels.FromStrings(prommodel.MetricNameLabel, "latency_float", "job", "api")
		_, err = app.AppendHistogram(0, ls, at, nil, fh)
		require.NoError(t, err)
		m.put(ls, at, digestOf(at, nil, fh))
		require.NoError(t, app.Commit())
		if step%17 == 16 { // late ones
			app := db.Appender(t.Context())
			late := at - random.Int64N(5*time.Hour.Milliseconds())/10_000*10_000 - 3000
			if _, twice := m[sets[5].String()][late]; twice || late < begin {
				late = at - 1
			}
			_, err := app.Append(0, sets[5], late, float64(step))
			require.NoError(t, err)
			require.NoError(t, app.Commit())
			m.float(sets[5], late, float64(step))
		}
		if step%80 == 79 {
			require.NoError(t, db.Compact(t.Context()))
		}
	}
	from, to := begin+20*time.Hour.Milliseconds(), begin+26*time.Hour.Milliseconds()
	require.NoError(t, db.Delete(t.Context(), from, to, labels.MustNewMatcher(labels.MatchEqual, "instance", "host-9.example")))
	for at := range m[sets[9].String()] {
		if at >= from && at <= to {
			delete(m[sets[9].String()], at)
		}
	}
	require.NoError(t, db.Close())
	return dir, m
}

func digestOf(at int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (d digest.Series) {
	if h != nil {
		d.Histogram(at, h)
	} else {
		d.FloatHistogram(at, fh)
	}
	return d
}

func options() archive.Options {
	o := testkit.Options()
	o.Now = func() time.Time { return time.UnixMilli(begin).AddDate(0, 1, 0) }
	return o
}

func run(t testing.TB, dir string, a *archive.Archive, o intake.Options, bo blocks.Options) intake.Report {
	t.Helper()
	bo.Scratch = filepath.Join(t.TempDir(), "scratch")
	s, err := blocks.Open(t.Context(), []string{dir}, bo)
	require.NoError(t, err)
	r, err := intake.Run(t.Context(), s, direct.New(a, direct.Options{}), o)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	left, err := os.ReadDir(bo.Scratch)
	require.NoError(t, err)
	require.Empty(t, left)
	return r
}

// TestDataDirectory shows that all that a server's directory holds arrives, sample by sample: blocks, samples out of order,
// histograms, what is in the head, without what was deleted. A rerun changes nothing, with and without the state file.
func TestDataDirectory(t *testing.T) {
	dir, want := dataDir(t, 3)
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	state := filepath.Join(t.TempDir(), "state.json")
	r := run(t, dir, a, intake.Options{State: state}, blocks.Options{})
	require.True(t, r.Equal(), "%v", r.Unequal)
	require.Equal(t, 3, r.Leased)
	require.Equal(t, want.samples(), r.Samples)
	requireSame(t, want, modelOf(t, a))

	r = run(t, dir, a, intake.Options{State: state}, blocks.Options{})
	require.Equal(t, 3, r.Before)
	require.Equal(t, want.samples(), r.Samples)
	r = run(t, dir, a, intake.Options{}, blocks.Options{})
	require.True(t, r.Equal(), "%v", r.Unequal)
	require.Equal(t, 3, r.Written)
	require.Zero(t, r.Stored)
	require.Equal(t, want.samples(), r.Repeated)
	requireSame(t, want, modelOf(t, a))
}

// TestTakenDay shows that a day that has samples goes through the write port, beside those, and that one live sample with
// another value at the time of an imported one loses to it, as the later arrival wins.
func TestTakenDay(t *testing.T) {
	dir, want := dataDir(t, 2)
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	live := labels.FromStrings(prommodel.MetricNameLabel, "live", "job", "node")
	other := labels.FromStrings(prommodel.MetricNameLabel, "metric_0", "instance", "host-0.example", "job", "node")
	testkit.Write(t, a, begin+7, []labels.Labels{live, other}, []float64{1, -5})
	want.float(live, begin+7, 1)
	r := run(t, dir, a, intake.Options{PieceBytes: 5000}, blocks.Options{})
	require.True(t, r.Equal(), "%v", r.Unequal)
	require.Equal(t, 1, r.Written)
	require.Equal(t, 1, r.Leased)
	requireSame(t, want, modelOf(t, a))
}

// TestFarDay shows that a day beyond all that the archive can hold is refused, and none is leased in its place.
func TestFarDay(t *testing.T) {
	target := direct.New(testkit.Open(t, testkit.MemoryDir(t), options()), direct.Options{})
	for _, start := range []int64{begin + 1<<32*intake.DayMillis, begin - 1<<32*intake.DayMillis} {
		day, err := target.OpenDay(t.Context(), start)
		if err == nil {
			require.NoError(t, day.Close())
		}
		require.ErrorIs(t, err, intake.ErrDayRefused)
	}
}

// TestPart shows that start and end cut inside of chunks, that only selected series come, and that extra labels are set.
func TestPart(t *testing.T) {
	dir, all := dataDir(t, 2)
	start, end := begin+5*3600_000+1234, begin+30*3600_000+77
	want := model{}
	for i := range 20 {
		ls := labels.FromStrings(prommodel.MetricNameLabel, fmt.Sprintf("metric_%d", i%3), "instance", fmt.Sprintf("host-%d.example", i), "job", "node")
		renamed := labels.NewBuilder(ls).Set("job", "moved").Set("site", "x").Labels()
		for at, d := range all[ls.String()] {
			if i%3 != 0 && at >= start && at < end {
				want.put(renamed, at, d)
			}
		}
	}
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	r := run(t, dir, a, intake.Options{Start: start, End: end, ExtraLabels: labels.FromStrings("job", "moved", "site", "x"), Workers: 1},
		blocks.Options{Start: start, End: end, Match: [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, prommodel.MetricNameLabel, "metric_[12]")}}})
	require.True(t, r.Equal(), "%v", r.Unequal)
	require.Equal(t, want.samples(), r.Samples)
	requireSame(t, want, modelOf(t, a))
}

// TestRefusedLabels shows that a series that the archive can't have is counted with an example.
func TestRefusedLabels(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	target := direct.New(a, direct.Options{ValueBytesMax: 10})
	series := []intake.Series{
		{Labels: labels.FromStrings("job", "x")},
		{Labels: labels.FromStrings(prommodel.MetricNameLabel, "m", "l", "a value that is long")},
		{Labels: labels.FromStrings(prommodel.MetricNameLabel, "m", "l", "\xff")},
		{Labels: labels.FromStrings(prommodel.MetricNameLabel, "m", "l", "v")},
	}
	require.NoError(t, target.Resolve(context.Background(), series))
	for _, s := range series[:3] {
		require.Zero(t, s.Ref)
		require.Contains(t, s.Refused, "invalid_labels")
	}
	require.NotZero(t, series[3].Ref)
	require.NotZero(t, series[3].Metric)
}
