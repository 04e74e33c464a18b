package chunk

import (
	"fmt"
	"slices"
)

// Clock has the times that chunks of bundles share.
type Clock interface {
	// Times returns the clock's times, Unix ms, ascending strictly. They are for reading
	// and stay as they are. It may be called from many goroutines, and may do I/O.
	Times() ([]int64, error)
}

// Sealed is a chunk of a bundle, as a Piece refers to it.
type Sealed struct {
	Bundle *Bundle
	// Chunk is the chunk's number in the bundle.
	Chunk int
	// Clock is the one that Bundle.Clock names; nil with NoClock.
	Clock Clock
}

// chunk is the entry of the directory.
func (s *Sealed) chunk() *bundled { return &s.Bundle.chunks[s.Chunk] }

func (s *Sealed) hasStarts() bool   { return !s.chunk().starts.isEmpty() }
func (s *Sealed) isHistogram() bool { return s.chunk().kind >= kindHistograms }

// sealedDecoder decodes chunks of bundles. The zero sealedDecoder is ready; it keeps its
// memory and belongs to one goroutine.
type sealedDecoder struct {
	values     valueDecoder
	histograms histogramDecoder
	clock      TimesDecoder
	times      []int64 // of a chunk that hasn't those of its clock
	// window is what is to be decoded of a chunk.
	window window
	// chain are the chunks that lie between a difference and what it is based on.
	chain []int32
	// bases are baseSlots once there was a difference. Their integers lie in memory, one
	// after the other up to used.
	bases  []base
	memory []int64
	used   int
}

// window is a stretch of a chunk's samples.
type window struct {
	samples    int // of the chunk
	first, end int // of those wanted
}

// base are some integers of a chunk that others are differences to, or may be.
type base struct {
	bundle   uint64
	chunk    int32
	first    int // index in the chunk of the first of them
	integers []int64
}

// of returns the integers in the window, if they are those of the chunk and all there.
func (b *base) of(bundle uint64, chunk int32, w window) ([]int64, bool) {
	if b.bundle != bundle || b.chunk != chunk || w.first < b.first || w.end > b.first+len(b.integers) {
		return nil, false
	}
	return b.integers[w.first-b.first : w.end-b.first], true
}

// A decoder remembers bases by bundle and chunk, so that a query that walks the buckets of
// a histogram, in whatever order their labels have and for each the days of a month, decodes
// each chunk once. All together they are bounded; when they are too many it forgets them all.
const (
	baseSlots       = 512
	baseIntegersMax = 1 << 20
)

// appendFloats appends the piece's samples, which are floats, between mint and maxt, both
// inclusive.
func (d *sealedDecoder) appendFloats(p *Piece, mint, maxt int64, times []int64, values []float64) ([]int64, []float64, error) {
	at := len(times)
	times, err := d.appendTimes(p, mint, maxt, 0, times)
	if err != nil {
		return times[:at], values, err
	}
	if values, err = d.appendValues(p.Sealed, values); err != nil {
		return times[:at], values, err
	}
	return times, values, nil
}

// appendTimes appends the chunk's times between mint and maxt, both inclusive, and sets
// the window that they are. before is how many times before mint come with them.
func (d *sealedDecoder) appendTimes(p *Piece, mint, maxt int64, before int, times []int64) ([]int64, error) {
	all, err := d.chunkTimes(p.Sealed)
	if err != nil {
		return times, err
	}
	end := len(all)
	if end > 0 && all[end-1] > maxt {
		end = seek(all, 0, maxt+1) // maxt is below some int64.
	}
	first := max(min(seek(all, 0, mint), end)-before, 0)
	if first < end && (all[first] < p.MinMillis || all[end-1] > p.MaxMillis) {
		return times, fmt.Errorf("samples from %d to %d instead of %d to %d: %w", all[first], all[end-1], p.MinMillis, p.MaxMillis, ErrCorrupt)
	}
	d.window = window{samples: len(all), first: first, end: end}
	return append(times, all[first:end]...), nil
}

// chunkTimes returns all times of the chunk, valid until the next call.
func (d *sealedDecoder) chunkTimes(s *Sealed) ([]int64, error) {
	c := s.chunk()
	src := c.times.of(s.Bundle.value)
	if c.shape == timesInline {
		d.times = slices.Grow(d.times[:0], int(c.samples))[:c.samples]
		return d.times, d.clock.Decode(src, len(d.times), d.times)
	}
	clock, err := s.Clock.Times()
	if err != nil || c.shape == timesWhole {
		return clock, err
	}
	d.times = d.times[:0]
	runs := NewPresence(src, len(clock))
	for first, end, ok := runs.Next(); ok; first, end, ok = runs.Next() {
		d.times = append(d.times, clock[first:end]...)
	}
	if runs.Err() == nil && len(d.times) != int(c.samples) {
		return nil, fmt.Errorf("%d of the clock's times instead of %d: %w", len(d.times), c.samples, ErrCorrupt)
	}
	return d.times, runs.Err()
}

