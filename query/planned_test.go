package query_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/query"
	"varve/rollup"
)

// begin is when the samples of the tests of rollups begin: at a full hour.
const begin int64 = 1_699_999_200_000

// growing makes hours of series of all sorts: counters of integers and of floats with resets, gauges with
// NaN, histograms, series that change their kind, with gaps, stale ends, late starts, jitter, and samples exactly
// on the edges of buckets.
func growing(seed uint64, hours, intervalMillis int64) *arrays {
	rnd := rand.New(rand.NewPCG(seed, 2))
	a := &arrays{}
	add := func(next func(i int) sample, kv ...string) {
		s := &arraySeries{labels: labels.FromStrings(kv...)}
		at := begin - 2*hourMillis + rnd.Int64N(intervalMillis)
		if rnd.IntN(5) == 0 {
			at += rnd.Int64N(hours * hourMillis / 2)
		}
		for i := 0; at < begin+hours*hourMillis; at += intervalMillis {
			x := next(i)
			x.t = at
			i++
			switch rnd.IntN(400) {
			case 0, 1:
				if rnd.IntN(2) == 0 {
					x = stale(x, at)
				}
				at += rnd.Int64N(3*hourMillis) / intervalMillis * intervalMillis
			default:
				switch rnd.IntN(20) {
				case 0:
					x.t = (x.t + intervalMillis) / intervalMillis * intervalMillis
				case 1, 2, 3, 4, 5:
					x.t += rnd.Int64N(400) - 200
				}
			}
			if n := len(s.samples); n == 0 || s.samples[n-1].t < x.t {
				s.samples = append(s.samples, x)
			}
			if rnd.IntN(4000) == 0 {
				s.samples = append(s.samples, stale(x, x.t+1))
				break
			}
		}
		a.series = append(a.series, s)
	}
	counter := func(by func() float64) func(int) sample {
		total := 0.0
		return func(int) sample {
			if total += by(); rnd.IntN(200) == 0 {
				total = float64(rnd.IntN(5))
			}
			return sample{v: total}
		}
	}
	for i := range 5 {
		at := func(name string) []string {
			return []string{"__name__", name, "a", []string{"x", "y", "z"}[i%3], "i", fmt.Sprint(i), "__type__", "counter"}
		}
		whole := func() float64 { return float64(rnd.IntN(100)) }
		add(counter(whole), at("req_total")...)
		add(counter(func() float64 { return rnd.Float64() * 3 }), at("cpu")...)
		add(func(int) sample {
			if rnd.IntN(300) == 0 {
				return sample{v: math.NaN()}
			}
			return sample{v: math.Round(rnd.NormFloat64()*1000) / 7}
		}, at("temp")...)
		add(func(int) sample { return sample{v: float64(rnd.IntN(8))} }, at("load")...)
		for _, le := range []string{"0.5", "2", "+Inf"} {
			add(counter(whole), append(at("seconds_bucket"), "le", le)...)
		}
		if i < 3 {
			n := int64(0)
			add(func(int) sample {
				if n += rnd.Int64N(3); rnd.IntN(150) == 0 {
					n = 0
				}
				return sample{float: tsdbutil.GenerateTestFloatHistogram(n)}
			}, at("latency")...)
			add(func(int) sample { return sample{whole: tsdbutil.GenerateTestGaugeHistogram(rnd.Int64N(50))} }, at("sizes")...)
		}
	}
	add(counter(func() float64 { return 1 }), "__name__", "req2_total", "a", "x", "i", "0", "__type__", "counter")
	add(func(i int) sample {
		if i/100%2 == 0 {
			return sample{v: rnd.Float64()}
		}
		return sample{float: tsdbutil.GenerateTestFloatHistogram(int64(i))}
	}, "__name__", "mixed", "a", "x", "i", "0")
	add(func(int) sample { return sample{v: 1} }, "__name__", "target_info", "a", "x", "i", "0", "instance", "h", "job", "j", "version", "1")
	sortSeries(a.series)
	return a
}

// window is a range, or an instant at its end if step is 0.
type window struct {
	start, end int64 // ms behind begin
	step       time.Duration
}

