package rocks_test

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/rocks"
)

// Shows that a folder has one writer or any number of readers, and that the error
// for one too many names the folder and what to do.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	readOnly := options()
	readOnly.ReadOnly = true
	for _, o := range []rocks.Options{options(), readOnly} {
		_, err := rocks.Open(dir, o)
		require.ErrorIs(t, err, rocks.ErrLocked)
		require.ErrorContains(t, err, dir)
		require.ErrorContains(t, err, "use another folder")
	}
	require.NoError(t, db.Close())
	one, two := open(t, dir, readOnly), open(t, dir, readOnly)
	_, err := rocks.Open(dir, options())
	require.ErrorIs(t, err, rocks.ErrLocked)
	require.NoError(t, one.Close())
	require.NoError(t, two.Close())
	require.NoError(t, open(t, dir, options()).Close())
}

// Shows that a lock taken by another program on RocksDB's own lock file gives the
// same error, and that nothing stays behind after failed openings.
func TestOpenRefusals(t *testing.T) {
	defer requireNothingLive(t)
	refuse := func(dir string, change func(o *rocks.Options)) error {
		t.Helper()
		o := options()
		change(&o)
		_, err := rocks.Open(dir, o)
		require.Error(t, err)
		require.ErrorContains(t, err, dir)
		requireNothingLive(t)
		return err
	}
	dir := t.TempDir()
	require.NoError(t, open(t, dir, options()).Close())
	require.ErrorContains(t, refuse(dir, func(o *rocks.Options) { o.Families = o.Families[:2] }), "unknown column families journal")
	require.ErrorContains(t, refuse(dir, func(o *rocks.Options) { o.Families[1].Name = "meta" }), "used twice")
	require.ErrorContains(t, refuse(dir, func(o *rocks.Options) { o.Families[1].Name = "default" }), "reserved")
	require.ErrorContains(t, refuse(dir, func(o *rocks.Options) { o.Families[1].Profile = 9 }), "profile")
	require.ErrorContains(t, refuse(dir, func(o *rocks.Options) { o.Families = make([]rocks.FamilySpec, 127) }), "at most 126")
	require.ErrorContains(t, refuse(dir, func(o *rocks.Options) { o.Recovery = 7 }), "recovery")
	require.ErrorContains(t, refuse(dir, func(o *rocks.Options) { o.MemoryBytes = -1 }), "negative")

	missing := filepath.Join(dir, "missing")
	require.ErrorIs(t, refuse(missing, func(o *rocks.Options) { o.ReadOnly = true }), fs.ErrNotExist)
	require.NoDirExists(t, missing)
	require.NoError(t, os.Mkdir(missing, 0o755))
	require.ErrorIs(t, refuse(missing, func(o *rocks.Options) { o.ReadOnly = true }), fs.ErrNotExist)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	refuse(file, func(*rocks.Options) {})
	refuse(filepath.Join(file, "below"), func(*rocks.Options) {})
}

// Shows that data files without CURRENT are not taken for a new database, which
// would delete them.
func TestOpenWithoutCurrent(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	write(t, db, func(b *rocks.Batch) { b.Put(meta, []byte("a"), []byte("1")) })
	require.NoError(t, db.Flush())
	require.NoError(t, db.Close())
	current := filepath.Join(dir, "CURRENT")
	require.NoError(t, os.Rename(current, current+".away"))
	before := fingerprint(t, dir)
	_, err := rocks.Open(dir, options())
	require.ErrorIs(t, err, rocks.ErrCorrupt)
	require.ErrorContains(t, err, "restore the folder")
	require.Equal(t, before, fingerprint(t, dir))
	require.NoError(t, os.Rename(current+".away", current))
	v, _ := get(t, open(t, dir, options()), meta, "a")
	require.Equal(t, "1", v)
}

// Shows that Open creates folders with their parents.
func TestOpenCreatesFolders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	db := open(t, dir, options())
	write(t, db, func(b *rocks.Batch) { b.Put(meta, []byte("a"), []byte("1")) })
}

// Shows that a read-only database reads what is in the log and the files, changes
// no file, refuses writes and reads families that are not there as empty.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, options())
	write(t, db, func(b *rocks.Batch) { b.Put(meta, []byte("a"), []byte("flushed")) })
	require.NoError(t, db.Flush())
	write(t, db, func(b *rocks.Batch) { b.Put(meta, []byte("b"), []byte("logged")) })
	sequence := db.SequenceNumber()
	require.NoError(t, db.Close())

	before := fingerprint(t, dir)
	o := options()
	o.ReadOnly, o.Recovery = true, rocks.RecoveryPointInTime
	o.Families = append(o.Families, rocks.FamilySpec{Name: "later"})
	later := rocks.Family(3)
	db = open(t, dir, o)
	require.Equal(t, []string{"a=flushed", "b=logged"}, text(t, db, meta, rocks.IterOptions{}))
	require.Equal(t, sequence, db.SequenceNumber())
	require.Empty(t, text(t, db, later, rocks.IterOptions{}))
	_, found := get(t, db, later, "a")
	require.False(t, found)
	calls := 0
	require.NoError(t, db.MultiGet(later, [][]byte{{1}, {2}}, func(_ int, _ []byte, found bool) error {
		require.False(t, found)
		calls++
		return nil
	}))
	require.Equal(t, 2, calls)
	require.Zero(t, db.FamilyStats(later))
	require.NotZero(t, db.State().CacheCapacityBytes)
	var b rocks.Batch
	b.Put(meta, []byte("c"), []byte("1"))
	require.Error(t, db.Write(&b, true))
	require.NoError(t, db.Close())
	require.Equal(t, before, fingerprint(t, dir))
}

