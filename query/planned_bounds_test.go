package query_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"varve/query"
	"varve/rollup"
)

// Without raw samples a window that fits no bucket is answered as the one whose bounds are the nearest bounds of
// buckets, or as the bucket in which it ends if it is shorter; what grows with the length is scaled back. No bound
// moves by more than one bucket.
func TestFittedWindows(t *testing.T) {
	store := growing(6, 6, 15_000)
	engine, upstream := newEngine(t, rollupOptions(false)), plainUpstream(false)
	for _, resolution := range []int64{5 * minuteMillis, hourMillis} {
		archive := newRolled(store, resolution)
		archive.rawSince = wide
		fit := func(from, to int64) (low, high int64) {
			if to-from < resolution {
				return rollup.EndOf(to, resolution) - resolution, rollup.EndOf(to, resolution)
			}
			nearest := func(at int64) int64 { return (at + resolution/2) / resolution * resolution }
			return nearest(from), nearest(to)
		}
		for f := rollup.Rate; f <= rollup.TsOfLastOverTime; f++ {
			if f == rollup.AbsentOverTime {
				continue
			}
			for _, metric := range []string{"req_total", "temp", "latency", "cpu"} {
				for i, span := range []int64{90_000, 7 * minuteMillis, 13 * minuteMillis, 62 * minuteMillis, 3*hourMillis + 1} {
					to := begin + 3*hourMillis + int64(i)*431_000 + 77
					low, high := fit(to-span, to)
					require.LessOrEqual(t, math.Abs(float64(low-(to-span))), float64(resolution))
					require.LessOrEqual(t, math.Abs(float64(high-to)), float64(resolution))
					run := func(e promql.QueryEngine, s *rolled, at, millis int64) (*promql.Result, promql.Query) {
						q, err := e.NewInstantQuery(t.Context(), s, nil, fmt.Sprintf("%s(%s[%dms])", f, metric, millis), time.UnixMilli(at))
						require.NoError(t, err)
						return q.Exec(t.Context()), q
					}
					got, q := run(engine, archive, to, span)
					require.NoError(t, got.Err)
					want, _ := run(upstream, newRolled(store), high, high-low)
					require.NoError(t, want.Err)
					gotVector, wantVector := got.Value.(promql.Vector), want.Value.(promql.Vector)
					require.Len(t, gotVector, len(wantVector))
					require.True(t, len(wantVector) == 0 || query.SourcesOf(q).Approximate)
					share := 1.0
					if f.Extensive() {
						share = float64(span) / float64(high-low)
					}
					for j, p := range wantVector {
						var l likeness
						require.True(t, labels.Equal(p.Metric, gotVector[j].Metric))
						if p.H != nil {
							require.True(t, l.closeHistograms(p.H.Copy().Mul(share), gotVector[j].H), "%s(%s[%dms])", f, metric, span)
							continue
						}
						require.True(t, l.close(p.F*share, gotVector[j].F), "%s(%s[%dms]): want %v, got %v", f, metric, span, p.F*share, gotVector[j].F)
					}
				}
			}
		}
	}
}

// Without raw samples a plain selector shows, at any time, the last sample that is known to be before it, as long as
// that is not older than the lookback or the bucket.
func TestInstantsWithoutRaw(t *testing.T) {
	const interval, samples = 15_000, 6 * 240
	store := &arrays{series: []*arraySeries{floats(interval, samples, func(i int) float64 { return float64(i) }, "__name__", "a")}}
	engine := newEngine(t, rollupOptions(false))
	for _, resolution := range []int64{minuteMillis, 5 * minuteMillis, hourMillis} {
		archive := newRolled(store, resolution)
		archive.rawSince = wide
		for _, step := range []time.Duration{7 * time.Minute, 61 * time.Second, 13 * time.Second} {
			q, err := engine.NewRangeQuery(t.Context(), archive, nil, "a", time.UnixMilli(2*hourMillis+1), time.UnixMilli(5*hourMillis), step)
			require.NoError(t, err)
			r := q.Exec(t.Context())
			require.NoError(t, r.Err)
			require.True(t, query.SourcesOf(q).Approximate)
			points := r.Value.(promql.Matrix)[0].Floats
			require.Len(t, points, int((3*hourMillis-1)/step.Milliseconds())+1, "no gaps")
			for _, p := range points {
				age := p.T - int64(p.F)*interval
				require.GreaterOrEqual(t, age, int64(0), "never from the future")
				require.Less(t, age, resolution+interval)
			}
			q.Close()
		}
		q, err := engine.NewInstantQuery(t.Context(), archive, nil, "a", time.UnixMilli(samples*interval+max(resolution, 5*minuteMillis)))
		require.NoError(t, err)
		r := q.Exec(t.Context())
		require.NoError(t, r.Err)
		require.Empty(t, r.Value, "the series has ended")
		q.Close()
	}
}

