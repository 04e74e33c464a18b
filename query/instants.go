package query

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"

	"varve/rollup"
)

// instantReader answers a plain selector for one series after the other: it returns the samples that
// the engine, at each point of the grid, finds as the last ones.
//
//  1. The time is tiled with what there is: buckets that end at all points of the grid first, if there are
//     such; then raw samples; then buckets that do not.
//  2. A bucket is two events: its last sample, at its true time, and the stale marker behind it if there is one, at
//     the bucket's end. Raw samples are events as they are. Only the last events at or before a
//     point of the grid are kept.
//  3. At a point inside of a bucket the last sample that is known to be at or before it stands. It may have
//     been followed by others, so that is approximate; and as long as the bucket's own length has not passed since its
//     bucket ended, it is shown even if it is older than the lookback, with a time as late as that allows.
type instantReader struct {
	seriesReader
	plan   *plan
	exact  []int64 // resolutions of buckets that end at all points of the grid, coarsest first
	others []int64

	// firsts is the time into which two buckets have to fit, lest their first samples are events, too.
	firsts int64

	segmented []segment
	events    []event
	// unseen is time in which there are samples of which none is known.
	unseen []Stretch
}

// event is a sample or a stale marker.
type event struct {
	point
	// firstMillis is when the samples that a bucket's event stands for begin, and end when the
	// bucket ends; both are the event's own time if it is a raw sample.
	firstMillis, end int64
	resolution       int64 // 0: a raw sample
}

func newInstantReader(a *archive, p *plan) *instantReader {
	r := &instantReader{plan: p, firsts: math.MaxInt64}
	r.archive = a
	step := p.grid.step
	if p.grid.count() == 1 {
		step = 1
	}
	for _, resolution := range slices.Backward(a.resolutions) {
		if p.resolution > 0 && resolution <= p.resolution && r.aligned(resolution) {
			r.exact = append(r.exact, resolution)
		}
	}
	// A bucket that is longer than the lookback tells of samples that nobody would look back to.
	near := min(step, p.lookback)
	r.others = slices.DeleteFunc(slices.Clone(a.closest(near, near)), func(resolution int64) bool { return slices.Contains(r.exact, resolution) })
	return r
}

func (r *instantReader) aligned(resolution int64) bool {
	g := r.plan.grid
	return g.first%resolution == 0 && (g.count() == 1 || g.step%resolution == 0)
}

// sources are what the time is tiled with, first choice first.
func (r *instantReader) sources() []int64 {
	all := slices.Clone(r.exact)
	if r.archive.policy == policyFixed {
		all = append(all, r.plan.resolution)
	}
	all = append(all, sourceRaw)
	return append(all, r.others...)
}

// read returns the samples of a series, nil if there are none.
func (r *instantReader) read(s ArchivedSeries) (*pointSeries, error) {
	r.begin(s)
	g := r.plan.grid
	r.segmented = r.segments(Stretch{g.first - r.plan.lookback, g.last}, r.sources())
	if reach := r.archive.resolutions[len(r.archive.resolutions)-1]; reach > r.plan.lookback && slices.ContainsFunc(r.segmented, r.isOther) {
		r.segmented = r.segments(Stretch{g.first - reach, g.last}, r.sources())
	}
	r.forget()
	for _, part := range r.segmented {
		if err := r.load(part); err != nil {
			return nil, err
		}
	}
	out := &pointSeries{labels: s.Labels(), points: r.show()}
	if len(out.points) == 0 {
		return nil, nil
	}
	r.used.approximate = r.used.approximate || slices.ContainsFunc(out.points, func(p point) bool { return r.plan.dependsOnHint(p.h) })
	return out, r.archive.hold(out.points)
}

// forget makes r ready for the events of another series.
func (r *instantReader) forget() {
	clear(r.events)
	r.events, r.unseen = r.events[:0], r.unseen[:0]
}

// isOther tells that a segment has buckets that don't end at the points of the grid.
func (r *instantReader) isOther(s segment) bool { return s.source > 0 && !r.aligned(s.source) }

