package remoteread

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/intake"
)

// spool keeps series with their chunks in the order in which they came: in memory, and from some size on in a file that has no
// name, so that nothing of it stays whatever becomes of the process. The place of a series is its handle.
//
// A record is: its length (u32, BE), the length of the labels, the labels, chunks to its end. Only this
// process reads it, so it has no checksum.
//
// One goroutine uses it.
type spool struct {
	dir         string
	memoryBytes int

	size   int64
	memory []byte // all there is, while there is no file; else what is behind written
	file   *os.File
	// written is how much is in the file.
	written int64

	record  []byte
	read    []byte
	builder labels.ScratchBuilder
}

// recordBytesMax bounds a record, and so what a reader holds at a time.
const recordBytesMax = 256 << 20

// writeBytes is how much is written to the file at a time.
const writeBytes = 1 << 20

// add puts a series with some chunks behind the others.
func (s *spool) add(ls labels.Labels, chunks []intake.Chunk) error {
	if len(chunks) == 0 {
		return nil
	}
	b := append(s.record[:0], 0, 0, 0, 0)
	length := 0
	ls.Range(func(l labels.Label) { length += stringBytes(l.Name) + stringBytes(l.Value) })
	b = binary.AppendUvarint(b, uint64(length))
	ls.Range(func(l labels.Label) { b = appendString(appendString(b, l.Name), l.Value) })
	for i := range chunks {
		c := &chunks[i]
		b = append(b, byte(c.Chunk.Encoding()))
		b = binary.AppendVarint(b, c.MinMillis)
		b = binary.AppendVarint(b, c.MaxMillis)
		data := c.Chunk.Bytes()
		b = append(binary.AppendUvarint(b, uint64(len(data))), data...)
	}
	s.record = b
	if len(b) > recordBytesMax {
		return fmt.Errorf("series %s: %d bytes of chunks at once, at most %d are taken", ls, len(b), recordBytesMax)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	s.memory = append(s.memory, b...)
	s.size += int64(len(b))
	if s.file == nil && len(s.memory) > s.memoryBytes {
		if err := s.open(); err != nil {
			return err
		}
	}
	if s.file != nil && len(s.memory) >= writeBytes {
		return s.flush()
	}
	return nil
}

func stringBytes(s string) int {
	var room [binary.MaxVarintLen64]byte
	return len(binary.AppendUvarint(room[:0], uint64(len(s)))) + len(s)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func (s *spool) open() (err error) {
	s.file, err = os.CreateTemp(s.dir, "varve-intake-*.spool")
	if err != nil {
		return fmt.Errorf("make room for samples that wait: %w; --scratch names another folder", err)
	}
	if err := os.Remove(s.file.Name()); err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

func (s *spool) flush() error {
	_, err := s.file.WriteAt(s.memory, s.written)
	if err != nil {
		return fmt.Errorf("keep samples that wait: %w; --scratch names another folder", err)
	}
	s.written += int64(len(s.memory))
	if cap(s.memory) > 4*writeBytes {
		s.memory = make([]byte, 0, 2*writeBytes)
	}
	s.memory = s.memory[:0]
	return nil
}

// rewind forgets what was added behind a place, which is a size that the spool had.
func (s *spool) rewind(place int64) error {
	s.size = place
	if place >= s.written {
		s.memory = s.memory[:place-s.written]
		return nil
	}
	s.memory, s.written = s.memory[:0], place
	return s.file.Truncate(place)
}

// ReadAt implements io.ReaderAt.
func (s *spool) ReadAt(p []byte, off int64) (n int, err error) {
	if off < s.written {
		n, err = s.file.ReadAt(p[:min(int64(len(p)), s.written-off)], off)
		if err != nil || n == len(p) {
			return n, err
		}
		off += int64(n)
	}
	if off > s.size {
		return n, io.EOF
	}
	m := copy(p[n:], s.memory[off-s.written:])
	if n += m; n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

var errSpool = errors.New("what was kept of the samples that wait can't be read")

// each calls f for each series, with its place.
func (s *spool) each(ctx context.Context, f func(ls labels.Labels, handle uint64) error) error {
	from := bufio.NewReaderSize(io.NewSectionReader(s, 0, s.size), 256<<10)
	var head [4]byte
	for place := int64(0); place < s.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return errors.Join(errSpool, err)
		}
		length := int(binary.BigEndian.Uint32(head[:]))
		size, err := binary.ReadUvarint(from)
		if err != nil || size > uint64(length) {
			return errors.Join(errSpool, err)
		}
		b := s.room(int(size))
		if _, err := io.ReadFull(from, b); err != nil {
			return errors.Join(errSpool, err)
		}
		ls, err := s.labels(b)
		if err != nil {
			return err
		}
		if err := f(ls, uint64(place)); err != nil {
			return err
		}
		rest := length - len(binary.AppendUvarint(head[:0:0], size)) - int(size)
		if _, err := from.Discard(rest); err != nil {
			return errors.Join(errSpool, err)
		}
		place += int64(length) + 4
	}
	return nil
}

func (s *spool) room(n int) []byte {
	if cap(s.read) < n {
		s.read = make([]byte, n)
	}
	return s.read[:n]
}

func (s *spool) labels(b []byte) (labels.Labels, error) {
	s.builder.Reset()
	for len(b) > 0 {
		var pair [2]string
		for i := range pair {
			n, used := binary.Uvarint(b)
			if used <= 0 || n > uint64(len(b)-used) {
				return labels.EmptyLabels(), errSpool
			}
			pair[i] = string(b[used : used+int(n)])
			b = b[used+int(n):]
		}
		s.builder.Add(pair[0], pair[1])
	}
	return s.builder.Labels(), nil
}

// chunks appends the chunks of the series at a place. They are valid until the next call of any method.
func (s *spool) chunks(handle uint64, dst []intake.Chunk) ([]intake.Chunk, error) {
	var head [4]byte
	if _, err := s.ReadAt(head[:], int64(handle)); err != nil {
		return dst, errors.Join(errSpool, err)
	}
	// Not the room of other methods: this one stays until the next call.
	b := s.room(int(binary.BigEndian.Uint32(head[:])))
	if _, err := s.ReadAt(b, int64(handle)+4); err != nil {
		return dst, errors.Join(errSpool, err)
	}
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return dst, errSpool
	}
	for b = b[used+int(n):]; len(b) > 0; {
		c := intake.Chunk{}
		e := chunkenc.Encoding(b[0])
		b = b[1:]
		for _, t := range []*int64{&c.MinMillis, &c.MaxMillis} {
			v, used := binary.Varint(b)
			if used <= 0 {
				return dst, errSpool
			}
			*t, b = v, b[used:]
		}
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			return dst, errSpool
		}
		chunk, err := chunkenc.FromData(e, b[used:used+int(n)])
		if err != nil {
			return dst, errors.Join(errSpool, err)
		}
		c.Chunk = chunk
		dst = append(dst, c)
		b = b[used+int(n):]
	}
	return dst, nil
}

func (s *spool) close() error {
	f := s.file
	s.file, s.memory, s.read, s.record = nil, nil, nil, nil
	s.size, s.written = 0, 0
	if f == nil {
		return nil
	}
	return f.Close()
}
