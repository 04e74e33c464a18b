package chunk

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

var _ chunkenc.Iterator = (*Iterator)(nil)

// unixMillis has a name of its own so that vet does not take chunkenc's Seek for
// that of io.Seeker.
type unixMillis = int64

// Iterator walks a Column. It is the one concrete type that the engine meets, and
// its methods index arrays. The zero Iterator is exhausted.
//
// Before the first Next or Seek, and after one of them returned ValNone, there is no
// current sample and the At methods panic. An Iterator reads the Column, so that must
// not be decoded or thinned anew meanwhile. It belongs to one goroutine at a time;
// several Iterators may walk one Column.
type Iterator struct {
	times  []int64
	values []float64
	starts []int64
	kinds  []chunkenc.ValueType
	i      int
	column *Column
	err    error
}

// Reset puts the iterator before the first sample of the column.
func (it *Iterator) Reset(c *Column) {
	*it = Iterator{times: c.Times, values: c.Values, starts: c.Starts, kinds: c.Kinds, i: -1, column: c}
}

// Fail makes the iterator an exhausted one whose Err is err.
func (it *Iterator) Fail(err error) {
	*it = Iterator{err: err}
}

// Next goes to the next sample and returns its kind.
func (it *Iterator) Next() chunkenc.ValueType {
	it.i++
	if uint(it.i) >= uint(len(it.times)) {
		it.i = len(it.times)
		return chunkenc.ValNone
	}
	if it.kinds == nil {
		return chunkenc.ValFloat
	}
	return it.kinds[it.i]
}

// Seek goes on to the first sample at or after t and returns its kind. It stays
// where it is if the current sample is such.
func (it *Iterator) Seek(t unixMillis) chunkenc.ValueType {
	it.i = seek(it.times, max(it.i, 0), t)
	if it.i >= len(it.times) {
		return chunkenc.ValNone
	}
	if it.kinds == nil {
		return chunkenc.ValFloat
	}
	return it.kinds[it.i]
}

// seek returns the first index from i on whose time is t or later, or len(times). It
// looks near i first, because steps are short beside the column.
func seek(times []int64, i int, t int64) int {
	if i >= len(times) || times[i] >= t {
		return i
	}
	// times[i] < t holds throughout.
	step := 1
	for i+step < len(times) && times[i+step] < t {
		i += step
		step *= 2
	}
	end := min(i+step, len(times))
	for i+1 < end {
		middle := int(uint(i+end) / 2)
		if times[middle] < t {
			i = middle
		} else {
			end = middle
		}
	}
	return end
}

// At returns time and value of the current sample, which is a float.
func (it *Iterator) At() (int64, float64) {
	return it.times[it.i], it.values[it.i]
}

// AtT returns the time of the current sample.
func (it *Iterator) AtT() int64 {
	return it.times[it.i]
}

// AtST returns the start timestamp of the current sample, zero if it has none.
func (it *Iterator) AtST() int64 {
	if it.starts == nil {
		return 0
	}
	return it.starts[it.i]
}

// AtHistogram returns the current sample, which is an integer histogram. The
// histogram is a copy, put into h unless that is nil. It is nil if the current
// sample is of another kind.
func (it *Iterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	if it.kinds == nil || it.kinds[it.i] != chunkenc.ValHistogram {
		return it.times[it.i], nil
	}
	return it.times[it.i], it.column.histograms.intAt(it.column.rows[it.i], h)
}

// AtFloatHistogram returns the current sample, which is a float histogram or an
// integer one that is converted. The histogram is a copy, put into h unless that is
// nil. It is nil if the current sample is a float.
func (it *Iterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if it.kinds == nil || it.kinds[it.i] == chunkenc.ValFloat {
		return it.times[it.i], nil
	}
	isInt := it.kinds[it.i] == chunkenc.ValHistogram
	return it.times[it.i], it.column.histograms.floatAt(it.column.rows[it.i], isInt, h)
}

// Err returns the error that Fail was given.
func (it *Iterator) Err() error {
	return it.err
}
