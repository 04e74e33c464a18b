package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"varve/benchmarks/export"
	"varve/benchmarks/fleet"
	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
)

const (
	replayConnections = 4
	replayBatch       = 2000
)

// fleetBoard are the queries over the recorded exporters: the long ones over the
// whole span, the short ones over its last hour.
var fleetBoard = []panel{
	{"processors by mode", `sum by (mode) (rate(node_cpu_seconds_total[5m]))`, true, 60},
	{"memory in use", `1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes`, true, 300},
	{"latency of queries", `histogram_quantile(0.99, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[5m])))`, true, 300},
	{"mean of a gauge", `avg_over_time(process_resident_memory_bytes[1h])`, true, 3600},
	{"growth by job", `sum by (job) (increase(process_cpu_seconds_total[1h]))`, true, 3600},
	{"plain selector", `go_goroutines`, false, 15},
	{"network", `max by (instance) (rate(node_network_receive_bytes_total[5m]))`, false, 30},
	{"everything", `count by (job) ({job=~".+"})`, false, 600},
}

// countQuery counts targets: each of the recorded exporters is a Go program.
const countQuery = `count(go_goroutines)`

// fleetRun is the passage of all servers through one fleet.
type fleetRun struct {
	*bench
	exporters *exporters
	fleet     *fleet.Fleet
	replay    result.Replay
	servers   []*peer.Server
}

// replay sends a fleet of recorded exporters to every server, lets each settle, and
// then measures what it keeps and how it answers.
func replay(ctx context.Context, b *bench) (err error) {
	r := &fleetRun{bench: b, servers: make([]*peer.Server, len(b.specs))}
	if r.exporters, err = b.openExporters(ctx); err != nil {
		return err
	}
	if err := r.makeFleet(); err != nil {
		return err
	}
	defer func() {
		for _, server := range r.servers {
			if server != nil {
				server.Kill()
			}
		}
	}()
	for i := range b.specs {
		if err := r.fill(ctx, i); err != nil {
			return err
		}
	}
	start := r.fleet.Config().StartMillis / 1000
	end := start + int64(r.replay.SpanSeconds)
	questions := &board{panels: fleetBoard, verb: "fleet", span: func(p panel) (int64, int64) {
		if p.long {
			return min(start+p.stepSeconds, end), end
		}
		return max(start, end-3600), end
	}}
	for i := range b.entries {
		b.entries[i].Query = &result.Query{Samples: r.replay.Samples, Reference: b.specs[b.reference()].Name, Queries: questions.points()}
	}
	if err := b.askBoard(ctx, questions, r.servers); err != nil {
		return err
	}
	if err := r.askLabels(ctx, start, end); err != nil {
		return err
	}
	for i := range b.specs {
		if err := r.compare(ctx, i); err != nil {
			return err
		}
		if err := r.crash(ctx, i, end); err != nil {
			return err
		}
	}
	return nil
}

// makeFleet makes the fleet of the settings.
func (r *fleetRun) makeFleet() error {
	s := r.settings
	counts, err := parseTargets(s.targets)
	if err != nil {
		return err
	}
	rounds := r.roundsOf(r.exporters)
	for i := range r.specs {
		r.specs[i] = withoutSelfScrape(r.specs[i])
	}
	if r.fleet, err = fleet.New(fleet.Config{
		Seed: s.seed, Groups: r.exporters.groups(counts, 0), StartMillis: startOfData(time.Now(), rounds).UnixMilli(), StepMillis: stepMillis,
		Rounds: rounds, Naming: fleet.Short,
	}); err != nil {
		return err
	}
	r.describeFleet(r.fleet)
	r.replay = r.exporters.replayOf(r.fleet)
	r.say("fleet: %d targets, %d series, %.1f M samples over %.1f h, %.0f %% of the steps repeated", r.replay.Targets, r.replay.Series,
		float64(r.replay.Samples)/1e6, r.replay.SpanSeconds/3600, 100*r.replay.Repeated)
	return nil
}

// roundsOf is the length of a fleet: without leave to repeat, no longer than the
// recordings are.
func (b *bench) roundsOf(e *exporters) int {
	rounds := b.settings.hours * roundsPerHour
	if b.settings.repeat || rounds <= e.positions {
		return rounds
	}
	b.say("the recordings give %.1f h without a repetition: the fleet is shortened to that", float64(e.positions)/roundsPerHour)
	return e.positions
}

