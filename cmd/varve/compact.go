package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"varve/api"
	"varve/archive"
	"varve/compactor"
	"varve/config"
	"varve/rocks"
)

// compacting is the compactor as the API wants it, and its loop.
type compacting struct {
	archive   *archive.Archive
	compactor *compactor.Compactor
	// life ends when the server stops; done is closed when everything begun has ended.
	life context.Context
	end  context.CancelFunc
	work chan func(context.Context)
	done chan struct{}
}

func (s *server) newCompacting(a *archive.Archive) *compacting {
	c := &compacting{archive: a, work: make(chan func(context.Context), 1), done: make(chan struct{})}
	c.life, c.end = context.WithCancel(context.Background())
	o := compactorOptions(s.o.config)
	o.Registerer, o.Done = s.registry, logJob(s.o.logger)
	o.Failed = func(err error) { s.o.logger.Error("The compactor failed and will try again.", "err", err) }
	c.compactor = compactor.New(a, o)
	return c
}

func compactorOptions(c *config.Config) compactor.Options {
	k := c.Compactor
	return compactor.Options{
		Policy: compactor.Policy{
			SealDelay: time.Duration(k.SealDelay), Quiet: time.Duration(k.Quiet), ResealAfter: time.Duration(k.ResealAfter),
		},
		Interval: time.Duration(k.Interval), Share: k.CPUShare,
	}
}

// logJob tells of what was done.
func logJob(log *slog.Logger) func(compactor.Job, archive.SealReport, error) {
	return func(job compactor.Job, r archive.SealReport, err error) {
		switch {
		case errors.Is(err, context.Canceled):
			log.Info("The sealing of a day was interrupted and will go on.", "day", archive.Date(job.Day.Day))
			return
		case err != nil:
			log.Error("A day could not be sealed. It will be tried again.", "day", archive.Date(job.Day.Day), "err", err)
			return
		}
		log.Info("A day was sealed.", "day", archive.Date(r.Day), "why", job.Why, "series", r.Series, "samples", r.Samples, "runs", r.Runs,
			"run_bytes", r.RunBytes, "bundle_bytes", r.BundleBytes, "took", r.Took.Round(time.Millisecond).String())
	}
}

// run looks for work until stop.
func (c *compacting) run() {
	defer close(c.done)
	loop := make(chan struct{})
	go func() {
		defer close(loop)
		c.compactor.Loop(c.life)
	}()
	for {
		select {
		case f := <-c.work:
			f(c.life)
		case <-c.life.Done():
			<-loop
			return
		}
	}
}

// stop ends what is under way, which goes on at the next start, and waits for it.
func (c *compacting) stop() {
	c.end()
	<-c.done
}

// Compact implements api.Compactor. What was begun goes on when the client leaves.
func (c *compacting) Compact(ctx context.Context, wait bool) (api.CompactorRun, error) {
	if err := c.archive.StartError(); err != nil {
		return api.CompactorRun{}, err
	}
	type answer struct {
		report compactor.Report
		err    error
	}
	answers := make(chan answer, 1)
	job := func(life context.Context) {
		report, err := c.compactor.Run(life)
		answers <- answer{report, err}
	}
	if !wait {
		select {
		case c.work <- job:
		default: // One waits already, and will do the same.
		}
		return api.CompactorRun{Sealed: []api.SealedDay{}}, nil
	}
	select {
	case c.work <- job:
	case <-ctx.Done():
		return api.CompactorRun{}, ctx.Err()
	case <-c.life.Done():
		return api.CompactorRun{}, errStopping
	}
	select {
	case a := <-answers:
		return compactorRun(a.report), a.err
	case <-ctx.Done():
		return api.CompactorRun{}, ctx.Err()
	case <-c.done:
		return api.CompactorRun{}, errStopping
	}
}

// errStopping answers who waits for work while the server stops.
var errStopping = fmt.Errorf("%w: the server stops; the work goes on at the next start", rocks.ErrClosed)

func compactorRun(r compactor.Report) api.CompactorRun {
	run := api.CompactorRun{Done: true, Sealed: []api.SealedDay{}, HeldDays: r.Waiting, Seconds: r.Took.Seconds()}
	for _, d := range r.Sealed {
		run.Sealed = append(run.Sealed, api.SealedDay{
			Day: archive.Date(d.Day), Series: d.Series, Samples: d.Samples, Runs: d.Runs, RunBytes: d.RunBytes, Bundles: d.Bundles,
			BundleBytes: d.BundleBytes, ReplacedBundles: d.Replaced, Clocks: d.Clocks, Overwritten: d.Overwritten, Seconds: d.Took.Seconds(),
		})
	}
	return run
}

// CompactorStatus implements api.Compactor.
func (c *compacting) CompactorStatus() (api.CompactorStatus, error) {
	days, err := c.archive.Days()
	if err != nil {
		return api.CompactorStatus{}, err
	}
	s := c.compactor.Status()
	out := api.CompactorStatus{Planned: []string{}, HeldDays: s.Waiting, Days: []api.DayStatus{}}
	if s.Running != nil {
		out.Running, out.RunningSeconds = archive.Date(s.Running.Day.Day), time.Since(s.Since).Seconds()
	}
	if s.Failed != nil {
		out.LastError = s.Failed.Error()
	}
	for _, job := range s.Planned {
		out.Planned = append(out.Planned, archive.Date(job.Day.Day))
	}
	for _, d := range days {
		day := api.DayStatus{
			Day: archive.Date(d.Day), Unsealed: d.Runs, RunBytes: d.RunBytes, BundleBytes: d.RawBytes, SealedSamples: d.Samples,
		}
		if !d.Sealed.IsZero() {
			sealed := d.Sealed.UTC()
			day.Sealed = &sealed
		}
		out.Days = append(out.Days, day)
	}
	return out, nil
}

func addSeal(app *kingpin.Application, stdout, stderr io.Writer) {
	cmd := app.Command("seal", "Seal the days that are over in a data directory while no server runs on it.")
	dir := cmd.Arg("dir", "The data directory.").Required().ExistingDir()
	delay := cmd.Flag("delay", "Leave a day alone for so long after its end.").Default("0s").Duration()
	cmd.Action(func(*kingpin.ParseContext) error { return seal(*dir, *delay, stdout, stderr) })
}

// seal opens the archive as a server would, and closes it again.
func seal(dir string, delay time.Duration, stdout, stderr io.Writer) error {
	a, err := archive.Open(dir, archive.Options{Manual: true, Events: archive.Events{
		Damaged: func(err error) { fmt.Fprintln(stderr, err) },
	}})
	if err != nil {
		return err
	}
	<-a.Started()
	if err := a.StartError(); err != nil {
		return closeAfter(a, err)
	}
	failed := false
	c := compactor.New(a, compactor.Options{Policy: compactor.Policy{SealDelay: delay}, Done: func(job compactor.Job, r archive.SealReport, err error) {
		if err != nil {
			failed = true
			fmt.Fprintln(stderr, err)
			return
		}
		fmt.Fprintf(stdout, "%s: %d series, %d samples, %d bytes in %d runs became %d bytes in %d bundles, in %s.\n",
			archive.Date(r.Day), r.Series, r.Samples, r.RunBytes, r.Runs, r.BundleBytes, r.Bundles, r.Took.Round(time.Millisecond))
	}})
	report, err := c.Run(context.Background())
	if failed {
		err = errFound // What failed was told above.
	}
	if err == nil && len(report.Sealed) == 0 {
		fmt.Fprintln(stdout, "Nothing is due.")
	}
	return closeAfter(a, err)
}
