package main

import (
	"context"
	"fmt"
	"time"

	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/benchmarks/wire"
)

// syncWrites is how many writes are synced to learn what the disk does just then.
const syncWrites = 200

// ingest measures every point on every server, in turns.
func ingest(ctx context.Context, b *bench) error {
	s := b.settings
	rounds := 1 + int((s.samples+int64(s.series)-1)/int64(s.series))
	d, err := b.dataset(s.series, hostsPerCluster, rounds)
	if err != nil {
		return err
	}
	b.describe(d)
	for _, protocol := range s.protocols {
		for _, batch := range s.batches {
			for _, connections := range s.connections {
				b.show("encoding %d rounds of %d series", rounds, s.series)
				encoder := d.NewEncoder(protocol, batch)
				first := encoder.Rounds(connections, 0, d.Len(), 0, 1)
				rest := encoder.Rounds(connections, 0, d.Len(), 1, rounds-1)
				for repetition := range s.repetitions {
					for i, spec := range b.specs {
						if protocol != 1 && spec.Kind != peer.Varve {
							continue
						}
						point := result.Ingest{Protocol: protocol, Connections: connections, Batch: batch, Repetition: repetition + 1}
						if err := b.ingestOnce(ctx, spec, &point, first, rest); err != nil {
							return err
						}
						b.entries[i].Ingest = append(b.entries[i].Ingest, point)
					}
				}
			}
		}
	}
	return nil
}

// ingestOnce measures one server, from an empty directory, at one point.
func (b *bench) ingestOnce(ctx context.Context, spec peer.Spec, point *result.Ingest, first, rest [][]wire.Frame) (err error) {
	syncs, err := peer.SyncTimes(b.root, syncWrites)
	if err != nil {
		return err
	}
	point.SyncP50Millis, point.SyncP99Millis = millis(load.Percentile(syncs, 0.5)), millis(load.Percentile(syncs, 0.99))
	server, err := b.start(ctx, spec, "ingest-"+spec.Name)
	if err != nil {
		return err
	}
	defer func() {
		if discarded := b.discard(server); err == nil {
			err = discarded
		}
	}()
	if err := b.ingestFirst(ctx, server, point, first); err != nil {
		return err
	}
	before, countersBefore := b.reading(ctx, server)
	own := ownCPU()
	report, err := b.push(ctx, server, point.Protocol, rest, load.Options{For: b.settings.seconds})
	own = ownCPU() - own
	if err != nil {
		return err
	}
	after, countersAfter := b.reading(ctx, server)
	server.Settle(ctx, settleLimit)
	settled, _ := b.reading(ctx, server)
	millions := float64(report.Acknowledged) / 1e6
	point.Samples, point.Seconds = report.Acknowledged, report.Elapsed.Seconds()
	point.SamplesPerSecond = float64(report.Acknowledged) / report.Elapsed.Seconds()
	point.P50Millis, point.P99Millis = millis(load.Percentile(report.Latencies, 0.5)), millis(load.Percentile(report.Latencies, 0.99))
	point.MaxMillis = millis(load.Percentile(report.Latencies, 1))
	point.CPU, point.CPUSettled = (after.CPUSeconds-before.CPUSeconds)/millions, (settled.CPUSeconds-before.CPUSeconds)/millions
	point.GeneratorCPU = own / millions
	point.RSSBytes, point.PeakBytes = after.RSSBytes, after.PeakBytes
	point.BodyBytes = float64(report.BodyBytes) / float64(report.Acknowledged)
	point.DiskBytes = float64(settled.WrittenBytes-before.WrittenBytes) / float64(report.Acknowledged)
	point.SamplesPerCommit = perCommit(countersBefore, countersAfter)
	if spec.Kind != peer.VictoriaMetrics {
		// VictoriaMetrics publishes the count from time to time only.
		point.Allocations = (countersAfter["go_memstats_mallocs_total"] - countersBefore["go_memstats_mallocs_total"]) / float64(report.Acknowledged)
	}
	b.say("ingest %d.0, %4d x %2d, %-16s %5.2f M/s  CPU %.3f s/M (settled %.3f)  p50 %.2f p99 %.2f max %.0f ms  generator %.3f s/M", point.Protocol, point.Batch,
		point.Connections, spec.Name+":", point.SamplesPerSecond/1e6, point.CPU, point.CPUSettled, point.P50Millis, point.P99Millis, point.MaxMillis, point.GeneratorCPU)
	return nil
}

// ingestFirst sends the first round, in which every series is new, and lets the
// server finish what it does about that.
func (b *bench) ingestFirst(ctx context.Context, server *peer.Server, point *result.Ingest, first [][]wire.Frame) error {
	before, _ := server.Cost()
	report, err := b.push(ctx, server, point.Protocol, first, load.Options{})
	if err != nil {
		return err
	}
	after, _ := server.Cost()
	point.NewSeriesPerSecond = float64(report.Acknowledged) / report.Elapsed.Seconds()
	point.NewSeriesCPU = (after.CPUSeconds - before.CPUSeconds) / float64(report.Acknowledged) * 1e6
	server.Settle(ctx, settleLimit)
	return nil
}

// reading is what a server has used so far and what it says of itself. A server
// that says nothing gives empty counters, whose figures are left out.
func (b *bench) reading(ctx context.Context, server *peer.Server) (peer.Cost, map[string]float64) {
	counters, err := server.Metrics(ctx)
	if err != nil {
		b.say("%v", err)
		counters = map[string]float64{}
	}
	cost, err := server.Cost()
	if err != nil {
		b.say("%v", err)
	}
	return cost, counters
}

// perCommit is how many samples a sync stands for, by varve's own counters.
func perCommit(before, after map[string]float64) float64 {
	const commits, samples = "varve_archive_commits_total", "varve_archive_samples_total"
	if after[commits] <= before[commits] {
		return 0
	}
	return (after[samples] - before[samples]) / (after[commits] - before[commits])
}

// millis is a duration in milliseconds.
func millis(d time.Duration) float64 { return d.Seconds() * 1000 }

// gigabytes prints a number of bytes.
func gigabytes(n int64) string { return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30)) }
