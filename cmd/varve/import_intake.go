package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"varve/config"
	"varve/intake"
	"varve/intake/direct"
	"varve/intake/wire"
)

// intakeFlags are those of imports that bring whole days.
type intakeFlags struct {
	url              **url.URL
	httpFile         *string
	data, config     *string
	start, end       *string
	match, extra     *[]string
	state            *string
	restart, forward *bool
	scratch          *string
	patience         *time.Duration
	stdout, stderr   io.Writer
	now              func() time.Time
}

func addIntakeFlags(c *kingpin.CmdClause, stdout, stderr io.Writer) *intakeFlags {
	return &intakeFlags{
		url:      c.Flag("url", "The server to import to.").Default("http://127.0.0.1:9095").URL(),
		httpFile: c.Flag("http.config.file", "File with authentication and TLS of the client to the server, in the format of promtool's. An import needs the rights of an administrator.").PlaceHolder("FILE").ExistingFile(),
		data:     c.Flag("data", "Import to this data directory, which no server runs on, instead of to a server.").PlaceHolder("DIR").String(),
		config:   c.Flag("config.file", "With --data: the configuration file of the directory's server, for its retention and rollups.").PlaceHolder("FILE").ExistingFile(),
		start:    c.Flag("start", "The first time, inclusive: RFC 3339, a date, or Unix seconds.").PlaceHolder("TIME").String(),
		end:      c.Flag("end", "The time to end before.").PlaceHolder("TIME").String(),
		match:    c.Flag("match", "A selector of series, repeatable; series that any of them chooses are imported. Default: all.").PlaceHolder("SELECTOR").Strings(),
		extra:    c.Flag("extra-label", "A label name=value that every series gets, repeatable.").PlaceHolder("NAME=VALUE").Strings(),
		state:    c.Flag("state", "File that remembers which days are done, so that the same command goes on where it ended.").PlaceHolder("FILE").String(),
		restart:  c.Flag("restart", "Begin anew, whatever the state file says.").Bool(),
		forward:  c.Flag("forward", "Let the server's outputs send it on. All goes through the write port then, which is slower.").Bool(),
		scratch:  c.Flag("scratch", "Folder for what doesn't fit in memory. Default: the system's.").PlaceHolder("DIR").ExistingDir(),
		patience: c.Flag("give-up-after", "How long a server may be unreachable or busy.").Default("10m").Duration(),
		stdout:   stdout, stderr: stderr, now: time.Now,
	}
}

// intakeRange is what is asked for, in ms; 0 is open.
type intakeRange struct {
	start, end int64 // inclusive, exclusive
	selectors  [][]*labels.Matcher
}

func (f *intakeFlags) wanted() (r intakeRange, err error) {
	if *f.start != "" {
		if r.start, err = parseTime(*f.start); err != nil {
			return r, fmt.Errorf("--start: %w", err)
		}
	}
	if *f.end != "" {
		if r.end, err = parseTime(*f.end); err != nil {
			return r, fmt.Errorf("--end: %w", err)
		}
		if r.end <= r.start {
			return r, errors.New("--end is not behind --start")
		}
	}
	r.selectors, err = parseSelectors(*f.match)
	return r, err
}

// parseSelectors parses selectors of series, of which there may be none.
func parseSelectors(texts []string) (all [][]*labels.Matcher, err error) {
	p := parser.NewParser(parser.Options{})
	for _, text := range texts {
		matchers, err := p.ParseMetricSelector(text)
		if err != nil {
			return nil, fmt.Errorf("--match %s: %w", text, err)
		}
		all = append(all, matchers)
	}
	return all, nil
}

func (f *intakeFlags) extraLabels() (labels.Labels, error) {
	set := map[string]string{}
	for _, text := range *f.extra {
		name, value, ok := strings.Cut(text, "=")
		if !ok || !model.UTF8Validation.IsValidLabelName(name) || value == "" || name == model.MetricNameLabel {
			return labels.EmptyLabels(), fmt.Errorf("--extra-label %s: not of the form name=value", text)
		}
		set[name] = value
	}
	return labels.FromMap(set), nil
}

// httpConfig is how a client connects, as a file of promtool's format says.
func httpConfig(file string) (config_util.HTTPClientConfig, error) {
	if file == "" {
		return config_util.DefaultHTTPClientConfig, nil
	}
	loaded, _, err := config_util.LoadHTTPConfigFile(file)
	if err != nil {
		return config_util.HTTPClientConfig{}, fmt.Errorf("read %s: %w", file, err)
	}
	return *loaded, nil
}

// intakeTarget is where samples go, by name.
type intakeTarget struct {
	intake.Target
	name  string
	close func(err error) error
}

// open opens the target that the flags name. Its own name has that of the archive in it: one that was made anew at the same place has nothing
// of what the state file says is done.
func (f *intakeFlags) open(ctx context.Context, p *intakeProgress) (intakeTarget, error) {
	if *f.data == "" {
		connect, err := httpConfig(*f.httpFile)
		if err != nil {
			return intakeTarget{}, err
		}
		t, err := wire.New(wire.Options{URL: *f.url, HTTP: connect, Forward: *f.forward, Patience: *f.patience, Retrying: p.retrying})
		if err != nil {
			return intakeTarget{}, err
		}
		archive, err := t.Archive(ctx)
		if err != nil {
			t.Close()
			return intakeTarget{}, err
		}
		return intakeTarget{t, (*f.url).Redacted() + " " + archive, func(err error) error { t.Close(); return err }}, nil
	}
	c, err := config.Read(*f.config, nil)
	if err != nil {
		return intakeTarget{}, err
	}
	a, err := openOffline(*f.data, c, f.stderr)
	if err != nil {
		return intakeTarget{}, err
	}
	name := fmt.Sprintf("%s %x", *f.data, a.Incarnation())
	return intakeTarget{direct.New(a, direct.Options{}), name, func(err error) error {
		if err == nil {
			// What went through the write port goes to disk, so that the next start has nothing to read back.
			err = a.Maintain(true)
		}
		return closeAfter(a, err)
	}}, nil
}

