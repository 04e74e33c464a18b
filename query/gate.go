package query

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
)

// gate lets a bounded number of queries run and a bounded number wait, first
// come, first served.
type gate struct {
	mu       sync.Mutex // guards all below
	slots    int
	taken    int
	queueMax int
	wait     time.Duration
	waiters  list.List // of chan struct{}, closed when the slot is handed over
}

// resize applies new limits; queries that run or wait already are not disturbed.
func (g *gate) resize(slots, queueMax int, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slots, g.queueMax, g.wait = slots, queueMax, wait
	g.handOver()
}

// enter takes a slot, which leave gives back. It fails with ErrTooManyQueries,
// or with upstream's errors when ctx is done.
func (g *gate) enter(ctx context.Context) error {
	g.mu.Lock()
	if g.taken < g.slots && g.waiters.Len() == 0 {
		g.taken++
		g.mu.Unlock()
		return nil
	}
	if g.waiters.Len() >= g.queueMax {
		err := busyError{fmt.Sprintf("%d run and %d wait", g.taken, g.waiters.Len())}
		g.mu.Unlock()
		return err
	}
	turn := make(chan struct{})
	place := g.waiters.PushBack(turn)
	wait := g.wait
	g.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	var err error
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		err = stopped(ctx, "query queue")
	case <-timer.C:
		err = busyError{fmt.Sprintf("no slot became free within %s", wait)}
	}

	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn:
		// The slot came at the same moment; somebody else can use it.
		g.taken--
		g.handOver()
	default:
		g.waiters.Remove(place)
	}
	return err
}

// leave gives the slot back.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken--
	g.handOver()
}

// handOver gives free slots to those who wait longest. mu is held.
func (g *gate) handOver() {
	for g.taken < g.slots && g.waiters.Len() > 0 {
		turn := g.waiters.Remove(g.waiters.Front()).(chan struct{})
		g.taken++
		close(turn)
	}
}

// waiting returns the number of queries in the queue.
func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiters.Len()
}

// cores shares the machine between queries that could be split: a part that
// finds no idle core costs CPU and gains nothing.
type cores struct {
	mu   sync.Mutex // guards busy
	busy int
	all  int
}

// take occupies at least one core and at most want, as far as some are idle.
func (c *cores) take(want int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := max(1, min(want, c.all-c.busy))
	c.busy += n
	return n
}

// give returns n cores.
func (c *cores) give(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy -= n
}

// slotsFor returns the number of queries that may run under l with t.
func slotsFor(l *Limits, t promql.QueryTracker) int {
	if t != nil && t.GetMaxConcurrent() > 0 {
		return min(l.Concurrency, t.GetMaxConcurrent())
	}
	return l.Concurrency
}
