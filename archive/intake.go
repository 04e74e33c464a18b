package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// ErrDayTaken is wrapped by the error of an intake of a day that has samples already, or that may get some at any
// moment: such samples go through Write.
var ErrDayTaken = errors.New("the day is taken")

// ErrOutOfRetention is wrapped by the error of an intake of a day of which the rules of retention keep no samples.
var ErrOutOfRetention = errors.New("the day is older than samples are kept")

// ErrIntakeClosed is the error of an intake that has ended, or can't go on because of an earlier error.
var ErrIntakeClosed = errors.New("the intake has ended")

// ErrIntakeChunk is wrapped by the error of adding a chunk that isn't what is said of it. The series is left out, and the intake can go on.
var ErrIntakeChunk = errors.New("the chunk can't be read")

// IntakeChunk is a chunk of a series.
type IntakeChunk struct {
	// Chunk is in any of upstream's encodings.
	Chunk chunkenc.Chunk
	// MinMillis and MaxMillis are the times of the first and the last sample, both inclusive.
	MinMillis, MaxMillis int64
	// Deleted are stretches of time, both ends inclusive, of which the samples are left out.
	Deleted tombstones.Intervals
}

// IntakeReport says what an intake brought in.
type IntakeReport struct {
	Day format.Day
	// Samples of Series were written, in Bundles of Bytes with their keys.
	Series, Samples, Bundles, Bytes uint64
	// Expired samples were left out, because the rules of retention keep none of their series on the day.
	Expired uint64
	Took    time.Duration
}

// Intake brings one whole day in, past the journal and the open runs.
//
//  1. The day is leased by a durable record. It had no samples; what arrives of it from then on becomes runs, which are
//     later arrivals than what is brought in.
//  2. Add makes bundles, as a sealing does, but writes them to table files beside the database. New clocks go to the
//     database at once.
//  3. Commit makes durable what bundles name, moves the files into the database, and writes in ONE synced batch the index,
//     what is to be rolled up anew, the record of the day and the end of the lease.
//
// A view passes over the bundles of a day that is leased as of its snapshot, so that a reader sees all of the day or nothing. A start
// removes what it finds of a leased day, so that a kill leaves nothing of it.
//
// An intake is a job: while it is open no other one is done. It is for one goroutine; closing the archive ends it.
type Intake struct {
	a     *Archive
	day   format.Day
	began time.Time
	kept  *cutoffs
	gone  *roaring.Bitmap // series of which rules removed samples of the day
	known *roaring.Bitmap // series that are in the month's postings on disk
	// before is the record of the day as it was, if it had one.
	before    format.DayRecord
	hadRecord bool

	// mu guards what follows: closing the archive is another goroutine's.
	mu        sync.Mutex
	state     intakeState
	bundler   bundler
	column    chunk.Column // of series that are left out, and of what is read back
	pieces    []chunk.Piece
	file      *rocks.FileWriter
	files     []string
	puts      int
	ingesting bool
	postings  *postings
	refs      *roaring.Bitmap // series with samples
	early     *roaring.Bitmap // those with one at the very start of the day, which belongs to the last bucket of the day before
	last      rollSeries
	report    IntakeReport
}

type intakeState uint8

const (
	intakeOpen intakeState = iota
	intakeBroken
	intakeCommitted
	intakeClosed
)

const (
	// intakeFileBytes is where a table file is closed: what the engine makes itself at the last levels.
	intakeFileBytes = 64 << 20
	// intakeLook is after how many bundles the disk is looked at.
	intakeLook = 64
)

// OpenIntake leases a day that has no samples, to bring it in whole. It must be closed.
//
// The error is ErrDayTaken if the day has samples, has not ended, or a delete hides some of it; ErrOutOfRetention; ErrBusy while
// another job is at work; ErrStarting; an *arrival.Unavailable if the archive takes no writes; else ours.
func (a *Archive) OpenIntake(ctx context.Context, day format.Day) (*Intake, error) {
	if err := a.writableRuns(); err != nil {
		return nil, err
	}
	if err := a.lockJobs(); err != nil {
		return nil, err
	}
	i, err := a.openIntake(ctx, day)
	if err != nil {
		a.sealing.Unlock()
		return nil, fmt.Errorf("take %s in: %w", Date(day), err)
	}
	return i, nil
}

