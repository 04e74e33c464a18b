package archive

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// replay reads the journal back: what lies behind the lower of the two watermarks
// goes to runs and index again. It has open runs of its own, which are cut to disk
// at the end, so that senders need not wait: what arrives meanwhile has higher
// sequences and wins. last is the last record that the start-up found.
func (a *Archive) replay(last format.Sequence) {
	began := a.o.Now()
	r := replayer{a: a, runs: a.replayed.Load(), last: last, next: last + 1}
	err := r.run()
	if errors.Is(err, errShutdown) {
		err = fmt.Errorf("%w while the journal was read back", errShutdown)
	}
	if err != nil {
		err = fmt.Errorf("read the journal back: %w", err)
	} else {
		if a.upkeep.replay.Load() == nil {
			a.upkeep.replayed.Store(true)
		}
		if a.o.Events.Recovered != nil {
			a.o.Events.Recovered(r.records, r.samples, a.o.Now().Sub(began))
		}
	}
	a.startErr = err
	close(a.started)
	if err != nil && a.o.Events.Damaged != nil && !errors.Is(err, errShutdown) {
		a.o.Events.Damaged(err)
	}
}

type replayer struct {
	a       *Archive
	runs    *openRuns
	last    format.Sequence
	next    format.Sequence // sequence of the next commit of runs
	segment uint32
	records int
	samples int
	read    format.Sequence // the last record that was read
	journal format.Journal
	// marks are the sequences before which the samples of a page are in runs.
	marks map[format.Ref]format.Sequence
	// index is the first sequence whose samples may be missing in the index.
	index format.Sequence
}

