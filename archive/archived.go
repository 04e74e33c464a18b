package archive

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
	"varve/rollup"
)

// Resolutions returns the lengths of the buckets that the archive makes, in ms, ascending. The
// caller must not change it.
func (v *view) Resolutions() []int64 { return v.a.rolls.lengths }

// RawSince returns the first time, Unix ms inclusive, from which on the raw samples of all
// series are kept; math.MinInt64 if none expired.
func (v *view) RawSince() int64 { return sinceMillis(v.kept.rawLast) }

// SelectArchived returns the series that match and have samples on a day between mint and maxt,
// both inclusive, sorted by labels. It returns at once: the series are looked for by the first
// Next, and their samples and buckets when they are asked for. Series stay good until the
// Querier is closed.
func (v *view) SelectArchived(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) *ArchivedSet {
	return &ArchivedSet{
		v: v, ctx: ctx, stats: readStatsOf(ctx), mint: format.ClampTime(mint), maxt: format.ClampTime(maxt), matchers: ms, at: -1,
		covers: map[uint32]*cover{}, rolled: map[uint32]*rolledDays{},
		decoders: sync.Pool{New: func() any { return new(chunk.RollupDecoder) }},
	}
}

// ArchivedSet is the answer of a SelectArchived. Its methods are for one goroutine, its series
// for one goroutine each.
type ArchivedSet struct {
	v          *view
	ctx        context.Context
	stats      *readStats
	mint, maxt int64
	matchers   []*labels.Matcher

	found bool
	err   error
	sel   *selection
	named []samples // with ref and metric alone
	at    int

	decoders sync.Pool
	// mu guards what follows, which is read for all series at once.
	mu     sync.Mutex
	raw    []rawLoad
	covers map[uint32]*cover
	rolled map[uint32]*rolledDays
	// hidden are the days whose samples rules may hide though not all their buckets are there, with the series
	// that have any, nil before they were looked for.
	hidden []hiddenDay
}

// rawLoad are the samples of all series between two times.
type rawLoad struct {
	mint, maxt int64
	data       []samples
}

// Next tells whether there is another series.
func (s *ArchivedSet) Next() bool {
	if !s.found {
		s.found = true
		s.err = s.find()
	}
	if s.err != nil || s.at+1 >= len(s.named) {
		return false
	}
	s.at++
	return true
}

func (s *ArchivedSet) find() error {
	if s.mint > s.maxt {
		return nil
	}
	began := s.stats.now()
	sel, err := s.v.find(s.ctx, s.mint, s.maxt, s.matchers)
	if err != nil {
		return err
	}
	s.stats.found(began, sel)
	s.sel, s.named = sel, make([]samples, len(sel.refs))
	if err := s.v.name(s.named, sel); err != nil {
		return err
	}
	return s.v.limit(s.named)
}

// At returns the series that Next went to.
func (s *ArchivedSet) At() *ArchivedSeries { return &ArchivedSeries{set: s, index: s.at} }

// Err is the error that ended the set.
func (s *ArchivedSet) Err() error { return s.err }

// Warnings returns none.
func (*ArchivedSet) Warnings() annotations.Annotations { return nil }

// rawLoadsMax is how many stretches of time are read one by one; then all of it is.
const rawLoadsMax = 4

// samplesOf returns the samples of all series between two times, or of more time.
func (s *ArchivedSet) samplesOf(mint, maxt int64) ([]samples, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.raw {
		if l := &s.raw[i]; l.mint <= mint && l.maxt >= maxt {
			return l.data, nil
		}
	}
	if len(s.raw) >= rawLoadsMax {
		mint, maxt = min(mint, s.mint), max(maxt, s.maxt)
	}
	data := slices.Clone(s.named)
	if _, err := s.v.fill(s.ctx, data, mint, maxt); err != nil {
		return nil, err
	}
	s.raw = append(s.raw, rawLoad{mint, maxt, data})
	return data, nil
}

