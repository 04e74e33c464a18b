package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/recording"
	"varve/benchmarks/result"
	"varve/internal/gate/server"
)

// writeSession makes a session of short recordings, as three Go programs would give
// them.
func writeSession(t *testing.T, cache string, scrapes int) {
	t.Helper()
	session := filepath.Join(cache, sessionName(time.Unix(1_700_000_000, 0), scrapes))
	require.NoError(t, os.MkdirAll(session, 0o700))
	for n, name := range recordedTargets {
		w, err := recording.Create(filepath.Join(session, name+recording.Extension), name)
		require.NoError(t, err)
		random := rand.New(rand.NewPCG(uint64(n), 1))
		cents, took := 0, 0.0
		for slot := range scrapes {
			cents += random.IntN(90)
			took += random.Float64()
			var text bytes.Buffer
			fmt.Fprintf(&text, "# TYPE go_goroutines gauge\ngo_goroutines %d\n", 20+random.IntN(50))
			fmt.Fprintf(&text, "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %v\n", float64(cents)/100)
			fmt.Fprintf(&text, "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %d\n", 4096*random.IntN(9000))
			fmt.Fprintf(&text, "# TYPE wait_seconds summary\nwait_seconds{quantile=\"0.5\"} NaN\nwait_seconds_sum %v\nwait_seconds_count %d\n", took, slot)
			require.NoError(t, w.Append(recording.Scrape{Millis: int64(slot)*1000 + int64(random.IntN(3)), Text: text.Bytes()}))
		}
		require.NoError(t, w.Close())
	}
}

// TestAgainstPeers shows, with the real servers, that a fleet is taken in, settles,
// comes back bit for bit from Varve and Prometheus, is asked about, and survives
// kill -9; and that the fleets of pods are measured. It runs with the gates, which
// name the varve program: VARVE_BINARY=bin/varve go test ./benchmarks.
func TestAgainstPeers(t *testing.T) {
	if os.Getenv(server.EnvBinary) == "" {
		t.Skipf("SKIPPED, the benchmarks are not tried against real servers: %s is not set, make gate sets it", server.EnvBinary)
	}
	for program, debian := range map[string]string{"prometheus": "prometheus", "victoria-metrics": "victoria-metrics"} {
		if _, err := exec.LookPath(program); err != nil {
			server.Lacking(t, "no %s in PATH: apt-get install %s", program, debian)
		}
	}
	// The servers end with the thread that started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	s := &settings{
		peers: "varve,victoriametrics,prometheus", varve: server.Binary(t, ""), directory: dir, results: filepath.Join(dir, "results.jsonl"),
		page: filepath.Join(dir, "page.md"), recordings: filepath.Join(dir, "recordings"), size: "quick",
	}
	s.shrink()
	s.lifeHours, s.pods = []int{2}, 1
	writeSession(t, s.recordings, 120)
	require.NoError(t, s.measure(t.Context(), []verb{{"fleet", replay}, {"churn", churn}}))
	require.NoError(t, renderPage(t.Context(), s))
	s.check = true
	require.NoError(t, renderPage(t.Context(), s))

	text, err := os.ReadFile(s.results)
	require.NoError(t, err)
	entries, err := result.Load(bytes.NewReader(text))
	require.NoError(t, err)
	require.Len(t, entries, 6)
	for _, e := range entries[:3] {
		exact := e.Fleet.Exact
		require.Equal(t, e.Fleet.Replay.Samples, exact.Sent)
		require.Zero(t, exact.Extra, "%s: %s", e.Peer.Name, exact.Difference)
		require.Positive(t, e.Fleet.Disk.Bytes)
		require.Positive(t, e.Fleet.SamplesPerSecond)
		require.Positive(t, e.Fleet.AnsweredSeconds)
		if e.Peer.Kind == "victoriametrics" {
			// It keeps no NaN but stale markers.
			require.Equal(t, exact.Missing, exact.MissingNaN, exact.Difference)
			continue
		}
		require.Equal(t, exact.Sent, exact.Exact, "%s: %s", e.Peer.Name, exact.Difference)
		for _, l := range e.Fleet.Labels {
			require.Empty(t, l.Error)
			require.True(t, l.Identical, "%s: %s", e.Peer.Name, l.Path)
		}
	}
	for _, e := range entries[3:] {
		require.Len(t, e.Churn, 2)
		for _, d := range e.Churn {
			require.Positive(t, d.Disk.Bytes)
			require.Positive(t, d.Replay.Stale)
		}
	}
}
