package archive

import (
	"fmt"
	"math"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
	"varve/rocks"
)

// index answers which series have samples on a day, and which of those of a
// month carry a label pair.
//
// What is new gathers in memory: the writer notes (series, day) once for each, drain
// turns the notes into bitmaps, and flush merges these into the containers on disk. A
// bitmap that was flushed stays readable until every reader whose snapshot is older has gone.
//
// Steps and invariants:
//  1. note is called by the writer, under the archive's lock, before the sample can be acknowledged.
//  2. drain is called by every reader before it looks, and now and then by the archive.
//  3. flush takes all bitmaps at a sequence, waits until the commit of that sequence is
//     durable, and writes containers and watermark in batches of which the last carries the
//     watermark. So nothing on disk names a series that isn't durable, and a start-up that
//     replays from the watermark misses nothing.
//  4. A series is in the index of a month if it is active on one of its days.
//  5. A reader asks through an indexReader, which leaves out what was flushed before it began: its
//     snapshot has that, or it was taken out of the index since (retract.go).
type index struct {
	db  *rocks.DB
	cat *catalogue
	// saw is told of the days of notes.
	saw func(format.Day)

	noteMu sync.Mutex
	notes  []dayNote
	spare  []dayNote

	// mu guards the bitmaps. Readers clone what they need.
	mu      sync.Mutex
	days    map[format.Day]*roaring.Bitmap   // refs known to be active, those on disk included
	months  map[format.Month]*roaring.Bitmap // refs known to be indexed, those on disk included
	fresh   *postings
	retired []*postings
}

type dayNote struct {
	ref format.Ref
	day format.Day
}

// postings are bitmaps that wait for a flush, or that were flushed and wait for older readers.
type postings struct {
	active map[format.Day]*roaring.Bitmap
	pairs  map[monthPair]*roaring.Bitmap
	epoch  uint64 // zero: not durable yet
}

type monthPair struct {
	month format.Month
	pair  format.PairID
}

func newPostings() *postings {
	return &postings{active: map[format.Day]*roaring.Bitmap{}, pairs: map[monthPair]*roaring.Bitmap{}}
}

// Known days and months are dropped when there are more: a backfill walks through years.
const (
	knownDaysMax   = 64
	knownMonthsMax = 8
)

func newIndex(db *rocks.DB, cat *catalogue) *index {
	return &index{
		db: db, cat: cat, fresh: newPostings(),
		days: map[format.Day]*roaring.Bitmap{}, months: map[format.Month]*roaring.Bitmap{},
		saw: func(format.Day) {},
	}
}

// note remembers that a series has a sample on a day.
func (x *index) note(ref format.Ref, day format.Day) {
	x.noteMu.Lock()
	x.notes = append(x.notes, dayNote{ref, day})
	x.noteMu.Unlock()
	x.saw(day)
}

// drain brings what was noted into the bitmaps.
func (x *index) drain() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.drainLocked()
}

func (x *index) drainLocked() error {
	x.noteMu.Lock()
	notes := x.notes
	x.notes, x.spare = x.spare[:0], nil
	x.noteMu.Unlock()
	for i, n := range notes {
		if err := x.add(n); err != nil {
			x.noteMu.Lock()
			x.notes = append(x.notes, notes[i:]...)
			x.noteMu.Unlock()
			return err
		}
	}
	x.noteMu.Lock()
	if cap(notes) <= 1<<16 {
		x.spare = notes[:0]
	}
	x.noteMu.Unlock()
	return nil
}

// add indexes one note. Called with mu held.
func (x *index) add(n dayNote) error {
	ref := uint32(n.ref)
	day, err := x.knownDay(n.day)
	if err != nil {
		return err
	}
	if !day.CheckedAdd(ref) {
		return nil
	}
	month := n.day.Month()
	known, err := x.knownMonth(month)
	if err != nil {
		day.Remove(ref)
		return err
	}
	if known.CheckedAdd(ref) {
		rec, err := x.cat.record(n.ref)
		if err != nil {
			day.Remove(ref)
			known.Remove(ref)
			return err
		}
		for _, id := range rec.Pairs {
			addTo(x.fresh.pairs, monthPair{month, id}, ref)
		}
	}
	addTo(x.fresh.active, n.day, ref)
	return nil
}

func addTo[K comparable](m map[K]*roaring.Bitmap, k K, ref uint32) {
	b := m[k]
	if b == nil {
		b = roaring.New()
		m[k] = b
	}
	b.Add(ref)
}

func (x *index) knownDay(d format.Day) (*roaring.Bitmap, error) {
	if b := x.days[d]; b != nil {
		return b, nil
	}
	b := roaring.New()
	if err := x.readActive(nil, d, d+1, b); err != nil {
		return nil, err
	}
	x.addPending(latest, func(p *postings) {
		if f := p.active[d]; f != nil {
			b.Or(f)
		}
	})
	if len(x.days) >= knownDaysMax {
		clear(x.days)
	}
	x.days[d] = b
	return b, nil
}

