package page_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
)

// hasRows waits until a table has so many rows at least.
func (x *tab) hasRows(id string, least string) {
	x.t.Helper()
	x.until(id+" has rows", "(e => e && e.querySelectorAll('tbody tr').length >= "+least+")("+element(id)+")")
}

// TestArchive holds the facts against the API, and shows that every part of the view has something of the data: bytes, resolutions,
// metrics, days, retention, integrity.
func TestArchive(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open("#/archive")
	x.shown("archive-facts")
	status := get[struct {
		Series      int64
		Resolutions []struct{ Resolution string }
		Families    []struct{ Name string }
	}](t, w.archive, "status/archive", nil)
	require.GreaterOrEqual(t, status.Series, int64(len(w.series)))
	require.Len(t, status.Resolutions, 3)
	x.hasRows("resolutions-table", "3")
	for _, r := range []string{"raw", "5m", "1h"} {
		x.says("resolutions-table", r)
	}
	x.hasRows("metrics-table", "5")
	x.says("metrics-table", "node_cpu_seconds_total")
	x.shown("days-table")
	x.shown("integrity")
	x.hasRows("retention-table", "1")
	x.says("retention-table", "web")
	x.drawn("bps-chart")
}

// cardinality is of status/cardinality with a label.
type cardinality struct {
	Series int64
	Values []struct {
		Value         string
		Series, Bytes int64
	}
}

// TestCardinality drills down: from all labels to the values of one, into one of these, and to another label of its series; each level has
// the numbers of the API, and a value leads to Explore.
func TestCardinality(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open("#/archive")
	x.hasRows("cardinality-table", "3")
	x.choose("cardinality-label", "__name__")
	x.says("cardinality-table", "node_cpu_seconds_total")
	want := get[cardinality](t, w.archive, "status/cardinality", url.Values{"label": {"__name__"}, "match[]": {`{job="node"}`}, "sort": {"series"}, "limit": {"100"}})
	require.Equal(t, "node_cpu_seconds_total", want.Values[0].Value)
	require.EqualValues(t, 64, want.Values[0].Series)
	row := `[...` + element("cardinality-table") + `.querySelectorAll('tbody tr')].find(r => r.innerText.includes('node_cpu_seconds_total'))`
	x.until("the row has its number", "("+row+").innerText.includes('64')")
	x.clickOn("(" + row + ").querySelector('button.link')")
	x.until("the selector is taken", "location.hash.includes('node_cpu')")
	x.choose("cardinality-label", "mode")
	x.says("cardinality-table", "iowait")
	x.until("each mode has its part", "["+element("cardinality-table")+"].every(t => [...t.querySelectorAll('tbody tr')].length === 8)")
	x.photograph("archive-cardinality")
	x.clickOn(element("cardinality-table") + ".querySelector('tbody tr a')")
	x.drawn("graph")
	x.until("it is explored", "location.hash.startsWith('#/explore') && location.hash.includes('node_cpu_seconds_total')")
}

// output is of status/outputs.
type output struct {
	Name, State string
	Lag         struct{ Samples, Seconds float64 }
	Totals      struct{ Sent int64 }
}

func outputOf(all []output, name string) output {
	for _, o := range all {
		if o.Name == name {
			return o
		}
	}
	return output{}
}

// TestOutputs pauses an output, resumes and rewinds it by the buttons: the API says so each time, and the target gets nothing, the rest,
// and everything again.
func TestOutputs(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open("#/pipeline")
	x.hasRows("outputs-table", "2")
	state := func(name, what string, good func(o output) bool) output {
		return outputOf(becomes(t, w.archive, name+" "+what, "status/outputs", nil, func(all []output) bool { return good(outputOf(all, name)) }), name)
	}
	// All that it will send for now is sent: a batch that is on its way when it is paused would still arrive.
	state("central", "has caught up", func(o output) bool { return o.State == "running" && o.Lag.Samples < 1000 && o.Totals.Sent >= w.sent })
	require.GreaterOrEqual(t, w.target.samples.Load(), w.sent)

	x.confirm("output-pause-central")
	state("central", "is paused", func(o output) bool { return o.State == "paused" })
	x.shown("output-resume-central")
	quiet := w.target.samples.Load()
	w.more(t, 500)
	state("central", "has what waits", func(o output) bool { return o.Lag.Samples >= 500 })
	require.Equal(t, quiet, w.target.samples.Load(), "a paused output sends nothing")
	x.photograph("pipeline-paused")

	x.confirm("output-resume-central")
	state("central", "has sent it", func(o output) bool { return o.State == "running" && o.Lag.Samples < 500 })
	x.shown("output-pause-central")
	require.NoError(t, poll(t.Context(), func() bool { return w.target.samples.Load() >= quiet+500 }))

	before := state("central", "is there", func(o output) bool { return o.Name != "" })
	x.click("output-rewind-central")
	x.shown("rewind")
	x.clickOn(element("rewind-to-beginning"))
	x.photograph("pipeline-rewind")
	x.click("rewind-confirm")
	x.absent("rewind")
	state("central", "has sent all again", func(o output) bool { return o.Totals.Sent >= before.Totals.Sent+w.sent })
	require.Nil(t, w.target.fault.Load())

	// What is away is said to be, with the reason.
	x.until("the other one waits", "["+element("outputs-table")+"].some(e => [...e.querySelectorAll('tr')].some(r => r.innerText.includes('away') && r.innerText.includes('retrying')))")
}

