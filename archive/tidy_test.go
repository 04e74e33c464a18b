package archive_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/internal/testkit"
)

// TestSettledFilesStay shows that the files of a day that was sealed, rolled up and settled are not written again when later days are, nor after
// queries, so that a copy of the archive has them already.
func TestSettledFilesStay(t *testing.T) {
	clock := &movingClock{day0}
	o := tailOptions(clock)
	o.Resolutions = []time.Duration{5 * time.Minute, time.Hour}
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", o)
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	first := format.DayOf(day0)
	before := map[format.Family][]string{}
	for day := range 5 {
		var points []point
		for series := range 30 {
			for at := range 100 {
				points = append(points, point{series, day0 + int64(day)*86400_000 + int64(at)*60_000, float64(series*at + day)})
			}
		}
		clock.ms = day0 + int64(day+2)*86400_000
		write(t, a, points)
		require.NoError(t, a.Maintain(true))
		_, err := a.Seal(t.Context(), first+format.Day(day), nil)
		require.NoError(t, err)
		_, err = a.Reclaim()
		require.NoError(t, err)
		if day > 0 {
			_, err = a.Roll(t.Context(), first+format.Day(day-1), nil)
			require.NoError(t, err)
		}
		require.NoError(t, a.Settle())
		for f, most := range map[format.Family]int{
			format.FamilyRaw: day + 1, format.RollupFamily(300_000): day, format.RollupFamily(3600_000): day,
		} {
			files := a.FilesOf(f)
			require.Len(t, files, most, format.FamilyNames[f])
			for _, name := range before[f] {
				require.True(t, slices.Contains(files, name), "%s of %v is gone: %v", name, before[f], files)
			}
			before[f] = files
		}
		for range 3 {
			require.NotEmpty(t, read(t, a, day0, clock.ms))
			require.NoError(t, a.Maintain(true))
		}
	}
}

// TestTidyWaitsForReaders shows that days stay noted that were written while a query reads: a call with the query under way leaves them, one that
// waits until it is over makes their files what they stay, and one whose caller gives up says so.
func TestTidyWaitsForReaders(t *testing.T) {
	clock := &movingClock{day0}
	o := tailOptions(clock)
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", o)
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	a.WaitLong()
	var points []point
	for at := range 100 {
		points = append(points, point{1, day0 + int64(at)*60_000, float64(at)})
	}
	clock.ms = day0 + 2*86400_000
	write(t, a, points)
	require.NoError(t, a.Maintain(true))
	reader, err := a.Querier(day0, clock.ms)
	require.NoError(t, err)
	_, err = a.Seal(t.Context(), format.DayOf(day0), nil)
	require.NoError(t, err)
	require.NoError(t, a.Settle())
	require.NotZero(t, a.Untidy())
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, a.Tidy(ended), context.Canceled)
	require.NotZero(t, a.Untidy())

	tidied := make(chan error)
	go func() { tidied <- a.Tidy(t.Context()) }()
	require.NoError(t, reader.Close())
	require.NoError(t, <-tidied)
	require.Zero(t, a.Untidy())
	files := a.FilesOf(format.FamilyRaw)
	require.Len(t, files, 1)
	for range 3 {
		require.NotEmpty(t, read(t, a, day0, clock.ms))
		require.NoError(t, a.Settle())
	}
	require.Equal(t, files, a.FilesOf(format.FamilyRaw))
}
