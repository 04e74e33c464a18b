package chunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk/ints"
)

// ErrBundleFull is returned when a series has more chunks than are left of
// BundleChunksMax. It fits into another bundle.
var ErrBundleFull = errors.New("bundle is full")

// BundleBuilder gathers the chunks of a bundle and writes it.
//
// Add cuts a series at each change of kind, since a chunk has samples of one kind, and where
// histograms get too large. It encodes each chunk at once. Of a chunk of floats it keeps
//
//  1. one value, if all samples have it;
//  2. else the number of the earlier chunk that has the same bytes, if there is one;
//  3. else the stream of values or, if it is shorter, the stream of their difference to
//     the chunk that Add was pointed to.
//
// Append lays the chunks out. Neighbours that are constant or repeated and alike in all
// become one entry.
//
// The zero BundleBuilder is ready. It keeps its memory for the next bundle and belongs to
// one goroutine at a time.
type BundleBuilder struct {
	chunks []builtChunk
	// adds are the first chunks of each series added.
	adds  []int32
	arena []byte // what the chunks' spans lie in
	size  int

	// bodies finds a chunk by the hash of its body.
	bodies map[uint64]int32
	seed   maphash.Seed

	values     valueEncoder
	histograms histogramEncoder
	ints       ints.Encoder
	times      TimesEncoder
	decoder    valueDecoder
	// base holds the integers of the last decimal chunk, whose number is baseOf.
	base   []int64
	baseOf int32
}

// builtChunk is a chunk before it is laid out.
type builtChunk struct {
	ref     uint64
	kind    chunkKind
	depth   uint8
	shape   uint8
	clock   ClockID
	samples int
	target  int32 // of a repeat or a difference
	times   span
	starts  span
	// body is the whole stream, which others may repeat; difference is what is written
	// in its place with kindDifference.
	body, difference span
	constant         float64
}

// Reset forgets all chunks.
func (b *BundleBuilder) Reset() {
	if b.bodies == nil {
		b.bodies, b.seed = map[uint64]int32{}, maphash.MakeSeed()
	}
	clear(b.bodies)
	b.chunks, b.adds, b.arena = b.chunks[:0], b.adds[:0], b.arena[:0]
	b.size, b.baseOf = 0, -1
}

// Len is the number of chunks so far.
func (b *BundleBuilder) Len() int { return len(b.chunks) }

// Size estimates the length of the bundle's value so far, in bytes. It takes constants and
// repeats that become one entry for many, so that a bundle of such may be much smaller.
func (b *BundleBuilder) Size() int { return bundleFrameBytes + b.size }

const bundleFrameBytes = 1 + checksumBytes

// Add adds a series. Refs must not descend; a ref may come again with later times.
//
// clock is the clock that c's times are all or some of, and clockTimes are its times; with
// NoClock the bundle gets the times itself. base is the number, in the order of Adds from
// 0, of a series that has the same times and whose values are probably a little lower, or
// -1. Nothing is kept of the arguments. With an error nothing was added: ErrBundleFull,
// or a fault of the caller's.
func (b *BundleBuilder) Add(ref uint64, clock ClockID, clockTimes []int64, base int, c *Column) error {
	if b.bodies == nil {
		b.Reset()
	}
	n, arena, size := len(b.chunks), len(b.arena), b.size
	err := b.add(ref, clock, clockTimes, base, c)
	if err != nil {
		b.chunks, b.arena, b.size, b.baseOf = b.chunks[:n], b.arena[:arena], size, -1
		return fmt.Errorf("add series %d to bundle: %w", ref, err)
	}
	b.adds = append(b.adds, int32(n))
	return nil
}

