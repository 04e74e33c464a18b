package ints

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Decoder reads streams. The zero value is ready. It is large, so keep it; it
// allocates nothing once warm. One goroutine at a time.
type Decoder struct {
	table  [codeSpace]classEntry
	tail   [blockLen*8 + wordBytes]byte
	levels [dictionaryMax]int64
	// parts are those of a list in classes that are needed.
	parts []part
	// passed holds values together with those before them that nobody asked for.
	passed []int64
}

// header is what a stream says before its residuals.
type header struct {
	order   order
	classes bool
	inParts bool
	first   int64
	step    int64
	bias    int64
	delta   int64 // of orderTurn: the second value less the first, divided by the step
	ranks   int   // of orderRank: how many there are
}

// Decode reads the stream that src begins with and that was made from n values,
// n >= 1. It fills x with the first len(x) of them; len(x) <= n. If that is all of
// them, used is the length of the stream in bytes, else it is 0, as the rest has not
// been looked at. Errors wrap ErrCorrupt; x is then in disorder. Time and memory are
// bounded by len(src) + len(x).
func (d *Decoder) Decode(src []byte, n int, x []int64) (used int, err error) {
	return d.DecodeFrom(src, n, 0, x)
}

// DecodeFrom is Decode for the values from index first on; first >= 0, first+len(x) <= n. What
// is before them is passed over where the stream has parts, and decoded where it hasn't.
// Time and memory are bounded by len(src) + first + len(x).
func (d *Decoder) DecodeFrom(src []byte, n, first int, x []int64) (used int, err error) {
	if first < 0 || len(x) > n-first || n < 1 || len(src) < 1 {
		return 0, fmt.Errorf("%d of %d values from %d on in %d bytes: %w", len(x), n, first, len(src), ErrCorrupt)
	}
	if src[0]&flagEqual != 0 {
		used, err = decodeEqual(src, x)
	} else {
		used, err = d.decodeCoded(src, n, first, x)
	}
	if err != nil || first+len(x) < n {
		return 0, err
	}
	return used, nil
}

func decodeEqual(src []byte, x []int64) (used int, err error) {
	value, used := unzigzag(uint64(src[0]&(flagWide-1))), 1
	if src[0]&flagWide != 0 {
		u, length := binary.Uvarint(src[1:])
		if length <= 0 || src[0] != flagEqual|flagWide {
			return 0, fmt.Errorf("flags %#x: %w", src[0], ErrCorrupt)
		}
		value, used = unzigzag(u), 1+length
	}
	for i := range x {
		x[i] = value
	}
	return used, nil
}

func (d *Decoder) decodeCoded(src []byte, n, first int, x []int64) (used int, err error) {
	h, used, err := d.readHeader(src)
	if err != nil {
		return 0, err
	}
	given := h.order.given()
	if n < given {
		return 0, fmt.Errorf("%d values where the header alone has %d: %w", n, given, ErrCorrupt)
	}
	f := fold{header: h, levels: &d.levels}
	src, n = src[used:], n-given
	var length int
	switch {
	case h.inParts:
		length, err = d.decodeParts(src, n, first, x, &f)
	case first > 0:
		all := d.room(first + len(x))
		length, err = d.decodeResiduals(src, n, f.given(all), &f)
		copy(x, all[first:])
	default:
		length, err = d.decodeResiduals(src, n, f.given(x), &f)
	}
	return used + length, err
}

// room returns memory for n values.
func (d *Decoder) room(n int) []int64 {
	d.passed = slices.Grow(d.passed[:0], n)[:n]
	return d.passed
}

// decodeResiduals fills x with the first values that n residuals give, and returns the
// length of all of them if it read all.
func (d *Decoder) decodeResiduals(src []byte, n int, x []int64, f *fold) (used int, err error) {
	if f.classes {
		used, err := d.decodeClasses(src, n, x)
		if err != nil {
			return 0, err
		}
		return used, f.fold(x)
	}
	for len(x) > 0 {
		out := x[:min(blockLen, len(x))]
		length, err := d.decodeBlock(src[used:], min(blockLen, n), out)
		if err != nil {
			return 0, err
		}
		if err := f.fold(out); err != nil {
			return 0, err
		}
		used += length
		n -= len(out)
		x = x[len(out):]
	}
	return used, nil
}

