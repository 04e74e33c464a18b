package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"varve/arrival"
)

// DoorOptions are what the operator wants of what one input brings.
type DoorOptions struct {
	// Name is the input's: it names notes and counts. It has no slash.
	Name string
	// Sink is the archive.
	Sink  Sink
	Rules Rules
	// SeriesMax bounds the series that had samples in the last one to two hours. New
	// ones beyond it are refused. Zero: no limit.
	SeriesMax int
	// SamplesPerSecondMax bounds the rate of samples and histograms, Burst what may
	// come at once; by default what may come in a second. Beyond it Write returns
	// *RateLimited. A batch of more than the burst passes when the burst is whole, and
	// what comes next waits for it, but for the rest of the same Delivery. Zero: no limit.
	SamplesPerSecondMax float64
	Burst               int
	// Pace, unless it is nil, is the rate of all inputs that have it together.
	Pace *Pace
	Thin Thin
	HA   HA
	// FutureMax is how far ahead of the clock the archive takes samples. Default 10 min.
	FutureMax time.Duration
	// Notes are needed for Thin and HA.
	Notes      Notes
	Limits     Limits
	Registerer prometheus.Registerer // may be nil
	Logger     *slog.Logger          // may be nil
	Now        func() time.Time
}

// Door is the archive as one input sees it, with the rules, the limits, the pairs of
// replicas and the thinning that were configured for it, so that no input knows any
// of them. It implements Sink and is safe for use by several goroutines. Run must
// run beside it. Of one name there is one door at a time: close it before the next.
//
// The way of a series, on Resolve:
//
//  1. The filters see its labels as they came. A series that they leave out gets a
//     ref that stands for no series, and its key is remembered.
//  2. Of a replica the label that names it is removed, and the replica stands in the
//     high bits of the ref from there on.
//  3. External labels are added where it lacks them, then it is relabelled.
//  4. What comes out keeps the limits of labels, or is refused.
//
// On Write: the rate, the rows left out, the number of series, the election of
// replicas, thinning, the archive. Rows that are not written lose their ref.
//
// A series is known to the archive under a key that is hashed with the rules, so a
// changed rule never meets an old key. Without any rule it is the archive's own, and
// a door costs nothing but the call.
type Door struct {
	name      string
	sink      Sink
	rules     Rules
	seed      arrival.Seed
	futureMax time.Duration
	logger    *slog.Logger
	now       func() time.Time
	m         *doorMetrics
	rewriters sync.Pool // of *rewriter
	// writing is held by writes, and for good from Close on.
	writing sync.RWMutex

	// What follows is nil where it is not wanted.
	tags     *keyTags // where there are filters, relabelling or replicas
	paces    []*Pace  // its own, then that of all
	active   *activeSeries
	replicas *replicas
	thin     *thinner
	// thinned is what is left of a thinning that is configured no more.
	thinned *thinner
}

var _ Sink = (*Door)(nil)

// defaultFutureMax is the archive's.
const defaultFutureMax = 10 * time.Minute

// NewDoor returns a door and reads its notes.
func NewDoor(o DoorOptions) (*Door, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("input %q: %w", o.Name, err)
	}
	rules, err := o.Rules.checked()
	if err != nil {
		return nil, fmt.Errorf("input %q: %w", o.Name, err)
	}
	limits := o.Limits.WithDefaults()
	d := &Door{
		name: o.Name, sink: o.Sink, rules: rules, seed: o.Sink.Seed(), futureMax: o.FutureMax, logger: o.Logger, now: o.Now,
		m:         newDoorMetrics(o.Registerer, o.Name),
		rewriters: sync.Pool{New: func() any { return newRewriter(limits) }},
	}
	if d.futureMax <= 0 {
		d.futureMax = defaultFutureMax
	}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	d.logger = d.logger.With("input", o.Name)
	if !rules.none() || o.HA.on() {
		d.tags = newKeyTags()
		d.seed = arrival.Seed(o.Sink.Seed().Hash(o.HA.fingerprint(rules.fingerprint([]byte("door\n")))).Lo)
	}
	if o.SamplesPerSecondMax > 0 {
		d.paces = append(d.paces, NewPace(o.SamplesPerSecondMax, o.Burst))
	}
	if o.Pace != nil {
		d.paces = append(d.paces, o.Pace)
	}
	if o.SeriesMax > 0 {
		d.active = newActiveSeries(o.SeriesMax, o.Now())
	}
	if o.HA.on() {
		if d.replicas, err = newReplicas(d, o.HA, o.Notes); err != nil {
			return nil, fmt.Errorf("input %q: %w", o.Name, err)
		}
	}
	if o.Notes != nil {
		t, err := newThinner(d, o.Thin, o.Notes)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", o.Name, err)
		}
		if o.Thin.on() {
			d.thin = t
		} else {
			d.thinned = t
		}
	}
	return d, nil
}

