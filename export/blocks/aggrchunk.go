package blocks

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// EncodingAggregate is the byte that Thanos gives chunks of aggregates, the highest there is so that no encoding of
// Prometheus' meets it.
const EncodingAggregate = chunkenc.Encoding(0xff)

// Aggregate is a kind of value in an AggregateChunk.
type Aggregate int

// The aggregates in the order in which they are in a chunk.
const (
	Count Aggregate = iota
	Sum
	Min
	Max
	// Counter has the first sample of a counter, then for each bucket its last value with resets made up for, then once more
	// the time of the last with the value that the counter really had.
	Counter
	aggregates
)

// ErrCorrupt is wrapped by errors about bytes that are no AggregateChunk.
var ErrCorrupt = errors.New("corrupt aggregate chunk")

// AggregateChunk is a chunk of aggregates as Thanos has them: for each Aggregate the length of a chunk's data as uvarint,
// then if it isn't 0 a byte for the encoding and the data. It implements chunkenc.Chunk, as far as chunks are stored.
type AggregateChunk []byte

// AppendAggregateChunk appends the bytes of an AggregateChunk to dst. A nil chunk is an aggregate that isn't there.
func AppendAggregateChunk(dst []byte, chunks *[aggregates]chunkenc.Chunk) []byte {
	for _, c := range chunks {
		if c == nil {
			dst = append(dst, 0)
			continue
		}
		data := c.Bytes()
		dst = binary.AppendUvarint(dst, uint64(len(data)))
		dst = append(dst, byte(c.Encoding()))
		dst = append(dst, data...)
	}
	return dst
}

// Get returns the chunk of an aggregate, nil if it isn't there. It shares memory with c.
func (c AggregateChunk) Get(a Aggregate) (chunkenc.Chunk, error) {
	all, err := c.All()
	if err != nil || a < 0 || a >= aggregates {
		return nil, err
	}
	return all[a], nil
}

// All returns the chunks of all aggregates. They share memory with c.
func (c AggregateChunk) All() (all [aggregates]chunkenc.Chunk, err error) {
	rest := []byte(c)
	for a := range all {
		n, used := binary.Uvarint(rest)
		if used <= 0 {
			return all, fmt.Errorf("%w: length of aggregate %d", ErrCorrupt, a)
		}
		rest = rest[used:]
		if n == 0 {
			continue
		}
		if n >= uint64(len(rest)) {
			return all, fmt.Errorf("%w: aggregate %d has %d bytes where %d are left", ErrCorrupt, a, n, len(rest))
		}
		encoding, data := chunkenc.Encoding(rest[0]), rest[1:n+1:n+1]
		rest = rest[n+1:]
		// The first two bytes are the number of samples, the third is the header of histograms.
		least := 2
		if encoding != chunkenc.EncXOR {
			least = 3
		}
		if len(data) < least {
			return all, fmt.Errorf("%w: aggregate %d has %d bytes", ErrCorrupt, a, n)
		}
		switch encoding {
		case chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		default:
			return all, fmt.Errorf("%w: aggregate %d has encoding %d", ErrCorrupt, a, encoding)
		}
		if all[a], err = chunkenc.FromData(encoding, data); err != nil {
			return all, fmt.Errorf("%w: aggregate %d: %w", ErrCorrupt, a, err)
		}
	}
	if len(rest) > 0 {
		return all, fmt.Errorf("%w: %d bytes behind the last aggregate", ErrCorrupt, len(rest))
	}
	return all, nil
}

// Bytes implements chunkenc.Chunk.
func (c *AggregateChunk) Bytes() []byte { return *c }

// Encoding implements chunkenc.Chunk.
func (*AggregateChunk) Encoding() chunkenc.Encoding { return EncodingAggregate }

// NumSamples implements chunkenc.Chunk: the number of buckets, 0 if the chunk is corrupt.
func (c *AggregateChunk) NumSamples() int {
	counts, err := c.Get(Count)
	if err != nil || counts == nil {
		return 0
	}
	return counts.NumSamples()
}

// Compact implements chunkenc.Chunk and does nothing.
func (*AggregateChunk) Compact() {}

// Reset implements chunkenc.Chunk.
func (c *AggregateChunk) Reset(stream []byte) { *c = stream }

// Appender implements chunkenc.Chunk: there is none, a chunk is made of finished parts.
func (*AggregateChunk) Appender() (chunkenc.Appender, error) {
	return nil, errors.New("chunks of aggregates are not appended to")
}

// Iterator implements chunkenc.Chunk: what is in it is no series of samples, so it has none. See Get.
func (*AggregateChunk) Iterator(chunkenc.Iterator) chunkenc.Iterator {
	return chunkenc.NewNopIterator()
}

// Pool is a chunkenc.Pool that knows chunks of aggregates too, for reading blocks that have them.
type Pool struct{ chunkenc.Pool }

// NewPool returns a Pool.
func NewPool() Pool { return Pool{chunkenc.NewPool()} }

// Get implements chunkenc.Pool.
func (p Pool) Get(e chunkenc.Encoding, b []byte) (chunkenc.Chunk, error) {
	if e == EncodingAggregate {
		c := AggregateChunk(b)
		return &c, nil
	}
	return p.Pool.Get(e, b)
}

// Put implements chunkenc.Pool.
func (p Pool) Put(c chunkenc.Chunk) error {
	if c.Encoding() == EncodingAggregate {
		return nil
	}
	return p.Pool.Put(c)
}
