package archive

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// These tests reach inside, because they stop the archive between two steps that
// follow each other at once.

var noon = time.Date(2025, 1, 31, 12, 0, 0, 0, time.UTC).UnixMilli()

// opened opens an archive under a clock that the test moves.
func opened(t *testing.T, dir string, now *atomic.Int64, change func(*Options)) *Archive {
	o := Options{
		MemoryBytes: 64 << 20, DiskFloorBytes: 1, DiskFloorShare: 1e-9, ReserveBytes: 4096, Manual: true,
		Now: func() time.Time { return time.UnixMilli(now.Load()) },
	}
	if change != nil {
		change(&o)
	}
	a, err := Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	<-a.Started()
	require.NoError(t, a.StartError())
	return a
}

func clockAt(ms int64) *atomic.Int64 {
	now := &atomic.Int64{}
	now.Store(ms)
	return now
}

func store(t *testing.T, a *Archive, at int64, v float64, sets ...labels.Labels) {
	u := make([]arrival.Unknown, len(sets))
	for i := range sets {
		u[i].Labels = sets[i]
	}
	require.NoError(t, a.Resolve(context.Background(), u))
	b := &arrival.Batch{}
	for i := range u {
		b.Rows = append(b.Rows, arrival.Row{Ref: u[i].Ref, First: uint32(i), Count: 1})
		b.Times = append(b.Times, at)
		b.Values = append(b.Values, math.Float64bits(v))
	}
	_, err := a.Write(context.Background(), b)
	require.NoError(t, err)
}

func readValues(t *testing.T, a *Archive, ms ...*labels.Matcher) (series []string, values []float64) {
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(context.Background(), true, nil, ms...)
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != 0 {
			_, v := it.At()
			series, values = append(series, set.At().Labels().String()), append(values, v)
		}
	}
	require.NoError(t, set.Err())
	return series, values
}

func matchEqual(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

// killed copies the files as a kill would leave them. A copy during which RocksDB made, wrote or dropped files is no image of one moment, so
// it is taken again.
func killed(t *testing.T, dir string) string {
	to := filepath.Join(t.TempDir(), "copy")
	for {
		before := listed(t, dir)
		out, err := exec.Command("cp", "-a", dir, to).CombinedOutput()
		if err == nil && listed(t, dir) == before {
			return to
		}
		require.NoError(t, os.RemoveAll(to), string(out))
	}
}

// listed are the files of a folder with their sizes. Those that go meanwhile are left out.
func listed(t *testing.T, dir string) string {
	var b strings.Builder
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			fmt.Fprintln(&b, path, info.Size())
		}
		return nil
	}))
	return b.String()
}

// A kill between two batches of an index flush costs no series its postings.
func TestTornIndexFlush(t *testing.T) {
	dir, now := t.TempDir(), clockAt(noon)
	a := opened(t, dir, now, nil)
	var sets []labels.Labels
	for i := range 9000 {
		sets = append(sets, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)))
	}
	store(t, a, noon, 1, sets...)
	p, err := a.index.swap()
	require.NoError(t, err)
	writes := p.writes()
	require.Greater(t, len(writes), flushKeysMax)
	for _, part := range []int{1, flushKeysMax, len(writes)} {
		var b rocks.Batch
		require.NoError(t, a.index.merge(&b, writes[:part]))
		require.NoError(t, a.writeBatch(&b))
		c := opened(t, killed(t, dir), now, nil)
		found, _ := readValues(t, c, matchEqual("__name__", "m"))
		require.Len(t, found, 9000)
		for i := 0; i < 9000; i += 97 {
			found, _ := readValues(t, c, matchEqual("i", fmt.Sprint(i)))
			require.Len(t, found, 1, "series %d", i)
		}
	}
}

// A matcher that is evaluated on the values of a label in one month and on the
// candidates in another holds in both.
func TestMatcherOverMonths(t *testing.T) {
	now := clockAt(noon)
	a := opened(t, t.TempDir(), now, nil)
	store(t, a, noon, 1, labels.FromStrings("__name__", "m", "l", "no", "i", "old"))
	now.Add(86400_000)
	var sets []labels.Labels
	for i := range scanMin + 1 {
		sets = append(sets, labels.FromStrings("__name__", "m", "l", "yes1", "i", fmt.Sprint(i)))
	}
	store(t, a, noon+86400_000, 1, sets...)
	found, _ := readValues(t, a, matchEqual("__name__", "m"), labels.MustNewMatcher(labels.MatchRegexp, "l", "yes.*"))
	require.Len(t, found, scanMin+1)
}

