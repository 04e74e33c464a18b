package chunk

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"varve/archive/chunk/ints"
)

// histogramEncoder writes the bodies of chunks of native histograms. The zero value is
// ready; it keeps its memory and belongs to one goroutine.
type histogramEncoder struct {
	ints    ints.Encoder
	values  valueEncoder
	columns bucketColumns

	// layouts are the different layouts of the samples. layoutOf tells each sample's: 0 for
	// a stale marker, which has none, else the layout's number from 1.
	layouts  []histogramLayout
	layoutOf []int64
	// counts are the bucket counts of integer histograms, one sample behind the other;
	// firsts is where each sample's buckets begin, there or in the source.
	counts []int64
	firsts []int

	integers []int64
	floats   []float64
	scratch  []byte
}

// sealedHistogramsEnd is the index up to which the samples from first on, which are
// histograms up to end, fit into one chunk. It is first if not even one does.
func (c *Column) sealedHistogramsEnd(first, end int) int {
	buckets, layoutBuckets := 0, 0
	layout := int32(-1)
	for i := first; i < end; i++ {
		r := &c.histograms.records[c.rows[i]]
		if value.IsStaleNaN(r.sum) {
			continue
		}
		l := &c.histograms.layouts[r.layout]
		n := l.buckets()
		if r.layout != layout {
			layout, layoutBuckets = r.layout, layoutBuckets+n+len(l.customValues)
		}
		if buckets += n; buckets > sealedBucketsMax || layoutBuckets > HistogramBucketsMax {
			return i
		}
	}
	return end
}

// append writes the body of a chunk of the records in rows, at least one, of which all
// or none are of integers.
func (e *histogramEncoder) append(dst []byte, h *histograms, rows []int32, isFloat bool) []byte {
	e.gatherLayouts(h, rows)
	dst = binary.AppendUvarint(dst, uint64(len(e.layouts)))
	for i := range e.layouts {
		dst = e.appendLayout(dst, &e.layouts[i])
	}
	dst = e.appendInts(dst, e.layoutOf)
	dst = e.appendHints(dst, h, rows)
	if isFloat {
		dst = e.appendFloatCounts(dst, h, rows)
	} else {
		dst = e.appendCounts(dst, h, rows)
	}
	e.columns.reset()
	for i := range e.layouts {
		e.columns.add(&e.layouts[i].bucketLayout)
	}
	for e.columns.next() {
		if isFloat {
			dst = e.appendFloatColumn(dst, h)
		} else {
			dst = e.appendColumn(dst)
		}
	}
	return dst
}

// gatherLayouts finds the layouts that differ.
func (e *histogramEncoder) gatherLayouts(h *histograms, rows []int32) {
	clear(e.layouts)
	e.layouts, e.layoutOf = e.layouts[:0], e.layoutOf[:0]
	source, number := int32(-1), int64(0)
	for _, row := range rows {
		r := &h.records[row]
		if value.IsStaleNaN(r.sum) {
			e.layoutOf = append(e.layoutOf, 0)
			continue
		}
		if r.layout != source {
			source = r.layout
			l := &h.layouts[source]
			at := slices.IndexFunc(e.layouts, func(o histogramLayout) bool { return l.equal(&o) })
			if at < 0 {
				at = len(e.layouts)
				e.layouts = append(e.layouts, *l)
			}
			number = int64(at + 1)
		}
		e.layoutOf = append(e.layoutOf, number)
	}
}

func (e *histogramEncoder) appendLayout(dst []byte, l *histogramLayout) []byte {
	dst = binary.AppendVarint(dst, int64(l.schema))
	// The usual thresholds are powers of two, whose bits are zero but for the first two bytes.
	dst = binary.AppendUvarint(dst, bits.ReverseBytes64(math.Float64bits(l.zeroThreshold)))
	for _, spans := range [2][]histogram.Span{l.positive, l.negative} {
		dst = binary.AppendUvarint(dst, uint64(len(spans)))
		for _, s := range spans {
			dst = binary.AppendVarint(dst, int64(s.Offset))
			dst = binary.AppendUvarint(dst, uint64(s.Length))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(l.customValues)))
	if len(l.customValues) > 0 {
		dst = e.appendValues(dst, l.customValues)
	}
	return dst
}

// appendInts appends a stream of integers behind its length.
func (e *histogramEncoder) appendInts(dst []byte, x []int64) []byte {
	e.scratch = e.ints.Append(e.scratch[:0], x)
	dst = binary.AppendUvarint(dst, uint64(len(e.scratch)))
	return append(dst, e.scratch...)
}

