package archive

import (
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
	"varve/rocks"
)

// retract takes series out of the index of a day. The caller has removed samples of theirs there, and the
// view, opened since, finds none left on disk; those that have some in memory stay in the index.
//
// A writer tells the index of a series and a day once, and the index remembers that it knows. Both
// forget, so that a sample that comes later is told and known again:
//
//  1. upkeep.mu is held: no flush is under way.
//  2. The index's mu is held: what writers note from now on waits.
//  3. With the archive's lock held, the series without a sample in memory are chosen, and made to
//     be noted again.
//  4. One batch takes them out of the day's activity and, if they are active on no other day of
//     the month, out of its postings. The bitmaps in memory follow.
func (a *Archive) retract(v *view, day format.Day, refs []format.Ref) error {
	a.upkeep.mu.Lock()
	defer a.upkeep.mu.Unlock()
	x := a.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.drainLocked(); err != nil {
		return err
	}
	gone := a.withoutMemory(v, day, refs)
	if gone.IsEmpty() {
		return nil
	}
	month := day.Month()
	ended, err := x.endedIn(month, day, gone)
	if err != nil {
		return err
	}
	pairs, err := x.pairsOf(ended)
	if err != nil {
		return err
	}
	var b rocks.Batch
	err = x.subtract(&b, format.FamilyActive, gone, func(high uint64) []byte { return format.AppendActiveKey(nil, day, high) })
	if err != nil {
		return err
	}
	for id, set := range pairs {
		err := x.subtract(&b, format.FamilyIndex, set, func(high uint64) []byte { return format.AppendIndexKey(nil, month, id, high) })
		if err != nil {
			return err
		}
	}
	if err := a.writeBatch(&b); err != nil {
		return fmt.Errorf("take series out of the index: %w", err)
	}
	x.forget(day, gone, ended, pairs)
	a.forgets.changed.Store(true)
	return nil
}

// withoutMemory returns the series that have no sample of the day in memory that the view doesn't find
// on disk. Their next one will be noted for the index.
func (a *Archive) withoutMemory(v *view, day format.Day, refs []format.Ref) *roaring.Bitmap {
	gone := roaring.New()
	replayed := a.replayed.Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ref := range refs {
		// A piece in memory lies on one day, so its bounds tell of the whole day.
		if replayed != nil && replayed.sampled(ref, v.epoch, day.StartMillis(), day.EndMillis()-1) {
			continue
		}
		if p := a.live.page(ref); p == nil || p.forgetDay(uint8(ref-p.first), v.epoch, day) {
			gone.Add(uint32(ref))
		}
	}
	return gone
}

// forgetDay makes the slot's next sample on the day be noted for the index. It is false, and nothing
// is changed, if the slot has samples of the day that a reader of the epoch doesn't find on disk.
func (p *page) forgetDay(slot uint8, epoch uint64, day format.Day) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sampled(slot, epoch, day.StartMillis(), day.EndMillis()-1) {
		return false
	}
	if int(slot) < len(p.slots) && p.slots[slot].day == day {
		p.slots[slot].flags &^= flagDay
	}
	return true
}

// endedIn returns those of the series that are active on no other day of the month. Called
// with mu held.
func (x *index) endedIn(month format.Month, day format.Day, refs *roaring.Bitmap) (*roaring.Bitmap, error) {
	others := roaring.New()
	if err := x.readActive(nil, month.FirstDay(), day, others); err != nil {
		return nil, err
	}
	if err := x.readActive(nil, day+1, (month + 1).FirstDay(), others); err != nil {
		return nil, err
	}
	x.addPending(latest, func(p *postings) {
		for d, set := range p.active {
			if d != day && d.Month() == month {
				others.Or(set)
			}
		}
	})
	return roaring.AndNot(refs, others), nil
}

// pairsOf returns the series by the pairs that they carry.
func (x *index) pairsOf(refs *roaring.Bitmap) (map[format.PairID]*roaring.Bitmap, error) {
	pairs := map[format.PairID]*roaring.Bitmap{}
	for it := refs.Iterator(); it.HasNext(); {
		ref := it.Next()
		rec, err := x.cat.record(format.Ref(ref))
		if err != nil {
			return nil, err
		}
		for _, id := range rec.Pairs {
			addTo(pairs, id, ref)
		}
	}
	return pairs, nil
}

// subtract puts into the batch the containers on disk without the refs.
func (x *index) subtract(b *rocks.Batch, f format.Family, refs *roaring.Bitmap, key func(high uint64) []byte) error {
	var highs []uint64
	var keys [][]byte
	eachHigh(refs, func(high uint64) { highs, keys = append(highs, high), append(keys, key(high)) })
	return x.db.MultiGet(family(f), keys, func(i int, value []byte, ok bool) error {
		if !ok {
			return nil // It waits for a flush.
		}
		set := roaring.New()
		if err := addContainer(set, value, highs[i]); err != nil {
			return fmt.Errorf("family %s, key %x: %w; run `varve check data`", format.FamilyNames[f], keys[i], err)
		}
		set.AndNot(refs)
		if form, some := format.AppendContainer(nil, set, uint32(highs[i]<<16)); some {
			b.Put(family(f), keys[i], form)
		} else {
			b.Delete(family(f), keys[i])
		}
		return nil
	})
}

// forget takes series out of what is in memory: those that are gone from the day, and of these those
// that ended in its month. What was flushed and waits for older readers keeps them. Called with mu held.
func (x *index) forget(day format.Day, gone, ended *roaring.Bitmap, pairs map[format.PairID]*roaring.Bitmap) {
	month := day.Month()
	if known := x.days[day]; known != nil {
		known.AndNot(gone)
	}
	if known := x.months[month]; known != nil {
		known.AndNot(ended)
	}
	takeFrom(x.fresh.active, day, gone)
	for id, set := range pairs {
		takeFrom(x.fresh.pairs, monthPair{month, id}, set)
	}
}

// takeFrom takes refs out of a bitmap, and the bitmap out of m when it is empty.
func takeFrom[K comparable](m map[K]*roaring.Bitmap, k K, refs *roaring.Bitmap) {
	set := m[k]
	if set == nil {
		return
	}
	if set.AndNot(refs); set.IsEmpty() {
		delete(m, k)
	}
}
