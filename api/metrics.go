package api

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varve/api/access"
)

type metrics struct {
	requests           *prometheus.CounterVec
	seconds            *prometheus.HistogramVec
	federationErrors   prometheus.Counter
	federationWarnings prometheus.Counter
	// inputs are the observing handlers of endpoints of inputs, by name: they come and go with the configuration.
	inputs sync.Map // of string to http.Handler
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_http_requests_total", Help: "Requests answered, by route and status.",
		}, []string{"handler", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "varve_http_request_duration_seconds", Help: "Time to answer a request, by route.",
			Buckets:                        []float64{0.005, 0.025, 0.1, 0.5, 2.5, 10, 60},
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 100,
		}, []string{"handler"}),
		federationErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "varve_federation_errors_total", Help: "Federation requests that failed inside the server.",
		}),
		federationWarnings: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "varve_federation_warnings_total", Help: "Warnings of the storage while it was read for federation.",
		}),
	}
	r.MustRegister(m.requests, m.seconds, m.federationErrors, m.federationWarnings)
	return m
}

// observe counts and times what next answers under the name of its route.
func (m *metrics) observe(name string, next http.Handler) http.Handler {
	route := prometheus.Labels{"handler": name}
	return promhttp.InstrumentHandlerDuration(m.seconds.MustCurryWith(route),
		promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(route), next))
}

// observed is what counts and times an endpoint of an input, whose handler the request carries.
func (m *metrics) observed(name string) http.Handler {
	h, ok := m.inputs.Load(name)
	if !ok {
		h, _ = m.inputs.LoadOrStore(name, m.observe(name, http.HandlerFunc(serveEndpoint)))
	}
	return h.(http.Handler)
}

// DeniedCounter registers and returns what counts refusals for a Guard.
func DeniedCounter(r prometheus.Registerer) func(access.Group, int) {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "varve_http_denied_total", Help: "Requests refused for lack of credentials or rights, by group of endpoints and reason.",
	}, []string{"group", "reason"})
	r.MustRegister(c)
	return func(g access.Group, code int) { c.WithLabelValues(g.String(), http.StatusText(code)).Inc() }
}
