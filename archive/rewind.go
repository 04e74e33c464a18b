package archive

import (
	"time"

	"varve/archive/format"
	"varve/rocks"
)

// Rewind makes samples that are not older than start be read again, or, for the zero Start, skips to what
// arrives from now on. What was read before and isn't settled is not waited for. After an error that is read again, and no more.
func (c *Cursor) Rewind(start Start) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.restart()
	head, stamp := c.a.head()
	before := c.rec
	if from, ok := start.whole(c.a.o.Now()); ok {
		if before.Whole {
			from = min(from, before.WholeFromMillis) // That is owed still.
		}
		c.rec.Whole, c.rec.WholeFromMillis, c.rec.WholeSinceMillis, c.rec.Skips = true, from, c.a.o.Now().UnixMilli(), nil
	} else {
		c.rec.Next, c.rec.Stamp, c.rec.Whole, c.rec.Skips = head+1, stamp, false, nil
	}
	var b rocks.Batch
	c.put(&b)
	if !c.rec.Whole {
		prefix := format.AppendGapPrefix(nil, c.name)
		b.DeleteRange(family(format.FamilyGaps), prefix, format.PrefixEnd(prefix))
	}
	if err := c.write(&b, true); err != nil {
		c.rec = before
		return err
	}
	if !c.rec.Whole {
		c.gaps = nil
	}
	return nil
}

// settledAt is how far a cursor was settled at a time.
type settledAt struct {
	millis int64 // Unix ms
	next   format.Sequence
	stamp  format.JournalStamp
}

// KeepBehind makes the journal keep what was settled less than d ago, as far as its limits allow, so that RewindArrivals
// can go back to it. What was settled before this process began is not known.
func (c *Cursor) KeepBehind(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep = d
	c.noteSettled()
}

// noteSettled remembers the place, once a second, and forgets those of long ago. Called with mu held.
func (c *Cursor) noteSettled() {
	if c.keep <= 0 {
		c.settled = nil
		return
	}
	now := c.a.o.Now().UnixMilli()
	// The last one of before the time that is kept is where that time begins.
	n := 0
	for n+1 < len(c.settled) && c.settled[n+1].millis <= now-c.keep.Milliseconds() {
		n++
	}
	c.settled = c.settled[n:]
	if k := len(c.settled); k == 0 || c.settled[k-1].millis+1000 <= now {
		c.settled = append(c.settled, settledAt{now, c.rec.Next, c.rec.Stamp})
	}
}

// RewindArrivals makes what was settled at since or later be read again, as far as the journal has it and KeepBehind has it
// known; at most a second more. What was read and isn't settled is read again in any case, even after an error.
func (c *Cursor) RewindArrivals(since time.Time) error {
	t := &c.a.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.restart()
	var to *settledAt
	for i := range c.settled {
		if s := &c.settled[i]; s.next >= t.kept && (to == nil || s.millis <= since.UnixMilli()) {
			to = s
		}
	}
	if to == nil || to.next >= c.rec.Next {
		return nil
	}
	before := c.rec
	c.rec.Next, c.rec.Stamp = to.next, to.stamp
	if err := c.save(true); err != nil {
		c.rec = before
		return err
	}
	return nil
}
