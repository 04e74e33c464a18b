package export

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// bucketSamples is how many samples a bucket of rollups counts for in the budget.
const bucketSamples = 10

// WalkRolled calls f for every series of the list in its order, with what reads its rollups, nil if the series is gone
// since it was listed, and the resolutions that there are. resolutionMillis is that of the buckets that f will ask for. The source has rollups.
func (w *Walker) WalkRolled(ctx context.Context, l *List, resolutionMillis int64, f func(labels.Labels, RolledSeries, []int64) error) error {
	if w.SamplesBudget <= 0 {
		w.SamplesBudget = samplesBudget
	}
	if w.SliceSeriesMax <= 0 {
		w.SliceSeriesMax = sliceSeriesMax
	}
	if w.perMilli == 0 {
		w.perMilli = 1.0 / firstInterval
	}
	in := &peekReader{reader: l.Reader()}
	for {
		rows := max(w.span()/resolutionMillis, 1)
		slice, err := in.slice(min(w.sliceSize(), int(max(w.SamplesBudget/(bucketSamples*rows), 1))))
		if err != nil {
			return err
		}
		if len(slice) == 0 {
			return nil
		}
		if err := w.rolledSlice(ctx, slice, f); err != nil {
			return err
		}
	}
}

// rolledSlice reads some series, in halves if they are too many.
func (w *Walker) rolledSlice(ctx context.Context, sets []labels.Labels, f func(labels.Labels, RolledSeries, []int64) error) error {
	given, err := w.readRolled(ctx, sets, f)
	if err == nil || given > 0 || len(sets) == 1 || !w.Source.tooLarge(err) {
		return err
	}
	half := len(sets) / 2
	if err := w.rolledSlice(ctx, sets[:half], f); err != nil {
		return err
	}
	return w.rolledSlice(ctx, sets[half:], f)
}

// readRolled calls f for each of the sets. given is how many of them are done.
func (w *Walker) readRolled(ctx context.Context, sets []labels.Labels, f func(labels.Labels, RolledSeries, []int64) error) (given int, err error) {
	mint, maxt := w.Request.MinMillis, w.Request.MaxMillis
	q, err := w.Source.Rolled(mint, maxt)
	if err != nil {
		return 0, fmt.Errorf("open storage: %w", err)
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	found := q.SelectRolled(ctx, mint, maxt, w.matchers(sets)...)
	counted := &countedRolled{}
	err = pick(ctx, rolledSets{found}, sets, func(i int, present bool) error {
		var s RolledSeries
		if present {
			counted.RolledSeries = found.At()
			s = counted
		}
		if err := f(sets[i], s, q.Resolutions()); err != nil {
			return err
		}
		given++
		return nil
	}, func() { w.learn(counted.samples(), len(sets), maxt-mint+1) })
	if err != nil {
		return given, fmt.Errorf("read rollups of %d series beginning with %s: %w", len(sets), sets[0], err)
	}
	return given, nil
}

// countedRolled counts the samples that are read because there are no buckets of them.
type countedRolled struct {
	RolledSeries
	opened []*countingIterator
}

// Raw implements RolledSeries.
func (s *countedRolled) Raw(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator {
	own, ok := it.(*countingIterator)
	if !ok {
		own = &countingIterator{}
		s.opened = append(s.opened, own)
	}
	own.reuse = s.RolledSeries.Raw(own.reuse, mint, maxt)
	own.Iterator = own.reuse
	return own
}

func (s *countedRolled) samples() int64 {
	n := int64(0)
	for _, it := range s.opened {
		n += it.samples
	}
	return n
}
