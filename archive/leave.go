package archive

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// leavingSeries are series that are about to be forgotten. Safe for use by several goroutines.
type leavingSeries struct {
	some atomic.Bool // false: there are none

	mu   sync.Mutex // inside all other locks
	refs *roaring.Bitmap
}

// begin makes series leave.
func (l *leavingSeries) begin(refs *roaring.Bitmap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refs = refs.Clone()
	l.some.Store(true)
}

// stay makes a series stay if it was leaving.
func (l *leavingSeries) stay(ref format.Ref) {
	if !l.some.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refs.Remove(uint32(ref))
}

// has tells whether the series is leaving.
func (l *leavingSeries) has(ref format.Ref) bool {
	if !l.some.Load() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refs.Contains(uint32(ref))
}

// keep makes those of the series stay.
func (l *leavingSeries) keep(refs *roaring.Bitmap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refs.AndNot(refs)
}

// all returns those that are leaving.
func (l *leavingSeries) all() *roaring.Bitmap {
	if !l.some.Load() {
		return roaring.New()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refs.Clone()
}

// count tells how many are leaving.
func (l *leavingSeries) count() uint64 {
	if !l.some.Load() {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refs.GetCardinality()
}

// end makes all that are leaving stay.
func (l *leavingSeries) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refs = roaring.New()
	l.some.Store(false)
}

// leave makes the series leave that have no data.
func (f *forgetter) leave() error {
	a := f.a
	// What changes from here on is for the next one.
	a.forgets.changed.Store(false)
	a.forgets.again.Store(0)
	refs, young, err := f.withoutDays()
	if err != nil {
		return err
	}
	if young {
		a.forgets.again.Store(a.o.Now().Add(forgetAgain).UnixMilli())
	}
	if refs.IsEmpty() {
		return nil
	}
	f.begin(refs)
	a.step("series leave")
	// What has arrived before is on disk behind this, or known to the index.
	if err := a.flushGroup(); err != nil {
		return err
	}
	if err := a.index.drain(); err != nil {
		return err
	}
	stay, err := f.named(refs)
	if err != nil {
		return err
	}
	a.cat.leaving.keep(stay)
	if !stay.IsEmpty() {
		a.forgets.again.Store(a.o.Now().Add(forgetAgain).UnixMilli())
	}
	leaving := a.cat.leaving.all()
	if leaving.IsEmpty() {
		a.cat.leaving.end()
		return nil
	}
	if err := f.dropNotes(leaving); err != nil {
		return err
	}
	a.forgets.epoch.Store(a.views.advance())
	if err := f.useUp(leaving); err != nil {
		return err
	}
	a.step("series left")
	return f.nextSegment()
}

// dropNotes takes the series out of the notes of what rules removed, which are looked up by readers. Nothing is left of them that a note
// could tell of: should one stay it is like a new one.
func (f *forgetter) dropNotes(refs *roaring.Bitmap) error {
	a := f.a
	var b rocks.Batch
	changed := map[rollKey]*roaring.Bitmap{}
	for k, before := range *a.trims.gone.Load() {
		if before.Intersects(refs) {
			changed[k] = roaring.AndNot(before, refs)
			putGone(&b, k, before, changed[k])
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if err := a.writeBatch(&b); err != nil {
		return err
	}
	a.trims.set(changed)
	return nil
}

// begin is the moment from which on whoever writes to one of the series has to ask for it.
func (f *forgetter) begin(refs *roaring.Bitmap) {
	a := f.a
	a.live.mu.Lock()
	defer a.live.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cat.leaving.begin(refs)
	eachPage(refs, func(first format.Ref) {
		if p := a.live.page(first); p != nil {
			p.leave(refs)
		}
	})
	a.leaves.Add(1)
	a.forgets.named.Store(uint64(a.group.sequence))
}

// segmentTries is how often it is tried to find the gathering group empty. A segment ends by itself within minutes.
const segmentTries = 10

// nextSegment ends the journal's segment, so that what comes next begins one that the journal can be trimmed to.
func (f *forgetter) nextSegment() error {
	a := f.a
	for range segmentTries {
		if err := a.flushGroup(); err != nil {
			return err
		}
		a.mu.Lock()
		free := len(a.group.record) == 0
		if free {
			a.endSegment()
		}
		a.mu.Unlock()
		if free {
			return nil
		}
	}
	return nil
}

// withoutDays returns the series that the index has on no day, except those that are young, if there are any.
func (f *forgetter) withoutDays() (refs *roaring.Bitmap, young bool, err error) {
	a := f.a
	refs = roaring.New()
	before := a.o.Now().Add(-a.forgets.ageMin).UnixMilli()
	it := a.db.NewIterator(family(format.FamilySeries), rocks.IterOptions{NoFillCache: true, ReadaheadBytes: 2 << 20})
	defer it.Close()
	var recent []uint32
	var s format.Series
	for n := 1; true; n++ {
		if n == 1 {
			it.SeekToFirst()
		} else {
			it.Next()
		}
		if !it.Valid() {
			break
		}
		ref, err := format.ParseUint64(it.Key())
		if err != nil {
			return nil, false, err
		}
		if err := s.Parse(it.Value()); err != nil {
			return nil, false, fmt.Errorf("series %d: %w", ref, err)
		}
		if s.CreatedMillis > before {
			recent = append(recent, uint32(ref))
		}
		refs.Add(uint32(ref))
		if n%scanRest == 0 {
			if err := f.rest(); err != nil {
				return nil, false, err
			}
		}
	}
	if err := it.Err(); err != nil {
		return nil, false, fmt.Errorf("read series: %w", err)
	}
	if err := f.subtractActive(refs); err != nil {
		return nil, false, err
	}
	all := refs.GetCardinality()
	for _, ref := range recent {
		refs.Remove(ref)
	}
	return refs, refs.GetCardinality() < all, nil
}

// scanRest is how many records are read between two rests: some 20 ms.
const scanRest = 1 << 15

// subtractActive takes out of refs those that the index has on a day that has not expired.
func (f *forgetter) subtractActive(refs *roaring.Bitmap) error {
	a := f.a
	if refs.IsEmpty() {
		return nil
	}
	floor := a.kept.floors.Load().Series
	it, err := a.index.pendingAndStored(floor, refs)
	if err != nil {
		return err
	}
	defer it.Close()
	found := map[uint64]*roaring.Bitmap{}
	for it.SeekToFirst(); it.Valid(); it.Next() {
		day, high, err := format.ParseActiveKey(it.Key())
		if err != nil {
			return err
		}
		if found[high] == nil {
			found[high] = roaring.New()
		}
		if err := addContainer(found[high], it.Value(), high); err != nil {
			return fmt.Errorf("active series of day %d: %w", day, err)
		}
		if time.Since(f.stepped) > sealStepMax {
			if err := f.rest(); err != nil {
				return err
			}
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read active series: %w", err)
	}
	for _, set := range found {
		refs.AndNot(set)
	}
	return nil
}

// pendingAndStored takes out of refs what of days from the floor on is not flushed, and returns an iterator over the rest.
func (x *index) pendingAndStored(floor format.Day, refs *roaring.Bitmap) (*rocks.Iterator, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.drainLocked(); err != nil {
		return nil, err
	}
	x.addPending(latest, func(p *postings) {
		for d, set := range p.active {
			if d >= floor {
				refs.AndNot(set)
			}
		}
	})
	return x.db.NewIterator(family(format.FamilyActive), rocks.IterOptions{Lower: format.AppendDayPrefix(nil, floor), NoFillCache: true}), nil
}

// named returns those of the series that have to stay because something names them.
func (f *forgetter) named(refs *roaring.Bitmap) (*roaring.Bitmap, error) {
	a := f.a
	free := refs.Clone()
	if err := f.subtractActive(free); err != nil {
		return nil, err
	}
	for _, ref := range refsOf(free) {
		if a.live.sampled(ref, 0, format.MinTimeMillis, format.MaxTimeMillis) {
			free.Remove(uint32(ref))
		}
	}
	free.AndNot(a.promised())
	if err := f.subtractDisused(free); err != nil {
		return nil, err
	}
	if err := f.subtractExemplars(free); err != nil {
		return nil, err
	}
	return roaring.AndNot(refs, free), nil
}

// promised returns series that deletes name, or whose rollups are to be made anew.
func (a *Archive) promised() *roaring.Bitmap {
	out := roaring.New()
	a.deletes.mu.Lock()
	for _, t := range a.deletes.live {
		out.Or(t.Refs)
	}
	a.deletes.mu.Unlock()
	a.rolls.mu.Lock()
	defer a.rolls.mu.Unlock()
	for _, d := range a.rolls.dirty {
		out.Or(d.refs)
		out.Or(d.again)
	}
	return out
}

// subtractDisused takes out of refs those with buckets of a resolution that is not in use: the index doesn't know of all of
// these.
func (f *forgetter) subtractDisused(refs *roaring.Bitmap) error {
	a := f.a
	var days []rollKey
	a.rolls.mu.Lock()
	for k := range a.rolls.records {
		if !slices.Contains(a.rolls.resolutions, k.resolution) {
			days = append(days, k)
		}
	}
	a.rolls.mu.Unlock()
	var b chunk.Rollups
	for _, k := range days {
		it := a.db.NewIterator(family(format.RollupFamily(k.resolution)), rocks.IterOptions{
			Lower: format.AppendRollupDay(nil, k.resolution, k.day), Upper: format.AppendRollupDay(nil, k.resolution, k.day+1), NoFillCache: true,
		})
		for it.SeekToFirst(); it.Valid(); it.Next() {
			key, err := format.ParseRollupKey(it.Key())
			if err == nil {
				err = chunk.ParseRollups(it.Key(), it.Value(), uint64(key.Last), k.window(), &b)
			}
			if err != nil {
				it.Close()
				return err
			}
			for i := range b.Len() {
				refs.Remove(uint32(b.Ref(i)))
			}
		}
		err := it.Err()
		it.Close()
		if err = cmp.Or(err, f.rest()); err != nil {
			return err
		}
	}
	return nil
}

// subtractExemplars takes out of refs those that have exemplars. An exemplar may come without a sample, so the index doesn't know of
// all. Keys and series are both in the order of metric and ref, so that of either what the other lacks is passed over.
func (f *forgetter) subtractExemplars(refs *roaring.Bitmap) error {
	a := f.a
	it := a.db.NewIterator(family(format.FamilyExemplars), rocks.IterOptions{Lower: format.AppendDayPrefix(nil, a.kept.floors.Load().Of(0)), NoFillCache: true})
	defer it.Close()
	if it.SeekToFirst(); !it.Valid() {
		return it.Err()
	}
	order, err := (&roller{a: a, ctx: f.ctx}).order(refs)
	if err != nil {
		return err
	}
	for it.Valid() && len(order) > 0 {
		k, err := format.ParseExemplarKey(it.Key())
		if err != nil {
			return err
		}
		day := format.DayOf(k.TimeMillis)
		i, found := slices.BinarySearchFunc(order, rollSeries{k.Metric, k.Ref}, func(x, y rollSeries) int {
			return cmp.Or(cmp.Compare(x.metric, y.metric), cmp.Compare(x.ref, y.ref))
		})
		switch {
		case found:
			refs.Remove(uint32(k.Ref))
			it.Seek(format.PrefixEnd(format.AppendExemplarPrefix(nil, day, k.Metric, k.Ref)))
		case i == len(order):
			it.Seek(format.AppendDayPrefix(nil, day+1))
		default:
			it.Seek(format.AppendExemplarPrefix(nil, day, order[i].metric, order[i].ref))
		}
		if time.Since(f.stepped) > sealStepMax {
			if err := f.rest(); err != nil {
				return err
			}
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read exemplars: %w", err)
	}
	return nil
}

// useUp makes the refs of the series used up for their groups, durably: a start takes the first ref of a group without a record
// behind it for a free one.
func (f *forgetter) useUp(refs *roaring.Bitmap) error {
	for some := range slices.Chunk(refsOf(refs), f.a.forgets.batch) {
		leaving, err := f.a.cat.leavers(some)
		if err != nil {
			return err
		}
		highest := map[groupKey]format.Ref{}
		for i := range leaving {
			highest[leaving[i].group] = max(highest[leaving[i].group], leaving[i].ref)
		}
		if err := f.a.cat.useUp(highest); err != nil {
			return err
		}
		if err := f.rest(); err != nil {
			return err
		}
	}
	return f.a.flushGroup()
}

// useUp puts into the next commit that refs of groups up to the highest are not free.
func (c *catalogue) useUp(highest map[groupKey]format.Ref) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, ref := range highest {
		g := c.groups[k]
		if g == nil {
			var err error
			if g, err = c.loadGroup(k); err != nil {
				return err
			}
			if len(c.groups) >= groupsMax {
				clear(c.groups)
			}
			c.groups[k] = g
		}
		if ref < g.First || ref >= g.End {
			continue
		}
		g.First = ref + 1
		g.next = max(g.next, g.First)
		c.fresh.batch.Put(family(format.FamilySymbols), format.AppendGroupKey(nil, k.job, k.instance), g.Group.Append(nil))
	}
	return nil
}
