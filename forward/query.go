package forward

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"varve/archive"
)

// Query is evaluated at each multiple of Interval since 1970, and its result is sent as samples of that time.
type Query struct {
	// Name is unique in the output, and names the place that is kept.
	Name string
	Expr string
	// Metric becomes the name of the results, if it isn't empty. Labels are set on them.
	Metric string
	Labels labels.Labels
	// Interval is at least a millisecond. Delay is how long after its time a step is evaluated, so that what is late is there.
	Interval, Delay time.Duration
}

func (q *Query) check() error {
	switch {
	case q.Name == "":
		return fmt.Errorf("query %q has no name", q.Expr)
	case q.Expr == "":
		return fmt.Errorf("query %q has no expression", q.Name)
	case q.Interval < time.Millisecond:
		return fmt.Errorf("query %q: interval %v is too short", q.Name, q.Interval)
	case q.Delay < 0:
		return fmt.Errorf("query %q: delay %v is negative", q.Name, q.Delay)
	}
	return nil
}

// querier evaluates one query of an output, step by step, and hands the results to the shards.
type querier struct {
	worker
	s      *session
	q      *Query
	ledger *ledger
	// settled and at are the last step that is settled and the one at hand. Of worker.mu.
	settled, at time.Time
	// series are the targets of the results of the last step, by the hash of the results' labels.
	series map[uint64]resultTarget
}

type resultTarget struct {
	labels labels.Labels
	target *target
}

func newQuerier(s *session, q *Query) *querier {
	return &querier{worker: worker{o: s.output, state: StateRunning}, s: s, q: q, ledger: newLedger(), series: map[uint64]resultTarget{}}
}

// step is the last step at or before t.
func (q *Query) step(t time.Time) time.Time {
	interval := q.Interval.Milliseconds()
	ms := t.UnixMilli()
	ms -= ((ms % interval) + interval) % interval
	return time.UnixMilli(ms)
}

func (q *Query) next(step time.Time) time.Time {
	return step.Add(q.Interval.Truncate(time.Millisecond))
}

func (q *querier) run(ctx context.Context) {
	last, ok := q.begin(ctx)
	for ok && q.s.gate.pass(ctx) == nil && q.s.room.wait(ctx) == nil {
		at := q.q.next(last)
		if wait(ctx, at.Add(q.q.Delay).Sub(q.s.f.Now())) != nil {
			return
		}
		q.mu.Lock()
		q.at = at
		q.mu.Unlock()
		result, ok := q.evaluate(ctx, at)
		if ctx.Err() != nil {
			return
		}
		if !ok {
			// Given up. The place moves over it in its turn.
			result = nil
		}
		q.hand(ctx, at, result)
		last = at
	}
}

// begin is the step that was settled last. A new query begins with the output's Start, or now.
func (q *querier) begin(ctx context.Context) (last time.Time, ok bool) {
	for tries := 0; ; tries++ {
		last, err := q.saved()
		if err == nil {
			q.calm()
			q.mu.Lock()
			q.settled = last
			q.mu.Unlock()
			return last, true
		}
		q.fail(err)
		if wait(ctx, q.o.backoff(tries)) != nil {
			return time.Time{}, false
		}
	}
}

func (q *querier) saved() (time.Time, error) {
	o := q.s.output
	t, known, err := o.f.Times.SavedTime(o.Name, q.q.Name)
	if err != nil {
		return time.Time{}, fmt.Errorf("query %q: look up the place: %w", q.q.Name, err)
	}
	if !known {
		t = o.f.Now()
		if from := o.Start.From; !from.IsZero() && !o.Start.All {
			// The step at From is to be sent.
			t = from.Add(-time.Millisecond)
		}
		if err := o.f.Times.SaveTime(o.Name, q.q.Name, q.q.step(t)); err != nil {
			return time.Time{}, fmt.Errorf("query %q: save the place: %w", q.q.Name, err)
		}
	}
	return q.q.step(t), nil
}