// live are the samples that are no stale markers.
func live(samples []sample) []sample {
	return slices.DeleteFunc(slices.Clone(samples), func(x sample) bool { return value.IsStaleNaN(x.v) || x.float != nil && value.IsStaleNaN(x.float.Sum) })
}

// ends has the last samples of buckets of 5m, and the first ones if they are wanted.
func ends(store *arrays, firsts bool) *arrays {
	out := &arrays{}
	for _, s := range store.series {
		thin := &arraySeries{labels: s.labels}
		all := live(s.samples)
		end := func(i int) int64 { return rollup.EndOf(all[i].t, 5*minuteMillis) }
		for i, x := range all {
			if i+1 == len(all) || end(i+1) != end(i) || firsts && (i == 0 || end(i-1) != end(i)) {
				thin.samples = append(thin.samples, x)
			}
		}
		out.series = append(out.series, thin)
	}
	return out
}

// Without raw samples functions that need all of them are those of the last samples of buckets, and of the first
// ones as well in ranges that are shorter than two buckets.
func TestLastsWithoutRaw(t *testing.T) {
	store := growing(7, 6, 15_000)
	lasts, both := ends(store, false), ends(store, true)
	archive := newRolled(store, 5*minuteMillis, hourMillis)
	archive.rawSince = wide
	engine, upstream := newEngine(t, rollupOptions(false)), plainUpstream(false)
	for _, text := range []string{
		"quantile_over_time(0.9, load[1h])", "stddev_over_time(load[50m])", "predict_linear(cpu[1h] offset 10m, time() * 0)", "mad_over_time(load[1h])",
		"ts_of_max_over_time(load[1h])", "rate(cpu[30m] anchored)", "double_exponential_smoothing(load[20m], 0.5, 0.5)",
		"stddev_over_time(load[5m])", "double_exponential_smoothing(load[9m], 0.5, 0.5)",
	} {
		thin := lasts
		if strings.Contains(text, "[5m]") || strings.Contains(text, "[9m]") {
			thin = both
		}
		for _, w := range []window{{3 * hourMillis, 5 * hourMillis, 10 * time.Minute}, {0, 3*hourMillis + 77_000, 0}} {
			want, _ := w.run(upstream, plain{thin}, text, t.Context(), nil)
			require.NoError(t, want.Err)
			require.NotEmpty(t, asMatrix(want.Value), "%s over %+v", text, w)
			got, q := w.run(engine, archive, text, t.Context(), nil)
			require.NoError(t, got.Err)
			require.True(t, query.SourcesOf(q).Approximate, text)
			require.True(t, withoutRollups(got))
			var l likeness
			require.Empty(t, l.differ(want, got, text, true), "%s over %+v", text, w)

			refused, _ := w.run(engine, archive, text, query.WithResolution(t.Context(), query.Strict), nil)
			require.ErrorIs(t, refused.Err, query.ErrInexact)
			require.Equal(t, http.StatusUnprocessableEntity, query.Status(refused.Err))
		}
	}
}

