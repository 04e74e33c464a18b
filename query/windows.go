package query

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/rollup"
)

// windowReader answers the windows of a plan for one series after the other. Each window is
// answered from the first of these that has all of it:
//
//  1. buckets of the plan's resolution, with raw samples at its bounds;
//  2. raw samples, through upstream's own function, unless the plan has its reason not to;
//  3. buckets that don't fit, coarse ones first: the bounds are moved to the nearest bounds of buckets, a
//     window shorter than a bucket becomes the bucket in which it ends, and what grows with the length of the window
//     is scaled back. That is approximate, unless the bounds fall together.
//
// If none has all of it, whatever buckets there are answer, approximately.
//
// Where buckets leave doubt (rollup.Answer.Doubtful) raw samples are asked if they
// are kept.
//
// Functions that need every sample are answered by estimated.
type windowReader struct {
	seriesReader
	plan    *plan
	closest []int64
	// skipRaw passes over the raw samples that the plan would read, since they are too many.
	skipRaw bool
	summary rollup.Summary
}

func newWindowReader(a *archive, p *plan) *windowReader {
	step := p.grid.step
	if p.grid.count() == 1 {
		step = p.rangeMillis
	}
	w := &windowReader{plan: p, closest: a.closest(step, p.rangeMillis)}
	if p.function.Estimated() {
		w.closest = a.closestForEstimates(p)
	}
	w.archive = a
	w.functions = functionCaller{plan: p, typed: a.typed}
	return w
}

// read returns the values of a series, nil if there are none.
func (w *windowReader) read(s ArchivedSeries) (*pointSeries, annotations.Annotations, error) {
	w.begin(s)
	out := &pointSeries{labels: s.Labels()}
	w.functions.begin(out.labels)
	var notes rollup.Notes
	g := w.plan.grid
	for i := range g.count() {
		if i%1024 == 1023 {
			if err := w.archive.interrupted(); err != nil {
				return nil, nil, err
			}
		}
		to := g.first + i*g.step
		answer, err := w.window(to-w.plan.rangeMillis, to)
		if err != nil {
			return nil, nil, err
		}
		notes |= answer.Notes
		if answer.OK {
			if out.points == nil {
				out.points = make([]point, 0, g.count()-i)
			}
			out.points = append(out.points, point{t: to, v: answer.Float, h: answer.Histogram})
		}
	}
	annos := w.functions.annotate(notes, out.points)
	if len(out.points) == 0 {
		return nil, annos, nil
	}
	return out, annos, w.archive.hold(out.points)
}

func (w *windowReader) window(from, to int64) (rollup.Answer, error) {
	if w.plan.function.Estimated() {
		return w.estimated(from, to)
	}
	if w.plan.resolution > 0 {
		a, ok, err := w.fitting(from, to)
		if ok || err != nil {
			return a, err
		}
	} else if !w.skipRaw && w.hasRaw(from, to) {
		return w.raw(from, to)
	}
	return w.fitted(from, to)
}

// fitting answers from buckets of the plan's resolution and raw samples at the bounds, if
// they have the whole window.
func (w *windowReader) fitting(from, to int64) (a rollup.Answer, ok bool, err error) {
	r := w.plan.resolution
	inner, outer := rollup.EndOf(from, r), rollup.StartOf(to, r)
	edges := w.plan.edges && !w.skipRaw
	if inner > outer {
		if !edges || !w.hasRaw(from, to) {
			return a, false, nil
		}
		a, err = w.raw(from, to)
		return a, true, err
	}
	if (from < inner || outer < to) && !(edges && w.hasRaw(from, inner) && w.hasRaw(outer, to)) {
		return a, false, nil
	}
	l, err := w.layer(r, w.needs)
	if err != nil || inner < outer && !l.fitting.complete(inner, outer) {
		return a, false, err
	}
	w.summary.Reset()
	if err := w.edge(&w.edges[0], from, inner); err != nil {
		return a, false, err
	}
	rows := l.fitting.slide.Window(inner, outer)
	w.summary.Append(&rows)
	if err := w.edge(&w.edges[1], outer, to); err != nil {
		return a, false, err
	}
	if a = w.plan.answer(&w.summary, from, to); a.Doubtful {
		if w.hasRaw(from, to) {
			a, err = w.raw(from, to)
			return a, true, err
		}
		w.used.approximate = true
	}
	w.used.approximate = w.used.approximate || w.plan.neverExact
	return a, true, nil
}

// edge adds the raw samples of a stretch to the summary.
func (w *windowReader) edge(t *tape, from, to int64) error {
	if from >= to {
		return nil
	}
	points, err := w.samples(t, from, to)
	for _, p := range points {
		switch {
		case p.isStale():
			w.summary.Stale()
		case p.h != nil:
			w.summary.Histogram(p.t, p.h)
		default:
			w.summary.Float(p.t, p.v)
		}
	}
	return err
}

