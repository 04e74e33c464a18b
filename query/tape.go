package query

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// point is a sample, a histogram if h is set.
type point struct {
	t int64
	v float64
	h *histogram.FloatHistogram
}

// isStale tells whether p is a stale marker.
func (p point) isStale() bool {
	if p.h != nil {
		return value.IsStaleNaN(p.h.Sum)
	}
	return value.IsStaleNaN(p.v)
}

// pointAt is the sample at which it stands. The histogram is new.
func pointAt(it chunkenc.Iterator, kind chunkenc.ValueType) (p point) {
	switch kind {
	case chunkenc.ValFloat:
		p.t, p.v = it.At()
	case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
		p.t, p.h = it.AtFloatHistogram(nil)
	}
	return p
}

// tape reads stretches of raw samples that move on and may overlap.
type tape struct {
	it     chunkenc.Iterator
	kind   chunkenc.ValueType // of the sample at which it stands
	opened bool
	points []point
}

// rewind makes t ready for another series.
func (t *tape) rewind() {
	clear(t.points)
	t.opened, t.kind, t.points = false, chunkenc.ValNone, t.points[:0]
}

// between returns the samples later than from up to and including to, neither of which may be less
// than before, of raw samples that open reads. They are good until the next call. read is the
// number of samples that came in.
func (t *tape) between(from, to int64, open func(chunkenc.Iterator) chunkenc.Iterator) (points []point, read int, err error) {
	gone := 0
	for gone < len(t.points) && t.points[gone].t <= from {
		gone++
	}
	rest := copy(t.points, t.points[gone:])
	clear(t.points[rest:])
	t.points = t.points[:rest]
	switch {
	case !t.opened:
		t.it = open(t.it)
		t.opened = true
		t.kind = t.it.Seek(from + 1)
	case t.kind != chunkenc.ValNone && t.it.AtT() <= from:
		t.kind = t.it.Seek(from + 1)
	}
	for t.kind != chunkenc.ValNone && t.it.AtT() <= to {
		t.points = append(t.points, pointAt(t.it, t.kind))
		read++
		t.kind = t.it.Next()
	}
	if t.kind == chunkenc.ValNone {
		err = t.it.Err()
	}
	return t.points, read, err
}
