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
	// dropShareMax is that of the policy.
	dropShareMax float64
	// life ends when the server stops; done is closed when everything begun has ended.
	life context.Context
	end  context.CancelFunc
	// work are runs, of which one waits at most, cleans are cleanings of deletes.
	work, cleans chan func(context.Context)
	done         chan struct{}
}

func (s *server) newCompacting(a *archive.Archive) *compacting {
	c := &compacting{archive: a, work: make(chan func(context.Context), 1), cleans: make(chan func(context.Context)), done: make(chan struct{})}
	c.life, c.end = context.WithCancel(context.Background())
	o := compactorOptions(s.o.config)
	o.Registerer, o.Done = s.registry, s.faults.jobs(logJob(s.o.logger))
	o.Failed = func(err error) { s.o.logger.Error("The compactor failed and will try again.", "err", err) }
	c.compactor, c.dropShareMax = compactor.New(a, o), o.Policy.DropShareMax
	return c
}

func compactorOptions(c *config.Config) compactor.Options {
	k := c.Compactor
	return compactor.Options{
		Policy: compactor.Policy{
			SealDelay: time.Duration(k.SealDelay), Quiet: time.Duration(k.Quiet), ResealAfter: time.Duration(k.ResealAfter),
			DropShareMax: k.MaxDropShare,
		},
		Interval: time.Duration(k.Interval), Share: k.CPUShare,
	}
}

// logJob tells of what was done.
func logJob(log *slog.Logger) func(compactor.Outcome) {
	return func(o compactor.Outcome) {
		job, day := o.Job, archive.Date(o.Job.Day.Day)
		switch {
		case errors.Is(o.Err, context.Canceled):
			log.Info("A job of the compactor was interrupted and will go on.", "job", jobText(&job))
		case o.Err != nil:
			log.Error("A job of the compactor failed. It will be tried again.", "job", jobText(&job), "at", o.Retry.UTC().Format(time.RFC3339), "err", o.Err)
		case job.Kind == compactor.Seal:
			r := o.Seal
			log.Info("A day was sealed.", "day", day, "why", job.Why, "series", r.Series, "samples", r.Samples, "runs", r.Runs,
				"run_bytes", r.RunBytes, "bundle_bytes", r.BundleBytes, "took", r.Took.Round(time.Millisecond).String())
		case job.Kind == compactor.Roll:
			r := o.Roll
			log.Info("A day was rolled up.", "day", day, "why", job.Why, "series", r.Series, "samples", r.Samples, "buckets", r.Buckets,
				"bundle_bytes", r.BundleBytes, "took", r.Took.Round(time.Millisecond).String())
		case job.Kind == compactor.Clean:
			r := o.Clean
			log.Info("Deletes were cleaned.", "deletes", len(r.Deletes), "why", job.Why, "days", r.Days, "samples", r.Samples, "exemplars", r.Exemplars,
				"bytes", r.Bytes, "took", r.Took.Round(time.Millisecond).String())
		case job.Kind == compactor.Trim:
			r := o.Trim
			log.Info("Series of a day expired.", "day", day, "why", job.Why, "series", r.Series, "samples", r.Samples, "exemplars", r.Exemplars,
				"buckets", r.Buckets, "bytes", r.Bytes, "took", r.Took.Round(time.Millisecond).String())
		case job.Kind == compactor.Forget:
			logForget(log, &o)
		case job.Kind == compactor.Expire:
			for _, l := range o.Expire.Levels {
				log.Info("Data expired.", "level", levelText(l.Resolution), "before", archive.Date(l.Before), "why", job.Why, "days", l.Days,
					"samples", l.Samples, "bytes", l.Bytes, "series", o.Expire.Series)
			}
		}
	}
}

