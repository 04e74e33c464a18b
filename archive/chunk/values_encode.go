package chunk

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"varve/archive/chunk/ints"
)

// valueEncoder writes streams of values.
//
//  1. If nearly all values are decimals, verified one by one, they are written as such, and
//     the others as exceptions.
//  2. Else the cost of some samples decides between scaled integers with residuals and the
//     ordered bits.
//  3. Where decimals have exceptions or many digits, 2 is tried as well, and the shorter
//     stream is kept.
//
// The zero valueEncoder is ready; it keeps its memory and belongs to one goroutine.
type valueEncoder struct {
	ints ints.Encoder
	// What follows is the stream written last, taken apart.
	form       byte
	exponent   int
	integers   []int64
	residuals  []int64 // of formScaled, as long as integers
	exceptions []exceptionRun
	oddities   int // exceptions that are finite

	scratch []byte
	other   []byte
}

// append writes the stream of the values, at least one. They are not kept.
func (e *valueEncoder) append(dst []byte, values []float64) []byte {
	if !e.fitDecimals(values) {
		e.scaleOrOrder(values)
		return e.write(dst)
	}
	e.form = formDecimal
	decimals := e.write(dst)
	if e.oddities < odditiesDoubtful && e.exponent < exponentDoubtful {
		return decimals
	}
	e.scaleOrOrder(values)
	e.other = e.write(e.other[:0])
	if len(e.other) < len(decimals)-len(dst) {
		return append(dst, e.other...)
	}
	e.fitDecimals(values)
	e.form = formDecimal
	return decimals
}

// What makes decimals doubtful: as many exceptions as cost the second stream of formScaled,
// or so many digits that they may be the rounding errors of a sum of shorter decimals.
const (
	odditiesDoubtful = 2
	exponentDoubtful = 12
)

// scaleOrOrder prepares what is for values that are no decimals.
func (e *valueEncoder) scaleOrOrder(values []float64) {
	e.orderBits(values)
	e.form = formBits
	if exponent, ok := e.scaledExponent(); ok && e.scale(exponent) {
		e.form, e.exponent = formScaled, exponent
	}
}

// write writes the stream that was prepared.
func (e *valueEncoder) write(dst []byte) []byte {
	dst = e.appendHead(dst)
	if e.form != formScaled {
		return e.ints.Append(dst, e.integers)
	}
	e.scratch = e.ints.Append(e.scratch[:0], e.integers)
	dst = binary.AppendUvarint(dst, uint64(len(e.scratch)))
	dst = append(dst, e.scratch...)
	return e.ints.Append(dst, e.residuals)
}

// appendDifference writes the stream written last once more, with base, which is as long,
// taken off its integers. The form must be formDecimal. Differences wrap around.
func (e *valueEncoder) appendDifference(dst []byte, base []int64) []byte {
	e.residuals = slices.Grow(e.residuals[:0], len(base))[:len(base)]
	for i, k := range e.integers {
		e.residuals[i] = k - base[i]
	}
	return e.ints.Append(e.appendHead(dst), e.residuals)
}

// exceptionRunsMax is how many runs of exceptions a form may have beside n values. A run
// takes 10 bytes or so, as much as the bits of the values nearby.
func exceptionRunsMax(n int) int { return n/8 + 2 }

// odditiesMax is how many of n finite values may be no decimals for the others to be
// written as such.
func odditiesMax(n int) int { return n/32 + 1 }

// exceptionDigits is how many decimal digits, spread over the integers of a stream, take
// as much as one exception: 10 bytes over log2(10) bits.
const exceptionDigits = 24

// fitDecimals makes decimals of the values, at the exponent that nearly all need. It
// reports whether they are worth it.
func (e *valueEncoder) fitDecimals(values []float64) bool {
	exponent, ok := sampleExponent(values)
	for ok {
		raised := 0
		if raised, ok = e.fitDecimalsAt(values, exponent); raised == exponent {
			break
		}
		exponent = raised
	}
	e.exponent = exponent
	return ok && len(e.exceptions) <= exceptionRunsMax(len(values))
}

