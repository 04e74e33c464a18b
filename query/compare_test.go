package query_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"
	"github.com/stretchr/testify/require"

	"varve/internal/testkit"
	"varve/query"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// long widens the comparisons from what fits into CI to all of them.
func long() bool { return os.Getenv("VARVE_LONG") != "" }

// aspects are all bits of an answer that a client could see, rendered.
type aspects struct {
	err, annotations, value, total, read, hints string
	peak                                        int
}

var aspectNames = map[string]func(aspects) string{
	"error":              func(a aspects) string { return a.err },
	"annotations":        func(a aspects) string { return a.annotations },
	"value":              func(a aspects) string { return a.value },
	"total samples":      func(a aspects) string { return a.total },
	"samples read":       func(a aspects) string { return a.read },
	"counter reset hint": func(a aspects) string { return a.hints },
	"peak samples":       func(a aspects) string { return fmt.Sprint(a.peak) },
}

func writeHistogram(b *strings.Builder, h *histogram.FloatHistogram) {
	fmt.Fprintf(b, "%d %x %x %x %x %v %v", h.Schema, math.Float64bits(h.ZeroThreshold), math.Float64bits(h.ZeroCount),
		math.Float64bits(h.Count), math.Float64bits(h.Sum), h.PositiveSpans, h.NegativeSpans)
	for _, values := range [][]float64{h.PositiveBuckets, h.NegativeBuckets, h.CustomValues} {
		b.WriteString(" |")
		for _, v := range values {
			fmt.Fprintf(b, " %x", math.Float64bits(v))
		}
	}
}

func render(r *promql.Result, s *stats.QuerySamples, text string) aspects {
	a := aspects{
		total: fmt.Sprint(s.TotalSamples, s.TotalSamplesPerStep),
		read:  fmt.Sprint(s.SamplesRead, s.SamplesReadPerStep),
		peak:  s.PeakSamples,
	}
	if r.Err != nil {
		a.err = fmt.Sprintf("%T %v", r.Err, r.Err)
	}
	warnings, infos := r.Warnings.AsStrings(text, 0, 0)
	all := append(warnings, infos...)
	slices.Sort(all)
	a.annotations = strings.Join(all, "\n")
	var value, hints strings.Builder
	switch v := r.Value.(type) {
	case promql.Matrix:
		for _, s := range v {
			fmt.Fprintf(&value, "%s drop=%v\n", s.Metric, s.DropName)
			for _, p := range s.Floats {
				fmt.Fprintf(&value, " %d %x (%v)\n", p.T, math.Float64bits(p.F), p.F)
			}
			for _, p := range s.Histograms {
				fmt.Fprintf(&value, " %d ", p.T)
				writeHistogram(&value, p.H)
				value.WriteString("\n")
				fmt.Fprintf(&hints, "%s %d %d\n", s.Metric, p.T, p.H.CounterResetHint)
			}
		}
	default:
		fmt.Fprintf(&value, "%T %v", r.Value, r.Value)
	}
	a.value, a.hints = value.String(), hints.String()
	return a
}

func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range max(len(as), len(bs)) {
		x, y := "nothing", "nothing"
		if i < len(as) {
			x = as[i]
		}
		if i < len(bs) {
			y = bs[i]
		}
		if x != y {
			return fmt.Sprintf("line %d: upstream %.200s, ours %.200s", i, x, y)
		}
	}
	return ""
}

// variant is an engine and how it sees the storage.
type variant struct {
	name   string
	engine *query.Engine
	see    func(storage.Queryable) storage.Queryable
}

// comparer is a promql.QueryEngine that holds answers of several variants of
// our engine against those of upstream's.
type comparer struct {
	t        *testing.T
	upstream *promql.Engine
	variants []variant
	// answer is what the caller gets.
	answer promql.QueryEngine
	grids  []rangeGrid

	mu                                sync.Mutex // guards the counts, for scripts run at once
	queries, compared, split, varying int
	still                             int
	reruns, unsplit                   map[string]int
	peakAbove                         float64
}

// rangeGrid turns an instant query into a range query around its time.
type rangeGrid struct{ before, after, step time.Duration }