var (
	alignedWindows = []window{
		{0, 10 * hourMillis, time.Hour}, {0, 6 * hourMillis, 5 * time.Minute}, {600_000, 7*hourMillis + 123_456, 10 * time.Minute},
		{0, 4 * hourMillis, 0}, {0, 9*hourMillis + 900_000, 0},
	}
	unalignedWindows = []window{{77_000, 3 * hourMillis, 7 * time.Minute}, {0, 5*hourMillis + 61_001, 0}, {13, 11 * hourMillis, 3 * time.Hour}, {15_000, 9 * hourMillis, 30 * time.Minute}}
)

// anyLength is a time of at most most ms, as aligned as people's are or not at all.
func anyLength(rnd *rand.Rand, most int64) int64 {
	unit := []int64{1, 1000, 15_000, minuteMillis, 5 * minuteMillis, hourMillis}[rnd.IntN(6)]
	return max(unit, rnd.Int64N(most)/unit*unit)
}

func anyWindow(rnd *rand.Rand) window {
	start := anyLength(rnd, 4*hourMillis)
	w := window{start, start + anyLength(rnd, 8*hourMillis), time.Duration(max(30_000, anyLength(rnd, 3*hourMillis))) * time.Millisecond}
	if rnd.IntN(4) == 0 {
		w.step = 0
	}
	return w
}

func (w window) run(e promql.QueryEngine, s storage.Queryable, text string, ctx context.Context, opts promql.QueryOpts) (*promql.Result, promql.Query) {
	var q promql.Query
	var err error
	if w.step == 0 {
		q, err = e.NewInstantQuery(ctx, s, opts, text, time.UnixMilli(begin+w.end))
	} else {
		q, err = e.NewRangeQuery(ctx, s, opts, text, time.UnixMilli(begin+w.start), time.UnixMilli(begin+w.end), w.step)
	}
	if err != nil {
		return &promql.Result{Err: err}, nil
	}
	return q.Exec(ctx), q
}

// withoutRollups takes our own annotation away from a result, and tells whether it was there.
func withoutRollups(r *promql.Result) (had bool) {
	for text, err := range r.Warnings {
		if errors.Is(err, query.ErrRollup) {
			delete(r.Warnings, text)
			had = true
		}
	}
	return had
}

// asMatrix makes results of all types alike.
func asMatrix(v parser.Value) (m promql.Matrix) {
	switch v := v.(type) {
	case promql.Matrix:
		return v
	case promql.Vector:
		for _, s := range v {
			one := promql.Series{Metric: s.Metric, DropName: s.DropName}
			if s.H != nil {
				one.Histograms = []promql.HPoint{{T: s.T, H: s.H}}
			} else {
				one.Floats = []promql.FPoint{{T: s.T, F: s.F}}
			}
			m = append(m, one)
		}
	case promql.Scalar:
		return promql.Matrix{{Floats: []promql.FPoint{{T: v.T, F: v.V}}}}
	}
	return m
}

// likeness counts the points of results that were compared.
type likeness struct {
	points, same int
	furthest     float64
}

// apart is how far values may be apart, as a share of them; near is how far they may be if their summands cancel each
// other out, of which there are some hundred below 1000. Sums are made in another order.
const (
	apart = 1e-9
	near  = 1e-9
)

func (l *likeness) close(a, b float64) bool {
	l.points++
	if math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b) {
		l.same++
		return true
	}
	off := math.Abs(a-b) / max(math.Abs(a), math.Abs(b))
	if off <= apart {
		l.furthest = max(l.furthest, off)
	}
	return off <= apart || math.Abs(a-b) <= near
}

