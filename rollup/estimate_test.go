package rollup_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"varve/rollup"
)

// irate and idelta of two samples are upstream's to the bit, remarks included; of more they are the mean of what
// upstream has of all pairs of neighbours, by time or by number.
func TestLastTwo(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			pairs, longer := 0, 0
			for seed := range uint64(20) {
				r := rand.New(rand.NewPCG(seed, 11))
				var samples []sample
				for _, s := range series(r, kind.next(r), 0, 3) {
					if !s.isStale() {
						samples = append(samples, s)
					}
				}
				for i := 2; i < len(samples); i += 1 + r.IntN(5) {
					n := min(2+r.IntN(2)*r.IntN(9), i)
					var s rollup.Summary
					of := samples[i-n : i]
					for _, x := range of {
						if x.h != nil {
							s.Histogram(x.t, x.h)
						} else {
							s.Float(x.t, x.v)
						}
					}
					for _, f := range []rollup.Function{rollup.Irate, rollup.Idelta} {
						got := s.Answer(f, 0, 1)
						if n == 2 {
							require.False(t, got.Doubtful)
							requireLastTwo(t, f, of, got)
							pairs++
							continue
						}
						longer++
						if got.OK {
							require.True(t, got.Doubtful)
						}
						mean := meanOfPairs(f, of)
						if got.OK && got.Histogram == nil && s.Histograms() == nil && !math.IsNaN(mean) && !math.IsInf(mean, 0) {
							require.True(t, tolerance(1e-9).close(mean, got.Float, scaleOf(of)), "%s of %v: %v", f, of, got.Float)
						}
					}
				}
			}
			require.Greater(t, pairs, 100)
			require.Greater(t, longer, 100)
		})
	}
}

// requireLastTwo holds an answer of two samples against upstream.
func requireLastTwo(t *testing.T, f rollup.Function, of []sample, got rollup.Answer) {
	t.Helper()
	want, annos := upstream(f, of, of[0].t-1, of[len(of)-1].t)
	require.Equal(t, notes(f, annos), got.Notes, "%s of %v", f, of)
	require.Equal(t, len(want) > 0, got.OK)
	switch {
	case len(want) == 0:
	case want[0].H != nil:
		require.True(t, tolerance(0).closeHistograms(want[0].H, got.Histogram, 0), "%s: %s %s", f, want[0].H.TestExpression(), got.Histogram.TestExpression())
	default:
		require.True(t, tolerance(0).close(want[0].F, got.Float, 0), "%s of %v: want %v, got %v", f, of, want[0].F, got.Float)
	}
}

// meanOfPairs is what a function has of all pairs of neighbours, on average.
func meanOfPairs(f rollup.Function, of []sample) (sum float64) {
	for i := 1; i < len(of); i++ {
		d := of[i].v - of[i-1].v
		if f == rollup.Irate && of[i].v < of[i-1].v {
			d = of[i].v
		}
		sum += d
	}
	if f == rollup.Irate {
		return sum / (float64(of[len(of)-1].t-of[0].t) / 1000)
	}
	return sum / float64(len(of)-1)
}

// trend is the line through rows of a resolution.
func trend(samples []sample, resolution int64) (t rollup.Trend) {
	var c rollup.Columns
	build(&c, resolution, samples)
	for i := range c.Len() {
		row := c.Row(i)
		t.Add(&row)
	}
	return t
}

// line is what upstream draws through samples: its slope, and its value some seconds behind the last one.
func line(samples []sample, ahead float64) (slope, value float64) {
	var in promql.Series
	in.Metric = labels.FromStrings("__name__", "x")
	for _, s := range samples {
		in.Floats = append(in.Floats, promql.FPoint{T: s.t, F: s.v})
	}
	args := parser.Expressions{&parser.MatrixSelector{VectorSelector: &parser.VectorSelector{}, Range: time.Hour}}
	helper := &promql.EvalNodeHelper{Ts: samples[len(samples)-1].t}
	out, _ := promql.FunctionCalls["deriv"](nil, promql.Matrix{in}, args, helper)
	slope = out[0].F
	helper.Out = nil
	out, _ = promql.FunctionCalls["predict_linear"]([]promql.Vector{{{F: ahead}}}, promql.Matrix{in}, args, helper)
	return slope, out[0].F
}

// Of rows of one or two samples, and of samples on a line, a Trend is upstream's line. Of others it is close to it: the
// slope is off by a small part of the noise over the length.
func TestTrend(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 12))
		from, level, slope := r.Int64N(1<<40), 1e6*r.NormFloat64(), r.NormFloat64()
		for _, test := range []struct {
			name       string
			resolution int64
			noise, off float64
		}{
			{"a sample a row", 15_000, 100, 1e-6},
			{"two samples a row", 30_000, 100, 1e-6},
			{"a line", 5 * minute, 0, 1e-6},
			{"one row, a line", 1 << 42, 0, 1e-6},
			{"noise", 5 * minute, 1, 0.02},
		} {
			var samples []sample
			start := rollup.EndOf(from, test.resolution)
			for i := range int64(240) {
				at := start + (i+1)*15_000
				samples = append(samples, sample{t: at, v: level + slope*float64(at-start)/1000 + test.noise*r.NormFloat64()})
			}
			fitted := trend(samples, test.resolution)
			wantSlope, wantValue := line(samples, 1800)
			at := samples[len(samples)-1].t
			got := fitted.Answer(rollup.Deriv, at, 0)
			require.True(t, got.OK && got.Doubtful)
			span := 3600.0
			require.InDelta(t, wantSlope*span, got.Float*span, test.off*5, test.name)
			got = fitted.Answer(rollup.PredictLinear, at, 1800)
			require.InDelta(t, wantValue, got.Float, test.off*5, test.name)
		}
	}
	var none, one rollup.Trend
	one.Add(&rollup.Row{Count: 1, Sum: 4, First: 4, Last: 4})
	require.False(t, none.Answer(rollup.Deriv, 0, 0).OK)
	require.False(t, one.Answer(rollup.PredictLinear, 0, 0).OK)
	flat := trend([]sample{{t: 1, v: 0.1}, {t: 2, v: 0.1}, {t: 3, v: 0.1}}, minute)
	require.Less(t, math.Abs(flat.Answer(rollup.Deriv, 0, 0).Float), 1e-12)
}