var script = parser.Options{
	EnableExperimentalFunctions: true, ExperimentalDurationExpr: true,
	EnableExtendedRangeSelectors: true, EnableBinopFillModifiers: true,
}

func testOptions(parts int, delayed bool) query.Options {
	return query.Options{
		Limits: query.Limits{Timeout: time.Hour, SamplesMax: 1 << 24, TextBytesMax: 1 << 20, DepthMax: 1000, RegexBytesMax: 1 << 16},
		Parts:  parts, Parser: script, PerStepStats: true, DelayedNameRemoval: delayed, StartTimestamps: true,
	}
}

func newEngine(t testing.TB, o query.Options) *query.Engine {
	e, err := query.NewEngine(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

func newUpstream(delayed bool, samplesMax int) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples: samplesMax, Timeout: time.Hour, EnableAtModifier: true, EnableNegativeOffset: true, EnablePerStepStats: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }, LookbackDelta: lookback,
		Parser: parser.NewParser(script), EnableDelayedNameRemoval: delayed, UseStartTimestamps: true,
	})
}

func asIs(s storage.Queryable) storage.Queryable       { return s }
func hideThin(s storage.Queryable) storage.Queryable   { return viewOnly{s} }
func hideView(s storage.Queryable) storage.Queryable   { return plain{s} }
func inArrays(s storage.Queryable) storage.Queryable   { return &arrays{from: s} }
func viewArrays(s storage.Queryable) storage.Queryable { return viewOnly{&arrays{from: s}} }

func forced(t testing.TB, parts int, delayed bool) *query.Engine {
	o := testOptions(parts, delayed)
	o.ForceSplit()
	return newEngine(t, o)
}

func newComparer(t *testing.T, delayed bool, variants ...variant) *comparer {
	c := &comparer{
		t: t, upstream: newUpstream(delayed, 1<<24), variants: variants,
		reruns: map[string]int{}, unsplit: map[string]int{},
	}
	t.Cleanup(c.report)
	return c
}

// How often upstream is asked again for an answer like ours: of a handful of series each order comes up within the many tries, and the few show
// that answers differ in their last bits.
const (
	triesMin = 40
	triesMax = 2000
)

var withSteps = promql.NewPrometheusQueryOpts(true, 0)

// reference runs a range query on upstream's engine over sorted series.
func (c *comparer) reference(s storage.Queryable, text string, start, end time.Time, step time.Duration) (aspects, error) {
	q, err := c.upstream.NewRangeQuery(context.Background(), plain{s}, withSteps, text, start, end, step)
	if err != nil {
		return aspects{}, err
	}
	defer q.Close()
	r := q.Exec(context.Background())
	return render(r, q.Stats().Samples, text), nil
}

// compare evaluates a range query in every variant. What differs is accepted
// only if upstream, asked again and again, gives that answer, too: it leaves
// some series in the order of a Go map.
func (c *comparer) compare(s storage.Queryable, text string, start, end time.Time, step time.Duration) {
	c.t.Helper()
	if !c.worth(s, text, start, end, step) {
		return
	}
	want, err := c.reference(s, text, start, end, step)
	if err != nil {
		return
	}
	known := []aspects{want}
	c.mu.Lock()
	c.queries++
	c.mu.Unlock()
	for _, v := range c.variants {
		q, err := v.engine.NewRangeQuery(context.Background(), v.see(s), withSteps, text, start, end, step)
		if err != nil {
			c.t.Errorf("%s: %s: not accepted: %v", text, v.name, err)
			continue
		}
		if _, unsplit, _ := query.Split(q); unsplit == "choice among series in no order" {
			q.Close() // upstream chooses others every time
			c.note(q)
			continue
		}
		got := render(q.Exec(context.Background()), q.Stats().Samples, text)
		c.note(q)
		if parts, _, _ := query.Split(q); parts > 1 {
			// The parts' peaks do not coincide: they add up to a bound.
			c.mu.Lock()
			c.peakAbove = max(c.peakAbove, float64(got.peak)/float64(max(1, want.peak)))
			c.mu.Unlock()
			if got.peak = want.peak; q.Stats().Samples.PeakSamples < want.peak {
				got.peak = -1
			}
		}
		q.Close()
		if got == want {
			continue
		}
		for name, f := range aspectNames {
			agrees := func(a aspects) bool { return f(a) == f(got) }
			rounded := func() bool { return name == "value" && roundedAlike(got, known) }
			for i := 0; i < triesMax && !slices.ContainsFunc(known, agrees) && (i < triesMin || !rounded()); i++ {
				again, _ := c.reference(s, text, start, end, step)
				known = append(known, again)
			}
			if !slices.ContainsFunc(known, agrees) && !rounded() {
				c.t.Errorf("%s\n  from %v to %v step %v, %s: %s differs: %s", text, start.UTC(), end.UTC(), step, v.name, name, firstDifference(f(want), f(got)))
			}
		}
		c.mu.Lock()
		c.varying++
		c.mu.Unlock()
	}
}

