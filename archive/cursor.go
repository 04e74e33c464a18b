package archive

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"varve/archive/format"
	"varve/rocks"
)

// Start says where a new cursor begins, or where one is rewound to. The zero value is now: what arrives from now on.
type Start struct {
	// All begins with everything that the archive holds, From with its samples that are not older than this time, whenever
	// they arrived. Both are read from the archive in the order of time, and go over into what arrives.
	All  bool
	From time.Time
}

// whole is the first time that is read from the archive, if anything is.
func (s Start) whole(now time.Time) (from int64, ok bool) {
	switch {
	case s.All:
		return format.MinTimeMillis, true
	case !s.From.IsZero():
		return format.ClampTime(min(s.From.UnixMilli(), now.UnixMilli())), true
	}
	return 0, false
}

// ErrCursorOpen is wrapped by the error of opening or removing a cursor that is open.
var ErrCursorOpen = errors.New("the cursor is in use")

// ErrCursorClosed is the error of a cursor that was closed.
var ErrCursorClosed = errors.New("the cursor is closed")

// Cursor is the durable place of one reader of what arrives. What was read and not settled with Done comes again after a restart. While
// the journal has what is behind the place it is read in the order of arrival; what the journal gave up meanwhile is a
// gap, which is read from the archive.
//
// Read is for one goroutine at a time, all else for any.
type Cursor struct {
	a    *Archive
	name string

	// mu guards what follows. Inside it the archive's lock may be taken, not the other way round.
	mu     sync.Mutex
	opened bool
	// changed is closed, and made anew, when a waiting Read has to look again.
	changed chan struct{}
	rec     format.Cursor // as on disk, or about to be
	keep    time.Duration // what was settled lately stays in the journal
	settled []settledAt   // ascending; the first may be older than keep
	gaps    []gap         // in the order of their numbers

	// ahead is the place of the reader, delivered the first sequence that is not settled: rec.Next may be behind it
	// after the journal was trimmed.
	ahead     place
	delivered format.Sequence
	reads     uint64
	pending   []pendingRead
	tail      tailReader
	served    servedDay
	expired   uint64 // what the read at hand found expired
	waits     atomic.Bool
}

// place is how far a reader has come.
type place struct {
	next      format.Sequence
	stamp     format.JournalStamp
	whole     bool
	wholeFrom int64
	skips     []format.Skip // never changed, but made anew
	gap       uint32
	gapFrom   int64
}

func placeOf(r *format.Cursor) place {
	return place{
		next: r.Next, stamp: r.Stamp, whole: r.Whole, wholeFrom: r.WholeFromMillis, skips: r.Skips, gap: r.Gap, gapFrom: r.GapFromMillis,
	}
}

// settle makes the place that of the record, except that the journal may have been trimmed past it.
func (p *place) settle(r *format.Cursor) {
	if p.next > r.Next {
		r.Next, r.Stamp = p.next, p.stamp
	}
	r.Whole, r.WholeFromMillis, r.Skips = p.whole, p.wholeFrom, p.skips
	r.Gap, r.GapFromMillis = p.gap, p.gapFrom
}

// pendingRead is what was read and is not settled.
type pendingRead struct {
	read  uint64
	after place
	empty bool // nobody will settle it
	// expired samples were owed, and are not there any more.
	expired uint64
}

// cursorNameMax bounds the name of a cursor, in bytes.
const cursorNameMax = 128