func (b *BundleBuilder) add(ref uint64, clock ClockID, clockTimes []int64, base int, c *Column) error {
	switch n := len(b.chunks); {
	case n > 0 && ref < b.chunks[n-1].ref:
		return fmt.Errorf("behind series %d", b.chunks[n-1].ref)
	case len(c.Times) == 0:
		return errors.New("no samples")
	case base >= len(b.adds):
		return fmt.Errorf("base %d of %d series", base, len(b.adds))
	}
	for first := 0; first < len(c.Times); {
		if len(b.chunks) == BundleChunksMax {
			return ErrBundleFull
		}
		end := c.chunkEnd(first)
		if end == first {
			return fmt.Errorf("a histogram of more than %d buckets", HistogramBucketsMax)
		}
		b.chunks = append(b.chunks, builtChunk{ref: ref, clock: clock, samples: end - first})
		built := &b.chunks[len(b.chunks)-1]
		if err := b.addTimes(built, clockTimes, c.Times[first:end]); err != nil {
			return err
		}
		if c.Starts != nil {
			b.addStarts(built, c.Starts[first:end])
		}
		if c.isHistogram(first) {
			b.addHistograms(built, &c.histograms, c.rows[first:end], c.Kinds[first] == chunkenc.ValFloatHistogram)
		} else {
			b.addFloats(built, c.Values[first:end], base)
		}
		b.count(built)
		first = end
	}
	return nil
}

// chunkEnd is where the chunk ends that begins with the sample at index first. It is first
// if no chunk holds that.
func (c *Column) chunkEnd(first int) int {
	end := min(len(c.Times), first+sealedSamplesMax)
	if c.Kinds == nil {
		return end
	}
	if i := slices.IndexFunc(c.Kinds[first:end], func(k chunkenc.ValueType) bool { return k != c.Kinds[first] }); i >= 0 {
		end = first + i
	}
	if c.isHistogram(first) {
		end = c.sealedHistogramsEnd(first, end)
	}
	return end
}

func (c *Column) isHistogram(i int) bool { return c.Kinds != nil && c.Kinds[i] != chunkenc.ValFloat }

// addTimes tells how the chunk gets its times.
func (b *BundleBuilder) addTimes(built *builtChunk, clock, times []int64) error {
	switch {
	case built.clock == NoClock:
		built.shape = timesInline
		built.times = b.keep(b.times.Append(b.arena, times))
	case slices.Equal(clock, times):
		built.shape = timesWhole
	default:
		arena, ok := AppendPresence(b.arena, clock, times)
		if !ok {
			return fmt.Errorf("times beside clock %x", uint64(built.clock))
		}
		built.shape, built.times = timesSome, b.keep(arena)
	}
	return nil
}

// keep makes the extended arena the arena and returns what was added.
func (b *BundleBuilder) keep(extended []byte) span {
	s := span{uint32(len(b.arena)), uint32(len(extended))}
	b.arena = extended
	return s
}

// addStarts keeps start timestamps, unless there are none.
func (b *BundleBuilder) addStarts(built *builtChunk, starts []int64) {
	if slices.ContainsFunc(starts, func(start int64) bool { return start != 0 }) {
		built.starts = b.keep(b.ints.Append(b.arena, starts))
	}
}

// addFloats encodes the values of the chunk.
func (b *BundleBuilder) addFloats(built *builtChunk, values []float64, base int) {
	if isConstant(values) {
		built.kind, built.constant = constantKind(values[0]), values[0]
		return
	}
	self := int32(len(b.chunks) - 1)
	built.kind = kindValues
	built.body = b.keep(b.values.append(b.arena, values))
	if b.repeats(built, self) {
		return
	}
	if b.values.form != formDecimal {
		return
	}
	if below, ok := b.baseFor(built, base); ok {
		b.tryDifference(built, below)
	}
	b.base, b.values.integers = b.values.integers, b.base
	b.baseOf = self
}

func isConstant(values []float64) bool {
	first := math.Float64bits(values[0])
	for _, v := range values[1:] {
		if math.Float64bits(v) != first {
			return false
		}
	}
	return true
}

// constantKind is the shortest kind that holds the value.
func constantKind(v float64) chunkKind {
	const floatBytes = 8
	exponent, ok := exponentFrom(v, 0)
	if !ok {
		return kindFloat
	}
	k, _ := decimalOf(v, exponent)
	n := uvarintBytes(uint64(k<<1) ^ uint64(k>>63))
	switch {
	case exponent == 0 && n <= floatBytes:
		return kindInteger
	case exponent > 0 && 1+n < floatBytes:
		return kindDecimal
	default:
		return kindFloat
	}
}

