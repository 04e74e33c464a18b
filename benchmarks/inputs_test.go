package main

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/peer"
	"varve/benchmarks/points"
	"varve/internal/gate/server"
)

// TestInputs shows, with the real servers, that every way in is measured, that each server has all that it acknowledged,
// and that the page tells of it. It runs with the gates, as TestAgainstPeers does.
func TestInputs(t *testing.T) {
	onlyLong(t)
	for program, debian := range map[string]string{"influxd": "influxdb", "victoria-metrics": "victoria-metrics", "nats-server": "nats-server"} {
		if _, err := exec.LookPath(program); err != nil {
			server.Lacking(t, "no %s in PATH: apt-get install %s", program, debian)
		}
	}
	entries, page := quickRun(t, func(s *settings) {
		s.peers = inputPeersDefault
		s.inputsSeries, s.inputsSamples = 2000, 20_000
	}, verb{"inputs", inputs})
	counts := map[string]int{}
	for _, e := range entries {
		require.NotEmpty(t, e.Inputs, e.Peer.Name)
		for _, point := range e.Inputs {
			counts[e.Peer.Kind+" "+point.Part]++
			require.Equal(t, point.Sent, point.Found, "%s: %+v", e.Peer.Name, point)
			require.Equal(t, point.Sent, point.Samples+2000)
			require.Positive(t, point.Seconds)
			require.Equal(t, point.Part == "nats", point.P50Millis == 0)
		}
	}
	// Plain and gzip; line protocol of two shapes; a queue has two formats.
	want := map[string]int{"varve influx": 4, "varve otlp": 2, "varve nats": 2, "varve opentsdb": 2, "varve text": 2, "victoriametrics influx": 4,
		"victoriametrics opentsdb": 2, "victoriametrics text": 2, "influxdb influx": 4}
	if builtPrometheus() != "" {
		want["prometheus otlp"] = 2
	}
	require.Equal(t, want, counts)
	for _, part := range inputParts {
		require.Contains(t, page, "### "+part.name)
	}
	require.NotContains(t, page, "invalid: has")
}

// Shows which parts may be chosen, that their order is one, and that servers without any of them are left out.
func TestChosenParts(t *testing.T) {
	b := &bench{settings: &settings{inputsParts: "text,opentsdb"}}
	parts, err := b.settings.chosenParts()
	require.NoError(t, err)
	require.Len(t, parts, 2)
	require.Equal(t, "opentsdb", parts[0].name)
	specs := []peer.Spec{{Name: "a", Kind: peer.Varve}, {Name: "b", Kind: peer.InfluxDB}, {Name: "c", Kind: peer.VictoriaMetrics}}
	chosen, err := b.inputSpecs(t.Context(), specs)
	require.NoError(t, err)
	require.Equal(t, []peer.Spec{specs[0], specs[2]}, chosen)
	b.settings.inputsParts = "influx,graphite"
	_, err = b.inputSpecs(t.Context(), specs)
	require.ErrorContains(t, err, `"graphite" is none of influx, otlp`)
}

// Shows that wordy bodies are fewer rounds, and that the first round is apart.
func TestEncodePoints(t *testing.T) {
	b := &bench{settings: &settings{}}
	r, err := points.New(points.Config{Shape: points.DevOps, Series: 1000, StepMillis: stepMillis})
	require.NoError(t, err)
	bodies, err := b.encodePoints(r, points.Text, points.Plain, 10, 2, 3)
	require.NoError(t, err)
	require.EqualValues(t, 1000, samplesOf(bodies.first))
	require.EqualValues(t, 2000, samplesOf(bodies.rest))
	require.Equal(t, 3, bodies.rounds)
}
