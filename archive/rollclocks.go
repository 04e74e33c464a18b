package archive

import (
	"fmt"
	"slices"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
	"varve/rollup"
)

// rollClockName names what the buckets of a group's series share on a day at a resolution.
type rollClockName struct {
	rollKey
	id chunk.ClockID
}

func (n rollClockName) key() []byte {
	k := format.ClockKey{Resolution: n.resolution, Window: n.day, Group: format.GroupID(n.id >> 16), Ordinal: uint16(n.id)}
	return k.Append(nil)
}

// window is the window of a day's rollups.
func (k rollKey) window() chunk.RollupWindow {
	return chunk.RollupWindow{StartMillis: k.day.StartMillis(), ResolutionMillis: int64(k.resolution)}
}

func newRollClockCache(bytesMax int) *rollClockCache {
	return newGenCache[rollClockName](bytesMax, func(c *chunk.RollupClock) int { return 32*cap(c.Ends) + clockOverheadBytes })
}

// rollClockCache keeps decoded clocks of rollups.
type rollClockCache = genCache[rollClockName, *chunk.RollupClock]

// rollClock returns a clock as the snapshot has it. It is shared and must not be changed; nil
// for NoClock.
func (a *Archive) rollClock(snap *rocks.Snapshot, n rollClockName) (*chunk.RollupClock, error) {
	return readRollClock(a.rollClocks, n, func(key []byte) ([]byte, bool, error) {
		return snap.Get(family(format.FamilyClocks), key, nil)
	})
}

// readRollClock reads a clock through a cache. get reads a record of the clocks family.
func readRollClock(cache *rollClockCache, n rollClockName, get func(key []byte) ([]byte, bool, error)) (*chunk.RollupClock, error) {
	if n.id == chunk.NoClock {
		return nil, nil
	}
	if c, ok := cache.get(n); ok {
		return c, nil
	}
	key := n.key()
	value, ok, err := get(key)
	if err != nil {
		return nil, fmt.Errorf("read clock, key %x: %w", key, err)
	}
	if !ok {
		return nil, fmt.Errorf("%w: rollups of %s need a clock that is missing, family clocks, key %x; run `varve check data`", format.ErrCorrupt, Date(n.day), key)
	}
	c := &chunk.RollupClock{}
	if err := chunk.ParseRollupClock(key, value, n.window(), c); err != nil {
		return nil, fmt.Errorf("clock in family clocks, key %x: %w; run `varve check data`", key, err)
	}
	cache.put(n, c)
	return c, nil
}

// rollBook finds, while a day is rolled up, a clock of the group for each series, and makes
// new ones.
type rollBook struct {
	db     *rocks.DB
	key    rollKey
	batch  *rocks.Batch
	groups map[format.GroupID][]*bookedRollClock
	rows   int // of all clocks held
	value  []byte
	own    chunk.RollupClock
}

type bookedRollClock struct {
	id    chunk.ClockID
	clock *chunk.RollupClock
	uses  int
}

const (
	// rollRowsMax bounds the clocks that a roll-up holds, in rows of 32 bytes.
	rollRowsMax = 2 << 20
	// A clock costs a record: a few rows are kept with their series, and a group whose series share
	// nothing stops making clocks.
	rollClockRowsMin     = 3
	rollClocksPerGroup   = 64
	rollClockDifferences = 8 // a part of so many rows may differ
)

// find returns a clock of the group that has all rows of the series, or nearly all, or NoClock.
func (b *rollBook) find(g format.GroupID, c *rollup.Columns) (chunk.ClockID, *chunk.RollupClock, error) {
	b.rowsOf(c)
	clocks, err := b.load(g)
	if err != nil {
		return chunk.NoClock, nil, err
	}
	for i, booked := range clocks {
		if booked.clock.Equal(&b.own) {
			booked.uses++
			if i > 0 && booked.uses > clocks[i-1].uses {
				clocks[i], clocks[i-1] = clocks[i-1], clocks[i]
			}
			return booked.id, booked.clock, nil
		}
	}
	for _, booked := range clocks[:min(len(clocks), presenceTries)] {
		if differingRows(booked.clock, &b.own, len(b.own.Ends)/rollClockDifferences) {
			return booked.id, booked.clock, nil
		}
	}
	if len(b.own.Ends) < rollClockRowsMin || len(clocks) >= rollClocksPerGroup {
		return chunk.NoClock, nil, nil
	}
	return b.make(g, clocks)
}

