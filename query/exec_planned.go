package query

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// handedOver is a Queryable that hands out a Querier which is open already to the first who asks
// for the same time.
type handedOver struct {
	storage.Queryable
	mint, maxt int64

	mu   sync.Mutex // guards open
	open storage.Querier
}

// Querier implements storage.Queryable.
func (h *handedOver) Querier(mint, maxt int64) (storage.Querier, error) {
	h.mu.Lock()
	open := h.open
	if open != nil && mint == h.mint && maxt == h.maxt {
		h.open = nil
		h.mu.Unlock()
		return open, nil
	}
	h.mu.Unlock()
	return h.Queryable.Querier(mint, maxt)
}

// close closes what nobody asked for.
func (h *handedOver) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		return nil
	}
	open := h.open
	h.open = nil
	return open.Close()
}

// planned evaluates q over rollups, if its storage has some and there is something to gain
// from them. It returns neither result nor error if q is to be evaluated as if there were none; done
// is called after that.
//
// A planned query is not split into parts. What parts gain is that series are decoded and evaluated on
// several cores; its selectors do the same, series by series, without reading
// anything twice, and what is left to the engine is one sample a point.
func (q *query) planned(ctx context.Context, t *ticket) (result *promql.Result, done func(), err error) {
	done = func() {}
	resolution := q.engine.resolutionOf(ctx)
	if resolution.policy == policyRaw {
		return nil, done, nil
	}
	stmt := q.whole.Statement().(*parser.EvalStmt)
	mint, maxt := promql.FindMinMaxTime(stmt)
	open, err := q.storage.Querier(mint, maxt)
	if err != nil {
		return nil, done, err
	}
	a, err := q.plan(ctx, stmt, open, resolution, mint)
	if a == nil {
		handed := &handedOver{Queryable: q.storage, mint: mint, maxt: maxt, open: open}
		q.storage, q.source.storage = handed, handed
		return nil, func() { q.logClose(handed.close()) }, err
	}
	defer func() { q.logClose(open.Close()) }()
	return q.evaluatePlanned(ctx, a, t), done, nil
}

func (q *query) logClose(err error) {
	if err != nil {
		q.engine.options.Logger.Warn("close the querier of a query", "query", q.text, "err", err)
	}
}

// plan rewrites the statement and returns what it is to be evaluated over, nil if raw samples
// do for all of it.
func (q *query) plan(ctx context.Context, stmt *parser.EvalStmt, open storage.Querier, resolution Resolution, mint int64) (*archive, error) {
	view, ok := open.(Archived)
	if !ok {
		if resolution.policy == policyFixed {
			return nil, fmt.Errorf("%w: the storage keeps none", ErrNoResolution)
		}
		return nil, nil
	}
	usable := view.Resolutions()
	if resolution.policy == policyFixed {
		i := slices.Index(usable, resolution.millis)
		if i < 0 {
			return nil, fmt.Errorf("%w: %s; there are %s", ErrNoResolution, resolution, Sources{Millis: usable})
		}
		usable = usable[i:]
	}
	if len(usable) == 0 {
		return nil, nil
	}
	p := &planner{
		policy: resolution.policy, resolutions: usable, rawSince: view.RawSince(), lookback: stmt.LookbackDelta.Milliseconds(),
		defaultStep: q.engine.options.SubqueryStep, startTimestamps: q.engine.options.StartTimestamps, plans: map[*parser.VectorSelector]*plan{},
	}
	p.rewrite(stmt)
	if len(p.plans) == 0 && (len(q.selectors) == 0 || mint >= p.rawSince && p.policy != policyFixed) {
		return nil, nil
	}
	q.source.selectors, _ = mark(stmt, q.engine.options.SubqueryStep)
	for selector, plan := range p.plans {
		q.source.selectors[selector.LabelMatchers[0]].plan = plan
	}
	return &archive{
		view: view, policy: p.policy, resolutions: usable, lookback: p.lookback, typed: q.engine.options.TypeAndUnitLabels,
		limits: &q.inner.limits, logger: q.engine.options.Logger, used: &q.used, ctx: ctx,
	}, nil
}

// evaluatePlanned evaluates a statement that was rewritten.
func (q *query) evaluatePlanned(ctx context.Context, a *archive, t *ticket) *promql.Result {
	e := q.engine
	a.workers = e.cores.take(e.options.Parts)
	defer e.cores.give(a.workers)
	t.parts.Store(int32(a.workers))
	q.parts, q.unsplit = 1, "planned over rollups"
	q.source.count.shown, q.source.archive = &t.series, a
	result := q.whole.Exec(ctx)
	samples := q.whole.Stats().Samples
	samples.TotalSamples += a.rows.Load()
	samples.SamplesRead += a.rows.Load()
	e.metrics.planned.Inc()
	e.metrics.rows.Add(float64(a.rows.Load()))
	if used := q.used.sources(); result.Err == nil && len(used.Millis) > 0 {
		result.Warnings.Add(used.annotation())
	}
	return result
}