// knownMonth reads which series are indexed in a month: those active on one of its days.
func (x *index) knownMonth(m format.Month) (*roaring.Bitmap, error) {
	if b := x.months[m]; b != nil {
		return b, nil
	}
	b := roaring.New()
	if err := x.readActive(nil, m.FirstDay(), (m + 1).FirstDay(), b); err != nil {
		return nil, err
	}
	x.addPending(latest, func(p *postings) {
		for d, f := range p.active {
			if d.Month() == m {
				b.Or(f)
			}
		}
	})
	if len(x.months) >= knownMonthsMax {
		clear(x.months)
	}
	x.months[m] = b
	return b, nil
}

// latest is the epoch of whoever reads without a snapshot: all that was flushed is on disk.
const latest uint64 = math.MaxUint64

// addPending calls f for what a reader of the epoch doesn't find on disk. Called with mu held.
func (x *index) addPending(epoch uint64, f func(*postings)) {
	for _, p := range x.retired {
		if p.epoch == 0 || p.epoch > epoch {
			f(p)
		}
	}
	f(x.fresh)
}

// indexReader is the index at a moment: what the snapshot has, and what a reader of the epoch finds
// in memory.
type indexReader struct {
	x     *index
	snap  *rocks.Snapshot
	epoch uint64
}

// index is the index as the view sees it.
func (v *view) index() indexReader { return indexReader{v.a.index, v.snap, v.epoch} }

// readActive adds the refs that are active on disk on days from (inclusive) to to (exclusive).
func (x *index) readActive(snap *rocks.Snapshot, from, to format.Day, into *roaring.Bitmap) error {
	it := x.db.NewIterator(family(format.FamilyActive), rocks.IterOptions{
		Snapshot: snap, Lower: format.AppendDayPrefix(nil, from), Upper: format.AppendDayPrefix(nil, to),
	})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		day, high, err := format.ParseActiveKey(it.Key())
		if err != nil {
			return err
		}
		if err := addContainer(into, it.Value(), high); err != nil {
			return fmt.Errorf("active series of day %d: %w", day, err)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read active series: %w", err)
	}
	return nil
}

func addContainer(into *roaring.Bitmap, value []byte, high uint64) error {
	if high > math.MaxUint32>>16 {
		return fmt.Errorf("%w: container of refs beyond 32 bits", format.ErrCorrupt)
	}
	return format.AddContainer(into, value, uint32(high<<16))
}

// active returns the refs with samples on days from (inclusive) to to (exclusive), for whoever reads the
// snapshot, or the disk as it is if that is nil. It may have some more, of which the samples were deleted.
func (x *index) active(snap *rocks.Snapshot, from, to format.Day) (*roaring.Bitmap, error) {
	return indexReader{x: x, snap: snap}.active(from, to)
}

// active returns the refs with samples on days from (inclusive) to to (exclusive).
func (r indexReader) active(from, to format.Day) (*roaring.Bitmap, error) {
	x := r.x
	out := roaring.New()
	x.mu.Lock()
	x.addPending(r.epoch, func(p *postings) {
		if int(to-from) > len(p.active) {
			for d, b := range p.active {
				if d >= from && d < to {
					out.Or(b)
				}
			}
			return
		}
		for d := from; d < to; d++ {
			if b := p.active[d]; b != nil {
				out.Or(b)
			}
		}
	})
	x.mu.Unlock()
	return out, x.readActive(r.snap, from, to, out)
}