func (o *DoorOptions) check() error {
	switch {
	case o.Name == "" || len(o.Name) > 128 || strings.Contains(o.Name, "/"):
		return errors.New("its name is empty, has a slash, or more than 128 bytes")
	case (o.Thin.on() || o.HA.on()) && o.Notes == nil:
		return errors.New("thinning and replicas need a place for notes")
	}
	if err := o.Thin.check(); err != nil {
		return err
	}
	return o.HA.check()
}

// Seed implements Sink.
func (d *Door) Seed() arrival.Seed { return d.seed }

// Lookup implements Sink.
func (d *Door) Lookup(rows []arrival.Row) int {
	missing := d.sink.Lookup(rows)
	switch {
	case d.replicas != nil:
		missing = d.tags.tag(rows)
	case d.tags != nil && missing > 0:
		missing = d.tags.filtered(rows, missing)
	}
	if d.thin != nil {
		missing += d.thin.unlinked(rows)
	}
	return missing
}

// Resolve implements Sink.
func (d *Door) Resolve(ctx context.Context, unknown []arrival.Unknown) error {
	if d.tags == nil && d.active == nil && d.thin == nil {
		return d.sink.Resolve(ctx, unknown)
	}
	q := d.through(unknown)
	if len(q.series) == 0 {
		return nil
	}
	var err error
	if d.active != nil {
		err = d.active.resolve(ctx, d.sink, q.series, d.now())
		d.m.active.Set(float64(d.active.count()))
	} else {
		err = d.sink.Resolve(ctx, q.series)
	}
	if err != nil {
		return err
	}
	for j := range q.series {
		s, u := &q.series[j], &unknown[q.at[j]]
		u.Refused = s.Refused
		if s.Ref == 0 {
			continue
		}
		if s.Ref > refMask {
			return fmt.Errorf("series %d is beyond what a door can tell apart", s.Ref)
		}
		if d.thin != nil {
			if u.Refused = d.thin.link(s.Ref, s.Labels); u.Refused != arrival.ReasonNone {
				continue
			}
		}
		u.Ref = s.Ref | q.tags[j].ref()
		if d.replicas != nil {
			d.tags.put(u.Key, q.tags[j])
		}
	}
	return nil
}

// passing is what of a Resolve goes through to the archive.
type passing struct {
	series []arrival.Unknown
	at     []int // their places in the Resolve
	tags   []keyTag
}

// through applies the rules. What they leave out or refuse is answered at once.
func (d *Door) through(unknown []arrival.Unknown) passing {
	w := d.rewriters.Get().(*rewriter)
	defer d.rewriters.Put(w)
	q := passing{series: make([]arrival.Unknown, 0, len(unknown)), at: make([]int, 0, len(unknown)), tags: make([]keyTag, 0, len(unknown))}
	for i := range unknown {
		u := &unknown[i]
		ls, tag, reason := d.judge(w, u.Labels)
		switch reason {
		case arrival.ReasonNone:
			q.series = append(q.series, arrival.Unknown{Key: u.Key, Labels: ls})
			q.at, q.tags = append(q.at, i), append(q.tags, tag)
		case arrival.ReasonFiltered:
			u.Ref = refFiltered
			d.tags.put(u.Key, tagFiltered)
		default:
			u.Refused = reason
		}
	}
	return q
}

