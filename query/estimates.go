package query

import (
	"math"

	"varve/rollup"
)

// trendBuckets is how many buckets of a range make a line as good as its samples do: what they leave out of the
// spread in time is one part in the square of it.
const trendBuckets = 12

// closestForEstimates orders resolutions for functions that buckets only give an estimate of: the finest first for those of
// the last two samples, the coarsest that has enough buckets in a range for lines.
func (a *archive) closestForEstimates(p *plan) []int64 {
	var fits int64
	if !p.function.OfLastTwo() {
		fits = p.rangeMillis / trendBuckets
	}
	return a.closest(fits, fits)
}

// estimated answers a function that needs every sample:
//
//  1. From raw samples, by upstream's function, if all that it needs are kept: for irate and idelta the last two are enough.
//  2. From buckets, finest first: irate and idelta from the bucket in which the window ends (rollup.Summary.Answer),
//     or the one before it if that has no samples yet. They are exact where the last two samples are known, since a
//     bucket has one sample only.
//  3. deriv and predict_linear from the buckets that are nearest to the window, see fit and rollup.Trend.
//
// Buckets that were asked for come before raw samples.
func (w *windowReader) estimated(from, to int64) (rollup.Answer, error) {
	if w.archive.policy != policyFixed {
		a, ok, err := w.fromRaw(from, to)
		if ok || err != nil {
			return a, err
		}
	}
	for _, whole := range []bool{true, false} {
		for _, r := range w.closest {
			l, err := w.layer(r, w.needs)
			if err != nil {
				return rollup.Answer{}, err
			}
			var a rollup.Answer
			var complete bool
			if w.plan.function.OfLastTwo() {
				complete = l.fitted.complete(rollup.StartOf(from, r), rollup.EndOf(to, r))
				a = w.lastTwo(&l.columns, from, to, r)
			} else {
				low, high := fit(from, to, r)
				complete = l.fitted.complete(low, high)
				a = w.trend(&l.columns, low, high, to)
				a.Doubtful = !l.empty(rollup.StartOf(from, r), rollup.EndOf(to, r))
			}
			if whole && !complete {
				continue
			}
			if !whole && !a.OK {
				continue
			}
			w.used.approximate = w.used.approximate || !complete || a.Doubtful || w.plan.neverExact
			return a, nil
		}
	}
	// Nothing is known of the window.
	w.used.approximate = true
	return rollup.Answer{}, nil
}

// fromRaw answers from raw samples if they are enough.
func (w *windowReader) fromRaw(from, to int64) (a rollup.Answer, ok bool, err error) {
	if w.hasRaw(from, to) {
		a, err = w.raw(from, to)
		return a, true, err
	}
	if !w.plan.function.OfLastTwo() || w.rawSince > to {
		return a, false, nil
	}
	points, err := w.samples(&w.whole, w.rawSince-1, to)
	live := 0
	for _, p := range points {
		if !p.isStale() {
			live++
		}
	}
	if live < 2 || err != nil {
		return a, false, err
	}
	w.used.approximate = w.used.approximate || w.plan.neverExact
	return w.functions.call(points, to), true, nil
}

// trend answers from the rows of c in (low, high], as of a time.
func (w *windowReader) trend(c *rollup.Columns, low, high, at int64) rollup.Answer {
	var t rollup.Trend
	for i := c.After(low); i < c.Len() && c.Ends[i] <= high; i++ {
		row := c.Row(i)
		t.Add(&row)
	}
	return t.Answer(w.plan.function, at+w.plan.shiftMillis, w.plan.ahead)
}

// lastTwo answers from the last rows of c that have samples of the window. It is Doubtful if it isn't known to be
// upstream's.
func (w *windowReader) lastTwo(c *rollup.Columns, from, to, resolution int64) rollup.Answer {
	before := func(i int) (int, span) {
		for i--; i >= 0 && c.Ends[i] > from; i-- {
			if s := spanOf(c, i); s.samples > 0 && s.first <= to && s.last > from {
				return i, s
			}
		}
		return -1, span{}
	}
	i, last := before(c.After(rollup.EndOf(to, resolution)))
	if i < 0 {
		return rollup.Answer{}
	}
	w.summary.Reset()
	if last.samples == 1 {
		j, _ := before(i)
		if j < 0 {
			return rollup.Answer{}
		}
		if p := lastOf(c, j); p.h != nil {
			w.summary.Histogram(p.t, p.h)
		} else {
			w.summary.Float(p.t, p.v)
		}
	}
	w.summary.AppendRow(c, i)
	a := w.summary.Answer(w.plan.function, from, to)
	a.Doubtful = a.Doubtful || last.first <= from || last.last > to
	return a
}

// span is when the samples of a row are.
type span struct{ first, last, samples int64 }

func spanOf(c *rollup.Columns, i int) span {
	s := span{math.MaxInt64, math.MinInt64, c.Counts[i]}
	if s.samples > 0 {
		s.first, s.last = c.FirstMillis[i], c.LastMillis[i]
	}
	if h := c.HistogramRow(i); h != nil {
		s = span{min(s.first, h.FirstMillis), max(s.last, h.LastMillis), s.samples + h.Count}
	}
	return s
}

// firstOf is the first sample of a row that has some.
func firstOf(c *rollup.Columns, i int) point {
	h := c.HistogramRow(i)
	if h != nil && (c.Counts[i] == 0 || h.FirstMillis < c.FirstMillis[i]) {
		return point{t: h.FirstMillis, h: h.First}
	}
	return point{t: c.FirstMillis[i], v: c.First[i]}
}

// lastOf is the last sample of a row that has some.
func lastOf(c *rollup.Columns, i int) point {
	h := c.HistogramRow(i)
	if h != nil && (c.Counts[i] == 0 || h.LastMillis > c.LastMillis[i]) {
		return point{t: h.LastMillis, h: h.Last}
	}
	return point{t: c.LastMillis[i], v: c.Last[i]}
}
