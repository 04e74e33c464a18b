package main

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive"
	"varve/query"
	"varve/rollup"
)

// archiveStorage is the archive as the API reads from it: its Queriers have what the planner of
// rollups asks for.
type archiveStorage struct{ *archive.Archive }

// archiveQuerier is what the Querier of an archive has.
type archiveQuerier interface {
	query.View
	query.StepSelector
	Resolutions() []int64
	RawSince() int64
	SamplesBetween(mint, maxt int64) int64
	SelectArchived(ctx context.Context, mint, maxt int64, matchers ...*labels.Matcher) *archive.ArchivedSet
}

// Querier implements storage.Queryable.
func (s archiveStorage) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Archive.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	known, ok := q.(archiveQuerier)
	if !ok {
		return nil, fmt.Errorf("a querier of type %T has no rollups", q)
	}
	return plannedQuerier{known}, nil
}

// plannedQuerier implements query.Archived.
type plannedQuerier struct{ archiveQuerier }

var _ query.Archived = plannedQuerier{}

// SelectArchived implements query.Archived.
func (q plannedQuerier) SelectArchived(ctx context.Context, mint, maxt int64, matchers ...*labels.Matcher) query.ArchivedSet {
	return plannedSet{q.archiveQuerier.SelectArchived(ctx, mint, maxt, matchers...)}
}

type plannedSet struct{ *archive.ArchivedSet }

// At implements query.ArchivedSet.
func (s plannedSet) At() query.ArchivedSeries {
	return &plannedSeries{ArchivedSeries: s.ArchivedSet.At()}
}

// plannedSeries implements query.ArchivedSeries.
type plannedSeries struct {
	*archive.ArchivedSeries
	// err is why it isn't known what is covered. Whatever is read then ends with it.
	err error
}

// Covered implements query.ArchivedSeries.
func (s *plannedSeries) Covered(resolutionMillis int64, dst []query.Stretch) []query.Stretch {
	err := s.ArchivedSeries.Covered(resolutionMillis, func(from, to int64) { dst = append(dst, query.Stretch{From: from, To: to}) })
	if err != nil {
		s.err = err
	}
	return dst
}

// HiddenSince implements query.ArchivedSeries.
func (s *plannedSeries) HiddenSince() int64 {
	t, err := s.ArchivedSeries.HiddenSince()
	if err != nil {
		s.err = err
	}
	return t
}

// Raw implements query.ArchivedSeries.
func (s *plannedSeries) Raw(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator {
	if s.err != nil {
		return failedIterator{chunkenc.NewNopIterator(), s.err}
	}
	return s.ArchivedSeries.Raw(it, mint, maxt)
}

// Buckets implements query.ArchivedSeries.
func (s *plannedSeries) Buckets(resolutionMillis, from, to int64, c *rollup.Columns) error {
	if s.err != nil {
		return s.err
	}
	return s.ArchivedSeries.Buckets(resolutionMillis, from, to, c)
}

// failedIterator has no samples, for a reason.
type failedIterator struct {
	chunkenc.Iterator
	err error
}

// Err implements chunkenc.Iterator.
func (i failedIterator) Err() error { return i.err }
