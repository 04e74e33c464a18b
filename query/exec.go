package query

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"
)

// query is a promql.Query. Exec
//
//  1. lists it, until Exec returns,
//  2. waits for a slot and enters the tracker,
//  3. plans it over rollups, if the storage has some that help, and then evaluates that,
//  4. else occupies idle cores, as many as there may be parts, and evaluates the parts and merges
//     them, or evaluates the whole,
//  5. counts and logs it, once.
type query struct {
	engine     *Engine
	inner      *inner
	storage    storage.Queryable
	opts       promql.QueryOpts
	text, kind string
	start, end time.Time
	step       time.Duration

	source    *source // of the whole
	whole     promql.Query
	selectors []*selector // of the whole, by index
	partsMax  int
	audit     *audit
	unsplit   string // why partsMax is one

	mu     sync.Mutex // guards cancel
	cancel context.CancelFunc

	used    usage             // of rollups
	parts   int               // really evaluated at once, last
	rerun   string            // why the parts were given up
	samples *stats.Statistics // of the parts, once merged
}

func (e *Engine) newQuery(s storage.Queryable, opts promql.QueryOpts, text, kind string, start, end time.Time, step time.Duration) *query {
	q := &query{engine: e, inner: e.inner.Load(), storage: s, opts: opts, text: text, kind: kind, start: start, end: end, step: step}
	q.source = &source{storage: s, count: q.newCount()}
	return q
}

func (q *query) newCount() *seriesCount {
	return &seriesCount{max: int64(q.inner.limits.SeriesMax)}
}

// countFor returns a count for parts, whose series t shows.
func (q *query) countFor(t *ticket) *seriesCount {
	c := q.newCount()
	c.shown, c.watch = &t.series, q.audit.trustsNames
	return c
}

// around completes q with the upstream query for the whole.
func (q *query) around(whole promql.Query) (promql.Query, error) {
	q.whole = whole
	stmt := whole.Statement().(*parser.EvalStmt)
	set, steps := mark(stmt, q.engine.options.SubqueryStep)
	if steps > int64(q.inner.limits.StepsMax) {
		return nil, fmt.Errorf("%w: %d, at most %d", ErrTooManySteps, steps, q.inner.limits.StepsMax)
	}
	q.source.selectors, q.selectors = set, set.byIndex()
	q.partsMax, q.audit, q.unsplit = q.engine.plan(stmt, len(q.inner.parts)-1)
	return q, nil
}

// String implements promql.Query.
func (q *query) String() string { return q.text }

// Statement implements promql.Query. It is that of the whole.
func (q *query) Statement() parser.Statement { return q.whole.Statement() }

// Close implements promql.Query. The parts are closed when they are merged.
func (q *query) Close() { q.whole.Close() }

// Stats implements promql.Query.
func (q *query) Stats() *stats.Statistics {
	if q.samples != nil {
		return q.samples
	}
	return q.whole.Stats()
}

// Cancel implements promql.Query.
func (q *query) Cancel() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.cancel != nil {
		q.cancel()
	}
}

// Exec implements promql.Query.
func (q *query) Exec(ctx context.Context) *promql.Result {
	e := q.engine
	ctx, cancel := context.WithTimeout(ctx, q.inner.limits.Timeout)
	defer cancel()
	q.mu.Lock()
	q.cancel = cancel
	q.mu.Unlock()

	t, err := e.register.add(Running{
		Text: q.text, Kind: q.kind, Start: q.start, End: q.end, Step: q.step,
		Since: e.options.Now(), Client: clientOf(ctx),
	}, cancel)
	if err != nil {
		return &promql.Result{Err: err}
	}
	defer e.register.remove(t)

	result := q.queued(ctx, t)
	if result.Err != nil && ctx.Err() != nil && !isStopped(result.Err) {
		// A storage that was interrupted reports what it was doing instead.
		result.Err = stopped(ctx, "expression evaluation")
	}
	reportTo(ctx, q.used.sources())
	q.countTo(ctx, t)
	e.metrics.observe(q.Stats(), result.Err)
	e.log.write(ctx, t.shown, q.Stats(), result.Err)
	return result
}

func isStopped(err error) bool {
	var (
		timeout  promql.ErrQueryTimeout
		canceled promql.ErrQueryCanceled
	)
	return errors.As(err, &timeout) || errors.As(err, &canceled)
}

// queued evaluates q when its turn has come.
func (q *query) queued(ctx context.Context, t *ticket) *promql.Result {
	leave, err := q.wait(ctx)
	if err != nil {
		return &promql.Result{Err: err}
	}
	defer leave()
	result, done, err := q.planned(ctx, t)
	defer done()
	if err != nil {
		return &promql.Result{Err: err}
	}
	if result != nil {
		return result
	}
	return q.unplanned(ctx, t)
}

// unplanned evaluates q over raw samples.
func (q *query) unplanned(ctx context.Context, t *ticket) *promql.Result {
	e := q.engine
	q.parts = q.partsMax
	if !e.options.private.anyCore {
		q.parts = e.cores.take(q.partsMax)
		defer func() { e.cores.give(q.parts) }()
	}
	t.parts.Store(int32(q.parts))
	q.source.count.shown = &t.series
	if q.parts > 1 {
		result, rerun := q.split(ctx, t)
		if rerun == "" {
			return result
		}
		e.metrics.reruns.WithLabelValues(rerun).Inc()
		q.rerun = rerun
		if !e.options.private.anyCore {
			e.cores.give(q.parts - 1)
		}
		q.parts = 1
		t.parts.Store(1)
		t.series.Store(0)
	}
	return q.whole.Exec(ctx)
}

// wait takes a slot and a place in the tracker. leave gives them back.
func (q *query) wait(ctx context.Context) (leave func(), err error) {
	e := q.engine
	timers := q.whole.Stats().Timers
	total := timers.GetTimer(stats.ExecTotalTime).Start()
	defer total.Stop()
	span, _ := timers.GetSpanTimer(ctx, stats.ExecQueueTime)
	defer span.Finish()
	if err := e.gate.enter(ctx); err != nil {
		return nil, err
	}
	if e.options.Tracker == nil {
		return e.gate.leave, nil
	}
	place, err := e.options.Tracker.Insert(ctx, q.text)
	if err != nil {
		e.gate.leave()
		return nil, err
	}
	return func() {
		e.options.Tracker.Delete(place)
		e.gate.leave()
	}, nil
}
