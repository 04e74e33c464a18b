package archive

import (
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
)

// joiner makes few chunks of the many small pieces that an open run consists of. It
// saves 18 bytes and some reading for each piece; it costs about 15 ns a sample, once.
type joiner struct {
	times  []int64
	values []float64
	bits   []uint64
	data   []byte
	pieces []chunk.Piece
}

// joinedMax is the most samples of a chunk: upstream's own target.
const joinedMax = 120

// join returns pieces with the same samples in the same order of arrival. Only floats
// that ascend from piece to piece are joined. The result is valid until the next call.
func (j *joiner) join(pieces []chunk.Piece) []chunk.Piece {
	j.pieces, j.data = j.pieces[:0], j.data[:0]
	for len(pieces) > 0 {
		n, samples := 1, pieces[0].Samples
		for n < len(pieces) && joins(&pieces[n-1], &pieces[n]) && samples+pieces[n].Samples <= joinedMax {
			samples += pieces[n].Samples
			n++
		}
		if n == 1 || !j.encode(pieces[:n]) {
			j.pieces = append(j.pieces, pieces[:n]...)
		}
		pieces = pieces[n:]
	}
	return j.pieces
}

func joins(x, y *chunk.Piece) bool {
	return x.Encoding == chunkenc.EncXOR && y.Encoding == chunkenc.EncXOR && x.MaxMillis < y.MinMillis
}

// encode appends the pieces' samples as one chunk. It is false when a piece does not
// decode, which leaves the fault for whoever reads it.
func (j *joiner) encode(pieces []chunk.Piece) bool {
	j.times, j.values, j.bits = j.times[:0], j.values[:0], j.bits[:0]
	for i := range pieces {
		var err error
		if j.times, j.values, err = chunk.DecodeXOR(pieces[i].Data, j.times, j.values); err != nil {
			return false
		}
	}
	for _, v := range j.values {
		j.bits = append(j.bits, math.Float64bits(v))
	}
	first := len(j.data)
	j.data = chunk.AppendXOR(j.data, j.times, j.bits)
	j.pieces = append(j.pieces, chunk.Piece{
		Encoding: chunkenc.EncXOR, Samples: len(j.times), MinMillis: j.times[0], MaxMillis: j.times[len(j.times)-1],
		Data: j.data[first:len(j.data):len(j.data)],
	})
	return true
}
