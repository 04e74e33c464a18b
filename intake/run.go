package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"varve/digest"
)

// Options say how Run works. The zero Options import everything, without a state file.
//
// Whether outputs get what goes through the write port is a setting of the target.
type Options struct {
	// Start (inclusive) and End (exclusive) bound what is imported, in Unix ms. 0 is open.
	Start, End int64
	// State is the file that makes a run resumable. "" is none: a rerun then compares all days.
	State string
	// Workers above 1 read the labels of the next day while a day is added. Default 2.
	Workers int
	// ExtraLabels are set on all series, in place of their own of the same name.
	ExtraLabels labels.Labels
	// Progress is called now and then, by one goroutine at a time. It must not block.
	Progress func(Progress)
	// PieceBytes bounds the chunks of one call of Target.Write. Default 4 MiB.
	PieceBytes int
	Logger     *slog.Logger
}

// Waits for a target that is busy.
const (
	busyWaitMin = 100 * time.Millisecond
	busyWaitMax = 10 * time.Second
)

// Run imports what the source has, day by day, and proves it. A report is returned with an error too: it is of what was done before.
// That a proof failed is no error but in the report.
func Run(ctx context.Context, s Source, t Target, o Options) (Report, error) {
	r, err := newRun(s, t, o)
	if err != nil {
		return Report{}, err
	}
	err = errors.Join(r.days(ctx), r.state.write())
	r.report.Took = time.Since(r.meter.began)
	return r.report, err
}

// run is one call of Run.
type run struct {
	s      Source
	t      Target
	o      Options
	state  *state
	meter  meter
	report Report
	feed   feeder
	proof  merger
}

