package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	"varve/arrival"
)

// Thin says how far apart the samples of a series are stored.
type Thin struct {
	// Interval is between two points, in whole milliseconds. Zero: all are stored.
	Interval time.Duration
	// TTL is how old the sample may be that a point is made of. Default twice the interval.
	TTL time.Duration
	// Delay is how long after the end of an interval its points are written. Default 5 s.
	Delay time.Duration
	// Remembered is how many intervals of each series that are over are remembered, so
	// that a sample that comes late finds its place. Default 4.
	Remembered int
	// SeriesMax bounds the series. Default 1 million, of about 700 bytes each.
	SeriesMax int
}

func (t *Thin) on() bool { return t.Interval > 0 }

// thinPointsMax bounds how many points a sample may make.
const thinPointsMax = 1000

func (t *Thin) check() error {
	switch {
	case !t.on():
		return nil
	case t.Interval < time.Millisecond || t.Interval%time.Millisecond != 0 || t.TTL%time.Millisecond != 0:
		return errors.New("thinning goes by whole milliseconds")
	case t.TTL != 0 && t.TTL < t.Interval:
		return errors.New("thinning has a ttl that is shorter than its interval")
	case t.TTL/t.Interval > thinPointsMax:
		return fmt.Errorf("thinning has a ttl of more than %d intervals", thinPointsMax)
	}
	return nil
}

// The defaults of Thin.
const (
	defaultThinDelay      = 5 * time.Second
	defaultThinRemembered = 4
	defaultThinSeriesMax  = 1_000_000
)

// thinner stores of each series one point an interval.
//
// A tick T is a multiple of the interval on the clock. The point of a series at T is
// its last sample in (T-ttl, T], by sample time. Where there is none, there is no
// point: a series that is dead ends. A stale marker makes a point at the first tick
// behind it and none after.
//
//  1. Of each interval, which is named by the tick that ends it, the last sample is
//     remembered, in memory and in the series' note. Write returns when the notes are
//     durable; those of several writes are saved together.
//  2. When the clock has passed a tick by the delay, the tick is closed: its points
//     are written, and then it is noted that it is. After a crash in between the same
//     points are written again.
//  3. A sample that comes for a closed tick makes its points at once, where no later
//     sample of those intervals is known.
//
// All intervals that may make a point yet are remembered, and a few more, those used
// last. Up to the tick forgotten there may be points of intervals that nobody
// remembers: there a sample makes the point of its own tick, and those of the ticks
// behind it when the next one comes. So what is brought anew in the order of time
// comes out right, and what was there behind its end stays.
//
// Native histograms, exemplars and metadata pass as they are.
type thinner struct {
	name             string
	sink             Sink
	notes            Notes
	m                *doorMetrics
	now              func() time.Time
	futureMax        time.Duration
	interval, ttl    int64 // milliseconds
	delay            time.Duration
	remembered       int
	seriesMax        int
	leaving, drained bool // leaving: it is configured no more

	// late makes one of deciding that a tick is closed and writing to it. owed are
	// points that could not be written; guarded by late. It comes before saving and mu.
	late sync.Mutex
	owed []thinPoint

	// saving puts notes in the order of what they say. It comes before mu. saved is the
	// last group of notes that is durable, values memory for them; guarded by saving.
	saving sync.Mutex
	saved  uint64
	values []byte

	mu    sync.RWMutex // guards what follows and all series
	byKey map[arrival.Key]*thinSeries
	byRef map[storage.SeriesRef]*thinSeries
	// closed is the last tick that is closed; it moves under late.
	closed int64
	// dirty are the series whose notes are to be saved, in the group numbered group.
	dirty []*thinSeries
	group uint64
}

// thinSeries is a series that is thinned.
type thinSeries struct {
	key  arrival.Key // the series' own
	ref  storage.SeriesRef
	wire []byte // labels
	// samples are the last of their intervals, one for each, in the order of time.
	samples []thinSample
	// forgotten is the last tick whose point may be of a sample that is forgotten.
	forgotten int64
	uses      uint32
	// touchedMillis is when the series was last brought.
	touchedMillis         int64
	noted, dirty, removed bool
}

type thinSample struct {
	millis, start int64
	bits          uint64
	used          uint32
}

// thinPoint is a sample as the point of a tick.
type thinPoint struct {
	series *thinSeries
	millis int64
	start  int64
	bits   uint64
}

// bucket is the tick that ends the interval of a time.
func (t *thinner) bucket(millis int64) int64 { return t.floor(millis-1) + t.interval }

// floor is the last tick at or before a time.
func (t *thinner) floor(millis int64) int64 {
	r := millis % t.interval
	if r < 0 {
		r += t.interval
	}
	return millis - r
}