// fill loads one server and lets it settle.
func (r *fleetRun) fill(ctx context.Context, i int) (err error) {
	spec := r.specs[i]
	if r.servers[i], err = r.start(ctx, spec, "fleet-"+spec.Name); err != nil {
		return err
	}
	server := r.servers[i]
	before, _ := r.reading(ctx, server)
	report, err := r.loadFleet(ctx, server, r.fleet)
	if err != nil {
		return err
	}
	loaded, _ := r.reading(ctx, server)
	r.say("fleet %-16s %.2f M/s; settling", spec.Name+":", float64(report.Acknowledged)/1e6/report.Elapsed.Seconds())
	point := &result.Fleet{
		Replay: r.replay, Connections: replayConnections, Batch: replayBatch, SamplesPerSecond: float64(report.Acknowledged) / report.Elapsed.Seconds(),
		P50Millis: millis(load.Percentile(report.Latencies, 0.5)), P99Millis: millis(load.Percentile(report.Latencies, 0.99)),
	}
	r.entries[i].Fleet = point
	began := time.Now()
	if point.Remark, err = server.Tidy(ctx, r.tidying()); err != nil {
		return err
	}
	point.SettleSeconds = time.Since(began).Seconds()
	settled, _ := r.reading(ctx, server)
	millions := float64(report.Acknowledged) / 1e6
	point.CPU, point.CPUSettled = (loaded.CPUSeconds-before.CPUSeconds)/millions, (settled.CPUSeconds-before.CPUSeconds)/millions
	point.PeakBytes, point.RSSBytes = settled.PeakBytes, settled.RSSBytes
	if err := r.measureDisk(ctx, i, point); err != nil {
		return err
	}
	r.say("fleet %-16s %.3f B/sample without fixed files, %.3f with; CPU %.3f s/M, settled %.3f; RSS %s, peak %s %s", spec.Name+":",
		float64(point.Disk.Bytes-point.Disk.FixedBytes)/float64(r.replay.Samples), float64(point.Disk.Bytes)/float64(r.replay.Samples),
		point.CPU, point.CPUSettled, gigabytes(point.RSSBytes), gigabytes(point.PeakBytes), point.Remark)
	return nil
}

// tidying is what a server is to settle after.
func (r *fleetRun) tidying() peer.Tidying {
	return peer.Tidying{EndMillis: r.endMillis(), Labels: r.fleet.Wire(0, 0), Limit: r.settings.settle, Quiet: r.settings.quiet}
}

// endMillis is after the last sample.
func (r *fleetRun) endMillis() int64 {
	return r.fleet.Config().StartMillis + int64(r.fleet.Config().Rounds)*stepMillis
}

// loadFleet sends a fleet, slice by slice: what is encoded meanwhile is not part of
// the time.
func (b *bench) loadFleet(ctx context.Context, server *peer.Server, f *fleet.Fleet) (load.Report, error) {
	return b.loadRounds(ctx, server, f, 0, f.Config().Rounds)
}

// loadRounds is loadFleet, of the rounds from first to below end.
func (b *bench) loadRounds(ctx context.Context, server *peer.Server, f *fleet.Fleet, first, end int) (load.Report, error) {
	middle := (first + end) / 2
	perRound := 1 + int(f.Count(middle, middle+1).Samples)
	slice := max(1, sliceSamples/perRound)
	var total load.Report
	for from := first; from < end; from += slice {
		to := min(from+slice, end)
		b.show("%s: encoding; %.0f %% sent", server.Spec.Name, 100*float64(from-first)/float64(end-first))
		report, err := b.push(ctx, server, 1, f.Frames(replayConnections, replayBatch, from, to), load.Options{})
		total.Acknowledged += report.Acknowledged
		total.Elapsed += report.Elapsed
		total.Latencies = append(total.Latencies, report.Latencies...)
		if err != nil {
			return total, err
		}
	}
	slices.Sort(total.Latencies)
	return total, nil
}

