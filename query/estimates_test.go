package query_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"varve/query"
	"varve/rollup"
)

// steep is hours of a counter that grows faster and faster and begins anew now and then, of a gauge that falls by
// one a minute, and of one that swings, a sample each 15 s.
func steep() *arrays {
	const n = 6 * 240
	total := 0.0
	return &arrays{series: []*arraySeries{
		floats(15_000, n, func(i int) float64 { return 1e6 - float64(i)/4 }, "__name__", "falling"),
		floats(15_000, n, func(i int) float64 {
			if total += float64(10 + i/10); i%111 == 110 {
				total = 7
			}
			return total
		}, "__name__", "req_total"),
		floats(15_000, n, func(i int) float64 { return 1000 + 100*math.Sin(float64(i)/200) }, "__name__", "swinging"),
	}}
}

// Without raw samples irate is the rate of the bucket in which the window ends, resets not lost, and idelta the mean
// step in it: of ranges shorter than a bucket, too, whether their ends are those of buckets or not. They are marked, and
// refused strictly.
func TestLastTwoWithoutRaw(t *testing.T) {
	store := steep()
	engine := newEngine(t, rollupOptions(false))
	archive := newRolled(store, 5*minuteMillis, hourMillis)
	archive.rawSince = wide
	for _, span := range []string{"1m", "5m", "10m", "1h"} {
		for _, start := range []int64{hourMillis, hourMillis + 77_123} {
			for _, name := range []string{"req_total", "falling"} {
				samples := store.series[slices.IndexFunc(store.series, func(s *arraySeries) bool { return s.labels.Get("__name__") == name })].samples
				w := window{start - begin, 5*hourMillis - begin, 10 * time.Minute}
				irates, q := w.run(engine, archive, fmt.Sprintf("irate(%s[%s])", name, span), t.Context(), nil)
				require.NoError(t, irates.Err)
				require.Equal(t, "5m;approximate", query.SourcesOf(q).String())
				idelta, _ := w.run(engine, archive, fmt.Sprintf("idelta(%s[%s])", name, span), t.Context(), nil)
				require.NoError(t, idelta.Err)
				rates, steps := asMatrix(irates.Value)[0].Floats, asMatrix(idelta.Value)[0].Floats
				require.Len(t, rates, int((5*hourMillis-start)/(10*minuteMillis))+1, "no gaps")
				require.Len(t, steps, len(rates))
				for i, p := range rates {
					in := within(samples, rollup.EndOf(p.T, 5*minuteMillis)-5*minuteMillis, rollup.EndOf(p.T, 5*minuteMillis))
					grown := 0.0
					for j := 1; j < len(in); j++ {
						if d := in[j].v - in[j-1].v; d >= 0 {
							grown += d
						} else {
							grown += in[j].v
						}
					}
					first, last := in[0], in[len(in)-1]
					require.InEpsilon(t, grown/(float64(last.t-first.t)/1000), p.F, 1e-12, "%s[%s] at %d", name, span, p.T)
					require.InEpsilon(t, (last.v-first.v)/float64(len(in)-1), steps[i].F, 1e-12, "%s[%s] at %d", name, span, p.T)
				}
				strict, _ := w.run(engine, archive, fmt.Sprintf("irate(%s[%s])", name, span), query.WithResolution(t.Context(), query.Strict), nil)
				require.ErrorIs(t, strict.Err, query.ErrInexact)
			}
		}
	}
}

// within are the samples of (from, to].
func within(samples []sample, from, to int64) (in []sample) {
	for _, x := range samples {
		if x.t > from && x.t <= to {
			in = append(in, x)
		}
	}
	return in
}

// Where a bucket has one sample the last two are known: irate and idelta are exact, strictly.
func TestLastTwoOfSingleSamples(t *testing.T) {
	store := steep()
	for _, s := range store.series {
		for i := range s.samples {
			s.samples[i].t = s.samples[i].t/15_000*minuteMillis - int64(i%7)*100
		}
	}
	engine, upstream := newEngine(t, rollupOptions(false)), plainUpstream(false)
	archive := newRolled(store, minuteMillis, hourMillis)
	archive.rawSince = wide
	for _, text := range []string{"irate(req_total[5m])", "idelta(swinging[2m])", "irate(falling[1h])", "irate(req_total[30s])", "idelta(swinging[3m] offset 1m)"} {
		for _, w := range []window{{hourMillis - begin, 5*hourMillis - begin, 7 * time.Minute}, {0, 3*hourMillis - begin, 0}} {
			want, _ := w.run(upstream, plain{store}, text, t.Context(), nil)
			got, q := w.run(engine, archive, text, query.WithResolution(t.Context(), query.Strict), nil)
			var l likeness
			require.NoError(t, got.Err, text)
			require.Equal(t, "1m", query.SourcesOf(q).String())
			require.True(t, withoutRollups(got))
			require.Empty(t, l.differ(want, got, text, true), text)
			require.Equal(t, l.points, l.same)
		}
	}
}

