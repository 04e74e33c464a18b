// Package writerequest encodes batches as the messages of Prometheus remote write: prometheus.WriteRequest of 1.0 and
// io.prometheus.write.v2.Request of 2.0.
//
// A message of 1.0 is what AppendSeries and AppendFamily append, one after the other, in any order: a protobuf message is the
// concatenation of its fields. A message of 2.0 is made by a Request, which collects the strings in a table of symbols.
//
// Floats are written bit for bit: stale markers, payloads of NaN and negative zero stay what they are. Only fields that are zero in
// all bits are left out, as protobuf wants it. 1.0 has no place for start timestamps. Custom bounds of histograms are written in
// both: the text of 1.0 discourages it, but receivers of today read them. Older ones, such as Prometheus 2.42, take the histogram and
// forget its bounds: for them histograms are better left out.
//
// Nothing here compresses, sends, or keeps what it is given. The functions are safe for use by several goroutines, a Request is not.
package writerequest

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"varve/forward"
)

// Parts says what is written of a series beside its labels and floats. Metadata is written of series in 2.0 only.
type Parts struct{ Histograms, Exemplars, Metadata bool }

// Empty says whether nothing is left of the series, so that it is not to be written.
func (p Parts) Empty(s *forward.Series) bool {
	return len(s.Floats) == 0 && (!p.Histograms || len(s.Histograms) == 0) && (!p.Exemplars || len(s.Exemplars) == 0)
}

// Types of fields in protobuf.
const (
	varintType = 0
	fixedType  = 1 // 64 bits
	bytesType  = 2
)

// Fields of prometheus.WriteRequest and of the messages within, as prompb/remote.proto and types.proto of Prometheus have them.
const (
	requestTimeseries1 = 1
	requestMetadata1   = 3

	seriesLabels1     = 1
	seriesSamples1    = 2
	seriesExemplars1  = 3
	seriesHistograms1 = 4

	labelName  = 1
	labelValue = 2

	exemplarLabels = 1

	familyType = 1
	familyName = 2
	familyHelp = 4
	familyUnit = 5
)

// Fields that both versions have alike.
const (
	pointValue  = 1 // of Sample
	pointMillis = 2
	pointStart  = 3 // 2.0 alone

	exemplarValue  = 2
	exemplarMillis = 3
)

// AppendLabels appends the labels as fields of a series of 1.0, which is what AppendSeries takes.
func AppendLabels(dst []byte, ls labels.Labels) []byte {
	return appendLabels(dst, seriesLabels1, ls)
}

func appendLabels(dst []byte, field int, ls labels.Labels) []byte {
	ls.Range(func(l labels.Label) {
		dst = append(dst, tag(field, bytesType))
		dst = appendVarint(dst, uint64(2+varintBytes(uint64(len(l.Name)))+varintBytes(uint64(len(l.Value)))+len(l.Name)+len(l.Value)))
		dst = appendString(dst, labelName, l.Name)
		dst = appendString(dst, labelValue, l.Value)
	})
	return dst
}

// AppendSeries appends a series as a field of prometheus.WriteRequest. encoded is what AppendLabels made of its labels; they are
// encoded anew if it is empty. A series of which nothing is left (Parts.Empty) must not be given.
func AppendSeries(dst, encoded []byte, s *forward.Series, parts Parts) []byte {
	dst = append(dst, tag(requestTimeseries1, bytesType))
	dst, series := begin(dst, seriesGuess(s, len(encoded)))
	if len(encoded) > 0 {
		dst = append(dst, encoded...)
	} else {
		dst = AppendLabels(dst, s.Labels)
	}
	for i := range s.Floats {
		dst = appendSample(dst, seriesSamples1, &s.Floats[i], false)
	}
	if parts.Exemplars {
		for i := range s.Exemplars {
			dst = appendExemplar1(dst, &s.Exemplars[i])
		}
	}
	if parts.Histograms {
		for i := range s.Histograms {
			dst = appendHistogram(dst, seriesHistograms1, &s.Histograms[i], false)
		}
	}
	return series.end(dst)
}

// AppendFamily appends metadata of a metric family as a field of prometheus.WriteRequest.
func AppendFamily(dst []byte, f *forward.FamilyMetadata) []byte {
	dst = append(dst, tag(requestMetadata1, bytesType))
	dst, family := begin(dst, len(f.Family)+len(f.Help)+len(f.Unit)+12)
	if t := metricType(f.Type); t != 0 {
		dst = appendVarint(append(dst, tag(familyType, varintType)), t)
	}
	dst = appendText(dst, familyName, f.Family)
	dst = appendText(dst, familyHelp, f.Help)
	dst = appendText(dst, familyUnit, f.Unit)
	return family.end(dst)
}

