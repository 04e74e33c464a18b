package archive

import (
	"context"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/digest"
	"varve/rocks"
)

// Digests reads back from disk what was brought in, after Commit, series by series in the order of Add. Samples that arrived
// meanwhile are not in it. each must not use the intake; its error ends the reading and is returned.
func (i *Intake) Digests(ctx context.Context, each func(ref storage.SeriesRef, d digest.Series) error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.a.closing.Load() {
		return i.a.writable()
	}
	if i.state != intakeCommitted {
		return fmt.Errorf("read %s back: %w", Date(i.day), ErrIntakeClosed)
	}
	snap := i.a.db.NewSnapshot()
	defer snap.Release()
	keys := bundlesOf(i.day)
	it := i.a.db.NewIterator(family(format.FamilyRaw), rocks.IterOptions{
		Snapshot: snap, Lower: keys.lower, Upper: keys.upper, NoFillCache: true, ReadaheadBytes: 2 << 20,
	})
	defer it.Close()
	r := digester{clocks: i.a.clockReader(i.day, snap), column: &i.column, each: each}
	for it.SeekToFirst(); it.Valid(); it.Next() {
		if err := i.a.ended(ctx); err != nil {
			return err
		}
		if err := r.bundle(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read %s back: %w", Date(i.day), err)
	}
	return r.end()
}

// digester makes digests of bundles, which come in the order of their keys.
type digester struct {
	clocks *clockReader
	column *chunk.Column
	walk   chunk.Iterator
	pieces []chunk.Piece
	each   func(ref storage.SeriesRef, d digest.Series) error
	ref    storage.SeriesRef // 0 before the first
	sum    digest.Series
}

// bundle adds a bundle. A series with too many samples for one is in several that follow each other.
func (r *digester) bundle(key, value []byte) error {
	k, err := format.ParseRawKey(key)
	if err != nil {
		return err
	}
	var b chunk.Bundle
	if err := chunk.ParseBundle(key, value, uint64(k.Last), &b); err != nil {
		return fmt.Errorf("bundle in family raw, key %x: %w; run `varve check data`", key, err)
	}
	for i := 0; i < b.Len(); {
		ref := storage.SeriesRef(b.Ref(i))
		if ref != r.ref {
			if err := r.end(); err != nil {
				return err
			}
			r.ref = ref
		}
		for r.pieces = r.pieces[:0]; i < b.Len() && storage.SeriesRef(b.Ref(i)) == ref; i++ {
			r.pieces = append(r.pieces, r.clocks.piece(&b, i))
		}
		if err := r.column.Decode(r.pieces, math.MinInt64, math.MaxInt64); err != nil {
			return fmt.Errorf("series %d in family raw, key %x: %w; run `varve check data`", ref, key, err)
		}
		r.add()
	}
	return nil
}

// add adds the samples of the column.
func (r *digester) add() {
	c := r.column
	if c.Kinds == nil {
		for i, t := range c.Times {
			r.sum.Float(t, c.Values[i])
		}
		return
	}
	r.walk.Reset(c)
	for kind := r.walk.Next(); kind != chunkenc.ValNone; kind = r.walk.Next() {
		switch kind {
		case chunkenc.ValFloat:
			r.sum.Float(r.walk.At())
		case chunkenc.ValHistogram:
			r.sum.Histogram(r.walk.AtHistogram(nil))
		default:
			r.sum.FloatHistogram(r.walk.AtFloatHistogram(nil))
		}
	}
}

// end hands out the series that was added last.
func (r *digester) end() error {
	if r.ref == 0 {
		return nil
	}
	ref, sum := r.ref, r.sum
	r.ref, r.sum = 0, digest.Series{}
	return r.each(ref, sum)
}
