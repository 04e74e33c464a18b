package archive

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"varve/archive/format"
	"varve/rocks"
)

// upkeep is the state of the background work. It is done by one goroutine at a
// time: the loop, or a caller of Maintain.
type upkeep struct {
	mu       sync.Mutex
	replayed atomic.Bool // what was replayed is in durable runs
	// replay is set while a full disk keeps what was replayed from becoming runs.
	replay atomic.Pointer[replayer]

	indexFlushed time.Time
	marked       time.Time // when the watermarks were last written
	cutMark      format.Sequence
	indexMark    format.Sequence
	keptMark     format.Sequence
	journalMark  atomic.Uint64
	dropped      int // slots of pages that were dropped since the table of keys was cleaned
	lastReason   string

	key, value []byte // scratch of cutPage, guarded by the archive's lock
	joiner     joiner // likewise
}

const (
	maintainEvery = time.Second
	// markEvery is how often watermarks are written: what a start-up reads in vain at most.
	markEvery = 10 * time.Second
	// pageIdleMax is how long a page without samples stays in memory.
	pageIdleMax = time.Hour
	// notesMax is the number of noted days that makes the index be flushed early.
	notesMax = 1 << 20
)

func (a *Archive) maintainLoop() {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		select {
		case <-a.stop:
			return
		case <-tick.C:
			if err := a.Maintain(false); err != nil && a.o.Events.Maintenance != nil {
				a.o.Events.Maintenance(err)
			}
		}
	}
}

// syncLoop makes durable what was acknowledged before it was, every SyncInterval.
func (a *Archive) syncLoop() {
	tick := time.NewTicker(a.o.SyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-a.stop:
			return
		case <-tick.C:
			if err := a.db.SyncWAL(); err != nil {
				a.state.failed(err)
			}
		}
	}
}

// Maintain does what is due: cuts open runs, flushes the index, writes
// watermarks, trims the journal, forgets what every reader finds on disk. With all
// it cuts and flushes everything, so that nothing is left in the journal alone. The
// archive calls it every second unless Options.Manual is set.
func (a *Archive) Maintain(all bool) error {
	a.upkeep.mu.Lock()
	defer a.upkeep.mu.Unlock()
	a.tellHealth()
	if a.state.broken.Load() && a.probe() != nil {
		return nil
	}
	if err := a.finishReplay(); err != nil {
		return err
	}
	return errors.Join(
		a.cutDue(all),
		a.flushIndex(all),
		a.writeWatermarks(all),
		a.forget(),
		a.acknowledge(),
		a.keepReserve(),
	)
}

// tellHealth reports a change between taking writes and not.
func (a *Archive) tellHealth() {
	reason, err := a.ReadOnly()
	if reason != a.upkeep.lastReason && a.o.Events.ReadOnly != nil {
		a.o.Events.ReadOnly(reason, err)
	}
	a.upkeep.lastReason = reason
}

// cutDue cuts the pages whose runs are old or large enough, the oldest first when
// all runs together take too much memory, and waits for their commit.
func (a *Archive) cutDue(all bool) error {
	now := a.o.Now().UnixMilli()
	var due, open []*page
	total, uncut := int64(0), int64(0)
	a.live.each(func(p *page) {
		p.mu.Lock()
		defer p.mu.Unlock()
		total += int64(p.bytes())
		if p.since != 0 {
			uncut += int64(p.openBytes())
		}
		switch {
		case p.since == 0:
		case all || p.due(now, a.o.RunAgeMax.Milliseconds()):
			due = append(due, p)
		default:
			open = append(open, p)
		}
	})
	a.live.bytes.Store(total)
	// What was cut and waits for readers is not made less by cutting more.
	if uncut > a.o.RunBytesMax {
		due = append(due, oldestPages(open, len(open)/4+1)...)
	}
	return a.cutPages(due)
}

// cutPages cuts pages and waits for the commit. Called with upkeep.mu held.
func (a *Archive) cutPages(due []*page) error {
	for len(due) > 0 {
		n := min(len(due), cutPagesPerCommit)
		for _, p := range due[:n] {
			a.mu.Lock()
			g := a.group
			mark := g.sequence
			if !a.upkeep.replayed.Load() {
				// Older samples of the page may still be on their way through the replay.
				mark = 0
			}
			a.cutPage(a.live, p, g, g.sequence, mark)
			a.mu.Unlock()
		}
		if err := a.flushGroup(); err != nil {
			return fmt.Errorf("cut runs: %w", err)
		}
		due = due[n:]
	}
	return nil
}

