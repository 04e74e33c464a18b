package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"

	"varve/export/figure"
	"varve/export/result"
	"varve/export/text"
)

// exportQuery are the flags of the verb that exports what queries give.
type exportQuery struct {
	queries                    *[]string
	start, end, duration, step *string

	dir      *string
	url      **url.URL
	httpFile *string
	headers  *[]string
	timeout  *time.Duration
	config   *string
	back     *lookBack

	resolution, format, output, title, unit *string
	width, height, seriesMax                *int
	header, long                            *bool
	separator, times                        *string
	pointsMax                               *int64
	scratch                                 *string

	stdout, stderr io.Writer
	now            func() time.Time
}

// exportFormats are those of queries, by the ending that a file of theirs has.
var exportFormats = []struct{ name, ending string }{
	{"csv", ".csv"}, {"jsonl", ".jsonl"}, {"gnuplot", ".gp"}, {"matplotlib", ".py"}, {"png", ".png"}, {"svg", ".svg"},
}

// addExportQuery adds the export of what queries give.
func addExportQuery(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("query", "Export what range queries give, of Varve, of any server with Prometheus' query_range, of a data directory or of a snapshot: as CSV, JSON lines, a file for gnuplot or matplotlib, or a figure. "+
		"Long ranges are asked for in parts. Exits with 1 if there is not a single value.")
	var formats []string
	for _, f := range exportFormats {
		formats = append(formats, f.name)
	}
	f := &exportQuery{
		queries:    c.Flag("query", "A query in PromQL, repeatable.").Required().PlaceHolder("QUERY").Strings(),
		start:      c.Flag("start", "The first time: RFC 3339, a date, or Unix seconds. Default: --duration before the end.").PlaceHolder("TIME").String(),
		end:        c.Flag("end", "The last time, inclusive. Default: now.").PlaceHolder("TIME").String(),
		duration:   c.Flag("duration", "The time up to the end, where no start is given.").Default("1h").String(),
		step:       c.Flag("step", "The time between two values: seconds or a duration such as 5m. Default: a round one that gives up to 1000 values.").PlaceHolder("STEP").String(),
		dir:        c.Arg("dir", "A data directory that no server runs on; without one, and without --snapshot, the server at --url is asked.").ExistingDir(),
		url:        c.Flag("url", "The server; of its path, api/v1/query_range is below it. Default: http://127.0.0.1:9095.").PlaceHolder("URL").URL(),
		httpFile:   c.Flag("http.config.file", "File with authentication and TLS of the client, in the format of promtool's.").PlaceHolder("FILE").ExistingFile(),
		headers:    c.Flag("http.header", "A header of requests, repeatable.").PlaceHolder("NAME:VALUE").Strings(),
		timeout:    c.Flag("timeout", "Time of a request to a server.").Default("5m").Duration(),
		config:     c.Flag("config.file", "Of a data directory or a snapshot: the configuration file, for its limits, its rules of retention and its resolutions of rollups.").PlaceHolder("FILE").ExistingFile(),
		resolution: c.Flag("resolution", "What Varve answers from: auto, raw, strict, or a resolution of rollups such as 1h.").PlaceHolder("RESOLUTION").String(),
		format:     c.Flag("format", "csv, jsonl, gnuplot, matplotlib, png or svg. Default: by the ending of --output, else csv.").PlaceHolder("FORMAT").Enum(append(formats, "")...),
		output:     c.Flag("output", "The file; .gz and .zst are compressed, - is standard output.").Default("-").PlaceHolder("FILE").String(),
		title:      c.Flag("title", "Title of a figure. Default: the queries.").String(),
		unit:       c.Flag("unit", "Unit of the values of a figure, such as bytes or seconds.").String(),
		width:      c.Flag("width", "Width of a figure in pixels.").Default(fmt.Sprint(result.WidthDefault)).Int(),
		height:     c.Flag("height", "Height of a figure in pixels.").Default(fmt.Sprint(result.HeightDefault)).Int(),
		seriesMax:  c.Flag("max-series", "Series that a figure shows at most.").Default(fmt.Sprint(result.SeriesMaxDefault)).Int(),
		header:     c.Flag("header", "CSV begins with a record of names.").Default("true").Bool(),
		long:       c.Flag("long", "CSV has a record for each value, instead of a column for each series.").Bool(),
		separator:  c.Flag("separator", "What stands between the fields of CSV; \"tab\" for a tab.").Default(",").String(),
		times:      c.Flag("time", "How CSV has times.").Default("rfc3339").Enum("rfc3339", "unix", "unix_ms"),
		pointsMax:  c.Flag("max-points", "Points of a series that are asked for at once. What a server refuses as too much is asked for in smaller parts anyway.").Default(fmt.Sprint(result.PointsMax)).Int64(),
		scratch:    c.Flag("scratch", "Folder for a file that is needed meanwhile, for wide CSV, gnuplot and matplotlib.").Default(os.TempDir()).PlaceHolder("DIR").ExistingDir(),
		stdout:     stdout, stderr: stderr, now: time.Now,
	}
	f.back = &lookBack{
		id:            c.Flag("snapshot", "Query this snapshot, from a local copy.").PlaceHolder("ID").String(),
		dir:           c.Flag("snapshot.dir", "Folder of such copies. They stay for the next time.").Default("snapshots").String(),
		snapshotFlags: addSnapshotFlags(c, false, fetches, stderr),
	}
	c.Action(func(*kingpin.ParseContext) error { return f.run() })
}

