package rocks_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/rocks"
)

// file writes a table file with the numbers from first to last as keys.
func file(t testing.TB, db *rocks.DB, path string, first, last uint64, value string) {
	t.Helper()
	w, err := db.NewFileWriter(raw, path)
	require.NoError(t, err)
	for n := first; n <= last; n++ {
		require.NoError(t, w.Put(key(n), []byte(value)))
	}
	bytes, entries, err := w.Finish()
	require.NoError(t, err)
	require.Equal(t, last-first+1, entries)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, st.Size(), bytes)
}

// values lists the values of family raw, each with how many keys have it.
func values(t testing.TB, db *rocks.DB, o rocks.IterOptions) string {
	t.Helper()
	it := db.NewIterator(raw, o)
	defer it.Close()
	out, last, n := "", "", 0
	end := func() {
		if n > 0 {
			out += fmt.Sprintf("%s*%d ", last, n)
		}
	}
	for it.SeekToFirst(); it.Valid(); it.Next() {
		if v := string(it.Value()); v != last {
			end()
			last, n = v, 0
		}
		n++
	}
	end()
	require.NoError(t, it.Err())
	return out
}

// TestIngest shows that files become part of the database in one step, that they win over what
// lies below, that snapshots from before don't see them, and that they are there when it is opened again.
func TestIngest(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"), options())
	path := func(name string) string { return filepath.Join(dir, name) }
	write(t, db, func(b *rocks.Batch) {
		for n := uint64(50); n < 60; n++ {
			b.Put(raw, key(n), []byte("old"))
		}
	})
	before := db.NewSnapshot()
	file(t, db, path("a"), 0, 9, "a")
	file(t, db, path("b"), 40, 99, "b")
	require.NoError(t, db.Ingest(raw, []string{path("a"), path("b")}))
	require.NoFileExists(t, path("a"))
	require.NoFileExists(t, path("b"))
	require.Equal(t, "a*10 b*60 ", values(t, db, rocks.IterOptions{}))
	require.Equal(t, "old*10 ", values(t, db, rocks.IterOptions{Snapshot: before}))
	before.Release()
	write(t, db, func(b *rocks.Batch) { b.Put(raw, key(45), []byte("new")) })
	require.NoError(t, db.Ingest(raw, nil))
	write(t, db, func(b *rocks.Batch) {
		b.Put(raw, key(200), []byte("deleted"))
		b.DeleteRange(raw, key(150), key(300))
	})
	file(t, db, path("c"), 190, 199, "c")
	require.NoError(t, db.Ingest(raw, []string{path("c")}))
	require.Equal(t, "a*10 b*5 new*1 b*54 c*10 ", values(t, db, rocks.IterOptions{}), "a range delete from before doesn't cover it")
	require.NoError(t, db.Close())

	db = open(t, filepath.Join(dir, "db"), options())
	require.Equal(t, "a*10 b*5 new*1 b*54 c*10 ", values(t, db, rocks.IterOptions{}))
	require.NoError(t, db.CompactRange(raw, nil, nil))
	require.Equal(t, "a*10 b*5 new*1 b*54 c*10 ", values(t, db, rocks.IterOptions{}))
}

// TestIngestPlace shows that files of a range without neighbours go to the last level, and what is told of
// the files of a database.
func TestIngestPlace(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"), options())
	file(t, db, filepath.Join(dir, "x"), 100, 199, "x")
	require.NoError(t, db.Ingest(raw, []string{filepath.Join(dir, "x")}))
	files := db.LiveFiles()
	require.Len(t, files, 1)
	f := files[0]
	require.Equal(t, raw, f.Family)
	require.Equal(t, 6, f.Level)
	require.Equal(t, key(100), f.Smallest)
	require.Equal(t, key(199), f.Largest)
	st, err := os.Stat(filepath.Join(dir, "db", f.Name))
	require.NoError(t, err)
	require.Equal(t, st.Size(), f.Bytes)
	write(t, db, func(b *rocks.Batch) { b.Put(meta, []byte("m"), []byte("v")) })
	require.NoError(t, db.Flush())
	require.Len(t, db.LiveFiles(), 2)
	require.NoError(t, db.Close())
	require.Empty(t, db.LiveFiles())
}

// TestFileOrder shows that keys out of order, or twice, are refused, and a file without keys; and that nothing is left of such files.
func TestFileOrder(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"), options())
	for _, second := range []uint64{4, 5} {
		path := filepath.Join(dir, "f")
		w, err := db.NewFileWriter(raw, path)
		require.NoError(t, err)
		require.NoError(t, w.Put(key(5), nil))
		require.ErrorContains(t, w.Put(key(second), nil), "ascending")
		require.Error(t, w.Put(key(6), nil), "it can't go on")
		_, _, err = w.Finish()
		require.ErrorContains(t, err, "ascending")
		require.NoFileExists(t, path)
		require.NoError(t, w.Abort())
	}
	w, err := db.NewFileWriter(raw, filepath.Join(dir, "empty"))
	require.NoError(t, err)
	_, _, err = w.Finish()
	require.ErrorContains(t, err, "no keys")
	require.NoFileExists(t, filepath.Join(dir, "empty"))
	_, err = db.NewFileWriter(raw, filepath.Join(dir, "missing", "f"))
	require.ErrorIs(t, err, rocks.ErrIO)
	_, err = db.NewFileWriter(rocks.Family(9), filepath.Join(dir, "f"))
	require.Error(t, err)
	require.Error(t, db.Ingest(rocks.Family(9), []string{filepath.Join(dir, "f")}))
	require.Error(t, db.Ingest(raw, []string{filepath.Join(dir, "f")}), "it isn't there")
}

