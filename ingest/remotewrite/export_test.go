package remotewrite

import (
	"context"

	"varve/arrival"
	"varve/ingest"
)

// Decoder gives tests and benchmarks the decoder without HTTP and without Write.
type Decoder struct {
	pool pool
	q    *request
	// buf is what Decompress decodes into: q.body is the caller's in Walk and Decode.
	buf []byte
}

// NewDecoder returns a decoder for version 1 or 2.
func NewDecoder(sink ingest.Sink, limits ingest.Limits, version int) *Decoder {
	d := &Decoder{}
	d.pool.limits, d.pool.sink = limits.WithDefaults(), sink
	d.q = d.pool.get(protocol(version - 1))
	return d
}

// Decompress decodes a snappy block and returns its content.
func (d *Decoder) Decompress(wire []byte) ([]byte, error) {
	d.Reset()
	d.q.body = d.buf
	err := d.q.decompress(wire)
	d.buf = d.q.body
	return d.q.body, err
}

// Walk walks the body without looking series up.
func (d *Decoder) Walk(body []byte) error {
	d.q.rewind()
	d.q.body = body
	if d.q.proto == version2 {
		return d.q.walk2()
	}
	return d.q.walk1(true)
}

// Decode decodes a body up to the point where the batch can be written.
func (d *Decoder) Decode(body []byte) (*arrival.Batch, error) {
	d.q.rewind()
	d.q.body = body
	d.q.allowance = int64(len(body))
	err := d.q.decode(context.Background())
	return &d.q.batch, err
}

// Rejected returns what the last body was refused of.
func (d *Decoder) Rejected() arrival.Rejected { return d.q.report.rejected }

// Reset gives back what the decoder holds.
func (d *Decoder) Reset() {
	d.q.limits.InFlight.Release(d.q.held)
	d.q.held, d.q.allowance = 0, 0
	d.q.rewind()
}