// namedSource is a source whose days are done for one target only.
type namedSource struct {
	intake.Source
	target string
}

// Identity implements intake.Source.
func (s namedSource) Identity(startMillis int64) string {
	return s.target + " " + s.Source.Identity(startMillis)
}

// importTo imports what open opens and tells what came of it. stateUsual is the state file without --state; "" is none.
func (f *intakeFlags) importTo(stateUsual string, open func(ctx context.Context, wanted intakeRange, p *intakeProgress) (intake.Source, error)) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if *f.forward && *f.data != "" {
		return errors.New("--forward needs a running server: leave --data out")
	}
	wanted, err := f.wanted()
	if err != nil {
		return err
	}
	extra, err := f.extraLabels()
	if err != nil {
		return err
	}
	state := *f.state
	if state == "" {
		state = stateUsual
	}
	if *f.restart && state != "" {
		if err := os.Remove(state); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	p := newIntakeProgress(f.stderr, f.now)
	defer p.end()
	source, err := open(ctx, wanted, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = target.close(err) }()
	report, err := intake.Run(ctx, namedSource{source, target.name}, target.Target, intake.Options{
		Start: wanted.start, End: wanted.end, State: state, ExtraLabels: extra, Progress: p.step, Logger: slog.New(p),
	})
	p.end()
	if printing := printIntakeReport(f.stdout, &report, err == nil); printing != nil {
		return errors.Join(err, printing)
	}
	if err != nil {
		if state != "" {
			return fmt.Errorf("import: %w; the same command goes on where this one ended", err)
		}
		return fmt.Errorf("import: %w; the same command changes nothing of what is done", err)
	}
	if !report.Equal() || len(report.RefusedDays) > 0 || refusedOf(&report) > 0 {
		return errFound
	}
	return nil
}

func refusedOf(r *intake.Report) (n uint64) {
	for _, refusal := range r.RefusedSeries {
		n += refusal.Series
	}
	for _, samples := range r.RefusedSamples {
		n += samples
	}
	return n
}

// unequalShown is how many days with differences are printed.
const unequalShown = 20

// printIntakeReport prints what was imported, what was not, and whether it is equal. Unless it ended, more was to come.
func printIntakeReport(w io.Writer, r *intake.Report, ended bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d samples of %d series and days, in %s (%.0f samples/s)\n", r.Samples, r.Series, r.Took.Round(time.Millisecond), float64(r.Samples)/max(r.Took.Seconds(), 1e-3))
	fmt.Fprintf(&b, "days: %d taken whole, %d through the write port (%d samples new, %d there already), %d empty, %d done before\n",
		r.Leased, r.Written, r.Stored, r.Repeated, r.Empty, r.Before)
	for _, reason := range slices.Sorted(maps.Keys(r.RefusedSeries)) {
		refusal := r.RefusedSeries[reason]
		fmt.Fprintf(&b, "refused: %d series and days: %s, such as %s\n", refusal.Series, reason, refusal.Example)
	}
	for _, reason := range slices.Sorted(maps.Keys(r.RefusedSamples)) {
		fmt.Fprintf(&b, "refused: %d samples: %s\n", r.RefusedSamples[reason], reason)
	}
	for _, d := range r.RefusedDays {
		fmt.Fprintf(&b, "refused: %s: %s\n", d.Day, d.Why)
	}
	if r.SourceBytes > 0 {
		fmt.Fprintf(&b, "bytes: %s before", byteText(r.SourceBytes))
		if r.Bytes > 0 {
			fmt.Fprintf(&b, ", %s after (%.2f bytes a sample of whole days)", byteText(r.Bytes), float64(r.Bytes)/math.Max(1, float64(r.Samples-r.Stored-r.Repeated)))
		}
		b.WriteByte('\n')
	} else if r.Bytes > 0 {
		fmt.Fprintf(&b, "bytes: %s\n", byteText(r.Bytes))
	}
	for i, d := range r.Unequal {
		if i == unequalShown {
			fmt.Fprintf(&b, "and %d more days\n", len(r.Unequal)-i)
			break
		}
		fmt.Fprintln(&b, d)
	}
	switch {
	case !r.Equal():
		b.WriteString("NOT EQUAL: run the same command again, which tries those days again\n")
	case r.Samples > 0:
		b.WriteString("every sample ")
		if !ended {
			b.WriteString("so far ")
		} else if len(r.RefusedDays) > 0 || refusedOf(r) > 0 {
			b.WriteString("that was not refused ")
		}
		b.WriteString("proved equal")
		if r.Before > 0 {
			fmt.Fprintf(&b, ", on the %d days done before when they were imported: --restart looks at them again", r.Before)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func byteText(n uint64) string {
	const unit = 1 << 10
	size, name := float64(n), "B"
	for _, larger := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if size < unit {
			break
		}
		size, name = size/unit, larger
	}
	return fmt.Sprintf("%.4g %s", size, name)
}
