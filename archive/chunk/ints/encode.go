package ints

import (
	"encoding/binary"
	"slices"
)

// Encoder makes streams. The zero value is ready. It keeps its buffers, so that a
// warm one allocates nothing but what dst needs. One goroutine at a time.
type Encoder struct {
	scaled    []int64  // differences to the first value, divided by the step
	residuals []uint64 // of the order that the estimate found best, zigzag
	ranks     []uint64
	sample    []int64
	header    []byte
	packed    packedPlan
	classes   classesPlan
	levels    dictionary
}

// Append appends the stream of x to dst and returns the extended buffer. x has at
// least one value; it is neither changed nor kept.
func (e *Encoder) Append(dst []byte, x []int64) []byte {
	step := stepOf(x)
	if step == 0 {
		return appendEqual(dst, x[0])
	}
	e.scale(x, step)
	order, bias := e.choose(e.scaled)
	e.fillResiduals(order, bias)
	e.header = appendHeader(e.header[:0], x[0], step, order, bias)
	if order == orderTurn {
		e.header = appendZigzag(e.header, e.scaled[1])
	}
	classes, size := e.planCoder(e.residuals, order)
	size += len(e.header)
	if len(x) >= dictionaryLenMin && size > len(x)/16 && e.levels.collect(e.scaled) {
		if dst, ok := e.appendRanks(dst, x[0], step, size); ok {
			return dst
		}
		classes, _ = e.planCoder(e.residuals, order)
	}
	return e.appendCoded(dst, e.residuals, order, bias, classes)
}

// appendEqual writes a list whose values are all v.
func appendEqual(dst []byte, v int64) []byte {
	if z := zigzag(v); z < flagWide {
		return append(dst, flagEqual|byte(z))
	}
	return appendZigzag(append(dst, flagEqual|flagWide), v)
}

// appendHeader writes what comes before the residuals of all orders.
func appendHeader(dst []byte, first int64, step uint64, order order, bias int64) []byte {
	flags := byte(order)
	if step > 1 {
		flags |= flagStep
	}
	if bias != 0 {
		flags |= flagBias
	}
	dst = appendZigzag(append(dst, flags), first)
	if step > 1 {
		dst = binary.AppendUvarint(dst, step)
	}
	if bias != 0 {
		dst = appendZigzag(dst, bias)
	}
	return dst
}

// classesGain is the part of its size that the classes coder must save over packing,
// which decodes several times faster. Without it, random bits would be in classes; with
// 64, doubles of full precision would be 0.9 % larger.
const classesGain = 128

// planCoder sizes both coders for the residuals z of an order and says which one is smaller.
func (e *Encoder) planCoder(z []uint64, order order) (classes bool, size int) {
	e.packed.plan(z)
	if len(z) < classesLenMin {
		return false, e.packed.size
	}
	e.classes.plan(z, order)
	if e.classes.size+e.classes.size/classesGain < e.packed.size {
		return true, e.classes.size
	}
	return false, e.packed.size
}

// appendCoded writes the header and z in the coder that was planned for it.
func (e *Encoder) appendCoded(dst []byte, z []uint64, order order, bias int64, classes bool) []byte {
	if classes {
		e.header[0] |= flagClasses
		if e.classes.parts > 1 {
			e.header[0] |= flagParts
		}
		return e.classes.append(append(dst, e.header...), z, func(dst []byte, first, end int) []byte {
			return e.appendState(dst, order, bias, first, end)
		})
	}
	return e.packed.append(append(dst, e.header...), z)
}

// appendState writes what the residuals from first on, before end, change: what a decoder
// must know that begins with the one at end. All of it is divided by the step.
func (e *Encoder) appendState(dst []byte, o order, bias int64, first, end int) []byte {
	n := int64(end - first)
	at, to := first+o.given()-1, end+o.given()-1
	switch o {
	case orderDelta:
		return appendZigzag(dst, e.scaled[to]-e.scaled[at]-n*bias)
	case orderTurn:
		before, after := e.scaled[at]-e.scaled[at-1], e.scaled[to]-e.scaled[to-1]
		dst = appendZigzag(dst, after-before-n*bias)
		return appendZigzag(dst, e.scaled[to]-e.scaled[at]-n*before)
	default:
		return dst
	}
}

// stepOf returns the greatest common divisor of all differences to x[0], which wrap
// around; 0 if all are 0.
//
// Wrapping does no harm: a difference d, taken modulo 2^64 into the range of int64,
// is a multiple y*step of it as an integer, so x[0] + y*step is x[0] + d modulo 2^64,
// which is the value. That holds for step = 2^63 and d = -2^63 too.
func stepOf(x []int64) uint64 {
	first := x[0]
	var step uint64
	for _, v := range x[1:] {
		d := uint64(v - first)
		if int64(d) < 0 {
			d = -d
		}
		if d == 0 {
			continue
		}
		if step = gcd(step, d); step == 1 {
			return 1
		}
	}
	return step
}

func gcd(a, b uint64) uint64 {
	for a != 0 {
		a, b = b%a, a
	}
	return b
}

// scale fills e.scaled with the differences to the first value, divided by step.
func (e *Encoder) scale(x []int64, step uint64) {
	e.scaled = slices.Grow(e.scaled[:0], len(x))[:len(x)]
	first := x[0]
	if step == 1 {
		for i, v := range x {
			e.scaled[i] = v - first
		}
		return
	}
	for i, v := range x {
		e.scaled[i] = (v - first) / int64(step)
	}
}

func (e *Encoder) fillResiduals(o order, bias int64) {
	e.residuals = e.residuals[:0]
	for i := o.given(); i < len(e.scaled); i++ {
		e.residuals = append(e.residuals, zigzag(residual(e.scaled, o, i)-bias))
	}
}
