package grafana_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// everything matches all series: what the page sends where it has nothing better.
const everything = `{__name__!=""}`

// call is one that the data source makes.
type call struct {
	name string
	make func(g *source, w *world) *answer
	// differs is why Varve's answer differs from that of Prometheus 2 or 3, and how, "" where it must not.
	differs2, differs3 string
	// ofTargets says that Prometheus answers from what it scrapes at the moment, so that it is asked while it does.
	ofTargets bool
	// judge looks at Varve's answer where a comparison isn't enough.
	judge func(t *testing.T, a *answer)
}

// params are names and values of parameters, one after the other.
func params(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

// looked is the range that resource calls carry, in whole minutes as the page rounds them, with more parameters.
func (w *world) looked(pairs ...string) url.Values {
	v := params(pairs...)
	v.Set("start", fmt.Sprint(w.begin.Truncate(time.Minute).Unix()))
	v.Set("end", fmt.Sprint(w.end.Truncate(time.Minute).Add(time.Minute).Unix()))
	return v
}

// expressions are what panels and Explore ask for, with what Grafana has put for its variables.
var expressions = []string{
	`gate_requests_total`,
	`rate(gate_requests_total{method=~"(GET|POST)"}[2s])`,
	`sum by (path) (increase(gate_requests_total{job=~".*"}[2s]))`,
	`histogram_quantile(0.95, sum by (le) (rate(gate_classic_seconds_bucket[2s])))`,
	`histogram_quantile(0.95, sum by (method) (rate(gate_native_seconds[2s])))`,
	`rate(gate_native_seconds[2s])`,
	`gate_native_seconds`,
	`gate_odd`,
	`gate_summary_seconds{quantile="0.5"} or up`,
	`topk(2, gate_requests_total)`,
	`gate_requests_total{path="/a\"b\\c"}`,
	`absent(gate_nothing)`,
	`gate_nothing`,
	`1+1`,
	`"text"`,
	`label_replace(up, "x", "$1", "job", "(.*)")`,
}

// rejected are those that people type on the way.
var rejected = []string{``, `rate(gate_requests_total`, `gate_requests_total{`, `sum(`, `rate(gate_requests_total)`, `gate_requests_total + on () gate_requests_total`}

func calls() []call {
	all := []call{
		{name: "health", make: func(g *source, _ *world) *answer { return g.instant("1+1", time.Unix(4, 0).UTC()) }},
		{
			name: "build", make: func(g *source, _ *world) *answer { return g.resource("api/v1/status/buildinfo", nil) },
			differs2: "another program", differs3: "another program", judge: judgeBuild,
		},
		{name: "rules", make: func(g *source, _ *world) *answer { return g.resource("api/v1/rules", nil) }, judge: judgeAgain},
		{name: "alerts", make: func(g *source, _ *world) *answer { return g.resource("api/v1/alerts", nil) }},
		{
			// The page gives milliseconds where seconds are meant, and takes success for "there are exemplars".
			name: "exemplars available", make: func(g *source, w *world) *answer {
				return g.resource("api/v1/query_exemplars", params("query", "test", "start", fmt.Sprint(w.begin.UnixMilli()), "end", fmt.Sprint(w.end.UnixMilli())))
			},
		},
		{name: "metadata", ofTargets: true, make: func(g *source, _ *world) *answer { return g.resource("api/v1/metadata", nil) }},
		{name: "metadata with a limit", ofTargets: true, make: func(g *source, _ *world) *answer { return g.resource("api/v1/metadata", params("limit", "40000")) }},
		{name: "metadata of a metric", ofTargets: true, make: func(g *source, _ *world) *answer {
			return g.resource("api/v1/metadata", params("metric", "gate_requests_total"))
		}},
		{name: "names of metrics", make: func(g *source, w *world) *answer { return g.resource("api/v1/label/__name__/values", w.looked()) }},
		{name: "names of metrics with a limit", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/label/__name__/values", w.looked("limit", "40000"))
		}},
		{name: "label names", make: func(g *source, w *world) *answer { return g.resource("api/v1/labels", w.looked("limit", "40000")) }},
		{name: "label names of a metric", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/labels", w.looked("match[]", "gate_native_seconds"))
		}},
		{name: "label names of several", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/labels", w.looked("match[]", "gate_native_seconds", "match[]", "gate_odd"))
		}},
		{name: "values of a label", make: func(g *source, w *world) *answer { return g.resource("api/v1/label/path/values", w.looked()) }},
		{name: "values of a label of a selector", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/label/path/values", w.looked("match[]", `gate_requests_total{method="GET"}`))
		}},
		{name: "values of a label of several", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/label/method/values", w.looked("match[]", `gate_requests_total{path="/"}`, "match[]", "gate_native_seconds"))
		}},
		{name: "values of no label", make: func(g *source, w *world) *answer { return g.resource("api/v1/label/nothing/values", w.looked()) }},
		{name: "values of a label with dots", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/label/"+escapedLabel("service.name")+"/values", w.looked())
		}},
		{name: "values of a bad label", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/label/"+url.PathEscape("{a")+"/values", w.looked("match[]", "{"))
		}},
		{name: "series", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/series", w.looked("match[]", everything, "limit", "40000"))
		}},
		{name: "series of a metric", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/series", w.looked("match[]", `gate_requests_total{path="/<b>{x}"}`))
		}},
		{name: "series without a selector", make: func(g *source, w *world) *answer { return g.resource("api/v1/series", w.looked()) }},
		{name: "suggestions of labels", make: func(g *source, w *world) *answer {
			return g.suggest("", w.looked("match[]", `{__name__="gate_requests_total",method="GET"}`, "limit", "1000"))
		}},
		{name: "suggestions of values", make: func(g *source, w *world) *answer {
			return g.suggest("method", w.looked("match[]", "gate_requests_total", "match[]", "gate_native_seconds", "limit", "1000"))
		}},
		{name: "query_result of a variable", make: func(g *source, w *world) *answer {
			return g.resource("api/v1/query", params("query", "count by (method) (gate_requests_total)", "time", fmt.Sprint(w.middle.Unix())))
		}},
		{name: "an annotation", make: func(g *source, w *world) *answer {
			return g.span("changes(gate_odd[1m]) > 0", w.begin, w.end, 60*time.Second, 0)
		}},
		{name: "exemplars", make: func(g *source, w *world) *answer {
			return g.exemplars(`rate(gate_requests_total{method="GET"}[2s])`, w.begin.Add(-time.Minute), w.end.Add(time.Minute), time.Second)
		}},
		{name: "exemplars of a histogram", make: func(g *source, w *world) *answer {
			return g.exemplars(`histogram_quantile(0.9, rate(gate_classic_seconds_bucket[2s]))`, w.begin.Add(-time.Minute), w.end.Add(time.Minute), time.Second)
		}},
		{name: "exemplars of nothing", make: func(g *source, w *world) *answer { return g.exemplars("gate_nothing", w.begin, w.end, time.Second) }},
		{name: "exemplars of a mistake", make: func(g *source, w *world) *answer { return g.exemplars("sum(", w.begin, w.end, time.Second) }},
		{name: "a range in another zone", make: func(g *source, w *world) *answer {
			return g.span("gate_requests_total", w.begin, w.end, 2*time.Second, 5*time.Hour+30*time.Minute)
		}},
		{name: "a step with a fraction", make: func(g *source, w *world) *answer {
			return g.span("gate_requests_total", w.begin, w.end, 1500*time.Millisecond, 0)
		}},
		{name: "too many steps", make: func(g *source, w *world) *answer {
			return g.span("up", w.begin.Add(-24*time.Hour), w.end, time.Second, 0)
		}},
		{name: "a range backwards", make: func(g *source, w *world) *answer {
			return g.span("up", w.end, w.begin.Add(-time.Minute), time.Second, 0)
		}},
	}
	for _, expr := range expressions {
		older := ""
		if strings.Contains(expr, "histogram_quantile") && strings.Contains(expr, "native") {
			older = "2.42 interpolates linearly within buckets of native histograms, and from 3.0 on exponentially"
		}
		all = append(all,
			call{name: "instant " + expr, differs2: older, make: func(g *source, w *world) *answer { return g.instant(expr, w.middle) }},
			call{name: "range " + expr, differs2: older, make: func(g *source, w *world) *answer { return g.span(expr, w.settled(), w.end, time.Second, 0) }},
		)
	}
	for _, expr := range rejected {
		all = append(all,
			call{name: "rejected instant " + expr, make: func(g *source, w *world) *answer { return g.instant(expr, w.middle) }},
			call{name: "rejected range " + expr, make: func(g *source, w *world) *answer { return g.span(expr, w.settled(), w.end, time.Second, 0) }},
			call{name: "rejected resource " + expr, make: func(g *source, w *world) *answer {
				return g.resource("api/v1/query", params("query", expr, "time", fmt.Sprint(w.middle.Unix())))
			}},
		)
	}
	return all
}

