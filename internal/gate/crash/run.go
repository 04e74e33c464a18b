package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"varve/internal/gate/ledger"
	"varve/internal/gate/powercut"
	"varve/internal/gate/server"
)

// FloorSamplesPerSecond is what the server must acknowledge before a kill for the
// cycle to count. A test with less load than this would find hardly anything.
const FloorSamplesPerSecond = 2000

const (
	// killDelayMax reaches from kills in the first request over those in the first
	// flush to those in a compaction, with the small memory that is drawn.
	killDelayMax = 3 * time.Second
	// readyPromise is the promise: ready 30 s after any crash; stopPromise: gone 30 s after SIGTERM. A machine with other work, or a disk that
	// does not answer for a while, may make one of them come late, and most of them only if the server is slow.
	readyPromise = 30 * time.Second
	stopPromise  = 30 * time.Second
	// readyTimeout and stopTimeout tell a server that is late from one that hangs.
	readyTimeout = 3 * time.Minute
	stopTimeout  = 3 * time.Minute
	// checkTimeout bounds reading back an archive of a few cycles.
	checkTimeout = 5 * time.Minute
	// pauseMax keeps the load of all writers together far above the floor and the
	// archive small enough to be read back completely after each kill.
	pauseMax = 30 * time.Millisecond
	// ackWait is far longer than the pause between two acknowledgements.
	ackWait = 200 * time.Millisecond
)

// Options of a Run.
type Options struct {
	// Binary is the varve to be tested.
	Binary string
	// Dir is a directory for archives. It is left behind if a promise was broken.
	Dir string
	// Seed decides all draws.
	Seed uint64
	// Cycles is the number of cycles that must count, ArchiveCycles how many of
	// them fall on one archive.
	Cycles, ArchiveCycles int
	// Env is added to the server's environment.
	Env []string
	// PowerCut, when set, records the server's syncs, and power is cut after each
	// kill.
	PowerCut *powercut.Recorder
	// Logf gets a line a cycle.
	Logf func(format string, args ...any)
}

// Report is what a Run found.
type Report struct {
	// Cycles counted, Idle ones did not reach the floor, Kills are all kills.
	Cycles, Idle, Kills int
	// Acked is the number of samples acknowledged and checked.
	Acked int
	// Jobs are how many jobs of the compactor were done, by kind, and Hits how many kills met one, of RunCompactor;
	// Wholes how often everything was compared after all was done that was due.
	Jobs, Hits map[string]int
	Wholes     int
	// Bundles is how many the checks of archives at rest found: that days were sealed.
	Bundles int
	// ReadyMax is the longest start.
	ReadyMax time.Duration
	// Starts and Stops are how often the server was waited for, and Late how many of them took longer than is promised.
	Starts, Stops, Late int
	// Broken are the promises that were broken. A run ends with the first check
	// that finds any.
	Broken []string
	// Load is the time of writing, from which the mean rate follows, Checks that of
	// reading back, Remains that of checks of archives that no server uses.
	Load, Checks, Remains time.Duration
}

// errBroken ends a run whose report says what is broken.
var errBroken = errors.New("a promise was broken")

// Run goes through cycles until enough of them count, too many were idle, or a
// promise was broken, which is not an error but part of the report. An error
// means that the run itself did not work.
func Run(ctx context.Context, opts Options) (Report, error) {
	r := &run{opts: opts, random: rand.New(rand.NewPCG(opts.Seed, 0x6b696c6c))}
	opts.Logf("seed %d, %d cycles, binary %s, %v", opts.Seed, opts.Cycles, opts.Binary, opts.Env)
	for number := 0; r.report.Cycles < opts.Cycles; number++ {
		err := r.archive(ctx, number)
		if errors.Is(err, errBroken) {
			return r.report, nil
		}
		if err != nil {
			return r.report, fmt.Errorf("archive %d of seed %d: %w", number, opts.Seed, err)
		}
		if r.tooIdle() {
			return r.report, fmt.Errorf("%d cycles were idle, with %d that counted: the server acknowledges less than %d samples/s",
				r.report.Idle, r.report.Cycles, FloorSamplesPerSecond)
		}
	}
	return r.report, nil
}

// run is the state of Run.
type run struct {
	opts   Options
	random *rand.Rand
	report Report
}

// tooIdle tells that a run gets nowhere. A machine with other work makes some cycles idle, in a row at times.
func (r *run) tooIdle() bool { return r.report.Idle > 4*r.opts.Cycles+20 }