func (w *windowReader) samples(t *tape, from, to int64) ([]point, error) {
	points, n, err := t.between(from, to, func(it chunkenc.Iterator) chunkenc.Iterator {
		return w.rawIterator(it, Stretch{w.plan.grid.first - w.plan.rangeMillis, w.plan.grid.last})
	})
	if err != nil {
		return nil, err
	}
	return points, w.countRaw(n)
}

// raw answers from raw samples by upstream's function.
func (w *windowReader) raw(from, to int64) (rollup.Answer, error) {
	points, err := w.samples(&w.whole, from, to)
	if err != nil {
		return rollup.Answer{}, err
	}
	// Upstream's function is without the starts of samples here.
	w.used.approximate = w.used.approximate || w.plan.neverExact && len(points) > 0 ||
		w.plan.hintsShow && slices.ContainsFunc(points, func(p point) bool { return w.plan.dependsOnHint(p.h) })
	return w.functions.call(points, to), nil
}

// answer is the answer of a Summary, as it is where the engine takes histograms without their buckets if it
// does: no more doubtful than their counts are, and without remarks about buckets. But in gauges it finds resets
// by the counts alone then, and its own hints may show in warnings.
func (p *plan) answer(s *rollup.Summary, from, to int64) rollup.Answer {
	a := s.Answer(p.function, from, to)
	if p.countsOnly {
		a.Doubtful = a.Doubtful && !a.SureOfCount || a.Notes&rollup.NotCounter != 0
		a.Notes &^= rollup.MismatchedBounds
	}
	if p.hintsShow {
		h := s.Histograms()
		a.Doubtful = a.Doubtful || h != nil && h.Hints != rollup.HintOf(histogram.GaugeType)
	}
	return a
}

// dependsOnHint tells whether a histogram may have another reset hint upstream, and that may show in a warning.
func (p *plan) dependsOnHint(h *histogram.FloatHistogram) bool {
	return p.hintsShow && h != nil && h.CounterResetHint != histogram.GaugeType
}

// fitted answers from buckets that don't fit.
func (w *windowReader) fitted(from, to int64) (rollup.Answer, error) {
	for _, whole := range []bool{true, false} {
		for _, r := range w.closest {
			l, err := w.layer(r, w.needs)
			if err != nil {
				return rollup.Answer{}, err
			}
			low, high := fit(from, to, r)
			complete := l.fitted.complete(low, high)
			if whole && !complete {
				continue
			}
			rows := l.fitted.slide.Window(low, high)
			if !whole && rows.Samples() == 0 {
				continue
			}
			if !complete || (low != from || high != to) && !l.empty(rollup.StartOf(from, r), rollup.EndOf(to, r)) {
				w.used.approximate = true
			}
			return w.scaled(&rows, from, to, low, high), nil
		}
	}
	// Nothing is known of the window.
	w.used.approximate = true
	return rollup.Answer{}, nil
}

// fit moves the bounds of a window to bounds of buckets.
func fit(from, to, resolution int64) (low, high int64) {
	if to-from < resolution {
		high = rollup.EndOf(to, resolution)
		return high - resolution, high
	}
	return rollup.StartOf(from+resolution/2, resolution), rollup.StartOf(to+resolution/2, resolution)
}

// scaled is the answer of the window (low, high] for the window (from, to].
func (w *windowReader) scaled(s *rollup.Summary, from, to, low, high int64) rollup.Answer {
	a := w.plan.answer(s, low, high)
	if a.OK && (a.Doubtful || w.plan.neverExact) {
		w.used.approximate = true
	}
	if a.OK && w.plan.function.Extensive() && high-low != to-from {
		share := float64(to-from) / float64(high-low)
		if a.Histogram != nil {
			a.Histogram = a.Histogram.Copy().Mul(share)
		}
		a.Float *= share
	}
	return a
}

// needs is the time of which a layer has to have the buckets: that of all windows, and of those that
// are fitted.
func (w *windowReader) needs(resolution int64) Stretch {
	g := w.plan.grid
	from := min(rollup.StartOf(g.first-w.plan.rangeMillis, resolution), rollup.EndOf(g.first, resolution)-resolution)
	return Stretch{from, rollup.EndOf(g.last, resolution)}
}

// functionCaller evaluates a plan's function by upstream's code, and makes upstream's annotations.
type functionCaller struct {
	plan   *plan
	typed  bool // the types of metrics are labels
	in     promql.Matrix
	vector []promql.Vector // the arguments that are numbers
	helper promql.EvalNodeHelper
	args   parser.Expressions
	annos  annotations.Annotations
}

