package format

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/common/model"
)

func floatBits(v float64) uint64 { return math.Float64bits(v) }

func bitsFloat(b uint64) float64 { return math.Float64frombits(b) }

func metricType(s string) model.MetricType { return model.MetricType(s) }

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// reader takes fields off the front of a record. After the first field that does
// not fit, every further one is zero and end reports the fault, so that a parser
// checks once.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uvarint32() uint32 {
	v := r.uvarint()
	if v > math.MaxUint32 {
		r.fail()
		return 0
	}
	return uint32(v)
}

func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *reader) uint64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// count reads a number of entries that need at least size bytes each.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

// bytes reads a length and that many bytes. The result aliases the record.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string { return string(r.bytes()) }

func (r *reader) fail() {
	r.bad = true
	r.b = nil
}

func (r *reader) end(what string) error {
	switch {
	case r.bad:
		return corrupt("%s ends early", what)
	case len(r.b) > 0:
		return corrupt("%d bytes behind the %s", len(r.b), what)
	}
	return nil
}
