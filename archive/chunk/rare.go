package chunk

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ErrHistogram is wrapped when a histogram contradicts itself in a way that no
// chunk can hold. It is the sender's fault.
var ErrHistogram = errors.New("invalid histogram")

// Estimates of what the open chunk takes beside its bytes.
const (
	// chunkStateBytes is for the objects of chunk and appender.
	chunkStateBytes = 512
	// bucketStateBytes is the last count and the last difference of a bucket.
	bucketStateBytes = 16
	pieceBytes       = 56
)

// RareBuilder gathers the samples of one series that AppendXOR can't take: native
// histograms, and floats with a start timestamp. Samples come in order of arrival,
// whatever their times.
//
// It keeps closed pieces and at most one open chunk, and closes that when
//
//  1. the kind of the sample changes (float, integer histogram, float histogram), or
//     whether it has a start timestamp;
//  2. its time isn't after the last one;
//  3. the chunk has 120 samples;
//  4. a histogram's spans differ from those of the chunk. Upstream would recode the
//     chunk and pad one side with empty buckets; here every histogram comes back
//     with the very spans it was sent with;
//  5. upstream's appender says so: schema, zero threshold or custom bounds changed, the
//     counter was reset, or a sample follows a stale marker.
//
// The counter reset header of a new chunk says what upstream's would say of the
// sample before, where 3, 4 or 5 closed the chunk; else it says unknown.
//
// The zero RareBuilder is ready for use. It belongs to one goroutine at a time.
type RareBuilder struct {
	closed      []Piece
	closedBytes int

	// The open chunk; nil when there is none.
	open      chunkenc.Chunk
	appender  chunkenc.Appender
	encoding  chunkenc.Encoding
	samples   int
	min, last int64

	layout bucketLayout
	// stale tells that the last sample was a stale marker, gauge that the chunk holds
	// gauge histograms.
	stale, gauge bool
}

// bucketLayout is what all histograms of a chunk have in common.
type bucketLayout struct {
	schema             int32
	zeroThreshold      float64
	positive, negative []histogram.Span
}

// AppendFloat adds a float sample: its time in Unix milliseconds, its start
// timestamp or zero, its value's IEEE 754 bits.
func (b *RareBuilder) AppendFloat(t, start int64, v uint64) {
	encoding := chunkenc.ValFloat.ChunkEncoding(start != 0, false)
	if !b.fits(t, encoding) || b.samples == samplesPerChunkMax {
		b.begin(t, encoding)
	}
	b.appender.Append(start, t, math.Float64frombits(v))
	b.samples++
	b.last = t
}

// AppendHistogram adds an integer histogram sample; start is its start timestamp or
// zero. h is copied. It fails with ErrHistogram, and changes nothing, if h has
// another number of buckets than its spans say, or an unknown schema.
func (b *RareBuilder) AppendHistogram(t, start int64, h *histogram.Histogram) error {
	layout := bucketLayout{h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans}
	stale := value.IsStaleNaN(h.Sum)
	if !stale {
		if err := layout.check(len(h.PositiveBuckets), len(h.NegativeBuckets), h.CustomValues); err != nil {
			return err
		}
	}
	encoding := chunkenc.ValHistogram.ChunkEncoding(false, start != 0)
	previous := b.makeRoom(t, encoding, &layout, stale)
	chunk, _, appender, err := b.appender.AppendHistogram(previous, start, t, h, false)
	if err != nil {
		return fmt.Errorf("append histogram: %w", err)
	}
	b.took(t, chunk, appender, layout, stale, h.CounterResetHint == histogram.GaugeType)
	return nil
}

// AppendFloatHistogram adds a float histogram sample; see AppendHistogram.
func (b *RareBuilder) AppendFloatHistogram(t, start int64, h *histogram.FloatHistogram) error {
	layout := bucketLayout{h.Schema, h.ZeroThreshold, h.PositiveSpans, h.NegativeSpans}
	stale := value.IsStaleNaN(h.Sum)
	if !stale {
		if err := layout.check(len(h.PositiveBuckets), len(h.NegativeBuckets), h.CustomValues); err != nil {
			return err
		}
	}
	encoding := chunkenc.ValFloatHistogram.ChunkEncoding(false, start != 0)
	previous := b.makeRoom(t, encoding, &layout, stale)
	chunk, _, appender, err := b.appender.AppendFloatHistogram(previous, start, t, h, false)
	if err != nil {
		return fmt.Errorf("append float histogram: %w", err)
	}
	b.took(t, chunk, appender, layout, stale, h.CounterResetHint == histogram.GaugeType)
	return nil
}

// Pieces appends what was gathered to dst, in order of arrival. The pieces stay as
// they are while later appends go on: those of closed chunks are shared, the open
// chunk's bytes are copied.
func (b *RareBuilder) Pieces(dst []Piece) []Piece {
	dst = append(dst, b.closed...)
	if b.open != nil {
		dst = append(dst, b.openPiece(slices.Clone(b.open.Bytes())))
	}
	return dst
}

