package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"varve/benchmarks/dataset"
	"varve/benchmarks/recording"
	"varve/benchmarks/wire"
)

// Shows that every panel is PromQL and that its metrics are in the data.
func TestDashboard(t *testing.T) {
	d, err := dataset.New(dataset.Config{Series: dataset.HostSeries, StepMillis: 1, HostsPerCluster: 1})
	require.NoError(t, err)
	known := map[string]bool{}
	for i := range d.Len() {
		known[d.Label(i, "__name__")] = true
	}
	require.Len(t, dashboard, 10)
	for _, p := range dashboard {
		expression, err := parser.NewParser(parser.Options{}).ParseExpr(p.text())
		require.NoError(t, err, p.query)
		for _, matchers := range parser.ExtractSelectors(expression) {
			for _, m := range matchers {
				require.True(t, m.Name != "__name__" || known[m.Value], "%s is not in the data", m.Value)
			}
		}
	}
}

// Shows that answers are compared without regard to the order of series, to the
// last character of a value, and that the first difference is named.
func TestCompareAnswers(t *testing.T) {
	parse := func(text string) answer {
		a, err := parseAnswer([]byte(`{"status":"success","data":{"resultType":"matrix","result":[` + text + `]}}`))
		require.NoError(t, err)
		return a
	}
	want := parse(`{"metric":{"a":"1"},"values":[[10,"1"],[25.5,"NaN"]]},{"metric":{"a":"2"},"values":[[10,"0.3"]]}`)
	require.EqualValues(t, 3, want.points())
	for _, c := range []struct {
		text            string
		identical, near bool
		difference      string
	}{
		{`{"metric":{"a":"2"},"values":[[10,"0.3"]]},{"metric":{"a":"1"},"values":[[10,"1"],[25.5,"NaN"]]}`, true, true, ""},
		{`{"metric":{"a":"2"},"values":[[10,"0.30000000000000004"]]},{"metric":{"a":"1"},"values":[[10,"1"],[25.5,"NaN"]]}`, false, true, "0.30000000000000004 instead of 0.3"},
		{`{"metric":{"a":"2"},"values":[[10,"0.31"]]},{"metric":{"a":"1"},"values":[[10,"1"],[25.5,"NaN"]]}`, false, false, "0.31"},
		{`{"metric":{"a":"2"},"values":[[10,"0.3"]]},{"metric":{"a":"1"},"values":[[10,"1"],[25.501,"NaN"]]}`, false, false, "25501"},
		{`{"metric":{"a":"2"},"values":[[10,"0.3"]]},{"metric":{"a":"1"},"values":[[10,"1"]]}`, false, false, "1 points instead of 2"},
		{`{"metric":{"a":"2"},"values":[[10,"0.3"]]}`, false, false, "1 series instead of 2"},
		{`{"metric":{"a":"2"},"values":[[10,"0.3"]]},{"metric":{"b":"1"},"values":[[10,"1"],[25.5,"NaN"]]}`, false, false, `{a="2"} instead of {a="1"}`},
	} {
		identical, near, difference := compareAnswers(parse(c.text), want)
		require.Equal(t, c.identical, identical, c.text)
		require.Equal(t, c.near, near, c.text)
		require.Contains(t, difference, c.difference)
		require.Equal(t, c.identical, difference == "")
	}
	_, err := parseAnswer([]byte(`{"status":"error","error":"x"}`))
	require.ErrorContains(t, err, "error")
}

// Shows that the history joins its two parts: every series begins where it is
// said to, and the counts agree.
func TestHistory(t *testing.T) {
	b := &bench{settings: &settings{hostsLong: 1, hostsShort: 2, roundsLong: 10, roundsShort: 4, start: "2026-01-02T00:00:00Z"}}
	h, err := b.newHistory()
	require.NoError(t, err)
	samples := 0
	for _, lanes := range [][][]wire.Frame{h.before, h.together} {
		for _, lane := range lanes {
			for _, frame := range lane {
				samples += frame.Samples
			}
		}
	}
	require.EqualValues(t, h.samples, samples)
	require.EqualValues(t, 1000*10+2000*4, samples)
}

// Shows that every query over the recorded exporters is PromQL.
func TestFleetBoard(t *testing.T) {
	for _, p := range append([]panel{{query: countQuery}}, fleetBoard...) {
		_, err := parser.NewParser(parser.Options{}).ParseExpr(p.query)
		require.NoError(t, err, p.query)
	}
}

// Shows that data lie in whole days that were over some hours ago.
func TestStartOfData(t *testing.T) {
	for now, want := range map[string]string{
		"2026-03-05T13:00:00Z": "2026-03-04T00:00:00Z",
		"2026-03-05T03:59:00Z": "2026-03-03T00:00:00Z",
		"2026-03-05T04:00:00Z": "2026-03-04T00:00:00Z",
	} {
		at, err := time.Parse(time.RFC3339, now)
		require.NoError(t, err)
		require.Equal(t, want, startOfData(at, 24*roundsPerHour).Format(time.RFC3339), now)
		require.Equal(t, want, startOfData(at, 5).Format(time.RFC3339), now)
	}
	at := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	require.Equal(t, "2026-03-03T00:00:00Z", startOfData(at, 24*roundsPerHour+1).Format(time.RFC3339))
}

// Shows that the longest complete session is taken, the newest among equals.
func TestLongestSession(t *testing.T) {
	cache := t.TempDir()
	session, scrapes := longestSession(cache)
	require.Empty(t, session)
	require.Zero(t, scrapes)
	for _, s := range []struct {
		at       time.Time
		scrapes  int
		complete bool
	}{{time.Unix(100, 0), 60, true}, {time.Unix(200, 0), 60, true}, {time.Unix(300, 0), 9, true}, {time.Unix(400, 0), 6000, false}} {
		dir := filepath.Join(cache, sessionName(s.at, s.scrapes))
		require.NoError(t, os.Mkdir(dir, 0o700))
		for _, name := range recordedTargets {
			if s.complete {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name+recording.Extension), nil, 0o600))
			}
		}
	}
	session, scrapes = longestSession(cache)
	require.Equal(t, filepath.Join(cache, sessionName(time.Unix(200, 0), 60)), session)
	require.Equal(t, 60, scrapes)
}

// Shows how targets are counted and what is refused.
func TestParseTargets(t *testing.T) {
	counts, err := parseTargets([]string{"node=3", "varve=0"})
	require.NoError(t, err)
	require.Equal(t, map[string]int{"node": 3, "varve": 0}, counts)
	for _, text := range []string{"node", "node=x", "node=-1", "mysql=1"} {
		_, err := parseTargets([]string{text})
		require.ErrorContains(t, err, text)
	}
}

// Shows that lists of names and of label sets are read and sorted.
func TestParseEntries(t *testing.T) {
	entries, err := parseEntries([]byte(`{"status":"success","data":["b","a"]}`))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, entries)
	entries, err = parseEntries([]byte(`{"status":"success","data":[{"b":"2","a":"1"}]}`))
	require.NoError(t, err)
	require.Equal(t, []string{`{a="1",b="2"}`}, entries)
	for _, text := range []string{`{"status":"error"}`, `x`, `{"status":"success","data":[3]}`} {
		_, err := parseEntries([]byte(text))
		require.ErrorContains(t, err, "parse labels")
	}
}
