package nats

import (
	"context"
	"fmt"

	"varve/forward"
)

// Publisher publishes messages of other outputs on one subject of core NATS: at most once, since nobody acknowledges them. It is safe
// for use by several goroutines.
type Publisher struct {
	sender  *Sender
	subject string
}

// NewPublisher returns a publisher for the subject, which is no template. Of the options only those of the connection are used. Nothing is
// connected yet.
func NewPublisher(o Options, subject string) (*Publisher, error) {
	o.Core, o.Subject, o.Payload = true, subject, PayloadPrometheus
	s, err := New(o)
	if err != nil {
		return nil, err
	}
	return &Publisher{sender: s, subject: subject}, nil
}

// Publish returns when the server has read the message, which it does not keep. The errors are those of a forward.Sender.
func (p *Publisher) Publish(ctx context.Context, message []byte) error {
	at, err := p.sender.place(ctx)
	if err != nil {
		return err
	}
	if len(message) > at.limit {
		return forward.TooLarge(fmt.Sprintf("the message has %d bytes, the server takes %d", len(message), at.limit))
	}
	if err := at.conn.Publish(p.subject, message); err != nil {
		return &forward.Retry{Err: fmt.Errorf("publish: %w", err)}
	}
	// The client needs a deadline here.
	ctx, cancel := context.WithTimeout(ctx, p.sender.o.AckTimeout)
	defer cancel()
	if err := at.conn.FlushWithContext(ctx); err != nil {
		return &forward.Retry{Err: fmt.Errorf("publish: %w", err)}
	}
	return nil
}

// Close closes the connection.
func (p *Publisher) Close() error { return p.sender.Close() }
