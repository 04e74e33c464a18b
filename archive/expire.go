package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
	"varve/rocks"
)

// ErrKept is the error of an Expire of samples that are still needed.
var ErrKept = errors.New("the day can't expire yet")

// ExpireReport says what an Expire dropped.
type ExpireReport struct {
	// Levels are those of which something expired.
	Levels []ExpiredLevel
	// Series had something on the days that expired.
	Series uint64
	Took   time.Duration
}

// ExpiredLevel is what expired of the samples, or of the buckets of a resolution.
type ExpiredLevel struct {
	// Resolution is the length of a bucket, 0 for samples.
	Resolution time.Duration
	// Before is the first day that is kept. Days had something.
	Before format.Day
	Days   int
	// Samples counts what was sealed of them, or buckets. Bytes are those of keys and values, and of about
	// what runs took.
	Samples, Bytes uint64
}

// Needed tells why samples of the day must not be dropped, empty if they may be. rolled tells that buckets of
// the day are kept.
func (d *DayStatus) Needed(rolled bool) string {
	switch {
	case d.Held:
		return "a delete holds the day"
	case d.Folding:
		return "the day is being sealed"
	case d.Owed != "":
		return d.Owed
	case !rolled || faultRawFirst:
		return ""
	case d.Runs:
		return "samples wait to be sealed"
	case !d.Rolled:
		return "the day is not rolled up"
	case d.Dirty:
		return "the day is to be rolled up anew"
	}
	return ""
}

// Expire makes the days before the floors expire for all series: floors are the first days to be kept, of
// samples and then of each of Options.Resolutions. A floor is never lowered. Queries that begin after
// it returns see nothing of the days; what they took is free when the last query that began before has ended and
// Reclaim was called.
//
// Samples that the buckets which are kept may still need make it refuse with ErrKept.
func (a *Archive) Expire(_ context.Context, floors []format.Day) (ExpireReport, error) {
	if err := a.writableRuns(); err != nil {
		return ExpireReport{}, err
	}
	if err := a.lockJobs(); err != nil {
		return ExpireReport{}, err
	}
	defer a.sealing.Unlock()
	began := time.Now()
	r, err := a.expire(floors)
	r.Took = time.Since(began)
	a.m.expired(&r, err)
	if err != nil {
		return r, fmt.Errorf("expire: %w", err)
	}
	return r, nil
}

// expire raises the floors: on disk first, then for readers, and forgets what lies before them.
func (a *Archive) expire(floors []format.Day) (r ExpireReport, err error) {
	if len(floors) != len(a.rolls.resolutions)+1 {
		return r, fmt.Errorf("%d floors for %d levels", len(floors), len(a.rolls.resolutions)+1)
	}
	old := a.kept.floors.Load()
	next := a.raised(old, floors)
	if next.Of(0) > old.Of(0) {
		if err := a.cutUntil(next.Of(0).StartMillis()); err != nil {
			return r, err
		}
	}
	days, err := a.Days()
	if err != nil {
		return r, err
	}
	for i := range days {
		d := &days[i]
		if d.Day >= next.Of(0) {
			break
		}
		if why := d.Needed(slices.ContainsFunc(a.rolls.resolutions, func(r uint32) bool { return d.Day >= next.Of(r) })); why != "" {
			return r, fmt.Errorf("%s: %w: %s", Date(d.Day), ErrKept, why)
		}
	}
	for _, d := range days {
		if d.Day >= next.Of(0) {
			break
		}
		again, err := a.rollAgain(a.kept.at(a.o.Now()), d.Day)
		if err != nil {
			return r, err
		}
		if again {
			return r, fmt.Errorf("%s: %w: %s", Date(d.Day), ErrKept, (&DayStatus{Rolled: true, Dirty: true}).Needed(true))
		}
	}
	if r, err = a.expiring(days, next); err != nil {
		return r, err
	}
	var b rocks.Batch
	b.Put(family(format.FamilyMeta), []byte(format.MetaFloors), next.Append(nil))
	if err := a.writeBatch(&b); err != nil {
		return r, err
	}
	a.step("floors written")
	a.kept.floors.Store(next)
	a.dropAfter.Store(a.views.advance())
	a.forgetExpired(next)
	a.forgets.changed.Store(true)
	a.step("expired")
	return r, nil
}

