// Package rollup is the arithmetic of rollups: what is kept of the samples of a
// series in a bucket of time, how buckets become larger ones, and how a PromQL
// function is answered from them.
//
// A bucket of resolution r that ends at e, a multiple of r in Unix ms, has the samples
// later than e-r up to and including e: PromQL's ranges are open on the left, so windows
// whose bounds are multiples of r are whole buckets.
//
// A Row is what is kept of the floats of a bucket, a HistogramRow of its native histograms.
// Rows are a monoid over time: merging the rows of neighbouring stretches of time gives the
// row of both, so that single samples may fill the parts of a window that are no whole bucket.
//
// All is pure. Nothing here knows storage or engine.
package rollup

import "github.com/prometheus/prometheus/model/histogram"

// Row is what is kept of the float samples of a series in a stretch of time. Stale
// markers are no samples: they only set Ended. The zero Row has no samples.
type Row struct {
	// Count is the number of samples. If it is 0, only Ended has a meaning.
	Count int64
	// FirstMillis and LastMillis are the times of the first and last sample, Unix ms.
	FirstMillis, LastMillis int64
	First, Last             float64
	// Min and Max pass over NaN, unless all samples are NaN.
	Min, Max float64
	// Sum is the compensated (Kahan-Neumaier) sum, SumLow what is to be added to it: PromQL's
	// sum_over_time is Sum+SumLow.
	Sum, SumLow float64
	// Correction is the sum of the values right before each reset, which is a sample
	// less than the one before it.
	Correction float64
	// Resets and Changes are the numbers of floats that are less than the sample before, and
	// that differ from it, two NaN being equal. A float right behind a histogram is both; it
	// adds nothing to Correction, which has no meaning once a series has both kinds.
	Resets, Changes int64
	// Ended says that a stale marker is behind the last sample, float or histogram. In a row
	// with a sample of either kind, a marker before it leaves no trace.
	Ended bool
}

// HistogramRow is what is kept of the native histograms of a series in a stretch of time.
// Histograms are shared, and never changed once they are in a row.
type HistogramRow struct {
	Count                   int64
	FirstMillis, LastMillis int64
	First, Last             *histogram.FloatHistogram
	// Sum is nil if the histograms can't be added, as custom buckets that differ. Its schema is
	// the least of all.
	Sum *histogram.FloatHistogram
	// Correction is the sum of the histograms right before each reset; nil without one, and
	// if Sum is nil.
	Correction *histogram.FloatHistogram
	// Resets and Changes are the numbers of histograms that are a reset against the sample
	// before, and that differ from it. One right behind a float is both.
	Resets, Changes int64
	// Hints are the counter reset hints of all histograms.
	Hints Hints
}

// Hints is a set of counter reset hints: bit i stands for histogram.CounterResetHint(i).
type Hints uint8

// HintOf returns the set of h alone.
func HintOf(h histogram.CounterResetHint) Hints { return 1 << h }

// Has tells whether h is in the set.
func (s Hints) Has(h histogram.CounterResetHint) bool { return s&HintOf(h) != 0 }

// Columns are the rows of a series at one resolution, column by column. Row i of floats
// ends at Ends[i]; all slices that are not nil have that length, except those of
// Histograms. Rows without samples and without Ended are left out.
type Columns struct {
	// Ends are the ends of the buckets in Unix ms, inclusive, ascending strictly, multiples
	// of the resolution.
	Ends []int64
	// Counts may be 0, where only a stale marker or only histograms are in the bucket.
	Counts                  []int64
	FirstMillis, LastMillis []int64
	First, Last             []float64
	Min, Max                []float64
	// Sums are Sum+SumLow of each row.
	Sums        []float64
	Corrections []float64
	Resets      []int64
	Changes     []int64
	Ended       []bool
	// Histograms are those of the buckets at the indices HistogramAt, ascending; empty for
	// a series of floats.
	HistogramAt []int32
	Histograms  []HistogramRow
}
