package rocks_test

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/rocks"
)

// Shows that a checkpoint is a database of its own with what was written before
// it, appears only whole and replaces nothing.
func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"), options())
	write(t, db, func(b *rocks.Batch) { b.Put(meta, []byte("a"), []byte("flushed")) })
	require.NoError(t, db.Flush())
	write(t, db, func(b *rocks.Batch) { b.Put(raw, []byte("b"), []byte("logged")) })

	to := filepath.Join(dir, "copy")
	leftover := filepath.Join(to+".partial", "leftover")
	require.NoError(t, os.Mkdir(filepath.Dir(leftover), 0o755))
	require.NoError(t, os.WriteFile(leftover, []byte("of a crash"), 0o600))
	require.NoError(t, db.Checkpoint(to))
	require.NoDirExists(t, filepath.Dir(leftover))
	require.ErrorIs(t, db.Checkpoint(to), fs.ErrExist)
	require.Error(t, db.Checkpoint(filepath.Join(dir, "missing", "copy")))
	write(t, db, func(b *rocks.Batch) { b.Put(meta, []byte("c"), []byte("later")) })

	o := options()
	o.ReadOnly = true
	copied := open(t, to, o)
	require.Equal(t, []string{"a=flushed"}, text(t, copied, meta, rocks.IterOptions{}))
	require.Equal(t, []string{"b=logged"}, text(t, copied, raw, rocks.IterOptions{}))
	require.NoError(t, copied.Close())
	require.NoError(t, db.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "db")))
	copied = open(t, to, options())
	require.Equal(t, []string{"a=flushed"}, text(t, copied, meta, rocks.IterOptions{}))
}

// Shows that dropping files takes files that lie in the range only, that the upper
// bound is exclusive, and that CompactRange frees what a range delete covers.
func TestDeleteFilesInRange(t *testing.T) {
	db := open(t, t.TempDir(), options())
	file := func(first, last uint64) {
		write(t, db, func(b *rocks.Batch) {
			for n := first; n <= last; n++ {
				b.Put(journal, key(n), bytes.Repeat([]byte{1}, 100))
			}
		})
		require.NoError(t, db.Flush())
		require.Eventually(t, func() bool { return db.FamilyStats(journal).Levels[0].Files == 0 }, patience, time.Millisecond,
			"a journal file moves below level 0")
	}
	first := func() int {
		it := db.NewIterator(journal, rocks.IterOptions{})
		defer it.Close()
		it.SeekToFirst()
		require.True(t, it.Valid())
		return int(it.Key()[7]) | int(it.Key()[6])<<8
	}
	for i := range uint64(6) {
		file(i*100, i*100+99)
	}
	require.EqualValues(t, 6, db.FamilyStats(journal).Files)
	drop := func(lower, upper []byte, wantFirst int, wantFiles uint64) {
		t.Helper()
		require.NoError(t, db.DeleteFilesInRange(journal, lower, upper))
		require.Equal(t, wantFirst, first())
		require.Equal(t, wantFiles, db.FamilyStats(journal).Files)
	}
	drop(nil, key(99), 0, 6)
	drop(nil, key(100), 100, 5)
	drop(key(101), key(200), 100, 5)
	drop(key(100), key(199), 100, 5)
	drop(key(100), key(250), 200, 4)
	drop(key(300), nil, 200, 1)
	drop(key(300), key(200), 200, 1)

	write(t, db, func(b *rocks.Batch) { b.DeleteRange(journal, key(200), key(300)) })
	require.NoError(t, db.Flush())
	require.NoError(t, db.CompactRange(journal, nil, nil))
	require.Zero(t, db.FamilyStats(journal).Bytes)
	require.Empty(t, text(t, db, journal, rocks.IterOptions{}))
	require.NoError(t, db.DeleteFilesInRange(journal, nil, nil))
}

