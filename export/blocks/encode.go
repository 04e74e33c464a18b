package blocks

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"varve/digest"
)

// chunkSamplesMax is how many samples or buckets a chunk has, as in Prometheus.
const chunkSamplesMax = 120

// encoder makes the chunks of one series after the other, in the encodings that all of Prometheus, Thanos and Mimir know:
// start timestamps, which they have no room for, are left out. It reuses its memory.
type encoder struct {
	stats Stats

	metas  []chunks.Meta
	digest digest.Series
	chunk  chunkenc.Chunk
	app    chunkenc.Appender
	kind   chunkenc.ValueType
	n      int

	floats         []*chunkenc.XORChunk // reused, those before used are taken
	used           int
	histogram      *histogram.Histogram
	floatHistogram *histogram.FloatHistogram
}

// begin forgets the series before, whose chunks must not be used any more.
func (e *encoder) begin() {
	e.metas, e.digest, e.chunk, e.app, e.kind, e.n, e.used = e.metas[:0], digest.Series{}, nil, nil, chunkenc.ValNone, 0, 0
}

// add appends what an iterator has, later than all before.
func (e *encoder) add(it chunkenc.Iterator) error {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if it.AtST() != 0 {
			e.stats.StartTimestamps++
		}
		if kind != e.kind || e.n >= chunkSamplesMax {
			if err := e.cut(kind); err != nil {
				return err
			}
		}
		if err := e.sample(kind, it); err != nil {
			return err
		}
	}
	return it.Err()
}

func (e *encoder) sample(kind chunkenc.ValueType, it chunkenc.Iterator) error {
	var t int64
	switch kind {
	case chunkenc.ValFloat:
		var v float64
		t, v = it.At()
		e.digest.Float(t, v)
		e.app.Append(0, t, v)
		e.stats.Floats++
	case chunkenc.ValHistogram:
		t, e.histogram = it.AtHistogram(e.histogram)
		e.digest.Histogram(t, e.histogram)
		grown, recoded, app, err := e.app.AppendHistogram(nil, 0, t, e.histogram, false)
		if err != nil {
			return fmt.Errorf("encode histogram at %d: %w", t, err)
		}
		e.grew(grown, recoded, app)
		e.stats.Histograms++
	case chunkenc.ValFloatHistogram:
		t, e.floatHistogram = it.AtFloatHistogram(e.floatHistogram)
		e.digest.FloatHistogram(t, e.floatHistogram)
		grown, recoded, app, err := e.app.AppendFloatHistogram(nil, 0, t, e.floatHistogram, false)
		if err != nil {
			return fmt.Errorf("encode histogram at %d: %w", t, err)
		}
		e.grew(grown, recoded, app)
		e.stats.Histograms++
	default:
		return fmt.Errorf("a sample of unknown type %s", kind)
	}
	m := &e.metas[len(e.metas)-1]
	if e.n == 0 {
		m.MinTime = t
	}
	m.MaxTime = t
	e.n++
	return nil
}

// cut begins a chunk for samples of a kind.
func (e *encoder) cut(kind chunkenc.ValueType) error {
	var err error
	switch kind {
	case chunkenc.ValFloat:
		e.chunk = e.floatChunk()
	case chunkenc.ValHistogram:
		e.chunk = chunkenc.NewHistogramChunk()
	case chunkenc.ValFloatHistogram:
		e.chunk = chunkenc.NewFloatHistogramChunk()
	default:
		return fmt.Errorf("a sample of unknown type %s", kind)
	}
	if e.app, err = e.chunk.Appender(); err != nil {
		return err
	}
	e.metas = append(e.metas, chunks.Meta{Chunk: e.chunk})
	e.kind, e.n = kind, 0
	return nil
}

// grew takes over the chunk that the last histogram went to, if that is another one.
func (e *encoder) grew(grown chunkenc.Chunk, recoded bool, app chunkenc.Appender) {
	e.app = app
	if grown == nil {
		return
	}
	e.chunk = grown
	if recoded {
		e.metas[len(e.metas)-1].Chunk = grown
		return
	}
	e.metas = append(e.metas, chunks.Meta{Chunk: grown})
	e.n = 0
}

// floatChunk returns an empty chunk.
func (e *encoder) floatChunk() *chunkenc.XORChunk {
	if e.used == len(e.floats) {
		e.floats = append(e.floats, chunkenc.NewXORChunk())
	}
	c := e.floats[e.used]
	e.used++
	b := c.Bytes()[:2]
	b[0], b[1] = 0, 0
	c.Reset(b)
	return c
}