// metricType is the number of a type, the same in both versions.
func metricType(t model.MetricType) uint64 {
	switch t {
	case model.MetricTypeCounter:
		return 1
	case model.MetricTypeGauge:
		return 2
	case model.MetricTypeHistogram:
		return 3
	case model.MetricTypeGaugeHistogram:
		return 4
	case model.MetricTypeSummary:
		return 5
	case model.MetricTypeInfo:
		return 6
	case model.MetricTypeStateset:
		return 7
	}
	return 0
}

// Bytes that a message of the kind takes at most or usually: they size the room for its length, which is moved if wrong.
const (
	sampleBytesMax = 9 + 11 + 11 // a double and two varints with their tags: less than 128, so that the length is one byte
	histogramGuess = 200
	exemplarGuess  = 80
)

func seriesGuess(s *forward.Series, labelBytes int) int {
	return labelBytes + len(s.Floats)*18 + len(s.Histograms)*histogramGuess + len(s.Exemplars)*exemplarGuess
}

func appendSample(dst []byte, field int, f *forward.Float, withStart bool) []byte {
	dst = append(dst, tag(field, bytesType), 0)
	at := len(dst)
	if bits := math.Float64bits(f.Value); bits != 0 {
		dst = append(dst, tag(pointValue, fixedType))
		dst = binary.LittleEndian.AppendUint64(dst, bits)
	}
	dst = appendNonZero(dst, pointMillis, uint64(f.TimeMillis))
	if withStart {
		dst = appendNonZero(dst, pointStart, uint64(f.StartMillis))
	}
	dst[at-1] = byte(len(dst) - at)
	return dst
}

func appendExemplar1(dst []byte, e *exemplar.Exemplar) []byte {
	dst = append(dst, tag(seriesExemplars1, bytesType))
	dst, message := begin(dst, exemplarGuess)
	dst = appendLabels(dst, exemplarLabels, e.Labels)
	return message.end(appendExemplarValue(dst, e))
}

// appendExemplarValue appends the fields that both versions have alike.
func appendExemplarValue(dst []byte, e *exemplar.Exemplar) []byte {
	dst = appendDouble(dst, exemplarValue, e.Value)
	if !e.HasTs {
		return dst
	}
	return appendNonZero(dst, exemplarMillis, uint64(e.Ts))
}

// Fields of Histogram, alike in both versions except for the last.
const (
	histogramCountInt       = 1
	histogramCountFloat     = 2
	histogramSum            = 3
	histogramSchema         = 4
	histogramZeroThreshold  = 5
	histogramZeroInt        = 6
	histogramZeroFloat      = 7
	histogramNegativeSpans  = 8
	histogramNegativeDeltas = 9
	histogramNegativeCounts = 10
	histogramPositiveSpans  = 11
	histogramPositiveDeltas = 12
	histogramPositiveCounts = 13
	histogramResetHint      = 14
	histogramMillis         = 15
	histogramCustomValues   = 16
	histogramStart          = 17 // 2.0 alone

	spanOffset = 1
	spanLength = 2
)

func appendHistogram(dst []byte, field int, h *forward.Histogram, withStart bool) []byte {
	dst = append(dst, tag(field, bytesType))
	dst, message := begin(dst, histogramGuess)
	if h.Int != nil {
		dst = appendIntHistogram(dst, h.Int)
	} else {
		dst = appendFloatHistogram(dst, h.Float)
	}
	dst = appendNonZero(dst, histogramMillis, uint64(h.TimeMillis))
	if withStart {
		dst = appendNonZero(dst, histogramStart, uint64(h.StartMillis))
	}
	return message.end(dst)
}

func appendIntHistogram(dst []byte, h *histogram.Histogram) []byte {
	// The counts tell integers from floats, so that they are written even if zero.
	dst = appendVarint(append(dst, tag(histogramCountInt, varintType)), h.Count)
	dst = appendVarint(append(dst, tag(histogramZeroInt, varintType)), h.ZeroCount)
	dst = appendLayout(dst, h.Sum, h.Schema, h.ZeroThreshold, h.CounterResetHint, h.CustomValues)
	dst = appendSpans(dst, histogramNegativeSpans, h.NegativeSpans)
	dst = appendDeltas(dst, histogramNegativeDeltas, h.NegativeBuckets)
	dst = appendSpans(dst, histogramPositiveSpans, h.PositiveSpans)
	return appendDeltas(dst, histogramPositiveDeltas, h.PositiveBuckets)
}

