package grafana_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/internal/gate/server"
)

func TestMain(m *testing.M) {
	code := m.Run()
	server.RemoveBinaries()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

const (
	readyTimeout = 30 * time.Second
	// scrapes of the target, four a second: enough for rates, short enough for CI.
	scrapes = 20
	// prefix is the path before Varve's API, as behind a proxy.
	prefix = "/archive/varve"
)

// target exposes what a data source may meet: counters with exemplars, gauges with NaN and infinities, classic and native
// histograms, summaries, and values of labels that are awkward everywhere. It moves on with each scrape.
type target struct {
	mu       sync.Mutex // guards what follows
	n        int
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	odd      *prometheus.GaugeVec
	classic  prometheus.Histogram
	native   *prometheus.HistogramVec
	summary  prometheus.Summary
}

func newTarget(t *testing.T) string {
	t.Helper()
	g := &target{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gate_requests_total", Help: "Requests, with \"quotes\" and a \\."}, []string{"method", "path"}),
		odd:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gate_odd", Help: "NaN and infinities."}, []string{"kind", "service.name"}),
		classic:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "gate_classic_seconds", Help: "Classic.", Buckets: []float64{0.1, 1}}),
		native:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "gate_native_seconds", Help: "Native.", NativeHistogramBucketFactor: 1.5}, []string{"method"}),
		summary:  prometheus.NewSummary(prometheus.SummaryOpts{Name: "gate_summary_seconds", Help: "Summary.", Objectives: map[float64]float64{0.5: 0.05}}),
	}
	g.registry.MustRegister(g.requests, g.odd, g.classic, g.native, g.summary)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// ServeHTTP implements http.Handler.