// horizon is how far behind the last closed tick all of a series is remembered.
func (t *thinner) horizon() int64 { return t.ttl + int64(t.remembered)*t.interval }

// thinLabelBytesMax bounds the labels of a series: a note has 1 MiB, and one that can't
// be saved would keep all others from being saved.
const thinLabelBytesMax = 512 << 10

// link says which ref a series has, or why it has none: there is no room for another,
// or for its labels.
func (t *thinner) link(ref storage.SeriesRef, ls labels.Labels) arrival.Reason {
	wire := arrival.AppendLabels(nil, ls)
	if len(wire) > thinLabelBytesMax {
		return arrival.ReasonInvalidLabels
	}
	key := t.sink.Seed().Hash(wire)
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byKey[key]
	if s == nil {
		if len(t.byKey) >= t.seriesMax {
			return arrival.ReasonSeriesLimit
		}
		s = &thinSeries{key: key, wire: wire, forgotten: t.closed - t.horizon()}
		t.byKey[key] = s
	}
	if s.ref != ref {
		if t.byRef[s.ref] == s {
			delete(t.byRef, s.ref)
		}
		s.ref = ref
	}
	t.byRef[ref] = s
	s.touchedMillis = t.now().UnixMilli()
	return arrival.ReasonNone
}

// unlinked takes the refs of rows whose series was not linked, and returns how many.
func (t *thinner) unlinked(rows []arrival.Row) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := 0
	for i := range rows {
		ref := rows[i].Ref
		if ref == 0 || ref&refFiltered != 0 {
			continue
		}
		if t.byRef[ref&refMask] == nil {
			rows[i].Ref = 0
			n++
		}
	}
	return n
}

var errThinForgotten = errors.New("a series was forgotten meanwhile")

// write takes the floats of a batch and passes the rest on.
func (t *thinner) write(ctx context.Context, b *arrival.Batch) (arrival.Result, error) {
	var res arrival.Result
	if err := ctx.Err(); err != nil {
		return res, err
	}
	if len(b.Histograms)+len(b.Exemplars)+len(b.Metadata) > 0 {
		rest := arrival.Batch{Rows: make([]arrival.Row, len(b.Rows)), Histograms: b.Histograms, Exemplars: b.Exemplars, Metadata: b.Metadata}
		for i := range b.Rows {
			rest.Rows[i] = arrival.Row{Key: b.Rows[i].Key, Ref: b.Rows[i].Ref}
		}
		if worthWriting(&rest) {
			var err error
			if res, err = t.sink.Write(ctx, &rest); err != nil {
				return arrival.Result{}, err
			}
		}
	}
	if len(b.Times) == 0 {
		return res, nil
	}
	if err := t.writeFloats(ctx, b, &res); err != nil {
		return arrival.Result{}, err
	}
	return res, nil
}