// addPostings adds to out the refs that carry the pair in a month.
func (r indexReader) addPostings(m format.Month, pair format.PairID, out *roaring.Bitmap) error {
	x := r.x
	x.mu.Lock()
	x.addPending(r.epoch, func(p *postings) {
		if b := p.pairs[monthPair{m, pair}]; b != nil {
			out.Or(b)
		}
	})
	x.mu.Unlock()
	prefix := format.AppendIndexPrefix(make([]byte, 0, 16), m, pair)
	it := x.db.NewIterator(family(format.FamilyIndex), rocks.IterOptions{Snapshot: r.snap, Lower: prefix, Upper: format.PrefixEnd(prefix)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		_, _, high, err := format.ParseIndexKey(it.Key())
		if err != nil {
			return err
		}
		if err := addContainer(out, it.Value(), high); err != nil {
			return fmt.Errorf("postings of label pair %d: %w", pair, err)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read postings: %w", err)
	}
	return nil
}

// monthsIn lists the months from (inclusive) to to (inclusive) that have postings.
func (r indexReader) monthsIn(from, to format.Month) ([]format.Month, error) {
	x := r.x
	found := roaring.New()
	x.mu.Lock()
	x.addPending(r.epoch, func(p *postings) {
		for d := range p.active {
			if m := d.Month(); m >= from && m <= to {
				found.Add(uint32(int32(m) + 1<<15))
			}
		}
	})
	x.mu.Unlock()
	it := x.db.NewIterator(family(format.FamilyIndex), rocks.IterOptions{Snapshot: r.snap, Lower: format.AppendMonthPrefix(nil, from)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); {
		m, _, _, err := format.ParseIndexKey(it.Key())
		if err != nil {
			return nil, err
		}
		if m > to {
			break
		}
		found.Add(uint32(int32(m) + 1<<15))
		next := format.PrefixEnd(format.AppendMonthPrefix(nil, m))
		if next == nil {
			break
		}
		it.Seek(next)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read months of the index: %w", err)
	}
	out := make([]format.Month, 0, found.GetCardinality())
	for _, m := range found.ToArray() {
		out = append(out, format.Month(int32(m)-1<<15))
	}
	return out, nil
}

// swap takes all bitmaps for a flush. They stay readable.
func (x *index) swap() (*postings, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.drainLocked(); err != nil {
		return nil, err
	}
	p := x.fresh
	x.fresh = newPostings()
	x.retired = append(x.retired, p)
	return p, nil
}

// putBack makes bitmaps that could not be flushed wait for the next flush.
func (x *index) putBack(p *postings) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, r := range x.retired {
		if r == p {
			x.retired = append(x.retired[:i], x.retired[i+1:]...)
			break
		}
	}
	for d, b := range p.active {
		if f := x.fresh.active[d]; f != nil {
			f.Or(b)
		} else {
			x.fresh.active[d] = b
		}
	}
	for k, b := range p.pairs {
		if f := x.fresh.pairs[k]; f != nil {
			f.Or(b)
		} else {
			x.fresh.pairs[k] = b
		}
	}
}

// flushKeysMax bounds a batch of the flush: 8,192 containers of at most 8 KiB.
const flushKeysMax = 8192

// containerWrite is a container that a flush changes.
type containerWrite struct {
	family format.Family
	key    []byte
	set    *roaring.Bitmap
	high   uint64
}

// writes lists the containers that p touches. Postings come before activity: a
// flush may end between two of its batches, and a series that is active on a day is
// taken to be in its month's postings.
func (p *postings) writes() []containerWrite {
	var out []containerWrite
	for k, b := range p.pairs {
		eachHigh(b, func(high uint64) {
			out = append(out, containerWrite{format.FamilyIndex, format.AppendIndexKey(nil, k.month, k.pair, high), b, high})
		})
	}
	for d, b := range p.active {
		eachHigh(b, func(high uint64) {
			out = append(out, containerWrite{format.FamilyActive, format.AppendActiveKey(nil, d, high), b, high})
		})
	}
	return out
}

// eachHigh calls f for the upper 16 bits of b's values, each once.
func eachHigh(b *roaring.Bitmap, f func(high uint64)) {
	it := b.Iterator()
	for it.HasNext() {
		high := it.PeekNext() >> 16
		f(uint64(high))
		if high == math.MaxUint16 {
			return
		}
		it.AdvanceIfNeeded((high + 1) << 16)
	}
}

// merge puts the union of each container and what is on disk into the batch.
func (x *index) merge(batch *rocks.Batch, writes []containerWrite) error {
	keys := make([][]byte, len(writes))
	for i := range writes {
		keys[i] = writes[i].key
	}
	for len(writes) > 0 {
		// The families alternate at most once, so the writes fall into two reads.
		n := 1
		for n < len(writes) && writes[n].family == writes[0].family {
			n++
		}
		err := x.db.MultiGet(family(writes[0].family), keys[:n], func(i int, value []byte, ok bool) error {
			w := &writes[i]
			set := roaring.New()
			if ok {
				if err := addContainer(set, value, w.high); err != nil {
					return err
				}
			}
			set.Or(w.part())
			form, _ := format.AppendContainer(nil, set, uint32(w.high<<16))
			batch.Put(family(w.family), w.key, form)
			return nil
		})
		if err != nil {
			return fmt.Errorf("merge index: %w", err)
		}
		keys, writes = keys[n:], writes[n:]
	}
	return nil
}

// part is the write's set, cut to its container.
func (w *containerWrite) part() *roaring.Bitmap {
	part := roaring.New()
	low := w.high << 16
	part.AddRange(low, low+1<<16)
	part.And(w.set)
	return part
}

// release forgets flushed bitmaps that every reader from the epoch on finds on disk.
func (x *index) release(epoch uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	kept := x.retired[:0]
	for _, p := range x.retired {
		if p.epoch == 0 || p.epoch > epoch {
			kept = append(kept, p)
		}
	}
	clear(x.retired[len(kept):])
	x.retired = kept
}

// settle marks flushed bitmaps as durable since the epoch.
func (x *index) settle(p *postings, epoch uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p.epoch = epoch
}
