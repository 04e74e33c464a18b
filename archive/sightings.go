package archive

import (
	"sync"
	"sync/atomic"

	"varve/archive/format"
)

// sightings remember where samples were seen on disk, so that a day that a query's range cuts
// needn't be read again to know which series have samples there. Only what was seen
// is kept, never that nothing was: a sample that is on disk stays there, whatever is written
// or sealed later, so a sighting cannot become untrue. Except by a delete, so each state of
// the masks has sightings of its own.
//
// Safe for use by several goroutines. A nil *sightings remembers nothing.
type sightings struct {
	days *genCache[seenKey, *seenPage]

	mu       sync.RWMutex // guards carriers
	carriers map[format.PairID]format.Ref
}

// seenPage has, for 256 neighbouring refs, the parts of a day in which a sample was seen: bit n for
// the n-th part, of which a day has 64.
type seenPage [pageSize]atomic.Uint64

type seenKey struct {
	day   format.Day
	first format.Ref // of the page
}

const (
	// partMillis is the length of a part: 22.5 min.
	partMillis = format.DayMillis / 64
	// seenPageBytes is a page with its entry in the cache.
	seenPageBytes = 8*pageSize + 64
	// sightingsBytes bounds the pages: 7,900 of them, or 2 million series on one day.
	sightingsBytes = 16 << 20
	// carriersMax bounds the remembered pairs, which take about 40 bytes each.
	carriersMax = 1 << 19
)

func newSightings() *sightings {
	return &sightings{
		days:     newGenCache[seenKey](sightingsBytes, func(*seenPage) int { return seenPageBytes }),
		carriers: map[format.PairID]format.Ref{},
	}
}

// page returns what was seen on a day of the series that neighbour a ref, nil if nothing was.
func (s *sightings) page(day format.Day, ref format.Ref) *seenPage {
	if s == nil {
		return nil
	}
	page, _ := s.days.get(seenKey{day, ref &^ (pageSize - 1)})
	return page
}

// see notes the parts of a day in which the series has samples on disk.
func (s *sightings) see(day format.Day, ref format.Ref, parts uint64) {
	if s == nil || parts == 0 {
		return
	}
	key := seenKey{day, ref &^ (pageSize - 1)}
	page, ok := s.days.get(key)
	if !ok {
		// Another goroutine's page may win; then this sighting is made again some time.
		page = new(seenPage)
		s.days.put(key, page)
	}
	page[ref-key.first].Or(parts)
}

// carrier returns a series that carries the pair, one that had samples in a range that was
// asked for.
func (s *sightings) carrier(id format.PairID) (format.Ref, bool) {
	if s == nil {
		return 0, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	ref, ok := s.carriers[id]
	return ref, ok
}

// carry notes that the series carries the pair.
func (s *sightings) carry(id format.PairID, ref format.Ref) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.carriers) >= carriersMax {
		clear(s.carriers)
	}
	s.carriers[id] = ref
}

// partOf is the bit of the part of the day that the time lies in, zero if it lies on another day.
func partOf(day format.Day, t int64) uint64 {
	at := t - day.StartMillis()
	if at < 0 || at >= format.DayMillis {
		return 0
	}
	return 1 << (at / partMillis)
}

// partsWithin are the bits of the parts of the day that lie wholly between mint and maxt, both
// inclusive and on the day.
func partsWithin(day format.Day, mint, maxt int64) uint64 {
	first := (mint - day.StartMillis() + partMillis - 1) / partMillis
	end := (maxt + 1 - day.StartMillis()) / partMillis
	if first >= end {
		return 0
	}
	// Shifting by 64 gives zero, so the whole day is 0 - 1.
	return 1<<uint(end) - 1<<uint(first)
}
