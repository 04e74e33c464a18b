package chunk

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Column is the decoded samples of one series in order of time, each time once.
//
// The slices belong to the Column and are overwritten by the next Decode. They are
// for reading. The zero Column is empty and ready for use; a used one keeps its
// memory for the next series.
type Column struct {
	// Times are Unix milliseconds and ascend strictly.
	Times []int64
	// Values are as long as Times; zero where the sample is a histogram.
	Values []float64
	// Starts are start timestamps, zero where unknown. Nil when there is none,
	// else as long as Times.
	Starts []int64
	// Kinds are the samples' kinds. Nil when all are floats, else as long as Times.
	Kinds []chunkenc.ValueType

	// Overwritten counts samples that were left out because a later piece has another one
	// at their time: other in kind, in a bit of a float, or in what a histogram counts.
	Overwritten int

	// rows are the indexes of histogram samples in histograms; as long as Kinds.
	rows       []int32
	histograms histograms

	// What follows is memory and readers kept for the next Decode.
	starts       []int64
	kinds        []chunkenc.ValueType
	unmerged     strips
	sealed       sealedDecoder
	readers      [chunkenc.EncFloatHistogramST + 1]chunkReader
	intScratch   histogram.Histogram
	floatScratch histogram.FloatHistogram
	bits         []uint64
}

// chunkReader keeps upstream's objects of one encoding for the next chunk.
type chunkReader struct {
	chunk    chunkenc.Chunk
	iterator chunkenc.Iterator
}

// Decode makes c the samples of the pieces with mint <= time <= maxt, both
// inclusive and in Unix milliseconds. pieces may come in any order of time; where
// several have a sample at the same time, that of the piece furthest behind in the
// slice wins, so they stand in order of arrival. Pieces that lie wholly outside are
// not decoded. The pieces' data are not kept.
//
// The counter reset hint of a histogram is what upstream's iterator says of it in
// its chunk, as long as the sample before it in the merged order is also the one
// before it in its chunk; else it is unknown. Gauge histograms stay such. The hint
// doesn't depend on mint, given that pieces holds all of the series' pieces that
// have samples between the sample before mint and maxt.
//
// Errors wrap ErrCorrupt, or are what a Clock returned, and leave c empty. It never panics,
// whatever the data are. What it allocates is bounded by the length of the data and, for
// sealed pieces, by the times of their clocks and the bounds of docs/format/bundle.md.
//
// What a piece hides is left out before anything else: a hidden sample doesn't win over an
// earlier one, and the hint of the sample behind it is unknown.
func (c *Column) Decode(pieces []Piece, mint, maxt int64) error {
	c.clear()
	samples, plain := 0, true
	seen := false
	var last int64
	for i := range pieces {
		p := &pieces[i]
		if !p.within(mint, maxt) {
			continue
		}
		plain = plain && p.isPlain() && (!seen || p.MinMillis > last)
		seen, last = true, p.MaxMillis
		if p.Sealed != nil {
			samples += min(max(p.Samples, 0), sealedSamplesMax)
		} else {
			samples += max(min(p.Samples, 4*len(p.Data)), 0) // See DecodeXOR.
		}
	}
	var err error
	switch {
	case !seen:
	case plain:
		err = c.decodePlain(pieces, mint, maxt, samples)
	default:
		err = c.decodeMerged(pieces, mint, maxt)
	}
	if err != nil {
		c.clear()
	}
	return err
}

// Bytes is the memory that the column holds, for its samples and for reuse.
func (c *Column) Bytes() int {
	return 8*(cap(c.Times)+cap(c.Values)+cap(c.starts)+cap(c.bits)) + cap(c.kinds) + 4*cap(c.rows) +
		c.histograms.bytes() + c.unmerged.bytes() + c.sealed.bytes()
}

