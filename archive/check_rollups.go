package archive

import (
	"fmt"
	"math"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rollup"
)

func (c *checker) rollRecord(key, value []byte) error {
	resolution, day, err := format.ParseRollName(key)
	if err != nil {
		return err
	}
	var r format.RollRecord
	if err := r.Parse(value); err != nil {
		return err
	}
	if day >= c.floors.Of(resolution) {
		c.rolls[rollKey{resolution, day}] = r
	}
	return nil
}

// rollClock checks what rollups share.
func (c *checker) rollClock(k format.ClockKey, key, value []byte) error {
	var clock chunk.RollupClock
	if err := chunk.ParseRollupClock(key, value, rollKey{k.Resolution, k.Window}.window(), &clock); err != nil {
		return err
	}
	if last := clock.Ends[len(clock.Ends)-1]; dayOfEnd(last) != k.Window {
		return fmt.Errorf("holds a bucket up to %d, outside of its day", last)
	}
	c.n.Clocks++
	return nil
}

// rollups decodes all buckets, and holds the number and the digest of their bundles against the
// record of the day.
func (c *checker) rollups() error {
	var (
		previous format.RollupKey
		b        chunk.Rollups
		decoder  chunk.RollupDecoder
		columns  rollup.Columns
	)
	found := map[rollKey]format.RollRecord{}
	each := func(key, value []byte) error {
		k, err := format.ParseRollupKey(key)
		if err != nil {
			return err
		}
		if k.Day < c.floors.Of(k.Resolution) {
			return nil
		}
		before := previous
		previous = k
		day := rollKey{k.Resolution, k.Day}
		r := found[day]
		defer func() { found[day] = r }()
		r.AddBundle(0, len(key)+len(value), bundleHash(key, value))
		if err := chunk.ParseRollups(key, value, uint64(k.Last), day.window(), &b); err != nil {
			return err
		}
		if before.Resolution == k.Resolution && before.Day == k.Day && before.Metric == k.Metric && format.Ref(b.Ref(0)) <= before.Last {
			return fmt.Errorf("begins with series %d, which the bundle before covers", b.Ref(0))
		}
		c.n.RollupBundles++
		for i := range b.Len() {
			n, err := c.rolled(day, k.Metric, &b, i, &decoder, &columns)
			if err != nil {
				return err
			}
			r.Buckets += uint64(n)
			c.n.Buckets += n
		}
		return nil
	}
	for _, f := range format.RollupFamilies() {
		err := c.walk(f, func(key, value []byte) error {
			if k, err := format.ParseRollupKey(key); err == nil && format.RollupFamily(k.Resolution) != f {
				return fmt.Errorf("rollups of %d ms belong into family %s", k.Resolution, format.FamilyNames[format.RollupFamily(k.Resolution)])
			}
			return each(key, value)
		})
		if err != nil {
			return err
		}
	}
	for k, want := range c.rolls {
		have := found[k]
		delete(found, k)
		if have.Bundles != want.Bundles || have.Bytes != want.Bytes || have.Digest != want.Digest || have.Buckets != want.Buckets {
			c.fault(format.RollupFamily(k.resolution), format.AppendRollupDay(nil, k.resolution, k.day), "%s at %d ms has %d bundles of %d bytes and %d buckets with digest %x, its record says %d of %d and %d with %x",
				Date(k.day), k.resolution, have.Bundles, have.Bytes, have.Buckets, have.Digest, want.Bundles, want.Bytes, want.Buckets, want.Digest)
		}
	}
	for k, have := range found {
		c.fault(format.RollupFamily(k.resolution), format.AppendRollupDay(nil, k.resolution, k.day), "%s at %d ms has %d bundles and no record", Date(k.day), k.resolution, have.Bundles)
	}
	return nil
}

// rolled decodes the buckets of one series.
func (c *checker) rolled(day rollKey, metric format.PairID, b *chunk.Rollups, i int, d *chunk.RollupDecoder, columns *rollup.Columns) (int, error) {
	ref := b.Ref(i)
	if err := c.ofMetric(format.Ref(ref), metric); err != nil {
		return 0, err
	}
	clock, err := readRollClock(c.rollClocks, rollClockName{day, b.Clock(i)}, func(key []byte) ([]byte, bool, error) {
		return c.db.Get(family(format.FamilyClocks), key, nil)
	})
	if err != nil {
		return 0, fmt.Errorf("series %d: %w", ref, err)
	}
	columns.Reset()
	all := chunk.RollupRange{FromMillis: math.MinInt64, ToMillis: math.MaxInt64, Columns: chunk.RollupAll}
	if _, err := d.Decode(b, i, clock, all, columns); err != nil {
		return 0, err
	}
	if n := columns.Len(); n == 0 || dayOfEnd(columns.Ends[0]) != day.day || dayOfEnd(columns.Ends[n-1]) != day.day {
		return 0, fmt.Errorf("series %d has no buckets, or some outside of the day", ref)
	}
	return columns.Len(), nil
}

// expired checks that the series exist of which a rule removed something.
func (c *checker) expired() error {
	return c.walk(format.FamilyExpired, func(key, value []byte) error {
		resolution, day, high, err := format.ParseDirtyKey(key)
		if err != nil || day < c.floors.Of(resolution) {
			return err
		}
		refs := roaring.New()
		if err := addContainer(refs, value, high); err != nil {
			return err
		}
		if unknown := roaring.AndNot(refs, c.series); !unknown.IsEmpty() {
			return fmt.Errorf("series %d has no record", unknown.Minimum())
		}
		if resolution == 0 {
			c.gone[day] = union(c.gone[day], refs)
		}
		return nil
	})
}

// dirty checks that what is to be rolled up anew was rolled up, and that the series exist.
func (c *checker) dirty() error {
	return c.walk(format.FamilyDirty, func(key, value []byte) error {
		resolution, day, high, err := format.ParseDirtyKey(key)
		if err != nil {
			return err
		}
		if day < c.floors.Of(resolution) {
			return nil
		}
		if _, ok := c.rolls[rollKey{resolution, day}]; !ok {
			return fmt.Errorf("%s was never rolled up at %d ms", Date(day), resolution)
		}
		refs := roaring.New()
		if err := addContainer(refs, value, high); err != nil {
			return err
		}
		if refs.AndNot(c.series); !refs.IsEmpty() {
			return fmt.Errorf("series %d has no record", refs.Minimum())
		}
		return nil
	})
}
