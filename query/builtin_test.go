package query_test

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"varve/internal/testkit"
)

// Upstream's acceptance scripts pass, answered in parts over one thinned view,
// and each of their queries, instant ones turned into ranges, has the same
// answer, to the bit, in upstream's engine and in every variant of ours.
func TestScripts(t *testing.T) {
	for _, delayed := range []bool{false, true} {
		if delayed && !long() {
			continue // TestChurningSeries covers it
		}
		t.Run(map[bool]string{false: "names dropped at once", true: "names dropped last"}[delayed], func(t *testing.T) {
			variants := []variant{
				{"3 parts, thinned view", forced(t, 3, delayed), inArrays},
				{"2 parts, queriers", forced(t, 2, delayed), hideView},
			}
			if long() {
				variants = append(variants,
					variant{"1 part, thinned", forced(t, 1, delayed), inArrays},
					variant{"2 parts, thinned view", forced(t, 2, delayed), inArrays},
					variant{"3 parts, view", forced(t, 3, delayed), viewArrays},
					variant{"7 parts, view", forced(t, 7, delayed), viewArrays},
					variant{"7 parts, thinned view", forced(t, 7, delayed), inArrays},
					variant{"7 parts, queriers", forced(t, 7, delayed), hideView},
				)
			}
			c := newComparer(t, delayed, variants...)
			c.answer = forced(t, 3, true)
			c.grids = []rangeGrid{{10 * time.Minute, 10 * time.Minute, time.Minute}}
			if long() {
				c.grids = append(c.grids,
					rangeGrid{50 * time.Minute, 51 * time.Minute, 5 * time.Minute},
					rangeGrid{301 * time.Second, 311 * time.Second, 37 * time.Second})
			}
			promqltest.RunBuiltinTestsWithStorage(testkit.Scripts(t), c, func(tb testing.TB) storage.Storage {
				return testkit.Upstream(tb, testkit.StartTimestamps)
			})
		})
	}
}
