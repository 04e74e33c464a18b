package query_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/query"
)

const lookback = 5 * time.Minute

// sample is one of a series; at most one of whole and float is set.
type sample struct {
	t, st int64
	v     float64
	whole *histogram.Histogram
	float *histogram.FloatHistogram
}

// arraySeries is a storage.Series whose iterators are independent of each other.
type arraySeries struct {
	labels  labels.Labels
	samples []sample
	only    *steps
}

func (s *arraySeries) Labels() labels.Labels { return s.labels }

func (s *arraySeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	a, ok := it.(*arrayIterator)
	if !ok {
		a = &arrayIterator{}
	}
	a.samples, a.at, a.only = s.samples, -1, s.only
	return a
}

// between returns s with the samples from mint to maxt, nil without any.
func (s *arraySeries) between(mint, maxt int64) *arraySeries {
	from := sort.Search(len(s.samples), func(i int) bool { return s.samples[i].t >= mint })
	to := sort.Search(len(s.samples), func(i int) bool { return s.samples[i].t > maxt })
	if from >= to {
		return nil
	}
	return &arraySeries{labels: s.labels, samples: s.samples[from:to]}
}

// steps is what StepSelector tells.
type steps struct{ first, last, step int64 }

// needs tells whether a point lies at or behind t, but before next and less than
// a lookback behind t: the least that StepSelector asks for.
func (s *steps) needs(t, next int64) bool {
	point := s.first
	if t > s.first {
		point += (t - s.first + s.step - 1) / s.step * s.step
	}
	return point <= s.last && point < next && point < t+lookback.Milliseconds()
}

type arrayIterator struct {
	samples []sample
	at      int
	only    *steps // nil: all
}

// skip goes on to a sample that is needed.
func (it *arrayIterator) skip() chunkenc.ValueType {
	for ; it.only != nil && it.at < len(it.samples); it.at++ {
		next := int64(math.MaxInt64)
		if it.at+1 < len(it.samples) {
			next = it.samples[it.at+1].t
		}
		if it.only.needs(it.samples[it.at].t, next) {
			break
		}
	}
	return it.kind()
}