// archive is one archive and what writes to it.
type archive struct {
	*run
	dir     string
	address string
	work    *ledger.Workload
	book    *ledger.Ledger
	writers []*ledger.Writer
	// acks gets a value at an acknowledgement when nobody took the last one yet.
	acks chan struct{}
	// configuration draws one for the next start.
	configuration func() string
	// server is the one that runs now, last the one that was started last.
	server, last *server.Server
}

func (r *run) archive(ctx context.Context, number int) (err error) {
	dir := filepath.Join(r.opts.Dir, fmt.Sprintf("archive-%03d", number))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "ledger.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	a := &archive{
		run: r, dir: dir,
		work: &ledger.Workload{Seed: r.random.Uint64(), Start: time.Now(), Name: fmt.Sprintf("archive-%03d", number)},
		book: ledger.New(log),
		acks: make(chan struct{}, 1),
	}
	if a.address, err = server.FreeAddress(); err != nil {
		return err
	}
	a.configuration = a.configure
	a.makeWriters()
	defer func() {
		if a.server != nil {
			a.server.Kill()
		}
		r.report.Acked += a.book.Acked()
		err = errors.Join(err, a.book.Flush())
		if err == nil {
			err = os.RemoveAll(dir)
		}
	}()
	for counted := 0; counted < r.opts.ArchiveCycles && r.report.Cycles < r.opts.Cycles; {
		before := r.report.Cycles
		if err := a.cycle(ctx); err != nil {
			return err
		}
		counted += r.report.Cycles - before
		if r.tooIdle() {
			return nil
		}
	}
	return a.end(ctx)
}

// makeWriters makes a writer of each kind with a protocol drawn for it.
func (a *archive) makeWriters() {
	for i, kind := range ledger.Kinds {
		protocol := ledger.RemoteWrite1
		if a.random.IntN(2) == 0 {
			protocol = ledger.RemoteWrite2
		}
		a.writers = append(a.writers, ledger.NewWriter(a.work, a.book, ledger.Options{
			Kind: kind, ID: ledger.WriterID(kind), Protocol: protocol,
			URL:      "http://" + a.address + "/api/v1/write",
			PauseMax: pauseMax,
			Random:   rand.New(rand.NewPCG(a.random.Uint64(), uint64(i))),
			Observe:  a.observe,
		}))
	}
}

// observe is told of every answer.
func (a *archive) observe(status int, _ string) {
	if status/100 != 2 {
		return
	}
	select {
	case a.acks <- struct{}{}:
	default:
	}
}

// awaitAck waits for the next acknowledgement, for a moment: a kill right after it
// is the one that an acknowledgement given too early does not survive.
func (a *archive) awaitAck() {
	select {
	case <-a.acks:
	default:
	}
	select {
	case <-a.acks:
	case <-time.After(ackWait):
	}
}

// cycle starts, checks, writes, kills and checks the remains.
func (a *archive) cycle(ctx context.Context) error {
	if a.random.IntN(5) == 0 {
		if err := a.killedStart(ctx); err != nil {
			return err
		}
	}
	checked := a.random.IntN(5) != 0
	// Half of the unchecked cycles begin to write before the server is ready.
	if err := a.start(ctx, checked || a.random.IntN(2) == 0); err != nil {
		return err
	}
	if checked {
		if err := a.check(ctx); err != nil {
			return err
		}
	}
	acked, delay, err := a.writeAndKill(ctx)
	if err != nil {
		return err
	}
	rate := float64(acked) / delay.Seconds()
	if rate < FloorSamplesPerSecond {
		a.report.Idle++
	} else {
		a.report.Cycles++
	}
	a.opts.Logf("%s: cycle %d (idle %d): killed after %v with %d samples acknowledged, %.0f/s",
		a.work.Name, a.report.Cycles, a.report.Idle, delay.Round(time.Millisecond), acked, rate)
	// Reading back shows most of what this does, at a fraction of the time.
	if a.random.IntN(3) != 0 {
		return nil
	}
	return a.checkRemains(ctx)
}

// end starts once more, checks, stops in order, checks the archive at rest, and
// what the next start makes of it.
func (a *archive) end(ctx context.Context) error {
	if err := a.start(ctx, true); err != nil {
		return err
	}
	if err := a.check(ctx); err != nil {
		return err
	}
	if err := a.stop(ctx); err != nil {
		return err
	}
	if err := a.checkRemains(ctx); err != nil {
		return err
	}
	if err := a.start(ctx, true); err != nil {
		return err
	}
	return a.check(ctx)
}

