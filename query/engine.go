// Package query builds the upstream PromQL engine, bounds what it is asked to
// do, and spreads range queries over idle cores.
//
// An Engine is a promql.QueryEngine around unmodified upstream engines. Its
// answers, their order, errors, annotations and statistics are upstream's (of
// split queries PeakSamples is an upper bound). The nouns:
//
//   - Limits: what one query may be and cost, and how many run and wait. Texts
//     are bounded before they are parsed. A query beyond Limits.Concurrency waits
//     in a bounded queue.
//   - Running: a query between the begin and the end of Exec. It can be listed
//     and cancelled.
//   - Part: a contiguous range of the steps of a query. A part is the query,
//     prepared with the bounds of the whole, narrowed, and run on an engine of
//     its own share of the samples. The parts run at once and are merged. Where
//     the answer of the parts could differ from that of the whole, the query is
//     not split (see audit), or it is run again in one piece.
//   - View: a storage.Querier that several parts may read. Without it each part
//     opens a Querier of its own, and samples appended meanwhile may be in one
//     part and not in another.
//   - Archived: a storage.Querier that keeps rollups beside raw samples. Over
//     one, eligible calls and selectors of a query are planned: they are
//     rewritten, and answered with finished values from buckets and raw samples
//     (see planner, windowReader and instantReader). A Resolution says what may
//     be read, Sources what was. The answer is that of raw samples, but for the
//     order in which sums are made, or it is marked.
//   - Grid: the points in time at which a plain selector is evaluated. A storage
//     that implements StepSelector is told, and may leave out what lies between.
//
// All methods of Engine may be called by several goroutines. A query belongs to
// the goroutine that executes it, apart from Cancel.
//
// The storage has to return the series of a Select sorted by labels, in the same
// order for every time range, and the counter reset hint of a histogram must
// not depend on where reading began.
//
// The package does not know any storage, evaluates nothing itself but windows
// over rollups, and does not bound the bytes that a storage reads for a query.
package query

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// Engine is a bounded, splitting promql.QueryEngine. Make one with NewEngine.
type Engine struct {
	options  Options
	parser   *boundedParser
	gate     gate
	cores    cores
	register *register
	metrics  *metrics
	log      queryLog
	inner    atomic.Pointer[inner]
}

var _ promql.QueryEngine = (*Engine)(nil)

// inner are the upstream engines that belong to one set of limits.
type inner struct {
	limits Limits
	whole  *promql.Engine
	// parts[n] evaluates one of n parts, n from 2 on, with its share of the
	// samples: if no part goes beyond its share then the whole would not go
	// beyond the limit.
	parts []*promql.Engine
}

// NewEngine returns an engine that must be closed.
func NewEngine(o Options) (*Engine, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		options:  o,
		parser:   newBoundedParser(o.Parser, &o.Limits),
		cores:    cores{all: o.Parts},
		register: newRegister(o.Now()),
		metrics:  newMetrics(),
	}
	if err := e.metrics.register(o.Registerer, e); err != nil {
		return nil, err
	}
	if o.Features != nil {
		named := o.upstream(e.parser, o.SamplesMax, o.PerStepStats)
		named.FeatureRegistry = o.Features
		promql.NewEngine(named)
	}
	return e, e.Apply(o.Limits)
}

// Apply changes the limits. Queries that exist keep theirs, but the new number
// of slots and the new queue hold at once.
func (e *Engine) Apply(l Limits) error {
	if err := l.validate(); err != nil {
		return err
	}
	l = l.withDefaults()
	in := &inner{limits: l, whole: promql.NewEngine(e.options.upstream(e.parser, l.SamplesMax, e.options.PerStepStats))}
	if e.options.Parts > 1 {
		in.parts = make([]*promql.Engine, e.options.Parts+1)
		for n := 2; n <= e.options.Parts; n++ {
			in.parts[n] = promql.NewEngine(e.options.upstream(e.parser, l.SamplesMax/n, true))
		}
	}
	e.inner.Store(in)
	e.parser.limits.Store(&l)
	slots := slotsFor(&l, e.options.Tracker)
	e.metrics.concurrent.Set(float64(slots))
	e.gate.resize(slots, l.QueueMax, l.QueueWait)
	return nil
}

// Parser returns the parser of the engine, which refuses what the limits
// forbid. It follows Apply.
func (e *Engine) Parser() parser.Parser { return e.parser }

// Running returns the queries that wait or run, oldest first.
func (e *Engine) Running() []Running { return e.register.list() }

// Cancel stops the query with the given Running.ID, which then returns
// promql.ErrQueryCanceled. It returns false when there is none.
func (e *Engine) Cancel(id string) bool { return e.register.cancel(id) }

// SetQueryLogger logs every query to l from now on, as upstream does, and
// closes the logger before. Nil switches the log off.
func (e *Engine) SetQueryLogger(l promql.QueryLogger) {
	if err := e.log.set(l); err != nil {
		e.options.Logger.Warn("close the former query log", "err", err)
	}
	e.metrics.logEnabled.Set(map[bool]float64{true: 1}[l != nil])
}

// Close refuses new queries, cancels those that wait or run, waits for them,
// and closes the tracker and the query log.
func (e *Engine) Close() error {
	e.register.close()
	err := e.log.set(nil)
	if e.options.Tracker != nil {
		err = errors.Join(err, e.options.Tracker.Close())
	}
	if err != nil {
		return fmt.Errorf("close query engine: %w", err)
	}
	return nil
}

// NewInstantQuery implements promql.QueryEngine. Its errors are the caller's
// fault.
func (e *Engine) NewInstantQuery(ctx context.Context, s storage.Queryable, opts promql.QueryOpts, text string, at time.Time) (promql.Query, error) {
	q := e.newQuery(s, opts, text, kindInstant, at, at, 0)
	whole, err := q.inner.whole.NewInstantQuery(ctx, q.source, opts, text, at)
	if err != nil {
		return nil, err
	}
	return q.around(whole)
}

// NewRangeQuery implements promql.QueryEngine. Its errors are the caller's
// fault.
func (e *Engine) NewRangeQuery(ctx context.Context, s storage.Queryable, opts promql.QueryOpts, text string, start, end time.Time, step time.Duration) (promql.Query, error) {
	q := e.newQuery(s, opts, text, kindRange, start, end, step)
	whole, err := q.inner.whole.NewRangeQuery(ctx, q.source, opts, text, start, end, step)
	if err != nil {
		return nil, err
	}
	return q.around(whole)
}