// appendValues appends the values in the window of a chunk of floats.
func (d *sealedDecoder) appendValues(s *Sealed, values []float64) ([]float64, error) {
	at, n := len(values), d.window.end-d.window.first
	values = slices.Grow(values, n)[:at+n]
	if n == 0 {
		return values, nil
	}
	out := values[at:]
	c := s.chunk()
	var err error
	switch c.kind {
	case kindValues:
		err = d.values.decode(c.body.of(s.Bundle.value), d.window.samples, d.window.first, out)
	case kindDifference:
		err = d.decodeDifference(s, out)
	default:
		fill(out, c.constant)
	}
	if err != nil {
		return values[:at], err
	}
	return values, nil
}

// fill sets all values, of which there is at least one.
func fill(values []float64, v float64) {
	values[0] = v
	for n := 1; n < len(values); n *= 2 {
		copy(values[n:], values[:n])
	}
}

// appendStarts appends the start timestamps in the window.
func (d *sealedDecoder) appendStarts(s *Sealed, starts []int64) ([]int64, error) {
	at, w := len(starts), d.window
	n := w.end - w.first
	starts = slices.Grow(starts, n)[:at+n]
	src := s.chunk().starts.of(s.Bundle.value)
	if n > 0 {
		if err := d.values.decodeIntegers(src, w.samples, w.first, starts[at:]); err != nil {
			return starts[:at], fmt.Errorf("start timestamps: %w", err)
		}
	}
	return starts, nil
}

// decodeDifference fills values with the samples in the window.
func (d *sealedDecoder) decodeDifference(s *Sealed, values []float64) error {
	c := s.chunk()
	stream, err := parseValues(c.body.of(s.Bundle.value), d.window.samples)
	if err != nil {
		return err
	}
	if stream.form != formDecimal {
		return fmt.Errorf("difference of form %d: %w", stream.form, ErrCorrupt)
	}
	integers, err := d.integers(s.Bundle, int32(s.Chunk))
	if err != nil {
		return err
	}
	stream.toFloats(integers, d.window.first, values)
	return nil
}

// integers returns the integers of a chunk in the window, valid until the next call. Those
// below are decoded first, as far as they aren't remembered.
func (d *sealedDecoder) integers(b *Bundle, chunk int32) ([]int64, error) {
	var below []int64
	d.chain = d.chain[:0]
	for at := chunk; ; at = b.chunks[at].base {
		if known, ok := d.base(b, at).of(b.id, at, d.window); ok {
			below = known
			break
		}
		d.chain = append(d.chain, at)
		if b.chunks[at].kind != kindDifference {
			break
		}
	}
	for _, at := range slices.Backward(d.chain) {
		own, err := d.decodeBase(b, at, below)
		if err != nil {
			return nil, err
		}
		below = own
	}
	return below, nil
}

// base is where a chunk's integers are remembered.
func (d *sealedDecoder) base(b *Bundle, chunk int32) *base {
	if d.bases == nil {
		d.bases = make([]base, baseSlots)
	}
	return &d.bases[(b.id*31+uint64(chunk))%baseSlots]
}

// decodeBase decodes a chunk's integers in the window and remembers them. below are those
// of its base.
func (d *sealedDecoder) decodeBase(b *Bundle, chunk int32, below []int64) ([]int64, error) {
	c := &b.chunks[chunk]
	stream, err := parseValues(c.body.of(b.value), d.window.samples)
	if err != nil {
		return nil, err
	}
	if stream.form != formDecimal {
		return nil, fmt.Errorf("difference to values of form %d: %w", stream.form, ErrCorrupt)
	}
	own, below := d.room(d.window.end-d.window.first, below)
	if err := d.values.decodeIntegers(stream.integers, d.window.samples, d.window.first, own); err != nil {
		return nil, err
	}
	if c.kind == kindDifference {
		for i, k := range below[:len(own)] {
			own[i] += k
		}
	}
	*d.base(b, chunk) = base{bundle: b.id, chunk: chunk, first: d.window.first, integers: own}
	return own, nil
}

// room returns memory for n integers to remember, and kept where it is afterwards.
func (d *sealedDecoder) room(n int, kept []int64) (own, _ []int64) {
	if d.used+n > len(d.memory) {
		clear(d.bases)
		d.used = 0
		if most := max(baseIntegersMax, 2*n); len(d.memory) < most {
			d.memory = make([]int64, min(most, max(2*len(d.memory), 4*n)))
		} else {
			d.used = copy(d.memory, kept)
			kept = d.memory[:d.used]
		}
	}
	own = d.memory[d.used : d.used+n : d.used+n]
	d.used += n
	return own, kept
}

// bytes is the memory held for reuse.
func (d *sealedDecoder) bytes() int {
	return d.values.bytes() + d.histograms.bytes() + 8*(cap(d.times)+cap(d.memory)) + 4*cap(d.chain)
}
