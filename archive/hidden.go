package archive

import (
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
)

// hiddenDay is a day with the series that have samples on it.
type hiddenDay struct {
	day  format.Day
	refs *roaring.Bitmap
}

// HiddenSince is the first time, Unix ms, from which on samples of the series are hidden by a rule of retention that no bucket
// of a resolution that is kept tells of yet; math.MaxInt64 if there are none.
func (s *ArchivedSeries) HiddenSince() (int64, error) {
	own := &s.set.named[s.index]
	if own.since == format.MinDay {
		return math.MaxInt64, nil
	}
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	if err := s.set.findHidden(); err != nil {
		return 0, err
	}
	for _, h := range s.set.hidden {
		if h.day >= own.since {
			break
		}
		if !h.refs.Contains(uint32(own.ref)) {
			continue
		}
		for _, resolution := range s.set.v.a.rolls.resolutions {
			if h.day >= s.rolledSince(resolution) {
				return h.day.StartMillis(), nil
			}
		}
	}
	return math.MaxInt64, nil
}

// findHidden looks for days of the set's time that are stored, hidden for some series, and not rolled up whole. Called with mu held.
func (s *ArchivedSet) findHidden() error {
	if s.hidden != nil {
		return nil
	}
	s.hidden = []hiddenDay{}
	a := s.v.a
	first := max(a.kept.floors.Load().Of(0), format.DayOf(s.mint)-1)
	behind := min(s.v.kept.rawLast, format.DayOf(s.maxt)+1)
	for first < behind {
		day, ok, err := a.activeDayFrom(first)
		if err != nil || !ok || day >= behind {
			return err
		}
		first = day + 1
		refs, err := s.untold(day)
		if err != nil {
			return err
		}
		if !refs.IsEmpty() {
			s.hidden = append(s.hidden, hiddenDay{day, refs})
		}
	}
	return nil
}

// untold returns the series that have samples on a day of which the buckets of some resolution lack some. Called with mu held.
func (s *ArchivedSet) untold(day format.Day) (*roaring.Bitmap, error) {
	refs := roaring.New()
	for _, resolution := range s.v.a.rolls.resolutions {
		c, err := s.cover(resolution)
		if err != nil {
			return nil, err
		}
		if _, rolled := slices.BinarySearch(c.days, day); !rolled {
			return s.v.index().active(day, day+1)
		}
		if stale := c.stale[day]; stale != nil {
			refs.Or(stale)
		}
	}
	return refs, nil
}
