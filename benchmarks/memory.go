package main

import (
	"context"

	"varve/benchmarks/load"
	"varve/benchmarks/peer"
	"varve/benchmarks/result"
	"varve/benchmarks/wire"
)

const (
	memoryConnections = 4
	memoryBatch       = 2000
)

// memory measures the resident memory for every number of series.
func memory(ctx context.Context, b *bench) error {
	for _, series := range b.settings.seriesList {
		d, err := b.dataset(series, hostsPerCluster, b.settings.rounds)
		if err != nil {
			return err
		}
		b.describe(d)
		b.show("encoding %d rounds of %d series", b.settings.rounds, series)
		frames := d.NewEncoder(1, memoryBatch).Rounds(memoryConnections, 0, series, 0, b.settings.rounds)
		for i, spec := range b.specs {
			point, err := b.memoryOnce(ctx, spec, series, frames)
			if err != nil {
				return err
			}
			b.entries[i].Memory = append(b.entries[i].Memory, point)
		}
	}
	return nil
}

// memoryOnce fills an empty server and lets it settle.
func (b *bench) memoryOnce(ctx context.Context, spec peer.Spec, series int, frames [][]wire.Frame) (point result.Memory, err error) {
	server, err := b.start(ctx, spec, "memory-"+spec.Name)
	if err != nil {
		return point, err
	}
	defer func() {
		if discarded := b.discard(server); err == nil {
			err = discarded
		}
	}()
	idle, err := server.Cost()
	if err != nil {
		return point, err
	}
	if _, err := b.push(ctx, server, 1, frames, load.Options{}); err != nil {
		return point, err
	}
	server.Settle(ctx, settleLimit)
	cost, counters := b.reading(ctx, server)
	point = result.Memory{
		Series: series, Rounds: b.settings.rounds, RSSBytes: cost.RSSBytes, PeakBytes: cost.PeakBytes, IdleBytes: idle.RSSBytes,
	}
	point.CacheBytes, point.CacheBytesMax = caches(counters)
	b.say("memory %7d series, %-16s RSS %s, peak %s, of it caches %s", series, spec.Name+":", gigabytes(point.RSSBytes), gigabytes(point.PeakBytes), gigabytes(point.CacheBytes))
	return point, nil
}

// caches is what varve's caches and write buffers hold, and what the caches may
// grow to: all that its configuration sets the size of.
func caches(counters map[string]float64) (held, limit int64) {
	held = int64(counters[`varve_rocksdb_block_cache_bytes{kind="used"}`] + counters["varve_rocksdb_memtable_bytes"] + counters["varve_archive_cache_bytes"])
	limit = int64(counters[`varve_rocksdb_block_cache_bytes{kind="capacity"}`] + counters["varve_archive_cache_limit_bytes"])
	return held, limit
}
