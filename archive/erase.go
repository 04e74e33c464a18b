package archive

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rollup"
)

// eraser removes buckets from the rollups of a day that can't be made anew, because samples of the series have
// expired: those that a delete touches, or all of a series when a rule keeps them no longer.
type eraser struct {
	a    *Archive
	ctx  context.Context
	pace Pace
	// buckets and bytes are gone until now. Bytes may grow.
	buckets uint64
	bytes   int64
}

// everything is a span that hides all of a series.
var everything = chunk.Spans{{FromMillis: math.MinInt64, ToMillis: math.MaxInt64}}

// erase removes from the day's rollups at the resolution the buckets of the series that have samples in the spans. What
// is removed again is not there any more: a kill between two batches does no harm. Called with sealing held.
func (e *eraser) erase(day format.Day, resolution uint32, refs *roaring.Bitmap, hidden func(format.Ref) chunk.Spans) error {
	k := rollKey{resolution, day}
	before, ok := e.a.rolls.record(k)
	if !ok || before.Rolling || refs.IsEmpty() {
		return nil
	}
	snap := e.a.db.NewSnapshot()
	defer snap.Release()
	r := roller{a: e.a, ctx: e.ctx, day: day, pace: e.pace, done: roaring.New(), report: RollReport{Day: day}, stepped: time.Now()}
	w := newRollWriter(&r, resolution, snap)
	defer w.close()
	w.refs, r.writers = refs, []*rollWriter{w}
	series, err := r.order(refs)
	if err != nil {
		return err
	}
	for _, s := range series {
		if err := r.a.ended(r.ctx); err != nil {
			return err
		}
		if err := r.step(s); err != nil {
			return err
		}
		if err := w.erase(s.metric, s.ref, hidden(s.ref)); err != nil {
			return fmt.Errorf("series %d of metric %d: %w", s.ref, s.metric, err)
		}
	}
	if w.record == before {
		return nil
	}
	if err := r.finish(); err != nil {
		return err
	}
	e.buckets += before.Buckets - w.record.Buckets
	gone := int64(before.Bytes) - int64(w.record.Bytes)
	e.bytes += gone
	if gone*freeShare < int64(before.Bytes) {
		return nil
	}
	return e.a.db.CompactRange(family(format.RollupFamily(resolution)), format.AppendRollupDay(nil, resolution, day), format.AppendRollupDay(nil, resolution, day+1))
}

// record returns the record of a day at a resolution.
func (s *rollStates) record(k rollKey) (r format.RollRecord, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok = s.records[k]
	return r, ok
}

// erase removes the buckets of a series that have samples in the spans, which ascend and don't touch.
func (w *rollWriter) erase(metric format.PairID, ref format.Ref, hidden chunk.Spans) error {
	found, err := w.goTo(metric, ref)
	if err != nil || !found {
		return err
	}
	i := w.next
	w.next++
	kept := rollup.Columns{}
	err = eachKept(hidden, int64(w.resolution), func(after, upTo int64) error {
		return w.readBetween(i, chunk.RollupRange{FromMillis: after, ToMillis: upTo, Columns: chunk.RollupAll}, &kept)
	})
	if err != nil || kept.Len() == 0 {
		return err
	}
	return w.put(ref, &kept)
}

// eachKept calls f for the stretches in which buckets end that have no sample in the spans, which ascend and don't
// touch: later than after, up to and including upTo. A bucket holds what is later than its start, up to its end.
func eachKept(hidden chunk.Spans, resolutionMillis int64, f func(after, upTo int64) error) error {
	after := int64(math.MinInt64)
	for _, h := range append(slices.Clone(hidden), chunk.Span{FromMillis: math.MaxInt64, ToMillis: math.MaxInt64}) {
		if after < h.FromMillis && after+1 < h.FromMillis {
			if err := f(after, h.FromMillis-1); err != nil {
				return err
			}
		}
		after = h.ToMillis
		if after < math.MaxInt64-resolutionMillis {
			after += resolutionMillis - 1
		}
	}
	return nil
}

// rolledSpans are the stretches of samples that are hidden of the buckets of a day, which end up to the first
// millisecond of the next.
func (s seriesMasks) rolledSpans(day format.Day) chunk.Spans {
	spans := s.spans(day, sealedSequence)
	if end := day.EndMillis(); s.hides(end, sealedSequence) {
		if n := len(spans); n > 0 && spans[n-1].ToMillis == end-1 {
			spans[n-1].ToMillis = end
		} else {
			spans = append(spans, chunk.Span{FromMillis: end, ToMillis: end})
		}
	}
	return spans
}

// eraseHidden removes the buckets that what is being cleaned touches on the day where samples have
// expired, and the last of the day before if it touches the first millisecond.
func (c *cleaner) eraseHidden(day format.Day) error {
	var all []*mask
	for _, s := range c.stones {
		if s.mask.on(day) && s.record.CleanedBefore <= day {
			all = append(all, s.mask)
		}
	}
	m := newMasks(all, nil)
	e := eraser{a: c.a, ctx: c.ctx, pace: c.pace}
	spans := func(ref format.Ref) chunk.Spans { return m.of(ref).spans(day, sealedSequence) }
	starts := roaring.New()
	for _, k := range all {
		if k.mint <= day.StartMillis() {
			starts.Or(k.refs)
		}
	}
	for _, resolution := range c.a.rolls.resolutions {
		if err := e.erase(day, resolution, c.a.withoutRaw(day, m.refsOn(day)), spans); err != nil {
			return err
		}
		// The last bucket of the day before can't be made anew without the samples of either.
		if err := e.erase(day-1, resolution, roaring.Or(c.a.withoutRaw(day-1, starts), c.a.withoutRaw(day, starts)), spans); err != nil {
			return err
		}
	}
	c.report.Buckets += e.buckets
	c.report.Bytes += e.bytes
	if len(c.stones) == 0 || e.buckets == 0 {
		return nil
	}
	// Of several deletes the first that is there has the buckets on its receipt.
	for _, s := range c.stones {
		if s.mask == all[0] {
			s.record.Buckets += e.buckets
			s.record.Bytes += e.bytes
		}
	}
	return nil
}

// withoutRaw returns those of the series of which samples of the day have expired.
func (a *Archive) withoutRaw(day format.Day, refs *roaring.Bitmap) *roaring.Bitmap {
	if day < a.kept.floors.Load().Of(0) {
		return refs
	}
	return roaring.And(refs, a.trims.of(rollKey{0, day}))
}
