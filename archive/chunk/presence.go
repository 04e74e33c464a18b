package chunk

import (
	"encoding/binary"
	"fmt"
)

// AppendPresence appends to dst which of the times of a clock a series has, and returns
// the extended buffer. Both lists ascend strictly; times has at least one. It is false,
// and dst is as it was, if a time isn't one of the clock's.
//
// The form is a list of runs without a count: for each one a uvarint of how many times of
// the clock are missing before it and a uvarint of how many it has. A run up to the
// clock's end has 0 for the latter.
func AppendPresence(dst []byte, clock, times []int64) ([]byte, bool) {
	begin, end := len(dst), 0
	for i := 0; len(times) > 0; i++ {
		for i < len(clock) && clock[i] < times[0] {
			i++
		}
		first := i
		for i < len(clock) && len(times) > 0 && clock[i] == times[0] {
			times = times[1:]
			i++
		}
		if i == first {
			return dst[:begin], false
		}
		dst = binary.AppendUvarint(dst, uint64(first-end))
		if i == len(clock) {
			dst = append(dst, 0)
		} else {
			dst = binary.AppendUvarint(dst, uint64(i-first))
		}
		end = i
	}
	return dst, true
}

// Presence reads what AppendPresence wrote: the runs, as ranges of indexes of the clock.
// It allocates nothing. One goroutine at a time.
type Presence struct {
	rest  []byte
	clock int
	end   int
	err   error
}

// NewPresence reads from src, which has nothing behind the runs and is not kept longer
// than the Presence. clock is how many times the clock has.
func NewPresence(src []byte, clock int) Presence {
	p := Presence{rest: src, clock: clock}
	if len(src) == 0 {
		p.err = fmt.Errorf("no presence: %w", ErrCorrupt)
	}
	return p
}

// Next returns the next run: the index of its first time and that behind its last. ok is
// false behind the last run, and when Err is not nil. Runs are not empty, and ascend
// without touching.
func (p *Presence) Next() (first, end int, ok bool) {
	if len(p.rest) == 0 || p.err != nil {
		return 0, 0, false
	}
	gap, k := binary.Uvarint(p.rest)
	length, m := binary.Uvarint(p.rest[max(k, 0):])
	left := uint64(p.clock - p.end)
	if k <= 0 || m <= 0 || gap >= left || gap == 0 && p.end > 0 || length >= left-gap {
		p.err = fmt.Errorf("run of %d times, %d on, with %d left: %w", length, gap, left, ErrCorrupt)
		return 0, 0, false
	}
	p.rest = p.rest[k+m:]
	if length == 0 {
		length = left - gap
	}
	first = p.end + int(gap)
	p.end = first + int(length)
	return first, p.end, true
}

// Err says what is wrong with the runs; it wraps ErrCorrupt.
func (p *Presence) Err() error { return p.err }
