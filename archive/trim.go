package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// trims are what rules removed of days that other series keep. It is safe for use by several goroutines.
//
// A trimmed day is not trimmed again unless late samples come. And who rolls up, deletes or queries must know of
// which series samples of a day are gone, whatever the rules say by then.
type trims struct {
	// gone are the series by level, 0 or a resolution, and day. It is replaced, never changed.
	gone atomic.Pointer[goneSets]

	mu sync.Mutex
	// unfinished are days of which a trim was begun.
	unfinished map[format.Day]bool
	// listed are the days that are due by the cutoffs, as of the gone.
	listed        []TrimDay
	listedCutoffs *cutoffs
	listedGone    *goneSets
	// shown are, by day, the series of which samples are gone though the cutoffs would show them.
	shown        map[format.Day]*roaring.Bitmap
	shownCutoffs *cutoffs
	shownGone    *goneSets
}

// goneSets are series by level, 0 or a resolution, and day.
type goneSets map[rollKey]*roaring.Bitmap

// load reads what was removed of days that have not expired.
func (t *trims) load(db *rocks.DB, floors *format.Floors) error {
	gone := goneSets{}
	t.unfinished = map[format.Day]bool{}
	err := eachRefs(db, format.FamilyExpired, nil, nil, func(k rollKey, value []byte, high uint64) error {
		if k.day < floors.Of(k.resolution) {
			return nil
		}
		if gone[k] == nil {
			gone[k] = roaring.New()
		}
		return addContainer(gone[k], value, high)
	})
	if err != nil {
		return err
	}
	t.gone.Store(&gone)
	prefix := []byte(format.MetaTrimPrefix)
	it := db.NewIterator(family(format.FamilyMeta), rocks.IterOptions{Lower: prefix, Upper: format.PrefixEnd(prefix)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		day, err := format.ParseTrimName(it.Key())
		if err != nil {
			return err
		}
		if day >= floors.Series {
			t.unfinished[day] = true
		}
	}
	return it.Err()
}

// of returns the series that are gone from the day at the level. It is for reading.
func (t *trims) of(k rollKey) *roaring.Bitmap {
	if set := (*t.gone.Load())[k]; set != nil {
		return set
	}
	return roaring.New()
}

// set replaces what is gone of some days, in memory.
func (t *trims) set(changed map[rollKey]*roaring.Bitmap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(*t.gone.Load())
	for k, set := range changed {
		if set.IsEmpty() {
			delete(next, k)
		} else {
			next[k] = set
		}
	}
	t.gone.Store(&next)
}

// forget forgets what lies before the floors.
func (t *trims) forget(f *format.Floors) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := maps.Clone(*t.gone.Load())
	maps.DeleteFunc(next, func(k rollKey, _ *roaring.Bitmap) bool { return k.day < f.Of(k.resolution) })
	t.gone.Store(&next)
	maps.DeleteFunc(t.unfinished, func(d format.Day, _ bool) bool { return d < f.Series })
}

// putGone writes the containers of a set, and takes away those of before that are empty now.
func putGone(b *rocks.Batch, k rollKey, before, now *roaring.Bitmap) {
	eachHigh(roaring.Or(before, now), func(high uint64) {
		key := format.AppendExpiredKey(nil, k.resolution, k.day, high)
		if value, some := format.AppendContainer(nil, now, uint32(high<<16)); some {
			b.Put(family(format.FamilyExpired), key, value)
		} else {
			b.Delete(family(format.FamilyExpired), key)
		}
	})
}

