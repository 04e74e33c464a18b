// Package recording keeps what exporters said of themselves: scrape after scrape of
// one target, as it came over HTTP, with the time at which each scrape began.
//
// A recording is a file of one target, compressed with zstd as a whole:
//
//	"varve-recording 1 " NAME "\n"
//	for each scrape: MILLIS " " BYTES "\n", then BYTES bytes of text
//
// MILLIS is the Unix time in milliseconds at which the request was sent, which is
// the stamp that Prometheus gives to the samples of a scrape. The text is
// Prometheus' text format. Scrapes that failed are absent, so times may have gaps;
// they ascend strictly. Neighbouring scrapes are nearly alike and zstd's window holds
// several of them, hence no differences are taken here.
//
// Record makes such files, a Reader reads them, and Read turns one into Columns:
// one column of values for each series. Files come from the user's cache and may be
// damaged: the functions that read them check sizes before they allocate and wrap
// ErrCorrupt.
//
// A Reader and a Writer belong to one goroutine. Columns are immutable once read.
package recording

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Extension ends the names of finished recordings, partial those that are still
// being written.
const (
	Extension = ".recording.zst"
	partial   = ".partial"
)

const (
	magic = "varve-recording 1 "
	// scrapeBytesMax bounds one scrape: exporters of a hundred thousand series say
	// about 20 MB.
	scrapeBytesMax = 64 << 20
	// headBytesMax bounds a line of the file's own.
	headBytesMax = 4096
	// windowBytes is how far back zstd looks for what repeats: several scrapes of a
	// few hundred kB.
	windowBytes = 4 << 20
)

// ErrCorrupt says that a file is no recording, or a damaged one.
var ErrCorrupt = errors.New("recording: corrupt")

// Scrape is what a target said once.
type Scrape struct {
	// Millis is when the request was sent, in Unix milliseconds.
	Millis int64
	// Text is the answer's body in the text format.
	Text []byte
}

// Writer appends scrapes to a file.
type Writer struct {
	path string
	file *os.File
	zstd *zstd.Encoder
}

// Create begins a recording of the named target. The file gets its path when the
// Writer is closed, and a longer name until then.
func Create(path, name string) (*Writer, error) {
	if strings.ContainsAny(name, "\r\n") || len(name) > headBytesMax/2 {
		return nil, fmt.Errorf("create recording: %q cannot be a name", name)
	}
	file, err := os.OpenFile(path+partial, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create recording: %w; another run may be recording: remove the file if none is", err)
	}
	compressor, err := zstd.NewWriter(file, zstd.WithWindowSize(windowBytes), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create recording: %w", err), file.Close(), os.Remove(path+partial))
	}
	w := &Writer{path: path, file: file, zstd: compressor}
	if _, err := io.WriteString(w.zstd, magic+name+"\n"); err != nil {
		return nil, errors.Join(fmt.Errorf("create recording: %w", err), w.Discard())
	}
	return w, nil
}

// Append writes one scrape. What was appended survives the end of the process.
func (w *Writer) Append(s Scrape) error {
	if _, err := fmt.Fprintf(w.zstd, "%d %d\n", s.Millis, len(s.Text)); err != nil {
		return fmt.Errorf("append scrape: %w", err)
	}
	if _, err := w.zstd.Write(s.Text); err != nil {
		return fmt.Errorf("append scrape: %w", err)
	}
	if err := w.zstd.Flush(); err != nil {
		return fmt.Errorf("append scrape: %w", err)
	}
	return nil
}

// Close completes the file and gives it its name.
func (w *Writer) Close() error {
	if err := errors.Join(w.zstd.Close(), w.file.Sync(), w.file.Close()); err != nil {
		return fmt.Errorf("close recording: %w", err)
	}
	if err := os.Rename(w.path+partial, w.path); err != nil {
		return fmt.Errorf("close recording: %w", err)
	}
	return nil
}

// Discard drops the file.
func (w *Writer) Discard() error {
	// What the compressor still held is of no use.
	_ = w.zstd.Close()
	return errors.Join(w.file.Close(), os.Remove(w.path+partial))
}

// Reader reads a recording from its beginning.
type Reader struct {
	name   string
	zstd   *zstd.Decoder
	buffer *bufio.Reader
	last   int64
	text   []byte
}

// NewReader begins to read. Close gives back what it holds; the source stays the
// caller's.
func NewReader(source io.Reader) (*Reader, error) {
	decompressor, err := zstd.NewReader(source, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(4*windowBytes))
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	r := &Reader{zstd: decompressor, buffer: bufio.NewReaderSize(decompressor, headBytesMax), last: math.MinInt64}
	head, err := r.line()
	name, known := strings.CutPrefix(head, magic)
	if err != nil || !known {
		r.Close()
		return nil, fmt.Errorf("read recording: %w: it begins with %.40q", ErrCorrupt, head)
	}
	r.name = name
	return r, nil
}

// Name is the target's name.
func (r *Reader) Name() string { return r.name }

// Close releases the decompressor.
func (r *Reader) Close() { r.zstd.Close() }

// Next reads the next scrape, io.EOF after the last. The text is valid until the
// next call.
func (r *Reader) Next() (Scrape, error) {
	head, err := r.line()
	if errors.Is(err, io.EOF) && head == "" {
		return Scrape{}, io.EOF
	}
	if err != nil {
		return Scrape{}, fmt.Errorf("read scrape: %w: %w", ErrCorrupt, err)
	}
	first, second, _ := strings.Cut(head, " ")
	millis, err1 := strconv.ParseInt(first, 10, 64)
	length, err2 := strconv.Atoi(second)
	if err1 != nil || err2 != nil || length < 0 || length > scrapeBytesMax || millis <= r.last {
		return Scrape{}, fmt.Errorf("read scrape: %w: head %.40q after %d", ErrCorrupt, head, r.last)
	}
	r.last = millis
	if err := r.fill(length); err != nil {
		return Scrape{}, fmt.Errorf("read scrape: %w: %w", ErrCorrupt, err)
	}
	return Scrape{Millis: millis, Text: r.text}, nil
}

// fill reads a text, growing only as fast as bytes arrive.
func (r *Reader) fill(length int) error {
	r.text = r.text[:0]
	const step = 1 << 20
	for len(r.text) < length {
		from, to := len(r.text), min(length, len(r.text)+step)
		if to > cap(r.text) {
			r.text = append(make([]byte, 0, max(to, 2*cap(r.text))), r.text...)
		}
		r.text = r.text[:to]
		if _, err := io.ReadFull(r.buffer, r.text[from:to]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// line reads a line of the file's own, without its end.
func (r *Reader) line() (string, error) {
	text, err := r.buffer.ReadSlice('\n')
	if err != nil {
		return string(text), err
	}
	return string(text[:len(text)-1]), nil
}