// settled is when counters are no longer near their zero, to which servers of different age extrapolate differently.
func (w *world) settled() time.Time { return w.begin.Add(3 * time.Second) }

// window is how far back the expressions look that are asked for at the middle.
const window = 2 * time.Second

// judgeBuild holds the answer against what the data source makes of it: no features means Prometheus, whose version says what it can.
func judgeBuild(t *testing.T, a *answer) {
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, []string{http.MethodPost, http.MethodGet}, a.methods, "a POST is not allowed, so that it is tried again")
	data := a.body["data"].(map[string]any)
	require.Empty(t, data["features"])
	var major, minor int
	_, err := fmt.Sscanf(data["version"].(string), "%d.%d.", &major, &minor)
	require.NoError(t, err, "a version of Prometheus: %v", data["version"])
	require.True(t, major > 2 || major == 2 && minor >= 24, "from 2.24 on label APIs take matchers")
	for _, key := range []string{"revision", "branch", "buildUser", "buildDate", "goVersion"} {
		require.Contains(t, data, key)
	}
}

// judgeAgain says that a POST was refused in a way after which it is tried again.
func judgeAgain(t *testing.T, a *answer) {
	require.Equal(t, []string{http.MethodPost, http.MethodGet}, a.methods)
}

// TestLikePrometheus2 shows that a data source gets from Varve what it gets from Debian's Prometheus with the same data.
func TestLikePrometheus2(t *testing.T) {
	t.Parallel()
	replay(t, newWorld(t, server.Prometheus2(t), false), func(c *call) string { return c.differs2 })
}

