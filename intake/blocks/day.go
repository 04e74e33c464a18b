package blocks

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"varve/intake"
)

// A handle is the place of a block in the day's list, above the number of a series in its index: the index file's offset,
// in units of 16 bytes since version 2.
const (
	handleBits   = 48
	dayBlocksMax = 1<<(64-handleBits) - 1
)

// OpenDay implements intake.Source.
func (s *Source) OpenDay(ctx context.Context, start int64) (_ intake.SourceDay, err error) {
	for _, b := range s.blocks {
		if b.maxMillis() < start {
			if err := s.drop(b); err != nil {
				return nil, err
			}
		}
	}
	d := &day{s: s, from: max(start, s.o.Start), to: min(start+intake.DayMillis-1, s.o.End-1), builder: labels.NewScratchBuilder(16)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	for _, b := range s.overlapping(start) {
		if b.isBroken() {
			continue
		}
		if err := s.use(ctx, b); err != nil {
			if b.isBroken() { // and to be skipped
				continue
			}
			return nil, err
		}
		r := &reader{block: b}
		d.readers = append(d.readers, r)
		if err := r.open(); err != nil {
			return nil, d.fail(r, err)
		}
	}
	if len(d.readers) > dayBlocksMax {
		return nil, fmt.Errorf("%d blocks overlap a day", len(d.readers))
	}
	return d, nil
}

func (b *block) isBroken() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken != nil
}

// reader reads one block for one day.
type reader struct {
	block  *block
	index  tsdb.IndexReader
	chunks tsdb.ChunkReader
	stones tombstones.Reader
}

func (r *reader) open() (err error) {
	if r.index, err = r.block.open.Index(); err != nil {
		return err
	}
	if r.chunks, err = r.block.open.Chunks(); err != nil {
		return err
	}
	r.stones, err = r.block.open.Tombstones()
	return err
}

func (r *reader) close() (err error) {
	if r.index != nil {
		err = r.index.Close()
	}
	if r.chunks != nil {
		err = errors.Join(err, r.chunks.Close())
	}
	if r.stones != nil {
		err = errors.Join(err, r.stones.Close())
	}
	r.block.release()
	return err
}

// day is a day of the blocks: its time, both ends inclusive.
type day struct {
	s        *Source
	from, to int64
	readers  []*reader
	builder  labels.ScratchBuilder
	metas    []chunks.Meta
	lent     []chunkenc.Chunk // to the caller of Chunks
}

// fail is the error of a block that can't be read.
func (d *day) fail(r *reader, err error) error {
	r.block.mu.Lock()
	defer r.block.mu.Unlock()
	err = d.s.breakDown(r.block, err)
	if r.block.broken != nil {
		return fmt.Errorf("%w without a block: %w", intake.ErrReadAgain, err)
	}
	return err
}

