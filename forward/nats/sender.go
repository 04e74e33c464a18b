package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"varve/forward"
)

// Sender publishes batches. It implements forward.Rewinder.
type Sender struct {
	o       Options
	subject *template
	payload *payload
	rewinds chan time.Duration
	// changed says that the stream has to be looked at again.
	changed atomic.Bool
	// server names the process that the connection leads to, empty if that says nothing.
	server atomic.Value
	// acknowledged is when the last batch was.
	acknowledged atomic.Pointer[time.Time]
	// refusal is why the last attempt to connect again came to nothing.
	refusal atomic.Pointer[error]

	mu   sync.Mutex // guards what follows; Send waits for it while another connects
	conn *nats.Conn // nil before the first Send
	js   jetstream.JetStream
	at   *place // nil until it is known
}

var _ forward.Rewinder = (*Sender)(nil)

// New returns a sender. It connects when it first sends.
func New(o Options) (*Sender, error) {
	if err := o.normalize(); err != nil {
		return nil, err
	}
	t, err := parseTemplate(o.Subject)
	if err != nil {
		return nil, fmt.Errorf("subject %q: %w", o.Subject, err)
	}
	p, err := newPayload(&o)
	if err != nil {
		return nil, err
	}
	s := &Sender{o: o, subject: t, payload: p, rewinds: make(chan time.Duration, 1)}
	if _, err := s.o.Client(); err != nil {
		return nil, err
	}
	return s, nil
}

// Rewinds implements forward.Rewinder: it says after a reconnect how far to go back from now in what was acknowledged, which is the window and
// the time since the last acknowledgement. One that is not read yet is not said twice.
func (s *Sender) Rewinds() <-chan time.Duration { return s.rewinds }

// Prepare implements forward.Sender. A series whose subject is too long can't be published.
func (s *Sender) Prepare(t *forward.Target) error {
	subject, err := s.subject.series(t.Labels)
	if err != nil {
		return err
	}
	f := &form{subject: unique.Make(subject)}
	if err := s.payload.encode(t, f); err != nil {
		return err
	}
	t.Form = f
	return nil
}

// Send implements forward.Sender.
func (s *Sender) Send(ctx context.Context, b *forward.Batch) (forward.Outcome, error) {
	var o forward.Outcome
	at, err := s.place(ctx)
	if err != nil {
		return o, err
	}
	f := &flight{at: at, window: s.o.Window, said: at.conn.LastError()}
	k := packers.Get().(*packer)
	defer k.release()
	k.payload, k.out = s.payload, &o
	k.limit = at.limit - headerBytes(b.ID, at.stream)
	k.publish = func(subject, id string, content []byte) error { return f.publish(ctx, subject, id, content) }
	if err = k.pack(b, s.subject); err == nil {
		err = f.land(ctx, s.o.AckTimeout)
	}
	if err != nil {
		s.changed.Store(true)
		return o, f.class(err)
	}
	now := time.Now()
	s.acknowledged.Store(&now)
	return o, nil
}

// Close implements forward.Sender.
func (s *Sender) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
	}
	return nil
}

// headerBytes is what a message's header takes: its first line, two fields with their values, and line ends.
func headerBytes(batchID, stream string) int {
	const lines = len("NATS/1.0\r\n\r\n") + len(jetstream.MsgIDHeader) + len(jetstream.ExpectedStreamHeader) + 2*len(": \r\n")
	const hash = 1 + 32
	return lines + len(batchID) + hash + len(stream)
}

// flight are the messages of a batch that are under way.
type flight struct {
	at     *place
	window int
	// said is the connection's last error before, so that a new one can be told.
	said error
	acks []jetstream.PubAckFuture
	// landed is how many of acks have come.
	landed int
}

// publish sends a message, and waits before that for the oldest if the window is full. content may be changed when it returns.
func (f *flight) publish(ctx context.Context, subject, id string, content []byte) error {
	m := &nats.Msg{Subject: subject, Data: content, Header: nats.Header{jetstream.MsgIDHeader: {id}}}
	if f.at.js == nil {
		return f.at.conn.PublishMsg(m)
	}
	if len(f.acks)-f.landed >= f.window {
		if err := f.await(ctx); err != nil {
			return err
		}
	}
	m.Header[jetstream.ExpectedStreamHeader] = []string{f.at.stream}
	// A try again by the client would need the content for longer.
	ack, err := f.at.js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0))
	if err != nil {
		return err
	}
	f.acks = append(f.acks, ack)
	return nil
}

// await waits for the oldest acknowledgement that has not come.
func (f *flight) await(ctx context.Context) error {
	ack := f.acks[f.landed]
	select {
	case <-ack.Ok():
		f.acks[f.landed] = nil
		f.landed++
		return nil
	case err := <-ack.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// land waits for all acknowledgements, or without JetStream until the server has read what was sent.
func (f *flight) land(ctx context.Context, timeout time.Duration) error {
	if f.at.js == nil {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if err := f.at.conn.FlushWithContext(ctx); err != nil {
			return err
		}
		return forbidden(f.at.conn, f.said)
	}
	for f.landed < len(f.acks) {
		if err := f.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wrongStream is the server's code for a message that came to another stream than its header expects.
const wrongStream jetstream.ErrorCode = 10060

// class says what the error of a message means for the batch.
func (f *flight) class(err error) error {
	if denied := forbidden(f.at.conn, f.said); denied != nil {
		return &forward.Blocked{Err: fmt.Errorf("publish: %w", denied)}
	}
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return forward.TooLarge(err.Error())
	case errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return forward.TooLarge(err.Error())
	case errors.As(err, &api) && api.ErrorCode == wrongStream:
		return &forward.Blocked{Err: fmt.Errorf("publish: another stream than %s takes the subject: %w", f.at.stream, err)}
	}
	return &forward.Retry{Err: fmt.Errorf("publish: %w", err)}
}