// Reset forgets all samples. Pieces that were handed out stay valid.
func (b *RareBuilder) Reset() {
	*b = RareBuilder{}
}

// Bytes estimates the memory that the builder holds.
func (b *RareBuilder) Bytes() int {
	n := b.closedBytes + len(b.closed)*pieceBytes
	if b.open != nil {
		n += cap(b.open.Bytes()) + chunkStateBytes
		n += bucketStateBytes * int(countBuckets(b.layout.positive)+countBuckets(b.layout.negative))
	}
	return n
}

// fits reports whether the open chunk can take a sample of the encoding at t, as
// far as time and encoding go.
func (b *RareBuilder) fits(t int64, encoding chunkenc.Encoding) bool {
	return b.open != nil && b.encoding == encoding && t > b.last
}

// makeRoom closes the open chunk if a histogram can't go there, and opens one. It
// returns the appender of the chunk before where the new one continues it, so that
// upstream can tell whether the counter was reset between them.
func (b *RareBuilder) makeRoom(t int64, encoding chunkenc.Encoding, layout *bucketLayout, stale bool) chunkenc.Appender {
	if !b.fits(t, encoding) {
		b.begin(t, encoding)
		return nil
	}
	sameSpans := stale || b.stale ||
		slices.Equal(layout.positive, b.layout.positive) && slices.Equal(layout.negative, b.layout.negative)
	if sameSpans && b.samples < samplesPerChunkMax {
		return nil
	}
	// Upstream compares a float histogram across chunks as if schema and threshold were
	// the same, and calls anything but a reset "not a reset".
	likeBefore := !stale && !b.stale && !b.gauge &&
		layout.schema == b.layout.schema && layout.zeroThreshold == b.layout.zeroThreshold
	previous := b.appender
	b.begin(t, encoding)
	if !likeBefore {
		return nil
	}
	return previous
}

// took notes what an append of a histogram returned.
func (b *RareBuilder) took(t int64, chunk chunkenc.Chunk, appender chunkenc.Appender, layout bucketLayout, stale, gauge bool) {
	if chunk != nil {
		// makeRoom leaves upstream nothing to recode, so this is a new chunk.
		b.close()
		b.open, b.samples, b.min = chunk, 0, t
	}
	b.appender = appender
	b.samples++
	b.last = t
	b.stale = stale
	if b.samples == 1 {
		b.gauge = gauge
		if stale {
			layout = bucketLayout{}
		}
		layout.positive = slices.Clone(layout.positive)
		layout.negative = slices.Clone(layout.negative)
		b.layout = layout
	}
}

// begin closes the open chunk and opens another whose first sample will be at t.
func (b *RareBuilder) begin(t int64, encoding chunkenc.Encoding) {
	b.close()
	chunk, err := chunkenc.NewEmptyChunk(encoding)
	if err != nil {
		panic(err) // The encodings above are all known.
	}
	appender, err := chunk.Appender()
	if err != nil {
		panic(err) // Only a chunk with samples can be broken.
	}
	b.open, b.appender, b.encoding = chunk, appender, encoding
	b.samples, b.min, b.last = 0, t, t
	b.layout, b.stale, b.gauge = bucketLayout{}, false, false
}

func (b *RareBuilder) close() {
	if b.open == nil {
		return
	}
	b.open.Compact()
	data := b.open.Bytes()
	b.closed = append(b.closed, b.openPiece(data))
	b.closedBytes += cap(data)
	b.open = nil
}

func (b *RareBuilder) openPiece(data []byte) Piece {
	return Piece{Encoding: b.encoding, Samples: b.samples, MinMillis: b.min, MaxMillis: b.last, Data: data}
}

// check reports a layout that no chunk holds whole, or that upstream's appender
// would run off.
func (l *bucketLayout) check(positiveBuckets, negativeBuckets int, customValues []float64) error {
	if !histogram.IsValidSchema(l.schema) {
		return fmt.Errorf("schema %d: %w", l.schema, ErrHistogram)
	}
	if n := countBuckets(l.positive); n != uint64(positiveBuckets) {
		return fmt.Errorf("%d positive buckets in spans of %d: %w", positiveBuckets, n, ErrHistogram)
	}
	if n := countBuckets(l.negative); n != uint64(negativeBuckets) {
		return fmt.Errorf("%d negative buckets in spans of %d: %w", negativeBuckets, n, ErrHistogram)
	}
	if len(customValues) > 0 && !histogram.IsCustomBucketsSchema(l.schema) {
		return fmt.Errorf("%d custom bounds with schema %d: %w", len(customValues), l.schema, ErrHistogram)
	}
	return nil
}

func countBuckets(spans []histogram.Span) uint64 {
	var n uint64
	for _, s := range spans {
		n += uint64(s.Length)
	}
	return n
}
