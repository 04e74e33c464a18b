package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"varve/archive"
	"varve/archive/format"
	"varve/canary"
	"varve/config"
	"varve/query"
	"varve/rocks"
)

// cutSlack is what the cutting of a run may come after its greatest age.
const cutSlack = 5 * time.Minute

// runCanary begins the canary, if it is switched on, once the journal is read back. The function that is
// returned ends it and waits for what is under way.
func (s *server) runCanary(a *archive.Archive, engine *query.Engine) (stop func()) {
	c := s.o.config
	if !c.Canary.Enabled || s.o.lookBack {
		return func() {}
	}
	bird := canary.New(canary.Options{
		Writer: a, Reader: canaryReader{archiveStorage{a}, engine}, Past: canaryPast{a, s.current.Load},
		Interval: time.Duration(c.Canary.Interval), CutAge: time.Duration(c.Storage.Runs.MaxAge) + cutSlack,
		Damaged:     func(err error) bool { return errors.Is(err, archive.ErrCorrupt) || errors.Is(err, rocks.ErrCorrupt) },
		Resolutions: resolutions(c), Seed: uint64(time.Now().UnixNano()), Registerer: s.registry, Logger: s.o.logger,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		bird.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// canaryReader is the archive as the API reads from it.
type canaryReader struct {
	archiveStorage
	engine *query.Engine
}

// Aggregate implements canary.Reader.
func (r canaryReader) Aggregate(ctx context.Context, text string, at time.Time, resolution time.Duration) (promql.Vector, bool, error) {
	buckets, err := query.ParseResolution(levelText(resolution))
	if err != nil {
		return nil, false, err
	}
	q, err := r.engine.NewInstantQuery(ctx, r.archiveStorage, promql.NewPrometheusQueryOpts(false, 0), text, at)
	if err != nil {
		return nil, false, err
	}
	defer q.Close()
	result := q.Exec(query.WithResolution(ctx, buckets))
	vector, err := result.Vector()
	if err != nil {
		return nil, false, err
	}
	// The vector is the query's until it is closed.
	own := make(promql.Vector, 0, len(vector))
	for _, s := range vector {
		if s.H == nil {
			own = append(own, s)
		}
	}
	used := query.SourcesOf(q)
	return own, !used.Raw && !used.Approximate && len(used.Millis) == 1 && used.Millis[0] == resolution.Milliseconds(), nil
}

// canaryPast tells the canary what became of days and samples.
type canaryPast struct {
	a *archive.Archive
	// config is the one in effect.
	config func() *config.Config
}

// Days implements canary.Past.
func (p canaryPast) Days() ([]canary.Day, error) {
	all, err := p.a.Days()
	if err != nil {
		return nil, err
	}
	out := make([]canary.Day, len(all))
	for i, d := range all {
		out[i] = canary.Day{StartMillis: d.Day.StartMillis(), Sealed: d.Sealed, Rolled: d.Rolled && !d.Dirty}
	}
	return out, nil
}

// KeptSince implements canary.Past.
func (p canaryPast) KeptSince(ls labels.Labels, resolution time.Duration) (int64, error) {
	kept, err := retention(p.config())
	if err != nil {
		return 0, err
	}
	status, err := p.a.Retention()
	if err != nil {
		return 0, err
	}
	level := -1
	for i := range status.Levels {
		if status.Levels[i].Resolution == resolution {
			level = i
		}
	}
	if level < 0 {
		return 0, fmt.Errorf("there is no resolution %s", resolution)
	}
	// While the rules are read again the archive may have others for a moment: then what all of them keep counts.
	since := status.Levels[level].Last
	if rule := ruleOf(kept.Rules, ls); len(status.Rules) == len(kept.Rules)+1 {
		since = status.Rules[rule].Cutoffs[level]
	}
	if since = max(since, status.Levels[level].Floor); since == format.MinDay {
		return 0, nil
	}
	return since.StartMillis(), nil
}

// ruleOf is the place of the rule for a series, that behind the last one if there is none.
func ruleOf(rules []archive.RetentionRule, ls labels.Labels) int {
	for i := range rules {
		if len(rules[i].Matchers) == 0 || matchesAny(rules[i].Matchers, ls) {
			return i
		}
	}
	return len(rules)
}

// matchesAny tells whether labels match one of the selectors.
func matchesAny(selectors [][]*labels.Matcher, ls labels.Labels) bool {
	for _, matchers := range selectors {
		if (labels.Selector)(matchers).Matches(ls) {
			return true
		}
	}
	return false
}

// Deletes implements canary.Past.
func (p canaryPast) Deletes(ls labels.Labels, fromMillis, toMillis int64) ([]canary.Delete, error) {
	all, err := p.a.Deletes()
	if err != nil {
		return nil, err
	}
	var out []canary.Delete
	for i := range all {
		d := &all[i]
		if d.FromMillis > toMillis || d.ToMillis < fromMillis {
			continue
		}
		selectors, err := parser.NewParser(parser.Options{}).ParseMetricSelectors(d.Selectors)
		if err != nil {
			return nil, fmt.Errorf("selectors of delete %s: %w", d.ID, err)
		}
		if !matchesAny(selectors, ls) {
			continue
		}
		found := canary.Delete{Created: d.Created}
		if d.State == format.TombstoneUndone {
			found.Undone = d.Ended
		}
		out = append(out, found)
	}
	return out, nil
}
