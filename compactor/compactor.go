// Package compactor decides what of an archive is due and has it done: days that are
// over are sealed and rolled up, what was deleted or is past its age is removed, and so are series without data and runs that nobody needs any more.
//
// It works in two steps that know nothing of each other. Plan is a pure function
// from what there is, the time and a policy to a list of jobs. A Compactor takes the
// inventory, plans, and does the jobs one after the other, each through a method of
// the archive that is atomic batch by batch and may be killed anywhere.
//
// Its work stands behind that of writers and readers: between two batches it rests, except
// in a Run, which somebody asked for.
package compactor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varve/archive"
	"varve/archive/format"
)

// Pace is called between the batches of a job with the time that the last one took. It may wait,
// and its error ends the job, which goes on where it was when it is done again.
type Pace = archive.Pace

// Archive is what the compactor asks of an archive.
type Archive interface {
	// Maintain with all brings everything that is in memory to runs.
	Maintain(all bool) error
	Days() ([]archive.DayStatus, error)
	Seal(ctx context.Context, day format.Day, pace Pace) (archive.SealReport, error)
	Roll(ctx context.Context, day format.Day, pace Pace) (archive.RollReport, error)
	LiveDeletes() []archive.Delete
	Clean(ctx context.Context, ids []format.TombstoneID, pace Pace) (archive.CleanReport, error)
	Retention() (archive.RetentionStatus, error)
	Expire(ctx context.Context, floors []format.Day) (archive.ExpireReport, error)
	Trim(ctx context.Context, day format.Day, pace Pace) (archive.TrimReport, error)
	Forget(ctx context.Context, pace Pace) (archive.ForgetReport, error)
	Reclaim() (waiting int, err error)
	// Settle leaves on disk only what is needed.
	Settle() error
	// Tidy makes the files of days that were sealed or rolled up what they stay.
	Tidy(ctx context.Context) error
}

// Outcome is what became of a job.
type Outcome struct {
	Job Job
	// One of these says what was done, as the job's kind is.
	Seal   archive.SealReport
	Roll   archive.RollReport
	Clean  archive.CleanReport
	Expire archive.ExpireReport
	Trim   archive.TrimReport
	Forget archive.ForgetReport
	// Err is why the job ended before it was done, nil if it was. Retry is when it will be
	// tried again by itself.
	Err   error
	Retry time.Time
}

// idle tells that the job was a look for something to forget, and there was nothing.
func (o *Outcome) idle() bool {
	return o.Job.Kind == Forget && o.Err == nil && o.Forget.Series+o.Forget.Pairs+o.Forget.Leaving == 0
}

// Options of a Compactor.
type Options struct {
	Policy Policy
	// Interval is how often it looks for work by itself. Default one minute.
	Interval time.Duration
	// Share is the part of the time that background work may take of one core, above 0
	// and at most 1. Default 0.5.
	Share float64
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
	// Done is told of every job, except those that looked for series to forget and found none. It may be nil.
	Done func(Outcome)
	// Failed is told of what went wrong beside jobs: what is due could not be listed, or space
	// not be given back. It may be nil.
	Failed func(error)
}

// Compactor does what is due. Its methods are safe for use by several goroutines.
type Compactor struct {
	a Archive
	o Options
	m *metrics

	// working is held, by having put something in, while jobs are done: a mutex that
	// whoever waits for it can give up on.
	working chan struct{}
	// failures are the jobs that failed of late. Whoever works has them.
	failures map[jobName]failure

	mu     sync.Mutex
	status Status
	// resumed is closed by Resume, and nil unless the compactor is paused.
	resumed chan struct{}
}

// jobName tells jobs apart.
type jobName struct {
	kind Kind
	day  format.Day
}

func (j *Job) name() jobName { return jobName{j.Kind, j.Day.Day} }

// failure is how often a job failed in a row, and when it may be tried again.
type failure struct {
	times int
	retry time.Time
}

// A job that failed is tried again after retryMin, and then after twice as long each time, up to
// retryMax.
const (
	retryMin = time.Minute
	retryMax = time.Hour
)

// Status says what the compactor is at.
type Status struct {
	// Running is the job under way, nil if there is none.
	Running *Job
	Since   time.Time
	// Paused tells that background work waits for Resume.
	Paused bool
	// Waiting is the number of sealed days whose runs a query still holds.
	Waiting int
	// Planned are the jobs that were due when it last looked.
	Planned []Job
	// Unforced are jobs that were due too, and wait until somebody forces them.
	Unforced []Job
	// Failed is what went wrong the last time there was something to do or to look for, nil if
	// all went well.
	Failed error
}

// Report says what a Run did.
type Report struct {
	Sealed  []archive.SealReport
	Rolled  []archive.RollReport
	Cleaned []archive.CleanReport
	Expired []archive.ExpireReport
	Trimmed []archive.TrimReport
	// Forgot is what was done with series that have no data any more.
	Forgot archive.ForgetReport
	// Waiting is the number of sealed days whose runs a query still holds: their space is
	// free when the query is done.
	Waiting int
	Took    time.Duration
}

