package forward

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/metadata"
)

// session is an output at work between two rewinds. What it holds in memory is on its way; when it ends, that is
// read again.
//
//	cursor  ─ Read ─ stage ─┬─ parts ─ shard: batch ─ Send ─┬─ ledger ─ Done
//	queries ────────────────┴─ parts ─ shard: batch ─ Send ─┘
//
// One goroutine reads, one evaluates each query, each shard has one, and one saves places. Between them are channels, and a room that bounds what is
// in flight.
type session struct {
	*output
	source Source // nil if only queries are sent
	sender Sender
	made   *targets
	cancel context.CancelFunc

	ledger      *ledger
	room        *room
	shards      []*shard
	reader      *worker
	saver       *worker
	queries     []*querier
	incarnation string
	backlog     backlog
}

// shardQueue is how many parts wait for a shard. What bounds the bytes is the room.
const shardQueue = 256

func newSession(o *output, source Source, sender Sender, made *targets) *session {
	s := &session{output: o, source: source, sender: sender, made: made, ledger: newLedger(), room: newRoom(o.InFlightBytes)}
	s.reader, s.saver = &worker{o: o, state: StateRunning}, &worker{o: o, state: StateRunning}
	if source != nil {
		s.incarnation = source.Incarnation()
	}
	for i := range o.Shards {
		s.shards = append(s.shards, &shard{session: s, worker: worker{o: o, state: StateRunning}, number: i, in: make(chan *part, shardQueue), most: o.BatchSamples})
	}
	for i := range o.Queries {
		s.queries = append(s.queries, newQuerier(s, &o.Queries[i]))
	}
	return s
}

// run works until ctx ends. Then what is being sent has the grace.
func (s *session) run(ctx context.Context) {
	sending, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(s.f.Grace, kill)
		context.AfterFunc(sending, func() { t.Stop() })
	})
	defer stop()

	var work sync.WaitGroup
	if s.source != nil {
		work.Go(func() { s.stream(ctx) })
	}
	for _, q := range s.queries {
		work.Go(func() { q.run(ctx) })
	}
	for _, w := range s.shards {
		work.Go(func() { w.run(ctx, sending) })
	}
	if r, ok := s.sender.(Rewinder); ok {
		work.Go(func() { s.replay(ctx, r.Rewinds()) })
	}
	ended := make(chan struct{})
	var keep sync.WaitGroup
	for _, l := range s.ledgers() {
		keep.Go(func() { l.keep(ctx, ended, s.unsaved) })
	}
	work.Wait()
	close(ended)
	keep.Wait()
	s.m.inFlight.Add(-float64(s.room.inFlight()))
}

// replay has the session end and what arrived of late be read again when the sender says that the peer may have lost it.
func (s *session) replay(ctx context.Context, rewinds <-chan time.Duration) {
	r, ok := s.source.(Replayer)
	if !ok {
		return
	}
	if s.output.owed.IsZero() {
		select {
		case <-ctx.Done():
			return
		case back := <-rewinds:
			s.output.owed = s.f.Now().Add(-back)
			s.log.Warn("the peer of an output may have lost what it acknowledged; it is sent again", "since", s.output.owed)
		}
	} else if wait(ctx, s.BackoffMax) != nil {
		return
	}
	s.wish(wish{done: make(chan error, 1), do: func(Source) error {
		err := r.RewindArrivals(s.output.owed)
		if err != nil {
			s.trouble(fmt.Errorf("go back to %s: %w", s.output.owed.UTC().Format(time.RFC3339), err), true)
			return err
		}
		s.output.owed = time.Time{}
		return nil
	}})
}

func (s *session) ledgers() []*ledger {
	all := []*ledger{s.ledger}
	for _, q := range s.queries {
		all = append(all, q.ledger)
	}
	return all
}

// unsaved notes that a place could not be saved, and returns how long to wait.
func (s *session) unsaved(tries int, err error) time.Duration {
	s.saver.fail(fmt.Errorf("save the place: %w", err))
	return s.output.backoff(tries)
}

