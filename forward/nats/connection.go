package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"varve/forward"
	"varve/natsconn"
)

// place is where messages go at the moment: a connection, and a stream that was looked at since it stands.
type place struct {
	conn *nats.Conn
	js   jetstream.JetStream // nil for core NATS
	// stream is empty for core NATS.
	stream string
	// limit is what a message may have with its header, in bytes.
	limit int
}

// place connects if need be, and looks at the stream if it may have changed.
func (s *Sender) place(ctx context.Context) (*place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.connect(); err != nil {
		return nil, err
	}
	if s.at != nil && !s.changed.Load() {
		return s.at, nil
	}
	// Changes from here on are seen the next time.
	s.changed.Store(false)
	s.at = nil
	at := &place{conn: s.conn, js: s.js, limit: int(s.conn.MaxPayload())}
	if s.o.MaxPayloadBytes > 0 {
		at.limit = min(at.limit, s.o.MaxPayloadBytes)
	}
	if !s.o.Core {
		ctx, cancel := context.WithTimeout(ctx, s.o.AckTimeout)
		defer cancel()
		said := s.conn.LastError()
		if err := s.look(ctx, at); err != nil {
			if denied := forbidden(s.conn, said); denied != nil {
				err = &forward.Blocked{Err: fmt.Errorf("%w: %w", err, denied)}
			}
			return nil, err
		}
	}
	s.at = at
	return at, nil
}

