package figure

import (
	"math"
	"strconv"
	"time"

	"gonum.org/v1/plot"
)

// timeStep is a distance of ticks: a fixed one, or months.
type timeStep struct {
	d      time.Duration
	months int
}

const day = 24 * time.Hour

// timeSteps are those at which people look for a tick.
var timeSteps = []timeStep{
	{d: time.Millisecond}, {d: 2 * time.Millisecond}, {d: 5 * time.Millisecond}, {d: 10 * time.Millisecond}, {d: 20 * time.Millisecond},
	{d: 50 * time.Millisecond}, {d: 100 * time.Millisecond}, {d: 200 * time.Millisecond}, {d: 500 * time.Millisecond},
	{d: time.Second}, {d: 2 * time.Second}, {d: 5 * time.Second}, {d: 10 * time.Second}, {d: 15 * time.Second}, {d: 30 * time.Second},
	{d: time.Minute}, {d: 2 * time.Minute}, {d: 5 * time.Minute}, {d: 10 * time.Minute}, {d: 15 * time.Minute}, {d: 30 * time.Minute},
	{d: time.Hour}, {d: 2 * time.Hour}, {d: 3 * time.Hour}, {d: 6 * time.Hour}, {d: 12 * time.Hour},
	{d: day}, {d: 2 * day}, {d: 5 * day}, {d: 10 * day}, {months: 1}, {months: 2}, {months: 3}, {months: 6},
	{months: 12}, {months: 24}, {months: 60}, {months: 120}, {months: 240}, {months: 600}, {months: 1200}, {months: 2400}, {months: 6000}, {months: 12000},
}

const month = 30 * day

func (s timeStep) length() time.Duration {
	if s.months > 0 {
		if s.months >= 3000 {
			return math.MaxInt64 / 2 // Longer than a Duration can be.
		}
		return time.Duration(s.months) * month
	}
	return s.d
}

// timeTicks are the ticks of an axis whose values are seconds from first, at most as many as there is room for.
type timeTicks struct {
	firstMillis int64
	most        int
}

// Ticks implements plot.Ticker.
func (t timeTicks) Ticks(from, to float64) []plot.Tick {
	begin, end := t.firstMillis+int64(math.Ceil(from*1000)), t.firstMillis+int64(math.Floor(to*1000))
	var times []time.Time
	var step timeStep
	for _, step = range timeSteps {
		// Most steps are too short by far: don't list their ticks.
		if float64(end-begin)/float64(step.length().Milliseconds()) > float64(2*t.most) {
			continue
		}
		if times = step.between(begin, end, 2*t.most+2); len(times) <= t.most {
			break
		}
	}
	ticks := make([]plot.Tick, len(times))
	for i, at := range times {
		ticks[i] = plot.Tick{Value: float64(at.UnixMilli()-t.firstMillis) / 1000, Label: step.label(at, i == 0 || !sameDay(times[i-1], at))}
	}
	return ticks
}

func sameDay(a, b time.Time) bool {
	return a.Year() == b.Year() && a.YearDay() == b.YearDay()
}

// between returns the ticks from begin to end, inclusive Unix ms, at most most of them. Days count from the first of a month.
func (s timeStep) between(begin, end int64, most int) (out []time.Time) {
	at := time.UnixMilli(begin).UTC()
	switch {
	case s.months > 0:
		months := at.Year()*12 + int(at.Month()) - 1
		months -= months % s.months
		at = time.Date(months/12, time.Month(months%12+1), 1, 0, 0, 0, 0, time.UTC)
	case s.d > day:
		at = time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)
	default:
		at = at.Truncate(s.d)
	}
	for ; at.UnixMilli() <= end && len(out) < most; at = s.next(at) {
		if at.UnixMilli() >= begin {
			out = append(out, at)
		}
	}
	return out
}

