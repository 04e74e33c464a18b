package rollup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/util/kahansum"
)

// Summary is what is known of a stretch of time of a series: a Row, and a HistogramRow if
// there are native histograms. It grows at its end, by samples and by later summaries, which
// come to the same:
//
//  1. Where two stretches meet, the first sample of the later is compared with the last of
//     the earlier, of whatever kind they are: that may be a reset and a change.
//  2. All else is a sum, a least, a greatest, or that of the earlier or the later stretch.
//
// The zero Summary has no samples. A Summary belongs to one goroutine, and is copied by
// Clone alone.
type Summary struct {
	Row
	// histograms is nil until there is one.
	histograms *sums
}

// sums is a HistogramRow that grows.
type sums struct {
	HistogramRow
	// low is what is to be added to Sum, nil for nothing; it has the layout of Sum.
	low *histogram.FloatHistogram
	// ownsSum and ownsCorrection tell that nobody else holds these histograms.
	ownsSum, ownsCorrection bool
}

// Reset makes s empty again.
func (s *Summary) Reset() { *s = Summary{} }

// Samples returns the number of samples of both kinds.
func (s *Summary) Samples() int64 { return s.Count + s.histogramCount() }

func (s *Summary) histogramCount() int64 {
	if s.histograms == nil {
		return 0
	}
	return s.histograms.Count
}

// Histograms returns what s has of native histograms, nil if nothing. The histograms
// must not be changed, and are complete: Sum holds its compensation.
func (s *Summary) Histograms() *HistogramRow {
	if s.histogramCount() == 0 {
		return nil
	}
	r := s.histograms.HistogramRow
	if s.histograms.low != nil && r.Sum != nil {
		r.Sum = withLow(r.Sum, s.histograms.low)
	}
	return &r
}

// Float adds a float sample, later than all before.
func (s *Summary) Float(t int64, v float64) {
	switch {
	case s.endsWithHistogram():
		s.Resets++
		s.Changes++
	case s.Count > 0:
		s.compare(v)
	}
	if s.Count == 0 {
		s.FirstMillis, s.First, s.Min, s.Max, s.Sum, s.SumLow = t, v, v, v, v, 0
	} else {
		s.Min, s.Max = lesser(s.Min, v), greater(s.Max, v)
		s.Sum, s.SumLow = kahansum.Inc(v, s.Sum, s.SumLow)
	}
	s.LastMillis, s.Last = t, v
	s.Count++
	s.Ended = false
}

// Histogram adds a native histogram, later than all samples before. It keeps h, which must not
// change any more.
func (s *Summary) Histogram(t int64, h *histogram.FloatHistogram) {
	one := sums{HistogramRow: HistogramRow{Count: 1, FirstMillis: t, LastMillis: t, First: h, Last: h, Sum: h, Hints: HintOf(h.CounterResetHint)}}
	s.appendHistograms(&one)
	s.Ended = false
}

// Stale adds a stale marker, later than all before.
func (s *Summary) Stale() { s.Ended = true }

// Append adds a later stretch. It leaves b as it is.
func (s *Summary) Append(b *Summary) { s.append(&b.Row, b.histograms) }

// AppendRow adds row i of c, which is later than all in s.
func (s *Summary) AppendRow(c *Columns, i int) {
	r := c.Row(i)
	h := c.HistogramRow(i)
	if h == nil {
		s.append(&r, nil)
		return
	}
	s.append(&r, &sums{HistogramRow: *h})
}

func (s *Summary) append(r *Row, h *sums) {
	hasHistograms := h != nil && h.Count > 0
	if r.Count == 0 && !hasHistograms {
		s.Ended = s.Ended || r.Ended
		return
	}
	// The boundary belongs to the kind that comes first behind it, and is compared before
	// the other kind changes what lies before it.
	if hasHistograms && (r.Count == 0 || h.FirstMillis < r.FirstMillis) {
		s.meetHistograms(h)
		s.joinFloats(r)
		s.joinHistograms(h)
	} else {
		s.meetFloats(r)
		s.joinHistograms(h)
		s.joinFloats(r)
	}
	s.Ended = r.Ended
}

func (s *Summary) appendHistograms(h *sums) {
	s.meetHistograms(h)
	s.joinHistograms(h)
}

// endsWithHistogram tells the kind of the last sample.
func (s *Summary) endsWithHistogram() bool {
	return s.histogramCount() > 0 && (s.Count == 0 || s.histograms.LastMillis > s.LastMillis)
}

// compare counts what a float v is against the float before it.
func (s *Summary) compare(v float64) {
	if v < s.Last {
		s.Resets++
		s.Correction += s.Last
	}
	if v != s.Last && !(math.IsNaN(v) && math.IsNaN(s.Last)) {
		s.Changes++
	}
}

// meetFloats compares the last sample with a float behind it.
func (s *Summary) meetFloats(r *Row) {
	switch {
	case s.endsWithHistogram():
		s.Resets++
		s.Changes++
	case s.Count > 0:
		s.compare(r.First)
	}
}

