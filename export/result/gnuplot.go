package result

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"varve/export/text"
)

// gnuplotNamed is how many series the key has: it lies below the figure, whose size isn't known.
const gnuplotNamed = 12

// gnuplotColumns is how many series are in one block of data. gnuplot reads a block anew for each of its series.
const gnuplotColumns = 16

// gnuplot writes a file for gnuplot 5. Texts are literals in which nothing is a macro or a command, and are not
// enhanced; data are numbers only. Values that are missing, NaN or infinite are NaN, where lines break.
func (w *writer) gnuplot(ctx context.Context, t *table) error {
	d, err := w.drawn(t, gnuplotNamed)
	if err != nil {
		return err
	}
	w.begin()
	g := w.o.Read.Grid
	w.text("# Written by varve export query, with its data: gnuplot 5 draws it.\n" +
		"#   gnuplot FILE                       in a window, which needs a gnuplot that can open one\n" +
		fmt.Sprintf("#   gnuplot -e \"set term pngcairo size %d,%d; set output 'figure.png'\" FILE\n", w.o.Width, w.o.Height) +
		"# Columns: Unix time in s, then the series in the order of the plot command.\n")
	for first := 0; first < len(d.columns); first += gnuplotColumns {
		if err := w.gnuplotBlock(ctx, t, d, first); err != nil {
			return err
		}
	}
	w.text("set encoding utf8\nset title " + gnuplotString(w.o.Title) + " noenhanced\nset grid\nset border 3\n" +
		"set key below left vertical Left reverse samplen 2 noenhanced maxcols 1 maxrows " + strconv.Itoa(gnuplotNamed) + "\n" +
		"set datafile separator ','\nset xdata time\nset timefmt '%s'\nset xtics nomirror\nset ytics nomirror\n" +
		"set format x " + gnuplotTimes(g) + "\n")
	if g.Last > g.First {
		w.text("set xrange ['" + seconds(g.First) + "':'" + seconds(g.Last) + "']\n")
	}
	w.text("set xlabel " + gnuplotString(strings.Join(append([]string{"UTC"}, d.notes...), "; ")) + " noenhanced\n")
	if w.o.Unit != "" {
		w.text("set ylabel " + gnuplotString(w.o.Unit) + " noenhanced\n")
	}
	w.text("plot ")
	for i, c := range d.columns {
		if i > 0 {
			w.text(", \\\n  ")
		}
		// A point alone is no line.
		style := "lines lw 1.5"
		if c.Alone > 0 {
			style = "linespoints lw 1.5 pt 7 ps 0.4"
		}
		title := "notitle"
		if i < d.named {
			title = "title " + gnuplotString(d.names[i]) + " noenhanced"
		}
		w.text(fmt.Sprintf("$DATA%d using 1:%d with %s lc %d %s", i/gnuplotColumns, i%gnuplotColumns+2, style, i%gnuplotColors+1, title))
	}
	w.text("\n# Without this the window is gone before anybody looks at it.\nif (strstrt(' qt wxt x11 windows aqua ', ' '.GPVAL_TERM.' ') > 0) pause mouse close\n")
	return w.put()
}

// gnuplotColors is how many line types have a colour of their own.
const gnuplotColors = 8

// text adds to what is written next.
func (w *writer) text(s string) { w.buf = append(w.buf, s...) }

// gnuplotBlock writes a block of data.
func (w *writer) gnuplotBlock(ctx context.Context, t *table, d *drawn, first int) error {
	w.text(fmt.Sprintf("$DATA%d << EOD\n", first/gnuplotColumns))
	cells := make([]float64, min(gnuplotColumns, len(d.columns)-first))
	err := d.rows(ctx, t, first, cells, func(at int64, values []float64, have []bool) error {
		w.buf = text.AppendTime(w.buf, at, text.UnixSeconds)
		for i, v := range values {
			if !have[i] || math.IsNaN(v) || math.IsInf(v, 0) {
				w.buf = append(w.buf, ",NaN"...)
				continue
			}
			w.buf = strconv.AppendFloat(append(w.buf, ','), v, 'g', -1, 64)
		}
		w.buf = append(w.buf, '\n')
		return w.put()
	})
	if err != nil {
		return err
	}
	w.text("EOD\n")
	return w.put()
}

// gnuplotString quotes a text, as one line, for gnuplot. Between double quotes a backslash, a quote, a backquote, which would run a
// command, and an at sign mean something: they are written as octal escapes. Single quotes need none, but gnuplot 5.4
// doesn't understand two quotes in a row between them.
func gnuplotString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range Line(s) {
		switch r {
		case '"', '\\', '`', '@':
			fmt.Fprintf(&b, `\%03o`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// gnuplotTimes is how the axis writes times.
func gnuplotTimes(g Grid) string {
	switch span := time.Duration(g.Last-g.First) * time.Millisecond; {
	case span <= 10*time.Minute:
		return `"%H:%M:%S"`
	case span <= 2*24*time.Hour:
		return `"%H:%M\n%d %b"`
	case span <= 400*24*time.Hour:
		return `"%d %b\n%Y"`
	default:
		return `"%b\n%Y"`
	}
}
