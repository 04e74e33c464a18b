package archive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// SealReport says what a Seal did.
type SealReport struct {
	Day format.Day
	// Series and Samples were written to bundles; Runs were read and RunBytes of them.
	Series, Samples, Runs, RunBytes int
	// Bundles were written, of BundleBytes with their keys, and Replaced went.
	Bundles, BundleBytes, Replaced int
	// Clocks were made.
	Clocks int
	// Overwritten samples were replaced by a later arrival with another value.
	Overwritten int
	Took        time.Duration
}

// ErrBusy is wrapped by the error of a job that has to wait for something else to end.
var ErrBusy = errors.New("something else is at work")

// ErrJobAtWork is the ErrBusy of a job while another one, or an intake, is at work: one at a time changes what is sealed.
var ErrJobAtWork = fmt.Errorf("%w: another job, or an intake", ErrBusy)

// sealLimits are the sizes that a day is sealed in.
type sealLimits struct {
	bundleBytes, bundleChunks, chunkSamples, batchBytes int
}

var defaultSealLimits = sealLimits{
	bundleBytes: bundleBytesTarget, bundleChunks: bundleChunksMax, chunkSamples: chunkSamplesMax, batchBytes: sealBatchBytes,
}

const (
	// bundleBytesTarget is where a bundle is closed. Larger ones save keys and
	// checksums, smaller ones spare a query of one series what it does not need.
	bundleBytesTarget = 8 << 10
	// bundleChunksMax bounds the chunks of a bundle of constants.
	bundleChunksMax = 512
	// chunkSamplesMax is the most samples of a chunk: a series with more a day, which is
	// more than one in ten seconds, is cut into equal stretches of the day.
	chunkSamplesMax = 8192
	// sealBatchBytes is the size of the batches that a day is sealed in, sealStepMax the time
	// after which one is written whatever its size: what a kill costs, and how long it takes to stop.
	sealBatchBytes = 1 << 20
	sealStepMax    = 200 * time.Millisecond
)

// Seal turns the runs of a day into bundles: one chunk a series, whose timestamps are
// shared with its group. It takes what was cut when it begins; later runs, and samples
// that are still in open runs, wait for the next Seal of the day. Queries are right at every moment.
//
// A Seal that is ended, by ctx, an error or a kill, goes on where it was when it is
// called again. pace, unless nil, is called after each batch with the time that it
// took, and may wait; its error ends the Seal.
func (a *Archive) Seal(ctx context.Context, day format.Day, pace Pace) (SealReport, error) {
	if err := a.beginJob(); err != nil {
		return SealReport{Day: day}, err
	}
	defer a.sealing.Unlock()
	s := sealer{bundler: newBundler(a, day), ctx: ctx, pace: pace, late: roaring.New(), early: roaring.New()}
	s.full = s.write
	began := time.Now()
	err := s.run()
	s.report.Took = time.Since(began)
	a.m.sealed(s.report.Took, err)
	if err != nil {
		return s.report, fmt.Errorf("seal %s: %w", Date(day), err)
	}
	return s.report, nil
}

// sealer seals one day.
//
//  1. The day's generation is raised, in the commit of the day. Runs that are cut from
//     then on belong to the next Seal, and the ones before are all on disk.
//  2. Series by series the runs become chunks in bundles. Each batch holds
//     whole bundles, the bundles they replace as deletes, new clocks, and the day's
//     record with the place that was reached.
//  3. The last batch says that the day is sealed. Readers that began before it may
//     still need the runs.
//  4. When those are gone, Reclaim drops the runs.
//
// While that goes on a reader that finds a sample in a bundle and in a run finds the same
// twice, which merges. Once the day is sealed it reads no run of the generation.
type sealer struct {
	bundler
	ctx    context.Context
	pace   Pace
	told   SealReport // what the metrics know of the report
	snap   *rocks.Snapshot
	source *sealSource
	pieces []chunk.Piece
	// late are the series of the batch that runs came of, early those of them with a sample at
	// the very start of the day: that belongs to the last bucket of the day before.
	late, early *roaring.Bitmap
}