// stop stops the server in order.
func (a *archive) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	began := time.Now()
	err := a.server.Terminate(ctx)
	a.server = nil
	if err != nil {
		return a.broken("an orderly stop: %v", err)
	}
	a.report.Stops++
	if time.Since(began) > stopPromise {
		a.report.Late++
	}
	return a.cutPower()
}

// killedStart starts the server and kills it before or while it gets ready.
func (a *archive) killedStart(ctx context.Context) error {
	s, err := a.launch()
	if err != nil {
		return err
	}
	delay := time.Duration(a.random.Int64N(int64(400 * time.Millisecond)))
	select {
	case <-s.Exited():
		return a.broken("the server ended by itself while it started:\n%s", s.Output())
	case <-time.After(delay):
	case <-ctx.Done():
	}
	if err := a.kill(s); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil // killed before it could even record a sync
}

// writeAndKill writes with all writers until the kill, and returns the number of
// samples that were acknowledged before it.
func (a *archive) writeAndKill(ctx context.Context) (acked int, delay time.Duration, err error) {
	delay = time.Duration(a.random.Int64N(int64(killDelayMax))) + time.Millisecond
	atAck := a.random.IntN(2) == 0
	before := a.book.Acked()
	writing, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(a.writers))
	began := time.Now()
	for _, w := range a.writers {
		go func() { ended <- w.Run(writing) }()
	}
	died := false
	var failures error
	running := len(a.writers)
	kill := time.After(delay)
	for waiting := true; waiting; {
		select {
		case <-kill:
			waiting = false
		case <-a.server.Exited():
			died, waiting = true, false
		case err := <-ended: // a writer ends by itself only with an error
			failures = errors.Join(failures, err)
			running--
		case <-ctx.Done():
			waiting = false
		}
	}
	if atAck && !died {
		a.awaitAck()
	}
	load := time.Since(began)
	killErr := a.kill(a.server)
	output := a.last.Output()
	stop()
	for range running {
		failures = errors.Join(failures, <-ended)
	}
	a.report.Load += load
	acked = a.book.Acked() - before
	switch {
	case died:
		return acked, load, a.broken("the server ended by itself under load:\n%s", output)
	case failures != nil:
		return acked, load, a.broken("%v", failures)
	}
	return acked, load, errors.Join(killErr, ctx.Err())
}

// kill kills the server and cuts the power.
func (a *archive) kill(s *server.Server) error {
	s.Kill()
	a.server = nil
	a.report.Kills++
	return a.cutPower()
}

// cutPower takes away what the dead server did not sync, if the run does that.
func (a *archive) cutPower() error {
	if a.opts.PowerCut == nil {
		return nil
	}
	damage, err := powercut.Cut(a.data(), a.syncLog(), powercut.Options{
		Random: a.random, Exact: a.random.IntN(2) == 0, Torn: a.random.IntN(4) == 0,
	})
	if err != nil {
		return err
	}
	a.opts.Logf("%s: power cut: %v", a.work.Name, damage)
	return os.Remove(a.syncLog())
}

func (a *archive) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	reader := ledger.NewReader(a.server.URL(""))
	defer reader.Close()
	began := time.Now()
	defer func() { a.report.Checks += time.Since(began) }()
	found := a.book.Check(ctx, reader, ledger.CheckOptions{
		Gate: a.work.Name, Streamed: a.random.IntN(3) != 0, Restarted: true,
	})
	if len(found) == 0 {
		return nil
	}
	return a.broken("%s", listed(found))
}

// listed is the number of violations and the first of them.
func listed(found []ledger.Violation) string {
	text := ledger.Summary(found)
	for _, v := range found[:min(len(found), 12)] {
		text += "\n  " + v.String()
	}
	return text
}

// broken notes a broken promise and leaves everything where it is.
func (a *archive) broken(format string, args ...any) error {
	text := fmt.Sprintf("%s, cycle %d, kill %d, seed %d, kept in %s: ", a.work.Name, a.report.Cycles, a.report.Kills, a.opts.Seed, a.dir) +
		fmt.Sprintf(format, args...)
	a.report.Broken = append(a.report.Broken, text)
	if a.last != nil {
		if err := os.WriteFile(filepath.Join(a.dir, "server.log"), []byte(a.last.Output()), 0o600); err != nil {
			return errors.Join(errBroken, err)
		}
	}
	return errBroken
}