// appendValues appends a stream of floats behind its length.
func (e *histogramEncoder) appendValues(dst []byte, values []float64) []byte {
	e.scratch = e.values.append(e.scratch[:0], values)
	dst = binary.AppendUvarint(dst, uint64(len(e.scratch)))
	return append(dst, e.scratch...)
}

func (e *histogramEncoder) appendHints(dst []byte, h *histograms, rows []int32) []byte {
	e.integers = e.integers[:0]
	for _, row := range rows {
		r := &h.records[row]
		hint := int64(r.hint)
		if r.reset {
			hint |= hintReset
		}
		e.integers = append(e.integers, hint)
	}
	return e.appendInts(dst, e.integers)
}

// appendCounts appends what a sample of integers has beside its buckets, and gathers the
// bucket counts. Stale markers repeat the sample before.
func (e *histogramEncoder) appendCounts(dst []byte, h *histograms, rows []int32) []byte {
	e.counts, e.firsts, e.integers, e.floats = e.counts[:0], e.firsts[:0], e.integers[:0], e.floats[:0]
	for i, row := range rows {
		r := &h.records[row]
		e.floats = append(e.floats, r.sum)
		e.firsts = append(e.firsts, len(e.counts))
		if e.layoutOf[i] == 0 {
			e.integers = append(e.integers, 0)
			continue
		}
		l := &e.layouts[e.layoutOf[i]-1]
		first := len(e.counts)
		e.counts = append(e.counts, h.ints[r.buckets:][:l.buckets()]...)
		sumToCounts(l, e.counts[first:])
		e.integers = append(e.integers, int64(r.count)-inBuckets(r.zeroCount, e.counts[first:]))
	}
	dst = e.appendInts(dst, e.integers)
	e.integers = e.integers[:0]
	last := int64(0)
	for i, row := range rows {
		if e.layoutOf[i] != 0 {
			last = int64(h.records[row].zeroCount)
		}
		e.integers = append(e.integers, last)
	}
	dst = e.appendInts(dst, e.integers)
	return e.appendValues(dst, e.floats)
}

// appendFloatCounts appends what a sample of floats has beside its buckets.
func (e *histogramEncoder) appendFloatCounts(dst []byte, h *histograms, rows []int32) []byte {
	e.firsts = e.firsts[:0]
	for _, row := range rows {
		e.firsts = append(e.firsts, h.records[row].buckets)
	}
	dst = e.appendField(dst, h, rows, func(r *histogramRecord) uint64 { return r.count })
	dst = e.appendField(dst, h, rows, func(r *histogramRecord) uint64 { return r.zeroCount })
	e.floats = e.floats[:0]
	for _, row := range rows {
		e.floats = append(e.floats, h.records[row].sum)
	}
	return e.appendValues(dst, e.floats)
}

// appendField appends a field that has the bits of floats.
func (e *histogramEncoder) appendField(dst []byte, h *histograms, rows []int32, field func(r *histogramRecord) uint64) []byte {
	e.floats = e.floats[:0]
	last := 0.0
	for i, row := range rows {
		if e.layoutOf[i] != 0 {
			last = math.Float64frombits(field(&h.records[row]))
		}
		e.floats = append(e.floats, last)
	}
	return e.appendValues(dst, e.floats)
}

// appendColumn appends the column of bucket counts that the walk stands at.
func (e *histogramEncoder) appendColumn(dst []byte) []byte {
	e.integers = e.integers[:0]
	for i, l := range e.layoutOf {
		if l != 0 && e.columns.at[l-1] >= 0 {
			e.integers = append(e.integers, e.counts[e.firsts[i]+int(e.columns.at[l-1])])
		}
	}
	return e.appendInts(dst, e.integers)
}

// appendFloatColumn is appendColumn for floats.
func (e *histogramEncoder) appendFloatColumn(dst []byte, h *histograms) []byte {
	e.floats = e.floats[:0]
	for i, l := range e.layoutOf {
		if l != 0 && e.columns.at[l-1] >= 0 {
			e.floats = append(e.floats, h.floats[e.firsts[i]+int(e.columns.at[l-1])])
		}
	}
	return e.appendValues(dst, e.floats)
}

// addHistograms encodes the histograms of the chunk, whose rows are given.
func (b *BundleBuilder) addHistograms(built *builtChunk, h *histograms, rows []int32, isFloat bool) {
	built.kind = kindHistograms
	if isFloat {
		built.kind = kindFloatHistograms
	}
	built.body = b.keep(b.histograms.append(b.arena, h, rows, isFloat))
	b.repeats(built, int32(len(b.chunks)-1))
}
