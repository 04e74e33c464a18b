package archive

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"varve/archive/format"
	"varve/rocks"
)

// tails are the cursors of an archive.
type tails struct {
	mu      sync.Mutex
	cursors map[string]*Cursor
	// edges are the begins of the journal's segments, ascending, with what the journal took in before each.
	edges []journalEdge
	kept  format.Sequence
}

type journalEdge struct {
	sequence format.Sequence
	stamp    format.JournalStamp
}

// load reads cursors, their gaps and the edges of the journal.
func (t *tails) load(a *Archive) error {
	t.cursors = map[string]*Cursor{}
	kept, _, err := a.meta(format.MetaKept)
	if err != nil {
		return err
	}
	t.kept = format.Sequence(kept)
	err = a.eachMeta(format.MetaEdgePrefix, func(name, value []byte) error {
		seq, err := format.ParseUint64(name)
		if err != nil {
			return err
		}
		stamp, err := format.ParseStamp(value)
		t.edges = append(t.edges, journalEdge{format.Sequence(seq), stamp})
		return err
	})
	if err != nil {
		return err
	}
	err = a.eachMeta(format.MetaCursorPrefix, func(name, value []byte) error {
		c := &Cursor{a: a, name: string(name), changed: make(chan struct{})}
		t.cursors[c.name] = c
		return c.rec.Parse(value)
	})
	if err != nil {
		return err
	}
	for _, c := range t.cursors {
		c.restart()
	}
	return a.eachGap(nil, func(k format.GapKey, value []byte) error {
		c := t.cursors[k.Cursor]
		if c == nil {
			return nil // Left by a cursor that was removed.
		}
		var g format.Gap
		if err := g.Parse(value); err != nil {
			return err
		}
		c.noteGap(k, &g)
		return nil
	})
}

// eachMeta calls f for the meta records whose names begin with the prefix, with the rest of the name.
func (a *Archive) eachMeta(prefix string, f func(name, value []byte) error) error {
	lower := []byte(prefix)
	it := a.db.NewIterator(family(format.FamilyMeta), rocks.IterOptions{Lower: lower, Upper: format.PrefixEnd(lower)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		if err := f(it.Key()[len(prefix):], it.Value()); err != nil {
			return fmt.Errorf("meta record %q: %w", it.Key(), err)
		}
	}
	return it.Err()
}

// RemoveCursor removes the cursor with what it owes. It must not be open.
func (a *Archive) RemoveCursor(name string) error {
	t := &a.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.cursors[name]
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened {
		return fmt.Errorf("remove cursor %q: %w", name, ErrCursorOpen)
	}
	var b rocks.Batch
	b.Delete(family(format.FamilyMeta), append([]byte(format.MetaCursorPrefix), name...))
	prefix := format.AppendGapPrefix(nil, name)
	b.DeleteRange(family(format.FamilyGaps), prefix, format.PrefixEnd(prefix))
	if err := c.write(&b, true); err != nil {
		return err
	}
	delete(t.cursors, name)
	return nil
}

// SavedTime is the time that SaveTime was last given for the name; ok is false if there is none.
func (a *Archive) SavedTime(name string) (t time.Time, ok bool, err error) {
	ms, ok, err := a.meta(format.MetaClockPrefix + name)
	return time.UnixMilli(int64(ms)), ok, err
}

// SavedTimes lists the names under which times are kept.
func (a *Archive) SavedTimes() (names []string, err error) {
	err = a.eachMeta(format.MetaClockPrefix, func(name, _ []byte) error {
		names = append(names, string(name))
		return nil
	})
	return names, err
}

// SaveTime keeps a time under a name, to the millisecond, like the place of a cursor: a power cut may bring an older one back. The
// zero time removes it.
func (a *Archive) SaveTime(name string, t time.Time) error {
	if name == "" || len(name) > 2*cursorNameMax {
		return fmt.Errorf("time of %q: want a name of 1 to %d bytes", name, 2*cursorNameMax)
	}
	var b rocks.Batch
	key := append([]byte(format.MetaClockPrefix), name...)
	if t.IsZero() {
		b.Delete(family(format.FamilyMeta), key)
	} else {
		b.Put(family(format.FamilyMeta), key, format.AppendUint64(nil, uint64(t.UnixMilli())))
	}
	if err := a.disk.check(); err != nil {
		return fmt.Errorf("save the time of %q: %w", name, err)
	}
	return a.db.Write(&b, false)
}

// CursorStatus is what the archive knows of a cursor.
type CursorStatus struct {
	Name    string
	Created time.Time
	Next    format.Sequence
	Lag     Lag
	Totals  Tally
}

// Cursors lists the cursors, open or not, by name.
func (a *Archive) Cursors() ([]CursorStatus, error) {
	var all []CursorStatus
	for _, c := range a.tails.all() {
		lag, err := c.Lag()
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		s := CursorStatus{Name: c.name, Created: time.UnixMilli(c.rec.CreatedMillis), Next: c.rec.Next, Lag: lag}
		c.mu.Unlock()
		s.Totals = c.Totals()
		all = append(all, s)
	}
	return all, nil
}

// all lists the cursors by name.
func (t *tails) all() []*Cursor {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*Cursor, 0, len(t.cursors))
	for _, c := range t.cursors {
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y *Cursor) int { return strings.Compare(x.name, y.name) })
	return out
}
