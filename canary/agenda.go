package canary

import (
	"context"
	"time"
)

// windowLength is how much time is read at once, at most.
const windowLength = time.Hour

const dayLength = 24 * time.Hour

// oldAge is the age in days from which on a sealed sample counts as old.
const oldAge = 7

// window is a stretch of time to look at: later than from, up to and including to.
type window struct {
	age      string
	from, to int64
	// failures counts how often it could not be read.
	failures int
}

// failuresMax is how often a window is tried.
const failuresMax = 5

// agenda is what is still to be looked at.
type agenda struct {
	// begun tells that the last round of the time before this process is known.
	begun bool
	// cutDone is up to where samples that were cut were looked at, Unix ms.
	cutDone int64
	// windows wait, the first one first: those of days that were sealed since the last step. They are few, since at
	// most windowsMax wait.
	windows []window
	// sealed says of what sealing a day's windows were added, rolled of which days the aggregates were looked at since. They hold
	// the newest days only.
	sealed map[int64]time.Time
	rolled map[int64]bool
}

// windowsMax bounds the windows that wait to those of two days. What is left out then is still met at random.
const windowsMax = 48

// newestDays are those of which it is remembered that they were looked at.
const newestDays = 3

// lookBack looks at samples of each age: at those that have just left memory, at the next window of a day that was
// sealed, or else at any old one, and at a day's aggregates.
func (c *Canary) lookBack(ctx context.Context) {
	if !c.agenda.begun {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	now := c.o.Now()
	c.lookAtCut(ctx, now)
	days, err := c.o.Past.Days()
	if err != nil {
		c.readFailed(ctx, ageSealed, err)
		return
	}
	c.addSealed(days)
	if len(c.agenda.windows) > 0 {
		w := c.agenda.windows[0]
		c.agenda.windows = c.agenda.windows[1:]
		if w.failures++; !c.look(ctx, w.age, w.from, w.to) && w.failures < failuresMax {
			c.agenda.windows = append(c.agenda.windows, w)
		}
	} else if w, ok := c.anyWindow(days, now); ok {
		c.look(ctx, w.age, w.from, w.to)
	}
	c.lookAtAggregates(ctx, days)
}

// lookAtCut looks at the rounds that came to the age of cutting since it last did.
func (c *Canary) lookAtCut(ctx context.Context, now time.Time) {
	to := now.Add(-c.o.CutAge).UnixMilli()
	from := max(c.agenda.cutDone, to-windowLength.Milliseconds())
	if rounds := c.ledger.between(from, to); len(rounds) == 0 || c.look(ctx, ageCut, from, to) {
		c.agenda.cutDone = to
	}
}

// addSealed adds the windows of the newest days that were sealed since the last step.
func (c *Canary) addSealed(days []Day) {
	newest := newestSealed(days, newestDays)
	for day := range c.agenda.sealed {
		if len(newest) > 0 && day < newest[0].StartMillis {
			delete(c.agenda.sealed, day)
			delete(c.agenda.rolled, day)
		}
	}
	for _, d := range newest {
		if c.agenda.sealed[d.StartMillis].Equal(d.Sealed) {
			continue
		}
		c.agenda.sealed[d.StartMillis] = d.Sealed
		delete(c.agenda.rolled, d.StartMillis)
		for at := d.StartMillis; at < d.StartMillis+dayLength.Milliseconds() && len(c.agenda.windows) < windowsMax; at += windowLength.Milliseconds() {
			c.agenda.windows = append(c.agenda.windows, window{age: ageSealed, from: at - 1, to: at + windowLength.Milliseconds() - 1})
		}
	}
}

// newestSealed are at most n of the days, in order.
func newestSealed(days []Day, n int) []Day {
	var out []Day
	for _, d := range days {
		if !d.Sealed.IsZero() {
			out = append(out, d)
		}
	}
	return out[max(0, len(out)-n):]
}

// anyWindow is an hour of any day that is sealed.
func (c *Canary) anyWindow(days []Day, now time.Time) (window, bool) {
	sealed := newestSealed(days, len(days))
	if len(sealed) == 0 {
		return window{}, false
	}
	d := sealed[c.random.IntN(len(sealed))]
	from := d.StartMillis - 1 + windowLength.Milliseconds()*c.random.Int64N(24)
	age := ageSealed
	if now.UnixMilli()-d.StartMillis > (oldAge * dayLength).Milliseconds() {
		age = ageOld
	}
	return window{age: age, from: from, to: from + windowLength.Milliseconds()}, true
}

// lookAtAggregates looks at a day that was rolled up: the newest that was not looked at yet, else any.
func (c *Canary) lookAtAggregates(ctx context.Context, days []Day) {
	var rolled []Day
	for _, d := range days {
		if d.Rolled {
			rolled = append(rolled, d)
		}
	}
	if len(rolled) == 0 || len(c.o.Resolutions) == 0 {
		return
	}
	chosen := rolled[c.random.IntN(len(rolled))]
	for _, d := range rolled {
		if _, newest := c.agenda.sealed[d.StartMillis]; newest && !c.agenda.rolled[d.StartMillis] {
			chosen = d
			c.agenda.rolled[d.StartMillis] = true
			break
		}
	}
	c.aggregates(ctx, chosen, c.o.Resolutions[c.random.IntN(len(c.o.Resolutions))])
}
