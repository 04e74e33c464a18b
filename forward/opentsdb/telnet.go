package opentsdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"varve/forward"
	"varve/forward/payload"
)

// saidBytesMax bounds what is kept of a server's words over telnet: of the first, and of the last.
const saidBytesMax = 4 << 10

// hangUpsMax is how often a server may hang up on a batch, while it takes shorter lines, before the batch is held to be why.
const hangUpsMax = 3

// put sends a batch as put lines over a connection of its own: see Telnet.
//
// A server that hangs up in the midst of a batch, as OpenTSDB does on a line that is longer than it reads, says nothing of why, and what has
// hung up looks like what has read all. So the batch ends with a command that the server answers, if it does: the answer shows that it read
// the lines before it. One that hangs up on a batch again and again, while it takes a shorter line than the batch's longest, refuses the batch, so
// that the core cuts it. One that takes no line at all refuses nothing: it is waited for.
func (s *Sender) put(ctx context.Context, e *encoder, b *forward.Batch) (forward.Outcome, error) {
	p := payload.Get()
	defer p.Put()
	if p.Data = e.lines(p.Data, b, &s.opts); len(p.Data) == 0 {
		return e.out, nil
	}
	for range hangUpsMax {
		hungUp, err := s.putLines(ctx, p.Data)
		switch {
		case err != nil:
			return forward.Outcome{}, err
		case !hungUp:
			s.takenBytes.Store(max(s.takenBytes.Load(), int64(e.longestBytes)))
			return e.out, nil
		}
		s.greeting.forget()
		shortest := p.Data[e.shortest[0]:e.shortest[1]]
		if len(shortest) == e.longestBytes {
			if taken := s.takenBytes.Load(); taken == 0 || taken >= int64(e.longestBytes) {
				return forward.Outcome{}, retry(errHangsUp)
			}
			continue
		}
		// A line that comes twice is one point.
		if hungUp, err = s.putLines(ctx, shortest); hungUp || err != nil {
			return forward.Outcome{}, retry(errors.Join(errHangsUp, err))
		}
		s.takenBytes.Store(int64(len(shortest)))
	}
	return forward.Outcome{}, &forward.Refused{Err: fmt.Errorf("%w, and not on shorter lines: this one is longer than it reads", errHangsUp)}
}

var errHangsUp = errors.New("put to OpenTSDB: the target hangs up")

func retry(err error) error { return &forward.Retry{Err: err} }

// putLines sends lines. It tells whether the server hung up on them; an error is what the sender is to answer.
func (s *Sender) putLines(ctx context.Context, lines []byte) (hangsUp bool, err error) {
	answer, err := s.greeting.of(ctx, s)
	if err != nil {
		return false, retry(fmt.Errorf("put to OpenTSDB: %w", err))
	}
	data := net.Buffers{lines}
	if answer != "" {
		data = append(data, []byte(ask))
	}
	heard, err := s.exchange(ctx, data, 0)
	said, whole := heard.before(answer)
	switch {
	case passing(said):
		return false, retry(fmt.Errorf("put to OpenTSDB: the target said: %s", said))
	case err != nil && !hungUp(err):
		return false, retry(fmt.Errorf("put to OpenTSDB: %w", err))
	case said != "" && (err == nil && whole || strings.HasPrefix(said, "put:")):
		return false, &forward.Refused{Err: fmt.Errorf("put to OpenTSDB: the target said: %s", said)}
	}
	return err != nil || !whole, nil
}

// hungUp tells whether a peer ended a connection that it had taken.
func hungUp(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// ask is a command that changes nothing.
const ask = "version\n"

// askPause is how long a server has to keep the connection on which it is asked: one without anybody behind it hangs up at once.
const askPause = 200 * time.Millisecond

// errEarly says that a server hung up while it was being asked.
var errEarly = errors.New("the target hangs up on everybody")

// greeting is what a server answers to ask. It is for several goroutines.
type greeting struct {
	mu    sync.Mutex // held while the server is asked
	known bool
	// text is the answer, empty if it says nothing or another thing each time.
	text          string
	asked, fickle bool
}

// of returns the greeting of the server, which is there if that is no error.
func (g *greeting) of(ctx context.Context, s *Sender) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known {
		return g.text, nil
	}
	heard, err := s.exchange(ctx, net.Buffers{[]byte(ask)}, s.askPause)
	text := heard.said()
	if (err == nil || errors.Is(err, errEarly)) && strings.HasPrefix(text, "HTTP/") {
		// VictoriaMetrics takes what does not begin with put for HTTP, and hangs up on that, early or late. It is there.
		text, err = "", nil
	}
	if err != nil {
		return "", err
	}
	if g.fickle = g.fickle || g.asked && text != g.text; g.fickle {
		text = ""
	}
	g.text, g.known, g.asked = text, true, true
	return text, nil
}

// forget has the server be asked again.
func (g *greeting) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known = false
}

// exchange sends data, says after a pause that no more comes, and returns what the server said until it closed its side.
func (s *Sender) exchange(ctx context.Context, data net.Buffers, pause time.Duration) (heard words, err error) {
	d := net.Dialer{Timeout: s.opts.Timeout}
	conn, err := d.DialContext(ctx, "tcp", s.opts.URL)
	if err != nil {
		return words{}, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(s.opts.Timeout)); err != nil {
		return words{}, err
	}
	stop := context.AfterFunc(ctx, func() {
		// A deadline in the past ends what is under way. If it can't be set the connection is gone anyway.
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	defer stop()

	// The server may talk while lines come in: who doesn't listen stops it from reading.
	listened := make(chan error, 1)
	go func() { listened <- heard.listen(conn) }()
	_, err = data.WriteTo(conn)
	var ended error
	over := false
	if err == nil && pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case ended = <-listened:
			over, err = true, errors.Join(errEarly, ended)
		case <-timer.C:
		}
	}
	if err == nil {
		err = conn.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		// Ends the listener, which then has the reason that the server gave, if it gave one.
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
	if !over {
		ended = <-listened
	}
	if err == nil {
		err = ended
	}
	if said := heard.said(); err != nil && said != "" {
		err = fmt.Errorf("%w; the target said: %s", err, said)
	}
	return heard, err
}

// words are what a server said: how it began and how it ended.
type words struct{ first, last []byte }

// listen reads until the peer closes its side.
func (w *words) listen(conn net.Conn) error {
	part := make([]byte, saidBytesMax)
	for {
		n, err := conn.Read(part)
		w.first = append(w.first, part[:min(n, saidBytesMax-len(w.first))]...)
		w.last = append(w.last, part[:n]...)
		w.last = w.last[max(0, len(w.last)-saidBytesMax):]
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func clean(b []byte) string { return strings.TrimSpace(strings.ToValidUTF8(string(b), "?")) }

// said is how it began.
func (w *words) said() string { return clean(w.first) }

// before is what was said but for the answer to ask, and whether that stands at the end. Without an answer it is all.
func (w *words) before(answer string) (said string, answered bool) {
	if answer == "" {
		return w.said(), true
	}
	// A welcome at the beginning is of the answer too.
	others := strings.Split(w.said(), "\n")
	of := strings.Split(answer, "\n")
	for _, line := range of {
		if i := slices.Index(others, line); i >= 0 {
			others = slices.Delete(others, i, i+1)
		}
	}
	return strings.Join(others, "\n"), strings.HasSuffix(clean(w.last), of[len(of)-1])
}
