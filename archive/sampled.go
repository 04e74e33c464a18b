package archive

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
)

// scope tells which series have a sample between mint and maxt, both inclusive, in Unix ms.
// The index knows it for whole days. For the days that the range cuts, at most
// two, and for series on days where tombstones hide something of them, it is decided series by
// series, and only for those that are asked for:
//
//  1. by a sample in memory, unless some may be hidden, or by what was seen of the series earlier (sightings);
//  2. by the bounds of its runs, and by the clocks of its sealed chunks;
//  3. by decoding it.
//
// A scope belongs to one goroutine.
type scope struct {
	v          *view
	mint, maxt int64
	months     []format.Month
	// active are the series with samples on a day that the range reaches. live are those
	// known to have one in the range, dead those known to have none.
	active, live, dead *roaring.Bitmap
	edges              []edge
}

// edge is a day that the range cuts, or that is whole and has series under tombstones.
type edge struct {
	day        format.Day
	mint, maxt int64 // of the range, on the day
	active     *roaring.Bitmap
	parts      uint64 // parts of the day that lie wholly in the range
	// hidden are series of which something may be hidden on the day; nil for none.
	hidden *roaring.Bitmap
	// seen is the sightings' page that was asked for last.
	seen      *seenPage
	seenFirst format.Ref
}

func (v *view) scope(mint, maxt int64) (*scope, error) {
	mint = max(mint, v.kept.seriesFirst.StartMillis())
	s := &scope{v: v, mint: mint, maxt: maxt, active: roaring.New(), live: roaring.New(), dead: roaring.New()}
	if mint > maxt {
		return s, nil
	}
	first, last := format.DayOf(mint), format.DayOf(maxt)
	var err error
	if s.months, err = v.index().monthsIn(first.Month(), last.Month()); err != nil {
		return nil, err
	}
	var cut []format.Day
	if mint > first.StartMillis() || first == last && maxt < last.EndMillis()-1 {
		cut = append(cut, first)
		first++
	}
	if last >= first && maxt < last.EndMillis()-1 {
		cut = append(cut, last)
		last--
	}
	for _, day := range cut {
		set, err := s.sampledOn(day)
		if err != nil {
			return nil, err
		}
		s.addEdge(day, set)
	}
	return s, s.wholeDays(first, last)
}

// addEdge adds a day and the series on it that aren't known to have a sample in the range.
func (s *scope) addEdge(day format.Day, active *roaring.Bitmap) {
	e := edge{day: day, mint: max(s.mint, day.StartMillis()), maxt: min(s.maxt, day.EndMillis()-1), active: active}
	e.parts = partsWithin(day, e.mint, e.maxt)
	if !s.v.masks.none() {
		e.hidden = s.v.masks.refsOn(day)
	}
	s.edges = append(s.edges, e)
	s.active.Or(active)
}

// wholeDays sets live to the series active on days from first to last, both inclusive. A series
// under a tombstone on one of them may have no sample left there.
func (s *scope) wholeDays(first, last format.Day) (err error) {
	add := func(to format.Day) error {
		set, err := s.activeOn(first, to)
		if err == nil {
			s.live.Or(set)
		}
		return err
	}
	for _, day := range s.v.masks.days(first, last) {
		if err := add(day - 1); err != nil {
			return err
		}
		set, err := s.sampledOn(day)
		if err != nil {
			return err
		}
		hidden := s.v.masks.refsOn(day)
		s.live.Or(roaring.AndNot(set, hidden))
		if set.And(hidden); !set.IsEmpty() {
			s.addEdge(day, set)
		}
		first = day + 1
	}
	if err := add(last); err != nil {
		return err
	}
	s.active.Or(s.live)
	return nil
}

