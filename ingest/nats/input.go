package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"varve/ingest"
)

// Input takes the messages of one consumer, or of some subjects of core NATS.
type Input struct {
	opts    Options
	client  []nats.Option
	account *account
	letters *deadLetters
	logger  *slog.Logger
	now     func() time.Time

	room  *room
	queue chan *message
	// ended is closed when nothing more comes into the queue that has to be done.
	ended chan struct{}
	// look asks the session to see whether its consumer is still there.
	look chan struct{}
	// back tells that there is a connection again.
	back chan struct{}
	// refusal is why the last attempt to connect came to nothing.
	refusal atomic.Pointer[error]
	lines   ingest.RareLines

	conn *nats.Conn // Run's
	// had: the consumer has been there since the start.
	had bool
}

// New returns an input. Nothing is connected before Run. now is the clock of log lines and of Status.
func New(o Options, metrics *Metrics, logger *slog.Logger, now func() time.Time) (*Input, error) {
	if err := o.normalize(); err != nil {
		return nil, err
	}
	client, err := o.Connection.Client()
	if err != nil {
		return nil, err
	}
	letters, err := newDeadLetters(o.Name, o.DeadLetters)
	if err != nil {
		return nil, err
	}
	return &Input{
		opts: o, client: client, account: newAccount(metrics, o.Name), letters: letters, logger: logger, now: now,
		room: newRoom(o.InFlightBytes), queue: make(chan *message, o.BatchMessages), ended: make(chan struct{}), look: make(chan struct{}, 1), back: make(chan struct{}, 1),
	}, nil
}

// Status tells how the input does.
func (in *Input) Status() Status {
	s := in.account.read()
	s.InFlightBytes = in.room.bytes()
	return s
}

// Waits between attempts to begin again.
const (
	sessionWaitFirst = 100 * time.Millisecond
	sessionWaitMost  = 10 * time.Second
)

// Run takes messages until ctx ends. It then finishes what has come, for at most StopTimeout, and returns. What was not done
// with by then is brought again by the stream.
func (in *Input) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(in.opts.StopTimeout, cancel)
		context.AfterFunc(work, func() { late.Stop() })
	})
	defer stop()

	conn, err := in.connect()
	if err != nil {
		return fmt.Errorf("input %s: %w", in.opts.Name, err)
	}
	in.conn = conn
	var workers, pulse sync.WaitGroup
	for range in.opts.Workers {
		workers.Go(func() { in.work(work) })
	}
	pulse.Go(func() { in.pulse(work) })
	in.sessions(ctx, work)
	close(in.ended)
	workers.Wait()
	in.empty()
	cancel()
	pulse.Wait()
	// Acknowledgements are on their way. What of them gets lost brings a message again.
	_ = conn.FlushTimeout(flushTimeout)
	conn.Close()
	return in.letters.close()
}

// flushTimeout bounds the wait for the server to read acknowledgements at the end.
const flushTimeout = 2 * time.Second

// connect makes the connection, which is made again by itself for ever, and also if it can't be made at first.
func (in *Input) connect() (*nats.Conn, error) {
	opts := append([]nats.Option{}, in.client...)
	opts = append(opts,
		nats.RetryOnFailedConnect(true),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { in.refusal.Store(&err) }),
		nats.ConnectHandler(in.connected), nats.ReconnectHandler(in.connected),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { in.account.parted() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) {
				// These are counted where they are lost.
				return
			}
			in.trouble("NATS reports an error", err)
		}),
	)
	return nats.Connect(in.opts.Connection.Servers(), opts...)
}

// connected is called when there is a connection, for the first time or again.
func (in *Input) connected(*nats.Conn) {
	in.refusal.Store(nil)
	signal(in.back)
	signal(in.look)
}

// signal wakes who waits for the channel, which has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sessions runs one session after the other until ctx ends.
func (in *Input) sessions(ctx, work context.Context) {
	for wait := sessionWaitFirst; ctx.Err() == nil; wait = min(2*wait, sessionWaitMost) {
		began := time.Now()
		err := in.session(ctx, work)
		in.account.parted()
		if ctx.Err() != nil {
			return
		}
		in.trouble("NATS input begins again", err)
		if time.Since(began) > sessionWaitMost {
			wait = sessionWaitFirst
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-in.back:
			wait = sessionWaitFirst
		case <-timer.C:
		}
		timer.Stop()
	}
}

// session is one time with a consumer or subscriptions. Its error is why it ended, nil if ctx did.
func (in *Input) session(ctx, work context.Context) error {
	if !in.conn.IsConnected() {
		err := in.conn.LastError()
		if last := in.refusal.Load(); last != nil {
			err = *last
		}
		if err == nil {
			err = nats.ErrDisconnected
		}
		return fmt.Errorf("connect to NATS: %w", err)
	}
	if in.opts.Core {
		return in.subscribe(ctx, work)
	}
	return in.consume(ctx)
}

// arrived takes a message into the queue, when there is room, or gives it back if ctx ends first.
func (in *Input) arrived(ctx context.Context, m *message) {
	m.since = time.Now()
	m.cost = int64(len(m.data) + messageBytes)
	if in.room.enter(ctx, m) != nil {
		m.nak()
		return
	}
	select {
	case in.queue <- m:
	case <-ctx.Done():
		in.room.leave(m)
		m.nak()
	}
}

// empty gives back what came too late for the workers.
func (in *Input) empty() {
	for {
		select {
		case m := <-in.queue:
			in.giveBack(m)
		default:
			return
		}
	}
}

// pulse tells the server of messages that are held for long that they are not forgotten.
func (in *Input) pulse(ctx context.Context) {
	every := in.opts.AckWait / 3
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, m := range in.room.longerThan(time.Now().Add(-every)) {
				// A word that gets lost brings the message again, which harms nothing.
				_ = m.js.InProgress()
			}
		}
	}
}

// trouble notes an error, and logs it unless there was one not long ago.
func (in *Input) trouble(what string, err error) {
	in.account.trouble(err, in.now())
	if in.due(1) {
		in.logger.Error(what, "input", in.opts.Name, "reason", err)
	}
}

func (in *Input) due(class int) bool { return in.lines.Due(class, in.now()) }

// server is where the connection leads, without who connects: a token may stand where a user would.
func (in *Input) server() string {
	u, err := url.Parse(in.conn.ConnectedUrl())
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}
