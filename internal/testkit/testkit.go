// Package testkit opens archives for tests.
//
// An archive from here lives in a folder of the test, and when the test ends it is
// closed, checked against itself and reopened no more; C objects of RocksDB that
// were not given back fail the test. Storage makes it an upstream storage.Storage, so
// that the PromQL acceptance scripts and anything else that appends the upstream way
// run on it, with every sample forced through the stage that the test names.
//
// Only tests import this package.
package testkit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/archive"
	"varve/ingest"
	"varve/internal/testkit/leaks"
	"varve/rocks"
)

// Options are archive.Options that suit a test: little memory, no floor on the
// disk, maintenance by hand.
func Options() archive.Options {
	return archive.Options{
		MemoryBytes: 32 << 20, DiskFloorBytes: 1, DiskFloorShare: 1e-9, ReserveBytes: 1 << 20, Manual: true,
	}
}

// Main runs the tests of a package and ends the process, with a failure if a test has left a
// goroutine or an object of RocksDB behind. It is for TestMain.
func Main(m *testing.M) {
	code := leaks.Patient(m).Run()
	left := liveObjects()
	// A goroutine that is in a call of RocksDB is none to goleak, and may be giving back the last of them.
	for began := time.Now(); code == 0 && len(left) > 0 && time.Since(began) < patience; left = liveObjects() {
		runtime.Gosched()
	}
	for kind, n := range left {
		fmt.Fprintf(os.Stderr, "%d live RocksDB objects of kind %s\n", n, kind)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// patience bounds the wait for what ends without a signal of its end.
const patience = time.Minute

// liveObjects are the objects of RocksDB that were not given back, by kind.
func liveObjects() map[string]int {
	left := rocks.Live()
	maps.DeleteFunc(left, func(_ string, n int) bool { return n == 0 })
	return left
}

// Open opens an archive in dir and waits until its journal is read back. It is
// closed when the test ends, unless the test has closed it.
func Open(t testing.TB, dir string, o archive.Options) *archive.Archive {
	t.Helper()
	a, err := archive.Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, a.Close())
		Check(t, dir)
	})
	<-a.Started()
	require.NoError(t, a.StartError())
	return a
}

// Check fails the test with every fault that the archive in dir has. It must be closed.
func Check(t testing.TB, dir string) archive.CheckReport {
	t.Helper()
	report, err := archive.Check(dir, func(f archive.Fault) { t.Errorf("check: %s", f) })
	require.NoError(t, err)
	return report
}

// MemoryDir returns a folder for the test on a file system in memory where there
// is one: for tests that open many archives and are not about the disk.
func MemoryDir(t testing.TB) string {
	const shm = "/dev/shm"
	if st, err := os.Stat(shm); err != nil || !st.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "varve-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// Stage is where a sample has to be before it is read.
type Stage int

// The stages, each a way that a sample may take to its reader.
const (
	Memory  Stage = iota // open runs
	Runs                 // runs on disk, index on disk
	Replay               // closed and read back from the journal
	Sealed               // read back, then in the bundles of sealed days
	Reseals              // in bundles, of which half came to a day that was sealed
)

// Stages lists all stages with their names.
var Stages = map[string]Stage{"memory": Memory, "runs": Runs, "replay": Replay, "sealed": Sealed, "resealed": Reseals}

// Storage is an archive as upstream's storage.Storage.
type Storage struct {
	t     testing.TB
	dir   string
	o     archive.Options
	stage Stage

	mu    sync.Mutex
	a     *archive.Archive
	in    *ingest.Appendable
	dirty bool
	// appends counts appenders.
	appends int
}

// NewStorage opens an empty archive whose samples take the stage before they are read.
func NewStorage(t testing.TB, stage Stage) *Storage {
	o := Options()
	// Scripts write at any time: nothing is too far ahead.
	o.FutureMax = 1 << 62
	s := &Storage{t: t, dir: MemoryDir(t), o: o, stage: stage}
	fill(t, s.dir)
	s.open()
	return s
}

// empty makes an archive and returns its files by their paths in it: RocksDB takes longer to make one than to open it, and
// the acceptance scripts need hundreds.
var empty = sync.OnceValues(func() (files map[string][]byte, err error) {
	dir, err := os.MkdirTemp("", "varve-test-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	a, err := archive.Open(dir, Options())
	if err != nil {
		return nil, err
	}
	<-a.Started()
	if err := errors.Join(a.StartError(), a.Close()); err != nil {
		return nil, err
	}
	files = map[string][]byte{}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil {
			files[name], err = os.ReadFile(path)
		}
		return err
	})
	return files, err
})

// fill makes the folder one of an archive that is empty. All such archives take each other for the same one.
func fill(t testing.TB, dir string) {
	files, err := empty()
	require.NoError(t, err)
	for name, content := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
}

func (s *Storage) open() {
	a, err := archive.Open(s.dir, s.o)
	require.NoError(s.t, err)
	<-a.Started()
	require.NoError(s.t, a.StartError())
	s.a = a
	s.in = ingest.NewAppendable(a, ingest.Limits{}, ingest.NewMetrics(nil), "test")
}

// Archive returns the archive as it stands, after what was written took its stage.
func (s *Storage) Archive() *archive.Archive {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return s.a
	}
	s.dirty = false
	if s.stage == Replay || s.stage == Sealed {
		require.NoError(s.t, s.a.Close())
		s.open()
	}
	if s.stage == Runs {
		require.NoError(s.t, s.a.Maintain(true))
	}
	if s.stage == Sealed || s.stage == Reseals {
		SealAll(s.t, s.a)
	}
	return s.a
}

// SealAll seals every day, today too, and drops its runs. Days that a delete holds stay as they are.
func SealAll(t testing.TB, a *archive.Archive) {
	t.Helper()
	require.NoError(t, a.Maintain(true))
	days, err := a.Days()
	require.NoError(t, err)
	for _, d := range days {
		if d.Runs && (!d.Held || d.Folding) {
			_, err := a.Seal(context.Background(), d.Day, nil)
			require.NoError(t, err)
		}
	}
	_, err = a.Reclaim()
	require.NoError(t, err)
}

// appending is called before something is appended.
func (s *Storage) appending() {
	s.dirty = true
	// What this appender writes comes to days that are sealed, every other time.
	if s.appends++; s.stage == Reseals && s.appends%2 == 0 {
		SealAll(s.t, s.a)
	}
}

// AppenderV2 implements storage.AppendableV2.
func (s *Storage) AppenderV2(ctx context.Context) storage.AppenderV2 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appending()
	return s.in.AppenderV2(ctx)
}

// Appender implements storage.Appendable.
func (s *Storage) Appender(ctx context.Context) storage.Appender {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appending()
	return s.in.Appender(ctx)
}

// Querier implements storage.Queryable.
func (s *Storage) Querier(mint, maxt int64) (storage.Querier, error) {
	return s.Archive().Querier(mint, maxt)
}

// ChunkQuerier implements storage.ChunkQueryable.
func (s *Storage) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return s.Archive().ChunkQuerier(mint, maxt)
}

// ExemplarQuerier implements storage.ExemplarQueryable.
func (s *Storage) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return s.Archive().ExemplarQuerier(ctx)
}

// StartTime implements storage.Storage.
func (*Storage) StartTime() (int64, error) { return 0, nil }

// Close implements storage.Storage. The archive is checked.
func (s *Storage) Close() error {
	if err := s.a.Close(); err != nil {
		return err
	}
	Check(s.t, s.dir)
	return nil
}

var _ storage.Storage = (*Storage)(nil)
