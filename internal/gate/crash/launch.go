package crash

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"varve/internal/gate/server"
)

// configuration is what the draws of a cycle go into. Small memory and short runs
// make flushes, compactions, cuts and flushes of the index fall into the seconds
// before a kill, and the sealing and resealing of the days of the past that most
// workloads write to. The server's own metrics would only be in the way.
const configuration = `
storage:
  memory: %s
  runs:
    max_age: %s
    max_size: %s
compactor:
  interval: %s
  seal_delay: 0s
  quiet: %s
  reseal_after: 0s
  cpu_share: 1
self_scrape:
  enabled: false
log:
  level: warn
`

// pick draws one of the choices.
func pick[T any](a *archive, choices ...T) T { return choices[a.random.IntN(len(choices))] }

func (a *archive) data() string    { return filepath.Join(a.dir, "data") }
func (a *archive) syncLog() string { return filepath.Join(a.dir, "syncs.log") }

func (a *archive) configure() string {
	return fmt.Sprintf(configuration,
		pick(a, "32MiB", "64MiB", "256MiB"),
		pick(a, "1s", "5s", "15m"),
		pick(a, "1MiB", "4MiB", "64MiB"),
		pick(a, "1s", "1s", "1h"),
		pick(a, "0s", "5s"),
	)
}

// launch starts the server with new draws and returns without waiting.
func (a *archive) launch() (*server.Server, error) {
	file := filepath.Join(a.dir, "varve.yml")
	if err := os.WriteFile(file, []byte(a.configuration()), 0o600); err != nil {
		return nil, err
	}
	env := a.opts.Env
	if a.opts.PowerCut != nil {
		env = append(a.opts.PowerCut.Env(a.data(), a.syncLog()), env...)
	}
	s, err := server.Start(server.Options{
		Binary: a.opts.Binary, Address: a.address, Env: env,
		Args: []string{"serve", "--config.file", file, "--storage.path", a.data(), "--web.listen-address", a.address},
	})
	if err == nil {
		a.last = s
	}
	return s, err
}

// start starts the server and waits until it is ready, or only until it takes
// connections.
func (a *archive) start(ctx context.Context, ready bool) error {
	s, err := a.launch()
	if err != nil {
		return err
	}
	a.server = s
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	began := time.Now()
	if !ready {
		if err := s.WaitListening(ctx); err != nil {
			return a.broken("start: %v", err)
		}
		return nil
	}
	if err := s.WaitReady(ctx); err != nil {
		return a.broken("start: %v", err)
	}
	took := time.Since(began)
	a.report.ReadyMax = max(a.report.ReadyMax, took)
	a.report.Starts++
	if took > readyPromise {
		a.report.Late++
	}
	return nil
}

// checkRemains has the product's own verb compare index and data of the archive,
// which no server uses now.
func (a *archive) checkRemains(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	began := time.Now()
	defer func() { a.report.Remains += time.Since(began) }()
	out, err := exec.CommandContext(ctx, a.opts.Binary, "check", "data", a.data()).CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("varve check data %s: %w", a.data(), ctx.Err())
	}
	if err != nil {
		return a.broken("varve check data: %v\n%s", err, out[:min(len(out), 4<<10)])
	}
	found := bundlesFound.FindSubmatch(out)
	if found == nil {
		return a.broken("varve check data tells no number of bundles:\n%s", out[:min(len(out), 4<<10)])
	}
	n, err := strconv.Atoi(string(found[1]))
	a.report.Bundles += n
	return err
}

// bundlesFound finds in the verb's answer how much was sealed.
var bundlesFound = regexp.MustCompile(`(\d+) bundles`)
