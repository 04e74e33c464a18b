// Package wire writes the request bodies of remote write 1.0 that the benchmarks
// send: protobuf by hand, compressed with snappy, into slabs.
//
// A Frame is one body, ready to be sent. A Slab holds the bytes of many of them, so
// that millions of bodies cost the garbage collector nothing while a server is
// measured. The Append functions write the pieces of a body: labels once a series,
// the series' message once a sample.
//
// The functions hold no state. A Slab belongs to one goroutine; Frames are immutable.
package wire

import (
	"encoding/binary"
	"math"

	"github.com/klauspost/compress/s2"
)

// Frame is one request body, compressed as it goes over the wire.
type Frame struct {
	Body []byte
	// Samples is how many samples the body holds, LastRound the round of the
	// latest one.
	Samples, LastRound int
}

// slabBytes is how much a Slab asks for at a time.
const slabBytes = 32 << 20

// Slab holds bodies. The zero value is empty.
type Slab struct{ free []byte }

// Frame compresses a body, which stays the caller's.
func (s *Slab) Frame(plain []byte, samples, round int) Frame {
	most := s2.MaxEncodedLen(len(plain))
	if cap(s.free)-len(s.free) < most {
		s.free = make([]byte, 0, max(slabBytes, most))
	}
	body := s2.EncodeSnappy(s.free[len(s.free):len(s.free)+most], plain)
	s.free = s.free[:len(s.free)+len(body)]
	return Frame{Body: body[:len(body):len(body)], Samples: samples, LastRound: round}
}

// Keep copies a body as it is, compressed or not, which stays the caller's.
func (s *Slab) Keep(body []byte, samples, round int) Frame {
	if cap(s.free)-len(s.free) < len(body) {
		s.free = make([]byte, 0, max(slabBytes, len(body)))
	}
	from := len(s.free)
	s.free = append(s.free, body...)
	return Frame{Body: s.free[from:len(s.free):len(s.free)], Samples: samples, LastRound: round}
}

// AppendLabel appends one label field of TimeSeries.
func AppendLabel(dst []byte, name, value string) []byte {
	inner := 2 + VarintBytes(len(name)) + VarintBytes(len(value)) + len(name) + len(value)
	dst = append(dst, 0x0a)
	dst = binary.AppendUvarint(dst, uint64(inner))
	dst = append(dst, 0x0a)
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	dst = append(dst, name...)
	dst = append(dst, 0x12)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// AppendSeries appends a series with its label fields and one sample to a
// WriteRequest.
func AppendSeries(dst, labels []byte, value float64, millis int64) []byte {
	dst = append(dst, 0x0a)
	dst = binary.AppendUvarint(dst, uint64(len(labels)+2+SampleBytes(value, millis)))
	dst = append(dst, labels...)
	return AppendSample(dst, value, millis)
}

// AppendMany appends a series with its label fields and any number of sample fields,
// as AppendSample writes them, to a WriteRequest.
func AppendMany(dst, labels, samples []byte) []byte {
	dst = append(dst, 0x0a)
	dst = binary.AppendUvarint(dst, uint64(len(labels)+len(samples)))
	dst = append(dst, labels...)
	return append(dst, samples...)
}

// SampleBytes is the length of a sample's message, below 128.
func SampleBytes(value float64, millis int64) int {
	length := 1 + VarintBytes(int(millis))
	if math.Float64bits(value) != 0 {
		length += 9
	}
	return length
}

// AppendSample appends a sample field of TimeSeries, the same in versions 1.0 and
// 2.0. Times are not negative.
func AppendSample(dst []byte, value float64, millis int64) []byte {
	dst = append(dst, 0x12, byte(SampleBytes(value, millis)))
	// Only +0 is the default that protobuf leaves out.
	if bits := math.Float64bits(value); bits != 0 {
		dst = append(dst, 0x09)
		dst = binary.LittleEndian.AppendUint64(dst, bits)
	}
	dst = append(dst, 0x10)
	return binary.AppendUvarint(dst, uint64(millis))
}

// VarintBytes is how many bytes the varint of n takes.
func VarintBytes(n int) int {
	count := 1
	for ; n >= 0x80; n >>= 7 {
		count++
	}
	return count
}
