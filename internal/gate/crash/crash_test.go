package crash_test

import (
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/internal/gate/crash"
	"varve/internal/gate/powercut"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

// The environment variables of these tests. Cycles beyond the default belong to
// the nightly gate and to releases.
const (
	envCycles = "CRASH_CYCLES"
	envSeed   = "CRASH_SEED"
)

// defaultCycles is the share of a CI run. No failure in n cycles means that the
// odds of a failure in one are below 3/n, at 95 %.
const defaultCycles = 16

func TestMain(m *testing.M) {
	code := leaks.Patient(m).Run()
	server.RemoveBinaries()
	if err := goleak.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

// TestCrash shows that kill -9 at any moment loses nothing that was acknowledged,
// alters and invents nothing, and leaves index and data in agreement.
func TestCrash(t *testing.T) {
	opts := options(t, number(t, envCycles, defaultCycles))
	report := run(t, opts)
	require.Empty(t, report.Broken)
	require.GreaterOrEqual(t, report.Cycles, opts.Cycles)
	require.Positive(t, report.Bundles, "nothing was sealed, so sealing was not tried")
}

// defaultCompactorCycles is the share of a CI run of the cycles that are meant for the compactor.
const defaultCompactorCycles = 6

// TestCrashCompactor shows that kill -9 while days are sealed, rolled up, cleaned of deletes and trimmed, and expire,
// leaves old or new and never both or neither: no sample and no bucket is lost that a rule keeps, and what was
// deleted or has expired doesn't come back.
func TestCrashCompactor(t *testing.T) {
	opts := options(t, number(t, envCycles, defaultCompactorCycles))
	report := runCompactor(t, opts)
	require.Empty(t, report.Broken)
	require.GreaterOrEqual(t, report.Cycles, opts.Cycles)
	require.Positive(t, report.Wholes)
	for _, job := range []string{crash.JobSeal, crash.JobRoll, crash.JobClean, crash.JobExpire, crash.JobTrim} {
		require.True(t, opts.Cycles < defaultCompactorCycles || report.Jobs[job] > 0, "no job of the kind %s was done", job)
	}
	for _, job := range []string{crash.JobRoll, crash.JobClean, crash.JobTrim} {
		require.True(t, opts.Cycles < 25 || report.Hits[job] > 0, "no kill met a job of the kind %s", job)
	}
}

// TestPowerCut shows that nothing acknowledged is lost with the power either: what
// the server never synced is taken away after each kill.
func TestPowerCut(t *testing.T) {
	opts := options(t, max(number(t, envCycles, defaultCycles)/4, 2))
	opts.PowerCut = recorder(t)
	report := run(t, opts)
	require.Empty(t, report.Broken)
	require.GreaterOrEqual(t, report.Cycles, opts.Cycles)
}

// TestSeededFaults shows that the gate finds what it is for: servers built with a
// fault each are caught, mostly within as many cycles as CI runs. Chance has its part in
// it, so more of them are allowed.
func TestSeededFaults(t *testing.T) {
	for _, fault := range []struct {
		name     string
		powerCut bool
		run      func(*testing.T, crash.Options) crash.Report
	}{
		{"ack-before-commit", false, run},
		{"no-sync-power-cut", true, run},
		{"index-apart", false, run},
		{"raw-before-rollup", false, runCompactor},
	} {
		t.Run(fault.name, func(t *testing.T) {
			opts := options(t, 6*defaultCycles)
			opts.Binary = server.Binary(t, "varvefaults")
			opts.Env = []string{"VARVE_FAULT=" + fault.name}
			if fault.powerCut {
				opts.PowerCut = recorder(t)
			}
			report := fault.run(t, opts)
			require.NotEmpty(t, report.Broken, "%d cycles did not find the fault", report.Cycles)
			t.Logf("found after %d cycles: %s", report.Cycles, report.Broken[0])
		})
	}
}

func options(t *testing.T, cycles int) crash.Options {
	t.Helper()
	if testing.Short() {
		cycles = min(cycles, 4)
	}
	// The share of CI has the same draws each time; of more cycles each run has its own.
	seed := 1
	if os.Getenv(envCycles) != "" {
		seed = int(time.Now().UnixNano() & 0x7fffffff)
	}
	return crash.Options{
		Binary: server.Binary(t, ""), Dir: keptOnFailure(t), Logf: t.Logf,
		Seed:   uint64(number(t, envSeed, seed)),
		Cycles: cycles, ArchiveCycles: 8,
	}
}

func run(t *testing.T, opts crash.Options) crash.Report {
	t.Helper()
	report, err := crash.Run(t.Context(), opts)
	require.NoError(t, err)
	t.Logf("seed %d: %d cycles, %d idle, %d kills, %d samples acknowledged, %d bundles, %.0f/s, ready within %v; %v of load, %v of checks, %v of checks at rest",
		opts.Seed, report.Cycles, report.Idle, report.Kills, report.Acked, report.Bundles,
		float64(report.Acked)/report.Load.Seconds(), report.ReadyMax.Round(time.Millisecond),
		report.Load.Round(time.Second), report.Checks.Round(time.Second), report.Remains.Round(time.Second))
	requireInTime(t, report)
	return report
}

// requireInTime holds that the server kept its promises about starts and stops: most times at least, since the machine may have other work.
func requireInTime(t *testing.T, report crash.Report) {
	t.Helper()
	require.LessOrEqual(t, 2*report.Late, report.Starts+report.Stops, "starts and stops that took longer than is promised")
}

func runCompactor(t *testing.T, opts crash.Options) crash.Report {
	t.Helper()
	opts.ArchiveCycles = max(min(opts.ArchiveCycles, opts.Cycles/2), 1) // one of each sort of rules at least
	report, err := crash.RunCompactor(t.Context(), opts)
	require.NoError(t, err)
	t.Logf("seed %d: %d cycles, %d idle, %d kills, %v met jobs, %v were done, %d samples acknowledged, %d whole passes, ready within %v; %v of work, %v of checks, %v of checks at rest",
		opts.Seed, report.Cycles, report.Idle, report.Kills, report.Hits, report.Jobs, report.Acked, report.Wholes, report.ReadyMax.Round(time.Millisecond),
		report.Load.Round(time.Second), report.Checks.Round(time.Second), report.Remains.Round(time.Second))
	requireInTime(t, report)
	return report
}

// keptOnFailure returns a directory that is removed unless the test fails, so that
// whoever looks into a failure finds the archive.
func keptOnFailure(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "varve-crash-")
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the archive and the ledger are kept in %s", dir)
			return
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

func recorder(t *testing.T) *powercut.Recorder {
	t.Helper()
	r, err := powercut.NewRecorder(t.TempDir())
	if errors.Is(err, powercut.ErrNoCompiler) {
		server.Lacking(t, "%v", err)
	}
	require.NoError(t, err)
	return r
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "environment variable %s", name)
	return n
}
