package chunk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ClockID names the times that several series share. Its low 16 bits number the clock
// among those of a group of series, the others are the group's number.
type ClockID uint64

// NoClock stands for times that are in the bundle itself. It names no clock.
const NoClock ClockID = math.MaxUint64

const clockOrdinalBits = 16

func (id ClockID) group() uint64   { return uint64(id) >> clockOrdinalBits }
func (id ClockID) ordinal() uint64 { return uint64(id) & (1<<clockOrdinalBits - 1) }

// Versions of the byte form of a bundle. The list only grows.
const (
	// bundleVersion1 is the form that docs/format/bundle.md describes.
	bundleVersion1 = 1
)

// BundleChunksMax is how many chunks a bundle holds at most. It bounds what a few bytes
// can make a reader allocate.
const BundleChunksMax = 4096

// sealedSamplesMax is how many samples a chunk holds at most: a day at ten a second.
const sealedSamplesMax = 864_000

// chunkKind is how the samples of a chunk in a bundle are written.
type chunkKind uint8

// The numbers are those in the bytes.
const (
	// kindValues: a stream of floats.
	kindValues chunkKind = iota
	// kindInteger: a float that is an integer, the same in all samples.
	kindInteger
	// kindDecimal: the same, an integer over a power of ten.
	kindDecimal
	// kindFloat: the same, any float.
	kindFloat
	// kindRepeat: what an earlier chunk of the bundle holds.
	kindRepeat
	// kindDifference: a stream of floats, less the integers of an earlier chunk.
	kindDifference
	// kindHistograms: native histograms with integer counts.
	kindHistograms
	// kindFloatHistograms: native histograms with float counts.
	kindFloatHistograms
)

// hasBody tells that the chunk's samples are bytes whose length is given.
func (k chunkKind) hasBody() bool { return k == kindValues || k >= kindDifference }

// The first byte of an entry.
const (
	entryKindMask  = 7
	entryHasGap    = 1 << 3 // the ref isn't the one behind the entry's before
	entryHasTimes  = 1 << 4 // the times aren't those of the chunk before
	entrySizeShift = 5      // two bits: bytes of the body's length, 0: it is the rest; or chunks but one, 3: more
	entrySizeMask  = 3
	entryHasStarts = 1 << 7
	entryMoreMin   = 3
)

// What the lowest bits of an entry's times say. The ordinal of the clock is above them.
const (
	timesWhole  = 0 // all of a clock
	timesSome   = 1 // those of a clock that a Presence says
	timesInline = 2 // times of their own

	timesMask         = 3
	timesOtherGroup   = 1 << 2
	timesOrdinalShift = 3
)

// differenceDepthMax is how many differences in a row lead to a chunk that is one no more.
// It bounds the work to decode a single chunk. Of 30 histograms with 12 buckets, 0.05 to 20
// observations a scrape, a sample took 0.26 bytes without differences, 0.18 with one level,
// 0.15 with 4, 0.13 with 8 and 0.11 with 16. Decoding all buckets in turn got faster with
// each level, decoding one bucket alone up to five times slower.
const differenceDepthMax = 16

// Bundle is the directory of many chunks of neighbouring series under one key. It aliases
// the bytes it was parsed from and is for reading: many goroutines may share it until it
// is parsed anew. The zero Bundle is empty and ready for ParseBundle.
type Bundle struct {
	// id tells parsed bundles apart, also where one took the place of another.
	id     uint64
	value  []byte
	chunks []bundled
}

// bundled is a chunk of a bundle.
type bundled struct {
	ref   uint64
	clock ClockID
	kind  chunkKind // not kindRepeat, which is resolved
	depth uint8     // of differences below
	shape uint8     // timesWhole, timesSome or timesInline
	// samples is how many there are, 0 if only the clock knows.
	samples int32
	// base is the chunk that a difference was taken from.
	base  int32
	times span // of timesSome and timesInline
	// starts is a stream of integers.
	starts span
	body   span
	// constant is the value of kindInteger, kindDecimal and kindFloat.
	constant float64
}

// span is a stretch of a bundle's value.
type span struct{ first, end uint32 }

func (s span) of(b []byte) []byte { return b[s.first:s.end:s.end] }
func (s span) length() int        { return int(s.end - s.first) }
func (s span) isEmpty() bool      { return s.first == s.end }

// bundleIDs counts parsed bundles.
var bundleIDs atomic.Uint64

