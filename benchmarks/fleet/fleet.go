// Package fleet makes fleets of targets out of recordings of real exporters, and
// the requests by which a scraper would send them on.
//
// A Ring is a recording at the fleet's step. A target walks round its ring from a
// place of its own, with offsets of its own on all counters, a phase of its own
// within the step and scrape delays from another place of the recording. So no two
// targets are alike: copies would be folded by whatever compresses blocks, which a
// real fleet does not allow. A fleet with more targets than its ring has positions
// is an error.
//
// Targets may live for the whole time or, as pods do, for a part of it: then another
// one with another name takes the place of each that ends. Where a series ends, by
// itself or with its target, a stale marker follows as a scraper would send it.
//
// Time runs in rounds: in round r each target that lives is scraped once, between r
// and r+1 steps after the start. All samples can be had at random (At), so a fleet is
// never held in memory: only rings and labels are.
//
// A Fleet is immutable and may be used by several goroutines. It imitates neither
// correlations between targets nor the load of a day, and scrapes never fail unless
// the recording's did.
package fleet

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"varve/benchmarks/recording"
	"varve/benchmarks/wire"
)

// Group is some targets of one ring.
type Group struct {
	Ring *Ring
	// Count is how many of them live at a time.
	Count int
	// SeriesMax leaves out all but so many series, spread over the ring's; 0 leaves
	// out none.
	SeriesMax int
}

// Config names a fleet. Equal configurations give equal samples.
type Config struct {
	Seed   uint64
	Groups []Group
	// StartMillis is when round 0 begins, StepMillis the time between rounds, Rounds
	// their number.
	StartMillis, StepMillis int64
	Rounds                  int
	// LifeRounds is how long a target lives, 0 for ever.
	LifeRounds int
	// Naming gives targets their labels.
	Naming Naming
}

// Fleet is a set of targets with their series.
type Fleet struct {
	config  Config
	targets []target
	series  int
	bytes   int64
}

// target is one target.
type target struct {
	ring *Ring
	// position is where in the ring it is in round 0, lateness where its delays
	// begin.
	position, lateness int
	phaseMillis        int64
	// from and to are the rounds in which it lives, to excluded.
	from, to int
	series   []series
}

// series is one series of a target.
type series struct {
	ring   *ringSeries
	offset float64
	labels labels.Labels
	// wire are the labels as remote write 1.0 has them.
	wire []byte
}

// New makes a fleet.
func New(config Config) (*Fleet, error) {
	if config.Rounds < 1 || config.StepMillis < 1 || config.LifeRounds < 0 {
		return nil, fmt.Errorf("fleet: rounds and step must be at least 1: %d, %d", config.Rounds, config.StepMillis)
	}
	f := &Fleet{config: config}
	instances := map[string]bool{}
	for number, group := range config.Groups {
		lives := livesOf(config, group.Count)
		length := group.Ring.Len()
		if len(lives) > length {
			return nil, fmt.Errorf("fleet: %d targets of a recording with %d steps: two of them would be identical; record longer or ask for fewer", len(lives), length)
		}
		for i, life := range lives {
			t := target{ring: group.Ring, from: life.from, to: life.to, position: i * length / len(lives)}
			random := mix(config.Seed ^ mix(uint64(number)<<32|uint64(i)))
			t.lateness = int(random % uint64(length))
			t.phaseMillis = int64(mix(random) % uint64(config.StepMillis-group.Ring.spread))
			f.addSeries(&t, group, i, mix(random+1))
			f.targets = append(f.targets, t)
			if instance := f.Instance(len(f.targets) - 1); instances[instance] {
				return nil, fmt.Errorf("fleet: two targets are called %s; use recordings of other names, or another seed", instance)
			}
			instances[f.Instance(len(f.targets)-1)] = true
		}
	}
	return f, nil
}

// life is when a target lives.
type life struct{ from, to int }

// livesOf are the lives of the targets in count places, one after the other in each.
// Places do not change all at once.
func livesOf(config Config, count int) []life {
	var lives []life
	for place := range count {
		if config.LifeRounds == 0 {
			lives = append(lives, life{0, config.Rounds})
			continue
		}
		for from := -place * config.LifeRounds / count; from < config.Rounds; from += config.LifeRounds {
			if to := min(from+config.LifeRounds, config.Rounds); to > 0 {
				lives = append(lives, life{max(0, from), to})
			}
		}
	}
	return lives
}

