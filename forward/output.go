package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"varve/archive"
)

// Policy is what becomes of a backlog that is over its limit.
type Policy uint8

const (
	// CatchUp drops nothing.
	CatchUp Policy = iota
	// DropOldest drops what is oldest, and counts it.
	DropOldest
)

// Output is what is to be sent where. Fields that are not set have the defaults named.
type Output struct {
	// Name names the cursor too. Kind is for people.
	Name, Kind string
	// Fingerprint tells whether an output is the same as before: two with equal ones must not differ in anything else.
	Fingerprint string
	// NewSender is called when the output begins, and again after a while if it fails.
	NewSender func() (Sender, error)

	// Include lets through series that match all of any of the lists, Exclude those that do not. At most one of them
	// has lists. A label that a series lacks is empty, as in PromQL.
	Include, Exclude [][]*labels.Matcher
	// ExternalLabels are added where a series lacks them. Then Relabel is applied.
	ExternalLabels labels.Labels
	Relabel        []*relabel.Config

	// Start is where a new cursor begins.
	Start archive.Start
	// QueriesOnly sends what the queries give and nothing else.
	QueriesOnly bool
	Queries     []Query

	// KeepBehind is how long what is settled can be read again if the sender, a Rewinder, asks for it. Default: it can't.
	KeepBehind time.Duration

	// BatchSamples bounds a batch, in samples and exemplars. Default 2000.
	BatchSamples int
	// BatchDelay is how long samples wait for a batch to be full. Default 1 s.
	BatchDelay time.Duration
	// Shards is how many batches are sent at once, those of a series one after the other. Default 1, at most 256.
	Shards int
	// RateLimit is in samples a second, over all shards, those sent again included. Zero is none.
	RateLimit float64
	// SendTimeout bounds one attempt. Default 1 m.
	SendTimeout time.Duration
	// BackoffMin and BackoffMax bound the wait between attempts. Defaults 30 ms and 30 s.
	BackoffMin, BackoffMax time.Duration
	// InFlightBytes bounds what is read and not settled, but for one read more. Default 16 MiB.
	InFlightBytes int64
	// CacheSeries bounds how many series of the archive are remembered. Default 1 Mi.
	CacheSeries int

	// BacklogBytes of the journal and BacklogAge since arrival are the limits of DropOldest, zero for none. A query
	// that fails is given up after BacklogAge, whatever the policy.
	BacklogBytes uint64
	BacklogAge   time.Duration
	Policy       Policy
}

// shardsMax is what fits a byte.
const shardsMax = 256

func (o *Output) check(f *Options) error {
	switch {
	case o.Name == "":
		return errors.New("it has no name")
	case o.NewSender == nil:
		return errors.New("it has no sender")
	case len(o.Include) > 0 && len(o.Exclude) > 0:
		return errors.New("it includes and excludes; give one of them")
	case o.Shards > shardsMax:
		return fmt.Errorf("it has %d shards, more than %d", o.Shards, shardsMax)
	case !o.QueriesOnly && f.Open == nil:
		return errors.New("there is no archive to read")
	case len(o.Queries) > 0 && (f.Evaluator == nil || f.Times == nil):
		return errors.New("there is nobody to ask its queries")
	}
	if _, err := rules(o.Relabel); err != nil {
		return err
	}
	names := map[string]bool{}
	for i := range o.Queries {
		if err := o.Queries[i].check(); err != nil {
			return err
		}
		if names[o.Queries[i].Name] {
			return fmt.Errorf("query %q: the name is there twice", o.Queries[i].Name)
		}
		names[o.Queries[i].Name] = true
	}
	return nil
}

// rules are copies of relabelling rules that were checked. Names are UTF-8 where a rule says nothing else.
func rules(given []*relabel.Config) ([]*relabel.Config, error) {
	out := make([]*relabel.Config, len(given))
	for i, g := range given {
		c := *g
		if err := c.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("relabelling rule %d: %w", i+1, err)
		}
		out[i] = &c
	}
	return out, nil
}

