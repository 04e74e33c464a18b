package result_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/result"
)

// Shows that what is sent again is what was sent beyond the growth, and never negative.
func TestSentAgain(t *testing.T) {
	for _, c := range []struct{ before, after, sent, want int64 }{
		{100, 150, 60, 10}, // Of 60 that were sent 50 are new.
		{100, 150, 40, 0},  // Two files with the same content are sent once.
		{100, 30, 30, 30},  // There is less of it, thus all that was sent had been there.
		{0, 70, 70, 0},
	} {
		require.Equal(t, c.want, result.SentAgain(result.SnapshotFamily{Bytes: c.before}, result.SnapshotFamily{Bytes: c.after, SentBytes: c.sent}), c)
	}
}

// Shows families by group with what is sent again, rates without the time of sealing, medians of what is read back, and that
// stretches are compared with the one without snapshots at the same rate.
func TestPageSnapshots(t *testing.T) {
	e := entry("5", "snapshots", "varve", "varve")
	e.Snapshots = &result.Snapshots{
		Days: 7, HotHours: 8,
		Made: []result.SnapshotMade{
			{Name: "the first", Seconds: 5, TookSeconds: 4, Files: 9, SentFiles: 9, Bytes: 200e6, SentBytes: 200e6, Families: map[string]result.SnapshotFamily{
				"raw": {80e6, 80e6}, "clocks": {20e6, 20e6}, "index": {50e6, 50e6}, "hot": {40e6, 40e6}, "": {10e6, 10e6}}},
			{Name: "a day later", Seconds: 3, TookSeconds: 1, Bytes: 220e6, SentBytes: 90e6, Families: map[string]result.SnapshotFamily{
				"raw": {95e6, 20e6}, "clocks": {25e6, 5e6}, "index": {50e6, 10e6}, "hot": {40e6, 40e6}, "journal": {2e6, 2e6}, "": {10e6, 10e6}}},
		},
		Moves: []result.SnapshotMove{{Command: "varve snapshot verify ID", Bytes: 220e6, Seconds: 1}, {Command: "varve snapshot restore ID DIR", Bytes: 220e6, Seconds: 2},
			{Command: "varve snapshot restore ID DIR", Bytes: 220e6, Seconds: 6}},
		Want: 10, Found: 9,
		Stretches: []result.SnapshotWrite{
			{PassWrite: result.PassWrite{Server: 1, Seconds: 1, SamplesPerSecond: 1e5, P50Millis: 1, P99Millis: 4}, OfferedPerSecond: 100_000},
			{PassWrite: result.PassWrite{Server: 1, Seconds: 1, SamplesPerSecond: 1e5, P50Millis: 1.5, P99Millis: 7, Work: "all is sent"}, OfferedPerSecond: 100_000, Snapshots: 3, SentBytes: 600e6},
			{PassWrite: result.PassWrite{Server: 1, Seconds: 1, SamplesPerSecond: 2e6, P50Millis: 2, P99Millis: 9, Work: "all is sent"}, Snapshots: 1},
		},
	}
	page := result.Page([]result.Entry{e})
	require.Contains(t, page, "## Snapshots")
	require.Contains(t, page, "| the first | 4.00 | 1.00 | 0 | 9 | 200 | 9 | 200 | 0 | 50.0 |")
	require.Contains(t, page, "| sealed data: raw, clocks, rollups | 100 | 120 | 20.0 | 25.0 | 5.00 | 5.0 % | below 10 % |")
	require.Contains(t, page, "| 50.0 | 50.0 | 0 | 10.0 | 10.0 | 20.0 % | below 10 % |")
	require.Contains(t, page, "| journal | 0 | 2.00 | 2.00 | 2.00 | 0 | - |")
	require.Contains(t, page, "| the rest, and files that are no tables | 10.0 | 10.0 | 0 | 10.0 | 10.0 | 100.0 % |")
	require.Contains(t, page, "| `varve snapshot restore ID DIR` | 4.00 | 220 | 55.0 |")
	require.Contains(t, page, "answers with **9 of 10** of the samples")
	require.Contains(t, page, "| 100 | all is sent | 3 | 600 | 100 | 1.00 | 0 | 1.50 | 1.50 | 0 | 7.00 | 1.75 |")
	require.Contains(t, page, "| all | all is sent | 1 | - | 2000 | - |")
	for line := range strings.Lines(page) {
		if strings.Contains(line, "| all is sent |") {
			require.Equal(t, 16, strings.Count(line, "|"), line)
		}
	}
}
