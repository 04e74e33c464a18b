package archive

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"varve/archive/format"
)

// How series are forgotten: their records, what finds them by their labels, and the pairs that no other series
// carries.
//
// A series may be forgotten when nothing names it: no day of the index, no sample, bucket or exemplar, no dirty mark, no
// tombstone, and no record of the journal that a start reads. Notes of what rules removed of it go before it, and postings of the month
// that the floor cuts in two with it.
//
// Writers are the difficulty: one may have looked a series up and write to it any time later. So it goes in two steps.
//
//  1. Series without data begin to leave. Under the locks of the open runs and of the archive their slots become unknown, so that
//     whoever writes to one from then on has to ask for it first, and makes it stay. What is true of a series that is still leaving stays
//     true: nobody has written to it. Then all that may name it is looked through, and the others stay.
//  2. When the journal begins behind the moment of the first step, and readers of before are gone, the series are removed, some
//     thousand in each batch. Under the locks of the index, of the open runs and of the catalogue those that stay are left out, and the batch is
//     written. A writer that still has the ref of one is given the series that its labels name then, a new one as a rule.
//
// The first step writes notes and the groups' free refs alone. A kill leaves a series as it was, or gone with all its records.
//
// Pairs are swept after that: those that no record of a series names. Whoever makes a series meanwhile notes its pairs.

// forgets is how far the forgetting of series is.
type forgets struct {
	// changed tells that series may have lost their last data since one looked for such.
	changed atomic.Bool
	// named is the last sequence that may name a leaving series, epoch the first whose readers don't know of them.
	named, epoch atomic.Uint64
	// again is when it is looked at again whether series that had to stay may go, Unix ms; 0 if none had to.
	again atomic.Int64

	// ageMin and batch are forgetAgeMin and forgetBatch, but in tests.
	ageMin time.Duration
	batch  int
}

func (f *forgets) start() {
	f.ageMin, f.batch = forgetAgeMin, forgetBatch
	f.changed.Store(true)
}

const (
	// forgetAgeMin is how old a series has to be: one that was just made waits for its first sample.
	forgetAgeMin = time.Hour
	// forgetAgain is how long series have to wait that had to stay.
	forgetAgain = time.Hour
	// forgetBatch is the number of series that a batch removes.
	forgetBatch = 2048
	// sweepBatch is the number of pairs that a batch removes.
	sweepBatch = 8192
	// departedMax bounds the labels of forgotten series that are remembered: some 30 MB.
	departedMax = 1 << 16
)

// ForgetReport says what a Forget did.
type ForgetReport struct {
	// Series were removed, and Pairs of labels and Metadata records of metric families without series. Bytes are those of keys and
	// values, before compression.
	Series, Pairs, Metadata, Bytes uint64
	// Leaving series have no data any more. They are removed by a later Forget, because Waits.
	Leaving uint64
	Waits   string
	Took    time.Duration
}

// ForgetStatus says whether there are series to be forgotten.
type ForgetStatus struct {
	// Due tells that a Forget has something to do or to look for.
	Due bool
	// Leaving series have no data any more, and wait.
	Leaving uint64
	Waits   string
}

// forgettable tells whether series may be forgotten now. It reads no disk.
func (a *Archive) forgettable() (s ForgetStatus) {
	s.Leaving = a.cat.leaving.count()
	s.Waits = a.forgetWaits()
	again := a.forgets.again.Load()
	looks := a.forgets.changed.Load() || again != 0 && a.o.Now().UnixMilli() >= again
	s.Due = s.Waits == "" && (looks || a.cat.leaving.some.Load())
	return s
}

// forgetWaits tells why nothing can be forgotten now, empty if it can.
func (a *Archive) forgetWaits() string {
	switch {
	case a.replayed.Load() != nil:
		return "a query holds what was read back from the journal"
	case a.left.held(a.views.oldest()):
		return "a query holds runs of sealed days"
	case a.days.folding():
		return "a sealing was interrupted"
	case a.rolls.rolling():
		return "a roll-up was interrupted"
	case a.trims.trimming():
		return "a trim was interrupted"
	case !a.cat.leaving.some.Load():
		return ""
	case a.journalFrom() <= format.Sequence(a.forgets.named.Load()):
		return "the journal still has records of before"
	case a.views.oldest() < a.forgets.epoch.Load():
		return "a query began before"
	}
	return ""
}

