package ints

import "encoding/binary"

// wordBytes is what a bitWriter and the unpacking of blocks touch behind the bits
// that they are about.
const wordBytes = 8

// bitWriter writes bits from the lowest of a byte to the highest. buf must reach
// wordBytes beyond the last byte that is written.
type bitWriter struct {
	buf  []byte
	pos  int
	bits uint64
	n    uint // bits that are waiting, less than 8
}

// putBitsMax is the most bits that put takes: with those that are waiting, a word.
const putBitsMax = 56

// put writes the low n bits of v; the others must be 0. n is at most putBitsMax.
func (w *bitWriter) put(v uint64, n uint) {
	w.bits |= v << (w.n & 63)
	w.n += n
	binary.LittleEndian.PutUint64(w.buf[w.pos:], w.bits)
	w.pos += int(w.n >> 3)
	w.bits >>= w.n & 0x38
	w.n &= 7
}

// putLong is put for n up to 64.
func (w *bitWriter) putLong(v uint64, n uint) {
	if n > putBitsMax {
		w.put(v&(1<<32-1), 32)
		v >>= 32
		n -= 32
	}
	w.put(v, n)
}

// end fills the last byte with zeros and returns how many bytes were written.
func (w *bitWriter) end() int {
	if w.n > 0 {
		w.pos++ // put has stored it already
	}
	w.bits, w.n = 0, 0
	return w.pos
}

// bitReader reads what a bitWriter wrote. Behind the end it reads zeros; overrun
// tells that it did.
type bitReader struct {
	src  []byte
	pos  int // of the next byte that is not in bits
	bits uint64
	held uint // valid bits; what is above them is 0 or what comes next
}

// filledBits is what a bitReader has at least after it was filled.
const filledBits = 56

// fill makes at least filledBits bits valid.
func (r *bitReader) fill() {
	if r.pos+wordBytes > len(r.src) {
		r.fillAtEnd()
		return
	}
	r.bits |= binary.LittleEndian.Uint64(r.src[r.pos:]) << (r.held & 63)
	r.pos += int((63 - r.held) >> 3)
	r.held |= filledBits // which adds the same eights
}

// fillAtEnd is fill where no whole word is left.
func (r *bitReader) fillAtEnd() {
	for r.held < filledBits {
		if r.pos < len(r.src) {
			r.bits |= uint64(r.src[r.pos]) << r.held
		}
		r.pos++
		r.held += 8
	}
}

// take returns the next n bits of those that fill made valid.
func (r *bitReader) take(n uint) uint64 {
	v := r.bits & (1<<(n&63) - 1)
	r.bits >>= n & 63
	r.held -= n
	return v
}

// takeLong is fill and take for n up to 64.
func (r *bitReader) takeLong(n uint) uint64 {
	r.fill()
	if n <= filledBits {
		return r.take(n)
	}
	low := r.take(32)
	r.fill()
	return low | r.take(n-32)<<32
}

// used is the number of bytes of which at least one bit was taken.
func (r *bitReader) used() int { return r.pos - int(r.held>>3) }

// overrun says whether more bits were taken than there are.
func (r *bitReader) overrun() bool { return r.used() > len(r.src) }

// wordAt returns 64 bits of src from the given one on. There must be a byte behind the
// word that the bit's byte begins.
func wordAt(src []byte, bit uint) uint64 {
	shift := bit & 7
	bytes := src[bit>>3:]
	bytes = bytes[:wordBytes+1]
	return binary.LittleEndian.Uint64(bytes)>>shift | uint64(bytes[wordBytes])<<(64-shift)
}
