package canary

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Ages, as metrics name them.
const (
	ageFresh    = "fresh"
	ageRestart  = "restart"
	ageCut      = "cut"
	ageSealed   = "sealed"
	ageRolledUp = "rolled_up"
	ageOld      = "old"
)

var ages = []string{ageFresh, ageRestart, ageCut, ageSealed, ageRolledUp, ageOld}

type metrics struct {
	mismatches, missing, checked, failures *prometheus.CounterVec
	written                                prometheus.Counter
	writeSeconds, readSeconds              prometheus.Histogram
	lastWrite, lastRead                    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, interval time.Duration) *metrics {
	byAge := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"age"})
		for _, age := range ages {
			v.WithLabelValues(age)
		}
		return v
	}
	duration := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help,
			// A sync of a quiet disk takes less than a millisecond, one that stalls seconds.
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		})
	}
	last := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "varve_canary_last_success_timestamp_seconds",
		Help: "When the canary last wrote samples that were acknowledged, and last read some that were all as written.",
	}, []string{"operation"})
	m := &metrics{
		mismatches: byAge("varve_canary_mismatches_total",
			"Samples that the canary did not read back as they were written: other bits, missing, or aggregates that don't follow from them. Anything but 0 is lost or altered data; the log names each."),
		missing: byAge("varve_canary_missing_samples_total", "Of the mismatches, samples that were acknowledged and are not there."),
		checked: byAge("varve_canary_checked_samples_total", "Samples, and aggregates of samples, that the canary read and compared."),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_canary_failures_total",
			Help: "Writes of the canary that were not acknowledged, and reads that failed. A failure is no mismatch.",
		}, []string{"operation"}),
		written:      prometheus.NewCounter(prometheus.CounterOpts{Name: "varve_canary_written_samples_total", Help: "Samples of the canary that were acknowledged."}),
		writeSeconds: duration("varve_canary_write_duration_seconds", "Time from the beginning of a write of the canary to its acknowledgement."),
		readSeconds:  duration("varve_canary_read_duration_seconds", "Time that the canary's reading of up to an hour of its samples took."),
		lastWrite:    last.WithLabelValues("write"), lastRead: last.WithLabelValues("read"),
	}
	m.failures.WithLabelValues("write")
	m.failures.WithLabelValues("read")
	every := prometheus.NewGauge(prometheus.GaugeOpts{Name: "varve_canary_interval_seconds", Help: "Time between two writes of the canary: canary.interval."})
	every.Set(interval.Seconds())
	if reg != nil {
		reg.MustRegister(every, m.mismatches, m.missing, m.checked, m.failures, m.written, m.writeSeconds, m.readSeconds, last)
	}
	return m
}
