package ingest

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varve/arrival"
)

// Metrics counts arrivals of all inputs. Each input takes a Meter for its protocol,
// of the Metrics that bear its name.
type Metrics struct {
	*vectors
	input string
}

type vectors struct {
	requests *prometheus.CounterVec
	written  *prometheus.CounterVec
	rejected *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	inFlight *prometheus.GaugeVec
	duration *prometheus.HistogramVec
	refusals inputRefusals
}

// NewMetrics registers the metrics of arrivals with reg, which may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &vectors{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_requests_total",
			Help: "Write requests answered, by protocol and status code; appenders inside the process count a commit as 204, 400 or 503.",
		}, []string{"input", "protocol", "code"}),
		written: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_written_total",
			Help: "What was acknowledged as durable, by protocol and kind: samples, histograms, exemplars, metadata.",
		}, []string{"input", "protocol", "kind"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_rejected_total",
			Help: "What was refused to a sender for good, by protocol and reason.",
		}, []string{"input", "protocol", "reason"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_dropped_total",
			Help: "What the configured rules of an input left out, by protocol and reason; its sender was not told.",
		}, []string{"input", "protocol", "reason"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_bytes_total",
			Help: "Bytes of request bodies by protocol, as received (form=\"wire\") and decompressed (form=\"decoded\").",
		}, []string{"input", "protocol", "form"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "varve_ingest_in_flight_bytes",
			Help: "Bytes of the requests that are being handled, by protocol.",
		}, []string{"input", "protocol"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "varve_ingest_request_duration_seconds",
			Help: "Time from the start of a write request to its answer, the wait for the disk included.",
			// A request is one group commit: 0.2 ms on a quiet disk, seconds on one that stalls.
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"input", "protocol"}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.written, m.rejected, m.dropped, m.bytes, m.inFlight, m.duration)
	}
	return &Metrics{vectors: m}
}

// For returns the metrics under the name of an input.
func (m *Metrics) For(input string) *Metrics { return &Metrics{vectors: m.vectors, input: input} }

// Forget removes what says how the input is at the moment, once it has ended. What it counted stays.
func (m *Metrics) Forget() { m.inFlight.DeletePartialMatch(prometheus.Labels{"input": m.input}) }

// Meter returns the counters of one protocol.
func (m *Metrics) Meter(protocol string) *Meter {
	t := &Meter{
		metrics:    m,
		protocol:   protocol,
		refusals:   m.refusals.of(m.input),
		samples:    m.written.WithLabelValues(m.input, protocol, "samples"),
		histograms: m.written.WithLabelValues(m.input, protocol, "histograms"),
		exemplars:  m.written.WithLabelValues(m.input, protocol, "exemplars"),
		metadata:   m.written.WithLabelValues(m.input, protocol, "metadata"),
		wire:       m.bytes.WithLabelValues(m.input, protocol, "wire"),
		decoded:    m.bytes.WithLabelValues(m.input, protocol, "decoded"),
		inFlight:   m.inFlight.WithLabelValues(m.input, protocol),
		duration:   m.duration.WithLabelValues(m.input, protocol),
		codes:      make(map[int]prometheus.Counter),
	}
	for r := arrival.ReasonNone + 1; r < arrival.ReasonCount; r++ {
		t.rejected[r] = m.rejected.WithLabelValues(m.input, protocol, r.String())
		t.dropped[r] = m.dropped.WithLabelValues(m.input, protocol, r.String())
	}
	return t
}

// Meter counts the arrivals of one protocol, without a lookup by label for each
// request. It is safe for use by several goroutines.
type Meter struct {
	metrics  *Metrics
	protocol string
	refusals *refusals

	samples, histograms, exemplars, metadata prometheus.Counter
	rejected, dropped                        [arrival.ReasonCount]prometheus.Counter
	wire, decoded                            prometheus.Counter
	inFlight                                 prometheus.Gauge
	duration                                 prometheus.Observer

	mu    sync.Mutex // guards codes
	codes map[int]prometheus.Counter
}

// Answered counts one request: its status, its duration, the bytes of its body as
// they came and decompressed, and what became of its content.
func (m *Meter) Answered(code int, elapsed time.Duration, wireBytes, decodedBytes int, result *arrival.Result) {
	m.request(code).Inc()
	m.duration.Observe(elapsed.Seconds())
	m.wire.Add(float64(wireBytes))
	m.decoded.Add(float64(decodedBytes))
	m.samples.Add(float64(result.Samples))
	addSome(m.histograms, result.Histograms)
	addSome(m.exemplars, result.Exemplars)
	addSome(m.metadata, result.Metadata)
	addReasons(&m.rejected, &result.Rejected)
	addReasons(&m.dropped, &result.Dropped)
}

// Held adds to the bytes in flight; give back with a negative number.
func (m *Meter) Held(bytes int64) { m.inFlight.Add(float64(bytes)) }

// refused counts one thing that was refused outside of a request's result.
func (m *Meter) refused(reason arrival.Reason, err error) {
	one := arrival.Rejected{}
	one[reason] = 1
	m.Told(&one, err.Error)
	if m.rejected[reason] != nil {
		m.rejected[reason].Inc()
	}
}

func (m *Meter) request(code int) prometheus.Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.codes[code]
	if !ok {
		c = m.metrics.requests.WithLabelValues(m.metrics.input, m.protocol, strconv.Itoa(code))
		m.codes[code] = c
	}
	return c
}

func addSome(c prometheus.Counter, n int) {
	if n > 0 {
		c.Add(float64(n))
	}
}

func addReasons(counters *[arrival.ReasonCount]prometheus.Counter, counts *arrival.Rejected) {
	for r, n := range counts {
		if n > 0 && counters[r] != nil {
			counters[r].Add(float64(n))
		}
	}
}
