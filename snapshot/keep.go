package snapshot

import (
	"fmt"
	"slices"
	"time"
)

// Keep are rules of which snapshots stay. A snapshot stays if one of them wants it.
type Keep struct {
	// Last is how many of the newest stay.
	Last int `json:"last"`
	// Of each of so many days, ISO weeks, months and years (UTC) that have a snapshot, the newest ones, the newest stays.
	Daily   int `json:"daily"`
	Weekly  int `json:"weekly"`
	Monthly int `json:"monthly"`
	Yearly  int `json:"yearly"`
}

// Nothing says that no rule would keep any snapshot.
func (k Keep) Nothing() bool {
	return k.Last <= 0 && k.Daily <= 0 && k.Weekly <= 0 && k.Monthly <= 0 && k.Yearly <= 0
}

// aheadMax is how far clocks of those who make snapshots may be ahead of the clock of who prunes.
const aheadMax = time.Hour

// choose says why snapshots stay: by ID, the rules that want it. The rules go by archive, so that a copy that was
// restored elsewhere and makes snapshots in the same bucket takes none of the original's places. What is stamped with a time that is
// yet to come, by a clock that was wrong, takes no place either: it would be the newest until then. It stays until somebody deletes it.
func (k Keep) choose(all []Listed, now time.Time) map[string][]string {
	kept := map[string][]string{}
	archives := map[string][]Listed{}
	for _, l := range all {
		if l.Taken.After(now.Add(aheadMax)) {
			kept[l.ID] = []string{"of a time to come"}
			continue
		}
		archives[l.Incarnation] = append(archives[l.Incarnation], l)
	}
	for _, snapshots := range archives {
		slices.SortFunc(snapshots, func(a, b Listed) int {
			if d := b.Taken.Compare(a.Taken); d != 0 {
				return d
			}
			if a.ID > b.ID {
				return -1
			}
			return 1
		})
		for i, l := range snapshots {
			if i < k.Last {
				kept[l.ID] = append(kept[l.ID], "last")
			}
		}
		for _, rule := range []struct {
			name   string
			count  int
			period func(time.Time) string
		}{
			{"daily", k.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
			{"weekly", k.Weekly, func(t time.Time) string {
				year, week := t.ISOWeek()
				return fmt.Sprintf("%d-%d", year, week)
			}},
			{"monthly", k.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
			{"yearly", k.Yearly, func(t time.Time) string { return t.Format("2006") }},
		} {
			periods, last := 0, ""
			for _, l := range snapshots {
				// The newest comes first, so that of a period the first seen is the newest.
				if p := rule.period(l.Taken.UTC()); p != last && periods < rule.count {
					periods, last = periods+1, p
					kept[l.ID] = append(kept[l.ID], rule.name)
				}
			}
		}
	}
	return kept
}
