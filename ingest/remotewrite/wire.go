package remotewrite

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"varve/ingest"
)

// errMalformed is the answer to a body that is not the protobuf message its
// Content-Type says. Nothing of such a request is written.
var errMalformed = fmt.Errorf("%w protobuf message", ingest.ErrMalformed)

// Wire types of protobuf. Groups (3 and 4) occur in neither message and count as
// malformed.
const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

// uvarint reads the varint at b[i] and returns the index behind it, -1 when there
// is none. As in the generated decoders of upstream, ten bytes are the most and
// bits beyond the 64th are dropped.
func uvarint(b []byte, i int) (uint64, int) {
	if i < len(b) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	var x uint64
	for shift := uint(0); shift < 64 && i < len(b); shift += 7 {
		c := b[i]
		i++
		x |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return x, i
		}
	}
	return 0, -1
}

// tagAt reads a field's tag. Field number 0 does not exist, and numbers end at
// 2^29-1.
func tagAt(b []byte, i int) (tag uint64, next int) {
	tag, next = uvarint(b, i)
	if tag>>3 == 0 || tag >= 1<<32 {
		return 0, -1
	}
	return tag, next
}

// bytesAt reads the length at b[i] and returns where the bytes behind it start and
// end, or -1, -1.
func bytesAt(b []byte, i int) (start, end int) {
	n, j := uvarint(b, i)
	if j < 0 || n > uint64(len(b)-j) {
		return -1, -1
	}
	return j, j + int(n)
}

// shortField reads at b[i] a length-delimited field with the one-byte tag and a
// length of one or two bytes, as nearly every field that repeats has them. ok is
// false for all others, which bytesAt then looks at.
func shortField(b []byte, i int, tag byte) (start, end int, ok bool) {
	if len(b)-i < 3 || b[i] != tag {
		return 0, 0, false
	}
	n := int(b[i+1])
	start = i + 2
	if n >= 0x80 {
		if b[i+2] >= 0x80 {
			return 0, 0, false
		}
		n = n&0x7f | int(b[i+2])<<7
		start++
	}
	return start, start + n, n <= len(b)-start
}

// skip returns the index behind the value of a field that nobody needs, or -1.
func skip(b []byte, i int, tag uint64) int {
	switch tag & 7 {
	case wireVarint:
		_, i = uvarint(b, i)
		return i
	case wireBytes:
		_, i = bytesAt(b, i)
		return i
	case wireFixed8:
		i += 8
	case wireFixed4:
		i += 4
	default:
		return -1
	}
	if i > len(b) {
		return -1
	}
	return i
}

// uint64At reads a varint field's value.
func uint64At(b []byte, i int, tag uint64) (uint64, int) {
	if tag&7 != wireVarint {
		return 0, -1
	}
	return uvarint(b, i)
}

// fixed8At reads the value of a double field as its bits.
func fixed8At(b []byte, i int, tag uint64) (uint64, int) {
	if tag&7 != wireFixed8 || len(b)-i < 8 {
		return 0, -1
	}
	return binary.LittleEndian.Uint64(b[i:]), i + 8
}

// messageAt reads a length-delimited field's value.
func messageAt(b []byte, i int, tag uint64) (message []byte, next int) {
	if tag&7 != wireBytes {
		return nil, -1
	}
	start, end := bytesAt(b, i)
	if start < 0 {
		return nil, -1
	}
	return b[start:end:end], end
}

// packedVarints calls add for each value of a repeated varint field, which may be
// packed into one field or not. It returns the index behind the field, or -1.
func packedVarints(b []byte, i int, tag uint64, add func(uint64)) int {
	if tag&7 == wireVarint {
		x, next := uvarint(b, i)
		if next >= 0 {
			add(x)
		}
		return next
	}
	m, next := messageAt(b, i, tag)
	if next < 0 {
		return -1
	}
	for k := 0; k < len(m); {
		var x uint64
		if x, k = uvarint(m, k); k < 0 {
			return -1
		}
		add(x)
	}
	return next
}

// countVarints returns how many varints end in b: the size to allocate for a
// packed field. One varint outside a packed field counts as one.
func countVarints(b []byte) int {
	n := 0
	for _, c := range b {
		if c < 0x80 {
			n++
		}
	}
	return n
}

func zigzag(x uint64) int64 { return int64(x>>1) ^ -int64(x&1) }

// sixByteVarint reads the varint in the lower six bytes of w if it has exactly six:
// times in milliseconds from 1971 to 2109 do.
func sixByteVarint(w uint64) (int64, bool) {
	if w&0x8080_8080_8080 != 0x0080_8080_8080 {
		return 0, false
	}
	x := w & 0x7f
	x |= w >> 1 & (0x7f << 7)
	x |= w >> 2 & (0x7f << 14)
	x |= w >> 3 & (0x7f << 21)
	x |= w >> 4 & (0x7f << 28)
	x |= w >> 5 & (0x7f << 35)
	return int64(x), true
}

// sample is a float sample of either protocol. Only 2.0 has start timestamps.
type sample struct {
	timeMillis, startMillis int64
	bits                    uint64
}

// decodeSample reads a Sample message; without starts, field 3 is one that nobody
// knows.
func decodeSample(b []byte, starts bool) (s sample, ok bool) {
	if len(b) == 16 && b[0] == 1<<3|wireFixed8 && b[9] == 2<<3|wireVarint {
		if t, ok := sixByteVarint(binary.LittleEndian.Uint64(b[8:]) >> 16); ok {
			return sample{timeMillis: t, bits: binary.LittleEndian.Uint64(b[1:])}, true
		}
	}
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return s, false
		}
		var x uint64
		switch field := tag >> 3; {
		case field == 1:
			s.bits, i = fixed8At(b, j, tag)
		case field == 2:
			x, i = uint64At(b, j, tag)
			s.timeMillis = int64(x)
		case field == 3 && starts:
			x, i = uint64At(b, j, tag)
			s.startMillis = int64(x)
		default:
			i = skip(b, j, tag)
		}
		if i < 0 {
			return s, false
		}
	}
	return s, true
}

// A series message nearly always has one Sample message with a value and a time of
// six bytes, in 1.0 as its last 18 bytes. This is its shape.
const (
	usualBytes = 18
	usualHead  = 2<<3 | wireBytes | 16<<8 | (1<<3|wireFixed8)<<16 // tag, length, tag of the value
	usualTime  = 2<<3 | wireVarint                                // tag of the time, at byte 11
)

// usualSample reads a field of that shape at the start of b, which has at least
// usualBytes.
func usualSample(b []byte) (timeMillis int64, bits uint64, ok bool) {
	b = b[:usualBytes:usualBytes]
	if binary.LittleEndian.Uint32(b)&0xff_ffff != usualHead || b[11] != usualTime {
		return 0, 0, false
	}
	timeMillis, ok = sixByteVarint(binary.LittleEndian.Uint64(b[10:]) >> 16)
	return timeMillis, binary.LittleEndian.Uint64(b[3:]), ok
}

// text returns b as a string that shares its memory: it is valid until the buffer
// of the request is used again.
func text(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}