// repeats makes the chunk a repeat of an earlier one with the same body and remembers it
// otherwise.
func (b *BundleBuilder) repeats(built *builtChunk, self int32) bool {
	body := built.body.of(b.arena)
	h := maphash.Bytes(b.seed, body)
	i, known := b.bodies[h]
	if !known || int(i) >= len(b.chunks)-1 {
		b.bodies[h] = self
		return false
	}
	o := &b.chunks[i]
	// Equal bytes are equal values also where the numbers of samples differ.
	if !bytes.Equal(o.body.of(b.arena), body) ||
		o.kind != built.kind && (o.kind != kindDifference || built.kind != kindValues || !b.sameTimes(o, built)) {
		return false
	}
	built.kind, built.target = kindRepeat, i
	b.arena = b.arena[:built.body.first]
	built.body = span{}
	return true
}

// sameTimes is Bundle.sameTimes before the bytes are there.
func (b *BundleBuilder) sameTimes(x, y *builtChunk) bool {
	return x.clock == y.clock && x.shape == y.shape && x.samples == y.samples &&
		bytes.Equal(x.times.of(b.arena), y.times.of(b.arena))
}

// baseFor finds the chunk of the series numbered base that a difference may be taken to.
func (b *BundleBuilder) baseFor(built *builtChunk, base int) (int32, bool) {
	if base < 0 {
		return 0, false
	}
	first := b.adds[base]
	for i := first; i < int32(len(b.chunks)-1) && b.chunks[i].ref == b.chunks[first].ref; i++ {
		o := i
		if b.chunks[o].kind == kindRepeat {
			o = b.chunks[o].target
		}
		c := &b.chunks[o]
		if (c.kind == kindValues || c.kind == kindDifference) && c.depth < differenceDepthMax && b.sameTimes(c, built) &&
			b.arena[c.body.first]&formMask == formDecimal {
			return o, true
		}
	}
	return 0, false
}

// tryDifference encodes the chunk as a difference to another and keeps that if it is
// shorter.
func (b *BundleBuilder) tryDifference(built *builtChunk, below int32) {
	c := &b.chunks[below]
	if b.baseOf != below {
		var err error
		if b.base, err = b.decoder.decimals(c.body.of(b.arena), c.samples, b.base); err != nil {
			panic(err) // It was encoded by this builder.
		}
		b.baseOf = below
	}
	difference := b.values.appendDifference(b.arena, b.base)
	const distanceBytes = 2
	if len(difference)-len(b.arena)+distanceBytes >= built.body.length() {
		b.arena = difference[:len(b.arena)]
		return
	}
	built.difference = b.keep(difference)
	built.kind, built.target, built.depth = kindDifference, below, c.depth+1
}

// count adds the chunk to the size, as if it made an entry of its own.
func (b *BundleBuilder) count(built *builtChunk) {
	const tagAndDistance, lengthMax, clockMax = 3, 3, 6
	n := tagAndDistance + built.starts.length()
	if !built.starts.isEmpty() {
		n += lengthMax
	}
	switch built.kind {
	case kindInteger, kindDecimal:
		n += uvarintBytes(uint64(math.Abs(built.constant)))
	case kindFloat:
		n += 8
	case kindDifference:
		n += lengthMax + built.difference.length()
	case kindRepeat:
	default:
		n += lengthMax + built.body.length()
	}
	var before *builtChunk
	if len(b.chunks) > 1 {
		before = &b.chunks[len(b.chunks)-2]
		n += uvarintBytes(built.ref - before.ref)
	}
	if before == nil || !b.sameTimes(built, before) {
		n += clockMax + lengthMax + built.times.length()
	}
	b.size += n
}

// uvarintBytes is the length of a uvarint.
func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// Append appends the bundle's value to dst and returns the extended slice. key is what it
// will be stored under. There must be a chunk.
func (b *BundleBuilder) Append(dst, key []byte) []byte {
	start := len(dst)
	dst = append(dst, bundleVersion1)
	w := entryWriter{builder: b}
	for i := 0; i < len(b.chunks); {
		n := b.alike(i)
		dst = w.entry(dst, i, n)
		i += n
	}
	return appendChecksum(dst, key, start)
}

// alike is how many chunks from index i on make one entry.
func (b *BundleBuilder) alike(i int) int {
	c := &b.chunks[i]
	n := 1
	if c.kind.hasBody() {
		return n
	}
	for ; i+n < len(b.chunks); n++ {
		o := &b.chunks[i+n]
		if o.kind != c.kind || o.ref != c.ref+uint64(n) || math.Float64bits(o.constant) != math.Float64bits(c.constant) ||
			o.target != c.target || !b.sameTimes(o, c) || !bytes.Equal(o.starts.of(b.arena), c.starts.of(b.arena)) {
			break
		}
	}
	return n
}

