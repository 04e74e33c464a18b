package result_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/result"
)

// Shows what an output adds to the CPU of ingestion at the same rate, ratios of catching up, and the median change of turns
// with dead outputs.
func TestPageForward(t *testing.T) {
	e := entry("3", "forward", "varve", "varve")
	e.Forward = &result.Forward{
		Sustained: []result.Forwarding{
			{OfferedPerSecond: 300_000, Repetition: 1, Samples: 18e6, Seconds: 60, CPU: 0.5, P50Millis: 1, P99Millis: 4, RSSBytes: 100 << 20},
			{OfferedPerSecond: 300_000, Repetition: 1, Protocol: 2, Shards: 4, Samples: 18e6, Seconds: 60, SentDuring: 15e6, Sent: 18e6 + 20, DrainSeconds: 3,
				LagSeconds: 2.5, CPU: 0.75, GeneratorCPU: 0.1, BodyBytes: 20},
			{Repetition: 1, Samples: 20e6, Seconds: 10, CPU: 0.4},
		},
		CatchUp: []result.CatchUp{
			{Source: "none", Repetition: 1, IngestedPerSecond: 100e3, DownSeconds: 120, Memory: []int64{90 << 20, 95 << 20}, PeakBytes: 99 << 20},
			{Source: "gaps", Repetition: 1, IngestedPerSecond: 100e3, DownSeconds: 120, Backlog: 12e6, GapDays: 2, WaitSeconds: 0.5, CatchUpSeconds: 25, Sent: 12.5e6,
				Ingested: 13e6, Received: 13e6 + 7, Memory: []int64{100 << 20, 101 << 20}, PeakBytes: 200 << 20, P99Millis: 5},
		},
	}
	for turn, rate := range []float64{1.0, 0.9, 0.97} {
		for _, outputs := range []int{0, 5} {
			d := result.DeadOutputs{Outputs: outputs, Turn: turn + 1, OfferedPerSecond: 200_000, Samples: 2e6, Seconds: 10, P99Millis: 4}
			if outputs > 0 {
				d.Samples, d.Attempts = int64(2e6*rate), 30
			}
			e.Forward.Dead = append(e.Forward.Dead, d)
		}
	}
	page := result.Page([]result.Entry{e, entry("3", "forward", "broken", "varve")})
	require.Contains(t, page, "| 300 | no output | 300 | - | - | - | - | 0.500 | - |")
	require.Contains(t, page, "| 300 | 2.0, 4 shards | 300 | 250 | 2.50 | 3.00 | 20.0 | 0.750 | 0.250 | 0.100 |")
	require.Contains(t, page, "| all | no output | 2000 |")
	require.Contains(t, page, "| none | 1 | 100 | 120 | - | - | - | - | - | - | - | 90 to 95 | 99 |")
	require.Contains(t, page, "| gaps | 1 | 100 | 120 | 12.0 | 2 | 0.500 | 25.0 | 500 | 5.00 | 7 | 100 to 101 | 200 | 5.00 |")
	require.Contains(t, page, "| 200 | change | -3.0 % | - | +0.0 % |")
	require.NotContains(t, page, "broken with")
}

// Shows that work is compared with the stretch before it, of the same server.
func TestPagePass(t *testing.T) {
	e := entry("4", "pass", "varve", "varve")
	e.Pass = &result.Pass{Days: 3, OfferedPerSecond: 100_000, Stretches: []result.PassWrite{
		{Server: 1, Seconds: 10, SamplesPerSecond: 100e3, P50Millis: 1, P99Millis: 4, Requests: 2000, CPUSeconds: 5},
		{Server: 1, Seconds: 10, SamplesPerSecond: 99e3, Work: "run: seal", WorkSeconds: 12, P50Millis: 1.5, P90Millis: 2, P99Millis: 6, MaxMillis: 9, Requests: 1900, CPUSeconds: 15, SyncP99: 0.5},
		{Server: 2, Seconds: 10, Work: "background: seal", P50Millis: 1, P99Millis: 4},
	}}
	page := result.Page([]result.Entry{e, entry("4", "pass", "broken", "varve")})
	require.Contains(t, page, "3 days were written beforehand.")
	require.Contains(t, page, "| 1 | run: seal | 12.0 | 99.0 | 1900 | 1.50 | 1.50 | 2.00 | 6.00 | 1.50 | 9.00 | 1.50 | 0.500 |")
	require.Contains(t, page, "| 2 | background: seal | 0 | 0 | 0 | 1.00 | - |")
}