func (a *Archive) openIntake(ctx context.Context, day format.Day) (*Intake, error) {
	if err := a.ended(ctx); err != nil {
		return nil, err
	}
	now := a.o.Now()
	i := &Intake{
		a: a, day: day, began: time.Now(), kept: a.kept.at(now), gone: a.trims.of(rollKey{0, day}), known: roaring.New(),
		bundler: newBundler(a, day), postings: newPostings(), refs: roaring.New(), early: roaring.New(), report: IntakeReport{Day: day},
	}
	if day < format.MinDay || day < i.kept.rawFirst {
		return nil, fmt.Errorf("%w: the first day of which samples are kept is %s", ErrOutOfRetention, Date(i.kept.rawFirst))
	}
	if err := i.isFree(now); err != nil {
		return nil, err
	}
	// Whoever is in the postings on disk is also in them if the memory of the index is lost.
	month := day.Month()
	if err := a.index.readActive(nil, month.FirstDay(), (month + 1).FirstDay(), i.known); err != nil {
		return nil, err
	}
	if err := a.disk.check(); err != nil {
		return nil, err
	}
	dir := filepath.Join(a.dir, intakeDir)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, err
	}
	i.before, i.hadRecord = a.days.recorded(day)
	w := &i.bundler
	w.record, w.full, w.put, w.stepMax = i.before, i.writeClocks, i.put, math.MaxInt64
	w.book = clockBook{db: a.db, day: day, batch: &w.batch, groups: map[format.GroupID][]*bookedClock{}, fresh: map[format.GroupID]uint16{}}
	return i, i.lease(now)
}

// lease makes the lease durable.
func (i *Intake) lease(now time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	a := i.a
	if !a.intakes.begin(i) {
		return a.writable()
	}
	var b rocks.Batch
	b.Put(family(format.FamilyMeta), format.AppendLeaseName(nil, i.day), format.AppendUint64(nil, uint64(now.UnixMilli())))
	if err := a.writeBatch(&b); err != nil {
		// It may be on disk all the same.
		i.state = intakeClosed
		a.intakes.closed(i, true)
		return err
	}
	a.step("leased")
	return nil
}

// isFree tells why the day can't be brought in whole: an ErrDayTaken, or another error.
func (i *Intake) isFree(now time.Time) error {
	a, day := i.a, i.day
	if day.EndMillis() > now.UnixMilli() {
		return fmt.Errorf("%w: it has not ended", ErrDayTaken)
	}
	if a.deletes.holds(day) {
		return fmt.Errorf("%w: a delete hides samples of it", ErrDayTaken)
	}
	if r := a.days.record(day); r.Folding || r.Bundles > 0 {
		return fmt.Errorf("%w: it has sealed samples", ErrDayTaken)
	}
	if some, err := a.hasKeys(bundlesOf(day)); err != nil {
		return err
	} else if some {
		return fmt.Errorf("%w: it has sealed samples", ErrDayTaken)
	}
	// A series that is active may have lost its samples since, so the samples themselves are looked for.
	active, err := a.activeBetween(day, day+1)
	if err != nil || active.IsEmpty() {
		return err
	}
	if a.live.sampledOn(day) {
		return fmt.Errorf("%w: samples of it arrived lately", ErrDayTaken)
	}
	if replayed := a.replayed.Load(); replayed != nil && replayed.sampledOn(day) {
		return fmt.Errorf("%w: samples of it arrived lately", ErrDayTaken)
	}
	lower := format.AppendGenerationPrefix(nil, day, a.days.record(day).Generation)
	some, err := a.hasKeys(keyRange{format.FamilyHot, lower, format.PrefixEnd(lower)})
	if err == nil && some {
		err = fmt.Errorf("%w: it has samples that wait to be sealed", ErrDayTaken)
	}
	return err
}

// recorded returns the record of the day, and whether it has one on disk. A day without has the record that is zero.
func (s *dayStates) recorded(d format.Day) (r format.DayRecord, ok bool) {
	r = s.record(d)
	return r, r != format.DayRecord{}
}

