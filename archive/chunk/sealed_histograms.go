package chunk

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// histogramDecoder decodes the bodies of chunks of native histograms. The zero value is
// ready; it keeps its memory and belongs to one goroutine.
type histogramDecoder struct {
	columns  bucketColumns
	layoutOf []int64
	// samplesOf is how many samples of the chunk each layout has, layout 0 being that of
	// stale markers.
	samplesOf []int
	integers  []int64
	floats    []float64
}

// histogramChunk is what is being decoded, and where to.
type histogramChunk struct {
	runReader
	*histogramDecoder
	values *valueDecoder
	window window
	to     *histograms
	// layouts and records of the chunk begin here in to.
	firstLayout, firstRecord int
	isFloat                  bool
}

// appendHistograms appends the histograms in the window to h, and their rows to rows.
func (d *sealedDecoder) appendHistograms(s *Sealed, h *histograms, rows []int32) ([]int32, error) {
	chunk := histogramChunk{
		runReader: runReader{rest: s.chunk().body.of(s.Bundle.value)}, histogramDecoder: &d.histograms, values: &d.values,
		window: d.window, to: h, firstLayout: len(h.layouts), firstRecord: len(h.records), isFloat: s.chunk().kind == kindFloatHistograms,
	}
	if err := chunk.decode(); err != nil {
		return rows, fmt.Errorf("histograms: %w", err)
	}
	for i := chunk.firstRecord; i < len(h.records); i++ {
		rows = append(rows, int32(i))
	}
	return rows, nil
}

func (c *histogramChunk) decode() error {
	if err := c.readLayouts(); err != nil {
		return err
	}
	if err := c.readLayoutOf(); err != nil {
		return err
	}
	if err := c.readHints(); err != nil {
		return err
	}
	var err error
	if c.isFloat {
		err = c.readFloatCounts()
	} else {
		err = c.readCounts()
	}
	if err != nil {
		return err
	}
	return c.readBuckets()
}

// layoutBytesMin is a schema, a threshold, and how many spans and bounds there are.
const layoutBytesMin = 5

// readLayouts reads the layouts into new memory, since they are handed out.
func (c *histogramChunk) readLayouts() error {
	n := c.uvarint()
	if n > uint64(len(c.rest)/layoutBytesMin) {
		return fmt.Errorf("%d layouts in %d bytes: %w", n, len(c.rest), ErrCorrupt)
	}
	buckets := uint64(0)
	for range n {
		l, err := c.readLayout()
		if err != nil {
			return err
		}
		// Each bucket has a column of two bytes at least.
		own := countBuckets(l.positive) + countBuckets(l.negative)
		if buckets += own + uint64(len(l.customValues)); own > uint64(len(c.rest)/2) || buckets > HistogramBucketsMax {
			return fmt.Errorf("%d buckets in %d bytes: %w", own, len(c.rest), ErrCorrupt)
		}
		c.to.layouts = append(c.to.layouts, l)
	}
	return nil
}

func (c *histogramChunk) readLayout() (l histogramLayout, err error) {
	schema := c.varint()
	l.schema = int32(schema)
	l.zeroThreshold = math.Float64frombits(bits.ReverseBytes64(c.uvarint()))
	if l.positive, err = c.readSpans(); err != nil {
		return l, err
	}
	if l.negative, err = c.readSpans(); err != nil {
		return l, err
	}
	l.positiveBuckets, l.negativeBuckets = int(countBuckets(l.positive)), int(countBuckets(l.negative))
	custom := c.uvarint()
	if c.broken || int64(l.schema) != schema || !histogram.IsValidSchema(l.schema) || custom > HistogramBucketsMax ||
		custom > 0 && !histogram.IsCustomBucketsSchema(l.schema) {
		return l, fmt.Errorf("layout of schema %d with %d bounds: %w", schema, custom, ErrCorrupt)
	}
	if custom > 0 {
		l.customValues = make([]float64, custom)
		err = c.values.decode(c.framed(), int(custom), 0, l.customValues)
	}
	return l, err
}