// differ returns in what two results differ, or nothing.
func (l *likeness) differ(want, got *promql.Result, text string, inOrder bool) string {
	if fmt.Sprint(want.Err) != fmt.Sprint(got.Err) {
		return fmt.Sprintf("error: want %v, got %v", want.Err, got.Err)
	}
	if want.Err != nil {
		return ""
	}
	if x, y := annotationsOf(want, text), annotationsOf(got, text); x != y {
		return fmt.Sprintf("annotations: want %s, got %s", x, y)
	}
	a, b := asMatrix(want.Value), asMatrix(got.Value)
	if !inOrder {
		slices.SortFunc(a, func(x, y promql.Series) int { return labels.Compare(x.Metric, y.Metric) })
		slices.SortFunc(b, func(x, y promql.Series) int { return labels.Compare(x.Metric, y.Metric) })
	}
	if len(a) != len(b) {
		return fmt.Sprintf("series: want %d, got %d", len(a), len(b))
	}
	for i := range a {
		if !labels.Equal(a[i].Metric, b[i].Metric) {
			return fmt.Sprintf("labels: want %s, got %s", a[i].Metric, b[i].Metric)
		}
		if len(a[i].Floats) != len(b[i].Floats) || len(a[i].Histograms) != len(b[i].Histograms) {
			return fmt.Sprintf("%s: want %d and %d points, got %d and %d", a[i].Metric, len(a[i].Floats), len(a[i].Histograms), len(b[i].Floats), len(b[i].Histograms))
		}
		for j, p := range a[i].Floats {
			if q := b[i].Floats[j]; p.T != q.T || !l.close(p.F, q.F) {
				return fmt.Sprintf("%s at %d: want %v, got %v at %d", a[i].Metric, p.T-begin, p.F, q.F, q.T-begin)
			}
		}
		for j, p := range a[i].Histograms {
			if q := b[i].Histograms[j]; p.T != q.T || !l.closeHistograms(p.H, q.H) {
				return fmt.Sprintf("%s at %d: want %s, got %s at %d", a[i].Metric, p.T-begin, p.H.TestExpression(), q.H.TestExpression(), q.T-begin)
			}
		}
	}
	return ""
}

func (l *likeness) closeHistograms(a, b *histogram.FloatHistogram) bool {
	a, b = a.Copy().Compact(0), b.Copy().Compact(0)
	return a.Schema == b.Schema && a.ZeroThreshold == b.ZeroThreshold && a.CounterResetHint == b.CounterResetHint &&
		l.close(a.Count, b.Count) && l.close(a.Sum, b.Sum) && l.close(a.ZeroCount, b.ZeroCount) &&
		slices.Equal(a.PositiveSpans, b.PositiveSpans) && slices.Equal(a.NegativeSpans, b.NegativeSpans) &&
		slices.EqualFunc(a.PositiveBuckets, b.PositiveBuckets, l.close) && slices.EqualFunc(a.NegativeBuckets, b.NegativeBuckets, l.close)
}

func annotationsOf(r *promql.Result, text string) string {
	warnings, infos := r.Warnings.AsStrings(text, 0, 0)
	all := append(warnings, infos...)
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// unordered tells that the engine leaves the series of an instant query in the order of a map.
func unordered(text string) bool {
	return strings.HasPrefix(text, "count_values") || strings.HasPrefix(text, "info(") || strings.Contains(text, ":")
}

func rollupOptions(delayed bool) query.Options {
	o := testOptions(2, delayed)
	o.StartTimestamps = false
	return o
}

func plainUpstream(delayed bool) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1 << 26, Timeout: time.Hour, EnableAtModifier: true, EnableNegativeOffset: true, EnablePerStepStats: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }, LookbackDelta: lookback,
		Parser: parser.NewParser(script), EnableDelayedNameRemoval: delayed,
	})
}