// sampledOn returns the series active on the day of which samples are kept. Those of which only buckets are
// become live: which part of a day they are of is not looked at, but for deletes of all of it.
func (s *scope) sampledOn(day format.Day) (*roaring.Bitmap, error) {
	set, err := s.v.index().active(day, day+1)
	if err != nil {
		return nil, err
	}
	lacking, err := s.v.lackingFrom(day)
	if err != nil || day >= s.v.kept.rawLast && lacking.IsEmpty() {
		return set, err
	}
	if err := s.v.learn(set); err != nil {
		return nil, err
	}
	set, rolled := s.v.kept.split(day, set)
	lacking.And(set)
	set.AndNot(lacking)
	rolled.Or(lacking)
	if !s.v.masks.none() {
		for _, ref := range refsOf(roaring.And(rolled, s.v.masks.refsOn(day))) {
			if s.v.masks.of(ref).hidesSealed(day, day.StartMillis(), day.EndMillis()-1) {
				rolled.Remove(uint32(ref))
			}
		}
	}
	s.live.Or(rolled)
	return set, nil
}

// activeOn returns the series active on days from first to last, both inclusive, of which something is kept there.
func (s *scope) activeOn(first, last format.Day) (*roaring.Bitmap, error) {
	all, err := s.activeIn(first, last)
	if err != nil || first >= s.v.kept.seriesLast || first > last {
		return all, err
	}
	if err := s.v.learn(all); err != nil {
		return nil, err
	}
	out := roaring.New()
	for since, own := range s.v.kept.bySince() {
		set := all
		if since > first {
			if set, err = s.activeIn(since, last); err != nil {
				return nil, err
			}
		}
		out.Or(roaring.And(set, own))
	}
	return out, nil
}

// activeIn returns the series active on days from first to last, both inclusive. A range may
// reach over thousands of years, so only months that have series are asked.
func (s *scope) activeIn(first, last format.Day) (*roaring.Bitmap, error) {
	all := roaring.New()
	for _, m := range s.months {
		from, to := max(first, m.FirstDay()), min(last+1, (m+1).FirstDay())
		if from >= to {
			continue
		}
		set, err := s.v.index().active(from, to)
		if err != nil {
			return nil, err
		}
		all.Or(set)
	}
	return all, nil
}

// sampling is what is known of a series: whether it has a sample in the range.
type sampling uint8

const (
	undecided sampling = iota // nobody asked
	unknown                   // only its samples tell
	live
	without
)

// state tells what is known of a series without reading.
func (s *scope) state(ref format.Ref) sampling {
	r := uint32(ref)
	switch {
	case s.live.Contains(r):
		return live
	case s.dead.Contains(r) || !s.active.Contains(r):
		return without
	}
	for i := range s.edges {
		e := &s.edges[i]
		if !e.active.Contains(r) {
			continue
		}
		inMemory := (e.hidden == nil || !e.hidden.Contains(r)) && s.v.a.live.sampled(ref, s.v.epoch, e.mint, e.maxt)
		if inMemory || e.wasSeen(s.v.masks.seen, ref) {
			s.live.Add(r)
			return live
		}
	}
	return unknown
}

func (e *edge) wasSeen(known *sightings, ref format.Ref) bool {
	if e.parts == 0 {
		return false
	}
	first := ref &^ (pageSize - 1)
	if e.seen == nil || e.seenFirst != first {
		if e.seen, e.seenFirst = known.page(e.day, ref), first; e.seen == nil {
			return false
		}
	}
	return e.seen[ref-first].Load()&e.parts != 0
}

// exact returns the series of a set that have a sample in the range.
func (s *scope) exact(ctx context.Context, set *roaring.Bitmap) (*roaring.Bitmap, error) {
	rest := roaring.And(set, s.active)
	rest.AndNot(s.live)
	rest.AndNot(s.dead)
	var look []format.Ref
	for _, ref := range refsOf(rest) {
		if s.state(ref) == unknown {
			look = append(look, ref)
		}
	}
	if err := s.look(ctx, look); err != nil {
		return nil, err
	}
	return roaring.And(set, s.live), nil
}

// lookBatch is how many series' samples are held at once.
const lookBatch = 4096

