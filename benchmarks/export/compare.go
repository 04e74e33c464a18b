package export

import (
	"context"
	"fmt"
	"math"
	"net/http"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"varve/benchmarks/fleet"
	"varve/benchmarks/peer"
)

// Verdict counts samples by what became of them. Sent is Exact + Changed + Missing.
type Verdict struct {
	Sent, Exact int64
	// Changed have another value than was sent, of them ChangedNaN were some NaN or
	// are one now.
	Changed, ChangedNaN int64
	// Missing are not there, of them MissingNaN were sent as some NaN, stale markers
	// included.
	Missing, MissingNaN int64
	// Extra were never sent, or came back twice.
	Extra int64
	// Difference tells the first of those that are not exact.
	Difference string
}

// Compare asks a server for all samples of all targets of a fleet. Progress, if set,
// is called after each target.
func Compare(ctx context.Context, client *http.Client, server *peer.Server, f *fleet.Fleet, progress func(done int)) (Verdict, error) {
	var verdict Verdict
	for t := range f.Targets() {
		c := newComparison(f, t, &verdict)
		if err := Samples(ctx, client, server, c.span(), c.visit); err != nil {
			return verdict, err
		}
		c.finish()
		if progress != nil {
			progress(t + 1)
		}
	}
	return verdict, nil
}

// comparison is of one target.
type comparison struct {
	fleet   *fleet.Fleet
	target  int
	verdict *Verdict
	known   map[string]int
	// seen has a bit for each sample, series after series.
	seen   []uint64
	rounds int
	from   int
	key    []byte
}

func newComparison(f *fleet.Fleet, t int, verdict *Verdict) *comparison {
	from, to := f.Lives(t)
	c := &comparison{fleet: f, target: t, verdict: verdict, known: map[string]int{}, from: from, rounds: to + 1 - from}
	for i := range f.TargetSeries(t) {
		c.known[string(f.Labels(t, i).Bytes(nil))] = i
	}
	c.seen = make([]uint64, (f.TargetSeries(t)*c.rounds+63)/64)
	return c
}

// span is what to ask for: the target at all times of the fleet.
func (c *comparison) span() Range {
	config := c.fleet.Config()
	return Range{
		Instance: c.fleet.Instance(c.target), MinMillis: config.StartMillis,
		MaxMillis: config.StartMillis + int64(config.Rounds)*config.StepMillis - 1,
	}
}

// visit judges a sample that came back.
func (c *comparison) visit(l labels.Labels, millis int64, got float64) {
	c.key = l.Bytes(c.key)
	i, known := c.known[string(c.key)]
	round, scraped := c.fleet.Round(c.target, millis)
	k := round - c.from
	sent, was := 0.0, false
	if known && scraped && k >= 0 && k < c.rounds {
		sent, was = c.fleet.At(c.target, i, round)
	}
	bit := i*c.rounds + k
	switch {
	case !was:
		c.verdict.Extra++
		c.tell("%s at %d: %v was never sent", l, millis, got)
	case c.seen[bit/64]>>(bit%64)&1 != 0:
		c.verdict.Extra++
		c.tell("%s at %d came back twice", l, millis)
	default:
		c.seen[bit/64] |= 1 << (bit % 64)
		c.judge(l, millis, got, sent)
	}
}

// judge compares the bits.
func (c *comparison) judge(l labels.Labels, millis int64, got, sent float64) {
	if math.Float64bits(got) == math.Float64bits(sent) {
		c.verdict.Exact++
		return
	}
	c.verdict.Changed++
	if math.IsNaN(got) || math.IsNaN(sent) {
		c.verdict.ChangedNaN++
	}
	c.tell("%s at %d: %v (%#x) instead of %v (%#x)", l, millis, got, math.Float64bits(got), sent, math.Float64bits(sent))
}

// finish counts what is missing.
func (c *comparison) finish() {
	config := c.fleet.Config()
	for i := range c.fleet.TargetSeries(c.target) {
		for k := range c.rounds {
			v, was := 0.0, false
			if c.from+k < config.Rounds {
				v, was = c.fleet.At(c.target, i, c.from+k)
			}
			if !was {
				continue
			}
			c.verdict.Sent++
			if bit := i*c.rounds + k; c.seen[bit/64]>>(bit%64)&1 == 0 {
				c.verdict.Missing++
				if math.IsNaN(v) {
					c.verdict.MissingNaN++
				}
				what := fmt.Sprint(v)
				if value.IsStaleNaN(v) {
					what = "a stale marker"
				}
				c.tell("%s at %d: %s is missing", c.fleet.Labels(c.target, i), c.fleet.Millis(c.target, c.from+k), what)
			}
		}
	}
}

// tell keeps the first difference.
func (c *comparison) tell(format string, arguments ...any) {
	if c.verdict.Difference == "" {
		c.verdict.Difference = fmt.Sprintf(format, arguments...)
	}
}
