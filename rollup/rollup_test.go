package rollup_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"varve/rollup"
)

const minute = 60_000

var (
	staleNaN     = math.Float64frombits(value.StaleNaN)
	negativeZero = math.Copysign(0, -1)
)

// sample is a float, a histogram if h is set, or a stale marker.
type sample struct {
	t int64
	v float64
	h *histogram.FloatHistogram
}

func (s sample) isStale() bool {
	if s.h != nil {
		return value.IsStaleNaN(s.h.Sum)
	}
	return value.IsStaleNaN(s.v)
}

var functions = func() (all []rollup.Function) {
	for f := rollup.Rate; f <= rollup.TsOfLastOverTime; f++ {
		all = append(all, f)
	}
	return all
}()

// upstream evaluates f over the samples of (from, to] as PromQL does.
func upstream(f rollup.Function, samples []sample, from, to int64) (promql.Vector, annotations.Annotations) {
	var in promql.Series
	in.Metric = labels.FromStrings("__name__", "x_total")
	for _, s := range samples {
		switch {
		case s.t <= from || s.t > to || s.isStale():
		case s.h != nil:
			in.Histograms = append(in.Histograms, promql.HPoint{T: s.t, H: s.h.Copy()})
		default:
			in.Floats = append(in.Floats, promql.FPoint{T: s.t, F: s.v})
		}
	}
	if len(in.Floats)+len(in.Histograms) == 0 {
		return nil, nil
	}
	selector := &parser.MatrixSelector{VectorSelector: &parser.VectorSelector{}, Range: time.Duration(to-from) * time.Millisecond}
	return promql.FunctionCalls[f.String()](nil, promql.Matrix{in}, parser.Expressions{selector}, &promql.EvalNodeHelper{Ts: to})
}

// notes are what upstream's annotations are called here.
func notes(f rollup.Function, a annotations.Annotations) (n rollup.Notes) {
	for _, err := range a {
		for is, note := range map[error]rollup.Notes{
			annotations.MixedFloatsHistogramsWarning:            rollup.MixedKinds,
			annotations.MixedExponentialCustomHistogramsWarning: rollup.MixedBuckets,
			annotations.NativeHistogramNotCounterWarning:        rollup.NotCounter,
			annotations.NativeHistogramNotGaugeWarning:          rollup.NotGauge,
			annotations.HistogramCounterResetCollisionWarning:   rollup.CollidingHints,
			annotations.MismatchedCustomBucketsHistogramsInfo:   rollup.MismatchedBounds,
			annotations.HistogramIgnoredInMixedRangeInfo:        rollup.IgnoredHistograms,
		} {
			if errors.Is(err, is) {
				n |= note
			}
		}
	}
	return n
}

// build adds samples to a Builder.
func build(c *rollup.Columns, resolution int64, samples []sample) {
	var b rollup.Builder
	b.Begin(resolution, c)
	for _, s := range samples {
		if s.h != nil {
			b.Histogram(s.t, s.h)
		} else {
			b.Float(s.t, s.v)
		}
	}
	b.Finish()
}

// merged is the summary of the rows in (from, to].
func merged(c *rollup.Columns, from, to int64) (s rollup.Summary) {
	for i := c.After(from); i < c.Len() && c.Ends[i] <= to; i++ {
		s.AppendRow(c, i)
	}
	return s
}

// tolerance is how far values may be apart: 0 means that they are the same bits, NaN apart.
type tolerance float64

func (tol tolerance) close(a, b, scale float64) bool {
	if math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	return math.Abs(a-b) <= float64(tol)*max(scale, math.Abs(a), math.Abs(b))
}

func (tol tolerance) closeHistograms(a, b *histogram.FloatHistogram, scale float64) bool {
	if a.Schema != b.Schema || a.ZeroThreshold != b.ZeroThreshold || a.CounterResetHint != b.CounterResetHint || !slices.Equal(a.CustomValues, b.CustomValues) {
		return false
	}
	for _, pair := range [][2]float64{{a.Count, b.Count}, {a.Sum, b.Sum}, {a.ZeroCount, b.ZeroCount}} {
		if !tol.close(pair[0], pair[1], scale) {
			return false
		}
	}
	a, b = a.Copy().Compact(0), b.Copy().Compact(0)
	same := func(x, y float64) bool { return tol.close(x, y, scale) }
	return slices.Equal(a.PositiveSpans, b.PositiveSpans) && slices.Equal(a.NegativeSpans, b.NegativeSpans) &&
		slices.EqualFunc(a.PositiveBuckets, b.PositiveBuckets, same) && slices.EqualFunc(a.NegativeBuckets, b.NegativeBuckets, same)
}