// OpenCursor opens the cursor of the name, or makes one that begins at start. An error is ErrCursorOpen if it is open
// already, ErrStarting until the journal is read back.
func (a *Archive) OpenCursor(name string, start Start) (*Cursor, error) {
	if name == "" || len(name) > cursorNameMax || strings.ContainsAny(name, "\x00/") {
		return nil, fmt.Errorf("cursor name %q: want 1 to %d bytes without slash", name, cursorNameMax)
	}
	if err := a.StartError(); err != nil {
		return nil, err
	}
	t := &a.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.cursors[name]
	if c == nil {
		head, stamp := a.head()
		c = &Cursor{a: a, name: name, changed: make(chan struct{})}
		c.rec = format.Cursor{Next: head + 1, Stamp: stamp, CreatedMillis: a.o.Now().UnixMilli(), NextGap: 1}
		c.rec.WholeFromMillis, c.rec.Whole = start.whole(a.o.Now())
		c.rec.WholeSinceMillis = c.rec.CreatedMillis
		// With the lock held: the journal isn't trimmed before the cursor is durable.
		if err := c.save(true); err != nil {
			return nil, err
		}
		t.cursors[name] = c
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened {
		return nil, fmt.Errorf("open cursor %q: %w", name, ErrCursorOpen)
	}
	c.opened = true
	c.restart()
	return c, nil
}

// restart makes the reader begin at the durable place. Called with mu held.
func (c *Cursor) restart() {
	c.ahead, c.delivered, c.pending = placeOf(&c.rec), c.rec.Next, nil
	c.tail.forget()
	c.served = servedDay{}
	for i := range c.gaps {
		c.gaps[i].flying = 0
	}
	c.wake()
}

// wake makes a waiting Read look again. Called with mu held.
func (c *Cursor) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// save writes the record. Without sync it survives the end of the process, and after a power cut the place may be an
// older one. Called with mu held, or before anyone has the cursor.
func (c *Cursor) save(sync bool) error {
	var b rocks.Batch
	c.put(&b)
	return c.write(&b, sync)
}

func (c *Cursor) put(b *rocks.Batch) {
	b.Put(family(format.FamilyMeta), append([]byte(format.MetaCursorPrefix), c.name...), format.AppendCursor(nil, &c.rec))
}

func (c *Cursor) write(b *rocks.Batch, sync bool) error {
	if err := c.a.disk.check(); err != nil {
		return fmt.Errorf("save cursor %q: %w", c.name, err)
	}
	if err := c.a.db.Write(b, sync && !faultNoSync); err != nil {
		return fmt.Errorf("save cursor %q: %w", c.name, err)
	}
	return nil
}

// Close ends the reader's use of the cursor. The cursor stays.
func (c *Cursor) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = false
	c.restart()
	return nil
}

// Done says that all that was read up to the position is settled, and what became of it. A position from before a
// Rewind is ignored, its tally is not. An error leaves the place as it was; the next Done makes up for it.
func (c *Cursor) Done(p Position, t Tally) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rec.Sent, c.rec.Dropped = c.rec.Sent+t.Sent, c.rec.Dropped+t.Dropped
	c.rec.Refused, c.rec.Filtered = c.rec.Refused+t.Refused, c.rec.Filtered+t.Filtered
	n := 0
	for n < len(c.pending) && c.pending[n].read <= p.read {
		n++
	}
	return c.settle(n)
}

// settle settles the first n pending reads, and those behind them that gave nothing. Called with mu held.
func (c *Cursor) settle(n int) error {
	for n < len(c.pending) && c.pending[n].empty {
		n++
	}
	var b rocks.Batch
	before := c.gaps
	if n > 0 {
		for i := range c.pending[:n] {
			c.rec.Dropped += c.pending[i].expired
		}
		after := c.pending[n-1].after
		c.pending = slices.Delete(c.pending, 0, n)
		c.delivered = max(c.delivered, after.next)
		c.noteSettled()
		after.settle(&c.rec)
	}
	c.dropSettledGaps(&b)
	c.put(&b)
	err := c.write(&b, false)
	if err != nil {
		c.gaps = before // They are settled, and removed the next time.
	}
	return err
}

// Totals are what the cursor's reader said with Done since the cursor was made.
func (c *Cursor) Totals() Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Tally{Sent: c.rec.Sent, Dropped: c.rec.Dropped, Refused: c.rec.Refused, Filtered: c.rec.Filtered}
}

// Lag tells how far what is settled is behind what arrived.
func (c *Cursor) Lag() (Lag, error) {
	head, stamp := c.a.head()
	c.mu.Lock()
	next, done := c.rec.Next, c.rec.Stamp
	var l Lag
	days := map[format.Day]struct{}{}
	arrived := int64(math.MaxInt64)
	for i := range c.gaps {
		for day, n := range c.gaps[i].days {
			days[day] = struct{}{}
			l.Samples += n
		}
		arrived = min(arrived, c.gaps[i].arrived)
	}
	l.Whole = c.rec.Whole
	if l.Whole {
		l.WholeFrom = time.UnixMilli(c.rec.WholeFromMillis)
	}
	c.mu.Unlock()
	l.GapDays = len(days)
	if arrived != math.MaxInt64 {
		l.Since = time.UnixMilli(arrived)
	}
	if next > head {
		return l, nil
	}
	if stamp.Samples > done.Samples {
		l.Samples += stamp.Samples - done.Samples
	}
	if stamp.Bytes > done.Bytes {
		l.Bytes = stamp.Bytes - done.Bytes
	}
	if !l.Since.IsZero() {
		return l, nil
	}
	since, ok, err := c.a.arrivedAt(next)
	if ok {
		l.Since = since
	}
	return l, err
}

// arrivedAt is when the first record of the journal at or behind the sequence arrived.
func (a *Archive) arrivedAt(seq format.Sequence) (time.Time, bool, error) {
	it := a.db.NewIterator(family(format.FamilyJournal), rocks.IterOptions{Lower: format.AppendUint64(nil, uint64(seq))})
	defer it.Close()
	it.SeekToFirst()
	if !it.Valid() {
		return time.Time{}, false, it.Err()
	}
	stamp, err := format.RecordStamp(it.Value())
	return time.UnixMilli(stamp.ArrivedMillis), err == nil, err
}

