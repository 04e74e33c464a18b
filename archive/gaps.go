package archive

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
	"varve/rocks"
)

// gap is what a cursor owes of a stretch of the journal that was trimmed: of some series some time of some days.
type gap struct {
	number uint32
	noted  int64 // Unix ms
	// arrived is when the first of it came in, Unix ms.
	arrived int64
	days    map[format.Day]uint64
	// flying is set while what the gap stands for was read before the journal was trimmed and is not settled: the gap is
	// settled when everything before this sequence is. A restart makes it zero.
	flying format.Sequence
}

// noteGap remembers a record of a gap. Called with mu held, or before anyone has the cursor.
func (c *Cursor) noteGap(k format.GapKey, g *format.Gap) {
	i, found := slices.BinarySearchFunc(c.gaps, k.Gap, func(g gap, n uint32) int { return cmp.Compare(g.number, n) })
	if !found {
		c.gaps = slices.Insert(c.gaps, i, gap{number: k.Gap, noted: g.NotedMillis, arrived: g.ArrivedMillis, days: map[format.Day]uint64{}})
	}
	c.gaps[i].noted = min(c.gaps[i].noted, g.NotedMillis)
	c.gaps[i].arrived = min(c.gaps[i].arrived, g.ArrivedMillis)
	c.gaps[i].days[k.Day] += g.Samples
}

// nextGap is the gap that the reader is to read. Called with mu held.
func (c *Cursor) nextGap() *gap {
	for i := range c.gaps {
		if g := &c.gaps[i]; g.flying == 0 && (g.number > c.ahead.gap || g.number == c.ahead.gap && c.ahead.gapFrom < gapEnd) {
			return g
		}
	}
	return nil
}

// gapEnd is behind all times: a gap that was read so far is read.
const gapEnd int64 = math.MaxInt64

// dropSettledGaps removes gaps of which all is delivered. Called with mu held.
func (c *Cursor) dropSettledGaps(b *rocks.Batch) {
	if len(c.gaps) == 0 {
		return
	}
	c.gaps = slices.DeleteFunc(slices.Clone(c.gaps), func(g gap) bool {
		read := g.number < c.rec.Gap || g.number == c.rec.Gap && c.rec.GapFromMillis == gapEnd
		settled := g.flying == 0 && read || g.flying != 0 && c.delivered >= g.flying
		if settled {
			prefix := format.AppendGapNumberPrefix(nil, c.name, g.number)
			b.DeleteRange(family(format.FamilyGaps), prefix, format.PrefixEnd(prefix))
		}
		return settled
	})
}

// eachGap calls f for the records of gaps whose keys have the prefix, in their order.
func (a *Archive) eachGap(prefix []byte, f func(k format.GapKey, value []byte) error) error {
	o := rocks.IterOptions{}
	if len(prefix) > 0 {
		o.Lower, o.Upper = prefix, format.PrefixEnd(prefix)
	}
	it := a.db.NewIterator(family(format.FamilyGaps), o)
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		k, err := format.ParseGapKey(it.Key())
		if err != nil {
			return err
		}
		if err := f(k, it.Value()); err != nil {
			return fmt.Errorf("gap %d of output %q on day %d: %w", k.Gap, k.Cursor, k.Day, err)
		}
	}
	return it.Err()
}

// trimUnder makes the cursor owe by time what lies before the edge, so that the journal may be trimmed there.
// What the reader has read and not settled becomes a gap of its own, which goes when that is settled.
func (c *Cursor) trimUnder(edge journalEdge) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.Next >= edge.sequence {
		return nil
	}
	before, gaps := c.rec, slices.Clone(c.gaps)
	for i := range gaps {
		gaps[i].days = maps.Clone(gaps[i].days)
	}
	fail := func(err error) error {
		c.rec, c.gaps = before, gaps
		return fmt.Errorf("note what output %q is to have: %w", c.name, err)
	}
	var b rocks.Batch
	read := min(max(c.ahead.next, c.rec.Next), edge.sequence)
	if !c.opened {
		read = c.rec.Next
	}
	if err := c.addGap(&b, c.rec.Next, read, read); err != nil {
		return fail(err)
	}
	if err := c.addGap(&b, read, edge.sequence, 0); err != nil {
		return fail(err)
	}
	c.rec.Next, c.rec.Stamp = edge.sequence, edge.stamp
	c.put(&b)
	if err := c.write(&b, true); err != nil {
		return fail(err)
	}
	if c.ahead.next < edge.sequence {
		c.ahead.next, c.ahead.stamp = edge.sequence, edge.stamp
		c.tail.forget()
	}
	c.wake()
	return nil
}