// scaleOf is the sum of the absolute values of the samples.
func scaleOf(samples []sample) (sum float64) {
	for _, s := range samples {
		if !s.isStale() && s.h == nil && !math.IsNaN(s.v) && !math.IsInf(s.v, 0) {
			sum += math.Abs(s.v)
		}
	}
	return sum
}

// requireUpstream holds the answers of s over (from, to] against upstream's. It returns
// how many were doubtful.
func requireUpstream(t *testing.T, s *rollup.Summary, samples []sample, from, to int64, tol tolerance) (doubtful int) {
	t.Helper()
	scale := scaleOf(samples)
	for _, f := range functions {
		want, annos := upstream(f, samples, from, to)
		got := s.Answer(f, from, to)
		if got.Doubtful {
			doubtful++
			continue
		}
		allowed := tol
		switch f {
		case rollup.Rate, rollup.Increase, rollup.SumOverTime, rollup.AvgOverTime:
		default:
			allowed = 0
		}
		require.Equal(t, len(want) > 0, got.OK, "%s over (%d, %d]", f, from, to)
		require.Equal(t, notes(f, annos), got.Notes, "%s over (%d, %d]: %v", f, from, to, annos)
		if len(want) == 0 {
			continue
		}
		require.Equal(t, want[0].H != nil, got.Histogram != nil, "%s over (%d, %d]", f, from, to)
		if want[0].H != nil {
			require.True(t, allowed.closeHistograms(want[0].H, got.Histogram, scale), "%s over (%d, %d]:\n%s\n%s", f, from, to, want[0].H.TestExpression(), got.Histogram.TestExpression())
			continue
		}
		require.True(t, allowed.close(want[0].F, got.Float, scale), "%s over (%d, %d]: want %v, got %v", f, from, to, want[0].F, got.Float)
	}
	return doubtful
}

// kinds are generators of series, and how close sums over them are.
var kinds = map[string]struct {
	tol  tolerance
	next func(r *rand.Rand) func() sample
}{
	"integer counter": {0, func(r *rand.Rand) func() sample {
		v := 0.0
		return func() sample {
			if r.IntN(60) == 0 {
				v = float64(r.IntN(5))
			} else {
				v += float64(r.IntN(50))
			}
			return sample{v: v}
		}
	}},
	"counter": {1e-12, func(r *rand.Rand) func() sample {
		v := 0.0
		return func() sample {
			if v += r.Float64() * 3; r.IntN(60) == 0 {
				v = r.Float64()
			}
			return sample{v: v}
		}
	}},
	"gauge": {1e-12, func(r *rand.Rand) func() sample {
		odd := []float64{math.NaN(), 0, negativeZero, math.Inf(1), math.Inf(-1), 1e300, -1e300, math.MaxFloat64}
		return func() sample {
			if r.IntN(40) == 0 {
				return sample{v: odd[r.IntN(len(odd))]}
			}
			return sample{v: math.Round(r.NormFloat64()*4) / 7}
		}
	}},
	"NaN": {0, func(r *rand.Rand) func() sample {
		return func() sample { return sample{v: []float64{math.NaN(), negativeZero, 0, 1}[r.IntN(4)]} }
	}},
	"counter histogram": {1e-12, func(r *rand.Rand) func() sample {
		n := int64(0)
		return func() sample {
			if n += r.Int64N(4); r.IntN(40) == 0 {
				n = r.Int64N(3)
			}
			h := tsdbutil.GenerateTestFloatHistogram(n)
			h.CounterResetHint = histogram.CounterResetHint([]int{0, 0, 0, 0, 0, 0, 1, 2}[r.IntN(8)])
			return sample{h: h}
		}
	}},
	"gauge histogram": {1e-12, func(r *rand.Rand) func() sample {
		return func() sample { return sample{h: tsdbutil.GenerateTestGaugeFloatHistogram(r.Int64N(20))} }
	}},
	"histogram of many layouts": {1e-12, func(r *rand.Rand) func() sample {
		return func() sample {
			n := r.Int64N(30)
			h := tsdbutil.GenerateTestFloatHistogram(n)
			switch r.IntN(20) {
			case 0:
				h = h.CopyToSchema(0)
			case 1:
				h.ZeroThreshold = 0.5
			case 2:
				h = tsdbutil.GenerateTestCustomBucketsFloatHistogram(n)
			}
			return sample{h: h}
		}
	}},
	"custom histogram": {1e-12, func(r *rand.Rand) func() sample {
		return func() sample {
			h := tsdbutil.GenerateTestCustomBucketsFloatHistogram(r.Int64N(30))
			if r.IntN(30) == 0 {
				h.CustomValues = []float64{0, 1, 2, 3, 40}
			}
			return sample{h: h}
		}
	}},
	"mixed": {1e-12, func(r *rand.Rand) func() sample {
		float := true
		return func() sample {
			if r.IntN(12) == 0 {
				float = !float
			}
			if float {
				return sample{v: float64(r.IntN(9))}
			}
			return sample{h: tsdbutil.GenerateTestFloatHistogram(r.Int64N(9))}
		}
	}},
}