// fill sets the defaults of an output that was checked.
func (o *Output) fill() {
	o.Relabel, _ = rules(o.Relabel)
	o.BatchSamples = positive(o.BatchSamples, 2000)
	o.BatchDelay = positive(o.BatchDelay, time.Second)
	o.Shards = positive(o.Shards, 1)
	o.SendTimeout = positive(o.SendTimeout, time.Minute)
	o.BackoffMin = positive(o.BackoffMin, 30*time.Millisecond)
	o.BackoffMax = max(positive(o.BackoffMax, 30*time.Second), o.BackoffMin)
	// A shard gathers one batch while it sends another.
	o.InFlightBytes = max(positive(o.InFlightBytes, 16<<20), int64(2*o.Shards*o.BatchSamples*floatBytes))
	o.CacheSeries = max(positive(o.CacheSeries, 1<<20), 2*pageRefs)
}

func positive[T ~int | ~int64](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// output is an Output at work. It begins sessions one after the other: a session ends with the output, or to be rewound.
type output struct {
	Output
	f       *Options
	m       *outputMetrics
	log     *slog.Logger
	gate    gate
	letters *deadLetters
	limiter *limiter
	batches atomic.Uint64 // numbers batches

	// owed is from when on arrivals are to be read again, for a Rewinder; zero if there is no need. Of the session's replay, and between sessions.
	owed time.Time

	// Of Forwarder.mu.
	cancel  context.CancelFunc
	ended   chan struct{}
	removed atomic.Bool
	// needless tells that the output goes on without a cursor.
	needless atomic.Bool

	// mu guards what follows.
	mu      sync.Mutex
	session *session
	// wishes are what is to be done before the next session.
	wishes []wish
	phase  State // while there is no session
	err    error
	errAt  time.Time
	// told is when trouble was last logged, lettersTold when dead letters were. troubled tells that trouble was logged and not its end.
	told, lettersTold time.Time
	troubled          bool
}

// wish is something to be done between two sessions.
type wish struct {
	do   func(src Source) error
	done chan<- error
}

func newOutput(f *Forwarder, o Output) *output {
	o.fill()
	out := &output{Output: o, f: &f.o, m: f.m.of(o.Name), log: f.o.Logger.With("output", o.Name), phase: StateStopped}
	out.letters = newDeadLetters(f.o.DeadLetters, o.Name)
	out.limiter = newLimiter(o.RateLimit, o.BatchSamples)
	return out
}

// main runs the output until ctx ends.
func (o *output) main(ctx context.Context) {
	if ctx.Err() == nil {
		o.serve(ctx)
	}
	if err := o.letters.close(); err != nil {
		o.log.Error("dead letters could not be closed", "err", err)
	}
	o.enter(StateStopped)
	o.grant(nil, ErrNotRunning)
	if o.removed.Load() {
		o.forgetQueries()
	}
	if (o.removed.Load() || o.needless.Load()) && o.f.Remove != nil && !o.QueriesOnly {
		if err := o.f.Remove(o.Name); err != nil {
			o.log.Error("the cursor of an output that was removed is still there", "err", err)
		}
	}
}

// serve opens sender and cursor, and runs sessions.
func (o *output) serve(ctx context.Context) {
	sender, ok := again(ctx, o, "make the sender", func() (s Sender, err error) {
		defer catch(&err)
		return o.NewSender()
	})
	if !ok {
		return
	}
	defer o.closed("sender", sender.Close)
	var src Source
	if !o.QueriesOnly {
		src, ok = again(ctx, o, "open the cursor", func() (Source, error) { return o.f.Open(o.Name, o.Start) })
		if !ok {
			return
		}
		defer o.closed("cursor", src.Close)
		if r, ok := src.(Replayer); ok && o.KeepBehind > 0 {
			r.KeepBehind(o.KeepBehind)
		}
	}
	made := newTargets(o, sender)
	for ctx.Err() == nil {
		inner, cancel := context.WithCancel(ctx)
		s := newSession(o, src, sender, made)
		o.begin(s, cancel)
		s.run(inner)
		o.enter(StateRunning)
		cancel()
		o.grant(src, nil)
	}
}

// again does something until it succeeds; ok is false if ctx ended first.
func again[T any](ctx context.Context, o *output, what string, do func() (T, error)) (v T, ok bool) {
	for tries := 0; ctx.Err() == nil; tries++ {
		v, err := do()
		if err == nil {
			o.recovered()
			return v, true
		}
		o.enter(StateFailed)
		o.trouble(fmt.Errorf("%s: %w", what, err), true)
		if wait(ctx, o.backoff(tries)) != nil {
			break
		}
	}
	return v, false
}

func (o *output) closed(what string, closing func() error) {
	err := func() (err error) {
		defer catch(&err)
		return closing()
	}()
	if err != nil {
		o.log.Warn("an output ended with an error", "of", what, "err", err)
	}
}

func (o *output) begin(s *session, cancel context.CancelFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.cancel = cancel
	o.session = s
}

// enter notes that there is no session and why.
func (o *output) enter(phase State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.phase, o.session = phase, nil
}

// rewind has the session end, the cursor rewound, and another begin.
func (o *output) rewind(start archive.Start) error {
	return o.between(func(src Source) error {
		// The cursor comes first and always: what the session had read and not settled has to come again, whatever fails behind it.
		if src != nil {
			if err := src.Rewind(start); err != nil {
				return err
			}
		}
		return o.rewindQueries(start)
	})
}

// between has something done between two sessions.
func (o *output) between(do func(src Source) error) error {
	done := make(chan error, 1)
	if !o.wish(wish{do, done}) {
		return ErrNotRunning
	}
	return <-done
}

// wish ends the session so that something is done behind it. It is false if there is no session.
func (o *output) wish(w wish) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.session == nil {
		return false
	}
	o.wishes = append(o.wishes, w)
	o.session.cancel()
	return true
}

