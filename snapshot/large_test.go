package snapshot_test

import (
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
	"varve/snapshot"
)

const (
	// largeBytes is the size of the archive unless VARVE_GB says otherwise, in GB of 10^9 bytes.
	largeBytes = 0.25
	// largeSeries have a sample a second with a value of random bits, which takes 8 bytes however it is encoded: 69 MB a day.
	largeSeries  = 100
	largeChunk   = 10_800
	largeDayRows = 86_400
)

// BenchmarkLarge makes a snapshot of a large archive in a folder of the same disk, verifies it and restores it, each time with nothing
// of the files that are read in the kernel's cache. It reports MB (10^6 bytes) a second of each.
func BenchmarkLarge(b *testing.B) {
	gb := largeBytes
	if text := os.Getenv("VARVE_GB"); text != "" {
		var err error
		gb, err = strconv.ParseFloat(text, 64)
		require.NoError(b, err)
	}
	for b.Loop() {
		root := b.TempDir()
		dir, bucket := filepath.Join(root, "data"), filepath.Join(root, "bucket")
		a, err := archive.Open(dir, testkit.Options())
		require.NoError(b, err)
		<-a.Started()
		fillLarge(b, a, dir, int64(gb*1e9))
		o := snapshot.Options{Bucket: openBucket(b, "type: FILESYSTEM\nconfig: {directory: %q}", bucket), Scratch: filepath.Join(dir, "uploading"), Take: take(a)}
		s, err := snapshot.New(o)
		require.NoError(b, err)

		report := func(what string, bytes int64, work func()) {
			dropCached(b, root)
			began := time.Now()
			work()
			took := time.Since(began)
			b.ReportMetric(float64(bytes)/1e6/took.Seconds(), what+"-MB/s")
			b.Logf("%s: %.1f MB in %.1f s", what, float64(bytes)/1e6, took.Seconds())
		}
		bytes := sizeOf(b, filepath.Join(dir, "db"))
		var m snapshot.Manifest
		report("create", bytes, func() {
			m, _, err = s.Create(b.Context(), nil)
			require.NoError(b, err)
		})
		require.NoError(b, a.Close())
		require.NoError(b, os.RemoveAll(dir)) // The disk has room for two copies, not three.
		report("verify", m.Bytes, func() {
			_, err := s.Verify(b.Context(), m.ID, snapshot.VerifyOptions{Contents: true}, nil)
			require.NoError(b, err)
		})
		report("restore", m.Bytes, func() {
			_, err := s.Restore(b.Context(), m.ID, dir, snapshot.RestoreOptions{Adopt: func(dir string) error {
				_, err := archive.Adopt(dir, testkit.Options())
				return err
			}}, nil)
			require.NoError(b, err)
		})
		report("open", m.Bytes, func() {
			a, err := archive.Open(dir, testkit.Options())
			require.NoError(b, err)
			<-a.Started()
			require.NoError(b, a.Close())
		})
		require.NoError(b, os.RemoveAll(root))
	}
}

// fillLarge brings whole days in until the archive takes so many bytes.
func fillLarge(b *testing.B, a *archive.Archive, dir string, bytes int64) {
	unknown := make([]arrival.Unknown, largeSeries)
	for i := range unknown {
		unknown[i].Labels = labels.FromStrings("__name__", "large", "instance", strconv.Itoa(i))
	}
	require.NoError(b, a.Resolve(b.Context(), unknown))
	random := rand.New(rand.NewPCG(1, 2))
	day := format.DayOf(firstDay)
	for ; sizeOf(b, filepath.Join(dir, "db")) < bytes; day-- {
		in, err := a.OpenIntake(b.Context(), day)
		require.NoError(b, err)
		for i := range unknown {
			var chunks []archive.IntakeChunk
			for first := 0; first < largeDayRows; first += largeChunk {
				c := chunkenc.NewXORChunk()
				app, err := c.Appender()
				require.NoError(b, err)
				start := day.StartMillis() + int64(first)*1000
				for n := range int64(largeChunk) {
					app.Append(0, start+n*1000, math.Float64frombits(random.Uint64()>>2))
				}
				chunks = append(chunks, archive.IntakeChunk{Chunk: c, MinMillis: start, MaxMillis: start + (largeChunk-1)*1000})
			}
			require.NoError(b, in.Add(storage.SeriesRef(unknown[i].Ref), chunks))
		}
		_, err = in.Commit(b.Context())
		require.NoError(b, err)
		require.NoError(b, in.Close())
	}
}

// sizeOf adds up the files below a folder.
func sizeOf(t testing.TB, dir string) (sum int64) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	}))
	return sum
}

// dropCached makes the kernel forget what it has of the files below a folder.
func dropCached(t testing.TB, dir string) {
	t.Helper()
	unix.Sync()
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}))
}