// days is three days of a few series, a sample a minute.
func days() *arrays {
	a := &arrays{}
	for i := range 4 {
		a.series = append(a.series, floats(minuteMillis, 3*1440, func(n int) float64 { return float64(n * (i + 1)) }, "__name__", "a_total", "host", fmt.Sprint("h", i)))
	}
	return a
}

// Each policy reads what it says, and the report in the context says the same.
func TestPolicies(t *testing.T) {
	const day = 24 * hourMillis
	for _, test := range []struct {
		policy, text string
		start, end   int64
		step         time.Duration
		rawSince     int64
		samplesMax   int
		want         string
		err          error
	}{
		{"auto", "rate(a_total[1h])", day, 2 * day, time.Hour, math.MinInt64, 0, "1h", nil},
		{"auto", "rate(a_total[30m])", day, 2 * day, time.Hour, math.MinInt64, 0, "5m", nil},
		{"auto", "rate(a_total[30m15s])", day, 2 * day, time.Hour, math.MinInt64, 0, "raw,5m", nil},
		{"auto", "rate(a_total[5m])", day + 7, day + hourMillis, time.Minute, math.MinInt64, 0, "raw", nil},
		{"auto", "rate(a_total[30m15s])", day, 2 * day, 30 * time.Minute, 3 * day, 0, "5m;approximate", nil},
		{"auto", "rate(a_total[30m])", day, 2 * day, time.Hour, day + day/2, 0, "5m", nil},
		{"auto", "rate(a_total[30m15s])", day, 2 * day, time.Hour, day + day/2, 0, "raw,5m;approximate", nil},
		{"strict", "rate(a_total[30m15s])", day, 2 * day, time.Hour, day + day/2, 0, "", query.ErrInexact},
		{"strict", "rate(a_total[30m])", day, 2 * day, time.Hour, day + day/2, 0, "5m", nil},
		{"raw", "rate(a_total[1h])", day, 2 * day, time.Hour, math.MinInt64, 0, "raw", nil},
		{"raw", "rate(a_total[1h])", day, 2 * day, time.Hour, 3 * day, 0, "raw", nil},
		{"5m", "rate(a_total[1h])", day, 2 * day, time.Hour, math.MinInt64, 0, "5m", nil},
		{"1h", "rate(a_total[30m])", day, 2 * day, 30 * time.Minute, math.MinInt64, 0, "1h;approximate", nil},
		{"1h", "a_total", day + 1, 2 * day, 30 * time.Minute, math.MinInt64, 0, "1h;approximate", nil},
		{"1h", "irate(a_total[3h])", day + 1, 2 * day, 30 * time.Minute, math.MinInt64, 0, "1h;approximate", nil},
		{"7m", "rate(a_total[30m])", day, 2 * day, time.Hour, math.MinInt64, 0, "", query.ErrNoResolution},
		{"5m", "rate(a_total[1h] offset 7m)", day, 2 * day, time.Hour, math.MinInt64, 0, "5m;approximate", nil},
		// Samples that are passed over on the way to the bounds of windows count a tenth.
		{"auto", "rate(a_total[30m15s])", day, 2 * day, time.Hour, math.MinInt64, 1000, "5m;approximate", nil},
		{"auto", "rate(a_total[30m15s])", day, 2 * day, time.Hour, math.MinInt64, 3000, "raw,5m", nil},
		{"strict", "rate(a_total[30m15s])", day, 2 * day, time.Hour, math.MinInt64, 3000, "raw,5m", nil},
		// More than a day of raw samples: read if they are few enough, else passed over.
		{"auto", "avg_over_time(a_total[6h])", day, 3 * day, 7 * time.Minute, math.MinInt64, 0, "raw", nil},
		{"auto", "avg_over_time(a_total[6h])", day, 3 * day, 7 * time.Minute, math.MinInt64, 10_000, "5m;approximate", nil},
		{"strict", "avg_over_time(a_total[6h])", day, 3 * day, 7 * time.Minute, math.MinInt64, 10_000, "raw", nil},
		{"auto", "a_total", day, 2 * day, 5 * time.Minute, math.MinInt64, 0, "5m", nil},
		{"auto", "a_total", day + 1, 2 * day, 5 * time.Minute, math.MinInt64, 0, "raw", nil},
		// Buckets within the lookback come before those of the step.
		{"auto", "a_total offset 17m", day, 2 * day, time.Hour, 3 * day, 0, "5m;approximate", nil},
		{"auto", "1 + 1", day, 2 * day, 5 * time.Minute, 3 * day, 0, "raw", nil},
	} {
		name := fmt.Sprintf("%s %s from %d step %s raw since %d, %d", test.policy, test.text, test.start, test.step, test.rawSince, test.samplesMax)
		archive := newRolled(days(), 5*minuteMillis, hourMillis)
		archive.rawSince = test.rawSince
		o := rollupOptions(false)
		if test.samplesMax > 0 {
			o.SamplesMax = test.samplesMax
		}
		policy, err := query.ParseResolution(test.policy)
		require.NoError(t, err)
		require.Equal(t, test.policy, policy.String())
		o.Resolution = policy
		ctx, executed := query.WithReport(t.Context())
		_, ok := executed()
		require.False(t, ok)
		q, err := newEngine(t, o).NewRangeQuery(ctx, archive, nil, test.text, time.UnixMilli(test.start), time.UnixMilli(test.end), test.step)
		require.NoError(t, err)
		r := q.Exec(ctx)
		require.Zero(t, archive.queriers.Load(), name)
		if test.err != nil {
			require.ErrorIs(t, r.Err, test.err, name)
			require.Equal(t, http.StatusUnprocessableEntity, query.Status(r.Err))
			continue
		}
		require.NoError(t, r.Err, name)
		require.Equal(t, test.want, query.SourcesOf(q).String(), name)
		used, ok := executed()
		require.True(t, ok)
		require.Equal(t, test.want, used.String(), name)
		q.Close()
	}
	for _, wrong := range []string{"", "fast", "0s", "-5m", "5"} {
		_, err := query.ParseResolution(wrong)
		require.Error(t, err, wrong)
	}
}

