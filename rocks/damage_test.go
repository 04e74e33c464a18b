package rocks_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/rocks"
)

func errorsClosed(err error) bool { return errors.Is(err, rocks.ErrClosed) }

// Shows that a copy of the folder of a running database, as after kill -9, opens
// with every write that had returned.
func TestUncleanCopy(t *testing.T) {
	o := options()
	o.MemtableBytes = 32 << 10
	dir := t.TempDir()
	db := open(t, dir, o)
	for n := range uint64(600) {
		var b rocks.Batch
		b.Put(journal, key(n), bytes.Repeat([]byte{byte(n)}, 200))
		b.Put(meta, key(n%7), key(n))
		require.NoError(t, db.Write(&b, n%10 == 0))
		if n%200 != 199 {
			continue
		}
		require.Eventually(t, func() bool { return db.State().RunningFlushes+db.State().RunningCompactions == 0 }, patience, time.Millisecond)
		copied := open(t, copyFolder(t, dir), o)
		require.Equal(t, db.SequenceNumber(), copied.SequenceNumber())
		require.Equal(t, text(t, db, journal, rocks.IterOptions{}), text(t, copied, journal, rocks.IterOptions{}))
		require.Equal(t, text(t, db, meta, rocks.IterOptions{}), text(t, copied, meta, rocks.IterOptions{}))
	}
}

// Shows what each recovery mode makes of each kind of damage to the log: 300
// synced records, one log.
func TestLogDamage(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	value := bytes.Repeat([]byte{0xab}, 100)
	for n := range uint64(300) {
		var b rocks.Batch
		b.Put(meta, key(n), value)
		require.NoError(t, db.Write(&b, true))
	}
	pristine := copyFolder(t, dir)
	require.Len(t, logs(t, pristine), 1)
	content, err := os.ReadFile(logs(t, pristine)[0])
	require.NoError(t, err)
	content = bytes.TrimRight(content, "\x00")
	require.Greater(t, len(content), 300*100)

	const refuses = -1
	f := func(name string, damage func(log []byte) []byte, tolerate, pointInTime func(rows int) bool) {
		t.Helper()
		for mode, ok := range map[rocks.RecoveryMode]func(int) bool{rocks.RecoveryTolerate: tolerate, rocks.RecoveryPointInTime: pointInTime} {
			damaged := copyFolder(t, pristine)
			require.NoError(t, os.WriteFile(logs(t, damaged)[0], damage(bytes.Clone(content)), 0o600))
			o := options()
			o.Recovery = mode
			rows := refuses
			db, err := rocks.Open(damaged, o)
			if err != nil {
				require.ErrorIs(t, err, rocks.ErrCorrupt, "%s, mode %d", name, mode)
			} else {
				rows = len(text(t, db, meta, rocks.IterOptions{}))
				require.EqualValues(t, rows, db.SequenceNumber(), "%s, mode %d", name, mode)
				require.NoError(t, db.Close())
			}
			require.True(t, ok(rows), "%s, mode %d: %d rows", name, mode, rows)
		}
		require.Equal(t, 1, rocks.Live()["db"], "a refused database leaves nothing")
	}
	all := func(rows int) bool { return rows == 300 }
	some := func(rows int) bool { return rows > 0 && rows < 300 }
	no := func(rows int) bool { return rows == refuses }
	rng := rand.NewChaCha8([32]byte{9})
	garbage := func(n int) []byte {
		g := make([]byte, n)
		_, _ = rng.Read(g)
		return g
	}
	f("nothing", func(log []byte) []byte { return log }, all, all)
	for _, n := range []int{1, 50, 5000, 20000} {
		f("cut", func(log []byte) []byte { return log[:len(log)-n] }, some, some)
	}
	for _, n := range []int{5, 5000} {
		f("end zeroed", func(log []byte) []byte { clear(log[len(log)-n:]); return log }, no, some)
		f("end garbage", func(log []byte) []byte { return append(log[:len(log)-n], garbage(n)...) }, no, some)
	}
	f("bit flipped in the middle", func(log []byte) []byte { log[len(log)/2] ^= 1; return log }, no, some)
	f("zeros appended", func(log []byte) []byte { return append(log, make([]byte, 1000)...) }, all, all)
	f("garbage appended", func(log []byte) []byte { return append(log, garbage(100)...) }, all, all)
}

// Shows that a database salvaged at the first damage of its log is sound from then
// on: what is written after it is there at every later opening, in both modes.
func TestSalvage(t *testing.T) {
	t.Run("damage in the middle", func(t *testing.T) { testSalvage(t, 2, func(rows int) bool { return rows > 0 && rows < 300 }) })
	t.Run("damage in the first record", func(t *testing.T) { testSalvage(t, 10000, func(rows int) bool { return rows == 0 }) })
}