func (s *sealer) run() (err error) {
	if err := s.raise(); err != nil {
		return err
	}
	s.a.step("raised")
	s.snap = s.a.db.NewSnapshot()
	defer s.snap.Release()
	if s.source, err = newSealSource(s.a.db, s.snap, s.day, &s.record); err != nil {
		return err
	}
	s.clocks = s.a.clockReader(s.day, s.snap)
	s.source.clocks = s.clocks
	defer s.source.close()
	s.book = clockBook{db: s.a.db, day: s.day, batch: &s.batch, groups: map[format.GroupID][]*bookedClock{}}
	s.stepped = time.Now()
	for {
		series, pieces, ok, err := s.source.next(s.pieces)
		if s.pieces = pieces; err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := s.a.ended(s.ctx); err != nil {
			return err
		}
		s.noteLate(&series)
		if err := s.series(&series, s.pieces); err != nil {
			return fmt.Errorf("series %d of metric %d: %w", series.ref, series.metric, err)
		}
	}
	return s.finish()
}

// noteLate notes that rollups of the series lack what is in its runs.
func (s *sealer) noteLate(series *sealSeries) {
	if series.runs == 0 || series.ref > math.MaxUint32 {
		return
	}
	s.late.Add(uint32(series.ref))
	for i := range s.pieces {
		if p := &s.pieces[i]; p.Sealed == nil && p.MinMillis == s.day.StartMillis() {
			s.early.Add(uint32(series.ref))
			return
		}
	}
}

// markRolls puts into the batch that rollups are to be made anew.
func (s *sealer) markRolls() {
	s.a.rolls.mark(&s.batch, s.day, s.late)
	s.a.rolls.mark(&s.batch, s.day-1, s.early)
	s.late.Clear()
	s.early.Clear()
}

// raise makes later cuts go to the next generation, and waits until all runs of the
// present one are on disk.
func (s *sealer) raise() error {
	a := s.a
	a.mu.Lock()
	if r := a.days.record(s.day); !r.Folding {
		if a.deletes.holds(s.day) {
			a.mu.Unlock()
			return fmt.Errorf("%w: it can still be undone, or is being cleaned; see GET /api/v1/admin/tsdb/deletes", ErrHeld)
		}
		// Generations come round after 256. Another query of hours would be needed for that.
		if a.left.has(s.day, r.Generation+1) {
			a.mu.Unlock()
			return fmt.Errorf("%w: runs of an earlier sealing wait for a query that is still open; end it, see /api/v1/status/queries", ErrBusy)
		}
		r.Generation++
		r.Folding, r.Metric, r.Ref = true, 0, 0
		a.days.set(s.day, r)
		a.group.batch.Put(family(format.FamilyMeta), format.AppendDayName(nil, s.day), r.Append(nil))
	}
	if err := a.join(a.group); err != nil {
		return err
	}
	s.record = a.days.record(s.day)
	return nil
}

// write writes the batch. metric and ref are the first series that is not in it.
func (s *sealer) write(metric format.PairID, ref format.Ref) error {
	s.record.Metric, s.record.Ref = metric, ref
	s.markRolls()
	s.batch.Put(family(format.FamilyMeta), format.AppendDayName(nil, s.day), s.record.Append(nil))
	if err := s.a.disk.check(); err != nil {
		return err
	}
	// A later batch that is synced takes this one with it, and a crash before that leaves
	// the runs.
	if err := s.a.db.Write(&s.batch, false); err != nil {
		s.a.state.failed(err)
		return err
	}
	s.batch.Reset()
	s.written()
	s.a.step("batch")
	if s.book.full() {
		s.book.forget()
	}
	if s.pace != nil {
		if err := s.pace(s.ctx, time.Since(s.stepped)); err != nil {
			return err
		}
	}
	s.stepped = time.Now()
	return nil
}

// written takes note of a batch that is on its way to the disk.
func (s *sealer) written() {
	s.a.days.set(s.day, s.record)
	s.report.Clocks = s.book.made
	s.a.m.sealing(&s.report, &s.told)
}

func (s *sealer) finish() error {
	if err := s.closeBundle(0); err != nil {
		return err
	}
	s.record.Folding, s.record.Metric, s.record.Ref = false, 0, 0
	s.record.SealedMillis = s.a.o.Now().UnixMilli()
	s.markRolls()
	s.batch.Put(family(format.FamilyMeta), format.AppendDayName(nil, s.day), s.record.Append(nil))
	if err := s.a.writeBatch(&s.batch); err != nil {
		return err
	}
	s.written()
	s.a.untidy.sealed(s.day)
	s.a.left.add(leftRuns{day: s.day, generation: s.record.FoldedGeneration(), epoch: s.a.views.advance()})
	s.a.step("sealed")
	return nil
}
