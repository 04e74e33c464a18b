package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varve/api"
	"varve/archive"
)

// checkingDir, in the data directory, has the copy that a check looks at.
const checkingDir = "checking"

// faultsShown is how many faults of a check are kept for its status and logged; all are counted.
const faultsShown = 100

// checking checks the data of the server while it is at work, one check at a time.
type checking struct {
	archive *archive.Archive
	scratch string
	log     *slog.Logger
	faults  *faultLog

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	read               prometheus.Counter
	found              prometheus.Counter
	running, completed prometheus.Gauge

	// mu guards what follows.
	mu     sync.Mutex
	status *api.CheckStatus   // of the check that runs, or of the last one
	stop   context.CancelFunc // nil while none runs
}

// newChecking removes what a check left behind that was killed.
func (s *server) newChecking(a *archive.Archive) *checking {
	c := &checking{
		archive: a, scratch: filepath.Join(s.dataDir, checkingDir), log: s.o.logger.With("component", "check"), faults: &s.faults,
		read: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "varve_check_read_bytes_total", Help: "Bytes of records that checks of the data have read.",
		}),
		found: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "varve_check_faults_total", Help: "Faults that checks of the data have found.",
		}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "varve_check_running", Help: "1 while the data is checked.",
		}),
		completed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "varve_check_last_completed_timestamp_seconds", Help: "When a check of all data was last completed, whatever it found; 0 if none was since the start.",
		}),
	}
	c.life, c.end = context.WithCancel(context.Background())
	if err := errors.Join(os.RemoveAll(c.scratch), os.RemoveAll(c.scratch+".partial")); err != nil {
		c.log.Warn("What a check left that was cut off could not be removed, and keeps room on the disk.", "err", err)
	}
	s.registry.MustRegister(c.read, c.found, c.running, c.completed, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "varve_faults_total", Help: "Damage that was met: by a start, queries, background work and checks.",
	}, func() float64 { return float64(c.faults.total()) }))
	return c
}

// close ends the check that runs, and waits for it. No other begins after it.
func (c *checking) close() {
	// Under the lock, so that whoever saw that it was not closed has begun.
	c.mu.Lock()
	c.end()
	c.mu.Unlock()
	c.work.Wait()
}

// RunCheck implements api.Checker.
func (c *checking) RunCheck(by string, bytesPerSecond int64) error {
	if err := c.archive.StartError(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		return errStopping
	}
	if c.stop != nil {
		return api.ErrChecking
	}
	ctx, stop := context.WithCancel(c.life)
	c.stop, c.status = stop, &api.CheckStatus{Started: time.Now().UTC(), Unit: "bytes", Faults: []string{}, By: by}
	c.running.Set(1)
	c.log.Info("A check of the data begins.", "by", by)
	c.work.Go(func() { c.run(ctx, bytesPerSecond) })
	return nil
}

func (c *checking) run(ctx context.Context, bytesPerSecond int64) {
	read := uint64(0)
	report, err := c.archive.CheckLive(ctx, archive.LiveCheck{
		Scratch: c.scratch, BytesPerSecond: bytesPerSecond, Report: c.fault,
		Progress: func(p archive.CheckProgress) {
			c.read.Add(float64(p.Read - read))
			read = p.Read
			c.mu.Lock()
			defer c.mu.Unlock()
			c.status.Done, c.status.Total, c.status.Reading = p.Done, p.Total, p.Family
		},
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop()
	c.stop = nil
	c.running.Set(0)
	now := time.Now().UTC()
	c.status.Finished, c.status.Reading = &now, ""
	took := now.Sub(c.status.Started).Round(time.Millisecond).String()
	switch {
	case errors.Is(err, context.Canceled):
		c.status.Error = "it was stopped"
		c.log.Info("The check of the data was stopped.", "after", took, "faults", c.status.FaultCount)
	case err != nil:
		c.status.Error = err.Error()
		c.faults.note(err)
		c.log.Error("The check of the data could not be completed.", "after", took, "faults", c.status.FaultCount, "err", err)
	default:
		c.completed.Set(float64(now.UnixMilli()) / 1e3)
		level := slog.LevelInfo
		if report.Faults > 0 {
			level = slog.LevelError
		}
		c.log.Log(ctx, level, "The data was checked.", "took", took, "faults", report.Faults, "series", report.Series, "samples", report.Samples, "buckets", report.Buckets)
	}
}

// fault is told of each.
func (c *checking) fault(f archive.Fault) {
	c.found.Inc()
	text := f.String()
	c.faults.add(text, time.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.FaultCount++
	if len(c.status.Faults) < faultsShown {
		c.status.Faults = append(c.status.Faults, text)
		c.log.Error("The check found a fault.", "fault", text)
	}
}

// StopCheck implements api.Checker.
func (c *checking) StopCheck() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil {
		return false
	}
	c.stop()
	return true
}

// CheckStatus implements api.Checker.
func (c *checking) CheckStatus() *api.CheckStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == nil {
		return nil
	}
	s := *c.status
	s.Faults = append([]string{}, s.Faults...)
	return &s
}
