package chunk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"sort"
)

// A rollup bundle holds the buckets of some neighbouring series of one metric over a window
// of time: their rollup.Columns, column by column, in the integer streams of package ints.
// docs/format/rollup.md has the bytes.

// RollupWindow says which buckets a rollup bundle or a RollupClock may have. Its key tells.
type RollupWindow struct {
	// StartMillis is where the first bucket begins, exclusive; the ends of all buckets are
	// multiples of the resolution later.
	StartMillis int64
	// ResolutionMillis is the length of a bucket, at least 1.
	ResolutionMillis int64
}

// RollupRowsMax is how many buckets a window has at most: 32 days of minutes fit. It bounds
// what a few bytes can make a reader allocate.
const RollupRowsMax = 1 << 16

// Bounds of a window within which no time overflows: two years and a million years.
const (
	rollupResolutionMax = 1 << 36
	rollupStartMax      = 1 << 55
)

func (w RollupWindow) check() error {
	if w.ResolutionMillis < 1 || w.ResolutionMillis > rollupResolutionMax || w.StartMillis > rollupStartMax || w.StartMillis < -rollupStartMax {
		return fmt.Errorf("rollup window from %d in steps of %d ms", w.StartMillis, w.ResolutionMillis)
	}
	return nil
}

// endOf returns the end of the bucket that t is in, if that is one of the window's.
func (w RollupWindow) endOf(t int64) (end int64, ok bool) {
	if t <= w.StartMillis || t > w.StartMillis+RollupRowsMax*w.ResolutionMillis {
		return 0, false
	}
	return w.StartMillis + (t-w.StartMillis+w.ResolutionMillis-1)/w.ResolutionMillis*w.ResolutionMillis, true
}

// Versions of the byte form of a rollup bundle. The list only grows.
const (
	// rollupVersion1 is the form that docs/format/rollup.md describes.
	rollupVersion1 = 1
)

// rollupKind is how the rows of a series in a rollup bundle are written.
type rollupKind uint8

// The numbers are those in the bytes. Those of one value for all samples are chunkKinds too.
const (
	// rollupFloats: columns of floats.
	rollupFloats rollupKind = iota
	// rollupInteger: all samples have one value, an integer.
	rollupInteger
	// rollupDecimal: the same, an integer over a power of ten.
	rollupDecimal
	// rollupFloat: the same, any float.
	rollupFloat
	// rollupRepeat: what an earlier series of the bundle has.
	rollupRepeat
	// rollupDifference: columns of floats, less the integers of an earlier series.
	rollupDifference
	// rollupHistograms: native histograms; the clock's counts and times are theirs.
	rollupHistograms
	// rollupBoth: native histograms with times of their own, and columns of floats.
	rollupBoth
)

func (k rollupKind) hasBody() bool { return k == rollupFloats || k >= rollupDifference }

// rollupDepthMax is how many differences in a row lead to a series that is none. It bounds
// the work to decode one.
const rollupDepthMax = 8

// Rollups is the directory of a rollup bundle. It aliases the bytes it was parsed from and
// is for reading: many goroutines may share it until it is parsed anew. The zero Rollups
// is empty and ready for ParseRollups.
type Rollups struct {
	// id tells parsed bundles apart, also where one took the place of another.
	id     uint64
	window RollupWindow
	value  []byte
	series []rolled
}

// rolled is a series of a rollup bundle.
type rolled struct {
	ref   uint64
	clock ClockID
	kind  rollupKind // not rollupRepeat, which is resolved
	depth uint8      // of differences below
	shape uint8      // timesWhole, timesSome or timesInline
	// based tells that a difference to it exists.
	based bool
	// base is the series that a difference was taken from.
	base  int32
	times span // of timesSome and timesInline
	ended span
	body  span
	// constant is the value of rollupInteger, rollupDecimal and rollupFloat.
	constant float64
}

