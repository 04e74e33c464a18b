package rollup

import "github.com/prometheus/prometheus/model/histogram"

// lastTwo is irate or idelta, of the kind that the last sample has. Upstream takes the last two
// samples. If these are all there are, that is the answer; else it is doubtful, and the mean of all pairs of
// neighbours stands for the last one: their rate, with what was lost in resets, or their difference, of which
// resets are a part, since it is for gauges.
func (s *Summary) lastTwo(f Function, h *HistogramRow) Answer {
	mixed := h != nil && s.Count > 0
	if s.endsWithHistogram() {
		if h.Count > 1 {
			return h.lastTwo(f, mixed)
		}
	} else if s.Count > 1 {
		return s.lastTwoFloats(f, mixed)
	}
	if mixed {
		return Answer{Notes: MixedKinds}
	}
	return Answer{}
}

func (s *Summary) lastTwoFloats(f Function, mixed bool) Answer {
	a := Answer{OK: true, Float: s.Last - s.First, Doubtful: mixed || s.Count > 2}
	switch {
	case f == Idelta:
		a.Float /= float64(s.Count - 1)
		return a
	case s.Count == 2 && s.Last < s.First:
		a.Float = s.Last
	case s.Count > 2:
		a.Float += s.Correction
	}
	a.Float /= float64(s.LastMillis-s.FirstMillis) / 1000
	return a
}

// lastTwo is irate or idelta of two histograms and more. Mixed tells that there are floats, too.
func (r *HistogramRow) lastTwo(f Function, mixed bool) Answer {
	counter := f == Irate
	a := Answer{Notes: r.rateNotes(counter), Doubtful: mixed || r.Count > 2}
	switch {
	case counter && r.Count == 2 && r.Last.DetectReset(r.First):
		a.OK, a.Histogram = true, r.Last.Copy()
		a.Histogram.CounterResetHint = histogram.GaugeType
		a.Histogram.Compact(0)
	case r.First.UsesCustomBuckets() != r.Last.UsesCustomBuckets():
		a.Notes |= MixedBuckets
		return a
	default:
		var notes Notes
		a.Histogram, notes, a.OK = r.growth(counter)
		if a.Notes |= notes; !a.OK {
			return a
		}
	}
	if counter {
		a.Histogram.Div(float64(r.LastMillis-r.FirstMillis) / 1000)
	} else {
		a.Histogram.Div(float64(r.Count - 1))
	}
	return a
}

// Trend estimates the line that deriv and predict_linear draw through the floats of a window, that of least
// squares:
//
//  1. The samples of a row are taken to be evenly spaced between its first and its last one, with the row's mean
//     in the middle. Those means draw the line, each with the weight of its samples. If it were for these
//     alone, of n rows of one length all but 1/n² of the spread of the samples in time would be in it.
//  2. For the rest the slope of a row stands, from its first to its last sample, with the weight of the spread in
//     time that evenly spaced samples have around their middle: (n+1)/(n-1) dt²/12 each.
//
// The zero Trend has no rows.
type Trend struct {
	// originMillis and level are those of the first row. All else is relative to them, so that differences
	// of large numbers don't lose what they are about; times are in seconds.
	originMillis int64
	level        float64
	samples      float64
	times        float64 // sum
	values       float64 // sum
	squares      float64 // of times, sum
	products     float64 // of times and values, sum
}

// Add adds what a row has of floats.
func (t *Trend) Add(r *Row) {
	if r.Count == 0 {
		return
	}
	n := float64(r.Count)
	mean := r.Sum/n + r.SumLow/n
	if t.samples == 0 {
		t.originMillis, t.level = r.FirstMillis, mean
	}
	span := float64(r.LastMillis-r.FirstMillis) / 1000
	x, y := float64(r.FirstMillis-t.originMillis)/1000+span/2, mean-t.level
	t.samples += n
	t.times += n * x
	t.values += n * y
	t.squares += n * x * x
	t.products += n * x * y
	if r.Count > 1 {
		spread := n * span * span / 12 * (n + 1) / (n - 1)
		t.squares += spread
		t.products += spread * (r.Last - r.First) / span
	}
}

// Answer returns Deriv, or PredictLinear as of a time in Unix ms and some seconds ahead of it. There is none below two
// samples. It is Doubtful, always.
func (t *Trend) Answer(f Function, at int64, aheadSeconds float64) Answer {
	if t.samples < 2 {
		return Answer{Doubtful: true}
	}
	middle, mean := t.times/t.samples, t.values/t.samples
	slope := (t.products - t.times*mean) / (t.squares - t.times*middle)
	a := Answer{OK: true, Float: slope, Doubtful: true}
	if f == PredictLinear {
		a.Float = t.level + mean + slope*(float64(at-t.originMillis)/1000-middle+aheadSeconds)
	}
	return a
}
