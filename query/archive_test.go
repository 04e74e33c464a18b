package query_test

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"varve/internal/testkit"
)

// Upstream's acceptance scripts pass over the archive when they are answered in
// parts, and each of their queries, instant ones turned into ranges, has the same answer,
// to the bit, whole and in parts, from sealed days that were read back from the journal before.
func TestScriptsOverArchive(t *testing.T) {
	stages := map[string]testkit.Stage{"sealed": testkit.Sealed}
	if long() {
		stages = testkit.Stages
	}
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			as := func(q storage.Queryable) storage.Queryable { return q }
			c := newComparer(t, false, variant{"3 parts", forced(t, 3, false), as})
			c.answer = forced(t, 3, true)
			c.grids = []rangeGrid{{10 * time.Minute, 10 * time.Minute, time.Minute}}
			promqltest.RunBuiltinTestsWithStorage(testkit.Scripts(t), c, func(tb testing.TB) storage.Storage {
				return testkit.NewStorage(tb, stage)
			})
		})
	}
}
