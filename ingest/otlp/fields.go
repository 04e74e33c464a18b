package otlp

import "encoding/binary"

// fields reads the fields of a message in protobuf one by one, those with numbers below 16 that are varints, have eight
// bytes or a length. Anything else ends it, with ok false.
type fields struct {
	b []byte
	// all is the length of the message, where from is wanted: the place at which the field begins.
	all, from int
	tag       byte
	// bytes alias the message; number is a varint or the bits of eight bytes.
	bytes  []byte
	number uint64
	broken bool
}

// Tags are a field's number with its wire type.
func varintTag(number byte) byte { return number << 3 }
func fixedTag(number byte) byte  { return number<<3 | 1 }
func bytesTag(number byte) byte  { return number<<3 | 2 }

// ok tells, after next returned false, whether the message was read to its end.
func (r *fields) ok() bool { return !r.broken }

// next reads a field.
func (r *fields) next() bool {
	b := r.b
	if len(b) == 0 || r.broken {
		return false
	}
	r.from = r.all - len(b)
	r.tag = b[0]
	b = b[1:]
	if r.tag < 1<<3 || r.tag >= 0x80 {
		return r.fail()
	}
	switch r.tag & 7 {
	case 1:
		if len(b) < 8 {
			return r.fail()
		}
		r.number, r.b = binary.LittleEndian.Uint64(b), b[8:]
		return true
	case 0, 2:
	default:
		return r.fail()
	}
	var n uint64
	if len(b) > 0 && b[0] < 0x80 {
		n, b = uint64(b[0]), b[1:]
	} else {
		var used int
		if n, used = binary.Uvarint(b); used <= 0 {
			return r.fail()
		}
		b = b[used:]
	}
	if r.tag&7 == 0 {
		r.number, r.b = n, b
		return true
	}
	if n > uint64(len(b)) {
		return r.fail()
	}
	r.bytes, r.b = b[:n:n], b[n:]
	return true
}

func (r *fields) fail() bool {
	r.broken = true
	return false
}
