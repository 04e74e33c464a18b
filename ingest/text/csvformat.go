package text

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"varve/ingest"
)

// csvColumnsMax bounds the columns that a format may name, which a record is then split into at most.
const csvColumnsMax = 1024

// csvFormat says what the columns of a record are. It doesn't change.
type csvFormat struct {
	// text is how it was written.
	text    string
	columns []csvColumn // by place in a record, the first being 0
	labels  []int       // the places of labels
	metrics []int       // those of metrics
	time    int         // that of the time, -1 for none
	clock   csvClock
}

type csvColumn struct {
	role csvRole
	name string
}

type csvRole uint8

const (
	csvIgnored csvRole = iota
	csvLabel
	csvMetric
	csvTime
)

// csvClock reads the time of a record as Unix ms.
type csvClock func(b []byte) (millis int64, ok bool)

// parseCSVFormat reads VictoriaMetrics' language of formats: parts column:role:name, separated by commas, where columns
// count from 1 and the role is label, metric or time. A time has a unit in the place of a name: unix_s, unix_ms,
// unix_us, unix_ns, rfc3339 or custom:layout, the layout in Go's words.
func parseCSVFormat(text string) (*csvFormat, error) {
	f := &csvFormat{text: text, time: -1}
	if text == "" {
		return nil, fmt.Errorf("%w format: it is empty; want for example 1:label:host,2:metric:cpu,3:time:unix_s", ingest.ErrMalformed)
	}
	for part := range strings.SplitSeq(text, ",") {
		if err := f.add(strings.TrimSpace(part)); err != nil {
			return nil, fmt.Errorf("%w format, part %s: %w", ingest.ErrMalformed, quoted(part), err)
		}
	}
	if len(f.metrics) == 0 {
		return nil, fmt.Errorf("%w format %s: no column is a metric", ingest.ErrMalformed, quoted(text))
	}
	return f, nil
}

var (
	errCSVPart  = errors.New("want column:role:name")
	errCSVTimes = errors.New("a second time")
)

func (f *csvFormat) add(part string) error {
	place, rest, ok := strings.Cut(part, ":")
	column, err := strconv.Atoi(place)
	switch {
	case !ok || err != nil:
		return errCSVPart
	case column < 1 || column > csvColumnsMax:
		return fmt.Errorf("column %d: they count from 1, to %d at most", column, csvColumnsMax)
	}
	role, name, ok := strings.Cut(rest, ":")
	if !ok || name == "" {
		return errCSVPart
	}
	for len(f.columns) < column {
		f.columns = append(f.columns, csvColumn{})
	}
	c := &f.columns[column-1]
	if c.role != csvIgnored {
		return fmt.Errorf("column %d has a role already", column)
	}
	c.name = name
	switch role {
	case "label":
		if name == model.MetricNameLabel || slices.ContainsFunc(f.labels, func(i int) bool { return f.columns[i].name == name }) {
			return fmt.Errorf("label %s has another column already", quoted(name))
		}
		c.role, f.labels = csvLabel, append(f.labels, column-1)
	case "metric":
		c.role, f.metrics = csvMetric, append(f.metrics, column-1)
	case "time":
		if f.time >= 0 {
			return errCSVTimes
		}
		if f.clock, err = csvClockOf(name); err != nil {
			return err
		}
		c.role, f.time = csvTime, column-1
	default:
		return fmt.Errorf("no role %s: want label, metric or time", quoted(role))
	}
	return nil
}

func csvClockOf(unit string) (csvClock, error) {
	switch unit {
	case "unix_s":
		return parseSeconds, nil
	case "unix_ms":
		return parseInt, nil
	case "unix_us":
		return divided(1000), nil
	case "unix_ns":
		return divided(1_000_000), nil
	case "rfc3339":
		return layout(time.RFC3339Nano), nil
	}
	if custom, ok := strings.CutPrefix(unit, "custom:"); ok && custom != "" {
		return layout(custom), nil
	}
	return nil, fmt.Errorf("no unit %s: want unix_s, unix_ms, unix_us, unix_ns, rfc3339 or custom:layout", quoted(unit))
}

// divided reads whole numbers of a unit of which a millisecond has so many. Times before 1970 are cut off toward the past.
func divided(perMilli int64) csvClock {
	return func(b []byte) (int64, bool) {
		n, err := strconv.ParseInt(aliased(b), 10, 64)
		if err != nil {
			return 0, false
		}
		millis := n / perMilli
		if n%perMilli < 0 {
			millis--
		}
		return millis, true
	}
}

func layout(l string) csvClock {
	return func(b []byte) (int64, bool) {
		t, err := time.Parse(l, aliased(b))
		if err != nil {
			return 0, false
		}
		// UnixMilli of years that int64 has no room for is undefined.
		if s := t.Unix(); s < math.MinInt64/1000+1 || s > math.MaxInt64/1000-1 {
			return 0, false
		}
		return t.UnixMilli(), true
	}
}
