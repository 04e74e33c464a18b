package blocks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) {
	code := m.Run()
	server.RemoveBinaries()
	http.DefaultClient.CloseIdleConnections()
	if err := leaks.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

// patience bounds what should take seconds: only something that hangs takes as long.
const patience = 5 * time.Minute

// The shape of what is written: it crosses midnights, and the blocks of two hours that Prometheus makes.
const (
	targets = 6
	days    = 3
	step    = 30 * time.Second
)

// TestBlocksOfPrometheus2 does all with the Prometheus that Debian has.
func TestBlocksOfPrometheus2(t *testing.T) { throughVarve(t, server.Prometheus2(t), "promtool", false) }

// TestBlocksOfPrometheus3 does all with a Prometheus of today.
func TestBlocksOfPrometheus3(t *testing.T) {
	throughVarve(t, server.Prometheus3(t), server.Peer(t, "promtool-3."), true)
}

// throughVarve imports the blocks of a Prometheus, exports them again, and compares what all of them answer. engine tells that its
// engine answers as that of Varve does.
func throughVarve(t *testing.T, prometheus, promtool string, engine bool) {
	ask := func(t *testing.T, s *server.Server, begin, end time.Time) map[string]string {
		return ask(t, s, begin, end, engine)
	}
	dir := t.TempDir()
	end := time.Now().Truncate(24 * time.Hour).Add(-5 * time.Hour)
	begin := end.Add(-days * 24 * time.Hour)
	first := startPrometheus(t, prometheus, filepath.Join(dir, "first"))
	fill(t, first.URL("/api/v1/write"), begin, end)
	want := ask(t, first, begin, end)
	require.NotEmpty(t, want)
	stop(t, first)
	// The whole directory: snapshots of Prometheus leave out what is out of order in its head.
	blocks := filepath.Join(dir, "first")

	binary := server.Binary(t, "")
	atRest := filepath.Join(dir, "at-rest")
	out := run(t, binary, "import", "tsdb", blocks, "--data", atRest)
	t.Logf("%s", out)
	run(t, binary, "check", "data", atRest)
	varve := startVarve(t, binary, atRest)
	same(t, want, ask(t, varve, begin, end), "the data directory that was at rest")
	stop(t, varve)

	killed := filepath.Join(dir, "killed")
	runKilled(t, binary, "import", "tsdb", blocks, "--data", killed)
	run(t, binary, "check", "data", killed)
	varve = startVarve(t, binary, killed)
	same(t, want, ask(t, varve, begin, end), "the data directory whose import was killed")
	stop(t, varve)

	live := startVarve(t, binary, filepath.Join(dir, "live-killed"))
	runKilled(t, binary, "import", "tsdb", blocks, "--url", live.URL(""), "--state", filepath.Join(dir, "state-killed"))
	same(t, want, ask(t, live, begin, end), "the server whose import was killed")
	stop(t, live)

	live = startVarve(t, binary, filepath.Join(dir, "live"))
	out = run(t, binary, "import", "tsdb", blocks, "--url", live.URL(""), "--state", filepath.Join(dir, "state"))
	t.Logf("%s", out)
	same(t, want, ask(t, live, begin, end), "the server that ran")
	before := samples(t, live, begin, end)
	t.Logf("again: %s", run(t, binary, "import", "tsdb", blocks, "--url", live.URL(""), "--state", filepath.Join(dir, "state")))
	t.Logf("anew: %s", run(t, binary, "import", "tsdb", blocks, "--url", live.URL(""), "--state", filepath.Join(dir, "state"), "--restart"))
	require.Equal(t, before, samples(t, live, begin, end))
	same(t, want, ask(t, live, begin, end), "after two more imports")

	folder := filepath.Join(dir, "exported")
	run(t, binary, "export", "tsdb", "--url", live.URL(""), "--all", "--start", begin.Format(time.RFC3339), "--end", end.Add(time.Hour).Format(time.RFC3339), "--output", folder)
	stop(t, live)
	t.Logf("%s", run(t, promtool, "tsdb", "list", folder))
	run(t, promtool, "tsdb", "analyze", folder)
	second := startPrometheus(t, prometheus, folder)
	same(t, want, ask(t, second, begin, end), "Prometheus on what Varve exported")
	stop(t, second)
}

// same shows the first difference of each answer, as whole ones are too long to look at.
func same(t *testing.T, want, got map[string]string, what string) {
	t.Helper()
	require.Len(t, got, len(want))
	for question, w := range want {
		g := got[question]
		if w == g {
			continue
		}
		at := 0
		for at < min(len(w), len(g)) && w[at] == g[at] {
			at++
		}
		around := func(text string) string { return text[max(0, at-150):min(len(text), at+150)] }
		t.Errorf("%s: %s differs at byte %d of %d and %d:\n%s\n%s", what, question, at, len(w), len(g), around(w), around(g))
	}
	if t.Failed() {
		t.FailNow()
	}
}

func startPrometheus(t *testing.T, binary, data string) *server.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte("storage: {tsdb: {out_of_order_time_window: 30d}}\n"), 0o600))
	address, err := server.FreeAddress()
	require.NoError(t, err)
	return start(t, server.Options{Binary: binary, Address: address, Args: []string{
		"--config.file=" + file, "--storage.tsdb.path=" + data, "--web.listen-address=" + address, "--storage.tsdb.retention.time=10y",
		"--web.enable-remote-write-receiver", "--web.enable-admin-api", "--enable-feature=native-histograms",
	}})
}