// addGap puts what the records from from (inclusive) to to (exclusive) hold into a gap: the last one if nobody
// reads it yet, else a new one. Called with mu held.
func (c *Cursor) addGap(b *rocks.Batch, from, to, flying format.Sequence) error {
	if from >= to {
		return nil
	}
	found, arrived, err := c.collect(from, to)
	if err != nil || len(found) == 0 {
		return err
	}
	number := c.rec.NextGap
	if n := len(c.gaps); n > 0 && flying == 0 && c.gaps[n-1].flying == 0 && c.gaps[n-1].number > c.ahead.gap {
		number = c.gaps[n-1].number
	}
	now := c.a.o.Now().UnixMilli()
	for k, spans := range found {
		k.Cursor, k.Gap = c.name, number
		if err := c.widen(b, k, spans, now, arrived); err != nil {
			return err
		}
	}
	if number == c.rec.NextGap {
		c.rec.NextGap++
	}
	if flying != 0 {
		i, _ := slices.BinarySearchFunc(c.gaps, number, func(g gap, n uint32) int { return cmp.Compare(g.number, n) })
		c.gaps[i].flying = flying
	}
	return nil
}

// owed is what a container of a gap is made of.
type owed struct {
	spans   map[uint16]format.GapSpan
	samples uint64
}

func (o *owed) widen(low uint16, s format.GapSpan) {
	if old, ok := o.spans[low]; ok {
		s.First, s.Last = min(s.First, old.First), max(s.Last, old.Last)
	}
	o.spans[low] = s
}

// widen merges a container with the one that the gap has under its key. Called with mu held.
func (c *Cursor) widen(b *rocks.Batch, k format.GapKey, o *owed, now, arrived int64) error {
	key := k.Append(nil)
	value, ok, err := c.a.db.Get(family(format.FamilyGaps), key, nil)
	if err != nil {
		return err
	}
	g := format.Gap{NotedMillis: now, ArrivedMillis: arrived}
	if ok {
		if err := g.Parse(value); err != nil {
			return err
		}
		for i, low := range g.Lows {
			o.widen(low, g.Spans[i])
		}
	}
	added := format.Gap{Samples: o.samples, NotedMillis: now, ArrivedMillis: arrived}
	g.Samples += o.samples
	g.Lows = slices.Sorted(maps.Keys(o.spans))
	g.Spans = g.Spans[:0]
	for _, low := range g.Lows {
		g.Spans = append(g.Spans, o.spans[low])
	}
	b.Put(family(format.FamilyGaps), key, format.AppendGap(nil, &g))
	c.noteGap(k, &added)
	return nil
}

// collect reads which series have samples when in the records from from (inclusive) to to (exclusive), apart from what is
// read by time anyway, and when the first of the records arrived. Called with mu held.
func (c *Cursor) collect(from, to format.Sequence) (found map[format.GapKey]*owed, arrived int64, err error) {
	found, arrived = map[format.GapKey]*owed{}, math.MaxInt64
	it := c.a.db.NewIterator(family(format.FamilyJournal), rocks.IterOptions{
		Lower: format.AppendUint64(nil, uint64(from)), Upper: format.AppendUint64(nil, uint64(to)), NoFillCache: true, ReadaheadBytes: 2 << 20,
	})
	defer it.Close()
	var j format.Journal
	var seq format.Sequence
	var last *owed
	var lastKey format.GapKey
	read, known := c.rec.Stamp, from == c.rec.Next
	unread := c.ahead.wholeFrom
	if c.served.whole && c.served.reading {
		unread = c.served.to + 1
	}
	add := func(ref format.Ref, t int64, samples uint64) {
		if j.Unforwarded || c.ahead.whole && t >= unread || skipped(c.ahead.skips, seq, t) {
			return
		}
		k := format.GapKey{Day: format.DayOf(t), High: uint64(ref) >> 16}
		if last == nil || k != lastKey {
			if last = found[k]; last == nil {
				last = &owed{spans: map[uint16]format.GapSpan{}}
				found[k] = last
			}
			lastKey = k
		}
		last.samples += samples
		at := uint32(t - k.Day.StartMillis())
		last.widen(uint16(ref), format.GapSpan{First: at, Last: at})
	}
	for it.SeekToFirst(); it.Valid(); it.Next() {
		n, err := format.ParseUint64(it.Key())
		if err != nil {
			return nil, 0, err
		}
		seq = format.Sequence(n)
		if err := j.Open(seq, it.Value()); err != nil {
			return nil, 0, err
		}
		if known && follows(&j, it.Value(), read) != nil {
			// It is too late to ask for them: they are counted.
			c.rec.Dropped += j.Stamp.Samples - read.Samples
		}
		known, read = true, j.Stamp
		arrived = min(arrived, j.Stamp.ArrivedMillis)
		if err := eachArrival(&j, add); err != nil {
			return nil, 0, fmt.Errorf("journal record %d: %w", seq, err)
		}
	}
	return found, arrived, it.Err()
}

