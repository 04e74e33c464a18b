package rollup

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// Builder turns the samples of a series, or its buckets of finer resolutions, or both, into
// buckets of one resolution. It is used over and over: Begin, then what the series has in
// order of time, then Finish.
//
// A Builder belongs to one goroutine. Its zero value can Begin.
type Builder struct {
	resolution int64
	into       *Columns
	// end is the end of the bucket that is being filled, and filled tells that there is one.
	end    int64
	filled bool
	bucket Summary
}

// Begin empties into, which is to get the buckets of a series at a resolution in ms,
// more than 0.
func (b *Builder) Begin(resolutionMillis int64, into *Columns) {
	into.Reset()
	b.resolution, b.into, b.filled = resolutionMillis, into, false
	b.bucket.Reset()
}

// Float adds a float sample or a stale marker at t, later than all before.
func (b *Builder) Float(t int64, v float64) {
	b.turnTo(t)
	if value.IsStaleNaN(v) {
		b.bucket.Stale()
		return
	}
	b.bucket.Float(t, v)
}

// Histogram adds a native histogram, or a stale marker that is one, at t, later than all
// before. It keeps h, which must not change any more.
func (b *Builder) Histogram(t int64, h *histogram.FloatHistogram) {
	b.turnTo(t)
	if value.IsStaleNaN(h.Sum) {
		b.bucket.Stale()
		return
	}
	b.bucket.Histogram(t, h)
}

// Rows adds the rows from index from on, and before index to, of buckets whose resolution divides that of
// b. They are later than all before.
func (b *Builder) Rows(c *Columns, from, to int) {
	for i := from; i < to; i++ {
		b.turnTo(c.Ends[i])
		b.bucket.AppendRow(c, i)
	}
}

// Finish writes the last bucket.
func (b *Builder) Finish() {
	b.flush()
	b.into = nil
}

// turnTo makes the bucket of t the one that is filled.
func (b *Builder) turnTo(t int64) {
	if b.filled && t <= b.end {
		return
	}
	b.flush()
	b.end, b.filled = EndOf(t, b.resolution), true
}

func (b *Builder) flush() {
	if !b.filled {
		return
	}
	b.into.Append(b.end, &b.bucket.Row, b.bucket.Histograms())
	b.bucket.Reset()
	b.filled = false
}

// EndOf returns the end of the bucket that t lies in: the least multiple of the resolution
// that isn't before t.
func EndOf(t, resolutionMillis int64) int64 {
	return StartOf(t+resolutionMillis-1, resolutionMillis)
}

// StartOf returns the greatest multiple of the resolution that isn't after t: the start,
// exclusive, of what may be used of a window that ends at t.
func StartOf(t, resolutionMillis int64) int64 {
	over := t % resolutionMillis
	if over < 0 {
		over += resolutionMillis
	}
	return t - over
}

// Coarsen turns the buckets of from into those of a resolution that is a multiple of theirs.
func Coarsen(into *Columns, resolutionMillis int64, from *Columns) {
	var b Builder
	b.Begin(resolutionMillis, into)
	b.Rows(from, 0, from.Len())
	b.Finish()
}
