package ingest

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/prometheus/prometheus/storage"
	"golang.org/x/time/rate"

	"varve/arrival"
)

// Pace keeps an input, or several together, at a rate of samples. It is safe for use by several goroutines.
type Pace struct {
	mu      sync.Mutex // makes one of asking and taking
	limiter *rate.Limiter
	burst   int
}

// NewPace lets through burst at once, by default what comes in a second.
func NewPace(perSecond float64, burst int) *Pace {
	if burst <= 0 {
		burst = int(min(math.Ceil(perSecond), math.MaxInt32))
	}
	return &Pace{limiter: rate.NewLimiter(rate.Limit(perSecond), burst), burst: burst}
}

// take takes n, or nothing and returns how long to wait. More than the burst passes
// when the burst is whole, and is owed to the rate: what comes next waits longer. What
// goes on with something that passed is owed too: its sender would bring all of it
// again, and never get farther.
func (p *Pace) take(now time.Time, n int, goesOn bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	need := float64(min(n, p.burst))
	// Tokens are floats: a sender that waited as told must not find a billionth missing.
	if lacking := need - p.limiter.TokensAt(now); !goesOn && lacking > 1e-6*float64(p.burst) {
		seconds := lacking / float64(p.limiter.Limit())
		return &RateLimited{RetryAfter: time.Duration(math.Ceil(seconds*1e3)) * time.Millisecond}
	}
	for n > 0 {
		part := min(n, p.burst)
		p.limiter.ReserveN(now, part)
		n -= part
	}
	return nil
}

type goesOnKey struct{}

// GoingOn returns the context for a write that goes on with a request of which a part is
// written already: a door lets it pass and owes it to the rate.
func GoingOn(ctx context.Context) context.Context {
	return context.WithValue(ctx, goesOnKey{}, true)
}

func goesOn(ctx context.Context) bool { return ctx.Value(goesOnKey{}) != nil }

// activeSeries bounds how many series an input may have active. A series is active
// for one to two turns after its last sample.
type activeSeries struct {
	max int

	// resolving makes one of asking for room and taking it. It comes before mu.
	resolving sync.Mutex

	mu         sync.RWMutex // guards what follows
	young, old map[storage.SeriesRef]struct{}
	// aging is how many are in old alone.
	aging  int
	turned time.Time
}

// activeTurn is how long a generation gathers.
const activeTurn = time.Hour

func newActiveSeries(most int, now time.Time) *activeSeries {
	return &activeSeries{max: most, young: make(map[storage.SeriesRef]struct{}), turned: now}
}

// turn begins a generation if it is time. Called with mu held.
func (a *activeSeries) turn(now time.Time) {
	if now.Sub(a.turned) < activeTurn {
		return
	}
	if now.Sub(a.turned) >= 2*activeTurn {
		clear(a.young)
	}
	a.old, a.young = a.young, make(map[storage.SeriesRef]struct{}, len(a.young))
	a.aging = len(a.old)
	a.turned = now
}

// room is how many more there may be.
func (a *activeSeries) room(now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(now)
	return a.max - len(a.young) - a.aging
}

func (a *activeSeries) count() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.young) + a.aging
}

// has tells whether a series is active.
func (a *activeSeries) has(ref storage.SeriesRef) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if _, ok := a.young[ref]; ok {
		return true
	}
	_, ok := a.old[ref]
	return ok
}

// add makes a series active, or returns false if there is no room. Called with mu held.
func (a *activeSeries) add(ref storage.SeriesRef) bool {
	if _, ok := a.young[ref]; ok {
		return true
	}
	if _, ok := a.old[ref]; ok {
		a.aging--
	} else if len(a.young)+a.aging >= a.max {
		return false
	}
	a.young[ref] = struct{}{}
	return true
}

// refuse refuses the rows of series for which there is no room.
func (a *activeSeries) refuse(b *arrival.Batch, now time.Time, res *arrival.Result) {
	var fresh []int
	a.mu.RLock()
	due := now.Sub(a.turned) >= activeTurn
	for i := range b.Rows {
		ref := b.Rows[i].Ref
		if ref == 0 {
			continue
		}
		if _, ok := a.young[ref&refMask]; !ok || due {
			fresh = append(fresh, i)
		}
	}
	a.mu.RUnlock()
	if len(fresh) == 0 {
		return
	}
	const refused = refFiltered
	a.mu.Lock()
	a.turn(now)
	some := false
	for _, i := range fresh {
		if !a.add(b.Rows[i].Ref & refMask) {
			b.Rows[i].Ref = refused
			some = true
		}
	}
	a.mu.Unlock()
	if some {
		l := leaveOut(b, refused)
		res.Rejected[arrival.ReasonSeriesLimit] += l.samples + l.histograms + l.exemplars
	}
}

// resolve has the sink resolve what there is room for and refuses the rest, so that
// a series for which there is none is not created.
func (a *activeSeries) resolve(ctx context.Context, sink Sink, unknown []arrival.Unknown, now time.Time) error {
	a.resolving.Lock()
	defer a.resolving.Unlock()
	through, at := unknown, []int(nil)
	if room := a.room(now); room < len(unknown) {
		through, at = a.withRoom(sink, unknown, room)
	}
	if err := sink.Resolve(ctx, through); err != nil {
		return err
	}
	for j, i := range at {
		unknown[i] = through[j]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range through {
		if through[i].Ref != 0 {
			a.add(through[i].Ref)
		}
	}
	return nil
}

// withRoom returns those of unknown that are active already or for which there is
// room, with their places, and refuses the others.
func (a *activeSeries) withRoom(sink Sink, unknown []arrival.Unknown, room int) (through []arrival.Unknown, at []int) {
	rows := make([]arrival.Row, len(unknown))
	var wire []byte
	seed := sink.Seed()
	for i := range unknown {
		wire = arrival.AppendLabels(wire[:0], unknown[i].Labels)
		rows[i].Key = seed.Hash(wire)
	}
	sink.Lookup(rows)
	counted := make(map[arrival.Key]struct{})
	for i := range unknown {
		_, again := counted[rows[i].Key]
		switch {
		case again, rows[i].Ref != 0 && a.has(rows[i].Ref):
		case room > 0:
			room--
			counted[rows[i].Key] = struct{}{}
		default:
			unknown[i].Refused = arrival.ReasonSeriesLimit
			continue
		}
		through, at = append(through, unknown[i]), append(at, i)
	}
	return through, at
}
