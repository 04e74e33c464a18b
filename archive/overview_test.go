package archive_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// TestOverview tells of days in every state, of what is sealed and rolled up of them and what that takes, as the records of days say.
func TestOverview(t *testing.T) {
	t.Parallel()
	o := options()
	o.Resolutions = []time.Duration{5 * time.Minute, time.Hour}
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	var points []point
	for day := range int64(3) {
		for n := range int64(200) {
			points = append(points, point{int(n % 4), day0 + day*86400_000 + n*300_000, float64(n)})
		}
	}
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	first := format.DayOf(day0)
	for _, d := range []format.Day{first, first + 1} {
		_, err := a.Seal(t.Context(), d, nil)
		require.NoError(t, err)
	}
	_, err := a.Roll(t.Context(), first, nil)
	require.NoError(t, err)
	// A late sample makes the first day wait again.
	write(t, a, []point{{9, day0 + 1, 1}})
	require.NoError(t, a.Maintain(true))

	view, err := a.Overview()
	require.NoError(t, err)
	require.Len(t, view.Levels, 3)
	raw, fine, coarse := view.Levels[0], view.Levels[1], view.Levels[2]
	require.Equal(t, 2, raw.Days)
	require.EqualValues(t, 400, raw.Samples)
	require.Positive(t, raw.Bytes)
	require.Equal(t, time.UnixMilli(day0).UTC(), raw.Oldest)
	require.Equal(t, time.UnixMilli(day0+86400_000).UTC(), raw.Newest)
	require.Equal(t, 5*time.Minute, fine.Resolution)
	require.Equal(t, time.Hour, coarse.Resolution)
	require.Equal(t, 1, fine.Days)
	require.Greater(t, fine.Samples, coarse.Samples)
	require.Positive(t, coarse.Samples)
	require.EqualValues(t, 5, view.Series)
	require.Positive(t, view.FreeBytes)
	require.Len(t, view.Families, len(format.FamilyNames))

	days, more, err := a.DayOverviews(format.MinDay, format.DayOf(format.MaxTimeMillis), 10)
	require.NoError(t, err)
	require.Zero(t, more)
	require.Len(t, days, 3, "not the day before the first, which waits to be rolled up but has nothing")
	require.Equal(t, []format.Day{first + 2, first + 1, first}, []format.Day{days[0].Day, days[1].Day, days[2].Day})
	require.True(t, days[0].Sealed.IsZero())
	require.True(t, days[0].Runs)
	require.False(t, days[1].Runs)
	require.EqualValues(t, 200, days[1].Samples)
	require.False(t, days[1].Rolls[0].Begun)
	require.True(t, days[2].Runs, "the late sample")
	require.Len(t, days[2].Rolls, 2)
	require.True(t, days[2].Rolls[0].Begun)
	require.Equal(t, fine.Samples, days[2].Rolls[0].Buckets)
	require.Equal(t, fine.Bytes, days[2].Rolls[0].Bytes)

	days, more, err = a.DayOverviews(first, first+1, 1)
	require.NoError(t, err)
	require.Equal(t, 1, more)
	require.Equal(t, first+1, days[0].Day)
}

// TestOverviewOnDisk counts what lies on the disk, whether it is in tables yet or in the log: a young archive doesn't seem empty. It is what a
// listing of the files adds up to.
func TestOverviewOnDisk(t *testing.T) {
	t.Parallel()
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, options())
	var points []point
	for n := range int64(5000) {
		points = append(points, point{int(n % 50), day0 + n*100, float64(n * n)})
	}
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	young, err := a.Overview()
	require.NoError(t, err)
	require.Greater(t, young.OtherBytes, uint64(5000), "the log of 5000 samples")
	require.NoError(t, a.FlushAll())
	// RocksDB removes what it needs no more some time after a flush, and may move files: both have to be of one moment.
	var old archive.Overview
	listed := uint64(0)
	for before := ""; before == "" || listing(t, dir) != before; {
		before, listed = listing(t, dir), 0
		old, err = a.Overview()
		require.NoError(t, err)
		for line := range strings.Lines(before) {
			path, size, ok := strings.Cut(strings.TrimSpace(line), " ")
			require.True(t, ok, line)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				n, err := strconv.ParseUint(size, 10, 64)
				require.NoError(t, err)
				listed += n
			}
		}
	}
	require.Positive(t, old.DiskBytes)
	// A table has a few hundred bytes that RocksDB doesn't count to a level.
	require.InEpsilon(t, listed, old.DiskBytes+old.OtherBytes, 0.02)
}

// TestSeriesAfterRestart counts the series that were there at the start, of which nothing but tables is left: else a page would tell of none, and
// the bound on all series would hold for new ones alone.
func TestSeriesAfterRestart(t *testing.T) {
	t.Parallel()
	dir := testkit.MemoryDir(t)
	o := options()
	o.SeriesMax = 60
	open := func() *archive.Archive {
		a, err := archive.Open(dir, o)
		require.NoError(t, err)
		<-a.Started()
		require.NoError(t, a.StartError())
		return a
	}
	a := open()
	var points []point
	for n := range 50 {
		points = append(points, point{n, day0, 1})
	}
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	require.NoError(t, a.FlushAll())
	require.NoError(t, a.Close())

	a = open()
	defer func() { require.NoError(t, a.Close()) }()
	view, err := a.Overview()
	require.NoError(t, err)
	require.EqualValues(t, 50, view.Series)
	refused := 0
	for n := 50; n < 70; n++ {
		unknown := []arrival.Unknown{{Labels: seriesLabels(n)}}
		require.NoError(t, a.Resolve(t.Context(), unknown))
		if unknown[0].Refused != 0 {
			require.Equal(t, arrival.ReasonSeriesLimit, unknown[0].Refused)
			refused++
		}
	}
	require.Equal(t, 10, refused)
}

// TestOthers finds out whether anything but the series of one job has samples, wherever those are.
func TestOthers(t *testing.T) {
	t.Parallel()
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	others := func() bool {
		found, err := a.Others(t.Context(), labels.MustNewMatcher(labels.MatchNotEqual, "job", "job0"))
		require.NoError(t, err)
		return found
	}
	require.False(t, others(), "nothing at all")
	write(t, a, []point{{0, day0, 1}, {3, day0, 1}})
	require.False(t, others(), "job0 alone")
	resolve(t, a, seriesLabels(1))
	require.False(t, others(), "a series without samples")
	write(t, a, []point{{1, day0, 1}})
	require.True(t, others())
	require.NoError(t, a.Maintain(true))
	require.True(t, others())
}
