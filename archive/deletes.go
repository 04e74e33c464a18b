package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
	"varve/rocks"
)

// ErrHeld is the error of a Seal of a day on which a delete can still be undone, or is being cleaned.
var ErrHeld = errors.New("a delete holds the day")

// ErrNoDelete is the error of asking for a delete that never was.
var ErrNoDelete = errors.New("there is no such delete")

// ErrDeleteEnded is the error of undoing a delete that can't be undone any more.
var ErrDeleteEnded = errors.New("the delete can't be undone")

// deletes are the tombstones that hide something: they are active, or being cleaned.
//
// A tombstone hides what has a lower sequence. How a sample's sequence is known:
//
//  1. What is in memory when a tombstone is made is cut, by the commit that ends just below the
//     tombstone's sequence. So open runs are later, and a run is as old as its key says.
//  2. That commit also marks the pages of the series as cut: a start reads nothing back that a
//     tombstone of then hides.
//  3. Bundles have no sequence. A day under a tombstone is not sealed, so they are older. A sealing that
//     was begun before goes on: all of its runs were cut before the tombstone.
//  4. Exemplars have their sequence in the key.
//
// A change is written and synced first, and then put in force, so that what was in force once
// is so after a crash. Safe for use by several goroutines.
type deletes struct {
	// changing is held while a tombstone is made or changes its state, by one at a time. It comes
	// before the locks of the upkeep and of the archive.
	changing sync.Mutex
	// masks is what views take. It is never nil.
	masks atomic.Pointer[masks]

	mu     sync.Mutex // guards what follows; no other lock is taken inside it
	live   map[format.TombstoneID]*format.Tombstone
	ended  map[format.TombstoneState]int // how many there are of those that are on disk alone
	making []format.DayRange             // days of the tombstone that is being made
}

// load reads the tombstones. last is the highest sequence of one.
func (d *deletes) load(db *rocks.DB) (last format.Sequence, err error) {
	d.live, d.ended = map[format.TombstoneID]*format.Tombstone{}, map[format.TombstoneState]int{}
	err = eachTombstone(db, func(id format.TombstoneID, t *format.Tombstone) error {
		last = max(last, t.Sequence)
		if t.State.Ended() {
			d.ended[t.State]++
		} else {
			d.live[id] = t
		}
		return nil
	})
	d.apply(newSightings())
	return last, err
}

// eachTombstone calls f for all tombstones.
func eachTombstone(db *rocks.DB, f func(format.TombstoneID, *format.Tombstone) error) error {
	it := db.NewIterator(family(format.FamilyTombstones), rocks.IterOptions{})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		id, err := format.ParseTombstoneKey(it.Key())
		if err != nil {
			return err
		}
		t := &format.Tombstone{}
		if err := t.Parse(it.Value()); err != nil {
			return fmt.Errorf("delete %s: %w; run `varve check data`", id, err)
		}
		if err := f(id, t); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read deletes: %w", err)
	}
	return nil
}

// named is a tombstone with its id.
type named struct {
	id     format.TombstoneID
	record *format.Tombstone
}

// note takes note of tombstones that are on disk. What they hide is as before. The records are kept.
func (d *deletes) note(changed ...named) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put(changed)
}

func (d *deletes) put(changed []named) {
	for _, c := range changed {
		if c.record.State.Ended() {
			delete(d.live, c.id)
			d.ended[c.record.State]++
		} else {
			d.live[c.id] = c.record
		}
	}
}

// apply is note, and puts what is live in force at the same moment: a day is held as long as there are
// masks on it. Called with changing held, or before there are views.
func (d *deletes) apply(seen *sightings, changed ...named) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put(changed)
	var all []*mask
	for id, t := range d.live {
		all = append(all, newMask(id, t))
	}
	slices.SortFunc(all, func(x, y *mask) int { return cmp.Compare(x.sequence, y.sequence) })
	d.masks.Store(newMasks(all, seen))
}

// holds tells whether the day must not be sealed.
func (d *deletes) holds(day format.Day) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	on := func(days []format.DayRange) bool { return (&mask{days: days}).on(day) }
	if on(d.making) {
		return true
	}
	for _, t := range d.live {
		if on(t.Days) {
			return true
		}
	}
	return false
}

