package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/xxh3"

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

// ErrBusy is the error of a Seal while another one is at work.
var ErrBusy = errors.New("a day is being sealed already")

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
func (a *Archive) Seal(ctx context.Context, day format.Day, pace func(context.Context, time.Duration) error) (SealReport, error) {
	if err := a.StartError(); err != nil {
		return SealReport{Day: day}, err
	}
	if !a.upkeep.replayed.Load() {
		return SealReport{Day: day}, ErrStarting
	}
	if !a.sealing.TryLock() {
		return SealReport{Day: day}, ErrBusy
	}
	defer a.sealing.Unlock()
	s := sealer{a: a, day: day, ctx: ctx, pace: pace, report: SealReport{Day: day}, limits: a.sealLimits}
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
	a      *Archive
	day    format.Day
	ctx    context.Context
	pace   func(context.Context, time.Duration) error
	report SealReport
	told   SealReport // what the metrics know of it
	limits sealLimits

	record  format.DayRecord
	snap    *rocks.Snapshot
	source  *sealSource
	book    clockBook
	groups  groupFinder
	bases   baseFinder
	builder chunk.BundleBuilder
	batch   rocks.Batch
	column  chunk.Column
	part    chunk.Column
	pieces  []chunk.Piece
	metric  format.PairID
	last    format.Ref
	samples int // in the builder
	added   int // series in the builder
	// open tells that series of bundles in the batch's deletes may be missing in its puts.
	open    bool
	key     []byte
	value   []byte
	stepped time.Time
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
	s.source.clocks = s.a.clockReader(s.day, s.snap)
	defer s.source.close()
	s.book = clockBook{db: s.a.db, day: s.day, batch: &s.batch, groups: map[format.GroupID][]*bookedClock{}}
	s.groups, s.bases = newGroupFinder(s.a.cat), newBaseFinder(s.a.cat)
	s.stepped = time.Now()
	for {
		series, pieces, ok, err := s.source.next(s.pieces)
		if s.pieces = pieces; err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := s.ended(); err != nil {
			return err
		}
		if err := s.series(&series); err != nil {
			return fmt.Errorf("series %d of metric %d: %w", series.ref, series.metric, err)
		}
	}
	return s.finish()
}

// ended tells why the sealing should end before it is done.
func (s *sealer) ended() error {
	if s.a.closing.Load() {
		return errShutdown
	}
	return s.ctx.Err()
}

