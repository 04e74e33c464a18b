package nats

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"varve/durable"
)

// letter is a line of the file of dead letters: a message that was refused.
type letter struct {
	// Time is when it was refused, Outcome poison or partial, Reason why.
	Time    time.Time `json:"time"`
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason"`
	// Subject and the rest say where it was. Published is when the stream took it, in Unix nanoseconds.
	Subject   string `json:"subject"`
	Stream    string `json:"stream,omitempty"`
	Sequence  uint64 `json:"sequence,omitempty"`
	Published int64  `json:"published,omitempty"`
	// Payload is in base64.
	Payload []byte `json:"payload"`
}

const (
	letterFile     = ".jsonl"
	letterFileOld  = ".jsonl.old"
	letterFileMode = 0o600
	letterDirMode  = 0o700
	// buriedMax bounds the places that are remembered: 64 bytes and an entry of a map each.
	buriedMax = 1 << 16
)

// deadLetters is where refused messages go, and the memory of which did. It is safe for use by several goroutines.
type deadLetters struct {
	opts DeadLetters
	name string

	mu   sync.Mutex // guards what follows
	file *os.File
	size int64
	// buried are the places of messages that have a letter, in two generations.
	buried, buriedBefore map[place]struct{}
}

// newDeadLetters reads the letters that are there, so that no message gets a second one.
func newDeadLetters(name string, opts DeadLetters) (*deadLetters, error) {
	d := &deadLetters{opts: opts, name: url.PathEscape(name), buried: make(map[place]struct{})}
	if opts.Directory == "" {
		return d, nil
	}
	for _, path := range []string{d.path(letterFileOld), d.path(letterFile)} {
		if err := d.recall(path); err != nil {
			return nil, fmt.Errorf("read dead letters: %w", err)
		}
	}
	return d, nil
}

func (d *deadLetters) path(ending string) string {
	return filepath.Join(d.opts.Directory, d.name+ending)
}

// recall remembers the letters of a file. Lines that can't be read say nothing.
func (d *deadLetters) recall(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if at, ok := parseLetter(line); ok {
			d.remember(at)
		}
		if errors.Is(err, io.EOF) {
			return f.Close()
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
}

// parseLetter reads the place of the message that a line holds.
func parseLetter(line []byte) (place, bool) {
	var l letter
	if json.Unmarshal(line, &l) != nil || l.Stream == "" || l.Sequence == 0 {
		return place{}, false
	}
	return place{subject: l.Subject, stream: l.Stream, sequence: l.Sequence, publishedNanos: l.Published}, true
}

func (d *deadLetters) remember(at place) {
	if at.sequence == 0 {
		return
	}
	if len(d.buried) >= buriedMax {
		d.buriedBefore, d.buried = d.buried, make(map[place]struct{})
	}
	d.buried[at] = struct{}{}
}

// knows says whether the message of a place has a letter.
func (d *deadLetters) knows(at place) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, young := d.buried[at]
	_, old := d.buriedBefore[at]
	return young || old
}

// grave is a message that is to get a letter.
type grave struct {
	*message
	outcome outcome
	reason  string
}

