package query

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
)

// errUnfinished is what parts get that wait for a Select that panicked.
var errUnfinished = errors.New("select was given up")

// The reasons to evaluate a query again in one piece, as the metric names them.
const (
	rerunError      = "error"      // which error comes first, and within which limit, only the whole tells
	rerunAnnotation = "annotation" // its text counts samples, and the counts of parts do not add up
	rerunTyped      = "typed"      // series with types or units in their labels
)

// part is a range of steps of a query.
type part struct {
	upstream promql.Query
	source   *source
	// extra tells that the first step belongs to the part before. It is
	// evaluated so that what a range selector reads anew at each step, rather
	// than all of its window, is counted as in the whole, and then dropped.
	extra  bool
	first  int64 // time of the first step in milliseconds, extra included
	result *promql.Result
}

// partOpts are the options of a part.
type partOpts struct {
	lookback     time.Duration
	perStepStats bool
}

// EnablePerStepStats implements promql.QueryOpts.
func (o partOpts) EnablePerStepStats() bool { return o.perStepStats }

// LookbackDelta implements promql.QueryOpts.
func (o partOpts) LookbackDelta() time.Duration { return o.lookback }

// split evaluates q in parts. When rerun is not empty there is no result, and it
// tells why the whole has to be evaluated instead.
func (q *query) split(ctx context.Context, t *ticket) (result *promql.Result, rerun string) {
	timers := q.whole.Stats().Timers
	execution, ctx := timers.GetSpanTimer(ctx, stats.ExecTotalTime)
	defer execution.Finish()
	evaluation, ctx := timers.GetSpanTimer(ctx, stats.EvalTotalTime)
	defer evaluation.Finish()

	// The first failure of a part makes what the others do void.
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	preparation, _ := timers.GetSpanTimer(ctx, stats.QueryPreparationTime)
	parts, closeParts, err := q.prepare(work, t)
	preparation.Finish()
	defer closeParts()
	if err != nil {
		return &promql.Result{Err: err}, ""
	}

	inner, _ := timers.GetSpanTimer(ctx, stats.InnerEvalTime)
	q.evaluate(work, stop, parts)
	inner.Finish()
	if failed := context.Cause(work); failed != nil {
		if ctx.Err() != nil || isStorageError(failed, parts) {
			return &promql.Result{Err: failed}, ""
		}
		return nil, rerunError
	}

	sorting, _ := timers.GetSpanTimer(ctx, stats.ResultSortTime)
	defer sorting.Finish()
	var warnings annotations.Annotations
	for _, p := range parts {
		warnings.Merge(p.result.Warnings)
		for _, c := range p.source.counts() {
			if c.typed.Load() {
				return nil, rerunTyped
			}
		}
	}
	for _, w := range warnings {
		if errors.Is(w, annotations.HistogramQuantileForcedMonotonicityInfo) || errors.Is(w, annotations.StartTimeOverlapWarning) {
			return nil, rerunAnnotation
		}
	}
	q.engine.metrics.split.Inc()
	q.engine.metrics.parts.Add(float64(len(parts)))
	q.samples = &stats.Statistics{Timers: timers, Samples: q.mergeSamples(parts)}
	return &promql.Result{Value: mergeMatrices(parts), Warnings: warnings}, ""
}

// prepare makes the parts. closeParts releases them, also after an error.
func (q *query) prepare(ctx context.Context, t *ticket) (parts []*part, closeParts func(), err error) {
	var view *sharedView
	closeParts = func() {
		for _, p := range parts {
			p.upstream.Close()
		}
		if view == nil {
			return
		}
		if err := view.open.Close(); err != nil {
			q.engine.options.Logger.Warn("close the view of a query", "query", q.text, "err", err)
		}
	}
	if view, err = q.openView(ctx, t); err != nil {
		return nil, closeParts, err
	}
	steps := int(q.end.Sub(q.start)/q.step) + 1
	for i := range q.parts {
		p := &part{source: &source{storage: q.storage, count: q.countFor(t), view: view}}
		opts := partOpts{perStepStats: true}
		if q.opts != nil {
			opts.lookback = q.opts.LookbackDelta()
		}
		// The query is prepared with the bounds of the whole, to which start(),
		// range() and the like refer. Exec reads its bounds from the statement.
		if p.upstream, err = q.inner.parts[q.parts].NewRangeQuery(ctx, p.source, opts, q.text, q.start, q.end, q.step); err != nil {
			return parts, closeParts, err
		}
		parts = append(parts, p)
		q.narrow(p, i, steps)
	}
	return parts, closeParts, nil
}

// narrow sets the bounds of the i-th part of steps.
func (q *query) narrow(p *part, i, steps int) {
	from, to := i*steps/q.parts, (i+1)*steps/q.parts-1
	if i > 0 {
		from--
		p.extra = true
	}
	stmt := p.upstream.Statement().(*parser.EvalStmt)
	stmt.Start = q.start.Add(time.Duration(from) * q.step)
	if i < q.parts-1 { // the end of the whole may lie off the grid
		stmt.End = q.start.Add(time.Duration(to) * q.step)
	}
	p.first = stmt.Start.UnixMilli()
	p.source.shift.start = p.first - q.start.UnixMilli()
	p.source.shift.end = q.end.UnixMilli() - stmt.End.UnixMilli()
	p.source.selectors, _ = mark(stmt, q.engine.options.SubqueryStep)
}

// openView opens the storage for the whole query. It returns nil when what it
// gets cannot be shared.
func (q *query) openView(ctx context.Context, t *ticket) (*sharedView, error) {
	open, err := q.storage.Querier(promql.FindMinMaxTime(q.whole.Statement().(*parser.EvalStmt)))
	if err != nil {
		return nil, err
	}
	if view, ok := open.(View); ok {
		return &sharedView{ctx: ctx, open: view, selectors: q.selectors, count: q.countFor(t), selected: map[int]*selection{}}, nil
	}
	return nil, open.Close()
}

// evaluate runs the parts at once, until all have ended or one failed.
func (q *query) evaluate(ctx context.Context, stop context.CancelCauseFunc, parts []*part) {
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			if p.result = q.guarded(ctx, p.upstream); p.result.Err != nil {
				stop(p.result.Err)
			}
		})
	}
	wg.Wait()
}

// guarded is Exec. Upstream turns panics of an evaluation into errors, but not
// those of a storage that is opened or selected from, which in a goroutine
// would end the process.
func (q *query) guarded(ctx context.Context, upstream promql.Query) (result *promql.Result) {
	defer func() {
		if e := recover(); e != nil {
			q.engine.options.Logger.Error("panic during a part of a query", "query", q.text, "err", e, "stacktrace", string(debug.Stack()))
			result = &promql.Result{Err: fmt.Errorf("unexpected error: %v", e)}
		}
	}()
	return upstream.Exec(ctx)
}

// isStorageError tells that err came from the storage, or from the limit of
// series. To ask again would double the load and find the same.
func isStorageError(err error, parts []*part) bool {
	var storage promql.ErrStorage
	if errors.As(err, &storage) {
		return true
	}
	for _, p := range parts {
		for _, c := range p.source.counts() {
			if failure := c.failure(); failure != nil && errors.Is(err, failure) {
				return true
			}
		}
	}
	return false
}