// TestFileAbort shows that an aborted file is gone, and that one that was finished isn't taken away by Abort.
func TestFileAbort(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"), options())
	path := filepath.Join(dir, "f")
	w, err := db.NewFileWriter(raw, path)
	require.NoError(t, err)
	require.NoError(t, w.Put(key(1), make([]byte, 1<<20)))
	require.NoError(t, w.Put(key(2), make([]byte, 10)))
	require.NotZero(t, w.Bytes())
	require.FileExists(t, path)
	require.NoError(t, w.Abort())
	require.NoFileExists(t, path)
	require.NoError(t, w.Abort())
	require.ErrorIs(t, w.Put(key(3), nil), rocks.ErrClosed)
	require.Zero(t, w.Bytes())

	file(t, db, path, 1, 2, "v")
	w, err = db.NewFileWriter(raw, path)
	require.NoError(t, err)
	require.NoError(t, w.Put(key(1), []byte("again")))
	_, _, err = w.Finish()
	require.NoError(t, err)
	require.NoError(t, w.Abort())
	require.FileExists(t, path)
	require.NoError(t, db.Ingest(raw, []string{path}))
	require.Equal(t, "again*1 ", values(t, db, rocks.IterOptions{}))
}

// TestFileOfClosed shows that closing a database ends a file that is being written, says so, and that calls
// afterwards are refused.
func TestFileOfClosed(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"), options())
	path := filepath.Join(dir, "f")
	w, err := db.NewFileWriter(raw, path)
	require.NoError(t, err)
	require.NoError(t, w.Put(key(1), nil))
	require.ErrorContains(t, db.Close(), "1 file writers")
	requireNothingLive(t)
	require.ErrorIs(t, w.Put(key(2), nil), rocks.ErrClosed)
	_, _, err = w.Finish()
	require.ErrorIs(t, err, rocks.ErrClosed)
	require.NoFileExists(t, path)
	require.NoError(t, w.Abort())
	_, err = db.NewFileWriter(raw, path)
	require.ErrorIs(t, err, rocks.ErrClosed)
	require.ErrorIs(t, db.Ingest(raw, []string{path}), rocks.ErrClosed)

	o := options()
	o.ReadOnly = true
	db = open(t, filepath.Join(dir, "db"), o)
	_, err = db.NewFileWriter(raw, path)
	require.ErrorContains(t, err, "reading only")
	require.ErrorContains(t, db.Ingest(raw, []string{path}), "reading only")
}

// TestIngestDamaged flips bytes of a file: at its end it is not ingested, and the rest of the database is
// as it was; in the middle it is found when it is read.
func TestIngestDamaged(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"), options())
	write(t, db, func(b *rocks.Batch) { b.Put(raw, key(1), []byte("old")) })
	random := rand.NewChaCha8([32]byte{1})
	damaged := func(at func(size int64) int64) string {
		path := filepath.Join(dir, "f")
		w, err := db.NewFileWriter(raw, path)
		require.NoError(t, err)
		value := make([]byte, 1000)
		for n := range uint64(300) {
			_, _ = random.Read(value)
			require.NoError(t, w.Put(key(1000+n), value))
		}
		_, _, err = w.Finish()
		require.NoError(t, err)
		bytes, err := os.ReadFile(path)
		require.NoError(t, err)
		bytes[at(int64(len(bytes)))] ^= 0x10
		require.NoError(t, os.WriteFile(path, bytes, 0o600))
		return path
	}
	path := damaged(func(size int64) int64 { return size - 3 })
	require.ErrorIs(t, db.Ingest(raw, []string{path}), rocks.ErrCorrupt)
	require.Equal(t, "old*1 ", values(t, db, rocks.IterOptions{}))
	require.NoError(t, os.WriteFile(path, []byte("no table"), 0o600))
	require.Error(t, db.Ingest(raw, []string{path}))
	require.Equal(t, "old*1 ", values(t, db, rocks.IterOptions{}))

	path = damaged(func(size int64) int64 { return size / 2 })
	require.NoError(t, db.Ingest(raw, []string{path}))
	it := db.NewIterator(raw, rocks.IterOptions{})
	defer it.Close()
	n := 0
	for it.SeekToFirst(); it.Valid(); it.Next() {
		n++
	}
	require.ErrorIs(t, it.Err(), rocks.ErrCorrupt)
	require.Less(t, n, 301)
}

// TestIngestWhileWritten shows that files are ingested while others write keys of the family beside them, or that it is told
// that it has to be done again.
func TestIngestWhileWritten(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "db"), options())
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for n := uint64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			var b rocks.Batch
			b.Put(raw, key(1<<20+n%1000), []byte("live"))
			if err := db.Write(&b, false); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range uint64(5) {
		path := filepath.Join(dir, fmt.Sprint(i))
		file(t, db, path, i*100, i*100+99, "v")
		for err := db.Ingest(raw, []string{path}); err != nil; err = db.Ingest(raw, []string{path}) {
			require.ErrorIs(t, err, rocks.ErrStalled)
		}
	}
	close(stop)
	done.Wait()
	it := db.NewIterator(raw, rocks.IterOptions{Upper: key(500)})
	defer it.Close()
	n := 0
	for it.SeekToFirst(); it.Valid() && string(it.Value()) == "v"; it.Next() {
		n++
	}
	require.Equal(t, 500, n)
}