// hold tells for which days a tombstone is being made; nil for none.
func (d *deletes) hold(days []format.DayRange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.making = days
}

// get returns a copy of a live tombstone.
func (d *deletes) get(id format.TombstoneID) (t format.Tombstone, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if live := d.live[id]; live != nil {
		return *live, true
	}
	return t, false
}

// count counts the tombstones by state, and the series that live ones are for.
func (d *deletes) count() (states map[format.TombstoneState]int, series uint64) {
	refs := roaring.New()
	for _, m := range d.masks.Load().all {
		refs.Or(m.refs)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	states = maps.Clone(d.ended)
	for _, t := range d.live {
		states[t.State]++
	}
	return states, refs.GetCardinality()
}

// Delete is a tombstone as people see it.
type Delete struct {
	ID    format.TombstoneID
	State format.TombstoneState
	// Created is when it was made, Until until when it can be undone if nobody asks for its cleaning.
	// Ended is when it was cleaned or undone, zero if it wasn't.
	Created, Until, Ended time.Time
	// FromMillis and ToMillis bound the samples that it is about, both inclusive, in Unix ms.
	FromMillis, ToMillis int64
	Selectors            []string
	Author, Reason       string
	Sequence             format.Sequence
	// Series were matched, with samples on Days days.
	Series uint64
	Days   int
	// Samples, Exemplars, Buckets whose samples have expired, and Bytes were removed until now. Bytes are those of keys and values
	// before compression. A sample that lay in a run and in a bundle counts as two.
	Samples, Exemplars, Buckets uint64
	Bytes                       int64
}

func newDelete(id format.TombstoneID, t *format.Tombstone) Delete {
	d := Delete{
		ID: id, State: t.State, Created: time.UnixMilli(t.CreatedMillis), Until: time.UnixMilli(t.UntilMillis),
		FromMillis: t.FromMillis, ToMillis: t.ToMillis, Selectors: t.Selectors, Author: t.Author, Reason: t.Reason,
		Sequence: t.Sequence, Series: t.Series, Samples: t.Samples, Exemplars: t.Exemplars, Buckets: t.Buckets, Bytes: t.Bytes,
	}
	if t.EndedMillis != 0 {
		d.Ended = time.UnixMilli(t.EndedMillis)
	}
	for _, r := range t.Days {
		d.Days += int(r.Last-r.First) + 1
	}
	return d
}

// DeleteRequest says what to delete, and who wants it and why.
type DeleteRequest struct {
	// Matchers are lists of which a series has to match one. At least one, none empty.
	Matchers [][]*labels.Matcher
	// Selectors are the same as text.
	Selectors []string
	// MinMillis and MaxMillis are Unix ms, both inclusive.
	MinMillis, MaxMillis int64
	// Grace is how long the delete can be undone.
	Grace          time.Duration
	Author, Reason string
}

// Delete hides the samples of the series that match, between two times, as far as they have arrived.
// Queries that begin after it returns see none of them; a sample that comes later is seen whatever
// its time. When it returns the delete is durable. The samples stay on disk until Clean.
//
// ok is false, and there is no delete, if no series that matches has samples on a day that the
// times reach. The error is ErrStarting until the journal is read back and written to runs, an
// *arrival.Unavailable if the archive takes no writes, else ours.
func (a *Archive) Delete(ctx context.Context, r DeleteRequest) (d Delete, ok bool, err error) {
	if err := a.writableRuns(); err != nil {
		return d, false, err
	}
	a.deletes.changing.Lock()
	defer a.deletes.changing.Unlock()
	t, err := a.resolveDelete(ctx, &r)
	if err != nil || t == nil {
		return d, false, err
	}
	id, err := format.NewTombstoneID(a.o.Now())
	if err != nil {
		return d, false, err
	}
	a.deletes.hold(t.Days)
	defer a.deletes.hold(nil)
	a.step("resolved")
	if t.Sequence, err = a.cutBefore(t.Refs); err != nil {
		return d, false, fmt.Errorf("delete: %w", err)
	}
	a.step("cut")
	var b rocks.Batch
	b.Put(family(format.FamilyTombstones), id[:], t.Append(nil))
	if err := a.writeBatch(&b); err != nil {
		return d, false, fmt.Errorf("delete: %w", a.state.unavailable(err))
	}
	a.step("deleted")
	a.deletes.apply(newSightings(), named{id, t})
	return newDelete(id, t), true, nil
}

// writableRuns tells why runs can't be cut, or are not in order yet.
func (a *Archive) writableRuns() error {
	if err := a.inOrder(); err != nil {
		return err
	}
	return a.writable()
}

// resolveDelete finds the series and days of a delete. It returns nil if there are none.
func (a *Archive) resolveDelete(ctx context.Context, r *DeleteRequest) (*format.Tombstone, error) {
	v, err := a.view(r.MinMillis, r.MaxMillis)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if v.mint > v.maxt {
		return nil, nil
	}
	refs := roaring.New()
	for _, ms := range r.Matchers {
		set, err := v.matching(ctx, ms)
		if err != nil {
			return nil, err
		}
		refs.Or(set)
	}
	if refs.IsEmpty() {
		return nil, nil
	}
	days, err := v.activeDays(refs)
	if err != nil || len(days) == 0 {
		return nil, err
	}
	refs.RunOptimize()
	now := a.o.Now()
	return &format.Tombstone{
		State: format.TombstoneActive, CreatedMillis: now.UnixMilli(), UntilMillis: now.Add(r.Grace).UnixMilli(),
		FromMillis: v.mint, ToMillis: v.maxt, Series: refs.GetCardinality(), Days: days, Refs: refs,
		Selectors: r.Selectors, Author: r.Author, Reason: r.Reason, CleanedBefore: days[0].First,
	}, nil
}

// matching returns the series that match and have samples on a day that the view reaches, however many.
func (v *view) matching(ctx context.Context, ms []*labels.Matcher) (*roaring.Bitmap, error) {
	conditions, err := v.conditions(ms)
	if err != nil {
		return nil, err
	}
	first, last := v.storedFirst(), format.DayOf(v.maxt)
	months, err := v.index().monthsIn(first.Month(), last.Month())
	if err != nil {
		return nil, err
	}
	found := roaring.New()
	for _, m := range months {
		set, err := v.findInMonth(m, first, last, conditions)
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return nil, err
		}
		found.Or(set)
	}
	if !slices.ContainsFunc(conditions, func(c condition) bool { return c.left }) {
		return found, nil
	}
	out := roaring.New()
	for refs := refsOf(found); len(refs) > 0; {
		n := min(len(refs), lookBatch)
		sets, err := v.a.cat.labelsOf(refs[:n])
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return nil, err
		}
		sel := &selection{refs: refs[:n], labels: sets}
		refs = refs[n:]
		sel.filter(conditions)
		for _, ref := range sel.refs {
			out.Add(uint32(ref))
		}
	}
	return out, nil
}

