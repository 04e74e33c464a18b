package grafana_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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

const (
	// readyTimeout bounds the start of a server, and worldTimeout all that comes before the first comparison: only something that hangs takes as long.
	readyTimeout = 3 * time.Minute
	worldTimeout = 8 * time.Minute
	// scrapes of the target in a row that are looked at: enough for rates, short enough for CI.
	scrapes        = 20
	scrapeInterval = 250 * time.Millisecond
	// stepsDivisor divides the steps of all ranges that are asked for, in milliseconds.
	stepsDivisor = 500
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
	// begin and end are the first and the last of some scrapes in a row that went well, see stretch.
	begin, end time.Time
	// middle is a moment at which all is there. No sample is where its windows begin.
	middle time.Time
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
		text := fmt.Sprintf(`global: {scrape_interval: %[1]s, scrape_timeout: %[1]s%[2]s, external_labels: {}}
scrape_configs: [{job_name: gate, static_configs: [{targets: [%[3]s]}]}]
remote_write:
  - url: %[4]s
    send_exemplars: true
    send_native_histograms: true
    queue_config: {batch_send_deadline: 200ms, max_shards: 1, min_shards: 1}
    metadata_config: {send: true, send_interval: 1s}
`, scrapeInterval, more, targets, varve.URL(prefix+"/api/v1/write"))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	at := newTarget(t)
	scrape(at)
	address, err := server.FreeAddress()
	require.NoError(t, err)
	s, err := server.Start(server.Options{Binary: binary, Address: address, Args: []string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--enable-feature=" + features,
		// Hidden, in 2.42 and 3 alike: targets come and go sooner.
		"--scrape.discovery-reload-interval=100ms",
	}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), worldTimeout)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
	w.prometheus = source{t: t, url: s.URL(""), method: http.MethodPost}
	w.ours = source{t: t, url: varve.URL(prefix), method: http.MethodPost}
	require.NoError(t, server.Wait(ctx, "the target was scraped", func() (bool, error) {
		good, never := w.stretch(at)
		if never {
			// When it is scraped comes of its address.
			at = newTarget(t)
			scrape(at)
			return false, s.Signal(syscall.SIGHUP)
		}
		if len(good) < scrapes {
			return false, fmt.Errorf("%d times in a row", len(good))
		}
		w.begin, w.end = good[0], good[len(good)-1]
		for w.middle = w.begin.Add(4*time.Second + 101*time.Millisecond); slices.Contains(good, w.middle.Add(-window)); w.middle = w.middle.Add(time.Millisecond) {
			continue
		}
		return true, nil
	}))
	same := func(ask func(g *source) *answer) func() (bool, error) {
		return func() (bool, error) {
			want, got := canonical(ask(&w.prometheus).body["data"]), canonical(ask(&w.ours).body["data"])
			return len(want) > len("null") && want == got, fmt.Errorf("%s instead of %s", short(got), short(want))
		}
	}
	require.NoError(t, server.Wait(ctx, "Varve has the metadata", same(func(g *source) *answer { return g.resource("api/v1/metadata", nil) })))
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
	require.NoError(t, server.Wait(ctx, "Varve has the exemplars", same(func(g *source) *answer {
		return g.exemplars(`{__name__=~"gate_requests_total|gate_classic_seconds_bucket"}`, w.begin.Add(-time.Minute), w.end.Add(time.Minute), time.Second)
	})))
	return w
}

// stretch returns the times of the last scrapes of the target in a row that went well, without a pause, and at none of which a step of a range
// may begin: whether a sample at the very beginning of a window counts differs between Prometheus 2 and 3. never says that the target's
// are at such times as a rule.
func (w *world) stretch(target string) (good []time.Time, never bool) {
	w.t.Helper()
	a := w.prometheus.instant(fmt.Sprintf(`up{instance=%q}[1h]`, target), time.Now())
	require.Equal(w.t, http.StatusOK, a.status, "%v", a.body)
	text, err := json.Marshal(a.body["data"])
	require.NoError(w.t, err)
	var data struct {
		Result []struct{ Values [][2]any }
	}
	require.NoError(w.t, json.Unmarshal(text, &data))
	if len(data.Result) == 0 {
		return nil, false
	}
	badInARow := 0
	for _, v := range data.Result[0].Values {
		at := time.UnixMilli(int64(math.Round(v[0].(float64) * 1000))).UTC()
		if len(good) > 0 && at.Sub(good[len(good)-1]) > 3*scrapeInterval {
			good = nil
		}
		bad := at.UnixMilli()%stepsDivisor == 0
		if badInARow++; !bad {
			badInARow = 0
		}
		if good = append(good, at); bad || v[1] != "1" {
			good = nil
		}
	}
	return good, badInARow >= 3
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
