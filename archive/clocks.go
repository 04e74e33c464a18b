package archive

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// clockName names a clock among those of all raw days.
type clockName struct {
	day format.Day
	id  chunk.ClockID
}

// clockID is how bundles name a clock of their day.
func clockID(g format.GroupID, ordinal uint16) chunk.ClockID {
	return chunk.ClockID(g)<<16 | chunk.ClockID(ordinal)
}

func clockKey(n clockName) format.ClockKey {
	return format.ClockKey{Window: n.day, Group: format.GroupID(n.id >> 16), Ordinal: uint16(n.id)}
}

// clockOverheadBytes is what an entry of the clock cache takes besides its times.
const clockOverheadBytes = 96

// clockCache keeps decoded clocks. A clock never changes, so it needs no snapshot.
type clockCache struct {
	times        *genCache[clockName, []int64]
	hits, misses prometheus.Counter
}

func newClockCache(bytesMax int) clockCache {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "varve", Subsystem: "archive", Name: name, Help: help})
	}
	return clockCache{
		times:  newGenCache[clockName](bytesMax, func(times []int64) int { return 8*cap(times) + clockOverheadBytes }),
		hits:   counter("clock_cache_hits_total", "Shared timestamps of sealed series that were found decoded."),
		misses: counter("clock_cache_misses_total", "Shared timestamps of sealed series that were read and decoded."),
	}
}

// clockReader reads the clocks of one day through a cache. Safe for use by several goroutines.
type clockReader struct {
	day   format.Day
	cache *clockCache
	// get reads a record of the clocks family.
	get func(key []byte) (value []byte, ok bool, err error)
}

func (a *Archive) clockReader(day format.Day, snap *rocks.Snapshot) *clockReader {
	return &clockReader{day: day, cache: &a.clocks, get: func(key []byte) ([]byte, bool, error) {
		return snap.Get(family(format.FamilyClocks), key, nil)
	}}
}

// piece describes a chunk of a bundle of the day.
func (r *clockReader) piece(b *chunk.Bundle, i int) chunk.Piece {
	sealed := &sealedChunk{Sealed: chunk.Sealed{Bundle: b, Chunk: i}}
	if id := b.Clock(i); id != chunk.NoClock {
		sealed.clock = dayClock{r, id}
		sealed.Clock = &sealed.clock
	}
	return chunk.Piece{Samples: b.Samples(i), MinMillis: r.day.StartMillis(), MaxMillis: r.day.EndMillis() - 1, Sealed: &sealed.Sealed}
}

// sealedChunk is what a piece points to, in one allocation.
type sealedChunk struct {
	chunk.Sealed
	clock dayClock
}

// dayClock is a clock of a day. It implements chunk.Clock.
type dayClock struct {
	reader *clockReader
	id     chunk.ClockID
}

// Times implements chunk.Clock.
func (c *dayClock) Times() ([]int64, error) { return c.reader.Times(c.id) }

// Times returns the times of a clock. They are shared and must not be changed.
func (r *clockReader) Times(id chunk.ClockID) ([]int64, error) {
	name := clockName{r.day, id}
	if times, ok := r.cache.times.get(name); ok {
		r.cache.hits.Inc()
		return times, nil
	}
	r.cache.misses.Inc()
	k := clockKey(name)
	key := k.Append(nil)
	value, ok, err := r.get(key)
	if err != nil {
		return nil, fmt.Errorf("read clock, key %x: %w", key, err)
	}
	if !ok {
		return nil, fmt.Errorf("%w: a sealed chunk of %s needs a clock that is missing, family clocks, key %x; run `varve check data`", format.ErrCorrupt, Date(r.day), key)
	}
	times, err := chunk.ParseClock(key, value, nil)
	if err != nil {
		return nil, fmt.Errorf("clock in family clocks, key %x: %w; run `varve check data`", key, err)
	}
	r.cache.times.put(name, times)
	return times, nil
}

// clockBook finds, while a day is sealed, a clock of the group for each series, and
// makes new ones. Content decides, hashes only say where to look.
type clockBook struct {
	db    *rocks.DB
	day   format.Day
	batch *rocks.Batch

	groups map[format.GroupID][]*bookedClock
	// fresh is, unless nil, the first ordinal that was made for each group.
	fresh map[format.GroupID]uint16
	// coded and decoded are the bytes of clocks held in either form.
	coded, decoded int
	made           int
	buffer         []byte
}

type bookedClock struct {
	ordinal     uint16
	samples     int
	first, last int64
	hash        uint64
	uses        int
	value       []byte
	times       []int64 // nil when not decoded
}

const (
	// bookBytesMax bounds each form of the clocks that a sealing holds.
	bookBytesMax = 96 << 20
	// A clock costs a record, so few times are kept inline, and a group whose series
	// share nothing stops making clocks.
	clockSamplesMin   = 16
	clocksPerGroupMax = 1 << 12
	// presenceTries is how many clocks are tried for a series that has only some of the times.
	presenceTries = 4
)

