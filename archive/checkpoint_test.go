package archive_test

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
	"varve/rocks"
)

// counting writes to one series each the numbers from 1 on, as fast as it goes, and tells how far it is.
type counting struct {
	refs  []storage.SeriesRef
	acked []atomic.Int64
}

const countingStep = 10 // ms between samples

func newCounting(t testing.TB, a *archive.Archive, n int) *counting {
	c := &counting{acked: make([]atomic.Int64, n)}
	for i := range n {
		c.refs = append(c.refs, resolve(t, a, seriesLabels(i)))
	}
	return c
}

func (c *counting) run(ctx context.Context, t testing.TB, a *archive.Archive, i int) {
	for next := c.acked[i].Load() + 1; ctx.Err() == nil; {
		b := &arrival.Batch{Rows: []arrival.Row{{Ref: c.refs[i], Count: 1}}}
		b.Times, b.Values = append(b.Times, day0+next*countingStep), append(b.Values, math.Float64bits(float64(next)))
		next++
		if _, err := a.Write(context.Background(), b); err != nil {
			t.Error(err)
			return
		}
		c.acked[i].Store(next - 1)
	}
}

func (c *counting) progress() (out []int64) {
	for i := range c.acked {
		out = append(out, c.acked[i].Load())
	}
	return out
}

// requireCounted shows that each series has the numbers from 1 on without a gap, as far as least at the least.
func requireCounted(t testing.TB, a *archive.Archive, least []int64) {
	t.Helper()
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	for i, want := range least {
		set := q.Select(context.Background(), true, nil, matcher(fmt.Sprintf("i=%d", i)))
		n := int64(0)
		for set.Next() {
			it := set.At().Iterator(nil)
			for it.Next() == chunkenc.ValFloat {
				n++
				at, v := it.At()
				require.Equal(t, day0+n*countingStep, at)
				require.Equal(t, float64(n), v)
			}
			require.NoError(t, it.Err())
		}
		require.NoError(t, set.Err())
		require.GreaterOrEqual(t, n, want, "series %d", i)
	}
}

// TestCheckpointUnderWrites copies an archive that is written to at full speed, sealed, rolled up, queried and deleted from: the copy opens, has
// no faults, and has every sample that was acknowledged before. It is adopted, written to, and opens again.
func TestCheckpointUnderWrites(t *testing.T) {
	for name, interval := range map[string]time.Duration{"synced": 0, "synced later": time.Minute} {
		t.Run(name, func(t *testing.T) {
			base := testkit.MemoryDir(t)
			o := options()
			o.MemtableBytes = 128 << 10
			o.Resolutions = []time.Duration{time.Minute}
			o.SyncInterval = interval
			a := testkit.Open(t, filepath.Join(base, "data"), o)
			c := newCounting(t, a, 4)
			cursor, err := a.OpenCursor("output", archive.Start{})
			require.NoError(t, err)
			require.NoError(t, cursor.Close())
			defer c.churn(t, a)()
			for n := range 3 {
				before := c.progress()
				require.Eventually(t, func() bool { return c.acked[0].Load() > before[0]+500 }, 5*time.Minute, time.Millisecond, "some between one copy and the next")
				least := c.progress()
				dir := filepath.Join(base, fmt.Sprint("copy", n))
				made, err := a.Checkpoint(t.Context(), dir)
				require.NoError(t, err)
				requireCopy(t, dir, &made)
				testkit.Check(t, dir)
				co := o
				co.MemoryBytes = 32 << 20
				b := testkit.Open(t, dir, co)
				requireCounted(t, b, least)
				require.NoError(t, b.Close())
				adopted, err := archive.Adopt(dir, co)
				require.NoError(t, err)
				require.NotEqual(t, made.Incarnation, adopted.Incarnation)
				require.Len(t, adopted.Cursors, 1)
				require.Equal(t, "output", adopted.Cursors[0].Name)
				require.NotZero(t, adopted.Cursors[0].Samples)
				require.False(t, adopted.Cursors[0].Arrived.IsZero())
				require.Equal(t, made.Cursors[0].Next, adopted.Cursors[0].Next)
				b = testkit.Open(t, dir, co)
				write(t, b, []point{{series: 90, t: day0, v: 1}})
				requireCounted(t, b, least)
				require.NoError(t, b.Close())
				testkit.Check(t, dir)
			}
		})
	}
}

// churn has all series written, and all else done that goes on beside writers, until the function that it returns is called, which
// waits for the end of it.
func (c *counting) churn(t testing.TB, a *archive.Archive) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	for i := range c.refs {
		working.Go(func() { c.run(ctx, t, a, i) })
	}
	working.Go(func() { disturb(ctx, t, a) })
	return func() {
		cancel()
		working.Wait()
	}
}

