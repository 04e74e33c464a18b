package archive

import (
	"container/heap"
	"fmt"
	"slices"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// sealSource reads the runs of one generation of a day series by series, in the order
// of metric and ref, and with them the bundles that they change.
//
// The runs of a slot lie in that order already; one iterator a slot makes it the order
// of the day. When a run meets a bundle, that is a ref between the bundle's first and last, all
// of the bundle joins: its chunks are further pieces, older than any run.
type sealSource struct {
	day    format.Day
	slots  slotHeap
	raw    *rocks.Iterator
	clocks *clockReader

	arena   []byte
	runs    []sealRun
	scratch []chunk.Piece
	// bundles are those that were taken over last, of this metric.
	bundles []sealedBundle
	metric  format.PairID
	// beyond tells that no bundle of the metric covers a later ref.
	beyond bool
}

// sealRun is a run of the current series.
type sealRun struct{ key, value []byte }

// sealedBundle is a bundle that is being replaced.
type sealedBundle struct {
	key    format.RawKey
	bundle *chunk.Bundle
	next   int // the first chunk that has not been handed out
	bytes  int
	hash   uint64
}

// slotCursor walks the runs of one slot.
type slotCursor struct {
	it  *rocks.Iterator
	key format.HotKey
}

type slotHeap []*slotCursor

func (h slotHeap) Len() int { return len(h) }
func (h slotHeap) Less(i, j int) bool {
	x, y := &h[i].key, &h[j].key
	if x.Metric != y.Metric {
		return x.Metric < y.Metric
	}
	if x.Ref != y.Ref {
		return x.Ref < y.Ref
	}
	return x.Slot < y.Slot
}
func (h slotHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *slotHeap) Push(x any)   { *h = append(*h, x.(*slotCursor)) }
func (h *slotHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	*h = (*h)[:last]
	return c
}

// newSealSource begins behind what the record says is in bundles already.
func newSealSource(db *rocks.DB, snap *rocks.Snapshot, day format.Day, r *format.DayRecord) (*sealSource, error) {
	s := &sealSource{day: day}
	g := r.FoldedGeneration()
	for slot := range uint8(format.SlotsPerDay) {
		from := format.HotKey{Day: day, Generation: g, Slot: slot, Metric: r.Metric, Ref: r.Ref}
		lower := from.Append(nil)
		upper := format.AppendGenerationPrefix(nil, day, g)
		if upper = append(upper, slot+1); slot+1 == format.SlotsPerDay {
			upper = format.PrefixEnd(upper[:len(upper)-1])
		}
		it := db.NewIterator(family(format.FamilyHot), rocks.IterOptions{
			Snapshot: snap, Lower: lower, Upper: upper, NoFillCache: true, ReadaheadBytes: 256 << 10,
		})
		it.SeekToFirst()
		c := &slotCursor{it: it}
		ok, err := c.read()
		if err != nil {
			it.Close()
			s.close()
			return nil, err
		}
		if !ok {
			it.Close()
			continue
		}
		s.slots = append(s.slots, c)
	}
	heap.Init(&s.slots)
	s.raw = db.NewIterator(family(format.FamilyRaw), rocks.IterOptions{
		Snapshot: snap, Lower: format.AppendDayPrefix(nil, day), Upper: format.AppendDayPrefix(nil, day+1), NoFillCache: true,
	})
	return s, nil
}

func (s *sealSource) close() {
	for _, c := range s.slots {
		c.it.Close()
	}
	if s.raw != nil {
		s.raw.Close()
	}
}

// read parses the key at the iterator; ok is false behind the last one.
func (c *slotCursor) read() (ok bool, err error) {
	if !c.it.Valid() {
		if err := c.it.Err(); err != nil {
			return false, fmt.Errorf("read runs: %w", err)
		}
		return false, nil
	}
	c.key, err = format.ParseHotKey(c.it.Key())
	return err == nil, err
}

// sealSeries is what the source has of one series.
type sealSeries struct {
	metric format.PairID
	ref    format.Ref
	// runs counts the runs among the pieces, runBytes their keys and values.
	runs, runBytes int
	// replaced are the bundles that were taken over with this series.
	replaced []sealedBundle
	// edge tells that bundles which stay as they are may lie between the series before and
	// this one: no new bundle may span the two, or a seek would meet it in place of those.
	edge bool
}

// next reads the next series. Its pieces, valid until the next call, are appended to
// pieces[:0] in order of arrival. ok is false at the end.
func (s *sealSource) next(pieces []chunk.Piece) (series sealSeries, _ []chunk.Piece, ok bool, err error) {
	pieces = pieces[:0]
	sealed, pending := s.pendingRef()
	if !pending {
		if len(s.slots) == 0 {
			return series, pieces, false, nil
		}
		first := &s.slots[0].key
		if series.replaced, series.edge, err = s.take(first.Metric, first.Ref); err != nil {
			return series, pieces, false, err
		}
		sealed, pending = s.pendingRef()
	}
	series.metric, series.ref = s.metric, sealed
	fresh := false
	if len(s.slots) > 0 {
		// The bundle that covers a ref may begin before it and go on behind it.
		if run := &s.slots[0].key; !pending || run.Metric == s.metric && run.Ref <= sealed {
			series.metric, series.ref, fresh = run.Metric, run.Ref, true
		}
	}
	if pending && sealed == series.ref {
		pieces = s.sealed(pieces, sealed)
	}
	if fresh {
		pieces, err = s.unsealed(pieces, &series)
	}
	return series, pieces, err == nil, err
}

// pendingRef is the lowest ref of the bundles taken over that has not been handed out.
func (s *sealSource) pendingRef() (format.Ref, bool) {
	for i := range s.bundles {
		if b := &s.bundles[i]; b.next < b.bundle.Len() {
			return format.Ref(b.bundle.Ref(b.next)), true
		}
	}
	return 0, false
}

// take takes over the bundle that covers the ref, if there is one.
func (s *sealSource) take(metric format.PairID, ref format.Ref) (_ []sealedBundle, edge bool, err error) {
	edge = len(s.bundles) > 0
	s.bundles = s.bundles[:0]
	if metric == s.metric && s.beyond {
		return nil, edge, nil
	}
	s.metric, s.beyond = metric, false
	key := format.RawKey{Day: s.day, Metric: metric, Last: ref}
	for s.raw.Seek(key.Append(nil)); s.raw.Valid(); s.raw.Next() {
		k, err := format.ParseRawKey(s.raw.Key())
		if err != nil {
			return nil, edge, err
		}
		if k.Metric != metric || len(s.bundles) > 0 && k.Last != s.bundles[0].key.Last {
			break
		}
		b, err := takeBundle(k, s.raw.Key(), slices.Clone(s.raw.Value()))
		if err != nil {
			return nil, edge, err
		}
		s.bundles = append(s.bundles, b)
	}
	s.beyond = len(s.bundles) == 0
	return s.bundles, edge || !s.beyond, s.raw.Err()
}

func takeBundle(k format.RawKey, key, value []byte) (sealedBundle, error) {
	b := sealedBundle{key: k, bundle: &chunk.Bundle{}, bytes: len(key) + len(value), hash: bundleHash(key, value)}
	if err := chunk.ParseBundle(key, value, uint64(k.Last), b.bundle); err != nil {
		return b, fmt.Errorf("bundle in family raw, key %x: %w; run `varve check data`", key, err)
	}
	return b, nil
}

// sealed appends the chunks of the ref in the bundles taken over.
func (s *sealSource) sealed(pieces []chunk.Piece, ref format.Ref) []chunk.Piece {
	for i := range s.bundles {
		b := &s.bundles[i]
		for b.next < b.bundle.Len() && format.Ref(b.bundle.Ref(b.next)) == ref {
			pieces = append(pieces, s.clocks.piece(b.bundle, b.next))
			b.next++
		}
	}
	return pieces
}

// unsealed appends the runs of the series that comes next.
func (s *sealSource) unsealed(pieces []chunk.Piece, series *sealSeries) ([]chunk.Piece, error) {
	s.runs, s.arena = s.runs[:0], s.arena[:0]
	for len(s.slots) > 0 {
		c := s.slots[0]
		if c.key.Metric != series.metric || c.key.Ref != series.ref {
			break
		}
		s.runs = append(s.runs, sealRun{key: s.keep(c.it.Key()), value: s.keep(c.it.Value())})
		c.it.Next()
		ok, err := c.read()
		if err != nil {
			return pieces, err
		}
		if ok {
			heap.Fix(&s.slots, 0)
		} else {
			c.it.Close()
			heap.Pop(&s.slots)
		}
	}
	// Slots do not overlap, so the order within each is all that matters; and the keys
	// of a slot have it.
	for _, r := range s.runs {
		var err error
		if _, s.scratch, err = chunk.ParseRun(r.key, r.value, s.scratch[:0]); err != nil {
			return pieces, fmt.Errorf("run in family hot, key %x: %w; run `varve check data`", r.key, err)
		}
		pieces = append(pieces, s.scratch...)
		series.runs++
		series.runBytes += len(r.key) + len(r.value)
	}
	return pieces, nil
}

// keep copies bytes of the engine to the arena. What was kept before stays where it is.
func (s *sealSource) keep(b []byte) []byte {
	if len(s.arena)+len(b) > cap(s.arena) {
		s.arena = make([]byte, 0, max(2*cap(s.arena), 64<<10, len(b)))
	}
	first := len(s.arena)
	s.arena = append(s.arena, b...)
	return s.arena[first:len(s.arena):len(s.arena)]
}