func (c *histogramChunk) readSpans() ([]histogram.Span, error) {
	n := c.uvarint()
	if n > uint64(len(c.rest)/2) {
		return nil, fmt.Errorf("%d spans in %d bytes: %w", n, len(c.rest), ErrCorrupt)
	}
	if n == 0 {
		return nil, nil
	}
	spans := make([]histogram.Span, n)
	for i := range spans {
		offset, length := c.varint(), c.uvarint()
		spans[i] = histogram.Span{Offset: int32(offset), Length: uint32(length)}
		if int64(spans[i].Offset) != offset || uint64(spans[i].Length) != length {
			return nil, fmt.Errorf("span of %d at %d: %w", length, offset, ErrCorrupt)
		}
	}
	return spans, nil
}

// framed returns the stream whose length comes next.
func (c *histogramChunk) framed() []byte { return c.runReader.bytes(c.uvarint()) }

// readInts reads the next stream: the first end of n integers.
func (c *histogramChunk) readInts(n, end int) ([]int64, error) {
	c.integers = slices.Grow(c.integers[:0], end)[:end]
	stream := c.framed()
	if end == 0 {
		return c.integers, nil
	}
	return c.integers, c.values.decodeIntegers(stream, n, 0, c.integers)
}

// readValues reads the next stream: of n floats those from first to end.
func (c *histogramChunk) readValues(n, first, end int) ([]float64, error) {
	c.floats = slices.Grow(c.floats[:0], end-first)[:end-first]
	stream := c.framed()
	if end == first {
		return c.floats, nil
	}
	return c.floats, c.values.decode(stream, n, first, c.floats)
}

// readLayoutOf reads which layout each sample of the chunk has, and makes room for the
// buckets of those in the window.
func (c *histogramChunk) readLayoutOf() error {
	n := c.window.samples
	c.layoutOf = slices.Grow(c.layoutOf[:0], n)[:n]
	if err := c.values.decodeIntegers(c.framed(), n, 0, c.layoutOf); err != nil {
		return err
	}
	layouts := c.to.layouts[c.firstLayout:]
	c.samplesOf = slices.Grow(c.samplesOf[:0], len(layouts)+1)[:len(layouts)+1]
	clear(c.samplesOf)
	for _, l := range c.layoutOf {
		if l < 0 || l > int64(len(layouts)) {
			return fmt.Errorf("layout %d of %d: %w", l, len(layouts), ErrCorrupt)
		}
		c.samplesOf[l]++
	}
	buckets := 0
	for i := range layouts {
		if buckets += layouts[i].buckets() * c.samplesOf[i+1]; buckets > sealedBucketsMax {
			return fmt.Errorf("%d buckets: %w", buckets, ErrCorrupt)
		}
	}
	return nil
}

// readHints makes the records, with hint and layout.
func (c *histogramChunk) readHints() error {
	hints, err := c.readInts(c.window.samples, c.window.end)
	if err != nil {
		return err
	}
	at := len(c.to.ints)
	if c.isFloat {
		at = len(c.to.floats)
	}
	for i := c.window.first; i < c.window.end; i++ {
		if hints[i]&^hintKnown != 0 {
			return fmt.Errorf("hint %d: %w", hints[i], ErrCorrupt)
		}
		r := histogramRecord{hint: histogram.CounterResetHint(hints[i] & hintMask), reset: hints[i]&hintReset != 0, buckets: at}
		if l := int(c.layoutOf[i]); l > 0 {
			r.layout = int32(c.firstLayout + l - 1)
			at += c.to.layouts[r.layout].buckets()
		}
		c.to.records = append(c.to.records, r)
	}
	if c.isFloat {
		c.to.floats = slices.Grow(c.to.floats, at-len(c.to.floats))[:at]
	} else {
		c.to.ints = slices.Grow(c.to.ints, at-len(c.to.ints))[:at]
	}
	return nil
}

// readCounts reads what samples of integers have beside their buckets. What the count is
// beyond the buckets waits in the record until those are known.
func (c *histogramChunk) readCounts() error {
	w, records := c.window, c.to.records[c.firstRecord:]
	beyond, err := c.readInts(w.samples, w.end)
	if err != nil {
		return err
	}
	for i := range records {
		records[i].count = uint64(beyond[w.first+i])
	}
	zeros, err := c.readInts(w.samples, w.end)
	if err != nil {
		return err
	}
	for i := range records {
		records[i].zeroCount = uint64(zeros[w.first+i])
	}
	return c.readSums()
}