// storedFirst is the first day of the view that has not expired for all series: of those before it nothing may be left but what waits to
// be dropped, and series that were forgotten.
func (v *view) storedFirst() format.Day {
	return max(format.DayOf(v.mint), v.kept.floors.Series)
}

// activeDays returns the days of the view on which one of the series has samples.
func (v *view) activeDays(refs *roaring.Bitmap) (days []format.DayRange, err error) {
	first, last := v.storedFirst(), format.DayOf(v.maxt)
	months, err := v.index().monthsIn(first.Month(), last.Month())
	if err != nil {
		return nil, err
	}
	for _, m := range months {
		for d := max(first, m.FirstDay()); d <= min(last, (m+1).FirstDay()-1); d++ {
			set, err := v.index().active(d, d+1)
			if err != nil {
				return nil, err
			}
			if !set.Intersects(refs) {
				continue
			}
			if n := len(days); n > 0 && days[n-1].Last == d-1 {
				days[n-1].Last = d
			} else {
				days = append(days, format.DayRange{First: d, Last: d})
			}
		}
	}
	return days, nil
}

// cutBefore brings everything that has arrived for the series to runs on disk, with keys below
// the sequence that it returns. What arrives from then on has at least that.
func (a *Archive) cutBefore(refs *roaring.Bitmap) (format.Sequence, error) {
	// No other cut is under way meanwhile: two of one page in one commit would have the same keys.
	a.upkeep.mu.Lock()
	defer a.upkeep.mu.Unlock()
	var open []*page
	eachPage(refs, func(first format.Ref) {
		if p := a.live.page(first); p != nil {
			p.mu.Lock()
			if p.since != 0 {
				open = append(open, p)
			}
			p.mu.Unlock()
		}
	})
	// Most of it is cut a little at a time, so that writers wait shortly for what is left.
	if err := a.cutPages(open); err != nil {
		return 0, err
	}
	a.mu.Lock()
	g := a.group
	g.last = append(g.last, func() {
		eachPage(refs, func(first format.Ref) {
			if p := a.live.page(first); p != nil {
				a.cutPage(a.live, p, g, g.sequence, 0)
			}
			name := format.AppendPageName(nil, first)
			g.batch.Put(family(format.FamilyMeta), name, format.AppendUint64(nil, uint64(g.sequence)+1))
		})
	})
	if err := a.join(g); err != nil {
		return 0, err
	}
	return g.sequence + 1, nil
}