func (it *arrayIterator) kind() chunkenc.ValueType {
	switch {
	case it.at >= len(it.samples):
		return chunkenc.ValNone
	case it.samples[it.at].whole != nil:
		return chunkenc.ValHistogram
	case it.samples[it.at].float != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

func (it *arrayIterator) Next() chunkenc.ValueType {
	it.at = min(it.at+1, len(it.samples))
	return it.skip()
}

func (it *arrayIterator) Seek(t int64) chunkenc.ValueType {
	from := max(it.at, 0)
	it.at = from + sort.Search(len(it.samples)-from, func(i int) bool { return it.samples[from+i].t >= t })
	return it.skip()
}

func (it *arrayIterator) At() (int64, float64) { return it.samples[it.at].t, it.samples[it.at].v }
func (it *arrayIterator) AtT() int64           { return it.samples[it.at].t }
func (it *arrayIterator) AtST() int64          { return it.samples[it.at].st }
func (*arrayIterator) Err() error              { return nil }

func (it *arrayIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	s := it.samples[it.at]
	if h == nil {
		return s.t, s.whole.Copy()
	}
	s.whole.CopyTo(h)
	return s.t, h
}

func (it *arrayIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	s := it.samples[it.at]
	switch {
	case s.whole != nil:
		return s.t, s.whole.ToFloat(h)
	case h == nil:
		return s.t, s.float.Copy()
	}
	s.float.CopyTo(h)
	return s.t, h
}

// arrays is a storage over arrays: its own, or those it reads from another one.
type arrays struct {
	series []*arraySeries // sorted by labels
	from   storage.Queryable

	selects  atomic.Int64 // Selects and SelectSteps
	thinned  atomic.Int64 // SelectSteps
	queriers atomic.Int64 // not closed
	// hook runs at the beginning of every Select, if set.
	hook func(ctx context.Context, hints *storage.SelectHints) error
	// stepped, if set, sees the points of every SelectSteps.
	stepped func(first, last, step int64)
}

func (a *arrays) Querier(mint, maxt int64) (storage.Querier, error) {
	q := &arrayQuerier{storage: a, mint: mint, maxt: maxt}
	if a.from != nil {
		from, err := a.from.Querier(mint, maxt)
		if err != nil {
			return nil, err
		}
		q.from = from
	}
	a.queriers.Add(1)
	return q, nil
}

// arrayQuerier is a query.View and a query.StepSelector.
type arrayQuerier struct {
	storage    *arrays
	mint, maxt int64
	mu         sync.Mutex // guards from, whose Select is for one goroutine
	from       storage.Querier
	closed     atomic.Bool
}

var (
	_ query.View         = (*arrayQuerier)(nil)
	_ query.StepSelector = (*arrayQuerier)(nil)
)

func (*arrayQuerier) Concurrent() {}

func (q *arrayQuerier) Close() error {
	if q.closed.Swap(true) {
		return errors.New("querier closed twice")
	}
	q.storage.queriers.Add(-1)
	if q.from != nil {
		return q.from.Close()
	}
	return nil
}

func (*arrayQuerier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.New("not a label storage")
}

func (*arrayQuerier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.New("not a label storage")
}

func (q *arrayQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	return q.find(ctx, hints, matchers)
}

func (q *arrayQuerier) SelectSteps(ctx context.Context, hints *storage.SelectHints, first, last, step int64, matchers ...*labels.Matcher) storage.SeriesSet {
	q.storage.thinned.Add(1)
	if q.storage.stepped != nil {
		q.storage.stepped(first, last, step)
	}
	set := q.find(ctx, hints, matchers)
	only := &steps{first, last, step}
	for i, s := range set.series {
		if set.series[i] = s.between(hints.Start, hints.End); set.series[i] != nil {
			set.series[i].only = only
		}
	}
	set.series = slices.DeleteFunc(set.series, func(s *arraySeries) bool { return s == nil })
	return set
}

func (q *arrayQuerier) find(ctx context.Context, hints *storage.SelectHints, matchers []*labels.Matcher) *arraySet {
	q.storage.selects.Add(1)
	if q.closed.Load() {
		return &arraySet{at: -1, err: errors.New("select from a closed querier")}
	}
	if q.storage.hook != nil {
		if err := q.storage.hook(ctx, hints); err != nil {
			return &arraySet{at: -1, err: err}
		}
	}
	if q.from != nil {
		return q.read(ctx, hints, matchers)
	}
	set := &arraySet{at: -1}
	for _, s := range q.storage.series {
		if matches(s.labels, matchers) {
			if in := s.between(q.mint, q.maxt); in != nil {
				set.series = append(set.series, in)
			}
		}
	}
	return set
}

func matches(l labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// read copies what the other storage holds.
func (q *arrayQuerier) read(ctx context.Context, hints *storage.SelectHints, matchers []*labels.Matcher) *arraySet {
	q.mu.Lock()
	defer q.mu.Unlock()
	from := q.from.Select(ctx, true, hints, matchers...)
	set := &arraySet{at: -1}
	var it chunkenc.Iterator
	for from.Next() {
		s := &arraySeries{labels: from.At().Labels()}
		it = from.At().Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			x := sample{st: it.AtST()}
			switch kind {
			case chunkenc.ValFloat:
				x.t, x.v = it.At()
			case chunkenc.ValHistogram:
				x.t, x.whole = it.AtHistogram(nil)
			case chunkenc.ValFloatHistogram:
				x.t, x.float = it.AtFloatHistogram(nil)
			}
			s.samples = append(s.samples, x)
		}
		if err := it.Err(); err != nil {
			return &arraySet{at: -1, err: err}
		}
		set.series = append(set.series, s)
	}
	set.err, set.warnings = from.Err(), from.Warnings()
	return set
}

type arraySet struct {
	series   []*arraySeries
	at       int
	err      error
	warnings annotations.Annotations
}

func (s *arraySet) Next() bool                        { s.at++; return s.err == nil && s.at < len(s.series) }
func (s *arraySet) At() storage.Series                { return s.series[s.at] }
func (s *arraySet) Err() error                        { return s.err }
func (s *arraySet) Warnings() annotations.Annotations { return s.warnings }

// viewOnly hides that a storage can thin, plain also that it is a View. Both
// sort, as the engine demands of a storage.
type (
	viewOnly struct{ storage.Queryable }
	plain    struct{ storage.Queryable }
)

type concurrentQuerier struct{ storage.Querier }

func (concurrentQuerier) Concurrent() {}

type sortedQuerier struct{ storage.Querier }

func (q sortedQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	return q.Querier.Select(ctx, true, hints, matchers...)
}

func (s viewOnly) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return concurrentQuerier{q}, err
}

func (s plain) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return sortedQuerier{q}, err
}

// floats makes a series of a sample each intervalMillis.
func floats(intervalMillis int64, n int, value func(i int) float64, kv ...string) *arraySeries {
	s := &arraySeries{labels: labels.FromStrings(kv...), samples: make([]sample, n)}
	for i := range s.samples {
		s.samples[i] = sample{t: int64(i) * intervalMillis, v: value(i)}
	}
	return s
}

func sortSeries(series []*arraySeries) {
	slices.SortFunc(series, func(a, b *arraySeries) int { return labels.Compare(a.labels, b.labels) })
}

// negativeZero is a value that a careless sum loses.
var negativeZero = math.Copysign(0, -1)
