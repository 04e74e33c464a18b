package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/internal/gate/server"
)

// Shows that every query over the year is PromQL, that what it asks for is kept of the
// recordings, and that ranges are whole steps but for Grafana's.
func TestYearBoard(t *testing.T) {
	asked := map[string]bool{}
	for _, p := range yearBoard {
		for _, step := range p.stepSeconds {
			text := p.text(step)
			expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
			require.NoError(t, err, text)
			for _, matchers := range parser.ExtractSelectors(expression) {
				for _, m := range matchers {
					if m.Name == model.MetricNameLabel {
						require.True(t, yearMetrics[m.Value], "%s is not kept", m.Value)
						asked[m.Value] = true
					}
				}
			}
			parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
				if m, ok := node.(*parser.MatrixSelector); ok {
					require.Equal(t, p.grafana, m.Range%(time.Duration(step)*time.Second) != 0, text)
				}
				return nil
			})
		}
	}
	require.Equal(t, asked, yearMetrics)
}

// Shows how far two answers are said to be apart.
func TestWidestGap(t *testing.T) {
	one := func(values ...string) answer {
		s := answerSeries{name: "{}"}
		for i, v := range values {
			s.samples = append(s.samples, answerSample{int64(i), v})
		}
		return answer{[]answerSeries{s}}
	}
	for _, c := range []struct {
		got, want answer
		identical bool
		worst     float64
	}{
		{one("1", "NaN"), one("1", "NaN"), true, 0},
		{one("1", "8"), one("1", "10"), false, 0.2},
		{one("9", "8"), one("10", "10"), false, 0.2},
		{one("-0"), one("0"), false, -1},
		{one("NaN"), one("1"), false, -1},
		{one("1", "+Inf"), one("1", "2"), false, -1},
		{one("1"), one("1", "2"), false, -1},
		{one("1"), answer{}, false, -1},
	} {
		identical, worst, difference := widestGap(c.got, c.want)
		require.Equal(t, c.identical, identical)
		require.InDelta(t, c.worst, worst, 1e-15)
		require.Equal(t, c.identical, difference == "")
	}
}

// Shows that only varves that can be started are kept, with the right entries.
func TestVarvesOnly(t *testing.T) {
	b := &bench{
		specs:   []peer.Spec{{Name: "a", Kind: peer.Prometheus}, {Name: "b", Kind: peer.Varve}, {Name: "c", Kind: peer.Varve, Address: "x"}},
		entries: []result.Entry{{Run: "a"}, {Run: "b"}, {Run: "c"}},
	}
	require.NoError(t, b.varvesOnly())
	require.Equal(t, []peer.Spec{{Name: "b", Kind: peer.Varve}}, b.specs)
	require.Equal(t, []result.Entry{{Run: "b"}}, b.entries)
	require.ErrorContains(t, (&bench{}).varvesOnly(), "no varve")
}

// TestYear shows, with the real server, that days are sealed and rolled up on the way, that
// the dashboard is answered from rollups as from raw samples, and that all of it is on
// the page. It runs with the gates, as TestAgainstPeers does.
func TestYear(t *testing.T) {
	if os.Getenv(server.EnvBinary) == "" {
		t.Skipf("SKIPPED, the year is not tried against a real server: %s is not set, make gate sets it", server.EnvBinary)
	}
	// The servers end with the thread that started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	s := &settings{
		peers: "varve", varve: server.Binary(t, ""), directory: dir, results: filepath.Join(dir, "results.jsonl"),
		page: filepath.Join(dir, "page.md"), recordings: filepath.Join(dir, "recordings"), size: "quick", yearSeries: 40,
	}
	s.shrink()
	s.days, s.compactDays = 3, 2
	writeSession(t, s.recordings, 120)
	require.NoError(t, s.measure(t.Context(), []verb{{"year", year}}))
	require.NoError(t, renderPage(t.Context(), s))

	text, err := os.ReadFile(s.results)
	require.NoError(t, err)
	entries, err := result.Load(bytes.NewReader(text))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	y := entries[0].Year
	require.Equal(t, 3, y.Sealed.Days)
	require.Equal(t, y.Replay.Samples, y.Sealed.Samples)
	require.Equal(t, y.Replay.Samples, y.Rolled.Samples)
	require.Positive(t, result.RollupBytes(y.Families))
	answered := 0
	for _, q := range y.Queries {
		require.Empty(t, q.Auto.Error+q.Raw.Error, q.Query)
		require.GreaterOrEqual(t, q.WorstRelative, 0.0, "%s: %s", q.Query, q.Difference)
		require.Less(t, q.WorstRelative, 1e-12, "%s: %s", q.Query, q.Difference)
		require.Equal(t, "raw", q.Raw.Source)
		require.Len(t, q.Auto.WarmSeconds, s.passes)
		if q.Points == 0 {
			continue // Of a metric that these short recordings have not.
		}
		answered++
		require.Contains(t, q.Auto.Source, "1h", q.Query)
	}
	require.Equal(t, 8, answered)
}

// Shows that the wanted series come first and the others are spread.
func TestYearFleet(t *testing.T) {
	s := &settings{recordings: t.TempDir(), yearSeries: 24, days: 2, scrapesMin: 120}
	writeSession(t, s.recordings, 120)
	b := &bench{settings: s}
	e, err := b.openExporters(t.Context())
	require.NoError(t, err)
	f, err := b.yearFleet(e)
	require.NoError(t, err)
	require.Equal(t, 24, f.Series())
	require.Equal(t, 8, f.Targets())
	wanted := map[string]bool{}
	for target := range f.Targets() {
		require.Equal(t, 3, f.TargetSeries(target))
		for i := range 3 {
			wanted[f.Labels(target, i).Get(model.MetricNameLabel)] = true
		}
	}
	require.Equal(t, map[string]bool{"go_goroutines": true, "process_cpu_seconds_total": true, "process_resident_memory_bytes": true}, wanted)
	end := time.UnixMilli(f.Config().StartMillis + int64(f.Config().Rounds)*f.Config().StepMillis)
	require.Greater(t, time.Since(end), 24*time.Hour)
	require.Less(t, time.Since(end), 53*time.Hour)
}
