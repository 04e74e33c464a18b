package blocks

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"varve/export"
)

// options are those of a test that exports all of what fill writes.
func options(t testing.TB, q storage.Queryable, dir string) Options {
	place, err := NewFolder(dir)
	require.NoError(t, err)
	return Options{
		Source: source(q), Request: export.Request{Selectors: all, MinMillis: start, MaxMillis: start + 62*hour}, Block: 24 * time.Hour,
		Place: place, Origin: "test",
	}
}

// open opens a folder with blocks as Prometheus' library does.
func open(t testing.TB, dir string) *tsdb.DB {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 1 << 50
	db, err := tsdb.Open(dir, discard, nil, o, nil)
	require.NoError(t, err)
	db.DisableCompactions()
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// TestRoundTrip shows that blocks of several lengths, of all series or of two selectors, have the very samples of the archive: histograms
// of all kinds, bits of NaN, stale markers; also if series are read one by one.
func TestRoundTrip(t *testing.T) {
	s := filled(t)
	for name, change := range map[string]func(*Options){
		"days":         func(*Options) {},
		"two hours":    func(o *Options) { o.Block = 2 * time.Hour },
		"fortnight":    func(o *Options) { o.Block = BlockMax },
		"one by one":   func(o *Options) { o.Walker.SliceSeriesMax = 1 },
		"small budget": func(o *Options) { o.Walker.SamplesBudget = 500 },
		"segments":     func(o *Options) { o.segmentBytes = 20_000 },
		"selectors": func(o *Options) {
			o.Request.Selectors = [][]*labels.Matcher{
				{labels.MustNewMatcher(labels.MatchEqual, "__name__", "requests_total"), labels.MustNewMatcher(labels.MatchNotEqual, "instance", "b")},
				{labels.MustNewMatcher(labels.MatchRegexp, "instance", "a|b")},
				{labels.MustNewMatcher(labels.MatchEqual, "Room", "1")},
			}
		},
		"part": func(o *Options) { o.Request.MinMillis, o.Request.MaxMillis = start+5*hour+7, start+30*hour+7 },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := options(t, s, dir)
			change(&o)
			report, err := Run(t.Context(), o)
			require.NoError(t, err)
			require.NotEmpty(t, report.Blocks)
			db := open(t, dir)
			require.Len(t, db.Blocks(), len(report.Blocks))
			got := read(t, db, start-day, start+90*day)
			want := read(t, s, o.Request.MinMillis, o.Request.MaxMillis)
			switch name {
			case "selectors":
				want = map[string][]sample{}
				for _, ms := range o.Request.Selectors {
					for ls, samples := range read(t, s, o.Request.MinMillis, o.Request.MaxMillis, ms...) {
						want[ls] = samples
					}
				}
				require.Len(t, want, 4)
			default:
				require.GreaterOrEqual(t, len(want), 8)
			}
			require.Equal(t, want, got)
			total := uint64(0)
			for _, samples := range want {
				total += uint64(len(samples))
			}
			require.Equal(t, total, report.Stats.Floats+report.Stats.Histograms)
			for _, b := range db.Blocks() {
				require.Equal(t, tsdb.BlockMetaCompaction{Level: level(b.Meta().MaxTime - b.Meta().MinTime), Sources: b.Meta().Compaction.Sources}, b.Meta().Compaction)
				require.Positive(t, b.Meta().Stats.NumChunks)
			}
		})
	}
}

// TestRerun shows that a second run writes nothing, that one which was ended between two blocks goes on, and that another selector,
// resolution or set of external labels is another export.
func TestRerun(t *testing.T) {
	s := filled(t)
	dir := t.TempDir()
	o := options(t, s, dir)
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(p Progress) {
		if p.Done == 1 {
			cancel()
		}
	}
	report, err := Run(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, report.Blocks, 1)
	first := report.Blocks[0].ID
	o.Progress = nil
	report, err = Run(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, report.Blocks, 3)
	require.True(t, report.Blocks[0].Existed)
	require.Equal(t, first, report.Blocks[0].ID)
	require.False(t, report.Blocks[1].Existed)
	before := names(t, dir)
	require.Len(t, before, 3)
	report, err = Run(t.Context(), o)
	require.NoError(t, err)
	require.True(t, report.Blocks[2].Existed)
	require.Equal(t, before, names(t, dir))
	o.ExternalLabels = labels.FromStrings("cluster", "x")
	_, err = Run(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, names(t, dir), 6)
}

