package result_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/result"
)

// Shows medians, ratios against the first server, rates of rows, and that a point where a server lacks samples has no figures.
func TestPageInputs(t *testing.T) {
	point := result.Input{Part: "influx", Shape: "devops", Format: "influx", Connections: 4, Rows: 100, SamplesPerRow: 10, Repetition: 1, Samples: 2e6, Seconds: 1, CPU: 0.5,
		P99Millis: 4, Sent: 3e6, Found: 3e6}
	a, b, c := entry("5", "inputs", "varve", "varve"), entry("5", "inputs", "vm", "victoriametrics"), entry("5", "inputs", "influxdb", "influxdb")
	fast, faster, slow, lossy, queue := point, point, point, point, point
	fast.Repetition, fast.Seconds = 2, 0.5
	faster.Gzip, faster.Seconds = true, 0.25
	slow.Seconds = 4
	lossy.Found--
	queue.Part, queue.Format, queue.Connections, queue.P99Millis = "nats", "prometheus", 0, 0
	a.Inputs = []result.Input{point, fast, faster, queue}
	b.Inputs = []result.Input{slow, slow}
	b.Inputs[1].Gzip, b.Inputs[1].Seconds = true, 0.5
	c.Inputs = []result.Input{lossy}
	page := result.Page([]result.Entry{a, b, c})
	require.Contains(t, page, "## Other ways in")
	require.Contains(t, page, "| devops, 100 rows x 4 | varve | 3000 | 300 | 1.00 | 0.500 |")
	require.Contains(t, page, "| devops, 100 rows x 4 | vm | 500 | 50.0 | 6.00 | 0.500 |")
	require.Contains(t, page, "| devops, 100 rows x 4, gzip | vm | 4000 | 400 | 2.00 |")
	require.Contains(t, page, "| devops, 100 rows x 4 | influxdb | invalid: has 2999999 of 3000000 | - |")
	require.Contains(t, page, "| devops, prometheus, 100 rows | varve | 2000 | 200 | 1.00 |")
	require.Contains(t, page, "varve takes in 3.46 times as much as vm (geometric mean), from 2.00 to 6.00.")
	require.NotContains(t, page, "as much as influxdb")
	require.NotContains(t, page, "### otlp")
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| devops") {
			require.Equal(t, 19, strings.Count(line, "|"), line)
		}
	}
}