// evaluate asks until it is answered. It is not ok if ctx ended, or if the step was given up.
func (q *querier) evaluate(ctx context.Context, at time.Time) (result promql.Vector, ok bool) {
	o := q.s.output
	for tries := 0; ctx.Err() == nil; tries++ {
		result, err := o.f.Evaluator.Query(ctx, q.q.Expr, at)
		if err == nil {
			q.calm()
			return result, true
		}
		if ctx.Err() != nil {
			break
		}
		o.m.queries.Inc()
		q.fail(fmt.Errorf("query %q at %s: %w", q.q.Name, at.UTC().Format(time.RFC3339Nano), err))
		if o.BacklogAge > 0 && o.f.Now().Sub(at) > o.BacklogAge {
			o.m.lateSteps.Inc()
			break
		}
		if wait(ctx, o.backoff(tries)) != nil {
			break
		}
	}
	return nil, false
}

// hand gives the results of a step to the shards.
func (q *querier) hand(ctx context.Context, at time.Time, result promql.Vector) {
	split := make([]*part, len(q.s.shards))
	now := time.Now()
	seen := make(map[uint64]resultTarget, len(result))
	for i := range result {
		r := &result[i]
		t := q.target(r.Metric, seen)
		if t == unwanted {
			q.s.m.filtered.Inc()
			continue
		}
		p := split[t.shard]
		if p == nil {
			p = parts.Get().(*part)
			p.staged = now
			split[t.shard] = p
		}
		if r.H != nil {
			p.histograms = append(p.histograms, targetHistogram{t, Histogram{TimeMillis: at.UnixMilli(), Float: r.H}})
			continue
		}
		p.targets = append(p.targets, t)
		p.floats = append(p.floats, Float{TimeMillis: at.UnixMilli(), Value: r.F})
	}
	q.series = seen
	r := &read{arrived: at}
	r.save = func(archive.Tally) error {
		if err := q.s.letters.sync(); err != nil {
			return err
		}
		if err := q.s.f.Times.SaveTime(q.s.Name, q.q.Name, at); err != nil {
			return fmt.Errorf("query %q: %w", q.q.Name, err)
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.settled = at
		return nil
	}
	q.s.hand(ctx, q.ledger, r, split, archive.Tally{})
}

// target is that of a result, remembered from the step before if it was there.
func (q *querier) target(ls labels.Labels, seen map[uint64]resultTarget) *target {
	hash := ls.Hash()
	r, ok := q.series[hash]
	if !ok || !labels.Equal(r.labels, ls) {
		b := labels.NewBuilder(ls)
		if q.q.Metric != "" {
			b.Set(model.MetricNameLabel, q.q.Metric)
		}
		q.q.Labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		r = resultTarget{ls, q.s.made.of(b.Labels())}
	}
	seen[hash] = r
	return r.target
}

func (q *querier) shown() StatusQuery {
	w := q.worker.shown()
	q.mu.Lock()
	defer q.mu.Unlock()
	return StatusQuery{Name: q.q.Name, State: w.State, Settled: optional(q.settled), At: optional(q.at)}
}

// forgetQueries removes the places of the queries of an output that was removed.
func (o *output) forgetQueries() {
	for i := range o.Queries {
		if err := o.f.Times.SaveTime(o.Name, o.Queries[i].Name, time.Time{}); err != nil {
			o.log.Error("the place of a query of an output that was removed is still there", "query", o.Queries[i].Name, "err", err)
		}
	}
}

// rewindQueries makes the queries begin at start again: from now on if it is zero. There is no beginning of all for them.
func (o *output) rewindQueries(start archive.Start) error {
	if start.All {
		return nil
	}
	for i := range o.Queries {
		q := &o.Queries[i]
		t := o.f.Now()
		if !start.From.IsZero() {
			t = start.From.Add(-time.Millisecond)
		}
		if err := o.f.Times.SaveTime(o.Name, q.Name, q.step(t)); err != nil {
			return fmt.Errorf("query %q: save the place: %w", q.Name, err)
		}
	}
	return nil
}
