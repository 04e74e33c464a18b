package archive

import (
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
	"varve/archive/format"
)

// dailyIterator walks the samples of a series and decodes them a day at a time, so that days
// that nobody looks into are passed over, and memory is that of a day. It implements
// chunkenc.Iterator.
type dailyIterator struct {
	chunk.Iterator
	series *series
	column chunk.Column
	pieces []chunk.Piece
	// next is the first time that isn't decoded yet. What is before it and not in the column was passed
	// over.
	next int64
}

// begin puts the iterator before the first sample of the series.
func (it *dailyIterator) begin(s *series) {
	it.series, it.next = s, s.mint
	it.Iterator = chunk.Iterator{}
	it.pieces = s.samples.appendPieces(it.pieces[:0])
}

// Next implements chunkenc.Iterator.
func (it *dailyIterator) Next() chunkenc.ValueType {
	for {
		if kind := it.Iterator.Next(); kind != chunkenc.ValNone || !it.decode(it.next) {
			return kind
		}
	}
}

// Seek implements chunkenc.Iterator.
func (it *dailyIterator) Seek(t unixMillis) chunkenc.ValueType {
	if it.next > t || it.next > it.series.maxt {
		// The sample, if there is one so early, is in the column.
		if kind := it.Iterator.Seek(t); kind != chunkenc.ValNone {
			return kind
		}
		return it.Next()
	}
	if !it.decode(t) {
		it.next = it.series.maxt + 1
		return chunkenc.ValNone
	}
	if kind := it.Iterator.Seek(t); kind != chunkenc.ValNone {
		return kind
	}
	return it.Next()
}

// unixMillis has a name of its own so that vet does not take chunkenc's Seek for
// that of io.Seeker.
type unixMillis = int64

// decode makes the column the day of a time from that time on. It is false behind the series' end, and
// if the day can't be decoded.
func (it *dailyIterator) decode(from int64) bool {
	s := it.series
	if it.Err() != nil || from > s.maxt {
		return false
	}
	err := s.ctx.Err()
	end := min(s.maxt, format.DayOf(from).EndMillis()-1)
	began := s.stats.now()
	if err == nil {
		err = it.column.Decode(it.pieces, from, end)
	}
	if err != nil {
		it.Fail(err)
		return false
	}
	s.stats.decoded(began, len(it.column.Times))
	it.next = end + 1
	it.Reset(&it.column)
	return true
}
