package peer_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/peer"
)

// Shows the forms in which a server may be named.
func TestParse(t *testing.T) {
	for text, want := range map[string]peer.Spec{
		"prometheus":                           {Name: "prometheus", Kind: peer.Prometheus, Binary: "prometheus"},
		"victoriametrics":                      {Name: "victoriametrics", Kind: peer.VictoriaMetrics, Binary: "victoria-metrics"},
		"influxdb":                             {Name: "influxdb", Kind: peer.InfluxDB, Binary: "influxd"},
		"varve":                                {Name: "varve", Kind: peer.Varve},
		"prom3=prometheus:/opt/p3/prometheus":  {Name: "prom3", Kind: peer.Prometheus, Binary: "/opt/p3/prometheus"},
		"old=varve:http://127.0.0.1:29000/":    {Name: "old", Kind: peer.Varve, Address: "127.0.0.1:29000"},
		"vm=victoriametrics:victoria-metrics2": {Name: "vm", Kind: peer.VictoriaMetrics, Binary: "victoria-metrics2"},
	} {
		spec, err := peer.Parse(text)
		require.NoError(t, err)
		require.Equal(t, want, spec)
	}
	_, err := peer.Parse("x=graphite:/bin/x")
	require.ErrorContains(t, err, "graphite")
}

// Shows that a started process has costs, that its end is noticed with its last
// words, and that a killed one is gone.
func TestServerLifecycle(t *testing.T) {
	script := filepath.Join(t.TempDir(), "server")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho busy >&2\nexec sleep 100\n"), 0o700))
	spec := peer.Spec{Name: "fake", Kind: peer.Varve, Binary: script}
	server, err := peer.Start(spec, t.TempDir())
	require.NoError(t, err)
	cost, err := server.Cost()
	require.NoError(t, err)
	require.Positive(t, cost.RSSBytes)
	require.NoError(t, server.Stop(time.Minute))
	_, err = server.Cost()
	require.Error(t, err)

	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho cannot start >&2\nexit 1\n"), 0o700))
	server, err = peer.Start(spec, t.TempDir())
	require.NoError(t, err)
	require.ErrorContains(t, server.WaitReady(t.Context(), time.Minute), "cannot start")
	server.Kill()
}

// Shows that the size of a data directory is what its files take, logs apart.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "wal"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "wal", "1"), make([]byte, 8192), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data"), make([]byte, 16384), 0o600))
	server := &peer.Server{Spec: peer.Spec{Kind: peer.Prometheus}, DataDir: dir}
	require.NoError(t, peer.DropCached(dir))
	disk, err := server.Disk()
	require.NoError(t, err)
	require.Equal(t, peer.Disk{Bytes: 24576, FixedBytes: 8192, LogBytes: 8192}, disk)
}

// Shows that syncs are measured, bounded and sorted.
func TestSyncTimes(t *testing.T) {
	times, err := peer.SyncTimes(t.TempDir(), 5)
	require.NoError(t, err)
	require.NotEmpty(t, times)
	require.LessOrEqual(t, len(times), 5)
	require.IsNonDecreasing(t, times)
}
