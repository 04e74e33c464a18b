package peer

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Shows that processor time is read behind a program name of any characters.
func TestCPUSeconds(t *testing.T) {
	stat := "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 9 0 100 1 2"
	seconds, err := cpuSeconds(stat)
	require.NoError(t, err)
	require.InDelta(t, 2.0, seconds, 1e-9)
	_, err = cpuSeconds("42 (a) S 1")
	require.ErrorContains(t, err, "fields")
}

// Shows that metrics are summed over their labels, whatever these contain.
func TestSumMetrics(t *testing.T) {
	text := "# HELP a b\na{x=\"1 {}\"} 2\na{x=\"2\"} 3.5 1700000000000\nb 7\nc NaN\n\n"
	sums, err := sumMetrics(strings.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"a": 5.5, `a{x="1 {}"}`: 2, `a{x="2"}`: 3.5, "b": 7}, sums)
}

// Shows which files count as logs, by make.
func TestIsLog(t *testing.T) {
	require.True(t, isLog(Varve, "db/000012.log"))
	require.True(t, isLog(Varve, "reserve"))
	require.False(t, isLog(Varve, "db/000012.sst"))
	require.True(t, isLog(Prometheus, "wal/00000001"))
	require.False(t, isLog(Prometheus, "chunks_head/000001"))
	require.False(t, isLog(VictoriaMetrics, "data/x.log"))
}
