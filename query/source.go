package query

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// View is a storage.Querier that several goroutines may Select from at once, and
// whose series may be read by several: each iterator is independent of the
// others. All of it reads one state of the storage. It is closed when nobody
// reads any more, whether or not every set was read to its end.
type View interface {
	storage.Querier
	// Concurrent does nothing; having it promises the above.
	Concurrent()
}

// StepSelector is a storage.Querier that can leave out samples that an instant
// selector would pass over.
//
// SelectSteps is Select, sorted, for a selector that upstream evaluates at
// firstMillis, firstMillis+stepMillis, ..., lastMillis (inclusive, at least one
// point, stepMillis > 0; an offset is subtracted already). At each point t it
// uses the last sample at or before t, unless that lies a lookback delta or more
// behind t. The storage must return those samples, stale markers among them,
// each as it would without thinning (histograms with the same counter reset
// hint), and may return any others. Hints are those of Select: Start is the
// first point less the lookback delta plus 1 ms, or earlier.
//
// The grid is that of the whole query when parts share a View, and of the part
// otherwise.
type StepSelector interface {
	SelectSteps(ctx context.Context, hints *storage.SelectHints, firstMillis, lastMillis, stepMillis int64, matchers ...*labels.Matcher) storage.SeriesSet
}

// source is the storage.Queryable that an upstream engine gets for one
// evaluation, of a whole query or of a part.
type source struct {
	storage   storage.Queryable
	selectors selectorSet
	count     *seriesCount
	// archive is set for a query that is planned over rollups.
	archive *archive
	// view is set for parts that share one. shift widens the time a moving
	// selector asks for from the part's to that of the whole query.
	view  *sharedView
	shift struct{ start, end int64 }
}

// Querier implements storage.Queryable.
func (s *source) Querier(mint, maxt int64) (storage.Querier, error) {
	if s.view != nil {
		return reader{s.view.open, s}, nil
	}
	if s.archive != nil {
		return reader{s.archive.view, s}, nil
	}
	q, err := s.storage.Querier(mint, maxt)
	if err != nil {
		s.count.fail(err)
		return nil, err
	}
	return reader{q, s}, nil
}

// counts returns what counted the series of the source.
func (s *source) counts() []*seriesCount {
	if s.view != nil {
		return []*seriesCount{s.count, s.view.count}
	}
	return []*seriesCount{s.count}
}

// reader is the Querier of a source.
type reader struct {
	storage.Querier
	source *source
}

// Close closes the querier, but not one that is shared or the query's.
func (r reader) Close() error {
	if r.source.view != nil || r.source.archive != nil {
		return nil
	}
	return r.Querier.Close()
}

// Select implements storage.Querier. It always asks for sorted series, since
// their order decides the last bits of sums.
func (r reader) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var known *selector
	if len(matchers) > 0 {
		known = r.source.selectors[matchers[0]]
	}
	// A storage may read the hints later, when the engine sorts the labels of
	// an aggregation in place.
	own := *hints
	own.Grouping = slices.Clone(hints.Grouping)
	if a := r.source.archive; a != nil {
		switch {
		case known != nil && known.plan != nil:
			return a.selectPlanned(ctx, known.plan, r.source.count, matchers)
		case own.Start < a.view.RawSince() || a.policy == policyFixed:
			return a.selectLasts(ctx, &own, r.source.count, matchers)
		}
		a.used.add(&usage{raw: true})
	}
	if v := r.source.view; v != nil && known != nil {
		if known.moves {
			own.Start -= r.source.shift.start
			own.End += r.source.shift.end
		}
		return v.selectOnce(ctx, known.index, func(ctx context.Context) storage.SeriesSet {
			return &countedSet{SeriesSet: selectFrom(ctx, v.open, v.selectors[known.index], &own, matchers), count: v.count}
		})
	}
	return &countedSet{SeriesSet: selectFrom(ctx, r.Querier, known, &own, matchers), count: r.source.count}
}

// selectFrom asks q for the series of s, thinned if it can.
func selectFrom(ctx context.Context, q storage.Querier, s *selector, hints *storage.SelectHints, matchers []*labels.Matcher) storage.SeriesSet {
	if s != nil && s.thin && hints.Range == 0 {
		if thinner, ok := q.(StepSelector); ok {
			return thinner.SelectSteps(ctx, hints, s.grid.first, s.grid.last, s.grid.step, matchers...)
		}
	}
	return q.Select(ctx, true, hints, matchers...)
}

// seriesCount bounds the series that selectors return, and remembers what the
// storage said. A whole query has one; so has each part, and a view for what it
// selects on behalf of all parts: what one of them selects, the whole would
// select, too.
type seriesCount struct {
	max   int64
	shown *atomic.Int64 // of the ticket, nil before Exec
	seen  atomic.Int64
	// watch looks for types and units stored as labels.
	watch    bool
	typed    atomic.Bool
	mu       sync.Mutex // guards firstErr
	firstErr error
}