// New returns a Compactor of the archive, which must outlive it.
func New(a Archive, o Options) *Compactor {
	if o.Interval == 0 {
		o.Interval = time.Minute
	}
	if o.Share == 0 {
		o.Share = 0.5
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Compactor{a: a, o: o, working: make(chan struct{}, 1), failures: map[jobName]failure{}}
	c.m = newMetrics(c, o.Registerer)
	return c
}

// Loop looks for work every Interval until ctx ends, unless it is paused. Errors go to
// Options.Done, and what failed is tried again later and later.
func (c *Compactor) Loop(ctx context.Context) {
	tick := time.NewTicker(c.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if c.Status().Paused {
				continue
			}
			// Its errors were told where they happened.
			_, _ = c.run(ctx, c.o.Policy, c.rest)
		}
	}
}

// Run does at full speed what is due by the policy's SealDelay alone, quiet or not, paused or
// not, and failed before or not, after it has brought everything in memory to disk, and leaves
// the disk tidy. It waits for work that is under way.
func (c *Compactor) Run(ctx context.Context) (Report, error) { return c.now(ctx, false) }

// RunForced is Run, and lets expire how much ever is past its age.
func (c *Compactor) RunForced(ctx context.Context) (Report, error) { return c.now(ctx, true) }

// RunDue is for whoever is about to copy the archive and wants in it what is due by the policy's SealDelay: it takes the Loop's
// share of the time, paused or not, and costs next to nothing when nothing is due. What is in memory alone stays there, and waits
// for a later run if its day is sealed by this one. It waits for work that is under way, but not for an intake.
func (c *Compactor) RunDue(ctx context.Context) (Report, error) {
	r, err := c.run(ctx, Policy{SealDelay: c.o.Policy.SealDelay, DropShareMax: c.o.Policy.DropShareMax}, c.spread)
	if err != nil {
		return r, err
	}
	if err := c.a.Tidy(ctx); err != nil {
		if ctx.Err() != nil {
			return r, err
		}
		return r, c.failed(err)
	}
	return r, nil
}

func (c *Compactor) now(ctx context.Context, force bool) (Report, error) {
	if err := c.a.Maintain(true); err != nil {
		return Report{}, fmt.Errorf("compactor: %w", err)
	}
	r, err := c.run(ctx, Policy{SealDelay: c.o.Policy.SealDelay, DropShareMax: c.o.Policy.DropShareMax, Force: force}, nil)
	if err != nil {
		return r, err
	}
	if err := c.a.Settle(); err != nil {
		return r, c.failed(err)
	}
	return r, nil
}

// Clean removes at full speed what the deletes hide, whether their grace is over or not. It waits for work
// that is under way.
func (c *Compactor) Clean(ctx context.Context, ids []format.TombstoneID) (Report, error) {
	return c.alone(ctx, func() (r Report, err error) {
		err = c.do(ctx, Job{Kind: Clean, Deletes: ids, Why: "somebody asked for it"}, nil, &r)
		var reclaimErr error
		if r.Waiting, reclaimErr = c.a.Reclaim(); reclaimErr != nil {
			err = errors.Join(err, c.failed(reclaimErr))
		}
		return r, err
	})
}

// Pause makes background work stop: a job under way after its batch, and others before they
// begin. A Run is not stopped.
func (c *Compactor) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resumed == nil {
		c.resumed = make(chan struct{})
		c.status.Paused = true
	}
}

// Resume ends a Pause.
func (c *Compactor) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resumed != nil {
		close(c.resumed)
		c.resumed = nil
		c.status.Paused = false
	}
}

// Status returns what the compactor is at.
func (c *Compactor) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// run does what is due. Without a pace it is what somebody asked for.
func (c *Compactor) run(ctx context.Context, p Policy, pace Pace) (Report, error) {
	return c.alone(ctx, func() (Report, error) { return c.work(ctx, p, pace) })
}

