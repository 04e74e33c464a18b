package codec_test

import (
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
)

// xorSamples is how many samples upstream puts into a chunk.
const xorSamples = 120

// xorDay is a day in upstream's chunks, series by series.
type xorDay [][][]byte

func encodeXOR(d *day) (xorDay, error) {
	out := make(xorDay, 0, len(d.series))
	for i := range d.series {
		c := &d.series[i].column
		chunks := make([][]byte, 0, len(c.Times)/xorSamples+1)
		for from := 0; from < len(c.Times); from += xorSamples {
			x := chunkenc.NewXORChunk()
			app, err := x.Appender()
			if err != nil {
				return nil, err
			}
			for k := from; k < min(from+xorSamples, len(c.Times)); k++ {
				app.Append(0, c.Times[k], c.Values[k])
			}
			chunks = append(chunks, x.Bytes())
		}
		out = append(out, chunks)
	}
	return out, nil
}

// bytes is the length of all chunks.
func (x xorDay) bytes() int {
	n := 0
	for _, chunks := range x {
		for _, data := range chunks {
			n += len(data)
		}
	}
	return n
}

// xorReader keeps its memory for the next series.
type xorReader struct {
	chunk    *chunkenc.XORChunk
	iterator chunkenc.Iterator
	column   chunk.Column
}

// read decodes a series. The column is overwritten by the next.
func (r *xorReader) read(chunks [][]byte) (*chunk.Column, error) {
	if r.chunk == nil {
		r.chunk = chunkenc.NewXORChunk()
	}
	times, values := r.column.Times[:0], r.column.Values[:0]
	for _, data := range chunks {
		r.chunk.Reset(data)
		r.iterator = r.chunk.Iterator(r.iterator)
		for r.iterator.Next() != chunkenc.ValNone {
			t, v := r.iterator.At()
			times, values = append(times, t), append(values, v)
		}
		if err := r.iterator.Err(); err != nil {
			return nil, err
		}
	}
	r.column.Times, r.column.Values = times, values
	return &r.column, nil
}
