package forward

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Sender writes batches to one target in its protocol. Prepare is called by one goroutine at a time,
// Send by several, for different batches.
type Sender interface {
	// Prepare is called once for each target before a batch has it. It may keep in t.Form what it made of the
	// labels. An error says why the series can't be written there: its samples go to the dead letters with that reason.
	Prepare(t *Target) error
	// Send returns when the peer has taken the batch, or says why it did not: see Retry, Refused, ErrTooLarge and Blocked. Any other
	// error counts as Retry. The outcome counts also beside an error, except beside Retry, Blocked and ErrTooLarge: then nothing of the batch is settled.
	Send(ctx context.Context, b *Batch) (Outcome, error)
	// Close gives back connections. Nothing is sent any more.
	Close() error
}

// Rewinder is a Sender whose peer may lose for a while what it has acknowledged.
type Rewinder interface {
	Sender
	// Rewinds says, when the peer may have lost something, how far back in arrivals the output has to go. See Output.KeepBehind.
	Rewinds() <-chan time.Duration
}

// Outcome is what became of a batch that the peer answered.
type Outcome struct {
	// Skipped counts by reason the samples that the protocol can't express, such as NaN in line protocol. They were not sent.
	Skipped map[string]int
	// Refusals name what the peer refused while it took the rest.
	Refusals []Refusal
}

// Skip counts n samples that were not sent.
func (o *Outcome) Skip(reason string, n int) {
	if n == 0 {
		return
	}
	if o.Skipped == nil {
		o.Skipped = map[string]int{}
	}
	o.Skipped[reason] += n
}

// Refusal is a part of a batch that the peer refused for good.
type Refusal struct {
	// Series is an index of Batch.Series. Float and Histogram are indices of its samples: -1 in both is all of the series, -1 in one
	// is none of that kind.
	Series, Float, Histogram int
	Reason                   string
}

// Retry says that the peer can't take the batch now: sent again after a while it may.
type Retry struct {
	// After is how long the peer asked to wait, zero if it did not.
	After time.Duration
	Err   error
}

func (r *Retry) Error() string { return r.Err.Error() }
func (r *Retry) Unwrap() error { return r.Err }

// Refused says that the peer refused the batch because of something in it, not knowing or saying which part. It may have kept
// other parts: those are sent again, which changes nothing.
type Refused struct{ Err error }

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// Blocked says that the peer takes nothing at all, whatever the batch: wrong address, credentials, database. The
// output waits, asks again now and then, and shows the error; nothing is lost meanwhile.
type Blocked struct{ Err error }

func (b *Blocked) Error() string { return b.Err.Error() }
func (b *Blocked) Unwrap() error { return b.Err }

// ErrTooLarge is wrapped by the error of a batch that the peer finds too large: it is cut in two.
var ErrTooLarge = errors.New("the target finds the batch too large")

// TooLarge wraps what the peer said in ErrTooLarge.
func TooLarge(said string) error { return fmt.Errorf("%w: %s", ErrTooLarge, said) }
