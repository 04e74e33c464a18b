package chunk

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"varve/archive/chunk/ints"
)

// The times of a clock are one of these, whichever is smallest, after a byte that says
// which:
//
//	timesPlain   the times as a stream of integers
//	timesGrid    varint start | uvarint interval | jitters
//	timesGaps    varint start | uvarint interval | uvarint length | steps | jitters
//
// A grid has points start, start+interval, and so on. Each time has a point of its own:
// the next one in timesGrid, and in timesGaps the one that is as many steps on as the
// stream of steps says, one for each time but the first. What a time is after its point
// is its jitter, a stream with one for each time. docs/format/clock.md has all of it.
const (
	timesPlain = iota
	timesGrid
	timesGaps
)

// niceIntervals are what people set, in ms. An interval within a hundredth of a multiple
// of one of them is taken for that multiple, the largest first.
var niceIntervals = [...]int64{60_000, 30_000, 15_000, 10_000, 5_000, 1_000, 500, 100, 10}

// timesGridLenMin is the fewest times that can have an interval worth writing down.
const timesGridLenMin = 3

// TimesEncoder encodes the times of clocks. The zero value is ready; it keeps its memory,
// and belongs to one goroutine at a time.
type TimesEncoder struct {
	ints          ints.Encoder
	steps, jitter []int64
	sample        []int64
	plain, grid   []byte
}

// AppendTimes appends the byte form of times to dst and returns the extended buffer. times
// are Unix ms, ascend strictly and are at least one. They are not kept.
func AppendTimes(dst []byte, times []int64) []byte {
	return new(TimesEncoder).Append(dst, times)
}

// Append is AppendTimes.
func (e *TimesEncoder) Append(dst []byte, times []int64) []byte {
	e.plain = e.ints.Append(append(e.plain[:0], timesPlain), times)
	span := uint64(times[len(times)-1] - times[0])
	// Wider spans would let points and steps overflow, and aren't of any clock.
	if len(times) < timesGridLenMin || span > math.MaxInt64/4 {
		return append(dst, e.plain...)
	}
	e.appendGrid(times, e.interval(times))
	if len(e.grid) < len(e.plain) {
		return append(dst, e.grid...)
	}
	return append(dst, e.plain...)
}

// intervalSampleMax bounds how many differences the interval is the median of.
const intervalSampleMax = 255

// interval guesses the interval, at least 1 ms.
func (e *TimesEncoder) interval(times []int64) int64 {
	e.sample = e.sample[:0]
	stride := (len(times) + intervalSampleMax - 1) / intervalSampleMax
	for i := stride; i < len(times); i += stride {
		e.sample = append(e.sample, times[i]-times[i-1])
	}
	slices.Sort(e.sample)
	median := e.sample[len(e.sample)/2]
	for _, nice := range niceIntervals {
		multiple := (median + nice/2) / nice * nice
		if multiple > 0 && max(multiple-median, median-multiple) <= median/100 {
			return multiple
		}
	}
	return median
}

// appendGrid makes e.grid.
func (e *TimesEncoder) appendGrid(times []int64, interval int64) {
	e.steps, e.jitter = e.steps[:0], e.jitter[:0]
	gaps := false
	point := times[0]
	for i, t := range times {
		if i > 0 {
			// The nearest point. It may be the same again, if times are closer than usual.
			late := t - point + interval/2
			steps := late / interval
			if late%interval < 0 {
				steps--
			}
			gaps = gaps || steps != 1
			e.steps = append(e.steps, steps)
			point += steps * interval
		}
		e.jitter = append(e.jitter, t-point)
	}
	form := byte(timesGrid)
	if gaps {
		form = timesGaps
	}
	e.grid = binary.AppendVarint(append(e.grid[:0], form), times[0])
	e.grid = binary.AppendUvarint(e.grid, uint64(interval))
	if gaps {
		// The length goes before the stream once it is known.
		at := len(e.grid)
		e.grid = e.ints.Append(e.grid, e.steps)
		var length [binary.MaxVarintLen64]byte
		n := binary.PutUvarint(length[:], uint64(len(e.grid)-at))
		e.grid = slices.Insert(e.grid, at, length[:n]...)
	}
	e.grid = e.ints.Append(e.grid, e.jitter)
}

