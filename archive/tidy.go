package archive

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"varve/archive/format"
)

// untidy are the days of which sealed samples or rollups were written since Tidy last made their files what they stay, with the time of the last write.
//
// RocksDB writes a file of the last level once more when no reader needs its sequence numbers any longer: after some
// query or job. Whoever copies files in between has to copy them again. So Tidy has it done at once, which costs nothing more,
// and what a daily snapshot sends is what is new. Days that are not noted, after a start say, are written again in RocksDB's own time.
type untidy struct {
	mu         sync.Mutex
	raw, rolls map[format.Day]time.Time
	// waitMax is how long Tidy waits for readers, tidyWaitMax but in tests.
	waitMax time.Duration
}

// untidyDaysMax bounds the days that Tidy looks after: more are a backfill, in the midst of which nobody copies files.
const untidyDaysMax = 64

// sealed and rolled note that the day was written to until now, rather than some earlier time.
func (u *untidy) sealed(d format.Day) { u.note(&u.raw, d, time.Now()) }
func (u *untidy) rolled(d format.Day) { u.note(&u.rolls, d, time.Now()) }

func (u *untidy) note(to *map[format.Day]time.Time, d format.Day, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if *to == nil || len(*to) >= untidyDaysMax {
		*to = map[format.Day]time.Time{}
	}
	if at.After((*to)[d]) {
		(*to)[d] = at
	}
}

// take takes the days whose last write no reader is older than: what such a reader holds keeps its sequence numbers. oldest is when
// the oldest reader began, zero without one. With the days that are left comes the time of their last write, zero if none are.
func (u *untidy) take(oldest time.Time) (raw, rolls map[format.Day]struct{}, held time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	free := func(days map[format.Day]time.Time) map[format.Day]struct{} {
		out := map[format.Day]struct{}{}
		for d, at := range days {
			if oldest.IsZero() || oldest.After(at) {
				out[d] = struct{}{}
				delete(days, d)
			} else if at.After(held) {
				held = at
			}
		}
		return out
	}
	return free(u.raw), free(u.rolls), held
}

// How long Tidy waits for readers, and how often it looks.
const (
	tidyWaitMax = 5 * time.Second
	tidyLook    = 10 * time.Millisecond
)

// Tidy makes the files of days that were sealed or rolled up since the last call what they stay until more of these days comes in, for
// whoever is about to copy files. It takes the time of writing them once more, and none if there are none. It waits some
// seconds for readers that began before these days were written, and leaves the days to the next call if there are any then.
// The error is that of ctx if it ended first.
func (a *Archive) Tidy(ctx context.Context) error {
	look := time.NewTicker(tidyLook)
	defer look.Stop()
	for began := time.Now(); ; {
		held, err := a.tidyFree()
		if err != nil || held.IsZero() || time.Since(began) > a.untidy.waitMax {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("tidy: %w", context.Cause(ctx))
		}
	}
}

// tidyFree tidies days that no reader holds. It gives the time of the last write to others, zero if there are none.
func (a *Archive) tidyFree() (held time.Time, err error) {
	raw, rolls, held := a.untidy.take(a.db.State().OldestSnapshot)
	for _, s := range spans(raw) {
		if err := a.db.Rewrite(family(format.FamilyRaw), format.AppendDayPrefix(nil, s.first), format.AppendDayPrefix(nil, s.last+1)); err != nil {
			return held, fmt.Errorf("tidy %s to %s: %w", Date(s.first), Date(s.last), err)
		}
	}
	for _, s := range spans(rolls) {
		for _, resolution := range a.rolls.resolutions {
			lower, upper := format.AppendRollupDay(nil, resolution, s.first), format.AppendRollupDay(nil, resolution, s.last+1)
			if err := a.db.Rewrite(family(format.RollupFamily(resolution)), lower, upper); err != nil {
				return held, fmt.Errorf("tidy rollups of %s to %s: %w", Date(s.first), Date(s.last), err)
			}
		}
	}
	return held, nil
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
