// Package text writes what package export reads as text: OpenMetrics, CSV and JSON lines.
//
// All forms are written as they are read, series after series in the order of their labels, but for the wide form of CSV,
// which needs a column for each series at once. Floats have the fewest digits that give the same bits again.
//
// What a form has no place for is left out and counted: see Stats.
package text

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/export"
)

// ErrOption is wrapped by errors about options that can't be.
var ErrOption = errors.New("invalid option")

// Format is a form of text.
type Format int

// The forms.
const (
	OpenMetrics Format = iota
	// CSV has a record for each sample: time, metric, each label of the request in a column of its own, value.
	CSV
	// CSVWide has a record for each time, with a column for each series.
	CSVWide
	// JSONLines is VictoriaMetrics' form, a series or a part of one a line.
	JSONLines
)

// TimeFormat is how CSV has times.
type TimeFormat int

// Forms of times.
const (
	RFC3339 TimeFormat = iota
	UnixSeconds
	UnixMillis
)

// Options say what is written.
type Options struct {
	Source  *export.Source
	Request export.Request
	Format  Format
	// Times is for CSV.
	Times TimeFormat
	// Metadata tells type, unit and help of a metric family, for OpenMetrics. It may be nil.
	Metadata func(metricFamily string) (metadata.Metadata, bool)
	// Scratch is a folder for files that are as large as all label sets are together.
	Scratch string
	// ColumnsMax bounds the columns of CSV; 0 is 10 000.
	ColumnsMax int
	// Progress is called now and then, from one goroutine. It may be nil.
	Progress func(Progress)
	// Walker has bounds for reading; its Source and Request are set by Write.
	Walker export.Walker
}

// Progress is how far a Write is. In the wide form of CSV all series are done at once, and Done is of time.
type Progress struct {
	Series, SeriesTotal int64
	// Done is the part that is done, 0 to 1.
	Done    float64
	Samples uint64
	Bytes   int64
}

// Stats count what was written and what was left out.
type Stats struct {
	// Series have at least one sample that was written.
	Series, Samples uint64
	Bytes           int64
	// StaleMarkers say that a series ended. No form has them.
	StaleMarkers uint64
	// Histograms are native histograms: only JSON lines have them.
	Histograms uint64
	// NaNs are values that are not a number in another way than the usual one, and became usual.
	NaNs uint64
	// StartTimestamps were left out.
	StartTimestamps uint64
}

const columnsMax = 10_000

// Write writes the series of a request to out.
func Write(ctx context.Context, out io.Writer, o Options) (Stats, error) {
	if len(o.Request.Selectors) == 0 {
		return Stats{}, fmt.Errorf("%w: no selector", ErrOption)
	}
	if o.Request.MinMillis > o.Request.MaxMillis {
		return Stats{}, fmt.Errorf("%w: the time begins behind its end", ErrOption)
	}
	if o.ColumnsMax <= 0 {
		o.ColumnsMax = columnsMax
	}
	o.Walker.Source, o.Walker.Request = o.Source, o.Request
	w := &writer{o: &o, out: bufio.NewWriterSize(out, 256<<10)}
	var err error
	switch o.Format {
	case OpenMetrics:
		err = w.openMetrics(ctx)
	case CSV:
		err = w.csvLong(ctx)
	case CSVWide:
		err = w.csvWide(ctx)
	case JSONLines:
		err = w.jsonLines(ctx)
	default:
		err = fmt.Errorf("%w: format %d", ErrOption, o.Format)
	}
	if err == nil {
		err = w.flush()
	}
	return w.stats, err
}

// writer is what all forms share.
type writer struct {
	o     *Options
	out   *bufio.Writer
	stats Stats
	buf   []byte

	list    *export.List
	series  int64
	sampled bool // the series that is being written has a sample
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

func (w *writer) flush() error {
	if err := w.out.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// tellEvery is how many series lie between two calls of Progress.
const tellEvery = 100

// seriesDone is called behind each piece of a series.
func (w *writer) seriesDone(p *export.Piece) {
	if p.Last {
		w.series++
		if w.sampled {
			w.stats.Series++
		}
		w.sampled = false
	}
	if w.o.Progress != nil && (w.series%tellEvery == 0 || !p.Last) {
		total := w.list.Series()
		w.o.Progress(Progress{
			Series: w.series, SeriesTotal: total, Done: float64(w.series) / float64(max(total, 1)), Samples: w.stats.Samples, Bytes: w.stats.Bytes,
		})
	}
}

// walk lists the series of the request and calls f for each in turn. each may be nil.
func (w *writer) walk(ctx context.Context, each func(labels.Labels) error, begin func() error, f func(*export.Piece) error) (err error) {
	if w.list, err = w.o.Source.List(ctx, w.o.Request, false, w.o.Scratch, each); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.list.Close()) }()
	if begin != nil {
		if err := begin(); err != nil {
			return err
		}
	}
	return w.o.Walker.Walk(ctx, w.list, func(p export.Piece) error {
		if err := f(&p); err != nil {
			return err
		}
		w.seriesDone(&p)
		return nil
	})
}

// next goes to the next float that can be written. Histograms are counted and passed over.
func (w *writer) next(it chunkenc.Iterator) (t int64, v float64, ok bool) {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if kind != chunkenc.ValFloat {
			w.stats.Histograms++
			continue
		}
		if t, v, ok = w.float(it); ok {
			return t, v, true
		}
	}
	return 0, 0, false
}

// float returns the float that it is at; ok is false if it is a stale marker.
func (w *writer) float(it chunkenc.Iterator) (t int64, v float64, ok bool) {
	t, v = it.At()
	if v != v {
		bits := math.Float64bits(v)
		if bits == value.StaleNaN {
			w.stats.StaleMarkers++
			return t, v, false
		}
		if bits != value.NormalNaN {
			w.stats.NaNs++
		}
	}
	if it.AtST() != 0 {
		w.stats.StartTimestamps++
	}
	w.stats.Samples++
	w.sampled = true
	return t, v, true
}

// appendFloat appends the shortest text that is the same float again: NaN, +Inf and -Inf are so spelled.
func appendFloat(b []byte, v float64) []byte {
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}
