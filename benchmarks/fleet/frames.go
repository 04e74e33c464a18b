package fleet

import (
	"github.com/prometheus/prometheus/model/value"

	"varve/benchmarks/wire"
)

// Tally counts what was sent.
type Tally struct {
	// Samples are all, Stale those of them that are stale markers.
	Samples, Stale int64
}

// Count counts the samples of the rounds from first to below end.
func (f *Fleet) Count(first, end int) Tally {
	var tally Tally
	f.visit(0, len(f.targets), first, end, func(int, *series, float64, int64) {}, &tally)
	return tally
}

// frameRoundsMax is how many rounds a request may span: a small fleet would fill one
// with an hour of a lane, and some servers refuse what is an hour older than their
// newest sample.
const frameRoundsMax = 10

// Frames encodes the rounds from first to below end as requests of batch samples,
// but for the last of a lane and those that would span more than ten rounds. The
// targets are dealt to the lanes; within a lane one round follows the other.
func (f *Fleet) Frames(lanes, batch, first, end int) [][]wire.Frame {
	frames := make([][]wire.Frame, lanes)
	var slab wire.Slab
	var plain []byte
	for lane := range lanes {
		samples, began, last := 0, 0, 0
		flush := func() {
			if samples > 0 {
				frames[lane] = append(frames[lane], slab.Frame(plain, samples, last))
			}
			plain, samples = plain[:0], 0
		}
		var tally Tally
		f.visit(len(f.targets)*lane/lanes, len(f.targets)*(lane+1)/lanes, first, end, func(round int, s *series, v float64, millis int64) {
			if samples > 0 && round-began >= frameRoundsMax {
				flush()
			}
			if samples == 0 {
				began = round
			}
			plain = wire.AppendSeries(plain, s.wire, v, millis)
			last = round
			if samples++; samples == batch {
				flush()
			}
		}, &tally)
		flush()
	}
	return frames
}

// visit calls back with every sample of the targets from lo to below hi, round by
// round, and counts them.
func (f *Fleet) visit(lo, hi, first, end int, call func(round int, s *series, v float64, millis int64), tally *Tally) {
	for round := first; round < min(end, f.config.Rounds); round++ {
		for t := lo; t < hi; t++ {
			g := &f.targets[t]
			if round < g.from || round > g.to {
				continue
			}
			millis := f.Millis(t, round)
			for i := range g.series {
				v, ok := f.At(t, i, round)
				if !ok {
					continue
				}
				tally.Samples++
				if value.IsStaleNaN(v) {
					tally.Stale++
				}
				call(round, &g.series[i], v, millis)
			}
		}
	}
}
