package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// importer sends files piece by piece: it reads to the end of a record, sends, and notes how far it came when the server has
// stored the piece. A piece that was stored and not noted is sent again, which changes nothing.
type importer struct {
	sender     *importSender
	cut        cutter
	header     int
	pieceBytes int
	// stop ends the import when something is refused. Else it goes on and tells at the end: good lines are stored in
	// any case, so stopping would only leave more for later.
	stop, restart bool
	stateFile     string
	out, errors   io.Writer
	progress      *importProgress
	// shown counts the refusals that were printed.
	shown int
}

// shownMax is how many refusals are printed.
const shownMax = 10

// importStateSuffix is the end of the name of a state file beside the data.
const importStateSuffix = ".varve-import"

// files sends all files, one after the other.
func (i *importer) files(ctx context.Context, names []string) error {
	refused := int64(0)
	i.sender.retried = i.progress.retrying
	for _, name := range names {
		m, err := i.file(ctx, name)
		i.progress.end()
		if m != nil {
			refused += m.Refused
			fmt.Fprintf(i.out, "%s: %d samples stored, %d refused, %d bytes sent\n", name, m.Samples, m.Refused, m.Offset)
		}
		if err != nil {
			return fmt.Errorf("import %s: %w", name, err)
		}
	}
	if refused > 0 {
		if int64(i.shown) < refused {
			fmt.Fprintf(i.errors, "%d refused in all, the first are shown\n", refused)
		}
		return errFound
	}
	return nil
}

// file sends one file from where it was left.
func (i *importer) file(ctx context.Context, name string) (m *importMark, err error) {
	if name == "-" {
		m = &importMark{}
		return m, i.pieces(ctx, name, os.Stdin, 0, m, func() error { return nil })
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	state, m, err := i.resume(name, f)
	if err != nil {
		return nil, err
	}
	if m.Done {
		return m, nil
	}
	from, closing, err := decompressed(name, f, m.Offset)
	if err != nil {
		return m, err
	}
	defer closing()
	size := int64(0)
	if from == io.Reader(f) {
		size = m.Size
	}
	err = i.pieces(ctx, name, from, size, m, state.write)
	if err == nil {
		m.Done = true
		err = state.write()
	}
	return m, err
}

// resume returns how far the file was sent.
func (i *importer) resume(name string, f *os.File) (*importState, *importMark, error) {
	path := i.stateFile
	if path == "" {
		path = name + importStateSuffix
	}
	state, err := readImportState(path)
	if err != nil {
		return nil, nil, err
	}
	absolute, err := filepath.Abs(name)
	if err != nil {
		return nil, nil, err
	}
	key := absolute + " " + i.sender.target.Redacted() + "?" + i.sender.parameters.Encode()
	m := state.Files[key]
	if m != nil && !i.restart {
		grown, err := m.check(f)
		if err != nil {
			return nil, nil, err
		}
		if grown {
			m.Done = false
			m.Offset, m.Lines = m.Offset-m.Open, m.Lines-m.OpenLines
			m.Open, m.OpenLines = 0, 0
		}
	} else {
		m = &importMark{}
		state.Files[key] = m
	}
	m.importIdentity, err = identify(f, -1)
	return state, m, err
}

// decompressed returns what is in the file behind the offset.
func decompressed(name string, f *os.File, offset int64) (from io.Reader, closing func(), err error) {
	closing = func() {}
	switch filepath.Ext(name) {
	case ".gz":
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, closing, err
		}
		from = z
	case ".zst":
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, closing, err
		}
		from, closing = z, z.Close
	default:
		_, err = f.Seek(offset, io.SeekStart)
		return f, closing, err
	}
	// There is no other way to the offset than through what is before it.
	_, err = io.CopyN(io.Discard, from, offset)
	return from, closing, err
}

