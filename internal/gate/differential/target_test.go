package differential_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// restartScrapes is the number of scrapes after which a target begins anew, so
// that every counter of it resets several times in a run.
const restartScrapes = 17

// target exposes metrics that are awkward in every way that a scrape allows. Its
// state moves on with each scrape.
type target struct {
	server *httptest.Server
	// flapping makes every third pair of scrapes fail.
	flapping bool
	seed     uint64

	mu      sync.Mutex // guards everything below
	random  *rand.Rand
	scrapes int
	metrics *metrics
}

// newTarget starts a target. It ends with the test or by its server's Close.
func newTarget(t *testing.T, seed uint64, flapping bool) *target {
	g := &target{flapping: flapping, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), metrics: newMetrics()}
	g.server = httptest.NewServer(g)
	t.Cleanup(g.server.Close)
	return g
}

// address is host:port.
func (g *target) address() string { return strings.TrimPrefix(g.server.URL, "http://") }

// ServeHTTP implements http.Handler.
func (g *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.scrapes++
	if g.flapping && g.scrapes/2%3 == 2 {
		http.Error(w, "flapping", http.StatusServiceUnavailable)
		return
	}
	if g.scrapes%restartScrapes == 0 {
		g.metrics = newMetrics()
	}
	g.metrics.advance(g.random, g.seed, g.scrapes)
	promhttp.HandlerFor(g.metrics.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
}

// metrics is what a target exposes between two of its restarts.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	bytes     prometheus.Counter
	weather   *prometheus.GaugeVec
	odd       *prometheus.GaugeVec
	ephemeral *prometheus.GaugeVec
	info      *prometheus.GaugeVec
	latency   *prometheus.HistogramVec
	native    *prometheus.HistogramVec
	rpc       *prometheus.SummaryVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gate_requests_total", Help: "Requests."}, []string{"method", "code", "path"}),
		bytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "gate_bytes_total", Help: "Bytes, with \"quotes\" and a \\ in the help."}),
		weather:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gate_temperature_celsius", Help: "Temperature."}, []string{"room"}),
		odd:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gate_odd_ratio", Help: "NaN, infinities and extremes."}, []string{"kind"}),
		ephemeral: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gate_ephemeral", Help: "Series that come and go.",
		}, []string{"id"}),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gate_build_info", Help: "Always 1."}, []string{"version"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gate_latency_seconds", Help: "Classic histogram.", Buckets: []float64{0.005, 0.05, 0.5, 1, 2.5},
		}, []string{"method"}),
		native: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gate_native_seconds", Help: "Native histogram.", NativeHistogramBucketFactor: 1.3, NativeHistogramMaxBucketNumber: 60,
		}, []string{"method"}),
		rpc: prometheus.NewSummaryVec(prometheus.SummaryOpts{
			Name: "gate_rpc_seconds", Help: "Summary.", Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001}, MaxAge: 3 * time.Second,
		}, []string{"service"}),
	}
	m.registry.MustRegister(m.requests, m.bytes, m.weather, m.odd, m.ephemeral, m.info, m.latency, m.native, m.rpc)
	m.info.WithLabelValues("1.2.3").Set(1)
	return m
}

// advance moves all metrics of a target on by one scrape.
func (m *metrics) advance(random *rand.Rand, seed uint64, scrape int) {
	for i, method := range []string{"GET", "POST", "DELETE"} {
		for _, code := range []string{"200", "404", "500"} {
			for _, path := range []string{"/", "/api/v1/query", `/with"quote`, "/ünïcode"} {
				counter := m.requests.WithLabelValues(method, code, path)
				n := float64(random.IntN(20 * (i + 1)))
				if adder, ok := counter.(prometheus.ExemplarAdder); ok && code == "500" {
					adder.AddWithExemplar(n, prometheus.Labels{"trace_id": fmt.Sprintf("%08x", random.Uint32())})
				} else {
					counter.Add(n)
				}
			}
		}
		for range 5 + random.IntN(30) {
			v := random.ExpFloat64() * 0.3
			m.latency.WithLabelValues(method).Observe(v)
			m.native.WithLabelValues(method).Observe(v - 0.02)
			m.rpc.WithLabelValues("svc-" + method).Observe(v)
		}
	}
	m.bytes.Add(random.Float64() * 1e12)
	for i, room := range []string{"kitchen", "cellar", "attic", "bath"} {
		// No two are ever the same, since which of them topk takes is up to the server.
		m.weather.WithLabelValues(room).Set(math.Round(200*math.Sin(float64(scrape)/7+float64(i)))/10 + float64(seed)/100 + float64(i)/1000)
	}
	// Negative zeros are not among them: Prometheus loses their sign when it encodes
	// them for remote write.
	sometimes := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, 1e15, math.SmallestNonzeroFloat64, 0.1}
	m.odd.WithLabelValues("mixed").Set(sometimes[random.IntN(len(sometimes))])
	m.odd.WithLabelValues("nan").Set(math.NaN())
	m.odd.WithLabelValues("inf").Set(math.Inf(1))
	m.odd.WithLabelValues("step").Set(float64(scrape / 4))
	m.odd.WithLabelValues("constant").Set(42)
	m.ephemeral.Reset()
	for i := range 6 {
		if (scrape/(i+2))%2 == 0 {
			m.ephemeral.WithLabelValues(fmt.Sprint("e", i)).Set(float64(scrape))
		}
	}
	// One series is new each time and never comes back.
	m.ephemeral.WithLabelValues(fmt.Sprint("once-", scrape)).Set(1)
}
