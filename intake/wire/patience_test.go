package wire_test

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/intake"
	"varve/intake/wire"
)

// pipes is a network inside of the process. Unlike that of the machine it doesn't hold up a bubble's clock.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

// inBubble is a client of a server over target, both on the clock of the bubble.
func inBubble(t *testing.T, target intake.Target, idle, stalled, alive time.Duration) *wire.Target {
	t.Helper()
	mux := http.NewServeMux()
	for path, h := range wire.Handlers(wire.HandlerOptions{Target: target, Idle: idle}) {
		mux.Handle("POST "+path, h)
	}
	network := newPipes()
	server := &http.Server{Handler: mux}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(network) // It ends with what Close makes of it.
	}()
	client, err := wire.New(wire.Options{
		URL: &url.URL{Scheme: "http", Host: "pipes"}, HTTP: config_util.DefaultHTTPClientConfig, Stalled: stalled, Alive: alive,
	})
	require.NoError(t, err)
	transport := &http.Transport{DialContext: network.dial, ExpectContinueTimeout: time.Second}
	client.SetTransport(transport)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(t, server.Close())
		<-ended
	})
	return client
}

// TestCommitTakesLong shows that a server that is long at a commit says that it is alive, and that a client that falls
// silent, or that ends, loses the lease.
func TestCommitTakesLong(t *testing.T) {
	samples := func(n int) []intake.Chunk { return []intake.Chunk{floats(t, chunkenc.EncXOR, 0, n)} }
	t.Run("alive", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			m.hold = make(chan struct{})
			day := lease(t, inBubble(t, m, time.Second, time.Second, 100*time.Millisecond), 0)
			require.NoError(t, day.Add(1, samples(10)))
			const long = 90 * time.Second
			began := time.Now()
			time.AfterFunc(long, func() { m.hold <- struct{}{} })
			_, err := day.Commit(t.Context())
			require.NoError(t, err)
			require.Equal(t, long, time.Since(began))
			require.NoError(t, day.Close())
			require.Len(t, m.days, 1)
		})
	})
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			day := lease(t, inBubble(t, m, 200*time.Millisecond, 0, time.Hour), 0)
			began := time.Now()
			<-m.given
			require.Equal(t, 200*time.Millisecond, time.Since(began))
			tries := 1
			for ; day.Add(1, samples(60_000)) == nil; tries++ {
				require.Less(t, tries, 1000)
			}
			require.NoError(t, day.Close())
			require.Empty(t, m.days)
		})
	})
	t.Run("ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			m.hold = make(chan struct{})
			client := inBubble(t, m, time.Second, time.Second, 100*time.Millisecond)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			day, err := client.OpenDay(ctx, 0)
			require.NoError(t, err)
			require.NoError(t, day.Add(1, samples(10)))
			time.AfterFunc(50*time.Millisecond, cancel)
			_, err = day.Commit(ctx)
			require.ErrorIs(t, err, context.Canceled)
			require.NoError(t, day.Close())
			<-m.given
			require.Empty(t, m.days)
		})
	})
}