// Shows for keys of any length that the bound of DeleteFilesInRange never drops a
// file with a key at or above it: one file of one key, a bound at that key.
func TestDeleteFilesInRangeBound(t *testing.T) {
	db := open(t, t.TempDir(), options())
	for _, k := range [][]byte{{5}, {5, 0}, {5, 0, 0}, {5, 1}, {5, 255}, {0}, {255, 255}} {
		write(t, db, func(b *rocks.Batch) { b.Put(raw, k, []byte("v")) })
		require.NoError(t, db.Flush())
		require.NoError(t, db.CompactRange(raw, nil, nil))
		require.EqualValues(t, 1, db.FamilyStats(raw).Files)
		require.NoError(t, db.DeleteFilesInRange(raw, nil, k))
		_, found, err := db.Get(raw, k, nil)
		require.NoError(t, err)
		require.True(t, found, "key %x", k)
		require.NoError(t, db.DeleteFilesInRange(raw, nil, append(k, 0)))
		_, found, err = db.Get(raw, k, nil)
		require.NoError(t, err)
		require.False(t, found, "key %x", k)
	}
}

// Shows that a journal trimmed at the front by dropping files costs no more than
// its log and its flush: no file is ever rewritten.
func TestJournalIsNotRewritten(t *testing.T) {
	o := options()
	o.MemtableBytes = 256 << 10
	db := open(t, t.TempDir(), o)
	value := make([]byte, 30<<10)
	rng := rand.NewChaCha8([32]byte{5})
	sizes := map[uint64]uint64{}
	const rows, keep = 600, 200
	for n := range uint64(rows) {
		_, _ = rng.Read(value)
		write(t, db, func(b *rocks.Batch) { b.Put(journal, key(n), value) })
		if n > keep {
			require.NoError(t, db.DeleteFilesInRange(journal, nil, key(n-keep)))
		}
		s := db.FamilyStats(journal)
		sizes[s.Files] = s.Bytes
	}
	// What lay on level 0, or was on its way down, when the front was last dropped goes the next time.
	settled := func() bool {
		if err := db.DeleteFilesInRange(journal, nil, key(rows-keep)); err != nil {
			t.Error(err)
		}
		s := db.State()
		stats := db.FamilyStats(journal)
		return s.RunningFlushes+s.RunningCompactions == 0 && stats.Levels[0].Files == 0 && stats.Bytes < uint64(keep+40)*uint64(len(value))
	}
	require.Eventually(t, settled, patience, time.Millisecond, "the front is gone")
	require.Greater(t, db.FamilyStats(journal).Files, uint64(10), "files stay as they were flushed")
	for n := uint64(rows - keep); n < rows; n++ {
		_, found, err := db.Get(journal, key(n), nil)
		require.NoError(t, err)
		require.True(t, found)
	}
}

// Shows that keys are counted in tables and memtables, those in tables that an Open found too, and that what was deleted is
// taken off.
func TestKeysEstimate(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	put := func(first, last uint64) {
		write(t, db, func(b *rocks.Batch) {
			for n := first; n < last; n++ {
				b.Put(raw, key(n), []byte("v"))
			}
		})
	}
	require.Zero(t, db.KeysEstimate(raw))
	put(0, 1000)
	require.EqualValues(t, 1000, db.KeysEstimate(raw))
	require.NoError(t, db.Flush())
	require.EqualValues(t, 1000, db.KeysEstimate(raw))
	require.NoError(t, db.Close())

	db = open(t, dir, options())
	require.EqualValues(t, 1000, db.KeysEstimate(raw), "of a table that was there")
	put(1000, 1500)
	require.EqualValues(t, 1500, db.KeysEstimate(raw))
	write(t, db, func(b *rocks.Batch) {
		for n := range uint64(300) {
			b.Delete(raw, key(n))
		}
	})
	require.EqualValues(t, 1200, db.KeysEstimate(raw))
	require.NoError(t, db.Flush())
	require.EqualValues(t, 1200, db.KeysEstimate(raw))
	require.Zero(t, db.KeysEstimate(meta))
	require.Zero(t, db.KeysEstimate(rocks.Family(9)))
	require.NoError(t, db.Close())
	require.Zero(t, db.KeysEstimate(raw))
}