// runPiecesMax is the number of coded pieces a series, on average over a page,
// that makes its runs be cut: 110 samples and a tail.
const runPiecesMax = 5

// due tells whether the page's runs are to be cut. Called with mu held. Pages that
// began together fall due over half of ageMax, so that cuts never come in a burst.
func (p *page) due(now, ageMax int64) bool {
	if len(p.log.pieces) >= runPiecesMax*max(len(p.slots), 16) {
		return true
	}
	if p.opened > now {
		p.opened = now // The clock was set back.
	}
	spread := int64(uint32(p.first>>pageBits)*2654435761>>16) * (ageMax / 2) >> 16
	return now-p.opened >= ageMax/2+spread
}

// oldestPages returns the n pages whose first uncut arrival is the oldest.
func oldestPages(pages []*page, n int) []*page {
	since := make(map[*page]format.Sequence, len(pages))
	for _, p := range pages {
		p.mu.Lock()
		since[p] = p.since
		p.mu.Unlock()
	}
	slices.SortFunc(pages, func(x, y *page) int { return cmp.Compare(since[x], since[y]) })
	return pages[:min(n, len(pages))]
}

// flushIndex brings the bitmaps in memory to disk when it is time.
func (a *Archive) flushIndex(all bool) error {
	now := a.o.Now()
	u := &a.upkeep
	a.index.noteMu.Lock()
	notes := len(a.index.notes)
	a.index.noteMu.Unlock()
	if !all && notes < notesMax && now.Sub(u.indexFlushed) < a.o.IndexFlushInterval {
		return nil
	}
	if !u.replayed.Load() {
		return nil
	}
	a.mu.Lock()
	mark := a.group.sequence
	a.mu.Unlock()
	p, err := a.index.swap()
	if err != nil {
		return fmt.Errorf("flush index: %w", err)
	}
	// The series that the bitmaps name must be durable first.
	if err := a.flushGroup(); err != nil {
		a.index.putBack(p)
		return fmt.Errorf("flush index: %w", err)
	}
	if err := a.writeIndex(p, mark); err != nil {
		a.index.putBack(p)
		return fmt.Errorf("flush index: %w", err)
	}
	a.index.settle(p, a.views.advance())
	u.indexFlushed, u.indexMark = now, mark
	return nil
}

// writeIndex writes the containers, and with the last of them the watermark.
func (a *Archive) writeIndex(p *postings, mark format.Sequence) error {
	var b rocks.Batch
	writes := p.writes()
	for len(writes) > flushKeysMax {
		if err := a.index.merge(&b, writes[:flushKeysMax]); err != nil {
			return err
		}
		if err := a.writeBatch(&b); err != nil {
			return err
		}
		writes = writes[flushKeysMax:]
	}
	if err := a.index.merge(&b, writes); err != nil {
		return err
	}
	b.Put(family(format.FamilyMeta), []byte(format.MetaIndex), format.AppendUint64(nil, uint64(mark)))
	return a.writeBatch(&b)
}

// writeBatch writes a batch of background work and empties it.
func (a *Archive) writeBatch(b *rocks.Batch) error {
	if err := a.disk.check(); err != nil {
		return err
	}
	err := a.db.Write(b, !faultNoSync)
	b.Reset()
	if err != nil {
		a.state.failed(err)
	}
	return err
}

// writeWatermarks says durably from where a start-up must read the journal, and
// trims what lies before.
func (a *Archive) writeWatermarks(all bool) error {
	u := &a.upkeep
	now := a.o.Now()
	if !u.replayed.Load() || !all && now.Sub(u.marked) < min(markEvery, a.o.RunAgeMax) {
		return nil
	}
	u.marked = now
	cut := max(a.firstUncut(), u.cutMark)
	covered := min(cut, u.indexMark)
	if all || a.cat.leaving.some.Load() {
		// Without arrivals nothing else moves the journal on, for which series that leave wait.
		a.endCovered(covered)
	}
	journal := max(a.edgeBefore(covered), format.Sequence(u.journalMark.Load()))
	kept, err := a.keepJournal(journal)
	if err != nil {
		return err
	}
	if cut == u.cutMark && uint64(journal) == u.journalMark.Load() && kept == u.keptMark {
		return nil
	}
	var b rocks.Batch
	a.trimJournal(&b, kept)
	b.Put(family(format.FamilyMeta), []byte(format.MetaCut), format.AppendUint64(nil, uint64(cut)))
	if journal > 0 {
		b.Put(family(format.FamilyMeta), []byte(format.MetaJournal), format.AppendUint64(nil, uint64(journal)))
	}
	if err := a.writeBatch(&b); err != nil {
		return fmt.Errorf("write watermarks: %w", err)
	}
	u.cutMark, u.keptMark = cut, kept
	u.journalMark.Store(uint64(journal))
	if kept == 0 {
		return nil
	}
	return a.db.DeleteFilesInRange(family(format.FamilyJournal), nil, format.AppendUint64(nil, uint64(kept)))
}