func names(t testing.TB, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestMeta shows the part of meta.json that Thanos reads.
func TestMeta(t *testing.T) {
	s := filled(t)
	dir := t.TempDir()
	o := options(t, s, dir)
	o.ExternalLabels = labels.FromStrings("cluster", "x", "replica", "1")
	o.segmentBytes = 20_000
	report, err := Run(t.Context(), o)
	require.NoError(t, err)
	at := filepath.Join(dir, report.Blocks[0].ID.String())
	text, err := os.ReadFile(filepath.Join(at, metaName))
	require.NoError(t, err)
	var m Meta
	require.NoError(t, json.Unmarshal(text, &m))
	require.Equal(t, start, m.MinTime)
	require.Equal(t, start+day, m.MaxTime)
	require.Equal(t, map[string]string{"cluster": "x", "replica": "1"}, m.Thanos.Labels)
	require.Equal(t, "varve", m.Thanos.Source)
	require.Greater(t, len(m.Thanos.SegmentFiles), 1)
	require.Equal(t, "000001", m.Thanos.SegmentFiles[0])
	require.Contains(t, m.Thanos.Files, File{RelPath: metaName})
	for _, f := range m.Thanos.Files[:len(m.Thanos.Files)-1] {
		st, err := os.Stat(filepath.Join(at, f.RelPath))
		require.NoError(t, err)
		require.Equal(t, st.Size(), f.SizeBytes)
	}
	require.True(t, slices.Contains(names(t, at), "tombstones"))
	require.Len(t, names(t, at), 4) // No scratch file is left.
}

// TestRefused shows what is refused, and that nothing is left then.
func TestRefused(t *testing.T) {
	s := filled(t)
	for name, change := range map[string]func(*Options){
		"external label of a series": func(o *Options) { o.ExternalLabels = labels.FromStrings("instance", "x") },
		"length":                     func(o *Options) { o.Block = 3 * time.Hour },
		"too long":                   func(o *Options) { o.Block = 15 * 24 * time.Hour },
		"no selector":                func(o *Options) { o.Request.Selectors = nil },
		"resolution":                 func(o *Options) { o.Resolution = time.Minute },
		"time":                       func(o *Options) { o.Request.MaxMillis = o.Request.MinMillis - 1 },
		"no bounds":                  func(o *Options) { o.Request.MinMillis = -1 << 62 },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := options(t, s, dir)
			change(&o)
			_, err := Run(t.Context(), o)
			require.ErrorIs(t, err, ErrOption)
			require.Empty(t, names(t, dir))
		})
	}
}

// TestSweep shows that a draft that was left by a dead process goes, and one that is being made stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "01HF8ZZZZZZZZZZZZZZZZZZZZZ.tmp")
	require.NoError(t, os.Mkdir(dead, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "other.tmp"), 0o755))
	live := filepath.Join(dir, "01HF9ZZZZZZZZZZZZZZZZZZZZZ.tmp")
	require.NoError(t, os.Mkdir(live, 0o755))
	lock, err := lockDir(live)
	require.NoError(t, err)
	_, err = NewFolder(dir)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Base(live), "other.tmp"}, names(t, dir))
	require.NoError(t, lock.Close())
}

// failing is a storage whose n-th Select fails.
type failing struct {
	storage.Queryable
	left *int
}

var errFailed = errors.New("disk on fire")

func (f failing) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := f.Queryable.Querier(mint, maxt)
	return failingQuerier{q, f.left}, err
}

type failingQuerier struct {
	storage.Querier
	left *int
}

func (q failingQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if *q.left--; *q.left < 0 {
		return storage.ErrSeriesSet(errFailed)
	}
	return q.Querier.Select(ctx, sorted, hints, ms...)
}

// TestFailedReads shows that whichever read of the storage fails, the error is told, no half block is left, and a rerun
// brings all of it.
func TestFailedReads(t *testing.T) {
	s := filled(t)
	dir := t.TempDir()
	left := 0
	for n := 0; ; n++ {
		left = n
		o := options(t, failing{s, &left}, dir)
		o.Walker.SliceSeriesMax = 3
		_, err := Run(t.Context(), o)
		for _, name := range names(t, dir) {
			require.NotContains(t, name, draftSuffix)
		}
		if err == nil {
			require.Greater(t, n, 2)
			break
		}
		require.ErrorIs(t, err, errFailed)
	}
	require.Equal(t, read(t, s, start, start+62*hour), read(t, open(t, dir), start, start+62*hour))
}

// TestTooLarge shows that a read which the storage refuses as too large is divided until it isn't.
func TestTooLarge(t *testing.T) {
	s := filled(t)
	dir := t.TempDir()
	o := options(t, limited{s}, dir)
	o.Source.TooLarge = func(err error) bool { return errors.Is(err, errTooMany) }
	_, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, read(t, s, start, start+62*hour), read(t, open(t, dir), start, start+62*hour))
}

var errTooMany = errors.New("too many")

// limited is a storage that answers for at most two series a Select.
type limited struct{ storage.Queryable }

func (l limited) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := l.Queryable.Querier(mint, maxt)
	return limitedQuerier{q}, err
}

type limitedQuerier struct{ storage.Querier }

func (q limitedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if hints != nil && hints.Func != "series" {
		found, n := q.Querier.Select(ctx, sorted, hints, ms...), 0
		for found.Next() {
			n++
		}
		if n > 2 {
			return storage.ErrSeriesSet(errTooMany)
		}
	}
	return q.Querier.Select(ctx, sorted, hints, ms...)
}
