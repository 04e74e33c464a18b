package ingest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// body is the memory in which a delivery holds the body of a request.
type body struct {
	bytes    []byte
	received int   // bytes on the wire
	held     int64 // of the budget
	unzip    *gzip.Reader
}

// firstBodyBytes is allocated before any byte of a body has come, whatever its
// Content-Length promises.
const firstBodyBytes = 64 << 10

// ReadBody reads and decompresses the body of a request. What it returns is the
// delivery's and valid until End. Errors are of the classes ErrTooBig, ErrEncoding,
// ErrMalformed, ErrReading and ErrOverload.
func (d *Delivery) ReadBody(r *http.Request) ([]byte, error) {
	l := &d.port.limits
	compressed := &countedReader{r: r.Body, left: l.CompressedBytesMax}
	var from io.Reader = compressed
	switch encoding := strings.ToLower(r.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
		compressed.left = l.DecodedBytesMax
		if r.ContentLength > l.DecodedBytesMax {
			return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooBig, r.ContentLength, l.DecodedBytesMax)
		}
	case "gzip", "x-gzip":
		if r.ContentLength > l.CompressedBytesMax {
			return nil, fmt.Errorf("%w: %d bytes compressed, at most %d", ErrTooBig, r.ContentLength, l.CompressedBytesMax)
		}
		var err error
		if from, err = d.body.gunzip(compressed); err != nil {
			return nil, bodyError(err, compressed)
		}
	default:
		return nil, fmt.Errorf("%w %s: send gzip or identity", ErrEncoding, quoted(encoding))
	}
	err := d.fill(from, l.DecodedBytesMax)
	d.body.received = int(compressed.read)
	if err != nil {
		return nil, bodyError(err, compressed)
	}
	return d.body.bytes, nil
}

// fill reads until the end into memory that the budget has room for.
func (d *Delivery) fill(from io.Reader, bytesMax int64) error {
	b := &d.body
	b.bytes = b.bytes[:0]
	for size := int64(firstBodyBytes); ; size *= 2 {
		size = min(size, bytesMax+1)
		if err := d.hold(size - b.held); err != nil {
			return err
		}
		b.held = max(b.held, size)
		if int64(cap(b.bytes)) < size {
			b.bytes = append(make([]byte, 0, size), b.bytes...)
		}
		for int64(len(b.bytes)) < size {
			n, err := from.Read(b.bytes[len(b.bytes):size])
			b.bytes = b.bytes[:len(b.bytes)+n]
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		if size > bytesMax {
			return fmt.Errorf("%w: more than %d bytes", ErrTooBig, bytesMax)
		}
	}
}

func (b *body) gunzip(r io.Reader) (io.Reader, error) {
	if b.unzip == nil {
		unzip, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		b.unzip = unzip
		return unzip, nil
	}
	if err := b.unzip.Reset(r); err != nil {
		return nil, err
	}
	return b.unzip, nil
}

// bodyError finds the class of an error of reading a body.
func bodyError(err error, compressed *countedReader) error {
	switch {
	case errors.Is(err, ErrTooBig), errors.Is(err, ErrOverload):
		return err
	case compressed.err != nil:
		return fmt.Errorf("%w: %w", ErrReading, compressed.err)
	}
	return fmt.Errorf("%w gzip: %w", ErrMalformed, err)
}

func (b *body) reset() { b.bytes, b.received, b.held = b.bytes[:0], 0, 0 }

// countedReader reads at most left bytes and remembers what the connection said.
type countedReader struct {
	r    io.Reader
	left int64
	read int64
	err  error
}

// Read implements io.Reader.
func (c *countedReader) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	c.read += int64(n)
	if c.left < 0 {
		return n, fmt.Errorf("%w on the wire", ErrTooBig)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}