// The annotation names the resolutions, and is an info.
func TestRollupAnnotation(t *testing.T) {
	archive := newRolled(days(), 5*minuteMillis, hourMillis)
	archive.rawSince = wide
	q, err := newEngine(t, rollupOptions(false)).NewInstantQuery(t.Context(), archive, nil, "rate(a_total[13m])", time.UnixMilli(30*hourMillis))
	require.NoError(t, err)
	defer q.Close()
	warnings, infos := q.Exec(t.Context()).Warnings.AsStrings("", 0, 0)
	require.Empty(t, warnings)
	require.Len(t, infos, 1)
	require.Contains(t, infos[0], "answered from rollups of 5m: approximate")
}

// Rows, samples and series that planned selectors read and hold are bounded, and counted in the statistics.
func TestPlannedLimits(t *testing.T) {
	run := func(l query.Limits) (*promql.Result, promql.Query) {
		o := rollupOptions(false)
		o.Limits = l
		archive := newRolled(days(), 5*minuteMillis, hourMillis)
		e := newEngine(t, o)
		q, err := e.NewRangeQuery(t.Context(), archive, nil, "rate(a_total[1h])", time.UnixMilli(24*hourMillis), time.UnixMilli(48*hourMillis), time.Hour)
		require.NoError(t, err)
		t.Cleanup(q.Close)
		r := q.Exec(t.Context())
		require.Zero(t, archive.queriers.Load())
		require.Zero(t, e.BusyCores())
		return r, q
	}
	r, q := run(query.Limits{})
	require.NoError(t, r.Err)
	require.GreaterOrEqual(t, q.Stats().Samples.SamplesRead, int64(4*25+4*25), "rows, and a sample a point")
	r, _ = run(query.Limits{RowsMax: 4 * 26})
	require.NoError(t, r.Err)
	r, _ = run(query.Limits{RowsMax: 4*25 - 1})
	require.ErrorIs(t, r.Err, query.ErrTooManyRows)
	require.Equal(t, http.StatusUnprocessableEntity, query.Status(r.Err))
	r, _ = run(query.Limits{SeriesMax: 3})
	require.ErrorIs(t, r.Err, query.ErrTooManySeries)
	r, _ = run(query.Limits{SamplesMax: 99})
	var tooMany promql.ErrTooManySamples
	require.ErrorAs(t, r.Err, &tooMany)
}

