package ingest

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// doorMetrics are those of one door.
type doorMetrics struct {
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
	gauge := func(name, help string, more ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"input"}, more...))
		return registered(reg, v).MustCurryWith(prometheus.Labels{"input": input})
	}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"input"}, more...))
		return registered(reg, v).MustCurryWith(prometheus.Labels{"input": input})
	}
	return &doorMetrics{
		active:       gauge("varve_ingest_active_series", "Series of an input in the last one to two hours, where their number is limited.").WithLabelValues(),
		elected:      gauge("varve_ingest_replica_elected", "1 for the replica of a cluster whose samples are stored.", "cluster", "replica"),
		failovers:    counter("varve_ingest_replica_failovers_total", "How often another replica of a cluster was elected because the one before was silent.", "cluster"),
		buffered:     gauge("varve_ingest_replica_buffer_bytes", "What is kept of replicas that are not elected, to fill the gap of a failover.").WithLabelValues(),
		bufferLost:   counter("varve_ingest_replica_buffer_lost_total", "Samples of replicas that are not elected for which the buffer had no room, so that a failover now would leave a gap.").WithLabelValues(),
		thinSeries:   gauge("varve_ingest_thin_series", "Series that are thinned.").WithLabelValues(),
		thinPoints:   counter("varve_ingest_thin_points_total", "Points that thinning wrote, those written again included.").WithLabelValues(),
		thinRefused:  counter("varve_ingest_thin_refused_total", "Points of thinning that the archive refused, by reason, after their samples were acknowledged.", "reason"),
		thinClosed:   gauge("varve_ingest_thin_closed_timestamp_seconds", "The last end of an interval whose points are written.").WithLabelValues(),
		thinFailures: counter("varve_ingest_thin_failures_total", "How often the points of an interval could not be written. They are written later.").WithLabelValues(),
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