// endCovered ends the journal's segment if all of the journal lies before the mark, so
// that nothing of it need be kept.
func (a *Archive) endCovered(mark format.Sequence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.committing || len(a.group.record) > 0 || a.durable >= mark {
		return
	}
	a.endSegment()
	a.edges = append(a.edges, mark)
}

// firstUncut is the first sequence that is not wholly in durable runs.
func (a *Archive) firstUncut() format.Sequence {
	a.mu.Lock()
	first := a.group.sequence
	a.mu.Unlock()
	a.live.each(func(p *page) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.since != 0 {
			first = min(first, p.since)
		}
		for _, m := range p.moved {
			if m.epoch == 0 {
				first = min(first, m.since)
			}
		}
	})
	return first
}

// edgeBefore is the last journal segment's begin at or before the mark, 0 without
// one. Edges before it are forgotten.
func (a *Archive) edgeBefore(mark format.Sequence) format.Sequence {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for n < len(a.edges) && a.edges[n] <= mark {
		n++
	}
	if n == 0 {
		return 0
	}
	a.edges = a.edges[n-1:]
	return a.edges[0]
}

// forget drops from memory what every reader finds on disk, and pages that have been idle for long.
func (a *Archive) forget() error {
	oldest := a.views.oldest()
	a.index.release(oldest)
	a.mu.Lock()
	settling := a.settling
	a.settling = nil
	a.mu.Unlock()
	var later []movedPage
	for _, m := range settling {
		m.page.mu.Lock()
		m.page.release(oldest)
		if m.runs.epoch > oldest {
			later = append(later, m)
		}
		m.page.mu.Unlock()
	}
	a.mu.Lock()
	a.settling = append(later, a.settling...)
	done := len(a.settling) == 0
	a.mu.Unlock()
	if r := a.replayed.Load(); r != nil && done && a.upkeep.replayed.Load() && r.empty() {
		a.replayed.Store(nil)
	}
	a.dropIdlePages()
	return nil
}

// empty tells whether no page holds samples.
func (o *openRuns) empty() bool {
	empty := true
	o.each(func(p *page) {
		p.mu.Lock()
		empty = empty && p.since == 0 && len(p.moved) == 0
		p.mu.Unlock()
	})
	return empty
}

// dropIdlePages takes pages out of memory that no writer has touched for long, and
// now and then the keys of their series out of the table.
func (a *Archive) dropIdlePages() {
	now := a.o.Now().UnixMilli()
	idle := func(p *page) bool {
		if touched := p.touched.Load(); touched > now {
			p.touched.CompareAndSwap(touched, now) // The clock was set back.
		}
		return now-p.touched.Load() > pageIdleMax.Milliseconds() && p.since == 0 && len(p.moved) == 0
	}
	var pages []*page
	a.live.each(func(p *page) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if idle(p) {
			pages = append(pages, p)
		}
	})
	for _, p := range pages {
		a.mu.Lock()
		p.mu.Lock()
		// A page that comes back knows no previous values, so the journal must not lean
		// on those of the one that goes: the segment ends with it.
		if len(a.group.record) == 0 && a.live.drop(p, func() bool { return idle(p) }) {
			a.upkeep.dropped += len(p.slots)
			a.endSegment()
		}
		p.mu.Unlock()
		a.mu.Unlock()
	}
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	if a.upkeep.dropped > a.cat.keys.used/2 && a.upkeep.dropped > keyTableMin {
		a.upkeep.dropped = 0
		a.cat.keys.shrink(func(ref format.Ref) bool { return a.live.page(ref) != nil || a.cat.isRecent(ref) })
	}
}

// acknowledge writes beside the database how far it is durable.
func (a *Archive) acknowledge() error {
	a.mu.Lock()
	durable := a.durable
	a.mu.Unlock()
	if a.o.SyncInterval > 0 {
		if err := a.db.SyncWAL(); err != nil {
			a.state.failed(err)
			return err
		}
	}
	return a.ack.write(uint64(durable))
}