// exponentSamples is how many values are looked at before all of them are. Of decimals
// with some digits nine in ten need all digits, so that a few tell the exponent.
const exponentSamples = 16

// sampleExponent returns an exponent that is enough for seven in eight of some of the
// values; false if most of them are no decimals.
func sampleExponent(values []float64) (exponent int, ok bool) {
	var needing [exponentMax + 1]int
	decimals, oddities := 0, 0
	for i := 0; i < len(values); i += sampleStep(len(values), exponentSamples) {
		if needed, ok := exponentFrom(values[i], 0); ok {
			needing[needed]++
			decimals++
		} else if isFinite(values[i]) {
			oddities++
		}
	}
	for enough := needing[0]; enough < decimals-decimals/8; enough += needing[exponent] {
		exponent++
	}
	return exponent, oddities <= decimals
}

// sampleStep is the step that finds about as many samples among n. It is odd, since what
// changes at every other, fourth or eighth scrape is common.
func sampleStep(n, samples int) int { return n/samples | 1 }

// exponentFrom returns the least exponent from the given one on that makes an integer
// of v, if there is one.
func exponentFrom(v float64, exponent int) (int, bool) {
	if !isFinite(v) || v == 0 && math.Signbit(v) {
		return 0, false
	}
	for ; exponent <= exponentMax; exponent++ {
		if _, ok := decimalOf(v, exponent); ok {
			return exponent, true
		}
	}
	return 0, false
}

// fitDecimalsAt fills integers and exceptions. It returns another exponent if that is
// smaller than exceptions for those that need it, and false if too many are no decimals.
func (e *valueEncoder) fitDecimalsAt(values []float64, exponent int) (int, bool) {
	e.begin(len(values))
	longer, changes, needed := 0, 0, exponent
	e.oddities = 0
	var previous float64
	for i, v := range values {
		if v != previous {
			changes++
		}
		previous = v
		k, ok := decimalOf(v, exponent)
		if ok {
			e.integers[i] = k
			continue
		}
		if !e.except(i, v) || !isFinite(v) || v == 0 {
			continue
		}
		e.oddities++
		if n, ok := exponentFrom(v, exponent+1); ok {
			longer, needed = longer+1, max(needed, n)
			if longer*exceptionDigits > len(values)*(needed-exponent) {
				return needed, true
			}
		} else if e.oddities-longer > odditiesMax(len(values)) {
			return exponent, false
		}
	}
	if longer > 0 && longer*exceptionDigits >= changes*(needed-exponent) {
		return needed, true
	}
	e.fillFront()
	return exponent, true
}

// orderBits makes images of the values' bits. NaNs and infinities are exceptions, unless
// there are too many.
func (e *valueEncoder) orderBits(values []float64) {
	e.begin(len(values))
	for i, v := range values {
		if isFinite(v) {
			e.integers[i] = orderedBits(v)
		} else {
			e.except(i, v)
		}
	}
	if len(e.exceptions) <= exceptionRunsMax(len(values)) {
		e.fillFront()
		return
	}
	e.begin(len(values))
	for i, v := range values {
		e.integers[i] = orderedBits(v)
	}
}

func (e *valueEncoder) begin(n int) {
	e.exponent = 0
	e.integers = slices.Grow(e.integers[:0], n)[:n]
	e.exceptions = e.exceptions[:0]
}

// except makes the value at index i an exception, and reports whether it begins a run.
// The integers before it are there.
func (e *valueEncoder) except(i int, v float64) bool {
	e.integers[i] = 0
	if i > 0 {
		e.integers[i] = e.integers[i-1]
	}
	b := math.Float64bits(v)
	if n := len(e.exceptions); n > 0 {
		last := &e.exceptions[n-1]
		if last.first+last.length == i && last.bits == b {
			last.length++
			return false
		}
	}
	e.exceptions = append(e.exceptions, exceptionRun{first: i, length: 1, bits: b})
	return true
}