func (t *thinner) writeFloats(ctx context.Context, b *arrival.Batch, res *arrival.Result) error {
	t.mu.Lock()
	if !t.anyLate(b) {
		_, err := t.takeAll(b, res)
		group := t.group
		t.mu.Unlock()
		if err != nil {
			return err
		}
		return t.settle(ctx, group)
	}
	t.mu.Unlock()

	t.late.Lock()
	defer t.late.Unlock()
	if err := t.payOwed(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	points, err := t.takeAll(b, res)
	group := t.group
	t.mu.Unlock()
	if err != nil {
		return err
	}
	refused, err := t.emit(ctx, points)
	if err != nil {
		t.owed = points
		return fmt.Errorf("write late samples: %w", err)
	}
	res.Rejected.Add(&refused)
	res.Samples = max(0, res.Samples-refused.Total())
	return t.settle(ctx, group)
}

// anyLate tells whether a batch has samples of intervals that are closed. Called with mu held.
func (t *thinner) anyLate(b *arrival.Batch) bool {
	for _, millis := range b.Times {
		if millis <= t.closed {
			return true
		}
	}
	return false
}

// thinTimeMax bounds times on both sides, in milliseconds: the archive keeps nothing
// that is 35 000 years from 1970.
const thinTimeMax = 1 << 50

func validTime(millis int64) bool { return millis >= -thinTimeMax && millis <= thinTimeMax }

// takeAll takes the samples of a batch and returns the points that are to be written
// at once. Called with mu held.
func (t *thinner) takeAll(b *arrival.Batch, res *arrival.Result) (points []thinPoint, err error) {
	for i := range b.Rows {
		if row := &b.Rows[i]; row.Ref != 0 && row.Count > 0 && t.byRef[row.Ref] == nil {
			return nil, &arrival.Unavailable{Reason: "overload", RetryAfter: time.Second, Err: errThinForgotten}
		}
	}
	now := t.now()
	latest := now.Add(t.futureMax).UnixMilli()
	for i := range b.Rows {
		row := &b.Rows[i]
		if row.Ref == 0 || row.Count == 0 {
			continue
		}
		s := t.byRef[row.Ref]
		s.touchedMillis = now.UnixMilli()
		from := len(points)
		for k := row.First; k < row.First+row.Count; k++ {
			p := thinSample{millis: b.Times[k], bits: b.Values[k]}
			if len(b.Starts) > 0 {
				p.start = b.Starts[k]
			}
			switch {
			case p.millis > latest:
				res.Rejected[arrival.ReasonFuture]++
			case !validTime(p.millis):
				res.Rejected[arrival.ReasonRetention]++
			case t.take(s, p, from, &points):
				res.Samples++
			default:
				res.Dropped[arrival.ReasonThinned]++
				res.DroppedSamples++
			}
		}
	}
	return points, nil
}

// take brings a sample to its interval. It is false if a later one is there. Points
// of this series begin at from. Called with mu held.
func (t *thinner) take(s *thinSeries, p thinSample, from int, points *[]thinPoint) bool {
	tick := t.bucket(p.millis)
	at := len(s.samples)
	for at > 0 && s.samples[at-1].millis > tick {
		at--
	}
	s.uses++
	p.used = s.uses
	inserted := at == 0 || s.samples[at-1].millis <= tick-t.interval
	if inserted {
		s.samples = append(s.samples, thinSample{})
		copy(s.samples[at+1:], s.samples[at:])
	} else {
		at--
		if s.samples[at].millis > p.millis {
			s.samples[at].used = p.used
			return false
		}
	}
	s.samples[at] = p
	t.soil(s)
	if tick <= t.closed {
		if inserted && at > 0 {
			t.carryUnknown(s, at-1, tick, from, points)
		}
		t.rewrite(s, at, tick, from, points)
	}
	t.forget(s)
	return true
}

// carryUnknown makes the points of the sample at a place up to the tick before next,
// as far as they lie where intervals are forgotten: when the sample came they were not
// made.
func (t *thinner) carryUnknown(s *thinSeries, at int, next int64, from int, points *[]thinPoint) {
	p := &s.samples[at]
	if isStale(p.bits) {
		return
	}
	for tick := t.bucket(p.millis) + t.interval; tick < next && tick < p.millis+t.ttl && tick <= min(t.closed, s.forgotten); tick += t.interval {
		point(s, p, tick, from, points)
	}
}

// rewrite makes the points of the sample at a place in ticks that are closed.
func (t *thinner) rewrite(s *thinSeries, at int, tick int64, from int, points *[]thinPoint) {
	p := &s.samples[at]
	end, near := t.closed, false
	if at+1 < len(s.samples) {
		next := t.bucket(s.samples[at+1].millis)
		end = min(end, next-t.interval)
		near = next < p.millis+t.ttl+t.interval
	}
	point(s, p, tick, from, points)
	// A stale marker makes points behind its own tick too, here: there may be those of
	// the samples before it, and points cannot be removed.
	for tick += t.interval; tick <= end && tick < p.millis+t.ttl; tick += t.interval {
		if tick > s.forgotten || near {
			point(s, p, tick, from, points)
		}
	}
}

// pointsBack is how far is looked for a point of the same tick: samples of a row are
// mostly in order.
const pointsBack = 8

// point adds a point, in place of one of the same tick.
func point(s *thinSeries, p *thinSample, tick int64, from int, points *[]thinPoint) {
	made := thinPoint{series: s, millis: tick, start: p.start, bits: p.bits}
	all := *points
	for i := len(all) - 1; i >= max(from, len(all)-pointsBack); i-- {
		if all[i].millis == tick {
			all[i] = made
			return
		}
	}
	*points = append(all, made)
}

// forget forgets the interval that was used longest ago, if there are more than are
// remembered beside those that may make a point yet.
func (t *thinner) forget(s *thinSeries) {
	over := 0 // how many are closed; the last of them may make points yet
	for over < len(s.samples) && s.samples[over].millis <= t.closed {
		over++
	}
	if over--; over <= t.remembered {
		return
	}
	at := 0
	for i := range s.samples[:over] {
		if s.samples[i].used < s.samples[at].used {
			at = i
		}
	}
	// What was forgotten may have made points up to the ttl.
	s.forgotten = max(s.forgotten, t.floor(s.samples[at].millis+t.ttl-1))
	s.samples = append(s.samples[:at], s.samples[at+1:]...)
}

// soil marks a series' note as out of date. Called with mu held.
func (t *thinner) soil(s *thinSeries) {
	if !s.dirty {
		s.dirty = true
		t.dirty = append(t.dirty, s)
	}
}

// isStale tells whether a value is upstream's stale marker.
func isStale(bits uint64) bool { return bits == value.StaleNaN }
