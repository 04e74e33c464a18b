package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"varve/benchmarks/fleet"
	"varve/benchmarks/peer"
)

// countQueryLimit is how long one query of countFleet may take.
const countQueryLimit = 2 * time.Minute

// countFleet asks a server how many samples it has of the rounds from 0 to below rounds of a fleet that
// begins at a midnight. It asks by UTC day, so that no query is too large for a server, and by metric, as
// the function drops the metric's name and may not make two series alike. Stale markers are not counted:
// PromQL does not show them.
func (b *bench) countFleet(ctx context.Context, server *peer.Server, f *fleet.Fleet, rounds int) (int64, error) {
	config := f.Config()
	metrics := metricsOf(f)
	total := 0.0
	for first := 0; first < rounds; first += roundsPerDay {
		end := min(first+roundsPerDay, rounds)
		b.show("%s: counting, %.0f %%", server.Spec.Name, 100*float64(first)/float64(rounds))
		// A range has no sample of its own beginning, and has that of its end.
		at := float64(config.StartMillis+int64(end)*config.StepMillis-1) / 1000
		millis := int64(end-first) * config.StepMillis
		for _, metric := range metrics {
			parameters := url.Values{
				"query": {fmt.Sprintf("sum(count_over_time(%s[%dms]))", metric, millis)},
				"time":  {strconv.FormatFloat(at, 'f', 3, 64)},
			}
			body, _, err := ask(ctx, server, "query", parameters, countQueryLimit)
			if err != nil {
				return 0, err
			}
			parsed, err := parseAnswer(body)
			if err != nil {
				return 0, err
			}
			total += parsed.sum()
		}
	}
	return int64(total), nil
}

// metricsOf are the names of all metrics of a fleet, sorted.
func metricsOf(f *fleet.Fleet) []string {
	seen := map[string]bool{}
	for t := range f.Targets() {
		for i := range f.TargetSeries(t) {
			seen[f.Labels(t, i).Get(model.MetricNameLabel)] = true
		}
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
