package archive_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/internal/testkit"
)

// TestSettledFilesStay shows that the files of a day that was sealed and settled are not written again when later days are, nor after
// queries, so that a copy of the archive has them already.
func TestSettledFilesStay(t *testing.T) {
	clock := &movingClock{day0}
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", tailOptions(clock))
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	first := format.DayOf(day0)
	var before []string
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
		require.NoError(t, a.Settle())
		files := a.FilesOf(format.FamilyRaw)
		require.Len(t, files, day+1)
		for _, name := range before {
			require.True(t, slices.Contains(files, name), "%s of %v is gone: %v", name, before, files)
		}
		before = files
		for range 3 {
			require.NotEmpty(t, read(t, a, day0, clock.ms))
			require.NoError(t, a.Maintain(true))
		}
	}
}
