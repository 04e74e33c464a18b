package query

import (
	"math"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// lastReader answers selectors that nothing is planned for, since they need every sample, where raw samples
// are gone: there the last samples of buckets stand for all of them, and the first ones, too, where a range is shorter
// than two buckets: else it would hold one sample, which neither spreads nor moves.
type lastReader struct {
	instantReader
	hints   *storage.SelectHints
	sources []int64
}

// newLastReader returns a reader for a selector with these hints. Two buckets have to fit into a range, or one into
// a lookback.
func newLastReader(a *archive, hints *storage.SelectHints) *lastReader {
	r := &lastReader{hints: hints}
	r.archive, r.firsts = a, math.MaxInt64
	reach := a.lookback
	if hints.Range > 0 {
		reach, r.firsts = hints.Range/2, hints.Range
	}
	if a.policy == policyFixed {
		r.sources = append(r.sources, a.resolutions[0])
	}
	r.sources = append(r.sources, sourceRaw)
	r.sources = append(r.sources, a.closest(reach, reach)...)
	// No grid: every event is kept.
	r.plan = &plan{grid: grid{first: hints.Start, last: hints.End, step: 1}}
	return r
}

// read returns the samples of a series.
func (r *lastReader) read(s ArchivedSeries) (storage.Series, error) {
	r.begin(s)
	segments := r.segments(Stretch{r.hints.Start - 1, r.hints.End}, r.sources)
	out := &pointSeries{labels: s.Labels()}
	r.forget()
	known := r.hints.Start - 1
	for i, part := range segments {
		if part.From > known {
			r.used.approximate = true // nothing is known of what is between
		}
		known = part.To
		if i == len(segments)-1 && part.source == sourceRaw {
			// The engine reads these as they come.
			r.used.raw = true
			out.rest = func(it chunkenc.Iterator) chunkenc.Iterator { return s.Raw(it, part.From+1, part.To) }
			break
		}
		if err := r.load(part); err != nil {
			return nil, err
		}
	}
	r.used.approximate = r.used.approximate || known < r.hints.End || len(r.unseen) > 0
	out.points = make([]point, 0, len(r.events))
	for _, e := range r.events {
		r.used.approximate = r.used.approximate || e.resolution > 0
		out.points = append(out.points, e.point)
	}
	return out, r.archive.hold(out.points)
}