// grant does what was wished for, or refuses it with the error.
func (o *output) grant(src Source, refuse error) {
	o.mu.Lock()
	wishes := o.wishes
	o.wishes = nil
	o.mu.Unlock()
	for _, w := range wishes {
		err := refuse
		if err == nil {
			err = w.do(src)
		}
		w.done <- err
	}
}

// logEvery is how often the same trouble is logged.
const logEvery = time.Minute

// trouble notes what went wrong. It is logged when it begins, and then now and then.
func (o *output) trouble(err error, serious bool) {
	now := o.f.Now()
	o.mu.Lock()
	tell := now.Sub(o.told) >= logEvery
	o.err, o.errAt = err, now
	if tell {
		o.told, o.troubled = now, true
	}
	o.mu.Unlock()
	if !tell {
		return
	}
	level := slog.LevelWarn
	if serious {
		level = slog.LevelError
	}
	args := []any{"err", err}
	if p := (*panicked)(nil); errors.As(err, &p) {
		args = append(args, "stack", string(p.stack))
	}
	o.log.Log(context.Background(), level, "an output waits, and will try again", args...)
}

// recovered notes that all is well.
func (o *output) recovered() {
	o.mu.Lock()
	told := o.troubled
	o.troubled = false
	o.mu.Unlock()
	if told {
		o.log.Info("an output goes on")
	}
}

// refused notes that samples went to the dead letters, with the reason of one. It is logged now and then.
func (o *output) refused(samples int, class, reason string) {
	if samples == 0 {
		return
	}
	o.m.bury(class, samples)
	now := o.f.Now()
	o.mu.Lock()
	tell := now.Sub(o.lettersTold) >= logEvery
	o.err, o.errAt = fmt.Errorf("refused, see the dead letters: %s", reason), now
	if tell {
		o.lettersTold = now
	}
	o.mu.Unlock()
	if tell {
		o.log.Warn("samples were refused, see the dead letters", "samples", samples, "class", class, "reason", reason, "file", o.letters.path())
	}
}

// backoff is how long to wait after so many tries that failed before the last: twice as long each time, half of it by chance.
func (o *output) backoff(tries int) time.Duration {
	d := min(o.BackoffMin<<min(tries, 30), o.BackoffMax)
	if d <= 0 {
		d = o.BackoffMax
	}
	return jitter(d)
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// wait returns after d, or with ctx's error.
func wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// panicked is the error that a panic of a sender becomes.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string {
	return fmt.Sprintf("the sender panicked, which is a fault of Varve; the log has the stack: %v", p.value)
}

// catch makes an error of a panic. It is deferred.
func catch(err *error) {
	if p := recover(); p != nil {
		*err = &panicked{p, debug.Stack()}
	}
}

// gate is shut while an output is paused.
type gate struct {
	mu sync.Mutex
	// opened is closed when the gate opens, nil while it is open.
	opened chan struct{}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened != nil
}

// pass waits until the gate is open, or ctx ends.
func (g *gate) pass(ctx context.Context) error {
	for {
		g.mu.Lock()
		opened := g.opened
		g.mu.Unlock()
		if opened == nil {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-opened:
		}
	}
}