// TestLikePrometheus3 shows the same of a Prometheus of today.
func TestLikePrometheus3(t *testing.T) {
	t.Parallel()
	replay(t, newWorld(t, server.Prometheus3(t), true), func(c *call) string { return c.differs3 })
}

// ways are configurations of a data source.
var ways = map[string]func(g source) source{
	"POST":    func(g source) source { return g },
	"GET":     func(g source) source { g.method = http.MethodGet; return g },
	"timeout": func(g source) source { g.timeout = "120s"; return g },
	// Those of Thanos, which others are to ignore.
	"parameters": func(g source) source {
		g.custom = params("dedup", "true", "max_source_resolution", "1h", "custom", "par/am")
		return g
	},
}

func replay(t *testing.T, w *world, differs func(*call) string) {
	compared, different := 0, 0
	for _, c := range calls() {
		for name, way := range ways {
			theirs, ours := way(w.prometheus), way(w.ours)
			got, want := c.make(&ours, w), w.noted[c.name+name]
			if want == nil {
				want = c.make(&theirs, w)
			}
			if c.judge != nil && name == "POST" {
				c.judge(t, got)
			}
			compared++
			fault := compare(want, got)
			if why := differs(&c); why != "" {
				different++
				require.NotEmpty(t, fault, "%s (%s) is listed as different, because: %s", c.name, name, why)
				continue
			}
			if fault != "" {
				t.Errorf("%s (%s): %s", c.name, name, fault)
			}
		}
	}
	t.Logf("%d calls were compared, %d of them are known to differ", compared, different)
}

