package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"varve/benchmarks/dataset"
	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/benchmarks/wire"
)

const (
	restartConnections = 4
	restartBatch       = 500
	// usualRounds are the full scrapes whose CPU is the usual one.
	usualRounds = 2
	// returnLimit bounds the wait for a server to be back.
	returnLimit = 3 * time.Minute
)

// restart measures the return from kill -9 for every number of series.
func restart(ctx context.Context, b *bench) error {
	for _, series := range b.settings.seriesList {
		loadRounds := max(1, int(b.settings.load.Seconds()*float64(b.settings.rate))/series) + 2
		plan := crashPlan{loadRounds: loadRounds}
		rounds := 1 + usualRounds + 2*loadRounds + 2
		var err error
		if plan.d, err = b.dataset(series, hostsPerCluster, rounds); err != nil {
			return err
		}
		plan.clusters, plan.names = plan.d.Values("cluster"), plan.d.Values("__name__")
		b.describe(plan.d)
		b.show("encoding %d rounds of %d series", rounds, series)
		encoder := plan.d.NewEncoder(1, restartBatch)
		next := 0
		take := func(count int) [][]wire.Frame {
			next += count
			return encoder.Rounds(restartConnections, 0, series, next-count, count)
		}
		plan.first, plan.usual, plan.load1 = take(1), take(usualRounds), take(loadRounds)
		plan.probe1, plan.load2, plan.scrape = take(1), take(loadRounds), take(1)
		for i, spec := range b.specs {
			if spec.Address != "" {
				b.say("%s was not started here and cannot be killed: left out", spec.Name)
				continue
			}
			crash := &crash{bench: b, plan: plan, spec: spec, name: "restart-" + spec.Name}
			point, err := crash.run(ctx)
			if err != nil {
				return err
			}
			b.entries[i].Restart = append(b.entries[i].Restart, point)
		}
	}
	return nil
}

// crashPlan holds the encoded rounds in the order in which they are sent.
type crashPlan struct {
	d                                          *dataset.Dataset
	clusters, names                            []string
	loadRounds                                 int
	first, usual, load1, probe1, load2, scrape [][]wire.Frame
}

// crash is the passage of one server through two kills.
type crash struct {
	bench        *bench
	plan         crashPlan
	spec         peer.Spec
	name         string
	server       *peer.Server
	acknowledged int64
	point        result.Restart
}

// run fills the server, kills it under load twice and measures each return.
func (c *crash) run(ctx context.Context) (point result.Restart, err error) {
	b := c.bench
	if c.server, err = b.start(ctx, c.spec, c.name); err != nil {
		return point, err
	}
	defer func() {
		if discarded := b.discard(c.server); err == nil {
			err = discarded
		}
	}()
	c.point = result.Restart{Series: c.plan.d.Len(), SamplesPerSecond: b.settings.rate}
	if err := c.send(ctx, c.plan.first); err != nil {
		return point, err
	}
	c.server.Settle(ctx, settleLimit)
	usual, err := c.cpuOf(ctx, c.plan.usual)
	if err != nil {
		return point, err
	}
	c.point.UsualCPU = usual / usualRounds
	if err := c.killUnderLoad(ctx, c.plan.load1); err != nil {
		return point, err
	}
	if err := c.comeBack(ctx); err != nil {
		return point, err
	}
	if err := c.killUnderLoad(ctx, c.plan.load2); err != nil {
		return point, err
	}
	if c.server, err = c.startAgain(); err != nil {
		return point, err
	}
	if err := c.server.WaitReady(ctx, returnLimit); err != nil {
		return point, err
	}
	c.server.Settle(ctx, settleLimit)
	if c.point.FirstCPU, err = c.cpuOf(ctx, c.plan.scrape); err != nil {
		return point, err
	}
	p := c.point
	b.say("restart %7d series, %-16s writes after %.2f s, all answered after %.2f s, first scrape %.2f of usual %.2f CPU s, %d of %d samples found", p.Series,
		c.spec.Name+":", p.WriteSeconds, p.QuerySeconds, p.FirstCPU, p.UsualCPU, p.Found, p.Acknowledged)
	return p, nil
}

// send sends rounds as fast as the server takes them.
func (c *crash) send(ctx context.Context, frames [][]wire.Frame) error {
	report, err := c.bench.push(ctx, c.server, 1, frames, load.Options{})
	c.acknowledged += report.Acknowledged
	return err
}