// series makes samples of about a day, with gaps, stale markers, jitter, and samples exactly on
// the edges of buckets.
func series(r *rand.Rand, next func() sample, from, hours int64) (out []sample) {
	interval := []int64{5_000, 15_000, 30_000, 60_000}[r.IntN(4)]
	last := int64(math.MinInt64)
	for t := from + r.Int64N(interval); t < from+hours*60*minute; t += interval {
		s := next()
		s.t = t
		switch r.IntN(60) {
		case 0:
			t += r.Int64N(40 * minute)
			if r.IntN(2) == 0 {
				s = sample{t: s.t, v: staleNaN}
				if r.IntN(2) == 0 {
					s.h = &histogram.FloatHistogram{Sum: staleNaN}
				}
			}
		case 1, 2, 3:
			s.t = rollup.EndOf(s.t, minute)
		case 4, 5, 6:
			s.t += r.Int64N(200)
		}
		if s.t > last {
			out, last = append(out, s), s.t
		}
	}
	return out
}

// Every function over buckets, whole and with samples at the edges of the window, is upstream's
// over the samples: bit for bit but for sums, and also for those where all is an integer.
func TestAnswersAreUpstreams(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			windows, doubtful := 0, 0
			for seed := range uint64(8) {
				r := rand.New(rand.NewPCG(seed, 7))
				from := int64(seed)*1_000_000_000 - 2_000_000_000
				samples := series(r, kind.next(r), from, 12)
				resolution := []int64{minute, 5 * minute, 60 * minute}[r.IntN(3)]
				var c rollup.Columns
				build(&c, resolution, samples)
				for range 60 {
					to := from + r.Int64N(13*60*minute)
					span := 1 + r.Int64N(3*60*minute)
					if r.IntN(2) == 0 {
						to, span = rollup.EndOf(to, resolution), rollup.EndOf(span, resolution)
					}
					s := tiled(&c, samples, resolution, to-span, to)
					doubtful += requireUpstream(t, &s, samples, to-span, to, kind.tol)
					windows++
				}
			}
			t.Logf("%d windows, %d of %d answers doubtful", windows, doubtful, windows*len(functions))
			limit := windows * len(functions) / 20
			if name == "gauge" || name == "histogram of many layouts" || name == "custom histogram" {
				limit = windows * len(functions) / 2
			}
			require.LessOrEqual(t, doubtful, limit)
		})
	}
}

// tiled is a window of whole buckets and of samples where it has none.
func tiled(c *rollup.Columns, samples []sample, resolution, from, to int64) (s rollup.Summary) {
	inner, outer := rollup.EndOf(from, resolution), rollup.StartOf(to, resolution)
	add := func(from, to int64) {
		for _, x := range samples {
			switch {
			case x.t <= from || x.t > to:
			case x.isStale():
				s.Stale()
			case x.h != nil:
				s.Histogram(x.t, x.h)
			default:
				s.Float(x.t, x.v)
			}
		}
	}
	if inner >= outer {
		add(from, to)
		return s
	}
	add(from, inner)
	rows := merged(c, inner, outer)
	s.Append(&rows)
	add(outer, to)
	return s
}

