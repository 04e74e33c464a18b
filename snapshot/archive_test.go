package snapshot_test

import (
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/internal/testkit"
	"varve/snapshot"
)

const (
	dayMillis  = 86_400_000
	firstDay   = int64(1_700_006_400_000) // 15 November 2023, 00:00 UTC
	testSeries = 150
)

// write appends a day of samples.
func write(t *testing.T, s storage.Appendable, day int64, random *rand.Rand) {
	t.Helper()
	for at := int64(0); at < dayMillis; at += 120_000 {
		app := s.Appender(t.Context())
		for i := range testSeries {
			ls := labels.FromStrings("__name__", "m", "job", "j", "instance", strconv.Itoa(i))
			_, err := app.Append(0, ls, firstDay+day*dayMillis+at, math.Floor(random.Float64()*1e6)/100)
			require.NoError(t, err)
		}
		require.NoError(t, app.Commit())
	}
}

// samples reads all of an archive, by series.
func samples(t *testing.T, a *archive.Archive) map[string][]uint64 {
	t.Helper()
	q, err := a.Querier(math.MinInt64/2, math.MaxInt64/2)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	out := map[string][]uint64{}
	for set.Next() {
		series := set.At()
		key := series.Labels().String()
		it := series.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			at, v := it.At()
			out[key] = append(out[key], uint64(at), math.Float64bits(v))
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}

// take makes checkpoints of an archive for a Store.
func take(a *archive.Archive) func(context.Context, string) (snapshot.Taken, error) {
	return func(ctx context.Context, dir string) (snapshot.Taken, error) {
		c, err := a.Checkpoint(ctx, dir)
		t := snapshot.Taken{Incarnation: c.Incarnation, Taken: c.Taken, Last: c.Last, Series: c.Series}
		for _, f := range c.Files {
			t.Files = append(t.Files, snapshot.TakenFile(f))
		}
		for _, d := range c.Days {
			t.Days = append(t.Days, snapshot.Day{Day: d.Day, Samples: d.Samples, Bytes: d.Bytes, Digest: snapshot.Digest(d.Digest), Sealed: d.Sealed})
		}
		for _, c := range c.Cursors {
			t.Cursors = append(t.Cursors, snapshot.Cursor(c))
		}
		return t, err
	}
}

// Snapshots of a real archive restore to archives that pass their check and have every sample, bit for bit, the older one as of then.
// What is sent of so little data says nothing of a large archive, whose tables are not merged anew with each day.
func TestArchive(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	live := testkit.NewStorage(t, testkit.Runs)
	defer func() { require.NoError(t, live.Close()) }()
	for day := range int64(4) {
		write(t, live, day, random)
	}
	a := live.Archive()
	s := open(t, snapshot.Options{
		Bucket: newMemory(), Scratch: filepath.Join(testkit.MemoryDir(t), "scratch"), Take: take(a),
		HashCache: filepath.Join(t.TempDir(), "hashes"),
		Before:    func(context.Context) error { testkit.SealAll(t, a); return nil },
	})
	first, stats, err := s.Create(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, first.Days, 4)
	require.Equal(t, uint64(4*720*testSeries), first.Days[0].Samples+first.Days[1].Samples+first.Days[2].Samples+first.Days[3].Samples)
	require.Equal(t, stats.Bytes, stats.SentBytes)
	old := samples(t, a)

	write(t, live, 4, random)
	second, stats, err := s.Create(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, second.Days, 5)
	for family, total := range stats.Families {
		t.Logf("%q: %+v", family, total)
	}

	for _, c := range []struct {
		id   string
		want map[string][]uint64
	}{{first.ID, old}, {second.ID, samples(t, a)}} {
		dir := filepath.Join(testkit.MemoryDir(t), "restored")
		_, err := s.Restore(t.Context(), c.id, dir, snapshot.RestoreOptions{}, nil)
		require.NoError(t, err)
		require.Len(t, c.want, testSeries)
		copied := testkit.Open(t, dir, testkit.Options())
		require.Equal(t, c.want, samples(t, copied))
		require.NoError(t, copied.Close())
		r, err := s.Verify(t.Context(), c.id, snapshot.VerifyOptions{Deep: func(dir string) error {
			testkit.Check(t, dir)
			return nil
		}}, nil)
		require.NoError(t, err)
		require.True(t, r.Deep)
	}
}