// begin makes c evaluate for a series.
func (c *functionCaller) begin(l labels.Labels) {
	if c.in == nil {
		c.in, c.args = make(promql.Matrix, 1), parser.Expressions{c.plan.call}
		if c.plan.function == rollup.PredictLinear {
			c.vector = []promql.Vector{{{F: c.plan.ahead}}}
		}
	}
	c.in[0].Metric = l
	c.annos = nil
}

// call evaluates the function over samples up to a time.
func (c *functionCaller) call(points []point, to int64) rollup.Answer {
	s := &c.in[0]
	s.Floats, s.Histograms = s.Floats[:0], s.Histograms[:0]
	var before *histogram.FloatHistogram
	for _, p := range points {
		switch {
		case p.isStale():
		case p.h != nil:
			h := p.h
			if c.plan.countsOnly {
				h, before = withoutBuckets(h, before), h
			}
			s.Histograms = append(s.Histograms, promql.HPoint{T: p.t, H: h})
		default:
			s.Floats = append(s.Floats, promql.FPoint{T: p.t, F: p.v})
		}
	}
	if len(s.Floats)+len(s.Histograms) == 0 {
		return rollup.Answer{}
	}
	c.helper.Ts = to
	if c.plan.function == rollup.PredictLinear {
		c.helper.Ts += c.plan.shiftMillis
	}
	out, annos := promql.FunctionCalls[c.plan.function.String()](c.vector, c.in, c.args, &c.helper)
	c.annos.Merge(annos)
	c.helper.Out = out[:0]
	if len(out) == 0 {
		return rollup.Answer{}
	}
	return rollup.Answer{OK: true, Float: out[0].F, Histogram: out[0].H}
}

// withoutBuckets mirrors upstream's HistogramStatsIterator, which tells by the whole histograms whether one is a
// reset. Before is the one before, nil for none.
func withoutBuckets(h, before *histogram.FloatHistogram) *histogram.FloatHistogram {
	hint := h.CounterResetHint
	if hint == histogram.UnknownCounterReset && before != nil {
		hint = histogram.NotCounterReset
		if h.DetectReset(before) {
			hint = histogram.CounterReset
		}
	}
	return &histogram.FloatHistogram{CounterResetHint: hint, Schema: h.Schema, Count: h.Count, Sum: h.Sum}
}

// annotate returns upstream's annotations for the series.
func (c *functionCaller) annotate(notes rollup.Notes, points []point) annotations.Annotations {
	name, at := c.in[0].Metric.Get(model.MetricNameLabel), c.plan.position
	for _, n := range []struct {
		note rollup.Notes
		make func() error
	}{
		{rollup.MixedKinds, func() error { return annotations.NewMixedFloatsHistogramsWarning(name, at) }},
		{rollup.MixedBuckets, func() error { return annotations.NewMixedExponentialCustomHistogramsWarning(name, at) }},
		{rollup.NotCounter, func() error { return annotations.NewNativeHistogramNotCounterWarning(name, at) }},
		{rollup.NotGauge, func() error { return annotations.NewNativeHistogramNotGaugeWarning(name, at) }},
		{rollup.CollidingHints, func() error {
			return annotations.NewHistogramCounterResetCollisionWarning(at, annotations.HistogramAgg)
		}},
		{rollup.MismatchedBounds, func() error {
			return annotations.NewMismatchedCustomBucketsHistogramsInfo(at, annotations.HistogramSub)
		}},
		{rollup.IgnoredHistograms, func() error { return annotations.NewHistogramIgnoredInMixedRangeInfo(name, at) }},
	} {
		if notes&n.note != 0 {
			c.annos.Add(n.make())
		}
	}
	if f := c.plan.function; (f == rollup.Rate || f == rollup.Increase) && name != "" && slices.ContainsFunc(points, func(p point) bool { return p.h == nil }) {
		c.warnOfGauges(name)
	}
	return c.annos
}

// warnOfGauges mirrors what upstream's engine adds for rate and increase of floats.
func (c *functionCaller) warnOfGauges(name string) {
	if c.typed {
		switch kind := c.in[0].Metric.Get(model.MetricTypeLabel); kind {
		case string(model.MetricTypeCounter), string(model.MetricTypeHistogram):
		default:
			c.annos.Add(annotations.NewPossibleNonCounterLabelInfo(name, kind, c.plan.position))
		}
		return
	}
	for _, suffix := range []string{"_total", "_sum", "_count", "_bucket"} {
		if strings.HasSuffix(name, suffix) {
			return
		}
	}
	c.annos.Add(annotations.NewPossibleNonCounterInfo(name, c.plan.position))
}
