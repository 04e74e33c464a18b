package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"golang.org/x/sync/errgroup"

	"varve/digest"
)

// Bounds of what is between the reader and those that decode. A series is never parted, so that one with more than that
// on a day is a batch of its own.
const (
	feedBatches     = 4
	feedBatchBytes  = 256 << 10
	feedBatchSeries = 512
)

// feeder brings the samples of a prepared day to the target in three goroutines: one reads chunks in batches, one adds
// them, one decodes them for the digests, both at the same batch or one ahead of the other. It keeps its memory from day to day.
type feeder struct {
	batches [feedBatches]*feedBatch
	merger  merger
}

// feedBatch is some series with copies of their chunks.
type feedBatch struct {
	series []feedSeries
	chunks []Chunk
	bytes  []byte
	// spare are chunks by encoding, used how many of them the batch has taken.
	spare [encodings][]chunkenc.Chunk
	used  [encodings]int
	read  []Chunk // what the source returned
	// exact cuts chunks at the day's bounds.
	exact bool
	// users are those that have not done with it.
	users atomic.Int32
}

// feedSeries is a series whose chunks are [first, end) of the batch.
type feedSeries struct {
	ref        uint64
	first, end int
}

func (b *feedBatch) reset() {
	b.series, b.chunks, b.bytes, b.used = b.series[:0], b.chunks[:0], b.bytes[:0], [encodings]int{}
}

func (b *feedBatch) full() bool {
	return len(b.bytes) >= feedBatchBytes || len(b.series) >= feedBatchSeries
}

// add reads the chunks of a series. It adds none that has no chunk in [p.from, p.to).
func (b *feedBatch) add(ctx context.Context, p *prepared, group []entry) error {
	s := feedSeries{ref: group[0].ref, first: len(b.chunks)}
	for _, e := range group {
		var err error
		if b.read, err = p.source.Chunks(ctx, e.handle, b.read[:0]); err != nil {
			return err
		}
		for i := range b.read {
			if err := b.copy(p, &b.read[i]); err != nil {
				return fmt.Errorf("series %d: %w", s.ref, err)
			}
		}
	}
	if s.end = len(b.chunks); s.end > s.first {
		b.series = append(b.series, s)
	}
	return nil
}

// copy takes a chunk with what of it doesn't count.
func (b *feedBatch) copy(p *prepared, c *Chunk) error {
	if c.MaxMillis < p.from || c.MinMillis >= p.to {
		return nil
	}
	e, data := c.Chunk.Encoding(), c.Chunk.Bytes()
	if err := checkLayout(e, data); err != nil {
		return fmt.Errorf("chunk from %d to %d ms: %w", c.MinMillis, c.MaxMillis, err)
	}
	at := len(b.bytes)
	b.bytes = append(b.bytes, data...)
	if b.used[e] == len(b.spare[e]) {
		fresh, err := chunkenc.NewEmptyChunk(e)
		if err != nil {
			return err
		}
		b.spare[e] = append(b.spare[e], fresh)
	}
	own := b.spare[e][b.used[e]]
	b.used[e]++
	own.Reset(b.bytes[at:len(b.bytes):len(b.bytes)])
	b.chunks = append(b.chunks, Chunk{Chunk: own, MinMillis: c.MinMillis, MaxMillis: c.MaxMillis, Deleted: b.trimmed(p, c)})
	return nil
}

// trimmed are the deleted stretches of a chunk, with what isn't asked for. A leased day leaves out by itself what lies on another one; the write
// port takes it, so that it is cut there.
func (b *feedBatch) trimmed(p *prepared, c *Chunk) tombstones.Intervals {
	deleted := c.Deleted
	if c.MinMillis < p.from && (b.exact || p.from > p.start) {
		deleted = slices.Clone(deleted).Add(tombstones.Interval{Mint: c.MinMillis, Maxt: p.from - 1})
	}
	if c.MaxMillis >= p.to && (b.exact || p.to < p.start+DayMillis) {
		deleted = slices.Clone(deleted).Add(tombstones.Interval{Mint: p.to, Maxt: c.MaxMillis})
	}
	return deleted
}

// run adds all series of the day and returns what the source has of each that has samples.
func (f *feeder) run(ctx context.Context, p *prepared, day Day, m *meter) (sums []sum, err error) {
	free := make(chan *feedBatch, feedBatches)
	for i := range f.batches {
		if f.batches[i] == nil {
			f.batches[i] = &feedBatch{}
		}
		free <- f.batches[i]
	}
	toAdd, toSum := make(chan *feedBatch, feedBatches), make(chan *feedBatch, feedBatches)
	done := func(b *feedBatch) {
		if b.users.Add(-1) == 0 {
			free <- b // has room for all
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(toAdd)
		defer close(toSum)
		return f.read(ctx, p, free, func(b *feedBatch) {
			b.users.Store(2)
			toAdd <- b // both have room for all
			toSum <- b
		})
	})
	g.Go(func() error {
		for b := range toAdd {
			for _, s := range b.series {
				if err := errors.Join(ctx.Err(), day.Add(s.ref, b.chunks[s.first:s.end])); err != nil {
					return fmt.Errorf("add series %d: %w", s.ref, err)
				}
			}
			done(b)
		}
		return nil
	})
	g.Go(func() (err error) {
		for b := range toSum {
			if sums, err = f.sum(sums, p, b, m); err != nil {
				return err
			}
			done(b)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	err = g.Wait()
	return sums, err
}

// read makes batches until the day is read.
func (f *feeder) read(ctx context.Context, p *prepared, free <-chan *feedBatch, send func(*feedBatch)) error {
	for i := 0; i < len(p.entries); {
		var b *feedBatch
		select {
		case b = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		b.reset()
		for i < len(p.entries) && !b.full() {
			group := p.group(i)
			if err := b.add(ctx, p, group); err != nil {
				return err
			}
			i += len(group)
		}
		send(b)
	}
	return nil
}

// sum appends what a batch has. Upstream's decoders panic on some broken bytes.
func (f *feeder) sum(sums []sum, p *prepared, b *feedBatch, m *meter) (_ []sum, err error) {
	at := 0
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: decoding it panics: %v", ErrBadChunk, r)
		}
		if err != nil {
			err = fmt.Errorf("series %d: %w", b.series[at].ref, err)
		}
	}()
	samples := uint64(0)
	for at = range b.series {
		s := b.series[at]
		var d digest.Series
		f.merger.reset(b.chunks[s.first:s.end], p.from, p.to)
		if err := f.merger.digest(&d); err != nil {
			return sums, err
		}
		if d.Samples > 0 {
			sums = append(sums, sum{s.ref, d})
			samples += d.Samples
		}
	}
	m.add(samples)
	return sums, nil
}
