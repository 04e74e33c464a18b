package canary

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// findMissing compares what was read of the time later than from, up to and including to, with what must be there:
//
//  1. a round of which one sample is there, since a round is one batch;
//  2. a round that this process knows to be acknowledged;
//  3. a round that another one vouches for, also where it lies before the window.
func (s *sight) findMissing(ctx context.Context, fromMillis, toMillis int64) error {
	rounds := map[int64]bool{}
	for _, times := range s.times {
		for _, at := range times {
			rounds[at] = true
		}
	}
	for _, at := range s.c.ledger.between(fromMillis, toMillis) {
		rounds[at] = true
	}
	for _, at := range s.previous {
		if at > fromMillis && at <= toMillis {
			rounds[at] = true
		} else if err := s.findVouched(ctx, at); err != nil {
			return err
		}
	}
	expected := make([]int64, 0, len(rounds))
	for at := range rounds {
		expected = append(expected, at)
	}
	slices.Sort(expected)
	for place, times := range s.times {
		for _, at := range expected {
			if _, there := slices.BinarySearch(times, at); there {
				continue
			}
			if err := s.absent(ctx, &s.c.series[place], at); err != nil {
				return err
			}
		}
	}
	return nil
}

// findVouched looks for a round before the window.
func (s *sight) findVouched(ctx context.Context, at int64) error {
	there, err := s.c.any(ctx, at, at)
	if err != nil || there {
		return err
	}
	of := &s.c.series[slices.IndexFunc(s.c.series, func(s series) bool { return s.pattern.name == previousName })]
	return s.absent(ctx, of, at)
}

// any tells whether there is a round between two times, both inclusive.
func (c *Canary) any(ctx context.Context, mint, maxt int64) (there bool, err error) {
	err = c.selectSeries(ctx, previousName, mint, maxt, func(_ int, it chunkenc.Iterator) error {
		there = it.Next() != chunkenc.ValNone
		return nil
	})
	return there, err
}

// absent counts a sample that isn't there as missing, unless it may be gone.
func (s *sight) absent(ctx context.Context, of *series, at int64) error {
	since, err := s.c.keptSince(of.labels, 0)
	if err != nil || at < since {
		return err
	}
	deleted, err := s.deleted(of.labels, at, at, false)
	if err != nil || deleted {
		return err
	}
	if !s.c.ledger.has(at) {
		// Where history begins nothing is missing before it: it was restored in part, or kept for less time once.
		before, err := s.c.any(ctx, since, at)
		if err != nil || !before {
			return err
		}
	}
	s.checked++
	s.missing++
	s.mismatch(of.labels, at, "a sample, which was acknowledged", "none")
	return nil
}

// keptSince is the time before which samples, or buckets, may be gone by the rules of retention. It never goes back.
func (c *Canary) keptSince(ls labels.Labels, resolution time.Duration) (int64, error) {
	since, err := c.o.Past.KeptSince(ls, resolution)
	if err != nil {
		return 0, err
	}
	if was, ok := c.since[resolution]; ok {
		since = max(since, was)
	}
	c.since[resolution] = since
	return since, nil
}

// deleted tells whether a delete was in force at some moment since the look began that was about samples between two times, both
// inclusive; or with changed, whether one came or went since.
func (s *sight) deleted(ls labels.Labels, fromMillis, toMillis int64, changed bool) (bool, error) {
	deletes, err := s.c.o.Past.Deletes(ls, fromMillis, toMillis)
	if err != nil {
		return false, err
	}
	// Times on disk have milliseconds.
	began := s.began.Truncate(time.Millisecond)
	for _, d := range deletes {
		undone := !d.Undone.IsZero() && d.Undone.Before(began)
		if !undone && !changed || changed && (!d.Created.Before(began) || !d.Undone.IsZero() && !undone) {
			return true, nil
		}
	}
	return false, nil
}