// ParseRollups checks the checksum and the directory of a rollup bundle and makes b that.
// key is what the bundle is stored under; lastRef, the ref of its last series, and window
// are what the key tells. value must not change as long as b is used.
//
// Errors wrap ErrCorrupt, or ErrVersion if the bundle is from a later release; then b is
// empty.
func ParseRollups(key, value []byte, lastRef uint64, window RollupWindow, b *Rollups) error {
	b.id, b.window, b.value, b.series = bundleIDs.Add(1), window, nil, b.series[:0]
	if err := window.check(); err != nil {
		return fmt.Errorf("parse rollups: %w: %w", err, ErrCorrupt)
	}
	body, err := versionedBody(key, value, rollupVersion1)
	if err != nil {
		return fmt.Errorf("parse rollups: %w", err)
	}
	b.value = body
	p := rollupParser{runReader: runReader{rest: body[1:]}, bundle: b}
	for len(p.rest) > 0 {
		if err := p.entry(); err != nil {
			n := len(b.series)
			b.value, b.series = nil, b.series[:0]
			return fmt.Errorf("parse rollups: series %d: %w", n, err)
		}
	}
	if err := b.number(lastRef); err != nil {
		b.value, b.series = nil, b.series[:0]
		return fmt.Errorf("parse rollups: %w", err)
	}
	return nil
}

// number turns refs that count from 0 into those that end with last.
func (b *Rollups) number(last uint64) error {
	if len(b.series) == 0 {
		return fmt.Errorf("no series: %w", ErrCorrupt)
	}
	width := b.series[len(b.series)-1].ref
	if width > last {
		return fmt.Errorf("%d refs before ref %d: %w", width, last, ErrCorrupt)
	}
	for i := range b.series {
		b.series[i].ref += last - width
	}
	return nil
}

// Len is the number of series.
func (b *Rollups) Len() int { return len(b.series) }

// Ref returns the ref of series i. Refs ascend.
func (b *Rollups) Ref(i int) uint64 { return b.series[i].ref }

// Find returns the number of the series with the ref, if it is here.
func (b *Rollups) Find(ref uint64) (i int, ok bool) {
	i = sort.Search(len(b.series), func(i int) bool { return b.series[i].ref >= ref })
	return i, i < len(b.series) && b.series[i].ref == ref
}

// Clock returns the clock that series i has all or some rows of, or NoClock if the bundle
// has its times.
func (b *Rollups) Clock(i int) ClockID { return b.series[i].clock }

// Bytes is the memory that the directory holds beside the value it was parsed from.
func (b *Rollups) Bytes() int { return cap(b.series) * rolledBytes }

const rolledBytes = 72

// sameTimes tells whether two series have the same times, as far as the directory knows.
func (b *Rollups) sameTimes(x, y *rolled) bool {
	return x.clock == y.clock && x.shape == y.shape &&
		(x.times == y.times || bytes.Equal(x.times.of(b.value), y.times.of(b.value)))
}

// The first byte of an entry is laid out as that of a bundle's, with ended in the place of
// starts.
const entryHasEnded = entryHasStarts

// rollupParser reads the entries of a rollup bundle.
type rollupParser struct {
	runReader
	bundle *Rollups
	group  uint64 // of the last clock that was named, or 0
}

// span reads n bytes.
func (p *rollupParser) span(n uint64) span {
	first := uint32(len(p.bundle.value) - len(p.rest))
	if p.bytes(n) == nil {
		return span{}
	}
	return span{first, first + uint32(n)}
}

// entry reads an entry, which is a series or some that are alike.
func (p *rollupParser) entry() error {
	tag := p.bytes(1)[0]
	c := rolled{kind: rollupKind(tag & entryKindMask)}
	if err := p.place(tag, &c); err != nil {
		return err
	}
	if tag&entryHasEnded != 0 {
		c.ended = p.span(p.uvarint())
	}
	size := tag >> entrySizeShift & entrySizeMask
	more, err := uint64(0), error(nil)
	if c.kind.hasBody() {
		err = p.rowsBody(&c, int(size))
	} else {
		if more = uint64(size); size == entryMoreMin {
			more = min(p.uvarint(), BundleChunksMax) + entryMoreMin
		}
		err = p.rowsValue(&c)
	}
	switch b := p.bundle; {
	case err != nil:
		return err
	case p.broken:
		return fmt.Errorf("cut short: %w", ErrCorrupt)
	case more >= BundleChunksMax-uint64(len(b.series)) || c.ref+more < c.ref:
		return fmt.Errorf("%d more: %w", more, ErrCorrupt)
	}
	for range more {
		p.bundle.series = append(p.bundle.series, c)
		c.ref++
	}
	p.bundle.series = append(p.bundle.series, c)
	return nil
}