// cpuOf is the CPU that the server uses for rounds, until it settles.
func (c *crash) cpuOf(ctx context.Context, frames [][]wire.Frame) (float64, error) {
	before, err := c.server.Cost()
	if err != nil {
		return 0, err
	}
	if err := c.send(ctx, frames); err != nil {
		return 0, err
	}
	after, err := c.server.Cost()
	return after.CPUSeconds - before.CPUSeconds, err
}

// killUnderLoad sends at the configured rate and kills the server in the middle
// of it. Broken connections are what is wanted; a refusal is not.
func (c *crash) killUnderLoad(ctx context.Context, frames [][]wire.Frame) error {
	server := c.server
	killer := time.AfterFunc(c.bench.settings.load, server.Kill)
	defer killer.Stop()
	report, err := c.bench.push(ctx, server, 1, frames, load.Options{SamplesPerSecond: c.bench.settings.rate})
	server.Kill()
	c.acknowledged += report.Acknowledged
	c.point.LoadSeconds = report.Elapsed.Seconds()
	if errors.Is(err, load.ErrRefused) {
		return err
	}
	return ctx.Err()
}

// startAgain starts the server on the data that it left.
func (c *crash) startAgain() (*peer.Server, error) {
	return peer.Start(c.spec, filepath.Join(c.bench.root, c.name))
}

// comeBack starts the server and asks it from the first moment for both: to take
// a write, and to answer with all series. Then it counts what was lost.
func (c *crash) comeBack(ctx context.Context) error {
	began := time.Now()
	var err error
	if c.server, err = c.startAgain(); err != nil {
		return err
	}
	at := c.endMillis()
	var group sync.WaitGroup
	var wrote error
	group.Go(func() {
		c.point.WriteSeconds, wrote = c.firstWrite(ctx, began)
	})
	group.Go(func() {
		c.point.QuerySeconds = -1
		for time.Since(began) < returnLimit && ctx.Err() == nil {
			if found, err := c.count(ctx, "count(last_over_time({cluster=%q}[1h]))", c.plan.clusters, at); err == nil && found == int64(c.plan.d.Len()) {
				c.point.QuerySeconds = time.Since(began).Seconds()
				return
			}
			pause(ctx, 20*time.Millisecond)
		}
	})
	group.Wait()
	if wrote != nil {
		return wrote
	}
	c.point.Acknowledged = c.acknowledged
	// The probing round went in since; its samples lie behind the counted range.
	window := (at - c.plan.d.Config().StartMillis) / 1000
	// By name, since count_over_time drops it and would find duplicates.
	c.point.Found, err = c.count(ctx, "sum(count_over_time({__name__=%q}["+strconv.FormatInt(window+stepMillis/1000, 10)+"s]))", c.plan.names, at)
	return err
}

// endMillis is after the last sample of the first load and before the probe.
func (c *crash) endMillis() int64 {
	return c.plan.d.Config().StartMillis + int64(1+usualRounds+c.plan.loadRounds)*stepMillis - 1
}

// firstWrite tries to write until it succeeds.
func (c *crash) firstWrite(ctx context.Context, began time.Time) (float64, error) {
	target := load.Target{Address: c.server.Address, Path: "/api/v1/write", Protocol: 1}
	frame := [][]wire.Frame{c.plan.probe1[0][:1]}
	var err error
	for time.Since(began) < returnLimit && ctx.Err() == nil {
		if _, err = load.Run(ctx, target, frame, load.Options{Timeout: returnLimit}); err == nil {
			return time.Since(began).Seconds(), nil
		}
		pause(ctx, 10*time.Millisecond)
	}
	return 0, fmt.Errorf("%s takes no writes after kill -9: %w; it said: %s", c.spec.Name, err, c.server.Output())
}

// count asks a query for every value of a label, at a time, and adds up the
// answers.
func (c *crash) count(ctx context.Context, query string, values []string, atMillis int64) (int64, error) {
	total := 0.0
	for _, value := range values {
		parameters := url.Values{"query": {fmt.Sprintf(query, value)}, "time": {fmt.Sprintf("%.3f", float64(atMillis)/1000)}}
		body, _, err := ask(ctx, c.server, "query", parameters, time.Minute)
		if err != nil {
			return 0, err
		}
		answer, err := parseAnswer(body)
		if err != nil {
			return 0, err
		}
		total += answer.sum()
	}
	return int64(total), nil
}

// pause waits.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