// ArchivedSeries is a series with its raw samples and its rollups.
type ArchivedSeries struct {
	set   *ArchivedSet
	index int
	// late are the days of which buckets lack samples that are still in memory, nil before
	// they were looked for.
	late map[format.Day]bool
}

// Labels returns the labels of the series.
func (s *ArchivedSeries) Labels() labels.Labels { return s.set.sel.labels[s.index] }

// RawSince returns the first time, Unix ms inclusive, from which on the samples of the series are
// kept; math.MinInt64 if none expired.
func (s *ArchivedSeries) RawSince() int64 { return sinceMillis(s.set.named[s.index].since) }

// rolledSince is the first day of which buckets of the series are kept.
func (s *ArchivedSeries) rolledSince(resolution uint32) format.Day {
	level := s.set.v.level(resolution)
	if level < 0 {
		return format.MinDay
	}
	kept := s.set.v.kept
	return kept.days[kept.rule(s.set.named[s.index].ref)][level]
}

// wholeMillis is the time from which on samples are decoded day by day, and not at once.
const wholeMillis = 2 * format.DayMillis

// Raw returns an iterator of the raw samples between mint and maxt, both inclusive. It may
// reuse it.
func (s *ArchivedSeries) Raw(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator {
	mint, maxt = format.ClampTime(mint), format.ClampTime(maxt)
	own := &series{ctx: s.set.ctx, stats: s.set.stats, labels: s.Labels(), mint: mint, maxt: maxt, samples: &samples{}}
	if mint <= maxt {
		data, err := s.set.samplesOf(mint, maxt)
		if err != nil {
			failed := &seriesIterator{}
			failed.Fail(err)
			return failed
		}
		own.samples = &data[s.index]
	}
	if maxt-mint < wholeMillis {
		return own.Iterator(it)
	}
	own.mint = max(mint, s.RawSince())
	daily, ok := it.(*dailyIterator)
	if !ok {
		daily = &dailyIterator{}
	}
	daily.begin(own)
	return daily
}

// Buckets fills c with the buckets of a resolution in ms that end after from and not after to.
func (s *ArchivedSeries) Buckets(resolutionMillis, from, to int64, c *rollup.Columns) error {
	c.Reset()
	from, to = format.ClampTime(from), format.ClampTime(to)
	from = max(from, s.rolledSince(uint32(resolutionMillis)).StartMillis())
	if from >= to {
		return nil
	}
	days, err := s.set.bundles(uint32(resolutionMillis), dayOfEnd(from+1), dayOfEnd(to))
	if err != nil {
		return err
	}
	own := &s.set.named[s.index]
	masks := s.set.v.masks.of(own.ref)
	decoder := s.set.decoders.Get().(*chunk.RollupDecoder)
	defer s.set.decoders.Put(decoder)
	defer s.set.stats.decodedRollups(s.set.stats.now(), c)
	wanted := chunk.RollupRange{FromMillis: from, ToMillis: to, Columns: chunk.RollupAll}
	first, _ := slices.BinarySearchFunc(days, dayOfEnd(from+1), func(d rolledDay, day format.Day) int { return int(d.day - day) })
	for i := first; i < len(days) && days[i].day <= dayOfEnd(to); i++ {
		b, at, ok := days[i].find(own.metric, own.ref)
		if !ok {
			continue
		}
		clock, err := s.set.v.a.rollClock(s.set.v.snap, rollClockName{rollKey{uint32(resolutionMillis), days[i].day}, b.Clock(at)})
		if err != nil {
			return err
		}
		var hidden chunk.Spans
		if masks != nil && days[i].day < own.since {
			// Without samples they may never be made without what was deleted.
			hidden = masks.rolledSpans(days[i].day)
		}
		err = eachKept(hidden, resolutionMillis, func(after, upTo int64) error {
			wanted.FromMillis, wanted.ToMillis = max(from, after), min(to, upTo)
			if wanted.FromMillis >= wanted.ToMillis {
				return nil
			}
			_, err := decoder.Decode(b, at, clock, wanted, c)
			return err
		})
		if err != nil {
			return fmt.Errorf("rollups of %s: %w; run `varve check data`", Date(days[i].day), err)
		}
	}
	return nil
}

// dayOfEnd is the day that a bucket with this end belongs to: at midnight it is the day before.
func dayOfEnd(t int64) format.Day { return format.DayOf(t - 1) }

// rolledDays are the bundles of the set's series, at one resolution, of some days.
type rolledDays struct {
	first, last format.Day
	days        []rolledDay
}

// rolledDay are the bundles of one day, by metric and last ref.
type rolledDay struct {
	day     format.Day
	bundles []rolledBundle
}

type rolledBundle struct {
	metric format.PairID
	last   format.Ref
	bundle *chunk.Rollups
}

// find returns the chunk of a series.
func (d *rolledDay) find(metric format.PairID, ref format.Ref) (*chunk.Rollups, int, bool) {
	i, _ := slices.BinarySearchFunc(d.bundles, ref, func(b rolledBundle, ref format.Ref) int {
		if b.metric != metric {
			return int(int64(b.metric) - int64(metric))
		}
		if b.last < ref {
			return -1
		}
		return 1
	})
	if i == len(d.bundles) || d.bundles[i].metric != metric {
		return nil, 0, false
	}
	at, ok := d.bundles[i].bundle.Find(uint64(ref))
	return d.bundles[i].bundle, at, ok
}

// bundles returns the days from first to last, or more, with the bundles of the set's series.
func (s *ArchivedSet) bundles(resolution uint32, first, last format.Day) ([]rolledDay, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.rolled[resolution]
	if have != nil && have.first <= first && have.last >= last {
		return have.days, nil
	}
	if have != nil {
		first, last = min(first, have.first), max(last, have.last)
	}
	began := s.stats.now()
	c, err := s.cover(resolution)
	if err != nil {
		return nil, err
	}
	l := loader{v: s.v, ctx: s.ctx, out: s.named}
	metrics := l.byMetric()
	ordered := make([]format.PairID, 0, len(metrics))
	for metric := range metrics {
		ordered = append(ordered, metric)
	}
	slices.Sort(ordered)
	it := s.v.a.db.NewIterator(family(format.RollupFamily(resolution)), rocks.IterOptions{
		Snapshot: s.v.snap, Lower: format.AppendRollupDay(nil, resolution, first), Upper: format.AppendRollupDay(nil, resolution, last+1), ReadaheadBytes: 256 << 10,
	})
	defer it.Close()
	r := &rolledDays{first: first, last: last}
	for _, day := range c.days {
		if day < first || day > last {
			continue
		}
		d := rolledDay{day: day}
		for _, metric := range ordered {
			if err := s.readRollups(it, format.RollupKey{Resolution: resolution, Day: day, Metric: metric}, metrics[metric], &l, &d); err != nil {
				return nil, err
			}
		}
		r.days = append(r.days, d)
	}
	s.rolled[resolution] = r
	s.stats.loadedRollups(began, l.taken, r.days)
	return r.days, nil
}

// readRollups reads the bundles of a metric's series, which are at the places at, by ref.
func (s *ArchivedSet) readRollups(it *rocks.Iterator, k format.RollupKey, at []int32, l *loader, d *rolledDay) error {
	for len(at) > 0 {
		if err := l.breathe(); err != nil {
			return err
		}
		k.Last = s.named[at[0]].ref
		it.Seek(k.Append(nil))
		if !it.Valid() {
			return it.Err()
		}
		found, err := format.ParseRollupKey(it.Key())
		if err != nil {
			return err
		}
		if found.Day != k.Day || found.Metric != k.Metric {
			return nil
		}
		b := &chunk.Rollups{}
		if err := chunk.ParseRollups(it.Key(), l.keep(it.Value()), uint64(found.Last), rollKey{found.Resolution, found.Day}.window(), b); err != nil {
			return fmt.Errorf("bundle in family %s, key %x: %w; run `varve check data`", format.FamilyNames[format.RollupFamily(found.Resolution)], it.Key(), err)
		}
		if err := l.take(len(it.Value()) + b.Bytes()); err != nil {
			return err
		}
		d.bundles = append(d.bundles, rolledBundle{found.Metric, found.Last, b})
		for len(at) > 0 && s.named[at[0]].ref <= found.Last {
			at = at[1:]
		}
	}
	return nil
}

// cover tells of which days the buckets of one resolution are complete.
type cover struct {
	// days are those that are rolled up whole, in order.
	days []format.Day
	// stale are the series of which a day's buckets lack samples that are in runs, or wait to be
	// made anew.
	stale map[format.Day]*roaring.Bitmap
}

// cover returns the cover of the set's time. It is called with the lock held.
func (s *ArchivedSet) cover(resolution uint32) (*cover, error) {
	if c := s.covers[resolution]; c != nil {
		return c, nil
	}
	c := &cover{stale: map[format.Day]*roaring.Bitmap{}}
	first, last := format.DayOf(s.mint)-1, format.DayOf(s.maxt)
	it := s.v.a.db.NewIterator(family(format.FamilyMeta), rocks.IterOptions{
		Snapshot: s.v.snap, Lower: format.AppendRollName(nil, resolution, first), Upper: format.AppendRollName(nil, resolution, last+1),
	})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		_, day, err := format.ParseRollName(it.Key())
		if err != nil {
			return nil, err
		}
		var r format.RollRecord
		if err := r.Parse(it.Value()); err != nil {
			return nil, fmt.Errorf("roll record of %s: %w; run `varve check data`", Date(day), err)
		}
		if !r.Rolling {
			c.days = append(c.days, day)
		}
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	between := [2][]byte{format.AppendDirtyDay(nil, resolution, first), format.AppendDirtyDay(nil, resolution, last+1)}
	err := eachDirty(s.v.a.db, s.v.snap, &between, func(k rollKey, value []byte, high uint64) error {
		return addContainer(c.staleOn(k.day), value, high)
	})
	if err == nil {
		err = s.lateRuns(c)
	}
	// A rule removed buckets that the rules of now would keep.
	for k, refs := range *s.v.gone {
		if k.resolution == resolution && k.day >= first && k.day <= last {
			c.staleOn(k.day).Or(refs)
		}
	}
	if err != nil {
		return nil, err
	}
	s.covers[resolution] = c
	return c, nil
}

func (c *cover) staleOn(day format.Day) *roaring.Bitmap {
	if c.stale[day] == nil {
		c.stale[day] = roaring.New()
	}
	return c.stale[day]
}

func (c *cover) has(day format.Day) bool {
	_, ok := slices.BinarySearch(c.days, day)
	return ok
}

// lateRuns notes the set's series that have runs on a day that is rolled up, or in the first
// hours of the day behind one, the first millisecond of which belongs to it.
func (s *ArchivedSet) lateRuns(c *cover) error {
	// The first day of the cover is the one that a bucket up to mint belongs to.
	l := loader{v: s.v, ctx: s.ctx, out: s.named, mint: format.ClampTime((format.DayOf(s.mint) - 1).StartMillis()), maxt: min(s.maxt+1, format.ClampTime(math.MaxInt64))}
	metrics := l.byMetric()
	l.it = s.v.a.db.NewIterator(family(format.FamilyHot), rocks.IterOptions{
		Snapshot: s.v.snap, Lower: format.AppendDayPrefix(nil, format.DayOf(l.mint)), Upper: format.AppendDayPrefix(nil, format.DayOf(l.maxt)+1),
	})
	defer l.it.Close()
	if err := l.findRunDays(); err != nil {
		return err
	}
	floor := s.v.kept.floors.Of(0)
	for _, d := range l.runDays {
		// Buckets whose samples expired are what they are.
		whole, before := d.day >= floor && c.has(d.day), d.day > floor && c.has(d.day-1)
		if !whole && !before {
			continue
		}
		slots := uint8(format.SlotsPerDay)
		if !whole {
			slots = 1
		}
		for metric, at := range metrics {
			for _, g := range d.generations {
				for slot := range slots {
					prefix := format.AppendHotPrefix(nil, d.day, g, slot, metric)
					err := s.eachRun(&l, prefix, at, func(ref uint32) {
						if whole {
							c.staleOn(d.day).Add(ref)
						}
						if before && slot == 0 {
							c.staleOn(d.day - 1).Add(ref)
						}
					})
					if err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// eachRun calls f for the set's series that have runs under the prefix.
func (s *ArchivedSet) eachRun(l *loader, prefix []byte, at []int32, f func(ref uint32)) error {
	end := format.PrefixEnd(prefix)
	for l.it.Seek(prefix); l.it.Valid() && slices.Compare(l.it.Key(), end) < 0; l.it.Next() {
		if err := l.breathe(); err != nil {
			return err
		}
		k, err := format.ParseHotKey(l.it.Key())
		if err != nil {
			return err
		}
		_, ok := slices.BinarySearchFunc(at, k.Ref, func(i int32, ref format.Ref) int {
			if s.named[i].ref < ref {
				return -1
			}
			if s.named[i].ref > ref {
				return 1
			}
			return 0
		})
		if ok && k.Ref <= math.MaxUint32 {
			f(uint32(k.Ref))
		}
	}
	return l.it.Err()
}

// Covered appends the stretches of time, each later than from up to and including to, of which
// Buckets of the resolution in ms are complete: ascending and disjoint. In them a bucket
// that is missing has no samples.
func (s *ArchivedSeries) Covered(resolutionMillis int64, f func(from, to int64)) error {
	s.set.mu.Lock()
	c, err := s.set.cover(uint32(resolutionMillis))
	s.set.mu.Unlock()
	if err != nil {
		return err
	}
	own := &s.set.named[s.index]
	if s.late == nil {
		s.late = s.set.v.lateInMemory(own.ref)
	}
	masks := s.set.v.masks.of(own.ref)
	since := s.rolledSince(uint32(resolutionMillis))
	var from, to int64
	for _, day := range c.days {
		if day < since {
			continue
		}
		if s.late[day] || c.stale[day] != nil && c.stale[day].Contains(uint32(own.ref)) || masks.touch(day) && day >= own.since {
			continue
		}
		if from < to && to == day.StartMillis() {
			to = day.EndMillis()
			continue
		}
		if from < to {
			f(from, to)
		}
		from, to = day.StartMillis(), day.EndMillis()
	}
	if from < to {
		f(from, to)
	}
	return nil
}

// lateInMemory returns the days on which the series has samples in open runs, and days before
// those of which the first millisecond may have one.
func (v *view) lateInMemory(ref format.Ref) map[format.Day]bool {
	late := map[format.Day]bool{}
	var pieces []chunk.Piece
	if replayed := v.a.replayed.Load(); replayed != nil {
		pieces = replayed.appendPieces(pieces, ref, v.epoch, nil)
	}
	pieces = v.a.live.appendPieces(pieces, ref, v.epoch, nil)
	for i := range pieces {
		p := &pieces[i]
		for d := max(dayOfEnd(p.MinMillis), v.kept.floors.Of(0)); d <= format.DayOf(p.MaxMillis); d++ {
			late[d] = true
		}
	}
	return late
}

// runSampleBytes is about what a sample takes in a run, at least.
const runSampleBytes = 2

// SamplesBetween returns about how many samples lie on the days from mint to maxt, of all series.
// Those that are in memory are missing.
func (v *view) SamplesBetween(mint, maxt int64) int64 {
	days, err := v.a.Days()
	if err != nil {
		return math.MaxInt64 / 2 // It isn't known: many.
	}
	first, last := format.DayOf(format.ClampTime(mint)), format.DayOf(format.ClampTime(maxt))
	n := int64(0)
	for _, d := range days {
		if d.Day >= first && d.Day <= last {
			n += int64(d.Samples) + int64(d.RunBytes)/runSampleBytes
		}
	}
	return n
}
