package forward

import (
	"context"
	"sync"
	"time"

	"varve/archive"
)

// read is what one Read of the cursor, or one step of a query, gave: what has to be settled before the place moves past it.
type read struct {
	ledger *ledger
	// first and last are sequences of the journal.
	first, last uint64
	// arrived is when the last of it came in, bytes what it takes of the backlog.
	arrived time.Time
	bytes   int64
	// save makes the place durable.
	save func(t archive.Tally) error

	// Of ledger.mu: what isn't settled, in items (samples, exemplars, families), and what became of the rest.
	left  int64
	tally archive.Tally
	// end is the sum of bytes of the ledger's reads up to this one.
	end int64
}

// ledger moves the place of a cursor, or of a query, over the reads that are settled, without gaps:
//
//  1. begin notes a read with all its items, in the order of reading.
//  2. Shards settle items, in any order.
//  3. keep saves the reads at the front that have nothing left, one after the other, each with its own tally.
//
// So what is counted as dropped is counted with the place behind it, and what comes again after a restart is counted then.
type ledger struct {
	mu    sync.Mutex
	reads []*read
	// begun and saved are the bytes of all reads, and of those that the place has moved over.
	begun, saved int64
	wake         chan struct{}
}

func newLedger() *ledger { return &ledger{wake: make(chan struct{}, 1)} }

// begin notes a read. t is what is settled of it already.
func (l *ledger) begin(r *read, left int64, t archive.Tally) {
	l.mu.Lock()
	r.ledger, r.left, r.tally = l, left, t
	l.begun += r.bytes
	r.end = l.begun
	l.reads = append(l.reads, r)
	first := l.reads[0]
	l.mu.Unlock()
	if left == 0 && first == r {
		l.poke()
	}
}

// settle says what became of some items of a read.
func (r *read) settle(items int64, t archive.Tally) {
	l := r.ledger
	l.mu.Lock()
	r.left -= items
	r.tally.Sent += t.Sent
	r.tally.Dropped += t.Dropped
	r.tally.Refused += t.Refused
	r.tally.Filtered += t.Filtered
	ready := r.left == 0 && l.reads[0] == r
	l.mu.Unlock()
	if ready {
		l.poke()
	}
}

func (l *ledger) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// front is the oldest read if it is settled, else nil.
func (l *ledger) front() *read {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.reads) == 0 || l.reads[0].left > 0 {
		return nil
	}
	return l.reads[0]
}

func (l *ledger) pop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saved += l.reads[0].bytes
	l.reads[0] = nil
	l.reads = l.reads[1:]
}

// savedBytes is the sum of bytes of the reads that the place has moved over.
func (l *ledger) savedBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.saved
}

// keep saves what is settled until ended is closed, and then what is left to save. An error is told, and the save tried again; it
// gives up when ctx ends.
func (l *ledger) keep(ctx context.Context, ended <-chan struct{}, failed func(tries int, err error) time.Duration) {
	for last := false; ; {
		for r := l.front(); r != nil; r = l.front() {
			if !r.saved(ctx, failed) {
				return
			}
			l.pop()
		}
		if last {
			return
		}
		select {
		case <-l.wake:
		case <-ended:
			last = true
		}
	}
}

// saved saves a read, until it succeeds or ctx ends. What it counted is said once: whoever keeps it has it in spite of an error.
func (r *read) saved(ctx context.Context, failed func(tries int, err error) time.Duration) bool {
	t := r.tally
	for tries := 0; ; tries++ {
		err := r.save(t)
		if err == nil {
			return true
		}
		t = archive.Tally{}
		if wait(ctx, failed(tries, err)) != nil {
			return false
		}
	}
}

// room bounds what is in flight. It lets a taker in as long as there is any room, however much that then takes.
type room struct {
	mu    sync.Mutex
	used  int64
	max   int64
	freed chan struct{} // closed when room is given back to those who wait
}

func newRoom(most int64) *room { return &room{max: most, freed: make(chan struct{})} }

func (r *room) wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		full, freed := r.used >= r.max, r.freed
		r.mu.Unlock()
		if !full {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-freed:
		}
	}
}

func (r *room) take(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used += n
}

func (r *room) give(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full := r.used >= r.max
	r.used -= n
	if full && r.used < r.max {
		close(r.freed)
		r.freed = make(chan struct{})
	}
}

func (r *room) inFlight() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}
