package archive

import (
	"errors"
	"fmt"
	"math"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
)

func (c *checker) actives() error {
	err := c.walk(format.FamilyActive, func(key, value []byte) error {
		day, high, err := format.ParseActiveKey(key)
		if err != nil {
			return err
		}
		if day < c.floors.Series {
			return nil
		}
		set := c.active[day]
		if set == nil {
			set = roaring.New()
			c.active[day] = set
		}
		return addContainer(set, value, high)
	})
	for _, set := range c.active {
		set.RunOptimize()
	}
	for day, set := range c.data {
		missing := roaring.AndNot(set, union(c.active[day], c.journal[day]))
		for _, ref := range missing.ToArray() {
			c.fault(format.FamilyActive, format.AppendDayPrefix(nil, day), "series %d has samples on the day but is not active there", ref)
		}
	}
	for day, set := range c.active {
		if day < c.floors.Of(0) {
			continue // Only buckets are left of the day.
		}
		stale := roaring.AndNot(set, union(c.data[day], c.journal[day]))
		if gone := c.gone[day]; gone != nil {
			stale.AndNot(gone) // Of these too.
		}
		c.n.Stale += int(stale.GetCardinality())
	}
	return err
}

func union(x, y *roaring.Bitmap) *roaring.Bitmap {
	u := roaring.New()
	for _, b := range []*roaring.Bitmap{x, y} {
		if b != nil {
			u.Or(b)
		}
	}
	return u
}

// postings holds the index of each month against the series that are active in it, month by month.
func (c *checker) postings() error {
	months, allowed := map[format.Month]*roaring.Bitmap{}, map[format.Month]*roaring.Bitmap{}
	for day, set := range c.active {
		m := day.Month()
		months[m] = union(months[m], set)
		allowed[m] = union(allowed[m], set)
	}
	// A flush writes postings before activity, and a kill may come between them: the
	// journal then still has what makes the series active.
	for day, set := range c.journal {
		m := day.Month()
		allowed[m] = union(allowed[m], set)
	}
	// count has in how many postings of the month each series is. Months come one after the other.
	var count pages
	month := format.Month(math.MinInt16)
	var failed error
	finish := func() error {
		set := months[month]
		delete(months, month)
		if set == nil {
			count = nil
			return nil
		}
		err := c.countPairs(month, set, count)
		count = nil
		return err
	}
	err := c.walk(format.FamilyIndex, func(key, value []byte) error {
		m, pair, high, err := format.ParseIndexKey(key)
		if err != nil {
			return err
		}
		if m < c.floors.Series.Month() {
			return nil
		}
		if m != month {
			failed = errors.Join(failed, finish())
			month = m
		}
		if !c.pairs.Contains(uint32(pair)) {
			return fmt.Errorf("names label pair %d, which does not exist", pair)
		}
		set := roaring.New()
		if err := addContainer(set, value, high); err != nil {
			return err
		}
		if unknown := roaring.AndNot(set, c.series); !unknown.IsEmpty() {
			return fmt.Errorf("names series %d, which does not exist", unknown.Minimum())
		}
		for _, ref := range set.ToArray() {
			// Of the month that was cut in two nobody knows who was active before.
			if m != c.floors.Series.Month() && (allowed[m] == nil || !allowed[m].Contains(ref)) {
				return fmt.Errorf("names series %d, which is not active in the month", ref)
			}
			count.set(ref, count.get(ref)+1)
		}
		return nil
	})
	err = errors.Join(err, failed, finish())
	// Those that have no postings at all.
	for m, set := range months {
		err = errors.Join(err, c.countPairs(m, set, nil))
	}
	return err
}

// countPairs checks that each series is in the postings of all its pairs: since a
// posting of a pair that the series lacks would make up for one that is missing, the
// pairs themselves are compared where the numbers agree.
func (c *checker) countPairs(m format.Month, set *roaring.Bitmap, count pages) error {
	var s format.Series
	for it := set.Iterator(); it.HasNext() && c.ended == nil; {
		ref := it.Next()
		v, ok, err := c.db.Get(family(format.FamilySeries), format.AppendUint64(nil, uint64(ref)), c.value[:0])
		if err != nil {
			return err
		}
		c.value = v
		if !ok {
			c.fault(format.FamilyActive, nil, "month %d names series %d, which does not exist", m, ref)
			continue
		}
		if err := s.Parse(v); err != nil {
			continue // Reported with the series.
		}
		if int(count.get(ref)) != len(s.Pairs) {
			c.fault(format.FamilyIndex, format.AppendMonthPrefix(nil, m), "series %d is in %d postings of the month, it has %d labels", ref, count.get(ref), len(s.Pairs))
			continue
		}
		for _, pair := range s.Pairs {
			if err := c.posted(m, pair, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) posted(m format.Month, pair format.PairID, ref uint32) error {
	key := format.AppendIndexKey(nil, m, pair, uint64(ref>>16))
	v, ok, err := c.db.Get(family(format.FamilyIndex), key, nil)
	if err != nil {
		return err
	}
	if !c.breathe(len(v)) {
		return nil
	}
	set := roaring.New()
	if ok {
		if err := addContainer(set, v, uint64(ref>>16)); err != nil {
			return nil // Reported by the walk over the family.
		}
	}
	if !set.Contains(ref) {
		c.fault(format.FamilyIndex, key, "lacks series %d, which has the label", ref)
	}
	return nil
}
