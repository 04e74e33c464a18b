package chunk

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// histograms holds decoded native histograms in a few flat arrays without a pointer
// for each, so that thousands of them cost the collector nothing and their memory
// serves the next series. Integer histograms keep their bucket deltas in ints, float
// histograms their counts in floats.
type histograms struct {
	records []histogramRecord
	layouts []histogramLayout
	ints    []int64
	floats  []float64
	// hasLayout tells that the last of the layouts is that of the chunk being read.
	hasLayout bool
}

// histogramRecord is one histogram sample.
type histogramRecord struct {
	// count and zeroCount are integers, or the bits of floats.
	count, zeroCount uint64
	sum              float64
	// buckets is where the record's buckets begin in ints or floats, positive ones first.
	buckets int
	layout  int32
	hint    histogram.CounterResetHint
	// reset tells that the sample was the first of a chunk whose header says that
	// the counter was reset before it.
	reset bool
}

// histogramLayout is what the histograms of a chunk share. It is never written to
// again, so the custom values may be handed out as they are: upstream's vocabulary
// treats them as interned.
type histogramLayout struct {
	bucketLayout
	customValues                     []float64
	positiveBuckets, negativeBuckets int
}

func (s *histograms) reset() {
	clear(s.layouts)
	s.records, s.layouts = s.records[:0], s.layouts[:0]
	s.ints, s.floats = s.ints[:0], s.floats[:0]
}

// bytes is the memory held for reuse.
func (s *histograms) bytes() int {
	return cap(s.records)*histogramRecordBytes + 8*(cap(s.ints)+cap(s.floats))
}

const histogramRecordBytes = 48

// begin tells that the records to come are those of another chunk.
func (s *histograms) begin() { s.hasLayout = false }

// addLayout keeps a copy of the layout unless the chunk's is known. A stale marker has
// none, so it is the first other sample that brings it.
func (s *histograms) addLayout(l bucketLayout, customValues []float64) {
	if s.hasLayout {
		return
	}
	s.hasLayout = true
	l.positive, l.negative = slices.Clone(l.positive), slices.Clone(l.negative)
	s.layouts = append(s.layouts, histogramLayout{
		bucketLayout: l, customValues: customValues,
		positiveBuckets: int(countBuckets(l.positive)), negativeBuckets: int(countBuckets(l.negative)),
	})
}

// addInt keeps an integer histogram and returns its record's index.
func (s *histograms) addInt(h *histogram.Histogram) int32 {
	r := histogramRecord{count: h.Count, zeroCount: h.ZeroCount, sum: h.Sum, buckets: len(s.ints), hint: h.CounterResetHint}
	if !value.IsStaleNaN(h.Sum) {
		s.addLayout(bucketLayout{h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans}, h.CustomValues)
		r.layout = int32(len(s.layouts) - 1)
		s.ints = append(append(s.ints, h.PositiveBuckets...), h.NegativeBuckets...)
	}
	s.records = append(s.records, r)
	return int32(len(s.records) - 1)
}

// addFloat keeps a float histogram and returns its record's index.
func (s *histograms) addFloat(h *histogram.FloatHistogram) int32 {
	r := histogramRecord{
		count: math.Float64bits(h.Count), zeroCount: math.Float64bits(h.ZeroCount), sum: h.Sum,
		buckets: len(s.floats), hint: h.CounterResetHint,
	}
	if !value.IsStaleNaN(h.Sum) {
		s.addLayout(bucketLayout{h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans}, h.CustomValues)
		r.layout = int32(len(s.layouts) - 1)
		s.floats = append(append(s.floats, h.PositiveBuckets...), h.NegativeBuckets...)
	}
	s.records = append(s.records, r)
	return int32(len(s.records) - 1)
}

// intAt copies the integer histogram of a record into h, or into a new one.
func (s *histograms) intAt(row int32, h *histogram.Histogram) *histogram.Histogram {
	if h == nil {
		h = new(histogram.Histogram)
	}
	r := &s.records[row]
	if value.IsStaleNaN(r.sum) {
		*h = histogram.Histogram{
			Sum:           r.sum,
			PositiveSpans: h.PositiveSpans[:0], NegativeSpans: h.NegativeSpans[:0],
			PositiveBuckets: h.PositiveBuckets[:0], NegativeBuckets: h.NegativeBuckets[:0],
		}
		return h
	}
	l := &s.layouts[r.layout]
	buckets := s.ints[r.buckets:][:l.positiveBuckets+l.negativeBuckets]
	h.CounterResetHint = r.hint
	h.Schema, h.ZeroThreshold = l.schema, l.zeroThreshold
	h.Count, h.ZeroCount, h.Sum = r.count, r.zeroCount, r.sum
	h.PositiveSpans = append(h.PositiveSpans[:0], l.positive...)
	h.NegativeSpans = append(h.NegativeSpans[:0], l.negative...)
	h.PositiveBuckets = append(h.PositiveBuckets[:0], buckets[:l.positiveBuckets]...)
	h.NegativeBuckets = append(h.NegativeBuckets[:0], buckets[l.positiveBuckets:]...)
	h.CustomValues = l.customValues
	return h
}

