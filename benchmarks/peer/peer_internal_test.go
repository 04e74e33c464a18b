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

// Shows which files count as fixed and which as index, by make.
func TestFileKinds(t *testing.T) {
	require.True(t, isFixed(Varve, "db/000012.log"))
	require.True(t, isFixed(Varve, "reserve"))
	require.True(t, isFixed(Varve, "db/MANIFEST-000005"))
	require.True(t, isFixed(Varve, "db/LOG.old.17"))
	require.False(t, isFixed(Varve, "db/000012.sst"))
	require.True(t, isFixed(Prometheus, "wal/00000001"))
	require.False(t, isFixed(Prometheus, "chunks_head/000001"))
	require.False(t, isFixed(VictoriaMetrics, "data/x.log"))
	require.True(t, isIndex(Prometheus, "01H/index"))
	require.False(t, isIndex(Prometheus, "01H/chunks/000001"))
	require.True(t, isIndex(VictoriaMetrics, "indexdb/1/2/index.bin"))
	require.False(t, isIndex(VictoriaMetrics, "data/small/2026_01/index.bin"))
}

// Shows that the families are read out of a survey, whatever their names hold, and
// that a text without them is refused.
func TestParseFamilies(t *testing.T) {
	families, err := parseFamilies(strings.NewReader("12 bytes on disk.\n\nFAMILY     BYTES  KEYS\n\"raw\"  10  2\n\"a\\tb\"  7  1\n\nMETRIC  BYTES  SERIES\n\"up\"  1  1\n"))
	require.NoError(t, err)
	require.Equal(t, map[string]family{"raw": {10, 2}, "a\tb": {7, 1}}, families)
	sums := sumFamilies(families)
	require.EqualValues(t, 7, sums.IndexBytes)
	require.False(t, sums.Logged)
	families["series"] = family{0, 9}
	require.True(t, sumFamilies(families).Logged)
	for _, text := range []string{"", "FAMILY\nraw 1 1\n", "FAMILY\n\"raw\" x 1\n", "FAMILY\n\"raw\" 1\n", "FAMILY\n\n"} {
		_, err := parseFamilies(strings.NewReader(text))
		require.ErrorContains(t, err, "families")
	}
}

// FuzzParseFamilies shows that any text is read or refused.
func FuzzParseFamilies(f *testing.F) {
	f.Add("FAMILY  BYTES  KEYS\n\"raw\"  10  2\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		families, err := parseFamilies(strings.NewReader(text))
		require.True(t, err != nil || len(families) > 0)
	})
}