// bury writes the letter of a message. When it returns nil the letter is durable and the place remembered.
func (d *deadLetters) bury(ctx context.Context, conn *nats.Conn, g grave, now time.Time) error {
	if d.opts.Subject != "" {
		if err := d.publish(ctx, conn, g); err != nil {
			return fmt.Errorf("publish a dead letter: %w", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opts.Directory != "" {
		if err := d.append(g, now); err != nil {
			return fmt.Errorf("write a dead letter: %w", err)
		}
	}
	d.remember(g.at)
	return nil
}

// append writes a line and syncs it. Called with mu held.
func (d *deadLetters) append(g grave, now time.Time) error {
	line, err := json.Marshal(letter{
		Time: now.UTC(), Outcome: outcomeTexts[g.outcome], Reason: g.reason,
		Subject: g.at.subject, Stream: g.at.stream, Sequence: g.at.sequence, Published: g.at.publishedNanos, Payload: g.data,
	})
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if d.file == nil {
		if err := d.open(); err != nil {
			return err
		}
	}
	if d.size > 0 && d.size+int64(len(line)) > d.opts.FileBytes {
		if err := d.rotate(); err != nil {
			return err
		}
	}
	if _, err = d.file.Write(line); err == nil {
		err = d.file.Sync()
	}
	if err != nil {
		// What came half is cut off, or else when the file is opened again.
		err = errors.Join(err, d.file.Truncate(d.size), d.file.Close())
		d.file = nil
		return err
	}
	d.size += int64(len(line))
	return nil
}

// open opens the file behind its last whole line.
func (d *deadLetters) open() error {
	if err := os.MkdirAll(d.opts.Directory, letterDirMode); err != nil {
		return err
	}
	f, err := os.OpenFile(d.path(letterFile), os.O_RDWR|os.O_CREATE|os.O_APPEND, letterFileMode)
	if err != nil {
		return err
	}
	size, err := wholeLines(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = durable.Sync(d.opts.Directory)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	d.file, d.size = f, size
	return nil
}

// wholeLines is the length of a file up to the end of its last whole line.
func wholeLines(f *os.File) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	block := make([]byte, 64<<10)
	for at := size; err == nil && at > 0; {
		n := min(int64(len(block)), at)
		at -= n
		if _, err = f.ReadAt(block[:n], at); err != nil {
			break
		}
		if i := bytes.LastIndexByte(block[:n], '\n'); i >= 0 {
			return at + int64(i) + 1, nil
		}
	}
	return 0, err
}

// rotate puts the file aside and begins another.
func (d *deadLetters) rotate() error {
	err := errors.Join(d.file.Close(), os.Rename(d.path(letterFile), d.path(letterFileOld)))
	d.file = nil
	if err != nil {
		return err
	}
	return d.open()
}

// Headers of dead letters on a subject.
const (
	headerOutcome   = "Varve-Outcome"
	headerReason    = "Varve-Reason"
	headerSubject   = "Varve-Subject"
	headerStream    = "Varve-Stream"
	headerSequence  = "Varve-Sequence"
	headerPublished = "Varve-Published"
	// headerLeftOut is how many bytes of payload are left out.
	headerLeftOut = "Varve-Payload-Left-Out"
)

// publishTimeout bounds the wait for a stream to take a letter.
const publishTimeout = 10 * time.Second

// publish sends the message to the subject for dead letters. With JetStream a stream has acknowledged it then. A message
// that with its headers is more than the server takes goes without its payload: it would never go otherwise.
func (d *deadLetters) publish(ctx context.Context, conn *nats.Conn, g grave) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	m := &nats.Msg{Subject: d.opts.Subject, Data: g.data, Header: nats.Header{
		headerOutcome: {outcomeTexts[g.outcome]}, headerReason: {strconv.QuoteToASCII(g.reason)}, headerSubject: {g.at.subject},
	}}
	err := d.send(ctx, conn, m, g.at)
	if !tooLarge(err) {
		return err
	}
	m.Data = nil
	m.Header[headerLeftOut] = []string{strconv.Itoa(len(g.data))}
	return d.send(ctx, conn, m, g.at)
}

// errCodeTooLarge is the server's, of a message that is larger than its stream takes.
const errCodeTooLarge jetstream.ErrorCode = 10054

func tooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.ErrorCode == errCodeTooLarge
}

func (d *deadLetters) send(ctx context.Context, conn *nats.Conn, m *nats.Msg, at place) error {
	if at.sequence == 0 {
		if err := conn.PublishMsg(m); err != nil {
			return err
		}
		return conn.FlushWithContext(ctx)
	}
	m.Header[headerStream] = []string{at.stream}
	m.Header[headerSequence] = []string{strconv.FormatUint(at.sequence, 10)}
	m.Header[headerPublished] = []string{strconv.FormatInt(at.publishedNanos, 10)}
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	// The server swallows a second letter of the message.
	_, err = js.PublishMsg(ctx, m, jetstream.WithMsgID(fmt.Sprintf("%s-%d-%d", at.stream, at.sequence, at.publishedNanos)))
	return err
}

func (d *deadLetters) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil
	}
	err := d.file.Close()
	d.file = nil
	return err
}