// cutUntil brings samples in memory that lie before a time to runs, so that those of days that are about to expire are seen
// to wait for their roll-up. What arrives from now on so late is refused.
func (a *Archive) cutUntil(before int64) error {
	a.upkeep.mu.Lock()
	defer a.upkeep.mu.Unlock()
	var due []*page
	a.live.each(func(p *page) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for slot := range p.slots {
			if p.sampled(uint8(slot), latest, math.MinInt64, before-1) {
				due = append(due, p)
				return
			}
		}
	})
	return a.cutPages(due)
}

// raised returns the floors of which none is lower than before.
func (a *Archive) raised(old *format.Floors, floors []format.Day) *format.Floors {
	days := map[uint32]format.Day{}
	for _, l := range old.Levels {
		days[l.Resolution] = l.Day
	}
	next := &format.Floors{Series: floors[0]}
	newest := format.Day(a.kept.newest.Load()) + 1
	for level, day := range floors {
		resolution := uint32(0)
		if level > 0 {
			resolution = a.rolls.resolutions[level-1]
		}
		day = max(min(day, newest), old.Of(resolution))
		days[resolution] = day
		next.Series = min(next.Series, day)
	}
	// Buckets of a resolution that is no more in use go with the last that is.
	a.rolls.mu.Lock()
	for k := range a.rolls.records {
		if !slices.Contains(a.rolls.resolutions, k.resolution) {
			days[k.resolution] = max(next.Series, old.Of(k.resolution))
		}
	}
	a.rolls.mu.Unlock()
	for _, resolution := range slices.Sorted(maps.Keys(days)) {
		next.Levels = append(next.Levels, format.LevelFloor{Resolution: resolution, Day: days[resolution]})
	}
	return next
}

// expiring counts what lies before the floors.
func (a *Archive) expiring(days []DayStatus, next *format.Floors) (r ExpireReport, err error) {
	series := roaring.New()
	gone := func(l *ExpiredLevel, day format.Day, samples, bytes uint64) error {
		l.Days, l.Samples, l.Bytes = l.Days+1, l.Samples+samples, l.Bytes+bytes
		active, err := a.index.active(nil, day, day+1)
		if err == nil {
			series.Or(active)
		}
		return err
	}
	for _, floor := range next.Levels {
		l := ExpiredLevel{Resolution: time.Duration(floor.Resolution) * time.Millisecond, Before: floor.Day}
		if floor.Resolution == 0 {
			for _, d := range days {
				if d.Day < floor.Day && (d.Runs || d.Samples > 0) {
					if err := gone(&l, d.Day, d.Samples, d.Bytes+d.RunBytes); err != nil {
						return r, err
					}
				}
			}
		} else {
			for _, d := range a.rolls.days(floor.Resolution) {
				if d.Day < floor.Day {
					if err := gone(&l, d.Day, d.Samples, d.Bytes); err != nil {
						return r, err
					}
				}
			}
		}
		if l.Days > 0 {
			r.Levels = append(r.Levels, l)
		}
	}
	r.Series = series.GetCardinality()
	return r, nil
}

// forgetExpired forgets what memory knows of what lies before the floors.
func (a *Archive) forgetExpired(f *format.Floors) {
	a.days.forget(f.Of(0))
	a.left.forget(f.Of(0))
	a.rolls.forget(f)
	a.trims.forget(f)
	a.index.forgetBefore(f.Series)
}

// forget forgets days before the first.
func (s *dayStates) forget(first format.Day) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.days, func(d format.Day, _ *dayState) bool { return d < first })
}

// forget forgets runs of days before the first, which go with the day.
func (l *leftovers) forget(first format.Day) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs = slices.DeleteFunc(l.runs, func(r leftRuns) bool { return r.day < first })
}

// forget forgets what lies before the floors.
func (s *rollStates) forget(f *format.Floors) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.records, func(k rollKey, _ format.RollRecord) bool { return k.day < f.Of(k.resolution) })
	maps.DeleteFunc(s.dirty, func(k rollKey, _ *dirtySeries) bool { return k.day < f.Of(k.resolution) })
}

// days lists the days that are rolled up at a resolution, in order, with the number of buckets.
func (s *rollStates) days(resolution uint32) (out []LevelDay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, r := range s.records {
		if k.resolution == resolution {
			out = append(out, LevelDay{Day: k.day, Samples: r.Buckets, Bytes: r.Bytes})
		}
	}
	slices.SortFunc(out, func(x, y LevelDay) int { return int(x.Day - y.Day) })
	return out
}

