package canary

import (
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// The labels of the canary's series. The job is that of the server's own metrics, so that what leaves out those leaves out
// these too.
const (
	metricName   = "varve_canary"
	jobName      = "varve"
	labelSet     = "set"
	labelPattern = "pattern"
)

// currentSet names the patterns below. What is written stays for years, so their functions never change: a
// version that wants others writes another set, and goes on to read this one.
const currentSet = "1"

// pattern is a series of which every value is known. One of float, ints and floats is set, or none in that of
// previous rounds.
type pattern struct {
	name   string
	float  func(atMillis int64) uint64
	ints   func(atMillis int64) *histogram.Histogram
	floats func(atMillis int64) *histogram.FloatHistogram
	// plain tells that values are numbers of few digits. whole that they are small whole ones besides, so that sums are
	// exact in any order.
	plain, whole bool
}

// previousName is the pattern whose values are the times of the rounds before, Unix ms; 0 if none is known.
const previousName = "previous"

// constantName is the pattern of the value 1.
const constantName = "constant"

var patterns = []pattern{
	{name: "awkward", float: awkward},
	{name: "bits", float: scatter},
	{name: constantName, float: func(int64) uint64 { return math.Float64bits(1) }, plain: true, whole: true},
	{name: "counter", float: func(at int64) uint64 { return math.Float64bits(float64(seconds(at) % 100_000)) }, plain: true, whole: true},
	{name: "decimals", float: func(at int64) uint64 { return math.Float64bits(float64(seconds(at)%36_000) / 100) }, plain: true},
	{name: "float_histogram", floats: floatHistogram},
	{name: "histogram", ints: intHistogram},
	{name: previousName},
	{name: "steps", float: func(at int64) uint64 { return math.Float64bits(float64(scatter(at)%201) - 100) }, plain: true, whole: true},
}

func (p *pattern) labels() labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, metricName, model.JobLabel, jobName, labelSet, currentSet, labelPattern, p.name)
}

// seconds is at least 0, also before 1970.
func seconds(atMillis int64) uint64 { return uint64(max(atMillis, 0)) / 1000 }

// scatter is the finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of the time turns over half of the result's.
func scatter(atMillis int64) uint64 {
	x := uint64(atMillis) + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// awkwardBits are values that codecs and comparisons get wrong.
var awkwardBits = []uint64{
	0x0000000000000000, // 0
	0x8000000000000000, // -0
	0x0000000000000001, // the smallest subnormal
	0x800fffffffffffff, // the largest negative subnormal
	0x0010000000000000, // the smallest normal number
	0x7fefffffffffffff, // the largest number
	0xffefffffffffffff, // the least number
	0x7ff0000000000000, // infinity
	0xfff0000000000000, // -infinity
	value.NormalNaN,    // what Prometheus computes
	value.StaleNaN,     // what ends a series
	0x7ff0000000000001, // a signalling NaN, one less than the stale marker
	0xfff8deadbeef0001, // a negative NaN with a payload
	0x7fffffffffffffff, // the last NaN
	0x3ff0000000000001, // the first number above 1
	0x3fb999999999999a, // 0.1
	0x3fd5555555555555, // a third
	0x4340000000000000, // 2^53
	0x4340000000000001, // 2^53 + 2
	0xc08f400000000001, // just below -1000
}

func awkward(atMillis int64) uint64 {
	return awkwardBits[scatter(atMillis)%uint64(len(awkwardBits))]
}

// intHistogram is an exponential histogram with spans, gaps and both signs.
func intHistogram(atMillis int64) *histogram.Histogram {
	r := scatter(atMillis)
	h := &histogram.Histogram{
		Schema: int32(r%13) - 4, ZeroThreshold: math.Ldexp(1, -128), ZeroCount: r >> 4 % 7,
		Sum:             float64(int64(r)) / 1024,
		PositiveSpans:   []histogram.Span{{Offset: int32(r>>8%50) - 25, Length: 3}, {Offset: 2, Length: 2}},
		PositiveBuckets: make([]int64, 5),
		NegativeSpans:   []histogram.Span{{Offset: int32(r >> 16 % 9), Length: 2}},
		NegativeBuckets: make([]int64, 2),
	}
	h.Count = h.ZeroCount
	fill := func(deltas []int64, r uint64) {
		last := int64(0)
		for i := range deltas {
			n := int64(r >> (8 * i) & 0xff)
			deltas[i], last = n-last, n
			h.Count += uint64(n)
		}
	}
	fill(h.PositiveBuckets, r>>20)
	fill(h.NegativeBuckets, r>>3)
	return h
}

// floatHistogram is a gauge, with custom buckets every other time, and sums of any bits. Those of a stale marker make
// it one, which has nothing else.
func floatHistogram(atMillis int64) *histogram.FloatHistogram {
	r := scatter(atMillis)
	h := &histogram.FloatHistogram{CounterResetHint: histogram.GaugeType, Sum: math.Float64frombits(awkward(atMillis + 1))}
	if value.IsStaleNaN(h.Sum) {
		return &histogram.FloatHistogram{Sum: h.Sum}
	}
	fill := func(n int, r uint64) []float64 {
		buckets := make([]float64, n)
		for i := range buckets {
			buckets[i] = float64(r>>(8*i)&0xff) / 3
			h.Count += buckets[i]
		}
		return buckets
	}
	if r&1 == 0 {
		h.Schema = histogram.CustomBucketsSchema
		h.CustomValues = []float64{0.1, 0.5, 1, float64(2 + r>>8%7)}
		h.PositiveSpans = []histogram.Span{{Offset: 0, Length: 5}}
		h.PositiveBuckets = fill(5, r>>16)
		return h
	}
	h.Schema, h.ZeroThreshold, h.ZeroCount = int32(r>>1%13)-4, 0.001, float64(r>>5%11)/2
	h.Count = h.ZeroCount
	h.PositiveSpans = []histogram.Span{{Offset: -int32(r >> 9 % 20), Length: 4}}
	h.PositiveBuckets = fill(4, r>>16)
	h.NegativeSpans = []histogram.Span{{Offset: 1, Length: 1}, {Offset: 3, Length: 1}}
	h.NegativeBuckets = fill(2, r>>24)
	return h
}
