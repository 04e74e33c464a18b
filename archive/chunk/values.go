package chunk

import (
	"math"

	"github.com/prometheus/prometheus/model/value"
)

// The forms of a stream of values, as its first byte numbers them. All of them are
// lossless: what a form can't express is an exception, which has its bits written out.
const (
	// formDecimal is for values that were decimals: the integers k with k/10^e == v bit
	// for bit, e being the stream's exponent.
	formDecimal = 0
	// formBits is for any values: their images under orderedBits.
	formBits = 1
	// formScaled is for values that are nearly decimals, as sums of decimals are: the
	// integers k next to v*10^e, and how many floats v is away from k/10^e.
	formScaled = 2

	formMask          = 3
	formHasExceptions = 1 << 2
	formExponentShift = 3
)

// exponentMax is the largest e of which 10^e and all integers below decimalMax make a
// division that is exact in the sense of formDecimal for 15 significant digits. It is
// also the largest e with 10^e within an int64.
const exponentMax = 18

var powersOfTen = [exponentMax + 1]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
}

// decimalMax is where integers begin that float64 may not hold, integerMax where they are
// no longer taken as such although it holds them: the ends of int64 stand for "none" in
// the midst of other values more often than they are counted to.
const (
	decimalMax = 1 << 53
	integerMax = 1 << 62
)

// decimalOf returns the k with float64(k)/10^exponent == v, bit for bit, if there is one
// that rounding v*10^exponent finds. Negative zero, infinities and NaNs have none.
func decimalOf(v float64, exponent int) (k int64, ok bool) {
	if exponent == 0 {
		if !(math.Abs(v) < integerMax) {
			return 0, false
		}
		k = int64(v)
		return k, math.Float64bits(float64(k)) == math.Float64bits(v)
	}
	scaled := v * powersOfTen[exponent]
	if !(math.Abs(scaled) < decimalMax) {
		return 0, false
	}
	k = int64(scaled + math.Copysign(0.5, scaled))
	return k, math.Float64bits(float64(k)/powersOfTen[exponent]) == math.Float64bits(v)
}

// orderedBits maps the bits of a float64 to an integer so that the order of floats is
// that of the integers and neighbours are one apart. fromOrderedBits is the way back.
func orderedBits(v float64) int64 {
	b := int64(math.Float64bits(v))
	return b ^ int64(uint64(b>>63)>>1)
}

func fromOrderedBits(i int64) float64 {
	return math.Float64frombits(uint64(i ^ int64(uint64(i>>63)>>1)))
}

// isFinite is false for NaNs, stale markers among them, and infinities.
func isFinite(v float64) bool {
	return math.Float64bits(v)>>52&0x7ff != 0x7ff
}

// exceptionRun is a stretch of equal values that stand beside the form of a stream. The
// integers in its place repeat the one before it, or the one behind it where there is
// none before.
type exceptionRun struct {
	first, length int
	bits          uint64
}

// Tags of exceptions, in the low bits of a run's length.
const (
	exceptionBits     = 0 // 8 bytes follow, little endian
	exceptionStale    = 1 // value.StaleNaN
	exceptionNaN      = 2 // value.NormalNaN
	exceptionBefore   = 3 // the bits that the last exceptionBits gave
	exceptionTagBits  = 2
	exceptionTagMask  = 1<<exceptionTagBits - 1
	exceptionRunBytes = 2 // the least that a run takes
)

// exceptionTag returns the tag for bits, given those written out last, if any.
func exceptionTag(bits, before uint64, hasBefore bool) uint64 {
	switch {
	case bits == value.StaleNaN:
		return exceptionStale
	case bits == value.NormalNaN:
		return exceptionNaN
	case hasBefore && bits == before:
		return exceptionBefore
	default:
		return exceptionBits
	}
}
