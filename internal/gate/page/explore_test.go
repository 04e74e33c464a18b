package page_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// explore is the place of queries with further parameters, name and value in turn.
func explore(queries []string, pairs ...string) string {
	v := url.Values{"q": queries}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return "#/explore?" + v.Encode()
}

const (
	cpuQuery = "sum by (mode) (rate(node_cpu_seconds_total[5m]))"
	// slowQuery is at work for minutes: each of many points evaluates a subquery of many.
	slowQuery = "sum(max_over_time(sin(node_cpu_seconds_total)[1d:1s]))"
)

// legend are the names of the series in the legend.
func (x *tab) legend() []string {
	x.t.Helper()
	return eval[[]string](x, `[...document.querySelectorAll('[data-testid=legend-row] .series-name')].map(e => e.textContent)`)
}

// TestExplore types a query, key by key, into the editor in its shadow root, and runs it: the graph is drawn and the legend has the series
// of the answer; another query draws something else; a drag zooms, which the address says; a press in the legend leaves one series.
func TestExplore(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open("#/explore")
	x.typeQuery(0, "node_load1")
	x.run()
	x.drawn("graph")
	load := x.pixels("graph")
	require.Len(t, x.legend(), 2)
	x.says("resolution-note", "exact")
	x.shown("query-stats")

	x.open(explore([]string{cpuQuery}, "from", "now-6h", "to", "now"))
	x.drawn("graph")
	x.answered()
	before := x.pixels("graph")
	require.NotEqual(t, load, before, "another query draws the same")
	require.Len(t, x.legend(), 8)
	x.drag(canvas("graph")+".parentElement.querySelector('.u-over')", 0.3, 0.6, 0.5)
	x.until("the address has the range", "location.hash.includes('from=20')")
	x.changed("graph", before)
	x.answered()
	x.drawn("graph")
	at, err := url.ParseQuery(strings.TrimPrefix(eval[string](x, "location.hash"), "#/explore?"))
	require.NoError(t, err)
	from, err1 := time.Parse(time.RFC3339, at.Get("from"))
	to, err2 := time.Parse(time.RFC3339, at.Get("to"))
	require.NoError(t, err1)
	require.NoError(t, err2)
	require.InDelta(t, 0.3*6*3600, to.Sub(from).Seconds(), 0.03*6*3600, "the part that was dragged over")

	all := x.ink("graph")
	x.clickOn("document.querySelector('[data-testid=legend-row] button')")
	x.until("the others are hidden", "document.querySelectorAll('[data-testid=legend-row].off').length === 7")
	x.until("one line is left", fmt.Sprintf("(n => n > 0 && n < %d)(%s(%s))", all*3/4, inkScript, canvas("graph")))

	// Back goes to the range before.
	eval[any](x, "history.back()")
	x.until("the address is the one before", "location.hash.includes('from=now-6h')")
	x.answered()
	x.drawn("graph")
}

// TestControls drives what stands above a graph: presets and fields of the range, back and forward, step and resolution, each seen in the
// address and in the question that the server is asked.
func TestControls(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open(explore([]string{"node_load1"}))
	x.drawn("graph")
	x.choose("range-select", eval[string](x, "[..."+element("range-select")+".options].find(o => /1 day/.test(o.text)).value"))
	x.until("the range is a day", "location.hash.includes('from=now-1d')")
	x.answered()
	x.fill("range-start", "now-12h")
	x.until("the range is what was written", "location.hash.includes('from=now-12h')")
	x.answered()
	x.click("range-back")
	x.until("the range is absolute", "location.hash.includes('from=20')")
	x.answered()
	x.click("range-forward")
	x.answered()
	x.fill("step-input", "10m")
	x.until("the step is in the address", "location.hash.includes('step=10m')")
	x.answered()
	// Of a day that is rolled up.
	x.open(explore([]string{"sum_over_time(node_load1[10m])"}, "from", w.from.Format(time.RFC3339), "to", w.from.AddDate(0, 0, 1).Format(time.RFC3339), "step", "10m", "res", "raw"))
	x.drawn("graph")
	x.says("resolution-note", "raw samples: exact")
	x.choose("resolution-select", "5m")
	x.until("the resolution is in the address", "location.hash.includes('res=5m')")
	x.answered()
	x.drawn("graph")
	x.says("resolution-note", "5m")
	x.fill("range-start", "yesterday-ish")
	x.until("the field says what is wrong", "document.querySelector('[aria-invalid=true]') && document.body.innerText.includes('is not a time')")
}

// TestCancel cancels a query that would take minutes: the page is free again at once, and the server has ended it.
func TestCancel(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open(explore([]string{slowQuery}, "from", "now-2d", "to", "now"))
	becomes(t, w.archive, "the query runs", "status/queries", nil, func(q []runningQuery) bool { return running(q, slowQuery) != "" })
	x.click("query-cancel")
	x.absent("query-cancel")
	becomes(t, w.archive, "the query has ended", "status/queries", nil, func(q []runningQuery) bool { return running(q, slowQuery) == "" })
	x.until("it says so", "document.body.innerText.includes('ancelled')")
}

// runningQuery is of status/queries.
type runningQuery struct{ ID, Query string }

// running is the id of the query among those that run, empty if it isn't.
func running(all []runningQuery, query string) string {
	for _, q := range all {
		if q.Query == query {
			return q.ID
		}
	}
	return ""
}

// sample is of an instant vector.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

type vector struct{ Result []sample }