// look decides series, which ascend, by their samples.
func (s *scope) look(ctx context.Context, refs []format.Ref) error {
	l := looker{scope: s, ctx: ctx, clocks: map[clockName]clockSight{}}
	for i := range s.edges {
		e := &s.edges[i]
		var batch []format.Ref
		for k, ref := range refs {
			if e.active.Contains(uint32(ref)) && !s.live.Contains(uint32(ref)) {
				batch = append(batch, ref)
			}
			if len(batch) == lookBatch || k == len(refs)-1 && len(batch) > 0 {
				if err := l.batch(e, batch); err != nil {
					return err
				}
				batch = batch[:0]
			}
		}
	}
	for _, ref := range refs {
		if !s.live.Contains(uint32(ref)) {
			s.dead.Add(uint32(ref))
		}
	}
	return nil
}

// looker reads samples to learn that they are there.
type looker struct {
	*scope
	ctx    context.Context
	column chunk.Column
	pieces []chunk.Piece
	clocks map[clockName]clockSight
}

// clockSight is what a clock says of all series that have all of its times.
type clockSight struct {
	parts  uint64
	within bool
}

func (l *looker) batch(e *edge, refs []format.Ref) error {
	v := l.v
	sets, err := v.a.cat.labelsOf(refs)
	if err != nil {
		return err
	}
	data := make([]samples, len(refs))
	if err := v.name(data, &selection{refs: refs, labels: sets}); err != nil {
		return err
	}
	taken, err := v.fill(l.ctx, data, e.mint, e.maxt)
	defer v.forgetLoaded()
	defer v.bytes.Add(-int64(taken))
	if err != nil {
		return err
	}
	known := v.masks.seen
	for i := range data {
		parts, within, err := l.sight(e, &data[i])
		if err != nil {
			return fmt.Errorf("series %d: %w", data[i].ref, err)
		}
		known.see(e.day, data[i].ref, parts)
		if within {
			l.live.Add(uint32(data[i].ref))
		}
	}
	return l.ctx.Err()
}

// forgetLoaded drops what was loaded to be looked at once.
func (v *view) forgetLoaded() {
	v.memoryMu.Lock()
	defer v.memoryMu.Unlock()
	v.loaded = nil
}

// sight tells whether the series has a sample in the range on the day, and in which parts of the
// day it has samples on disk, as far as that came to light. Only pieces are decoded that may have
// a sample in the range without its being known.
func (l *looker) sight(e *edge, s *samples) (parts uint64, within bool, err error) {
	l.pieces = l.pieces[:0]
	for _, p := range s.disk {
		if p.Hidden != nil {
			l.pieces = append(l.pieces, p)
			continue
		}
		if p.Sealed == nil {
			// The bounds of a run's piece are samples themselves.
			parts |= partOf(e.day, p.MinMillis) | partOf(e.day, p.MaxMillis)
			within = l.bounds(e, p) || within
			continue
		}
		sight, ok, err := l.clock(e, p.Sealed)
		if err != nil {
			return 0, false, err
		}
		if !ok {
			l.pieces = append(l.pieces, p)
			continue
		}
		parts |= sight.parts
		within = sight.within || within
	}
	for _, p := range s.memory {
		if p.Hidden != nil {
			l.pieces = append(l.pieces, p)
			continue
		}
		within = l.bounds(e, p) || within
	}
	if within || len(l.pieces) == 0 {
		return parts, within, nil
	}
	if err := l.column.Decode(l.pieces, e.mint, e.maxt); err != nil {
		return 0, false, err
	}
	if len(s.memory) == 0 {
		for _, t := range l.column.Times {
			parts |= partOf(e.day, t)
		}
	}
	return parts, len(l.column.Times) > 0, nil
}

// bounds tells whether a piece that isn't sealed begins or ends in the range. If it lies around the
// range, it is to be decoded.
func (l *looker) bounds(e *edge, p chunk.Piece) bool {
	if p.MinMillis < e.mint && p.MaxMillis > e.maxt {
		l.pieces = append(l.pieces, p)
	}
	return e.contains(p.MinMillis) || e.contains(p.MaxMillis)
}