// fingerprint maps the files of a folder to hashes of their content.
func fingerprint(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	files := map[string][32]byte{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = sha256.Sum256(content)
		return err
	}))
	return files
}

// Shows that the settings that durability rests on are the ones in force, from the
// options file that RocksDB writes.
func TestSettings(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, options())
	paths, err := filepath.Glob(filepath.Join(dir, "OPTIONS-*"))
	require.NoError(t, err)
	content, err := os.ReadFile(paths[len(paths)-1])
	require.NoError(t, err)
	f := func(section, name, want string) {
		t.Helper()
		_, text, found := cutSection(string(content), section)
		require.True(t, found, "section %s", section)
		m := regexp.MustCompile(`(?m)^\s*` + name + `=(.*)$`).FindStringSubmatch(text)
		require.NotNil(t, m, "%s in %s", name, section)
		require.Equal(t, want, m[1], "%s in %s", name, section)
	}
	for name, want := range map[string]string{
		"wal_recovery_mode": "kTolerateCorruptedTailRecords", "recycle_log_file_num": "0", "WAL_ttl_seconds": "0",
		"WAL_size_limit_MB": "0", "manual_wal_flush": "false", "wal_compression": "kNoCompression", "atomic_flush": "false",
		"unordered_write": "false", "enable_pipelined_write": "false", "two_write_queues": "false", "allow_2pc": "false",
		"max_total_wal_size": "268435456", "max_background_jobs": "2", "db_write_buffer_size": "16777216",
		"paranoid_checks": "true", "flush_verify_memtable_count": "true", "verify_sst_unique_id_in_manifest": "true",
		"max_bgerror_resume_count": "0", "avoid_flush_during_recovery": "true",
		"track_and_verify_wals_in_manifest": "false", "info_log_level": "FATAL_LEVEL",
	} {
		f(`DBOptions`, name, want)
	}
	for _, family := range []string{"default", "meta", "raw", "journal"} {
		section := `CFOptions "` + family + `"`
		f(section, "max_write_buffer_number", "2")
		f(section, "paranoid_file_checks", "true")
		f(section, "force_consistency_checks", "true")
		f(section, "memtable_protection_bytes_per_key", "8")
		f(section, "compaction_style", "kCompactionStyleLevel")
		f(section, "ttl", "0")
		table := `TableOptions/BlockBasedTable "` + family + `"`
		f(table, "format_version", "5")
		f(table, "checksum", "kXXH3")
		f(table, "cache_index_and_filter_blocks", "true")
	}
	f(`CFOptions "meta"`, "compression", "kLZ4Compression")
	f(`CFOptions "raw"`, "compression", "kLZ4Compression")
	f(`CFOptions "journal"`, "compression", "kNoCompression")
	f(`TableOptions/BlockBasedTable "meta"`, "filter_policy", "ribbonfilter")
	f(`TableOptions/BlockBasedTable "raw"`, "filter_policy", "nullptr")
	f(`TableOptions/BlockBasedTable "raw"`, "block_size", "16384")
}

// cutSection returns the text of [section] of an options file.
func cutSection(content, section string) (before, text string, found bool) {
	loc := regexp.MustCompile(`(?ms)^\[` + regexp.QuoteMeta(section) + `\]$(.*?)(^\[|\z)`).FindStringSubmatchIndex(content)
	if loc == nil {
		return content, "", false
	}
	return content[:loc[0]], content[loc[2]:loc[3]], true
}

// Shows that the memory budget is split as documented and has sane defaults.
func TestMemory(t *testing.T) {
	require.GreaterOrEqual(t, rocks.DefaultMemoryBytes(), int64(32<<20))
	require.LessOrEqual(t, rocks.DefaultMemoryBytes(), int64(4<<30))
	f := func(memory int64, wantCache uint64) {
		t.Helper()
		o := options()
		o.MemoryBytes = memory
		db := open(t, t.TempDir(), o)
		require.Equal(t, wantCache, db.State().CacheCapacityBytes)
	}
	f(1, 16<<20)
	f(64<<20, 48<<20)
	f(1<<30, 768<<20)
	f(8<<30, 8<<30-512<<20)
}

