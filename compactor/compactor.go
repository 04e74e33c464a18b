// Package compactor decides what of an archive is due and has it done: days that are
// over are sealed, runs that nobody needs any more are dropped.
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
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varve/archive"
	"varve/archive/format"
)

// Archive is what the compactor asks of an archive.
type Archive interface {
	// Maintain with all brings everything that is in memory to runs.
	Maintain(all bool) error
	Days() ([]archive.DayStatus, error)
	Seal(ctx context.Context, day format.Day, pace func(context.Context, time.Duration) error) (archive.SealReport, error)
	Reclaim() (waiting int, err error)
	// Settle leaves on disk only what is needed.
	Settle() error
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
	// Done is told of every job, with its error if it failed. It may be nil.
	Done func(Job, archive.SealReport, error)
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

	mu     sync.Mutex
	status Status
}

// Status says what the compactor is at.
type Status struct {
	// Running is the job under way, nil if there is none.
	Running *Job
	Since   time.Time
	// Waiting is the number of sealed days whose runs a query still holds.
	Waiting int
	// Planned are the days that were due when it last looked.
	Planned []Job
	// Failed is what went wrong the last time there was something to do or to look for, nil if
	// all went well.
	Failed error
}

// Report says what a Run did.
type Report struct {
	Sealed []archive.SealReport
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
	c := &Compactor{a: a, o: o, working: make(chan struct{}, 1)}
	c.m = newMetrics(c, o.Registerer)
	return c
}

// Loop looks for work every Interval until ctx ends. Errors go to Options.Done, and what
// failed is tried again the next time.
func (c *Compactor) Loop(ctx context.Context) {
	tick := time.NewTicker(c.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// Its errors were told where they happened.
			_, _ = c.run(ctx, c.o.Policy, c.rest)
		}
	}
}

// Run does at full speed what is due by the policy's SealDelay alone, quiet or not, after it has
// brought everything in memory to disk, and leaves the disk tidy. It waits for work that is under way.
func (c *Compactor) Run(ctx context.Context) (Report, error) {
	if err := c.a.Maintain(true); err != nil {
		return Report{}, fmt.Errorf("compactor: %w", err)
	}
	r, err := c.run(ctx, Policy{SealDelay: c.o.Policy.SealDelay}, nil)
	if err != nil {
		return r, err
	}
	if err := c.a.Settle(); err != nil {
		return r, c.failed(err)
	}
	return r, nil
}

// Status returns what the compactor is at.
func (c *Compactor) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Compactor) run(ctx context.Context, p Policy, pace func(context.Context, time.Duration) error) (Report, error) {
	select {
	case c.working <- struct{}{}:
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
	defer func() { <-c.working }()
	began := c.o.Now()
	r, err := c.work(ctx, began, p, pace)
	r.Took = c.o.Now().Sub(began)
	c.note(func(s *Status) { s.Waiting, s.Planned, s.Failed = r.Waiting, nil, err })
	return r, err
}

func (c *Compactor) work(ctx context.Context, now time.Time, p Policy, pace func(context.Context, time.Duration) error) (r Report, err error) {
	days, err := c.a.Days()
	if err != nil {
		return r, c.failed(err)
	}
	jobs := Plan(days, now, p)
	c.note(func(s *Status) { s.Planned = jobs })
	var errs []error
	for _, job := range jobs {
		if ctx.Err() != nil {
			errs = append(errs, ctx.Err())
			break
		}
		report, err := c.do(ctx, job, pace)
		if err != nil {
			// One day that can't be sealed keeps no other from it.
			errs = append(errs, err)
			continue
		}
		r.Sealed = append(r.Sealed, report)
	}
	if r.Waiting, err = c.a.Reclaim(); err != nil {
		errs = append(errs, c.failed(err))
	}
	return r, errors.Join(errs...)
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
func (c *Compactor) do(ctx context.Context, job Job, pace func(context.Context, time.Duration) error) (archive.SealReport, error) {
	c.note(func(s *Status) { s.Running, s.Since = &job, c.o.Now() })
	report, err := c.a.Seal(ctx, job.Day.Day, pace)
	c.note(func(s *Status) { s.Running = nil })
	if c.o.Done != nil {
		c.o.Done(job, report, err)
	}
	return report, err
}

func (c *Compactor) note(f func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.status)
}

// rest makes the work take no more than its share of the time.
func (c *Compactor) rest(ctx context.Context, worked time.Duration) error {
	pause := time.NewTimer(time.Duration(float64(worked) * (1 - c.o.Share) / c.o.Share))
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
		return nil
	}
}
