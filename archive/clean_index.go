package archive

import (
	"fmt"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// retract takes the series without samples left on the day out of the index.
func (d *dayCleaner) retract() error {
	v, err := d.a.storedView(d.day.StartMillis(), d.day.EndMillis()-1)
	if err != nil {
		return err
	}
	defer v.Close()
	v.masks = nil // What other deletes hide is still there.
	v.bytesMax = math.MaxInt64
	rolled := roaring.New()
	if d.ended == nil {
		if rolled, err = d.rolled(v); err != nil {
			return err
		}
	}
	for _, m := range d.metrics {
		for refs := range slices.Chunk(m.refs, lookBatch) {
			left := make([]samples, len(refs))
			for i, ref := range refs {
				left[i].ref, left[i].metric = ref, m.metric
			}
			taken, err := v.fill(d.c.ctx, left, v.mint, v.maxt)
			v.forgetLoaded()
			v.bytes.Add(-int64(taken))
			if err != nil {
				return err
			}
			gone := refs[:0:0]
			for i := range left {
				if len(left[i].disk) == 0 && !rolled.Contains(uint32(left[i].ref)) && (d.ended == nil || d.ended.Contains(uint32(left[i].ref))) {
					gone = append(gone, left[i].ref)
				}
			}
			if err := d.a.retract(v, d.day, gone); err != nil {
				return err
			}
			d.a.step("retracted")
		}
	}
	return nil
}

// rolled returns those of the series that have buckets which stay though their samples of the day are gone: of the day, or
// one up to its first millisecond if the index doesn't have them on the day before.
func (d *dayCleaner) rolled(v *view) (*roaring.Bitmap, error) {
	out := roaring.New()
	before, err := v.index().active(d.day-1, d.day)
	if err != nil {
		return nil, err
	}
	for _, day := range []format.Day{d.day - 1, d.day} {
		for _, resolution := range d.a.rolls.resolutions {
			found, err := d.a.haveBuckets(v.snap, rollKey{resolution, day}, d.metrics)
			if err != nil {
				return nil, err
			}
			if day < d.day {
				found.AndNot(before)
			}
			out.Or(found)
		}
	}
	out.And(d.a.withoutRaw(d.day, out))
	return out, nil
}

// haveBuckets returns those of the series that have buckets.
func (a *Archive) haveBuckets(snap *rocks.Snapshot, k rollKey, metrics []metricRefs) (*roaring.Bitmap, error) {
	out := roaring.New()
	it := a.db.NewIterator(family(format.RollupFamily(k.resolution)), rocks.IterOptions{
		Snapshot: snap, Lower: format.AppendRollupDay(nil, k.resolution, k.day), Upper: format.AppendRollupDay(nil, k.resolution, k.day+1), NoFillCache: true,
	})
	defer it.Close()
	var b chunk.Rollups
	for _, m := range metrics {
		for refs := m.refs; len(refs) > 0; {
			key := format.RollupKey{Resolution: k.resolution, Day: k.day, Metric: m.metric, Last: refs[0]}
			it.Seek(key.Append(nil))
			if !it.Valid() {
				break
			}
			found, err := format.ParseRollupKey(it.Key())
			if err != nil {
				return nil, err
			}
			if found.Metric != m.metric {
				break
			}
			if err := chunk.ParseRollups(it.Key(), it.Value(), uint64(found.Last), k.window(), &b); err != nil {
				return nil, fmt.Errorf("bundle in family %s, key %x: %w; run `varve check data`", format.FamilyNames[format.RollupFamily(k.resolution)], it.Key(), err)
			}
			for ; len(refs) > 0 && refs[0] <= found.Last; refs = refs[1:] {
				if _, some := b.Find(uint64(refs[0])); some {
					out.Add(uint32(refs[0]))
				}
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// retractExpired takes the series of which no buckets are left out of the index of a day whose samples have expired.
func (c *cleaner) retractExpired(day format.Day, stones []*stone) error {
	d := dayCleaner{bundler: newBundler(c.a, day), c: c}
	var all []*mask
	for _, s := range stones {
		all = append(all, s.mask)
	}
	d.masks = newMasks(all, nil)
	v, err := c.a.storedView(day.StartMillis(), day.EndMillis()-1)
	if err != nil {
		return err
	}
	defer v.Close()
	d.view = v
	if err := d.find(); err != nil {
		return err
	}
	rolled, err := d.rolled(v)
	if err != nil {
		return err
	}
	for _, m := range d.metrics {
		gone := slices.DeleteFunc(m.refs, func(ref format.Ref) bool { return rolled.Contains(uint32(ref)) })
		if err := c.a.retract(v, day, gone); err != nil {
			return err
		}
	}
	return nil
}
