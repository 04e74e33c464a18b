package differential_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// envSeconds is how long the references scrape. A longer run finds more, such as
// what runs cut by age change.
const envSeconds = "DIFFERENTIAL_SECONDS"

const defaultSeconds = 40

func TestMain(m *testing.M) {
	code := m.Run()
	server.RemoveBinaries()
	os.Exit(code)
}

// TestPrometheus2 shows that Varve answers like Debian's Prometheus 2.42, which
// writes to it with 1.0, but for the differences between the engines that the file
// of queries names.
func TestPrometheus2(t *testing.T) {
	t.Parallel()
	binary := server.Prometheus2(t)
	base := startVarve(t)
	w := newWorld(t, binary, false, seconds(t), []sender{{name: "one", url: base + "/api/v1/write"}})
	w.compare("1.0", base, values, "")
}

// TestPrometheus3 shows that Varve answers to the letter like a Prometheus with the
// same engine, which writes to one with 1.0 and to another with 2.0.
func TestPrometheus3(t *testing.T) {
	t.Parallel()
	binary := server.Prometheus3(t)
	one, two := startVarve(t), startVarve(t)
	w := newWorld(t, binary, true, seconds(t), []sender{
		{name: "one", url: one + "/api/v1/write", protocol: "prometheus.WriteRequest"},
		{name: "two", url: two + "/api/v1/write", protocol: "io.prometheus.write.v2.Request"},
	})
	// Senders leave out histograms with custom buckets in 1.0.
	w.compare("1.0", one, toTheLetter, "buckets")
	w.compare("2.0", two, toTheLetter, "")
}

// compare asks everything at both. Queries over everything leave out the job
// named without, and those that name it are not asked.
func (w *world) compare(name, base string, how strictness, without string) {
	exclude := ""
	if without != "" {
		exclude = fmt.Sprintf(",job!=%q", without)
	}
	w.t.Run(name, func(t *testing.T) {
		inner := *w
		inner.t = t
		inner.waitDrained(base, exclude)
		phase, collides := inner.phase()
		t.Logf("asking at %d ms of a second", phase)
		c := comparison{world: &inner, t: t, base: base, how: how, without: without, phase: phase, collides: collides}
		for _, q := range questions(t) {
			c.question(q)
		}
		c.lists()
		c.exemplars()
		c.metadata(name)
		t.Logf("%d answers compared, %d of them with data, %d differ, %d queries left out", c.asked, c.filled, c.differing, c.left)
		require.Greater(t, c.filled, c.asked/2, "most answers are empty: the comparison is worth nothing")
	})
}

// comparison is one pair of servers.
type comparison struct {
	*world
	t        *testing.T
	base     string
	how      strictness
	without  string
	phase    int64
	collides bool

	asked, filled, left, differing int
}

// at returns the time of the right phase in the second.
func (c *comparison) at(at time.Time) string {
	return fmt.Sprintf("%d.%03d", at.Unix(), c.phase)
}

func (c *comparison) question(q question) {
	how := c.how
	if c.how != toTheLetter {
		// A sample on the full second is on the edge of a subquery's windows.
		if q.differs != "" || c.collides && strings.Contains(q.text, ":") {
			c.left++
			return
		}
		if q.close != "" {
			how = digits
		}
	}
	if q.order != "" {
		how = digits
	}
	if c.without != "" && (strings.Contains(q.text, c.without) || strings.Contains(q.text, `job=~`)) {
		c.left++
		return
	}
	length := c.end.Sub(c.begin)
	q.text = strings.ReplaceAll(q.text, "MID", c.at(c.begin.Add(length/2)))
	ordered := strings.HasPrefix(q.text, "sort(") || strings.HasPrefix(q.text, "sort_desc(")
	for _, at := range []time.Time{c.begin.Add(5 * time.Second), c.begin.Add(length * 2 / 3), c.end.Add(-time.Second), c.end.Add(8 * time.Second)} {
		c.ask("/api/v1/query", url.Values{"query": {q.text}, "time": {c.at(at)}}, ordered, how)
	}
	for _, r := range []struct {
		begin, end time.Time
		step       string
	}{
		{c.begin.Add(-3 * time.Second), c.end.Add(10 * time.Second), "4"},
		{c.begin.Add(length / 2), c.end, "1"},
	} {
		c.ask("/api/v1/query_range", url.Values{"query": {q.text}, "start": {c.at(r.begin)}, "end": {c.at(r.end)}, "step": {r.step}}, false, how)
	}
}

func (c *comparison) ask(path string, parameters url.Values, ordered bool, how strictness) {
	want := ask(c.t, c.reference.URL(""), path, parameters, ordered)
	got := ask(c.t, c.base, path, parameters, ordered)
	c.asked++
	if len(want.series) > 0 || want.Status == "error" {
		c.filled++
	}
	if d := difference(want, got, how); d != "" {
		c.differ("%s %v\n  %s", path, parameters, d)
	}
}

