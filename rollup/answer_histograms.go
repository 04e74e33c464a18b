package rollup

import "github.com/prometheus/prometheus/model/histogram"

// sum is sum_over_time or avg_over_time of histograms.
func (r *HistogramRow) sum(f Function) Answer {
	var notes Notes
	if r.Hints.Has(histogram.CounterReset) && r.Hints.Has(histogram.NotCounterReset) {
		notes = CollidingHints
	}
	if r.Sum == nil {
		return Answer{Notes: notes, Doubtful: true}
	}
	a := Answer{OK: true, Histogram: r.Sum, Notes: notes, Doubtful: r.Sum.HasOverflow()}
	if f == AvgOverTime {
		a.Histogram = r.Sum.Copy().Div(float64(r.Count))
	}
	return a
}

// rate is upstream's extrapolatedRate for histograms without start timestamps. Upstream
// leaves the first histogram out if the second is a reset, and else subtracts it. Here it is
// subtracted, and added again with the correction, which comes to the same if all have
// one layout.
func (r *HistogramRow) rate(f Function, from, to int64) Answer {
	if r.Count < 2 {
		return Answer{}
	}
	counter := f != Delta
	if r.First.UsesCustomBuckets() != r.Last.UsesCustomBuckets() {
		return Answer{Notes: MixedBuckets, Doubtful: counter && (r.Resets > 0 || r.Hints.Has(histogram.GaugeType))}
	}
	a := Answer{Notes: r.rateNotes(counter)}
	if counter {
		a.SureOfCount = r.Sum != nil
		a.Doubtful = r.Sum == nil || r.Resets > 0 && !r.oneLayout()
	}
	h, notes, ok := r.growth(counter)
	if a.Notes |= notes; !ok {
		return a
	}
	e := extrapolation{
		firstMillis: r.FirstMillis, lastMillis: r.LastMillis, samples: r.Count, first: r.First.Count, result: h.Count, counter: counter,
	}
	a.OK, a.Histogram = true, h.Mul(e.factor(f, from, to))
	return a
}

// growth is the last histogram less the first one, with what was lost in resets of counters, as a gauge.
func (r *HistogramRow) growth(counter bool) (h *histogram.FloatHistogram, notes Notes, ok bool) {
	h = r.Last.CopyToSchema(r.rateSchema(counter))
	_, _, mismatched, err := h.Sub(r.First)
	if err != nil {
		return nil, 0, false
	}
	if mismatched {
		notes = MismatchedBounds
	}
	if counter && r.Correction != nil {
		if _, _, _, err := h.Add(r.Correction); err != nil {
			return nil, notes, false
		}
	}
	h.CounterResetHint = histogram.GaugeType
	return h.Compact(0), notes, true
}

func (r *HistogramRow) rateNotes(counter bool) Notes {
	if counter {
		if r.Hints.Has(histogram.GaugeType) {
			return NotCounter
		}
		return 0
	}
	if r.First.CounterResetHint != histogram.GaugeType || r.Last.CounterResetHint != histogram.GaugeType {
		return NotGauge
	}
	return 0
}

// rateSchema is the schema of the result. Upstream looks at all histograms of counters,
// and at the first and the last of gauges.
func (r *HistogramRow) rateSchema(counter bool) int32 {
	least := min(r.First.Schema, r.Last.Schema)
	if counter && r.Sum != nil {
		least = min(least, r.Sum.Schema)
	}
	return least
}

// oneLayout tells that the first, the last and the corrected histograms have buckets of one
// layout.
func (r *HistogramRow) oneLayout() bool {
	if r.Correction == nil {
		return false
	}
	for _, h := range []*histogram.FloatHistogram{r.Last, r.Correction, r.Sum} {
		if h.Schema != r.First.Schema || h.ZeroThreshold != r.First.ZeroThreshold || !sameBuckets(h, r.First) {
			return false
		}
	}
	return true
}
