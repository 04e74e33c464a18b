package archive_test

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"varve/internal/testkit"
)

// TestPromQLScripts runs all of upstream's acceptance scripts over the archive,
// with every sample read from memory and from runs, and with VARVE_LONG=1 after a replay and
// from bundles too. Without, the tests of package query run them all over bundles that were
// made of what a replay brought back, and TestMetamorphic asks in all stages.
func TestPromQLScripts(t *testing.T) {
	for name, stage := range testkit.Stages {
		t.Run(name, func(t *testing.T) {
			if stage != testkit.Memory && stage != testkit.Runs && !long() {
				t.Skipf("SKIPPED: VARVE_LONG=1 runs all scripts %s too", name)
			}
			t.Parallel()
			engine := promqltest.NewTestEngine(t, false, 5*time.Minute, promqltest.DefaultMaxSamplesPerQuery)
			promqltest.RunBuiltinTestsWithStorage(testkit.Scripts(t), engine, func(tb testing.TB) storage.Storage {
				return testkit.NewStorage(tb, stage)
			})
		})
	}
}
