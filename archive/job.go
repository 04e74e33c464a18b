package archive

import (
	"context"
	"time"
)

// Pace is called between the batches of a job with the time that the last one took. It may wait,
// and its error ends the job.
type Pace = func(ctx context.Context, worked time.Duration) error

// inOrder tells why the journal's samples are not all in their places yet.
func (a *Archive) inOrder() error {
	if err := a.StartError(); err != nil {
		return err
	}
	if !a.upkeep.replayed.Load() {
		return ErrStarting
	}
	return nil
}

// beginJob takes the lock that jobs are done under, a.sealing, or tells why it can't be had now.
func (a *Archive) beginJob() error {
	if err := a.inOrder(); err != nil {
		return err
	}
	return a.lockJobs()
}

// lockJobs takes a.sealing. What an intake left behind that could not be ended is ended first.
func (a *Archive) lockJobs() error {
	if !a.sealing.TryLock() {
		return ErrJobAtWork
	}
	if err := a.intakes.endLeft(a); err != nil {
		a.sealing.Unlock()
		return err
	}
	return nil
}

// ended tells why a job should end before it is done.
func (a *Archive) ended(ctx context.Context) error {
	if a.closing.Load() {
		return errShutdown
	}
	return ctx.Err()
}
