package query

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/rollup"
)

// segment is a stretch of time and what it is read from: buckets of a resolution, or one of the
// values below.
type segment struct {
	Stretch
	source int64
}

const (
	// sourceRaw stands for raw samples.
	sourceRaw int64 = 0
	// sourceNothing stands for time before all that is kept, which has no samples.
	sourceNothing int64 = -1
)

// seriesReader reads the samples and buckets of one series after the other. It belongs to
// one worker of a select.
type seriesReader struct {
	archive *archive
	series  ArchivedSeries
	used    usage

	rawSince int64
	// floor is the time up to which nothing is kept of the series.
	floor     int64
	covered   map[int64][]Stretch // by resolution, those asked for already
	iterator  chunkenc.Iterator
	scratch   rollup.Columns
	builder   rollup.Builder
	layers    map[int64]*layer
	spare     []*layer
	edges     [2]tape // the left and the right bounds of windows
	whole     tape    // whole windows
	functions functionCaller
}

// begin makes r read a series.
func (r *seriesReader) begin(s ArchivedSeries) {
	r.series, r.rawSince = s, s.RawSince()
	for _, l := range r.layers {
		r.spare = append(r.spare, l)
	}
	if r.layers == nil {
		r.layers, r.covered = map[int64]*layer{}, map[int64][]Stretch{}
	}
	clear(r.layers)
	clear(r.covered)
	r.edges[0].rewind()
	r.edges[1].rewind()
	r.whole.rewind()
	r.floor = math.MinInt64
	if r.rawSince == math.MinInt64 {
		return
	}
	r.floor = min(r.rawSince-1, r.series.HiddenSince())
	for _, resolution := range r.archive.view.Resolutions() {
		if c := r.cover(resolution); len(c) > 0 {
			r.floor = min(r.floor, c[0].From)
		}
	}
}

// cover returns the stretches that a source has of the series.
func (r *seriesReader) cover(source int64) []Stretch {
	switch source {
	case sourceRaw:
		if r.rawSince == math.MinInt64 {
			return []Stretch{{math.MinInt64, math.MaxInt64}}
		}
		return []Stretch{{r.rawSince - 1, math.MaxInt64}}
	case sourceNothing:
		return []Stretch{{math.MinInt64, r.floor}}
	}
	c, ok := r.covered[source]
	if !ok {
		c = r.series.Covered(source, nil)
		r.covered[source] = c
	}
	return c
}

// hasRaw tells whether all raw samples of (from, to] are kept, or there never were any.
func (r *seriesReader) hasRaw(from, to int64) bool {
	return from+1 >= r.rawSince || to <= r.floor
}

// segments tiles a stretch with what the first of the sources has, then in the gaps with what the
// second has, and so on. Gaps that remain before all that is kept become sourceNothing.
func (r *seriesReader) segments(of Stretch, sources []int64) []segment {
	var out []segment
	gaps := []Stretch{of}
	for _, source := range append(slices.Clone(sources), sourceNothing) {
		if len(gaps) == 0 {
			break
		}
		have := r.cover(source)
		var left []Stretch
		for _, gap := range gaps {
			at := gap.From
			for _, s := range have {
				from, to := max(s.From, gap.From), min(s.To, gap.To)
				if from >= to {
					continue
				}
				if at < from {
					left = append(left, Stretch{at, from})
				}
				out = append(out, segment{Stretch{from, to}, source})
				at = to
			}
			if at < gap.To {
				left = append(left, Stretch{at, gap.To})
			}
		}
		gaps = left
	}
	slices.SortFunc(out, func(a, b segment) int {
		if a.From < b.From {
			return -1
		}
		return 1
	})
	return out
}

// buckets reads into c.
func (r *seriesReader) buckets(resolution int64, of Stretch, c *rollup.Columns) error {
	if err := r.series.Buckets(resolution, of.From, of.To, c); err != nil {
		return err
	}
	if c.Len() > 0 {
		r.used.note(resolution)
	}
	return r.count(c.Len())
}

// count counts rows and raw samples that were read.
func (r *seriesReader) count(n int) error {
	r.used.rows += int64(n)
	return r.archive.count(n)
}

// countRaw is count for raw samples.
func (r *seriesReader) countRaw(n int) error {
	r.used.raw = r.used.raw || n > 0
	return r.count(n)
}

// rawIterator returns an iterator of the raw samples in a stretch.
func (r *seriesReader) rawIterator(it chunkenc.Iterator, of Stretch) chunkenc.Iterator {
	return r.series.Raw(it, max(of.From+1, r.rawSince), of.To)
}

