package archive

import (
	"context"
	"sync/atomic"
	"time"

	"varve/rollup"
)

// ReadStatistics is what the Selects under a context have read.
type ReadStatistics struct {
	// Series matched the selectors, each counted once a Select.
	Series int64
	// Chunks are pieces of coded samples, of open runs, runs and bundles; for rollups, whole bundles. Bytes are those of what was
	// read for them: a bundle is read whole.
	Chunks, Bytes int64
	// Samples were decoded, or buckets; more than once if they were asked for more than once.
	Samples int64
	// Find is the time that it took to find the series, Load that to read what is coded, Decode that to decode it. Several
	// goroutines may do it at once, so their sum may be more than has passed.
	Find, Load, Decode time.Duration
}

type readStatsKey struct{}

// readStats are counted by several goroutines. A nil one counts nothing, and asks no clock.
type readStats struct {
	series, chunks, bytes, samples atomic.Int64
	find, load, decode             atomic.Int64 // ns
}

// WithReadStatistics returns a context in which Selects are counted, and a function that tells what they came to so far.
func WithReadStatistics(ctx context.Context) (context.Context, func() ReadStatistics) {
	r := &readStats{}
	return context.WithValue(ctx, readStatsKey{}, r), func() ReadStatistics {
		return ReadStatistics{
			Series: r.series.Load(), Chunks: r.chunks.Load(), Bytes: r.bytes.Load(), Samples: r.samples.Load(),
			Find: time.Duration(r.find.Load()), Load: time.Duration(r.load.Load()), Decode: time.Duration(r.decode.Load()),
		}
	}
}

// readStatsOf returns what counts under the context, nil if nothing does.
func readStatsOf(ctx context.Context) *readStats {
	r, _ := ctx.Value(readStatsKey{}).(*readStats)
	return r
}

// now is when something begins.
func (r *readStats) now() (t time.Time) {
	if r != nil {
		t = time.Now()
	}
	return t
}

// found counts a selection that was looked for since began.
func (r *readStats) found(began time.Time, sel *selection) {
	if r == nil || sel == nil {
		return
	}
	r.find.Add(int64(time.Since(began)))
	r.series.Add(int64(len(sel.refs)))
}

// loaded counts what was read since began: so many bytes from disk, and what open runs had.
func (r *readStats) loaded(began time.Time, bytes int, data []samples) {
	if r == nil {
		return
	}
	r.load.Add(int64(time.Since(began)))
	chunks := 0
	for i := range data {
		s := &data[i]
		chunks += len(s.disk) + len(s.memory)
		for j := range s.memory {
			bytes += len(s.memory[j].Data)
		}
	}
	r.chunks.Add(int64(chunks))
	r.bytes.Add(int64(bytes))
}

// loadedRollups counts bundles of rollups that were read since began. taken is what they and their directories count against the
// limit of the query.
func (r *readStats) loadedRollups(began time.Time, taken int, days []rolledDay) {
	if r == nil {
		return
	}
	r.load.Add(int64(time.Since(began)))
	for i := range days {
		r.chunks.Add(int64(len(days[i].bundles)))
		for _, b := range days[i].bundles {
			taken -= b.bundle.Bytes()
		}
	}
	r.bytes.Add(int64(taken))
}

// decoded counts samples that were decoded since began.
func (r *readStats) decoded(began time.Time, samples int) {
	if r == nil {
		return
	}
	r.decode.Add(int64(time.Since(began)))
	r.samples.Add(int64(samples))
}

// decodedRollups is decoded for buckets.
func (r *readStats) decodedRollups(began time.Time, c *rollup.Columns) { r.decoded(began, c.Len()) }