// pieces sends what from has, and calls taken when a piece was stored.
func (i *importer) pieces(ctx context.Context, name string, from io.Reader, size int64, m *importMark, taken func() error) error {
	family := carriedFamily{name: m.Family, lines: []byte(m.Comments)}
	carries := strings.HasSuffix(i.sender.target.Path, "/prometheus")
	i.progress.begin(name, size, m)
	buf := make([]byte, 0, i.pieceBytes)
	for ended := false; !ended; {
		n, err := io.ReadFull(from, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && !isCompressed(name):
			ended = true
		case errors.Is(err, io.ErrUnexpectedEOF):
			// ReadFull says so at a usual end, too: a decompressor that was cut short says it again.
			if _, err := from.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				return fmt.Errorf("the file ends early: %w", err)
			}
			ended = true
		case err != nil:
			return err
		}
		end := len(buf)
		if !ended {
			if end = i.cut(buf); end == 0 {
				// A record that is longer than a piece: the server refuses it, in bounded memory.
				buf = append(make([]byte, 0, 2*cap(buf)), buf...)
				if cap(buf) > importRecordBytesMax {
					return fmt.Errorf("%s:%d: a record of more than %d bytes", name, m.Lines+1, importRecordBytesMax/2)
				}
				continue
			}
		}
		if end > 0 {
			refused := m.Refused
			if err := i.piece(ctx, name, buf[:end], &family, carries, m); err != nil {
				return err
			}
			if ended {
				i.leaveOpen(buf[:end], m)
			}
			if err := taken(); err != nil {
				return fmt.Errorf("write the state file: %w", err)
			}
			i.progress.sent(m)
			if refused = m.Refused - refused; i.stop && refused > 0 {
				return fmt.Errorf("%d refused; what is good of this piece is stored, and the next run goes on behind it", refused)
			}
		}
		buf = buf[:copy(buf, buf[end:])]
	}
	return nil
}

// leaveOpen notes what of a file's last piece is sent again when the file has grown: a record that may have been in the
// middle of being written.
func (i *importer) leaveOpen(piece []byte, m *importMark) {
	m.Open, m.OpenLines = 0, 0
	if piece[len(piece)-1] != '\n' {
		open := piece[i.cut(piece):]
		m.Open, m.OpenLines = int64(len(open)), countLines(open)
	}
}

// importRecordBytesMax bounds the memory for one record.
const importRecordBytesMax = 64 << 20

func isCompressed(name string) bool {
	return strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".zst")
}

// piece sends one piece and notes what became of it.
func (i *importer) piece(ctx context.Context, name string, b []byte, family *carriedFamily, carries bool, m *importMark) error {
	body, ahead := b, int64(0)
	if carries && len(family.lines) > 0 {
		body = append(append(make([]byte, 0, len(family.lines)+len(b)), family.lines...), b...)
		ahead = countLines(family.lines)
	}
	header := 0
	if m.Offset == 0 {
		header = i.header
	}
	a, err := i.sender.send(ctx, body, header)
	if err != nil {
		return fmt.Errorf("lines from %d on: %w", m.Lines+1, err)
	}
	i.report(name, m.Lines-ahead, &a)
	if carries {
		family.see(b)
		m.Family, m.Comments = family.name, string(family.lines)
	}
	m.Offset += int64(len(b))
	m.Lines += countLines(b)
	m.Samples += a.Samples
	m.Refused += a.Refused
	return nil
}

func countLines(b []byte) (n int64) {
	for _, c := range b {
		if c == '\n' {
			n++
		}
	}
	return n
}

// exampleLine is where the server names a line.
var exampleLine = regexp.MustCompile(`^line (\d+):? ?`)

// report prints what was refused, with the number of the line in the file. before is how many lines of it were sent earlier.
func (i *importer) report(name string, before int64, a *importAnswer) {
	for _, e := range a.Examples {
		if i.shown == shownMax {
			return
		}
		i.shown++
		where := name
		if m := exampleLine.FindStringSubmatch(e); m != nil {
			// It is digits.
			n, _ := strconv.ParseInt(m[1], 10, 64)
			where, e = fmt.Sprintf("%s:%d", name, before+n), e[len(m[0]):]
		}
		i.progress.end()
		fmt.Fprintf(i.errors, "%s: %s\n", where, e)
	}
}
