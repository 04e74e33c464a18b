package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
)

// compactorConfiguration is what the draws of a cycle of RunCompactor go into. Where the loop looks for work and
// quiet is long, days are past their age that are neither sealed nor rolled up.
const compactorConfiguration = `
storage:
  memory: %s
  runs:
    max_age: %s
    max_size: %s
web:
  enable_admin_api: true
compactor:
  interval: %s
  seal_delay: 0s
  quiet: %s
  reseal_after: %s
  cpu_share: 1
  max_drop_share: 1
deletes:
  grace: %s
self_scrape:
  enabled: false
retention:
%s`

// The jobs of the compactor, as its status names them.
const (
	JobSeal   = "seal"
	JobRoll   = "roll"
	JobClean  = "clean"
	JobExpire = "expire"
	JobTrim   = "trim"
)

// jobDone is what the log says of a job that was done.
var jobDone = map[string]string{
	JobSeal:   "A day was sealed.",
	JobRoll:   "A day was rolled up.",
	JobClean:  "Deletes were cleaned.",
	JobExpire: "Data expired.",
	JobTrim:   "Series of a day expired.",
}

const (
	// firstDays are written before the first cycle, so that the first passes have something that is too old.
	firstDays = 6
	// jobWait is how long a kill waits for the job that it is to meet: the loop looks for work once a second.
	jobWait = 1500 * time.Millisecond
	// loopsTime is enough for runs to be cut that may be a second old, and for two looks of the loop.
	loopsTime = 3200 * time.Millisecond
	// jobShare is about as long as a job takes.
	jobShare = 12 * time.Millisecond
	// pollPause is between two looks at what the compactor is at.
	pollPause = 500 * time.Microsecond
)

// RunCompactor goes through cycles like Run, with kills that are meant for the compactor: it goes through weeks of days,
// with late samples and deletes, under rules of retention that keep some series for less time than others, and kills
// while days are sealed, rolled up, cleaned and trimmed, and expire. A cycle counts only if a job was under way at the kill.
//
// Each start is followed by a check of the samples, of each bucket whatever it is answered from, and of
// what the label APIs list; and some by one after the compactor did all that was due.
func RunCompactor(ctx context.Context, opts Options) (Report, error) {
	r := &run{opts: opts, random: rand.New(rand.NewPCG(opts.Seed, 0x636f6d70)), report: Report{Jobs: map[string]int{}, Hits: map[string]int{}}}
	opts.Logf("seed %d, %d cycles, binary %s, %v", opts.Seed, opts.Cycles, opts.Binary, opts.Env)
	for number := 0; r.report.Cycles < opts.Cycles; number++ {
		err := r.aging(ctx, number)
		if errors.Is(err, errBroken) {
			return r.report, nil
		}
		if err != nil {
			return r.report, fmt.Errorf("archive %d of seed %d: %w", number, opts.Seed, err)
		}
		if r.tooIdle() {
			return r.report, fmt.Errorf("in %d cycles no job was under way at the kill, with %d that counted", r.report.Idle, r.report.Cycles)
		}
	}
	return r.report, nil
}

// aging is an archive that goes through days.
type aging struct {
	*archive
	rules string
	// loops tells that the compactor of the server that runs now looks for work by itself.
	loops bool
	// quiet tells that it leaves days alone that samples arrived for, so that they come past their age before they are sealed.
	quiet   bool
	history *ledger.History
	// slot is the place in the newest day up to which samples were sent.
	slot int
}

func (r *run) aging(ctx context.Context, number int) (err error) {
	name := fmt.Sprintf("aging-%03d", number)
	g := &aging{archive: &archive{run: r, dir: filepath.Join(r.opts.Dir, name), work: &ledger.Workload{Name: name}}}
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	if g.address, err = server.FreeAddress(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(g.dir, "ledger.log"))
	if err != nil {
		return err
	}
	g.draw(number, log)
	defer func() {
		if g.server != nil {
			g.server.Kill()
		}
		r.report.Acked += g.history.Acked()
		if err = errors.Join(err, g.history.LogError(), log.Close()); err == nil {
			err = os.RemoveAll(g.dir)
		}
	}()
	for counted := 0; counted < r.opts.ArchiveCycles && r.report.Cycles < r.opts.Cycles; {
		before := r.report.Cycles
		if err := g.cycle(ctx); err != nil {
			return err
		}
		counted += r.report.Cycles - before
		if r.tooIdle() {
			return nil
		}
	}
	return g.finish(ctx)
}