func (r *replayer) run() error {
	cut, _, err := r.a.meta(format.MetaCut)
	if err != nil {
		return err
	}
	index, _, err := r.a.meta(format.MetaIndex)
	if err != nil {
		return err
	}
	from, _, err := r.a.meta(format.MetaJournal)
	if err != nil {
		return err
	}
	need := format.Sequence(min(cut, index))
	r.index = format.Sequence(index)
	if err := r.readMarks(); err != nil {
		return err
	}
	it := r.a.db.NewIterator(family(format.FamilyJournal), rocks.IterOptions{
		Lower: format.AppendUint64(nil, from), Upper: format.AppendUint64(nil, uint64(r.last)+1), NoFillCache: true, ReadaheadBytes: 2 << 20,
	})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		seq, err := format.ParseUint64(it.Key())
		if err != nil {
			return err
		}
		if err := r.record(format.Sequence(seq), it.Value(), need); err != nil {
			return err
		}
		if r.runs.bytes.Load() > r.a.o.RunBytesMax/2 && r.a.upkeep.replay.Load() == nil {
			if err := r.cutOrWait(); err != nil {
				return err
			}
			// What was cut stays for readers of today, of whom there are none yet.
			r.runs.each(func(p *page) {
				p.mu.Lock()
				p.release(math.MaxUint64)
				p.mu.Unlock()
			})
			r.runs.bytes.Store(0)
		}
		if r.a.closing.Load() {
			return errShutdown
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	return errors.Join(r.cutOrWait(), r.preload())
}

// cutOrWait is cut, except that a disk which is full or too slow is no error: queries
// are answered from memory, and the archive cuts when it takes writes again.
func (r *replayer) cutOrWait() error {
	err := r.cut()
	if errors.Is(err, rocks.ErrNoSpace) || errors.Is(err, rocks.ErrStalled) {
		r.a.upkeep.replay.Store(r)
		return nil
	}
	return err
}

// finishReplay cuts what a full disk left of a replay. Called by the background work,
// after the replay has ended.
func (a *Archive) finishReplay() error {
	r := a.upkeep.replay.Load()
	if r == nil || a.StartError() != nil {
		return nil
	}
	if err := r.cut(); err != nil {
		return fmt.Errorf("finish reading the journal back: %w", err)
	}
	a.upkeep.replay.Store(nil)
	a.upkeep.replayed.Store(true)
	return nil
}

// readMarks reads how far each page was cut on its own.
func (r *replayer) readMarks() error {
	r.marks = map[format.Ref]format.Sequence{}
	prefix := []byte(format.MetaPagePrefix)
	it := r.a.db.NewIterator(family(format.FamilyMeta), rocks.IterOptions{Lower: prefix, Upper: format.PrefixEnd(prefix)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		first, err := format.ParseUint64(it.Key()[len(prefix):])
		if err != nil {
			return fmt.Errorf("page record: %w", err)
		}
		mark, err := format.ParseUint64(it.Value())
		if err != nil {
			return fmt.Errorf("page record: %w", err)
		}
		r.marks[format.Ref(first)] = format.Sequence(mark)
	}
	return it.Err()
}

// cutAlready tells whether the samples of a record are in the runs of the ref's page. They
// go to the index again unless that has them: it may have lost them since, with the samples, to a delete.
func (r *replayer) cutAlready(ref format.Ref, seq format.Sequence) bool {
	return seq < r.marks[ref&^(pageSize-1)]
}

// record reads one record. Records before need are read only because later values lean on them.
func (r *replayer) record(seq format.Sequence, value []byte, need format.Sequence) error {
	j := &r.journal
	if err := j.Open(seq, value); err != nil {
		return err
	}
	if j.Segment {
		r.segment++
	}
	if r.segment == 0 {
		if seq >= need {
			return fmt.Errorf("%w: journal begins with record %d inside a segment", ErrCorrupt, seq)
		}
		return nil
	}
	r.records++
	r.read = seq
	for {
		kind, ok, err := j.Next()
		if err != nil {
			return fmt.Errorf("journal record %d: %w", seq, err)
		}
		if !ok {
			return nil
		}
		if err := r.section(kind, seq, seq >= need); err != nil {
			return fmt.Errorf("journal record %d: %w", seq, err)
		}
	}
}

func (r *replayer) section(kind format.SectionKind, seq format.Sequence, wanted bool) error {
	j := &r.journal
	switch kind {
	case format.SectionFloats, format.SectionFloatsWithStart:
		return r.floats(&j.Floats, seq, wanted)
	case format.SectionHistogram, format.SectionFloatHistogram:
		if !wanted {
			return nil
		}
		if _, err := r.runs.ensure(j.Ref); err != nil {
			return err
		}
		w := r.writer(seq)
		if r.cutAlready(j.Ref, seq) {
			if s := w.series(j.Ref); seq >= r.index {
				w.noteDay(s, j.Ref, j.TimeMillis)
			}
			w.done()
			return nil
		}
		r.samples++
		err := w.putHistogram(j.Ref, &arrival.Histogram{TimeMillis: j.TimeMillis, StartMillis: j.Start, Int: j.Int, Float: j.Float})
		w.done()
		return err
	}
	// Exemplars and metadata went to their families with the record itself.
	return nil
}

func (r *replayer) writer(seq format.Sequence) runWriter {
	return runWriter{a: r.a, runs: r.runs, segment: r.segment, sequence: seq, now: r.a.o.Now().UnixMilli()}
}

func (r *replayer) floats(f *format.Floats, seq format.Sequence, wanted bool) error {
	var known *page
	for _, ref := range f.Refs {
		if known != nil && ref-known.first < pageSize && known.exists(ref) {
			continue
		}
		p, err := r.runs.ensure(ref)
		if err != nil {
			return err
		}
		known = p
	}
	w := r.writer(seq)
	defer w.done()
	for i, ref := range f.Refs {
		s := w.series(ref)
		v := f.XORs[i] ^ s.last
		s.last = v
		if !wanted {
			continue
		}
		if r.cutAlready(ref, seq) {
			if seq >= r.index {
				w.noteDay(s, ref, f.Times[i])
			}
			continue
		}
		r.samples++
		if len(f.Starts) > 0 && f.Starts[i] != 0 {
			w.putStarted(s, ref, f.Times[i], f.Starts[i], v)
			continue
		}
		w.put(s, ref, f.Times[i], v)
	}
	return nil
}

// cutPagesPerCommit bounds a commit of replayed runs: 64 pages are up to 16,384 series.
const cutPagesPerCommit = 64

// cut brings all replayed runs to disk.
func (r *replayer) cut() error {
	var pages []*page
	r.runs.each(func(p *page) { pages = append(pages, p) })
	for len(pages) > 0 {
		n := min(len(pages), cutPagesPerCommit)
		if r.next > r.last+replaySequences-1 {
			return fmt.Errorf("the journal is too long to be read back in %d commits", replaySequences)
		}
		r.a.mu.Lock()
		g := r.a.group
		for _, p := range pages[:n] {
			// A page that a delete has cut may be marked behind the last record, and stays so.
			r.a.cutPage(r.runs, p, g, r.next, max(r.read+1, r.marks[p.first]))
		}
		r.next++
		if err := r.a.join(g); err != nil {
			return err
		}
		pages = pages[n:]
	}
	return nil
}

// preload brings the series that were active lately (on the last two days, and in
// what was replayed) to memory, slots and keys, so that the first requests after a
// start cost hardly more than any other. Errors are left to who needs the series.
func (r *replayer) preload() error {
	a := r.a
	today := format.DayOf(format.ClampTime(a.o.Now().UnixMilli()))
	refs, err := a.index.active(nil, today-1, today+1)
	if err != nil {
		return err
	}
	r.runs.each(func(p *page) {
		for i := range format.Ref(pageSize) {
			if p.exists(p.first + i) {
				refs.Add(uint32(p.first + i))
			}
		}
	})
	now := a.o.Now().UnixMilli()
	it := refs.Iterator()
	for it.HasNext() && !a.closing.Load() {
		first := it.PeekNext() &^ (pageSize - 1)
		if err := a.preloadPage(format.Ref(first), refs, now); err != nil {
			return err
		}
		if first > math.MaxUint32-pageSize {
			return nil
		}
		it.AdvanceIfNeeded(first + pageSize)
	}
	return nil
}

// preloadPage brings one page, and the keys of those of its series that are in the set, to memory.
func (a *Archive) preloadPage(first format.Ref, set *roaring.Bitmap, now int64) error {
	var refs []format.Ref
	var recs []format.Series
	p, err := a.live.load(first, func(ref format.Ref, rec *format.Series) {
		if set.Contains(uint32(ref)) {
			refs = append(refs, ref)
			recs = append(recs, format.Series{Pairs: slices.Clone(rec.Pairs)})
		}
	})
	if err != nil {
		return err
	}
	p.touched.CompareAndSwap(0, now)
	texts, err := a.cat.pairTexts(recs)
	if err != nil {
		return err
	}
	keys := make([]arrival.Key, len(recs))
	var wire []byte
	for i := range recs {
		wire = wire[:0]
		for _, id := range recs[i].Pairs {
			wire = arrival.AppendLabel(wire, texts[id].name, texts[id].value)
		}
		keys[i] = a.cat.seed.Hash(wire)
	}
	a.cat.mu.Lock()
	defer a.cat.mu.Unlock()
	for i, k := range keys {
		if a.cat.keys.get(k) == 0 {
			a.cat.keys.put(k, refs[i])
		}
	}
	return nil
}

// cutPage cuts all open runs of a page into the group, under keys with the sequence,
// and notes that all samples of the page before mark are in runs. A mark of zero notes
// nothing. Called with the archive's lock held.
func (a *Archive) cutPage(runs *openRuns, p *page, g *group, seq, mark format.Sequence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.bytes()
	first := p.since
	cut, samples := 0, 0
	m := p.cut(func(slot uint8, s *openSeries, slotStart int64, pieces []chunk.Piece) {
		day := format.DayOf(slotStart)
		generation := a.days.cutting(day, a.o.Now().UnixMilli())
		key := format.HotKey{Day: day, Generation: generation, Slot: format.SlotOf(slotStart), Metric: s.metric, Ref: p.first + format.Ref(slot), Sequence: seq}
		a.upkeep.key = key.Append(a.upkeep.key[:0])
		a.upkeep.value = chunk.AppendRun(a.upkeep.value[:0], a.upkeep.key, uint64(first), a.upkeep.joiner.join(pieces))
		g.batch.Put(family(format.FamilyHot), a.upkeep.key, a.upkeep.value)
		cut++
		for i := range pieces {
			samples += pieces[i].Samples
		}
	})
	if m == nil {
		return
	}
	m.sequence = seq
	if mark > 0 {
		a.upkeep.key = format.AppendPageName(a.upkeep.key[:0], p.first)
		g.batch.Put(family(format.FamilyMeta), a.upkeep.key, format.AppendUint64(nil, uint64(mark)))
	}
	g.moved = append(g.moved, movedPage{page: p, runs: m})
	runs.bytes.Add(int64(p.bytes() - before))
	a.m.runs.Add(float64(cut))
	a.m.runSamples.Add(float64(samples))
}
