package opentsdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"varve/arrival"
	"varve/ingest"
)

// session is one connection. Its steps, until the client has closed its side, said exit, or is idle for too long:
//
//  1. Lines are read into buf. The first that comes begins a batch; those that follow at once belong to it.
//  2. flush reads the whole lines of buf, adds their points and writes them. It does so again, from the same bytes, until the archive takes them.
//  3. What was refused is said to the client, and the rest of buf, a begun line, moves to its start.
type session struct {
	t    *Telnet
	conn net.Conn

	buf  []byte
	held int64 // of the budget
	// skipping: what comes until the end of the line is the rest of one that was too long.
	skipping bool
	// last is when reading ends for good in a stop, once it has ended for the first time: what had come by then is read by then, however late this
	// goroutine was.
	last time.Time
	// muted: the client doesn't read what it is told.
	muted bool

	d        *ingest.Delivery
	identity []byte
	tags     []pair
	answers  []byte
	// ends: the client said exit.
	ends   bool
	nameIt func(place uint64, sets *ingest.LabelSets) error
	sets   *ingest.LabelSets
}

// firstBufBytes is the buffer that a connection begins with.
const firstBufBytes = 4 << 10

// stopGrace is how long Shutdown lets a connection bring what is on its way.
const stopGrace = 100 * time.Millisecond

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

func newSession(t *Telnet, conn net.Conn) *session {
	s := &session{t: t, conn: conn, sets: ingest.NewLabelSets(t.port.Limits())}
	s.nameIt = s.name
	return s
}

// hurry ends a read that is under way, when nothing more is to be read.
func (s *session) hurry() {
	// A connection that is gone can't be hurried.
	_ = s.conn.SetReadDeadline(time.Unix(0, s.t.readUntilNanos.Load()))
}

func (s *session) run() {
	budget := s.t.port.Limits().InFlight
	defer func() {
		budget.Release(s.held)
		// What was to be said is said. The client may have gone first.
		_ = s.conn.Close()
	}()
	if !s.grow(firstBufBytes) {
		s.log(1, ingest.ErrOverload)
		return
	}
	stop := context.AfterFunc(s.t.aborting, func() { _ = s.conn.SetReadDeadline(longAgo) })
	defer stop()
	for {
		err := s.gather()
		if flushed := s.flush(); flushed != nil {
			s.log(1, flushed)
			s.say(fmt.Sprintf("put: Storage exception: %s\n", flushed))
			return
		}
		s.speak()
		switch {
		case s.ends:
			return
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded):
			s.cutOff()
			return
		case err != nil:
			return
		}
	}
}

// grow makes the buffer larger if the budget has room.
func (s *session) grow(size int) bool {
	size = min(size, s.t.opts.BatchBytes)
	if more := int64(size) - s.held; more > 0 {
		if !s.t.port.Limits().InFlight.TryAcquire(more) {
			return false
		}
		s.held += more
	}
	if cap(s.buf) < size {
		s.buf = append(make([]byte, 0, size), s.buf...)
	}
	return true
}

// gather reads until there is a batch: at least a whole line, and what more comes shortly. An error is one of the connection; what came before is in buf.
func (s *session) gather() error {
	deadline, began := time.Now().Add(s.t.opts.IdleTimeout), false
	for {
		if len(s.buf) == cap(s.buf) {
			if more, err := s.room(began); !more || err != nil {
				return err
			}
		}
		if err := s.setDeadline(deadline); err != nil {
			return err
		}
		n, err := s.conn.Read(s.buf[len(s.buf):cap(s.buf)])
		seen := len(s.buf)
		s.buf = s.buf[:seen+n]
		if !began && bytes.IndexByte(s.buf[seen:], '\n') >= 0 {
			began, deadline = true, time.Now().Add(s.t.opts.BatchDelay)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			switch {
			case s.t.stopping.Err() == nil && began:
				return nil
			case s.t.stopping.Err() != nil && s.t.aborting.Err() == nil && s.last.IsZero():
				s.last = time.Now().Add(stopGrace)
				continue
			}
		}
		if err != nil {
			return err
		}
	}
}