// alone does some work when no other is under way.
func (c *Compactor) alone(ctx context.Context, work func() (Report, error)) (Report, error) {
	select {
	case c.working <- struct{}{}:
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
	defer func() { <-c.working }()
	began := c.o.Now()
	r, err := work()
	r.Took = c.o.Now().Sub(began)
	c.note(func(s *Status) { s.Waiting, s.Planned, s.Failed = r.Waiting, nil, err })
	return r, err
}

// work does one job after the other, each once, and looks anew after each, since one may make
// others due.
func (c *Compactor) work(ctx context.Context, p Policy, pace Pace) (r Report, err error) {
	var errs []error
	tried := map[jobName]bool{}
	for ctx.Err() == nil {
		job, err := c.next(p, tried, pace == nil)
		if err != nil {
			errs = append(errs, c.failed(err))
			break
		}
		if job == nil {
			break
		}
		tried[job.name()] = true
		err = c.do(ctx, *job, pace, &r)
		if errors.Is(err, archive.ErrJobAtWork) {
			// An intake, which may take minutes. It is no failure, and what is due is found again.
			if pace == nil {
				errs = append(errs, err)
			}
			break
		}
		// One day that can't be worked on keeps no other from it.
		if err != nil {
			errs = append(errs, err)
		}
	}
	if ctx.Err() != nil {
		errs = append(errs, ctx.Err())
	}
	if r.Waiting, err = c.a.Reclaim(); err != nil {
		errs = append(errs, c.failed(err))
	}
	return r, errors.Join(errs...)
}

// next returns the first job that is due and was not tried, nil if there is none. One that
// failed of late waits for its time, unless all are wanted.
func (c *Compactor) next(p Policy, tried map[jobName]bool, all bool) (*Job, error) {
	days, err := c.a.Days()
	if err != nil {
		return nil, err
	}
	kept, err := c.a.Retention()
	if err != nil {
		return nil, err
	}
	now := c.o.Now()
	jobs := Plan(Inventory{Days: days, Deletes: c.a.LiveDeletes(), Retention: kept}, now, p)
	var unforced []Job
	jobs = slices.DeleteFunc(jobs, func(job Job) bool {
		if job.Waits != "" {
			unforced = append(unforced, job)
		}
		return job.Waits != ""
	})
	c.note(func(s *Status) { s.Planned, s.Unforced = jobs, unforced })
	for i := range jobs {
		name := jobs[i].name()
		if !tried[name] && (all || !now.Before(c.failures[name].retry)) {
			return &jobs[i], nil
		}
	}
	return nil, nil
}

// failed tells of an error that belongs to no job.
func (c *Compactor) failed(err error) error {
	err = fmt.Errorf("compactor: %w", err)
	if c.o.Failed != nil {
		c.o.Failed(err)
	}
	return err
}

// do does one job.
func (c *Compactor) do(ctx context.Context, job Job, pace Pace, r *Report) error {
	c.note(func(s *Status) { s.Running, s.Since = &job, c.o.Now() })
	o := Outcome{Job: job}
	switch job.Kind {
	case Seal:
		if o.Seal, o.Err = c.a.Seal(ctx, job.Day.Day, pace); o.Err == nil {
			r.Sealed = append(r.Sealed, o.Seal)
		}
	case Roll:
		if o.Roll, o.Err = c.a.Roll(ctx, job.Day.Day, pace); o.Err == nil {
			r.Rolled = append(r.Rolled, o.Roll)
		}
	case Clean:
		if o.Clean, o.Err = c.a.Clean(ctx, job.Deletes, pace); o.Err == nil {
			r.Cleaned = append(r.Cleaned, o.Clean)
		}
	case Expire:
		if o.Expire, o.Err = c.a.Expire(ctx, job.Expiry.Floors); o.Err == nil {
			r.Expired = append(r.Expired, o.Expire)
		}
	case Trim:
		if o.Trim, o.Err = c.a.Trim(ctx, job.Day.Day, pace); o.Err == nil {
			r.Trimmed = append(r.Trimmed, o.Trim)
		}
	case Forget:
		o.Forget, o.Err = c.a.Forget(ctx, pace)
		r.Forgot = o.Forget
	}
	c.note(func(s *Status) { s.Running = nil })
	if errors.Is(o.Err, archive.ErrJobAtWork) {
		return o.Err // It was not begun.
	}
	o.Retry = c.judge(ctx, &job, o.Err)
	if c.o.Done != nil && !o.idle() {
		c.o.Done(o)
	}
	return o.Err
}

// judge remembers whether a job failed, and returns when it may be tried again.
func (c *Compactor) judge(ctx context.Context, job *Job, err error) time.Time {
	name := job.name()
	if err == nil || ctx.Err() != nil {
		delete(c.failures, name)
		return time.Time{}
	}
	f := c.failures[name]
	wait := min(retryMin<<min(f.times, 10), retryMax)
	f.times++
	f.retry = c.o.Now().Add(wait)
	c.failures[name] = f
	return f.retry
}

func (c *Compactor) note(f func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.status)
}

// rest makes the work take no more than its share of the time, and none while it is paused.
func (c *Compactor) rest(ctx context.Context, worked time.Duration) error {
	c.mu.Lock()
	resumed := c.resumed
	c.mu.Unlock()
	if resumed != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-resumed:
		}
	}
	return c.spread(ctx, worked)
}

// spread makes the work take no more than its share of the time.
func (c *Compactor) spread(ctx context.Context, worked time.Duration) error {
	pause := time.NewTimer(time.Duration(float64(worked) * (1 - c.o.Share) / c.o.Share))
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
		return nil
	}
}
