package chunk

import "github.com/prometheus/prometheus/tsdb/chunkenc"

// strips are decoded pieces before they are merged: parallel columns that hold one
// strip behind the other.
//
// Merging does not move samples. It yields segments, stretches of one strip, whose
// concatenation is the merged order:
//
//  1. a heap holds the strips by the time at their cursor, the latest arrival first
//     among equals;
//  2. the top strip goes on until the time of the next one in the heap: a segment;
//  3. strips with a sample at the time just taken step over it, since they arrived
//     earlier.
//
// Two neighbouring segments never continue each other, so that a segment's first
// sample does not follow, in the merged order, the sample that it follows in its piece.
type strips struct {
	times  []int64
	values []float64
	starts []int64              // as long as times if hasStarts
	kinds  []chunkenc.ValueType // as long as times if hasKinds
	rows   []int32              // likewise

	hasStarts, hasKinds bool

	strips     []strip // in order of arrival
	segments   []segment
	collisions []collision
	heap       []cursor
}

// strip is one piece's samples, or a stretch of them between some that are hidden.
type strip struct {
	arrival    int // index in the pieces
	begin, end int
	histogram  bool
	// severed tells that the sample before the strip is hidden, severedBehind that the one behind it is.
	severed, severedBehind bool
}

// segment is a stretch of a strip in the merged order.
type segment struct {
	strip      int
	begin, end int
}

// collision is two samples of the same time, of which the later arrival is kept.
type collision struct{ kept, lost int }

// cursor is where a strip stands in the merge.
type cursor struct {
	time    int64 // at position at
	strip   int
	at, end int
}

func (u *strips) reset() {
	u.times, u.values, u.starts = u.times[:0], u.values[:0], u.starts[:0]
	u.kinds, u.rows = u.kinds[:0], u.rows[:0]
	u.hasStarts, u.hasKinds = false, false
	u.strips, u.segments, u.heap, u.collisions = u.strips[:0], u.segments[:0], u.heap[:0], u.collisions[:0]
}

func (u *strips) bytes() int {
	return 8*(cap(u.times)+cap(u.values)+cap(u.starts)) + cap(u.kinds) + 4*cap(u.rows) +
		cap(u.strips)*32 + cap(u.segments)*24 + cap(u.heap)*32 + cap(u.collisions)*16
}

// pad brings the columns that a piece's decoder did not fill up to the length of the
// times.
func (u *strips) pad(kind chunkenc.ValueType) {
	for len(u.values) < len(u.times) {
		u.values = append(u.values, 0)
	}
	for u.hasStarts && len(u.starts) < len(u.times) {
		u.starts = append(u.starts, 0)
	}
	for u.hasKinds && len(u.kinds) < len(u.times) {
		u.kinds = append(u.kinds, kind)
	}
	for u.hasKinds && len(u.rows) < len(u.times) {
		u.rows = append(u.rows, -1)
	}
}

// merge fills the segments.
func (u *strips) merge() {
	for i := range u.strips {
		s := &u.strips[i]
		if s.begin == s.end {
			continue // Only a sealed piece can have none between mint and maxt.
		}
		u.heap = append(u.heap, cursor{time: u.times[s.begin], strip: i, at: s.begin, end: s.end})
	}
	for i := len(u.heap)/2 - 1; i >= 0; i-- {
		u.sink(i)
	}
	for len(u.heap) > 1 {
		top := &u.heap[0]
		next := u.heap[1].time
		if len(u.heap) > 2 {
			next = min(next, u.heap[2].time)
		}
		taken, kept := top.time, top.at
		end := top.at + 1
		if next > taken {
			end = top.at + seek(u.times[top.at:top.end], 0, next)
		}
		u.emit(segment{strip: top.strip, begin: top.at, end: end})
		u.advance(end)
		for len(u.heap) > 0 && u.heap[0].time == taken {
			u.collisions = append(u.collisions, collision{kept: kept, lost: u.heap[0].at})
			u.advance(u.heap[0].at + 1)
		}
	}
	if len(u.heap) == 1 {
		top := &u.heap[0]
		u.emit(segment{strip: top.strip, begin: top.at, end: top.end})
	}
}

// emit adds a segment, or lengthens the last one if it goes on there.
func (u *strips) emit(s segment) {
	if n := len(u.segments); n > 0 {
		last := &u.segments[n-1]
		if last.strip == s.strip && last.end == s.begin {
			last.end = s.end
			return
		}
	}
	u.segments = append(u.segments, s)
}

// advance moves the top strip's cursor to at and restores the heap.
func (u *strips) advance(at int) {
	top := &u.heap[0]
	if at < top.end {
		top.at, top.time = at, u.times[at]
	} else {
		last := len(u.heap) - 1
		u.heap[0] = u.heap[last]
		u.heap = u.heap[:last]
	}
	u.sink(0)
}

// before orders the heap.
func (c cursor) before(o cursor) bool {
	return c.time < o.time || c.time == o.time && c.strip > o.strip
}

func (u *strips) sink(i int) {
	for {
		first := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(u.heap); child++ {
			if u.heap[child].before(u.heap[first]) {
				first = child
			}
		}
		if first == i {
			return
		}
		u.heap[i], u.heap[first] = u.heap[first], u.heap[i]
		i = first
	}
}

// resumes reports whether segment i begins a histogram strip right behind the end of
// the histogram strip that arrived before it.
func (u *strips) resumes(i int) bool {
	s, previous := u.segments[i], u.segments[i-1]
	if s.begin != u.strips[s.strip].begin || previous.end != u.strips[previous.strip].end || u.strips[previous.strip].severedBehind {
		return false
	}
	for k := s.strip - 1; k >= 0; k-- {
		if u.strips[k].histogram {
			return k == previous.strip
		}
	}
	return false
}
