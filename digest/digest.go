// Package digest says in a few numbers what samples a series has in a stretch of time, so that two
// places can be compared without sending samples between them: an import with what it read, a restored
// archive with the one it is of.
//
// A digest depends on the samples alone, not on the order they are added in or on how they were cut into
// chunks. Histograms count by their buckets that are not empty, since spans change when chunks are cut,
// and without counter reset hints, which depend on the neighbour. Start timestamps are not in it.
package digest

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/zeebo/xxh3"
)

// Series is the digest of some samples of one series. The zero value is that of none. It is a value: two
// are equal if the samples are, and if they are not, all but once in 2^64 they differ. It guards against faults and
// not against somebody who makes samples to fool it.
type Series struct {
	// Samples counts samples, of any type.
	Samples uint64 `json:"samples"`
	// FirstMillis and LastMillis are the lowest and the highest time, both 0 without samples.
	FirstMillis int64 `json:"firstMillis"`
	LastMillis  int64 `json:"lastMillis"`
	// Hash is the sum, modulo 2^64, of a hash of each sample.
	Hash uint64 `json:"hash"`
}

// Float adds a sample. Its bits count, so that one NaN isn't another, and -0 not 0.
func (s *Series) Float(timeMillis int64, v float64) {
	s.add(timeMillis, mix(timeMillis, math.Float64bits(v)))
}

// Histogram adds a sample.
func (s *Series) Histogram(timeMillis int64, h *histogram.Histogram) {
	var room [512]byte
	b := append(room[:0], 'i')
	b = appendHead(b, h.Schema, h.ZeroThreshold, h.Sum, h.CustomValues)
	b = binary.LittleEndian.AppendUint64(b, h.Count)
	b = binary.LittleEndian.AppendUint64(b, h.ZeroCount)
	b = appendDeltas(append(b, '+'), h.PositiveSpans, h.PositiveBuckets)
	b = appendDeltas(append(b, '-'), h.NegativeSpans, h.NegativeBuckets)
	s.add(timeMillis, mix(timeMillis, xxh3.Hash(b)))
}

// FloatHistogram adds a sample. It differs from the Histogram of the same numbers.
func (s *Series) FloatHistogram(timeMillis int64, h *histogram.FloatHistogram) {
	var room [512]byte
	b := append(room[:0], 'f')
	b = appendHead(b, h.Schema, h.ZeroThreshold, h.Sum, h.CustomValues)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(h.Count))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(h.ZeroCount))
	b = appendCounts(append(b, '+'), h.PositiveSpans, h.PositiveBuckets)
	b = appendCounts(append(b, '-'), h.NegativeSpans, h.NegativeBuckets)
	s.add(timeMillis, mix(timeMillis, xxh3.Hash(b)))
}

// Add adds other samples of the series.
func (s *Series) Add(o Series) {
	if o.Samples == 0 {
		return
	}
	if s.Samples == 0 {
		s.FirstMillis, s.LastMillis = o.FirstMillis, o.LastMillis
	}
	s.FirstMillis, s.LastMillis = min(s.FirstMillis, o.FirstMillis), max(s.LastMillis, o.LastMillis)
	s.Samples += o.Samples
	s.Hash += o.Hash
}

func (s *Series) add(timeMillis int64, hash uint64) {
	if s.Samples == 0 {
		s.FirstMillis, s.LastMillis = timeMillis, timeMillis
	} else {
		s.FirstMillis, s.LastMillis = min(s.FirstMillis, timeMillis), max(s.LastMillis, timeMillis)
	}
	s.Samples++
	s.Hash += hash
}

// mix hashes a time and 64 bits with two multiplications, folded. The constants are digits of pi.
func mix(timeMillis int64, v uint64) uint64 {
	hi, lo := bits.Mul64(uint64(timeMillis)^0x243f6a8885a308d3, v^0x13198a2e03707344)
	hi, lo = bits.Mul64(hi^lo^v, 0xa4093822299f31d1)
	return hi ^ lo ^ uint64(timeMillis)
}

func appendHead(b []byte, schema int32, threshold, sum float64, bounds []float64) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(schema))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(threshold))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(sum))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(bounds)))
	for _, v := range bounds {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

// appendDeltas appends index and count of the buckets that are not empty.
func appendDeltas(b []byte, spans []histogram.Span, deltas []int64) []byte {
	index, count, at := int32(0), int64(0), 0
	for _, span := range spans {
		index += span.Offset
		for range span.Length {
			if at == len(deltas) {
				return b
			}
			if count += deltas[at]; count != 0 {
				b = binary.LittleEndian.AppendUint32(b, uint32(index))
				b = binary.LittleEndian.AppendUint64(b, uint64(count))
			}
			at++
			index++
		}
	}
	return b
}

// appendCounts does the same for counts that are floats and no differences.
func appendCounts(b []byte, spans []histogram.Span, counts []float64) []byte {
	index, at := int32(0), 0
	for _, span := range spans {
		index += span.Offset
		for range span.Length {
			if at == len(counts) {
				return b
			}
			if counts[at] != 0 {
				b = binary.LittleEndian.AppendUint32(b, uint32(index))
				b = binary.LittleEndian.AppendUint64(b, math.Float64bits(counts[at]))
			}
			at++
			index++
		}
	}
	return b
}