// raise makes later cuts go to the next generation, and waits until all runs of the
// present one are on disk.
func (s *sealer) raise() error {
	a := s.a
	a.mu.Lock()
	if r := a.days.record(s.day); !r.Folding {
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

// series adds a series to the bundle that grows.
func (s *sealer) series(series *sealSeries) error {
	due := s.batch.Bytes() >= s.limits.batchBytes || time.Since(s.stepped) >= sealStepMax
	if due || series.edge || series.metric != s.metric || s.builder.Size() >= s.limits.bundleBytes || s.builder.Len() >= s.limits.bundleChunks {
		if err := s.closeBundle(0); err != nil {
			return err
		}
		// The bundles that were taken over go in the same batch as those that take their place.
		if s.open = s.open && !series.edge; !s.open && due {
			if err := s.write(series.metric, series.ref); err != nil {
				return err
			}
		}
	}
	for i := range series.replaced {
		if err := s.replace(&series.replaced[i]); err != nil {
			return err
		}
	}
	if err := s.column.Decode(s.pieces, s.day.StartMillis(), s.day.EndMillis()-1); err != nil {
		return err
	}
	s.report.Runs += series.runs
	s.report.RunBytes += series.runBytes
	s.report.Overwritten += s.column.Overwritten
	s.report.Series++
	s.report.Samples += len(s.column.Times)
	if len(s.column.Times) > s.limits.chunkSamples {
		return s.stretches(series)
	}
	err := s.add(series, &s.column)
	if !errors.Is(err, chunk.ErrBundleFull) {
		return err
	}
	// Its samples change their kind so often that they take more chunks than are left.
	if err := s.closeBundle(0); err != nil {
		return err
	}
	if err := s.add(series, &s.column); !errors.Is(err, chunk.ErrBundleFull) {
		return err
	}
	return s.stretches(series)
}

// add adds the column, whole or a stretch of the day, to the bundle that grows.
func (s *sealer) add(series *sealSeries, c *chunk.Column) error {
	if len(c.Times) == 0 {
		return nil
	}
	group, err := s.groups.of(series.ref)
	if err != nil {
		return err
	}
	id, times, err := s.book.find(group, c.Times)
	if err != nil {
		return err
	}
	base, err := s.bases.base(series.metric, series.ref, s.added)
	if err != nil {
		return err
	}
	if err := s.builder.Add(uint64(series.ref), id, times, base, c); err != nil {
		return err
	}
	s.metric, s.last = series.metric, series.ref
	s.samples += len(c.Times)
	s.added++
	return nil
}

// stretches writes a series with too many samples for one chunk as bundles of its own,
// one for each stretch of the day. The stretches are equal parts of the day, so that
// the series of a group have the same and share their clocks.
func (s *sealer) stretches(series *sealSeries) error {
	if err := s.closeBundle(0); err != nil {
		return err
	}
	parts := int64(2)
	for len(s.column.Times) > int(parts)*s.limits.chunkSamples && parts < 1<<12 {
		parts *= 2
	}
	length := int64(format.DayMillis) / parts
	most := s.limits.chunkSamples
	for from := int64(0); from < format.DayMillis; from += length {
		begin, end := s.day.StartMillis()+from, s.day.StartMillis()+from+length-1
		for s.part.Slice(&s.column, begin, end); len(s.part.Times) > 0; s.part.Slice(&s.column, begin, end) {
			// A burst may hold more than its share: it is cut by number.
			var head chunk.Column
			head.Slice(&s.part, s.part.Times[0], s.part.Times[min(len(s.part.Times), most)-1])
			err := s.add(series, &head)
			if errors.Is(err, chunk.ErrBundleFull) && most > 1 {
				most /= 2
				s.bases.reset()
				continue
			}
			if err != nil {
				return err
			}
			if err := s.closeBundle(uint32(head.Times[0] - s.day.StartMillis())); err != nil {
				return err
			}
			begin = head.Times[len(head.Times)-1] + 1
		}
	}
	return nil
}

// closeBundle puts the bundle that grows into the batch.
func (s *sealer) closeBundle(from uint32) error {
	if s.builder.Len() == 0 {
		return nil
	}
	k := format.RawKey{Day: s.day, Metric: s.metric, Last: s.last, From: from}
	s.key = k.Append(s.key[:0])
	s.value = s.builder.Append(s.value[:0], s.key)
	s.batch.Put(family(format.FamilyRaw), s.key, s.value)
	s.record.AddBundle(s.samples, len(s.key)+len(s.value), bundleHash(s.key, s.value))
	s.report.Bundles++
	s.report.BundleBytes += len(s.key) + len(s.value)
	s.builder.Reset()
	s.bases.reset()
	s.samples, s.added = 0, 0
	return nil
}

// replace takes away a bundle whose series are written anew.
func (s *sealer) replace(b *sealedBundle) error {
	samples, err := b.bundle.TotalSamples(s.source.clocks.Times)
	if err != nil {
		return err
	}
	s.batch.Delete(family(format.FamilyRaw), b.key.Append(nil))
	s.record.RemoveBundle(samples, b.bytes, b.hash)
	s.report.Replaced++
	s.open = true
	return nil
}

// write writes the batch. metric and ref are the first series that is not in it.
func (s *sealer) write(metric format.PairID, ref format.Ref) error {
	s.record.Metric, s.record.Ref = metric, ref
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
	s.batch.Put(family(format.FamilyMeta), format.AppendDayName(nil, s.day), s.record.Append(nil))
	if err := s.a.writeBatch(&s.batch); err != nil {
		return err
	}
	s.written()
	s.a.left.add(leftRuns{day: s.day, generation: s.record.FoldedGeneration(), epoch: s.a.views.advance()})
	s.a.step("sealed")
	return nil
}

// bundleHash is what a bundle adds to the digest of its day.
func bundleHash(key, value []byte) uint64 {
	h := xxh3.New()
	h.Write(key)
	h.Write(value[max(0, len(value)-4):])
	return h.Sum64()
}