func newRun(s Source, t Target, o Options) (*run, error) {
	if o.End == 0 {
		o.End = math.MaxInt64
	}
	if o.Start == 0 {
		o.Start = math.MinInt64
	}
	if o.Start >= o.End {
		return nil, fmt.Errorf("the start, %s, is not before the end, %s", stamp(o.Start), stamp(o.End))
	}
	if o.Workers <= 0 {
		o.Workers = 2
	}
	if o.PieceBytes <= 0 {
		o.PieceBytes = 4 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	st, err := readState(o.State)
	if err != nil {
		return nil, err
	}
	r := &run{s: s, t: t, o: o, state: st, report: Report{RefusedSeries: map[string]Refusal{}, RefusedSamples: map[string]uint64{}}}
	r.meter.init(o.Progress)
	r.meter.now.SamplesTotal, r.report.SourceBytes = s.Size()
	return r, nil
}

// days does all days.
func (r *run) days(ctx context.Context) error {
	todo, err := r.plan()
	if err != nil {
		return err
	}
	var next func() (*prepared, error)
	defer func() {
		if next != nil { // ends the preparation that nobody waits for any more
			if p, err := next(); err == nil {
				_ = p.close() //nolint:errcheck // the run's own error is told
			}
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, start := range todo {
		begin := next
		if next = nil; begin == nil {
			begin = func() (*prepared, error) { return r.prepare(ctx, start) }
		}
		p, err := begin()
		if err == nil && r.o.Workers > 1 && i+1 < len(todo) {
			next = r.ahead(ctx, todo[i+1])
		}
		if err == nil {
			err = r.day(ctx, p)
		}
		if err != nil {
			cancel()
			return fmt.Errorf("%s: %w", DayName(start), err)
		}
	}
	return nil
}

// ahead prepares a day in a goroutine of its own; the answer waits for it.
func (r *run) ahead(ctx context.Context, start int64) func() (*prepared, error) {
	var p *prepared
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { p, err = r.prepare(ctx, start) })
	return func() (*prepared, error) { wg.Wait(); return p, err }
}

// daysMax bounds how many days are looked at: one sample with a time in other units makes a source span ages.
const daysMax = 100_000

// plan returns the days to do, in order, and counts those that are done.
func (r *run) plan() (todo []int64, err error) {
	mint, maxt, ok := r.s.Span()
	mint, maxt = max(mint, r.o.Start), min(maxt, r.o.End-1)
	if !ok || mint > maxt {
		return nil, nil
	}
	if maxt/DayMillis-mint/DayMillis > daysMax {
		return nil, fmt.Errorf("the source spans more than %d days, from %s to %s: bound it, with --start and --end", daysMax, stamp(mint), stamp(maxt))
	}
	for start := DayStart(mint); ; start += DayMillis {
		r.meter.now.DaysTotal++
		if done, ok := r.state.Days[DayName(start)]; ok && done.Identity == r.identity(start) {
			r.report.Before++
			r.count(done)
			r.meter.skip(done.Digest.Samples)
		} else {
			todo = append(todo, start)
		}
		if start > maxt-DayMillis {
			return todo, nil
		}
	}
}

// DayStart is the begin of the UTC day of a time, both in ms.
func DayStart(millis int64) int64 {
	rest := millis % DayMillis
	if rest < 0 {
		rest += DayMillis
	}
	return millis - rest
}

// bounds are the times of the day that are asked for, inclusive and exclusive.
func (r *run) bounds(start int64) (from, to int64) {
	return max(start, r.o.Start), min(start+DayMillis, r.o.End)
}

func (r *run) identity(start int64) string {
	from, to := r.bounds(start)
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %q %q", from, to, r.o.ExtraLabels.String(), r.s.Identity(start)))
	return hex.EncodeToString(sum[:16])
}

// count adds a day that is done to the report.
func (r *run) count(d dayState) {
	r.report.Series += d.Series
	r.report.Samples += d.Digest.Samples
	r.report.Bytes += d.Bytes
	r.report.Stored += d.Stored
	r.report.Repeated += d.Repeated
	for reason, refusal := range d.RefusedSeries {
		all := r.report.RefusedSeries[reason]
		if all.Series += refusal.Series; all.Example == "" {
			all.Example = refusal.Example
		}
		r.report.RefusedSeries[reason] = all
	}
	for reason, n := range d.RefusedSamples {
		r.report.RefusedSamples[reason] += n
	}
}

// day brings a prepared day to the target, and proves and notes it.
func (r *run) day(ctx context.Context, p *prepared) error {
	began := time.Now()
	var done dayState
	var diff differences
	for {
		var err error
		done, diff, err = r.attempt(ctx, p)
		if cerr := p.close(); err == nil {
			err = cerr
		}
		if err == nil {
			break
		}
		if refused := (*refusedDay)(nil); errors.As(err, &refused) {
			r.report.RefusedDays = append(r.report.RefusedDays, RefusedDay{DayName(p.start), refused.err.Error()})
			r.o.Logger.Warn("day refused", "day", DayName(p.start), "err", refused.err)
			r.meter.dayDone()
			return nil
		}
		if !errors.Is(err, ErrReadAgain) {
			return err
		}
		r.o.Logger.Warn("reading the day again", "day", DayName(p.start), "err", err)
		r.meter.takeBack()
		if p, err = r.prepare(ctx, p.start); err != nil {
			return err
		}
	}
	done.RefusedSeries = p.refused
	r.count(done)
	switch done.Way {
	case wayLeased:
		r.report.Leased++
	case wayWritten:
		r.report.Written++
	case wayEmpty:
		r.report.Empty++
	}
	r.meter.dayDone()
	if diff.series > 0 {
		d := Difference{Day: DayName(p.start), Series: diff.series, First: diff.first, What: diff.what}
		r.report.Unequal = append(r.report.Unequal, d)
		r.o.Logger.Error("proof failed", "day", d.Day, "series", d.Series, "first", d.First, "what", d.What)
		return nil
	}
	r.o.Logger.Info("day done", "day", DayName(p.start), "way", done.Way, "series", done.Series, "samples", done.Digest.Samples,
		"bytes", done.Bytes, "took", time.Since(began))
	done.Identity = r.identity(p.start) // only now: what of the source was found broken on the way is in it
	return r.state.done(DayName(p.start), done)
}

// refusedDay is the error of a day that the target's rules don't allow.
type refusedDay struct{ err error }

func (e *refusedDay) Error() string { return e.err.Error() }

// attempt brings the day to the target once.
func (r *run) attempt(ctx context.Context, p *prepared) (done dayState, diff differences, err error) {
	if len(p.entries) == 0 {
		return dayState{Way: wayEmpty}, diff, nil
	}
	day, err := r.lease(ctx, p.start)
	switch {
	case errors.Is(err, ErrDayTaken):
		return r.written(ctx, p, err)
	case errors.Is(err, ErrDayRefused):
		return done, diff, &refusedDay{err}
	case err != nil:
		return done, diff, err
	}
	defer func() { err = errors.Join(err, day.Close()) }()
	r.meter.phase("add", p.start)
	var told DayReport
	sums, err := r.feed.run(ctx, p, day, &r.meter)
	if err == nil {
		r.meter.phase("commit", p.start)
		told, err = day.Commit(ctx)
	}
	if errors.Is(err, ErrDayTaken) {
		// A delete that was made meanwhile would hide what it is not about: what comes in now is later than it. Or a server is so late
		// with its answer that samples are on their way.
		if err := day.Close(); err != nil {
			return done, diff, err
		}
		r.meter.takeBack()
		return r.written(ctx, p, err)
	}
	if err != nil {
		return done, diff, err
	}
	r.meter.phase("prove", p.start)
	done = dayState{Way: wayLeased, Series: uint64(len(sums)), Bytes: told.Bytes}
	for i := range sums {
		done.Digest.Add(sums[i].digest)
	}
	if diff, err = compare(ctx, day, sums, told.Expired); err != nil {
		return done, diff, fmt.Errorf("prove: %w", err)
	}
	if told.Expired > 0 {
		done.RefusedSamples = map[string]uint64{"out_of_retention": told.Expired}
	}
	if diff.series > 0 {
		diff.first, err = r.name(ctx, p, diff.firstRef)
	}
	return done, diff, err
}

// written brings the day in through the write port.
func (r *run) written(ctx context.Context, p *prepared, why error) (dayState, differences, error) {
	r.o.Logger.Info("the day goes through the write port", "day", DayName(p.start), "why", why)
	return r.write(ctx, p)
}

// lease opens the day at the target, and waits for as long as it is busy.
func (r *run) lease(ctx context.Context, start int64) (Day, error) {
	for wait := busyWaitMin; ; wait = min(2*wait, busyWaitMax) {
		day, err := r.t.OpenDay(ctx, start)
		if !errors.Is(err, ErrBusy) {
			return day, err
		}
		r.meter.phase("wait", start)
		r.o.Logger.Info("the target is busy", "day", DayName(start), "wait", wait, "err", err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// sum is what the source has of a series on a day.
type sum struct {
	ref    uint64
	digest digest.Series
}

// compare holds what the target has on disk against the source. Samples of series that it has none of are no difference as far as it
// said that it left them out.
func compare(ctx context.Context, day Day, sums []sum, expired uint64) (diff differences, err error) {
	at := 0
	var rest map[uint64]int // of sums, once the order is lost
	seen := make([]uint64, (len(sums)+63)/64)
	err = day.Digests(ctx, func(ref uint64, d digest.Series) error {
		i := at
		if rest != nil || at >= len(sums) || sums[at].ref != ref {
			if rest == nil {
				rest = make(map[uint64]int, len(sums)-at)
				for k := at; k < len(sums); k++ {
					rest[sums[k].ref] = k
				}
			}
			var ok bool
			if i, ok = rest[ref]; !ok {
				diff.add(ref, "", "the target has "+describe(d)+", the source none")
				return nil
			}
		}
		at = i + 1
		seen[i/64] |= 1 << (i % 64)
		if sums[i].digest != d {
			diff.add(ref, "", "the source has "+describe(sums[i].digest)+", the target "+describe(d))
		}
		return nil
	})
	if err != nil {
		return diff, err
	}
	missing := uint64(0)
	first := diff
	for i := range sums {
		if seen[i/64]&(1<<(i%64)) == 0 {
			missing += sums[i].digest.Samples
			diff.add(sums[i].ref, "", "the source has "+describe(sums[i].digest)+", the target none")
		}
	}
	if missing == expired {
		diff = first
	}
	return diff, nil
}
