// Package chunk encodes and decodes samples: what lies in a run and in a bundle, and
// what a query makes of it.
//
// A Piece is one upstream chunk of one series with its bounds. A run is the
// immutable byte form of some pieces, in the order in which they arrived:
// AppendRun writes it, ParseRun reads it, docs/format/run.md describes it byte
// by byte. Pieces of plain floats come from AppendXOR in one go; a RareBuilder
// gathers what that cannot hold, which is native histograms and floats that have
// a start timestamp.
//
// A Bundle is the byte form of sealed data: the chunks of some neighbouring series over a
// day, in Varve's own codec. A BundleBuilder makes it of Columns; docs/format/bundle.md
// has the bytes. Its chunks are Pieces too. Rollups are the directory of a bundle of buckets,
// which a RollupBuilder makes of rollup.Columns; docs/format/rollup.md has those.
//
// A Column is the other direction: the samples of one series between two times,
// merged over all its pieces, decoded into flat arrays that an Iterator walks. Of
// two samples at one time the later arrival wins.
//
// In a run the chunks are upstream's encodings bit for bit, so that a piece can be handed
// to whoever reads Prometheus chunks. In all forms every value comes back with its bits.
//
// The functions keep no state and may be called from many goroutines. A Column, an
// Iterator and the builders belong to one goroutine at a time.
//
// The package does no I/O and knows nothing of keys beyond hashing them into a checksum.
package chunk

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/format"
)

// ErrCorrupt is wrapped by every error that means the bytes are not what was
// written, or were written wrong.
var ErrCorrupt = fmt.Errorf("%w chunk", format.ErrCorrupt)

// samplesPerChunkMax is where a chunk is closed. It is upstream's own target, far
// below the 16,383 samples that the smallest counter in a chunk header can hold.
const samplesPerChunkMax = 120

// Piece is one upstream chunk of a series, or one chunk of a bundle.
type Piece struct {
	// Encoding is EncNone if Sealed is set.
	Encoding chunkenc.Encoding
	// Samples is at least 1. If Sealed is set it is a guess that saves allocations.
	Samples int
	// MinMillis and MaxMillis are the times of the first and the last sample, both
	// inclusive. Times ascend strictly inside a piece. If Sealed is set they are bounds
	// that no sample lies outside.
	MinMillis, MaxMillis int64
	// Data is the chunk in upstream's byte form; nil if Sealed is set.
	Data []byte
	// Sealed is the chunk of a bundle, else nil. It is read while the piece is decoded.
	Sealed *Sealed
	// Hidden, unless nil, is at least one stretch of time whose samples Column.Decode leaves
	// out, as if the piece had none there. It is for reading, and pieces may share it.
	Hidden *Spans
}

// within reports whether the piece may hold a sample with mint <= time <= maxt.
func (p *Piece) within(mint, maxt int64) bool {
	return p.MaxMillis >= mint && p.MinMillis <= maxt
}

// isPlain reports whether the piece is floats without start timestamps, none of them hidden.
func (p *Piece) isPlain() bool {
	if p.Hidden != nil {
		return false
	}
	if p.Sealed != nil {
		return !p.Sealed.isHistogram() && !p.Sealed.hasStarts()
	}
	return p.Encoding == chunkenc.EncXOR
}

func (p *Piece) isHistogram() bool {
	if p.Sealed != nil {
		return p.Sealed.isHistogram()
	}
	switch p.Encoding {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	default:
		return false
	}
}

// hasStarts reports whether the piece can hold start timestamps.
func (p *Piece) hasStarts() bool {
	if p.Sealed != nil {
		return p.Sealed.hasStarts()
	}
	switch p.Encoding {
	case chunkenc.EncXOR2, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	default:
		return false
	}
}
