package opentsdb

import (
	"math"
	"strconv"

	"varve/arrival"
	"varve/jsonwalk"
)

// said is an error in the words of OpenTSDB, which clients may know.
type said string

// Error implements error.
func (s said) Error() string { return string(s) }

// What is said of a point.
const (
	errNoMetric  = said("Metric name was empty")
	errTime      = said("Invalid timestamp")
	errNoValue   = said("Empty value")
	errNoNumber  = said("Unable to parse value to a number")
	errNotFinite = said("value is NaN or Infinite")
	errMaxTags   = said("Too many tags")
)

// The times that OpenTSDB takes for what they are meant to be.
const (
	secondsMax = 1<<32 - 1
	millisMax  = 9_999_999_999_999
)

// times reads a time: digits, perhaps with a fraction, or any other decimal number. It returns Unix milliseconds.
func times(text []byte) (millis int64, err error) {
	var whole int64
	i := 0
	for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		if whole = whole*10 + int64(text[i]-'0'); whole > millisMax {
			return 0, errTime
		}
	}
	switch {
	case i == 0 && (len(text) == 0 || text[0] == '-'):
		return 0, errTime
	case i == 0 || i < len(text) && text[i] != '.':
		return otherTimes(text)
	case i == len(text) && whole <= secondsMax:
		millis = whole * 1000
	case i == len(text):
		millis = whole
	default:
		fraction, ok := thousandths(text[i+1:])
		if !ok {
			return otherTimes(text)
		}
		if millis = whole; whole <= secondsMax {
			millis = whole*1000 + fraction
		}
	}
	if millis <= 0 {
		return 0, errTime
	}
	return millis, nil
}

// thousandths are the first three digits behind the point.
func thousandths(text []byte) (n int64, ok bool) {
	for i, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		if i < 3 {
			n = n*10 + int64(c-'0')
		}
	}
	for i := len(text); i < 3; i++ {
		n *= 10
	}
	return n, true
}

// otherTimes reads a time that is written with an exponent or a sign.
func otherTimes(text []byte) (millis int64, err error) {
	v, ok := jsonwalk.Float(text)
	if ok && v <= secondsMax {
		v = math.Round(v * 1000)
	}
	if !ok || v < 1 || v > millisMax {
		return 0, errTime
	}
	return int64(v), nil
}

// value reads a value and returns its bits.
func value(text []byte) (bits uint64, reason arrival.Reason, err error) {
	if len(text) == 0 {
		return 0, arrival.ReasonInvalidValue, errNoValue
	}
	v, ok := jsonwalk.Float(text)
	if !ok {
		if notFinite(text) {
			return 0, arrival.ReasonInvalidValue, errNotFinite
		}
		return 0, arrival.ReasonInvalidValue, errNoNumber
	}
	if math.IsInf(v, 0) {
		return 0, arrival.ReasonInvalidValue, errNotFinite
	}
	return math.Float64bits(v), arrival.ReasonNone, nil
}

func notFinite(text []byte) bool {
	if text[0] == '+' || text[0] == '-' {
		text = text[1:]
	}
	switch string(text) {
	case "NaN", "nan", "Inf", "inf", "Infinity":
		return true
	}
	return false
}

// quotedBytes keeps one hostile text from filling an answer or a log line.
const quotedBytes = 48

func quoted(s string) string {
	if len(s) > quotedBytes {
		return strconv.QuoteToASCII(s[:quotedBytes]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