// forgetBefore forgets what is known of days before the first, and of months that lie before it.
func (x *index) forgetBefore(first format.Day) {
	x.mu.Lock()
	defer x.mu.Unlock()
	maps.DeleteFunc(x.days, func(d format.Day, _ *roaring.Bitmap) bool { return d < first })
	maps.DeleteFunc(x.months, func(m format.Month, _ *roaring.Bitmap) bool { return m < first.Month() })
	maps.DeleteFunc(x.fresh.active, func(d format.Day, _ *roaring.Bitmap) bool { return d < first })
	maps.DeleteFunc(x.fresh.pairs, func(p monthPair, _ *roaring.Bitmap) bool { return p.month < first.Month() })
}

// keyRange are the keys of a family from lower on, before upper.
type keyRange struct {
	family       format.Family
	lower, upper []byte
}

// expiredRanges are the keys of what lies before the floors.
func expiredRanges(f *format.Floors) (out []keyRange) {
	raw := f.Of(0)
	day := func(family format.Family, d format.Day) {
		out = append(out, keyRange{family, format.AppendDayPrefix(nil, format.MinDay), format.AppendDayPrefix(nil, d)})
	}
	day(format.FamilyHot, raw)
	day(format.FamilyRaw, raw)
	day(format.FamilyExemplars, raw)
	out = append(out, keyRange{format.FamilyMeta, format.AppendDayName(nil, format.MinDay), format.AppendDayName(nil, raw)})
	for _, l := range f.Levels {
		out = append(out, keyRange{
			format.FamilyClocks, format.AppendClockPrefix(nil, l.Resolution, format.MinDay, 0), format.AppendClockPrefix(nil, l.Resolution, l.Day, 0),
		})
		out = append(out, keyRange{
			format.FamilyExpired, format.AppendExpiredDay(nil, l.Resolution, format.MinDay), format.AppendExpiredDay(nil, l.Resolution, l.Day),
		})
		if l.Resolution == 0 {
			continue
		}
		out = append(out,
			keyRange{format.RollupFamily(l.Resolution), format.AppendRollupDay(nil, l.Resolution, format.MinDay), format.AppendRollupDay(nil, l.Resolution, l.Day)},
			keyRange{format.FamilyDirty, format.AppendDirtyDay(nil, l.Resolution, format.MinDay), format.AppendDirtyDay(nil, l.Resolution, l.Day)},
			keyRange{format.FamilyMeta, format.AppendRollName(nil, l.Resolution, format.MinDay), format.AppendRollName(nil, l.Resolution, l.Day)},
		)
	}
	day(format.FamilyActive, f.Series)
	out = append(out, keyRange{format.FamilyMeta, format.AppendTrimName(nil, format.MinDay), format.AppendTrimName(nil, f.Series)})
	return append(out, keyRange{
		format.FamilyIndex, format.AppendMonthPrefix(nil, format.MinDay.Month()), format.AppendMonthPrefix(nil, f.Series.Month()),
	})
}

// dropExpired drops what lies before the floors, also what came after they were raised: samples that were in memory
// then. It waits, and is true, while readers are open that began before.
func (a *Archive) dropExpired() (waiting bool, err error) {
	f := a.kept.floors.Load()
	if len(f.Levels) == 0 {
		return false, nil
	}
	for _, r := range expiredRanges(f) {
		some, err := a.hasKeys(r)
		if err != nil {
			return false, err
		}
		if !some {
			continue
		}
		if a.views.oldest() < a.dropAfter.Load() {
			return true, nil
		}
		if err := a.dropRange(r); err != nil {
			return false, fmt.Errorf("drop what expired of %s: %w", format.FamilyNames[r.family], err)
		}
		a.step("dropped expired")
	}
	return false, nil
}

// compacts tells whether a range is compacted at once however few its keys are: those of runs, of which more
// are dropped every day, and small records, go with what the engine does of its own accord.
func (r *keyRange) compacts() bool {
	switch r.family {
	case format.FamilyHot, format.FamilyMeta, format.FamilyDirty, format.FamilyExpired:
		return false
	default:
		return true
	}
}

// hasKeys tells whether there are keys in the range.
func (a *Archive) hasKeys(r keyRange) (bool, error) {
	it := a.db.NewIterator(family(r.family), rocks.IterOptions{Lower: r.lower, Upper: r.upper, NoFillCache: true})
	defer it.Close()
	it.SeekToFirst()
	return it.Valid(), it.Err()
}
