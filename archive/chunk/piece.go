// Package chunk encodes and decodes hot data: what lies in a run, and what a
// query makes of it.
//
// A Piece is one upstream chunk of one series with its bounds. A run is the
// immutable byte form of some pieces, in the order in which they arrived:
// AppendRun writes it, ParseRun reads it, docs/format/run.md describes it byte
// by byte. Pieces of plain floats come from AppendXOR in one go; a RareBuilder
// gathers what that cannot hold, which is native histograms and floats that have
// a start timestamp.
//
// A Column is the other direction: the samples of one series between two times,
// merged over all its pieces, decoded into flat arrays that an Iterator walks. Of
// two samples at one time the later arrival wins.
//
// The chunks are upstream's encodings bit for bit, so every value comes back
// with its bits and a piece can be handed to whoever reads Prometheus chunks.
//
// The functions keep no state and may be called from many goroutines. A Column, an
// Iterator and a RareBuilder belong to one goroutine at a time.
//
// The package does no I/O, knows nothing of keys beyond hashing them into a
// checksum, and does not hold the codec of sealed data.
package chunk

import (
	"errors"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ErrCorrupt is wrapped by every error that means the bytes are not what was
// written, or were written wrong.
var ErrCorrupt = errors.New("corrupt chunk")

// samplesPerChunkMax is where a chunk is closed. It is upstream's own target, far
// below the 16,383 samples that the smallest counter in a chunk header can hold.
const samplesPerChunkMax = 120

// Piece is one upstream chunk of a series.
type Piece struct {
	Encoding chunkenc.Encoding
	// Samples is at least 1.
	Samples int
	// MinMillis and MaxMillis are the times of the first and the last sample, both
	// inclusive. Times ascend strictly inside a piece.
	MinMillis, MaxMillis int64
	// Data is the chunk in upstream's byte form.
	Data []byte
}

// within reports whether the piece may hold a sample with mint <= time <= maxt.
func (p *Piece) within(mint, maxt int64) bool {
	return p.MaxMillis >= mint && p.MinMillis <= maxt
}

func (p *Piece) isHistogram() bool {
	switch p.Encoding {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	default:
		return false
	}
}

// hasStarts reports whether the encoding can hold start timestamps.
func (p *Piece) hasStarts() bool {
	switch p.Encoding {
	case chunkenc.EncXOR2, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	default:
		return false
	}
}