// A planned query ends at its timeout and when it is cancelled, whatever the storage is doing, and a storage that
// fails or panics ends the query alone.
func TestPlannedEnds(t *testing.T) {
	broken := errors.New("chunk checksum differs")
	for name, test := range map[string]struct {
		read  func(cancel context.CancelFunc) error
		check func(err error)
	}{
		"error": {func(context.CancelFunc) error { return promql.ErrStorage{Err: broken} }, func(err error) {
			require.Equal(t, http.StatusInternalServerError, query.Status(err))
		}},
		"panic": {func(context.CancelFunc) error { panic("index out of range") }, func(err error) {
			require.ErrorContains(t, err, "index out of range")
		}},
		"cancel": {func(cancel context.CancelFunc) error { cancel(); return nil }, func(err error) {
			require.Equal(t, 499, query.Status(err))
		}},
		"timeout": {func(context.CancelFunc) error {
			slow, stop := context.WithTimeout(context.Background(), time.Hour)
			defer stop()
			<-slow.Done()
			return nil
		}, func(err error) {
			require.Equal(t, promql.ErrQueryTimeout("expression evaluation"), err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				archive := newRolled(days(), 5*minuteMillis, hourMillis)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				archive.hookRead = func(labels.Labels) error { return test.read(cancel) }
				o := rollupOptions(false)
				o.Limits = query.Limits{Timeout: time.Minute}
				e := newEngine(t, o)
				q, err := e.NewRangeQuery(ctx, archive, nil, "rate(a_total[1h])", time.UnixMilli(24*hourMillis), time.UnixMilli(48*hourMillis), time.Hour)
				require.NoError(t, err)
				defer q.Close()
				r := q.Exec(ctx)
				require.Error(t, r.Err)
				test.check(r.Err)
				require.Zero(t, archive.queriers.Load())
				require.Zero(t, e.BusyCores())
				require.Empty(t, e.Running())
			})
		})
	}
}

// The last sample that is gone and the first that is kept make the difference between what is exact and what is
// not, also where they lie inside of a bucket.
func TestRawSinceIsExact(t *testing.T) {
	const gone = 3*hourMillis + 30*minuteMillis
	store := &arrays{series: []*arraySeries{floats(minuteMillis, 600, func(i int) float64 { return float64(i * i % 97) }, "__name__", "a")}}
	archive := newRolled(store, hourMillis)
	archive.rawSince = gone + 1
	engine, upstream := newEngine(t, rollupOptions(false)), plainUpstream(false)
	for _, call := range []string{"count_over_time(a[%dms])", "quantile_over_time(0.7, a[%dms])", "irate(a[%dms])"} {
		for _, from := range []int64{gone - 1, gone, gone + 1, gone - 5*minuteMillis} {
			const to = gone + 10*minuteMillis + 7
			text, at := fmt.Sprintf(call, to-from), time.UnixMilli(to)
			q, err := engine.NewInstantQuery(t.Context(), archive, nil, text, at)
			require.NoError(t, err)
			got := q.Exec(query.WithResolution(t.Context(), query.Strict))
			// The last two samples are kept.
			if from < gone && !strings.HasPrefix(text, "irate") {
				require.ErrorIs(t, got.Err, query.ErrInexact, text)
				continue
			}
			reference, err := upstream.NewInstantQuery(t.Context(), plain{store}, nil, text, at)
			require.NoError(t, err)
			var l likeness
			require.Empty(t, l.differ(reference.Exec(t.Context()), got, text, true), text)
			require.Equal(t, "raw", query.SourcesOf(q).String())
		}
	}
}