// add counts a series.
func (c *seriesCount) add(l labels.Labels) error {
	if c.shown != nil {
		c.shown.Add(1)
	}
	if n := c.seen.Add(1); n > c.max {
		return fmt.Errorf("%w: more than %d; narrow the selectors", ErrTooManySeries, c.max)
	}
	if c.watch && (l.Has(model.MetricTypeLabel) || l.Has(model.MetricUnitLabel)) {
		c.typed.Store(true)
	}
	return nil
}

func (c *seriesCount) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.firstErr == nil {
		c.firstErr = err
	}
}

// failure returns the first error of the storage.
func (c *seriesCount) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.firstErr
}

// countedSet counts the series of a set.
type countedSet struct {
	storage.SeriesSet
	count *seriesCount
	err   error
}

// Next implements storage.SeriesSet.
func (s *countedSet) Next() bool {
	if s.err != nil {
		return false
	}
	if !s.SeriesSet.Next() {
		if err := s.SeriesSet.Err(); err != nil {
			s.count.fail(err)
		}
		return false
	}
	if s.err = s.count.add(s.At().Labels()); s.err != nil {
		s.count.fail(s.err)
		return false
	}
	return true
}

// Err implements storage.SeriesSet.
func (s *countedSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

// sharedView is the one View of all parts of a query. Each selector is selected
// once, for the time of the whole query.
type sharedView struct {
	// ctx is that of all parts: what one of them asked for outlives it.
	ctx       context.Context
	open      View
	selectors []*selector // by index, for the bounds of the whole query
	count     *seriesCount

	mu       sync.Mutex // guards selected
	selected map[int]*selection
}

// selection is the series of one selector.
type selection struct {
	// begun is closed when set is there, expanded when the rest is.
	begun, expanded chan struct{}
	taken           atomic.Bool // by the part that expands it
	set             storage.SeriesSet
	series          []storage.Series
	warnings        annotations.Annotations
	err             error
}

// selectOnce returns a set over the series of the selector, for a part that is
// evaluated under ctx. Whichever part comes first begins the Select, so that the
// storage can read ahead, and whichever reads first expands it.
func (v *sharedView) selectOnce(ctx context.Context, index int, begin func(context.Context) storage.SeriesSet) storage.SeriesSet {
	v.mu.Lock()
	s := v.selected[index]
	first := s == nil
	if first {
		// Should the storage panic, the others must not take that for an empty
		// answer.
		s = &selection{begun: make(chan struct{}), expanded: make(chan struct{}), set: storage.ErrSeriesSet(errUnfinished), err: errUnfinished}
		v.selected[index] = s
	}
	v.mu.Unlock()
	if first {
		defer close(s.begun)
		s.set = begin(v.ctx)
	}
	return &sharedSet{ctx: ctx, view: v, selection: s, at: -1}
}

func (s *selection) expand(ctx context.Context) {
	defer close(s.expanded)
	for s.set.Next() {
		if err := ctx.Err(); err != nil {
			s.err = err
			return
		}
		s.series = append(s.series, s.set.At())
	}
	s.warnings, s.err = s.set.Warnings(), s.set.Err()
}

// sharedSet walks a selection.
type sharedSet struct {
	ctx       context.Context // of the part
	view      *sharedView
	selection *selection
	at        int
	err       error
	// warnings are a copy, since the engine merges others into them.
	warnings annotations.Annotations
}

// load waits until the selection is expanded, or expands it.
func (s *sharedSet) load() {
	wait := func(c chan struct{}) {
		select {
		case <-c:
		case <-s.ctx.Done():
			s.err = s.ctx.Err()
		}
	}
	if wait(s.selection.begun); s.err != nil {
		return
	}
	if !s.selection.taken.Swap(true) {
		s.selection.expand(s.view.ctx)
	}
	if wait(s.selection.expanded); s.err == nil {
		s.err, s.warnings = s.selection.err, maps.Clone(s.selection.warnings)
	}
}

// Next implements storage.SeriesSet.
func (s *sharedSet) Next() bool {
	if s.at < 0 {
		s.load()
	}
	s.at++
	return s.err == nil && s.at < len(s.selection.series)
}

// At implements storage.SeriesSet.
func (s *sharedSet) At() storage.Series { return s.selection.series[s.at] }

// Err implements storage.SeriesSet.
func (s *sharedSet) Err() error { return s.err }

// Warnings implements storage.SeriesSet.
func (s *sharedSet) Warnings() annotations.Annotations { return s.warnings }