// ParseBundle checks the checksum and the directory of a bundle and makes b that. key is
// what the bundle is stored under, lastRef the ref of its last series, which the key
// tells. value must not change as long as b is used.
//
// Errors wrap ErrCorrupt, or ErrVersion if the bundle is from a later release; then b is
// empty.
func ParseBundle(key, value []byte, lastRef uint64, b *Bundle) error {
	b.id, b.value, b.chunks = bundleIDs.Add(1), nil, b.chunks[:0]
	body, err := versionedBody(key, value, bundleVersion1)
	if err != nil {
		return fmt.Errorf("parse bundle: %w", err)
	}
	b.value = body
	p := entryParser{runReader: runReader{rest: body[1:]}, bundle: b}
	for len(p.rest) > 0 {
		if err := p.entry(); err != nil {
			n := len(b.chunks)
			b.value, b.chunks = nil, b.chunks[:0]
			return fmt.Errorf("parse bundle: chunk %d: %w", n, err)
		}
	}
	if err := b.number(lastRef); err != nil {
		b.value, b.chunks = nil, b.chunks[:0]
		return fmt.Errorf("parse bundle: %w", err)
	}
	return nil
}

// number turns refs that count from 0 into those that end with last.
func (b *Bundle) number(last uint64) error {
	if len(b.chunks) == 0 {
		return fmt.Errorf("no chunks: %w", ErrCorrupt)
	}
	width := b.chunks[len(b.chunks)-1].ref
	if width > last {
		return fmt.Errorf("%d refs before ref %d: %w", width, last, ErrCorrupt)
	}
	for i := range b.chunks {
		b.chunks[i].ref += last - width
	}
	return nil
}

// Len is the number of chunks.
func (b *Bundle) Len() int { return len(b.chunks) }

// Ref returns the ref of the series that chunk i is of. Refs never descend.
func (b *Bundle) Ref(i int) uint64 { return b.chunks[i].ref }

// Find returns the chunks of a series: those from first on, before end. There are none
// if the two are equal.
func (b *Bundle) Find(ref uint64) (first, end int) {
	first = sort.Search(len(b.chunks), func(i int) bool { return b.chunks[i].ref >= ref })
	end = first
	for end < len(b.chunks) && b.chunks[end].ref == ref {
		end++
	}
	return first, end
}

// Clock returns the clock whose times chunk i has, all or some of them, or NoClock if
// the bundle has them.
func (b *Bundle) Clock(i int) ClockID { return b.chunks[i].clock }

// Samples returns how many samples chunk i has, or 0 if it has one for each time of its
// clock.
func (b *Bundle) Samples(i int) int { return int(b.chunks[i].samples) }

// TotalSamples is the number of samples in all chunks of the bundle. times gives the
// times of a clock.
func (b *Bundle) TotalSamples(times func(ClockID) ([]int64, error)) (int, error) {
	n := 0
	for i := range b.chunks {
		if samples := b.Samples(i); samples > 0 {
			n += samples
			continue
		}
		clock, err := times(b.Clock(i))
		if err != nil {
			return 0, err
		}
		n += len(clock)
	}
	return n, nil
}

// Kind returns what the samples of chunk i are.
func (b *Bundle) Kind(i int) chunkenc.ValueType {
	switch b.chunks[i].kind {
	case kindHistograms:
		return chunkenc.ValHistogram
	case kindFloatHistograms:
		return chunkenc.ValFloatHistogram
	default:
		return chunkenc.ValFloat
	}
}

// Bytes is the memory that the bundle holds beside the value it was parsed from.
func (b *Bundle) Bytes() int { return cap(b.chunks) * bundledBytes }

const bundledBytes = 64

// entryParser reads the entries of a bundle.
type entryParser struct {
	runReader
	bundle *Bundle
	starts span   // the last that were given
	group  uint64 // of the last clock that was named, or 0
}

// at is where in the value the reader stands.
func (p *entryParser) at() uint32 { return uint32(len(p.bundle.value) - len(p.rest)) }

// span reads n bytes.
func (p *entryParser) span(n uint64) span {
	first := p.at()
	if p.bytes(n) == nil {
		return span{}
	}
	return span{first, first + uint32(n)}
}

// entry reads an entry, which is a chunk or some that are alike.
func (p *entryParser) entry() error {
	tag := p.bytes(1)[0]
	c := bundled{kind: chunkKind(tag & entryKindMask)}
	if err := p.place(tag, &c); err != nil {
		return err
	}
	if tag&entryHasStarts != 0 {
		if n := p.uvarint(); n > 0 {
			p.starts = p.span(n)
		}
		if c.starts = p.starts; c.starts.isEmpty() {
			return fmt.Errorf("no starts: %w", ErrCorrupt)
		}
	}
	size := tag >> entrySizeShift & entrySizeMask
	more, err := uint64(0), error(nil)
	if c.kind.hasBody() {
		err = p.chunkBody(&c, int(size))
	} else {
		more = p.more(size)
		err = p.chunkValue(&c)
	}
	switch b := p.bundle; {
	case err != nil:
		return err
	case p.broken:
		return fmt.Errorf("cut short: %w", ErrCorrupt)
	case more >= BundleChunksMax-uint64(len(b.chunks)) || c.ref+more < c.ref:
		return fmt.Errorf("%d more: %w", more, ErrCorrupt)
	}
	for range more {
		p.bundle.chunks = append(p.bundle.chunks, c)
		c.ref++
	}
	p.bundle.chunks = append(p.bundle.chunks, c)
	return nil
}

