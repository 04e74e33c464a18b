package dashboards_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// calm is a server that seals and rolls up at once, and keeps its own metrics.
const calm = `
storage: {memory: 64MiB}
web: {enable_admin_api: true}
compactor: {interval: 1h, seal_delay: 0s, quiet: 0s, reseal_after: 0s, cpu_share: 1}
self_scrape: {interval: 1s}
log: {level: warn}
`

const (
	nodeDays     = 3
	nodeInterval = 5 * time.Minute
)

// TestLongRange shows that every query of the dashboard of long ranges is answered from rollups of an hour with the values that the samples give,
// in steps of an hour, of six and of a day, over days of what a real node_exporter exposes; and that no alert fires on a calm server.
func TestLongRange(t *testing.T) {
	_, text, err := server.Get(t.Context(), startNodeExporter(t).URL("/metrics"))
	require.NoError(t, err)
	s := startVarve(t, calm)
	b := readBoard(t, "node-long-range.json")
	require.Equal(t, "utc", b.Timezone, "steps begin where buckets do")

	first := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -nodeDays-2)
	body := history(t, text, first, wanted(t, b))
	resp, err := http.Post(s.URL("/api/v1/import/prometheus"), "text/plain", bytes.NewReader(body))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 2, resp.StatusCode/100)
	resp, err = http.Post(s.URL("/api/v1/admin/compactor/run?wait=true"), "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)

	queries := 0
	for _, p := range b.all() {
		if p.Type == "text" {
			continue
		}
		require.Equal(t, "1h", p.Interval, "%s", p.Title)
		for _, q := range p.Targets {
			for _, step := range []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour} {
				// As Grafana writes a range of the length of the step.
				length := fmt.Sprintf("%dh", int(step.Hours()))
				if step == 24*time.Hour {
					length = "1d"
				}
				require.NotContains(t, q.Expr, "$__rate_interval", "%s", p.Title)
				expr := strings.NewReplacer("$__interval", length, "$job", ".*", "$instance", ".*").Replace(q.Expr)
				form := url.Values{
					"query": {expr}, "step": {fmt.Sprint(int(step.Seconds()))},
					"start": {fmt.Sprint(first.Add(24 * time.Hour).Unix())}, "end": {fmt.Sprint(first.AddDate(0, 0, nodeDays).Unix())},
				}
				got, from := matrix(t, s, form)
				require.Equal(t, "1h", from, "%s: %s", p.Title, expr)
				require.NotEmpty(t, got, "%s: %s", p.Title, expr)
				form.Set("resolution", "raw")
				want, from := matrix(t, s, form)
				require.Equal(t, "raw", from)
				same(t, want, got, p.Title+": "+expr)
				queries++
			}
		}
	}
	t.Logf("%d queries in three steps were answered from buckets of 1h as from samples", queries/3)

	for _, r := range readRules(t) {
		requireCalm(t, s, r)
	}
}

// ofPace are alerts on how long something takes: they say nothing of the server where the machine stands still at times.
var ofPace = set("VarveIngestSlow", "VarveCommitSlow")

// requireCalm shows that nothing is wrong that an alert tells of: not once within a minute, or it is over before the alert would fire.
func requireCalm(t *testing.T, s *server.Server, r rule) {
	t.Helper()
	begin, now := time.Now().Add(-time.Minute), time.Now()
	form := url.Values{"query": {r.Expr}, "step": {"1"}, "start": {fmt.Sprint(begin.Unix())}, "end": {fmt.Sprint(now.Unix())}}
	got, _ := matrix(t, s, form)
	if len(got) == 0 {
		return
	}
	if ofPace[r.Alert] && os.Getenv(server.EnvStrict) != "1" {
		t.Logf("%s is pending, on a machine that is not for this test alone: %v", r.Alert, got)
		return
	}
	pending, err := model.ParseDuration(r.For)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), min(time.Duration(pending), exposeTimeout))
	defer cancel()
	require.NoError(t, server.Wait(ctx, r.Alert+" is over on a calm server", func() (bool, error) {
		at := fmt.Sprint(time.Now().Unix())
		form.Set("start", at)
		form.Set("end", at)
		left, _ := matrix(t, s, form)
		return len(left) == 0, fmt.Errorf("%v", left)
	}))
	t.Logf("%s was pending for a moment: %v", r.Alert, got)
}

