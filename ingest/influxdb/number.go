package influxdb

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// What is wrong with a value, in InfluxDB's words.
var (
	errInvalidNumber  = errors.New("invalid number")
	errInvalidFloat   = errors.New("invalid float")
	errInvalidBoolean = errors.New("invalid boolean")
)

// outOfRange is the fault of an integer that does not fit into 64 bits.
type outOfRange struct {
	kind, function, digits string
}

// Error implements error, in InfluxDB's words.
func (e *outOfRange) Error() string {
	return fmt.Sprintf("unable to parse %s %s: strconv.%s: parsing %q: value out of range", e.kind, e.digits, e.function, e.digits)
}

// faultDigits is the most that a fault quotes of a number.
const faultDigits = 64

// digitsMax is how many significant digits always fit into 64 bits.
const digitsMax = 19

// exactMantissa and the powers of ten are exact as float64, so that one rounding, that
// of the division, is all there is (Clinger, How to read floating point numbers
// accurately, 1990).
const exactMantissa = 1 << 53

var powersOfTen = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// number reads the number at line[at:], up to a comma, a space or the end, and returns
// the bits of its float64 and the index behind it. Integers that a float64 does not hold
// become the nearest one.
func number(line []byte, at int) (bits uint64, next int, err error) {
	i := at
	negative := i < len(line) && line[i] == '-'
	if negative {
		i++
	}
	first := i
	var mantissa uint64
	digits, decimals, point := 0, 0, -1
	for ; i < len(line); i++ {
		c := line[i]
		if d := c - '0'; d <= 9 {
			if digits == digitsMax {
				return slowNumber(line, at)
			}
			mantissa = mantissa*10 + uint64(d)
			if mantissa != 0 {
				digits++
			}
			continue
		}
		if c == '.' && point < 0 {
			point = i
			continue
		}
		break
	}
	if i < len(line) && line[i] != ',' && line[i] != ' ' {
		return integer(line, at, i, mantissa, negative)
	}
	if point >= 0 {
		decimals = i - point - 1
		if i-first == 1 {
			return 0, 0, errInvalidNumber
		}
	}
	if i == first {
		return 0, 0, errInvalidNumber
	}
	f := float64(mantissa)
	if decimals > 0 {
		if mantissa > exactMantissa || decimals >= len(powersOfTen) {
			return slowNumber(line, at)
		}
		f /= powersOfTen[decimals]
	}
	bits = math.Float64bits(f)
	if negative {
		bits |= 1 << 63
	}
	return bits, i, nil
}

// integer ends a number that number has read up to i, where its suffix may stand.
func integer(line []byte, at, i int, mantissa uint64, negative bool) (bits uint64, next int, err error) {
	first := at
	if negative {
		first++
	}
	atEnd := i+1 == len(line) || line[i+1] == ',' || line[i+1] == ' '
	whole := i > first && atEnd
	for _, c := range line[first:i] {
		whole = whole && c != '.'
	}
	switch suffix := line[i]; {
	case suffix == 'i' && whole && (mantissa <= math.MaxInt64 || negative && mantissa == 1<<63):
		f := float64(mantissa)
		if negative {
			f = -f
		}
		if mantissa == 0 {
			f = 0 // an integer has no negative zero
		}
		return math.Float64bits(f), i + 1, nil
	case suffix == 'u' && whole && !negative:
		return math.Float64bits(float64(mantissa)), i + 1, nil
	}
	return slowNumber(line, at)
}

// slowNumber reads what number does not, and finds the words for what is no number.
func slowNumber(line []byte, at int) (bits uint64, next int, err error) {
	next = at
	for next < len(line) && line[next] != ',' && line[next] != ' ' {
		next++
	}
	token := string(line[at:next])
	suffix, err := checkNumber(token)
	if err != nil {
		return 0, 0, err
	}
	var f float64
	switch suffix {
	case 'i':
		n, err := strconv.ParseInt(token[:len(token)-1], 10, 64)
		if err != nil {
			return 0, 0, &outOfRange{"integer", "ParseInt", cut(token[:len(token)-1], faultDigits)}
		}
		f = float64(n)
	case 'u':
		n, err := strconv.ParseUint(token[:len(token)-1], 10, 64)
		if err != nil {
			return 0, 0, &outOfRange{"unsigned", "ParseUint", cut(token[:len(token)-1], faultDigits)}
		}
		f = float64(n)
	default:
		if f, err = strconv.ParseFloat(token, 64); err != nil {
			return 0, 0, errInvalidFloat
		}
	}
	return math.Float64bits(f), next, nil
}

// checkNumber checks the characters of a number as InfluxDB does, which leaves out what
// strconv reads beyond decimal numbers, and returns its suffix or 0.
func checkNumber(token string) (suffix byte, err error) {
	digits, point, scientific := 0, false, false
	for i := range len(token) {
		c := token[i]
		switch {
		case suffix != 0:
			return 0, errInvalidNumber
		case c >= '0' && c <= '9':
			digits++
		case c == '.' && !point:
			point = true
		case i > 0 && (c == 'i' || c == 'u'):
			suffix = c
		case i > 0 && (c == 'e' || c == 'E'):
			scientific = true
		case c == '-' && i == 0:
		case (c == '-' || c == '+') && i > 0 && (token[i-1] == 'e' || token[i-1] == 'E'):
		default:
			return 0, errInvalidNumber
		}
	}
	if digits == 0 || suffix != 0 && (point || scientific) || suffix == 'u' && token[0] == '-' {
		return 0, errInvalidNumber
	}
	return suffix, nil
}

var (
	bitsTrue  = math.Float64bits(1)
	bitsFalse = math.Float64bits(0)
)

// boolean reads the boolean at line[at:], up to a comma, a space or the end.
func boolean(line []byte, at int) (bits uint64, next int, err error) {
	next = at
	for next < len(line) && line[next] != ',' && line[next] != ' ' {
		next++
	}
	switch string(line[at:next]) {
	case "t", "T", "true", "True", "TRUE":
		return bitsTrue, next, nil
	case "f", "F", "false", "False", "FALSE":
		return bitsFalse, next, nil
	}
	return 0, 0, errInvalidBoolean
}