// room makes room in a buffer that is full. It returns false if the batch has to be written first.
func (s *session) room(began bool) (bool, error) {
	for {
		switch {
		case len(s.buf) >= s.t.opts.BatchBytes && !began:
			s.tooLong()
			return false, nil
		case len(s.buf) >= s.t.opts.BatchBytes:
			return false, nil
		case s.grow(2 * cap(s.buf)):
			return true, nil
		case began:
			return false, nil
		}
		if !s.wait(retryFirst) {
			return false, ingest.ErrOverload
		}
	}
}

// wait returns false if the connection has to end before.
func (s *session) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.t.aborting.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (s *session) setDeadline(at time.Time) error {
	if err := s.conn.SetReadDeadline(at); err != nil {
		return err
	}
	switch {
	case s.t.aborting.Err() != nil:
		return s.conn.SetReadDeadline(longAgo)
	case !s.last.IsZero():
		return s.conn.SetReadDeadline(s.last)
	case s.t.stopping.Err() != nil:
		// It may have been hurried before the deadline was set.
		s.hurry()
	}
	return nil
}

// tooLong makes room when the buffer is full of one line: its rest is skipped.
func (s *session) tooLong() {
	if !s.skipping {
		s.skipping = true
		s.refuseLong()
	}
	s.buf = s.buf[:0]
}

func (s *session) refuseLong() {
	d := s.t.port.Delivery()
	err := fmt.Errorf("the line has more than %d bytes", s.t.opts.LineBytesMax)
	d.Refuse(arrival.ReasonInvalidLine, 1, err)
	d.End(statusOf(d.Result()))
	s.answer("put: illegal argument: ", err)
}

// whole is how many bytes of the buffer are whole lines.
func (s *session) whole() int { return bytes.LastIndexByte(s.buf, '\n') + 1 }

// Waits between attempts to write, when the archive says nothing of its own.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
)

// flush writes the whole lines of the buffer, however long it takes. The error is the last one of the archive if the connection has to end before.
func (s *session) flush() error {
	whole := s.whole()
	if whole == 0 {
		return nil
	}
	before, skipping := len(s.answers), s.skipping
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := s.write(s.buf[:whole])
		if err == nil {
			break
		}
		s.log(1, err)
		if _, after := ingest.Status(err); after > 0 {
			wait = max(wait, min(after, retryMost))
		}
		if !s.wait(wait) {
			return err
		}
		s.answers, s.skipping, s.ends = s.answers[:before], skipping, false
	}
	s.buf = append(s.buf[:0], s.buf[whole:]...)
	return nil
}

// write tries once to write the points of lines.
func (s *session) write(lines []byte) error {
	s.d = s.t.port.Delivery()
	err := s.addLines(lines)
	if err == nil {
		err = s.d.Write(s.t.aborting, s.nameIt)
	}
	if err != nil {
		code, _ := ingest.Status(err)
		s.d.End(code)
		return err
	}
	if refused := s.d.Refusals(); refused != "" {
		s.log(0, errors.New(refused))
	}
	s.d.End(statusOf(s.d.Result()))
	return nil
}

func (s *session) addLines(lines []byte) error {
	for at := 0; at < len(lines) && !s.ends; {
		n := bytes.IndexByte(lines[at:], '\n')
		line := bytes.TrimSuffix(lines[at:at+n], []byte("\r"))
		switch {
		case s.skipping:
			s.skipping = false
		case len(line) > s.t.opts.LineBytesMax:
			err := fmt.Errorf("the line has more than %d bytes", s.t.opts.LineBytesMax)
			s.d.Refuse(arrival.ReasonInvalidLine, 1, err)
			s.answer("put: illegal argument: ", err)
		default:
			if err := s.command(line, at); err != nil {
				return err
			}
		}
		at += n + 1
	}
	return nil
}

