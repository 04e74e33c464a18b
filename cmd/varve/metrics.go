package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"varve/archive"
)

// serverMetrics are the metrics of the process as a whole.
type serverMetrics struct{ registry *prometheus.Registry }

func newServerMetrics(r *prometheus.Registry, s *server) *serverMetrics {
	v := buildVersion()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "varve_build_info", Help: "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"version": v.Version, "revision": v.Revision, "goversion": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(build,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "varve_config_last_reload_successful", Help: "1 if the last attempt to read the configuration was successful.",
		}, func() float64 { return truth(s.reloadGood.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "varve_config_last_reload_success_timestamp_seconds", Help: "Time of the last successful reading of the configuration.",
		}, func() float64 { return float64(s.reloadedAt.Load()) / 1e3 }),
	)
	return &serverMetrics{registry: r}
}

// watch adds what can be told once there is an archive.
func (m *serverMetrics) watch(a *archive.Archive) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "varve_ready_for_queries", Help: "1 if queries are answered.",
		}, func() float64 { return truth(a.StartError() == nil) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "varve_ready_for_writes", Help: "1 if writes are taken, 0 while the archive is read-only.",
		}, func() float64 {
			reason, _ := a.ReadOnly()
			return truth(reason == "")
		}),
	)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