// Summaries of neighbouring stretches merge to the same in whatever order they are merged.
func TestMergingIsAssociative(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(40) {
				r := rand.New(rand.NewPCG(seed, 8))
				samples := series(r, kind.next(r), 0, 3)
				cut := []int64{0, r.Int64N(3 * 60 * minute), r.Int64N(3 * 60 * minute), 4 * 60 * minute}
				slices.Sort(cut)
				var parts [3]rollup.Summary
				for i := range parts {
					parts[i] = tiled(&rollup.Columns{}, samples, 1<<40, cut[i], cut[i+1])
				}
				left, right := parts[0].Clone(), parts[1].Clone()
				left.Append(&parts[1])
				left.Append(&parts[2])
				right.Append(&parts[2])
				outer := parts[0].Clone()
				outer.Append(&right)
				requireSameSummary(t, &left, &outer, kind.tol, scaleOf(samples))
				whole := tiled(&rollup.Columns{}, samples, 1<<40, cut[0], cut[3])
				requireSameSummary(t, &left, &whole, kind.tol, scaleOf(samples))
				for i := range parts {
					again := tiled(&rollup.Columns{}, samples, 1<<40, cut[i], cut[i+1])
					requireSameSummary(t, &again, &parts[i], 0, 0)
				}
			}
		})
	}
}

// requireSameSummary compares all that is known.
func requireSameSummary(t *testing.T, a, b *rollup.Summary, tol tolerance, scale float64) {
	t.Helper()
	x, y := a.Row, b.Row
	if !math.IsInf(float64(x.Count)*max(math.Abs(x.Min), math.Abs(x.Max)), 0) {
		require.True(t, tol.close(x.Sum+x.SumLow, y.Sum+y.SumLow, scale), "%v %v", x, y)
		require.True(t, tol.close(x.Correction, y.Correction, scale), "%v %v", x, y)
	}
	x.Sum, x.SumLow, x.Correction = y.Sum, y.SumLow, y.Correction
	require.Equal(t, fmt.Sprint(x), fmt.Sprint(y))
	h, g := a.Histograms(), b.Histograms()
	require.Equal(t, h == nil, g == nil)
	if h == nil {
		return
	}
	p, q := *h, *g
	for _, pair := range [][2]*histogram.FloatHistogram{{p.Sum, q.Sum}, {p.Correction, q.Correction}} {
		require.Equal(t, pair[0] == nil, pair[1] == nil)
		if pair[0] != nil && pair[0].CounterResetHint == pair[1].CounterResetHint && pair[0].ZeroThreshold == pair[1].ZeroThreshold {
			require.True(t, tol.closeHistograms(pair[0], pair[1], scale), "%s %s", pair[0].TestExpression(), pair[1].TestExpression())
		}
	}
	p.Sum, p.Correction, q.Sum, q.Correction = nil, nil, nil, nil
	require.Equal(t, fmt.Sprint(p), fmt.Sprint(q))
}

// Coarse buckets made of fine ones are those made of the samples: bit for bit where sums are
// exact.
func TestCoarsenIsBuild(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				r := rand.New(rand.NewPCG(seed, 9))
				samples := series(r, kind.next(r), -6*60*minute, 24)
				var fine, coarse, direct rollup.Columns
				build(&fine, 5*minute, samples)
				rollup.Coarsen(&coarse, 60*minute, &fine)
				build(&direct, 60*minute, samples)
				require.Equal(t, direct.Ends, coarse.Ends)
				for i := range direct.Ends {
					var a, b rollup.Summary
					a.AppendRow(&coarse, i)
					b.AppendRow(&direct, i)
					requireSameSummary(t, &a, &b, kind.tol, scaleOf(samples))
				}
			}
		})
	}
}

// Windows that slide have what rows merged one by one have, whether they overlap or not.
func TestSlide(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			var slide rollup.Slide
			for seed := range uint64(20) {
				r := rand.New(rand.NewPCG(seed, 10))
				samples := series(r, kind.next(r), 0, 12)
				var c rollup.Columns
				build(&c, 5*minute, samples)
				slide.Begin(&c)
				step, span := 5*minute*(1+r.Int64N(9)), 5*minute*r.Int64N(40)
				for to := int64(-60 * minute); to < 14*60*minute; to += step {
					got := slide.Window(to-span, to)
					want := merged(&c, to-span, to)
					got.Ended, want.Ended = false, false
					requireSameSummary(t, &got, &want, kind.tol, scaleOf(samples))
				}
				require.LessOrEqual(t, slide.Merged(), c.Len())
			}
		})
	}
}

