package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/benchmarks/result"
)

// TestSnapshots shows, with the real server, that three snapshots are made, of which the later ones send less; that one is verified
// and restored with every sample; and that writes beside snapshots are measured. It runs with the gates, as TestAgainstPeers does.
func TestSnapshots(t *testing.T) {
	entries, page := quickRun(t, func(s *settings) {
		writeSession(t, s.recordings, 120)
	}, verb{"snapshots", snapshots})
	require.Len(t, entries, 1)
	s := entries[0].Snapshots
	require.Len(t, s.Made, 3)
	require.Equal(t, s.Made[0].Bytes, s.Made[0].SentBytes)
	require.Less(t, s.Made[2].SentBytes, s.Made[1].SentBytes)
	for _, m := range s.Made {
		require.Positive(t, m.TookSeconds)
		sum := result.SnapshotFamily{}
		for _, f := range m.Families {
			sum.Bytes, sum.SentBytes = sum.Bytes+f.Bytes, sum.SentBytes+f.SentBytes
		}
		require.Equal(t, result.SnapshotFamily{Bytes: m.Bytes, SentBytes: m.SentBytes}, sum)
	}
	require.Positive(t, s.Made[0].Families["raw"].Bytes)
	require.Greater(t, s.Made[1].Families["raw"].Bytes, s.Made[0].Families["raw"].Bytes)
	require.Len(t, s.Moves, 4)
	require.Equal(t, s.Want, s.Found)
	require.Len(t, s.Stretches, 4)
	for i, w := range s.Stretches {
		require.Positive(t, w.Requests)
		require.Equal(t, i%2 == 1, w.Snapshots > 0)
	}
	require.Contains(t, page, "sealed data: raw, clocks, rollups")
}

// Shows that the data end today, at most at noon and never in the future, and begin at a midnight before the days that are sealed.
func TestSnapshotFleet(t *testing.T) {
	recordings := t.TempDir()
	writeSession(t, recordings, 120)
	s := &settings{size: "quick", recordings: recordings}
	s.shrink()
	b := &bench{settings: s, began: time.Now()}
	e, err := b.openExporters(t.Context())
	require.NoError(t, err)
	for now, hours := range map[string]float64{"2026-03-05T00:01:00Z": 0, "2026-03-05T07:02:00Z": 7, "2026-03-05T19:00:00Z": 12} {
		at, err := time.Parse(time.RFC3339, now)
		require.NoError(t, err)
		f, rounds, err := b.snapshotFleet(e, at)
		require.NoError(t, err)
		require.Equal(t, "2026-03-03T00:00:00Z", time.UnixMilli(f.Config().StartMillis).UTC().Format(time.RFC3339))
		require.InDelta(t, hours, float64(rounds)/roundsPerHour, 0)
		require.Equal(t, 2*roundsPerDay+rounds, f.Config().Rounds)
		require.False(t, time.UnixMilli(f.Millis(0, f.Config().Rounds-1)).After(at))
	}
}

// Shows what a program costs and says, that it has a terminal, and that an error tells what it said.
func TestRunProgram(t *testing.T) {
	b := &bench{root: t.TempDir()}
	var run programRun
	var err error
	// Its memory is looked at now and then, which on a busy machine may be never before its end.
	for range 20 {
		run, err = b.runProgram(t.Context(), "sh", "-c", "test -t 0 && i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done")
		require.NoError(t, err)
		require.Equal(t, "done\n", run.Output)
		if run.PeakBytes > 0 {
			break
		}
	}
	require.Positive(t, run.CPUSeconds)
	require.Positive(t, run.PeakBytes)
	require.Less(t, run.PeakBytes, int64(50<<20)) // It is not this program's own.
	require.GreaterOrEqual(t, run.Elapsed.Seconds(), run.CPUSeconds/2)
	_, err = b.runProgram(t.Context(), "sh", "-c", "echo no such block >&2; exit 3")
	require.ErrorContains(t, err, "no such block")
	require.ErrorContains(t, err, "exit status 3")
	require.Zero(t, b.costOf(nil))
}
