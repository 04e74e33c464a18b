package query

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/rollup"
)

// Archived is a storage.Querier whose storage keeps rollups beside raw samples. All that it
// returns reads one state of the storage, that of Select. Times are Unix ms.
type Archived interface {
	storage.Querier
	// Resolutions returns the lengths of buckets that exist, ascending, each a multiple of the one
	// before; empty: no rollups. The caller does not change it.
	Resolutions() []int64
	// RawSince is the first time, inclusive, from which on the raw samples of all series are kept:
	// the greatest RawSince of any series. math.MinInt64 if none expired.
	RawSince() int64
	// SelectArchived returns the series that have raw samples or buckets between mint and
	// maxt, both inclusive, sorted by labels; it may return others. It is not bound by the time for which the
	// Querier was opened. Nothing of their samples is read before it is asked for. It returns at once;
	// work begins with the first Next. Series stay good until the Querier is closed.
	SelectArchived(ctx context.Context, mint, maxt int64, matchers ...*labels.Matcher) ArchivedSet
}

// ArchivedSet is what a storage.SeriesSet is, of ArchivedSeries.
type ArchivedSet interface {
	Next() bool
	At() ArchivedSeries
	Err() error
	Warnings() annotations.Annotations
}

// ArchivedSeries is a series with its rollups. It is read by one goroutine at a time; different
// series may be read by different goroutines at once.
type ArchivedSeries interface {
	Labels() labels.Labels
	// RawSince is the first time, inclusive, from which on raw samples are kept; math.MinInt64 if
	// none expired.
	RawSince() int64
	// HiddenSince is the first time from which on raw samples were hidden that no bucket tells of yet, math.MaxInt64 if
	// there are none: what isn't covered from there up to RawSince is not known.
	HiddenSince() int64
	// Raw returns an iterator of the raw samples between mint and maxt, both inclusive, as a
	// storage.Series has it. It may reuse it, and several may be open at once.
	Raw(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator
	// Covered appends the stretches of time in which Buckets of the resolution are complete: ascending,
	// disjoint, their bounds multiples of the resolution. In them an absent bucket has no samples; outside of
	// them nothing is known (not yet rolled up, waiting to be rolled up anew, or expired). Before the first
	// stretch of all resolutions, and where no raw samples are kept, there is nothing to be known.
	Covered(resolutionMillis int64, dst []Stretch) []Stretch
	// Buckets fills c, which it empties first, with the buckets that end after from and not
	// after to. Histograms in it are kept by the caller, and never changed again.
	Buckets(resolutionMillis, from, to int64, c *rollup.Columns) error
}

// Stretch is the time later than From up to and including To, Unix ms.
type Stretch struct{ From, To int64 }
