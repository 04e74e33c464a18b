package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Versions of the byte form of a run. The list only grows.
const (
	// runVersion1 is the form that docs/format/run.md describes.
	runVersion1 = 1
)

// runPieceBytesMin is an encoding, a length and a span of one byte each and the
// smallest chunk. It bounds the pieces that a count may promise.
const runPieceBytesMin = 3 + 2

// ErrVersion is wrapped when a run is whole, but was written by a later release
// in a form or an encoding that this one doesn't know.
var ErrVersion = errors.New("run of an unknown version")

// AppendRun appends the on-disk value of a run to dst and returns the extended
// buffer. firstSequence is the journal sequence of the first arrival in it. pieces
// are in order of arrival, at least one, each as AppendXOR or a RareBuilder made
// it. The checksum covers key, which must be the key that the run is stored under.
// Nothing is kept.
func AppendRun(dst, key []byte, firstSequence uint64, pieces []Piece) []byte {
	start := len(dst)
	dst = append(dst, runVersion1)
	dst = binary.AppendUvarint(dst, firstSequence)
	dst = binary.AppendUvarint(dst, uint64(len(pieces)))
	var last int64
	for i := range pieces {
		p := &pieces[i]
		dst = append(dst, byte(p.Encoding))
		dst = binary.AppendUvarint(dst, uint64(len(p.Data)))
		if p.isHistogram() {
			// A histogram chunk has its first timestamp behind the bucket layout, too far
			// in to look it up. Differences wrap around.
			dst = binary.AppendVarint(dst, p.MinMillis-last)
		}
		dst = binary.AppendUvarint(dst, uint64(p.MaxMillis-p.MinMillis))
		dst = append(dst, p.Data...)
		last = p.MaxMillis
	}
	return appendChecksum(dst, key, start)
}

// ParseRun checks the checksum and the structure of a run and appends its pieces
// to pieces[:0], whose memory it reuses. The pieces' Data alias value. The insides
// of the chunks are not looked at; Column.Decode checks those.
//
// Errors wrap ErrCorrupt, or ErrVersion if the run is whole but from a later release.
func ParseRun(key, value []byte, pieces []Piece) (firstSequence uint64, _ []Piece, err error) {
	pieces = pieces[:0]
	body, err := versionedBody(key, value, runVersion1)
	if err != nil {
		return 0, pieces, fmt.Errorf("parse run: %w", err)
	}
	r := runReader{rest: body[1:]}
	firstSequence = r.uvarint()
	count := r.uvarint()
	if r.broken || count == 0 || count > uint64(len(r.rest)/runPieceBytesMin) {
		return 0, pieces, fmt.Errorf("parse run: %d pieces in %d bytes: %w", count, len(r.rest), ErrCorrupt)
	}
	pieces = slices.Grow(pieces, int(count))
	var last int64
	for i := range count {
		p, err := r.piece(last)
		if err != nil {
			return 0, pieces[:0], fmt.Errorf("parse run: piece %d of %d: %w", i, count, err)
		}
		pieces = append(pieces, p)
		last = p.MaxMillis
	}
	if len(r.rest) > 0 {
		return 0, pieces[:0], fmt.Errorf("parse run: %d bytes behind the last piece: %w", len(r.rest), ErrCorrupt)
	}
	return firstSequence, pieces, nil
}

// runReader consumes the bytes of a run. Once broken it stays so and reads zeros.
type runReader struct {
	rest   []byte
	broken bool
}

func (r *runReader) uvarint() uint64 {
	v, k := binary.Uvarint(r.rest)
	if k <= 0 {
		r.broken, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[k:]
	return v
}

func (r *runReader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *runReader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.broken, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// piece reads one piece; last is the last time of the piece before it.
func (r *runReader) piece(last int64) (Piece, error) {
	var p Piece
	if encoding := r.bytes(1); !r.broken {
		p.Encoding = chunkenc.Encoding(encoding[0])
	}
	if !r.broken && !chunkenc.IsValidEncoding(p.Encoding) {
		return p, fmt.Errorf("encoding %d: %w", p.Encoding, ErrVersion)
	}
	size := r.uvarint()
	if p.isHistogram() {
		p.MinMillis = last + r.varint()
	}
	span := r.uvarint()
	p.Data = r.bytes(size)
	if r.broken {
		return p, fmt.Errorf("cut short: %w", ErrCorrupt)
	}
	if !p.readHeader() {
		return p, fmt.Errorf("%s chunk of %d bytes without a header: %w", p.Encoding, size, ErrCorrupt)
	}
	p.MaxMillis = p.MinMillis + int64(span)
	// Times ascend strictly, so one sample spans nothing and n samples n-1 ms at least.
	if p.Samples == 0 || p.MaxMillis < p.MinMillis || span < uint64(p.Samples-1) || (p.Samples == 1) != (span == 0) {
		return p, fmt.Errorf("%d samples over %d ms: %w", p.Samples, span, ErrCorrupt)
	}
	return p, nil
}

// Sizes of upstream's chunk headers, and the bits of a sample count that shares
// its bytes with the counter reset header.
const (
	xorHeaderBytes       = 2
	xor2HeaderBytes      = 3
	histogramHeaderBytes = 3
	histogramSTCountMask = 1<<14 - 1
)

// readHeader sets Samples from the chunk's header, and MinMillis of a float chunk
// from its first sample. It reports whether the chunk is long enough.
func (p *Piece) readHeader() bool {
	header := xorHeaderBytes
	if p.Encoding != chunkenc.EncXOR {
		header = histogramHeaderBytes // As many as xor2HeaderBytes.
	}
	if len(p.Data) < header {
		return false
	}
	p.Samples = int(binary.BigEndian.Uint16(p.Data))
	switch p.Encoding {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
		var k int
		p.MinMillis, k = binary.Varint(p.Data[header:])
		return k > 0
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		p.Samples &= histogramSTCountMask
	}
	return true
}
