package query

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/util/stats"
)

// slices of a query's time, by the names that upstream gives them.
var timedSlices = []struct {
	label  string
	timing stats.QueryTiming
}{
	{"queue_time", stats.ExecQueueTime},
	{"prepare_time", stats.QueryPreparationTime},
	{"inner_eval", stats.InnerEvalTime},
	{"result_sort", stats.ResultSortTime},
}

// metrics counts every query once, under upstream's names where upstream has
// one, so that dashboards and alerts for Prometheus keep working.
type metrics struct {
	concurrent  prometheus.Gauge
	logEnabled  prometheus.Gauge
	samples     prometheus.Counter
	samplesRead prometheus.Counter
	seconds     *prometheus.SummaryVec
	distributed *prometheus.HistogramVec

	split  prometheus.Counter
	parts  prometheus.Counter
	reruns *prometheus.CounterVec
	failed *prometheus.CounterVec

	planned prometheus.Counter
	rows    prometheus.Counter
}

func newMetrics() *metrics {
	const engine, ours = "prometheus_engine_", "varve_query_"
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		concurrent:  gauge(engine+"queries_concurrent_max", "The max number of concurrent queries."),
		logEnabled:  gauge(engine+"query_log_enabled", "State of the query log."),
		samples:     counter(engine+"query_samples_total", "The total number of samples loaded by all queries (full window per step for range-vector)."),
		samplesRead: counter(engine+"query_samples_read_total", "The total number of samples read by all queries (only new points per step for range-vector)."),
		seconds: prometheus.NewSummaryVec(prometheus.SummaryOpts{
			Name: engine + "query_duration_seconds", Help: "Query timings",
			Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001},
		}, []string{"slice"}),
		distributed: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: engine + "query_duration_histogram_seconds", Help: "The duration of various parts of PromQL query execution.",
			Buckets:                        []float64{.01, .1, 1, 10},
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"slice"}),
		split:   counter(ours+"split_total", "Queries evaluated in several parts at once."),
		planned: counter(ours+"planned_total", "Queries answered from rollups, or from rollups and raw samples."),
		rows:    counter(ours+"planned_rows_total", "Rows of rollups and raw samples read for planned queries."),
		parts:   counter(ours+"parts_total", "Parts of the queries evaluated in several parts."),
		reruns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ours + "reruns_total", Help: "Split queries evaluated again in one piece, by reason.",
		}, []string{"reason"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ours + "failed_total", Help: "Queries that ended with an error, by the HTTP status of its class.",
		}, []string{"status"}),
	}
}

// register adds the metrics and those read from e to reg.
func (m *metrics) register(reg prometheus.Registerer, e *Engine) error {
	if reg == nil {
		return nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.concurrent, m.logEnabled, m.samples, m.samplesRead, m.seconds, m.distributed, m.split, m.parts, m.reruns, m.failed, m.planned, m.rows,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "prometheus_engine_queries", Help: "The current number of queries being executed or waiting.",
		}, func() float64 { return float64(e.register.count()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "varve_query_queue_length", Help: "The number of queries that wait for a slot.",
		}, func() float64 { return float64(e.gate.waiting()) }),
	} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("register query metrics: %w", err)
	}
	return nil
}

// observe counts a query that ended.
func (m *metrics) observe(s *stats.Statistics, err error) {
	m.samples.Add(float64(s.Samples.TotalSamples))
	m.samplesRead.Add(float64(s.Samples.SamplesRead))
	for _, t := range timedSlices {
		seconds := s.Timers.GetTimer(t.timing).Duration()
		m.seconds.WithLabelValues(t.label).Observe(seconds)
		m.distributed.WithLabelValues(t.label).Observe(seconds)
	}
	if err != nil {
		m.failed.WithLabelValues(fmt.Sprint(Status(err))).Inc()
	}
}
