package text

import (
	"bytes"
	"math"
	"strconv"
	"unsafe"

	"github.com/prometheus/prometheus/model/value"
)

// aliased returns the bytes as a string that shares their memory.
func aliased(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// powersOfTen are the powers that a float64 holds exactly.
var powersOfTen = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// mantissaMax is the largest integer below which float64 holds all of them.
const mantissaMax = 1 << 53

// parseFloat reads a value as Prometheus' parsers do: what strconv reads, but for hexadecimal numbers and
// underscores; every NaN is the usual one.
//
// Digits with a point, of which the digits make an integer below 2^53 and at most 22 stand behind the point,
// are that integer divided by a power of ten: both are exact, so the quotient is rounded once, as it should be.
func parseFloat(b []byte) (bits uint64, ok bool) {
	i := 0
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		i = 1
	}
	m, digits, fraction := uint64(0), 0, -1
	for ; i < len(b); i++ {
		c := b[i] - '0'
		if c > 9 {
			if b[i] != '.' || fraction >= 0 {
				return parseAnyFloat(b)
			}
			fraction = 0
			continue
		}
		if m >= mantissaMax/10 {
			return parseAnyFloat(b)
		}
		m = 10*m + uint64(c)
		digits++
		if fraction >= 0 {
			fraction++
		}
	}
	if digits == 0 {
		return 0, false
	}
	if fraction > 22 {
		return parseAnyFloat(b)
	}
	v := float64(m)
	if fraction > 0 {
		v /= powersOfTen[fraction]
	}
	if negative {
		v = -v
	}
	return math.Float64bits(v), true
}

func parseAnyFloat(b []byte) (bits uint64, ok bool) {
	if bytes.ContainsAny(b, "pP_") {
		return 0, false
	}
	v, err := strconv.ParseFloat(aliased(b), 64)
	if err != nil {
		return 0, false
	}
	if math.IsNaN(v) {
		return value.NormalNaN, true
	}
	return math.Float64bits(v), true
}

// parseInt reads a whole number.
func parseInt(b []byte) (n int64, ok bool) {
	i := 0
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		i = 1
	}
	if len(b) == i || len(b)-i > 18 {
		return 0, false
	}
	for _, c := range b[i:] {
		if c -= '0'; c > 9 {
			return 0, false
		}
		n = 10*n + int64(c)
	}
	if b[0] == '-' {
		n = -n
	}
	return n, true
}

// secondsMax is more seconds than any time has that an archive can hold.
const secondsMax = 1 << 40

// parseSeconds reads a time in seconds with a fraction and returns milliseconds. What is behind the millisecond is cut
// off, toward the past, and nothing is lost to binary fractions.
func parseSeconds(b []byte) (millis int64, ok bool) {
	point := bytes.IndexByte(b, '.')
	whole, fraction := b, []byte(nil)
	if point >= 0 {
		whole, fraction = b[:point], b[point+1:]
	}
	n, ok := parseInt(whole)
	if !ok {
		return parseAnySeconds(b)
	}
	if n < -secondsMax || n > secondsMax {
		return 0, false
	}
	part, more := int64(0), false
	for i, c := range fraction {
		if c -= '0'; c > 9 {
			return parseAnySeconds(b)
		}
		if i < 3 {
			part = 10*part + int64(c)
		} else if c != 0 {
			more = true
		}
	}
	for i := len(fraction); i < 3; i++ {
		part *= 10
	}
	if b[0] != '-' {
		return n*1000 + part, true
	}
	if more {
		part++
	}
	return n*1000 - part, true
}

// parseAnySeconds reads a time with an exponent, or without digits before the point.
func parseAnySeconds(b []byte) (millis int64, ok bool) {
	bits, ok := parseAnyFloat(b)
	v := math.Float64frombits(bits)
	if !ok || !(math.Abs(v) <= secondsMax) {
		return 0, false
	}
	return int64(math.Round(v * 1000)), true
}