// disturb does everything else with an archive that is going on beside writers.
func disturb(ctx context.Context, t testing.TB, a *archive.Archive) {
	for n := 0; ctx.Err() == nil; n++ {
		step := func(_ any, err error) {
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
		step(nil, a.Maintain(n%2 == 0))
		step(a.Seal(context.Background(), intakeDay, nil))
		step(a.Roll(context.Background(), intakeDay, nil))
		write(t, a, []point{{series: 70, t: day0 + int64(n)*10_000, v: 1}})
		d, ok, err := a.Delete(context.Background(), archive.DeleteRequest{
			Matchers: [][]*labels.Matcher{{matcher("i=70")}}, MinMillis: math.MinInt64, MaxMillis: math.MaxInt64, Grace: 0,
		})
		step(nil, err)
		if ok {
			step(a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil))
		}
		step(a.Reclaim())
		step(a.Days())
	}
}

// requireCopy shows that what is told of a copy is so.
func requireCopy(t testing.TB, dir string, made *archive.Checkpoint) {
	t.Helper()
	told := map[string]archive.CheckpointFile{}
	families := 0
	for _, f := range made.Files {
		told[f.Path] = f
		require.Equal(t, strings.HasSuffix(f.Path, ".sst"), f.Immutable, f.Path)
		require.Equal(t, f.Immutable, f.Family != "", f.Path)
		if f.Family == "journal" {
			families++
		}
	}
	require.NotZero(t, families)
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		if entry.IsDir() {
			return nil
		}
		name, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		info, err := entry.Info()
		require.NoError(t, err)
		require.Contains(t, told, filepath.ToSlash(name))
		require.Equal(t, info.Size(), told[filepath.ToSlash(name)].Bytes)
		delete(told, filepath.ToSlash(name))
		return nil
	}))
	require.Empty(t, told)
}