// TimesDecoder decodes the times of clocks. The zero value is ready; it keeps its memory,
// and belongs to one goroutine at a time.
type TimesDecoder struct {
	ints  ints.Decoder
	steps []int64
}

// Decode fills times with the first of the n times that src holds, n >= 1, and nothing
// else; len(times) <= n. They ascend strictly, or it is an error. Errors wrap ErrCorrupt;
// times are then in disorder. It takes time and memory in proportion to len(src) and
// len(times), and allocates nothing once warm.
func (d *TimesDecoder) Decode(src []byte, n int, times []int64) error {
	if len(src) == 0 || len(times) > n || n < 1 {
		return fmt.Errorf("%d of %d times in %d bytes: %w", len(times), n, len(src), ErrCorrupt)
	}
	form, src := src[0], src[1:]
	switch form {
	case timesPlain:
		if err := d.decodeInts(src, n, times); err != nil {
			return err
		}
		return checkAscending(times)
	case timesGrid, timesGaps:
		return d.decodeGrid(src, n, times, form == timesGaps)
	default:
		return fmt.Errorf("times of form %d: %w", form, ErrCorrupt)
	}
}

// decodeInts decodes a stream of n integers that is all of src.
func (d *TimesDecoder) decodeInts(src []byte, n int, x []int64) error {
	used, err := d.ints.Decode(src, n, x)
	if err != nil {
		return fmt.Errorf("times: %w: %w", ErrCorrupt, err)
	}
	if len(x) == n && used != len(src) {
		return fmt.Errorf("%d bytes behind the times: %w", len(src)-used, ErrCorrupt)
	}
	return nil
}

func checkAscending(times []int64) error {
	for i := 1; i < len(times); i++ {
		if times[i] <= times[i-1] {
			return disorder(times, i)
		}
	}
	return nil
}

func disorder(times []int64, i int) error {
	return fmt.Errorf("time %d is %d, after %d: %w", i, times[i], times[i-1], ErrCorrupt)
}

func (d *TimesDecoder) decodeGrid(src []byte, n int, times []int64, gaps bool) error {
	start, k := binary.Varint(src)
	interval, m := binary.Uvarint(src[max(k, 0):])
	if k <= 0 || m <= 0 {
		return fmt.Errorf("grid cut off: %w", ErrCorrupt)
	}
	src = src[k+m:]
	if !gaps {
		if err := d.decodeInts(src, n, times); err != nil {
			return err
		}
		return addPoints(times, start, int64(interval))
	}
	length, k := binary.Uvarint(src)
	if k <= 0 || length > uint64(len(src)-k) || n < 2 {
		return fmt.Errorf("steps of %d bytes: %w", length, ErrCorrupt)
	}
	src = src[k:]
	d.steps = slices.Grow(d.steps[:0], len(times))[:max(len(times)-1, 0)]
	if err := d.decodeInts(src[:length], n-1, d.steps); err != nil {
		return err
	}
	if err := d.decodeInts(src[length:], n, times); err != nil {
		return err
	}
	return addSteps(times, start, int64(interval), d.steps)
}

// addPoints turns jitters into times on a grid without gaps. Damage may make sums wrap
// around, and then the times don't ascend or are not those that were, which the checksum
// around them is for.
func addPoints(times []int64, start, interval int64) error {
	if len(times) == 0 {
		return nil
	}
	times[0] += start
	last, point := times[0], start
	for i := 1; i < len(times); i++ {
		point += interval
		t := times[i] + point
		times[i] = t
		if t <= last {
			return disorder(times, i)
		}
		last = t
	}
	return nil
}

// addSteps turns jitters into times on a grid, of which steps has one less.
func addSteps(times []int64, start, interval int64, steps []int64) error {
	if len(times) == 0 {
		return nil
	}
	times[0] += start
	last, point := times[0], start
	for i, s := range steps[:len(times)-1] {
		point += s * interval
		t := times[i+1] + point
		times[i+1] = t
		if t <= last {
			return disorder(times, i+1)
		}
		last = t
	}
	return nil
}