// sampledOn tells whether a series has a sample of the day in memory that isn't on disk.
func (o *openRuns) sampledOn(day format.Day) (found bool) {
	o.each(func(p *page) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for slot := 0; slot < len(p.slots) && !found; slot++ {
			found = p.sampled(uint8(slot), latest, day.StartMillis(), day.EndMillis()-1)
		}
	})
	return found
}

// usable tells why the intake can't go on. Called with mu held.
func (i *Intake) usable() error {
	switch {
	case i.a.closing.Load():
		return i.a.writable()
	case i.state != intakeOpen:
		return fmt.Errorf("take %s in: %w", Date(i.day), ErrIntakeClosed)
	}
	return nil
}

// Add adds the samples of a series that lie on the day; others are left out. Series come in the order of metric (see MetricsOf) and then
// ref, each once. Of samples with equal times that of the chunk further behind in chunks counts. Nothing is kept of the arguments.
//
// After an error other than ErrIntakeChunk the intake can only be closed.
func (i *Intake) Add(ref storage.SeriesRef, chunks []IntakeChunk) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.usable(); err != nil {
		return err
	}
	err := i.add(ref, chunks)
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrIntakeChunk) {
		i.state = intakeBroken
	}
	return fmt.Errorf("take %s in: series %d: %w", Date(i.day), ref, err)
}

func (i *Intake) add(ref format.Ref, chunks []IntakeChunk) error {
	if ref == 0 || ref > refMax {
		return errors.New("there is no such series")
	}
	// From here on it is not forgotten: that is a job too.
	i.a.cat.leaving.stay(ref)
	rec, err := i.a.cat.record(ref)
	if err != nil {
		return forgottenMeanwhile(err)
	}
	next := rollSeries{rec.Metric, ref}
	if next.metric < i.last.metric || next.metric == i.last.metric && ref <= i.last.ref {
		return fmt.Errorf("it is of metric %d and comes behind series %d of metric %d: out of order", next.metric, i.last.ref, i.last.metric)
	}
	keeps, err := i.keeps(ref)
	if err != nil {
		return err
	}
	if i.pieces, err = i.piecesOf(chunks); err != nil {
		return err
	}
	column := &i.bundler.column
	if !keeps {
		column = &i.column
	}
	if err := column.Decode(i.pieces, i.day.StartMillis(), i.day.EndMillis()-1); err != nil {
		// It is not the archive that is corrupt.
		return fmt.Errorf("%w: %v", ErrIntakeChunk, err)
	}
	i.last = next
	if !keeps {
		i.report.Expired += uint64(len(column.Times))
		return nil
	}
	if len(column.Times) == 0 {
		return nil
	}
	first := column.Times[0]
	if err := i.bundler.decoded(&sealSeries{metric: next.metric, ref: ref}); err != nil {
		return err
	}
	i.refs.Add(uint32(ref))
	if first == i.day.StartMillis() {
		i.early.Add(uint32(ref))
	}
	if !i.known.Contains(uint32(ref)) {
		for _, id := range rec.Pairs {
			addTo(i.postings.pairs, monthPair{i.day.Month(), id}, uint32(ref))
		}
	}
	return nil
}

// keeps tells whether samples of the series are kept on the day.
func (i *Intake) keeps(ref format.Ref) (bool, error) {
	if i.gone.Contains(uint32(ref)) {
		return false, nil
	}
	lacking, err := i.a.trims.lacking(i.kept, i.a.trims.gone.Load(), i.a.cat)
	if err != nil || lacks(lacking, ref, i.day.StartMillis()) {
		return false, err
	}
	if i.kept.rawFirst == i.kept.rawLast {
		return true, nil
	}
	if err := i.kept.learn(i.a.cat, roaring.BitmapOf(uint32(ref))); err != nil {
		return false, err
	}
	return i.day >= i.kept.raw(ref), nil
}

// piecesOf describes the chunks that may have samples of the day, in their order.
func (i *Intake) piecesOf(chunks []IntakeChunk) ([]chunk.Piece, error) {
	mint, maxt := i.day.StartMillis(), i.day.EndMillis()-1
	pieces := i.pieces[:0]
	for n := range chunks {
		c := &chunks[n]
		if c.MaxMillis < mint || c.MinMillis > maxt {
			continue
		}
		if c.Chunk == nil {
			return pieces, fmt.Errorf("%w: it has no data", ErrIntakeChunk)
		}
		hidden := within(spansOf(c.Deleted), c.MinMillis, c.MaxMillis)
		if hidden != nil && (*hidden)[0].FromMillis <= c.MinMillis && (*hidden)[0].ToMillis >= c.MaxMillis {
			continue
		}
		pieces = append(pieces, chunk.Piece{
			Encoding: c.Chunk.Encoding(), Samples: c.Chunk.NumSamples(), MinMillis: c.MinMillis, MaxMillis: c.MaxMillis,
			Data: c.Chunk.Bytes(), Hidden: hidden,
		})
	}
	return pieces, nil
}

