package snapshot

import "github.com/prometheus/client_golang/prometheus"

// metrics of a Store.
type metrics struct {
	s *Store

	retries, sentBytes, reusedBytes, fetchedBytes prometheus.Counter
	created                                       prometheus.Counter
	failures                                      *prometheus.CounterVec
}

var (
	descLastSuccess  = prometheus.NewDesc("varve_snapshot_last_success_timestamp_seconds", "When the newest snapshot was taken that this process knows of, 0 without one.", nil, nil)
	descLastDuration = prometheus.NewDesc("varve_snapshot_last_duration_seconds", "How long the last snapshot that succeeded took, 0 without one in this process.", nil, nil)
	descLastBytes    = prometheus.NewDesc("varve_snapshot_last_bytes", "Bytes of the last snapshot that succeeded, by whether the bucket held them.", []string{"how"}, nil)
	descRunning      = prometheus.NewDesc("varve_snapshot_running", "1 while a snapshot is made or snapshots are pruned.", nil, nil)
	descSnapshots    = prometheus.NewDesc("varve_snapshot_snapshots", "Snapshots in the bucket when it was last listed, and those made and removed since.", nil, nil)
	descNext         = prometheus.NewDesc("varve_snapshot_next_timestamp_seconds", "When the next snapshot is due, 0 without a schedule.", nil, nil)
)

func newMetrics(s *Store, r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "varve_snapshot_" + name, Help: help})
	}
	m := &metrics{
		s:            s,
		retries:      counter("retries_total", "Requests to the bucket that failed and were tried again."),
		sentBytes:    counter("sent_bytes_total", "Bytes sent to the bucket, with those of attempts that failed."),
		reusedBytes:  counter("reused_bytes_total", "Bytes of snapshots that the bucket held already."),
		fetchedBytes: counter("fetched_bytes_total", "Bytes fetched from the bucket to verify or restore."),
		created:      counter("created_total", "Snapshots made."),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_snapshot_failures_total", Help: "Jobs that failed, by operation.",
		}, []string{"operation"}),
	}
	for _, job := range []string{jobCreate, jobPrune} {
		m.failures.WithLabelValues(job)
	}
	if r != nil {
		r.MustRegister(m)
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.retries, m.sentBytes, m.reusedBytes, m.fetchedBytes, m.created, m.failures}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{descLastSuccess, descLastDuration, descLastBytes, descRunning, descSnapshots, descNext} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := m.s.Status()
	var last, took, next, running float64
	var total Total
	if s.LastSuccess != nil {
		last, took, total = float64(s.LastSuccess.Taken.UnixMilli())/1e3, s.LastSuccess.Seconds, s.LastSuccess.Total
	}
	if !s.Next.IsZero() {
		next = float64(s.Next.UnixMilli()) / 1e3
	}
	if s.Running != nil {
		running = 1
	}
	gauge(descLastSuccess, last)
	gauge(descLastDuration, took)
	gauge(descLastBytes, float64(total.SentBytes), "sent")
	gauge(descLastBytes, float64(total.ReusedBytes), "reused")
	gauge(descRunning, running)
	gauge(descSnapshots, float64(s.Snapshots))
	gauge(descNext, next)
}
