// Package canary writes samples of known values into the archive, reads them back at
// several ages, and counts what differs. It is the question that an operator of an
// archive can't ask otherwise: is what I was promised still there, to the bit?
//
// The nouns:
//
//   - A pattern is a series whose value is a function of the time alone, so that
//     whatever of it is read, now or in ten years, is known to be right or wrong without a
//     record of what was written. Patterns hold what encodings get wrong: NaN payloads,
//     -0, subnormals, stale markers, random bits, native histograms.
//   - A round is one sample of each pattern at one time, in one batch: it is there whole
//     or not at all. Its sample of the pattern "previous" is the time of the round
//     before it that was acknowledged. So each round vouches for another, and no restart,
//     no time without disk space and no time switched off looks like a loss.
//   - An age is a stage of a sample's life: fresh (just acknowledged), restart (before
//     this process), cut (out of memory), sealed, rolled_up (as aggregates) and old.
//   - A mismatch is a sample with other bits, one that was acknowledged and is missing,
//     an aggregate that doesn't follow from the samples, or damage that was met on the way to them.
//
// What retention hides and what a delete was about is not missed. Whole rounds at the
// beginning of what there is are not either: an archive may have been restored in
// part. A write that fails is counted, and is no mismatch.
//
// A Canary does one thing after another, at most as much as a round and a few looks at
// an hour each in every interval, so its cost is bounded by its configuration; its methods are
// for one goroutine, that of Run. The package knows no archive: what it writes to
// and reads from are interfaces.
package canary

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"varve/arrival"
)

// Writer is the archive as inputs see it, see ingest.Sink.
type Writer interface {
	Seed() arrival.Seed
	Lookup(rows []arrival.Row) int
	Resolve(ctx context.Context, unknown []arrival.Unknown) error
	Write(ctx context.Context, b *arrival.Batch) (arrival.Result, error)
}

// Reader is the archive as queries see it. The times of its Querier are inclusive.
type Reader interface {
	storage.Queryable
	// Aggregate evaluates a query at a time, answered from the buckets of a resolution. ok is
	// false if it could not be answered from these alone. Histograms are left out.
	Aggregate(ctx context.Context, query string, at time.Time, resolution time.Duration) (v promql.Vector, ok bool, err error)
}

// Past tells what became of samples.
type Past interface {
	// Days lists the days that have samples on disk, in order.
	Days() ([]Day, error)
	// KeptSince is the first time, Unix ms, from which on no rule of retention hides or has removed samples of
	// the series, or with a resolution its buckets.
	KeptSince(ls labels.Labels, resolution time.Duration) (int64, error)
	// Deletes lists the deletes, whatever became of them, that were about samples of the
	// series between two times, both inclusive, Unix ms.
	Deletes(ls labels.Labels, fromMillis, toMillis int64) ([]Delete, error)
}

// Day is a day (UTC) with samples.
type Day struct {
	// StartMillis is its first millisecond.
	StartMillis int64
	// Sealed is when it was last sealed whole, zero if it never was. Rolled tells that it is rolled up
	// at all resolutions, and no series of it waits to be again.
	Sealed time.Time
	Rolled bool
}

// Delete is an operator's delete of samples.
type Delete struct {
	Created time.Time
	// Undone is when it was taken back, zero if it wasn't.
	Undone time.Time
}

// Options configure a Canary.
type Options struct {
	Writer Writer
	Reader Reader
	Past   Past
	// Interval is the time between rounds, at least a second.
	Interval time.Duration
	// CutAge is the age at which a sample has left memory.
	CutAge time.Duration
	// Resolutions are those of rollups.
	Resolutions []time.Duration
	// Damaged tells of an error of the Reader that bytes are not what was written. Nil: none is.
	Damaged func(error) bool
	// Seed chooses where old samples are looked at.
	Seed uint64
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Registerer gets the metrics. Nil: none.
	Registerer prometheus.Registerer
	// Logger gets mismatches and failures. Nil: none.
	Logger *slog.Logger
}

// Canary writes and reads. Make one with New.
type Canary struct {
	o      Options
	m      *metrics
	random *rand.Rand
	series []series
	round  round
	ledger ledger
	agenda agenda
	// since are by resolution, 0 for samples, the times before which something has been hidden by retention while this
	// process ran: what a rule hid may be gone when another rule lets it be seen.
	since map[time.Duration]int64
	// failing tells that the last write failed.
	failing bool
}

// stepTimeout bounds the writing of a round, and the looks after it together.
const stepTimeout = time.Minute

// New returns a Canary that has not begun.
func New(o Options) *Canary {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Damaged == nil {
		o.Damaged = func(error) bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Canary{
		o: o, m: newMetrics(o.Registerer, o.Interval), random: rand.New(rand.NewPCG(o.Seed, 0)), since: map[time.Duration]int64{},
		agenda: agenda{sealed: map[int64]time.Time{}, rolled: map[int64]bool{}},
	}
	for i := range patterns {
		c.series = append(c.series, series{pattern: &patterns[i], labels: patterns[i].labels()})
	}
	c.round.prepare(o.Writer.Seed(), c.series)
	return c
}

// Run does a step at each multiple of the interval until ctx ends, and returns when
// the one under way has ended. Steps that come while another is under way are left out.
func (c *Canary) Run(ctx context.Context) {
	for {
		now := c.o.Now()
		timer := time.NewTimer(now.Truncate(c.o.Interval).Add(c.o.Interval).Sub(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			c.Step(ctx)
		}
	}
}

// Step writes a round for the current time, unless there is one, and looks at what is due.
func (c *Canary) Step(ctx context.Context) {
	if !c.agenda.begun {
		c.begin(ctx)
	}
	at := c.o.Now().Truncate(c.o.Interval).UnixMilli()
	if !c.ledger.has(at) && c.write(ctx, at) {
		c.look(ctx, ageFresh, at-1, at)
	}
	c.lookBack(ctx)
}

// begin finds the last round of the time before this process, which the first one of this process vouches for.
func (c *Canary) begin(ctx context.Context) {
	now := c.o.Now()
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	last, err := c.lastRound(ctx, now)
	if err != nil {
		// It is tried again, and until then nothing is written, unless the past can't be read any more.
		c.agenda.begun = c.readFailed(ctx, ageRestart, err)
		return
	}
	c.agenda.begun = true
	if last == 0 {
		return
	}
	c.ledger.found(last)
	c.agenda.windows = append(c.agenda.windows, window{age: ageRestart, from: last - windowLength.Milliseconds(), to: last})
}