// find returns a clock of the group that has all the times, and its times; NoClock if
// it is better to keep the times with the series.
func (b *clockBook) find(g format.GroupID, times []int64) (chunk.ClockID, []int64, error) {
	clocks, err := b.load(g)
	if err != nil {
		return chunk.NoClock, nil, err
	}
	if len(clocks) > 0 && slices.Equal(clocks[0].times, times) {
		clocks[0].uses++
		return clockID(g, clocks[0].ordinal), clocks[0].times, nil
	}
	hash := hashTimes(times)
	for _, c := range clocks {
		if c.hash != hash || c.samples != len(times) {
			continue
		}
		own, err := b.times(g, c)
		if err != nil {
			return chunk.NoClock, nil, err
		}
		if slices.Equal(own, times) {
			c.uses++
			return clockID(g, c.ordinal), own, nil
		}
	}
	var bestTimes []int64
	best, bestRuns := (*bookedClock)(nil), len(times)/8+1
	if !slices.IsSortedFunc(clocks, byUses) {
		slices.SortStableFunc(clocks, byUses)
	}
	for i, c := range clocks {
		if i == presenceTries {
			break
		}
		if c.samples < len(times) || c.first > times[0] || c.last < times[len(times)-1] {
			continue
		}
		own, err := b.times(g, c)
		if err != nil {
			return chunk.NoClock, nil, err
		}
		if runs, ok := presentRuns(own, times, bestRuns); ok && runs < bestRuns {
			best, bestTimes, bestRuns = c, own, runs
		}
	}
	switch {
	case best != nil:
		best.uses++
		return clockID(g, best.ordinal), bestTimes, nil
	case len(times) < clockSamplesMin || len(clocks) >= clocksPerGroupMax:
		return chunk.NoClock, nil, nil
	}
	next := 0
	for _, c := range clocks {
		next = max(next, int(c.ordinal)+1)
	}
	c := b.make(g, next, times, hash)
	return clockID(g, c.ordinal), c.times, nil
}

// presentRuns counts the stretches of the clock that times consist of. ok is false when a
// time is none of the clock's, or there are more than most.
func presentRuns(clock, times []int64, most int) (runs int, ok bool) {
	at := 0
	for i := 0; i < len(times); {
		n, found := slices.BinarySearch(clock[at:], times[i])
		if !found {
			return 0, false
		}
		at += n
		if runs++; runs > most {
			return 0, false
		}
		for i < len(times) && at < len(clock) && clock[at] == times[i] {
			i, at = i+1, at+1
		}
	}
	return runs, true
}

// byUses brings the clocks that serve most series to the front.
func byUses(x, y *bookedClock) int { return cmp.Compare(y.uses, x.uses) }

func hashTimes(times []int64) uint64 {
	h := uint64(len(times))
	for _, t := range times {
		h = (h ^ uint64(t)) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}

// make adds a clock to the group and to the batch.
func (b *clockBook) make(g format.GroupID, ordinal int, times []int64, hash uint64) *bookedClock {
	b.makeRoom()
	c := &bookedClock{
		ordinal: uint16(ordinal), samples: len(times), first: times[0], last: times[len(times)-1],
		hash: hash, uses: 1, times: slices.Clone(times),
	}
	k := clockKey(clockName{b.day, clockID(g, c.ordinal)})
	key := k.Append(nil)
	b.buffer = chunk.AppendClock(b.buffer[:0], key, times)
	c.value = slices.Clone(b.buffer)
	b.batch.Put(family(format.FamilyClocks), key, c.value)
	b.made++
	if b.fresh != nil {
		if _, ok := b.fresh[g]; !ok {
			b.fresh[g] = c.ordinal
		}
	}
	b.groups[g] = append(b.groups[g], c)
	b.coded += len(c.value)
	b.decoded += 8 * len(c.times)
	return c
}

// load returns the group's clocks, those that serve most series first as far as it is known.
func (b *clockBook) load(g format.GroupID) ([]*bookedClock, error) {
	if clocks, ok := b.groups[g]; ok {
		return clocks, nil
	}
	prefix := format.AppendClockPrefix(nil, 0, b.day, g)
	it := b.db.NewIterator(family(format.FamilyClocks), rocks.IterOptions{Lower: prefix, Upper: format.PrefixEnd(prefix), NoFillCache: true})
	defer it.Close()
	clocks := []*bookedClock{}
	for it.SeekToFirst(); it.Valid(); it.Next() {
		k, err := format.ParseClockKey(it.Key())
		if err != nil {
			return nil, err
		}
		times, err := chunk.ParseClock(it.Key(), it.Value(), nil)
		if err != nil {
			return nil, fmt.Errorf("clock in family clocks, key %x: %w; run `varve check data`", it.Key(), err)
		}
		clocks = append(clocks, &bookedClock{
			ordinal: k.Ordinal, samples: len(times), first: times[0], last: times[len(times)-1],
			hash: hashTimes(times), value: slices.Clone(it.Value()),
		})
		b.coded += len(it.Value())
	}
	b.groups[g] = clocks
	return clocks, it.Err()
}

// times decodes a clock, and forgets others when too many are decoded.
func (b *clockBook) times(g format.GroupID, c *bookedClock) ([]int64, error) {
	if c.times != nil {
		return c.times, nil
	}
	b.makeRoom()
	k := clockKey(clockName{b.day, clockID(g, c.ordinal)})
	var err error
	if c.times, err = chunk.ParseClock(k.Append(nil), c.value, make([]int64, 0, c.samples)); err != nil {
		return nil, fmt.Errorf("clock of group %d on %s: %w; run `varve check data`", g, Date(b.day), err)
	}
	b.decoded += 8 * len(c.times)
	return c.times, nil
}

// makeRoom forgets the decoded times of all clocks when they are too many.
func (b *clockBook) makeRoom() {
	if b.decoded <= bookBytesMax {
		return
	}
	for _, clocks := range b.groups {
		for _, c := range clocks {
			c.times = nil
		}
	}
	b.decoded = 0
}

// full tells that the book should begin anew once its batch is written: then it reads
// what it needs from disk.
func (b *clockBook) full() bool { return b.coded > bookBytesMax }

func (b *clockBook) forget() {
	clear(b.groups)
	b.coded, b.decoded = 0, 0
}
