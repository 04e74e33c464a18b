package ingest

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// doorMetrics are those of one door.
type doorMetrics struct {
	input string
	// gauges are those of all inputs.
	gauges []*prometheus.GaugeVec

	active       prometheus.Gauge
	elected      *prometheus.GaugeVec
	failovers    *prometheus.CounterVec
	buffered     prometheus.Gauge
	bufferLost   prometheus.Counter
	thinSeries   prometheus.Gauge
	thinPoints   prometheus.Counter
	thinRefused  *prometheus.CounterVec
	thinClosed   prometheus.Gauge
	thinFailures prometheus.Counter
}

// newDoorMetrics registers the metrics of doors with reg, which may be nil, unless
// another door did, and returns those of the input.
func newDoorMetrics(reg prometheus.Registerer, input string) *doorMetrics {
	m := &doorMetrics{input: input}
	gauge := func(name, help string, more ...string) *prometheus.GaugeVec {
		v := registered(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"input"}, more...)))
		m.gauges = append(m.gauges, v)
		return v.MustCurryWith(prometheus.Labels{"input": input})
	}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"input"}, more...))
		return registered(reg, v).MustCurryWith(prometheus.Labels{"input": input})
	}
	m.active = gauge("varve_ingest_active_series", "Series of an input in the last one to two hours, where their number is limited.").WithLabelValues()
	m.elected = gauge("varve_ingest_replica_elected", "1 for the replica of a cluster whose samples are stored.", "cluster", "replica")
	m.failovers = counter("varve_ingest_replica_failovers_total", "How often another replica of a cluster was elected because the one before was silent.", "cluster")
	m.buffered = gauge("varve_ingest_replica_buffer_bytes", "What is kept of replicas that are not elected, to fill the gap of a failover.").WithLabelValues()
	m.bufferLost = counter("varve_ingest_replica_buffer_lost_total", "Samples of replicas that are not elected for which the buffer had no room, so that a failover now would leave a gap.").WithLabelValues()
	m.thinSeries = gauge("varve_ingest_thin_series", "Series that are thinned.").WithLabelValues()
	m.thinPoints = counter("varve_ingest_thin_points_total", "Points that thinning wrote, those written again included.").WithLabelValues()
	m.thinRefused = counter("varve_ingest_thin_refused_total", "Points of thinning that the archive refused, by reason, after their samples were acknowledged.", "reason")
	m.thinClosed = gauge("varve_ingest_thin_closed_timestamp_seconds", "The last end of an interval whose points are written.").WithLabelValues()
	m.thinFailures = counter("varve_ingest_thin_failures_total", "How often the points of an interval could not be written. They are written later.").WithLabelValues()
	return m
}

// forget removes what says how the input is at the moment. What it counted stays.
func (m *doorMetrics) forget() {
	for _, v := range m.gauges {
		v.DeletePartialMatch(prometheus.Labels{"input": m.input})
	}
}

// registered registers a vector, or returns the one that another door registered.
func registered[C prometheus.Collector](reg prometheus.Registerer, v C) C {
	if reg == nil {
		return v
	}
	err := reg.Register(v)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		return already.ExistingCollector.(C)
	}
	if err != nil {
		panic(err)
	}
	return v
}