// connect makes the connection if there is none. Once made it is made again by itself, unless it is closed for good. Called with mu held.
func (s *Sender) connect() error {
	if s.conn != nil && s.conn.IsConnected() {
		return nil
	}
	if s.conn != nil && !s.conn.IsClosed() {
		return s.unconnected(s.conn.LastError())
	}
	opts, err := s.o.Client()
	if err != nil {
		return &forward.Blocked{Err: err}
	}
	opts = append(opts,
		nats.DisconnectErrHandler(func(*nats.Conn, error) { s.changed.Store(true) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { s.refusal.Store(&err) }),
		nats.ReconnectHandler(s.reconnected),
		// The last error is asked for where it matters.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	)
	conn, err := nats.Connect(s.o.Servers(), opts...)
	if err != nil {
		return s.unconnected(err)
	}
	if s.conn != nil {
		s.rewind()
	}
	s.conn, s.at = conn, nil
	s.refusal.Store(nil)
	s.server.Store(serverOf(conn))
	if s.o.Core {
		return nil
	}
	// Acknowledgements are waited for by Send, which has its own window.
	s.js, err = jetstream.New(conn, jetstream.WithPublishAsyncTimeout(s.o.AckTimeout), jetstream.WithPublishAsyncMaxPending(1<<30))
	if err != nil {
		return &forward.Blocked{Err: err}
	}
	return nil
}

// unconnected is the error of a connection that isn't: about the credentials if the server said so.
func (s *Sender) unconnected(err error) error {
	if last := s.refusal.Load(); last != nil && (err == nil || !aboutCredentials(err)) {
		err = *last
	}
	if err == nil {
		err = nats.ErrDisconnected
	}
	err = fmt.Errorf("connect to NATS: %w", err)
	if aboutCredentials(err) {
		return &forward.Blocked{Err: err}
	}
	return &forward.Retry{Err: err}
}

func aboutCredentials(err error) bool {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrPermissionViolation, nats.ErrSecureConnRequired, nats.ErrSecureConnWanted} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// serverOf names the process on the other side, if it is alone: in a cluster it says nothing of the one that has the stream.
func serverOf(conn *nats.Conn) string {
	if conn.ConnectedClusterName() != "" {
		return ""
	}
	return conn.ConnectedServerId()
}

// reconnected says that acknowledged messages may be lost, unless the server has been up all the time.
func (s *Sender) reconnected(conn *nats.Conn) {
	s.refusal.Store(nil)
	s.changed.Store(true)
	server := serverOf(conn)
	if was, _ := s.server.Swap(server).(string); server == "" || was != server {
		s.rewind()
	}
}

// rewind asks for what was acknowledged within the window before the last acknowledgement: after that one nothing was, however long
// the server has been away since.
func (s *Sender) rewind() {
	if s.o.Core || s.o.RewindWindow < 0 {
		return
	}
	back := s.o.RewindWindow
	if last := s.acknowledged.Load(); last != nil {
		back += time.Since(*last)
	}
	select {
	case asked := <-s.rewinds:
		back = max(back, asked)
	default:
	}
	select {
	case s.rewinds <- back:
	default:
	}
}

// forbidden is what the server said of a lack of permission since its last error was said.
func forbidden(conn *nats.Conn, said error) error {
	if last := conn.LastError(); last != said && errors.Is(last, nats.ErrPermissionViolation) {
		return last
	}
	return nil
}

// look finds the stream, makes it if asked, and checks that it takes the messages.
func (s *Sender) look(ctx context.Context, at *place) error {
	pattern := s.subject.pattern()
	at.stream = s.o.Stream.Name
	if at.stream == "" {
		name, err := at.js.StreamNameBySubject(ctx, pattern)
		if err != nil {
			return lookErr("find the stream", err, fmt.Sprintf("no stream takes %s: name one, or have it created", pattern))
		}
		at.stream = name
	}
	stream, err := at.js.Stream(ctx, at.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) && s.o.Stream.Create {
		stream, err = at.js.CreateStream(ctx, s.newStream(pattern))
	}
	if err != nil {
		return lookErr("look at stream "+at.stream, err, fmt.Sprintf("there is no stream %s: nats stream add %s --subjects '%s', or have it created", at.stream, at.stream, pattern))
	}
	c := stream.CachedInfo().Config
	if !slices.ContainsFunc(c.Subjects, func(wide string) bool { return natsconn.Covers(wide, pattern) }) {
		return &forward.Blocked{Err: fmt.Errorf("stream %s takes %s, and not all of %s: nats stream edit %s --subjects LIST", at.stream, strings.Join(c.Subjects, ", "), pattern, at.stream)}
	}
	if c.NoAck {
		return &forward.Blocked{Err: fmt.Errorf("stream %s acknowledges nothing: nats stream edit %s --ack", at.stream, at.stream)}
	}
	if c.MaxMsgSize > 0 {
		at.limit = min(at.limit, int(c.MaxMsgSize))
	}
	return nil
}

func (s *Sender) newStream(pattern string) jetstream.StreamConfig {
	o := &s.o.Stream
	c := jetstream.StreamConfig{
		Name: o.Name, Subjects: o.Subjects, Storage: jetstream.FileStorage, Replicas: max(1, o.Replicas),
		Duplicates: o.Duplicates, MaxAge: o.MaxAge, MaxBytes: o.MaxBytes,
	}
	if len(c.Subjects) == 0 {
		c.Subjects = []string{pattern}
	}
	if o.Memory {
		c.Storage = jetstream.MemoryStorage
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = -1
	}
	return c
}

// lookErr says what an error of JetStream's interface means. missing is what to do if there is no stream.
func lookErr(doing string, err error, missing string) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return &forward.Blocked{Err: errors.New(missing)}
	case errors.Is(err, nats.ErrNoResponders):
		// So it is for a while after a start, too.
		return &forward.Retry{Err: fmt.Errorf("%s: JetStream does not answer: unless it is about to start, enable it on the server, or publish through core NATS", doing)}
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return &forward.Blocked{Err: fmt.Errorf("%s: %w: enable it on the server, or publish through core NATS", doing, err)}
	case errors.As(err, &api) && api.Code < 500:
		return &forward.Blocked{Err: fmt.Errorf("%s: %w", doing, err)}
	}
	return &forward.Retry{Err: fmt.Errorf("%s: %w", doing, err)}
}
