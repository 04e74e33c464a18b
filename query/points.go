package query

import (
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// pointSeries is a series whose points are there, and perhaps raw samples behind them.
type pointSeries struct {
	labels labels.Labels
	points []point
	// rest, if not nil, returns an iterator of later samples.
	rest func(it chunkenc.Iterator) chunkenc.Iterator
}

var _ storage.Series = (*pointSeries)(nil)

// Labels implements storage.Series.
func (s *pointSeries) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series.
func (s *pointSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	own, ok := it.(*pointIterator)
	if !ok {
		own = &pointIterator{}
	}
	former := own.rest
	*own = pointIterator{points: s.points, at: -1}
	if s.rest != nil {
		own.rest = s.rest(former)
	}
	return own
}

// pointIterator is a chunkenc.Iterator over points, and then over rest.
type pointIterator struct {
	points []point
	at     int // len(points): in rest
	rest   chunkenc.Iterator
	kind   chunkenc.ValueType // of rest
}

func (it *pointIterator) inRest() bool { return it.at >= len(it.points) }

func (it *pointIterator) value() chunkenc.ValueType {
	switch {
	case it.inRest():
		return it.kind
	case it.points[it.at].h != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// Next implements chunkenc.Iterator.
func (it *pointIterator) Next() chunkenc.ValueType {
	if !it.inRest() {
		it.at++
	} else if it.kind == chunkenc.ValNone {
		return chunkenc.ValNone
	}
	if it.inRest() && it.rest != nil {
		it.kind = it.rest.Next()
	}
	return it.value()
}

// Seek implements chunkenc.Iterator.
func (it *pointIterator) Seek(t int64) chunkenc.ValueType {
	if it.inRest() {
		if it.kind != chunkenc.ValNone {
			it.kind = it.rest.Seek(t)
		}
		return it.kind
	}
	it.at = max(it.at, 0)
	// The engine seeks forward in small steps: look near first.
	near := it.at
	for width := 1; near < len(it.points) && it.points[near].t < t; width *= 2 {
		it.at = near + 1
		near = min(near+width, len(it.points))
	}
	it.at += sort.Search(near-it.at, func(i int) bool { return it.points[it.at+i].t >= t })
	if it.inRest() && it.rest != nil {
		it.kind = it.rest.Seek(t)
	}
	return it.value()
}

// At implements chunkenc.Iterator.
func (it *pointIterator) At() (int64, float64) {
	if it.inRest() {
		return it.rest.At()
	}
	p := &it.points[it.at]
	return p.t, p.v
}

// AtHistogram implements chunkenc.Iterator. Points are never of its kind.
func (it *pointIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return it.rest.AtHistogram(h)
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *pointIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if it.inRest() {
		return it.rest.AtFloatHistogram(h)
	}
	p := &it.points[it.at]
	if h == nil {
		return p.t, p.h.Copy()
	}
	p.h.CopyTo(h)
	return p.t, h
}

// AtT implements chunkenc.Iterator.
func (it *pointIterator) AtT() int64 {
	if it.inRest() {
		return it.rest.AtT()
	}
	return it.points[it.at].t
}

// AtST implements chunkenc.Iterator.
func (it *pointIterator) AtST() int64 {
	if it.inRest() {
		return it.rest.AtST()
	}
	return 0
}

// Err implements chunkenc.Iterator.
func (it *pointIterator) Err() error {
	if it.rest != nil {
		return it.rest.Err()
	}
	return nil
}
