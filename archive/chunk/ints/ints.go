// Package ints turns a list of 64-bit integers into few bytes and back.
//
// A *stream* is the byte form of one list. It does not hold how many integers
// there are, nor where it ends in what follows: whoever stores it knows the number,
// and decoding tells the length. Lists are expected to be what a metric makes over
// time: constants, counters that grow steadily or in bursts, gauges that wander,
// values that switch between a few levels. Any int64 is allowed in any place, and
// all arithmetic wraps around in 64 bits, so every list comes back as it was.
//
// A stream is built in three steps. An *order* turns the list into *residuals*:
// differences to the first value, to the one before, changes of that difference,
// or ranks in a dictionary; a step that divides all differences and a bias that
// lies in the middle of the residuals are taken out. The zigzag form of the
// residuals goes to one of two *coders*: packed (bit packing in blocks of 128 with
// patches) or classes (runs of zeros and magnitudes in Huffman codes). The order
// is chosen by an estimate, the coder by the exact size.
//
// docs/format/ints.md has the bytes. Encoders and decoders keep scratch memory and
// belong to one goroutine at a time. The package knows nothing of timestamps or
// floats, keeps no checksum and stores no length.
package ints

import (
	"encoding/binary"
	"errors"
)

// ErrCorrupt is wrapped by every error about bytes that no encoder has written.
var ErrCorrupt = errors.New("corrupt integer stream")

// The first byte of a stream. With flagEqual set all values are the same and the
// low six bits hold it in zigzag form, or flagWide is set and a varint follows.
const (
	flagOrder   = 3 << 0 // an order
	flagClasses = 1 << 2 // coded by classes, else packed
	flagStep    = 1 << 3 // a step other than 1 is there
	flagBias    = 1 << 4 // a bias other than 0 is there
	flagParts   = 1 << 5 // coded by classes in parts
	flagKnown   = flagOrder | flagClasses | flagStep | flagBias | flagParts
	flagWide    = 1 << 6
	flagEqual   = 1 << 7
)

// order says what residuals are.
type order uint8

const (
	// orderOffset: differences to the first value.
	orderOffset order = iota
	// orderDelta: differences to the value before.
	orderDelta
	// orderTurn: changes of the difference to the value before.
	orderTurn
	// orderRank: ranks in a dictionary.
	orderRank
)

// given is how many values of a list come from the header and not from residuals.
func (o order) given() int {
	switch o {
	case orderTurn:
		return 2
	case orderRank:
		return 0
	default:
		return 1
	}
}

// dictionaryMax bounds the values of a dictionary, so that encoder and decoder can keep
// them in small arrays.
const dictionaryMax = 64

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// uvarintBytes is the length of a uvarint.
func uvarintBytes(u uint64) int {
	n := 1
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

func appendZigzag(dst []byte, v int64) []byte { return binary.AppendUvarint(dst, zigzag(v)) }