// Without raw samples deriv and predict_linear are close to upstream's line, for ranges shorter than a bucket, too.
func TestTrendsWithoutRaw(t *testing.T) {
	store := steep()
	engine, upstream := newEngine(t, rollupOptions(false)), plainUpstream(false)
	archive := newRolled(store, 5*minuteMillis, hourMillis)
	archive.rawSince = wide
	for _, test := range []struct {
		text string
		off  float64
	}{
		{"deriv(falling[1m])", 1e-9},
		{"deriv(falling[5m])", 1e-9},
		{"deriv(falling[1h])", 1e-9},
		{"predict_linear(falling[5m], 3600)", 1e-6},
		{"predict_linear(falling[1h], 4 * 3600 - -60)", 1e-6},
		{"predict_linear(falling[30m] offset 10m, -(1 + 60 / 2))", 1e-6},
		// A slope of 0.033 a second at most, which changes by 1.1e-5 a second: by 0.0017 in the half bucket by which both ends
		// of a window may move, and that 4200 s away from its middle by 7.
		{"deriv(swinging[5m])", 0.0035},
		{"deriv(swinging[2h])", 0.002},
		{"predict_linear(swinging[2h], 600)", 7.1},
	} {
		for _, w := range []window{{3*hourMillis - begin, 5*hourMillis - begin, 10 * time.Minute}, {3*hourMillis - begin + 77_001, 5*hourMillis - begin, 7 * time.Minute}, {0, 4*hourMillis - begin + 150_000, 0}} {
			want, _ := w.run(upstream, plain{store}, test.text, t.Context(), nil)
			got, q := w.run(engine, archive, test.text, t.Context(), nil)
			require.NoError(t, got.Err, test.text)
			require.Equal(t, "5m;approximate", query.SourcesOf(q).String(), test.text)
			theirs, ours := asMatrix(want.Value)[0].Floats, asMatrix(got.Value)[0].Floats
			require.Len(t, ours, len(theirs), test.text)
			for i := range theirs {
				require.InDelta(t, theirs[i].F, ours[i].F, test.off, "%s at %d", test.text, theirs[i].T)
			}
			strict, _ := w.run(engine, archive, test.text, query.WithResolution(t.Context(), query.Strict), nil)
			require.ErrorIs(t, strict.Err, query.ErrInexact)
		}
	}
}

// Where raw samples begin within a window irate is exact once two of them are in it, and a trend reads buckets for
// all of it; where they fill it, both are upstream's.
func TestEstimatesMeetRaw(t *testing.T) {
	store := steep()
	engine, upstream := newEngine(t, rollupOptions(false)), plainUpstream(false)
	archive := newRolled(store, 5*minuteMillis, hourMillis)
	archive.rawSince = 3*hourMillis + 1
	archive.keep(-wide, 4*hourMillis)
	for _, test := range []struct {
		text    string
		at      int64
		sources string
		exact   bool
	}{
		{"irate(req_total[1h])", 3*hourMillis + 15_000, "raw,5m;approximate", false},
		{"irate(req_total[1h])", 3*hourMillis + 30_000, "raw", true},
		{"idelta(swinging[1h])", 3*hourMillis + 44_000, "raw", true},
		{"deriv(swinging[1h])", 3*hourMillis + 30*minuteMillis, "5m;approximate", false},
		{"predict_linear(swinging[30m] offset 10m, 60)", 3*hourMillis + 40*minuteMillis, "raw", true},
		{"deriv(swinging[30m])", 3*hourMillis + 30*minuteMillis, "raw", true},
		{"predict_linear(swinging[30m], 60)", 3*hourMillis + 30*minuteMillis, "raw", true},
		{"histogram_count(irate(req_total[1h]))", 3*hourMillis + 30_000, "raw", true},
	} {
		q, err := engine.NewInstantQuery(t.Context(), archive, nil, test.text, time.UnixMilli(test.at))
		require.NoError(t, err)
		got := q.Exec(t.Context())
		require.NoError(t, got.Err)
		require.Equal(t, test.sources, query.SourcesOf(q).String(), "%s at %d", test.text, test.at)
		reference, err := upstream.NewInstantQuery(t.Context(), plain{store}, nil, test.text, time.UnixMilli(test.at))
		require.NoError(t, err)
		var l likeness
		diff := l.differ(reference.Exec(t.Context()), got, test.text, true)
		if test.exact {
			require.Empty(t, diff, test.text)
		} else {
			require.Len(t, got.Value.(promql.Vector), 1)
		}
	}
}