// The edges of buckets: a sample on an edge belongs to the bucket that ends there, a marker
// counts only as the last event, and a bucket without samples is there only for a marker.
func TestBuckets(t *testing.T) {
	h := tsdbutil.GenerateTestFloatHistogram(1)
	samples := []sample{
		{t: -5 * minute, v: 1}, {t: -5*minute + 1, v: 2}, {t: 0, v: negativeZero},
		{t: 1, v: 5}, {t: 2, v: staleNaN}, {t: 3, v: 3},
		{t: 10 * minute, v: staleNaN},
		{t: 20 * minute, v: 7}, {t: 20*minute + 1, h: h}, {t: 25 * minute, h: &histogram.FloatHistogram{Sum: staleNaN}},
	}
	var c rollup.Columns
	build(&c, 5*minute, samples)
	require.Equal(t, []int64{-5 * minute, 0, 5 * minute, 10 * minute, 20 * minute, 25 * minute}, c.Ends)
	require.Equal(t, []int64{1, 2, 2, 0, 1, 0}, c.Counts)
	require.Equal(t, []bool{false, false, false, true, false, true}, c.Ended)
	require.Equal(t, []int64{0, 1, 1, 0, 0, 0}, c.Resets)
	require.Equal(t, []int64{0, 1, 1, 0, 0, 0}, c.Changes)
	require.Equal(t, []float64{0, 2, 5, 0, 0, 0}, c.Corrections)
	require.Equal(t, []int32{5}, c.HistogramAt)
	require.Equal(t, int64(1), c.HistogramRow(5).Count)
	require.Nil(t, c.HistogramRow(4))
	require.True(t, math.Signbit(c.Last[1]))

	build(&c, 60*minute, samples)
	require.Equal(t, []int64{0, 60 * minute}, c.Ends)
	require.Equal(t, []int64{1, 1}, c.Resets, "values that fall")
	require.Equal(t, int64(1), c.HistogramRow(1).Resets, "a histogram behind a float")
	require.True(t, c.Ended[1])
}

// Functions that buckets answer or estimate have names, others don't.
func TestFunctionNamed(t *testing.T) {
	for f := rollup.Rate; f <= rollup.PredictLinear; f++ {
		require.Equal(t, slices.Contains(functions, f), !f.Estimated())
		named, ok := rollup.FunctionNamed(f.String())
		require.True(t, ok)
		require.Equal(t, f, named)
		require.Contains(t, parser.Functions, f.String())
	}
	for _, name := range []string{"quantile_over_time", "stddev_over_time", ""} {
		_, ok := rollup.FunctionNamed(name)
		require.False(t, ok)
	}
}

// FuzzAnswers holds windows over any floats against upstream.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("a few bytes that are samples"), uint16(1), uint16(9))
	f.Add([]byte{0, 1, 2, 3, 255, 254, 9, 9, 9, 77}, uint16(0), uint16(60))
	values := []float64{0, negativeZero, 1, -1, 2, 3, 1e9, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64, 5e-324, staleNaN, 0.1, 1e300}
	f.Fuzz(func(t *testing.T, data []byte, from, span uint16) {
		var samples []sample
		at := int64(-10 * minute)
		for _, b := range data[:min(len(data), 300)] {
			at += 1 + int64(b>>4)*20_000
			s := sample{t: at, v: values[b&15]}
			if b == 0xff {
				s.h = tsdbutil.GenerateTestFloatHistogram(int64(len(samples)))
			}
			samples = append(samples, s)
		}
		var c rollup.Columns
		build(&c, 5*minute, samples)
		lo := int64(from)*1000 - 15*minute
		hi := lo + 1 + int64(span)*1000
		s := tiled(&c, samples, 5*minute, lo, hi)
		requireUpstream(t, &s, samples, lo, hi, 1e-12)
	})
}

// BenchmarkBuilder is a day of samples each 15 s into buckets of 5m.
func BenchmarkBuilder(b *testing.B) {
	var builder rollup.Builder
	var c rollup.Columns
	b.ReportAllocs()
	for b.Loop() {
		builder.Begin(5*minute, &c)
		for i := range int64(5760) {
			builder.Float(i*15_000, float64(i*7))
		}
		builder.Finish()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/5760, "ns/sample")
}

// BenchmarkSlide is 30 days of buckets of 5m, a day's window each hour.
func BenchmarkSlide(b *testing.B) {
	var c rollup.Columns
	var builder rollup.Builder
	builder.Begin(5*minute, &c)
	for i := range int64(30 * 288) {
		builder.Float(i*5*minute, float64(i))
	}
	builder.Finish()
	var s rollup.Slide
	b.ReportAllocs()
	for b.Loop() {
		s.Begin(&c)
		for at := int64(0); at < 30*288*5*minute; at += 60 * minute {
			w := s.Window(at-24*60*minute, at)
			if w.Answer(rollup.Rate, at-24*60*minute, at).Doubtful {
				b.Fatal("doubtful")
			}
		}
	}
}
