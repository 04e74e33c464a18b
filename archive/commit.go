package archive

import (
	"errors"
	"time"

	"varve/archive/format"
	"varve/rocks"
)

// group gathers what one commit makes durable. Whoever joins a group waits for
// its end; one of those who wait leads: it writes the group as ONE batch with fsync.
//
// A group that fails takes the group that was gathering meanwhile with it, because
// the values of that one lean on those of the failed one. Their samples are lost to
// the journal, and their senders hear of it; runs and series records they carried
// travel with the next commit.
type group struct {
	sequence format.Sequence
	record   []byte      // journal record without checksum, empty while nothing arrived
	batch    rocks.Batch // runs, exemplars, metadata
	moved    []movedPage
	joined   int
	samples  int
	stamp    format.JournalStamp // of the record
	// last is called, with the archive's lock held, when nothing can join the group any more.
	last []func()

	// awaited is how many have to have joined for complete to be closed, 0 while no leader waits for them.
	awaited   int
	complete  chan struct{}
	gathering *gathering

	done chan struct{} // closed when the group's fate is known
	lead chan struct{} // one of those who wait is asked to lead
	err  error         // set before done is closed
}

type movedPage struct {
	page *page
	runs *movedRuns
}

func newGroup(seq format.Sequence) *group {
	return &group{sequence: seq, gathering: &gathering{after: newTimer}, done: make(chan struct{}), lead: make(chan struct{}, 1)}
}

// groupBytesKept bounds the buffers that a finished group leaves to the next one.
const groupBytesKept = 4 << 20

// nextGroup begins a group with the buffers of one that is durable, if there is one.
// Called with the archive's lock held.
func (a *Archive) nextGroup(seq format.Sequence) *group {
	g := newGroup(seq)
	g.gathering = a.group.gathering
	if s := a.spare; s != nil {
		g.record, g.batch = s.record[:0], s.batch
		a.spare = nil
	}
	return g
}

// recycle keeps the buffers of a durable group. Called with the archive's lock held.
func (a *Archive) recycle(g *group) {
	if cap(g.record)+g.batch.Bytes() > groupBytesKept {
		return
	}
	g.batch.Reset()
	a.spare = &group{record: g.record, batch: g.batch}
	g.record, g.batch = nil, rocks.Batch{}
}

// begin starts the group's journal record. Called with the archive's lock held.
func (a *Archive) begin(g *group) {
	if len(g.record) > 0 {
		return
	}
	first := a.segmentBytes == 0
	g.record = format.BeginJournal(g.record, first)
	if first {
		a.edges = append(a.edges, g.sequence)
		a.segmentAt = a.o.Now()
	}
}

// Journal segments end after so many bytes or so long: what a start-up reads in
// vain at most, and how often every series' value is written in full.
const (
	segmentBytesMax = 16 << 20
	segmentAgeMax   = 5 * time.Minute
)

// endSegment makes the next record begin a segment. Called with the archive's lock held.
func (a *Archive) endSegment() {
	a.segment++
	a.segmentBytes = 0
}

// join makes the caller wait for the group's end. Called with the archive's lock
// held, which it gives back.
func (a *Archive) join(g *group) error {
	if g.joined++; g.joined == g.awaited {
		close(g.complete)
	}
	lead := !a.committing
	if lead {
		a.committing = true
	}
	a.mu.Unlock()
	if faultAckEarly {
		go a.finish(g, lead)
		return nil
	}
	return a.finish(g, lead)
}

func (a *Archive) finish(g *group, lead bool) error {
	if !lead {
		select {
		case <-g.done:
			return g.err
		case <-g.lead:
		}
	}
	a.commit()
	return g.err
}

// commit writes the gathering group and hands the lead on. Called by the leader.
func (a *Archive) commit() {
	a.mu.Lock()
	a.gather()
	g := a.group
	a.group = a.nextGroup(g.sequence + 1)
	for _, f := range g.last {
		f()
	}
	if len(g.record) > 0 {
		a.endRecord(g)
		n := len(g.record)
		if a.segmentBytes += n; a.segmentBytes > a.segmentBytesMax || a.o.Now().Sub(a.segmentAt) > segmentAgeMax {
			a.endSegment()
		}
	}
	carried := a.carried
	a.carried = nil
	a.writing = g
	a.mu.Unlock()

	fresh := a.cat.take()
	started := a.o.Now()
	a.commitStarted.Store(started.UnixNano())
	err := a.writeGroup(g, carried, fresh)
	a.commitStarted.Store(0)
	took := a.o.Now().Sub(started)
	a.m.commitSeconds.Observe(took.Seconds())

	a.mu.Lock()
	a.writing = nil
	a.group.gathering.ended(g.joined+a.group.joined, took)
	if err != nil {
		a.failed(g, carried, fresh, err)
	} else {
		a.committed(g, fresh, carried)
		a.recycle(g)
	}
	close(g.done)
	if next := a.group; next.joined > 0 {
		next.lead <- struct{}{}
	} else {
		a.committing = false
	}
	a.mu.Unlock()
}

