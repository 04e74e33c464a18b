package chunk

import (
	"encoding/binary"
	"fmt"
	"slices"

	"varve/archive/chunk/ints"
)

// RollupClock is what the buckets of series that are scraped together share: where they end
// and how many samples at which times are in them. The slices are as long as each other.
type RollupClock struct {
	// Ends are the ends of the buckets, Unix ms, inclusive, ascending strictly.
	Ends []int64
	// Counts are the numbers of samples, 0 or more.
	Counts []int64
	// FirstMillis and LastMillis are the times of the first and last sample of each bucket;
	// 0 without samples, equal with one.
	FirstMillis, LastMillis []int64
}

// Equal reports whether two clocks are the same.
func (c *RollupClock) Equal(o *RollupClock) bool {
	return slices.Equal(c.Ends, o.Ends) && slices.Equal(c.Counts, o.Counts) &&
		slices.Equal(c.FirstMillis, o.FirstMillis) && slices.Equal(c.LastMillis, o.LastMillis)
}

// resize makes the clock one of n rows of any content.
func (c *RollupClock) resize(n int) {
	c.Ends, c.Counts = slices.Grow(c.Ends[:0], n)[:n], slices.Grow(c.Counts[:0], n)[:n]
	c.FirstMillis, c.LastMillis = slices.Grow(c.FirstMillis[:0], n)[:n], slices.Grow(c.LastMillis[:0], n)[:n]
}

// check tells what is wrong with the rows: nothing that a roll-up makes.
func (c *RollupClock) check(w RollupWindow) error {
	n := len(c.Ends)
	if n == 0 || n > RollupRowsMax || len(c.Counts) != n || len(c.FirstMillis) != n || len(c.LastMillis) != n {
		return fmt.Errorf("rollup clock of %d, %d, %d and %d rows", n, len(c.Counts), len(c.FirstMillis), len(c.LastMillis))
	}
	for i, end := range c.Ends {
		if of, ok := w.endOf(end); !ok || of != end || i > 0 && end <= c.Ends[i-1] {
			return fmt.Errorf("bucket %d ends at %d", i, end)
		}
		if !c.isSound(w, i) {
			return fmt.Errorf("bucket %d up to %d has %d samples from %d to %d", i, end, c.Counts[i], c.FirstMillis[i], c.LastMillis[i])
		}
	}
	return nil
}

// isSound tells whether row i has times that lie in its bucket and fit its count.
func (c *RollupClock) isSound(w RollupWindow, i int) bool {
	first, last, end := c.FirstMillis[i], c.LastMillis[i], c.Ends[i]
	if c.Counts[i] == 0 {
		return first == 0 && last == 0
	}
	return c.Counts[i] > 0 && first > end-w.ResolutionMillis && last <= end && first <= last && (first == last) == (c.Counts[i] == 1)
}

// rollupTimesEncoder writes the times of series. The zero value is ready; it keeps its
// memory and belongs to one goroutine.
type rollupTimesEncoder struct {
	ints    ints.Encoder
	times   TimesEncoder
	list    []int64
	scratch []byte
}

// append writes all rows of a clock.
func (e *rollupTimesEncoder) append(dst []byte, c *RollupClock) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c.Ends)))
	e.scratch = e.ints.Append(e.scratch[:0], c.Counts)
	dst = append(binary.AppendUvarint(dst, uint64(len(e.scratch))), e.scratch...)
	e.scratch = e.times.Append(e.scratch[:0], e.timesOf(c, c.FirstMillis))
	dst = append(binary.AppendUvarint(dst, uint64(len(e.scratch))), e.scratch...)
	return e.times.Append(dst, e.timesOf(c, c.LastMillis))
}

// timesOf puts the buckets' ends in the place of times that aren't there, so that all of them
// ascend and tell their buckets.
func (e *rollupTimesEncoder) timesOf(c *RollupClock, times []int64) []int64 {
	e.list = append(e.list[:0], times...)
	for i, n := range c.Counts {
		if n == 0 {
			e.list[i] = c.Ends[i]
		}
	}
	return e.list
}

// appendSome writes which rows of a clock c has and what is different in them. It is false,
// and dst is as it was, if c has buckets that the clock hasn't.
func (e *rollupTimesEncoder) appendSome(dst []byte, w RollupWindow, clock, c *RollupClock) ([]byte, bool) {
	begin := len(dst)
	presence, ok := AppendPresence(e.scratch[:0], clock.Ends, c.Ends)
	e.scratch = presence
	if !ok {
		return dst, false
	}
	dst = append(binary.AppendUvarint(dst, uint64(len(presence))), presence...)
	at, next := 0, 0
	for i, end := range c.Ends {
		for clock.Ends[at] != end {
			at++
		}
		if c.Counts[i] == clock.Counts[at] && c.FirstMillis[i] == clock.FirstMillis[at] && c.LastMillis[i] == clock.LastMillis[at] {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(i-next))
		dst = binary.AppendUvarint(dst, uint64(c.Counts[i]))
		if c.Counts[i] > 0 {
			dst = binary.AppendUvarint(dst, uint64(end-c.FirstMillis[i]))
		}
		if c.Counts[i] > 1 {
			dst = binary.AppendUvarint(dst, uint64(end-c.LastMillis[i]))
		}
		next = i + 1
	}
	// A clock of one's own takes no more than this.
	const rowBytesMax = 16
	return dst, len(dst)-begin < rowBytesMax*len(c.Ends)
}