// A page that was idle, left memory and came back has the right values after a crash.
func TestIdlePageComesBack(t *testing.T) {
	dir, now := t.TempDir(), clockAt(noon)
	a := opened(t, dir, now, nil)
	ls := labels.FromStrings("__name__", "m")
	store(t, a, noon, 5, ls)
	now.Add(20 * 60_000)
	for range 3 {
		require.NoError(t, a.Maintain(false))
		now.Add(40 * 60_000)
	}
	require.Nil(t, a.live.page(16))
	store(t, a, now.Load(), 7, ls)
	_, values := readValues(t, opened(t, killed(t, dir), now, nil), matchEqual("__name__", "m"))
	require.Equal(t, []float64{5, 7}, values)
}

// A page that a writer has just asked for stays in memory, however long it was idle.
func TestIdlePageInUse(t *testing.T) {
	now := clockAt(noon)
	a := opened(t, t.TempDir(), now, nil)
	store(t, a, noon, 5, labels.FromStrings("__name__", "m"))
	require.NoError(t, a.Maintain(true))
	require.NoError(t, a.Maintain(true))
	now.Add(2 * 3600_000)
	require.NotNil(t, a.live.touch(1, now.Load()))
	a.dropIdlePages()
	require.NotNil(t, a.live.page(1))
	now.Add(2 * 3600_000)
	a.dropIdlePages()
	require.Nil(t, a.live.page(1))
	p, err := a.live.ensure(1)
	require.NoError(t, err)
	a.dropIdlePages()
	require.Same(t, p, a.live.page(1))
}

// No two series get one ref, and no series two, whatever was forgotten while their
// records were on their way to disk.
func TestForgottenGroup(t *testing.T) {
	a := opened(t, t.TempDir(), clockAt(noon), nil)
	resolve := func(name string) uint64 {
		u := []arrival.Unknown{{Labels: labels.FromStrings("__name__", name, "instance", "i", "job", "j")}}
		require.NoError(t, a.Resolve(context.Background(), u))
		return uint64(u[0].Ref)
	}
	b := resolve("b")
	fresh := a.cat.take()
	clear(a.cat.groups)
	c := resolve("c")
	require.NotEqual(t, b, c)
	a.cat.keys.shrink(a.cat.isRecent)
	require.Equal(t, b, resolve("b"))
	require.Equal(t, c, resolve("c"))
	require.NoError(t, a.db.Write(&fresh.batch, true))
	a.cat.settle(fresh)
}

// A replay that is bounded in memory cuts now and then, not at every record.
func TestReplayCuts(t *testing.T) {
	dir, now := t.TempDir(), clockAt(noon)
	a := opened(t, dir, now, nil)
	for i := range 2000 {
		store(t, a, noon+int64(i)*1000-3000_000, float64(i)*1.37, labels.FromStrings("__name__", "m"))
	}
	to := killed(t, dir)
	var read int
	c := opened(t, to, now, func(o *Options) {
		o.RunBytesMax = 20_000
		o.Events.Recovered = func(records, _ int, _ time.Duration) { read = records }
	})
	_, values := readValues(t, c, matchEqual("__name__", "m"))
	require.Len(t, values, 2000)
	require.Equal(t, 2000, read)
	require.Less(t, runsOnDisk(t, c), 50)
}

func runsOnDisk(t *testing.T, a *Archive) int {
	it := a.db.NewIterator(family(format.FamilyHot), rocks.IterOptions{})
	defer it.Close()
	n := 0
	for it.SeekToFirst(); it.Valid(); it.Next() {
		n++
	}
	require.NoError(t, it.Err())
	return n
}

// A start on a disk that is too full for writes serves queries, and finishes when
// there is room.
func TestStartOnFullDisk(t *testing.T) {
	dir, now := t.TempDir(), clockAt(noon)
	a := opened(t, dir, now, nil)
	store(t, a, noon, 5, labels.FromStrings("__name__", "m"))
	to := killed(t, dir)
	require.NoError(t, os.Remove(filepath.Join(to, ackName)))
	c := opened(t, to, now, func(o *Options) { o.DiskFloorBytes = 1 << 60 })
	_, values := readValues(t, c, matchEqual("__name__", "m"))
	require.Equal(t, []float64{5}, values)
	reason, _ := c.ReadOnly()
	require.Equal(t, "disk_full", reason)
	c.disk.bytesMin = 1
	now.Add(10_000)
	require.NoError(t, c.Maintain(true))
	reason, _ = c.ReadOnly()
	require.Empty(t, reason)
	require.True(t, c.upkeep.replayed.Load())
	require.Equal(t, 1, runsOnDisk(t, c))
}
