package query

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"
)

const (
	kindInstant = "instant"
	kindRange   = "range"

	phaseQueued  = "queued"
	phaseRunning = "running"
)

// Running is a query that waits for a slot or runs.
type Running struct {
	// ID names the query among those of this and former processes.
	ID   string
	Text string
	// Kind is "instant" or "range".
	Kind string
	// Start, End and Step are those of the query; of an instant query Start
	// equals End and Step is zero.
	Start, End time.Time
	Step       time.Duration
	// Since is when Exec was called.
	Since time.Time
	// Phase is "queued" or "running".
	Phase string
	// Parts is the number of parts evaluated at once, zero while queued.
	Parts int
	// Client is what WithClient said, or the address that upstream's API put
	// into the context, or empty.
	Client string
	// Series is the number of series that selectors returned so far. Parts that
	// do not share a view count theirs each.
	Series int64
}

// clientKey is the key of the client's name in a context.
type clientKey struct{}

// WithClient returns a context under which queries are listed as client's.
func WithClient(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

func clientOf(ctx context.Context) string {
	if c, ok := ctx.Value(clientKey{}).(string); ok {
		return c
	}
	if origin, ok := ctx.Value(promql.QueryOrigin{}).(map[string]any); ok {
		if request, ok := origin["httpRequest"].(map[string]string); ok {
			return request["clientIP"]
		}
	}
	return ""
}

// ticket is an entry of the register.
type ticket struct {
	shown  Running // but for what changes
	cancel context.CancelFunc
	serial uint64
	parts  atomic.Int32
	series atomic.Int64
}

// register lists the queries between the begin and the end of Exec.
type register struct {
	prefix string

	mu     sync.Mutex // guards all below
	open   map[string]*ticket
	last   uint64
	closed bool
	idle   sync.Cond // signalled when open becomes empty
}

func newRegister(start time.Time) *register {
	r := &register{prefix: strconv.FormatInt(start.UnixMilli(), 36), open: map[string]*ticket{}}
	r.idle.L = &r.mu
	return r
}

func (r *register) add(shown Running, cancel context.CancelFunc) (*ticket, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	r.last++
	shown.ID = fmt.Sprintf("%s-%d", r.prefix, r.last)
	t := &ticket{shown: shown, cancel: cancel, serial: r.last}
	r.open[shown.ID] = t
	return t, nil
}

func (r *register) remove(t *ticket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, t.shown.ID)
	if len(r.open) == 0 {
		r.idle.Broadcast()
	}
}

// list returns the queries in the order in which they came.
func (r *register) list() []Running {
	r.mu.Lock()
	tickets := make([]*ticket, 0, len(r.open))
	for _, t := range r.open {
		tickets = append(tickets, t)
	}
	r.mu.Unlock()
	slices.SortFunc(tickets, func(a, b *ticket) int { return int(int64(a.serial) - int64(b.serial)) })
	out := make([]Running, len(tickets))
	for i, t := range tickets {
		out[i] = t.shown
		out[i].Phase = phaseQueued
		out[i].Series = t.series.Load()
		if out[i].Parts = int(t.parts.Load()); out[i].Parts > 0 {
			out[i].Phase = phaseRunning
		}
	}
	return out
}

func (r *register) cancel(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.open[id]
	if ok {
		t.cancel()
	}
	return ok
}

// close refuses new queries, cancels those that are open and waits for them.
func (r *register) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, t := range r.open {
		t.cancel()
	}
	for len(r.open) > 0 {
		r.idle.Wait()
	}
}

// count returns the number of open queries.
func (r *register) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}
