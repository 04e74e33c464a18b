package archive_test

import (
	"os"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"varve/internal/testkit"
)

// TestPromQLScripts runs all of upstream's acceptance scripts over the archive,
// with every sample read from memory, from runs, after a replay, and from bundles.
func TestPromQLScripts(t *testing.T) {
	for name, stage := range testkit.Stages {
		t.Run(name, func(t *testing.T) {
			if stage == testkit.Reseals && os.Getenv("VARVE_LONG") == "" {
				t.Skip("SKIPPED: TestMetamorphic reseals too; VARVE_LONG=1 runs all scripts with it")
			}
			t.Parallel()
			engine := promqltest.NewTestEngine(t, false, 5*time.Minute, promqltest.DefaultMaxSamplesPerQuery)
			promqltest.RunBuiltinTestsWithStorage(t, engine, func(tb testing.TB) storage.Storage {
				return testkit.NewStorage(tb, stage)
			})
		})
	}
}
