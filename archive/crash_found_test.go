package archive_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/internal/testkit"
)

// trimmedArchive has a day from which a rule removed the samples of series 0, whose buckets stay.
func trimmedArchive(t *testing.T) (a *archive.Archive, dir string, hour func(h int) int64) {
	const days, day = 6, 1
	o, _ := keptOptions(days)
	dir = testkit.MemoryDir(t)
	a, _ = keptArchive(t, dir, days, o)
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule(`job=job0`, 2, -1, -1)}}))
	_, err := a.Trim(context.Background(), daysOf(day)[0], nil)
	require.NoError(t, err)
	return a, dir, func(h int) int64 { return day0 + day*dayMillis + int64(h)*3600_000 }
}

// deleteAndClean deletes samples of series 0 and removes them.
func deleteAndClean(t *testing.T, a *archive.Archive, mint, maxt int64) {
	t.Helper()
	d, ok := deleteSeries(t, a, `{i="0"}`, mint, maxt)
	require.True(t, ok)
	_, err := a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
	require.NoError(t, err)
}

// TestDeletePartOfTrimmedDay shows that a series whose samples of a day a rule removed stays in the index of the day as
// long as it has buckets there: queries and label APIs find them, and so does the next delete.
func TestDeletePartOfTrimmedDay(t *testing.T) {
	a, dir, hour := trimmedArchive(t)
	deleteAndClean(t, a, hour(3)+1, hour(5))
	require.Contains(t, names(t, a, hour(0), hour(24)-1), "0")
	require.Contains(t, bucketsOf(t, a), `i="0"`)
	deleteAndClean(t, a, hour(0)+1, hour(24))
	for _, line := range strings.Split(bucketsOf(t, a), "\n") {
		var resolution, end int64
		if strings.Contains(line, `i="0"`) {
			scanBucket(t, line, &resolution, &end)
			require.False(t, end > hour(0) && end <= hour(24), "deleted: %s", line)
		}
	}
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestDeleteAllOfTrimmedDay shows that a series of which a delete leaves neither samples nor buckets on a day isn't
// listed there any more, whether a rule removed its samples or all of the day's expired.
func TestDeleteAllOfTrimmedDay(t *testing.T) {
	for _, floor := range []bool{false, true} {
		a, dir, hour := trimmedArchive(t)
		if floor {
			floors := daysOf(2)
			for range 2 {
				floors = append(floors, format.MinDay)
			}
			_, err := a.Expire(context.Background(), floors)
			require.NoError(t, err)
		}
		deleteAndClean(t, a, hour(0)+1, hour(24))
		require.NotContains(t, names(t, a, hour(0)+1, hour(24)-1), "0", "floor %v", floor)
		require.NotContains(t, names(t, a, hour(0), hour(24)-1), "0", "floor %v, the whole day", floor)
		require.Contains(t, names(t, a, math.MinInt64, math.MaxInt64), "0")
		require.NoError(t, a.Close())
		testkit.Check(t, dir)
	}
}

// scanBucket reads the resolution and the end of a bucket that bucketsOf printed.
func scanBucket(t *testing.T, line string, resolution, end *int64) {
	t.Helper()
	_, err := fmt.Sscanf(line[strings.LastIndex(line, "}")+1:], "%d %d:", resolution, end)
	require.NoError(t, err)
}

// midnightArchive has a series 12 that begins with a sample at the midnight before the day 2, and a rule that has removed its
// samples. Its first bucket is the last of the day before, on which it has no samples.
func midnightArchive(t *testing.T) (a *archive.Archive, dir string, midnight int64) {
	const days = 6
	o, _ := keptOptions(days)
	dir = testkit.MemoryDir(t)
	a, _ = keptArchive(t, dir, days, o)
	midnight = day0 + 2*dayMillis
	write(t, a, []point{{series: 12, t: midnight, v: 1}, {series: 12, t: midnight + 5*3600_000, v: 2}, {series: 12, t: midnight + 2*dayMillis, v: 3}})
	require.NoError(t, a.Maintain(true))
	sealAll(t, a, false)
	rollAll(t, a, days, -1)
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule(`job=job0`, 2, -1, -1)}}))
	for _, d := range daysOf(0, 1, 2, 3) {
		_, err := a.Trim(context.Background(), d, nil)
		require.NoError(t, err)
	}
	require.Contains(t, bucketsOf(t, a), midnightBucket(midnight))
	return a, dir, midnight
}

