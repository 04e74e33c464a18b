package result

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// blockRows is how many points of time a block of the Python file has, so that its lines stay short enough for an editor.
const blockRows = 200

// matplotlib writes a Python 3 file. All texts are ASCII literals. Values stand in strings, from which Python makes floats: as a list
// of literals they would take it ten times the memory. What is missing is a hyphen and becomes None; NaN and infinity stay what
// they are in the data, and are gaps in the figure.
func (w *writer) matplotlib(ctx context.Context, t *table) error {
	d, err := w.drawn(t, NamedMax)
	if err != nil {
		return err
	}
	w.begin()
	w.text(matplotlibHead)
	w.text("TITLE = " + pythonString(w.o.Title) + "\nUNIT = " + pythonString(w.o.Unit) + "\nNOTE = " + pythonString(strings.Join(append([]string{"UTC"}, d.notes...), "; ")) + "\n")
	w.text(fmt.Sprintf("WIDTH, HEIGHT = %d, %d  # of the figure without its legend, in pixels\nNAMED = %d  # series in the legend\nFIRST, LAST = %d, %d  # Unix ms\n",
		w.o.Width, w.o.Height, d.named, w.o.Read.Grid.First, w.o.Read.Grid.Last))
	w.text("# Name and marker of each series. One with points that have no neighbours is drawn with markers.\nSERIES = [\n")
	for i, c := range d.columns {
		marker := "''"
		if c.Alone > 0 {
			marker = "'.'"
		}
		w.text("    (" + pythonString(d.names[i]) + ", " + marker + "),\n")
	}
	w.text("]\n")
	w.text(matplotlibData)
	if err := w.put(); err != nil {
		return err
	}
	b := newPythonBlock(w, len(d.columns))
	if err := d.rows(ctx, t, 0, make([]float64, len(d.columns)), b.row); err != nil {
		return err
	}
	if err := b.end(); err != nil {
		return err
	}
	w.text(matplotlibTail)
	return w.put()
}

// pythonBlock collects rows, series by series.
type pythonBlock struct {
	w      *writer
	times  []byte
	values [][]byte
	// some tells whether a series has a value in the block.
	some []bool
	n    int
}

func newPythonBlock(w *writer, columns int) *pythonBlock {
	return &pythonBlock{w: w, values: make([][]byte, columns), some: make([]bool, columns)}
}

func (b *pythonBlock) row(at int64, values []float64, have []bool) error {
	if b.n > 0 {
		b.times = append(b.times, ' ')
	}
	b.times = strconv.AppendInt(b.times, at, 10)
	for i, v := range values {
		if b.n > 0 {
			b.values[i] = append(b.values[i], ' ')
		}
		if !have[i] {
			b.values[i] = append(b.values[i], '-')
			continue
		}
		b.some[i] = true
		b.values[i] = strconv.AppendFloat(b.values[i], v, 'g', -1, 64)
	}
	if b.n++; b.n == blockRows {
		return b.end()
	}
	return nil
}

// end writes what was collected.
func (b *pythonBlock) end() error {
	if b.n == 0 {
		return nil
	}
	b.w.text("block('")
	b.w.buf = append(b.w.buf, b.times...)
	b.w.text("', {\n")
	for i := range b.values {
		if b.some[i] {
			b.w.buf = append(strconv.AppendInt(append(b.w.buf, "    "...), int64(i), 10), ": '"...)
			b.w.buf = append(append(b.w.buf, b.values[i]...), "',\n"...)
		}
		b.values[i], b.some[i] = b.values[i][:0], false
	}
	b.w.text("})\n")
	b.times, b.n = b.times[:0], 0
	return b.w.put()
}

// pythonString writes a literal of Python: ASCII, whatever the text is.
func pythonString(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r < ' ', r > '~' && r <= 0xFF:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08x`, r)
		case r > 0xFF:
			fmt.Fprintf(&b, `\u%04x`, r)
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

const matplotlibHead = `#!/usr/bin/env python3
# Written by varve export query, with its data. Needs Python 3 and matplotlib (Debian: python3-matplotlib).
#   python3 FILE               in a window
#   python3 FILE figure.png    as a file: png, svg or pdf
import sys
from datetime import datetime, timedelta, timezone
from math import isfinite, nan

import matplotlib

if len(sys.argv) > 1:
    matplotlib.use('Agg')
import matplotlib.dates as dates
import matplotlib.pyplot as plot

`

const matplotlibData = `
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
times = []
values = [[] for _ in SERIES]


def block(at, series):
    """Adds points of time, Unix ms, and by series what it has there; - is nothing."""
    at = at.split()
    times.extend(EPOCH + timedelta(milliseconds=int(t)) for t in at)
    for i, column in enumerate(values):
        if i in series:
            column.extend(None if v == '-' else float(v) for v in series[i].split())
        else:
            column.extend([None] * len(at))


`

const matplotlibTail = `

def main():
    # A dollar sign is a dollar sign, and no formula.
    plot.rcParams['text.usetex'] = False
    if 'text.parse_math' in plot.rcParams:
        plot.rcParams['text.parse_math'] = False
    legend_height = 16 * NAMED + (24 if NAMED else 0)
    figure, axes = plot.subplots(figsize=(WIDTH / 100, (HEIGHT + legend_height) / 100), dpi=100, constrained_layout=True)
    lines = []
    for (_, marker), column in zip(SERIES, values):
        shown = [v if v is not None and isfinite(v) else nan for v in column]
        lines += axes.plot(times, shown, linewidth=1.2, marker=marker, markersize=3)
    axes.set_title(TITLE, wrap=True)
    axes.set_ylabel(UNIT)
    axes.set_xlabel(NOTE)
    axes.grid(True, alpha=0.4)
    if LAST > FIRST:
        axes.set_xlim(EPOCH + timedelta(milliseconds=FIRST), EPOCH + timedelta(milliseconds=LAST))
    locator = dates.AutoDateLocator(tz=timezone.utc)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=timezone.utc))
    if NAMED:
        # A name that begins with _ would be left out, so names are put in later.
        legend = axes.legend(lines[:NAMED], [str(i) for i in range(NAMED)], loc='upper left',
                             bbox_to_anchor=(0, -48 / HEIGHT), borderaxespad=0, fontsize=8, frameon=False)
        for text, (name, _) in zip(legend.get_texts(), SERIES):
            text.set_text(name)
    if len(sys.argv) > 1:
        figure.savefig(sys.argv[1])
    else:
        plot.show()


main()
`
