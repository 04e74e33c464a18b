package result

import (
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"

	"varve/export/text"
)

// lineEnd ends records, see RFC 4180.
const lineEnd = "\r\n"

// cursors walk the values of a part, one time after the other. They take time for values and for points of the grid, but not for their
// product: most of many series have a value now and then.
type cursors struct {
	p     *Part
	float []int
	hist  []int
	// due are by time the series whose next value is of that time.
	due map[int64][]int
	// last is the time that a series was added to lately, and its series, which are not in due yet: neighbours mostly go on together.
	last       int64
	lastSeries []int
	spare      [][]int
}

func newCursors(p *Part) *cursors {
	c := &cursors{p: p, float: make([]int, len(p.Series)), hist: make([]int, len(p.Series)), due: map[int64][]int{}, last: math.MinInt64}
	for i := range p.Series {
		c.wait(i)
	}
	return c
}

// wait notes when a series has its next value, if it has one.
func (c *cursors) wait(i int) {
	s := &c.p.Series[i]
	next := int64(math.MaxInt64)
	if n := c.float[i]; n < len(s.Floats) {
		next = s.Floats[n].T
	}
	if n := c.hist[i]; n < len(s.Histograms) {
		next = min(next, s.Histograms[n].T)
	}
	if next == math.MaxInt64 {
		return
	}
	if next != c.last {
		c.flush()
		c.last, c.lastSeries = next, c.due[next]
		if n := len(c.spare); c.lastSeries == nil && n > 0 {
			c.lastSeries, c.spare = c.spare[n-1], c.spare[:n-1]
		}
	}
	c.lastSeries = append(c.lastSeries, i)
}

// flush puts what was added lately where it belongs.
func (c *cursors) flush() {
	if len(c.lastSeries) > 0 {
		c.due[c.last] = c.lastSeries
	}
	c.last, c.lastSeries = math.MinInt64, nil
}

// take returns the series with a value at a time, in their order.
func (c *cursors) take(t int64) []int {
	c.flush()
	now := c.due[t]
	delete(c.due, t)
	slices.Sort(now)
	return now
}

// each calls f for each value, by time and then by series. end, unless nil, is called behind the values of each point of the grid, also
// of one that has none.
func (c *cursors) each(f func(t int64, s *Series, v float64, h []byte) error, end func(t int64, values int) error) error {
	for t := c.p.Grid.First; t <= c.p.Grid.Last; t += c.p.Grid.Step {
		values := 0
		now := c.take(t)
		for _, i := range now {
			s := &c.p.Series[i]
			if n := c.float[i]; n < len(s.Floats) && s.Floats[n].T == t {
				c.float[i]++
				values++
				if err := f(t, s, s.Floats[n].F, nil); err != nil {
					return err
				}
			}
			if n := c.hist[i]; n < len(s.Histograms) && s.Histograms[n].T == t {
				c.hist[i]++
				values++
				if err := f(t, s, 0, s.Histograms[n].JSON); err != nil {
					return err
				}
			}
			c.wait(i)
		}
		if now != nil {
			c.spare = append(c.spare, now[:0])
		}
		if end != nil {
			if err := end(t, values); err != nil {
				return err
			}
		}
	}
	return nil
}

// longPart writes a part of the long form of CSV.
func (w *writer) longPart(p *Part) error {
	several := len(w.o.Read.Queries) > 1
	sep := w.o.Separator
	if w.stats.Bytes == 0 && !w.o.NoHeader {
		w.buf = append(w.buf, "time"...)
		if several {
			w.buf = append(appendRune(w.buf, sep), "query"...)
		}
		w.buf = append(appendRune(append(appendRune(w.buf, sep), "metric"...), sep), "value"...)
		w.buf = append(w.buf, lineEnd...)
		if err := w.put(); err != nil {
			return err
		}
	}
	// What stands between the time and the value, of each series.
	middles := make(map[*Series][]byte, len(p.Series))
	for i := range p.Series {
		s := &p.Series[i]
		b := appendRune(nil, sep)
		if several {
			b = appendRune(text.AppendField(b, w.o.Read.Queries[s.Query], sep), sep)
		}
		b = text.AppendField(b, string(appendMetric(nil, s.Labels)), sep)
		middles[s] = appendRune(b, sep)
	}
	return newCursors(p).each(func(t int64, s *Series, v float64, h []byte) error {
		b := append(text.AppendTime(w.buf, t, w.o.Times), middles[s]...)
		w.buf = append(w.appendCell(b, v, h), lineEnd...)
		return w.put()
	}, nil)
}

