package archive

import (
	"context"
	"fmt"
	"slices"
	"time"

	"varve/archive/format"
	"varve/rocks"
)

// CleanReport says what a Clean did.
type CleanReport struct {
	// Deletes that were cleaned, as they are now.
	Deletes []Delete
	// Days were looked through. Runs and Bundles were rewritten or removed.
	Days, Runs, Bundles int
	// Samples and Exemplars were removed, and Bytes of keys and values, before compression.
	// A bundle may grow when one goes that others leaned on.
	Samples, Exemplars uint64
	Bytes              int64
	// Buckets were removed whose samples have expired, so that they can't be made without what was deleted.
	Buckets uint64
	Took    time.Duration
}

// Clean removes what live deletes hide, and frees its space. From the moment that it begins they
// can't be undone. Deletes that are not live are passed over. Queries are right at every moment.
//
// A Clean that is ended, by ctx, an error or a kill, goes on at the day where it was when it is
// called again. pace, unless nil, is called after each batch with the time that it took, and may
// wait; its error ends the Clean. Clean and Seal are done one at a time: else the error is ErrBusy.
func (a *Archive) Clean(ctx context.Context, ids []format.TombstoneID, pace Pace) (CleanReport, error) {
	if err := a.writableRuns(); err != nil {
		return CleanReport{}, err
	}
	if err := a.lockJobs(); err != nil {
		return CleanReport{}, err
	}
	defer a.sealing.Unlock()
	c := cleaner{a: a, ctx: ctx, pace: pace}
	began := time.Now()
	err := c.run(ids)
	c.report.Took = time.Since(began)
	for _, s := range c.stones {
		c.report.Deletes = append(c.report.Deletes, newDelete(s.id, &s.record))
	}
	a.m.cleaned(&c.report, err)
	if err != nil {
		return c.report, fmt.Errorf("clean deletes: %w", err)
	}
	return c.report, nil
}

// cleaner removes what some tombstones hide, one day after the other.
//
//  1. The tombstones are marked as being cleaned: they can't be undone from then on, and keep hiding.
//  2. Of each day, runs, bundles and exemplars are removed or rewritten under the same keys, or, for a
//     bundle whose last series goes, a lower one. Each batch is whole and carries the counts and the place.
//  3. Series without samples left on the day leave the index.
//  4. When all days are done the tombstones end. Nothing is left for them to hide: cursors that
//     are behind them read the archive instead of the journal. The days may be sealed again.
//
// A reader that began before has the old data in its snapshot, and the masks with it. A kill
// leaves tombstones that are being cleaned; going through a day again removes what is left of it.
type cleaner struct {
	a      *Archive
	ctx    context.Context
	pace   Pace
	stones []*stone
	report CleanReport
}

// stone is a tombstone that is being cleaned.
type stone struct {
	id     format.TombstoneID
	record format.Tombstone
	mask   *mask
	// samples and exemplars are those that the batch removes.
	samples, exemplars uint64
}

func (c *cleaner) run(ids []format.TombstoneID) error {
	if err := c.begin(ids); err != nil || len(c.stones) == 0 {
		return err
	}
	c.a.step("cleaning")
	// Behind the tombstones nothing is left in the journal that a start would give to the index again.
	c.a.upkeep.mu.Lock()
	err := c.a.flushIndex(true)
	c.a.upkeep.mu.Unlock()
	if err != nil {
		return err
	}
	for day, ok := c.next(); ok; day, ok = c.next() {
		if err := c.day(day); err != nil {
			return fmt.Errorf("%s: %w", Date(day), err)
		}
		c.report.Days++
	}
	return c.end()
}

// begin marks the tombstones as being cleaned.
func (c *cleaner) begin(ids []format.TombstoneID) error {
	a := c.a
	a.deletes.changing.Lock()
	defer a.deletes.changing.Unlock()
	var b rocks.Batch
	for _, id := range ids {
		t, live := a.deletes.get(id)
		if !live || slices.ContainsFunc(c.stones, func(s *stone) bool { return s.id == id }) {
			continue
		}
		t.State = format.TombstoneCleaning
		c.stones = append(c.stones, &stone{id: id, record: t, mask: newMask(id, &t)})
		b.Put(family(format.FamilyTombstones), id[:], t.Append(nil))
	}
	if len(c.stones) == 0 {
		return nil
	}
	if err := a.writeBatch(&b); err != nil {
		return err
	}
	a.deletes.note(c.records()...)
	return nil
}

// records are the tombstones as they are on disk.
func (c *cleaner) records() (out []named) {
	for _, s := range c.stones {
		t := s.record
		out = append(out, named{s.id, &t})
	}
	return out
}

// next is the first day that one of the tombstones has not been through.
func (c *cleaner) next() (day format.Day, ok bool) {
	for _, s := range c.stones {
		for _, r := range s.record.Days {
			if r.Last < s.record.CleanedBefore {
				continue
			}
			if d := max(r.First, s.record.CleanedBefore); !ok || d < day {
				day, ok = d, true
			}
			break
		}
	}
	return day, ok
}

// end writes the receipts and puts the tombstones out of force.
func (c *cleaner) end() error {
	a := c.a
	a.deletes.changing.Lock()
	defer a.deletes.changing.Unlock()
	last := format.Sequence(0)
	for _, s := range c.stones {
		last = max(last, s.record.Sequence)
	}
	// What they hide is in the journal still, and must not be forwarded from there.
	if err := a.passOver(last); err != nil {
		return err
	}
	var b rocks.Batch
	for _, s := range c.stones {
		s.record.State, s.record.Refs, s.record.EndedMillis = format.TombstoneCleaned, nil, a.o.Now().UnixMilli()
		b.Put(family(format.FamilyTombstones), s.id[:], s.record.Append(nil))
	}
	if err := a.writeBatch(&b); err != nil {
		return err
	}
	a.step("cleaned")
	a.deletes.apply(a.deletes.masks.Load().seen, c.records()...)
	return nil
}
