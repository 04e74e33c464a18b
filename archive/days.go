package archive

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"varve/archive/format"
	"varve/rocks"
)

// dayStates is how far each day is sealed. It is safe for use by several goroutines;
// a day's generation is raised with the archive's lock held, which cuts hold too.
type dayStates struct {
	mu   sync.Mutex
	days map[format.Day]*dayState
}

type dayState struct {
	record format.DayRecord
	// cut is when a run of the day was last cut, in the archive's clock (ms).
	cut int64
}

// load reads the records of all days.
func (s *dayStates) load(db *rocks.DB) error {
	s.days = map[format.Day]*dayState{}
	prefix := []byte(format.MetaDayPrefix)
	it := db.NewIterator(family(format.FamilyMeta), rocks.IterOptions{Lower: prefix, Upper: format.PrefixEnd(prefix)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		day, err := format.ParseDayName(it.Key())
		if err != nil {
			return err
		}
		state := &dayState{}
		if err := state.record.Parse(it.Value()); err != nil {
			return fmt.Errorf("record of day %d: %w", day, err)
		}
		s.days[day] = state
	}
	return it.Err()
}

// know notes that the day has something.
func (s *dayStates) know(d format.Day) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of(d)
}

func (s *dayStates) of(d format.Day) *dayState {
	state := s.days[d]
	if state == nil {
		state = &dayState{}
		s.days[d] = state
	}
	return state
}

// cutting returns the generation of a run that is cut now.
func (s *dayStates) cutting(d format.Day, now int64) format.Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.of(d)
	state.cut = now
	return state.record.Generation
}

func (s *dayStates) record(d format.Day) format.DayRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.days[d]; state != nil {
		return state.record
	}
	return format.DayRecord{}
}

func (s *dayStates) set(d format.Day, r format.DayRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of(d).record = r
}

// Date is a day as people write it, 2006-01-02 (UTC).
func Date(d format.Day) string { return time.UnixMilli(d.StartMillis()).UTC().Format(time.DateOnly) }

// DayStatus tells what lies where of one day.
type DayStatus struct {
	Day format.Day
	// Runs tells that there are runs that wait to be sealed.
	Runs bool
	// RunBytes and RawBytes are about the bytes that runs and bundles take in table files;
	// what is still in memtables is missing.
	RunBytes, RawBytes uint64
	// Folding tells that a sealing has begun and not ended. Sealed is when the day was
	// last sealed whole; zero if it never was.
	Folding bool
	Sealed  time.Time
	// Held tells that a delete keeps the day from being sealed, unless it is Folding.
	Held bool
	// Rolled tells that the day was rolled up at all resolutions in use, Dirty that series of it
	// wait to be rolled up anew.
	Rolled, Dirty bool
	// Owed says which output still waits for samples of the day, empty if none does.
	Owed string
	// Cut is when a run was last written, as far as this process knows; else zero.
	Cut time.Time
	// Samples, Bundles and Bytes count what is sealed.
	Samples, Bundles, Bytes uint64
}

// Days lists the days that have samples on disk, in order, and those before one that may have a
// bucket up to its first millisecond and wait to be rolled up.
func (a *Archive) Days() ([]DayStatus, error) {
	if err := a.StartError(); err != nil {
		return nil, err
	}
	found := map[format.Day]*DayStatus{}
	status := func(d format.Day) *DayStatus {
		if found[d] == nil {
			found[d] = &DayStatus{Day: d}
		}
		return found[d]
	}
	floor := a.kept.floors.Load().Of(0)
	err := a.eachGeneration(func(d format.Day, g format.Generation) {
		if r := a.days.record(d); d < floor {
			return
		} else if g == r.Generation || r.Folding && g == r.FoldedGeneration() {
			status(d).Runs = true
		}
	})
	if err != nil {
		return nil, err
	}
	a.days.mu.Lock()
	for d, state := range a.days.days {
		if d < floor || found[d] == nil && state.record.SealedMillis == 0 && !state.record.Folding {
			continue
		}
		st, r := status(d), &state.record
		st.Folding, st.Samples, st.Bundles, st.Bytes = r.Folding, r.Samples, r.Bundles, r.Bytes
		if r.SealedMillis != 0 {
			st.Sealed = time.UnixMilli(r.SealedMillis)
		}
		if state.cut != 0 {
			st.Cut = time.UnixMilli(state.cut)
		}
	}
	a.days.mu.Unlock()
	for d := range maps.Clone(found) {
		if !a.rolls.isRolled(d-1) || a.rolls.isDirty(d-1) {
			status(d - 1)
		}
	}
	out := make([]DayStatus, 0, len(found))
	owed := a.owed()
	for _, d := range slices.Sorted(maps.Keys(found)) {
		found[d].Held, found[d].Owed = a.deletes.holds(d), owed(d)
		found[d].Rolled, found[d].Dirty = a.rolls.isRolled(d), a.rolls.isDirty(d)
		out = append(out, *found[d])
	}
	return out, a.sizeDays(out)
}

// eachGeneration calls f for every generation of a day that has runs on disk.
func (a *Archive) eachGeneration(f func(format.Day, format.Generation)) error {
	it := a.db.NewIterator(family(format.FamilyHot), rocks.IterOptions{})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); {
		k, err := format.ParseHotKey(it.Key())
		if err != nil {
			return err
		}
		f(k.Day, k.Generation)
		it.Seek(format.PrefixEnd(format.AppendGenerationPrefix(nil, k.Day, k.Generation)))
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("list days of runs: %w", err)
	}
	return nil
}

func (a *Archive) sizeDays(days []DayStatus) error {
	ranges := make([]rocks.Range, len(days))
	for i := range days {
		ranges[i] = rocks.Range{Lower: format.AppendDayPrefix(nil, days[i].Day), Upper: format.AppendDayPrefix(nil, days[i].Day+1)}
	}
	for _, f := range []format.Family{format.FamilyHot, format.FamilyRaw} {
		sizes, err := a.db.ApproximateBytes(family(f), ranges)
		if err != nil {
			return err
		}
		for i, n := range sizes {
			if f == format.FamilyHot {
				days[i].RunBytes = n
			} else {
				days[i].RawBytes = n
			}
		}
	}
	return nil
}
