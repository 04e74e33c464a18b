package dataset

import "math"

// kind is how the values of a series move.
type kind uint8

const (
	kindConst   kind = iota // always the mean
	kindCounter             // whole numbers, rising
	kindCentis              // hundredths, rising: processor ticks
	kindNanos               // billionths, rising: clocks of the scheduler
	kindGauge               // whole numbers, wandering
	kindPages               // multiples of 4096, wandering or rising
	kindLoad                // hundredths, wandering
	kindNoise               // billionths, drawn afresh each time
	kindClock               // the time of the sample, in seconds
	kindBucket              // a share of a histogram's observations, rounded down
	kindSum                 // the sum of a histogram's observations
)

// shape is how a series of a template moves. Mean is the mean step or the
// constant itself. The series of one histogram share its number as their group,
// hence their observations.
type shape struct {
	kind   kind
	rising bool
	mean   int64
	scale  float64
	group  uint64
}

const (
	// restartRounds is how many rounds lie between two restarts of a target, at
	// which its counters begin again: 4 hours at 15 s.
	restartRounds = 960
	// idleOf8 of 8 counters and gauges never move, as on real hosts.
	idleOf8 = 3
)

// Walk gives the values of each series, round after round. The first value of a
// series belongs to the first round in which it is asked for.
type Walk struct {
	d     *Dataset
	state []uint64
	level []int64
}

// NewWalk begins all series of d anew.
func (d *Dataset) NewWalk() *Walk {
	w := &Walk{d: d, state: make([]uint64, d.Len()), level: make([]int64, d.Len())}
	for i := range w.state {
		s := &hostTemplate[i%HostSeries].shape
		host := uint64(i / HostSeries)
		id := uint64(i)
		if s.group != 0 {
			id = 1<<40 | host<<16 | s.group
		}
		w.state[i] = mix(d.config.Seed ^ mix(id))
		w.level[i] = s.mean * int64(1000+w.state[i]>>8&0xffff)
	}
	return w
}

// Next is the value of series i in the given round. It must be called once for
// each round, in order.
func (w *Walk) Next(i, round int) float64 {
	t := &hostTemplate[i%HostSeries]
	s := &t.shape
	switch s.kind {
	case kindConst:
		return float64(s.mean)
	case kindClock:
		return float64(w.d.Time(i, round)) / 1000
	case kindNoise:
		return float64(w.draw(i)%uint64(2*s.mean)) / 1e9
	case kindGauge, kindPages, kindLoad:
		if !s.rising {
			w.wander(i, s)
			return scaled(s, w.level[i])
		}
	}
	if (round+int(mix(uint64(i/HostSeries))%restartRounds))%restartRounds == 0 {
		w.level[i] = 0
	}
	if s.group != 0 || !w.idle(i) {
		w.level[i] += int64(w.draw(i) % uint64(2*s.mean+1))
	}
	return scaled(s, w.level[i])
}

// wander takes one step up or down, not below zero.
func (w *Walk) wander(i int, s *shape) {
	if w.idle(i) {
		return
	}
	step := int64(w.draw(i)%uint64(2*s.mean+1)) - s.mean
	w.level[i] = max(w.level[i]+step, 0)
}

// idle reports whether a series never moves. The answer must not depend on the
// drawn numbers, so that it stays the same.
func (w *Walk) idle(i int) bool {
	return mix(w.d.config.Seed+uint64(i)*2654435761)%8 < idleOf8
}

// draw is the next pseudo-random number of series i (xorshift64).
func (w *Walk) draw(i int) uint64 {
	x := w.state[i]
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	w.state[i] = x
	return x >> 3
}

// scaled is the value that a series shows at a level.
func scaled(s *shape, level int64) float64 {
	switch s.kind {
	case kindCentis, kindLoad:
		return float64(level) / 100
	case kindNanos:
		return float64(level) / 1e9
	case kindPages:
		return float64(level) * 4096
	case kindBucket:
		return math.Floor(float64(level) * s.scale)
	case kindSum:
		return float64(level)*s.scale + float64(level%97)*0.00131
	default:
		return float64(level)
	}
}
