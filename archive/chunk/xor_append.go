package chunk

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// xorSampleBytesMax bounds what one sample adds to an XOR chunk: 68 bits of
// timestamp and 77 of value.
const xorSampleBytesMax = 19

// xorHeadBytes is what stands before the bits at most: count, time, value, delta.
const xorHeadBytes = xorHeaderBytes + binary.MaxVarintLen64 + 8 + binary.MaxVarintLen64

// These are the largest deltas of deltas that fit the 14, 17 and 20 bit
// codes; the smallest is one more than its negative.
const (
	dod14Max = 1 << 13
	dod17Max = 1 << 16
	dod20Max = 1 << 19
)

// bitWriter gathers bits, highest first, and appends them eight bytes at a time.
type bitWriter struct {
	dst  []byte
	acc  uint64 // The gathered bits stand at the top, zeros below.
	used uint   // How many; below 64 between calls.
}

// put appends the n lowest bits of v, whose other bits are zero; 1 <= n <= 64.
func (w *bitWriter) put(v uint64, n uint) {
	free := 64 - w.used
	if n < free {
		w.acc |= v << (free - n)
		w.used += n
		return
	}
	over := n - free
	w.dst = binary.BigEndian.AppendUint64(w.dst, w.acc|v>>over)
	w.acc = v << (64 - over) // Go shifts by 64 to zero, which is right for over == 0.
	w.used = over
}

// finish appends the bytes that are still gathered, the last one padded with
// zero bits, and returns the buffer.
func (w *bitWriter) finish() []byte {
	for used := int(w.used); used > 0; used -= 8 {
		w.dst = append(w.dst, byte(w.acc>>56))
		w.acc <<= 8
	}
	return w.dst
}

// AppendXOR appends the byte form of an upstream XOR chunk (chunkenc.EncXOR) of
// the samples to dst and returns the extended buffer. The bytes are the ones that
// upstream's appender writes.
//
// times and values have the same length, 1 to 65,534. times are Unix milliseconds
// and ascend strictly, from anywhere in int64 to anywhere. values are IEEE 754
// bits. Nothing is allocated but what dst needs to grow; neither slice is kept.
func AppendXOR(dst []byte, times []int64, values []uint64) []byte {
	n := len(times)
	values = values[:n]
	// One growth does for the usual 3 to 4 bytes a sample; more is found out by append.
	dst = slices.Grow(dst, xorHeadBytes+4*n)
	dst = append(dst, byte(n>>8), byte(n))
	dst = binary.AppendVarint(dst, times[0])
	dst = binary.BigEndian.AppendUint64(dst, values[0])
	if n == 1 {
		return dst
	}
	delta := uint64(times[1] - times[0])
	dst = binary.AppendUvarint(dst, delta)

	w := bitWriter{dst: dst}
	// No window is known yet: no difference has this many leading zeros.
	leading, trailing := uint(64), uint(0)
	for i := 1; i < n; i++ {
		// The code of the timestamp is kept back to be written along with the value's.
		var code uint64
		var codeBits uint
		if i > 1 {
			next := uint64(times[i] - times[i-1])
			dod := int64(next - delta)
			delta = next
			switch {
			case dod == 0:
				codeBits = 1
			case -dod14Max < dod && dod <= dod14Max:
				code, codeBits = 0b10<<14|uint64(dod)&(1<<14-1), 16
			case -dod17Max < dod && dod <= dod17Max:
				code, codeBits = 0b110<<17|uint64(dod)&(1<<17-1), 20
			case -dod20Max < dod && dod <= dod20Max:
				code, codeBits = 0b1110<<20|uint64(dod)&(1<<20-1), 24
			default:
				w.put(0b1111, 4)
				w.put(uint64(dod), 64)
			}
		}
		diff := values[i] ^ values[i-1]
		if diff == 0 {
			w.put(code<<1, codeBits+1)
			continue
		}
		lead, trail := uint(bits.LeadingZeros64(diff)), uint(bits.TrailingZeros64(diff))
		lead = min(lead, 31) // The code has five bits for it.
		var size uint
		if lead >= leading && trail >= trailing {
			code, codeBits = code<<2|0b10, codeBits+2
			size = 64 - leading - trailing
		} else {
			leading, trailing = lead, trail
			size = 64 - lead - trail
			// A size of 64 is written as 0, which no difference has.
			code = code<<13 | 0b11<<11 | uint64(lead)<<6 | uint64(size&63)
			codeBits += 13
		}
		if payload := diff >> trailing; codeBits+size <= 64 {
			w.put(code<<size|payload, codeBits+size)
		} else {
			w.put(code, codeBits)
			w.put(payload, size)
		}
	}
	return w.finish()
}