// place reads what ref and times are, or takes them from the series before.
func (p *rollupParser) place(tag byte, c *rolled) error {
	if n := len(p.bundle.series); n > 0 {
		before := &p.bundle.series[n-1]
		gap := uint64(1)
		if tag&entryHasGap != 0 {
			gap = p.uvarint()
		}
		if c.ref = before.ref + gap; c.ref <= before.ref {
			return fmt.Errorf("gap of %d: %w", gap, ErrCorrupt)
		}
		c.clock, c.shape, c.times = before.clock, before.shape, before.times
	} else if tag&entryHasGap != 0 || tag&entryHasTimes == 0 {
		return fmt.Errorf("first entry %02x: %w", tag, ErrCorrupt)
	}
	if tag&entryHasTimes == 0 {
		return nil
	}
	head := p.uvarint()
	c.shape, c.clock, c.times = uint8(head&timesMask), NoClock, span{}
	if c.shape > timesInline || c.shape == timesInline && head != timesInline {
		return fmt.Errorf("times %x: %w", head, ErrCorrupt)
	}
	if c.shape != timesInline {
		if head&timesOtherGroup != 0 {
			p.group += uint64(p.varint())
		}
		ordinal := head >> timesOrdinalShift
		if ordinal >= 1<<clockOrdinalBits || p.group > NoClock.group() {
			return fmt.Errorf("times %x of group %d: %w", head, p.group, ErrCorrupt)
		}
		if c.clock = ClockID(p.group<<clockOrdinalBits | ordinal); c.clock == NoClock {
			return fmt.Errorf("times of no clock: %w", ErrCorrupt)
		}
	}
	if c.shape != timesWhole {
		c.times = p.span(p.uvarint())
	}
	return nil
}

// rowsBody reads the body of a series that has one.
func (p *rollupParser) rowsBody(c *rolled, size int) error {
	if c.kind == rollupDifference {
		at, ok := p.earlier()
		if !ok {
			return fmt.Errorf("difference to no series: %w", ErrCorrupt)
		}
		base := &p.bundle.series[at]
		if base.kind != rollupFloats && base.kind != rollupDifference || base.depth == rollupDepthMax || !p.bundle.sameTimes(c, base) {
			return fmt.Errorf("difference to a series unlike it: %w", ErrCorrupt)
		}
		c.base, c.depth = int32(at), base.depth+1
		base.based = true
	}
	length := uint64(len(p.rest))
	if size > 0 {
		var le [8]byte
		copy(le[:], p.bytes(uint64(size)))
		length = binary.LittleEndian.Uint64(le[:])
	}
	c.body = p.span(length)
	return nil
}

// earlier reads the number of an earlier series, which is told by how far before it is.
func (p *rollupParser) earlier() (number int, ok bool) {
	n := uint64(len(p.bundle.series))
	back := p.uvarint()
	return int(n - back), back > 0 && back <= n
}

// rowsValue reads the value that all samples of a series have, or which series tells.
func (p *rollupParser) rowsValue(c *rolled) error {
	switch c.kind {
	case rollupInteger:
		c.constant = float64(p.varint())
	case rollupDecimal:
		exponent := p.bytes(1)
		if exponent == nil || exponent[0] > exponentMax {
			return fmt.Errorf("value with exponent %x: %w", exponent, ErrCorrupt)
		}
		c.constant = float64(p.varint()) / powersOfTen[exponent[0]]
	case rollupFloat:
		if b := p.bytes(8); b != nil {
			c.constant = math.Float64frombits(binary.LittleEndian.Uint64(b))
		}
	case rollupRepeat:
		at, ok := p.earlier()
		if !ok {
			return fmt.Errorf("repeats no series: %w", ErrCorrupt)
		}
		o := &p.bundle.series[at]
		if !o.kind.hasBody() || !p.bundle.sameTimes(c, o) {
			return fmt.Errorf("repeats a series unlike it: %w", ErrCorrupt)
		}
		c.kind, c.depth, c.base, c.body = o.kind, o.depth, o.base, o.body
	}
	return nil
}