// rollupTimesDecoder reads the times of series. The zero value is ready; it keeps its memory
// and belongs to one goroutine.
type rollupTimesDecoder struct {
	times TimesDecoder
}

// decode reads all rows of a clock, which are all of src.
func (d *rollupTimesDecoder) decode(src []byte, w RollupWindow, c *RollupClock) error {
	r := runReader{rest: src}
	rows := r.uvarint()
	if r.broken || rows == 0 || rows > RollupRowsMax {
		return fmt.Errorf("%d rows: %w", rows, ErrCorrupt)
	}
	counts, firsts := r.bytes(r.uvarint()), r.bytes(r.uvarint())
	if r.broken {
		return fmt.Errorf("times cut short: %w", ErrCorrupt)
	}
	n := int(rows)
	c.resize(n)
	if err := d.times.decodeInts(counts, n, c.Counts); err != nil {
		return fmt.Errorf("counts: %w", err)
	}
	if err := d.times.Decode(firsts, n, c.FirstMillis); err != nil {
		return fmt.Errorf("first times: %w", err)
	}
	if err := d.times.Decode(r.rest, n, c.LastMillis); err != nil {
		return fmt.Errorf("last times: %w", err)
	}
	for i, first := range c.FirstMillis {
		end, ok := w.endOf(first)
		if c.Ends[i] = end; !ok || i > 0 && end <= c.Ends[i-1] {
			return fmt.Errorf("row %d begins at %d: %w", i, first, ErrCorrupt)
		}
		if c.Counts[i] == 0 && first == end && c.LastMillis[i] == end {
			c.FirstMillis[i], c.LastMillis[i] = 0, 0
		}
		if !c.isSound(w, i) {
			return fmt.Errorf("row %d has %d samples from %d to %d: %w", i, c.Counts[i], first, c.LastMillis[i], ErrCorrupt)
		}
	}
	return nil
}

// decodeSome reads which rows of the clock there are, and what is different in them.
func (d *rollupTimesDecoder) decodeSome(src []byte, w RollupWindow, clock, c *RollupClock) error {
	r := runReader{rest: src}
	runs := NewPresence(r.bytes(r.uvarint()), len(clock.Ends))
	c.resize(0)
	for first, end, ok := runs.Next(); ok; first, end, ok = runs.Next() {
		c.Ends, c.Counts = append(c.Ends, clock.Ends[first:end]...), append(c.Counts, clock.Counts[first:end]...)
		c.FirstMillis = append(c.FirstMillis, clock.FirstMillis[first:end]...)
		c.LastMillis = append(c.LastMillis, clock.LastMillis[first:end]...)
	}
	if err := runs.Err(); err != nil {
		return err
	}
	for next := uint64(0); len(r.rest) > 0; next++ {
		gap := r.uvarint()
		if gap >= uint64(len(c.Ends))-next {
			return fmt.Errorf("row %d of %d: %w", gap+next, len(c.Ends), ErrCorrupt)
		}
		next += gap
		end := c.Ends[next]
		c.Counts[next], c.FirstMillis[next], c.LastMillis[next] = int64(r.uvarint()), 0, 0
		if c.Counts[next] != 0 {
			c.FirstMillis[next] = end - int64(r.uvarint())
			c.LastMillis[next] = c.FirstMillis[next]
		}
		if c.Counts[next] > 1 {
			c.LastMillis[next] = end - int64(r.uvarint())
		}
		if r.broken || !c.isSound(w, int(next)) {
			return fmt.Errorf("row %d has %d samples: %w", next, c.Counts[next], ErrCorrupt)
		}
	}
	return nil
}

// AppendRollupClock appends the on-disk value of a clock to dst and returns the extended
// buffer. The clock must have a row at least, and rows as RollupClock says, whose buckets
// are of the window. The checksum covers key, which must be the key that the clock is
// stored under. Nothing is kept.
func AppendRollupClock(dst, key []byte, w RollupWindow, c *RollupClock) ([]byte, error) {
	if err := w.check(); err != nil {
		return dst, err
	}
	if err := c.check(w); err != nil {
		return dst, err
	}
	begin := len(dst)
	dst = new(rollupTimesEncoder).append(dst, c)
	return appendChecksum(dst, key, begin), nil
}

// ParseRollupClock makes c the clock that AppendRollupClock wrote, in c's memory. Errors wrap
// ErrCorrupt; c is then in disorder.
func ParseRollupClock(key, value []byte, w RollupWindow, c *RollupClock) error {
	if err := w.check(); err != nil {
		return fmt.Errorf("parse rollup clock: %w: %w", err, ErrCorrupt)
	}
	body, err := checkedBody(key, value)
	if err != nil {
		return fmt.Errorf("parse rollup clock: %w", err)
	}
	if err := new(rollupTimesDecoder).decode(body, w, c); err != nil {
		return fmt.Errorf("parse rollup clock: %w", err)
	}
	return nil
}
