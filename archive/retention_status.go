package archive

import (
	"context"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
)

// RetentionStatus is what the rules of retention keep, and what is there.
type RetentionStatus struct {
	// Today is the day by which ages are counted.
	Today format.Day
	// Levels are samples and then the resolutions in use.
	Levels []LevelStatus
	// Rules are those in force, with one at the end for the series that no other is for.
	Rules []RuleStatus
	// DiskBytes are those of table files, BytesMax how many the archive may take, 0 for any.
	DiskBytes, BytesMax uint64
	// Trims are the days from which rules remove some series, while others keep theirs.
	Trims []TrimDay
	// Dropping tells that what has expired waits for queries that began before.
	Dropping bool
	// Forget tells of series of which nothing is left.
	Forget ForgetStatus
}

// RuleStatus is a rule as it counts today.
type RuleStatus struct {
	// Text is the rule as people wrote it, empty for what keeps the series without a rule.
	Text string
	// Keep is how long it keeps each level, Cutoffs are the first days that it keeps.
	Keep    []time.Duration
	Cutoffs []format.Day
}

// LevelStatus is what is kept of samples, or of the buckets of a resolution.
type LevelStatus struct {
	// Resolution is the length of a bucket, 0 for samples.
	Resolution time.Duration
	// Floor is the first day that has not expired. Cutoff is the first that a rule keeps, for one series at
	// least: what lies before it is hidden and may expire. Last is the first that all rules keep.
	Floor, Cutoff, Last format.Day
	// Days are those that are rolled up, in order. It is empty for samples, of which Days tells.
	Days []LevelDay
}

// LevelDay is what a day has at a level.
type LevelDay struct {
	Day format.Day
	// Samples counts buckets, Bytes are those of keys and values.
	Samples, Bytes uint64
}

// Retention tells what the rules keep now.
func (a *Archive) Retention() (RetentionStatus, error) {
	if err := a.StartError(); err != nil {
		return RetentionStatus{}, err
	}
	c := a.kept.at(a.o.Now())
	s := RetentionStatus{Today: c.today, BytesMax: uint64(max(c.table.policy.BytesMax, 0))}
	for level := range c.days[0] {
		l := LevelStatus{Cutoff: c.days[0][level], Last: c.days[0][level]}
		resolution := uint32(0)
		if level > 0 {
			resolution = a.rolls.resolutions[level-1]
			l.Resolution = time.Duration(resolution) * time.Millisecond
			l.Days = a.rolls.days(resolution)
		}
		l.Floor = c.floors.Of(resolution)
		for _, days := range c.days {
			l.Cutoff, l.Last = min(l.Cutoff, days[level]), max(l.Last, days[level])
		}
		s.Levels = append(s.Levels, l)
	}
	for i, rule := range c.table.rules {
		s.Rules = append(s.Rules, RuleStatus{Text: rule.Text, Keep: slices.Clone(rule.Keep), Cutoffs: slices.Clone(c.days[i])})
	}
	for f := range format.FamilyNames {
		s.DiskBytes += a.db.FamilyStats(family(format.Family(f))).Bytes
	}
	trims, err := a.trimDays(c)
	if err != nil {
		return RetentionStatus{}, err
	}
	s.Trims = trims
	s.Dropping = a.views.oldest() < a.dropAfter.Load()
	s.Forget = a.forgettable()
	return s, nil
}

// Expiring is what is past its age, and still stored, of the series of a rule at a level.
type Expiring struct {
	// Rule is the place of the rule among those in force, Level 0 for samples or 1 more than that of a resolution.
	Rule, Level int
	// Series have some of it. Samples, or buckets, and Bytes of keys and values are shared out by the number of
	// series where a day is past its age for the series of some rules alone.
	Series, Samples, Bytes uint64
}

// Expiring tells what the rules will free, as far as it is sealed or rolled up. It reads which
// series were active on the days, and nothing of their samples.
func (a *Archive) Expiring(ctx context.Context) ([]Expiring, error) {
	days, err := a.Days()
	if err != nil {
		return nil, err
	}
	if err := a.index.drain(); err != nil {
		return nil, err
	}
	e := expiryCount{a: a, cutoffs: a.kept.at(a.o.Now()), active: map[format.Day]*roaring.Bitmap{}, found: map[[2]int]*expiring{}}
	for _, d := range days {
		if err := e.add(ctx, 0, LevelDay{Day: d.Day, Samples: d.Samples, Bytes: d.Bytes}); err != nil {
			return nil, err
		}
	}
	for i, resolution := range a.rolls.resolutions {
		for _, d := range a.rolls.days(resolution) {
			if err := e.add(ctx, i+1, d); err != nil {
				return nil, err
			}
		}
	}
	var out []Expiring
	for rule := range e.cutoffs.days {
		for level := range e.cutoffs.days[rule] {
			if f := e.found[[2]int{rule, level}]; f != nil {
				out = append(out, Expiring{
					Rule: rule, Level: level, Series: f.series.GetCardinality(), Samples: uint64(f.samples), Bytes: uint64(f.bytes),
				})
			}
		}
	}
	return out, nil
}

// expiryCount counts what is past its age.
type expiryCount struct {
	a       *Archive
	cutoffs *cutoffs
	active  map[format.Day]*roaring.Bitmap
	found   map[[2]int]*expiring // by rule and level
}

type expiring struct {
	series         *roaring.Bitmap
	samples, bytes float64
}

// add counts what is past its age of a day at a level.
func (e *expiryCount) add(ctx context.Context, level int, d LevelDay) error {
	if !slices.ContainsFunc(e.cutoffs.days, func(days []format.Day) bool { return d.Day < days[level] }) || d.Bytes == 0 {
		return ctx.Err()
	}
	active := e.active[d.Day]
	if active == nil {
		var err error
		if active, err = e.a.index.active(nil, d.Day, d.Day+1); err != nil {
			return err
		}
		if err := e.cutoffs.learn(e.a.cat, active); err != nil {
			return err
		}
		e.active[d.Day] = active
	}
	for rule, days := range e.cutoffs.days {
		if d.Day >= days[level] {
			continue
		}
		own := active
		if len(e.cutoffs.days) > 1 {
			own = e.cutoffs.table.union(func(r int) bool { return r == rule })
			own.And(active)
		}
		f := e.found[[2]int{rule, level}]
		if f == nil {
			f = &expiring{series: roaring.New()}
			e.found[[2]int{rule, level}] = f
		}
		f.series.Or(own)
		share := float64(own.GetCardinality()) / float64(max(active.GetCardinality(), 1))
		f.samples += share * float64(d.Samples)
		f.bytes += share * float64(d.Bytes)
	}
	return ctx.Err()
}