// judge says what becomes of a series.
func (d *Door) judge(w *rewriter, ls labels.Labels) (labels.Labels, keyTag, arrival.Reason) {
	if !d.rules.wanted(ls) {
		return ls, 0, arrival.ReasonFiltered
	}
	var tag keyTag
	without := ""
	if d.replicas != nil {
		var reason arrival.Reason
		if tag, reason = d.replicas.tag(ls); reason != arrival.ReasonNone {
			return ls, 0, reason
		}
		if tag != tagAlone {
			without = d.replicas.replicaLabel
		}
	}
	out, reason := w.rewrite(&d.rules, ls, without)
	return out, tag, reason
}

var errDoorClosed = errors.New("the input has ended, or is being configured")

// Close makes every later Write answer *arrival.Unavailable and returns when those under
// way are over: a note that one of them saves would otherwise take the place of one of
// the door that comes next. Run must have ended, or the next door must wait until it has. Close takes away the metrics
// that say how the input is at the moment. Call it once.
func (d *Door) Close() {
	d.writing.Lock()
	d.m.forget()
}

// Write implements Sink. Over the rate the error is *RateLimited and the batch is as
// it was.
func (d *Door) Write(ctx context.Context, b *arrival.Batch) (arrival.Result, error) {
	var res arrival.Result
	if !d.writing.TryRLock() {
		return res, &arrival.Unavailable{Reason: "shutdown", RetryAfter: time.Second, Err: errDoorClosed}
	}
	defer d.writing.RUnlock()
	for _, p := range d.paces {
		if err := p.take(d.now(), len(b.Times)+len(b.Histograms), goesOn(ctx)); err != nil {
			return res, err
		}
	}
	if d.tags != nil {
		leaveOut(b, refFiltered).dropped(&res, arrival.ReasonFiltered)
	}
	if d.active != nil {
		d.active.refuse(b, d.now(), &res)
	}
	var err error
	if d.replicas != nil {
		err = d.replicas.write(ctx, b, &res)
	} else {
		err = d.store(ctx, b, &res)
	}
	if err != nil {
		return arrival.Result{}, err
	}
	return res, nil
}

// store writes rows whose refs are the archive's and adds to the result.
func (d *Door) store(ctx context.Context, b *arrival.Batch, res *arrival.Result) error {
	if *res != (arrival.Result{}) && !worthWriting(b) {
		return nil
	}
	var written arrival.Result
	var err error
	if d.thin != nil {
		written, err = d.thin.write(ctx, b)
	} else {
		written, err = d.sink.Write(ctx, b)
	}
	if err != nil {
		return err
	}
	res.Add(&written)
	return nil
}

// worthWriting tells whether anything of a batch is left: nothing needs no sync.
func worthWriting(b *arrival.Batch) bool {
	if len(b.Metadata) > 0 {
		return true
	}
	for i := range b.Rows {
		if b.Rows[i].Ref != 0 {
			return true
		}
	}
	return false
}

// Advance does what is due by the clock: it writes the points of intervals that are
// over, and hands clusters whose replica is silent to another. What could not be done
// is done by a later call.
func (d *Door) Advance(ctx context.Context) error {
	var errs []error
	if d.replicas != nil {
		errs = append(errs, d.replicas.advance(ctx))
	}
	for _, t := range []*thinner{d.thin, d.thinned} {
		if t != nil {
			errs = append(errs, t.advance(ctx))
		}
	}
	if d.active != nil {
		d.m.active.Set(float64(d.active.count()))
	}
	return errors.Join(errs...)
}

// How often Run looks, and how often it tells of trouble.
const (
	doorPollMax  = time.Second
	doorPollMin  = 10 * time.Millisecond
	doorLogEvery = 10 * time.Second
)

// Run advances the door until ctx ends, and returns nil.
func (d *Door) Run(ctx context.Context) error {
	poll := doorPollMax
	if d.replicas != nil {
		poll = min(poll, d.replicas.timeout/8)
	}
	for _, t := range []*thinner{d.thin, d.thinned} {
		if t != nil {
			poll = min(poll, time.Duration(t.interval)*time.Millisecond/4)
		}
	}
	ticker := time.NewTicker(max(poll, doorPollMin))
	defer ticker.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := d.Advance(ctx)
		if now := d.now(); err != nil && ctx.Err() == nil && now.Sub(told) >= doorLogEvery {
			told = now
			d.logger.Error("what is due of an input waits, and will be tried again", "err", err)
		}
	}
}