// more writes so many samples of a series of its own, of now.
func (s *shared) more(t *testing.T, n int) {
	t.Helper()
	m := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: named("more_samples", "job", "web")}}}
	now := time.Now().UnixMilli()
	for i := range n {
		m.Timeseries[0].Samples = append(m.Timeseries[0].Samples, prompb.Sample{Timestamp: now - int64(n-i), Value: float64(i)})
	}
	body, err := m.Marshal()
	require.NoError(t, err)
	require.NoError(t, post(s.archive, packed(body)))
}

// TestEndQuery ends a running query of somebody else by its button: its client gets an error, and the list is empty.
func TestEndQuery(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan string, 1)
	go func() {
		form := url.Values{"query": {slowQuery}, "start": {w.from.Format(time.RFC3339)}, "end": {w.to.Format(time.RFC3339)}, "step": {"60"}}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.archive.URL("/api/v1/query_range"), strings.NewReader(form.Encode()))
		if err != nil {
			ended <- err.Error()
			return
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			ended <- err.Error()
			return
		}
		defer answer.Body.Close()
		var said struct{ Status, ErrorType, Error string }
		err = json.NewDecoder(answer.Body).Decode(&said)
		ended <- strings.Join([]string{said.Status, said.ErrorType, said.Error}, " ")
		_ = err
	}()
	id := ""
	becomes(t, w.archive, "the query runs", "status/queries", nil, func(q []runningQuery) bool { id = running(q, slowQuery); return id != "" })
	x.open("#/pipeline")
	x.shown("query-end-" + id)
	x.photograph("pipeline-query")
	x.confirm("query-end-" + id)
	select {
	case said := <-ended:
		require.Contains(t, said, "error")
		t.Logf("its client got: %s", said)
	case <-time.After(patience):
		t.Fatal("the client of the query never got an answer")
	}
	x.absent("query-end-" + id)
}

// TestSnapshot makes a snapshot by the button: it is in the bucket, in the API and in the table.
func TestSnapshot(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open("#/pipeline")
	x.shown("snapshots")
	x.confirm("snapshot-create")
	type snapshot struct{ ID string }
	found := becomes(t, w.archive, "there is a snapshot", "admin/snapshots", nil, func(all []snapshot) bool { return len(all) > 0 })
	x.says("snapshots", found[0].ID)
	entries, err := os.ReadDir(filepath.Join(w.dir, "bucket"))
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	x.photograph("pipeline-snapshot")
}

// TestCompactor runs the compactor by its button.
func TestCompactor(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open("#/pipeline")
	x.shown("compactor")
	x.hasRows("compactor-days", "1")
	x.confirm("compactor-run")
	x.shown("compactor-outcome")
}

// TestConfiguration shows the configuration, the build and the flags, and no secret: neither in the page nor in any answer that it got.
func TestConfiguration(t *testing.T) {
	w := theWorld(t)
	x := newTab(t, w.archive.URL(""))
	x.open("#/configuration")
	x.shown("config-yaml")
	x.says("config-yaml", "objstore_config_file")
	x.says("config-yaml", "central")
	x.hasRows("build-table", "1")
	x.hasRows("runtime-table", "1")
	x.hasRows("flags-table", "3")
	x.shown("docs-links")
	all := eval[string](x, "document.documentElement.outerHTML")
	for _, secret := range []string{secretPassword, secretToken} {
		require.NotContains(t, all, secret)
	}
	for _, r := range x.made() {
		if !strings.Contains(r.url, "/api/v1/") {
			continue
		}
		body := eval[string](x, "fetch("+js(r.url)+").then(r => r.text())")
		for _, secret := range []string{secretPassword, secretToken} {
			require.NotContains(t, body, secret, r.url)
		}
	}
	require.Contains(t, x.text("config-yaml"), "<secret>")
}
