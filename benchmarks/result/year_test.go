package result_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/result"
)

// Shows a year's bytes and rates, ratios of times, what is said of answers that differ or
// failed, and that the summary is of aligned and answered queries alone.
func TestPageYear(t *testing.T) {
	times := func(seconds float64, source string) result.YearTimes {
		return result.YearTimes{ColdSeconds: []float64{2 * seconds}, WarmSeconds: []float64{9, seconds, 0.001}, WarmCPU: []float64{seconds}, Source: source}
	}
	e := entry("2", "year", "varve", "varve")
	e.Year = &result.Year{
		Days: 3, Replay: result.Replay{Targets: 8, Series: 500, Samples: 10 << 20, SpanSeconds: 3 * 86400, Repeated: 0.5}, FillSeconds: 7,
		Sealed: result.Compaction{Days: 3, Samples: 20e6, Seconds: 4}, Rolled: result.Compaction{Days: 3, Samples: 20e6, Seconds: 2, Buckets: 1 << 20},
		Families: map[string]int64{"raw": 9 << 20, "clocks": 1 << 20, "rollups": 2 << 20}, PeakBytes: 300 << 20, QueriesPeakBytes: 200 << 20,
		Queries: []result.YearQuery{
			{Query: "good", SpanS: 3 * 86400, StepS: 3600, Aligned: true, Points: 72, Auto: times(0.01, "1h"), Raw: times(0.4, "raw"), Identical: true},
			{Query: "near", SpanS: 3 * 86400, StepS: 3600, Aligned: true, Points: 72, Auto: times(0.02, "1h"), Raw: times(0.2, "raw"), WorstRelative: 2e-16, Difference: "tiny"},
			{Query: "wrong", SpanS: 3 * 86400, StepS: 3600, Aligned: true, Auto: times(0.01, "5m"), Raw: times(0.4, "raw"), WorstRelative: -1, Difference: "1 series instead of 2"},
			{Query: "failed", SpanS: 3 * 86400, StepS: 3600, Aligned: true, Auto: times(0.01, "1h"), Raw: result.YearTimes{Error: "too many"}},
			{Query: "grafana", SpanS: 3 * 86400, StepS: 3600, Points: 72, Auto: times(0.1, "raw,1h"), Raw: times(0.2, "raw"), Identical: true},
		},
	}
	other := entry("2", "year", "broken", "varve")
	page := result.Page([]result.Entry{e, other})
	require.Contains(t, page, "| varve | 5.00 | 10.0 | 1048576 | 10 | 1.00 | 2 | 0.200 | 2.00 | 20.0 % | 300 | 200 |")
	require.Contains(t, page, "50 % of the steps repeat")
	require.Contains(t, page, "| `good` | 3d / 3600s | 72 | 10.0 (20.0) | 10.0 | 1h | 400 (800) | 400 | 40.0 | 40.0 | 40.0 | = |")
	require.Contains(t, page, "| 10.0 | 10.0 | 10.0 | 2.0e-16 |")
	require.Contains(t, page, "| **1 series instead of 2** |")
	require.Contains(t, page, "| error | - | - | - | - | too many |")
	require.Contains(t, page, "smallest 10.0 warm. 2 of 3 queries reach 20. The slowest answer of auto took 20.0 ms")
	require.Contains(t, page, "| `grafana` | 3d / 3600s | 72 | 100 (200) | 100 | raw,1h | 200 (400) | 200 | 2.00 | 2.00 | 2.00 | = |")
}
