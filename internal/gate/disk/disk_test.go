package disk_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

const (
	// diskBytes holds the data of a few seconds of load many times over.
	diskBytes = 384 << 20
	// floorBytes is below what the load of this test leaves free by far.
	floorBytes = 96 << 20
	// recoverPromise is the promise: writes are taken again 60 s after the space
	// came back. A machine with other work may make one recovery late, not all.
	recoverPromise = 60 * time.Second
	// The others tell a server that is late from one that hangs: when it has space again, when it is to notice that there is none, when it
	// begins and when it ends, and when something is to be acknowledged.
	recoverTimeout = 3 * time.Minute
	refuseTimeout  = 3 * time.Minute
	readyTimeout   = 3 * time.Minute
	ackTimeout     = 3 * time.Minute
)

// configuration of a server on a small disk. The floor goes into it.
const configuration = `
storage:
  memory: 32MiB
  runs: {max_age: 1s, max_size: 4MiB}
  min_free: %d
  min_free_percent: 0.01
  reserve: 16MiB
self_scrape: {enabled: false}
log: {level: warn}
`

func TestMain(m *testing.M) {
	code := leaks.Patient(m).Run()
	server.RemoveBinaries()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// TestFullDisk shows that a disk which fills up makes the server refuse writes
// with 503 and Retry-After while queries go on, that it takes writes again by
// itself when there is space, that it starts on a full disk, and that all of this
// costs nothing that was acknowledged. Once with a floor of free space that keeps
// the engine away from the edge, and once with the smallest one that can be
// configured, where writes of the engine itself fail.
func TestFullDisk(t *testing.T) {
	for _, c := range []struct {
		name       string
		floorBytes int64
	}{
		{"with a floor", floorBytes},
		{"with hardly one", 1 << 20},
	} {
		dir, here := mount(t, diskBytes)
		if !here {
			return
		}
		t.Run(c.name, func(t *testing.T) { fullDisk(t, dir, c.floorBytes) })
	}
}

func fullDisk(t *testing.T, dir string, floor int64) {
	d := newDisk(t, dir, floor)
	d.start()
	d.writeFor(time.Second)
	d.check()

	for cycle := range number(t, "DISK_CYCLES", 2) {
		// The first time there is something left below the floor, then nothing.
		leave := floor / 2
		if cycle > 0 {
			leave = 0
		}
		d.fillAndRecover(leave)
	}

	// A kill on a full disk, and a start on it.
	require.NoError(t, d.ballast.fill(0))
	d.writeUntilRefused()
	d.server.Kill()
	require.NoError(t, d.ballast.fill(0))
	d.start()
	d.writeUntilRefused()
	d.check()
	d.recover()
	d.check()
	d.stop()
	require.LessOrEqual(t, slices.Min(d.recovered), recoverPromise, "all times after which writes were taken again: %v", d.recovered)
}

// disk is a server on a small disk, with its ledger.
type disk struct {
	t       *testing.T
	dir     string
	config  string
	address string
	ballast ballast
	server  *server.Server
	work    *ledger.Workload
	book    *ledger.Ledger
	writers []*ledger.Writer
	// recovered is how long after the space came back writes were taken, each time.
	recovered []time.Duration

	mu      sync.Mutex // guards answers
	answers []answer
}

// answer is what a writer observed.
type answer struct {
	status     int
	retryAfter string
}

func newDisk(t *testing.T, dir string, floor int64) *disk {
	d := &disk{
		t: t, dir: filepath.Join(dir, "data"), ballast: ballast{filepath.Join(dir, "ballast")},
		config: filepath.Join(t.TempDir(), "varve.yml"),
	}
	require.NoError(t, os.WriteFile(d.config, fmt.Appendf(nil, configuration, floor), 0o600))
	var err error
	d.address, err = server.FreeAddress()
	require.NoError(t, err)
	// The share of CI has the same draws each time.
	draws := 1
	if os.Getenv("DISK_CYCLES") != "" {
		draws = int(time.Now().UnixNano() & 0x7fffffff)
	}
	seed := uint64(number(t, "DISK_SEED", draws))
	t.Logf("seed %d", seed)
	log, err := os.Create(filepath.Join(t.TempDir(), "ledger.log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(d.book.Flush(), log.Close())) })
	d.work = &ledger.Workload{Seed: seed, Start: time.Now(), Name: "disk"}
	d.book = ledger.New(log)
	for i, kind := range ledger.Kinds {
		protocol := ledger.RemoteWrite1
		if i%2 == 0 {
			protocol = ledger.RemoteWrite2
		}
		d.writers = append(d.writers, ledger.NewWriter(d.work, d.book, ledger.Options{
			Kind: kind, ID: ledger.WriterID(kind), Protocol: protocol,
			URL: "http://" + d.address + "/api/v1/write", PauseMax: 20 * time.Millisecond,
			Random:  rand.New(rand.NewPCG(seed, uint64(i))),
			Observe: d.observe,
		}))
	}
	return d
}

func (d *disk) observe(status int, retryAfter string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers = append(d.answers, answer{status, retryAfter})
}

// takeAnswers returns what was observed since the last time.
func (d *disk) takeAnswers() []answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := d.answers
	d.answers = nil
	return taken
}

func (d *disk) start() {
	d.t.Helper()
	s, err := server.Start(server.Options{
		Binary: server.Binary(d.t, ""), Address: d.address,
		Args: []string{"serve", "--config.file", d.config, "--storage.path", d.dir, "--web.listen-address", d.address},
	})
	require.NoError(d.t, err)
	d.server = s
	d.t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(d.t.Context(), readyTimeout)
	defer cancel()
	require.NoError(d.t, s.WaitReady(ctx))
}

// write writes with all writers until the function given says so, at most for the
// time limit, and reports whether it did.
func (d *disk) write(limit time.Duration, enough func([]answer) bool) bool {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), limit)
	defer cancel()
	ended := make(chan error, len(d.writers))
	d.takeAnswers()
	for _, w := range d.writers {
		go func() { ended <- w.Run(ctx) }()
	}
	var seen []answer
	err := server.Wait(ctx, "the writers saw enough", func() (bool, error) {
		seen = append(seen, d.takeAnswers()...)
		return enough(seen), nil
	})
	cancel()
	for range d.writers {
		require.NoError(d.t, <-ended, d.server.Output())
	}
	return err == nil
}

