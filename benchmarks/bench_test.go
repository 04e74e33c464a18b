package main

import (
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"varve/benchmarks/dataset"
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

// Shows that read-back samples count as exact by series, time and bits, and that
// those which are missing count as compared.
func TestCountExact(t *testing.T) {
	sent := map[string]map[int64]uint64{`{a="1"}`: {1000: 0x3ff0000000000000, 2000: 0x8000000000000000, 3000: 0x4000000000000000}}
	got, err := parseAnswer([]byte(`{"status":"success","data":{"result":[{"metric":{"a":"1"},"values":[[1,"1"],[2,"0"]]},{"metric":{"a":"9"},"values":[[3,"2"]]}]}}`))
	require.NoError(t, err)
	exact, compared := countExact(got, sent)
	require.EqualValues(t, 1, exact)
	require.EqualValues(t, 3, compared)
}

// Shows that the history joins its two parts: every series begins where it is
// said to, and the counts agree.
func TestHistory(t *testing.T) {
	b := &bench{settings: &settings{hostsLong: 1, hostsShort: 2, roundsLong: 10, roundsShort: 4, start: "2026-01-02T00:00:00Z"}}
	h, err := b.newHistory()
	require.NoError(t, err)
	samples := 0
	for _, lanes := range [][][]dataset.Frame{h.before, h.together} {
		for _, lane := range lanes {
			for _, frame := range lane {
				samples += frame.Samples
			}
		}
	}
	require.EqualValues(t, h.samples, samples)
	require.EqualValues(t, 1000*10+2000*4, samples)
	require.Equal(t, 0, h.firstRound(999))
	require.Equal(t, 6, h.firstRound(1000))
	sent := h.sentBy(2)
	require.Len(t, sent, 2)
	for _, series := range sent {
		for _, values := range series {
			require.Len(t, values, 4)
			for at := range values {
				require.GreaterOrEqual(t, at, h.shortestStart)
				require.Less(t, at, h.endMillis)
			}
		}
	}
}
