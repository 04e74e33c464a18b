package archive_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/internal/testkit"
)

// TestCheckLive checks an archive again and again while it is written to, sealed, rolled up, queried and deleted from, at full speed: no check
// finds a fault, progress only grows, and nothing stays of the copies.
func TestCheckLive(t *testing.T) {
	base := testkit.MemoryDir(t)
	o := options()
	o.MemtableBytes = 128 << 10
	o.Resolutions = []time.Duration{time.Minute}
	a := testkit.Open(t, filepath.Join(base, "data"), o)
	c := newCounting(t, a, 4)
	defer c.churn(t, a)()
	scratch := filepath.Join(base, "data", "checking")
	for range 4 {
		before := c.progress()
		require.Eventually(t, func() bool { return c.acked[0].Load() > before[0]+500 }, 5*time.Minute, time.Millisecond)
		// What is in the log alone is not part of a progress.
		require.NoError(t, a.Settle())
		var told []archive.CheckProgress
		report, err := a.CheckLive(t.Context(), archive.LiveCheck{
			Scratch: scratch, BytesPerSecond: 1 << 30, Share: 1,
			Report: func(f archive.Fault) { t.Error(f) }, Progress: func(p archive.CheckProgress) { told = append(told, p) },
		})
		require.NoError(t, err)
		require.Zero(t, report.Faults)
		require.Positive(t, report.Samples+report.JournalRecords)
		last := told[len(told)-1]
		require.Equal(t, last.Total, last.Done)
		require.Positive(t, last.Total)
		require.True(t, slices.IsSortedFunc(told, func(x, y archive.CheckProgress) int { return int(x.Done) - int(y.Done) }))
		require.NoDirExists(t, scratch)
		require.NoDirExists(t, scratch+".partial")
	}
}

// TestCheckLiveFaults finds in an archive at work what is wrong on its disk.
func TestCheckLiveFaults(t *testing.T) {
	base := testkit.MemoryDir(t)
	dir := filepath.Join(base, "data")
	a, err := archive.Open(dir, options())
	require.NoError(t, err)
	<-a.Started()
	write(t, a, []point{{1, day0, 1}, {2, day0, 2}, {1, day0 + 1, 3}})
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	require.NoError(t, a.Close())
	bundles := recordsOf(t, dir, format.FamilyRaw)
	require.NotEmpty(t, bundles)
	change(t, dir, format.FamilyRaw, bundles[0].key, nil)
	a, err = archive.Open(dir, options())
	require.NoError(t, err)
	<-a.Started()
	write(t, a, []point{{1, day0 + 2, 1}})
	var faults []string
	report, err := a.CheckLive(t.Context(), archive.LiveCheck{Scratch: filepath.Join(base, "copy"), Report: func(f archive.Fault) { faults = append(faults, f.String()) }})
	require.NoError(t, err)
	require.Equal(t, len(faults), report.Faults)
	require.Contains(t, faults[0], "its record says")
	require.NoError(t, a.Close())
}

// TestCheckLiveEnds ends a check in its midst, before it began, and because the disk is full: no fault comes of what it has not read, and the copy
// goes.
func TestCheckLiveEnds(t *testing.T) {
	base := testkit.MemoryDir(t)
	a := testkit.Open(t, filepath.Join(base, "data"), options())
	var points []point
	for i := range 2000 {
		points = append(points, point{i % 100, day0 + int64(i)*1000, 1})
	}
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	scratch := filepath.Join(base, "copy")
	fault := func(f archive.Fault) { t.Error(f) }
	ended := 0
	for stopAt := 1; ; stopAt++ {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := a.CheckLive(ctx, archive.LiveCheck{Scratch: scratch, BytesPerSecond: 1 << 40, Share: 1, Report: fault, Progress: func(archive.CheckProgress) {
			if n++; n == stopAt {
				cancel()
			}
		}})
		cancel()
		require.NoDirExists(t, scratch)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		ended++
	}
	require.Positive(t, ended)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.CheckLive(gone, archive.LiveCheck{Scratch: scratch, Report: fault})
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, scratch)

	require.NoError(t, os.Mkdir(scratch, 0o700))
	_, err = a.CheckLive(t.Context(), archive.LiveCheck{Scratch: scratch, Report: fault})
	require.ErrorIs(t, err, os.ErrExist)
	require.DirExists(t, scratch, "what was there is not the check's")

	for _, bad := range []archive.LiveCheck{{Scratch: scratch}, {Report: fault}, {Scratch: scratch, Report: fault, Share: 2}, {Scratch: scratch, Report: fault, BytesPerSecond: -1}} {
		_, err := a.CheckLive(t.Context(), bad)
		require.Error(t, err)
	}
}

// TestCheckEnds ends a check after each number of records: it tells of no fault then, wherever that is.
func TestCheckEnds(t *testing.T) {
	base := testkit.MemoryDir(t)
	dir := filepath.Join(base, "data")
	a, err := archive.Open(dir, options())
	require.NoError(t, err)
	<-a.Started()
	for i := range 4 {
		write(t, a, []point{{i, day0, 1}, {i, day0 + 86400_000, 2}})
		require.NoError(t, a.Maintain(true))
		if i == 2 {
			sealAll(t, a, false)
		}
	}
	require.NoError(t, a.Close())
	stop := errors.New("stop")
	for after := 0; ; after++ {
		n := 0
		_, err := archive.CheckUntil(dir, func(f archive.Fault) { t.Error(f) }, func() error {
			if n++; n > after {
				return stop
			}
			return nil
		})
		if err == nil {
			require.Greater(t, after, 50)
			return
		}
		require.ErrorIs(t, err, stop)
	}
}