// spansOf are upstream's intervals in order, joined where they touch.
func spansOf(deleted tombstones.Intervals) chunk.Spans {
	if len(deleted) == 0 {
		return nil
	}
	sorted := slices.Clone(deleted)
	slices.SortFunc(sorted, func(x, y tombstones.Interval) int { return cmp.Compare(x.Mint, y.Mint) })
	var out chunk.Spans
	for _, d := range sorted {
		if n := len(out); n > 0 && (out[n-1].ToMillis == math.MaxInt64 || d.Mint <= out[n-1].ToMillis+1) {
			out[n-1].ToMillis = max(out[n-1].ToMillis, d.Maxt)
		} else if d.Mint <= d.Maxt {
			out = append(out, chunk.Span{FromMillis: d.Mint, ToMillis: d.Maxt})
		}
	}
	return out
}

// put takes a bundle to the table file that grows.
func (i *Intake) put(key, value []byte) (err error) {
	if i.puts++; i.puts%intakeLook == 1 {
		if err := errors.Join(i.a.disk.check(), i.a.writable()); err != nil {
			return err
		}
	}
	if i.file == nil {
		path := filepath.Join(i.a.dir, intakeDir, fmt.Sprintf("%06d.sst", len(i.files)))
		if i.file, err = i.a.db.NewFileWriter(family(format.FamilyRaw), path); err != nil {
			return err
		}
		i.files = append(i.files, path)
	}
	if err := i.file.Put(key, value); err != nil {
		return err
	}
	if i.file.Bytes() < intakeFileBytes {
		return nil
	}
	return i.endFile()
}

func (i *Intake) endFile() error {
	if i.file == nil {
		return nil
	}
	_, _, err := i.file.Finish()
	i.file = nil
	i.a.step("intake file")
	return err
}

// writeClocks writes new clocks, which no bundle that can be seen names yet. What makes the bundles seen is synced, and these with it.
func (i *Intake) writeClocks(format.PairID, format.Ref) error {
	w := &i.bundler
	if w.batch.Len() == 0 {
		return nil
	}
	if err := i.a.db.Write(&w.batch, false); err != nil {
		i.a.state.failed(err)
		return err
	}
	w.batch.Reset()
	i.a.step("intake clocks")
	if w.book.full() {
		w.book.forget()
	}
	return nil
}

// MetricsOf sets metrics[i] to the metric of refs[i]: series are added to an intake in the order of metric and then ref. An error is
// an *arrival.Unavailable if a series was forgotten since it was resolved.
func (a *Archive) MetricsOf(ctx context.Context, refs []storage.SeriesRef, metrics []uint32) error {
	if len(metrics) < len(refs) {
		return fmt.Errorf("metrics of %d series: there is room for %d", len(refs), len(metrics))
	}
	for len(refs) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(len(refs), lookBatch)
		err := a.cat.metricsOf(refs[:n], metrics)
		if err != nil {
			return forgottenMeanwhile(err)
		}
		refs, metrics = refs[n:], metrics[n:]
	}
	return nil
}

// metricsOf sets the metrics of some series.
func (c *catalogue) metricsOf(refs []format.Ref, metrics []uint32) error {
	keys := make([][]byte, len(refs))
	for i, ref := range refs {
		keys[i] = format.AppendUint64(nil, uint64(ref))
	}
	var s format.Series
	return c.db.MultiGet(family(format.FamilySeries), keys, func(i int, value []byte, ok bool) error {
		if ok {
			err := s.Parse(value)
			metrics[i] = uint32(s.Metric)
			return err
		}
		// It isn't durable yet.
		rec, err := c.record(refs[i])
		metrics[i] = uint32(rec.Metric)
		return err
	})
}
