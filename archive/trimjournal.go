package archive

import (
	"fmt"
	"math"

	"varve/archive/format"
	"varve/rocks"
)

// keepJournal decides from where on the journal is kept, for start-ups, which need what is behind the mark, and for cursors. A
// cursor that is further behind than the limits allow is made to owe the rest by time.
func (a *Archive) keepJournal(replay format.Sequence) (format.Sequence, error) {
	t := &a.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	stamp := a.takeEdges()
	kept := replay
	for _, c := range t.cursors {
		kept = min(kept, c.needs(t))
	}
	limit := t.limit(kept, replay, stamp, &a.o, a.o.Now().UnixMilli())
	if limit.sequence > kept {
		for _, c := range t.cursors {
			if err := t.trimUnder(c, limit); err != nil {
				return 0, err
			}
		}
		kept = limit.sequence
	}
	// Gaps of cursors that are behind were noted up to here, and not further.
	t.kept = max(t.kept, kept)
	return t.kept, nil
}

// trimUnder makes the cursor owe by time what lies before a place. It goes segment by segment: what one of them takes bounds the memory, and how
// long the cursor is held. Called with the lock held.
func (t *tails) trimUnder(c *Cursor, to journalEdge) error {
	for _, e := range t.edges {
		if e.sequence >= to.sequence {
			break
		}
		if err := c.trimUnder(e); err != nil {
			return err
		}
	}
	return c.trimUnder(to)
}

// passOver makes cursors owe by time what arrived before the sequence: of what is read from the archive nothing comes that was removed there
// meanwhile. The journal is not trimmed.
func (a *Archive) passOver(before format.Sequence) error {
	t := &a.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	a.takeEdges()
	it := a.db.NewIterator(family(format.FamilyJournal), rocks.IterOptions{Upper: format.AppendUint64(nil, uint64(before))})
	defer it.Close()
	if it.SeekToLast(); !it.Valid() {
		return it.Err()
	}
	stamp, err := format.RecordStamp(it.Value())
	if err != nil {
		return err
	}
	for _, c := range t.cursors {
		if err := t.trimUnder(c, journalEdge{before, stamp}); err != nil {
			return err
		}
	}
	return nil
}

// takeEdges learns of the segments that began, and returns the stamp of what is durable. Called with the lock of tails held.
func (a *Archive) takeEdges() format.JournalStamp {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tails.edges = append(a.tails.edges, a.newEdges...)
	a.newEdges = nil
	return a.stamp
}

// needs is the edge of the journal that the cursor reads from. Called with the lock of tails held.
func (c *Cursor) needs(t *tails) format.Sequence {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.rec.Next
	c.noteSettled()
	if len(c.settled) > 0 {
		next = min(next, c.settled[0].next)
	}
	edge := format.Sequence(0)
	for _, e := range t.edges {
		if e.sequence > next {
			break
		}
		edge = e.sequence
	}
	if edge == 0 {
		return next
	}
	return edge
}

// limit is the first edge, from kept on and not behind replay, up to which the limits trim the journal. Called with the lock held.
func (t *tails) limit(kept, replay format.Sequence, stamp format.JournalStamp, o *Options, now int64) journalEdge {
	var to journalEdge
	for i, e := range t.edges {
		if e.sequence > replay {
			break
		}
		if e.sequence <= kept || i == 0 {
			continue
		}
		// What lies before this edge ends with it.
		if old := t.edges[i-1]; stamp.Bytes-old.stamp.Bytes > uint64(o.JournalBytesMax) || now-e.stamp.ArrivedMillis > o.JournalAgeMax.Milliseconds() {
			to = e
		}
	}
	return to
}

// trimJournal puts into the batch that the journal is kept from the sequence on.
func (a *Archive) trimJournal(b *rocks.Batch, kept format.Sequence) {
	if kept == 0 {
		return
	}
	t := &a.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(t.edges) && t.edges[n].sequence < kept {
		b.Delete(family(format.FamilyMeta), format.AppendUint64([]byte(format.MetaEdgePrefix), uint64(t.edges[n].sequence)))
		n++
	}
	t.edges = t.edges[n:]
	_, stamp := a.head()
	b.Put(family(format.FamilyMeta), []byte(format.MetaKept), format.AppendUint64(nil, uint64(kept)))
	b.Put(family(format.FamilyMeta), []byte(format.MetaStamp), format.AppendStamp(nil, stamp))
}

// owed returns what tells which output waits for samples of a day, empty if none does: the day must not expire before they
// are read. It is of now; a cursor that reads is waited for once, and not for each day.
func (a *Archive) owed() func(day format.Day) string {
	type wait struct {
		name  string
		whole int64 // days that end later, Unix ms
		days  map[format.Day]struct{}
	}
	now := a.o.Now().UnixMilli()
	var waits []wait
	for _, c := range a.tails.all() {
		w := wait{name: c.name, whole: math.MaxInt64, days: map[format.Day]struct{}{}}
		c.mu.Lock()
		if c.rec.Whole && now-c.rec.WholeSinceMillis < a.o.OwedMax.Milliseconds() {
			w.whole = c.rec.WholeFromMillis
		}
		for i := range c.gaps {
			if g := &c.gaps[i]; now-g.noted < a.o.OwedMax.Milliseconds() {
				for day := range g.days {
					w.days[day] = struct{}{}
				}
			}
		}
		c.mu.Unlock()
		waits = append(waits, w)
	}
	return func(day format.Day) string {
		for _, w := range waits {
			if _, on := w.days[day]; on || day.EndMillis() > w.whole {
				return fmt.Sprintf("output %q has not sent all of it yet", w.name)
			}
		}
		return ""
	}
}
