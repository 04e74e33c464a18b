package text

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"

	"varve/ingest"
)

// firstWindowBytes is allocated before any byte of a body has come.
const firstWindowBytes = 64 << 10

// window is the part of a body that is in memory: buf[at:] is what nobody took yet.
type window struct {
	from  io.Reader
	buf   []byte
	at    int
	ended bool // nothing comes behind buf
	// line is the number of the line at at, the first being 1. lineAt is where the line begins that was taken last.
	line   uint64
	lineAt int
	// size is how much of buf may be used, and is held.
	size int
	// read counts the bytes that came.
	read int64
	// bytesMax bounds buf, lineBytesMax a line of it.
	bytesMax, lineBytesMax int

	held holder
}

// holder has a share of the memory that requests in flight may use.
type holder interface {
	hold(bytes int64) error
}

func (w *window) reset(from io.Reader, held holder, bytesMax, lineBytesMax int) {
	*w = window{from: from, buf: w.buf[:0], line: 1, bytesMax: bytesMax, lineBytesMax: lineBytesMax, held: held}
}

// keptWindowBytes is the most that stays for the next request.
const keptWindowBytes = 8 << 20

func (w *window) end() {
	if cap(w.buf) > keptWindowBytes {
		w.buf = nil
	}
	*w = window{buf: w.buf[:0]}
}

// more moves what nobody took to the start of the window and reads until the window is full or the body
// ends. What was taken may not be looked at any more.
func (w *window) more() error {
	if w.ended {
		return nil
	}
	left := copy(w.buf, w.buf[w.at:])
	w.buf, w.at = w.buf[:left], 0
	for len(w.buf) < w.bytesMax {
		if len(w.buf) == w.size {
			if err := w.grow(); err != nil {
				return err
			}
		}
		n, err := w.from.Read(w.buf[len(w.buf):w.size])
		w.buf = w.buf[:len(w.buf)+n]
		w.read += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			w.ended = true
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// grow doubles the window.
func (w *window) grow() error {
	size := min(max(firstWindowBytes, 2*w.size), w.bytesMax)
	if err := w.held.hold(int64(size - w.size)); err != nil {
		return err
	}
	w.size = size
	if cap(w.buf) < size {
		w.buf = append(make([]byte, 0, size), w.buf...)
	}
	return nil
}

// nextLine takes the next line, without its end. ok is false where the window has no whole one: more is
// to be called, or the body has ended.
func (w *window) nextLine() (line []byte, ok bool) {
	rest := w.buf[w.at:]
	w.lineAt = w.at
	n := bytes.IndexByte(rest, '\n')
	if n < 0 {
		if !w.ended || len(rest) == 0 {
			return nil, false
		}
		n = len(rest)
		w.at = len(w.buf)
	} else {
		w.at += n + 1
	}
	w.line++
	if n > 0 && rest[n-1] == '\r' {
		n--
	}
	return rest[:n:n], true
}

// tooLong tells that the line that the window begins with is longer than allowed.
func (w *window) tooLong() bool { return len(w.buf)-w.at > w.lineBytesMax }

// skipLine passes over the rest of a line that is too long.
func (w *window) skipLine() error {
	for {
		if n := bytes.IndexByte(w.buf[w.at:], '\n'); n >= 0 {
			w.at += n + 1
			break
		}
		w.at = len(w.buf)
		if w.ended {
			break
		}
		if err := w.more(); err != nil {
			return err
		}
	}
	w.line++
	return nil
}

// body is a request's body as it came and decompressed.
type body struct {
	wire   countedReader
	reader io.Reader
	unzip  *gzip.Reader
}

var unzippers sync.Pool // of *gzip.Reader

// openBody returns the body of a request, decompressed.
func openBody(r *http.Request) (*body, error) {
	b := &body{wire: countedReader{r: r.Body}}
	switch encoding := strings.ToLower(r.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
		b.reader = &b.wire
	case "gzip", "x-gzip":
		unzip, _ := unzippers.Get().(*gzip.Reader)
		var err error
		if unzip == nil {
			unzip, err = gzip.NewReader(&b.wire)
		} else {
			err = unzip.Reset(&b.wire)
		}
		if err != nil {
			return nil, b.failure(err)
		}
		b.reader, b.unzip = unzip, unzip
	default:
		return nil, fmt.Errorf("%w %s: send gzip or identity", ingest.ErrEncoding, quoted(encoding))
	}
	return b, nil
}

// Read implements io.Reader. Errors are of the classes of package ingest.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.failure(err)
	}
	return n, err
}

// failure finds the class of an error: what the connection said is not in the bytes.
func (b *body) failure(err error) error {
	if b.wire.err != nil {
		return fmt.Errorf("%w: %w", ingest.ErrReading, err)
	}
	return fmt.Errorf("%w gzip: %w", ingest.ErrMalformed, err)
}

func (b *body) close() {
	if b.unzip != nil {
		unzippers.Put(b.unzip)
		b.unzip, b.reader = nil, nil
	}
}

// countedReader counts what comes on the wire and remembers what the connection said.
type countedReader struct {
	r    io.Reader
	read int64
	err  error
}

// Read implements io.Reader.
func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}
