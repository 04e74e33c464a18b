package chunk

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// A chunk of native histograms in a bundle holds columns over its samples: counts, sums,
// and one column for each bucket that any of the samples has. So a bucket's counter goes
// on where the layout of the histograms changes, as it does when an observation falls
// into a new bucket.

// Bounds of a chunk of histograms, which a writer keeps and a reader relies on.
const (
	// sealedBucketsMax is how many buckets all samples have together: 32 MiB of counts.
	sealedBucketsMax = 1 << 22
	// HistogramBucketsMax is how many buckets all layouts have together.
	HistogramBucketsMax = 1 << 20
)

// How a sample's hint is written: upstream's number of it, and a bit for
// histogramRecord.reset.
const (
	hintMask  = 3
	hintReset = 1 << 2
	hintKnown = hintMask | hintReset
)

// bucketColumns walks the buckets of some layouts in the order of their columns.
//
// Of each layout the first bucket is next that wasn't taken yet. The lowest index among
// those is the next column, and all layouts whose next bucket has it take part: so
// ascending indexes, which sound histograms have, give one column for each. Positive
// buckets are taken before negative ones.
type bucketColumns struct {
	// at are the places of the column's bucket among the layouts' buckets, -1 where a
	// layout has none.
	at []int32

	indexes []int64 // of all layouts, of each the positive ones and then the negative ones
	cursors []bucketCursor
	isRest  bool // the positive buckets are done
}

// bucketCursor is where a layout stands in the walk.
type bucketCursor struct {
	first, positiveEnd, end int // in indexes
	next                    int
}

// reset begins a walk without layouts.
func (w *bucketColumns) reset() {
	w.at, w.indexes, w.cursors, w.isRest = w.at[:0], w.indexes[:0], w.cursors[:0], false
}

// add adds a layout. All are added before the first next.
func (w *bucketColumns) add(l *bucketLayout) {
	c := bucketCursor{first: len(w.indexes), next: len(w.indexes)}
	w.indexes = appendBucketIndexes(w.indexes, l.positive)
	c.positiveEnd = len(w.indexes)
	w.indexes = appendBucketIndexes(w.indexes, l.negative)
	c.end = len(w.indexes)
	w.cursors = append(w.cursors, c)
	w.at = append(w.at, -1)
}

// next goes to the next column, if there is one.
func (w *bucketColumns) next() bool {
	index, ok := w.lowest()
	if !ok && !w.isRest {
		w.isRest = true
		index, ok = w.lowest()
	}
	if !ok {
		return false
	}
	for i := range w.cursors {
		c := &w.cursors[i]
		w.at[i] = -1
		if c.next < w.sideEnd(c) && w.indexes[c.next] == index {
			w.at[i] = int32(c.next - c.first)
			c.next++
		}
	}
	return true
}

// lowest is the lowest index of the present sign that a cursor stands at.
func (w *bucketColumns) lowest() (index int64, ok bool) {
	for i := range w.cursors {
		c := &w.cursors[i]
		if c.next < w.sideEnd(c) && (!ok || w.indexes[c.next] < index) {
			index, ok = w.indexes[c.next], true
		}
	}
	return index, ok
}

func (w *bucketColumns) sideEnd(c *bucketCursor) int {
	if w.isRest {
		return c.end
	}
	return c.positiveEnd
}

func (w *bucketColumns) bytes() int {
	return 4*cap(w.at) + 8*cap(w.indexes) + 32*cap(w.cursors)
}

// appendBucketIndexes appends the indexes of the buckets in the spans.
func appendBucketIndexes(dst []int64, spans []histogram.Span) []int64 {
	index := int64(0)
	for _, s := range spans {
		index += int64(s.Offset)
		for range s.Length {
			dst = append(dst, index)
			index++
		}
	}
	return dst
}

// buckets is how many buckets a histogram of the layout has.
func (l *histogramLayout) buckets() int { return l.positiveBuckets + l.negativeBuckets }

// equal reports whether two layouts are the same in all bits.
func (l *histogramLayout) equal(o *histogramLayout) bool {
	return l.schema == o.schema && sameBits(l.zeroThreshold, o.zeroThreshold) &&
		slices.Equal(l.positive, o.positive) && slices.Equal(l.negative, o.negative) &&
		slices.EqualFunc(l.customValues, o.customValues, sameBits)
}

func sameBits(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) }

// sumToCounts makes counts of the bucket deltas of a histogram, and deltas of counts on the
// way back. Each sign begins anew, and sums wrap around.
func sumToCounts(l *histogramLayout, buckets []int64) {
	for _, side := range [2][]int64{buckets[:l.positiveBuckets], buckets[l.positiveBuckets:]} {
		for i := 1; i < len(side); i++ {
			side[i] += side[i-1]
		}
	}
}

func splitToDeltas(l *histogramLayout, buckets []int64) {
	for _, side := range [2][]int64{buckets[:l.positiveBuckets], buckets[l.positiveBuckets:]} {
		for i := len(side) - 1; i > 0; i-- {
			side[i] -= side[i-1]
		}
	}
}

// inBuckets is what a histogram of integers ought to count: all that is in its buckets.
func inBuckets(zeroCount uint64, counts []int64) int64 {
	n := int64(zeroCount)
	for _, c := range counts {
		n += c
	}
	return n
}