// measureDisk reads the size of the directory and starts a server again that had to
// stop for this.
func (r *fleetRun) measureDisk(ctx context.Context, i int, point *result.Fleet) (err error) {
	if r.specs[i].Address != "" {
		return nil
	}
	point.Disk, err = r.diskOf(ctx, r.servers[i])
	if err != nil || r.specs[i].Kind != peer.Varve {
		return err
	}
	r.servers[i], err = r.start(ctx, r.specs[i], "fleet-"+r.specs[i].Name)
	return err
}

// diskOf is the size of a server's directory. A Varve is stopped afterwards, for the
// sizes of its families.
func (b *bench) diskOf(ctx context.Context, server *peer.Server) (result.Disk, error) {
	size, err := server.Disk()
	if err != nil {
		return result.Disk{}, err
	}
	disk := result.Disk{Bytes: size.Bytes, FixedBytes: size.FixedBytes, IndexBytes: size.IndexBytes}
	if server.Spec.Kind != peer.Varve {
		return disk, nil
	}
	if err := server.Stop(stopLimit); err != nil {
		return disk, err
	}
	families, err := server.Families(ctx)
	if err != nil {
		return disk, err
	}
	disk.Families, disk.IndexBytes, disk.Logged = families.Bytes, families.IndexBytes, families.Logged
	// The journal is a log too, of passing size, though not a file of its own.
	disk.FixedBytes += disk.Families["journal"]
	if disk.Logged {
		disk.FixedBytes -= size.LogBytes
	}
	return disk, nil
}

// compare reads all samples back.
func (r *fleetRun) compare(ctx context.Context, i int) error {
	server := r.servers[i]
	verdict, err := export.Compare(ctx, httpClient, server, r.fleet, func(done int) {
		r.show("%s: compared %d of %d targets", server.Spec.Name, done, r.fleet.Targets())
	})
	if err != nil {
		return err
	}
	r.say("fleet %-16s %d of %d samples exact, %d changed (%d of them NaN), %d missing (%d of them NaN), %d extra %s", server.Spec.Name+":", verdict.Exact, verdict.Sent,
		verdict.Changed, verdict.ChangedNaN, verdict.Missing, verdict.MissingNaN, verdict.Extra, verdict.Difference)
	r.entries[i].Fleet.Exact = (*result.Exact)(&verdict)
	return nil
}

// crash kills a server and waits until it answers for all targets again.
func (r *fleetRun) crash(ctx context.Context, i int, endSeconds int64) (err error) {
	spec, point := r.specs[i], r.entries[i].Fleet
	if spec.Address != "" {
		return nil
	}
	want, err := r.countTargets(ctx, r.servers[i], endSeconds)
	if err != nil {
		return err
	}
	if want != float64(r.fleet.Targets()) {
		return fmt.Errorf("fleet: %s answers for %v of %d targets before it was killed", spec.Name, want, r.fleet.Targets())
	}
	r.servers[i].Kill()
	began := time.Now()
	if r.servers[i], err = peer.Start(spec, filepath.Join(r.root, "fleet-"+spec.Name)); err != nil {
		return err
	}
	if err := r.servers[i].WaitReady(ctx, returnLimit); err != nil {
		return err
	}
	point.ReadySeconds, point.AnsweredSeconds = time.Since(began).Seconds(), -1
	for time.Since(began) < returnLimit && ctx.Err() == nil {
		if got, err := r.countTargets(ctx, r.servers[i], endSeconds); err == nil && got == want {
			point.AnsweredSeconds = time.Since(began).Seconds()
			break
		}
		pause(ctx, 20*time.Millisecond)
	}
	r.say("fleet %-16s after kill -9 ready in %.2f s, answered for %.0f targets in %.2f s", spec.Name+":", point.ReadySeconds, want, point.AnsweredSeconds)
	return ctx.Err()
}

// countTargets asks how many targets there are at the end of the data.
func (r *fleetRun) countTargets(ctx context.Context, server *peer.Server, endSeconds int64) (float64, error) {
	body, _, err := ask(ctx, server, "query", url.Values{"query": {countQuery}, "time": {strconv.FormatInt(endSeconds, 10)}}, queryLimit)
	if err != nil {
		return 0, err
	}
	counted, err := parseAnswer(body)
	return counted.sum(), err
}
