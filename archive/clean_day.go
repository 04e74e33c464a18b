package archive

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// dayCleaner removes from one day what tombstones hide there.
type dayCleaner struct {
	bundler
	c      *cleaner
	stones []*stone // those on the day
	places map[*mask]int
	masks  *masks // theirs
	view   *view
	// metrics are the series by metric, both ascending.
	metrics []metricRefs

	pieces, shown, kept []chunk.Piece
	lost                chunk.Column
	// bytes were removed from runs and exemplars by the batch. before is the day's record as of
	// the last batch.
	bytes  int64
	before format.DayRecord
	// touched are the series of the batch that lose samples, early those of them that lose one at the very
	// start of the day: that belongs to the last bucket of the day before.
	touched, early *roaring.Bitmap
	// ended is set if a rule of retention removes series: those of which nothing is left.
	ended *roaring.Bitmap
	// runBytes and bundleBytes are what the day has lost until now.
	runBytes, bundleBytes int64
}

// metricRefs are series of one metric.
type metricRefs struct {
	metric format.PairID
	refs   []format.Ref
}

// day cleans one day.
func (c *cleaner) day(day format.Day) error {
	if err := c.eraseHidden(day); err != nil {
		return err
	}
	var stones []*stone
	for _, s := range c.stones {
		if s.mask.on(day) && s.record.CleanedBefore <= day {
			stones = append(stones, s)
		}
	}
	if day >= c.a.kept.floors.Load().Of(0) {
		return c.clean(day, stones, nil)
	}
	// The samples of the day have expired.
	if err := c.retractExpired(day, stones); err != nil {
		return err
	}
	for _, s := range stones {
		s.record.CleanedBefore = day + 1
	}
	return nil
}

// clean removes from a day what the stones hide there. Series without samples leave its index: if ended is not nil, those of
// these alone, and the stones are no tombstones but a rule of retention.
func (c *cleaner) clean(day format.Day, stones []*stone, ended *roaring.Bitmap) (err error) {
	d := dayCleaner{
		bundler: newBundler(c.a, day), c: c, stones: stones, places: map[*mask]int{}, touched: roaring.New(), early: roaring.New(), ended: ended,
	}
	d.full = func(format.PairID, format.Ref) error { return d.write(false) }
	var all []*mask
	for _, s := range stones {
		d.places[s.mask] = len(all)
		all = append(all, s.mask)
	}
	d.masks = newMasks(all, nil)
	if d.view, err = c.a.storedView(day.StartMillis(), day.EndMillis()-1); err != nil {
		return err
	}
	defer d.view.Close()
	d.record = c.a.days.record(day)
	d.before = d.record
	d.clocks = c.a.clockReader(day, d.view.snap)
	d.book = clockBook{db: c.a.db, day: day, batch: &d.batch, groups: map[format.GroupID][]*bookedClock{}}
	d.stepped = time.Now()
	sealed := d.record.Bytes
	for _, step := range []func() error{d.find, d.runs, d.bundles, d.exemplars, func() error { return d.write(false) }, d.retract, func() error { return d.write(true) }} {
		if err := step(); err != nil {
			return err
		}
	}
	// The engine keeps for a snapshot what it could free.
	if err := d.view.Close(); err != nil {
		return err
	}
	return d.free(sealed)
}

// find sets the series that the index has on the day.
func (d *dayCleaner) find() error {
	active, err := d.view.index().active(d.day, d.day+1)
	if err != nil {
		return err
	}
	set := roaring.And(d.masks.refsOn(d.day), active)
	byMetric := map[format.PairID][]format.Ref{}
	eachPage(set, func(first format.Ref) {
		if err != nil {
			return
		}
		err = d.a.cat.records(first, first+pageSize, func(ref format.Ref, s *format.Series) error {
			if set.Contains(uint32(ref)) {
				byMetric[s.Metric] = append(byMetric[s.Metric], ref)
			}
			return nil
		})
	})
	for _, id := range slices.Sorted(maps.Keys(byMetric)) {
		slices.Sort(byMetric[id])
		d.metrics = append(d.metrics, metricRefs{metric: id, refs: byMetric[id]})
	}
	return err
}