// lists compares the label and series APIs over the time of the run, and over a
// time before it.
func (c *comparison) lists() {
	ranges := []url.Values{
		{"start": {stamp(c.begin.Add(-time.Minute))}, "end": {stamp(c.end.Add(time.Minute))}},
		{"start": {stamp(c.begin.Add(-49 * time.Hour))}, "end": {stamp(c.begin.Add(-48 * time.Hour))}},
	}
	selectors := []string{
		`{job="gate"}`, `up`, `gate_temperature_celsius{room=~"k.*|attic"}`, `{__name__=~"gate_.*",method!="",job="gate"}`, `gate_ephemeral`,
		`gate_requests_total{path=~".*quote"}`, `{job="node",__name__=~"node_cpu.*"}`, `gate_nosuch`, `{__name__=~".*_total",job="prometheus"}`,
		`gate_build_info`, `ALERTS`, `{job="gate",le!=""}`, `{job="gate",quantile=~"0.*"}`,
	}
	names := []string{"__name__", "job", "instance", "room", "le", "method", "path", "id", "kind", "quantile", "mode", "nosuch", "version", "alertname"}
	for _, r := range ranges {
		for _, s := range selectors {
			matched := url.Values{"start": r["start"], "end": r["end"], "match[]": {s}}
			c.list("/api/v1/series", matched)
			c.list("/api/v1/labels", matched)
			for _, name := range names {
				c.list("/api/v1/label/"+name+"/values", matched)
			}
		}
		if c.without == "" {
			c.list("/api/v1/labels", r)
			for _, name := range names {
				c.list("/api/v1/label/"+name+"/values", r)
			}
		}
		two := url.Values{"start": r["start"], "end": r["end"], "match[]": {"up", `gate_odd_ratio{kind="nan"}`}}
		c.list("/api/v1/series", two)
		c.list("/api/v1/labels", two)
	}
	c.list("/api/v1/series", url.Values{})
	c.list("/api/v1/series", url.Values{"match[]": {"{"}})
	c.list("/api/v1/label/bad name/values", url.Values{"match[]": {"{"}})
}

// list compares an answer that is a list, whatever its order.
func (c *comparison) list(path string, parameters url.Values) {
	path = strings.ReplaceAll(path, " ", "%20")
	want, wantError := list(c.t, c.reference.URL(path)+"?"+parameters.Encode())
	got, gotError := list(c.t, c.base+path+"?"+parameters.Encode())
	c.asked++
	if len(want) > 0 || wantError != "" {
		c.filled++
	}
	if c.how != toTheLetter {
		wantError, _, _ = strings.Cut(wantError, ":")
		gotError, _, _ = strings.Cut(gotError, ":")
	}
	if wantError != gotError {
		c.differ("%s %v\n  reference %s, varve %s", path, parameters, wantError, gotError)
	}
	if !slices.Equal(want, got) {
		c.differ("%s %v\n  of %d and %d the reference alone has %d, %.300s, varve alone %d, %.300s", path, parameters, len(want), len(got),
			len(minus(want, got)), minus(want, got), len(minus(got, want)), minus(got, want))
	}
}

// minus returns the elements of a that b lacks.
func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(e string) bool { return slices.Contains(b, e) })
}

// list returns the sorted elements of an answer, exemplars one by one, and its
// error.
func list(t *testing.T, address string) (elements []string, failure string) {
	t.Helper()
	status, body, err := server.Get(t.Context(), address)
	require.NoError(t, err)
	var a struct {
		Data             []any
		Error, ErrorType string
	}
	require.NoError(t, json.Unmarshal(body, &a), "%s: %d %s", address, status, body)
	for _, e := range a.Data {
		series, _ := e.(map[string]any)
		exemplars, ok := series["exemplars"].([]any)
		if !ok {
			elements = append(elements, text(t, e))
		}
		for _, x := range exemplars {
			elements = append(elements, text(t, []any{series["seriesLabels"], x}))
		}
	}
	slices.Sort(elements)
	if a.ErrorType != "" {
		failure = fmt.Sprintf("%d %s: %s", status, a.ErrorType, a.Error)
	}
	return elements, failure
}

// exemplars compares the exemplars of counters. Senders of 2.0 give an exemplar a
// series message of its own, which Prometheus as a receiver refuses.
func (c *comparison) exemplars() {
	if os.Getenv(envRehearsal) == "1" {
		return
	}
	for _, query := range []string{`gate_requests_total`, `gate_requests_total{method="GET"}`, `rate(gate_requests_total{code="500"}[5m]) > 1`, `gate_nosuch`} {
		c.list("/api/v1/query_exemplars", url.Values{
			"query": {query}, "start": {stamp(c.begin.Add(-time.Minute))}, "end": {stamp(c.end.Add(time.Minute))},
		})
	}
}

// metadata holds that Varve knows what the reference knew when scraping ended. It
// may know more, since the reference forgets targets that vanish, and it keeps one
// entry a family where targets contradict each other. Of 2.0 nothing is asked: the
// sender of 3.15 sends no metadata in it.
func (c *comparison) metadata(protocol string) {
	if os.Getenv(envRehearsal) == "1" || protocol == "2.0" {
		return // nor does Prometheus keep metadata that is written to it
	}
	got := metadata(c.t, c.base)
	for _, family := range slices.Sorted(maps.Keys(c.world.metadata)) {
		want := c.world.metadata[family]
		c.asked++
		c.filled++
		if !slices.ContainsFunc(got[family], func(e metadataEntry) bool { return slices.Contains(want, e) }) {
			c.differ("metadata of %s: reference %q, varve %q", family, want, got[family])
		}
	}
}

// differencesMax bounds what one pair of servers reports.
const differencesMax = 60

// differ reports a difference.
func (c *comparison) differ(format string, args ...any) {
	c.t.Helper()
	c.differing++
	switch {
	case c.differing <= differencesMax:
		c.t.Errorf(format, args...)
	case c.differing == differencesMax+1:
		c.t.Error("there are more differences")
	}
}

func seconds(t *testing.T) int {
	t.Helper()
	text := os.Getenv(envSeconds)
	if text == "" {
		return defaultSeconds
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "environment variable %s", envSeconds)
	return n
}