// addSeries names the series of the i-th target of a group.
func (f *Fleet) addSeries(t *target, group Group, i int, random uint64) {
	all := group.Ring.series
	count := len(all)
	if group.SeriesMax > 0 {
		count = min(count, group.SeriesMax)
	}
	name := f.config.Naming.target(group.Ring.name, i, random)
	for k := range count {
		ring := &all[k*len(all)/count]
		s := series{ring: ring, labels: name.series(ring.labels)}
		if ring.counter {
			random = mix(random)
			s.offset = float64(random%3) * ring.quanta[random>>8%uint64(len(ring.quanta))]
		}
		s.labels.Range(func(l labels.Label) {
			s.wire = wire.AppendLabel(s.wire, l.Name, l.Value)
			f.bytes += int64(len(l.Name) + len(l.Value))
		})
		t.series = append(t.series, s)
		f.series++
	}
}

// Config is what the fleet was made from.
func (f *Fleet) Config() Config { return f.config }

// Targets is the number of targets, those that do not live at the same time included.
func (f *Fleet) Targets() int { return len(f.targets) }

// Series is the number of series of all targets.
func (f *Fleet) Series() int { return f.series }

// LabelBytesMean is the mean length of a series' label names and values.
func (f *Fleet) LabelBytesMean() float64 { return float64(f.bytes) / float64(max(1, f.series)) }

// LabelsMean is the mean number of labels of a series.
func (f *Fleet) LabelsMean() float64 {
	n := 0
	for _, t := range f.targets {
		for _, s := range t.series {
			n += s.labels.Len()
		}
	}
	return float64(n) / float64(max(1, f.series))
}

// TargetSeries is how many series a target has.
func (f *Fleet) TargetSeries(t int) int { return len(f.targets[t].series) }

// Labels are those of series i of a target.
func (f *Fleet) Labels(t, i int) labels.Labels { return f.targets[t].series[i].labels }

// Wire are the labels of series i of a target as remote write 1.0 has them, read only.
func (f *Fleet) Wire(t, i int) []byte { return f.targets[t].series[i].wire }

// Instance is the value of the label that is different for every target.
func (f *Fleet) Instance(t int) string { return f.Labels(t, 0).Get("instance") }

// Lives are the rounds of a target, to excluded. In round to there may be stale
// markers, if there is such a round.
func (f *Fleet) Lives(t int) (from, to int) { return f.targets[t].from, f.targets[t].to }

// Repeated is the share of rounds in which a target shows increments that it has
// shown before, from 0 to below 1: what the recordings are too short for.
func (f *Fleet) Repeated() float64 {
	repeated, all := 0, 0
	for _, t := range f.targets {
		repeated += max(0, t.to-t.from-t.ring.Len())
		all += t.to - t.from
	}
	return float64(repeated) / float64(max(1, all))
}

// Millis is when a target is scraped in a round.
func (f *Fleet) Millis(t, round int) int64 {
	g := &f.targets[t]
	delay := max(0, g.ring.delays[(g.lateness+round)%len(g.ring.delays)])
	return f.config.StartMillis + int64(round)*f.config.StepMillis + g.phaseMillis + delay
}

// Round is the round in which a target was scraped at a time; ok is false if it was
// not scraped then.
func (f *Fleet) Round(t int, millis int64) (round int, ok bool) {
	round = int((millis - f.config.StartMillis) / f.config.StepMillis)
	ok = millis >= f.config.StartMillis && round < f.config.Rounds && f.Millis(t, round) == millis
	return round, ok
}

// staleMarker ends a series.
var staleMarker = math.Float64frombits(value.StaleNaN)

// At is the sample of series i of a target in a round; ok is false if there is none.
func (f *Fleet) At(t, i, round int) (v float64, ok bool) {
	g := &f.targets[t]
	v = g.at(i, round)
	if !recording.IsAbsent(v) {
		return v, true
	}
	// A scraper marks the end of a series when it sees the next scrape without it.
	if round > g.to || round <= g.from || round < g.to && !g.scraped(round) || recording.IsAbsent(g.at(i, round-1)) {
		return 0, false
	}
	return staleMarker, true
}

// scraped says whether the recording has a scrape for a round.
func (g *target) scraped(round int) bool {
	return g.ring.delays[(g.position+round)%len(g.ring.delays)] >= 0
}

// at is the value of a series in a round of the target's life, or Absent.
func (g *target) at(i, round int) float64 {
	if round < g.from || round >= g.to {
		return recording.Absent
	}
	s, length := &g.series[i], len(g.ring.delays)
	return s.ring.at((g.position+round)%length, (g.position+round)/length, s.offset)
}

// mix spreads the bits of x (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