// lacking returns, by day, the series of which samples are gone though the cutoffs would show them: a rule kept less of
// them before. It is empty unless rules were changed.
func (t *trims) lacking(c *cutoffs, gone *goneSets, cat *catalogue) (map[format.Day]*roaring.Bitmap, error) {
	if len(*gone) == 0 {
		return nil, nil
	}
	t.mu.Lock()
	if t.shownCutoffs == c && t.shownGone == gone {
		defer t.mu.Unlock()
		return t.shown, nil
	}
	t.mu.Unlock()
	shown := map[format.Day]*roaring.Bitmap{}
	for k, set := range *gone {
		if k.resolution != 0 || k.day < c.rawFirst {
			continue
		}
		if err := c.learn(cat, set); err != nil {
			return nil, err
		}
		if sampled, _ := c.split(k.day, set.Clone()); !sampled.IsEmpty() {
			shown[k.day] = sampled
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shown, t.shownCutoffs, t.shownGone = shown, c, gone
	return shown, nil
}

// lackingFrom returns the series of which samples of the day are gone, or hidden because those of a later day are, though
// the cutoffs would show them.
func (v *view) lackingFrom(day format.Day) (*roaring.Bitmap, error) {
	lacking, err := v.a.trims.lacking(v.kept, v.gone, v.a.cat)
	out := roaring.New()
	for d, refs := range lacking {
		if d >= day {
			out.Or(refs)
		}
	}
	return out, err
}

// TrimDay is a day from which rules remove some series.
type TrimDay struct {
	Day format.Day
	// Series are those of which something goes. Raw tells that samples go, Held that a delete forbids it for now, and
	// Begun that it was begun before.
	Series           uint64
	Raw, Held, Begun bool
	// Bytes are about what goes: what is stored, shared out by the number of series.
	Bytes uint64
}

// trimSets returns, by level, the series of which something is stored on the day that their rules don't keep. The levels
// are 0 and resolutions. c must be of rules of which there are several.
func (a *Archive) trimSets(c *cutoffs, day format.Day) (sets map[uint32]*roaring.Bitmap, active *roaring.Bitmap, err error) {
	sets = map[uint32]*roaring.Bitmap{}
	var next *roaring.Bitmap
	for level := range c.days[0] {
		resolution := uint32(0)
		if level > 0 {
			resolution = a.rolls.resolutions[level-1]
			if r, ok := a.rolls.record(rollKey{resolution, day}); !ok || r.Rolling {
				continue
			}
		} else if !a.days.has(day) {
			continue
		}
		if day < c.floors.Of(resolution) || !slices.ContainsFunc(c.days, func(days []format.Day) bool { return day < days[level] }) {
			continue
		}
		if active == nil {
			if active, err = a.index.active(nil, day, day+1); err != nil {
				return nil, nil, err
			}
			if next, err = a.index.active(nil, day+1, day+2); err != nil {
				return nil, nil, err
			}
			next.Or(active)
			if err := c.learn(a.cat, next); err != nil {
				return nil, nil, err
			}
		}
		set := c.table.union(func(rule int) bool { return day < c.days[rule][level] })
		if level == 0 {
			set.And(active)
		} else {
			// A series may have a bucket alone, with a sample at the midnight behind the day.
			set.And(next)
		}
		set.AndNot(a.trims.of(rollKey{resolution, day}))
		if !set.IsEmpty() {
			sets[resolution] = set
		}
	}
	return sets, active, nil
}

// has tells whether the day has samples that are sealed, or runs.
func (s *dayStates) has(day format.Day) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.days[day] != nil
}

// trimDays lists the days from which rules remove series.
func (a *Archive) trimDays(c *cutoffs) ([]TrimDay, error) {
	t := &a.trims
	gone := t.gone.Load()
	t.mu.Lock()
	listed, known := t.listed, t.listedCutoffs == c && t.listedGone == gone
	t.mu.Unlock()
	if !known {
		var err error
		if listed, err = a.findTrims(c); err != nil {
			return nil, err
		}
		t.mu.Lock()
		t.listed, t.listedCutoffs, t.listedGone = listed, c, gone
		t.mu.Unlock()
	}
	out := slices.Clone(listed)
	for i := range out {
		out[i].Held = a.deletes.holds(out[i].Day)
	}
	return out, nil
}

func (a *Archive) findTrims(c *cutoffs) (out []TrimDay, err error) {
	days := map[format.Day]bool{}
	a.trims.mu.Lock()
	begun := maps.Clone(a.trims.unfinished)
	a.trims.mu.Unlock()
	for d := range begun {
		days[d] = true
	}
	if len(c.days) > 1 {
		a.days.mu.Lock()
		for d := range a.days.days {
			days[d] = true
		}
		a.days.mu.Unlock()
		for _, resolution := range a.rolls.resolutions {
			for _, d := range a.rolls.days(resolution) {
				days[d.Day] = true
			}
		}
	}
	for _, day := range slices.Sorted(maps.Keys(days)) {
		sets, active, err := a.trimSets(c, day)
		if err != nil {
			return nil, err
		}
		if len(sets) == 0 && !begun[day] {
			continue
		}
		d := TrimDay{Day: day, Raw: sets[0] != nil || begun[day], Begun: begun[day]}
		all := roaring.New()
		for resolution, set := range sets {
			all.Or(set)
			stored := a.days.record(day).Bytes
			if resolution > 0 {
				r, _ := a.rolls.record(rollKey{resolution, day})
				stored = r.Bytes
			}
			d.Bytes += uint64(float64(stored) * float64(set.GetCardinality()) / float64(max(active.GetCardinality(), 1)))
		}
		d.Series = all.GetCardinality()
		out = append(out, d)
	}
	return out, nil
}

// TrimReport says what a Trim removed.
type TrimReport struct {
	Day format.Day
	// Series lost something: Samples, Exemplars and Buckets, Bytes of keys and values before compression. A bundle may grow when
	// one goes that others leaned on.
	Series                      uint64
	Samples, Exemplars, Buckets uint64
	Bytes                       int64
	Took                        time.Duration
}

// Trim removes from a day the samples and buckets that the rules of their series keep no longer, while other series keep
// theirs. Nothing else of the day changes. Samples that the buckets which are kept may still need make it refuse with ErrKept.
//
// A Trim that is ended, by ctx, an error or a kill, is done again. pace is as in Seal.
func (a *Archive) Trim(ctx context.Context, day format.Day, pace Pace) (TrimReport, error) {
	r := TrimReport{Day: day}
	if err := a.writableRuns(); err != nil {
		return r, err
	}
	if err := a.lockJobs(); err != nil {
		return r, err
	}
	defer a.sealing.Unlock()
	began := time.Now()
	err := a.trim(ctx, &r, pace)
	r.Took = time.Since(began)
	a.m.trimmed(&r, err)
	if err != nil {
		return r, fmt.Errorf("trim %s: %w", Date(day), err)
	}
	return r, nil
}

// trim removes what is due.
//
//  1. What goes is noted, with a record that says that it has not gone yet, and synced: from then on no
//     roll-up takes samples that are missing for samples that never were.
//  2. Samples, then buckets, are removed in batches.
//  3. Series of which nothing is left on the day leave its index, and the note.
func (a *Archive) trim(ctx context.Context, r *TrimReport, pace Pace) error {
	day := r.Day
	c := a.kept.at(a.o.Now())
	sets, _, err := a.trimSets(c, day)
	if err != nil {
		return err
	}
	a.trims.mu.Lock()
	begun := a.trims.unfinished[day]
	a.trims.mu.Unlock()
	if begun {
		// What was noted may be there in part. What the rules of now keep is left alone.
		for level := range c.days[0] {
			resolution := uint32(0)
			if level > 0 {
				resolution = a.rolls.resolutions[level-1]
			}
			set := c.table.union(func(rule int) bool { return day < c.days[rule][level] })
			if set.And(a.trims.of(rollKey{resolution, day})); !set.IsEmpty() {
				sets[resolution] = union(sets[resolution], set)
			}
		}
	}
	if len(sets) == 0 {
		return a.endTrim(day, begun)
	}
	if sets[0] != nil {
		if err := a.cutUntil(day.EndMillis()); err != nil {
			return err
		}
		again, err := a.rollAgain(c, day)
		if err != nil {
			return err
		}
		if again {
			return fmt.Errorf("%w: %s", ErrKept, (&DayStatus{Rolled: true, Dirty: true}).Needed(true))
		}
	}
	why, err := a.neededFor(day, sets[0] != nil, begun)
	if err != nil {
		return err
	}
	if why != "" {
		return fmt.Errorf("%w: %s", ErrKept, why)
	}
	if a.rolls.isRolling(day - 1) {
		return fmt.Errorf("%w: the day before is being rolled up", ErrKept)
	}
	if err := a.noteTrim(day, sets); err != nil {
		return err
	}
	// Behind this nothing is left in the journal that a start would give to the index again.
	a.upkeep.mu.Lock()
	err = a.flushIndex(true)
	a.upkeep.mu.Unlock()
	if err != nil {
		return err
	}
	all := roaring.New()
	for _, set := range sets {
		all.Or(set)
	}
	r.Series = all.GetCardinality()
	ended, err := a.endedOn(c, day, all)
	if err != nil {
		return err
	}
	cleaner := cleaner{a: a, ctx: ctx, pace: pace}
	e := eraser{a: a, ctx: ctx, pace: pace}
	for resolution, set := range sets {
		if resolution == 0 {
			continue
		}
		if err := e.erase(day, resolution, set, func(format.Ref) chunk.Spans { return everything }); err != nil {
			return err
		}
	}
	if err := a.eraseBefore(&e, day, ended); err != nil {
		return err
	}
	if set := union(sets[0], ended); !set.IsEmpty() && day >= c.floors.Of(0) {
		m := &mask{sequence: math.MaxUint64, mint: day.StartMillis(), maxt: day.EndMillis() - 1, days: []format.DayRange{{First: day, Last: day}}, refs: set}
		if err := cleaner.clean(day, []*stone{{mask: m}}, ended); err != nil {
			return err
		}
	} else if !ended.IsEmpty() {
		if err := a.retractEnded(day, ended); err != nil {
			return err
		}
	}
	r.Samples, r.Exemplars, r.Buckets = cleaner.report.Samples, cleaner.report.Exemplars, e.buckets
	r.Bytes = cleaner.report.Bytes + e.bytes
	return a.endTrimmed(day, ended)
}

// eraseBefore removes the buckets that series which end on a day have on the day before alone, because of a sample at the midnight
// between them: no index names them.
func (a *Archive) eraseBefore(e *eraser, day format.Day, ended *roaring.Bitmap) error {
	active, err := a.index.active(nil, day-1, day)
	if err != nil {
		return err
	}
	alone := roaring.AndNot(ended, active)
	for _, resolution := range a.rolls.resolutions {
		if err := e.erase(day-1, resolution, alone, func(format.Ref) chunk.Spans { return everything }); err != nil {
			return err
		}
	}
	return nil
}

// endedOn returns those of the series of which neither samples nor buckets of the day are kept.
func (a *Archive) endedOn(c *cutoffs, day format.Day, refs *roaring.Bitmap) (*roaring.Bitmap, error) {
	if err := c.learn(a.cat, refs); err != nil {
		return nil, err
	}
	ended := refs.Clone()
	for level := range c.days[0] {
		missing := c.table.union(func(rule int) bool { return day < c.days[rule][level] })
		if level == 0 {
			missing.Or(a.trims.of(rollKey{0, day}))
		}
		ended.And(missing)
	}
	return ended, nil
}

// rollAgain has buckets made anew that a rule removed, which the rules of now keep, as long as the samples are there.
func (a *Archive) rollAgain(c *cutoffs, day format.Day) (again bool, err error) {
	refs := roaring.New()
	for level, resolution := range a.rolls.resolutions {
		gone := a.trims.of(rollKey{resolution, day})
		if gone.IsEmpty() {
			continue
		}
		if err := c.learn(a.cat, gone); err != nil {
			return false, err
		}
		if len(c.days) == 1 {
			if day >= c.days[0][level+1] {
				refs.Or(gone)
			}
			continue
		}
		kept := c.table.union(func(rule int) bool { return day >= c.days[rule][level+1] })
		refs.Or(roaring.And(gone, kept))
	}
	if refs.AndNot(a.trims.of(rollKey{0, day})); refs.IsEmpty() {
		return false, nil
	}
	var b rocks.Batch
	a.rolls.mark(&b, day, refs)
	return true, a.writeBatch(&b)
}

// neededFor tells why nothing of the day may be removed. begun tells that some of it was.
func (a *Archive) neededFor(day format.Day, raw, begun bool) (string, error) {
	if a.deletes.holds(day) {
		return (&DayStatus{Held: true}).Needed(true), nil
	}
	if !raw {
		return "", nil
	}
	days, err := a.Days()
	if err != nil {
		return "", err
	}
	// Samples go in the order of days: the first millisecond of each belongs to the last bucket of the day before.
	for i := range days {
		if days[i].Day == day || days[i].Day < day && !begun {
			if why := days[i].Needed(true); why != "" {
				return why, nil
			}
		}
	}
	return "", nil
}

// noteTrim notes what is about to go.
func (a *Archive) noteTrim(day format.Day, sets map[uint32]*roaring.Bitmap) error {
	var b rocks.Batch
	b.Put(family(format.FamilyMeta), format.AppendTrimName(nil, day), format.AppendUint64(nil, uint64(a.o.Now().UnixMilli())))
	changed := map[rollKey]*roaring.Bitmap{}
	for resolution, set := range sets {
		k := rollKey{resolution, day}
		before := a.trims.of(k)
		changed[k] = roaring.Or(before, set)
		putGone(&b, k, before, changed[k])
	}
	if err := a.writeBatch(&b); err != nil {
		return err
	}
	a.trims.set(changed)
	a.trims.mu.Lock()
	a.trims.unfinished[day] = true
	a.trims.mu.Unlock()
	a.step("trim noted")
	return nil
}

// endTrimmed ends the trim of a day. Series of which nothing is left begin anew if samples come.
func (a *Archive) endTrimmed(day format.Day, ended *roaring.Bitmap) error {
	var b rocks.Batch
	changed := map[rollKey]*roaring.Bitmap{}
	// Those that go on at midnight stay noted at the resolutions: they would be looked at again.
	next, err := a.index.active(nil, day+1, day+2)
	if err != nil {
		return err
	}
	for k, before := range *a.trims.gone.Load() {
		if k.day != day {
			continue
		}
		over := ended
		if k.resolution != 0 {
			over = roaring.AndNot(ended, next)
		}
		if before.Intersects(over) {
			changed[k] = roaring.AndNot(before, over)
			putGone(&b, k, before, changed[k])
		}
	}
	b.Delete(family(format.FamilyMeta), format.AppendTrimName(nil, day))
	if err := a.writeBatch(&b); err != nil {
		return err
	}
	a.trims.set(changed)
	a.trims.mu.Lock()
	delete(a.trims.unfinished, day)
	a.trims.mu.Unlock()
	a.step("trimmed")
	return nil
}

func (a *Archive) endTrim(day format.Day, begun bool) error {
	if !begun {
		return nil
	}
	return a.endTrimmed(day, roaring.New())
}

// retractEnded takes series out of the index of a day whose samples have expired.
func (a *Archive) retractEnded(day format.Day, ended *roaring.Bitmap) error {
	v, err := a.storedView(day.StartMillis(), day.EndMillis()-1)
	if err != nil {
		return err
	}
	err = a.retract(v, day, refsOf(ended))
	return errors.Join(err, v.Close())
}
