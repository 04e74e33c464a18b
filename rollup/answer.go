package rollup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
)

// Function is a PromQL function over a range that buckets answer, or of which they give an estimate.
type Function int

// The functions, each named as in PromQL.
const (
	Rate Function = iota
	Increase
	Delta
	SumOverTime
	AvgOverTime
	MinOverTime
	MaxOverTime
	CountOverTime
	FirstOverTime
	LastOverTime
	PresentOverTime
	AbsentOverTime
	Changes
	Resets
	TsOfFirstOverTime
	TsOfLastOverTime
	// Those from here on are estimates.
	Irate
	Idelta
	Deriv
	PredictLinear
	functions
)

var functionNames = [functions]string{
	"rate", "increase", "delta", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "count_over_time", "first_over_time",
	"last_over_time", "present_over_time", "absent_over_time", "changes", "resets", "ts_of_first_over_time", "ts_of_last_over_time",
	"irate", "idelta", "deriv", "predict_linear",
}

// String returns the name in PromQL.
func (f Function) String() string { return functionNames[f] }

// FunctionNamed returns the function with a name in PromQL, if there is one.
func FunctionNamed(name string) (Function, bool) {
	for f, n := range functionNames {
		if n == name {
			return Function(f), true
		}
	}
	return 0, false
}

// Estimated tells that f needs the samples themselves, of which buckets give an estimate.
func (f Function) Estimated() bool { return f >= Irate }

// OfLastTwo tells that f is of the last two samples of a window alone.
func (f Function) OfLastTwo() bool { return f == Irate || f == Idelta }

// Extensive tells that twice the time gives about twice the value.
func (f Function) Extensive() bool {
	switch f {
	case Increase, Delta, SumOverTime, CountOverTime, Changes, Resets:
		return true
	}
	return false
}

// Notes are what PromQL remarks beside an answer, a bit each.
type Notes uint16

// The notes, and upstream's annotations that they stand for.
const (
	// MixedKinds: floats and histograms in one window; MixedFloatsHistogramsWarning.
	MixedKinds Notes = 1 << iota
	// MixedBuckets: exponential and custom buckets in one window; MixedExponentialCustomHistogramsWarning.
	MixedBuckets
	// NotCounter: a gauge histogram where counters are expected; NativeHistogramNotCounterWarning.
	NotCounter
	// NotGauge: a counter histogram where gauges are expected; NativeHistogramNotGaugeWarning.
	NotGauge
	// CollidingHints: of histograms added up some are a reset and some are not; HistogramCounterResetCollisionWarning.
	CollidingHints
	// MismatchedBounds: custom buckets were made to fit in a subtraction; MismatchedCustomBucketsHistogramsInfo.
	MismatchedBounds
	// IgnoredHistograms: only the floats of the window were used; HistogramIgnoredInMixedRangeInfo.
	IgnoredHistograms
)

// Answer is the value of a function over a window.
type Answer struct {
	// OK tells whether there is a value. It is Histogram, or Float if that is nil.
	OK        bool
	Float     float64
	Histogram *histogram.FloatHistogram
	Notes     Notes
	// Doubtful tells that only the samples themselves give what upstream gives: a sum came
	// near the limits of a float, so that its order matters, or histograms of different layouts
	// were merged further than upstream would have, or it is an estimate. There may be a value nevertheless.
	Doubtful bool
	// SureOfCount tells of a doubtful histogram that the doubt is about its buckets: count and sum are
	// upstream's.
	SureOfCount bool
}

// Answer returns f over the window (from, to], in Unix ms, of which s has all samples. The
// result is upstream's where it isn't Doubtful; sums may differ in the last bits. A histogram in
// it may be one of s and must not be changed.
//
// Of Irate and Idelta it is that of s as a whole, see lastTwo, whatever the window. Deriv and PredictLinear are not
// for a Summary, but for a Trend.
func (s *Summary) Answer(f Function, from, to int64) Answer {
	if s.Samples() == 0 {
		return Answer{}
	}
	h := s.Histograms()
	switch f {
	case Irate, Idelta:
		return s.lastTwo(f, h)
	case Deriv, PredictLinear:
		return Answer{Doubtful: true}
	case Rate, Increase, Delta, SumOverTime, AvgOverTime:
		switch {
		case h != nil && s.Count > 0:
			return Answer{Notes: MixedKinds}
		case h == nil && f <= Delta:
			return s.floatRate(f, from, to)
		case h == nil:
			return s.floatSum(f)
		case f <= Delta:
			return h.rate(f, from, to)
		}
		return h.sum(f)
	case MinOverTime, MaxOverTime:
		return s.extreme(f, h)
	case FirstOverTime:
		if h != nil && (s.Count == 0 || h.FirstMillis < s.FirstMillis) {
			return Answer{OK: true, Histogram: h.First}
		}
		return number(s.First)
	case LastOverTime:
		if h != nil && (s.Count == 0 || h.LastMillis > s.LastMillis) {
			return Answer{OK: true, Histogram: h.Last}
		}
		return number(s.Last)
	}
	return number(s.statistic(f, h))
}