func midnightBucket(midnight int64) string {
	return seriesLabels(12).String() + fmt.Sprintf(" 300000 %d: 1 1 1", midnight)
}

// TestRollKeepsMidnight shows that a day which is rolled up anew keeps the bucket that a series has there alone, because of a sample
// at midnight that expired.
func TestRollKeepsMidnight(t *testing.T) {
	a, dir, midnight := midnightArchive(t)
	before := bucketsOf(t, a)
	d, ok := deleteSeries(t, a, `{i="12"}`, midnight+3600_000, midnight+2*3600_000)
	require.True(t, ok)
	_, err := a.Undelete(d.ID)
	require.NoError(t, err)
	rollAll(t, a, 6, -1)
	requireSame(t, before, bucketsOf(t, a), "buckets")
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestDeleteMidnight shows that a delete of a sample at midnight removes its bucket, which is of the day before, when the
// samples have expired.
func TestDeleteMidnight(t *testing.T) {
	a, dir, midnight := midnightArchive(t)
	d, ok := deleteSeries(t, a, `{i="12"}`, midnight, midnight)
	require.True(t, ok)
	require.NotContains(t, bucketsOf(t, a), midnightBucket(midnight))
	_, err := a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
	require.NoError(t, err)
	require.NotContains(t, bucketsOf(t, a), midnightBucket(midnight))
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestExpiryOfSamplesInMemory shows that samples which are in memory alone keep their day from expiring until they are in
// its buckets, whether by a rule for some series or for all.
func TestExpiryOfSamplesInMemory(t *testing.T) {
	const days, day = 6, 1
	for name, expire := range map[string]func(a *archive.Archive) error{
		"trim": func(a *archive.Archive) error {
			_, err := a.Trim(context.Background(), daysOf(day)[0], nil)
			return err
		},
		"expire": func(a *archive.Archive) error {
			floors := daysOf(day + 1)
			for range 2 {
				floors = append(floors, format.MinDay)
			}
			_, err := a.Expire(context.Background(), floors)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := keptOptions(days)
			dir := testkit.MemoryDir(t)
			a, _ := keptArchive(t, dir, days, o)
			at := day0 + day*dayMillis + 100_000
			write(t, a, []point{{series: 0, t: at, v: 7}})
			require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule(`job=job0`, 2, -1, -1)}}))
			require.ErrorIs(t, expire(a), archive.ErrKept)
			sealAll(t, a, false)
			rollAll(t, a, days, -1)
			require.NoError(t, expire(a))
			// The bucket has the first sample of the day, a millisecond after midnight, as well.
			require.Contains(t, bucketsOf(t, a), seriesLabels(0).String()+fmt.Sprintf(" 300000 %d: 2 ", at+200_000))
			require.NoError(t, a.Close())
			testkit.Check(t, dir)
		})
	}
}

// TestTrimWaitsForDayBefore shows that the samples of a day stay as long as the day before isn't rolled up, or is to be rolled up
// anew: the first millisecond belongs to its last bucket.
func TestTrimWaitsForDayBefore(t *testing.T) {
	const days = 6
	o, _ := keptOptions(days)
	dir := testkit.MemoryDir(t)
	a, _ := keptArchive(t, dir, days, o)
	d, ok := deleteSeries(t, a, `{i="0"}`, day0+dayMillis+3600_000, day0+dayMillis+2*3600_000)
	require.True(t, ok)
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule(`job=job0`, 2, -1, -1)}}))
	trim := func() error {
		_, err := a.Trim(context.Background(), daysOf(2)[0], nil)
		return err
	}
	require.ErrorIs(t, trim(), archive.ErrKept)
	_, err := a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
	require.NoError(t, err)
	require.ErrorIs(t, trim(), archive.ErrKept, "to be rolled up anew")
	rollAll(t, a, days, -1)
	require.NoError(t, trim())
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}