// appendCell appends a value as a field.
func (w *writer) appendCell(b []byte, v float64, h []byte) []byte {
	if h != nil {
		return text.AppendField(b, string(h), w.o.Separator)
	}
	return appendValue(b, v)
}

func appendRune(b []byte, r rune) []byte { return append(b, string(r)...) }

// appendMetric appends a label set as the query API writes it.
func appendMetric(b []byte, ls labels.Labels) []byte {
	b = append(b, '{')
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = text.AppendJSONString(b, l.Name)
		b = text.AppendJSONString(append(b, ':'), l.Value)
	})
	return append(b, '}')
}

// wide writes the wide form of CSV.
func (w *writer) wide(ctx context.Context, t *table) error {
	w.begin()
	columns, place := t.sorted()
	w.stats.Series = len(columns)
	sep := w.o.Separator
	if !w.o.NoHeader {
		w.buf = append(w.buf, "time"...)
		for _, c := range columns {
			w.buf = text.AppendField(appendRune(w.buf, sep), w.header(c), sep)
		}
		w.buf = append(w.buf, lineEnd...)
		if err := w.put(); err != nil {
			return err
		}
	}
	return t.parts(place, func(p *Part) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var row []byte
		next := 0 // the column that is to be written
		return newCursors(p).each(func(_ int64, s *Series, v float64, h []byte) error {
			for ; next <= s.Query; next++ {
				row = appendRune(row, sep)
			}
			row = w.appendCell(row, v, h)
			return nil
		}, func(at int64, values int) error {
			if values == 0 {
				return nil
			}
			for ; next < len(columns); next++ {
				row = appendRune(row, sep)
			}
			w.buf = append(append(text.AppendTime(w.buf, at, w.o.Times), row...), lineEnd...)
			row, next = row[:0], 0
			return w.put()
		})
	})
}

// header names a column. With several queries all names begin with theirs.
func (w *writer) header(c *Column) string {
	name := Name(c.Labels)
	if len(w.o.Read.Queries) > 1 {
		name = w.o.Read.Queries[c.Query] + " " + name
	}
	return name
}

// lineValuesMax is how many values a line of JSON has, so that lines are some 300 kB.
const lineValuesMax = 10_000

// linesPart writes a part as JSON lines. Values are those of VictoriaMetrics' form: NaN is null, infinity a string.
func (w *writer) linesPart(p *Part) error {
	for i := range p.Series {
		s := &p.Series[i]
		for from := 0; from < len(s.Floats); from += lineValuesMax {
			points := s.Floats[from:min(from+lineValuesMax, len(s.Floats))]
			err := w.line(s, `"values":[`, len(points), func(b []byte, i int) []byte { return text.AppendJSONFloat(b, points[i].F) },
				func(i int) int64 { return points[i].T })
			if err != nil {
				return err
			}
		}
		for from := 0; from < len(s.Histograms); from += lineValuesMax {
			points := s.Histograms[from:min(from+lineValuesMax, len(s.Histograms))]
			err := w.line(s, `"histograms":[`, len(points), func(b []byte, i int) []byte { return append(b, points[i].JSON...) },
				func(i int) int64 { return points[i].T })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writer) line(s *Series, field string, n int, value func([]byte, int) []byte, at func(int) int64) error {
	b := append(w.buf, '{')
	if len(w.o.Read.Queries) > 1 {
		b = append(text.AppendJSONString(append(b, `"query":`...), w.o.Read.Queries[s.Query]), ',')
	}
	b = append(appendMetric(append(b, `"metric":`...), s.Labels), ',')
	b = append(b, field...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = value(b, i)
	}
	b = append(b, `],"timestamps":[`...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, at(i), 10)
	}
	w.buf = append(b, ']', '}', '\n')
	return w.put()
}