// draw chooses the rules: with one that keeps everything, in every other archive, days are trimmed alone; without it they
// expire whole as well.
func (g *aging) draw(number int, log io.Writer) {
	classes := []ledger.Class{
		{ID: "short", Raw: 2, Fine: 4, Coarse: 7, Series: 6},
		{ID: "middle", Raw: 3, Fine: 9, Coarse: ledger.Forever, Series: 6},
	}
	if number%2 == 0 {
		classes[1].Coarse = 9
		classes = append(classes, ledger.Class{ID: "rest", Raw: 4, Fine: 5, Coarse: 11, Series: 10})
	} else {
		classes = append(classes,
			ledger.Class{ID: "rest", Raw: 4, Fine: ledger.Forever, Coarse: ledger.Forever, Series: 6},
			ledger.Class{ID: "all", Raw: ledger.Forever, Fine: ledger.Forever, Coarse: ledger.Forever, Series: 4})
	}
	for _, c := range classes {
		match := fmt.Sprintf("match: '{%s=%q}', ", ledger.LabelWriter, c.ID)
		g.rules += fmt.Sprintf("  - {%sraw: %s, 5m: %s, 1h: %s}\n", match, keepText(c.Raw), keepText(c.Fine), keepText(c.Coarse))
	}
	if classes[len(classes)-1].ID == "rest" {
		// For every series: else those that no rule is for would be kept forever.
		last := strings.LastIndex(g.rules, "match")
		g.rules = g.rules[:last] + g.rules[strings.LastIndex(g.rules, "raw:"):]
	}
	g.history = ledger.NewHistory(g.work.Name, g.random.Uint64(), classes, log)
	g.configuration = g.configure
}

func keepText(days int) string {
	if days == ledger.Forever {
		return "forever"
	}
	return fmt.Sprintf("%dd", days)
}

func (g *aging) configure() string {
	g.loops = g.random.IntN(2) == 0
	g.quiet = g.loops && g.random.IntN(3) != 0
	age, interval, quiet := pick(g.archive, "1s", "15m"), "1h", "0s"
	if g.loops {
		interval = "1s"
	}
	if g.quiet {
		age, quiet = "1s", "1h"
	}
	return fmt.Sprintf(compactorConfiguration,
		pick(g.archive, "32MiB", "64MiB"),
		age,
		pick(g.archive, "1MiB", "64MiB"),
		interval,
		quiet,
		pick(g.archive, "0s", "6h"),
		pick(g.archive, "0s", "24h"),
		g.rules)
}

// cycle starts, checks, writes, kills the compactor at its work and checks the remains.
func (g *aging) cycle(ctx context.Context) error {
	if g.random.IntN(5) == 0 {
		if err := g.killedStart(ctx); err != nil {
			return err
		}
	}
	if err := g.start(ctx, true); err != nil {
		return err
	}
	if err := g.compare(ctx, false); err != nil {
		return err
	}
	if g.random.IntN(3) == 0 {
		if err := g.wholePass(ctx); err != nil {
			return err
		}
	}
	sender := ledger.NewSender(g.history, g.server.URL(""))
	defer sender.Close()
	if err := g.grow(ctx, sender); err != nil {
		return err
	}
	if err := g.workAndKill(ctx, sender); err != nil {
		return err
	}
	if g.random.IntN(3) != 0 {
		return nil
	}
	return g.checkRemains(ctx)
}

// grow takes the archive some days on, with late samples and deletes.
func (g *aging) grow(ctx context.Context, sender *ledger.Sender) error {
	t := g.traffic(sender, g.random)
	defer func() { g.slot = t.slot }()
	days := 1 + g.random.IntN(3)
	if g.quiet {
		days = 3 // The short rule keeps less.
	}
	if g.history.Newest() < 0 {
		days = firstDays
	}
	for to := max(g.history.Newest(), 0) + days; g.history.Newest() < to; {
		if err := t.advance(ctx, daySlots/4); err != nil {
			return g.broken("%v", err)
		}
	}
	if err := t.delete(ctx); err != nil {
		return g.broken("%v", err)
	}
	for range 2 + g.random.IntN(6) {
		if err := t.change(ctx); err != nil {
			return g.broken("%v", err)
		}
	}
	if g.quiet {
		// The samples get to runs, and the loop finds days that are past their age and neither sealed nor rolled up.
		select {
		case <-time.After(loopsTime):
		case <-ctx.Done():
		}
	}
	return nil
}

