package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
	"varve/rocks"
)

// Commit makes the day durable and, for queries that begin afterwards, visible. An error leaves nothing of it once the intake is
// closed. It is ErrDayTaken if a delete was made since the day was leased that names the day: what is brought in would be
// hidden by it, though it came later.
func (i *Intake) Commit(ctx context.Context) (IntakeReport, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.usable(); err != nil {
		return IntakeReport{}, err
	}
	err := i.commit(ctx)
	i.report.Took = time.Since(i.began)
	i.a.m.takenIn(&i.report, err)
	if err != nil {
		i.state = intakeBroken
		return IntakeReport{}, fmt.Errorf("take %s in: %w", Date(i.day), err)
	}
	i.state = intakeCommitted
	return i.report, nil
}

func (i *Intake) commit(ctx context.Context) error {
	a, w := i.a, &i.bundler
	if err := a.ended(ctx); err != nil {
		return err
	}
	if err := errors.Join(w.closeBundle(0), i.endFile()); err != nil {
		return err
	}
	if err := i.writeClocks(0, 0); err != nil {
		return err
	}
	// Series that bundles name are on disk before them.
	if err := a.flushGroup(); err != nil {
		return err
	}
	a.step("intake written")
	if a.deletes.holds(i.day) {
		return i.held()
	}
	if err := a.ended(ctx); err != nil {
		return err
	}
	if len(i.files) > 0 {
		i.ingesting = true
		if err := a.db.Ingest(family(format.FamilyRaw), i.files); err != nil {
			if errors.Is(err, rocks.ErrIO) || errors.Is(err, rocks.ErrNoSpace) || errors.Is(err, rocks.ErrCorrupt) {
				a.state.failed(err)
			}
			return err
		}
		a.step("ingested")
	}
	return i.enter()
}

func (i *Intake) held() error {
	return fmt.Errorf("%w: a delete that was made meanwhile names it; see GET /api/v1/admin/tsdb/deletes", ErrDayTaken)
}

// enter writes the batch that makes the day seen and ends the lease.
func (i *Intake) enter() error {
	a, w := i.a, &i.bundler
	// No delete is made, and no flush of the index under way, until the day is there.
	a.deletes.changing.Lock()
	defer a.deletes.changing.Unlock()
	if a.deletes.holds(i.day) {
		return i.held()
	}
	a.upkeep.mu.Lock()
	defer a.upkeep.mu.Unlock()
	var b rocks.Batch
	b.Delete(family(format.FamilyMeta), format.AppendLeaseName(nil, i.day))
	if i.refs.IsEmpty() {
		if err := a.writeBatch(&b); err != nil {
			return err
		}
		a.intakes.done()
		return nil
	}
	i.postings.active[i.day] = i.refs
	if err := a.index.merge(&b, i.postings.writes()); err != nil {
		return err
	}
	i.postings = nil
	a.rolls.mark(&b, i.day, i.refs)
	a.rolls.mark(&b, i.day-1, i.early)
	w.record.SealedMillis = a.o.Now().UnixMilli()
	b.Put(family(format.FamilyMeta), format.AppendDayName(nil, i.day), w.record.Append(nil))
	if err := a.writeBatch(&b); err != nil {
		return err
	}
	a.index.taken(i.day, i.refs)
	a.days.set(i.day, w.record)
	a.kept.saw(i.day)
	i.report.Series, i.report.Samples = i.refs.GetCardinality(), w.record.Samples
	i.report.Bundles, i.report.Bytes = w.record.Bundles, w.record.Bytes
	a.step("entered")
	a.intakes.done()
	return nil
}

// taken notes that series are active on a day, and in the postings of its month, on disk.
func (x *index) taken(day format.Day, refs *roaring.Bitmap) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if known := x.days[day]; known != nil {
		known.Or(refs)
	}
	if known := x.months[day.Month()]; known != nil {
		known.Or(refs)
	}
}

// Close ends the intake, and other jobs can be done. Without a Commit before it, nothing of the day stays. Closing again does nothing.
//
// If the disk doesn't take that, it is the error, and the next job or the next start does it.
func (i *Intake) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state == intakeClosed {
		return nil
	}
	committed := i.state == intakeCommitted
	i.state = intakeClosed
	defer i.a.sealing.Unlock()
	var err error
	if !committed {
		err = i.undo()
	}
	i.a.intakes.closed(i, err != nil)
	if err = errors.Join(err, i.removeFiles()); err != nil {
		return fmt.Errorf("give the intake of %s up: %w", Date(i.day), err)
	}
	return nil
}

func (i *Intake) removeFiles() error {
	var err error
	if i.file != nil {
		err = i.file.Abort()
		i.file = nil
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(i.a.dir, intakeDir)))
}

// undo takes away what was written, and ends the lease. That is no more than what it finds, so it may be done again. The floor of the disk
// doesn't count, since it frees space.
func (i *Intake) undo() error {
	a := i.a
	var b rocks.Batch
	if i.ingesting {
		if err := a.takeRange(&b, bundlesOf(i.day)); err != nil {
			return err
		}
	}
	if err := i.takeClocks(&b); err != nil {
		return err
	}
	// A batch that failed may be on disk all the same.
	name := format.AppendDayName(nil, i.day)
	if i.hadRecord {
		b.Put(family(format.FamilyMeta), name, i.before.Append(nil))
	} else {
		b.Delete(family(format.FamilyMeta), name)
	}
	b.Delete(family(format.FamilyMeta), format.AppendLeaseName(nil, i.day))
	if err := a.db.Write(&b, true); err != nil {
		a.state.failed(err)
		return err
	}
	a.step("undone intake")
	a.intakes.done()
	return nil
}

// takeClocks puts deletes of the clocks that were made into the batch. Others may be in the cache of clocks, where nothing
// may take their place.
func (i *Intake) takeClocks(b *rocks.Batch) error {
	for g, ordinal := range i.bundler.book.fresh {
		first := format.ClockKey{Window: i.day, Group: g, Ordinal: ordinal}
		it := i.a.db.NewIterator(family(format.FamilyClocks), rocks.IterOptions{
			Lower: first.Append(nil), Upper: format.PrefixEnd(format.AppendClockPrefix(nil, 0, i.day, g)), NoFillCache: true,
		})
		for it.SeekToFirst(); it.Valid(); it.Next() {
			b.Delete(family(format.FamilyClocks), it.Key())
		}
		it.Close()
		if err := it.Err(); err != nil {
			return err
		}
	}
	return nil
}
