package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"varve/arrival"
)

// histogramMessage is a Histogram message of either protocol: they agree but for
// the start timestamp.
type histogramMessage struct {
	float                          bool // which of count_int, count_float came last
	countInt, zeroCountInt         uint64
	countFloat, zeroCountFloat     uint64 // bits
	sum, zeroThreshold             uint64 // bits
	schema                         int32
	resetHint                      histogram.CounterResetHint
	timeMillis, startMillis        int64
	positiveSpans, negativeSpans   []histogram.Span
	positiveDeltas, negativeDeltas []int64
	positiveCounts, negativeCounts []float64
	customValues                   []float64
}

// decodeHistogram reads a Histogram message into memory of its own; without
// starts, field 17 is one that nobody knows. As upstream does, it takes a
// histogram for one of floats when the last of its count fields is a float.
func decodeHistogram(b []byte, starts bool) (arrival.Histogram, bool) {
	var m histogramMessage
	for i := 0; i < len(b); {
		tag, j := tagAt(b, i)
		if j < 0 {
			return arrival.Histogram{}, false
		}
		if i = m.field(b, j, tag, starts); i < 0 {
			return arrival.Histogram{}, false
		}
	}
	return m.histogram(), true
}

// field reads the value of one field at b[i] and returns the index behind it, or -1.
func (m *histogramMessage) field(b []byte, i int, tag uint64, starts bool) int {
	var x uint64
	switch field := tag >> 3; {
	case field == 1:
		m.countInt, i = uint64At(b, i, tag)
		m.float = false
	case field == 2:
		m.countFloat, i = fixed8At(b, i, tag)
		m.float = true
	case field == 3:
		m.sum, i = fixed8At(b, i, tag)
	case field == 4:
		x, i = uint64At(b, i, tag)
		m.schema = zigzag32(x)
	case field == 5:
		m.zeroThreshold, i = fixed8At(b, i, tag)
	case field == 6:
		m.zeroCountInt, i = uint64At(b, i, tag)
		m.zeroCountFloat = 0
	case field == 7:
		m.zeroCountFloat, i = fixed8At(b, i, tag)
		m.zeroCountInt = 0
	case field == 8:
		m.negativeSpans, i = appendSpan(m.negativeSpans, b, i, tag)
	case field == 9:
		m.negativeDeltas, i = appendDeltas(m.negativeDeltas, b, i, tag)
	case field == 10:
		m.negativeCounts, i = appendDoubles(m.negativeCounts, b, i, tag)
	case field == 11:
		m.positiveSpans, i = appendSpan(m.positiveSpans, b, i, tag)
	case field == 12:
		m.positiveDeltas, i = appendDeltas(m.positiveDeltas, b, i, tag)
	case field == 13:
		m.positiveCounts, i = appendDoubles(m.positiveCounts, b, i, tag)
	case field == 14:
		x, i = uint64At(b, i, tag)
		m.resetHint = resetHint(x)
	case field == 15:
		x, i = uint64At(b, i, tag)
		m.timeMillis = int64(x)
	case field == 16:
		m.customValues, i = appendDoubles(m.customValues, b, i, tag)
	case field == 17 && starts:
		x, i = uint64At(b, i, tag)
		m.startMillis = int64(x)
	default:
		i = skip(b, i, tag)
	}
	return i
}

func (m *histogramMessage) histogram() arrival.Histogram {
	h := arrival.Histogram{TimeMillis: m.timeMillis, StartMillis: m.startMillis}
	if m.float {
		h.Float = &histogram.FloatHistogram{
			CounterResetHint: m.resetHint,
			Schema:           m.schema,
			ZeroThreshold:    math.Float64frombits(m.zeroThreshold),
			ZeroCount:        math.Float64frombits(m.zeroCountFloat),
			Count:            math.Float64frombits(m.countFloat),
			Sum:              math.Float64frombits(m.sum),
			PositiveSpans:    m.positiveSpans,
			NegativeSpans:    m.negativeSpans,
			PositiveBuckets:  m.positiveCounts,
			NegativeBuckets:  m.negativeCounts,
			CustomValues:     m.customValues,
		}
		return h
	}
	h.Int = &histogram.Histogram{
		CounterResetHint: m.resetHint,
		Schema:           m.schema,
		ZeroThreshold:    math.Float64frombits(m.zeroThreshold),
		ZeroCount:        m.zeroCountInt,
		Count:            m.countInt,
		Sum:              math.Float64frombits(m.sum),
		PositiveSpans:    m.positiveSpans,
		NegativeSpans:    m.negativeSpans,
		PositiveBuckets:  m.positiveDeltas,
		NegativeBuckets:  m.negativeDeltas,
		CustomValues:     m.customValues,
	}
	return h
}

// resetHint takes a hint that nobody knows for none.
func resetHint(x uint64) histogram.CounterResetHint {
	if x > uint64(histogram.GaugeType) {
		return histogram.UnknownCounterReset
	}
	return histogram.CounterResetHint(x)
}

// zigzag32 decodes a sint32, of whose varint only 32 bits count.
func zigzag32(x uint64) int32 {
	u := uint32(x)
	return int32(u>>1) ^ -int32(u&1)
}

func appendSpan(spans []histogram.Span, b []byte, i int, tag uint64) ([]histogram.Span, int) {
	m, next := messageAt(b, i, tag)
	if next < 0 {
		return spans, -1
	}
	var s histogram.Span
	for k := 0; k < len(m); {
		tag, j := tagAt(m, k)
		if j < 0 {
			return spans, -1
		}
		var x uint64
		switch tag >> 3 {
		case 1:
			x, k = uint64At(m, j, tag)
			s.Offset = zigzag32(x)
		case 2:
			x, k = uint64At(m, j, tag)
			s.Length = uint32(x)
		default:
			k = skip(m, j, tag)
		}
		if k < 0 {
			return spans, -1
		}
	}
	return append(spans, s), next
}

func appendDeltas(deltas []int64, b []byte, i int, tag uint64) ([]int64, int) {
	if deltas == nil && tag&7 == wireBytes {
		if m, next := messageAt(b, i, tag); next >= 0 {
			if n := countVarints(m); n > 0 {
				deltas = make([]int64, 0, n)
			}
		}
	}
	next := packedVarints(b, i, tag, func(x uint64) { deltas = append(deltas, zigzag(x)) })
	return deltas, next
}

func appendDoubles(values []float64, b []byte, i int, tag uint64) ([]float64, int) {
	if tag&7 == wireFixed8 {
		x, next := fixed8At(b, i, tag)
		if next < 0 {
			return values, -1
		}
		return append(values, math.Float64frombits(x)), next
	}
	m, next := messageAt(b, i, tag)
	if next < 0 || len(m)%8 != 0 {
		return values, -1
	}
	if values == nil && len(m) > 0 {
		values = make([]float64, 0, len(m)/8)
	}
	for ; len(m) > 0; m = m[8:] {
		values = append(values, math.Float64frombits(binary.LittleEndian.Uint64(m)))
	}
	return values, next
}
