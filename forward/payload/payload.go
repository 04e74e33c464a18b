// Package payload holds the bodies of requests in memory that is used again.
//
// An HTTP client may go on reading a request's body after it has the answer, so that its memory can't be given back
// at once. A [Payload] knows whether a request still has it open, and is then left to the garbage collector instead.
//
// A sender gets a payload, appends a batch to its Data, makes a request with Post, and puts the payload back when it has the
// answer. Payloads are had and put back by any goroutine; one payload is one goroutine's. The package sends nothing itself and reads no answers.
package payload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
)

// Payload is a body in the making. One goroutine at a time; requests made of it may read it in others.
type Payload struct {
	// Data is what the caller appends to. It must not change between Post and the end of that request.
	Data []byte

	packed  []byte
	readers atomic.Int32
}

var pool = sync.Pool{New: func() any { return new(Payload) }}

// Get returns an empty payload, to be given back with Put.
func Get() *Payload { return pool.Get().(*Payload) }

// keptBytesMax bounds what a payload keeps for its next use: a few times a batch of 10 000 lines.
const keptBytesMax = 16 << 20

// Put ends the use of the payload. Its memory is used again unless a request may still read it.
func (p *Payload) Put() {
	if p.readers.Load() != 0 || cap(p.Data) > keptBytesMax {
		return
	}
	p.Data, p.packed = p.Data[:0], p.packed[:0]
	pool.Put(p)
}

var packers = sync.Pool{New: func() any {
	// The lowest level makes text a sixth; higher ones take several times as long for a few per cent.
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err)
	}
	return w
}}

// Post makes a POST request with Data as the body, compressed if asked. The content type is up to the caller.
func (p *Payload) Post(ctx context.Context, address string, gzipped bool) (*http.Request, error) {
	body := p.Data
	if gzipped {
		if err := p.pack(); err != nil {
			return nil, err
		}
		body = p.packed
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, p.open(body))
	if err != nil {
		// The error of an address that can't be parsed shows it, and it may hold a password.
		if with, ok := errors.AsType[*url.Error](err); ok {
			err = with.Err
		}
		return nil, err
	}
	r.ContentLength = int64(len(body))
	// A connection that the peer closed while it was idle is found out when the body is under way: this lets the client take another.
	r.GetBody = func() (io.ReadCloser, error) { return p.open(body), nil }
	if gzipped {
		r.Header.Set("Content-Encoding", "gzip")
	}
	return r, nil
}

func (p *Payload) pack() error {
	packer := packers.Get().(*gzip.Writer)
	defer packers.Put(packer)
	out := bytes.NewBuffer(p.packed[:0])
	packer.Reset(out)
	if _, err := packer.Write(p.Data); err != nil {
		return fmt.Errorf("compress the request: %w", err)
	}
	if err := packer.Close(); err != nil {
		return fmt.Errorf("compress the request: %w", err)
	}
	p.packed = out.Bytes()
	return nil
}

func (p *Payload) open(body []byte) *reader {
	p.readers.Add(1)
	return &reader{body: body, of: p}
}

// reader is a request's view of the body. The client closes it when it reads no more; one for HTTP/2 may have a read under way then,
// or begin another.
type reader struct {
	mu     sync.Mutex
	body   []byte
	of     *Payload
	closed bool
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return 0, os.ErrClosed
	case len(r.body) == 0:
		return 0, io.EOF
	}
	n := copy(b, r.body)
	r.body = r.body[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed, r.body = true, nil
		r.of.readers.Add(-1)
	}
	return nil
}