// ages are states of an archive: what it still has, and has already.
var ages = map[string]func(r *rolled, rnd *rand.Rand){
	"all raw": func(r *rolled, _ *rand.Rand) {
		r.keep(-wide, begin+7*hourMillis)
		r.holes = []query.Stretch{{From: begin + 2*hourMillis, To: begin + 4*hourMillis}}
	},
	"half raw": func(r *rolled, _ *rand.Rand) {
		r.rawSince = begin + 5*hourMillis + 1
		r.keep(-wide, begin+7*hourMillis)
	},
	"no raw": func(r *rolled, _ *rand.Rand) { r.rawSince = wide },
	"hours only before": func(r *rolled, _ *rand.Rand) {
		r.rawSince = begin + 6*hourMillis + 1
		r.keep(-wide, begin+7*hourMillis)
		r.kept[5*minuteMillis] = query.Stretch{From: begin + 3*hourMillis, To: begin + 8*hourMillis}
	},
	"nothing before": func(r *rolled, _ *rand.Rand) {
		r.rawSince = begin + 6*hourMillis
		r.keep(begin+2*hourMillis, begin+7*hourMillis)
	},
	"any": func(r *rolled, rnd *rand.Rand) {
		r.resolutions = [][]int64{{minuteMillis, 5 * minuteMillis, hourMillis}, {10 * minuteMillis}, {5 * minuteMillis, 20 * minuteMillis}, {30_000, 3 * hourMillis}}[rnd.IntN(4)]
		coarsest := r.resolutions[len(r.resolutions)-1]
		any := func() int64 { return rollup.StartOf(begin-2*hourMillis+rnd.Int64N(14*hourMillis), coarsest) }
		for _, resolution := range r.resolutions {
			from, to := any(), any()
			r.kept[resolution] = query.Stretch{From: min(from, to), To: max(from, to) + coarsest}
		}
		if rnd.IntN(4) > 0 {
			r.rawSince = any() + rnd.Int64N(2)
		}
		if rnd.IntN(2) == 0 {
			hole := any()
			r.holes = []query.Stretch{{From: hole, To: hole + coarsest}}
		}
	},
}

// What is not marked as approximate is what upstream answers over all raw samples, bit for bit but for sums; what is answered
// strictly is never anything else; and whatever fits is answered exactly, however much of the raw
// samples is gone.
func TestPlannedAnswers(t *testing.T) {
	for name, age := range ages {
		t.Run(name, func(t *testing.T) {
			seeds, every := uint64(1), 29
			if name == "any" {
				seeds, every = 6, 101
			}
			if long() {
				seeds, every = 3*seeds, 1
			}
			c := &planComparer{t: t, sources: map[string]int{}, every: every}
			for seed := range seeds {
				for _, delayed := range []bool{false, true} {
					if delayed && !long() && name != "all raw" {
						continue
					}
					c.run(seed+1, age, delayed)
				}
			}
			t.Logf("%d answers: %d approximate, %d refused strictly; %d of %d points the same to the bit, others within %.2g", c.answers, c.approximate, c.refused, c.like.same, c.like.points, c.like.furthest)
			for _, s := range slices.Sorted(maps.Keys(c.sources)) {
				t.Logf("  %6d from %s", c.sources[s], s)
			}
		})
	}
}

type planComparer struct {
	t                             *testing.T
	every, n                      int
	answers, approximate, refused int
	like                          likeness
	sources                       map[string]int
}

func (c *planComparer) run(seed uint64, age func(*rolled, *rand.Rand), delayed bool) {
	rnd := rand.New(rand.NewPCG(seed, 4))
	store := growing(seed, 12, []int64{15_000, 60_000, 30_000}[seed%3])
	upstream, engine := plainUpstream(delayed), newEngine(c.t, rollupOptions(delayed))
	archive := newRolled(store, 5*minuteMillis, hourMillis)
	age(archive, rnd)
	store = archive.since(archive.floor())
	backs := []time.Duration{0}
	if seed == 1 {
		backs = append(backs, 3*time.Minute, 12*time.Minute)
	}
	for _, text := range append(planCorpus(), anyCalls(rnd)...) {
		for _, back := range backs {
			for _, w := range slices.Concat(alignedWindows, unalignedWindows, []window{anyWindow(rnd), anyWindow(rnd)}) {
				if c.n++; c.n%c.every != 0 {
					continue
				}
				c.compare(upstream, engine, store, archive, text, w, promql.NewPrometheusQueryOpts(false, back))
			}
		}
	}
	if n := store.queriers.Load() + archive.queriers.Load(); n != 0 {
		c.t.Errorf("%d queriers were not closed", n)
	}
}