func (s timeStep) next(at time.Time) time.Time {
	if s.months > 0 {
		return at.AddDate(0, s.months, 0)
	}
	next := at.Add(s.d)
	if s.d > day {
		// The last tick of a month keeps its distance to the first of the next.
		first := time.Date(at.Year(), at.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		if first.Sub(next) < s.d/2 {
			return first
		}
	}
	return next
}

// label writes a tick, with the day where it is new.
func (s timeStep) label(at time.Time, newDay bool) string {
	switch {
	case s.months >= 12:
		return at.Format("2006")
	case s.months > 0:
		return at.Format("2006-01")
	case s.d >= day:
		return at.Format("2006-01-02")
	}
	form := "15:04"
	if s.d < time.Minute {
		form = "15:04:05"
	}
	if s.d < time.Second {
		form = "15:04:05.000"
	}
	if newDay {
		form += "\n2006-01-02"
	}
	return at.Format(form)
}

// valueTicks are the ticks of the axis of values.
type valueTicks struct {
	most   int
	binary bool // the unit is bytes
}

// Ticks implements plot.Ticker.
func (v valueTicks) Ticks(from, to float64) []plot.Tick {
	step := niceStep(from, to, v.most, v.binary)
	first := math.Ceil(from / step)
	// A float that is too large for its step, or a step that is too small to be one.
	if !(step > 0) || math.IsInf(first, 0) || math.Abs(first) > 1<<50 || math.IsInf(step, 0) {
		return []plot.Tick{{Value: from, Label: format(from, 0, v.binary)}, {Value: to, Label: format(to, 0, v.binary)}}
	}
	var ticks []plot.Tick
	for i := 0.0; i <= float64(2*v.most); i++ {
		at := (first + i) * step
		if at > to {
			break
		}
		ticks = append(ticks, plot.Tick{Value: at, Label: format(at, step, v.binary)})
	}
	return ticks
}

// niceStep returns 1, 2 or 5 times a power of ten, or a power of two, so that there are at most most steps.
func niceStep(from, to float64, most int, binary bool) float64 {
	// Half of each, since the difference of two floats may be none.
	least := (to/2 - from/2) / float64(most) * 2
	if !(least > 0) {
		return 0
	}
	if binary && least >= 1 {
		return math.Exp2(math.Ceil(math.Log2(least)))
	}
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, n := range []float64{1, 2, 5, 10} {
		// The difference of two floats is not quite what people think.
		if n*power >= least*(1-1e-9) {
			return n * power
		}
	}
	return 10 * power
}

// prefixes of numbers, by thousands or by 1024.
var (
	decimal      = []string{"", "k", "M", "G", "T", "P", "E"}
	small        = []string{"", "m", "µ", "n", "p"}
	binaryPrefix = []string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
)

// format writes a value of a tick with as many digits as tell it from the next one, and with a prefix.
func format(v, step float64, binary bool) string {
	if v == 0 {
		return "0"
	}
	abs := math.Max(math.Abs(v), step)
	base, names := 1000.0, decimal
	if binary {
		base, names = 1024, binaryPrefix
	}
	n := 0
	scale := 1.0
	for n+1 < len(names) && abs >= base*scale {
		scale *= base
		n++
	}
	if abs < 0.001 && !binary {
		names = small
		for n+1 < len(names) && abs < scale {
			scale /= 1000
			n++
		}
	}
	scaled := v / scale
	if math.Abs(scaled) >= 1e4 || math.Abs(scaled) < 1e-3 {
		return strconv.FormatFloat(v, 'g', 4, 64)
	}
	digits := 6
	if step > 0 {
		digits = max(0, min(12, int(math.Ceil(-math.Log10(step/scale)-1e-9))))
		if binary {
			digits = min(digits, 3)
		}
	}
	text := strconv.FormatFloat(scaled, 'f', digits, 64)
	if step == 0 {
		text = strconv.FormatFloat(scaled, 'g', 5, 64)
	}
	if names[n] != "" {
		text += " " + names[n]
	}
	return text
}
