package influxdb

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Characters says which characters the names of metrics and labels may hold.
type Characters uint8

const (
	// Legacy writes an underscore for every character outside of a-z, A-Z, 0-9, the
	// underscore and, in names of metrics, the colon, and one before a digit that would
	// come first: names that PromQL reads without quotes.
	Legacy Characters = iota
	// UTF8 keeps all characters.
	UTF8
)

// Options say how lines become series. The zero value is what most people want.
type Options struct {
	// Characters of the names of metrics and labels.
	Characters Characters
	// Separator stands between measurement and field in a metric's name. Default "_".
	Separator string
	// AppendValue writes measurement_value even where value is the only field of a line
	// that is stored. Without it the metric then bears the name of the measurement.
	AppendValue bool
	// BareMeasurements are those of which the metric bears the name of the field alone.
	// Default: prometheus, which is what Telegraf writes with metric_version 2. A list
	// that is empty and not nil is none.
	BareMeasurements []string
	// TextLabels are keys of fields that hold text and become labels of the other fields
	// of their line. Text in any other field is counted and left out.
	TextLabels []string
	// DatabaseLabel, RetentionPolicyLabel, BucketLabel and OrgLabel are the names of
	// labels that get the parameters db, rp, bucket and org of a request, where it has
	// them. Empty: none. A tag of the same name goes before.
	DatabaseLabel, RetentionPolicyLabel, BucketLabel, OrgLabel string
	// LineBytesMax bounds a line, inclusive, where a body is not held as a whole: in
	// imports. Default 1 MiB.
	LineBytesMax int
	// Version is what clients are told in X-Influxdb-Version. Default 1.8.10: the last
	// that speaks both /write and /api/v2/write.
	Version string
}

func (o Options) withDefaults() Options {
	if o.Separator == "" {
		o.Separator = "_"
	}
	if o.BareMeasurements == nil {
		o.BareMeasurements = []string{"prometheus"}
	}
	if o.LineBytesMax <= 0 {
		o.LineBytesMax = 1 << 20
	}
	o.LineBytesMax = min(o.LineBytesMax, math.MaxInt32/4)
	if o.Version == "" {
		o.Version = "1.8.10"
	}
	return o
}

// identity spells out everything that decides which labels the same bytes stand for.
func (o *Options) identity() string {
	bare, text := slices.Sorted(slices.Values(o.BareMeasurements)), slices.Sorted(slices.Values(o.TextLabels))
	return fmt.Sprintf(" %d %q %t %q %q %q", o.Characters, o.Separator, o.AppendValue, bare, text,
		[]string{o.DatabaseLabel, o.RetentionPolicyLabel, o.BucketLabel, o.OrgLabel})
}

// Precision is the unit of the times in lines. The zero value is nanoseconds.
type Precision struct {
	// nanos is the unit, 0 for 1.
	nanos int64
}

// precisions are the names that InfluxDB 1.x and 2.x know, and those that people write.
var precisions = map[string]time.Duration{
	"": time.Nanosecond, "n": time.Nanosecond, "ns": time.Nanosecond,
	"u": time.Microsecond, "us": time.Microsecond, "µ": time.Microsecond, "µs": time.Microsecond, "μ": time.Microsecond, "μs": time.Microsecond,
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour,
}

// precisionBytesMax is more than any name has.
const precisionBytesMax = 8

// ParsePrecision reads the name of a precision: ns (also n or empty), us (also u, µ or
// µs), ms, s, m or h.
func ParsePrecision(name string) (Precision, error) {
	unit, ok := precisions[name]
	if !ok {
		return Precision{}, fmt.Errorf("invalid precision %q: use ns, us, ms, s, m or h", cut(strings.ToValidUTF8(name, "?"), precisionBytesMax))
	}
	return Precision{nanos: int64(unit)}, nil
}

// timeNanosMax is the latest time that InfluxDB keeps, in the year 2262; the earliest is
// its negative, in 1677.
const timeNanosMax = math.MaxInt64 - 1

const nanosPerMilli = int64(time.Millisecond)

// millis turns a time in units of the precision into Unix milliseconds, towards the past.
// It returns false for what InfluxDB does not keep.
func (p Precision) millis(t int64) (int64, bool) {
	unit := max(p.nanos, 1)
	if most := timeNanosMax / unit; t > most || t < -most {
		return 0, false
	}
	if unit >= nanosPerMilli {
		return t * (unit / nanosPerMilli), true
	}
	perMilli := nanosPerMilli / unit
	millis := t / perMilli
	if t%perMilli < 0 {
		millis--
	}
	return millis, true
}