func appendFloatHistogram(dst []byte, h *histogram.FloatHistogram) []byte {
	dst = append(dst, tag(histogramCountFloat, fixedType))
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(h.Count))
	dst = append(dst, tag(histogramZeroFloat, fixedType))
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(h.ZeroCount))
	dst = appendLayout(dst, h.Sum, h.Schema, h.ZeroThreshold, h.CounterResetHint, h.CustomValues)
	dst = appendSpans(dst, histogramNegativeSpans, h.NegativeSpans)
	dst = appendDoubles(dst, histogramNegativeCounts, h.NegativeBuckets)
	dst = appendSpans(dst, histogramPositiveSpans, h.PositiveSpans)
	return appendDoubles(dst, histogramPositiveCounts, h.PositiveBuckets)
}

// appendLayout appends what integer and float histograms have alike.
func appendLayout(dst []byte, sum float64, schema int32, zeroThreshold float64, hint histogram.CounterResetHint, bounds []float64) []byte {
	dst = appendDouble(dst, histogramSum, sum)
	dst = appendNonZero(dst, histogramSchema, zigzag(int64(schema)))
	dst = appendDouble(dst, histogramZeroThreshold, zeroThreshold)
	// Upstream's numbers of hints are those of the messages.
	dst = appendNonZero(dst, histogramResetHint, uint64(hint))
	return appendDoubles(dst, histogramCustomValues, bounds)
}

func appendSpans(dst []byte, field int, spans []histogram.Span) []byte {
	for _, s := range spans {
		// Two varints of 32 bits with their tags: at most 12 bytes.
		dst = append(dst, tag(field, bytesType), 0)
		at := len(dst)
		dst = appendNonZero(dst, spanOffset, zigzag(int64(s.Offset)))
		dst = appendNonZero(dst, spanLength, uint64(s.Length))
		dst[at-1] = byte(len(dst) - at)
	}
	return dst
}

func appendDeltas(dst []byte, field int, deltas []int64) []byte {
	if len(deltas) == 0 {
		return dst
	}
	dst = append(dst, tag(field, bytesType))
	dst, packed := begin(dst, len(deltas))
	for _, d := range deltas {
		dst = appendVarint(dst, zigzag(d))
	}
	return packed.end(dst)
}

func appendDoubles(dst []byte, field int, values []float64) []byte {
	if len(values) == 0 {
		return dst
	}
	dst = appendTag(dst, field, bytesType)
	dst = appendVarint(dst, uint64(8*len(values)))
	for _, v := range values {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	}
	return dst
}

// appendDouble appends a double unless it is zero in all bits.
func appendDouble(dst []byte, field int, v float64) []byte {
	bits := math.Float64bits(v)
	if bits == 0 {
		return dst
	}
	return binary.LittleEndian.AppendUint64(append(dst, tag(field, fixedType)), bits)
}

// appendNonZero appends a varint unless it is zero.
func appendNonZero(dst []byte, field int, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return appendVarint(appendTag(dst, field, varintType), v)
}

// appendText appends a string unless it is empty.
func appendText(dst []byte, field int, s string) []byte {
	if s == "" {
		return dst
	}
	return appendString(dst, field, s)
}

func appendString(dst []byte, field int, s string) []byte {
	dst = append(dst, tag(field, bytesType))
	dst = appendVarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// tag is the tag of a field below 16, which is one byte.
func tag(field, wireType int) byte { return byte(field<<3 | wireType) }

func appendTag(dst []byte, field, wireType int) []byte {
	return appendVarint(dst, uint64(field<<3|wireType))
}

func appendVarint(dst []byte, v uint64) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func varintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

// message is a message under way whose length is written when it ends.
type message struct{ at, room int }

// begin leaves room for the length of a message of about guess bytes.
func begin(dst []byte, guess int) ([]byte, message) {
	m := message{len(dst), varintBytes(uint64(guess))}
	for range m.room {
		dst = append(dst, 0)
	}
	return dst, m
}

// end writes the length of the message that reaches to the end of dst, and moves the message if the guess was wrong.
func (m message) end(dst []byte) []byte {
	from := m.at + m.room
	length := len(dst) - from
	need := varintBytes(uint64(length))
	if need > m.room {
		dst = append(dst, make([]byte, need-m.room)...)
	}
	if need != m.room {
		copy(dst[m.at+need:], dst[from:from+length])
		dst = dst[:m.at+need+length]
	}
	appendVarint(dst[:m.at], uint64(length))
	return dst
}
