package archive

import (
	"fmt"
	"slices"

	"varve/archive/chunk"
	"varve/archive/format"
)

// sealedMetric reads the bundles that one metric's series are in. at are the series' places
// in out, by ref.
func (l *loader) sealedMetric(metric format.PairID, at []int32) error {
	last := format.DayOf(l.maxt)
	for day := format.DayOf(l.mint); day <= last; {
		key := format.RawKey{Day: day, Metric: metric, Last: l.out[at[0]].ref}
		l.raw.Seek(key.Append(nil))
		if !l.raw.Valid() {
			return l.raw.Err()
		}
		k, err := format.ParseRawKey(l.raw.Key())
		if err != nil {
			return err
		}
		if k.Day != day {
			// The metric may have bundles on that day, before the key that was met.
			day = k.Day
			continue
		}
		if shown := l.shown(day, at); k.Metric == metric && len(shown) > 0 && !l.v.isLeased(day) {
			if err := l.sealedDay(k, shown); err != nil {
				return err
			}
		}
		day++
	}
	return nil
}

// shown leaves out the series of which nothing that is sealed of the day can be seen.
func (l *loader) shown(day format.Day, at []int32) []int32 {
	if !l.masked {
		return at
	}
	mint, maxt := max(l.mint, day.StartMillis()), min(l.maxt, day.EndMillis()-1)
	return slices.DeleteFunc(slices.Clone(at), func(i int32) bool {
		return day < l.out[i].since || l.out[i].masks.hidesSealed(day, mint, maxt)
	})
}

// sealedDay reads the metric's bundles of the day of k, where the iterator stands.
func (l *loader) sealedDay(k format.RawKey, at []int32) error {
	clocks := l.v.a.clockReader(k.Day, l.v.snap)
	day, metric := k.Day, k.Metric
	for near := 0; k.Day == day && k.Metric == metric; {
		if err := l.breathe(); err != nil {
			return err
		}
		// What a series has in the bundles before is read.
		wanted := 0
		for wanted < len(at) && l.out[at[wanted]].ref <= k.Last {
			wanted++
		}
		if wanted > 0 && k.Day.StartMillis()+int64(k.From) <= l.maxt {
			if err := l.bundle(k, at[:wanted], clocks); err != nil {
				return err
			}
			near = 0
		}
		// A series cut into stretches has several bundles that end with its ref.
		stretch := k.Last
		if near++; near > nearMax && wanted < len(at) {
			near = 0
			next := format.RawKey{Day: day, Metric: metric, Last: l.out[at[wanted]].ref}
			l.raw.Seek(next.Append(nil))
		} else {
			l.raw.Next()
		}
		if !l.raw.Valid() {
			return l.raw.Err()
		}
		var err error
		if k, err = format.ParseRawKey(l.raw.Key()); err != nil {
			return err
		}
		if k.Last != stretch {
			if at = at[wanted:]; len(at) == 0 {
				return nil
			}
		}
	}
	return nil
}

// bundle reads the chunks of some series from the bundle that the iterator stands at.
func (l *loader) bundle(k format.RawKey, at []int32, clocks *clockReader) error {
	b := &chunk.Bundle{}
	if err := chunk.ParseBundle(l.raw.Key(), l.keep(l.raw.Value()), uint64(k.Last), b); err != nil {
		return fmt.Errorf("bundle in family raw, key %x: %w; run `varve check data`", l.raw.Key(), err)
	}
	if err := l.take(len(l.raw.Value()) + b.Bytes()); err != nil {
		return err
	}
	l.read += len(l.raw.Value())
	for _, i := range at {
		s := &l.out[i]
		first, end := b.Find(uint64(s.ref))
		at := len(s.disk)
		for c := first; c < end; c++ {
			s.disk = append(s.disk, clocks.piece(b, c))
		}
		s.disk = s.masks.hide(s.disk[:at], s.disk[at:], sealedSequence)
		if err := l.take((end - first) * sealedPieceBytes); err != nil {
			return err
		}
	}
	return nil
}

// sealedPieceBytes is what the description of a sealed chunk takes.
const sealedPieceBytes = pieceBytes + 64
