package archive

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"varve/archive/format"
)

// untidy are the days of which sealed samples or rollups were written since Settle last made their files what they stay.
//
// RocksDB writes a file of the last level once more when no reader needs its sequence numbers any longer: after some
// query or job. Whoever copies files in between has to copy them again. So Settle has it done at once, which costs nothing more,
// and what a daily snapshot sends is what is new. Days that are not noted, after a start say, are written again in RocksDB's own time.
type untidy struct {
	mu         sync.Mutex
	raw, rolls map[format.Day]struct{}
}

// untidyDaysMax bounds the days that Settle looks after: more are a backfill, in the midst of which nobody copies files.
const untidyDaysMax = 64

func (u *untidy) sealed(d format.Day) { u.note(&u.raw, d) }
func (u *untidy) rolled(d format.Day) { u.note(&u.rolls, d) }

func (u *untidy) note(to *map[format.Day]struct{}, d format.Day) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if *to == nil || len(*to) >= untidyDaysMax {
		*to = map[format.Day]struct{}{}
	}
	(*to)[d] = struct{}{}
}

func (u *untidy) take() (raw, rolls map[format.Day]struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	raw, rolls = u.raw, u.rolls
	u.raw, u.rolls = nil, nil
	return raw, rolls
}

// tidy has the files of these days written for the last time. They are in table files already.
func (a *Archive) tidy() error {
	raw, rolls := a.untidy.take()
	for _, s := range spans(raw) {
		if err := a.db.CompactRange(family(format.FamilyRaw), format.AppendDayPrefix(nil, s.first), format.AppendDayPrefix(nil, s.last+1)); err != nil {
			return fmt.Errorf("tidy %s to %s: %w", Date(s.first), Date(s.last), err)
		}
	}
	for _, s := range spans(rolls) {
		for _, resolution := range a.rolls.resolutions {
			lower, upper := format.AppendRollupDay(nil, resolution, s.first), format.AppendRollupDay(nil, resolution, s.last+1)
			if err := a.db.CompactRange(family(format.FamilyRollups), lower, upper); err != nil {
				return fmt.Errorf("tidy rollups of %s to %s: %w", Date(s.first), Date(s.last), err)
			}
		}
	}
	return nil
}

// daySpan is some days in a row, both inclusive.
type daySpan struct{ first, last format.Day }

func spans(days map[format.Day]struct{}) (out []daySpan) {
	for _, d := range slices.Sorted(maps.Keys(days)) {
		if n := len(out); n > 0 && out[n-1].last+1 == d {
			out[n-1].last = d
			continue
		}
		out = append(out, daySpan{d, d})
	}
	return out
}
