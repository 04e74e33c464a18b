package archive

import (
	"fmt"

	"varve/archive/chunk"
	"varve/archive/format"
)

func (c *checker) dayRecord(key, value []byte) error {
	day, err := format.ParseDayName(key)
	if err != nil {
		return err
	}
	var r format.DayRecord
	if err := r.Parse(value); err != nil {
		return err
	}
	if day >= c.floors.Of(0) {
		c.days[day] = r
	}
	return nil
}

func (c *checker) lease(key, value []byte) error {
	day, err := format.ParseLeaseName(key)
	if err != nil {
		return err
	}
	c.leased[day] = true
	_, err = format.ParseUint64(value)
	return err
}

// clocks checks every clock. One that no bundle names is no fault: late samples leave it behind.
func (c *checker) clocks() error {
	var times []int64
	return c.walk(format.FamilyClocks, func(key, value []byte) error {
		k, err := format.ParseClockKey(key)
		if err != nil {
			return err
		}
		if k.Window < c.floors.Of(k.Resolution) {
			return nil
		}
		if k.Resolution != 0 {
			return c.rollClock(k, key, value)
		}
		if times, err = chunk.ParseClock(key, value, times[:0]); err != nil {
			return err
		}
		if first, last := times[0], times[len(times)-1]; format.DayOf(first) != k.Window || format.DayOf(last) != k.Window {
			return fmt.Errorf("holds times from %d to %d, outside of its day", first, last)
		}
		c.n.Clocks++
		return nil
	})
}

// bundles decodes every sealed chunk and holds the number and the digest of the bundles
// against the record of their day.
func (c *checker) bundles() error {
	var (
		previous format.RawKey
		column   chunk.Column
		b        chunk.Bundle
	)
	err := c.walk(format.FamilyRaw, func(key, value []byte) error {
		k, err := format.ParseRawKey(key)
		if err != nil {
			return err
		}
		if k.Day < c.floors.Of(0) || c.leased[k.Day] {
			return nil
		}
		before := previous
		previous = k
		if set := c.data[before.Day]; before.Day != k.Day && set != nil {
			set.RunOptimize() // Nothing more comes of that day.
		}
		// Also a bundle with a fault is counted: the digest is about those that are there.
		found := c.sealed[k.Day]
		found.AddBundle(0, len(key)+len(value), bundleHash(key, value))
		c.sealed[k.Day] = found
		if err := chunk.ParseBundle(key, value, uint64(k.Last), &b); err != nil {
			return err
		}
		if same := before.Day == k.Day && before.Metric == k.Metric; same && before.Last != k.Last && format.Ref(b.Ref(0)) <= before.Last {
			return fmt.Errorf("begins with series %d, which the bundle before covers", b.Ref(0))
		}
		c.n.Bundles++
		samples, err := c.chunks(k, &b, &column)
		found = c.sealed[k.Day]
		found.Samples += uint64(samples)
		c.sealed[k.Day] = found
		return err
	})
	for day, r := range c.days {
		found := c.sealed[day]
		delete(c.sealed, day)
		if r.Bundles != found.Bundles || r.Digest != found.Digest || r.Bytes != found.Bytes {
			c.fault(format.FamilyRaw, format.AppendDayPrefix(nil, day), "%s has %d bundles of %d bytes with digest %x, its record says %d of %d with %x",
				Date(day), found.Bundles, found.Bytes, found.Digest, r.Bundles, r.Bytes, r.Digest)
		} else if r.Samples != found.Samples {
			c.fault(format.FamilyRaw, format.AppendDayPrefix(nil, day), "%s has %d samples, its record says %d", Date(day), found.Samples, r.Samples)
		}
	}
	for day, found := range c.sealed {
		c.fault(format.FamilyRaw, format.AppendDayPrefix(nil, day), "%s has %d bundles and no record", Date(day), found.Bundles)
	}
	return err
}

// chunks decodes the chunks of a bundle, series by series.
func (c *checker) chunks(k format.RawKey, b *chunk.Bundle, column *chunk.Column) (samples int, err error) {
	clocks := &clockReader{day: k.Day, cache: &c.clockCache, get: func(key []byte) ([]byte, bool, error) {
		return c.db.Get(family(format.FamilyClocks), key, nil)
	}}
	for i := 0; i < b.Len(); {
		ref := b.Ref(i)
		if err := c.ofMetric(format.Ref(ref), k.Metric); err != nil {
			return samples, err
		}
		var pieces []chunk.Piece
		for ; i < b.Len() && b.Ref(i) == ref; i++ {
			pieces = append(pieces, clocks.piece(b, i))
		}
		if err := column.Decode(pieces, format.MinTimeMillis, format.MaxTimeMillis); err != nil {
			return samples, fmt.Errorf("series %d: %w", ref, err)
		}
		if n := len(column.Times); n == 0 || format.DayOf(column.Times[0]) != k.Day || format.DayOf(column.Times[n-1]) != k.Day {
			return samples, fmt.Errorf("series %d has no samples, or some outside of the day", ref)
		}
		samples += len(column.Times)
		addTo(c.data, k.Day, uint32(ref))
	}
	c.n.Samples += samples
	return samples, nil
}