// Labels sets out[i] to the labels of refs[i]. They are empty if the series is gone, with all its samples.
func (c *Cursor) Labels(refs []storage.SeriesRef, out []labels.Labels) error {
	found, err := c.a.cat.labelsOf(refs)
	if err == nil {
		copy(out, found)
		return nil
	}
	for i := range refs {
		one, err := c.a.cat.labelsOf(refs[i : i+1])
		switch {
		case err == nil:
			out[i] = one[0]
		case c.a.seriesGone(refs[i]):
			out[i] = labels.EmptyLabels()
		default:
			return err
		}
	}
	return nil
}

// seriesGone tells that a ref that was handed out has no record any more.
func (a *Archive) seriesGone(ref format.Ref) bool {
	_, ok, err := a.db.Get(family(format.FamilySeries), format.AppendUint64(nil, uint64(ref)), nil)
	return err == nil && !ok
}

// metadataSuffixes are what the series of a family may add to its name.
var metadataSuffixes = []string{"_bucket", "_count", "_sum", "_total", "_created", "_info"}

// Metadata is what is known of a metric or of the family that it belongs to by its name; empty if nothing is.
func (c *Cursor) Metadata(metric string) metadata.Metadata {
	m, ok := c.a.MetadataOf(metric)
	for i := 0; !ok && i < len(metadataSuffixes); i++ {
		if base, cut := strings.CutSuffix(metric, metadataSuffixes[i]); cut {
			m, ok = c.a.MetadataOf(base)
		}
	}
	return m
}

// Incarnation tells this archive from a copy of it that was restored and written to: 32 hexadecimal digits.
func (c *Cursor) Incarnation() string { return hex.EncodeToString(c.a.ack.incarnation[:]) }

// head is the last sequence that is durable and its stamp.
func (a *Archive) head() (format.Sequence, format.JournalStamp) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(a.durable, a.found), a.stamp
}

// behind returns a channel that is closed when something has become durable behind the sequence: it is closed already if it
// has.
func (a *Archive) behind(seq format.Sequence) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case max(a.durable, a.found) > seq:
		return closedChannel
	case a.writing != nil:
		return a.writing.done
	}
	return a.group.done
}

var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Read fills into with what comes next. It waits until there is something, or the context ends, and then returns its error. What it
// gives is bounded: about 64 Ki samples, or one commit if that is more.
func (c *Cursor) Read(ctx context.Context, into *Arrivals) error {
	for {
		into.Reset()
		if err := ctx.Err(); err != nil {
			return err
		}
		wait, changed, err := c.read(ctx, into)
		if err != nil {
			return fmt.Errorf("read what output %q is to have: %w", c.name, err)
		}
		if !into.empty() {
			return nil
		}
		if wait == nil {
			continue
		}
		if err := c.wait(ctx, wait, changed); err != nil {
			return err
		}
	}
}

func (c *Cursor) wait(ctx context.Context, wait, changed <-chan struct{}) error {
	c.waits.Store(true)
	defer c.waits.Store(false)
	select {
	case <-wait:
	case <-changed:
	case <-c.a.stop:
		return errShutdown
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// read makes one step: of what is owed by time, of a gap, or of the journal. A channel means that there is nothing until it is
// closed.
func (c *Cursor) read(ctx context.Context, into *Arrivals) (wait, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opened {
		return nil, nil, ErrCursorClosed
	}
	if c.a.closing.Load() {
		return nil, nil, errShutdown
	}
	before := c.ahead
	c.expired = 0
	switch {
	case c.ahead.whole:
		err = c.readWhole(ctx, into)
	case c.nextGap() != nil:
		err = c.readGap(ctx, into, c.nextGap())
	default:
		wait, err = c.readJournal(into)
	}
	if err != nil {
		// A stretch that was begun is read from its begin: what of it was on its way comes again.
		c.ahead = before
		c.tail.forget()
		c.served = servedDay{}
		return nil, nil, err
	}
	if wait != nil {
		return wait, c.changed, nil
	}
	c.reads++
	into.Position = Position{read: c.reads}
	if n := len(c.pending); n > 0 && into.empty() {
		// It is settled with the one before it.
		c.pending[n-1].after = c.ahead
		c.pending[n-1].expired += c.expired
		return nil, nil, nil
	}
	c.pending = append(c.pending, pendingRead{read: c.reads, after: c.ahead, empty: into.empty(), expired: c.expired})
	if c.pending[0].empty {
		err = c.settle(0)
	}
	return nil, nil, err
}
