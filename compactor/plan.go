package compactor

import (
	"fmt"
	"time"

	"varve/archive"
	"varve/archive/format"
)

// Policy says when something is due. The zero value of a field means no delay.
type Policy struct {
	// SealDelay is how long after its end a day is left alone, so that what comes late
	// in the usual way is sealed with it.
	SealDelay time.Duration
	// Quiet is how long no run of a past day may have been written, so that a backfill
	// under way is not sealed again and again.
	Quiet time.Duration
	// ResealAfter is how long late runs wait after the day was sealed.
	ResealAfter time.Duration
	// DropShareMax is the part of all stored bytes that may expire at once, above 0. Default 0.5. More waits
	// until Force is set: a clock or a rule may be wrong.
	DropShareMax float64
	Force        bool
}

// runBytesMax is the size of a day's runs that makes them due although more may come:
// late runs of many series are dear to read.
const runBytesMax = 2 << 30

// Kind is what a job does.
type Kind string

// The kinds of jobs.
const (
	// Seal rewrites a day's runs as one chunk a series.
	Seal Kind = "seal"
	// Roll makes a day's rollups.
	Roll Kind = "roll"
	// Clean removes what deletes hide.
	Clean Kind = "clean"
	// Expire drops what is older than the rules of retention keep.
	Expire Kind = "expire"
	// Trim removes from a day the series that are older than their rules keep, while others stay.
	Trim Kind = "trim"
	// Forget removes series that have no data any more, with what only they are named by.
	Forget Kind = "forget"
)

// Job is something that is due.
type Job struct {
	Kind Kind
	// Day is the day to seal or to roll up, Deletes are those to clean, Expiry is what is to expire.
	Day     archive.DayStatus
	Deletes []format.TombstoneID
	Expiry  Expiry
	// Why is for people. Waits says why it waits until somebody forces it, empty if it doesn't.
	Why, Waits string
}

// Inventory is what there is.
type Inventory struct {
	// Days are in order.
	Days []archive.DayStatus
	// Deletes are those that hide something.
	Deletes []archive.Delete
	// Retention is what the rules keep.
	Retention archive.RetentionStatus
}

// Plan lists what is due at a moment, in the order in which it is to be done: deletes are cleaned, all
// together, then days are sealed, the oldest first, and then rolled up, then expires what is too old, and last of all series are forgotten
// of which nothing is left. It does nothing else, and the same arguments give the same answer. What a job makes due is in the plan that is made after it.
func Plan(inventory Inventory, now time.Time, p Policy) []Job {
	var jobs []Job
	if job, due := cleanDue(inventory.Deletes, now); due {
		jobs = append(jobs, job)
	}
	for _, d := range inventory.Days {
		if why, due := sealDue(d, now, p); due {
			jobs = append(jobs, Job{Kind: Seal, Day: d, Why: why})
		}
	}
	for i, d := range inventory.Days {
		if why, due := rollDue(d, inventory.Days[i+1:], now, p); due {
			jobs = append(jobs, Job{Kind: Roll, Day: d, Why: why})
		}
	}
	e, _ := PlanExpiry(inventory, p)
	if e.Drops {
		jobs = append(jobs, Job{Kind: Expire, Expiry: e, Why: e.Why, Waits: e.Waits})
	}
	for _, trim := range e.Trims {
		why := fmt.Sprintf("%d series are past their age", trim.Series)
		if trim.Begun {
			why = "a trim was interrupted"
		}
		jobs = append(jobs, Job{Kind: Trim, Day: archive.DayStatus{Day: trim.Day}, Expiry: Expiry{Bytes: trim.Bytes}, Why: why, Waits: e.Waits})
	}
	if f := inventory.Retention.Forget; f.Due {
		why := "series may have lost their last data"
		if f.Leaving > 0 {
			why = fmt.Sprintf("%d series have no data any more", f.Leaving)
		}
		jobs = append(jobs, Job{Kind: Forget, Why: why})
	}
	return jobs
}

// cleanDue is one job for all deletes: a day on which several hide something is gone through once.
func cleanDue(deletes []archive.Delete, now time.Time) (Job, bool) {
	job := Job{Kind: Clean, Why: "the grace is over"}
	for _, d := range deletes {
		switch {
		case d.State == format.TombstoneCleaning:
			job.Why = "a cleaning was interrupted"
		case d.State != format.TombstoneActive || now.Before(d.Until):
			continue
		}
		job.Deletes = append(job.Deletes, d.ID)
	}
	return job, len(job.Deletes) > 0
}

func sealDue(d archive.DayStatus, now time.Time, p Policy) (why string, due bool) {
	switch {
	case d.Folding:
		return "a sealing was interrupted", true
	case d.Held || !d.Runs || now.Before(endOf(d.Day).Add(p.SealDelay)):
		return "", false
	case d.RunBytes > runBytesMax:
		return fmt.Sprintf("%d bytes of runs wait", d.RunBytes), true
	case within(d.Cut, now, p.Quiet):
		return "", false
	case d.Sealed.IsZero():
		return "the day is over", true
	case within(d.Sealed, now, p.ResealAfter):
		return "", false
	}
	return "late samples came", true
}

// rollDue tells whether a day is to be rolled up; later are the days behind it. The first
// millisecond of the next day belongs to the day's last bucket, so that one is to be sealed,
// or over without samples.
func rollDue(d archive.DayStatus, later []archive.DayStatus, now time.Time, p Policy) (why string, due bool) {
	switch {
	case d.Held || d.Folding || d.Rolled && !d.Dirty:
		return "", false
	case d.Runs && d.Sealed.IsZero():
		return "", false
	case len(later) > 0 && later[0].Day == d.Day+1:
		if later[0].Folding || later[0].Runs && later[0].Sealed.IsZero() {
			return "", false
		}
	case now.Before(endOf(d.Day + 1).Add(p.SealDelay)):
		return "", false
	}
	if d.Rolled {
		return "sealed samples changed", true
	}
	return "the day is sealed", true
}

func endOf(d format.Day) time.Time { return time.UnixMilli(d.EndMillis()) }

// within tells whether less than d has passed since then. A time to come is one of a clock
// that was set back since: it holds up nothing.
func within(then, now time.Time, d time.Duration) bool {
	age := now.Sub(then)
	return age >= 0 && age < d
}