// readSums reads the sums, which tell the stale markers too.
func (c *histogramChunk) readSums() error {
	sums, err := c.readValues(c.window.samples, c.window.first, c.window.end)
	if err != nil {
		return err
	}
	records := c.to.records[c.firstRecord:]
	for i := range records {
		records[i].sum = sums[i]
		isStale := c.layoutOf[c.window.first+i] == 0
		if value.IsStaleNaN(sums[i]) != isStale {
			return fmt.Errorf("sum %x without its layout: %w", math.Float64bits(sums[i]), ErrCorrupt)
		}
		if isStale {
			records[i].count, records[i].zeroCount = 0, 0
		}
	}
	return nil
}

// readFloatCounts reads what samples of floats have beside their buckets.
func (c *histogramChunk) readFloatCounts() error {
	w, records := c.window, c.to.records[c.firstRecord:]
	counts, err := c.readValues(w.samples, w.first, w.end)
	if err != nil {
		return err
	}
	for i := range records {
		records[i].count = math.Float64bits(counts[i])
	}
	zeros, err := c.readValues(w.samples, w.first, w.end)
	if err != nil {
		return err
	}
	for i := range records {
		records[i].zeroCount = math.Float64bits(zeros[i])
	}
	return c.readSums()
}

// readBuckets reads the columns of the buckets.
func (c *histogramChunk) readBuckets() error {
	layouts := c.to.layouts[c.firstLayout:]
	c.columns.reset()
	for i := range layouts {
		c.columns.add(&layouts[i].bucketLayout)
	}
	for c.columns.next() {
		n, first, end := c.columnSamples()
		var err error
		if c.isFloat {
			err = c.readFloatColumn(n, first, end)
		} else {
			err = c.readColumn(n, first, end)
		}
		if err != nil {
			return err
		}
	}
	if c.broken || len(c.rest) > 0 {
		return fmt.Errorf("%d bytes behind the buckets: %w", len(c.rest), ErrCorrupt)
	}
	if !c.isFloat {
		c.settleCounts()
	}
	return nil
}

// columnSamples is how many samples have the column, and which of those are in the window.
func (c *histogramChunk) columnSamples() (n, first, end int) {
	for l, at := range c.columns.at {
		if at >= 0 {
			n += c.samplesOf[l+1]
		}
	}
	if n == c.window.samples {
		return n, c.window.first, c.window.end
	}
	for i, l := range c.layoutOf[:c.window.end] {
		if l > 0 && c.columns.at[l-1] >= 0 {
			if end++; i < c.window.first {
				first++
			}
		}
	}
	return n, first, end
}

// readColumn reads a column and puts its counts into the records' buckets.
func (c *histogramChunk) readColumn(n, first, end int) error {
	counts, err := c.readInts(n, end)
	if err != nil {
		return err
	}
	place(c, c.to.ints, counts[first:])
	return nil
}

// readFloatColumn is readColumn for floats.
func (c *histogramChunk) readFloatColumn(n, first, end int) error {
	counts, err := c.readValues(n, first, end)
	if err != nil {
		return err
	}
	place(c, c.to.floats, counts)
	return nil
}

// place puts the counts of a column into the buckets of those records that have it.
func place[T int64 | float64](c *histogramChunk, buckets, counts []T) {
	records := c.to.records[c.firstRecord:]
	for i, l := range c.layoutOf[c.window.first:c.window.end] {
		if l == 0 {
			continue
		}
		if at := c.columns.at[l-1]; at >= 0 {
			buckets[records[i].buckets+int(at)] = counts[0]
			counts = counts[1:]
		}
	}
}

// settleCounts makes the records what upstream's integer histograms are: the count of all
// buckets, and deltas in them.
func (c *histogramChunk) settleCounts() {
	records := c.to.records[c.firstRecord:]
	for i := range records {
		r := &records[i]
		if c.layoutOf[c.window.first+i] == 0 {
			continue
		}
		l := &c.to.layouts[r.layout]
		buckets := c.to.ints[r.buckets:][:l.buckets()]
		r.count += uint64(inBuckets(r.zeroCount, buckets))
		splitToDeltas(l, buckets)
	}
}

// bytes is the memory held for reuse.
func (d *histogramDecoder) bytes() int {
	return d.columns.bytes() + 8*(cap(d.layoutOf)+cap(d.samplesOf)+cap(d.integers)+cap(d.floats))
}
