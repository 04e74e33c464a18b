package archive

import (
	"fmt"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/common/model"

	"varve/archive/format"
	"varve/rocks"
)

// sweep removes pairs that no series carries, the groups that they name, and metadata of metrics without series.
func (f *forgetter) sweep() error {
	a := f.a
	a.cat.beginSweep()
	defer a.cat.endSweep()
	used, err := f.usedPairs()
	if err != nil {
		return err
	}
	it := a.db.NewIterator(family(format.FamilySymbols), rocks.IterOptions{NoFillCache: true, ReadaheadBytes: 2 << 20})
	defer it.Close()
	var pairs []sweptPair
	for it.Seek(format.AppendPairKey(nil, 0)); it.Valid(); it.Next() {
		id, ok := format.ParsePairKey(it.Key())
		if !ok {
			break
		}
		if !used.Contains(uint32(id)) {
			name, value, err := format.ParsePair(it.Value())
			if err != nil {
				return fmt.Errorf("label pair %d: %w", id, err)
			}
			pairs = append(pairs, sweptPair{id, string(name), string(value)})
		}
		if len(pairs) == sweepBatch {
			if err := f.sweepPairs(pairs); err != nil {
				return err
			}
			pairs = pairs[:0]
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read label pairs: %w", err)
	}
	if err := f.sweepPairs(pairs); err != nil || f.report.Pairs == 0 {
		return err
	}
	if err := f.sweepGroups(used); err != nil {
		return err
	}
	return f.sweepMetadata()
}

type sweptPair struct {
	id          format.PairID
	name, value string
}

// beginSweep makes the catalogue note the pairs of series that are made from now on, and of those that are not durable.
func (c *catalogue) beginSweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = roaring.New()
	c.recentMu.RLock()
	defer c.recentMu.RUnlock()
	for _, s := range c.recent {
		for _, id := range s.record.Pairs {
			c.used.Add(uint32(id))
		}
	}
	for id := range c.recentPairs {
		c.used.Add(uint32(id))
	}
}

func (c *catalogue) endSweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = nil
}

// usedPairs returns the pairs of all series on disk.
func (f *forgetter) usedPairs() (*roaring.Bitmap, error) {
	it := f.a.db.NewIterator(family(format.FamilySeries), rocks.IterOptions{NoFillCache: true, ReadaheadBytes: 2 << 20})
	defer it.Close()
	seen := map[format.PairID]struct{}{}
	used := roaring.New()
	var s format.Series
	n := 0
	for it.SeekToFirst(); it.Valid(); it.Next() {
		if err := s.Parse(it.Value()); err != nil {
			return nil, fmt.Errorf("series key %x: %w", it.Key(), err)
		}
		for _, id := range s.Pairs {
			seen[id] = struct{}{}
		}
		// A bitmap costs more for each than a map, and less to keep.
		if len(seen) > scanRest {
			addPairs(used, seen)
		}
		if n++; n%scanRest == 0 {
			if err := f.rest(); err != nil {
				return nil, err
			}
		}
	}
	addPairs(used, seen)
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	return used, nil
}

func addPairs(used *roaring.Bitmap, seen map[format.PairID]struct{}) {
	for id := range seen {
		used.Add(uint32(id))
	}
	clear(seen)
}

// sweepPairs removes those of the pairs that no series was made with meanwhile.
func (f *forgetter) sweepPairs(pairs []sweptPair) error {
	if len(pairs) == 0 {
		return nil
	}
	c := f.a.cat
	err := func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		var b rocks.Batch
		n, bytes := uint64(0), uint64(0)
		for _, p := range pairs {
			if c.used.Contains(uint32(p.id)) {
				continue
			}
			byID, byText := format.AppendPairKey(nil, p.id), format.AppendTextKey(nil, p.name, p.value)
			b.Delete(family(format.FamilySymbols), byID)
			b.Delete(family(format.FamilySymbols), byText)
			n++
			bytes += uint64(len(byID) + len(byText) + 4 + len(format.AppendPair(nil, p.name, p.value)))
		}
		if n == 0 {
			return nil
		}
		if err := f.a.writeBatch(&b); err != nil {
			return err
		}
		c.forgetIDs(c.ids.Load().bytesMax)
		f.report.Pairs += n
		f.gone(format.FamilySymbols, bytes)
		return nil
	}()
	if err != nil {
		return err
	}
	f.a.step("pairs swept")
	return f.rest()
}

// sweepGroups removes the groups of which a pair is gone. Should the same texts come again they are other pairs, and another group.
func (f *forgetter) sweepGroups(used *roaring.Bitmap) error {
	c := f.a.cat
	lower, upper := format.SymbolGroups()
	it := c.db.NewIterator(family(format.FamilySymbols), rocks.IterOptions{Lower: lower, Upper: upper, NoFillCache: true})
	defer it.Close()
	var gone []groupKey
	for it.SeekToFirst(); it.Valid(); it.Next() {
		job, instance, ok := format.ParseGroupKey(it.Key())
		if !ok {
			return fmt.Errorf("%w: group key of %d bytes", ErrCorrupt, len(it.Key()))
		}
		if job != 0 && !used.Contains(uint32(job)) || instance != 0 && !used.Contains(uint32(instance)) {
			gone = append(gone, groupKey{job, instance})
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read groups: %w", err)
	}
	for some := range slices.Chunk(gone, sweepBatch) {
		if err := c.removeGroups(some, f.a.writeBatch); err != nil {
			return err
		}
		if err := f.rest(); err != nil {
			return err
		}
	}
	return nil
}

// removeGroups removes groups unless a series was made since the sweep began that has one of their pairs.
func (c *catalogue) removeGroups(groups []groupKey, write func(*rocks.Batch) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b rocks.Batch
	groups = slices.DeleteFunc(groups, func(k groupKey) bool { return c.used.Contains(uint32(k.job)) || c.used.Contains(uint32(k.instance)) })
	for _, k := range groups {
		b.Delete(family(format.FamilySymbols), format.AppendGroupKey(nil, k.job, k.instance))
	}
	if err := write(&b); err != nil {
		return err
	}
	for _, k := range groups {
		delete(c.groups, k)
	}
	return nil
}

// metricSuffixes are what names of series have behind the name of their metric family.
var metricSuffixes = []string{"", "_bucket", "_count", "_sum", "_total", "_created", "_info", "_gcount", "_gsum"}

// sweepMetadata removes what is known of metric families that have no series. A sender that tells it again is heard.
func (f *forgetter) sweepMetadata() error {
	s := f.a.metadata
	s.mu.RLock()
	families := slices.Collect(maps.Keys(s.latest))
	s.mu.RUnlock()
	now := f.a.o.Now()
	for _, name := range families {
		some := false
		for _, suffix := range metricSuffixes {
			id, err := f.a.cat.findPair(model.MetricNameLabel, name+suffix)
			if err != nil {
				return err
			}
			if some = id != 0; some {
				break
			}
		}
		if some {
			continue
		}
		n, err := s.forget(name, now.Add(-f.a.forgets.ageMin).UnixMilli(), f.a.writeBatch)
		if err != nil {
			return err
		}
		f.report.Metadata += n
		if err := f.a.ended(f.ctx); err != nil {
			return err
		}
	}
	return nil
}
