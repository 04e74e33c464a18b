package opentsdb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"varve/arrival"
	"varve/ingest"
)

// Telnet takes put lines over TCP. A line is answered only if it is refused. Lines are written together: those that came until nothing more does, or
// until there are BatchBytes of them. While the archive can't write, a connection is not read, so that its client waits, and what it brought is tried
// until it is written.
//
// A client that closes its side of the connection gets the server's side closed when all it sent is on disk, or else a line
// that begins with "put: Storage exception". Shutdown does the same to all connections. A line without an end is refused: a
// broken connection may have cut its value.
//
// The commands version and help are answered and exit ends a connection.
type Telnet struct {
	opts   Options
	port   *ingest.Port
	seed   arrival.Seed
	logger *slog.Logger
	now    func() time.Time
	lines  ingest.RareLines

	// stopping ends when connections should end, aborting when they have to.
	stopping, aborting context.Context
	stop, abort        context.CancelFunc
	// readUntilNanos is when nothing more is read; zero before Shutdown.
	readUntilNanos atomic.Int64

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	open      map[*session]struct{}
	running   sync.WaitGroup
}

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("the listener for put lines is closed")

// NewTelnet returns a server that writes to sink. now is the clock of durations and of the rate of log lines.
func NewTelnet(opts Options, sink ingest.Sink, limits ingest.Limits, metrics *ingest.Metrics, logger *slog.Logger, now func() time.Time) (*Telnet, error) {
	if err := opts.normalize(); err != nil {
		return nil, err
	}
	t := &Telnet{
		opts: opts, port: ingest.NewPort(sink, limits, metrics.Meter("opentsdb_telnet"), now), logger: logger, now: now,
		listeners: make(map[net.Listener]struct{}), open: make(map[*session]struct{}),
	}
	t.seed = t.port.Seed(opts.encoding("telnet"))
	t.stopping, t.stop = context.WithCancel(context.Background())
	t.aborting, t.abort = context.WithCancel(context.Background())
	return t, nil
}

// acceptPause is how long Serve waits after an error of the listener, such as too many open files.
const acceptPause = 50 * time.Millisecond

// Serve accepts connections from l until Shutdown, which closes l, and returns ErrClosed then. It may be called for several listeners.
func (t *Telnet) Serve(l net.Listener) error {
	t.mu.Lock()
	if t.stopping.Err() != nil {
		t.mu.Unlock()
		return errors.Join(ErrClosed, l.Close())
	}
	t.listeners[l] = struct{}{}
	t.mu.Unlock()
	for {
		conn, err := l.Accept()
		switch {
		case t.stopping.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept put lines: %w", err)
		case err != nil:
			select {
			case <-t.stopping.Done():
			case <-time.After(acceptPause):
			}
		default:
			t.welcome(conn)
		}
	}
}

// welcome begins a session, or closes the connection if there are too many.
func (t *Telnet) welcome(conn net.Conn) {
	if t.opts.TLS != nil {
		conn = tls.Server(conn, t.opts.TLS)
	}
	s := newSession(t, conn)
	t.mu.Lock()
	full := len(t.open) >= t.opts.ConnectionsMax
	refused := full || t.stopping.Err() != nil
	if !refused {
		t.open[s] = struct{}{}
		t.running.Add(1)
	}
	t.mu.Unlock()
	if refused {
		if full && t.lines.Due(ingest.LogFailures, t.now()) {
			t.logger.Error("OpenTSDB connection refused", "reason", "as many connections are open as may be", "connections", t.opts.ConnectionsMax, "remote", conn.RemoteAddr())
		}
		_ = conn.Close()
		return
	}
	go func() {
		defer t.running.Done()
		s.run()
		t.mu.Lock()
		delete(t.open, s)
		t.mu.Unlock()
	}()
}

// Shutdown stops listening, has every connection write what it has received, and closes it. If ctx ends first what is not written by
// then is given up, its clients are told, and the error is that of ctx.
func (t *Telnet) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	t.readUntilNanos.CompareAndSwap(0, time.Now().Add(stopGrace).UnixNano())
	t.stop()
	var err error
	for l := range t.listeners {
		err = errors.Join(err, l.Close())
		delete(t.listeners, l)
	}
	for s := range t.open {
		s.hurry()
	}
	t.mu.Unlock()
	done := make(chan struct{})
	go func() {
		t.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.abort()
		<-done
		err = errors.Join(err, fmt.Errorf("stop the connections for put lines: %w", ctx.Err()))
	}
	t.abort()
	return err
}

// statusOf is the status under which a batch is counted, as if it were a request over HTTP.
func statusOf(result *arrival.Result) int {
	if result.Rejected.Total() > 0 {
		return http.StatusBadRequest
	}
	return http.StatusNoContent
}