// entryWriter writes the entries of a bundle.
type entryWriter struct {
	builder *BundleBuilder
	before  *builtChunk
	group   uint64
	starts  []byte
}

// entry writes the n chunks from index i on, which are alike.
func (w *entryWriter) entry(dst []byte, i, n int) []byte {
	b := w.builder
	c := &b.chunks[i]
	at := len(dst)
	dst = append(dst, byte(c.kind))
	if w.before != nil && c.ref != w.before.ref+1 {
		dst[at] |= entryHasGap
		dst = binary.AppendUvarint(dst, c.ref-w.before.ref)
	}
	if w.before == nil || !b.sameTimes(c, w.before) {
		dst[at] |= entryHasTimes
		dst = w.times(dst, c)
	}
	if !c.starts.isEmpty() {
		dst[at] |= entryHasStarts
		starts := c.starts.of(b.arena)
		if bytes.Equal(starts, w.starts) {
			dst = append(dst, 0)
		} else {
			dst = binary.AppendUvarint(dst, uint64(len(starts)))
			dst = append(dst, starts...)
			w.starts = starts
		}
	}
	w.before = &b.chunks[i+n-1]
	if c.kind.hasBody() {
		return w.body(dst, at, i)
	}
	if more := n - 1; more < entryMoreMin {
		dst[at] |= byte(more) << entrySizeShift
	} else {
		dst[at] |= entryMoreMin << entrySizeShift
		dst = binary.AppendUvarint(dst, uint64(more-entryMoreMin))
	}
	return w.value(dst, c, i)
}

// times writes what the times of a chunk are.
func (w *entryWriter) times(dst []byte, c *builtChunk) []byte {
	if c.shape == timesInline {
		dst = append(dst, timesInline)
	} else {
		head := uint64(c.shape) | c.clock.ordinal()<<timesOrdinalShift
		if group := c.clock.group(); group != w.group {
			dst = binary.AppendUvarint(dst, head|timesOtherGroup)
			dst = binary.AppendVarint(dst, int64(group-w.group))
			w.group = group
		} else {
			dst = binary.AppendUvarint(dst, head)
		}
	}
	if c.shape == timesWhole {
		return dst
	}
	times := c.times.of(w.builder.arena)
	dst = binary.AppendUvarint(dst, uint64(c.samples))
	dst = binary.AppendUvarint(dst, uint64(len(times)))
	return append(dst, times...)
}

// body writes the body of chunk i, whose entry begins at index at of dst.
func (w *entryWriter) body(dst []byte, at, i int) []byte {
	c := &w.builder.chunks[i]
	body := c.body
	if c.kind == kindDifference {
		body = c.difference
		dst = binary.AppendUvarint(dst, uint64(i)-uint64(c.target))
	}
	bytes := body.of(w.builder.arena)
	if i < len(w.builder.chunks)-1 {
		size := lengthBytes(len(bytes))
		dst[at] |= byte(size) << entrySizeShift
		var le [8]byte
		binary.LittleEndian.PutUint64(le[:], uint64(len(bytes)))
		dst = append(dst, le[:size]...)
	}
	return append(dst, bytes...)
}

// lengthBytes is how many bytes the length of a body takes, 1 to 3.
func lengthBytes(n int) int {
	switch {
	case n < 1<<8:
		return 1
	case n < 1<<16:
		return 2
	default:
		return 3
	}
}

// value writes the value of chunk i, or which chunk it repeats.
func (w *entryWriter) value(dst []byte, c *builtChunk, i int) []byte {
	switch c.kind {
	case kindInteger:
		k, _ := decimalOf(c.constant, 0)
		return binary.AppendVarint(dst, k)
	case kindDecimal:
		exponent, _ := exponentFrom(c.constant, 0)
		k, _ := decimalOf(c.constant, exponent)
		return binary.AppendVarint(append(dst, byte(exponent)), k)
	case kindFloat:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(c.constant))
	default: // kindRepeat
		return binary.AppendUvarint(dst, uint64(i)-uint64(c.target))
	}
}
