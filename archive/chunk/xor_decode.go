package chunk

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// xorSampleReach bounds how far beyond the byte of its first bit the decoding of one
// sample reads: the sample, and a load of eight bytes at its last bit.
const xorSampleReach = xorSampleBytesMax + 1 + 8

// xorReader is the state of decoding between two samples.
//
// It keeps a position and loads eight bytes anew for each part of a sample, instead
// of shifting through a buffer: with the branches predicted, the next position is
// then an addition away and the loads of several samples overlap.
type xorReader struct {
	data []byte
	bit  uint // position in data

	time     int64
	delta    uint64
	value    uint64
	trailing uint
	size     uint // of the window in bits; 0 while there is none
}

// DecodeXOR appends the samples of an upstream XOR chunk to the two columns and
// returns them. times are Unix milliseconds; values keep their bits. At most
// 65,535 samples are appended, and never more than four for each byte of data.
//
// data is not kept. It never panics; errors wrap ErrCorrupt, and the columns then
// come back as they were given.
func DecodeXOR(data []byte, times []int64, values []float64) ([]int64, []float64, error) {
	if len(data) < xorHeaderBytes {
		return times, values, fmt.Errorf("decode XOR chunk of %d bytes: %w", len(data), ErrCorrupt)
	}
	n := int(binary.BigEndian.Uint16(data))
	// A sample takes two bits at least: this bounds what a broken count makes us allocate.
	if n > 4*len(data) {
		return times, values, fmt.Errorf("decode XOR chunk: %d samples in %d bytes: %w", n, len(data), ErrCorrupt)
	}
	if n == 0 {
		return times, values, nil
	}
	haveTimes, haveValues := len(times), len(values)
	times = slices.Grow(times, n)[:haveTimes+n]
	values = slices.Grow(values, n)[:haveValues+n]
	if !decodeXOR(data[xorHeaderBytes:], times[haveTimes:], values[haveValues:]) {
		return times[:haveTimes], values[:haveValues], fmt.Errorf("decode XOR chunk of %d samples in %d bytes: %w", n, len(data), ErrCorrupt)
	}
	return times, values, nil
}

// decodeXOR fills the columns, which are as long as the chunk has samples and not
// empty, from the chunk's data behind the count.
func decodeXOR(data []byte, times []int64, values []float64) bool {
	first, k := binary.Varint(data)
	if k <= 0 || len(data) < k+8 {
		return false
	}
	r := xorReader{time: first, value: binary.BigEndian.Uint64(data[k:])}
	times[0], values[0] = first, math.Float64frombits(r.value)
	if len(times) == 1 {
		return true
	}
	data = data[k+8:]
	r.delta, k = binary.Uvarint(data)
	if k <= 0 {
		return false
	}
	r.time += int64(r.delta)
	r.data = data[k:]
	done, ok := r.decode(times, values, 1)
	if !ok || done == len(times) {
		return ok
	}

	// What is left is too near to the end for loads of eight bytes. It goes on in
	// a copy with zeros behind it, long enough that a broken chunk can't run off it.
	rest := r.data[r.bit>>3:]
	var tail [3 * xorSampleReach]byte
	copy(tail[:], rest)
	r.data, r.bit = tail[:], r.bit&7
	done, ok = r.decode(times, values, done)
	return ok && done == len(times) && r.bit <= uint(8*len(rest))
}

// decode fills the columns from index i, at least 1, and returns the index at which it
// stopped: the columns' end, or earlier when the next sample might reach past the
// data. It returns false if the data are no XOR chunk. It is one long loop on purpose:
// a call in it would cost the registers that make it fast.
func (r *xorReader) decode(times []int64, values []float64, i int) (int, bool) {
	data, bit := r.data, r.bit
	time, delta, value, trailing, size := r.time, r.delta, r.value, r.trailing, r.size
	values = values[:len(times)]
	if len(data) < xorSampleReach {
		return i, true
	}
	stop := uint(len(data)-xorSampleReach) * 8

	for i < len(times) && bit <= stop {
		next := load(data, bit>>3) << (bit & 7) // 57 bits at least
		if i > 1 {                              // The second sample has its delta ahead of the bits.
			if next>>62 == 0 {
				// Neither delta nor value changed, often many times over.
				run := min(bits.LeadingZeros64(next|1<<7)/2, len(times)-i)
				same := math.Float64frombits(value)
				for range run {
					time += int64(delta)
					times[i], values[i] = time, same
					i++
				}
				bit += uint(2 * run)
				continue
			}
			switch {
			case next>>63 == 0:
				next <<= 1
				bit++
			case next>>62 == 0b10:
				delta += signed(next>>48, 14)
				next <<= 16
				bit += 16
			case next>>61 == 0b110:
				delta += signed(next>>44, 17)
				next <<= 20
				bit += 20
			case next>>60 == 0b1110:
				delta += signed(next>>40, 20)
				next <<= 24
				bit += 24
			default:
				delta += long(data, bit+4, 64)
				bit += 68
				next = load(data, bit>>3) << (bit & 7)
			}
			time += int64(delta)
		}
		times[i] = time
		if next>>63 == 0 {
			bit++
			values[i] = math.Float64frombits(value)
			i++
			continue
		}
		if next>>62 == 0b10 {
			bit += 2
			if size == 0 {
				return i, false
			}
		} else {
			lead := uint(next >> 57 & 31)
			size = uint(next>>51-1)&63 + 1 // 0 stands for 64.
			if lead+size > 64 {
				return i, false
			}
			trailing = 64 - lead - size
			bit += 13
		}
		if size <= 57 {
			next = load(data, bit>>3) << (bit & 7) >> ((64 - size) & 63)
		} else {
			next = long(data, bit, size)
		}
		bit += size
		value ^= next << (trailing & 63)
		values[i] = math.Float64frombits(value)
		i++
	}
	r.bit = bit
	r.time, r.delta, r.value, r.trailing, r.size = time, delta, value, trailing, size
	return i, true
}

// signed reads the n lowest bits of v as upstream writes deltas of deltas: from one
// above the smallest n-bit integer to one above the largest.
func signed(v uint64, n uint) uint64 {
	return uint64(int64((v-1)<<(64-n))>>(64-n)) + 1
}

// long reads n bits, 57 to 64, which may begin inside a byte.
func long(data []byte, bit, n uint) uint64 {
	at := bit >> 3
	v := load(data, at)<<(bit&7) | uint64(data[at+8])>>(8-bit&7)
	return v >> (64 - n)
}

// load returns the eight bytes at index at. The capacity of the slice in between is
// known not to be zero, which spares the compiler some care on the way to the address.
func load(data []byte, at uint) uint64 {
	return binary.BigEndian.Uint64(data[at : at+8 : at+8])
}