// journalFrom is the first record of the journal that anybody reads.
func (a *Archive) journalFrom() format.Sequence { return format.Sequence(a.upkeep.journalMark.Load()) }

// held tells whether runs wait for readers of before the epoch.
func (l *leftovers) held(epoch uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.runs, func(r leftRuns) bool { return r.epoch > epoch })
}

// folding tells whether a day is being sealed.
func (s *dayStates) folding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.days {
		if state.record.Folding {
			return true
		}
	}
	return false
}

// rolling tells whether a day is being rolled up at a resolution in use.
func (s *rollStates) rolling() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, r := range s.records {
		if r.Rolling && slices.Contains(s.resolutions, k.resolution) {
			return true
		}
	}
	return false
}

// trimming tells whether a day is being trimmed.
func (t *trims) trimming() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.unfinished) > 0
}

// Forget removes series that have no data any more: what retention or a delete has left of them. Where that
// must wait, for readers or the journal, it is the next Forget that removes them; what there is to wait for is no error.
//
// Without a pace it brings everything in memory to disk, so that there is no waiting for the journal. pace is as in Seal. A
// Forget that is ended, by ctx, an error or a kill, has removed some of the series.
func (a *Archive) Forget(ctx context.Context, pace Pace) (ForgetReport, error) {
	if err := a.writableRuns(); err != nil {
		return ForgetReport{}, err
	}
	if err := a.lockJobs(); err != nil {
		return ForgetReport{}, err
	}
	defer a.sealing.Unlock()
	f := forgetter{a: a, ctx: ctx, pace: pace, freed: map[format.Family]uint64{}}
	began := time.Now()
	err := f.run()
	f.report.Took = time.Since(began)
	a.m.forgot(&f.report, err)
	if err != nil {
		return f.report, fmt.Errorf("forget series: %w", err)
	}
	return f.report, nil
}

// forgetter does what a Forget does. It is used with sealing held.
type forgetter struct {
	a       *Archive
	ctx     context.Context
	pace    Pace
	report  ForgetReport
	stepped time.Time
	// freed are the bytes that families have lost until now.
	freed map[format.Family]uint64
}

func (f *forgetter) run() error {
	f.stepped = time.Now()
	// Runs that nobody needs name series too. Some may have to wait for a reader.
	if waiting, err := f.a.left.drop(f.a); err != nil || waiting > 0 {
		f.report.Waits = "a query holds runs of sealed days"
		return err
	}
	if f.report.Waits = f.a.forgetWaits(); f.report.Waits != "" && !f.a.cat.leaving.some.Load() {
		return nil
	}
	if !f.a.cat.leaving.some.Load() {
		if err := f.leave(); err != nil {
			f.a.cat.leaving.end()
			f.a.forgets.changed.Store(true)
			return err
		}
	}
	if f.pace == nil && f.a.cat.leaving.some.Load() {
		if err := f.a.Maintain(true); err != nil {
			return err
		}
	}
	if f.report.Waits = f.a.forgetWaits(); f.report.Waits != "" {
		f.report.Leaving = f.a.cat.leaving.count()
		return nil
	}
	if !f.a.cat.leaving.some.Load() {
		return nil
	}
	err := f.remove()
	f.a.cat.leaving.end()
	if err == nil {
		err = f.sweep()
	}
	if err == nil {
		err = f.free()
	}
	if err != nil {
		f.a.forgets.changed.Store(true)
	}
	return err
}

// free gives the disk back what went, where it is more than a small share.
func (f *forgetter) free() error {
	for of, bytes := range f.freed {
		if bytes*freeShare < f.a.db.FamilyStats(family(of)).Bytes {
			continue
		}
		if err := f.a.db.CompactRange(family(of), nil, nil); err != nil {
			return err
		}
		if err := f.rest(); err != nil {
			return err
		}
	}
	return nil
}

// rest gives the pace a moment between two batches.
func (f *forgetter) rest() error {
	if err := f.a.ended(f.ctx); err != nil || f.pace == nil {
		return err
	}
	err := f.pace(f.ctx, time.Since(f.stepped))
	f.stepped = time.Now()
	return err
}
