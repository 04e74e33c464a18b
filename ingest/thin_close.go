package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"varve/arrival"
)

// advance closes the ticks that are due.
func (t *thinner) advance(ctx context.Context) error {
	t.late.Lock()
	defer t.late.Unlock()
	if t.drained {
		return nil
	}
	if err := t.payOwed(ctx); err != nil {
		return err
	}
	if now := t.now(); now.UnixMilli() < t.closed {
		if err := t.reopen(ctx, t.floor(now.Add(-t.delay).UnixMilli())); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		last := t.floor(t.now().Add(-t.delay).UnixMilli())
		if last <= t.closed {
			return nil
		}
		more, err := t.closeNext(ctx, last)
		if err != nil {
			t.m.thinFailures.Inc()
			return fmt.Errorf("write the points of an interval: %w", err)
		}
		if t.leaving && !more {
			return t.drain(ctx)
		}
		if err := t.noteClosed(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// reopen makes a tick the last that is closed, where the clock went back behind the one
// that was: what comes now would make points that the archive takes for future ones. It
// is noted first, or a crash would leave open what was taken since. Called with late held.
func (t *thinner) reopen(ctx context.Context, last int64) error {
	if err := t.notes.SaveNotes(ctx, []Note{{Name: t.stateName(), Value: t.appendState(nil, last)}}, false); err != nil {
		return fmt.Errorf("open intervals again: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = last
	return nil
}

// closeNext closes the next tick, and those up to last before another one with a
// point: after a long silence there are many without. more tells whether there may be
// points of what is known now yet. Called with late held.
func (t *thinner) closeNext(ctx context.Context, last int64) (more bool, err error) {
	t.mu.Lock()
	was := t.closed
	points, next := t.due(was + t.interval)
	t.closed = min(last, next-t.interval)
	t.mu.Unlock()
	refused, err := t.emit(ctx, points)
	if err != nil {
		// Whoever waits for late finds the tick open again.
		t.mu.Lock()
		t.closed = was
		t.mu.Unlock()
		return false, err
	}
	for reason, n := range refused {
		if n > 0 {
			t.m.thinRefused.WithLabelValues(arrival.Reason(reason).String()).Add(float64(n))
		}
	}
	return next != noTick, nil
}

// noTick is behind all ticks.
const noTick = math.MaxInt64

// due returns the points of a tick and the next tick that may have some of what is
// known now, and lets series go that have ended. Called with mu held.
func (t *thinner) due(tick int64) (points []thinPoint, next int64) {
	next = noTick
	nowMillis := t.now().UnixMilli()
	for _, s := range t.byKey {
		at := len(s.samples) - 1
		for at >= 0 && s.samples[at].millis > tick {
			next = min(next, t.bucket(s.samples[at].millis))
			at--
		}
		if at < 0 || tick >= s.samples[at].millis+t.ttl {
			t.letGo(s, nowMillis)
			continue
		}
		p := &s.samples[at]
		if isStale(p.bits) && t.bucket(p.millis) != tick {
			continue
		}
		points = append(points, thinPoint{series: s, millis: tick, start: p.start, bits: p.bits})
		if tick+t.interval < p.millis+t.ttl {
			next = tick + t.interval
		}
	}
	t.m.thinSeries.Set(float64(len(t.byKey)))
	return points, next
}

// thinIdle is how long a series isn't brought before it may be forgotten: long enough
// for a sender of old samples to come back with the next.
const thinIdle = 10 * time.Minute

// letGo forgets a series that makes no points and was not brought for a while. Called
// with mu held.
func (t *thinner) letGo(s *thinSeries, nowMillis int64) {
	if s.dirty || nowMillis-s.touchedMillis < max(thinIdle.Milliseconds(), t.horizon()) {
		return
	}
	if n := len(s.samples); n > 0 && s.samples[n-1].millis+t.ttl >= t.closed-t.horizon() {
		return
	}
	delete(t.byKey, s.key)
	if t.byRef[s.ref] == s {
		delete(t.byRef, s.ref)
	}
	s.removed = true
	if s.noted {
		t.soil(s)
	}
}

// payOwed writes the points that could not be written. Called with late held.
func (t *thinner) payOwed(ctx context.Context) error {
	if len(t.owed) == 0 {
		return nil
	}
	if _, err := t.emit(ctx, t.owed); err != nil {
		return fmt.Errorf("write late samples: %w", err)
	}
	t.owed = nil
	return nil
}

// emit writes points, in their order. Called with late held.
func (t *thinner) emit(ctx context.Context, points []thinPoint) (refused arrival.Rejected, err error) {
	var b arrival.Batch
	for len(points) > 0 {
		n := min(len(points), rowsMax)
		if err := t.emitSome(ctx, &b, points[:n], &refused); err != nil {
			return refused, err
		}
		t.m.thinPoints.Add(float64(n))
		points = points[n:]
	}
	return refused, nil
}

func (t *thinner) emitSome(ctx context.Context, b *arrival.Batch, points []thinPoint, refused *arrival.Rejected) error {
	b.Reset()
	series := make([]*thinSeries, 0, len(points))
	starts := false
	for i := range points {
		starts = starts || points[i].start != 0
	}
	for i := range points {
		p := &points[i]
		if n := len(series); n == 0 || series[n-1] != p.series {
			series = append(series, p.series)
			b.Rows = append(b.Rows, arrival.Row{Key: p.series.key, First: uint32(len(b.Times))})
		}
		b.Rows[len(b.Rows)-1].Count++
		b.Times, b.Values = append(b.Times, p.millis), append(b.Values, p.bits)
		if starts {
			b.Starts = append(b.Starts, p.start)
		}
	}
	if t.sink.Lookup(b.Rows) > 0 {
		if err := t.resolve(ctx, b.Rows, series, refused); err != nil {
			return err
		}
	}
	if !worthWriting(b) {
		return nil
	}
	res, err := t.sink.Write(ctx, b)
	if err != nil {
		return err
	}
	refused.Add(&res.Rejected)
	return nil
}

// resolve resolves the rows that have no ref.
func (t *thinner) resolve(ctx context.Context, rows []arrival.Row, series []*thinSeries, refused *arrival.Rejected) error {
	var unknown []arrival.Unknown
	var at []int
	for i := range rows {
		if rows[i].Ref != 0 {
			continue
		}
		ls, err := parseWire(series[i].wire)
		if err != nil {
			return err
		}
		unknown, at = append(unknown, arrival.Unknown{Key: rows[i].Key, Labels: ls}), append(at, i)
	}
	if err := t.sink.Resolve(ctx, unknown); err != nil {
		return fmt.Errorf("resolve series: %w", err)
	}
	for j, i := range at {
		rows[i].Ref = unknown[j].Ref
		if rows[i].Ref == 0 {
			refused[unknown[j].Refused] += int(rows[i].Count)
		}
	}
	return nil
}

// parseWire reads what arrival.AppendLabels wrote.
func parseWire(wire []byte) (labels.Labels, error) {
	b := labels.NewScratchBuilder(16)
	last := ""
	r := noteReader{src: wire}
	for len(r.src) > 0 {
		r.tag(0x0a)
		pair := noteReader{src: r.bytes()}
		pair.tag(0x0a)
		name := string(pair.bytes())
		pair.tag(0x12)
		text := string(pair.bytes())
		if r.bad || !pair.ended() || name <= last || text == "" || !utf8.ValidString(name) || !utf8.ValidString(text) {
			return labels.EmptyLabels(), fmt.Errorf("labels of a series: %w", errNote)
		}
		last = name
		b.Add(name, text)
	}
	if r.bad || last == "" {
		return labels.EmptyLabels(), fmt.Errorf("labels of a series: %w", errNote)
	}
	return b.Labels(), nil
}

// noteClosed notes which tick is closed, and removes the notes of series that are
// gone. It need not be durable: what was closed after it is closed again.
func (t *thinner) noteClosed(ctx context.Context) error {
	t.m.thinClosed.Set(float64(t.closed) / 1000)
	t.mu.RLock()
	removed := false
	for _, s := range t.dirty {
		removed = removed || s.removed
	}
	group := t.group
	t.mu.RUnlock()
	err := t.notes.SaveNotes(ctx, []Note{{Name: t.stateName(), Value: t.appendState(nil, t.closed)}}, false)
	if removed {
		err = errors.Join(err, t.settle(ctx, group))
	}
	return err
}

// drain removes all notes of a thinning that nobody wants any more and of which all
// points are written. Called with late held.
func (t *thinner) drain(ctx context.Context) error {
	t.mu.Lock()
	var notes []Note
	for _, s := range t.byKey {
		notes = append(notes, Note{Name: t.noteName(s.key)})
	}
	t.mu.Unlock()
	if err := t.saveAll(ctx, append(notes, Note{Name: t.stateName()}), true); err != nil {
		return err
	}
	t.drained = true
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.byKey)
	clear(t.byRef)
	t.m.thinSeries.Set(0)
	return nil
}