func (c *Column) clear() {
	c.Times, c.Values = c.Times[:0], c.Values[:0]
	c.Starts, c.Kinds, c.rows = nil, nil, c.rows[:0]
	c.starts, c.kinds = c.starts[:0], c.kinds[:0]
	c.histograms.reset()
	c.Overwritten = 0
}

// decodePlain is the usual case: chunks of floats, one behind the other.
func (c *Column) decodePlain(pieces []Piece, mint, maxt int64, samples int) error {
	c.Times = slices.Grow(c.Times, samples)
	c.Values = slices.Grow(c.Values, samples)
	for i := range pieces {
		p := &pieces[i]
		if !p.within(mint, maxt) {
			continue
		}
		at := len(c.Times)
		var err error
		if p.Sealed != nil {
			if c.Times, c.Values, err = c.sealed.appendFloats(p, mint, maxt, c.Times, c.Values); err != nil {
				return fmt.Errorf("decode piece %d of %d: %w", i, len(pieces), err)
			}
			continue
		}
		c.Times, c.Values, err = DecodeXOR(p.Data, c.Times, c.Values)
		if err == nil {
			err = p.check(c.Times[at:])
		}
		if err != nil {
			return fmt.Errorf("decode piece %d of %d: %w", i, len(pieces), err)
		}
		if p.MaxMillis > maxt {
			n := at + seek(c.Times[at:], 0, maxt+1) // maxt is below some int64.
			c.Times, c.Values = c.Times[:n], c.Values[:n]
		}
		if p.MinMillis < mint {
			n := at + seek(c.Times[at:], 0, mint)
			c.Times = slices.Delete(c.Times, at, n)
			c.Values = slices.Delete(c.Values, at, n)
		}
	}
	return nil
}

// check holds the times that were decoded from the piece against what it says.
func (p *Piece) check(times []int64) error {
	if len(times) != p.Samples || len(times) == 0 {
		return fmt.Errorf("%d samples instead of %d: %w", len(times), p.Samples, ErrCorrupt)
	}
	if times[0] != p.MinMillis || times[len(times)-1] != p.MaxMillis {
		return fmt.Errorf("samples from %d to %d instead of %d to %d: %w",
			times[0], times[len(times)-1], p.MinMillis, p.MaxMillis, ErrCorrupt)
	}
	previous := times[0]
	for _, t := range times[1:] {
		if t <= previous {
			return fmt.Errorf("time %d behind %d: %w", t, previous, ErrCorrupt)
		}
		previous = t
	}
	return nil
}

// decodeMerged decodes any pieces into strips and merges those.
func (c *Column) decodeMerged(pieces []Piece, mint, maxt int64) error {
	u := &c.unmerged
	u.reset()
	// Of the pieces that end before mint only the last sample of all matters.
	before := predecessor{arrival: -1}
	for i := range pieces {
		p := &pieces[i]
		if p.within(mint, maxt) {
			u.hasStarts = u.hasStarts || p.hasStarts()
			u.hasKinds = u.hasKinds || p.isHistogram()
		} else if last := p.lastMillis(); p.MaxMillis < mint && (before.arrival < 0 || last >= before.time) {
			before = predecessor{arrival: i, time: last}
		}
	}
	for i := range pieces {
		p := &pieces[i]
		if !p.within(mint, maxt) {
			continue
		}
		at := len(u.times)
		if err := c.decodePiece(p, mint, maxt); err != nil {
			return fmt.Errorf("decode piece %d of %d: %w", i, len(pieces), err)
		}
		u.add(i, at, p)
	}
	u.merge()
	for _, x := range u.collisions {
		if c.differ(x.kept, x.lost) {
			c.Overwritten++
		}
	}
	if u.hasKinds {
		c.settleHints(before, mint)
	}
	c.gather(mint, maxt)
	return nil
}