// floatAt copies the float histogram of a record into h, or into a new one. isInt
// tells that the record holds an integer histogram, which is converted.
func (s *histograms) floatAt(row int32, isInt bool, h *histogram.FloatHistogram) *histogram.FloatHistogram {
	if h == nil {
		h = new(histogram.FloatHistogram)
	}
	r := &s.records[row]
	if value.IsStaleNaN(r.sum) {
		*h = histogram.FloatHistogram{
			Sum:           r.sum,
			PositiveSpans: h.PositiveSpans[:0], NegativeSpans: h.NegativeSpans[:0],
			PositiveBuckets: h.PositiveBuckets[:0], NegativeBuckets: h.NegativeBuckets[:0],
		}
		return h
	}
	l := &s.layouts[r.layout]
	h.CounterResetHint = r.hint
	h.Schema, h.ZeroThreshold = l.schema, l.zeroThreshold
	h.Sum = r.sum
	h.PositiveSpans = append(h.PositiveSpans[:0], l.positive...)
	h.NegativeSpans = append(h.NegativeSpans[:0], l.negative...)
	h.CustomValues = l.customValues
	if isInt {
		buckets := s.ints[r.buckets:][:l.positiveBuckets+l.negativeBuckets]
		h.Count, h.ZeroCount = float64(r.count), float64(r.zeroCount)
		h.PositiveBuckets = appendCounts(h.PositiveBuckets[:0], buckets[:l.positiveBuckets])
		h.NegativeBuckets = appendCounts(h.NegativeBuckets[:0], buckets[l.positiveBuckets:])
		return h
	}
	buckets := s.floats[r.buckets:][:l.positiveBuckets+l.negativeBuckets]
	h.Count, h.ZeroCount = math.Float64frombits(r.count), math.Float64frombits(r.zeroCount)
	h.PositiveBuckets = append(h.PositiveBuckets[:0], buckets[:l.positiveBuckets]...)
	h.NegativeBuckets = append(h.NegativeBuckets[:0], buckets[l.positiveBuckets:]...)
	return h
}

// differ tells whether two records of the same kind hold histograms that upstream's
// Equals tells apart.
func (s *histograms) differ(x, y int32, kind chunkenc.ValueType) bool {
	if kind == chunkenc.ValHistogram {
		return !s.intAt(x, nil).Equals(s.intAt(y, nil))
	}
	return !s.floatAt(x, false, nil).Equals(s.floatAt(y, false, nil))
}

// appendCounts turns the deltas of an integer histogram's buckets into counts.
func appendCounts(dst []float64, deltas []int64) []float64 {
	var count int64
	for _, d := range deltas {
		count += d
		dst = append(dst, float64(count))
	}
	return dst
}

// checkHistogramLayout looks at the layout in the data of a histogram chunk before
// upstream's iterator reads it: that one makes room for as many buckets as the spans
// say, up to 4 billion for each span, and panics on schemas that it has to reduce.
func checkHistogramLayout(data []byte) error {
	if len(data) < histogramHeaderBytes {
		return fmt.Errorf("%d bytes: %w", len(data), ErrCorrupt)
	}
	r := varbitReader{data: data[histogramHeaderBytes:]}
	if r.bits(8) == 255 { // A zero threshold that isn't a usual power of two.
		r.bits(64)
	}
	schema := r.signed()
	var buckets uint64
	for range 2 {
		spans := r.unsigned()
		for i := uint64(0); i < spans && !r.broken; i++ {
			buckets += uint64(uint32(r.unsigned()))
			r.signed()
		}
	}
	if r.broken {
		return fmt.Errorf("layout cut short: %w", ErrCorrupt)
	}
	if int64(int32(schema)) != schema || !histogram.IsValidSchema(int32(schema)) {
		return fmt.Errorf("schema %d: %w", schema, ErrCorrupt)
	}
	// The first sample takes a bit for each bucket at least.
	if buckets > 8*uint64(len(data)) {
		return fmt.Errorf("%d buckets in %d bytes: %w", buckets, len(data), ErrCorrupt)
	}
	return nil
}