func (g *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	for i, method := range []string{"GET", "POST"} {
		for _, route := range []string{"/", `/a"b\c`, "/ünï=code", "/<b>{x}"} {
			c := g.requests.WithLabelValues(method, route)
			c.(prometheus.ExemplarAdder).AddWithExemplar(float64(g.n*(i+1)), prometheus.Labels{"trace_id": fmt.Sprintf("%s%03d", method, g.n)})
		}
		for _, v := range []float64{0.2, 0.5, 0.9, 1.7, 3.1} {
			g.native.WithLabelValues(method).Observe(v)
		}
	}
	g.odd.WithLabelValues("nan", "shop.nan").Set(math.NaN())
	g.odd.WithLabelValues("inf", "shop.inf").Set(math.Inf(-1))
	g.odd.WithLabelValues("wave", "shop.wave").Set(math.Sin(float64(g.n)))
	g.classic.(prometheus.ExemplarObserver).ObserveWithExemplar(float64(g.n%3)*0.4, prometheus.Labels{"trace_id": fmt.Sprint("c", g.n)})
	g.summary.Observe(float64(g.n))
	promhttp.HandlerFor(g.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
}

// world is a Prometheus and a Varve with the same data, each as a data source.
type world struct {
	t                *testing.T
	prometheus, ours source
	begin, end       time.Time
	// noted are Prometheus' answers to calls that it answers from its targets, while it had some.
	noted map[string]*answer
}

// newWorld lets a Prometheus scrape the target for some seconds and write to Varve, and waits until both have the same.
func newWorld(t *testing.T, binary string, modern bool) *world {
	t.Helper()
	w := &world{t: t}
	varve := startVarve(t)
	features := "exemplar-storage,native-histograms"
	if modern {
		features = "exemplar-storage,metadata-wal-records"
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	scrape := func(targets string) {
		more := ""
		if modern {
			more = ", scrape_native_histograms: true"
		}
		text := fmt.Sprintf(`global: {scrape_interval: 250ms, scrape_timeout: 250ms%s, external_labels: {}}
scrape_configs: [{job_name: gate, static_configs: [{targets: [%s]}]}]
remote_write:
  - url: %s
    send_exemplars: true
    send_native_histograms: true
    queue_config: {batch_send_deadline: 200ms, max_shards: 1, min_shards: 1}
    metadata_config: {send: true, send_interval: 1s}
`, more, targets, varve.URL(prefix+"/api/v1/write"))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	scrape(newTarget(t))
	address, err := server.FreeAddress()
	require.NoError(t, err)
	s, err := server.Start(server.Options{Binary: binary, Address: address, Args: []string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--enable-feature=" + features,
		// Hidden, in 2.42 and 3 alike: targets come and go sooner.
		"--scrape.discovery-reload-interval=100ms",
	}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 2*readyTimeout)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
	w.prometheus = source{t: t, url: s.URL(""), method: http.MethodPost}
	w.ours = source{t: t, url: varve.URL(prefix), method: http.MethodPost}
	// The first scrape is a while after the start.
	for _, n := range []float64{1, scrapes} {
		require.NoError(t, server.Wait(ctx, "the target was scraped", func() (bool, error) {
			got := w.count(&w.prometheus, `count_over_time(up{job="gate"}[1h])`)
			return got >= n, fmt.Errorf("%v times", got)
		}))
		if n == 1 {
			w.begin = time.Now()
		}
	}
	w.end = time.Now()
	w.noted = map[string]*answer{}
	for _, c := range calls() {
		for name, way := range ways {
			if g := way(w.prometheus); c.ofTargets {
				w.noted[c.name+name] = c.make(&g, w)
			}
		}
	}
	// Without its target Prometheus ends the series by stale markers, and writes those.
	scrape("")
	require.NoError(t, s.Signal(syscall.SIGHUP))
	require.NoError(t, server.Wait(ctx, "the series ended", func() (bool, error) {
		return w.count(&w.prometheus, `count({__name__!=""})`) == 0 && w.count(&w.ours, `count({__name__!=""})`) == 0, nil
	}))
	for _, name := range []string{"up", "gate_requests_total", "gate_odd", "gate_native_seconds", "gate_classic_seconds_bucket", "gate_summary_seconds", "scrape_series_added"} {
		expr := "sum(count_over_time(" + name + "[1h]))"
		require.NoError(t, server.Wait(ctx, "Varve has all", func() (bool, error) {
			want, got := w.count(&w.prometheus, expr), w.count(&w.ours, expr)
			return want > 0 && want == got, fmt.Errorf("%v of %v", got, want)
		}))
	}
	require.NoError(t, server.Wait(ctx, "Varve has the exemplars and the metadata", func() (bool, error) {
		a := w.ours.exemplars("gate_requests_total", w.begin.Add(-time.Minute), w.end.Add(time.Minute), time.Second)
		m := w.ours.resource("api/v1/metadata", url.Values{"metric": {"gate_requests_total"}})
		return len(a.body["data"].([]any)) > 0 && len(m.body["data"].(map[string]any)) > 0, nil
	}))
	return w
}

// startVarve starts one behind a path, without metrics of its own, which Prometheus lacks.
func startVarve(t *testing.T) *server.Server {
	t.Helper()
	dir := t.TempDir()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	file := filepath.Join(dir, "varve.yml")
	text := fmt.Sprintf("storage: {memory: 64MiB}\nself_scrape: {enabled: false}\nweb: {external_url: 'http://%s%s/'}\nlog: {level: warn}\n", address, prefix)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	s, err := server.Start(server.Options{
		Binary: server.Binary(t, ""), Address: address, ReadyPath: prefix + "/-/ready",
		Args: []string{"serve", "--config.file", file, "--storage.path", filepath.Join(dir, "data"), "--web.listen-address", address},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the output of the server:\n%s", s.Output())
		}
		s.Kill()
	})
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
	return s
}

// count is the value of the first series of an answer now, 0 without one.
func (w *world) count(g *source, expr string) float64 {
	w.t.Helper()
	a := g.instant(expr, time.Now())
	require.Equal(w.t, http.StatusOK, a.status, "%s: %v", expr, a.body)
	text, err := json.Marshal(a.body["data"])
	require.NoError(w.t, err)
	var data struct {
		Result []struct{ Value [2]any }
	}
	require.NoError(w.t, json.Unmarshal(text, &data))
	if len(data.Result) == 0 {
		return 0
	}
	var n float64
	_, err = fmt.Sscan(data.Result[0].Value[1].(string), &n)
	require.NoError(w.t, err)
	return n
}
