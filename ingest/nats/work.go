package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"varve/arrival"
	"varve/ingest"
)

// next takes a message from the queue, nil when no more come.
func (in *Input) next() *message {
	select {
	case m := <-in.queue:
		return m
	case <-in.ended:
	}
	select {
	case m := <-in.queue:
		return m
	default:
		return nil
	}
}

// work receives what is in the queue until no more comes and it is empty.
func (in *Input) work(ctx context.Context) {
	j := &joiner{bytesMax: in.opts.BatchBytes}
	var batch []*message
	for m := in.next(); m != nil; m = in.next() {
		batch = in.gather(append(batch[:0], m))
		for rest := batch; len(rest) > 0; {
			n := samePayload(rest)
			in.store(ctx, j, rest[:n])
			rest = rest[n:]
		}
		clear(batch)
	}
}

// samePayload puts the messages that have the first one's payload in front and returns how many these are.
func samePayload(messages []*message) (n int) {
	for i, m := range messages {
		if m.payload == messages[0].payload {
			messages[n], messages[i] = messages[i], messages[n]
			n++
		}
	}
	return n
}

// gather adds what is in the queue already.
func (in *Input) gather(batch []*message) []*message {
	bytes := len(batch[0].data)
	for len(batch) < in.opts.BatchMessages && bytes < in.opts.BatchBytes {
		select {
		case m := <-in.queue:
			batch = append(batch, m)
			bytes += len(m.data)
		default:
			return batch
		}
	}
	return batch
}

// store brings messages of one payload to their end.
func (in *Input) store(ctx context.Context, j *joiner, messages []*message) {
	for len(messages) > 0 {
		body, sent, n := j.join(messages)
		result, err := in.receive(ctx, messages[0].payload, body, sent)
		switch {
		case n == 1:
			in.settle(ctx, messages[0], &result, err)
		case err == nil && result.Rejected.Total() == 0:
			for _, m := range messages[:n] {
				in.end(m, stored)
			}
		case err != nil && !permanent(err):
			for _, m := range messages[:n] {
				in.giveBack(m)
			}
		default:
			// Something of it was refused, and the halves tell what.
			in.store(ctx, j, messages[:n/2])
			in.store(ctx, j, messages[n/2:n])
		}
		messages = messages[n:]
	}
}

// permanent says whether a message with this error will never be taken.
func permanent(err error) bool {
	return errors.Is(err, ingest.ErrMalformed) || errors.Is(err, ingest.ErrTooBig) || errors.Is(err, ingest.ErrEncoding)
}

// Waits between attempts while the archive can't write, when it says nothing of its own.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
)

// receive hands a body to its receiver until it is stored or refused for good. Any other error is the last one before ctx ended.
func (in *Input) receive(ctx context.Context, kind Payload, body []byte, sent []ingest.Sent) (arrival.Result, error) {
	receiver := in.opts.Receivers[kind]
	if receiver == nil {
		return arrival.Result{}, fmt.Errorf("%w message: nobody here reads its Content-Type", ingest.ErrMalformed)
	}
	var result arrival.Result
	err := in.persist(ctx, "messages of NATS are not written", func() (err error) {
		result, err = receiver.Receive(ctx, body, sent)
		return err
	})
	return result, err
}

// persist does something until it works, fails for good, or ctx ends.
func (in *Input) persist(ctx context.Context, what string, do func() error) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := do()
		if err == nil || permanent(err) || ctx.Err() != nil {
			return err
		}
		in.account.retried()
		in.trouble(what, err)
		if _, after := ingest.Status(err); errorTellsWait(err) {
			wait = min(max(after, time.Millisecond), retryMost)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// errorTellsWait says whether an error says how long to wait.
func errorTellsWait(err error) bool {
	var unavailable *arrival.Unavailable
	var limited *ingest.RateLimited
	return errors.As(err, &limited) || errors.As(err, &unavailable) && unavailable.RetryAfter > 0
}

// settle brings one message to its end by what became of it.
func (in *Input) settle(ctx context.Context, m *message, result *arrival.Result, err error) {
	g := grave{message: m, outcome: stored}
	switch {
	case err != nil && permanent(err):
		g.outcome, g.reason = poison, err.Error()
	case err != nil:
		in.giveBack(m)
		return
	case result.Rejected.Total() > 0:
		g.outcome, g.reason = partial, "refused "+result.Rejected.String()+"; the rest is written"
	}
	if g.outcome == stored {
		in.end(m, stored)
		return
	}
	if in.letters.knows(m.at) {
		g.outcome = repeated
	} else if err := in.persist(ctx, "dead letters of NATS are not written", func() error { return in.letters.bury(ctx, in.conn, g, in.now()) }); err != nil {
		in.giveBack(m)
		return
	}
	if in.due(0) {
		in.logger.Warn("message of NATS not accepted in full", "input", in.opts.Name, "subject", m.at.subject, "stream", m.at.stream, "sequence", m.at.sequence, "outcome", outcomeTexts[g.outcome], "reason", g.reason)
	}
	if err != nil {
		m.term()
		in.count(m, g.outcome)
		return
	}
	in.end(m, g.outcome)
}

// end acknowledges a message.
func (in *Input) end(m *message, o outcome) {
	m.ack()
	in.count(m, o)
}

func (in *Input) count(m *message, o outcome) {
	in.room.leave(m)
	in.account.done(o, in.now())
}

// giveBack has the server bring a message again.
func (in *Input) giveBack(m *message) {
	in.room.leave(m)
	m.nak()
}