// wanted are the names of the metrics that the dashboard names.
func wanted(t *testing.T, b *board) map[string]bool {
	t.Helper()
	used := map[string]bool{}
	look := reader{exposed: map[string]*metric{}, used: used, collecting: true}
	for _, p := range b.all() {
		for _, q := range p.Targets {
			_, faults := look.read(q.Expr)
			require.Empty(t, faults)
		}
	}
	used["node_uname_info"] = true
	return used
}

// history is text to import: the series of the wanted metrics that the node exporter has, with a past of their own. Counters begin anew once, as
// after a restart of the machine.
func history(t *testing.T, text []byte, first time.Time, wanted map[string]bool) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	require.NoError(t, err)
	up, gauge, one := "up", dto.MetricType_GAUGE, 1.0
	families[up] = &dto.MetricFamily{Name: &up, Type: &gauge, Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &one}}}}
	points := int(nodeDays * 24 * time.Hour / nodeInterval)
	var out bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		f := families[name]
		require.NotNil(t, f, "the node_exporter has no %s", name)
		devices := 0
		for _, m := range f.GetMetric() {
			var labels strings.Builder
			for _, l := range m.GetLabel() {
				value := l.GetValue()
				if l.GetName() == "fstype" {
					// A machine of which all is in a container has no file system of its own.
					value = "ext4"
				}
				if l.GetName() == "device" && strings.HasPrefix(name, "node_network_") && value != "lo" {
					value = "eth" + strconv.Itoa(devices)
					devices++
				}
				fmt.Fprintf(&labels, "%s=%q,", l.GetName(), value)
			}
			counter := f.GetType() == dto.MetricType_COUNTER
			value := max(m.GetGauge().GetValue(), m.GetUntyped().GetValue(), 1)
			if counter {
				value = m.GetCounter().GetValue()
			}
			begin := value
			for i := range points + 1 {
				switch {
				case counter && i == points/2:
					value = 0
				case counter:
					value += math.Round(1000 * random.ExpFloat64())
				case name == up:
					value = float64(random.IntN(10)) / max(float64(random.IntN(10)), 1)
					value = min(1, math.Trunc(value))
				case name == "node_boot_time_seconds":
					if i%700 == 300 {
						value++
					}
				case strings.HasSuffix(name, "Total_bytes"), strings.HasSuffix(name, "size_bytes"), name == "node_filesystem_files", name == "node_uname_info":
				default:
					value = begin * (0.5 + random.Float64()/2)
				}
				at := first.Add(time.Duration(i) * nodeInterval).UnixMilli()
				fmt.Fprintf(&out, "%s{%sjob=\"node\",instance=\"a:9100\"} %s %d\n", name, labels.String(), strconv.FormatFloat(value, 'g', -1, 64), at)
			}
		}
	}
	return out.Bytes()
}

// line is a series of an answer: a value for each time at which it has one.
type line map[float64]float64

// matrix asks for a range and returns the series by their labels, and what they were answered from.
func matrix(t *testing.T, s *server.Server, form url.Values) (map[string]line, string) {
	t.Helper()
	resp, err := http.PostForm(s.URL("/api/v1/query_range"), form)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", form.Get("query"), answer.Error)
	all := map[string]line{}
	for _, r := range answer.Data.Result {
		one := line{}
		for _, v := range r.Values {
			value, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(t, err)
			one[v[0].(float64)] = value
		}
		all[fmt.Sprint(r.Metric)] = one
	}
	return all, resp.Header.Get("X-Varve-Resolution")
}

// same compares two answers. Sums that are taken in another order may differ in the last digits.
func same(t *testing.T, want, got map[string]line, what string) {
	t.Helper()
	require.Len(t, got, len(want), "%s", what)
	for name, w := range want {
		g := got[name]
		require.Len(t, g, len(w), "%s %s", what, name)
		for at, v := range w {
			require.InDelta(t, v, g[at], 1e-9*max(math.Abs(v), 1e-9), "%s %s at %v", what, name, at)
		}
	}
}
