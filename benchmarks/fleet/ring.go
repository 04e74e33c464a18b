package fleet

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"varve/benchmarks/recording"
)

// Ring is a recording at the fleet's step, stitched so that every increment is one
// that really took a step:
//
//  1. A recording at a finer interval, step/interval = p, has p phases: the slots
//     0, p, 2p and so on, the slots 1, p+1, 2p+1 and so on. Each phase is a true
//     recording at the step.
//  2. The phases are joined end to end. At a joint a counter is shifted so that it
//     goes on by the first increment of the phase that begins.
//  3. The end is joined to the beginning in the same way: each turn adds what the
//     counter gained on the way round.
//
// A shift is added in integers of the series' last decimal place, so that values stay
// what an exporter would print. A series that has no such place, a sum of float64, is
// shifted in float64, which rounds as the exporter's own addition does. A counter
// that restarted keeps its shift: it drops where it dropped, to another value.
//
// Gauges are as recorded; they may jump at joints. A slot that was not scraped stays
// empty. A Ring is immutable.
type Ring struct {
	name string
	// delays has one value a position: by how much the scrape was late, -1 if there
	// was none. spread is the largest.
	delays  []int64
	spread  int64
	scrapes int
	series  []ringSeries
}

// ringSeries is a series of a ring.
type ringSeries struct {
	labels  labels.Labels
	counter bool
	// scale is ten to the number of decimal places, 0 if the values have none.
	scale  float64
	values []float64
	// turn is what one turn adds to a counter, quanta are gains that the recording
	// saw: sums of them are multiples of whatever all increments are multiples of.
	// Both are in units of 1/scale, or of 1 without a scale.
	turn   float64
	quanta [8]float64
}

// scaledMax bounds the integers that a scaled counter may reach, with room for
// offsets and turns below 2^53.
const scaledMax = 1 << 50

// Stitch makes a ring of a recording. The step is a multiple of the recording's
// interval.
func Stitch(c *recording.Columns, intervalMillis, stepMillis int64) (*Ring, error) {
	phases := int(stepMillis / intervalMillis)
	if phases < 1 || stepMillis%intervalMillis != 0 || c.Slots < 2*phases {
		return nil, fmt.Errorf("stitch %s: %d slots of %d ms give no two steps of %d ms", c.Name, c.Slots, intervalMillis, stepMillis)
	}
	length := c.Slots / phases
	order := make([]int, 0, length*phases)
	for phase := range phases {
		for k := range length {
			order = append(order, k*phases+phase)
		}
	}
	r := &Ring{name: c.Name}
	for _, slot := range order {
		delay := c.DelayMillis[slot]
		r.delays = append(r.delays, delay)
		r.spread = max(r.spread, delay)
		if delay >= 0 {
			r.scrapes++
		}
	}
	if r.spread >= stepMillis/2 {
		return nil, fmt.Errorf("stitch %s: scrapes were up to %d ms late: the machine was too busy to record", c.Name, r.spread)
	}
	for _, s := range c.Series {
		r.series = append(r.series, stitchSeries(s, order, length))
	}
	return r, nil
}

// Name is that of the recording.
func (r *Ring) Name() string { return r.name }

// Len is the number of positions: steps without a repetition.
func (r *Ring) Len() int { return len(r.delays) }

// Series is the number of series.
func (r *Ring) Series() int { return len(r.series) }

// stitchSeries joins the phases of one series.
func stitchSeries(s recording.Series, order []int, length int) ringSeries {
	out := ringSeries{labels: s.Labels, counter: s.Counter, values: make([]float64, len(order))}
	for position, slot := range order {
		out.values[position] = s.Values[slot]
	}
	if s.Decimals >= 0 {
		out.scale = math.Pow10(s.Decimals)
	}
	if !s.Counter {
		return out
	}
	if out.scale > 0 && !out.fits(len(order)/length) {
		out.scale = 0
	}
	ends := math.NaN() // the last value of the phases so far, shifted
	starts := math.NaN()
	for from := 0; from < len(order); from += length {
		first, gain, last, some := out.walk(from, length)
		if !some {
			continue
		}
		shift := 0.0
		if !math.IsNaN(ends) {
			shift = ends + gain - first
		} else {
			starts = first
			out.turn = gain
		}
		out.shift(from, length, shift)
		ends = last + shift
	}
	out.turn += ends - starts
	if math.IsNaN(out.turn) || math.IsInf(out.turn, 0) || out.turn < 0 {
		out.turn = 0
	}
	out.findQuanta()
	return out
}

// fits says whether the series stays within exact integers when its growth is
// repeated.
func (s *ringSeries) fits(phases int) bool {
	for _, v := range s.values {
		if !recording.IsAbsent(v) && math.Abs(v*s.scale)*float64(phases) >= scaledMax {
			return false
		}
	}
	return true
}

// unit is a value in units of 1/scale, exactly.
func (s *ringSeries) unit(v float64) float64 {
	if s.scale == 0 {
		return v
	}
	return math.Round(v * s.scale)
}

// value is the inverse of unit.
func (s *ringSeries) value(unit float64) float64 {
	if s.scale == 0 {
		return unit
	}
	return unit / s.scale
}

// walk finds the first and last value of a phase, and the first gain, in units.
func (s *ringSeries) walk(from, length int) (first, gain, last float64, some bool) {
	seen := 0
	for _, v := range s.values[from : from+length] {
		if recording.IsAbsent(v) || math.IsNaN(v) {
			continue
		}
		u := s.unit(v)
		switch seen++; seen {
		case 1:
			first = u
		case 2:
			gain = max(0, u-first)
		}
		last = u
	}
	return first, gain, last, seen > 0
}

// shift adds units to a phase.
func (s *ringSeries) shift(from, length int, units float64) {
	if units == 0 {
		return
	}
	for i, v := range s.values[from : from+length] {
		if !recording.IsAbsent(v) {
			s.values[from+i] = s.value(s.unit(v) + units)
		}
	}
}

// findQuanta keeps gains from the beginning to points spread over the ring.
func (s *ringSeries) findQuanta() {
	first := recording.Absent
	for i, v := range s.values {
		if recording.IsAbsent(v) || math.IsNaN(v) {
			continue
		}
		if recording.IsAbsent(first) {
			first = v
		}
		if gain := s.unit(v) - s.unit(first); gain > 0 && !math.IsInf(gain, 0) {
			s.quanta[i*len(s.quanta)/len(s.values)] = gain
		}
	}
}

// at is the value at a position of a turn, with an offset in units.
func (s *ringSeries) at(position, turn int, offset float64) float64 {
	v := s.values[position]
	if !s.counter {
		return v
	}
	add := float64(turn)*s.turn + offset
	if add == 0 || recording.IsAbsent(v) {
		return v
	}
	return s.value(s.unit(v) + add)
}
