package lineprotocol

import (
	"fmt"
	"math"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// Histograms says what becomes of native histograms, for which line protocol has no form of its own.
type Histograms uint8

const (
	// SkipHistograms leaves them out.
	SkipHistograms Histograms = iota
	// CountAndSum writes two floats named as those of a classic histogram: NAME_count and NAME_sum.
	CountAndSum
	// ClassicBuckets writes these and the cumulated buckets too: NAME_bucket with the tag le. A bucket is written where
	// the histogram has it, so that the set of le may change from sample to sample.
	ClassicBuckets
)

// ParseHistograms reads a name: skip (also empty), count_sum or classic.
func ParseHistograms(name string) (Histograms, error) {
	switch name {
	case "", "skip":
		return SkipHistograms, nil
	case "count_sum":
		return CountAndSum, nil
	case "classic":
		return ClassicBuckets, nil
	}
	return 0, fmt.Errorf("native histograms as %q: use skip, count_sum or classic", name)
}

// HistogramSeries are the prefixes of the lines that a native histogram is written as.
type HistogramSeries struct{ count, sum, bucket []byte }

// NewHistogramSeries makes the prefixes of a series, as [AppendSeries] does. A label le gives way to the one of the buckets.
func NewHistogramSeries(ls labels.Labels, as Histograms) *HistogramSeries {
	if as == SkipHistograms {
		return nil
	}
	b := labels.NewBuilder(ls)
	name := ls.Get(model.MetricNameLabel)
	h := &HistogramSeries{
		count: AppendSeries(nil, b.Set(model.MetricNameLabel, name+"_count").Labels()),
		sum:   AppendSeries(nil, b.Set(model.MetricNameLabel, name+"_sum").Labels()),
	}
	if as == ClassicBuckets {
		h.bucket = AppendSeries(nil, b.Set(model.MetricNameLabel, name+"_bucket").Del(model.BucketLabel).Labels())
		h.bucket = append(h.bucket, ","+model.BucketLabel+"="...)
	}
	return h
}

// CountSum are the two numbers of a native histogram that are always finite in themselves. Exactly one of h and fh is set.
func CountSum(h *histogram.Histogram, fh *histogram.FloatHistogram) (count, sum float64) {
	if h != nil {
		return float64(h.Count), h.Sum
	}
	return fh.Count, fh.Sum
}

// HistogramReason says why a histogram with this sum can't be written at all, or is empty if it can. A sum that is not finite is left out,
// the count is written; only a stale marker is nothing.
func HistogramReason(sum float64, timeMillis int64) string {
	if value.IsStaleNaN(sum) {
		return ReasonStale
	}
	return Reason(0, timeMillis)
}

// Append appends the lines of one histogram, in classic form: all of them have the field value. It returns
// false if the histogram can't be expressed, for which [HistogramReason] has the words.
// scratch is for an integer histogram's buckets as floats; it is overwritten.
func (s *HistogramSeries) Append(dst []byte, h *histogram.Histogram, fh, scratch *histogram.FloatHistogram, timeMillis int64, p Precision) ([]byte, bool) {
	count, sum := CountSum(h, fh)
	if HistogramReason(sum, timeMillis) != "" {
		return dst, false
	}
	dst, ok := AppendSample(dst, s.count, count, timeMillis, p)
	if !ok {
		return dst, false
	}
	dst, _ = AppendSample(dst, s.sum, sum, timeMillis, p)
	if s.bucket == nil {
		return dst, true
	}
	if fh == nil {
		fh = h.ToFloat(scratch)
	}
	cumulated := 0.0
	for it := fh.AllBucketIterator(); it.Next(); {
		b := it.At()
		cumulated += b.Count
		if !math.IsInf(b.Upper, 1) {
			dst = s.appendBucket(dst, b.Upper, cumulated, timeMillis, p)
		}
	}
	return s.appendBucket(dst, math.Inf(1), count, timeMillis, p), true
}

func (s *HistogramSeries) appendBucket(dst []byte, upper, count float64, timeMillis int64, p Precision) []byte {
	dst = append(dst, s.bucket...)
	dst = strconv.AppendFloat(dst, upper, 'g', -1, 64)
	dst, _ = AppendSample(dst, nil, count, timeMillis, p)
	return dst
}