// TestCheckpoint shows what a copy has, what it hasn't, and what is told of it; that it isn't made where something is, and that nothing
// stays of one that failed.
func TestCheckpoint(t *testing.T) {
	base := testkit.MemoryDir(t)
	a := testkit.Open(t, filepath.Join(base, "data"), options())
	empty, err := a.Checkpoint(t.Context(), filepath.Join(base, "empty"))
	require.NoError(t, err)
	require.Zero(t, empty.Last)
	require.Empty(t, empty.Days)
	testkit.Check(t, filepath.Join(base, "empty"))

	takeIn(t, a, intakeDay, []incoming{regular(t, intakeDay, 1), regular(t, intakeDay, 2)})
	write(t, a, []point{{series: 3, t: day0 + format.DayMillis, v: 1}})
	testkit.SealAll(t, a)
	write(t, a, []point{{series: 3, t: day0 + 2*format.DayMillis, v: 1}})
	require.NoError(t, a.Maintain(true))
	want := see(t, a, math.MinInt64, math.MaxInt64)
	require.FileExists(t, filepath.Join(base, "data", "reserve"))
	dir := filepath.Join(base, "copy")
	require.NoError(t, os.MkdirAll(filepath.Join(dir+".partial", "leftover"), 0o700))
	made, err := a.Checkpoint(t.Context(), dir)
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(dir, "reserve"))
	require.NoDirExists(t, dir+".partial")
	require.NotZero(t, made.Last)
	require.EqualValues(t, 3, made.Series)
	require.Equal(t, clock(), made.Taken)
	require.Len(t, made.Days, 2)
	require.Equal(t, day0, made.Days[0].Day.UnixMilli())
	require.EqualValues(t, 2*5760, made.Days[0].Samples)
	require.EqualValues(t, 1, made.Days[1].Samples)
	require.Equal(t, clock().UnixMilli(), made.Days[0].Sealed.UnixMilli())
	require.NotZero(t, made.Days[0].Digest)
	requireCopy(t, dir, &made)
	testkit.Check(t, dir)

	_, err = a.Checkpoint(t.Context(), dir)
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = a.Checkpoint(t.Context(), filepath.Join(base, "missing", "copy"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	ctx, cancel := context.WithCancel(t.Context())
	a.OnStep(func(step string) {
		if step == "checkpoint" {
			cancel()
		}
	})
	_, err = a.Checkpoint(ctx, dir+"2")
	require.ErrorIs(t, err, context.Canceled)
	a.OnStep(nil)
	a.SetFree(func(string) (int64, int64, error) { return 0, 1 << 40, nil })
	_, err = a.Checkpoint(t.Context(), dir+"2")
	require.ErrorIs(t, err, rocks.ErrNoSpace)
	require.NoDirExists(t, dir+"2")
	require.NoDirExists(t, dir+"2.partial")
	a.SetFree(func(string) (int64, int64, error) { return 1 << 39, 1 << 40, nil })

	b := testkit.Open(t, dir, options())
	requireSame(t, want, see(t, b, math.MinInt64, math.MaxInt64), "the copy")
	_, err = archive.Adopt(dir, options())
	require.ErrorIs(t, err, rocks.ErrLocked)
	require.NoError(t, b.Close())
	require.NoError(t, a.Close())
	_, err = a.Checkpoint(t.Context(), dir+"2")
	require.Error(t, err)
}

// TestCheckpointInIntake copies an archive while a day is being taken in, at every step: the copy has all of the day or nothing, and no
// faults, also before it was ever opened.
func TestCheckpointInIntake(t *testing.T) {
	base := testkit.MemoryDir(t)
	a := testkit.Open(t, filepath.Join(base, "data"), options())
	a.SmallSeals()
	all := []incoming{regular(t, intakeDay, 1), regular(t, intakeDay, 2)}
	refs, all := inOrder(t, a, all)
	steps := map[string]bool{}
	a.OnStep(func(step string) {
		if steps[step] || step == "checkpoint" {
			return
		}
		steps[step] = true
		dir := filepath.Join(base, strings.ReplaceAll(step, " ", "-"))
		made, err := a.Checkpoint(t.Context(), dir)
		require.NoError(t, err)
		for _, f := range made.Files {
			require.False(t, strings.HasPrefix(f.Path, "intake"), f.Path)
		}
		testkit.Check(t, dir)
		b := testkit.Open(t, dir, options())
		if step == "entered" {
			require.Equal(t, 2, strings.Count(see(t, b, math.MinInt64, math.MaxInt64), "metric"))
			require.Len(t, made.Days, 1)
		} else {
			require.Empty(t, see(t, b, math.MinInt64, math.MaxInt64))
			require.Empty(t, made.Days)
			takeIn(t, b, intakeDay, all)
		}
		require.NoError(t, b.Close())
	})
	i, err := a.OpenIntake(t.Context(), intakeDay)
	require.NoError(t, err)
	addAll(t, i, refs, all)
	_, err = i.Commit(t.Context())
	require.NoError(t, err)
	a.OnStep(nil)
	require.NoError(t, i.Close())
	require.Contains(t, steps, "ingested")
	require.Contains(t, steps, "entered")
}

// TestAdopt shows that an adopted copy is another archive than the one that it is of, whose ack file doesn't fit it; that one which lost its
// end, or is none, isn't adopted; and that adopting can be done again at whatever moment it was killed.
func TestAdopt(t *testing.T) {
	base := testkit.MemoryDir(t)
	a := testkit.Open(t, filepath.Join(base, "data"), options())
	write(t, a, []point{{series: 1, t: day0, v: 1}})
	copyOf := func(name string) (string, archive.Checkpoint) {
		dir := filepath.Join(base, name)
		made, err := a.Checkpoint(t.Context(), dir)
		require.NoError(t, err)
		return dir, made
	}
	dir, made := copyOf("one")
	acknowledged, err := os.ReadFile(filepath.Join(dir, "acknowledged"))
	require.NoError(t, err)
	first, err := archive.Adopt(dir, options())
	require.NoError(t, err)
	require.Equal(t, made.Last, first.Last)
	second, err := archive.Adopt(dir, options())
	require.NoError(t, err)
	require.NotEqual(t, first.Incarnation, second.Incarnation)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "acknowledged"), acknowledged, 0o600))
	_, err = archive.Open(dir, options())
	require.ErrorContains(t, err, "another archive")
	_, err = archive.Adopt(dir, options())
	require.ErrorContains(t, err, "another archive")
	// As a kill behind its removal leaves it.
	require.NoError(t, os.Remove(filepath.Join(dir, "acknowledged")))
	_, err = archive.Adopt(dir, options())
	require.NoError(t, err)
	b := testkit.Open(t, dir, options())
	require.NotEmpty(t, see(t, b, math.MinInt64, math.MaxInt64))
	require.NoError(t, b.Close())

	dir, _ = copyOf("two")
	write(t, a, []point{{series: 2, t: day0, v: 1}})
	later, _ := copyOf("three")
	acknowledged, err = os.ReadFile(filepath.Join(later, "acknowledged"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "acknowledged"), acknowledged, 0o600))
	_, err = archive.Adopt(dir, options())
	require.ErrorIs(t, err, archive.ErrCorrupt)
	require.ErrorContains(t, err, "not whole")
	_, err = archive.Adopt(filepath.Join(base, "none"), options())
	require.Error(t, err)
	require.NoDirExists(t, filepath.Join(base, "none"))
}
