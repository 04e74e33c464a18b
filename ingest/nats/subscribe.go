package nats

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// pendingMessagesMax bounds the messages that wait in the client beside InFlightBytes.
const pendingMessagesMax = 1 << 20

// subscription is one of core NATS, with how many of its messages were lost and counted.
type subscription struct {
	*nats.Subscription
	lost   int
	closed chan struct{}
}

// subscribe takes messages of core NATS until ctx ends, and then those that have come already while work goes on. The client subscribes again by
// itself when it connects again. What comes while as much waits as may is lost and counted.
func (in *Input) subscribe(ctx, work context.Context) (err error) {
	var all []*subscription
	defer func() {
		for _, s := range all {
			in.finish(work, s)
		}
	}()
	for _, subject := range in.opts.Subjects {
		s := &subscription{closed: make(chan struct{})}
		s.Subscription, err = in.conn.QueueSubscribe(subject, in.opts.Queue, func(m *nats.Msg) {
			in.arrived(work, &message{payload: payloadOf(m.Header, in.opts.Payload), data: m.Data, at: place{subject: m.Subject}})
		})
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		s.SetClosedHandler(func(string) { close(s.closed) })
		all = append(all, s)
		if err := s.SetPendingLimits(pendingMessagesMax, int(in.opts.InFlightBytes)); err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
	}
	if err := in.conn.FlushTimeout(askTimeout); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if in.conn.IsConnected() {
			in.account.joined(in.server(), "", "")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-in.look:
		}
		for _, s := range all {
			in.countLost(s)
		}
		if in.conn.IsClosed() {
			return nats.ErrConnectionClosed
		}
	}
}

// finish takes what has come on a subscription and ends it.
func (in *Input) finish(work context.Context, s *subscription) {
	in.countLost(s)
	if s.Drain() != nil {
		return
	}
	select {
	case <-s.closed:
	case <-work.Done():
	}
}

func (in *Input) countLost(s *subscription) {
	lost, err := s.Dropped()
	if err != nil || lost <= s.lost {
		return
	}
	in.account.lost(uint64(lost - s.lost))
	s.lost = lost
	in.trouble("messages of NATS are lost", fmt.Errorf("%d messages of %s came faster than they were stored", lost, s.Subject))
}