// worker is one of an output's goroutines, as it is shown.
type worker struct {
	o *output

	mu      sync.Mutex
	state   State
	retries int
	since   time.Time
}

// fail notes trouble of our own.
func (w *worker) fail(err error) {
	w.enter(StateFailed)
	w.o.trouble(err, true)
}

// calm notes that all is well again.
func (w *worker) calm() {
	w.mu.Lock()
	failed := w.retries > 0
	w.state, w.retries = StateRunning, 0
	w.mu.Unlock()
	if failed {
		w.o.recovered()
	}
}

// attempt notes that what failed is tried again, which may take long without being trouble.
func (w *worker) attempt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = StateRunning
}

func (w *worker) enter(s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.retries == 0 {
		w.since = w.o.f.Now()
	}
	w.state = s
	w.retries++
}

// shard sends the batches of its targets, one after the other.
type shard struct {
	*session
	worker
	number int
	in     chan *part
	// held are parts that were received and are not cut whole, in the order of arrival.
	held []*part
	// most is how many items a batch may have: fewer than are configured after the peer found one too large. whole is how many
	// samples are sent of the batch at hand.
	most    int
	whole   int
	expired []bool // scratch
	letters []byte // scratch
	batch   batch
	turn    int64
	id      string
}

// run sends until ctx ends. A batch that is being sent then may be settled until sending ends.
func (w *shard) run(ctx, sending context.Context) {
	for w.fill(ctx) {
		b := &w.batch
		w.held = b.gather(w.batches.Add(1), w.held, w.most)
		w.turn = w.f.Now().Unix() / metadataSeconds
		b.group(w.metadata)
		w.id = w.name(b)
		if !w.deliver(ctx, sending, b) {
			return
		}
		w.settle(b)
	}
}

// fill receives parts until there is a batch of them, or the oldest has waited long enough. It is false when ctx ended.
func (w *shard) fill(ctx context.Context) bool {
	have := 0
	for _, p := range w.held {
		have += p.left()
	}
	if have == 0 {
		select {
		case <-ctx.Done():
			return false
		case p := <-w.in:
			w.held = append(w.held, p)
			have = p.left()
		}
	}
	delay := w.BatchDelay - time.Since(w.held[0].staged)
	if delay > 0 && have < w.most {
		t := time.NewTimer(delay)
		defer t.Stop()
		for have < w.most {
			select {
			case <-ctx.Done():
				return false
			case p := <-w.in:
				w.held = append(w.held, p)
				have += p.left()
				continue
			case <-t.C:
			}
			break
		}
	}
	// What is there already may come along.
	for have < w.most {
		select {
		case p := <-w.in:
			w.held = append(w.held, p)
			have += p.left()
			continue
		default:
		}
		break
	}
	return ctx.Err() == nil
}

// metadataSeconds is how long what is known of a metric's metadata is believed.
const metadataSeconds = 60

func (w *shard) metadata(t *target) metadata.Metadata {
	if t.metaTurn != w.turn && w.source != nil && t.metric != "" {
		t.meta = w.source.Metadata(t.metric)
	}
	t.metaTurn = w.turn
	return t.meta
}

// name makes the ID of a batch.
func (w *shard) name(b *batch) string {
	var id strings.Builder
	first, last := b.shares[0].read, b.shares[len(b.shares)-1].read
	fmt.Fprintf(&id, "%s-%d-%d-%d", w.incarnation, first.first, last.last, w.number)
	return id.String()
}

// settle says what became of a batch.
func (w *shard) settle(b *batch) {
	var sent, dropped uint64
	for i := range b.shares {
		s := &b.shares[i]
		s.tally.Sent = uint64(s.samples) - s.tally.Dropped - s.tally.Refused - s.tally.Filtered
		sent += s.tally.Sent
		dropped += s.tally.Dropped
	}
	w.m.sent.Add(float64(sent))
	w.m.dropped.Add(float64(dropped))
	w.m.skip(skippedSuperseded, b.superseded)
	w.room.give(b.bytes)
	w.m.inFlight.Sub(float64(b.bytes))
	for i := range b.shares {
		s := &b.shares[i]
		s.read.settle(s.items, s.tally)
	}
}