// daySlots is how many slots a day of a History has.
const daySlots = 1440

// traffic is what clients do to an aging archive. Its errors are refusals. It belongs to one goroutine.
type traffic struct {
	random  *rand.Rand
	history *ledger.History
	sender  *ledger.Sender
	slot    int
}

func (g *aging) traffic(sender *ledger.Sender, random *rand.Rand) *traffic {
	return &traffic{random: random, history: g.history, sender: sender, slot: g.slot}
}

// advance sends the next slots of all series.
func (t *traffic) advance(ctx context.Context, slots int) error {
	day := max(t.history.Newest(), 0)
	if t.slot == daySlots {
		day, t.slot = day+1, 0
	}
	to := min(t.slot+slots, daySlots)
	err := t.sender.Write(ctx, t.protocol(), t.history.Advance(day, t.slot, to))
	t.slot = to
	return err
}

// change sends late samples, or makes or undoes a delete.
func (t *traffic) change(ctx context.Context) error {
	switch t.random.IntN(4) {
	case 0:
		return t.delete(ctx)
	case 1:
		if made := t.history.InForce(); len(made) > 0 && t.random.IntN(2) == 0 {
			return t.sender.Undelete(ctx, made[t.random.IntN(len(made))])
		}
	}
	return t.sender.Write(ctx, t.protocol(), t.history.Late(t.random.Uint64()))
}

func (t *traffic) delete(ctx context.Context) error {
	d, ok := t.history.NewDelete(t.random.Uint64())
	if !ok {
		return nil
	}
	return t.sender.Delete(ctx, d)
}

// run does a little of everything until the context ends. Of a day it gets no further than to its end.
func (t *traffic) run(ctx context.Context) (err error) {
	for ctx.Err() == nil && err == nil {
		if t.random.IntN(3) == 0 && t.slot < daySlots {
			err = t.advance(ctx, 15)
		} else {
			err = t.change(ctx)
		}
	}
	return err
}

func (t *traffic) protocol() ledger.Protocol {
	return []ledger.Protocol{ledger.RemoteWrite1, ledger.RemoteWrite2}[t.random.IntN(2)]
}

// workAndKill has the compactor work, and kills it there, half of the times under load.
func (g *aging) workAndKill(ctx context.Context, sender *ledger.Sender) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now()
	watch := watchJobs(working, g.server)
	way := pick(g.archive, wayRun, wayRun, wayClean)
	if g.loops {
		way = pick(g.archive, wayLoop, wayLoop, wayLoop, wayClean)
	}
	asked := g.ask(working, way)
	load := g.traffic(sender, rand.New(rand.NewPCG(g.random.Uint64(), 1)))
	loaded := make(chan error, 1)
	if g.random.IntN(2) == 0 {
		go func() { loaded <- load.run(working) }()
	} else {
		loaded <- nil
	}
	job := g.awaitJob(ctx, way, watch, asked)
	died := false
	select {
	case <-g.server.Exited():
		died = true
	default:
	}
	took := time.Since(began)
	killErr := g.kill(g.server)
	output := g.last.Output()
	stop()
	err := <-loaded
	<-asked
	for range watch {
	}
	g.slot = load.slot
	g.report.Load += took
	switch {
	case died:
		return g.broken("the server ended by itself:\n%s", output)
	case err != nil:
		return g.broken("%v", err)
	}
	g.countJobs(output)
	if job == "" {
		g.report.Idle++
	} else {
		g.report.Cycles++
		g.report.Hits[job]++
	}
	g.opts.Logf("%s: cycle %d (idle %d): day %d, killed after %v in job %q", g.work.Name, g.report.Cycles, g.report.Idle, g.history.Newest(), took.Round(time.Millisecond), job)
	return killErr
}

// countJobs counts the jobs of which a server's log says that they were done.
func (g *aging) countJobs(output string) {
	for kind, text := range jobDone {
		g.report.Jobs[kind] += strings.Count(output, text)
	}
}