func testSalvage(t *testing.T, part int, plausible func(rows int) bool) {
	dir := t.TempDir()
	db := open(t, dir, options())
	for n := range uint64(300) {
		var b rocks.Batch
		b.Put(meta, key(n), bytes.Repeat([]byte{0xab}, 100))
		b.Put(raw, key(n), bytes.Repeat([]byte{0xcd}, 100))
		require.NoError(t, db.Write(&b, true))
	}
	damaged := copyFolder(t, dir)
	require.NoError(t, db.Close())
	content, err := os.ReadFile(logs(t, damaged)[0])
	require.NoError(t, err)
	content[len(content)/part] ^= 1
	require.NoError(t, os.WriteFile(logs(t, damaged)[0], content, 0o600))
	_, err = rocks.Open(damaged, options())
	require.ErrorIs(t, err, rocks.ErrCorrupt)

	want := 0
	for round, mode := range []rocks.RecoveryMode{
		rocks.RecoveryPointInTime, rocks.RecoveryPointInTime, rocks.RecoveryTolerate, rocks.RecoveryPointInTime, rocks.RecoveryTolerate,
	} {
		o := options()
		o.Recovery = mode
		db, err := rocks.Open(damaged, o)
		require.NoError(t, err, "round %d", round)
		rows := len(text(t, db, meta, rocks.IterOptions{}))
		require.Len(t, text(t, db, raw, rocks.IterOptions{}), rows)
		if round == 0 {
			require.True(t, plausible(rows), "%d rows", rows)
			want = rows
		}
		require.Equal(t, want, rows, "round %d", round)
		var b rocks.Batch
		b.Put(meta, key(uint64(1000+round)), nil)
		b.Put(raw, key(uint64(1000+round)), nil)
		require.NoError(t, db.Write(&b, true))
		want++
		require.NoError(t, db.Close())
	}
}

// Shows that damage inside a table file is ErrCorrupt with the file's name, from
// every way of reading, never a missing key; and that a missing table file keeps
// the database from opening.
func TestTableDamage(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	const rows = 5000
	write(t, db, func(b *rocks.Batch) {
		rng := rand.NewChaCha8([32]byte{3})
		value := make([]byte, 64)
		for n := range uint64(rows) {
			_, _ = rng.Read(value)
			b.Put(raw, key(n), value)
		}
	})
	require.NoError(t, db.Flush())
	require.NoError(t, db.Close())
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	require.NoError(t, err)
	require.Len(t, tables, 1)
	pristine, err := os.ReadFile(tables[0])
	require.NoError(t, err)
	damaged := bytes.Clone(pristine)
	for i := len(damaged) / 3; i < len(damaged)/3+40000; i += 1000 {
		damaged[i] ^= 0x10
	}
	require.NoError(t, os.WriteFile(tables[0], damaged, 0o600))

	db = open(t, dir, options())
	named := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, rocks.ErrCorrupt)
		require.ErrorContains(t, err, filepath.Base(tables[0]))
		require.ErrorContains(t, err, "family raw")
	}
	it := db.NewIterator(raw, rocks.IterOptions{})
	seen := 0
	for it.SeekToFirst(); it.Valid(); it.Next() {
		seen++
	}
	named(it.Err())
	require.Less(t, seen, rows)
	it.SeekToFirst()
	require.False(t, it.Valid(), "no later move hides the error")
	named(it.Err())
	it.Close()
	named(it.Err())

	failed := 0
	var bad [][]byte
	for n := range uint64(rows) {
		_, found, err := db.Get(raw, key(n), nil)
		if err != nil {
			named(err)
			failed++
			bad = append(bad, key(n))
			continue
		}
		require.True(t, found)
	}
	require.NotZero(t, failed)
	named(db.MultiGet(raw, append([][]byte{key(0)}, bad...), func(int, []byte, bool) error {
		t.Error("called for an answer that is not whole")
		return nil
	}))
	require.NoError(t, db.Close())

	require.NoError(t, os.Remove(tables[0]))
	_, err = rocks.Open(dir, options())
	require.ErrorIs(t, err, rocks.ErrCorrupt)
	require.ErrorContains(t, err, strings.TrimSuffix(filepath.Base(tables[0]), ".sst"))
	requireNothingLive(t)
}

// Shows on a full disk that a write fails with ErrNoSpace and may go on failing,
// that reads go on, that the database closes, opens on the full disk, and has
// every acknowledged row when there is room again.
func TestDiskFull(t *testing.T) {
	const diskBytes = 96 << 20
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96m"); err != nil {
		t.Skipf("NOT SHOWN, disk full: cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	data, ballast := filepath.Join(dir, "db"), filepath.Join(dir, "ballast")
	db := open(t, data, options())
	require.NoError(t, os.WriteFile(ballast, make([]byte, 64<<20), 0o600))

	value := make([]byte, 30<<10)
	rng := rand.NewChaCha8([32]byte{4})
	acknowledged := uint64(0)
	add := func() error {
		_, _ = rng.Read(value)
		var b rocks.Batch
		b.Put(journal, key(acknowledged), value)
		err := db.Write(&b, true)
		if err == nil {
			acknowledged++
		}
		return err
	}
	var err error
	for err == nil {
		require.Less(t, acknowledged, uint64(diskBytes/len(value)))
		err = add()
	}
	require.ErrorIs(t, err, rocks.ErrNoSpace)
	require.NotErrorIs(t, err, rocks.ErrIO)
	require.NotZero(t, db.State().WriteErrors)
	require.NotZero(t, acknowledged)
	requireRows := func() {
		t.Helper()
		for n := range acknowledged {
			_, found, err := db.Get(journal, key(n), nil)
			require.NoError(t, err)
			require.True(t, found, "row %d of %d", n, acknowledged)
		}
	}
	requireRows()
	require.NoError(t, db.Close())

	db = open(t, data, options())
	requireRows()
	require.NoError(t, os.Remove(ballast))
	require.Eventually(t, func() bool { return add() == nil }, patience, 50*time.Millisecond)
	requireRows()
	require.NoError(t, db.Close())
	db = open(t, data, options())
	requireRows()
	require.NoError(t, db.Close())
}