// Shows that State and FamilyStats follow what happens.
func TestState(t *testing.T) {
	db := open(t, t.TempDir(), options())
	before := db.State().MemtableBytes
	write(t, db, func(b *rocks.Batch) {
		for n := range uint64(1000) {
			b.Put(raw, key(n), make([]byte, 1000))
		}
	})
	s := db.State()
	require.Greater(t, s.MemtableBytes, before+1000*1000)
	require.Zero(t, db.FamilyStats(raw).Files)
	require.NoError(t, db.Flush())
	stats := db.FamilyStats(raw)
	require.EqualValues(t, 1, stats.Files)
	require.EqualValues(t, 1000, db.KeysEstimate(raw))
	require.NotZero(t, stats.Bytes)
	require.Equal(t, rocks.LevelStats{Files: 1, Bytes: stats.Bytes}, stats.Levels[0])
	require.Zero(t, db.FamilyStats(rocks.Family(9)))
	require.Less(t, db.State().MemtableBytes, uint64(1000*1000))

	it := db.NewIterator(raw, rocks.IterOptions{})
	it.SeekToFirst()
	s = db.State()
	require.Equal(t, 1, s.LiveIterators)
	require.NotZero(t, s.CachePinnedBytes)
	require.GreaterOrEqual(t, s.CacheUsedBytes, s.CachePinnedBytes)
	it.Close()
	cache := db.CacheStats()
	require.NotZero(t, cache.Data.Misses, "the block was read from the file")
	_, found, err := db.Get(raw, key(1), nil)
	require.NoError(t, err)
	require.True(t, found)
	require.Greater(t, db.CacheStats().Data.Hits, cache.Data.Hits)
	s = db.State()
	require.Zero(t, s.LiveIterators)
	require.Zero(t, s.BackgroundErrors)
	require.Zero(t, s.WriteErrors)
	require.False(t, s.WriteStopped)
	require.NoError(t, db.SyncWAL())
}

// TestRewrite shows that files whose range was rewritten right after a flush, while RocksDB moves them from level 0, stay what they are when
// snapshots come and go: a copy of them need not be made again.
func TestRewrite(t *testing.T) {
	o := options()
	o.Families = []rocks.FamilySpec{{Name: "sealed", Profile: rocks.ProfileSealed}}
	db := open(t, t.TempDir(), o)
	const sealed, files, keys = rocks.Family(0), 100, 50
	for n := range uint64(files) {
		write(t, db, func(b *rocks.Batch) {
			for i := range uint64(keys) {
				b.Put(sealed, key(n*keys+i), bytes.Repeat([]byte{byte(i)}, 2000))
			}
		})
		if n%2 == 0 {
			require.NoError(t, db.Flush())
		}
		require.NoError(t, db.Rewrite(sealed, key(n*keys), key(n*keys+keys-1)))
	}
	names := func() (all []string) {
		for _, f := range db.LiveFiles() {
			all = append(all, f.Name)
		}
		slices.Sort(all)
		return all
	}
	before := names()
	require.Len(t, before, files)
	// RocksDB has one thread for this, and begins what a released snapshot makes due before what is asked for then.
	for range 20 {
		db.NewSnapshot().Release()
		write(t, db, func(b *rocks.Batch) { b.Put(sealed, key(1<<40), []byte("later")) })
		require.NoError(t, db.Rewrite(sealed, key(1<<40), nil))
	}
	for _, name := range before {
		require.Contains(t, names(), name)
	}
	require.Error(t, db.Rewrite(9, nil, nil))
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.Rewrite(sealed, nil, nil), rocks.ErrClosed)
}
