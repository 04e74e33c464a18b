package remotewrite

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/golang/snappy"

	"varve/ingest"
)

// errCorrupt is of the class of what is malformed, as all errors of a body are of one of the
// classes of package ingest.
var errCorrupt = fmt.Errorf("%w snappy block", ingest.ErrMalformed)

const (
	// firstReadBytes is allocated before any byte of a body has come, whatever its
	// Content-Length promises: ten thousand silent senders hold 640 MB at most, and a
	// usual request (2000 samples, 40 KB) still needs one allocation.
	firstReadBytes = 64 << 10
	// expansionMax is more than a block of snappy can expand to: its densest element
	// makes 64 bytes of 3. A header that promises more is not believed.
	expansionMax = 22
)

// read fills q.wire with the body as it came.
func (q *request) read(r *http.Request) error {
	bytesMax := q.limits.CompressedBytesMax
	length := r.ContentLength
	if length > bytesMax {
		return fmt.Errorf("%w: %d bytes compressed, at most %d", ingest.ErrTooBig, length, bytesMax)
	}
	size := min(int64(firstReadBytes), bytesMax+1)
	if length >= 0 {
		size = min(size, length)
	}
	q.wire = q.wire[:0]
	for {
		if err := q.hold(size - q.wireHeld); err != nil {
			return err
		}
		q.wireHeld = max(q.wireHeld, size)
		ended, err := q.fill(r.Body, int(size))
		q.received = len(q.wire)
		switch got := int64(len(q.wire)); {
		case err != nil:
			return fmt.Errorf("%w: %w", ingest.ErrReading, err)
		case got == length, ended && length < 0:
			return nil
		case ended:
			return fmt.Errorf("%w: %w", ingest.ErrReading, io.ErrUnexpectedEOF)
		case got > bytesMax:
			return fmt.Errorf("%w: more than %d bytes compressed", ingest.ErrTooBig, bytesMax)
		}
		// One byte beyond the limit is enough to know that a chunked body is over it.
		size = min(2*size, bytesMax+1)
		if length >= 0 {
			size = min(size, length)
		}
	}
}

// fill reads until q.wire has size bytes or the body ends.
func (q *request) fill(body io.Reader, size int) (ended bool, err error) {
	if cap(q.wire) < size {
		q.wire = append(make([]byte, 0, size), q.wire...)
	}
	for len(q.wire) < size {
		n, err := body.Read(q.wire[len(q.wire):size])
		q.wire = q.wire[:len(q.wire)+n]
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// decompress fills q.body with the decoded form of a block. It believes the header
// of the block only after comparing it with the limit and with what the bytes
// there could expand to.
func (q *request) decompress(wire []byte) error {
	n, err := snappy.DecodedLen(wire)
	if err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if int64(n) > q.limits.DecodedBytesMax {
		return fmt.Errorf("%w: %d bytes decoded, at most %d", ingest.ErrTooBig, n, q.limits.DecodedBytesMax)
	}
	if n > expansionMax*len(wire) {
		return errCorrupt
	}
	if err := q.hold(int64(n)); err != nil {
		return err
	}
	q.allowance = int64(n)
	if cap(q.body) < n {
		q.body = make([]byte, n)
	}
	q.body = q.body[:0]
	body, err := snappy.Decode(q.body[:n], wire)
	if err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	q.body = body
	return nil
}

// hold takes bytes from the budget until the request ends.
func (q *request) hold(bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	if !q.limits.InFlight.TryAcquire(bytes) {
		return ingest.ErrOverload
	}
	q.held += bytes
	return nil
}