// place reads what a chunk's ref and times are, or takes them from the chunk before.
func (p *entryParser) place(tag byte, c *bundled) error {
	if n := len(p.bundle.chunks); n > 0 {
		before := &p.bundle.chunks[n-1]
		gap := uint64(1)
		if tag&entryHasGap != 0 {
			gap = p.uvarint()
		}
		if c.ref = before.ref + gap; c.ref < before.ref {
			return fmt.Errorf("gap of %d: %w", gap, ErrCorrupt)
		}
		c.clock, c.shape, c.samples, c.times = before.clock, before.shape, before.samples, before.times
	} else if tag&entryHasGap != 0 || tag&entryHasTimes == 0 {
		return fmt.Errorf("first entry %02x: %w", tag, ErrCorrupt)
	}
	if tag&entryHasTimes != 0 {
		return p.chunkTimes(c)
	}
	return nil
}

// more reads how many chunks an entry stands for beyond the first.
func (p *entryParser) more(size byte) uint64 {
	if size < entryMoreMin {
		return uint64(size)
	}
	return min(p.uvarint(), BundleChunksMax) + entryMoreMin
}

// chunkTimes reads what a chunk's times are, if they aren't those of the chunk before.
func (p *entryParser) chunkTimes(c *bundled) error {
	head := p.uvarint()
	c.shape, c.clock, c.samples, c.times = uint8(head&timesMask), NoClock, 0, span{}
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
		samples := p.uvarint()
		if samples == 0 || samples > sealedSamplesMax {
			return fmt.Errorf("%d samples: %w", samples, ErrCorrupt)
		}
		c.samples, c.times = int32(samples), p.span(p.uvarint())
	}
	return nil
}

// chunkBody reads the body of a chunk that has one.
func (p *entryParser) chunkBody(c *bundled, size int) error {
	if c.kind == kindDifference {
		n := uint64(len(p.bundle.chunks))
		back := p.uvarint()
		if back == 0 || back > n {
			return fmt.Errorf("difference to the chunk %d before: %w", back, ErrCorrupt)
		}
		c.base = int32(n - back)
		base := &p.bundle.chunks[c.base]
		if base.kind != kindValues && base.kind != kindDifference || base.depth == differenceDepthMax || !p.bundle.sameTimes(c, base) {
			return fmt.Errorf("difference to a chunk unlike it: %w", ErrCorrupt)
		}
		c.depth = base.depth + 1
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

// sameTimes tells whether two chunks have the same times, as far as the directory knows.
func (b *Bundle) sameTimes(x, y *bundled) bool {
	return x.clock == y.clock && x.shape == y.shape &&
		(x.times == y.times || bytes.Equal(x.times.of(b.value), y.times.of(b.value)))
}

// chunkValue reads the value that all samples of a chunk have, or which chunk tells.
func (p *entryParser) chunkValue(c *bundled) error {
	switch c.kind {
	case kindInteger:
		c.constant = float64(p.varint())
	case kindDecimal:
		exponent := p.bytes(1)
		if exponent == nil || exponent[0] > exponentMax {
			return fmt.Errorf("constant with exponent %x: %w", exponent, ErrCorrupt)
		}
		c.constant = float64(p.varint()) / powersOfTen[exponent[0]]
	case kindFloat:
		if b := p.bytes(8); b != nil {
			c.constant = math.Float64frombits(binary.LittleEndian.Uint64(b))
		}
	case kindRepeat:
		n := uint64(len(p.bundle.chunks))
		back := p.uvarint()
		if back == 0 || back > n {
			return fmt.Errorf("repeats the chunk %d before: %w", back, ErrCorrupt)
		}
		o := &p.bundle.chunks[n-back]
		c.kind, c.depth, c.base, c.body = o.kind, o.depth, o.base, o.body
		if !c.kind.hasBody() || c.kind == kindDifference && !p.bundle.sameTimes(c, o) {
			return fmt.Errorf("repeats a chunk unlike it: %w", ErrCorrupt)
		}
	}
	return nil
}