func startVarve(t *testing.T, binary, data string) *server.Server {
	t.Helper()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	return start(t, server.Options{Binary: binary, Address: address, Args: []string{
		"serve", "--storage.path", data, "--web.listen-address", address, "--web.enable-admin-api", "--storage.memory=64MiB", "--log.level=warn",
	}})
}

func start(t *testing.T, o server.Options) *server.Server {
	t.Helper()
	s, err := server.Start(o)
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx), "%s", s.Output())
	return s
}

func stop(t *testing.T, s *server.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.Terminate(ctx), "%s", s.Output())
}

// runKilled runs a program again and again, and kills it later each time, until it ends by itself.
func runKilled(t *testing.T, program string, args ...string) {
	t.Helper()
	for life := 50 * time.Millisecond; ; life += life / 2 {
		ctx, cancel := context.WithTimeout(t.Context(), life)
		out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
		late := ctx.Err() != nil
		cancel()
		if err == nil {
			t.Logf("%s ended by itself within %s:\n%s", strings.Join(args[:2], " "), life, out)
			return
		}
		require.True(t, late, "%s: %v\n%s", strings.Join(args, " "), err, out)
		t.Logf("killed after %s", life)
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	require.NoError(t, err, "%s %s: %s", program, strings.Join(args, " "), out)
	return string(out)
}

// fill writes to a Prometheus, most of it in order.
func fill(t *testing.T, url string, begin, end time.Time) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	counters := make([]float64, targets)
	var observed [targets]int
	var late []prompb.TimeSeries
	n := 0
	for at := begin; at.Before(end); {
		var request prompb.WriteRequest
		for target := range targets {
			series := map[string]*prompb.TimeSeries{}
			add := func(name string, ms int64, v float64, h *prompb.Histogram, more ...string) {
				key := name + strings.Join(more, "")
				s := series[key]
				if s == nil {
					s = &prompb.TimeSeries{Labels: prompb.FromLabels(labels.FromStrings(append([]string{
						model.MetricNameLabel, name, "instance", fmt.Sprintf("host%d:9100", target), "job", "node",
					}, more...)...), nil)}
					series[key] = s
				}
				if h != nil {
					s.Histograms = append(s.Histograms, *h)
					return
				}
				s.Samples = append(s.Samples, prompb.Sample{Timestamp: ms, Value: v})
			}
			for k := range 120 {
				ms := at.Add(time.Duration(k)*step).UnixMilli() + int64(target*37) + random.Int64N(3)
				counters[target] += random.Float64() * 10
				if random.IntN(4000) == 0 {
					counters[target] = 0
				}
				add("requests_total", ms, counters[target], nil)
				add("temperature", ms, math.Round(random.NormFloat64()*100)/10, nil, "unit", "°C")
				switch {
				case k == 60:
					add("flaky", ms, math.Float64frombits(value.StaleNaN), nil)
				case k > 70:
					add("flaky", ms, []float64{math.Inf(1), math.NaN(), math.Copysign(0, -1), math.SmallestNonzeroFloat64}[k%4], nil)
				case k < 60:
					add("flaky", ms, float64(k), nil)
				}
				if k%4 == 0 {
					observed[target] += 1 + random.IntN(3)
					h := prompb.FromIntHistogram(ms, tsdbutil.GenerateTestHistogram(int64(observed[target])))
					f := prompb.FromFloatHistogram(ms, floatHistogram(observed[target]))
					add("latency", ms, 0, &h)
					add("latency_float", ms, 0, &f)
				}
			}
			for _, s := range series {
				request.Timeseries = append(request.Timeseries, *s)
			}
			late = append(late, prompb.TimeSeries{
				Labels:  prompb.FromLabels(labels.FromStrings(model.MetricNameLabel, "late", "instance", fmt.Sprintf("host%d:9100", target)), nil),
				Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: float64(n)}, {Timestamp: at.Add(step).UnixMilli(), Value: -float64(n)}},
			})
			n++
		}
		send(t, url, &request)
		at = at.Add(120 * step)
	}
	// Backwards, so that it lies out of order in the head.
	for i := len(late) - 1; i >= 0; i-- {
		send(t, url, &prompb.WriteRequest{Timeseries: late[i : i+1]})
	}
}