// fillFront gives the exceptions at the front the first integer behind them.
func (e *valueEncoder) fillFront() {
	front := 0
	for _, run := range e.exceptions {
		if run.first != front {
			break
		}
		front += run.length
	}
	if front == 0 || front == len(e.integers) {
		return
	}
	for i := range front {
		e.integers[i] = e.integers[front]
	}
}

// scaledExponents are tried for formScaled, the likeliest first: nano, micro and
// milliseconds as seconds, then what is left of percentages.
var scaledExponents = [...]int{9, 6, 3, 12, 2}

// scaledSamples is how many neighbours are compared for each exponent.
const scaledSamples = 64

// scaledExponent estimates from some of the ordered bits whether scaling is worth it,
// and with which exponent.
func (e *valueEncoder) scaledExponent() (int, bool) {
	step := sampleStep(len(e.integers), scaledSamples)
	cost := 0
	for i := 1; i < len(e.integers); i += step {
		cost += bitLength(e.integers[i] - e.integers[i-1])
	}
	best, found := 0, false
	for _, exponent := range scaledExponents {
		// A second stream has a head of its own and is less regular than it looks.
		if c, ok := e.scaledCost(exponent, step); ok && c < cost*15/16 {
			best, cost, found = exponent, c, true
		}
	}
	return best, found
}

func (e *valueEncoder) scaledCost(exponent, step int) (bits int, ok bool) {
	for i := 1; i < len(e.integers); i += step {
		k0, r0, ok0 := scaledOf(e.integers[i-1], exponent)
		k1, r1, ok1 := scaledOf(e.integers[i], exponent)
		if !ok0 || !ok1 {
			return 0, false
		}
		bits += bitLength(k1-k0) + bitLength(r1-r0) + 1
	}
	return bits, true
}

// bitLength is how many bits the integer takes in zigzag form.
func bitLength(v int64) int { return bits.Len64(uint64(v<<1) ^ uint64(v>>63)) }

// scale turns ordered bits into scaled integers and residuals. If it can't, it reports
// that and changes nothing.
func (e *valueEncoder) scale(exponent int) bool {
	e.residuals = slices.Grow(e.residuals[:0], len(e.integers))[:len(e.integers)]
	for i, ordered := range e.integers {
		_, r, ok := scaledOf(ordered, exponent)
		if !ok {
			return false
		}
		e.residuals[i] = r
	}
	for i, ordered := range e.integers {
		e.integers[i], _, _ = scaledOf(ordered, exponent)
	}
	return true
}

// scaledOf splits the value with the ordered bits into the integer next to v*10^exponent
// and what is to be added to the ordered bits of its quotient, wrapping around.
func scaledOf(ordered int64, exponent int) (k, residual int64, ok bool) {
	scaled := fromOrderedBits(ordered) * powersOfTen[exponent]
	if !(math.Abs(scaled) < decimalMax) {
		return 0, 0, false
	}
	k = int64(math.RoundToEven(scaled))
	return k, ordered - orderedBits(float64(k)/powersOfTen[exponent]), true
}

// appendHead writes what stands before the integers.
func (e *valueEncoder) appendHead(dst []byte) []byte {
	head := e.form | byte(e.exponent)<<formExponentShift
	if len(e.exceptions) == 0 {
		return append(dst, head)
	}
	dst = append(dst, head|formHasExceptions)
	dst = binary.AppendUvarint(dst, uint64(len(e.exceptions)))
	end := 0
	var before uint64
	hasBefore := false
	for _, run := range e.exceptions {
		tag := exceptionTag(run.bits, before, hasBefore)
		dst = binary.AppendUvarint(dst, uint64(run.first-end))
		dst = binary.AppendUvarint(dst, uint64(run.length-1)<<exceptionTagBits|tag)
		if tag == exceptionBits {
			dst = binary.LittleEndian.AppendUint64(dst, run.bits)
			before, hasBefore = run.bits, true
		}
		end = run.first + run.length
	}
	return dst
}
