// Package figure draws what range queries give as PNG or SVG.
//
// The nouns:
//
//   - Figure: a title, a plot area with a time axis in UTC and an axis of values with its unit, and below it a legend and a
//     note about what is not shown.
//   - Line: a series. Of what falls into one column of pixels it keeps the first, the lowest, the highest and the last value, which
//     draws the same picture as all of them would. So memory is bounded by the size of the figure and the number of lines, however
//     many points are read.
//
// A line breaks where a point of the grid has no value, or one that is not a number or infinite. Points without neighbours are dots.
//
// Texts are drawn with fonts that are built in, Liberation Sans, which has Latin, Greek, Cyrillic and Hebrew. In PNG
// other letters are boxes; an SVG leaves them to the fonts of who looks at it.
//
// Nothing here is for several goroutines.
package figure

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"varve/export/result"
)

// Format is what is drawn.
type Format int

// Formats.
const (
	PNG Format = iota
	SVG
)

// Options say what is drawn.
type Options struct {
	Read   result.Read
	Format Format
	// Title and Unit may be empty: then the queries are the title.
	Title, Unit string
	// Width and Height are pixels, for SVG of 1/96 inch; 0 is a default.
	Width, Height int
	// SeriesMax bounds the lines; 0 is a default. Those that appear first are drawn.
	SeriesMax int
	// Begin, unless nil, is called before the first byte is written.
	Begin func(result.Report)
}

// bucketsMax bounds the columns of a line: 500 lines of them are some 70 MB.
const bucketsMax = 2_000

// seenMax bounds the series that are counted.
const seenMax = 1 << 20

// Write draws what the queries give.
func Write(ctx context.Context, out io.Writer, o Options) (result.Stats, error) {
	if err := o.Read.Validate(); err != nil {
		return result.Stats{}, err
	}
	if err := o.complete(); err != nil {
		return result.Stats{}, err
	}
	g := o.Read.Grid
	width := (g.Last-g.First)/int64(min(o.Width, bucketsMax)) + 1
	c := &collector{o: &o, bucketMillis: max(width, g.Step), lines: map[string]*line{}, seen: map[uint64]bool{}}
	var stats result.Stats
	var err error
	if stats.Report, err = o.Read.Parts(ctx, c.add); err != nil {
		return stats, err
	}
	f, err := c.figure()
	if err != nil {
		return stats, err
	}
	stats.Series = len(f.lines)
	if o.Begin != nil {
		o.Begin(stats.Report)
	}
	counted := &countingWriter{out: out}
	err = f.write(counted)
	stats.Bytes, stats.Notes = counted.n, f.notes
	return stats, err
}

func (o *Options) complete() error {
	set := func(n *int, standard int) {
		if *n == 0 {
			*n = standard
		}
	}
	set(&o.Width, result.WidthDefault)
	set(&o.Height, result.HeightDefault)
	set(&o.SeriesMax, result.SeriesMaxDefault)
	if o.SeriesMax < 0 {
		return fmt.Errorf("%w: a bound is negative", result.ErrOption)
	}
	if o.Title == "" {
		o.Title = strings.Join(o.Read.Queries, ", ")
	}
	o.Title, o.Unit = result.Line(o.Title), result.Line(o.Unit)
	return result.CheckSize(o.Width, o.Height)
}

// bucket is what a line keeps of a column of pixels.
type bucket struct {
	// index is the time of the bucket, in its lengths from the begin of the grid.
	index                  int64
	first, low, high, last promql.FPoint
	// broken tells that there is a gap before it.
	broken bool
}

// line is a series that is drawn.
type line struct {
	query   int
	labels  labels.Labels
	buckets []bucket
	// last is the time of the last finite value.
	last int64
}

// collector makes lines of parts.
type collector struct {
	o            *Options
	bucketMillis int64
	lines        map[string]*line
	key          []byte
	// seen has the series by hash, true for those with a finite value. A collision is a wrong number in a note.
	seen       map[uint64]bool
	histograms uint64
	infs       uint64
}

func (c *collector) add(p *result.Part) error {
	for i := range p.Series {
		s := &p.Series[i]
		c.histograms += uint64(len(s.Histograms))
		finite := slices.ContainsFunc(s.Floats, func(v promql.FPoint) bool { return isFinite(v.F) })
		hash := s.Labels.Hash() ^ uint64(s.Query)*0x9e3779b97f4a7c15
		if known, ok := c.seen[hash]; (ok || len(c.seen) < seenMax) && !known {
			c.seen[hash] = finite
		}
		if !finite {
			for _, v := range s.Floats {
				if math.IsInf(v.F, 0) {
					c.infs++
				}
			}
			continue
		}
		if l := c.line(s); l != nil {
			c.points(l, s.Floats)
		}
	}
	return nil
}

// line returns the line of a series, nil if there are enough.
func (c *collector) line(s *result.Series) *line {
	c.key = append(s.Labels.Bytes(c.key[:0]), byte(s.Query))
	l, ok := c.lines[string(c.key)]
	if !ok && len(c.lines) < c.o.SeriesMax {
		l = &line{query: s.Query, labels: s.Labels.Copy(), last: math.MinInt64}
		c.lines[string(c.key)] = l
	}
	return l
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func (c *collector) points(l *line, floats []promql.FPoint) {
	g := c.o.Read.Grid
	for _, v := range floats {
		if math.IsInf(v.F, 0) {
			c.infs++
		}
		if !isFinite(v.F) {
			continue
		}
		broken := v.T != l.last+g.Step
		l.last = v.T
		index := (v.T - g.First) / c.bucketMillis
		if n := len(l.buckets); n > 0 && l.buckets[n-1].index == index {
			b := &l.buckets[n-1]
			b.last = v
			if v.F < b.low.F {
				b.low = v
			}
			if v.F > b.high.F {
				b.high = v
			}
			continue
		}
		l.buckets = append(l.buckets, bucket{index: index, first: v, low: v, high: v, last: v, broken: broken})
	}
}

// figure chooses the order and the names.
func (c *collector) figure() (*figure, error) {
	if len(c.lines) == 0 {
		return nil, fmt.Errorf("%w: no series has a finite value that can be drawn; of native histograms draw histogram_quantile, histogram_count or histogram_sum, or write csv", result.ErrEmpty)
	}
	f := &figure{o: c.o}
	for _, l := range c.lines {
		f.lines = append(f.lines, l)
	}
	slices.SortFunc(f.lines, func(a, b *line) int {
		if a.query != b.query {
			return a.query - b.query
		}
		return labels.Compare(a.labels, b.labels)
	})
	of, sets := make([]int, len(f.lines)), make([]labels.Labels, len(f.lines))
	for i, l := range f.lines {
		of[i], sets[i] = l.query, l.labels
	}
	f.names = result.Titles(c.o.Read.Queries, of, sets)
	finite := 0
	for _, has := range c.seen {
		if has {
			finite++
		}
	}
	f.missing = result.Missing{
		Drawn: len(f.lines), Left: max(0, finite-len(f.lines)), Unseen: len(c.seen) - finite, Histograms: c.histograms, Infs: c.infs,
	}
	return f, nil
}

// countingWriter counts what is written.
type countingWriter struct {
	out io.Writer
	n   int64
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.out.Write(b)
	w.n += int64(n)
	return n, err
}