// eachArrival calls f with series and time of each sample and exemplar of a record. samples is 1 or, for an exemplar, 0.
func eachArrival(j *format.Journal, f func(ref format.Ref, t int64, samples uint64)) error {
	for {
		kind, ok, err := j.Next()
		if err != nil || !ok {
			return err
		}
		switch kind {
		case format.SectionFloats, format.SectionFloatsWithStart:
			for i, ref := range j.Floats.Refs {
				f(ref, j.Floats.Times[i], 1)
			}
		case format.SectionHistogram, format.SectionFloatHistogram:
			f(j.Ref, j.TimeMillis, 1)
		case format.SectionExemplar:
			f(j.Ref, j.Exemplar.Ts, 0)
		}
	}
}

// readGap reads the next stretch of a gap, or a part of it. Called with mu held.
func (c *Cursor) readGap(ctx context.Context, into *Arrivals, g *gap) error {
	if c.ahead.gap != g.number {
		c.ahead.gap, c.ahead.gapFrom = g.number, format.MinTimeMillis
		c.allMetadata(into)
	}
	day, ok := firstDayFrom(g.days, c.ahead.gapFrom)
	if !ok {
		c.ahead.gapFrom = gapEnd
		return nil
	}
	if day < c.a.kept.floors.Load().Of(0) {
		// It was kept for longer than is waited for.
		c.expired += g.days[day]
		c.ahead.gapFrom = day.EndMillis()
		return nil
	}
	s := &c.served
	if !s.ready || s.whole || s.gap != g.number || s.day != day {
		*s = servedDay{gap: g.number, day: day, arrived: g.arrived}
		if err := c.loadGapDay(s); err != nil {
			*s = servedDay{}
			return err
		}
	}
	c.ahead.gapFrom = max(c.ahead.gapFrom, day.StartMillis())
	if !s.reading {
		s.begin(c.ahead.gapFrom, day.EndMillis()-1)
	}
	done, err := c.readStretch(ctx, into)
	if err != nil {
		return err
	}
	if done {
		c.ahead.gapFrom = s.to + 1
	}
	return nil
}

// firstDayFrom is the first of the days that has something not before the time.
func firstDayFrom(days map[format.Day]uint64, from int64) (first format.Day, ok bool) {
	first = math.MaxInt32
	for d := range days {
		if d.EndMillis() > from && d <= first {
			first, ok = d, true
		}
	}
	return first, ok
}

// loadGapDay reads what is owed of a day.
func (c *Cursor) loadGapDay(s *servedDay) error {
	var g format.Gap
	prefix := format.AppendGapDayPrefix(nil, c.name, s.gap, s.day)
	spans := map[format.Ref]format.GapSpan{}
	refs := roaring.New()
	err := c.a.eachGap(prefix, func(k format.GapKey, value []byte) error {
		if err := g.Parse(value); err != nil {
			return err
		}
		for i, low := range g.Lows {
			ref := format.Ref(k.High<<16 | uint64(low))
			spans[ref] = g.Spans[i]
			refs.Add(uint32(ref))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.nameSeries(s, refs); err != nil {
		return err
	}
	s.spans = make([]format.GapSpan, len(s.out))
	for i := range s.out {
		s.spans[i] = spans[s.out[i].ref]
	}
	s.ready = true
	return nil
}
