package peers

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"varve/internal/gate/server"
)

// Victoria is Debian's VictoriaMetrics with an empty storage that keeps all times.
type Victoria struct {
	*server.Server
	// OpenTSDB takes puts over HTTP, Telnet as lines; both are host:port.
	OpenTSDB, Telnet string
}

// StartVictoria starts one, with more flags.
func StartVictoria(t testing.TB, flags ...string) *Victoria {
	t.Helper()
	binary := program(t, "victoria-metrics", "victoria-metrics")
	s, at := begin(t, 3, func(at []string) server.Options {
		return server.Options{Binary: binary, ReadyPath: "/health", Args: append([]string{
			"-httpListenAddr=" + at[0], "-opentsdbHTTPListenAddr=" + at[1], "-opentsdbListenAddr=" + at[2],
			"-storageDataPath=" + t.TempDir(), "-retentionPeriod=100y", "-search.latencyOffset=0s",
		}, flags...)}
	}, (*server.Server).WaitReady)
	return &Victoria{s, at[1], at[2]}
}

// VictoriaSeries is a series in an export.
type VictoriaSeries struct {
	Metric     map[string]string `json:"metric"`
	Values     []float64         `json:"values"`
	Timestamps []int64           `json:"timestamps"`
}

// Exported reads everything back that it has stored by now.
func (v *Victoria) Exported(t testing.TB) (all []VictoriaSeries) {
	t.Helper()
	_, _, err := server.Get(t.Context(), v.URL("/internal/force_flush"))
	must(t, err)
	status, body, err := server.Get(t.Context(), v.URL("/api/v1/export?match[]={__name__!=%22%22}&start=0"))
	http.DefaultClient.CloseIdleConnections()
	must(t, err)
	if status != http.StatusOK {
		t.Fatalf("export of VictoriaMetrics: status %d: %s", status, body)
	}
	for line := range strings.Lines(string(body)) {
		var s VictoriaSeries
		must(t, json.Unmarshal([]byte(line), &s))
		all = append(all, s)
	}
	return all
}
