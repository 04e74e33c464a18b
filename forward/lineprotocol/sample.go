package lineprotocol

import (
	"fmt"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/value"
)

// Precision is the unit of the times in lines. The target has to be told, as a rule in a parameter of its address.
type Precision uint8

// The precisions that all targets know. Those coarser than a millisecond cut times down, so that of several samples of a series in
// a unit the target keeps the last one.
const (
	Nanoseconds Precision = iota
	Microseconds
	Milliseconds
	Seconds
)

var precisionNames = [...]string{Nanoseconds: "ns", Microseconds: "us", Milliseconds: "ms", Seconds: "s"}

// String is the name that InfluxDB 2 uses: ns, us, ms or s.
func (p Precision) String() string { return precisionNames[p] }

// ParsePrecision reads a name: ns (also n or empty), us (also u), ms or s.
func ParsePrecision(name string) (Precision, error) {
	switch name {
	case "", "n":
		return Nanoseconds, nil
	case "u":
		return Microseconds, nil
	}
	for p, n := range precisionNames {
		if n == name {
			return Precision(p), nil
		}
	}
	return 0, fmt.Errorf("precision %q: use ns, us, ms or s", name)
}

// Why a sample can't be written. The texts are values of a metric's label.
const (
	ReasonStale     = "stale_marker"
	ReasonNotFinite = "not_finite"
	ReasonTime      = "time_out_of_range"
	ReasonHistogram = "native_histogram"
)

// timeMillisMax is the largest number of milliseconds that fits into 64 bit nanoseconds, which is what targets keep: the year 2262. The
// lowest is its negative, in the year 1677.
const timeMillisMax = math.MaxInt64 / 1_000_000

// Reason says why line protocol can't express a sample, or is empty if it can.
func Reason(v float64, timeMillis int64) string {
	switch {
	case value.IsStaleNaN(v):
		return ReasonStale
	case math.IsNaN(v) || math.IsInf(v, 0):
		return ReasonNotFinite
	case timeMillis > timeMillisMax || timeMillis < -timeMillisMax:
		return ReasonTime
	}
	return ""
}

// expressible is Reason(v, timeMillis) == "", quicker.
func expressible(v float64, timeMillis int64) bool {
	// Infinities and NaN minus themselves are NaN.
	return v-v == 0 && timeMillis <= timeMillisMax && timeMillis >= -timeMillisMax
}

// fieldValue is the name of the only field in the form with one metric a measurement.
const fieldValue = " value="

// AppendSample appends a line with one field, which is called value, and a newline behind it. prefix is what [AppendSeries] made. Where ok is
// false nothing is appended and [Reason] says why.
func AppendSample(dst, prefix []byte, v float64, timeMillis int64, p Precision) (out []byte, ok bool) {
	if !expressible(v, timeMillis) {
		return dst, false
	}
	dst = append(dst, prefix...)
	dst = append(dst, fieldValue...)
	dst = AppendValue(dst, v)
	dst = append(dst, ' ')
	dst = AppendTime(dst, timeMillis, p)
	return append(dst, '\n'), true
}

// integersMax is where numbers are still written out in all digits by the shortest form of strconv (1e+21), cut down to what an
// int64 and a float64 both hold exactly.
const integersMax = 1 << 53

// AppendValue appends a finite number in the shortest form that reads back as the same float64.
func AppendValue(dst []byte, v float64) []byte {
	// Most samples are counts: writing these as integers takes a third of the time. Minus zero has to keep its sign.
	if i := int64(v); float64(i) == v && i < integersMax && i > -integersMax && (i != 0 || !math.Signbit(v)) {
		return strconv.AppendInt(dst, i, 10)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, 64)
}

// AppendTime appends a time within the range that [Reason] allows. Times before 1970 are cut down towards the past.
func AppendTime(dst []byte, timeMillis int64, p Precision) []byte {
	switch p {
	case Nanoseconds:
		timeMillis *= 1_000_000
	case Microseconds:
		timeMillis *= 1_000
	case Seconds:
		timeMillis = floorSeconds(timeMillis)
	}
	return strconv.AppendInt(dst, timeMillis, 10)
}

func floorSeconds(timeMillis int64) int64 {
	seconds := timeMillis / 1_000
	if timeMillis%1_000 < 0 {
		seconds--
	}
	return seconds
}