// Deletes lists all deletes, the oldest first, those that ended included.
func (a *Archive) Deletes() ([]Delete, error) {
	if err := a.StartError(); err != nil {
		return nil, err
	}
	var out []Delete
	err := eachTombstone(a.db, func(id format.TombstoneID, t *format.Tombstone) error {
		out = append(out, newDelete(id, t))
		return nil
	})
	sortDeletes(out)
	return out, err
}

// sortDeletes brings the oldest to the front. Ids of one millisecond have no order.
func sortDeletes(all []Delete) {
	slices.SortFunc(all, func(x, y Delete) int { return cmp.Compare(x.Sequence, y.Sequence) })
}

// LiveDeletes lists the deletes that hide something, the oldest first.
func (a *Archive) LiveDeletes() []Delete {
	a.deletes.mu.Lock()
	defer a.deletes.mu.Unlock()
	var out []Delete
	for id, t := range a.deletes.live {
		out = append(out, newDelete(id, t))
	}
	sortDeletes(out)
	return out
}

// Undelete takes a delete back: queries that begin after it returns see what it hid. It is
// durable then. The error is ErrNoDelete, or ErrDeleteEnded if the grace is over, the delete is being
// cleaned or has ended.
func (a *Archive) Undelete(id format.TombstoneID) (Delete, error) {
	if err := a.writableRuns(); err != nil {
		return Delete{}, err
	}
	a.deletes.changing.Lock()
	defer a.deletes.changing.Unlock()
	t, live := a.deletes.get(id)
	now := a.o.Now().UnixMilli()
	switch {
	case !live:
		return Delete{}, a.noLive(id)
	case t.State != format.TombstoneActive:
		return newDelete(id, &t), fmt.Errorf("%w: its samples are being removed", ErrDeleteEnded)
	case now > t.UntilMillis:
		return newDelete(id, &t), fmt.Errorf("%w: its grace was over at %s", ErrDeleteEnded, time.UnixMilli(t.UntilMillis).UTC().Format(time.RFC3339))
	}
	var b rocks.Batch
	a.rollAnew(&b, &t)
	t.State, t.Refs, t.EndedMillis = format.TombstoneUndone, nil, now
	b.Put(family(format.FamilyTombstones), id[:], t.Append(nil))
	if err := a.writeBatch(&b); err != nil {
		return Delete{}, fmt.Errorf("undelete: %w", a.state.unavailable(err))
	}
	a.step("undone")
	a.deletes.apply(newSightings(), named{id, &t})
	return newDelete(id, &t), nil
}

// rollAnew puts into the batch that rollups of a tombstone's series are to be made anew, because they may
// have been made while it was in force: those of its days, and the last bucket before each.
func (a *Archive) rollAnew(b *rocks.Batch, t *format.Tombstone) {
	for _, r := range t.Days {
		for d := r.First - 1; d <= r.Last; d++ {
			a.rolls.mark(b, d, t.Refs)
		}
	}
}

// noLive is the error of changing a delete that isn't live.
func (a *Archive) noLive(id format.TombstoneID) error {
	value, ok, err := a.db.Get(family(format.FamilyTombstones), id[:], nil)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %s", ErrNoDelete, id)
	}
	var t format.Tombstone
	if err := t.Parse(value); err != nil {
		return fmt.Errorf("delete %s: %w; run `varve check data`", id, err)
	}
	return fmt.Errorf("%w: it is %s", ErrDeleteEnded, t.State)
}