// TestTable holds the table against the API, value by value as text, at a time that both are asked for.
func TestTable(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	at := w.to.Add(-time.Hour)
	query := "node_memory_MemAvailable_bytes / 1024"
	x.open(explore([]string{query}, "tab", "table", "at", at.Format(time.RFC3339)))
	x.shown("result-table")
	x.answered()
	want := get[vector](t, w.archive, "query", url.Values{"query": {query}, "time": {at.Format(time.RFC3339)}})
	require.Len(t, want.Result, 2)
	rows := eval[[][]string](x, "[..."+element("result-table")+".querySelectorAll('tbody tr')].map(r => [r.cells[0].innerText, r.cells[r.cells.length - 1].innerText])")
	require.Len(t, rows, 2)
	for i, s := range want.Result {
		require.Contains(t, rows[i][0], s.Metric["instance"])
		require.Equal(t, s.Value[1], rows[i][1])
	}
	x.click("tab-graph")
	x.drawn("graph")
	x.click("tab-table")
	x.shown("result-table")
}

// TestModes draws lines, a stack, and heatmaps of classic and native histograms: each is another picture.
func TestModes(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open(explore([]string{cpuQuery}, "from", "now-3h", "to", "now"))
	x.drawn("graph")
	lines, ink := x.pixels("graph"), x.ink("graph")
	x.choose("graph-mode", "stacked")
	x.until("the stack has more colour than lines", fmt.Sprintf("%s(%s) > %d", inkScript, canvas("graph"), 4*ink))
	require.NotEqual(t, lines, x.pixels("graph"))
	x.photograph("explore-stacked")
	for name, query := range map[string]string{
		"classic": "sum by (le) (rate(http_request_duration_seconds_bucket[5m]))", "native": "sum(rate(rpc_latency_seconds[5m]))",
	} {
		x.open(explore([]string{query}, "from", "now-3h", "to", "now", "mode", "heatmap"))
		x.until("the heatmap is drawn", fmt.Sprintf("%s(%s) > 5000", inkScript, canvas("graph")))
		x.photograph("explore-heatmap-" + name)
	}
}

// TestSeveralQueries adds a query to another: both are drawn, with names of both in the legend; removing one leaves the other.
func TestSeveralQueries(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open(explore([]string{"node_load1"}, "from", "now-3h", "to", "now"))
	x.drawn("graph")
	x.click("query-add")
	x.typeQuery(1, "node_memory_MemTotal_bytes")
	x.run()
	x.until("both are drawn", "document.querySelectorAll('[data-testid=legend-row]').length === 4")
	require.Contains(t, strings.Join(x.legend(), " "), "node_load1")
	require.Contains(t, strings.Join(x.legend(), " "), "node_memory_MemTotal_bytes")
	x.click("query-remove-0")
	x.until("one is left", "document.querySelectorAll('[data-testid=legend-row]').length === 2")
	require.NotContains(t, strings.Join(x.legend(), " "), "node_load1")
}

// TestErrors shows what is wrong with a query under its editor, in the parser's words, and that the next good one goes.
func TestErrors(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.allow(fmt.Sprintf("status of %d", http.StatusBadRequest))
	x.open("#/explore")
	x.typeQuery(0, "node_load1 + ")
	x.run()
	x.says("query-error", "unexpected end of input")
	x.photograph("explore-error")
	x.typeQuery(0, "node_load1")
	x.run()
	x.drawn("graph")
	x.absent("query-error")
}

// TestShare copies the link and opens it in a browser that knows nothing: the same graph.
func TestShare(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open(explore([]string{cpuQuery, "node_load1"}, "from", "now-6h", "to", "now-1h", "mode", "stacked"))
	x.drawn("graph")
	x.answered()
	want, legend := x.pixels("graph"), x.legend()
	x.told("Link copied", func() { x.click("share-link") })
	link := eval[string](x, "navigator.clipboard.readText()")
	require.True(t, strings.HasPrefix(link, w.archive.URL("/")), link)
	require.NotContains(t, link, "now")
	y := newTab(t, w.archive.URL(""))
	y.open(strings.TrimPrefix(link, w.archive.URL("/")))
	y.drawn("graph")
	y.answered()
	require.Equal(t, legend, y.legend())
	require.NoError(t, poll(y.ctx, func() bool { return y.pixels("graph") == want }), "the graph is another one")
}

// TestTheme chooses dark and light by the button: the page and what is drawn on canvases change, and a reload keeps it.
func TestTheme(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open(explore([]string{"node_load1"}, "from", w.to.Add(-time.Hour).Format(time.RFC3339), "to", w.to.Format(time.RFC3339)))
	x.drawn("graph")
	background := "getComputedStyle(document.body).backgroundColor"
	light, picture := eval[string](x, background), x.pixels("graph")
	for eval[string](x, "document.documentElement.dataset.theme || ''") != "dark" {
		x.click("theme-toggle")
	}
	x.changed("graph", picture)
	x.until("the page is dark", background+" !== "+js(light))
	for eval[string](x, "document.documentElement.dataset.theme || ''") != "light" {
		x.click("theme-toggle")
	}
	x.until("the page is light", background+" === "+js(light))
	require.NoError(t, poll(x.ctx, func() bool { return x.pixels("graph") == picture }), "the graph is light again")
	for eval[string](x, "document.documentElement.dataset.theme || ''") != "dark" {
		x.click("theme-toggle")
	}
	dark := eval[string](x, background)
	x.open("#/archive")
	x.shown("archive-facts")
	x.until("a reload keeps the theme", background+" === "+js(dark))
}
