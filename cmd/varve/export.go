package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"varve/bucket"
	"varve/export"
	"varve/export/blocks"
	"varve/export/text"
)

// exportFlags are those of all forms of export.
type exportFlags struct {
	matches          *[]string
	all              *bool
	start, end       *string
	data             *string
	url              **url.URL
	httpFile, config *string
	scratch          *string

	stdout, stderr io.Writer
}

// addExport adds the verbs that write series out of a data directory, or out of a server.
func addExport(app *kingpin.Application, stdout, stderr io.Writer) {
	cmd := app.Command("export", "Write series out of a data directory, or out of any server that Prometheus' remote read can ask, as blocks or as text.")
	addExportTSDB(cmd, stdout, stderr)
	addExportQuery(cmd, stdout, stderr)
	addExportText(cmd, "openmetrics", "Export OpenMetrics, as promtool tsdb create-blocks-from takes it. Native histograms and stale markers are left out.", stdout, stderr,
		func(*kingpin.CmdClause) func(*text.Options) {
			return func(o *text.Options) { o.Format = text.OpenMetrics }
		})
	addExportText(cmd, "csv", "Export CSV. Native histograms and stale markers are left out.", stdout, stderr, func(c *kingpin.CmdClause) func(*text.Options) {
		wide := c.Flag("wide", "A column for each series, and a record for each time, instead of a record for each sample.").Bool()
		times := c.Flag("time", "How times are written.").Default("rfc3339").Enum("rfc3339", "unix_s", "unix_ms")
		return func(o *text.Options) {
			o.Format, o.Times = text.CSV, map[string]text.TimeFormat{"rfc3339": text.RFC3339, "unix_s": text.UnixSeconds, "unix_ms": text.UnixMillis}[*times]
			if *wide {
				o.Format = text.CSVWide
			}
		}
	})
	addExportText(cmd, "jsonl", "Export JSON lines as VictoriaMetrics exports and imports them; native histograms are lines of a form of their own. Stale markers are left out.", stdout, stderr,
		func(*kingpin.CmdClause) func(*text.Options) {
			return func(o *text.Options) { o.Format = text.JSONLines }
		})
}

func addExportFlags(c *kingpin.CmdClause, stdout, stderr io.Writer) *exportFlags {
	return &exportFlags{
		matches:  c.Flag("match", "A selector of series, repeatable; series that any of them chooses are exported.").PlaceHolder("SELECTOR").Strings(),
		all:      c.Flag("all", "Export all series.").Bool(),
		start:    c.Flag("start", "The first time, inclusive: RFC 3339, a date, or Unix seconds. Default: the first day of the data directory; needed with --url.").PlaceHolder("TIME").String(),
		end:      c.Flag("end", "The time to end before. Default: the end of the data directory; with --url, now.").PlaceHolder("TIME").String(),
		data:     c.Flag("data", "A data directory that no server runs on.").PlaceHolder("DIR").ExistingDir(),
		url:      c.Flag("url", "The server to ask: Varve, or any that has /api/v1/read and /api/v1/series below this URL.").PlaceHolder("URL").URL(),
		httpFile: c.Flag("http.config.file", "File with authentication and TLS of the client, in the format of promtool's.").PlaceHolder("FILE").ExistingFile(),
		config:   c.Flag("config.file", "The configuration file of the data directory's server, for its rules of retention and its resolutions of rollups; without it, what the server does without one.").PlaceHolder("FILE").ExistingFile(),
		scratch:  c.Flag("scratch", "Folder for files that are needed meanwhile: the label sets, and for buckets the block that is being made.").Default(os.TempDir()).PlaceHolder("DIR").ExistingDir(),
		stdout:   stdout, stderr: stderr,
	}
}

// exported is where an export reads from, and what.
type exported struct {
	*exportSource
	request export.Request
}

// run calls f with what the flags name.
func (f *exportFlags) run(do func(ctx context.Context, e exported) error) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	selectors, err := f.selectors()
	if err != nil {
		return err
	}
	s, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	from, to, err := f.span(s)
	if err != nil {
		return err
	}
	return do(ctx, exported{s, export.Request{Selectors: selectors, MinMillis: from, MaxMillis: to}})
}

