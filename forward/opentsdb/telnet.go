package opentsdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"varve/forward"
	"varve/forward/payload"
)

// saidBytesMax bounds what is kept of a server's words over telnet.
const saidBytesMax = 4 << 10

// put sends a batch as put lines over a connection of its own: see Telnet.
func (s *Sender) put(ctx context.Context, e *encoder, b *forward.Batch) (forward.Outcome, error) {
	p := payload.Get()
	defer p.Put()
	if p.Data = e.lines(p.Data, b, &s.opts); len(p.Data) == 0 {
		return e.out, nil
	}
	said, err := s.exchange(ctx, p.Data)
	switch {
	case err != nil:
		return forward.Outcome{}, &forward.Retry{Err: fmt.Errorf("put to OpenTSDB: %w", err)}
	case said == "":
		return e.out, nil
	case passing(said):
		return forward.Outcome{}, &forward.Retry{Err: fmt.Errorf("put to OpenTSDB: the target said: %s", said)}
	}
	return forward.Outcome{}, &forward.Refused{Err: fmt.Errorf("put to OpenTSDB: the target said: %s", said)}
}

// exchange sends data, says that no more comes, and returns what the server said until it closed its side.
func (s *Sender) exchange(ctx context.Context, data []byte) (said string, err error) {
	d := net.Dialer{Timeout: s.opts.Timeout}
	conn, err := d.DialContext(ctx, "tcp", s.opts.URL)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(s.opts.Timeout)); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() {
		// A deadline in the past ends what is under way. If it can't be set the connection is gone anyway.
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	defer stop()

	// The server may talk while lines come in: who doesn't listen stops it from reading.
	type words struct {
		said string
		err  error
	}
	heard := make(chan words, 1)
	go func() {
		said, err := listen(conn)
		heard <- words{said, err}
	}()
	_, err = conn.Write(data)
	if err == nil {
		err = conn.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		// Ends the listener, which then has the reason that the server gave, if it gave one.
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
	w := <-heard
	if err == nil {
		err = w.err
	}
	if err != nil && w.said != "" {
		err = fmt.Errorf("%w; the target said: %s", err, w.said)
	}
	return w.said, err
}

// listen reads until the peer closes its side, and returns the first lines.
func listen(conn net.Conn) (string, error) {
	first, err := io.ReadAll(io.LimitReader(conn, saidBytesMax))
	if err == nil {
		_, err = io.Copy(io.Discard, conn)
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(first), "?")), err
}
