package chunk

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// Chunks appends the column's samples to dst as upstream chunks of at most 120
// samples each, in order of time, and returns the extended slice. The chunks own
// their memory. They are cut where a RareBuilder cuts, and a histogram chunk's header
// says that the counter was reset before it, or that it wasn't, where that is known.
func (c *Column) Chunks(dst []chunks.Meta) ([]chunks.Meta, error) {
	pieces, err := c.Recode(nil)
	if err != nil {
		return dst, err
	}
	for _, p := range pieces {
		if dst, err = appendMeta(dst, p); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// Recode is Chunks for a run: it appends the samples to dst as pieces that AppendRun takes.
func (c *Column) Recode(dst []Piece) ([]Piece, error) {
	if c.Kinds == nil && c.Starts == nil {
		return c.recodePlain(dst), nil
	}
	var b RareBuilder
	var h histogram.Histogram
	var fh histogram.FloatHistogram
	for i, t := range c.Times {
		var start int64
		if c.Starts != nil {
			start = c.Starts[i]
		}
		kind := chunkenc.ValFloat
		if c.Kinds != nil {
			kind = c.Kinds[i]
		}
		var err error
		switch kind {
		case chunkenc.ValHistogram:
			c.histograms.intAt(c.rows[i], &h)
			h.CounterResetHint = c.histograms.hintToKeep(c.rows[i])
			err = b.AppendHistogram(t, start, &h)
		case chunkenc.ValFloatHistogram:
			c.histograms.floatAt(c.rows[i], false, &fh)
			fh.CounterResetHint = c.histograms.hintToKeep(c.rows[i])
			err = b.AppendFloatHistogram(t, start, &fh)
		default:
			b.AppendFloat(t, start, math.Float64bits(c.Values[i]))
		}
		if err != nil {
			return dst, fmt.Errorf("recode sample at %d: %w", t, err)
		}
	}
	return b.Pieces(dst), nil
}

// recodePlain is Recode for floats without start timestamps.
func (c *Column) recodePlain(dst []Piece) []Piece {
	for begin := 0; begin < len(c.Times); begin += samplesPerChunkMax {
		end := min(begin+samplesPerChunkMax, len(c.Times))
		c.bits = c.bits[:0]
		for _, v := range c.Values[begin:end] {
			c.bits = append(c.bits, math.Float64bits(v))
		}
		dst = append(dst, Piece{
			Encoding: chunkenc.EncXOR, Samples: end - begin,
			MinMillis: c.Times[begin], MaxMillis: c.Times[end-1],
			Data: AppendXOR(nil, c.Times[begin:end], c.bits),
		})
	}
	return dst
}

func appendMeta(dst []chunks.Meta, p Piece) ([]chunks.Meta, error) {
	chunk, err := chunkenc.FromData(p.Encoding, p.Data)
	if err != nil {
		return dst, fmt.Errorf("recode %s chunk: %w", p.Encoding, err)
	}
	return append(dst, chunks.Meta{Chunk: chunk, MinTime: p.MinMillis, MaxTime: p.MaxMillis}), nil
}

// hintToKeep is the hint to append a record with: a reset that its chunk's header
// knew of must not get lost where the counts alone don't show it.
func (s *histograms) hintToKeep(row int32) histogram.CounterResetHint {
	r := &s.records[row]
	if r.reset {
		return histogram.CounterReset
	}
	return r.hint
}
