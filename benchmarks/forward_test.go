package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/result"
	"varve/internal/gate/server"
)

// onlyLong leaves a test of more than half a minute to runs with VARVE_LONG=1: a CI run is bounded, and what is measured there
// is tested elsewhere.
func onlyLong(t *testing.T) {
	t.Helper()
	if os.Getenv("VARVE_LONG") == "" {
		t.Skipf("SKIPPED: %s is tried with VARVE_LONG=1 make gate", t.Name())
	}
}

// quickRun runs verbs at quick size against the real server and gives the lines and the page.
func quickRun(t *testing.T, change func(*settings), verbs ...verb) ([]result.Entry, string) {
	t.Helper()
	if os.Getenv(server.EnvBinary) == "" {
		t.Skipf("SKIPPED, %s is not tried against a real server: %s is not set, make gate sets it", verbs[0].name, server.EnvBinary)
	}
	// The servers end with the thread that started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	s := &settings{
		peers: "varve", varve: server.Binary(t, ""), directory: dir, results: filepath.Join(dir, "results.jsonl"),
		page: filepath.Join(dir, "page.md"), recordings: filepath.Join(dir, "recordings"), size: "quick", forwardParts: forwardParts,
		inputsParts: strings.Join(inputPartNames(), ","),
	}
	s.shrink()
	change(s)
	require.NoError(t, s.measure(t.Context(), verbs))
	require.NoError(t, renderPage(t.Context(), s))
	text, err := os.ReadFile(s.results)
	require.NoError(t, err)
	entries, err := result.Load(bytes.NewReader(text))
	require.NoError(t, err)
	page, err := os.ReadFile(s.page)
	require.NoError(t, err)
	return entries, string(page)
}

// TestForward shows, with the real server, that every sample comes to the peer of an output: beside ingestion, after the peer
// was away, from the journal and from the archive; and that ingestion beside dead peers is measured. It runs with the gates,
// as TestAgainstPeers does.
func TestForward(t *testing.T) {
	onlyLong(t)
	entries, page := quickRun(t, func(s *settings) {
		s.forwardProtocols, s.forwardShards, s.forwardRates = []int{1, 2}, []int{2}, []int{100_000}
	}, verb{"forward", forward})
	require.Len(t, entries, 1)
	f := entries[0].Forward
	require.Len(t, f.Sustained, 3)
	for _, point := range f.Sustained {
		require.Positive(t, point.Samples)
		if point.Protocol > 0 {
			require.Equal(t, point.Samples, point.Sent)
			require.Positive(t, point.SentDuring)
		}
	}
	require.Len(t, f.CatchUp, 3)
	for _, point := range f.CatchUp {
		require.Len(t, point.Memory, memoryPoints)
		if point.Source != "none" {
			require.Positive(t, point.Sent)
			require.GreaterOrEqual(t, point.Received, point.Ingested)
		}
		require.Equal(t, point.Source == "gaps", point.GapDays > 0)
	}
	require.Len(t, f.Dead, 2)
	require.GreaterOrEqual(t, f.Dead[1].Attempts, int64(4))
	require.Contains(t, page, "## Forwarding")
}

// TestPass shows, with the real server, that writes are measured while days are sealed, rolled up and expire.
func TestPass(t *testing.T) {
	entries, page := quickRun(t, func(s *settings) {
		writeSession(t, s.recordings, 120)
	}, verb{"pass", pass})
	require.Len(t, entries, 1)
	p := entries[0].Pass
	require.Len(t, p.Stretches, 10)
	for i, w := range p.Stretches {
		require.Positive(t, w.Requests, w.Work)
		require.Equal(t, i%2 == 1, w.Work != "")
		require.Equal(t, i%2 == 1, w.WorkSeconds > 0)
	}
	require.Contains(t, page, "background: seal, roll up")
}
