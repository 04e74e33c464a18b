package forward

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of all outputs. Counters are kept while an output has the same name, through reloads.
type metrics struct {
	f *Forwarder

	sent, dropped, filtered, failed, retries, queries, lateSteps *prometheus.CounterVec
	buried, skipped                                              *prometheus.CounterVec
	seconds                                                      *prometheus.HistogramVec
	inFlight                                                     *prometheus.GaugeVec
}

var (
	descLagSeconds = prometheus.NewDesc("varve_forward_lag_seconds", "How long ago the oldest arrival came in that an output has not settled, 0 without one.", []string{"output"}, nil)
	descLagSamples = prometheus.NewDesc("varve_forward_lag_samples", "Samples that an output has not settled, as far as they are known.", []string{"output"}, nil)
	descLagBytes   = prometheus.NewDesc("varve_forward_lag_bytes", "Bytes of the journal that an output has not settled.", []string{"output"}, nil)
	descGapDays    = prometheus.NewDesc("varve_forward_gap_days", "Days that an output reads from the archive because the journal no longer has them.", []string{"output"}, nil)
	descState      = prometheus.NewDesc("varve_forward_state", "1 for the state that an output is in.", []string{"output", "state"}, nil)
	descLetters    = prometheus.NewDesc("varve_forward_dead_letter_bytes", "Size of the file with what the peer of an output refused.", []string{"output"}, nil)
)

func newMetrics(f *Forwarder, r prometheus.Registerer) *metrics {
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "varve_forward_" + name, Help: help}, append([]string{"output"}, more...))
	}
	m := &metrics{
		f:        f,
		sent:     counter("samples_sent_total", "Samples that the peer of an output took."),
		dropped:  counter("samples_dropped_total", "Samples given up because the backlog was over its limit."),
		filtered: counter("samples_filtered_total", "Samples read that an output is not to have."),
		buried:   counter("samples_dead_lettered_total", "Samples that were refused and written to the dead letters, by step.", "reason"),
		skipped:  counter("samples_skipped_total", "Samples left out because the protocol can't express them or a later one replaces them, by reason. Refused exemplars and metadata too.", "reason"),
		failed:   counter("sends_failed_total", "Attempts to send that failed."),
		retries:  counter("retries_total", "Batches, or parts of them, sent again after a wait."),
		queries:  counter("query_failures_total", "Queries that failed. They are tried again."),
		lateSteps: counter("query_steps_dropped_total",
			"Steps of queries given up because they failed for too long."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "varve_forward_send_duration_seconds", Help: "How long attempts to send took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"output"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "varve_forward_in_flight_bytes", Help: "Memory of what an output has read and not settled.",
		}, []string{"output"}),
	}
	if r != nil {
		r.MustRegister(m)
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.sent, m.dropped, m.filtered, m.buried, m.skipped, m.failed, m.retries, m.queries, m.lateSteps, m.seconds, m.inFlight,
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{descLagSeconds, descLagSamples, descLagBytes, descGapDays, descState, descLetters} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
	for _, s := range m.f.Status() {
		gauge := func(d *prometheus.Desc, v float64, more ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{s.Name}, more...)...)
		}
		gauge(descLagSeconds, s.Lag.Seconds)
		gauge(descLagSamples, float64(s.Lag.Samples))
		gauge(descLagBytes, float64(s.Lag.Bytes))
		gauge(descGapDays, float64(s.Lag.GapDays))
		gauge(descLetters, float64(s.DeadLetters.Bytes))
		for _, state := range states {
			v := 0.0
			if s.State == state {
				v = 1
			}
			gauge(descState, v, string(state))
		}
	}
}

// forget drops what is counted of an output.
func (m *metrics) forget(output string) {
	by := prometheus.Labels{"output": output}
	for _, c := range []*prometheus.CounterVec{
		m.sent, m.dropped, m.filtered, m.buried, m.skipped, m.failed, m.retries, m.queries, m.lateSteps,
	} {
		c.DeletePartialMatch(by)
	}
	m.seconds.DeletePartialMatch(by)
	m.inFlight.DeletePartialMatch(by)
}

// outputMetrics are those of one output.
type outputMetrics struct {
	sent, dropped, filtered, failed, retries, queries, lateSteps prometheus.Counter
	seconds                                                      prometheus.Observer
	inFlight                                                     prometheus.Gauge

	buried, skipped *prometheus.CounterVec
	mu              sync.Mutex
	// reasons are those for skipping that were seen: senders name few, and what they name must not grow without bound.
	reasons map[string]bool
}

// reasonsMax bounds the reasons of an output. What comes after is counted as "other".
const reasonsMax = 64

func (m *metrics) of(output string) *outputMetrics {
	by := prometheus.Labels{"output": output}
	return &outputMetrics{
		sent: m.sent.With(by), dropped: m.dropped.With(by), filtered: m.filtered.With(by), failed: m.failed.With(by),
		retries: m.retries.With(by), queries: m.queries.With(by), lateSteps: m.lateSteps.With(by),
		seconds: m.seconds.With(by), inFlight: m.inFlight.With(by),
		buried: m.buried.MustCurryWith(by), skipped: m.skipped.MustCurryWith(by), reasons: map[string]bool{},
	}
}

func (m *outputMetrics) bury(class string, n int) {
	if n > 0 {
		m.buried.WithLabelValues(class).Add(float64(n))
	}
}

func (m *outputMetrics) skip(reason string, n int) {
	if n <= 0 {
		return
	}
	m.mu.Lock()
	if !m.reasons[reason] {
		if len(m.reasons) >= reasonsMax {
			reason = "other"
		}
		m.reasons[reason] = true
	}
	m.mu.Unlock()
	m.skipped.WithLabelValues(reason).Add(float64(n))
}