// worth passes over most of the queries that stand still, of which the scripts
// hold five times as many as of those that can be split.
func (c *comparer) worth(s storage.Queryable, text string, start, end time.Time, step time.Duration) bool {
	if long() {
		return true
	}
	q, err := c.variants[0].engine.NewRangeQuery(context.Background(), s, withSteps, text, start, end, step)
	if err != nil {
		return true
	}
	defer q.Close()
	if _, unsplit, _ := query.Split(q); unsplit != "no selector moves with the step" {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.still++
	return c.still%16 == 0
}

// roundedAlike tells whether upstream's own answers differ from run to run, and
// got from them in the last bits only: upstream sums up in the order of a Go
// map, of which no number of runs shows all roundings.
func roundedAlike(got aspects, known []aspects) bool {
	lines := strings.Split(got.value, "\n")
	all := make([][]string, len(known))
	varies := false
	for i, k := range known {
		varies = varies || k.value != known[0].value
		if all[i] = strings.Split(k.value, "\n"); len(all[i]) != len(lines) {
			return false
		}
	}
	for i, line := range lines {
		if slices.ContainsFunc(all, func(other []string) bool { return other[i] == line }) {
			continue
		}
		at, value, ok := point(line)
		t, v, isPoint := point(all[0][i])
		if !varies || !ok || !isPoint || at != t || math.Abs(value-v) > 1e-12*math.Abs(v) {
			return false
		}
	}
	return true
}

// point reads a rendered float.
func point(line string) (at int64, value float64, ok bool) {
	var bits uint64
	n, _ := fmt.Sscanf(line, " %d %x (", &at, &bits)
	return at, math.Float64frombits(bits), n == 2
}

// note counts an executed query.
func (c *comparer) note(q promql.Query) {
	parts, unsplit, rerun := query.Split(q)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compared++
	switch {
	case rerun != "":
		c.reruns[rerun]++
	case parts > 1:
		c.split++
	default:
		c.unsplit[unsplit]++
	}
}

func (c *comparer) report() {
	c.t.Logf("%d queries, %d answers, %d split, rerun %v, equal to another run of upstream only %d, highest sum of peaks %.1f of upstream's",
		c.queries, c.compared, c.split, c.reruns, c.varying, c.peakAbove)
	for _, why := range slices.Sorted(maps.Keys(c.unsplit)) {
		c.t.Logf("  not split %6d: %s", c.unsplit[why], why)
	}
}

func (c *comparer) NewInstantQuery(ctx context.Context, s storage.Queryable, opts promql.QueryOpts, text string, at time.Time) (promql.Query, error) {
	for _, g := range c.grids {
		c.compare(s, text, at.Add(-g.before), at.Add(g.after), g.step)
	}
	return c.answer.NewInstantQuery(ctx, &arrays{from: s}, opts, text, at)
}

func (c *comparer) NewRangeQuery(ctx context.Context, s storage.Queryable, opts promql.QueryOpts, text string, start, end time.Time, step time.Duration) (promql.Query, error) {
	c.compare(s, text, start, end, step)
	return c.answer.NewRangeQuery(ctx, &arrays{from: s}, opts, text, start, end, step)
}
