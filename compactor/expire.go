package compactor

import (
	"fmt"
	"slices"

	"varve/archive"
	"varve/archive/format"
)

// dropShareDefault is the part of what is stored that a pass may drop unless somebody forces it.
const dropShareDefault = 0.5

// Expiry is what retention asks for.
type Expiry struct {
	// Floors are the first days to be kept, of samples and then of each resolution.
	Floors []format.Day
	// Drops tells that days before the floors go. Trims are the days of which some series go.
	Drops bool
	Trims []archive.TrimDay
	// Bytes of Total go.
	Bytes, Total uint64
	// Kept says why samples that are past their age, from KeptDay on, must stay for now; empty if none do.
	Kept    string
	KeptDay format.Day
	// Waits says why nothing goes unless somebody forces it, empty if it may.
	Waits string
	// Why is for people.
	Why string
}

// PlanExpiry says what is past its age, and which of it may go: buckets at once, samples in the order of
// days up to the first that the buckets which are kept still need; and, if the archive is too
// large, more of the oldest samples. ok is false if nothing goes. It is a pure function.
func PlanExpiry(inventory Inventory, p Policy) (e Expiry, ok bool) {
	r := &inventory.Retention
	if len(r.Levels) == 0 {
		return e, false
	}
	for i := range r.Levels {
		l := &r.Levels[i]
		e.Floors = append(e.Floors, max(l.Floor, l.Cutoff))
	}
	days := slices.DeleteFunc(slices.Clone(inventory.Days), func(d archive.DayStatus) bool { return d.Day < r.Levels[0].Floor })
	rolled := func(d format.Day) bool {
		return slices.ContainsFunc(e.Floors[1:], func(f format.Day) bool { return d >= f })
	}
	n := 0
	for ; n < len(days) && days[n].Day < e.Floors[0]; n++ {
		if e.Kept = days[n].Needed(rolled(days[n].Day)); e.Kept != "" {
			e.KeptDay, e.Floors[0] = days[n].Day, days[n].Day
			break
		}
	}
	e.Why = "past its age"
	if m := tooLarge(r, days, n, rolled); e.Kept == "" && m > n {
		n = m
		e.Floors[0] = days[n-1].Day + 1
		e.Why = fmt.Sprintf("the archive takes %d bytes on disk, more than %d", r.DiskBytes, r.BytesMax)
	}
	e.Drops = n > 0
	for i, d := range days {
		bytes := d.Bytes + d.RunBytes
		e.Total += bytes
		if i < n {
			e.Bytes += bytes
		}
	}
	for level, l := range r.Levels {
		for _, d := range l.Days {
			e.Total += d.Bytes
			if d.Day < e.Floors[level] {
				e.Bytes += d.Bytes
				e.Drops = true
			}
		}
	}
	e.Trims = trims(inventory, &e)
	for _, d := range e.Trims {
		e.Bytes += d.Bytes
	}
	share := p.DropShareMax
	if share == 0 {
		share = dropShareDefault
	}
	if !p.Force && float64(e.Bytes) > share*float64(e.Total) {
		e.Waits = fmt.Sprintf("it would drop %d of %d bytes, more than compactor.max_drop_share allows; look whether clock and rules are right, and force it", e.Bytes, e.Total)
	}
	return e, e.Drops || len(e.Trims) > 0
}

// trims are the days of which some series may go now.
func trims(inventory Inventory, e *Expiry) (out []archive.TrimDay) {
	for _, trim := range inventory.Retention.Trims {
		// Samples go in the order of days: the first millisecond of each belongs to the last bucket of the day before.
		// A trim that was begun is ended.
		needed := slices.ContainsFunc(inventory.Days, func(d archive.DayStatus) bool {
			return (d.Day == trim.Day || d.Day < trim.Day && !trim.Begun) && d.Needed(true) != ""
		})
		if trim.Held || trim.Day < slices.Min(e.Floors) || trim.Raw && needed {
			continue
		}
		out = append(out, trim)
	}
	return out
}

// newestKept is how many of the newest days are never dropped because the archive is too large.
const newestKept = 2

// tooLarge returns how many of the first days have to go for the archive to be as small as wanted: those from n on
// as long as they may go.
func tooLarge(r *archive.RetentionStatus, days []archive.DayStatus, n int, rolled func(format.Day) bool) int {
	// What is on its way out is still counted.
	if r.BytesMax == 0 || r.DiskBytes <= r.BytesMax || r.Dropping {
		return n
	}
	excess := int64(r.DiskBytes - r.BytesMax)
	for i, d := range days {
		switch {
		case i >= n && (excess <= 0 || d.Day > r.Today-newestKept || d.Needed(rolled(d.Day)) != ""):
			return max(i, n)
		}
		excess -= int64(d.RawBytes + d.RunBytes)
	}
	return len(days)
}