// load adds the events of a segment.
func (r *instantReader) load(part segment) error {
	switch part.source {
	case sourceNothing:
		return nil
	case sourceRaw:
		return r.eachRaw(part.Stretch, func(p point) { r.add(event{point: p, firstMillis: p.t, end: p.t}) })
	}
	// The bucket in which the segment ends has samples of it, too.
	of := Stretch{part.From, rollup.EndOf(part.To, part.source)}
	if err := r.buckets(part.source, of, &r.scratch); err != nil {
		return err
	}
	for i := range r.scratch.Len() {
		r.addRow(&r.scratch, i, part)
	}
	return nil
}

// addRow adds the events of a bucket. Where its last sample is behind the segment, which has
// samples nevertheless, all that is known is that.
func (r *instantReader) addRow(c *rollup.Columns, i int, part segment) {
	s := spanOf(c, i)
	if s.samples > 1 && 2*part.source > r.firsts && part.From < s.first && s.first <= part.To {
		r.add(event{point: firstOf(c, i), firstMillis: s.first, end: s.first, resolution: part.source})
	}
	switch {
	case s.last > part.To:
		r.unseen = append(r.unseen, Stretch{s.first - 1, part.To})
		return
	case s.samples > 0:
		r.add(event{point: lastOf(c, i), firstMillis: s.first, end: c.Ends[i], resolution: part.source})
	}
	if c.Ended[i] && c.Ends[i] <= part.To {
		marker := point{t: c.Ends[i], v: math.Float64frombits(value.StaleNaN)}
		r.add(event{point: marker, firstMillis: c.Ends[i], end: c.Ends[i], resolution: part.source})
	}
}

// add adds an event, and lets the one before go if no point of the grid is between them. Those
// of buckets that do not end on the grid are kept, since they tell about the points inside.
func (r *instantReader) add(e event) {
	n := len(r.events)
	if n > 0 && e.t <= r.events[n-1].t {
		return // of a bucket that reaches into a segment before
	}
	if n > 0 && r.isPlain(e) && r.isPlain(r.events[n-1]) && r.pointFrom(r.events[n-1].t) >= e.t {
		r.events[n-1] = e
		return
	}
	r.events = append(r.events, e)
}

// isPlain tells that no point of the grid is inside of what the event stands for.
func (r *instantReader) isPlain(e event) bool {
	return e.resolution == 0 || r.aligned(e.resolution)
}

// pointFrom is the first point of the grid at or after t.
func (r *instantReader) pointFrom(t int64) int64 {
	g := r.plan.grid
	switch {
	case t <= g.first:
		return g.first
	case t > g.last:
		return math.MaxInt64
	}
	return g.first + (t-g.first+g.step-1)/g.step*g.step
}

// show returns what the engine is to see of the events.
func (r *instantReader) show() []point {
	g := r.plan.grid
	var out []point
	emit := func(p point) {
		if n := len(out); n == 0 || out[n-1].t < p.t {
			out = append(out, p)
		}
	}
	next, part := 0, 0
	for i := range g.count() {
		t := g.first + i*g.step
		for next < len(r.events) && r.events[next].t <= t {
			next++
		}
		for part < len(r.segmented) && r.segmented[part].To < t {
			part++
		}
		inside := false // of a bucket
		if part < len(r.segmented) && r.segmented[part].From < t {
			source := r.segmented[part].source
			inside = source > 0 && t%source != 0
		} else {
			r.used.approximate = true // nothing is known of the point
		}
		if inside && r.hides(t, next) {
			r.used.approximate = true
		}
		if next == 0 {
			continue
		}
		e := r.events[next-1]
		if inside && !e.isStale() && r.inReach(e, t) {
			r.used.approximate = true
			if t-e.t >= r.plan.lookback {
				e.t = t - r.plan.lookback + 1
			}
		}
		emit(e.point)
	}
	return out
}

// hides tells whether a bucket around a point has samples before it of which none is known. next is
// the event behind the point.
func (r *instantReader) hides(t int64, next int) bool {
	return next < len(r.events) && r.events[next].firstMillis <= t ||
		slices.ContainsFunc(r.unseen, func(s Stretch) bool { return s.From < t && t <= s.To })
}

// inReach tells whether an event is shown at a point inside of a later bucket.
func (r *instantReader) inReach(e event, t int64) bool {
	return t-e.t < r.plan.lookback || t-e.end < e.resolution
}