// logForget tells of series that were forgotten, or will be; a look that found none is not worth a line.
func logForget(log *slog.Logger, o *compactor.Outcome) {
	r := &o.Forget
	if r.Series > 0 || r.Pairs > 0 {
		log.Info("Series without data were removed.", "why", o.Job.Why, "series", r.Series, "label_pairs", r.Pairs, "metadata", r.Metadata,
			"bytes", r.Bytes, "took", r.Took.Round(time.Millisecond).String())
	}
	if r.Leaving > 0 {
		log.Info("Series without data will be removed.", "series", r.Leaving, "waits", r.Waits)
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
		case f := <-c.cleans:
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
func (c *compacting) Compact(ctx context.Context, r api.CompactRequest) (api.CompactorRun, error) {
	if err := c.archive.StartError(); err != nil {
		return api.CompactorRun{}, err
	}
	run := c.compactor.Run
	if r.Force {
		run = c.compactor.RunForced
	}
	if !r.Wait {
		select {
		case c.work <- func(life context.Context) { _, _ = run(life) }: // Its errors are told where they happen.
		default: // One waits already, and will do the same.
		}
		return compactorRun(compactor.Report{}, false), nil
	}
	report, err := c.ask(ctx, c.work, run)
	return compactorRun(report, err == nil), err
}

// compactDue does what is due, within its share of the time, for whoever is about to copy the archive.
func (c *compacting) compactDue(ctx context.Context) error {
	if err := c.archive.StartError(); err != nil {
		return err
	}
	_, err := c.ask(ctx, c.work, c.compactor.RunDue)
	return err
}

// ask has work done in its turn, and waits for it. What was begun goes on when ctx ends.
func (c *compacting) ask(ctx context.Context, turn chan<- func(context.Context), work func(context.Context) (compactor.Report, error)) (compactor.Report, error) {
	type answer struct {
		report compactor.Report
		err    error
	}
	answers := make(chan answer, 1)
	job := func(life context.Context) {
		report, err := work(life)
		answers <- answer{report, err}
	}
	select {
	case turn <- job:
	case <-ctx.Done():
		return compactor.Report{}, ctx.Err()
	case <-c.life.Done():
		return compactor.Report{}, errStopping
	}
	select {
	case a := <-answers:
		return a.report, a.err
	case <-ctx.Done():
		return compactor.Report{}, ctx.Err()
	case <-c.done:
		return compactor.Report{}, errStopping
	}
}

// errStopping answers who waits for work while the server stops.
var errStopping = fmt.Errorf("%w: the server stops; the work goes on at the next start", rocks.ErrClosed)

func compactorRun(r compactor.Report, done bool) api.CompactorRun {
	run := api.CompactorRun{Done: done, Sealed: []api.SealedDay{}, Rolled: []api.RolledDay{}, Cleaned: []api.Delete{}, Expired: []api.ExpiredLevel{}, Trimmed: []api.TrimmedDay{}, HeldDays: r.Waiting, Seconds: r.Took.Seconds()}
	for _, d := range r.Sealed {
		run.Sealed = append(run.Sealed, api.SealedDay{
			Day: archive.Date(d.Day), Series: d.Series, Samples: d.Samples, Runs: d.Runs, RunBytes: d.RunBytes, Bundles: d.Bundles,
			BundleBytes: d.BundleBytes, ReplacedBundles: d.Replaced, Clocks: d.Clocks, Overwritten: d.Overwritten, Seconds: d.Took.Seconds(),
		})
	}
	for _, d := range r.Rolled {
		run.Rolled = append(run.Rolled, api.RolledDay{
			Day: archive.Date(d.Day), Series: d.Series, Samples: d.Samples, Buckets: d.Buckets, Bundles: d.Bundles,
			BundleBytes: d.BundleBytes, ReplacedBundles: d.Replaced, Seconds: d.Took.Seconds(),
		})
	}
	for _, r := range r.Cleaned {
		for i := range r.Deletes {
			run.Cleaned = append(run.Cleaned, deleteAnswer(&r.Deletes[i]))
		}
	}
	for _, r := range r.Trimmed {
		run.Trimmed = append(run.Trimmed, api.TrimmedDay{
			Day: archive.Date(r.Day), Series: r.Series, Samples: r.Samples, Exemplars: r.Exemplars, Buckets: r.Buckets, Bytes: r.Bytes,
		})
	}
	run.ForgottenSeries, run.ForgottenLabelPairs = r.Forgot.Series, r.Forgot.Pairs
	for _, r := range r.Expired {
		for _, l := range r.Levels {
			run.Expired = append(run.Expired, api.ExpiredLevel{
				Level: levelText(l.Resolution), Before: archive.Date(l.Before), Days: l.Days, Samples: l.Samples, Bytes: l.Bytes,
			})
		}
	}
	return run
}

// Pause implements api.Compactor.
func (c *compacting) Pause() { c.compactor.Pause() }

// Resume implements api.Compactor.
func (c *compacting) Resume() { c.compactor.Resume() }

// jobText is a job in the answer of an endpoint.
func jobText(job *compactor.Job) string {
	if job.Kind == compactor.Clean {
		return fmt.Sprintf("%s %d deletes", job.Kind, len(job.Deletes))
	}
	if job.Kind == compactor.Forget {
		return string(job.Kind) + " series"
	}
	if job.Kind == compactor.Expire {
		return fmt.Sprintf("%s %d bytes", job.Kind, job.Expiry.Bytes)
	}
	return string(job.Kind) + " " + archive.Date(job.Day.Day)
}

// CompactorStatus implements api.Compactor.
func (c *compacting) CompactorStatus() (api.CompactorStatus, error) {
	days, err := c.archive.Days()
	if err != nil {
		return api.CompactorStatus{}, err
	}
	s := c.compactor.Status()
	out := api.CompactorStatus{Planned: []string{}, Paused: s.Paused, HeldDays: s.Waiting, Days: []api.DayStatus{}}
	if s.Running != nil {
		out.Running, out.RunningSeconds = jobText(s.Running), time.Since(s.Since).Seconds()
	}
	if s.Failed != nil {
		out.LastError = s.Failed.Error()
	}
	if len(s.Unforced) > 0 {
		out.Unforced = s.Unforced[0].Waits
	}
	for i := range s.Planned {
		out.Planned = append(out.Planned, jobText(&s.Planned[i]))
	}
	for _, d := range days {
		day := api.DayStatus{
			Day: archive.Date(d.Day), Unsealed: d.Runs, RunBytes: d.RunBytes, BundleBytes: d.RawBytes, SealedSamples: d.Samples,
			Rolled: d.Rolled, Dirty: d.Dirty,
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
	cmd := app.Command("seal", "Seal and roll up the days that are over in a data directory, and let expire what is past its age, while no server runs on it.")
	dir := cmd.Arg("dir", "The data directory.").Required().ExistingDir()
	delay := cmd.Flag("delay", "Leave a day alone for so long after its end.").Default("0s").Duration()
	file := cmd.Flag("config.file", "The configuration file, for the resolutions of rollups and the rules of retention; without it, what the server does without one.").PlaceHolder("FILE").ExistingFile()
	force := cmd.Flag("force", "Let expire how much ever is past its age, also more than compactor.max_drop_share.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		c, err := config.Read(*file, nil)
		if err != nil {
			return err
		}
		return seal(*dir, c, compactor.Policy{SealDelay: *delay, DropShareMax: c.Compactor.MaxDropShare, Force: *force}, stdout, stderr)
	})
}

// openExisting is openOffline for verbs that look at an archive or work on it: a wrong folder must not become one.
func openExisting(dir string, c *config.Config, stderr io.Writer) (*archive.Archive, error) {
	if err := archive.Exists(dir); err != nil {
		return nil, err
	}
	return openOffline(dir, c, stderr)
}

// openOffline opens an archive as a server would, but for work in the background, or makes one.
func openOffline(dir string, c *config.Config, stderr io.Writer) (*archive.Archive, error) {
	kept, err := retention(c)
	if err != nil {
		return nil, err
	}
	a, err := archive.Open(dir, archive.Options{Manual: true, Resolutions: resolutions(c), Retention: kept, Events: archive.Events{
		Damaged: func(err error) { fmt.Fprintln(stderr, err) },
	}})
	if err != nil {
		return nil, err
	}
	<-a.Started()
	if err := a.StartError(); err != nil {
		return nil, closeAfter(a, err)
	}
	return a, nil
}

// seal does what is due in an archive.
func seal(dir string, c *config.Config, policy compactor.Policy, stdout, stderr io.Writer) error {
	a, err := openExisting(dir, c, stderr)
	if err != nil {
		return err
	}
	failed := false
	k := compactor.New(a, compactor.Options{Policy: policy, Done: func(o compactor.Outcome) {
		if o.Err != nil {
			failed = true
			fmt.Fprintln(stderr, o.Err)
			return
		}
		if r := o.Roll; o.Job.Kind == compactor.Roll {
			fmt.Fprintf(stdout, "%s: %d series, %d samples were rolled up to %d buckets of %d bytes, in %s.\n",
				archive.Date(r.Day), r.Series, r.Samples, r.Buckets, r.BundleBytes, r.Took.Round(time.Millisecond))
			return
		}
		if r := o.Clean; o.Job.Kind == compactor.Clean {
			fmt.Fprintf(stdout, "%d deletes were cleaned: %d samples and %d bytes are gone, in %s.\n", len(r.Deletes), r.Samples, r.Bytes, r.Took.Round(time.Millisecond))
			return
		}
		if r := o.Trim; o.Job.Kind == compactor.Trim {
			fmt.Fprintf(stdout, "%s: %d series lost %d samples and %d buckets that are past their age, %d bytes.\n", archive.Date(r.Day), r.Series, r.Samples, r.Buckets, r.Bytes)
			return
		}
		if r := o.Forget; o.Job.Kind == compactor.Forget {
			if r.Series > 0 || r.Pairs > 0 {
				fmt.Fprintf(stdout, "%d series without data and %d label pairs are gone, %d bytes, in %s.\n", r.Series, r.Pairs, r.Bytes, r.Took.Round(time.Millisecond))
			}
			return
		}
		if o.Job.Kind == compactor.Expire {
			for _, l := range o.Expire.Levels {
				fmt.Fprintf(stdout, "%s before %s expired: %d days, %d samples or buckets of %d bytes.\n", levelText(l.Resolution), archive.Date(l.Before), l.Days, l.Samples, l.Bytes)
			}
			return
		}
		r := o.Seal
		fmt.Fprintf(stdout, "%s: %d series, %d samples, %d bytes in %d runs became %d bytes in %d bundles, in %s.\n",
			archive.Date(r.Day), r.Series, r.Samples, r.RunBytes, r.Runs, r.BundleBytes, r.Bundles, r.Took.Round(time.Millisecond))
	}})
	run := k.Run
	if policy.Force {
		run = k.RunForced
	}
	report, err := run(context.Background())
	if u := k.Status().Unforced; len(u) > 0 {
		fmt.Fprintf(stdout, "What is past its age stays: %s.\n", u[0].Waits)
	}
	if failed {
		err = errFound // What failed was told above.
	}
	if err == nil && len(report.Sealed)+len(report.Rolled)+len(report.Cleaned)+len(report.Expired)+len(report.Trimmed)+int(report.Forgot.Series) == 0 {
		fmt.Fprintln(stdout, "Nothing is due.")
	}
	return closeAfter(a, err)
}
