package blocks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"varve/digest"
)

// discard is the logger of upstream's readers: what goes wrong is in their errors.
var discard = slog.New(slog.DiscardHandler)

// verify reads the block as Prometheus does, and compares each series with what was read from the source.
func (b *builder) verify(ctx context.Context) (err error) {
	block, err := tsdb.OpenBlock(discard, b.dir, NewPool(), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, block.Close()) }()
	series, err := block.Index()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, series.Close()) }()
	data, err := block.Chunks()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	name, value := index.AllPostingsKey()
	postings, err := series.Postings(ctx, name, value)
	if err != nil {
		return err
	}
	v := verifier{data: data}
	want := b.written.reader()
	for n := 0; postings.Next(); n++ {
		if n&1023 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := series.Series(postings.At(), &v.builder, &v.metas); err != nil {
			return err
		}
		ls, metas, d, err := want.next()
		if err != nil {
			return fmt.Errorf("series %s is too many: %w", v.builder.Labels(), err)
		}
		if err := v.compare(ls, metas, d); err != nil {
			return err
		}
	}
	if err := postings.Err(); err != nil {
		return err
	}
	if _, _, _, err := want.next(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("the last series are missing"), err)
	}
	return nil
}

type verifier struct {
	data           tsdb.ChunkReader
	builder        labels.ScratchBuilder
	metas          []chunks.Meta
	it             chunkenc.Iterator
	histogram      *histogram.Histogram
	floatHistogram *histogram.FloatHistogram
}

func (v *verifier) compare(ls labels.Labels, metas []chunks.Meta, want digest.Series) error {
	if got := v.builder.Labels(); !labels.Equal(got, ls) {
		return fmt.Errorf("series %s is in the place of %s", got, ls)
	}
	if len(v.metas) != len(metas) {
		return fmt.Errorf("series %s has %d chunks, not %d", ls, len(v.metas), len(metas))
	}
	var got digest.Series
	for i := range v.metas {
		c, _, err := v.data.ChunkOrIterable(v.metas[i])
		if err != nil {
			return fmt.Errorf("series %s: %w", ls, err)
		}
		if a, ok := c.(*AggregateChunk); ok {
			parts, err := a.All()
			if err != nil {
				return fmt.Errorf("series %s: %w", ls, err)
			}
			if got, err = addAggregates(got, &parts); err != nil {
				return fmt.Errorf("series %s: %w", ls, err)
			}
			continue
		}
		v.it = c.Iterator(v.it)
		if err := v.add(&got, v.it); err != nil {
			return fmt.Errorf("series %s: %w", ls, err)
		}
	}
	if got != want {
		return fmt.Errorf("series %s has %d samples from %s to %s, hash %x, where %d from %s to %s, hash %x were read", ls,
			got.Samples, date(got.FirstMillis), date(got.LastMillis), got.Hash, want.Samples, date(want.FirstMillis), date(want.LastMillis), want.Hash)
	}
	return nil
}

// add adds what an iterator has.
func (v *verifier) add(d *digest.Series, it chunkenc.Iterator) error {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		var t int64
		switch kind {
		case chunkenc.ValFloat:
			d.Float(it.At())
		case chunkenc.ValHistogram:
			t, v.histogram = it.AtHistogram(v.histogram)
			d.Histogram(t, v.histogram)
		case chunkenc.ValFloatHistogram:
			t, v.floatHistogram = it.AtFloatHistogram(v.floatHistogram)
			d.FloatHistogram(t, v.floatHistogram)
		}
	}
	return it.Err()
}
