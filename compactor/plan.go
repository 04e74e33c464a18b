package compactor

import (
	"fmt"
	"time"

	"varve/archive"
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
}

// runBytesMax is the size of a day's runs that makes them due although more may come:
// late runs of many series are dear to read.
const runBytesMax = 2 << 30

// Job is something that is due. Today there is one kind: sealing a day.
type Job struct {
	Day archive.DayStatus
	// Why is for people.
	Why string
}

// Plan lists what is due at a moment, the oldest day first. It does nothing else, and
// the same arguments give the same answer.
func Plan(days []archive.DayStatus, now time.Time, p Policy) []Job {
	var jobs []Job
	for _, d := range days {
		if why, due := sealDue(d, now, p); due {
			jobs = append(jobs, Job{Day: d, Why: why})
		}
	}
	return jobs
}

func sealDue(d archive.DayStatus, now time.Time, p Policy) (why string, due bool) {
	end := time.UnixMilli(d.Day.EndMillis())
	switch {
	case d.Folding:
		return "a sealing was interrupted", true
	case !d.Runs || now.Before(end.Add(p.SealDelay)):
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

// within tells whether less than d has passed since then. A time to come is one of a clock
// that was set back since: it holds up nothing.
func within(then, now time.Time, d time.Duration) bool {
	age := now.Sub(then)
	return age >= 0 && age < d
}
