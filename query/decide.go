package query

import (
	"slices"

	"varve/rollup"
)

// rawSpanMillis is how much time of samples, over all windows together, the engine is left to
// read by itself where no buckets fit: a day is what its own windows are quick at, and what no sample
// budget is exceeded by.
const rawSpanMillis = 24 * 3600 * 1000

// assumedIntervalMillis is the distance of samples from which the number of raw samples is
// guessed before they are read: the usual scrape interval of large installations.
const assumedIntervalMillis = 15_000

// decide chooses what p is answered from. It returns false if the engine is to read raw
// samples itself. The rule, for windows (t-range, t] on the grid:
//
//  1. a resolution was asked for: its buckets;
//  2. the coarsest buckets on whose bounds all windows begin and end: exact, no samples needed;
//  3. the coarsest buckets for which the samples at both ends of the windows, that no whole bucket
//     has, span at most half of the time of all samples: exact while these samples are kept;
//  4. raw samples: read by the engine if all are kept and it is to be strict, or if they span
//     no more than a day; else by us.
//
// Automatically, 3 and 4 pass over raw samples if those of all windows seem to be more than a query may
// hold: storage reads whole chunks, so that bounds cost it about as much as windows. Windows that are then
// without samples are fitted to buckets, see windowReader and closest.
//
// What buckets only give an estimate of is read by the engine where all raw samples are kept.
func (p *planner) decide(made *plan) bool {
	rawKept := p.rawKept(made.grid, made.rangeMillis)
	if p.startTimestamps && slices.Contains([]rollup.Function{rollup.Rate, rollup.Irate, rollup.Increase, rollup.Resets}, made.function) {
		if rawKept && p.policy != policyFixed {
			return false
		}
		made.neverExact = true
	}
	if p.policy == policyFixed {
		made.resolution = p.resolutions[0]
		return true
	}
	if made.function.Estimated() {
		return !rawKept
	}
	made.edges = true
	span := made.spanMillis()
	best, share := int64(0), int64(0)
	fits := false
	for _, r := range slices.Backward(p.resolutions) {
		edges := made.edgesMillis(r)
		if edges == 0 {
			best, fits = r, true
			break
		}
		if share == 0 && 2*edges <= span && made.rangeMillis >= r {
			share = r
		}
	}
	if best == 0 {
		best = share
	}
	made.resolution = best
	made.thrifty = !fits && p.policy == policyAuto
	return best > 0 || !rawKept || made.thrifty && span > rawSpanMillis
}

// spanMillis is the time of which all windows together have samples.
func (p *plan) spanMillis() int64 {
	return min(p.grid.count()*p.rangeMillis, p.grid.last-p.grid.first+p.rangeMillis)
}

// edgesMillis is the time at the bounds of all windows that no whole bucket has.
func (p *plan) edgesMillis(resolution int64) int64 {
	left := rollup.EndOf(p.grid.first-p.rangeMillis, resolution) - (p.grid.first - p.rangeMillis)
	right := p.grid.first - rollup.StartOf(p.grid.first, resolution)
	if n := p.grid.count(); n > 1 {
		if p.grid.step%resolution != 0 {
			left, right = resolution/2, resolution/2 // on average
		}
		return n * (left + right)
	}
	return left + right
}

// decideInstants chooses what a plain selector is answered from, false for raw samples read by
// the engine:
//
//  1. a resolution was asked for: its buckets;
//  2. all raw samples are kept and span no more than a day: those, of which the storage passes over most;
//  3. the coarsest buckets that end at all points of the grid: exact;
//  4. raw samples, and the last samples of buckets where they are gone.
func (p *planner) decideInstants(g grid) (resolution int64, ok bool) {
	if p.policy == policyFixed {
		return p.resolutions[0], true
	}
	rawKept := p.rawKept(g, p.lookback)
	if rawKept && g.last-g.first+p.lookback <= rawSpanMillis {
		return 0, false
	}
	for _, r := range slices.Backward(p.resolutions) {
		if g.first%r == 0 && (g.count() == 1 || g.step%r == 0) {
			return r, true
		}
	}
	return 0, !rawKept
}

// closest orders resolutions by how well they stand for windows of a range at points step
// apart that none fits: the coarsest of which one fits into both, then finer ones, then coarser ones.
//
// A resolution that was asked for comes before all others.
func (a *archive) closest(stepMillis, rangeMillis int64) []int64 {
	resolutions := a.resolutions
	if a.policy == policyFixed {
		return resolutions
	}
	limit := min(stepMillis, rangeMillis)
	fits := 0
	for fits < len(resolutions) && resolutions[fits] <= limit {
		fits++
	}
	order := slices.Clone(resolutions[:fits])
	slices.Reverse(order)
	return append(order, resolutions[fits:]...)
}