// Series implements intake.SourceDay: block by block, in the order of the index.
func (d *day) Series(ctx context.Context, f func(labels.Labels, uint64) error) error {
	for i, r := range d.readers {
		handle := uint64(i) << handleBits
		err := d.seriesOf(ctx, r, func(ls labels.Labels, ref storage.SeriesRef) error { return f(ls, handle|uint64(ref)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// seriesOf calls f for the series of a block that have chunks of the day. Its errors are f's, or those of the block.
func (d *day) seriesOf(ctx context.Context, r *reader, f func(labels.Labels, storage.SeriesRef) error) error {
	postings, err := d.postings(ctx, r)
	if err != nil {
		return d.failUnless(ctx, r, err)
	}
	external := r.block.external
	builder := labels.NewBuilder(labels.EmptyLabels())
	var metas []chunks.Meta
	for postings.Next() {
		ref := postings.At()
		// The symbols are those of the file, and are copied by Labels.
		if err := guarded(func() error { return r.index.Series(ref, &d.builder, &metas) }); err != nil {
			return d.fail(r, fmt.Errorf("series %d: %w", ref, err))
		}
		if !d.overlaps(metas) {
			continue
		}
		if uint64(ref)>>handleBits != 0 {
			return d.fail(r, fmt.Errorf("series %d lies too far behind in the index", ref))
		}
		ls := d.builder.Labels()
		if !external.IsEmpty() {
			builder.Reset(ls)
			external.Range(func(l labels.Label) { builder.Set(l.Name, l.Value) })
			ls = builder.Labels()
		}
		if err := f(ls, ref); err != nil {
			return err
		}
	}
	if err := postings.Err(); err != nil {
		return d.failUnless(ctx, r, err)
	}
	return nil
}

// failUnless is fail, but not where the caller gave up.
func (d *day) failUnless(ctx context.Context, r *reader, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return d.fail(r, err)
}

func (d *day) overlaps(metas []chunks.Meta) bool {
	for i := range metas {
		if metas[i].MinTime <= d.to && metas[i].MaxTime >= d.from {
			return true
		}
	}
	return false
}

// postings are the series of a block that are selected.
func (d *day) postings(ctx context.Context, r *reader) (p index.Postings, err error) {
	err = guarded(func() error {
		if len(d.s.o.Match) == 0 {
			p, err = r.index.Postings(ctx, "", "")
			return err
		}
		var each []index.Postings
		for _, set := range d.s.o.Match {
			rest, ok := besidesExternal(set, r.block.external)
			if !ok {
				continue
			}
			if len(rest) == 0 {
				p, err = r.index.Postings(ctx, "", "")
				return err
			}
			p, err := tsdb.PostingsForMatchers(ctx, r.index, rest...)
			if err != nil {
				return err
			}
			each = append(each, p)
		}
		p = index.Merge(ctx, each...)
		return nil
	})
	return p, err
}

// besidesExternal are the matchers that the labels in the block must fit, where the external ones do.
func besidesExternal(set []*labels.Matcher, external labels.Labels) (rest []*labels.Matcher, ok bool) {
	for _, m := range set {
		if !external.Has(m.Name) {
			rest = append(rest, m)
		} else if !m.Matches(external.Get(m.Name)) {
			return nil, false
		}
	}
	return rest, true
}

// Chunks implements intake.SourceDay.
func (d *day) Chunks(_ context.Context, handle uint64, dst []intake.Chunk) ([]intake.Chunk, error) {
	for _, c := range d.lent {
		if err := d.s.pool.Put(c); err != nil {
			return dst, err
		}
	}
	d.lent = d.lent[:0]
	i, ref := handle>>handleBits, storage.SeriesRef(handle&(1<<handleBits-1))
	if i >= uint64(len(d.readers)) {
		return dst, fmt.Errorf("there is no handle %d", handle)
	}
	r := d.readers[i]
	err := guarded(func() (err error) { dst, err = d.chunksOf(r, ref, dst); return err })
	if err != nil {
		return dst, d.fail(r, fmt.Errorf("series %d: %w", ref, err))
	}
	return dst, nil
}

func (d *day) chunksOf(r *reader, ref storage.SeriesRef, dst []intake.Chunk) ([]intake.Chunk, error) {
	if err := r.index.Series(ref, &d.builder, &d.metas); err != nil {
		return dst, err
	}
	deleted, err := r.stones.Get(ref)
	if err != nil {
		return dst, err
	}
	for _, m := range d.metas {
		if m.MinTime > d.to || m.MaxTime < d.from {
			continue
		}
		c, _, err := r.chunks.ChunkOrIterable(m)
		if err != nil {
			return dst, fmt.Errorf("chunk from %d to %d ms: %w", m.MinTime, m.MaxTime, err)
		}
		if c == nil {
			return dst, fmt.Errorf("chunk from %d to %d ms is not there", m.MinTime, m.MaxTime)
		}
		d.lent = append(d.lent, c)
		dst = append(dst, intake.Chunk{Chunk: c, MinMillis: m.MinTime, MaxMillis: m.MaxTime, Deleted: deleted})
	}
	return dst, nil
}

// Close implements intake.SourceDay.
func (d *day) Close() (err error) {
	for _, r := range d.readers {
		err = errors.Join(err, r.close())
	}
	d.readers = nil
	return err
}

// guarded turns a panic of upstream's readers, which trust their files, into an error.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("reading it panics: %v", r)
		}
	}()
	return f()
}