// decodePiece appends the piece's samples to the unmerged ones. Of a sealed piece it may
// leave out what isn't between mint and maxt.
func (c *Column) decodePiece(p *Piece, mint, maxt int64) error {
	if p.Sealed != nil {
		return c.decodeSealed(p, mint, maxt)
	}
	u := &c.unmerged
	at := len(u.times)
	var err error
	switch {
	case p.Encoding == chunkenc.EncXOR:
		u.times, u.values, err = DecodeXOR(p.Data, u.times, u.values)
	case p.Encoding == chunkenc.EncXOR2:
		err = c.decodeXOR2(p)
	case p.isHistogram():
		err = c.decodeHistograms(p)
	default:
		err = fmt.Errorf("encoding %d: %w", p.Encoding, ErrCorrupt)
	}
	if err != nil {
		return err
	}
	u.pad(chunkenc.ValFloat)
	return p.check(u.times[at:])
}

// decodeSealed appends a sealed piece's samples to the unmerged ones.
func (c *Column) decodeSealed(p *Piece, mint, maxt int64) error {
	u := &c.unmerged
	before := 0
	if u.hasKinds {
		before = 1 // A hint depends on the sample before mint.
	}
	var err error
	if u.times, err = c.sealed.appendTimes(p, mint, maxt, before, u.times); err != nil {
		return err
	}
	kind := p.Sealed.Bundle.Kind(p.Sealed.Chunk)
	if kind == chunkenc.ValFloat {
		u.values, err = c.sealed.appendValues(p.Sealed, u.values)
	} else {
		u.rows, err = c.sealed.appendHistograms(p.Sealed, &c.histograms, u.rows)
	}
	if err != nil {
		return err
	}
	if p.hasStarts() {
		if u.starts, err = c.sealed.appendStarts(p.Sealed, u.starts); err != nil {
			return err
		}
	}
	u.pad(kind)
	return nil
}

// differ tells whether two unmerged samples of the same time are different.
func (c *Column) differ(x, y int) bool {
	u := &c.unmerged
	if u.hasKinds && u.kinds[x] != chunkenc.ValFloat && u.kinds[x] == u.kinds[y] {
		return c.histograms.differ(u.rows[x], u.rows[y], u.kinds[x])
	}
	return u.hasKinds && u.kinds[x] != u.kinds[y] || math.Float64bits(u.values[x]) != math.Float64bits(u.values[y])
}

// reader returns upstream's iterator over the piece, whose header is complete.
func (c *Column) reader(p *Piece) (chunkenc.Iterator, error) {
	r := &c.readers[p.Encoding]
	if r.chunk == nil {
		chunk, err := chunkenc.NewEmptyChunk(p.Encoding)
		if err != nil {
			return nil, err
		}
		r.chunk = chunk
	}
	r.chunk.Reset(p.Data)
	r.iterator = r.chunk.Iterator(r.iterator)
	r.chunk.Reset(nil)
	return r.iterator, nil
}

func (c *Column) decodeXOR2(p *Piece) error {
	if len(p.Data) < xor2HeaderBytes {
		return fmt.Errorf("decode XOR2 chunk of %d bytes: %w", len(p.Data), ErrCorrupt)
	}
	it, err := c.reader(p)
	if err != nil {
		return err
	}
	u := &c.unmerged
	for it.Next() != chunkenc.ValNone {
		t, v := it.At()
		u.times = append(u.times, t)
		u.values = append(u.values, v)
		u.starts = append(u.starts, it.AtST())
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("decode XOR2 chunk: %w: %w", ErrCorrupt, err)
	}
	return nil
}