// Shows that Close refuses later calls of every kind without a crash, and that
// objects left open are named and made harmless.
func TestClose(t *testing.T) {
	db := open(t, t.TempDir(), options())
	write(t, db, func(b *rocks.Batch) { b.Put(meta, []byte("a"), []byte("1")) })
	it := db.NewIterator(meta, rocks.IterOptions{})
	held := db.NewSnapshot()
	at := db.NewIterator(meta, rocks.IterOptions{Snapshot: held})
	held.Release()
	snapshot := db.NewSnapshot()
	it.SeekToFirst()
	require.True(t, it.Valid())

	err := db.Close()
	require.ErrorContains(t, err, "2 iterators and 1 snapshots were still open")
	requireNothingLive(t)
	require.ErrorIs(t, db.Close(), rocks.ErrClosed)

	for _, i := range []*rocks.Iterator{it, at, db.NewIterator(meta, rocks.IterOptions{})} {
		for _, move := range []func(){i.Next, i.Prev, i.SeekToFirst, i.SeekToLast, func() { i.Seek(nil) }, func() { i.SeekForPrev(nil) }} {
			move()
			require.False(t, i.Valid())
			require.ErrorIs(t, i.Err(), rocks.ErrClosed)
		}
		i.Close()
	}
	var b rocks.Batch
	b.Put(meta, []byte("a"), []byte("1"))
	require.ErrorIs(t, db.Write(&b, false), rocks.ErrClosed)
	require.ErrorIs(t, db.SyncWAL(), rocks.ErrClosed)
	require.ErrorIs(t, db.Flush(), rocks.ErrClosed)
	require.ErrorIs(t, db.CompactRange(meta, nil, nil), rocks.ErrClosed)
	require.ErrorIs(t, db.DeleteFilesInRange(meta, nil, nil), rocks.ErrClosed)
	require.ErrorIs(t, db.Checkpoint(filepath.Join(t.TempDir(), "c")), rocks.ErrClosed)
	require.ErrorIs(t, db.MultiGet(meta, [][]byte{{1}}, nil), rocks.ErrClosed)
	for _, get := range []func(rocks.Family, []byte, []byte) ([]byte, bool, error){db.Get, snapshot.Get, db.NewSnapshot().Get} {
		_, _, err := get(meta, []byte("a"), nil)
		require.ErrorIs(t, err, rocks.ErrClosed)
	}
	require.ErrorIs(t, snapshot.MultiGet(meta, nil, nil), rocks.ErrClosed)
	snapshot.Release()
	require.Zero(t, db.State())
	require.Zero(t, db.FamilyStats(meta))
	require.Zero(t, db.SequenceNumber())
}

// Shows that Close in the middle of every kind of call lets them finish or refuses
// them, never crashes and loses nothing that was written.
func TestCloseConcurrently(t *testing.T) {
	dir := t.TempDir()
	for round := range 8 {
		o := options()
		o.MemtableBytes = 64 << 10
		db, err := rocks.Open(dir, o)
		require.NoError(t, err)
		var workers, running sync.WaitGroup
		var written [2]uint64
		work := func(f func() error) {
			running.Add(1)
			workers.Go(func() {
				var err error
				for first := true; err == nil; first = false {
					err = f()
					if first {
						running.Done()
					}
				}
				if !errorsClosed(err) {
					t.Errorf("want ErrClosed, got %v", err)
				}
			})
		}
		for w := range written {
			var b rocks.Batch
			work(func() error {
				b.Reset()
				b.Put(raw, append(key(uint64(round*2+w)), key(written[w])...), make([]byte, 500))
				if err := db.Write(&b, w == 0); err != nil {
					return err
				}
				written[w]++
				return nil
			})
		}
		work(func() error { _, _, err := db.Get(raw, key(1), nil); return err })
		work(func() error {
			return db.MultiGet(raw, [][]byte{key(1), key(2)}, func(int, []byte, bool) error {
				_, _, err := db.Get(raw, key(3), nil)
				return err
			})
		})
		work(func() error {
			s := db.NewSnapshot()
			defer s.Release()
			it := db.NewIterator(raw, rocks.IterOptions{Snapshot: s})
			defer it.Close()
			for it.SeekToFirst(); it.Valid(); it.Next() {
			}
			return it.Err()
		})
		work(func() error { return db.CompactRange(raw, nil, nil) })
		work(func() error { db.FamilyStats(raw); db.State(); return db.Flush() })
		running.Wait()
		err = db.Close()
		workers.Wait()
		if err != nil {
			require.ErrorContains(t, err, "still open")
		}
		requireNothingLive(t)

		db = open(t, dir, o)
		for w, n := range written {
			prefix := key(uint64(round*2 + w))
			require.Len(t, text(t, db, raw, rocks.IterOptions{Lower: prefix, Upper: key(uint64(round*2 + w + 1))}), int(n))
		}
		require.NoError(t, db.Close())
	}
}
