package rocks_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	_ "varve/internal/testkit/draws"
	"varve/internal/testkit/leaks"
	"varve/rocks"
)

func TestMain(m *testing.M) {
	// Every step of a random test may fsync; -rapid.checks still overrides.
	if err := flag.Set("rapid.checks", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(leaks.Patient(m))
}

// patience bounds the wait for what RocksDB does beside: it ends long before unless it never does.
const patience = 2 * time.Minute

const (
	meta rocks.Family = iota
	raw
	journal
)

// families are one of each profile.
func families() []rocks.FamilySpec {
	return []rocks.FamilySpec{
		{Name: "meta", Profile: rocks.ProfilePoint},
		{Name: "raw", Profile: rocks.ProfileScan},
		{Name: "journal", Profile: rocks.ProfileLog},
	}
}

func options() rocks.Options {
	return rocks.Options{Families: families(), MemoryBytes: 32 << 20}
}

// open opens dir and, at the end of the test, closes it and shows with the last
// database that no C object is left. A test that closes by itself may.
func open(t testing.TB, dir string, o rocks.Options) *rocks.DB {
	t.Helper()
	db, err := rocks.Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			require.ErrorIs(t, err, rocks.ErrClosed)
		}
		if rocks.Live()["db"] == 0 {
			requireNothingLive(t)
		}
	})
	return db
}

func requireNothingLive(t testing.TB) {
	t.Helper()
	for name, n := range rocks.Live() {
		require.Zero(t, n, "live objects of type %s", name)
	}
}

func write(t testing.TB, db *rocks.DB, fill func(b *rocks.Batch)) {
	t.Helper()
	var b rocks.Batch
	fill(&b)
	require.NoError(t, db.Write(&b, false))
}

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// text returns every pair of the family as "key=value", and fails on an error.
func text(t testing.TB, db *rocks.DB, f rocks.Family, o rocks.IterOptions) []string {
	t.Helper()
	it := db.NewIterator(f, o)
	defer it.Close()
	var got []string
	for it.SeekToFirst(); it.Valid(); it.Next() {
		got = append(got, fmt.Sprintf("%s=%s", it.Key(), it.Value()))
	}
	require.NoError(t, it.Err())
	return got
}

func get(t testing.TB, db *rocks.DB, f rocks.Family, key string) (string, bool) {
	t.Helper()
	value, found, err := db.Get(f, []byte(key), nil)
	require.NoError(t, err)
	return string(value), found
}

// copyFolder copies the files as they are now, as a crash of the machine with an
// intact disk would leave them. A copy during which RocksDB made, wrote or dropped files
// is no image of one moment, so it is taken again.
func copyFolder(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "db")
	for {
		before := listing(t, from)
		err := os.CopyFS(to, os.DirFS(from))
		if err == nil && listing(t, from) == before {
			return to
		}
		require.NoError(t, os.RemoveAll(to))
	}
}

// listing is the names and sizes of the files of a folder. Those that go meanwhile are left out.
func listing(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var b strings.Builder
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			fmt.Fprintln(&b, entry.Name(), info.Size())
		}
	}
	return b.String()
}

// logs are the paths of the write-ahead logs, oldest first.
func logs(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "[0-9]*.log"))
	require.NoError(t, err)
	return paths
}
