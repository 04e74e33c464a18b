package result

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"varve/export/text"
)

// Format is what is written.
type Format int

// Formats.
const (
	// CSV has a record for each time at which any series has a value, and a column for each series.
	CSV Format = iota
	// CSVLong has a record for each value: time, metric as the API's JSON has it, value; behind the time the query, where there
	// are several. It is written as it comes.
	CSVLong
	// JSONLines has lines as those of package text, with the query where there are several. It is written as it comes. A series has
	// a line, or several if it is long.
	JSONLines
	// Gnuplot is a file for gnuplot 5, Matplotlib one for Python 3.
	Gnuplot
	Matplotlib
)

// Options say what is written and how.
type Options struct {
	Read   Read
	Format Format
	// Times, Separator, 0 for a comma, and NoHeader are for CSV.
	Times     text.TimeFormat
	Separator rune
	NoHeader  bool
	// Title and Unit are for what is drawn; an empty title is the queries. Width and Height are pixels; 0 is a default.
	Title, Unit   string
	Width, Height int
	// ColumnsMax bounds the columns of CSV, and SeriesMax what is drawn of the series; 0 is a default.
	ColumnsMax, SeriesMax int
	// Scratch is a folder for a file with the values, where all series have to be known first; SpoolBytesMax bounds it.
	// Empty and 0 are defaults.
	Scratch       string
	SpoolBytesMax int64
	// Begin, unless nil, is called before the first byte is written, when it is certain that there is something to write.
	Begin func(Report)
}

// Defaults of Options.
const (
	ColumnsMaxDefault = 10_000
	SeriesMaxDefault  = 500
	spoolBytesMax     = 4 << 30
	WidthDefault      = 1000
	HeightDefault     = 600
	// NamedMax is how many series a legend names.
	NamedMax = 30
	// drawnValuesMax bounds the values in a file that is drawn: gnuplot takes some 100 bytes for each, and Python as much.
	drawnValuesMax = 20_000_000
)

// Stats tell what was written.
type Stats struct {
	Report
	// Series are those that were written.
	Series int
	Bytes  int64
	// Notes say what was left out.
	Notes []string
}

func (o *Options) complete() error {
	set := func(n *int, standard int) {
		if *n == 0 {
			*n = standard
		}
	}
	set(&o.ColumnsMax, ColumnsMaxDefault)
	set(&o.SeriesMax, SeriesMaxDefault)
	set(&o.Width, WidthDefault)
	set(&o.Height, HeightDefault)
	if o.SpoolBytesMax == 0 {
		o.SpoolBytesMax = spoolBytesMax
	}
	if o.Separator == 0 {
		o.Separator = ','
	}
	if !ValidSeparator(o.Separator) {
		return fmt.Errorf("%w: the separator %q can be part of a value: take a comma, a semicolon, a tab or another sign", ErrOption, o.Separator)
	}
	if o.ColumnsMax < 0 || o.SeriesMax < 0 || o.SpoolBytesMax < 0 {
		return fmt.Errorf("%w: a bound is negative", ErrOption)
	}
	if o.Title == "" {
		o.Title = strings.Join(o.Read.Queries, ", ")
	}
	o.Title, o.Unit = shorten(Line(o.Title), titleMax), shorten(Line(o.Unit), titleMax)
	return CheckSize(o.Width, o.Height)
}

// titleMax bounds the characters of a title, and of a name in a legend.
const titleMax = 300

// shorten cuts a text that is too long to be read.
func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// CheckSize tells whether a figure can be so large, in pixels.
func CheckSize(width, height int) error {
	if width < 100 || height < 100 || width > 10_000 || height > 10_000 {
		return fmt.Errorf("%w: a figure of %d x %d pixels; each side can be 100 to 10000", ErrOption, width, height)
	}
	return nil
}

// ValidSeparator tells whether a character can stand between the fields of CSV: it is no part of a time or a value, nor of the syntax.
func ValidSeparator(r rune) bool {
	switch {
	case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		return false
	case r == utf8.RuneError || r > 0x10FFFF:
		return false
	}
	return !strings.ContainsRune("+-.:\"\r\n ", r)
}

// Write writes what queries give to out. Nothing is written when nothing can be.
func Write(ctx context.Context, out io.Writer, o Options) (Stats, error) {
	if err := o.Read.Validate(); err != nil {
		return Stats{}, err
	}
	if err := o.complete(); err != nil {
		return Stats{}, err
	}
	w := &writer{o: &o, out: bufio.NewWriterSize(out, 256<<10)}
	var err error
	switch o.Format {
	case CSVLong:
		err = w.stream(ctx, w.longPart)
	case JSONLines:
		err = w.stream(ctx, w.linesPart)
	case CSV:
		err = w.tabled(ctx, o.ColumnsMax, w.wide)
	case Gnuplot:
		err = w.tabled(ctx, math.MaxInt32, w.gnuplot)
	case Matplotlib:
		err = w.tabled(ctx, math.MaxInt32, w.matplotlib)
	default:
		err = fmt.Errorf("%w: format %d", ErrOption, o.Format)
	}
	if err == nil {
		if err = w.out.Flush(); err != nil {
			err = fmt.Errorf("write: %w", err)
		}
	}
	return w.stats, err
}

// writer is what all forms share.
type writer struct {
	o     *Options
	out   *bufio.Writer
	stats Stats
	buf   []byte
	begun bool
	seen  map[uint64]struct{} // hashes of the series of streams
}

// put writes what is in buf, and empties it.
func (w *writer) put() error {
	w.stats.Bytes += int64(len(w.buf))
	_, err := w.out.Write(w.buf)
	w.buf = w.buf[:0]
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// stream writes parts as they come.
func (w *writer) stream(ctx context.Context, part func(*Part) error) (err error) {
	w.seen = map[uint64]struct{}{}
	r := w.o.Read
	w.stats.Report, err = r.Parts(ctx, func(p *Part) error {
		if !w.begun {
			w.begun = true
			if w.o.Begin != nil {
				w.o.Begin(Report{})
			}
		}
		for i := range p.Series {
			// The number of series is told to people; a collision of hashes is no harm.
			if len(w.seen) < seenMax {
				w.seen[p.Series[i].Labels.Hash()^uint64(p.Series[i].Query)] = struct{}{}
			}
		}
		w.stats.Series = len(w.seen)
		if err := part(p); err != nil {
			return err
		}
		// A part that is written is sent.
		if err := w.out.Flush(); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	})
	return err
}

// seenMax bounds the hashes that are kept.
const seenMax = 1 << 20

// tabled keeps all parts and then writes them.
func (w *writer) tabled(ctx context.Context, columnsMax int, write func(context.Context, *table) error) (err error) {
	t := newTable(w.o.Scratch, w.o.SpoolBytesMax, columnsMax, w.o.Read.Grid.Step)
	defer func() { err = errors.Join(err, t.close()) }()
	if w.stats.Report, err = w.o.Read.Parts(ctx, t.add); err != nil {
		return err
	}
	return write(ctx, t)
}

// begin tells that something is written from now on.
func (w *writer) begin() {
	w.begun = true
	if w.o.Begin != nil {
		w.o.Begin(w.stats.Report)
	}
}

// appendValue appends a float as the query API spells it: the shortest text that is the same float again, NaN, +Inf or -Inf.
func appendValue(b []byte, v float64) []byte {
	form := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(b, v, form, -1, 64)
}
