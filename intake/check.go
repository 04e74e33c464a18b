package intake

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ErrBadChunk is wrapped by errors about chunks that contradict themselves.
var ErrBadChunk = errors.New("bad chunk")

// ChunkCheck looks at chunks that came from outside, before anybody decodes them in earnest: upstream's
// decoders trust what they read, panic on some bytes, and allocate what the layout of a
// histogram asks for. What it finds wraps ErrBadChunk. The zero value is ready. One goroutine uses it.
type ChunkCheck struct {
	it chunkenc.Iterator
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// Chunk makes a chunk of bytes and decodes all of it: its samples must be as many as it says, at least one, ascend
// strictly in time and lie in [minMillis, maxMillis]. The answer has the times of its first and its last sample, which
// may be closer. It is good for as long as data stays as it is.
func (k *ChunkCheck) Chunk(e chunkenc.Encoding, data []byte, minMillis, maxMillis int64) (c Chunk, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = Chunk{}, fmt.Errorf("%w: decoding it panics: %v", ErrBadChunk, r)
		}
	}()
	if err := checkLayout(e, data); err != nil {
		return c, err
	}
	if c.Chunk, err = chunkenc.FromData(e, data); err != nil {
		return Chunk{}, fmt.Errorf("%w: %w", ErrBadChunk, err)
	}
	n := 0
	k.it = c.Chunk.Iterator(k.it)
	for v := k.it.Next(); v != chunkenc.ValNone; v = k.it.Next() {
		t := k.it.AtT()
		switch {
		case n == 0:
			c.MinMillis = t
		case t <= c.MaxMillis:
			return Chunk{}, fmt.Errorf("%w: sample %d is at %d, the one before it at %d", ErrBadChunk, n, t, c.MaxMillis)
		}
		c.MaxMillis = t
		n++
		switch v {
		case chunkenc.ValHistogram:
			_, k.h = k.it.AtHistogram(k.h)
		case chunkenc.ValFloatHistogram:
			_, k.fh = k.it.AtFloatHistogram(k.fh)
		}
	}
	switch err := k.it.Err(); {
	case err != nil:
		return Chunk{}, fmt.Errorf("%w: sample %d: %w", ErrBadChunk, n, err)
	case n == 0:
		return Chunk{}, fmt.Errorf("%w: no samples", ErrBadChunk)
	case n != c.Chunk.NumSamples():
		return Chunk{}, fmt.Errorf("%w: %d samples, its head says %d", ErrBadChunk, n, c.Chunk.NumSamples())
	case c.MinMillis < minMillis || c.MaxMillis > maxMillis:
		return Chunk{}, fmt.Errorf("%w: its samples are from %d to %d, not within %d to %d", ErrBadChunk, c.MinMillis, c.MaxMillis, minMillis, maxMillis)
	}
	return c, nil
}

// Lengths of what stands before the first sample: the count of samples and, but for XOR, a byte of flags.
const (
	plainHeadBytes   = 2
	flaggedHeadBytes = 3
)

// bucketsMax bounds the spans, buckets and bounds of a histogram. The finest schema has half as many buckets between the
// smallest and the largest float64.
const bucketsMax = 1 << 20

// checkLayout looks at what upstream's decoders believe without a look: that the head is there, and how many
// buckets a histogram has. Each bucket takes one bit at least.
func checkLayout(e chunkenc.Encoding, data []byte) error {
	head := flaggedHeadBytes
	switch e {
	case chunkenc.EncXOR:
		head = plainHeadBytes
	case chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
	default:
		return fmt.Errorf("%w: its encoding %d is not known", ErrBadChunk, e)
	}
	if len(data) < head {
		return fmt.Errorf("%w: %d bytes", ErrBadChunk, len(data))
	}
	if e == chunkenc.EncXOR || e == chunkenc.EncXOR2 {
		return nil
	}
	if text := (&layoutBits{b: data[head:]}).histogram(); text != "" {
		return fmt.Errorf("%w: histogram layout: %s", ErrBadChunk, text)
	}
	return nil
}

// layoutBits reads the layout that histogram chunks begin with: zero threshold, schema, spans, bounds of custom buckets.
type layoutBits struct {
	b     []byte
	at    int // in bits
	short bool
}

// histogram says what is wrong with the layout, "" if nothing is.
func (l *layoutBits) histogram() string {
	if l.bits(8) == math.MaxUint8 {
		l.bits(64)
	}
	schema := l.signed()
	if l.short {
		return "it ends early"
	}
	if schema != int64(int32(schema)) || !histogram.IsKnownSchema(int32(schema)) {
		return fmt.Sprintf("schema %d is not known", schema)
	}
	for range 2 {
		if text := l.spans(); text != "" {
			return text
		}
	}
	if !histogram.IsCustomBucketsSchema(int32(schema)) {
		return ""
	}
	before := math.Inf(-1)
	bounds := l.unsigned()
	if bounds > bucketsMax {
		return fmt.Sprintf("%d bounds of custom buckets", bounds)
	}
	for ; bounds > 0; bounds-- {
		bound := 0.0
		switch v := l.unsigned(); v {
		case 0:
			bound = math.Float64frombits(l.bits(64))
		default:
			bound = float64(v-1) / 1000
		}
		if l.short {
			return "it ends early"
		}
		if !(bound > before) {
			return "bounds of custom buckets don't ascend"
		}
		before = bound
	}
	return ""
}

// spans reads the spans of one side.
func (l *layoutBits) spans() string {
	index, buckets := int64(0), uint64(0)
	n := l.unsigned()
	if n > bucketsMax {
		return fmt.Sprintf("%d spans", n)
	}
	for i := range n {
		length, offset := l.unsigned(), l.signed()
		if l.short {
			return "it ends early"
		}
		if length > math.MaxUint32 || offset != int64(int32(offset)) || i > 0 && offset < 0 {
			return fmt.Sprintf("a span has length %d and offset %d", length, offset)
		}
		buckets += length
		index += offset + int64(length)
		if buckets > min(bucketsMax, uint64(len(l.b))*8) {
			return fmt.Sprintf("%d buckets in %d bytes", buckets, len(l.b))
		}
		if index != int64(int32(index)) {
			return fmt.Sprintf("a bucket has index %d", index)
		}
	}
	if l.short {
		return "it ends early"
	}
	return ""
}

// varbitSizes are how many bits follow a prefix of so many ones.
var varbitSizes = [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}

func (l *layoutBits) varbit() (v uint64, size int) {
	ones := 0
	for ones < 8 && l.bits(1) == 1 {
		ones++
	}
	size = varbitSizes[ones]
	return l.bits(size), size
}

func (l *layoutBits) unsigned() uint64 {
	v, _ := l.varbit()
	return v
}

func (l *layoutBits) signed() int64 {
	v, size := l.varbit()
	if size > 0 && size < 64 && v > 1<<(size-1) {
		v -= 1 << size
	}
	return int64(v)
}

// bits reads n bits, the highest first. Behind the end there are zeros, and short is set.
func (l *layoutBits) bits(n int) (v uint64) {
	if l.at+n > len(l.b)*8 {
		l.short, l.at = true, len(l.b)*8
		return 0
	}
	for ; n > 0; n-- {
		v = v<<1 | uint64(l.b[l.at>>3]>>(7-l.at&7)&1)
		l.at++
	}
	return v
}