func floatHistogram(n int) *histogram.FloatHistogram {
	h := tsdbutil.GenerateTestFloatHistogram(int64(n))
	h.Count += 0.5
	h.ZeroCount += 0.5
	return h
}

func send(t *testing.T, url string, request *prompb.WriteRequest) {
	t.Helper()
	body, err := request.Marshal()
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(snappy.Encode(nil, body)))
	require.NoError(t, err)
	r.Header.Set("Content-Encoding", "snappy")
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, 2, answer.StatusCode/100, "%s", text)
}

// post asks with a form and reads the data of the answer.
func post(t *testing.T, target string, form url.Values, out any) {
	t.Helper()
	answer, err := http.PostForm(target, form)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, 2, answer.StatusCode/100, "%s", body)
	require.NoError(t, json.Unmarshal(body, &struct{ Data any }{out}), "%s", body)
}

var metrics = []string{"requests_total", "temperature", "flaky", "latency", "latency_float", "late"}

// ask returns what a server answers: every sample of all, and some of what is asked of such data.
func ask(t *testing.T, s *server.Server, begin, end time.Time, engine bool) map[string]string {
	t.Helper()
	out := map[string]string{}
	// No sample lies at the ends of a range: whether that counts is not the same in all versions.
	for at := begin.Add(6*time.Hour - step/2); !at.After(end.Add(6 * time.Hour)); at = at.Add(6 * time.Hour) {
		for _, metric := range metrics {
			query := metric + "[6h]"
			out[at.Format(time.RFC3339)+" "+query] = answerOf(t, s, "/api/v1/query", url.Values{"query": {query}, "time": {at.Format(time.RFC3339)}})
		}
	}
	queries := []string{
		`sum by (job) (rate(requests_total[5m]))`, `avg_over_time(temperature[1h])`, `histogram_quantile(0.9, sum(rate(latency[10m])))`,
		`count({job="node"})`, `max by (instance) (flaky)`, `increase(requests_total[1d])`,
	}
	if !engine {
		queries = nil
	}
	for _, query := range queries {
		out[query] = answerOf(t, s, "/api/v1/query_range", url.Values{"query": {query}, "start": {begin.Format(time.RFC3339)}, "end": {end.Format(time.RFC3339)}, "step": {"600"}, "resolution": {"raw"}})
	}
	out["series"] = answerOf(t, s, "/api/v1/series", url.Values{"match[]": {`{__name__=~".+"}`}, "start": {begin.Format(time.RFC3339)}, "end": {end.Format(time.RFC3339)}})
	return out
}

// answerOf returns the data of an answer. Hints and notes beside it are left out.
func answerOf(t *testing.T, s *server.Server, path string, form url.Values) string {
	t.Helper()
	var data json.RawMessage
	post(t, s.URL(path), form, &data)
	return string(data)
}

// samples counts those of each metric.
func samples(t *testing.T, s *server.Server, begin, end time.Time) string {
	t.Helper()
	var out strings.Builder
	for _, metric := range metrics {
		query := fmt.Sprintf(`sum(count_over_time(%s[%ds]))`, metric, int(end.Sub(begin).Seconds())+3600)
		fmt.Fprintln(&out, metric, answerOf(t, s, "/api/v1/query", url.Values{"query": {query}, "time": {end.Add(time.Hour).Format(time.RFC3339)}}))
	}
	return out.String()
}