// eachRaw calls f with every raw sample of a stretch. Histograms are f's to keep.
func (r *seriesReader) eachRaw(of Stretch, f func(p point)) error {
	r.iterator = r.rawIterator(r.iterator, of)
	n := 0
	for kind := r.iterator.Next(); kind != chunkenc.ValNone; kind = r.iterator.Next() {
		f(pointAt(r.iterator, kind))
		if n++; n == 4096 {
			if err := r.countRaw(n); err != nil {
				return err
			}
			n = 0
		}
	}
	if err := r.iterator.Err(); err != nil {
		return err
	}
	return r.countRaw(n)
}

// layer is the buckets of a series at one resolution over the time that a plan needs.
type layer struct {
	columns rollup.Columns
	// runs are the stretches in which the buckets are complete.
	runs []Stretch
	// fitting and fitted move over windows that fit and that were made to.
	fitting, fitted cursor
}

// cursor moves over the windows of a layer.
type cursor struct {
	layer *layer
	at    int // the first run that may hold a window to come
	slide rollup.Slide
}

// layer returns the buckets of a resolution in the time that needs names, whose bounds are multiples of it: those
// that are stored, or made from finer ones, or from raw samples.
func (r *seriesReader) layer(resolution int64, needs func(resolution int64) Stretch) (*layer, error) {
	if l := r.layers[resolution]; l != nil {
		return l, nil
	}
	l := &layer{}
	if n := len(r.spare); n > 0 {
		l, r.spare = r.spare[n-1], r.spare[:n-1]
	}
	l.runs = l.runs[:0]
	sources := []int64{resolution}
	for _, f := range slices.Backward(r.archive.resolutions) {
		if f < resolution {
			sources = append(sources, f)
		}
	}
	sources = append(sources, sourceRaw)
	if err := r.fill(l, resolution, needs(resolution), sources); err != nil {
		return nil, err
	}
	l.fitting.begin(l)
	l.fitted.begin(l)
	r.layers[resolution] = l
	return l, nil
}

func (r *seriesReader) fill(l *layer, resolution int64, need Stretch, sources []int64) error {
	segments := r.segments(need, sources)
	if len(segments) == 1 && segments[0] == (segment{need, resolution}) {
		l.addRun(need)
		return r.buckets(resolution, need, &l.columns)
	}
	r.builder.Begin(resolution, &l.columns)
	for _, s := range segments {
		l.addRun(s.Stretch)
		switch s.source {
		case sourceNothing:
		case sourceRaw:
			if err := r.eachRaw(s.Stretch, r.build); err != nil {
				return err
			}
		default:
			if err := r.buckets(s.source, s.Stretch, &r.scratch); err != nil {
				return err
			}
			r.builder.Rows(&r.scratch, 0, r.scratch.Len())
		}
	}
	r.builder.Finish()
	for i := range l.runs {
		l.runs[i] = Stretch{rollup.EndOf(l.runs[i].From, resolution), rollup.StartOf(l.runs[i].To, resolution)}
	}
	return nil
}

func (r *seriesReader) build(p point) {
	if p.h != nil {
		r.builder.Histogram(p.t, p.h)
	} else {
		r.builder.Float(p.t, p.v)
	}
}

// addRun adds a stretch that is known, later than those before. Its bounds are rounded at the
// end.
func (l *layer) addRun(s Stretch) {
	if n := len(l.runs); n > 0 && l.runs[n-1].To == s.From {
		l.runs[n-1].To = s.To
		return
	}
	l.runs = append(l.runs, s)
}

func (c *cursor) begin(l *layer) {
	c.layer, c.at = l, 0
	c.slide.Begin(&l.columns)
}

// complete tells whether all buckets of (from, to] are known. Neither may be less than
// in the call before.
func (c *cursor) complete(from, to int64) bool {
	runs := c.layer.runs
	for c.at < len(runs) && runs[c.at].To < to {
		c.at++
	}
	return c.at < len(runs) && runs[c.at].From <= from
}

// empty tells whether it is known that there are no samples in (from, to].
func (l *layer) empty(from, to int64) bool {
	if i := l.columns.After(from); i < l.columns.Len() && l.columns.Ends[i] <= to {
		return false
	}
	return slices.ContainsFunc(l.runs, func(known Stretch) bool { return known.From <= from && to <= known.To })
}
