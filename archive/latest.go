package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rollup"
)

// newest is the newest sample of a series. histogram is nil for a plain float.
type newest struct {
	labels    labels.Labels
	millis    int64
	value     float64
	histogram *histogram.FloatHistogram
}

// Latest calls f for each series that matches one of the selectors, sorted by labels and each
// once, with its newest sample of any age: the newest that is no stale marker, since a marker says
// that the series ended and not what it was. Series without such a sample are left out. Where the samples expired
// it is what the finest buckets have as their last, at its true time. Times are Unix ms; h is nil for a plain float.
//
// It is a query: it reads one view, its limits are those of a Querier, and it fails as one does. f
// is called when the view is closed, so it may take its time; its error ends the calls and is returned.
func (a *Archive) Latest(ctx context.Context, selectors [][]*labels.Matcher, f func(ls labels.Labels, timeMillis int64, v float64, h *histogram.FloatHistogram) error) error {
	found, err := a.latest(ctx, selectors)
	if err != nil {
		return err
	}
	for i := range found {
		n := &found[i]
		if err := f(n.labels, n.millis, n.value, n.histogram); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) latest(ctx context.Context, selectors [][]*labels.Matcher) (found []newest, err error) {
	v, err := a.view(format.MinTimeMillis, format.MaxTimeMillis)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	sel, err := v.findAny(ctx, selectors)
	if err != nil {
		return nil, err
	}
	w := lastWalk{v: v, ctx: ctx, sel: sel, left: roaring.New(), byRef: make([]int32, len(sel.refs)), found: make([]newest, len(sel.refs))}
	if err := w.begin(); err != nil {
		return nil, err
	}
	if err := w.months(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(w.found, func(n newest) bool { return n.labels.IsEmpty() }), nil
}

// findAny returns the series that match one of the selectors and have samples on any day, sorted by labels.
func (v *view) findAny(ctx context.Context, selectors [][]*labels.Matcher) (*selection, error) {
	all, seen := &selection{}, roaring.New()
	for _, ms := range selectors {
		sel, err := v.find(ctx, v.mint, v.maxt, ms)
		if err != nil {
			return nil, err
		}
		if len(selectors) == 1 {
			return sel, nil
		}
		for i, ref := range sel.refs {
			if seen.CheckedAdd(uint32(ref)) {
				all.refs, all.labels = append(all.refs, ref), append(all.labels, sel.labels[i])
			}
		}
		if err := v.countSeries(len(all.refs)); err != nil {
			return nil, err
		}
	}
	all.sort()
	return all, nil
}

// lastWalk looks for the newest samples of a selection's series.
//
//  1. It goes back from the newest day that has series, by the index of active series. On each day it
//     reads those that are on it and not found yet, so that of each series the
//     newest day alone is read, and those before it only where what is there is deleted or a stale marker.
//  2. The first day is today for most series. It is read from its end in two parts: of a series that lives
//     the first is enough.
//  3. On days that a rule hides of a series its buckets are asked, the finest first.
//
// It holds the coded samples of lookBatch series at a time.
type lastWalk struct {
	v   *view
	ctx context.Context
	sel *selection

	metrics []format.PairID // by place in sel
	byRef   []int32         // places in sel, by ref
	left    *roaring.Bitmap // refs of series that aren't found
	found   []newest        // by place in sel; without labels as long as nothing is found

	column  chunk.Column
	pieces  []chunk.Piece
	samples chunk.Iterator
	buckets rollup.Columns
}

func (w *lastWalk) begin() error {
	named := make([]samples, len(w.sel.refs))
	if err := w.v.name(named, w.sel); err != nil {
		return err
	}
	w.metrics = make([]format.PairID, len(named))
	for i := range named {
		w.metrics[i], w.byRef[i] = named[i].metric, int32(i)
		w.left.Add(uint32(named[i].ref))
	}
	slices.SortFunc(w.byRef, func(x, y int32) int { return cmp.Compare(w.sel.refs[x], w.sel.refs[y]) })
	return nil
}

// place returns the place of a series of the selection.
func (w *lastWalk) place(ref format.Ref) int32 {
	i := sort.Search(len(w.byRef), func(i int) bool { return w.sel.refs[w.byRef[i]] >= ref })
	return w.byRef[i]
}

// months goes back through all days that have series, until all are found.
func (w *lastWalk) months() error {
	oldest, newest := max(format.MinDay, w.v.kept.seriesFirst), format.DayOf(format.MaxTimeMillis)
	months, err := w.v.index().monthsIn(oldest.Month(), newest.Month())
	if err != nil {
		return err
	}
	first := true // The newest day that has one of the series.
	for _, m := range slices.Backward(months) {
		for day := min(newest, (m+1).FirstDay()-1); day >= max(oldest, m.FirstDay()) && !w.left.IsEmpty(); day-- {
			if err := w.ctx.Err(); err != nil {
				return err
			}
			set, err := w.v.index().active(day, day+1)
			if err != nil {
				return err
			}
			if set.And(w.left); set.IsEmpty() {
				continue
			}
			if err := w.day(day, first, set); err != nil {
				return err
			}
			first = false
		}
	}
	return nil
}

// lastPartSlots is how many slots of the newest day are read first, the one of now among them: runs are cut
// well within the length of one.
const lastPartSlots = 2

// day looks on a day for the newest samples of series that are on it.
func (w *lastWalk) day(day format.Day, first bool, set *roaring.Bitmap) error {
	from, to := day.StartMillis(), day.EndMillis()-1
	if now := format.ClampTime(w.v.a.o.Now().UnixMilli()); first && format.DayOf(now) == day {
		part := day.StartMillis() + int64(max(0, int(format.SlotOf(now))-lastPartSlots+1))*format.SlotMillis
		if err := w.between(day, part, to, set); err != nil {
			return err
		}
		if set.And(w.left); part == from {
			return nil
		}
		to = part - 1
	}
	return w.between(day, from, to, set)
}

// between looks for the newest samples between two times of a day, both inclusive.
func (w *lastWalk) between(day format.Day, mint, maxt int64, set *roaring.Bitmap) error {
	for refs := range slices.Chunk(refsOf(set), lookBatch) {
		if err := w.batch(day, mint, maxt, refs); err != nil {
			return err
		}
	}
	return nil
}

func (w *lastWalk) batch(day format.Day, mint, maxt int64, refs []format.Ref) error {
	v := w.v
	data := make([]samples, len(refs))
	for i, ref := range refs {
		data[i].ref, data[i].metric = ref, w.metrics[w.place(ref)]
	}
	taken, err := v.fill(w.ctx, data, mint, maxt)
	// What this batch holds is given back, what it found is not.
	defer v.bytes.Add(-int64(taken))
	defer v.forgetLoaded()
	if err != nil {
		return err
	}
	var rolled *ArchivedSet
	for i := range data {
		own := &data[i]
		n, ok := newest{}, false
		switch {
		case day >= own.since && day >= v.kept.rawFirst:
			n, ok, err = w.sampled(own, mint, maxt)
		case len(v.a.rolls.resolutions) > 0:
			if rolled == nil {
				if rolled, err = w.rolled(day, data); err != nil {
					return err
				}
			}
			n, ok, err = w.bucketed(&ArchivedSeries{set: rolled, index: i}, day)
		}
		if err != nil {
			return fmt.Errorf("newest sample of series %d: %w", own.ref, err)
		}
		if !ok {
			continue
		}
		if err := w.keep(own.ref, n); err != nil {
			return err
		}
	}
	return w.ctx.Err()
}

// newestBytes is what a found series takes besides its labels, which the catalogue of a query holds anyway.
const newestBytes = 64

// keep notes the newest sample of a series.
func (w *lastWalk) keep(ref format.Ref, n newest) error {
	size := newestBytes
	if h := n.histogram; h != nil {
		size += h.Size()
	}
	i := w.place(ref)
	n.labels = w.sel.labels[i]
	w.found[i] = n
	w.left.Remove(uint32(ref))
	return w.v.take(size)
}

// sampled returns the newest of a series' loaded samples.
func (w *lastWalk) sampled(s *samples, mint, maxt int64) (n newest, ok bool, err error) {
	w.pieces = s.appendPieces(w.pieces[:0])
	if len(w.pieces) == 0 {
		return n, false, nil
	}
	last := slices.MaxFunc(w.pieces, func(x, y chunk.Piece) int { return cmp.Compare(x.MaxMillis, y.MaxMillis) })
	// As a rule the sample is in the piece that ends last.
	if from := max(mint, last.MinMillis); from <= maxt {
		if n, ok, err = w.lastOf(from, maxt); ok || err != nil || from == mint {
			return n, ok, err
		}
	}
	return w.lastOf(mint, maxt)
}

// lastOf decodes the pieces between two times and returns the last sample that is no stale marker.
func (w *lastWalk) lastOf(mint, maxt int64) (n newest, ok bool, err error) {
	if err := w.column.Decode(w.pieces, mint, maxt); err != nil {
		return n, false, err
	}
	for i, t := range slices.Backward(w.column.Times) {
		n = newest{millis: t, value: w.column.Values[i]}
		if w.column.Kinds != nil && w.column.Kinds[i] != chunkenc.ValFloat {
			w.samples.Reset(&w.column)
			w.samples.Seek(t)
			_, n.histogram = w.samples.AtFloatHistogram(nil)
			if !value.IsStaleNaN(n.histogram.Sum) {
				return n, true, nil
			}
			continue
		}
		if !value.IsStaleNaN(n.value) {
			return n, true, nil
		}
	}
	return n, false, nil
}

// rolled returns the buckets of the series on a day, and of the last bucket of the day before it: that has
// what came at midnight.
func (w *lastWalk) rolled(day format.Day, data []samples) (*ArchivedSet, error) {
	set := w.v.SelectArchived(w.ctx, day.StartMillis()-1, day.EndMillis())
	set.found, set.named, set.sel = true, data, &selection{}
	return set, w.v.limit(data)
}

// bucketed returns the newest sample that the buckets of a day tell of, those of the finest resolution that has any.
func (w *lastWalk) bucketed(s *ArchivedSeries, day format.Day) (n newest, ok bool, err error) {
	for _, resolution := range w.v.Resolutions() {
		c := &w.buckets
		if err := s.Buckets(resolution, day.StartMillis()-1, day.EndMillis(), c); err != nil {
			return n, false, err
		}
		for i := range slices.Backward(c.Ends) {
			if c.Counts[i] > 0 {
				n, ok = newest{millis: c.LastMillis[i], value: c.Last[i]}, true
			}
			if h := c.HistogramRow(i); h != nil && (!ok || h.LastMillis > n.millis) {
				n, ok = newest{millis: h.LastMillis, histogram: h.Last.Copy()}, true
			}
			if ok {
				return n, true, nil
			}
		}
	}
	return n, false, nil
}
