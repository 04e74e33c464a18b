package result_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/result"
)

// Shows medians of the repetitions, ratios against the first row, bytes before and after, and that what a server lacks is told:
// values that are no number by that name, all else by counts.
func TestPageBlocks(t *testing.T) {
	made := result.MadeBlocks{Blocks: 3, Chunks: 70, Samples: 8e6, Stale: 10, NaN: 4, Bytes: 16e6, IndexBytes: 1 << 20}
	fast := result.BlockImport{Way: "data", Command: "varve import tsdb BLOCKS --data=DATA", Repetition: 1, Samples: 8e6, Seconds: 1, ClientCPU: 0.25, CPUSettled: 0.5,
		Disk: result.Disk{Bytes: 5e6, FixedBytes: 1e6}, Want: 8e6 - 10, Found: 8e6 - 10}
	faster, lossy, without := fast, fast, fast
	faster.Repetition, faster.Seconds = 2, 3
	faster.Remark = "not quiet within 10m"
	lossy.Way, lossy.Command, lossy.Seconds, lossy.ServerCPU, lossy.Found = "url", "varve import tsdb BLOCKS --url=URL", 4, 0.125, 7e6
	without.Way, without.Seconds, without.Found = "vmctl", 8, without.Want-4
	a, b := entry("5", "blocks", "varve", "varve"), entry("5", "blocks", "vm", "victoriametrics")
	a.Blocks = &result.Blocks{RangeS: 18 * 3600, Made: made, Imports: []result.BlockImport{fast, lossy, faster}}
	b.Blocks = &result.Blocks{RangeS: 18 * 3600, Made: made, Imports: []result.BlockImport{without}}
	page := result.Page([]result.Entry{a, b})
	require.Contains(t, page, "## Import of Prometheus' blocks")
	require.Contains(t, page, "They lie in 3 blocks of 18 h at most, written with upstream's own writers: 70 chunks of XOR, 15 MiB, of which 1 MiB are indexes: 2.000 B/sample.")
	require.Contains(t, page, "| varve | `varve import tsdb BLOCKS --data=DATA` | 5.33 | 1.00 | 2.00 | 0.250 | - | 0.500 |")
	require.Contains(t, page, "| 2.00 | 2.67 | 4.00 | 0.250 | 0.125 |")
	require.Contains(t, page, "| 0.500 | all |")
	require.Contains(t, page, "| 0.500 | 7000000 of 7999990 |")
	require.Contains(t, page, "| 0.500 | all but 4 NaN |")
	require.Contains(t, page, "data, repetition 2, did not settle: not quiet within 10m.")
	for line := range strings.Lines(page) {
		if strings.Contains(line, "`varve import") {
			require.Equal(t, 15, strings.Count(line, "|"), line)
		}
	}
}