func (f *exportFlags) selectors() ([][]*labels.Matcher, error) {
	if *f.all {
		if len(*f.matches) > 0 {
			return nil, errors.New("give --match or --all, not both")
		}
		// Servers refuse what matches everything. An archive may have series without a name.
		every := ".*"
		if *f.url != nil {
			every = ".+"
		}
		return [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, every)}}, nil
	}
	if len(*f.matches) == 0 {
		return nil, errors.New("give --match SELECTOR, or --all for all series")
	}
	var all [][]*labels.Matcher
	selectors := parser.NewParser(parser.Options{})
	for _, m := range *f.matches {
		ms, err := selectors.ParseMetricSelector(m)
		if err != nil {
			return nil, fmt.Errorf("--match %s: %w", m, err)
		}
		all = append(all, ms)
	}
	return all, nil
}

// span returns the time that is exported, both bounds inclusive.
func (f *exportFlags) span(s *exportSource) (from, to int64, err error) {
	from, to = s.min, s.max
	if *f.start != "" {
		if from, err = parseTime(*f.start); err != nil {
			return 0, 0, fmt.Errorf("--start: %w", err)
		}
	} else if *f.data == "" {
		return 0, 0, errors.New("give --start: nobody knows where a server's samples begin")
	}
	if *f.end != "" {
		if to, err = parseTime(*f.end); err != nil {
			return 0, 0, fmt.Errorf("--end: %w", err)
		}
		to--
	}
	if from > to {
		return 0, 0, fmt.Errorf("the time begins at %s and ends before it, at %s", formatExportTime(from), formatExportTime(to+1))
	}
	return from, to, nil
}

func formatExportTime(millis int64) string {
	return time.UnixMilli(millis).UTC().Format(time.RFC3339Nano)
}

// addExportTSDB adds the export of blocks.
func addExportTSDB(parent *kingpin.CmdClause, stdout, stderr io.Writer) {
	c := parent.Command("tsdb", "Export blocks of Prometheus' TSDB, with what Thanos adds, so that Prometheus, Thanos and Mimir serve them. Blocks that are there already are passed over: run it again to go on.")
	f := addExportFlags(c, stdout, stderr)
	output := c.Flag("output", "The folder for the blocks.").PlaceHolder("DIR").String()
	store := c.Flag("objstore.config-file", "File with the object storage for the blocks, in Thanos' form.").PlaceHolder("FILE").ExistingFile()
	length := c.Flag("block-duration", "How long blocks are: 2h to 14d, a multiple of 2h.").Default("1d").String()
	external := c.Flag("external-label", "A label name=value that Thanos and Mimir give all series of the blocks, repeatable.").PlaceHolder("NAME=VALUE").Strings()
	resolution := c.Flag("resolution", "Write aggregates of so long instead of samples, as Thanos downsamples: 5m or 1h. They are taken from rollups where there are some.").PlaceHolder("5m|1h").Enum("", "5m", "1h")
	unverified := c.Flag("no-verification", "Don't read each block back to compare it.").Bool()
	again := c.Flag("again", "Make blocks that are there already once more.").Bool()
	c.Action(func(*kingpin.ParseContext) error {
		if (*output == "") == (*store == "") {
			return errors.New("give --output or --objstore.config-file, one of them")
		}
		ls, err := parseExternalLabels(*external)
		if err != nil {
			return err
		}
		block, err := model.ParseDuration(*length)
		if err != nil {
			return fmt.Errorf("--block-duration: %w", err)
		}
		return f.run(func(ctx context.Context, e exported) (err error) {
			place, closePlace, err := exportPlace(*output, *store, *f.scratch)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, closePlace()) }()
			p := newExportProgress(stderr, time.Now)
			o := blocks.Options{
				Source: e.source, Request: e.request, Block: time.Duration(block), ExternalLabels: ls, Place: place, Origin: e.origin,
				SkipVerification: *unverified, Again: *again, Progress: p.block,
				Resolution: map[string]time.Duration{"5m": blocks.FiveMinutes, "1h": blocks.OneHour}[*resolution],
			}
			report, err := blocks.Run(ctx, o)
			p.end()
			return errors.Join(err, printBlocks(stdout, &report))
		})
	})
}

func parseExternalLabels(texts []string) (labels.Labels, error) {
	set := map[string]string{}
	for _, t := range texts {
		name, value, err := parseExportLabel(t)
		if err != nil {
			return labels.EmptyLabels(), err
		}
		if _, ok := set[name]; ok {
			return labels.EmptyLabels(), fmt.Errorf("--external-label %s is given twice", name)
		}
		set[name] = value
	}
	return labels.FromMap(set), nil
}

