package archive_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/internal/testkit"
)

// TestHiddenSince shows that a series tells of samples which a rule hides before they are in buckets, also if they are late
// samples of a day that was rolled up.
func TestHiddenSince(t *testing.T) {
	const days = 6
	o, _ := keptOptions(days)
	dir := testkit.MemoryDir(t)
	a, _ := keptArchive(t, dir, days, o)
	hidden := func() map[string]int64 {
		q, err := a.Querier(math.MinInt64, math.MaxInt64)
		require.NoError(t, err)
		defer q.Close()
		set := q.(archived).SelectArchived(context.Background(), math.MinInt64, math.MaxInt64, matcher(`__name__=~.+`))
		out := map[string]int64{}
		for set.Next() {
			since, err := set.At().HiddenSince()
			require.NoError(t, err)
			if since != math.MaxInt64 {
				out[set.At().Labels().Get("i")] = since
			}
		}
		require.NoError(t, set.Err())
		return out
	}
	// Late samples of one series, of two days ago and of a day that will be hidden.
	late := []point{{4, day0 + 1*dayMillis + 6*3600_000 + 5000, 1}, {4, day0 + 4*dayMillis + 6*3600_000 + 5000, 1}}
	write(t, a, late)
	require.NoError(t, a.Maintain(true))
	require.Empty(t, hidden(), "nothing is hidden")
	require.NoError(t, a.SetRetention(archive.Retention{Rules: []archive.RetentionRule{keptRule("", 3, 5, -1)}}))
	require.Equal(t, map[string]int64{"4": day0 + 1*dayMillis}, hidden())
	sealAll(t, a, false)
	require.Equal(t, map[string]int64{"4": day0 + 1*dayMillis}, hidden(), "they are sealed, and dirty")
	rollAll(t, a, days, -1)
	require.Empty(t, hidden())
}