// clock tells of a chunk that has all times of its clock what the clock tells, which is found once
// a clock. It is false for other chunks.
func (l *looker) clock(e *edge, s *chunk.Sealed) (sight clockSight, ok bool, err error) {
	id := s.Bundle.Clock(s.Chunk)
	if id == chunk.NoClock || s.Bundle.Samples(s.Chunk) != 0 {
		return sight, false, nil
	}
	name := clockName{e.day, id}
	if sight, ok = l.clocks[name]; ok {
		return sight, true, nil
	}
	times, err := s.Clock.Times()
	if err != nil {
		return sight, false, err
	}
	for _, t := range times {
		sight.parts |= partOf(e.day, t)
	}
	i := sort.Search(len(times), func(i int) bool { return times[i] >= e.mint })
	sight.within = i < len(times) && times[i] <= e.maxt
	l.clocks[name] = sight
	return sight, true, nil
}

func (e *edge) contains(t int64) bool { return t >= e.mint && t <= e.maxt }

// sampled tells whether a sample of the series between mint and maxt is in memory and, for a reader
// of the epoch, not on disk. It says no to some that lie between two that it looks at.
func (o *openRuns) sampled(ref format.Ref, epoch uint64, mint, maxt int64) bool {
	p := o.page(ref)
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sampled(uint8(ref-p.first), epoch, mint, maxt)
}

// sampled is that of openRuns. Called with mu held.
func (p *page) sampled(slot uint8, epoch uint64, mint, maxt int64) bool {
	for _, m := range p.moved {
		if m.epoch != 0 && m.epoch <= epoch {
			continue
		}
		if int(slot) < len(m.heads) && m.log.sampled(m.heads[slot], mint, maxt) || rareSampled(m.rare[slot], mint, maxt) {
			return true
		}
	}
	if int(slot) >= len(p.slots) {
		return false
	}
	s := &p.slots[slot]
	for i := range s.n {
		if t := s.base + int64(s.tail[i].delta); t >= mint && t <= maxt {
			return true
		}
	}
	return p.log.sampled(s.head, mint, maxt) || rareSampled(p.rare[slot], mint, maxt)
}

// sampled tells whether a piece of the chain that ends with head begins or ends between mint and maxt.
func (l *pieceLog) sampled(head uint32, mint, maxt int64) bool {
	for head != 0 {
		p := &l.pieces[head-1]
		if p.min >= mint && p.min <= maxt || p.max >= mint && p.max <= maxt {
			return true
		}
		head = p.previous
	}
	return false
}

func rareSampled(runs []*rareRun, mint, maxt int64) bool {
	for _, r := range runs {
		for _, p := range r.builder.Pieces(nil) {
			if p.MinMillis >= mint && p.MinMillis <= maxt || p.MaxMillis >= mint && p.MaxMillis <= maxt {
				return true
			}
		}
	}
	return false
}

// withRaw drops the series of a selection of which no samples are kept up to maxt.
func (v *view) withRaw(sel *selection, maxt int64) (*selection, error) {
	last := format.DayOf(maxt)
	if last >= v.kept.rawLast {
		return sel, nil
	}
	refs := roaring.New()
	for _, ref := range sel.refs {
		refs.Add(uint32(ref))
	}
	if err := v.learn(refs); err != nil {
		return nil, err
	}
	out := &selection{}
	for i, ref := range sel.refs {
		if last >= v.kept.raw(ref) {
			out.refs, out.labels = append(out.refs, ref), append(out.labels, sel.labels[i])
		}
	}
	return out, nil
}

// withSamples drops the series of a selection that have no sample between mint and maxt.
func (v *view) withSamples(ctx context.Context, sel *selection, mint, maxt int64) (*selection, error) {
	s, err := v.scope(mint, maxt)
	if err != nil {
		return nil, err
	}
	set := roaring.New()
	for _, ref := range sel.refs {
		set.Add(uint32(ref))
	}
	found, err := s.exact(ctx, set)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	if int(found.GetCardinality()) == len(sel.refs) {
		return sel, nil
	}
	out := &selection{}
	for i, ref := range sel.refs {
		if found.Contains(uint32(ref)) {
			out.refs, out.labels = append(out.refs, ref), append(out.labels, sel.labels[i])
		}
	}
	return out, nil
}
