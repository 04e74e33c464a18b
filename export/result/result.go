// Package result writes what range queries give: as CSV, long or wide, as JSON lines, and as files that gnuplot or
// Python's matplotlib draw, with the data inside.
//
// The nouns:
//
//   - Grid: the points in time at which a query is evaluated, as query_range has them.
//   - Source: what evaluates one query over one grid: a server over HTTP, any that has Prometheus' query_range ([Server]),
//     or an engine in this process ([Engine]).
//   - Part: consecutive points of the grid with the series that the queries have there. [Read] asks for one part after the
//     other, each as long as memory and the source's limits allow, so that no range is too long.
//   - Table: parts that are kept, in memory while they are small and else in a scratch file, for the forms that have to
//     know all series before the first line: wide CSV and the files to be drawn.
//
// Parts don't change answers: each point of a grid is evaluated by itself, and what refers to the whole range (@ start()
// and @ end()) is written out before a query is taken apart. A query of which this can't be known is asked in one
// piece, or refused. Two things may differ from the answer in one piece. Sums over series that are themselves groups add
// up in the order in which the groups appear, so their last bit may vary. And series that become equal, because a
// function drops their name, are an error only if they are in the same part.
//
// Values are those of the source, written as the shortest text that is the same float again. Native histograms are the
// JSON text that the query API has for them.
//
// Labels, titles and queries come from anybody. They stay text in every form.
//
// Nothing here is for several goroutines, but for sources.
package result

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

var (
	// ErrOption is wrapped by errors about what was asked for.
	ErrOption = errors.New("can't be exported")
	// ErrTooLarge is wrapped by errors of a Source that fewer points would not have had, and by those about bounds that
	// a narrower request stays below.
	ErrTooLarge = errors.New("too much at once")
	// ErrEmpty: no query has a value in all of the time.
	ErrEmpty = errors.New("the result is empty")
)

// Grid is the points First, First+Step, ... up to Last, inclusive, Unix ms.
type Grid struct{ First, Last, Step int64 }

// timesMin and timesMax are the years 1 to 9999, which RFC 3339 and Python can write.
var (
	timesMin = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	timesMax = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMilli()
)

// Validate tells what is wrong with a grid.
func (g Grid) Validate() error {
	switch {
	case g.Step <= 0:
		return fmt.Errorf("%w: the step must be positive", ErrOption)
	case g.Last < g.First:
		return fmt.Errorf("%w: the time ends before it begins", ErrOption)
	case g.First < timesMin || g.Last > timesMax:
		return fmt.Errorf("%w: the time is outside of the years 1 to 9999", ErrOption)
	}
	return nil
}

// Points is how many there are.
func (g Grid) Points() int64 { return (g.Last-g.First)/g.Step + 1 }

// part returns n points from the i-th on; there are as many.
func (g Grid) part(i, n int64) Grid {
	return Grid{First: g.First + i*g.Step, Last: g.First + (i+n-1)*g.Step, Step: g.Step}
}

// has tells whether a time is one of the points.
func (g Grid) has(t int64) bool { return t >= g.First && t <= g.Last && (t-g.First)%g.Step == 0 }

// Histogram is a native histogram at a time, Unix ms, as compact JSON of the query API.
type Histogram struct {
	T    int64
	JSON []byte
}

// Series is what a query has for one label set. Floats and histograms ascend strictly in time.
type Series struct {
	// Query is the index of the query in the Request.
	Query      int
	Labels     labels.Labels
	Floats     []promql.FPoint
	Histograms []Histogram
}

// Weights of what is held, in bytes: a point is two words; a series has headers of slices and is kept by its labels.
const (
	pointBytes     = 16
	seriesBytes    = 128
	histogramBytes = 40
)

func (s *Series) bytes() int64 {
	n := int64(seriesBytes + pointBytes*len(s.Floats))
	s.Labels.Range(func(l labels.Label) { n += int64(len(l.Name) + len(l.Value)) })
	for i := range s.Histograms {
		n += int64(histogramBytes + len(s.Histograms[i].JSON))
	}
	return n
}

// Answer is what a Source says.
type Answer struct {
	Series []Series
	// Warnings and Infos are what the source remarks, for people.
	Warnings, Infos []string
	// Resolution tells from what the answer is, as X-Varve-Resolution has it; empty if the source doesn't say.
	Resolution string
	// Release, unless nil, is called when the series aren't needed any more.
	Release func()
}

func (a *Answer) release() {
	if a.Release != nil {
		a.Release()
	}
}

// Source evaluates queries. It may be used by several goroutines.
type Source interface {
	// Range evaluates a query at the points of a grid. It may refuse, with ErrTooLarge, an answer that takes more than
	// bytesMax. ErrTooLarge says that an answer for fewer points would not be refused.
	Range(ctx context.Context, query string, g Grid, bytesMax int64) (Answer, error)
}

// Part is a stretch of the grid with all its series, sorted by query and then by labels. Its memory is reused when the
// function that was given it returns.
type Part struct {
	Grid   Grid
	Series []Series
}

// check sorts the series of an answer and looks whether they are what was asked for.
func (a *Answer) check(g Grid) error {
	slices.SortFunc(a.Series, func(x, y Series) int { return labels.Compare(x.Labels, y.Labels) })
	for i := range a.Series {
		s := &a.Series[i]
		if i > 0 && labels.Equal(a.Series[i-1].Labels, s.Labels) {
			return fmt.Errorf("the answer has the series %s twice", Name(s.Labels))
		}
		last := g.First - 1
		for _, p := range s.Floats {
			if p.T <= last || !g.has(p.T) {
				return offGrid(p.T, g)
			}
			last = p.T
		}
		last = g.First - 1
		for _, h := range s.Histograms {
			if h.T <= last || !g.has(h.T) {
				return offGrid(h.T, g)
			}
			last = h.T
		}
	}
	return nil
}

func offGrid(t int64, g Grid) error {
	return fmt.Errorf("the answer has a value at %s, which was not asked for: some servers move the times of a query; begin at a multiple of the step of %s",
		timeText(t), time.Duration(g.Step)*time.Millisecond)
}

func timeText(millis int64) string { return time.UnixMilli(millis).UTC().Format(time.RFC3339Nano) }
