package result

import (
	"context"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"
)

// drawn are the series of a table that a figure shows.
type drawn struct {
	columns []*Column
	names   []string
	// named is how many of them the legend names.
	named int
	// place is what table.parts takes.
	place []int
	// notes say what is missing, for whoever looks at the figure.
	notes []string
}

// drawn chooses what is drawn: the first series that have a finite value at all.
func (w *writer) drawn(t *table, namedMax int) (*drawn, error) {
	all, _ := t.sorted()
	d := &drawn{place: make([]int, len(all))}
	var left, unseen int
	var histograms, infs, points uint64
	var of []int
	var sets []labels.Labels
	for _, c := range all {
		d.place[c.ordinal] = -1
		histograms += c.Histograms
		switch {
		case c.Finite == 0:
			unseen++
			continue
		case len(d.columns) == w.o.SeriesMax:
			left++
			continue
		}
		d.place[c.ordinal] = len(d.columns)
		d.columns = append(d.columns, c)
		of, sets = append(of, c.Query), append(sets, c.Labels)
		infs += c.Infs
		points += c.Finite + c.NaNs + c.Infs
	}
	if len(d.columns) == 0 {
		return nil, fmt.Errorf("%w: no series has a finite value that can be drawn; of native histograms draw histogram_quantile, histogram_count or histogram_sum, or write csv", ErrEmpty)
	}
	if points > drawnValuesMax {
		return nil, fmt.Errorf("%w: %d values can't be drawn, at most %d; choose a longer step, fewer series or less time", ErrTooLarge, points, drawnValuesMax)
	}
	d.names = Titles(w.o.Read.Queries, of, sets)
	for i, name := range d.names {
		d.names[i] = shorten(name, nameMax)
	}
	d.named = min(namedMax, len(d.names))
	d.notes = Notes(Missing{Drawn: len(d.columns), Left: left, Unseen: unseen, Named: d.named, Histograms: histograms, Infs: infs})
	w.stats.Series = len(d.columns)
	w.stats.Notes = append(w.stats.Notes, d.notes...)
	return d, nil
}

// nameMax bounds the characters of a name in a legend.
const nameMax = 160

// Missing counts what a figure doesn't show.
type Missing struct {
	// Drawn series are shown, of which Named have their name in the legend; Left are not shown since they are too many, and Unseen since they
	// have no finite value.
	Drawn, Named, Left, Unseen int
	// Histograms and Infs are values.
	Histograms, Infs uint64
}

// Notes says it in words, nothing if all is shown.
func Notes(m Missing) (notes []string) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if m.Left > 0 {
		note("the first %d of %d series are drawn", m.Drawn, m.Drawn+m.Left)
	}
	if m.Named < m.Drawn {
		note("%d of %d lines are named", m.Named, m.Drawn)
	}
	if m.Unseen > 0 {
		note("%d series without a finite value are not drawn", m.Unseen)
	}
	if m.Histograms > 0 {
		note("%d native histograms are not drawn", m.Histograms)
	}
	if m.Infs > 0 {
		note("%d infinite values are gaps", m.Infs)
	}
	return notes
}

// rows calls f for each point of time at which a series of d has a value, and for the first of each stretch at which none
// has, so that a line breaks there. values are those of the columns from first on, as many as cells has room for; have tells which there are. Both
// are reused.
func (d *drawn) rows(ctx context.Context, t *table, first int, cells []float64, f func(at int64, values []float64, have []bool) error) error {
	have := make([]bool, len(cells))
	gap := true // there is nothing that a line could begin at
	place := make([]int, len(d.place))
	for ordinal, p := range d.place {
		place[ordinal] = -1
		if p >= first && p < first+len(cells) {
			place[ordinal] = p - first
		}
	}
	last := int64(math.MinInt64)
	return t.parts(place, func(p *Part) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Parts without any value are not in the table.
		if !gap && p.Grid.First > last+t.step {
			clear(have)
			gap = true
			if err := f(last+t.step, cells, have); err != nil {
				return err
			}
		}
		last = p.Grid.Last
		clear(have)
		any := false
		return newCursors(p).each(func(_ int64, s *Series, v float64, h []byte) error {
			if h == nil {
				cells[s.Query], have[s.Query], any = v, true, true
			}
			return nil
		}, func(at int64, _ int) error {
			if !any && gap {
				return nil
			}
			gap = !any
			err := f(at, cells, have)
			clear(have)
			any = false
			return err
		})
	})
}
