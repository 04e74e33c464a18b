package query_test

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/query"
	"varve/rollup"
)

const (
	minuteMillis = 60_000
	hourMillis   = 60 * minuteMillis
)

// rolled is an archive with rollups in memory: real buckets of the samples of arrays, of which raw
// samples and buckets may be gone or not be there yet.
type rolled struct {
	*arrays
	resolutions []int64
	// rawSince is where the raw samples begin; the buckets of all resolutions cover what kept has, by
	// resolution, all if nothing, but for the holes.
	rawSince int64
	kept     map[int64]query.Stretch
	holes    []query.Stretch

	archived atomic.Int64 // SelectArchived
	made     sync.Map     // of built to *rollup.Columns
	hookRead func(s labels.Labels) error
}

func newRolled(a *arrays, resolutions ...int64) *rolled {
	return &rolled{arrays: a, resolutions: resolutions, rawSince: math.MinInt64, kept: map[int64]query.Stretch{}}
}

// keep makes all resolutions cover (from, to].
func (r *rolled) keep(from, to int64) {
	for _, resolution := range r.resolutions {
		r.kept[resolution] = query.Stretch{From: from, To: to}
	}
}

// floor is the time up to which nothing is kept.
func (r *rolled) floor() int64 {
	if r.rawSince == math.MinInt64 {
		return r.rawSince
	}
	floor := r.rawSince - 1
	for _, resolution := range r.resolutions {
		kept, ok := r.kept[resolution]
		if !ok {
			return math.MinInt64
		}
		floor = min(floor, kept.From)
	}
	return floor
}

// since returns the samples later than t.
func (r *rolled) since(t int64) *arrays {
	out := &arrays{}
	for _, s := range r.series {
		if s = s.between(max(t, -wide)+1, wide); s != nil {
			out.series = append(out.series, s)
		}
	}
	return out
}

// wide is a time without an end that can be counted from.
const wide = math.MaxInt64 / 16 / (24 * hourMillis) * (24 * hourMillis)

func (r *rolled) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := r.arrays.Querier(max(mint, r.rawSince), maxt)
	if err != nil {
		return nil, err
	}
	return &rolledQuerier{arrayQuerier: q.(*arrayQuerier), storage: r}, nil
}

// rolledQuerier is a query.Archived.
type rolledQuerier struct {
	*arrayQuerier
	storage *rolled
}

var _ query.Archived = (*rolledQuerier)(nil)

func (q *rolledQuerier) Resolutions() []int64 { return q.storage.resolutions }
func (q *rolledQuerier) RawSince() int64      { return q.storage.rawSince }

// SelectSteps doesn't thin: arrays do it for one lookback only.
func (q *rolledQuerier) SelectSteps(ctx context.Context, hints *storage.SelectHints, _, _, _ int64, matchers ...*labels.Matcher) storage.SeriesSet {
	return q.find(ctx, hints, matchers)
}

func (q *rolledQuerier) SelectArchived(ctx context.Context, mint, maxt int64, matchers ...*labels.Matcher) query.ArchivedSet {
	q.storage.archived.Add(1)
	all := &rolledSet{storage: q.storage}
	all.next = func() {
		// All of the storage, since buckets are made of all samples.
		open, err := q.storage.arrays.Querier(-wide, wide)
		if err != nil {
			all.err = err
			return
		}
		defer open.Close()
		found := open.(*arrayQuerier).find(ctx, &storage.SelectHints{Start: -wide, End: wide}, matchers)
		all.err, all.warnings = found.err, found.warnings
		for _, s := range found.series {
			if s.between(mint, maxt) != nil {
				all.series = append(all.series, s)
			}
		}
	}
	return all
}

type rolledSet struct {
	storage  *rolled
	next     func() // reads, once
	series   []*arraySeries
	at       int
	err      error
	warnings annotations.Annotations
}

func (s *rolledSet) Next() bool {
	if s.next != nil {
		s.next()
		s.next = nil
	}
	s.at++
	return s.err == nil && s.at <= len(s.series)
}

func (s *rolledSet) At() query.ArchivedSeries {
	return &rolledSeries{arraySeries: s.series[s.at-1], storage: s.storage}
}
func (s *rolledSet) Err() error                        { return s.err }
func (s *rolledSet) Warnings() annotations.Annotations { return s.warnings }

type rolledSeries struct {
	*arraySeries
	storage *rolled
}

func (s *rolledSeries) RawSince() int64 { return s.storage.rawSince }

func (s *rolledSeries) HiddenSince() int64 { return math.MaxInt64 }

func (s *rolledSeries) Raw(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator {
	in := s.between(max(mint, s.storage.rawSince), maxt)
	if in == nil {
		in = &arraySeries{}
	}
	return in.Iterator(it)
}

func (s *rolledSeries) Covered(resolution int64, dst []query.Stretch) []query.Stretch {
	kept, ok := s.storage.kept[resolution]
	if !ok {
		kept = query.Stretch{From: -wide, To: wide}
	}
	for _, hole := range s.storage.holes {
		if hole.From > kept.From && hole.To < kept.To {
			dst = append(dst, query.Stretch{From: kept.From, To: hole.From})
			kept.From = hole.To
		}
	}
	return append(dst, kept)
}

func (s *rolledSeries) Buckets(resolution, from, to int64, c *rollup.Columns) error {
	if s.storage.hookRead != nil {
		if err := s.storage.hookRead(s.labels); err != nil {
			return err
		}
	}
	inside := slices.ContainsFunc(s.Covered(resolution, nil), func(in query.Stretch) bool { return from >= in.From && to <= in.To })
	if !inside {
		panic("buckets that are not complete were read")
	}
	c.Reset()
	if len(s.samples) == 0 {
		return nil
	}
	all := s.storage.build(s.samples, resolution)
	i, j := all.After(from), all.After(to)
	for at := i; at < j; at++ {
		row := all.Row(at)
		c.Append(all.Ends[at], &row, all.HistogramRow(at))
	}
	return nil
}

// built names the buckets of a series.
type built struct {
	samples    *sample
	resolution int64
}

// build returns the buckets of all samples of a series, made once if the series are the
// storage's own.
func (r *rolled) build(samples []sample, resolution int64) *rollup.Columns {
	name := built{&samples[0], resolution}
	if all, ok := r.made.Load(name); ok {
		return all.(*rollup.Columns)
	}
	var b rollup.Builder
	all := &rollup.Columns{}
	b.Begin(resolution, all)
	for _, x := range samples {
		switch {
		case x.whole != nil:
			b.Histogram(x.t, x.whole.ToFloat(nil))
		case x.float != nil:
			b.Histogram(x.t, x.float.Copy())
		default:
			b.Float(x.t, x.v)
		}
	}
	b.Finish()
	if r.from == nil {
		r.made.Store(name, all)
	}
	return all
}