func (f *exportQuery) run() (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	format, err := f.chosenFormat()
	if err != nil {
		return err
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	source, closeSource, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeSource()) }()
	progress := newExportProgress(f.progressTo(), f.now)
	o.Read.Source = source
	o.Read.Progress = func(p result.Progress) {
		progress.show(p.Done, p.Values, fmt.Sprintf("requests: %d", p.Requests))
	}
	began := f.now()
	var stats result.Stats
	err = writeExport(*f.output, f.stdout, func(out io.Writer) (err error) {
		stats, err = f.write(ctx, out, format, o)
		return err
	})
	progress.end()
	return errors.Join(f.tell(&stats, err, f.now().Sub(began)), err)
}

func (f *exportQuery) progressTo() io.Writer {
	if *f.back.quiet {
		return io.Discard
	}
	return f.stderr
}

// chosenFormat is the one that was asked for, or that of the file's name.
func (f *exportQuery) chosenFormat() (string, error) {
	name := *f.format
	if name == "" {
		plain := strings.TrimSuffix(strings.TrimSuffix(*f.output, ".gz"), ".zst")
		for _, known := range exportFormats {
			if strings.EqualFold(filepath.Ext(plain), known.ending) {
				name = known.name
			}
		}
		name = cmp.Or(name, "csv")
	}
	if name == "png" && *f.output == "-" && isTerminal(f.stdout) {
		return "", errors.New("a PNG is nothing for a terminal: give --output FILE, or pipe it")
	}
	if name != "csv" && *f.long {
		return "", fmt.Errorf("--long is a form of CSV, not of %s", name)
	}
	return name, nil
}

// write writes what the queries give in a format.
func (f *exportQuery) write(ctx context.Context, out io.Writer, format string, o *result.Options) (result.Stats, error) {
	drawn := map[string]figure.Format{"png": figure.PNG, "svg": figure.SVG}
	if kind, ok := drawn[format]; ok {
		return figure.Write(ctx, out, figure.Options{
			Read: o.Read, Format: kind, Title: o.Title, Unit: o.Unit, Width: o.Width, Height: o.Height, SeriesMax: o.SeriesMax,
		})
	}
	o.Format = map[string]result.Format{"jsonl": result.JSONLines, "gnuplot": result.Gnuplot, "matplotlib": result.Matplotlib}[format]
	if *f.long {
		o.Format = result.CSVLong
	}
	return result.Write(ctx, out, *o)
}

// options are what the flags say but for the source.
func (f *exportQuery) options() (*result.Options, error) {
	o := &result.Options{
		Read:     result.Read{Queries: *f.queries, PointsMax: *f.pointsMax},
		NoHeader: !*f.header, Title: *f.title, Unit: *f.unit, Width: *f.width, Height: *f.height, SeriesMax: *f.seriesMax, Scratch: *f.scratch,
		Times: map[string]text.TimeFormat{"rfc3339": text.RFC3339, "unix": text.UnixSeconds, "unix_ms": text.UnixMillis}[*f.times],
	}
	if *f.pointsMax <= 0 || *f.seriesMax <= 0 {
		return nil, errors.New("--max-points and --max-series must be positive")
	}
	sign := *f.separator
	if sign == "tab" || sign == `\t` {
		sign = "\t"
	}
	r, size := utf8.DecodeRuneInString(sign)
	if size != len(sign) || !result.ValidSeparator(r) {
		return nil, fmt.Errorf("--separator %q can't stand between fields: give one sign that is no part of a value, such as ; or tab", *f.separator)
	}
	o.Separator = r
	var err error
	o.Read.Grid, err = f.grid()
	return o, err
}

// grid is the time of the flags: by default the last hour, which ends now, at a whole second.
func (f *exportQuery) grid() (g result.Grid, err error) {
	g.Last = f.now().Truncate(time.Second).UnixMilli()
	if *f.end != "" {
		if g.Last, err = parseTime(*f.end); err != nil {
			return g, fmt.Errorf("--end: %w", err)
		}
	}
	if *f.start != "" {
		if g.First, err = parseTime(*f.start); err != nil {
			return g, fmt.Errorf("--start: %w", err)
		}
	} else {
		d, err := model.ParseDuration(*f.duration)
		if err != nil || d <= 0 {
			return g, fmt.Errorf("--duration %q is no duration such as 6h or 30d", *f.duration)
		}
		g.First = g.Last - time.Duration(d).Milliseconds()
	}
	if g.Last < g.First {
		return g, fmt.Errorf("the time begins at %s and ends before it, at %s", formatExportTime(g.First), formatExportTime(g.Last))
	}
	g.Step = result.NiceStep(g.Last - g.First)
	if *f.step != "" {
		if g.Step, err = parseStep(*f.step); err != nil {
			return g, fmt.Errorf("--step: %w", err)
		}
	}
	return g, g.Validate()
}

// tell prints what was written, on standard error since the other one may have it.
func (f *exportQuery) tell(s *result.Stats, err error, took time.Duration) error {
	var b strings.Builder
	if err == nil {
		name := *f.output
		if name != "-" {
			name = filepath.Base(name)
		}
		fmt.Fprintf(&b, "%s: %d series, %d values, %d bytes; requests: %d; time: %s.\n", name, s.Series, s.Values, s.Bytes, s.Requests, took.Round(time.Millisecond))
		for _, q := range s.Without {
			fmt.Fprintf(&b, "No series of %s has a value in that time.\n", q)
		}
	}
	if len(s.Resolutions) > 0 {
		fmt.Fprintf(&b, "Answered from %s.\n", strings.Join(s.Resolutions, " and "))
	}
	for _, note := range s.Notes {
		fmt.Fprintf(&b, "Note: %s.\n", note)
	}
	for _, w := range s.Warnings {
		fmt.Fprintf(&b, "Warning: %s\n", w)
	}
	for _, w := range s.Infos {
		fmt.Fprintf(&b, "Info: %s\n", w)
	}
	_, printErr := io.WriteString(f.stderr, b.String())
	return printErr
}