func (c *planComparer) compare(upstream, engine promql.QueryEngine, store *arrays, archive *rolled, text string, w window, opts promql.QueryOpts) {
	want, wantQuery := w.run(upstream, plain{store}, text, context.Background(), opts)
	for _, policy := range []query.Resolution{query.Auto, query.Strict} {
		got, q := w.run(engine, archive, text, query.WithResolution(context.Background(), policy), opts)
		c.answers++
		if q == nil {
			if diff := c.like.differ(want, got, text, true); diff != "" {
				c.t.Errorf("%s: %s", text, diff)
			}
			continue
		}
		used := query.SourcesOf(q)
		if had := withoutRollups(got); had != (got.Err == nil && len(used.Millis) > 0) {
			c.t.Errorf("%s over %+v, %s: annotated %v, sources %s", text, w, policy, had, used)
		}
		c.sources[used.String()]++
		switch {
		case policy == query.Strict && errors.Is(got.Err, query.ErrInexact):
			c.refused++
		case used.Approximate:
			c.approximate++
			if policy == query.Strict {
				c.t.Errorf("%s over %+v: strictly, but approximate", text, w)
			}
		default:
			if diff := c.like.differ(want, got, text, w.step != 0 || !unordered(text)); diff != "" {
				c.t.Errorf("%s over %+v, lookback %s, %s, from %s: %s\n  resolutions %v, raw since %d, kept %v but %v", text, w, opts.LookbackDelta(), policy, used, diff,
					archive.resolutions, archive.rawSince, archive.kept, archive.holes)
			}
		}
		q.Close()
	}
	if wantQuery != nil {
		wantQuery.Close()
	}
}

// Aligned windows of functions that buckets answer are exact without any raw sample.
func TestAlignedWindowsNeedNoRaw(t *testing.T) {
	store := growing(5, 12, 15_000)
	archive := newRolled(store, 5*minuteMillis, hourMillis)
	archive.rawSince = wide
	engine := newEngine(t, rollupOptions(false))
	for _, text := range []string{
		"rate(req_total[1h])", "increase(cpu[10m])", "sum by (a) (avg_over_time(temp[30m]))", "max_over_time(temp[5m])", "load", "absent(load)", "timestamp(req_total)",
		"rate(req_total[20m] offset 1h)", "histogram_quantile(0.9, sum by (le) (rate(seconds_bucket[10m])))", "histogram_quantile(0.5, rate(latency[1h]))", "latency",
		"max_over_time(rate(req_total[10m])[1h:5m])", "topk(2, changes(load[1h]))", "req_total @ start()", "rate(req_total[1h] @ start())",
		"histogram_count(latency)", "histogram_count(rate(latency[1h]))", "histogram_sum(sum(increase(latency[10m])))", "histogram_avg(rate(latency[30m]))",
		"histogram_count(last_over_time(latency[1h]))", "histogram_sum(sum(sizes))", "histogram_avg(sum(sum_over_time(sizes[1h])))",
	} {
		for _, w := range alignedWindows {
			got, q := w.run(engine, archive, text, query.WithResolution(t.Context(), query.Strict), nil)
			require.NoError(t, got.Err, "%s over %+v", text, w)
			if len(asMatrix(got.Value)) > 0 && text != "absent(load)" {
				require.False(t, query.SourcesOf(q).Raw, text)
			}
		}
	}
}

// Where types are labels the engine remarks on rates of what isn't a counter by them; so do planned rates.
func TestPlannedTypes(t *testing.T) {
	store := growing(8, 12, 15_000)
	for _, s := range store.series {
		if s.labels.Get("__name__") == "temp" {
			s.labels = labels.NewBuilder(s.labels).Set("__type__", "gauge").Labels()
		}
	}
	o := rollupOptions(false)
	o.TypeAndUnitLabels = true
	engine := newEngine(t, o)
	upstream := promql.NewEngine(promql.EngineOpts{MaxSamples: 1 << 26, Timeout: time.Hour, Parser: parser.NewParser(script), EnableTypeAndUnitLabels: true})
	for _, text := range []string{"rate(temp[1h])", "rate(cpu[1h])", "increase(target_info[1h])", "delta(temp[1h])"} {
		want, _ := alignedWindows[0].run(upstream, plain{store}, text, t.Context(), nil)
		got, _ := alignedWindows[0].run(engine, newRolled(store, 5*minuteMillis), text, t.Context(), nil)
		require.True(t, withoutRollups(got))
		var l likeness
		require.Empty(t, l.differ(want, got, text, true), text)
		require.Equal(t, text == "rate(temp[1h])" || text == "increase(target_info[1h])", len(want.Warnings) > 0, text)
	}
}