// rowsOf sets own to the rows of a series: those of its histograms if it has no floats.
func (b *rollBook) rowsOf(c *rollup.Columns) {
	o := &b.own
	o.Ends, o.Counts = append(o.Ends[:0], c.Ends...), append(o.Counts[:0], c.Counts...)
	o.FirstMillis, o.LastMillis = append(o.FirstMillis[:0], c.FirstMillis...), append(o.LastMillis[:0], c.LastMillis...)
	floats := slices.ContainsFunc(c.Counts, func(n int64) bool { return n > 0 })
	for i, n := range o.Counts {
		if n == 0 {
			o.FirstMillis[i], o.LastMillis[i] = 0, 0
		}
	}
	if floats {
		return
	}
	for i, at := range c.HistogramAt {
		h := &c.Histograms[i]
		o.Counts[at], o.FirstMillis[at], o.LastMillis[at] = h.Count, h.FirstMillis, h.LastMillis
	}
}

// differingRows tells whether the clock has all buckets of c and at most so many of them are others.
func differingRows(clock, c *chunk.RollupClock, most int) bool {
	at := 0
	for i, end := range c.Ends {
		for at < len(clock.Ends) && clock.Ends[at] < end {
			at++
		}
		if at == len(clock.Ends) || clock.Ends[at] != end {
			return false
		}
		if clock.Counts[at] != c.Counts[i] || clock.FirstMillis[at] != c.FirstMillis[i] || clock.LastMillis[at] != c.LastMillis[i] {
			if most--; most < 0 {
				return false
			}
		}
	}
	return true
}

// make adds the rows as a clock to the group and to the batch.
func (b *rollBook) make(g format.GroupID, clocks []*bookedRollClock) (chunk.ClockID, *chunk.RollupClock, error) {
	next := uint16(0)
	for _, c := range clocks {
		next = max(next, uint16(c.id)+1)
	}
	c := &bookedRollClock{id: clockID(g, next), uses: 1, clock: &chunk.RollupClock{
		Ends: slices.Clone(b.own.Ends), Counts: slices.Clone(b.own.Counts),
		FirstMillis: slices.Clone(b.own.FirstMillis), LastMillis: slices.Clone(b.own.LastMillis),
	}}
	key := rollClockName{b.key, c.id}.key()
	var err error
	if b.value, err = chunk.AppendRollupClock(b.value[:0], key, b.key.window(), c.clock); err != nil {
		return chunk.NoClock, nil, err
	}
	b.batch.Put(family(format.FamilyClocks), key, b.value)
	b.groups[g] = append(clocks, c)
	b.rows += len(c.clock.Ends)
	return c.id, c.clock, nil
}

// load returns the group's clocks.
func (b *rollBook) load(g format.GroupID) ([]*bookedRollClock, error) {
	if clocks, ok := b.groups[g]; ok {
		return clocks, nil
	}
	prefix := format.AppendClockPrefix(nil, b.key.resolution, b.key.day, g)
	it := b.db.NewIterator(family(format.FamilyClocks), rocks.IterOptions{Lower: prefix, Upper: format.PrefixEnd(prefix), NoFillCache: true})
	defer it.Close()
	clocks := []*bookedRollClock{}
	for it.SeekToFirst(); it.Valid(); it.Next() {
		k, err := format.ParseClockKey(it.Key())
		if err != nil {
			return nil, err
		}
		c := &bookedRollClock{id: clockID(k.Group, k.Ordinal), clock: &chunk.RollupClock{}}
		if err := chunk.ParseRollupClock(it.Key(), it.Value(), b.key.window(), c.clock); err != nil {
			return nil, fmt.Errorf("clock in family clocks, key %x: %w; run `varve check data`", it.Key(), err)
		}
		clocks = append(clocks, c)
		b.rows += len(c.clock.Ends)
	}
	b.groups[g] = clocks
	return clocks, it.Err()
}

// full tells that the book should begin anew once its batch is written.
func (b *rollBook) full() bool { return b.rows > rollRowsMax }

func (b *rollBook) forget() {
	clear(b.groups)
	b.rows = 0
}
