package intake

import (
	"fmt"
	"time"

	"varve/digest"
)

// Report says what Run did. Days that an earlier run had done count as they did then.
type Report struct {
	// Days by the way they took. Empty ones hold no sample, Before those that the state file says are done.
	Leased, Written, Empty, Before int
	// Series counts series and day: one of two days is two.
	Series uint64 `json:"seriesDays"`
	// Samples are those of the source on the days that were taken, each time of a series once.
	Samples uint64
	// Stored and Repeated tell what became of those that went through the write port: they were new, or there already.
	Stored, Repeated uint64
	// RefusedSeries are series (and day) that the target doesn't take, by reason, RefusedSamples samples that it refused at the
	// write port or keeps none of that long.
	RefusedSeries  map[string]Refusal
	RefusedSamples map[string]uint64
	RefusedDays    []RefusedDay
	// SourceBytes is what the source takes where it lies, Bytes what the leased days take at the target.
	SourceBytes, Bytes uint64
	// Unequal are the days whose proof failed. They are not done: a rerun tries them again.
	Unequal []Difference
	Took    time.Duration
}

// Equal tells whether all that was taken was proved to be there.
func (r *Report) Equal() bool { return len(r.Unequal) == 0 }

// Refusal is a reason for which series were refused.
type Refusal struct {
	Series  uint64 `json:"series"`
	Example string `json:"example"`
}

// RefusedDay is a day that the target's rules don't allow.
type RefusedDay struct{ Day, Why string }

// Difference is a day on which the target doesn't hold what the source does.
type Difference struct {
	Day string
	// Series differ. First is the labels of one of them, What is wrong with it.
	Series uint64
	First  string
	What   string
}

// String says it in one line.
func (d Difference) String() string {
	return fmt.Sprintf("%s: not equal: %d series, such as %s: %s", d.Day, d.Series, d.First, d.What)
}

// Progress says how far Run is.
type Progress struct {
	// Phase is resolve, add, write or prove, with the Day that it is about.
	Phase, Day       string
	Days, DaysTotal  int
	Samples          uint64
	SamplesTotal     uint64 // about; 0: not known
	SamplesPerSecond float64
	Elapsed          time.Duration
}

// Left estimates how long it will take from here; 0: not known.
func (p Progress) Left() time.Duration {
	switch {
	case p.SamplesPerSecond > 0 && p.SamplesTotal > p.Samples:
		return time.Duration(float64(p.SamplesTotal-p.Samples) / p.SamplesPerSecond * float64(time.Second)).Round(time.Second)
	case p.SamplesTotal == 0 && p.Days > 0 && p.DaysTotal > p.Days:
		return (p.Elapsed / time.Duration(p.Days) * time.Duration(p.DaysTotal-p.Days)).Round(time.Second)
	}
	return 0
}

// DayName is how a day is named in reports: 2006-01-02.
func DayName(startMillis int64) string { return time.UnixMilli(startMillis).UTC().Format("2006-01-02") }

// differences collects what is wrong on a day.
type differences struct {
	series   uint64
	firstRef uint64
	first    string
	what     string
}

func (d *differences) add(ref uint64, name, what string) {
	if d.series++; d.series == 1 {
		d.firstRef, d.first, d.what = ref, name, what
	}
}

func describe(d digest.Series) string {
	if d.Samples == 0 {
		return "no samples"
	}
	return fmt.Sprintf("%d samples from %s to %s with hash %016x", d.Samples, stamp(d.FirstMillis), stamp(d.LastMillis), d.Hash)
}

func stamp(millis int64) string {
	return time.UnixMilli(millis).UTC().Format("2006-01-02T15:04:05.000Z")
}