// command does what a line asks for, which begins at a byte of the buffer.
func (s *session) command(line []byte, at int) error {
	first, rest := word(line)
	switch string(first) {
	case "put":
		return s.put(rest, at+len(line)-len(rest))
	case "":
	case "version":
		s.reply("net.opentsdb 2.4.0 built at revision varve (MODIFIED)\n")
	case "help":
		s.reply("available commands: exit help put version\n")
	case "exit", "quit":
		s.ends = true
	default:
		s.d.Refuse(arrival.ReasonInvalidLine, 1, fmt.Errorf("unknown command %s", quoted(string(first))))
		s.reply("unknown command: " + printable(first) + ".  Try `help'.\n")
	}
	return nil
}

// put takes what stands behind "put", from a byte of the buffer on.
func (s *session) put(rest []byte, at int) error {
	l := parsePut(rest)
	millis, bits, reason, err := l.judge()
	if err != nil {
		s.d.Refuse(reason, 1, err)
		kind := "put: illegal argument: "
		if reason == arrival.ReasonInvalidValue {
			kind = "put: invalid value: "
		}
		s.answer(kind, err)
		return nil
	}
	s.identity = l.appendIdentity(s.identity[:0])
	return s.d.Add(s.t.seed.Hash(s.identity), uint64(at)<<32|uint64(len(rest)), millis, bits)
}

// name adds the labels of the line at a place of the buffer, and says what is wrong with them.
func (s *session) name(place uint64, sets *ingest.LabelSets) (err error) {
	from := int(place >> 32)
	l := parsePut(s.buf[from : from+int(uint32(place))])
	labelsMax := s.t.port.Limits().LabelsMax
	s.sets.Clear()
	if s.tags, err = s.t.opts.addLine(s.sets, &l, s.tags, labelsMax); err == nil {
		_, err = s.sets.Series()
	}
	if err != nil {
		s.answer("put: illegal argument: ", err)
		return err
	}
	s.tags, err = s.t.opts.addLine(sets, &l, s.tags, labelsMax)
	return err
}

// answersMax bounds what is said of one batch.
const answersMax = 64 << 10

func (s *session) reply(text string) {
	if len(s.answers) < answersMax {
		s.answers = append(s.answers, text...)
	}
}

func (s *session) answer(kind string, err error) { s.reply(kind + err.Error() + "\n") }

// speak says the answers that have gathered.
func (s *session) speak() {
	if len(s.answers) > 0 {
		s.say(text(s.answers))
		s.answers = s.answers[:0]
	}
}

func (s *session) say(words string) {
	if s.muted {
		return
	}
	err := s.conn.SetWriteDeadline(time.Now().Add(s.t.opts.AnswerTimeout))
	if err == nil {
		_, err = io.WriteString(s.conn, words)
	}
	s.muted = err != nil
}

// cutOff refuses a line whose end never came.
func (s *session) cutOff() {
	if s.skipping || len(bytes.TrimSpace(s.buf)) == 0 {
		return
	}
	err := errors.New("the last line has no end")
	d := s.t.port.Delivery()
	d.Refuse(arrival.ReasonInvalidLine, 1, err)
	s.log(0, err)
	d.End(statusOf(d.Result()))
	s.say("put: illegal argument: " + err.Error() + "\n")
}

// log writes a line, unless there was one not long ago: the metrics count them all.
func (s *session) log(class int, err error) {
	if !s.t.lines.Due(class, s.t.now()) {
		return
	}
	if class == 1 {
		s.t.logger.Error("OpenTSDB lines not written", "remote", s.conn.RemoteAddr(), "reason", err)
		return
	}
	s.t.logger.Warn("OpenTSDB lines not accepted in full", "remote", s.conn.RemoteAddr(), "reason", err)
}
