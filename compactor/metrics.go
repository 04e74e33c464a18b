package compactor

import "github.com/prometheus/client_golang/prometheus"

// metrics tell what the compactor is at. What it did is counted by the archive.
type metrics struct{ c *Compactor }

var (
	descRunning = prometheus.NewDesc("varve_compactor_running", "1 while a job is done.", nil, nil)
	descSince   = prometheus.NewDesc("varve_compactor_job_seconds", "How long the job under way has taken, 0 without one.", nil, nil)
	descPlanned = prometheus.NewDesc("varve_compactor_planned_jobs", "Jobs that were due when the compactor last looked and are not done.", nil, nil)
	descWaiting = prometheus.NewDesc("varve_compactor_held_days", "Sealed days whose runs a query still holds.", nil, nil)
	descForce   = prometheus.NewDesc("varve_compactor_unforced_bytes", "Bytes that are past their age and too many to expire unless somebody forces it, 0 if there are none.", nil, nil)
	descFailed  = prometheus.NewDesc("varve_compactor_failed", "1 if something failed the last time there was work. It will be tried again.", nil, nil)
)

func newMetrics(c *Compactor, r prometheus.Registerer) *metrics {
	m := &metrics{c}
	if r != nil {
		r.MustRegister(m)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRunning, descSince, descPlanned, descWaiting, descForce, descFailed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	s := m.c.Status()
	running, since, failed := 0.0, 0.0, 0.0
	if s.Running != nil {
		running, since = 1, m.c.o.Now().Sub(s.Since).Seconds()
	}
	if s.Failed != nil {
		failed = 1
	}
	gauge(descRunning, running)
	gauge(descSince, since)
	gauge(descPlanned, float64(len(s.Planned)))
	gauge(descWaiting, float64(s.Waiting))
	unforced := 0.0
	for i := range s.Unforced {
		unforced += float64(s.Unforced[i].Expiry.Bytes)
	}
	gauge(descForce, unforced)
	gauge(descFailed, failed)
}