// writeFor writes for some time, and until something was acknowledged.
func (d *disk) writeFor(least time.Duration) {
	d.t.Helper()
	before, began := d.book.Acked(), time.Now()
	d.write(ackTimeout, func([]answer) bool { return time.Since(began) >= least && d.book.Acked() > before })
	require.Greater(d.t, d.book.Acked(), before, "nothing was acknowledged: %s", d.server.Output())
}

// writeUntilRefused writes until as many answers as there are writers, in a row,
// were refusals, each with the status and the header that they owe.
func (d *disk) writeUntilRefused() {
	d.t.Helper()
	refused := 0
	ok := d.write(refuseTimeout, func(answers []answer) bool {
		refused = 0
		for _, a := range answers {
			if a.status/100 == 2 {
				refused = 0
				continue
			}
			refused++
			require.Equal(d.t, http.StatusServiceUnavailable, a.status)
			seconds, err := strconv.Atoi(a.retryAfter)
			require.NoError(d.t, err, "Retry-After of a refused write")
			require.Positive(d.t, seconds)
		}
		return refused >= 2*len(d.writers)
	})
	left, err := free(filepath.Dir(d.dir))
	require.NoError(d.t, err)
	require.True(d.t, ok, "the disk has %d bytes free, and of the last writes only %d were refused: %s", left, refused, d.server.Output())
}

// recover gives the space back and writes until a write is taken.
func (d *disk) recover() {
	d.t.Helper()
	d.ballast.remove(d.t)
	began := time.Now()
	ok := d.write(recoverTimeout, func(answers []answer) bool {
		return len(answers) > 0 && answers[len(answers)-1].status/100 == 2
	})
	require.True(d.t, ok, "space came back, and no write was taken for %v: %s", recoverTimeout, d.server.Output())
	took := time.Since(began)
	d.recovered = append(d.recovered, took)
	d.t.Logf("writes were taken again %v after the space came back", took.Round(time.Millisecond))
}

func (d *disk) fillAndRecover(leave int64) {
	d.t.Helper()
	// Under load, so that the disk fills up in the middle of commits and flushes.
	filled := make(chan error, 1)
	go func() { filled <- d.ballast.fill(leave) }()
	d.writeUntilRefused()
	require.NoError(d.t, <-filled)
	d.check()
	d.recover()
	d.writeFor(time.Second)
	d.check()
}

// check compares the server with the ledger. Queries have to go on, so that it
// works on a full disk too.
func (d *disk) check() {
	d.t.Helper()
	reader := ledger.NewReader(d.server.URL(""))
	defer reader.Close()
	found := d.book.Check(d.t.Context(), reader, ledger.CheckOptions{Gate: d.work.Name, Streamed: true})
	require.Empty(d.t, found, d.server.Output())
}

// stop ends the server in order and has the product check what is left.
func (d *disk) stop() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), readyTimeout)
	defer cancel()
	require.NoError(d.t, d.server.Terminate(ctx))
	ctx, cancel = context.WithTimeout(d.t.Context(), readyTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, server.Binary(d.t, ""), "check", "data", d.dir).CombinedOutput()
	require.NoError(d.t, err, "%s", out)
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "environment variable %s", name)
	return n
}