// exportPlace opens where blocks go to.
func exportPlace(dir, store, scratch string) (blocks.Place, func() error, error) {
	if store == "" {
		p, err := blocks.NewFolder(dir)
		return p, func() error { return nil }, err
	}
	form, err := os.ReadFile(store)
	if err != nil {
		return nil, nil, err
	}
	b, err := bucket.Open(form, "export", nil, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", store, err)
	}
	p, err := blocks.NewBucket(b, scratch)
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	return p, b.Close, nil
}

func printBlocks(out io.Writer, r *blocks.Report) error {
	for _, b := range r.Blocks {
		what := "was there"
		if !b.Existed {
			what = fmt.Sprintf("%d series, %d samples, %d bytes", b.Stats.Series, b.Stats.Floats+b.Stats.Histograms+b.Stats.Buckets, b.Stats.Bytes)
		}
		if _, err := fmt.Fprintf(out, "%s  %s to %s: %s\n", b.ID, formatExportTime(b.MinMillis), formatExportTime(b.MaxMillis), what); err != nil {
			return err
		}
	}
	s := &r.Stats
	rate := float64(s.Floats+s.Histograms+s.Buckets) / max(r.Took.Seconds(), 1e-3)
	text := fmt.Sprintf("%d blocks: %d samples, %d of them native histograms, %d buckets of aggregates, %d bytes, in %s, %.0f samples/s.\n",
		len(r.Blocks), s.Floats+s.Histograms, s.Histograms, s.Buckets, s.Bytes, r.Took.Round(time.Millisecond), rate)
	for _, left := range []struct {
		n    uint64
		text string
	}{
		{s.StartTimestamps, "%d start timestamps were left out: blocks that all know have no place for them.\n"},
		{s.HistogramBuckets, "%d buckets of native histograms were left out of the aggregates.\n"},
		{s.Incomplete, "%d stretches of time of series are missing: their samples expired and no rollups are kept.\n"},
	} {
		if left.n > 0 {
			text += fmt.Sprintf(left.text, left.n)
		}
	}
	_, err := io.WriteString(out, text)
	return err
}

// addExportText adds the export of a form of text.
func addExportText(parent *kingpin.CmdClause, name, help string, stdout, stderr io.Writer, flags func(*kingpin.CmdClause) func(*text.Options)) {
	c := parent.Command(name, help)
	f := addExportFlags(c, stdout, stderr)
	output := c.Flag("output", "The file; .gz and .zst are compressed, - is standard output.").Default("-").PlaceHolder("FILE").String()
	set := flags(c)
	c.Action(func(*kingpin.ParseContext) error {
		return f.run(func(ctx context.Context, e exported) error {
			p := newExportProgress(stderr, time.Now)
			o := text.Options{Source: e.source, Request: e.request, Metadata: e.metadata, Scratch: *f.scratch, Progress: p.text}
			set(&o)
			var stats text.Stats
			began := time.Now()
			err := writeExport(*output, stdout, func(out io.Writer) error {
				var err error
				stats, err = text.Write(ctx, out, o)
				return err
			})
			p.end()
			if err != nil {
				return err
			}
			return printText(stderr, *output, &stats, time.Since(began))
		})
	})
}

// printText tells what was written, on standard error since the other one may have it.
func printText(out io.Writer, name string, s *text.Stats, took time.Duration) error {
	if name != "-" {
		name = filepath.Base(name)
	}
	line := fmt.Sprintf("%s: %d series, %d samples, %d bytes of text, in %s, %.0f samples/s.\n", name, s.Series, s.Samples, s.Bytes,
		took.Round(time.Millisecond), float64(s.Samples)/max(took.Seconds(), 1e-3))
	for _, left := range []struct {
		n    uint64
		text string
	}{
		{s.StaleMarkers, "%d stale markers were left out.\n"},
		{s.Histograms, "%d native histograms were left out: export tsdb and export jsonl have them.\n"},
		{s.NaNs, "%d unusual NaN became the usual one: export tsdb keeps their bits.\n"},
		{s.StartTimestamps, "%d start timestamps were left out.\n"},
	} {
		if left.n > 0 {
			line += fmt.Sprintf(left.text, left.n)
		}
	}
	_, err := io.WriteString(out, line)
	return err
}
