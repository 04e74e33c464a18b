package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/benchmarks/sink"
	"varve/benchmarks/wire"
)

// gapsConfig makes the journal be trimmed as soon as all of it is in the archive.
const gapsConfig = "storage: {runs: {max_age: 10s}, journal: {max_size: 1MiB, max_age: 1m}}\n"

const (
	// memoryPoints is how often the memory is read while the peer is away.
	memoryPoints = 10
	// caughtUpSeconds is the lag at which an output counts as no longer behind.
	caughtUpSeconds = 2
)

// catchUp measures how an output comes after that was behind.
func (r *forwardRun) catchUp(ctx context.Context, first, rest [][]wire.Frame) error {
	for repetition := range r.settings.repetitions {
		for _, source := range []string{"none", "journal", "gaps"} {
			point := result.CatchUp{Source: source, Repetition: repetition + 1, OfferedPerSecond: r.settings.liveRate}
			if err := r.catchUpOnce(ctx, &point, first, rest); err != nil {
				return fmt.Errorf("catch up from %s: %w", source, err)
			}
			r.point.CatchUp = append(r.point.CatchUp, point)
		}
	}
	return nil
}

// absence is a peer that is away and comes back, beside the load.
type absence struct {
	*forwardRun
	point  *result.CatchUp
	server *peer.Server
	to     *sink.Sink
	rest   [][]wire.Frame
	// latencies are those of writes, in no order.
	latencies []time.Duration
	ingested  int64
}

// catchUpOnce measures one absence, from an empty directory.
func (r *forwardRun) catchUpOnce(ctx context.Context, point *result.CatchUp, first, rest [][]wire.Frame) (err error) {
	a := absence{forwardRun: r, point: point, rest: slices.Clone(rest), ingested: samplesOf(first)}
	config, outputs := "", ""
	if point.Source != "none" {
		if a.to, err = sink.New(http.StatusNoContent); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.to.Close()) }()
		outputs = remoteWriteOutput("sink", a.to, 1, 1)
	}
	if point.Source == "gaps" {
		config = gapsConfig
	}
	if a.server, err = r.startFirst(ctx, config, outputs, first); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.discard(a.server)) }()
	a.server.Settle(ctx, settleLimit)
	if err := a.away(ctx); err != nil {
		return err
	}
	if a.to != nil {
		if point.Source == "gaps" {
			if err := a.trimJournal(ctx); err != nil {
				return err
			}
		}
		if err := a.write(ctx, 0, a.comeBack); err != nil {
			return err
		}
		if err := drained(ctx, a.server, a.to, a.ingested); err != nil {
			return err
		}
		point.Received = a.to.Samples()
	}
	slices.Sort(a.latencies)
	point.Ingested = a.ingested
	point.P50Millis, point.P99Millis = millis(load.Percentile(a.latencies, 0.5)), millis(load.Percentile(a.latencies, 0.99))
	cost, _ := r.reading(ctx, a.server)
	point.PeakBytes = cost.PeakBytes
	memory := []string{}
	for _, bytes := range point.Memory {
		memory = append(memory, fmt.Sprint(bytes>>20))
	}
	r.say("catch up from %-8s in %.0f k/s, away %.0f s, backlog %.1f M, %d gap days; after %.2f s %.1f M in %.1f s = %.0f k/s, x %.2f; %d twice; RSS MiB %v, peak %d; p99 %.2f ms",
		point.Source+":", point.IngestedPerSecond/1000, point.DownSeconds, float64(point.Backlog)/1e6, point.GapDays, point.WaitSeconds, float64(point.Sent)/1e6,
		point.CatchUpSeconds, float64(point.Sent)/point.CatchUpSeconds/1000, point.Ratio(), max(0, point.Received-point.Ingested), memory, point.PeakBytes>>20, point.P99Millis)
	return nil
}

// write writes at the live rate for some time, with something else going on, or until that has ended if no time is given.
func (a *absence) write(ctx context.Context, limit time.Duration, beside func(context.Context) error) error {
	ended, enough := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- beside(ctx)
		if limit == 0 {
			close(enough)
		}
	}()
	report, err := a.push(ctx, a.server, 1, a.rest, load.Options{For: limit, Until: enough, SamplesPerSecond: a.point.OfferedPerSecond})
	select {
	case <-enough:
	default:
		if limit == 0 {
			a.say("samples ran out before the output had caught up: --forward-samples gives more")
		}
	}
	if err = errors.Join(err, <-ended); err != nil {
		return err
	}
	for lane, done := range report.Done {
		a.rest[lane] = a.rest[lane][done:]
	}
	a.ingested += report.Acknowledged
	a.latencies = append(a.latencies, report.Latencies...)
	a.point.IngestedPerSecond = float64(report.Acknowledged) / report.Elapsed.Seconds()
	return nil
}

// away writes while the peer is away, and reads the memory now and then.
func (a *absence) away(ctx context.Context) error {
	down, began := a.settings.downFor, time.Now()
	return a.write(ctx, down, func(ctx context.Context) error {
		defer func() { a.point.DownSeconds = time.Since(began).Seconds() }()
		for i := range memoryPoints {
			at := began.Add(down * time.Duration(i+1) / memoryPoints)
			if err := poll(ctx, down+time.Minute, func() (bool, error) { return !time.Now().Before(at), nil }); err != nil {
				return err
			}
			cost, err := a.server.Cost()
			if err != nil {
				return err
			}
			a.point.Memory = append(a.point.Memory, cost.RSSBytes)
		}
		return nil
	})
}

// trimJournal has the journal lack what the output has not read. A request to the compactor brings all to the archive, after
// which the journal can be trimmed where the next samples begin; no day is old enough to be sealed.
func (a *absence) trimJournal(ctx context.Context) error {
	const tries, between = 5, time.Second
	for range tries {
		if _, err := a.server.Compact(ctx); err != nil {
			return err
		}
		o, err := output(ctx, a.server)
		if err != nil || o.Lag.GapDays > 0 {
			return err
		}
		if err := a.write(ctx, between, func(context.Context) error { return nil }); err != nil {
			return err
		}
	}
	return errors.New("the journal was not trimmed")
}

// comeBack has the peer listen and measures until nothing is behind.
func (a *absence) comeBack(ctx context.Context) error {
	p := a.point
	before, err := output(ctx, a.server)
	if err != nil {
		return err
	}
	p.Backlog, p.GapDays = a.ingested, before.Lag.GapDays
	if err := a.to.Open(); err != nil {
		return err
	}
	opened := time.Now()
	if err := poll(ctx, drainLimit, func() (bool, error) { return a.to.Samples() > 0, a.to.Fault() }); err != nil {
		return fmt.Errorf("wait for the first samples: %w", err)
	}
	p.WaitSeconds = time.Since(opened).Seconds()
	from, began := a.to.Samples(), time.Now()
	err = poll(ctx, drainLimit, func() (bool, error) {
		o, err := output(ctx, a.server)
		a.show("catching up from %s: %.1f M sent, %.1f s behind", p.Source, float64(a.to.Samples())/1e6, o.Lag.Seconds)
		return o.Lag.Seconds <= caughtUpSeconds && o.Lag.GapDays == 0 && o.Lag.WholeFrom == "", err
	})
	p.CatchUpSeconds, p.Sent = time.Since(began).Seconds(), a.to.Samples()-from
	if err != nil {
		return fmt.Errorf("wait until the output has caught up, %d samples after %s: %w", p.Sent, time.Since(began), err)
	}
	return nil
}
