package otlp

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"

	"varve/ingest"
)

// zstdWindowMax bounds the memory of a decoder: senders' windows are 8 MiB and less.
const zstdWindowMax = 8 << 20

// readBody reads and decompresses the body of a request. It is the delivery's.
func (h *Handler) readBody(r *http.Request, d *ingest.Delivery) ([]byte, error) {
	if !strings.EqualFold(r.Header.Get("Content-Encoding"), "zstd") {
		return d.ReadBody(r)
	}
	if r.ContentLength > h.limits.CompressedBytesMax {
		return nil, fmt.Errorf("%w: %d bytes compressed, at most %d", ingest.ErrTooBig, r.ContentLength, h.limits.CompressedBytesMax)
	}
	decoder, _ := h.decoders.Get().(*zstd.Decoder)
	if decoder == nil {
		var err error
		// With a concurrency of one the decoder starts no goroutines.
		if decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindowMax), zstd.WithDecoderLowmem(true)); err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
	}
	wire := &wireReader{r: r.Body, left: h.limits.CompressedBytesMax}
	if err := decoder.Reset(wire); err != nil {
		return nil, fmt.Errorf("%w zstd: %w", ingest.ErrMalformed, err)
	}
	plain := *r
	plain.Header = http.Header{}
	plain.ContentLength = -1
	plain.Body = io.NopCloser(&zstdReader{decoder: decoder, wire: wire})
	body, err := d.ReadBody(&plain)
	if resetErr := decoder.Reset(nil); resetErr == nil {
		h.decoders.Put(decoder)
	}
	return body, err
}

// zstdReader tells bytes that are no zstd from a connection that broke.
type zstdReader struct {
	decoder *zstd.Decoder
	wire    *wireReader
}

// Read implements io.Reader.
func (z *zstdReader) Read(p []byte) (int, error) {
	n, err := z.decoder.Read(p)
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return n, err
	case z.wire.err != nil:
		return n, z.wire.err
	}
	return n, fmt.Errorf("%w zstd: %w", ingest.ErrMalformed, err)
}

// wireReader reads at most left bytes and remembers what the connection said.
type wireReader struct {
	r    io.Reader
	left int64
	err  error
}

// Read implements io.Reader.
func (w *wireReader) Read(p []byte) (int, error) {
	if w.left < 0 {
		return 0, w.err
	}
	if int64(len(p)) > w.left+1 {
		p = p[:w.left+1]
	}
	n, err := w.r.Read(p)
	if w.left -= int64(n); w.left < 0 {
		w.err = fmt.Errorf("%w on the wire", ingest.ErrTooBig)
		return n, w.err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