func number(v float64) Answer { return Answer{OK: true, Float: v} }

// statistic is a function that tells about samples rather than values.
func (s *Summary) statistic(f Function, h *HistogramRow) float64 {
	if h == nil {
		h = &HistogramRow{FirstMillis: math.MaxInt64}
	}
	first, last := s.FirstMillis, s.LastMillis
	if s.Count == 0 {
		first, last = math.MaxInt64, 0
	}
	switch f {
	case CountOverTime:
		return float64(s.Count + h.Count)
	case Changes:
		return float64(s.Changes + h.Changes)
	case Resets:
		return float64(s.Resets + h.Resets)
	case TsOfFirstOverTime:
		return float64(min(first, h.FirstMillis)) / 1000
	case TsOfLastOverTime:
		// Upstream takes the time of histograms that aren't there for zero.
		return float64(max(last, h.LastMillis)) / 1000
	}
	return 1 // present and absent, which the engine turns around
}

func (s *Summary) extreme(f Function, h *HistogramRow) Answer {
	if s.Count == 0 {
		return Answer{}
	}
	a := number(s.Min)
	if f == MaxOverTime {
		a.Float = s.Max
	}
	if h != nil {
		a.Notes = IgnoredHistograms
	}
	return a
}

func (s *Summary) floatSum(f Function) Answer {
	a := Answer{OK: true, Doubtful: s.mayOverflow()}
	if f == AvgOverTime {
		a.Float = s.Sum/float64(s.Count) + s.SumLow/float64(s.Count)
	} else if a.Float = collapse(s.Sum, s.SumLow); a.Float == 0 {
		a.Float = 0 // upstream adds to +0, which is never -0
	}
	return a
}

// mayOverflow tells whether some order of adding the samples goes beyond the floats, and so
// to another result. Where infinities are among them the result is theirs, unless what is finite
// overflows to the other side.
func (s *Summary) mayOverflow() bool {
	if s.Count == 1 {
		return false
	}
	var most float64
	if !math.IsInf(s.Min, 0) {
		most = max(0, -s.Min)
	}
	if !math.IsInf(s.Max, 0) {
		most = max(most, s.Max)
	}
	return math.IsInf(float64(s.Count)*most, 0)
}

// floatRate is upstream's extrapolatedRate for floats without start timestamps.
func (s *Summary) floatRate(f Function, from, to int64) Answer {
	if s.Count < 2 {
		return Answer{}
	}
	e := extrapolation{
		firstMillis: s.FirstMillis, lastMillis: s.LastMillis, samples: s.Count, first: s.First,
		result: s.Last - s.First, counter: f != Delta,
	}
	if e.counter && s.Resets > 0 {
		e.result += s.Correction
	}
	return number(e.result * e.factor(f, from, to))
}

// extrapolation is the second half of upstream's extrapolatedRate.
type extrapolation struct {
	firstMillis, lastMillis int64
	samples                 int64
	// first and result are values, or counts of histograms.
	first, result float64
	counter       bool
}

// factor returns what the increase between the first and the last sample is to be multiplied
// with: up to the bounds of the window if a sample could be expected there, else half an interval
// on, but not below zero for counters.
func (e extrapolation) factor(f Function, from, to int64) float64 {
	toStart := float64(e.firstMillis-from) / 1000
	toEnd := float64(to-e.lastMillis) / 1000
	sampled := float64(e.lastMillis-e.firstMillis) / 1000
	average := sampled / float64(e.samples-1)
	threshold := average * 1.1
	if toStart >= threshold {
		toStart = average / 2
	}
	if e.counter && e.result > 0 && e.first >= 0 {
		if toZero := sampled * (e.first / e.result); toZero < toStart {
			toStart = toZero
		}
	}
	if toEnd >= threshold {
		toEnd = average / 2
	}
	factor := 1.0
	if sampled != 0 {
		factor = (sampled + toStart + toEnd) / sampled
	}
	if f == Rate {
		factor /= float64(to-from) / 1000
	}
	return factor
}
