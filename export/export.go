// Package export reads series out of anything that is Prometheus' storage, an archive or a server that is asked by
// remote read, so that what is made of them needs memory for a few series at a time.
//
// It works in two steps. [Source.List] finds the label sets of a Request and lays them down in a scratch file, sorted.
// [Walker.Walk] then reads them, as many series in one Select as a budget of samples allows: a slice of neighbours,
// which are asked for by matchers made of their own labels and picked from the answer by their whole label sets. Of a
// series that is too long for the budget several stretches of time are read, one behind the other.
//
// Each Select has a Querier of its own, since Queriers count, and keep, what was read through them. A series that
// is written to meanwhile therefore shows a later state than one that was read before it; the samples of one Select are
// of one state.
//
// Packages below write what was read: blocks the blocks of Prometheus, text files of lines.
package export

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/rollup"
)

// ErrTooWide is wrapped by errors about a request that can't be met with bounded memory. A narrower one can.
var ErrTooWide = errors.New("too much at once")

// Source is where series come from. It may be used by several goroutines if its Queryable may.
type Source struct {
	Queryable storage.Queryable
	// TooLarge tells of an error of a Select that it would not have come with fewer series or less time. Nil: of none.
	TooLarge func(error) bool
	// Rolled opens what has rollups, nil where there are none. Times as in a Queryable.
	Rolled func(mint, maxt int64) (RolledQuerier, error)
}

// RolledQuerier reads rollups beside samples, of one state of the storage.
type RolledQuerier interface {
	// Resolutions are the lengths of buckets that exist, ms, ascending.
	Resolutions() []int64
	// SelectRolled returns the series that have samples or buckets between mint and maxt, both inclusive Unix ms, sorted by
	// labels. It may return others.
	SelectRolled(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) RolledSet
	Close() error
}

// RolledSet is what a storage.SeriesSet is, of RolledSeries. Series are good until the Querier is closed.
type RolledSet interface {
	Next() bool
	At() RolledSeries
	Err() error
}

// RolledSeries is a series with its rollups. It is for one goroutine.
type RolledSeries interface {
	Labels() labels.Labels
	// RawSince is the first time, Unix ms inclusive, from which on samples are kept.
	RawSince() int64
	// Raw returns an iterator of the samples between mint and maxt, both inclusive.
	Raw(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator
	// Covered calls f for the stretches of time, later than from up to and including to, in which buckets of the resolution
	// in ms are complete, ascending.
	Covered(resolutionMillis int64, f func(from, to int64)) error
	// Buckets fills c with the buckets that end after from and not after to.
	Buckets(resolutionMillis, from, to int64, c *rollup.Columns) error
}

// Request says what is read.
type Request struct {
	// Selectors are joined by or, the matchers of each by and. None at all: nothing.
	Selectors [][]*labels.Matcher
	// MinMillis and MaxMillis are the first and the last time, inclusive, Unix ms.
	MinMillis, MaxMillis int64
}

// String returns the selectors in the form that PromQL has for them, sorted by nothing: the caller's order is kept.
func (r *Request) String() string {
	var b strings.Builder
	for i, ms := range r.Selectors {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteByte('{')
		for j, m := range ms {
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteString(m.String())
		}
		b.WriteByte('}')
	}
	return b.String()
}

func (s *Source) tooLarge(err error) bool { return s.TooLarge != nil && s.TooLarge(err) }

// withQuerier calls f with a Querier and closes it.
func withQuerier(q storage.Queryable, mint, maxt int64, f func(storage.Querier) error) (err error) {
	querier, err := q.Querier(mint, maxt)
	if err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	defer func() { err = errors.Join(err, querier.Close()) }()
	return f(querier)
}