// uvarints reads uvarints one after the other. Once broken it reads zeros.
type uvarints struct {
	src    []byte
	used   int
	broken bool
}

func (u *uvarints) next() uint64 {
	v, length := binary.Uvarint(u.src[u.used:])
	if length <= 0 {
		u.broken = true
		return 0
	}
	u.used += length
	return v
}

// readHeader reads all before the residuals, and the levels into d.levels.
func (d *Decoder) readHeader(src []byte) (h header, used int, err error) {
	flags := src[0]
	if flags&^flagKnown != 0 {
		return h, 0, fmt.Errorf("flags %#x: %w", flags, ErrCorrupt)
	}
	h.order = order(flags & flagOrder)
	h.classes = flags&flagClasses != 0
	h.inParts = flags&flagParts != 0
	if h.inParts && !h.classes {
		return h, 0, fmt.Errorf("flags %#x: %w", flags, ErrCorrupt)
	}
	h.step = 1
	u := uvarints{src: src, used: 1}
	h.first = unzigzag(u.next())
	if flags&flagStep != 0 {
		h.step = int64(u.next())
	}
	if flags&flagBias != 0 {
		h.bias = unzigzag(u.next())
	}
	switch h.order {
	case orderTurn:
		h.delta = unzigzag(u.next())
	case orderRank:
		if u.used == len(src) || src[u.used] == 0 || src[u.used] > dictionaryMax || flags&flagBias != 0 {
			return h, 0, fmt.Errorf("dictionary: %w", ErrCorrupt)
		}
		h.ranks = int(src[u.used])
		u.used++
		for i := range h.ranks {
			d.levels[i] = h.first + h.step*unzigzag(u.next())
		}
	}
	if u.broken {
		return h, 0, fmt.Errorf("header cut off: %w", ErrCorrupt)
	}
	return h, u.used, nil
}

// fold turns residuals back into values, one piece of the list after the other.
type fold struct {
	header
	levels *[dictionaryMax]int64
	value  int64 // the value before, for the orders that need it
}

// begin takes note of what the header says of the values before the residuals.
func (f *fold) begin() {
	f.value = f.first
	if f.order == orderTurn {
		f.delta *= f.step
		f.value += f.delta
	}
}

// given is begin, puts those of the first values that the header holds into x, and returns
// the rest of x.
func (f *fold) given(x []int64) []int64 {
	f.begin()
	values := [...]int64{f.first, f.value}
	return x[copy(x, values[:f.order.given()]):]
}

// pass takes note of n residuals as their part tells it.
func (f *fold) pass(n int64, u *uvarints) {
	switch f.order {
	case orderDelta:
		f.value += f.step * (n*f.bias + unzigzag(u.next()))
	case orderTurn:
		change := f.step * (n*f.bias + unzigzag(u.next()))
		f.value += n*f.delta + f.step*unzigzag(u.next())
		f.delta += change
	}
}

// fold replaces zigzag residuals by values.
func (f *fold) fold(x []int64) error {
	step, bias, value := f.step, f.step*f.bias, f.value
	switch f.order {
	case orderOffset:
		value += bias
		for i, z := range x {
			x[i] = value + step*unzigzag(uint64(z))
		}
		return nil
	case orderDelta:
		for i, z := range x {
			value += bias + step*unzigzag(uint64(z))
			x[i] = value
		}
	case orderTurn:
		delta := f.delta
		for i, z := range x {
			delta += bias + step*unzigzag(uint64(z))
			value += delta
			x[i] = value
		}
		f.delta = delta
	default:
		for i, z := range x {
			if uint64(z) >= uint64(f.ranks) {
				return fmt.Errorf("rank %d of %d: %w", z, f.ranks, ErrCorrupt)
			}
			x[i] = f.levels[uint(z)%dictionaryMax]
		}
	}
	f.value = value
	return nil
}