func (c *Column) decodeHistograms(p *Piece) error {
	if err := checkHistogramLayout(p.Data); err != nil {
		return fmt.Errorf("decode %s chunk: %w", p.Encoding, err)
	}
	it, err := c.reader(p)
	if err != nil {
		return err
	}
	u := &c.unmerged
	isFloat := p.Encoding == chunkenc.EncFloatHistogram || p.Encoding == chunkenc.EncFloatHistogramST
	kind, first := chunkenc.ValHistogram, len(c.histograms.records)
	if isFloat {
		kind = chunkenc.ValFloatHistogram
	}
	c.histograms.begin()
	for it.Next() != chunkenc.ValNone {
		var row int32
		if isFloat {
			_, h := it.AtFloatHistogram(&c.floatScratch)
			row = c.histograms.addFloat(h)
		} else {
			_, h := it.AtHistogram(&c.intScratch)
			row = c.histograms.addInt(h)
		}
		u.times = append(u.times, it.AtT())
		u.values = append(u.values, 0)
		u.starts = append(u.starts, it.AtST())
		u.rows = append(u.rows, row)
	}
	u.pad(kind)
	if err := it.Err(); err != nil {
		return fmt.Errorf("decode %s chunk: %w: %w", p.Encoding, ErrCorrupt, err)
	}
	if len(c.histograms.records) > first {
		c.histograms.records[first].reset = p.resets()
	}
	return nil
}

// resets reports whether the header of a histogram chunk says that the counter was
// reset before its first sample.
func (p *Piece) resets() bool {
	header := p.Data[histogramHeaderBytes-1]
	if p.hasStarts() {
		header = p.Data[0]
	}
	return chunkenc.CounterResetHeader(header&chunkenc.CounterResetHeaderMask) == chunkenc.CounterReset
}

// predecessor is the last sample of the pieces that end before a Decode's mint.
type predecessor struct {
	arrival int // index of its piece, -1 if there is none
	time    int64
}

// settleHints makes the hint of each histogram unknown whose predecessor in the
// merged order isn't its predecessor in its chunk.
func (c *Column) settleHints(before predecessor, mint int64) {
	u := &c.unmerged
	for i, segment := range u.segments {
		if u.kinds[segment.begin] == chunkenc.ValFloat {
			continue
		}
		// Inside a segment the samples follow each other as in their chunk.
		severed := u.strips[segment.strip].severed
		c.unsettle(segment.begin, !severed && (i == 0 || u.resumes(i)))
		if u.times[segment.begin] >= mint {
			continue
		}
		// The first sample from mint on may follow one that wasn't decoded.
		at := segment.begin + seek(u.times[segment.begin:segment.end], 0, mint)
		if at == segment.end || before.arrival < 0 {
			continue
		}
		own := u.times[at-1]
		if before.time > own || before.time == own && before.arrival > u.strips[segment.strip].arrival {
			c.unsettle(at, false)
		}
	}
}

// unsettle forgets what the sample's chunk says of the sample before it, except that
// the counter was reset if that is to be kept.
func (c *Column) unsettle(at int, keepReset bool) {
	r := &c.histograms.records[c.unmerged.rows[at]]
	if r.hint != histogram.GaugeType {
		r.hint = histogram.UnknownCounterReset
	}
	r.reset = r.reset && keepReset
}

// gather copies the merged samples with mint <= time <= maxt into the column.
func (c *Column) gather(mint, maxt int64) {
	u := &c.unmerged
	for _, s := range u.segments {
		begin, end := between(u.times[s.begin:s.end], mint, maxt)
		begin, end = s.begin+begin, s.begin+end
		c.Times = append(c.Times, u.times[begin:end]...)
		c.Values = append(c.Values, u.values[begin:end]...)
		if u.hasStarts {
			c.starts = append(c.starts, u.starts[begin:end]...)
		}
		if u.hasKinds {
			c.kinds = append(c.kinds, u.kinds[begin:end]...)
			c.rows = append(c.rows, u.rows[begin:end]...)
		}
	}
	if slices.ContainsFunc(c.starts, func(start int64) bool { return start != 0 }) {
		c.Starts = c.starts
	}
	if slices.ContainsFunc(c.kinds, func(k chunkenc.ValueType) bool { return k != chunkenc.ValFloat }) {
		c.Kinds = c.kinds
	}
}