// compare says how two answers differ. What a data source doesn't read is left out: texts of errors and of annotations, and orders without a meaning.
func compare(want, got *answer) string {
	if want.status != got.status {
		return fmt.Sprintf("status %d instead of %d: %v", got.status, want.status, got.body["error"])
	}
	if !slices.Equal(want.methods, got.methods) {
		return fmt.Sprintf("tried by %v instead of %v", got.methods, want.methods)
	}
	if w, g := want.header.Get("Content-Type"), got.header.Get("Content-Type"); w != g {
		return fmt.Sprintf("content type %q instead of %q", g, w)
	}
	for _, key := range []string{"status", "errorType"} {
		if want.body[key] != got.body[key] {
			return fmt.Sprintf("%s is %v instead of %v: %v", key, got.body[key], want.body[key], got.body["error"])
		}
	}
	for _, key := range []string{"warnings", "infos"} {
		if (want.body[key] == nil) != (got.body[key] == nil) {
			return fmt.Sprintf("%s: %v instead of %v", key, got.body[key], want.body[key])
		}
	}
	if w, g := canonical(want.body["data"]), canonical(got.body["data"]); w != g {
		return "the data is\n" + short(g) + "\ninstead of\n" + short(w)
	}
	return ""
}

func short(text string) string {
	if len(text) > 3000 {
		return text[:3000] + "..."
	}
	return text
}

// canonical is data as text, with lists of series, of names and of exemplars' series in an order of their own.
func canonical(data any) string {
	if m, ok := data.(map[string]any); ok {
		if list, ok := m["result"].([]any); ok && (m["resultType"] == "vector" || m["resultType"] == "matrix") {
			return fmt.Sprint(m["resultType"], "\n", sorted(list))
		}
		var lines []any
		for k, v := range m {
			if list, ok := v.([]any); ok {
				v = sorted(list)
			}
			lines = append(lines, []any{k, v})
		}
		return sorted(lines)
	}
	if list, ok := data.([]any); ok {
		return sorted(list)
	}
	text, _ := json.Marshal(data)
	return string(text)
}

func sorted(list []any) string {
	var lines []string
	for _, one := range list {
		// Keys of objects are sorted by the encoder.
		text, _ := json.Marshal(one)
		lines = append(lines, string(text))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestStrict shows that the parameters of the provisioned data source "Varve (strict)" reach Varve in the URL beside a form, and harm no other call.
func TestStrict(t *testing.T) {
	s := startVarve(t)
	g := source{t: t, url: s.URL(prefix), method: http.MethodPost, custom: params("resolution", "strict")}
	now := time.Now()
	a := g.span("rate(up[1h])", now.Add(-24*time.Hour), now, time.Hour, 0)
	require.Equal(t, http.StatusOK, a.status, "%v", a.body)
	require.NotEmpty(t, a.header.Get("X-Varve-Resolution"))
	for _, endpoint := range []string{"api/v1/labels", "api/v1/label/job/values", "api/v1/metadata", "api/v1/status/buildinfo", "api/v1/rules"} {
		require.Equal(t, http.StatusOK, g.resource(endpoint, nil).status, "%s", endpoint)
	}
	g.custom = params("resolution", "nonsense")
	require.Equal(t, http.StatusBadRequest, g.instant("up", now).status, "a parameter that is wrong is refused, so it was read")
}