// The ways in which the compactor gets to work: asked for all that is due, asked to clean deletes and then for that, or
// by its own loop.
const (
	wayRun = iota
	wayClean
	wayLoop
)

// ask has the compactor work. The channel is closed when there is nothing more to ask for.
func (g *aging) ask(ctx context.Context, way int) <-chan struct{} {
	asked := make(chan struct{})
	sender := ledger.NewSender(g.history, g.server.URL(""))
	go func() {
		defer close(asked)
		defer sender.Close()
		// The answer does not come, or is of no interest: checks say whether it was true.
		switch way {
		case wayClean:
			_ = sender.Clean(ctx)
			_ = sender.Compact(ctx)
		case wayRun:
			_ = sender.Compact(ctx)
		case wayLoop:
			<-ctx.Done()
		}
	}()
	return asked
}

// awaitJob waits until the time to kill, and returns the job that was under way then, as far as the watch saw; empty
// if there was none. It waits for a job of some kind, and a part of it, or for any, and the time of several.
func (g *aging) awaitJob(ctx context.Context, way int, watch <-chan string, asked <-chan struct{}) (job string) {
	wanted := pick(g.archive, "", "", JobRoll, JobExpire, JobTrim)
	if way == wayClean && g.random.IntN(2) == 0 {
		wanted = JobClean
	}
	further := time.Duration(g.random.Int64N(int64(jobShare)))
	switch {
	case wanted == "":
		further *= 8
	case wanted == JobExpire || g.random.IntN(4) == 0:
		further = 0 // It is short.
	}
	timeout := time.After(jobWait)
	var late <-chan time.Time
	for {
		select {
		case job = <-watch:
			if job != "" && (wanted == "" || job == wanted) && late == nil {
				late = time.After(further)
			}
		case <-late:
			return job
		case <-asked:
			return ""
		case <-timeout:
			return job
		case <-g.server.Exited():
			return job
		case <-ctx.Done():
			return job
		}
	}
}

// watchJobs gives the kind of the job under way again and again, empty for none, until the context ends.
func watchJobs(ctx context.Context, s *server.Server) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			status, body, err := server.Get(ctx, s.URL("/api/v1/status/compactor"))
			var answer struct{ Data struct{ Running string } }
			if err == nil && status == 200 && json.Unmarshal(body, &answer) == nil {
				kind, _, _ := strings.Cut(answer.Data.Running, " ")
				select {
				case out <- kind:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-time.After(pollPause):
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// wholePass has everything done that is due, and checks that nothing is left to do, for queries as well.
func (g *aging) wholePass(ctx context.Context) error {
	pass, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	sender := ledger.NewSender(g.history, g.server.URL(""))
	defer sender.Close()
	if err := sender.Clean(pass); err != nil {
		return g.broken("%v\n%s", err, g.last.Output())
	}
	// A sealing that was interrupted is completed by the first pass, and what came since is sealed by the second.
	for range 2 {
		if err := sender.Compact(pass); err != nil {
			return g.broken("%v\n%s", err, g.last.Output())
		}
	}
	return g.compare(ctx, true)
}

// compare checks the server against the book.
func (g *aging) compare(ctx context.Context, whole bool) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	reader := ledger.NewReader(g.server.URL(""))
	defer reader.Close()
	began := time.Now()
	found := g.history.Check(ctx, reader, ledger.HistoryCheckOptions{Streamed: g.random.IntN(3) != 0, Whole: whole})
	g.report.Checks += time.Since(began)
	if len(found) == 0 {
		if whole {
			g.report.Wholes++
		}
		return nil
	}
	what := "after a start"
	if whole {
		what = "after a whole pass"
	}
	return g.broken("%s: %s", what, listed(found))
}

// finish has the last kill's remains completed, checks, stops in order, and checks what the next start has.
func (g *aging) finish(ctx context.Context) error {
	if err := g.start(ctx, true); err != nil {
		return err
	}
	if err := g.compare(ctx, false); err != nil {
		return err
	}
	if err := g.wholePass(ctx); err != nil {
		return err
	}
	if err := g.stop(ctx); err != nil {
		return err
	}
	g.countJobs(g.last.Output())
	if err := g.checkRemains(ctx); err != nil {
		return err
	}
	if err := g.start(ctx, true); err != nil {
		return err
	}
	return g.compare(ctx, true)
}
