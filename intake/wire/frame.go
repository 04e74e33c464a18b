package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ErrMalformed is wrapped by everything that is wrong with bytes that came over the wire.
var ErrMalformed = errors.New("malformed intake stream")

// errTooLarge is a frame over the limit.
var errTooLarge = fmt.Errorf("%w: too large", ErrMalformed)

// kind says what a frame holds. The numbers are on the wire and never change their meaning.
type kind byte

const (
	kindSeries      kind = 1  // to resolve: label sets
	kindResolved    kind = 2  // the answer: refs and metrics, or why not
	kindDay         kind = 3  // series of a leased day: refs and chunks
	kindSamples     kind = 4  // series for the write port: label sets and chunks
	kindDayReport   kind = 5  // the day is committed
	kindWriteReport kind = 6  // what became of samples at the write port
	kindDigests     kind = 7  // refs and digests of a committed day
	kindEnd         kind = 8  // nothing follows; how many of what came before
	kindFault       kind = 9  // what went wrong after the answer had begun
	kindAlive       kind = 10 // nothing, but somebody is there
)

// frameHeadBytes is the length of what stands before a payload:
//
//	┌──────┬────────────────┬─────────────────────────────────────┐
//	│ kind │ payload length │ CRC32C of kind, length and payload  │
//	│  u8  │    u32, BE     │               u32, BE               │
//	└──────┴────────────────┴─────────────────────────────────────┘
const frameHeadBytes = 9

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// beginFrame appends room for a frame's head; what is appended behind is its payload.
func beginFrame(dst []byte) []byte { return append(dst, make([]byte, frameHeadBytes)...) }

// endFrame fills in the head of the frame that b is, from its first byte to its last.
func endFrame(b []byte, k kind) {
	b[0] = byte(k)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-frameHeadBytes))
	binary.BigEndian.PutUint32(b[5:], frameSum(b[:5], b[frameHeadBytes:]))
}

func frameSum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

// readStep is how much room is made for a payload at a time, before its bytes are there.
const readStep = 1 << 20

// frameReader reads frames. One goroutine uses it.
type frameReader struct {
	from io.Reader
	// max is the longest payload.
	max  int
	head [frameHeadBytes]byte
	buf  []byte
}

// next returns the next frame. The payload is valid until the next call. An end between frames is
// io.ErrUnexpectedEOF too: a stream ends with a frame that says so.
func (r *frameReader) next() (kind, []byte, error) {
	if _, err := io.ReadFull(r.from, r.head[:]); err != nil {
		return 0, nil, cutShort(err)
	}
	n := binary.BigEndian.Uint32(r.head[1:])
	if uint64(n) > uint64(r.max) {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes, at most %d are allowed", errTooLarge, n, r.max)
	}
	r.buf = r.buf[:0]
	for left := int(n); left > 0; {
		step := min(left, max(readStep, cap(r.buf)-len(r.buf)))
		at := len(r.buf)
		if cap(r.buf)-at < step {
			r.buf = append(make([]byte, 0, min(int(n), 2*cap(r.buf)+step)), r.buf...)
		}
		r.buf = r.buf[:at+step]
		if _, err := io.ReadFull(r.from, r.buf[at:]); err != nil {
			return 0, nil, cutShort(err)
		}
		left -= step
	}
	if sum := binary.BigEndian.Uint32(r.head[5:]); sum != frameSum(r.head[:5], r.buf) {
		return 0, nil, fmt.Errorf("%w: the checksum of a frame is wrong", ErrMalformed)
	}
	return kind(r.head[0]), r.buf, nil
}

// ended requires that nothing follows.
func (r *frameReader) ended() error {
	switch n, err := io.ReadFull(r.from, r.head[:1]); {
	case n > 0:
		return fmt.Errorf("%w: bytes behind its end", ErrMalformed)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// payload reads what stands in a frame. After the first fault all it reads is zero, and fault says what it was.
type payload struct {
	b     []byte
	fault error
}

func (p *payload) fail(what string) {
	if p.fault == nil {
		p.fault = fmt.Errorf("%w: %s", ErrMalformed, what)
		p.b = nil
	}
}

func (p *payload) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.fail("a number is cut")
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *payload) varint() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.fail("a number is cut")
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *payload) fixed64() uint64 {
	if len(p.b) < 8 {
		p.fail("a hash is cut")
		return 0
	}
	v := binary.BigEndian.Uint64(p.b)
	p.b = p.b[8:]
	return v
}

func (p *payload) octet() byte {
	if len(p.b) == 0 {
		p.fail("a byte is missing")
		return 0
	}
	v := p.b[0]
	p.b = p.b[1:]
	return v
}

// bytes reads a length and as many bytes, which are those of the frame.
func (p *payload) bytes() []byte {
	n := p.uvarint()
	if n > uint64(len(p.b)) {
		p.fail("a length is larger than what is there")
		return nil
	}
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}

// count reads how many of something follow that takes at least least bytes each.
func (p *payload) count(least int) int {
	n := p.uvarint()
	if n > uint64(len(p.b)/least) {
		p.fail("a count is larger than what is there")
		return 0
	}
	return int(n)
}

// end requires that all is read.
func (p *payload) end() error {
	if p.fault == nil && len(p.b) > 0 {
		p.fail("bytes behind the last record of a frame")
	}
	return p.fault
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