// endRecord ends the group's journal record, and notes the edge if it begins a segment. Called with the archive's lock held.
func (a *Archive) endRecord(g *group) {
	g.stamp = a.stamp
	g.stamp.ArrivedMillis = a.o.Now().UnixMilli()
	if format.BeginsSegment(g.record) {
		name := format.AppendUint64([]byte(format.MetaEdgePrefix), uint64(g.sequence))
		g.batch.Put(family(format.FamilyMeta), name, format.AppendStamp(nil, g.stamp))
	}
	g.stamp.Samples += uint64(g.samples)
	g.stamp.Bytes += uint64(len(g.record) + format.JournalTrailer)
	g.record = format.EndJournal(g.record, g.sequence, g.stamp)
}

// carriedRecords are what a failed commit leaves to the next one.
type carriedRecords struct {
	fresh *newRecords
	batch rocks.Batch
	moved []movedPage
}

func (a *Archive) writeGroup(g *group, carried []*carriedRecords, fresh *newRecords) error {
	b := &a.out
	b.Reset()
	for _, c := range carried {
		if c.fresh != nil {
			b.Append(&c.fresh.batch)
		}
		b.Append(&c.batch)
	}
	if fresh != nil && !faultIndexApart {
		b.Append(&fresh.batch)
	}
	b.Append(&g.batch)
	if len(g.record) > 0 {
		b.Put(family(format.FamilyJournal), format.AppendUint64(nil, uint64(g.sequence)), g.record)
	}
	if b.Len() == 0 {
		return nil
	}
	if err := a.disk.checkBefore(b.Bytes(), a.o.Now()); err != nil {
		return err
	}
	err := a.db.Write(b, a.o.SyncInterval == 0 && !faultNoSync)
	if err == nil && faultIndexApart && fresh != nil {
		// The seeded fault: the catalogue follows the data that names it.
		time.Sleep(20 * time.Millisecond)
		err = a.db.Write(&fresh.batch, true)
	}
	if err == nil {
		a.m.commits.Inc()
		a.m.commitSamples.Observe(float64(g.samples))
		a.m.commitBytes.Observe(float64(b.Bytes()))
	}
	return err
}

// committed takes note of a group that is durable. Called with the lock held.
func (a *Archive) committed(g *group, fresh *newRecords, carried []*carriedRecords) {
	if len(g.record) > 0 {
		a.durable = g.sequence
		if format.BeginsSegment(g.record) {
			before := a.stamp
			before.ArrivedMillis = g.stamp.ArrivedMillis
			a.newEdges = append(a.newEdges, journalEdge{g.sequence, before})
		}
		a.stamp = g.stamp
	}
	if fresh != nil {
		a.cat.settle(fresh)
	}
	moved := g.moved
	for _, c := range carried {
		if c.fresh != nil {
			a.cat.settle(c.fresh)
		}
		moved = append(moved, c.moved...)
	}
	if len(moved) > 0 {
		epoch := a.views.advance()
		for _, m := range moved {
			m.page.mu.Lock()
			m.runs.epoch = epoch
			m.page.mu.Unlock()
		}
		a.settling = append(a.settling, moved...)
	}
	if len(g.record) > 0 || g.batch.Len() > 0 || fresh != nil || len(carried) > 0 {
		a.state.recovered()
	}
}

// failed takes note of a group that is not durable, and ends the one that gathers. Called with the lock held.
func (a *Archive) failed(g *group, carried []*carriedRecords, fresh *newRecords, err error) {
	a.m.commitFailures.Inc()
	a.state.failed(err)
	g.err = a.state.unavailable(err)
	a.carried = append(carried, &carriedRecords{fresh: fresh, batch: g.batch, moved: g.moved})
	next := a.group
	if len(next.record) > 0 || next.batch.Len() > 0 {
		a.carried = append(a.carried, &carriedRecords{batch: next.batch, moved: next.moved})
		a.group = newGroup(next.sequence + 1)
		a.group.gathering = next.gathering
		next.err = g.err
		close(next.done)
	}
	a.endSegment()
}

// flushGroup commits what has gathered, if anything, and waits for it.
func (a *Archive) flushGroup() error {
	a.mu.Lock()
	return a.join(a.group)
}

var errShutdown = errors.New("the archive is closing")