// iterator walks what the family has of the day.
func (d *dayCleaner) iterator(f format.Family) *rocks.Iterator {
	return d.a.db.NewIterator(family(f), rocks.IterOptions{
		Snapshot: d.view.snap, Lower: format.AppendDayPrefix(nil, d.day), Upper: format.AppendDayPrefix(nil, d.day+1), NoFillCache: true,
	})
}

// runs removes what is hidden of the runs that are read.
func (d *dayCleaner) runs() error {
	it := d.iterator(format.FamilyHot)
	defer it.Close()
	if it.SeekToFirst(); !it.Valid() {
		return it.Err()
	}
	generations := []format.Generation{d.record.Generation}
	if d.record.Folding {
		generations = append(generations, d.record.FoldedGeneration())
	}
	first, last := d.slots()
	for _, g := range generations {
		for slot := first; slot <= last; slot++ {
			for _, m := range d.metrics {
				key := format.HotKey{Day: d.day, Generation: g, Slot: slot, Metric: m.metric}
				if err := d.runsOf(it, key, m.refs); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// slots are those of the day that the masks reach.
func (d *dayCleaner) slots() (first, last uint8) {
	first = format.SlotsPerDay - 1
	for _, m := range d.masks.all {
		s := m.span(d.day)
		first, last = min(first, format.SlotOf(s.FromMillis)), max(last, format.SlotOf(s.ToMillis))
	}
	return first, last
}

// runsOf looks at the runs of some series in the slot and of the metric of key.
func (d *dayCleaner) runsOf(it *rocks.Iterator, key format.HotKey, refs []format.Ref) error {
	prefix := key
	near := nearMax
	for len(refs) > 0 {
		if near == nearMax {
			key.Ref, near = refs[0], 0
			it.Seek(key.Append(nil))
		}
		if !it.Valid() {
			return it.Err()
		}
		k, err := format.ParseHotKey(it.Key())
		if err != nil {
			return err
		}
		if k.Day != prefix.Day || k.Generation != prefix.Generation || k.Slot != prefix.Slot || k.Metric != prefix.Metric {
			return nil
		}
		for len(refs) > 0 && refs[0] < k.Ref {
			refs = refs[1:]
		}
		switch {
		case len(refs) == 0:
			return nil
		case refs[0] == k.Ref:
			near = 0
			if err := d.run(k, it.Key(), it.Value()); err != nil {
				return fmt.Errorf("run of series %d in family hot, key %x: %w; run `varve check data`", k.Ref, it.Key(), err)
			}
			if err := d.a.ended(d.c.ctx); err != nil {
				return err
			}
		default:
			near++
		}
		it.Next()
	}
	return nil
}

// run removes what is hidden of a run, under its key.
func (d *dayCleaner) run(k format.HotKey, key, value []byte) error {
	own := d.masks.of(k.Ref)
	if len(own.spans(d.day, k.Sequence)) == 0 {
		return nil
	}
	first, pieces, err := chunk.ParseRun(key, value, d.pieces[:0])
	if d.pieces = pieces; err != nil {
		return err
	}
	counts := make([]uint64, len(d.stones))
	touched := false
	d.kept = d.kept[:0]
	for i := range pieces {
		n, err := d.count(counts, k.Ref, pieces[i:i+1], k.Sequence)
		if err != nil {
			return err
		}
		if n == 0 {
			d.kept = append(d.kept, pieces[i])
			continue
		}
		touched = true
		d.shown = own.hide(d.shown[:0], pieces[i:i+1], k.Sequence)
		if err := d.column.Decode(d.shown, d.day.StartMillis(), d.day.EndMillis()-1); err != nil {
			return err
		}
		if d.kept, err = d.column.Recode(d.kept); err != nil {
			return err
		}
	}
	if !touched {
		return nil
	}
	d.bytes += int64(len(value))
	if len(d.kept) == 0 {
		d.bytes += int64(len(key))
		d.batch.Delete(family(format.FamilyHot), key)
	} else {
		d.value = chunk.AppendRun(d.value[:0], key, first, d.kept)
		d.bytes -= int64(len(d.value))
		d.batch.Put(family(format.FamilyHot), key, d.value)
	}
	d.c.report.Runs++
	d.removed(counts)
	return d.writeDue()
}

// count counts the samples of the pieces that are hidden, each for the first mask that hides it.
func (d *dayCleaner) count(counts []uint64, ref format.Ref, pieces []chunk.Piece, sequence format.Sequence) (n uint64, err error) {
	own := d.masks.of(ref)
	spans := own.spans(d.day, sequence)
	if len(spans) == 0 || len(pieces) == 0 {
		return 0, nil
	}
	if err := d.lost.Decode(pieces, spans[0].FromMillis, spans[len(spans)-1].ToMillis); err != nil {
		return 0, err
	}
	for _, t := range d.lost.Times {
		i := own.first(t, sequence)
		if i < 0 {
			continue
		}
		counts[d.places[own[i]]]++
		n++
		if t == d.day.StartMillis() {
			d.early.Add(uint32(ref))
		}
	}
	if n > 0 {
		d.touched.Add(uint32(ref))
	}
	return n, nil
}

// removed adds to what the batch removes.
func (d *dayCleaner) removed(counts []uint64) {
	for i, n := range counts {
		d.stones[i].samples += n
	}
}

// bundles rewrites the bundles that hold something hidden, without it.
func (d *dayCleaner) bundles() error {
	src := &sealSource{day: d.day, clocks: d.clocks, raw: d.iterator(format.FamilyRaw)}
	defer src.close()
	for _, m := range d.metrics {
		for refs := m.refs; len(refs) > 0; {
			bundles, _, err := src.take(m.metric, refs[0])
			if err != nil {
				return err
			}
			if len(bundles) == 0 {
				break
			}
			n := 0
			for n < len(refs) && refs[n] <= bundles[0].key.Last {
				n++
			}
			if err := d.rewrite(src, m.metric, bundles, refs[:n]); err != nil {
				return err
			}
			refs = refs[n:]
			if err := d.a.ended(d.c.ctx); err != nil {
				return err
			}
		}
	}
	return d.closeBundle(0)
}

// rewrite writes the bundles, which end with the same series, anew if some of the series lose samples.
func (d *dayCleaner) rewrite(src *sealSource, metric format.PairID, bundles []sealedBundle, refs []format.Ref) error {
	counts := make([]uint64, len(d.stones))
	total := uint64(0)
	for _, ref := range refs {
		d.pieces = d.pieces[:0]
		for i := range bundles {
			b := bundles[i].bundle
			for c, end := b.Find(uint64(ref)); c < end; c++ {
				d.pieces = append(d.pieces, d.clocks.piece(b, c))
			}
		}
		n, err := d.count(counts, ref, d.pieces, sealedSequence)
		if err != nil {
			return fmt.Errorf("series %d of metric %d: %w", ref, metric, err)
		}
		total += n
	}
	if total == 0 {
		return nil
	}
	// No new bundle may reach over bundles that stay as they are.
	series := sealSeries{metric: metric, replaced: bundles, edge: true}
	for ref, ok := src.pendingRef(); ok; ref, ok = src.pendingRef() {
		series.ref = ref
		d.pieces = src.sealed(d.pieces[:0], ref)
		d.shown = d.masks.of(ref).hide(d.shown[:0], d.pieces, sealedSequence)
		if err := d.series(&series, d.shown); err != nil {
			return fmt.Errorf("series %d of metric %d: %w", ref, metric, err)
		}
		if series.edge {
			// What was gathered before may have been written with the first series.
			d.removed(counts)
			d.c.report.Bundles += len(bundles)
		}
		series.replaced, series.edge = nil, false
	}
	return nil
}

// exemplars removes those that are hidden.
func (d *dayCleaner) exemplars() error {
	it := d.iterator(format.FamilyExemplars)
	defer it.Close()
	if it.SeekToFirst(); !it.Valid() {
		return it.Err()
	}
	for _, m := range d.metrics {
		for _, ref := range m.refs {
			if err := d.exemplarsOf(it, m.metric, ref); err != nil {
				return err
			}
		}
		if err := d.a.ended(d.c.ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *dayCleaner) exemplarsOf(it *rocks.Iterator, metric format.PairID, ref format.Ref) error {
	own := d.masks.of(ref)
	for it.Seek(format.AppendExemplarPrefix(nil, d.day, metric, ref)); it.Valid(); it.Next() {
		k, err := format.ParseExemplarKey(it.Key())
		if err != nil {
			return err
		}
		if k.Metric != metric || k.Ref != ref {
			return nil
		}
		i := own.first(k.TimeMillis, k.Sequence)
		if i < 0 {
			continue
		}
		d.batch.Delete(family(format.FamilyExemplars), it.Key())
		d.bytes += int64(len(it.Key()) + len(it.Value()))
		d.stones[d.places[own[i]]].exemplars++
		if err := d.writeDue(); err != nil {
			return err
		}
	}
	return it.Err()
}

// writeDue writes the batch if it is large or has gathered for long.
func (d *dayCleaner) writeDue() error {
	if d.batch.Bytes() < d.limits.batchBytes && time.Since(d.stepped) < sealStepMax {
		return nil
	}
	return d.write(false)
}

// write writes the batch with the counts of what it removes. done tells that nothing is left on the day.
func (d *dayCleaner) write(done bool) error {
	if d.batch.Len() == 0 && !done {
		return nil
	}
	if d.record != d.before {
		d.batch.Put(family(format.FamilyMeta), format.AppendDayName(nil, d.day), d.record.Append(nil))
	}
	if d.ended == nil {
		d.a.rolls.mark(&d.batch, d.day, d.touched)
		d.a.rolls.mark(&d.batch, d.day-1, d.early)
	}
	d.touched.Clear()
	d.early.Clear()
	bundleBytes := int64(d.before.Bytes) - int64(d.record.Bytes)
	d.share(d.bytes + bundleBytes)
	for _, s := range d.stones {
		if done {
			s.record.CleanedBefore = d.day + 1
		}
		if d.ended == nil {
			d.batch.Put(family(format.FamilyTombstones), s.id[:], s.record.Append(nil))
		}
	}
	if err := d.a.disk.check(); err != nil {
		return err
	}
	// What follows is synced in the end, and takes this with it.
	if err := d.a.db.Write(&d.batch, false); err != nil {
		d.a.state.failed(err)
		return err
	}
	d.batch.Reset()
	if d.record != d.before {
		d.a.days.set(d.day, d.record)
	}
	d.runBytes, d.bundleBytes = d.runBytes+d.bytes, d.bundleBytes+bundleBytes
	d.before, d.bytes = d.record, 0
	d.a.deletes.note(d.c.records()...)
	d.a.step("clean batch")
	return d.rest()
}

// rest lets others work.
func (d *dayCleaner) rest() (err error) {
	if d.c.pace != nil {
		err = d.c.pace(d.c.ctx, time.Since(d.stepped))
	}
	d.stepped = time.Now()
	return err
}

// share adds what the batch removes to the tombstones' records, the bytes by the number of
// samples and exemplars.
func (d *dayCleaner) share(bytes int64) {
	total := uint64(0)
	for _, s := range d.stones {
		total += s.samples + s.exemplars
	}
	d.c.report.Bytes += bytes
	left := bytes
	for i, s := range d.stones {
		part := left
		if own := s.samples + s.exemplars; i < len(d.stones)-1 {
			part = int64(float64(bytes) * float64(own) / float64(max(total, 1)))
		}
		left -= part
		s.record.Bytes += part
		s.record.Samples += s.samples
		s.record.Exemplars += s.exemplars
		d.c.report.Samples += s.samples
		d.c.report.Exemplars += s.exemplars
		s.samples, s.exemplars = 0, 0
	}
}

// freeShare is the part of a day's bytes that must have gone for the day to be compacted at once. What
// is less goes when the engine compacts the day of its own accord.
const freeShare = 20

// free gives the disk back what went. sealed is what the day's bundles took before.
func (d *dayCleaner) free(sealed uint64) error {
	lower, upper := format.AppendDayPrefix(nil, d.day), format.AppendDayPrefix(nil, d.day+1)
	for _, f := range []struct {
		family format.Family
		freed  int64
		before int64
	}{{format.FamilyRaw, d.bundleBytes, int64(sealed)}, {format.FamilyHot, d.runBytes, 0}} {
		if f.freed <= 0 {
			continue
		}
		if f.family == format.FamilyHot {
			sizes, err := d.a.db.ApproximateBytes(family(f.family), []rocks.Range{{Lower: lower, Upper: upper}})
			if err != nil {
				return err
			}
			f.before = int64(sizes[0])
		}
		if f.freed*freeShare < f.before {
			continue
		}
		if err := d.a.db.CompactRange(family(f.family), lower, upper); err != nil {
			return err
		}
	}
	return d.rest()
}
