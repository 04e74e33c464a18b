package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"varve/natsconn"
)

const (
	// askTimeout bounds the wait for an answer about streams and consumers.
	askTimeout = 5 * time.Second
	// lookEvery is how often a session asks how far behind it is, and whether its consumer is there.
	lookEvery = 10 * time.Second
	// lookAgain is the wait for the next try if it got no answer.
	lookAgain = 500 * time.Millisecond
	// pullExpiry and pullHeartbeat: a request for messages stands so long, and without a word for twice the second one it is made again.
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 2 * time.Second
	// pullMessages is how many messages are asked for at a time.
	pullMessages = 1024
	// envelopeBytes is what a message takes beside its payload on its way: subjects and headers.
	envelopeBytes = 64 << 10
)

// consume takes messages from the consumer until ctx ends or the consumer is lost.
func (in *Input) consume(ctx context.Context) error {
	js, err := jetstream.New(in.conn)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	consumer, err := in.find(asking, js)
	if err != nil {
		return err
	}
	// Before the first message comes, which knows better how far behind the consumer is.
	in.seen(consumer.CachedInfo())
	failed := make(chan error, 1)
	// Less than the largest message would never be brought it.
	bytes := max(in.opts.InFlightBytes, in.conn.MaxPayload()+envelopeBytes)
	pull, err := consumer.Consume(func(m jetstream.Msg) { in.brought(ctx, m) },
		jetstream.PullMaxMessagesWithBytesLimit(min(pullMessages, in.opts.MaxAckPending), int(bytes)),
		jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrBadRequest) || errors.Is(err, jetstream.ErrConnectionClosed) {
				select {
				case failed <- err:
				default:
				}
				return
			}
			signal(in.look)
		}))
	if err != nil {
		return fmt.Errorf("consume from %s: %w", in.opts.Durable, err)
	}
	defer func() {
		// What has come and is not in the queue is given back.
		pull.Drain()
		select {
		case <-pull.Closed():
		case <-time.After(askTimeout):
		}
	}()
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("consumer %s: %w", in.opts.Durable, err)
		case <-timer.C:
		case <-in.look:
		}
		there, err := in.lookAfter(ctx, consumer)
		if err != nil {
			return err
		}
		timer.Reset(lookEvery)
		if !there {
			timer.Reset(lookAgain)
		}
	}
}

// lookAfter asks whether the consumer is there and how far behind it is. Its error says that it is lost.
func (in *Input) lookAfter(ctx context.Context, consumer jetstream.Consumer) (there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := consumer.Info(ctx)
	switch {
	case err == nil:
		in.seen(info)
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerDoesNotExist):
		return false, fmt.Errorf("consumer %s: %w", in.opts.Durable, err)
	}
	// While the server is away there is nothing to be known.
	return err == nil, nil
}

// seen notes that the consumer is there, and how far behind it is.
func (in *Input) seen(info *jetstream.ConsumerInfo) {
	in.account.joined(in.server(), info.Stream, info.Name)
	in.account.lag(info.NumPending)
	in.account.unacknowledged(info.NumAckPending)
}

// brought takes a message of the consumer.
func (in *Input) brought(ctx context.Context, js jetstream.Msg) {
	m := &message{payload: payloadOf(js.Headers(), in.opts.Payload), data: js.Data(), js: js}
	m.at.subject = js.Subject()
	if about, err := js.Metadata(); err == nil {
		m.at.stream, m.at.sequence, m.at.publishedNanos = about.Stream, about.Sequence.Stream, about.Timestamp.UnixNano()
		if about.NumDelivered > 1 {
			in.account.again()
		}
		in.account.lag(about.NumPending)
	}
	in.arrived(ctx, m)
}

// find finds the stream and the consumer, or makes them.
func (in *Input) find(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	o := &in.opts
	name := o.Stream.Name
	if name == "" {
		found, err := js.StreamNameBySubject(ctx, o.Subjects[0])
		if err != nil {
			return nil, fmt.Errorf("find the stream of %s: %w; name one, or have it created", o.Subjects[0], err)
		}
		name = found
	}
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && o.Stream.Create {
		stream, err = js.CreateStream(ctx, o.newStream())
	}
	if err != nil {
		return nil, fmt.Errorf("look at stream %s: %w; if it is not there: nats stream add %s, or have it created", name, err, name)
	}
	if letters := o.DeadLetters.Subject; letters != "" && len(o.Subjects) == 0 {
		takes := stream.CachedInfo().Config.Subjects
		if slices.ContainsFunc(takes, func(wide string) bool { return natsconn.Covers(wide, letters) }) {
			return nil, fmt.Errorf("dead letters on %s would come back: stream %s takes %s", letters, name, strings.Join(takes, ", "))
		}
	}
	consumer, err := stream.Consumer(ctx, o.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return in.makeConsumer(ctx, stream, name)
	}
	if err != nil {
		return nil, fmt.Errorf("look at consumer %s: %w", o.Durable, err)
	}
	in.had = true
	c := consumer.CachedInfo().Config
	if c.AckPolicy != jetstream.AckExplicitPolicy {
		return nil, fmt.Errorf("consumer %s acknowledges %s: it has to be explicit; remove it or name another", o.Durable, c.AckPolicy)
	}
	if !o.consumer(&c) {
		return consumer, nil
	}
	if consumer, err = stream.UpdateConsumer(ctx, c); err != nil {
		return nil, fmt.Errorf("change consumer %s: %w", o.Durable, err)
	}
	return consumer, nil
}

func (in *Input) makeConsumer(ctx context.Context, stream jetstream.Stream, name string) (jetstream.Consumer, error) {
	c := jetstream.ConsumerConfig{
		Durable: in.opts.Durable, AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
		Description: "Varve's input " + in.opts.Name,
	}
	in.opts.consumer(&c)
	consumer, err := stream.CreateConsumer(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("make consumer %s: %w", in.opts.Durable, err)
	}
	if in.had {
		in.logger.Warn("consumer of NATS was gone and is made again: the stream comes from its beginning, which harms nothing", "input", in.opts.Name, "stream", name, "consumer", in.opts.Durable)
	} else {
		in.logger.Info("consumer of NATS made", "input", in.opts.Name, "stream", name, "consumer", in.opts.Durable)
	}
	in.had = true
	return consumer, nil
}