// joinFloats adds the floats of r, whose boundary was compared.
func (s *Summary) joinFloats(r *Row) {
	if r.Count == 0 {
		return
	}
	if s.Count == 0 {
		s.FirstMillis, s.First, s.Min, s.Max, s.Sum, s.SumLow = r.FirstMillis, r.First, r.Min, r.Max, r.Sum, r.SumLow
	} else {
		s.Min, s.Max = lesser(s.Min, r.Min), greater(s.Max, r.Max)
		s.Sum, s.SumLow = kahansum.Inc(r.Sum, s.Sum, s.SumLow)
		if r.SumLow != 0 {
			s.Sum, s.SumLow = kahansum.Inc(r.SumLow, s.Sum, s.SumLow)
		}
	}
	s.LastMillis, s.Last = r.LastMillis, r.Last
	s.Count += r.Count
	s.Correction += r.Correction
	s.Resets += r.Resets
	s.Changes += r.Changes
}

// growing returns the histograms of s to be added to.
func (s *Summary) growing() *sums {
	if s.histograms == nil {
		s.histograms = &sums{}
	}
	return s.histograms
}

// Clone returns a copy that may be added to without changing s. It is good until s is
// added to.
func (s *Summary) Clone() Summary {
	c := Summary{Row: s.Row}
	if s.histograms != nil {
		h := *s.histograms
		h.ownsSum, h.ownsCorrection = false, false
		c.histograms = &h
	}
	return c
}

// meetHistograms compares the last sample with a histogram behind it.
func (s *Summary) meetHistograms(h *sums) {
	switch {
	case s.endsWithHistogram():
		to := s.growing()
		if h.First.DetectReset(to.Last) {
			to.Resets++
			to.correct(to.Last)
		}
		if !h.First.Equals(to.Last) {
			to.Changes++
		}
	case s.Count > 0:
		to := s.growing()
		to.Resets++
		to.Changes++
	}
}

// joinHistograms adds the histograms of h, whose boundary was compared.
func (s *Summary) joinHistograms(h *sums) {
	if h == nil || h.Count == 0 {
		return
	}
	to := s.growing()
	if to.Count == 0 {
		resets, changes := to.Resets, to.Changes
		*to = *h
		to.ownsSum, to.ownsCorrection = false, false
		to.Resets += resets
		to.Changes += changes
		return
	}
	to.add(h)
	if h.Correction != nil {
		to.correct(h.Correction)
	}
	if to.Sum == nil {
		to.Correction = nil
	}
	to.LastMillis, to.Last = h.LastMillis, h.Last
	to.Count += h.Count
	to.Resets += h.Resets
	to.Changes += h.Changes
	to.Hints |= h.Hints
}

// add adds the sum of h to that of s.
func (s *sums) add(h *sums) {
	if s.Sum == nil || h.Sum == nil || !sameBuckets(s.Sum, h.Sum) {
		s.Sum, s.low, s.ownsSum = nil, nil, false
		return
	}
	if !s.ownsSum {
		s.Sum, s.ownsSum = s.Sum.Copy(), true
		if s.low != nil {
			s.low = s.low.Copy()
		}
	}
	for _, part := range []*histogram.FloatHistogram{h.Sum, h.low} {
		if part == nil {
			continue
		}
		low, _, _, err := s.Sum.KahanAdd(part, s.low)
		if err != nil {
			s.Sum, s.low, s.ownsSum = nil, nil, false
			return
		}
		s.low = low
	}
}

// correct adds h to the correction. If it can't be added, the sum can't have been either,
// or won't be.
func (s *sums) correct(h *histogram.FloatHistogram) {
	switch {
	case s.Correction == nil:
		s.Correction, s.ownsCorrection = h, false
		return
	case !sameBuckets(s.Correction, h):
		return
	case !s.ownsCorrection:
		s.Correction, s.ownsCorrection = s.Correction.Copy(), true
	}
	// Kinds of buckets agree, which is all that Add asks for.
	_, _, _, _ = s.Correction.Add(h)
}

// sameBuckets tells whether two histograms can be added without loss of custom buckets.
func sameBuckets(a, b *histogram.FloatHistogram) bool {
	if a.UsesCustomBuckets() != b.UsesCustomBuckets() {
		return false
	}
	return !a.UsesCustomBuckets() || histogram.CustomBucketBoundsMatch(a.CustomValues, b.CustomValues)
}

// withLow returns a sum with its compensation.
func withLow(sum, low *histogram.FloatHistogram) *histogram.FloatHistogram {
	total := sum.Copy()
	// They have one layout.
	_, _, _, _ = total.Add(low)
	return total
}

// collapse is how upstream's sum_over_time ends.
func collapse(sum, low float64) float64 {
	if math.IsInf(sum, 0) {
		return sum
	}
	return sum + low
}

// lesser is a step of upstream's min_over_time: b later than a, NaN only while there is
// nothing else.
func lesser(a, b float64) float64 {
	if b < a || math.IsNaN(a) {
		return b
	}
	return a
}

// greater is a step of upstream's max_over_time.
func greater(a, b float64) float64 {
	if b > a || math.IsNaN(a) {
		return b
	}
	return a
}
