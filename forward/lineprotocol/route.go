package lineprotocol

import (
	"cmp"
	"errors"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Route writes several metrics into the rows of one measurement, which is a table in QuestDB: a label names the measurement, the metric's name
// is the field, and the other labels are the tags. Two metrics share a row where their tags and times are equal, so that labels
// which differ between them (such as a unit) have to be dropped.
type Route struct {
	// MeasurementLabel is the label whose value is the measurement. It is no tag then. Empty for none.
	MeasurementLabel string
	// DefaultMeasurement is taken for series without that label. Empty: those can't be written.
	DefaultMeasurement string
	// DropLabels are left out of the tags.
	DropLabels []string
}

// What keeps a series from being routed.
var (
	ErrNoName        = errors.New("the series has no metric name")
	ErrNoMeasurement = errors.New("the series lacks the label that names its measurement, and there is no default")
)

// Series returns the prefix of a series' rows (measurement and tags) and the name of its field, not escaped.
func (r *Route) Series(ls labels.Labels) (prefix []byte, field string, err error) {
	field = ls.Get(model.MetricNameLabel)
	if field == "" {
		return nil, "", ErrNoName
	}
	measurement := r.DefaultMeasurement
	if r.MeasurementLabel != "" {
		measurement = cmp.Or(ls.Get(r.MeasurementLabel), measurement)
	}
	if measurement == "" {
		return nil, "", ErrNoMeasurement
	}
	prefix = AppendMeasurement(nil, measurement)
	ls.Range(func(l labels.Label) {
		if l.Name == model.MetricNameLabel || l.Name == r.MeasurementLabel || slices.Contains(r.DropLabels, l.Name) {
			return
		}
		prefix = appendTag(prefix, l.Name, l.Value)
	})
	return prefix, field, nil
}

// Rows joins samples into lines: those of one prefix and one time make one line with a field each.
//
// Column starts the samples of one series and Add gives them; AppendLines then sorts all of them and writes the lines. A field that
// comes twice for a row gets a line of its own, so that the target sees both in the order given.
// The zero value is ready. One goroutine at a time.
type Rows struct {
	prefixes map[string]int32
	fields   map[string]int32
	columns  []column
	cells    []cell
	ids      []int32
}

// column is the samples of a series: all have one prefix and one field.
type column struct {
	prefix, field string
	row, number   int32 // numbers of the prefix and of the field
}

// cell is one sample.
type cell struct {
	time   int64 // milliseconds, cut down to what the target sees
	value  float64
	row    int32
	field  int32
	repeat int32 // how many cells of the same row, time and field come before
	column int32
	id     int32
}

// Reset forgets everything but keeps the memory.
func (r *Rows) Reset() {
	clear(r.prefixes)
	clear(r.fields)
	clear(r.columns)
	r.columns, r.cells = r.columns[:0], r.cells[:0]
}

// Column says what the samples that follow belong to. The field is escaped. Both are kept until Reset.
func (r *Rows) Column(prefix, field string) {
	if r.prefixes == nil {
		r.prefixes, r.fields = map[string]int32{}, map[string]int32{}
	}
	r.columns = append(r.columns, column{prefix: prefix, field: field, row: number(r.prefixes, prefix), number: number(r.fields, field)})
}

func number(of map[string]int32, s string) int32 {
	n, known := of[s]
	if !known {
		n = int32(len(of))
		of[s] = n
	}
	return n
}

// Add gives a sample of the last Column. AppendLines hands back its id; ids of a column ascend with its times. It
// returns false if the sample can't be expressed, for which [Reason] has the words. The precision must be the same for all.
func (r *Rows) Add(v float64, timeMillis int64, p Precision, id int32) bool {
	if !expressible(v, timeMillis) {
		return false
	}
	if p == Seconds {
		timeMillis = floorSeconds(timeMillis) * 1_000
	}
	last := len(r.columns) - 1
	c := &r.columns[last]
	r.cells = append(r.cells, cell{time: timeMillis, value: v, row: c.row, field: c.number, column: int32(last), id: id})
	return true
}

// AppendLines appends all lines, each with a newline, and calls line behind each with the length of dst so far and the ids of its
// samples, which are valid during the call. line may be nil.
func (r *Rows) AppendLines(dst []byte, p Precision, line func(end int, ids []int32)) []byte {
	r.sort()
	for i := 0; i < len(r.cells); {
		first := &r.cells[i]
		dst = append(dst, r.columns[first.column].prefix...)
		before := byte(' ')
		r.ids = r.ids[:0]
		for ; i < len(r.cells) && sameLine(first, &r.cells[i]); i++ {
			dst = append(dst, before)
			dst = append(dst, r.columns[r.cells[i].column].field...)
			dst = append(dst, '=')
			dst = AppendValue(dst, r.cells[i].value)
			r.ids = append(r.ids, r.cells[i].id)
			before = ','
		}
		dst = append(dst, ' ')
		dst = AppendTime(dst, first.time, p)
		dst = append(dst, '\n')
		if line != nil {
			line(len(dst), r.ids)
		}
	}
	return dst
}

func sameLine(a, b *cell) bool { return a.row == b.row && a.time == b.time && a.repeat == b.repeat }

// sort brings the cells of a line together, their fields in the order in which they were first seen.
func (r *Rows) sort() {
	slices.SortFunc(r.cells, func(a, b cell) int {
		switch {
		case a.row != b.row:
			return cmp.Compare(a.row, b.row)
		case a.time != b.time:
			return cmp.Compare(a.time, b.time)
		case a.field != b.field:
			return cmp.Compare(a.field, b.field)
		case a.column != b.column:
			return cmp.Compare(a.column, b.column)
		}
		return cmp.Compare(a.id, b.id)
	})
	repeats := false
	for i := 1; i < len(r.cells); i++ {
		before, c := &r.cells[i-1], &r.cells[i]
		if before.row == c.row && before.time == c.time && before.field == c.field {
			c.repeat = before.repeat + 1
			repeats = true
		}
	}
	if repeats {
		slices.SortStableFunc(r.cells, func(a, b cell) int {
			return cmp.Or(cmp.Compare(a.row, b.row), cmp.Compare(a.time, b.time), cmp.Compare(a.repeat, b.repeat))
		})
	}
}
