package forward_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/forward"
	gate "varve/internal/gate/server"
)

// lines is a Sender over HTTP: a line a sample, with the labels, the time and the value.
type lines struct {
	client *http.Client
	url    string
	// attempts counts requests.
	attempts *atomic.Int64
}

func (lines) Prepare(*forward.Target) error { return nil }
func (lines) Close() error                  { return nil }

func (l lines) Send(ctx context.Context, b *forward.Batch) (out forward.Outcome, err error) {
	var body strings.Builder
	for i := range b.Series {
		s := &b.Series[i]
		for _, f := range s.Floats {
			fmt.Fprintf(&body, "%s|%d|%v|%s\n", s.Labels, f.TimeMillis, f.Value, strings.Repeat(".", 200))
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, strings.NewReader(body.String()))
	if err != nil {
		return out, err
	}
	r.Header.Set("Batch", b.ID)
	r.Header.Set("Attempt", strconv.FormatInt(l.attempts.Add(1), 10))
	answer, err := forward.Do(l.client, r)
	if err != nil {
		return out, err
	}
	return out, answer.Err(time.Now())
}

// receiver is the server of a peer.
type receiver struct {
	*peer
	// heard is the last attempt for each batch, guarded by the peer's mu.
	heard map[string]int64
}

// ServeHTTP keeps what comes whole.
func (p *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // The connection is gone.
	}
	batch := r.Header.Get("Batch")
	attempt, err := strconv.ParseInt(r.Header.Get("Attempt"), 10, 64)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if attempt < p.heard[batch] {
		return // It was given up and sent again before this server, on a busy machine, came to hear it.
	}
	p.heard[batch] = attempt
	for _, line := range strings.Split(strings.TrimSpace(string(body)), "\n") {
		parts := strings.Split(line, "|")
		at, err := strconv.ParseInt(parts[1], 10, 64)
		v, err2 := strconv.ParseFloat(parts[2], 64)
		if err != nil || err2 != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		p.add(parts[0], sample{at, v})
	}
	w.WriteHeader(http.StatusNoContent)
}

// proxied is a proxy before a server, which tests make misbehave. It has an address of our own, so that nobody takes its port while it is down.
func proxied(t *testing.T, server *httptest.Server) *toxiproxy.Proxy {
	t.Helper()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	proxy := toxiproxy.NewProxy(api, "peer", net.JoinHostPort(gate.Loopback(), "0"), server.Listener.Addr().String())
	require.NoError(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	return proxy
}

// TestNetworkFaults shows that over real connections nothing is lost and the order holds when the peer hangs, connections are reset before and
// in the middle of a body or an answer, all is slow, or nobody listens; and that all arrives when that is over.
func TestNetworkFaults(t *testing.T) {
	for _, c := range []struct{ name, toxic string }{
		{"hang", `{"name":"x","type":"timeout","stream":"upstream","attributes":{"timeout":0}}`},
		{"no answer", `{"name":"x","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`},
		{"reset", `{"name":"x","type":"reset_peer","stream":"upstream","attributes":{"timeout":0}}`},
		{"answer lost", `{"name":"x","type":"reset_peer","stream":"downstream","attributes":{"timeout":5}}`},
		{"cut in mid-body", `{"name":"x","type":"limit_data","stream":"upstream","attributes":{"bytes":9000}}`},
		{"cut in mid-answer", `{"name":"x","type":"limit_data","stream":"downstream","attributes":{"bytes":9}}`},
		{"slow", `{"name":"x","type":"bandwidth","stream":"upstream","attributes":{"rate":20}}`},
		{"down", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, p := newFakeArchive(), newPeer()
			server := httptest.NewServer(&receiver{p, map[string]int64{}})
			defer server.Close()
			proxy := proxied(t, server)
			client, err := forward.NewClient(config.DefaultHTTPClientConfig, "out", 300*time.Millisecond)
			require.NoError(t, err)
			defer client.CloseIdleConnections()
			sender := lines{client, "http://" + proxy.Listen + "/", new(atomic.Int64)}
			o := output(p)
			o.NewSender = func() (forward.Sender, error) { return sender, nil }
			o.Shards, o.BatchSamples, o.BatchDelay = 2, 200, time.Millisecond
			o.BackoffMin, o.BackoffMax = time.Millisecond, 10*time.Millisecond
			refs := a.named(100)
			r := start(t, a, t.TempDir(), o)
			for i := range 5 {
				a.floats(100*i, refs...)
			}
			eventually(t, func() bool { return a.settled("out") })

			if c.toxic == "" {
				proxy.Stop()
			} else {
				_, err := proxy.Toxics.AddToxicJson(strings.NewReader(c.toxic))
				require.NoError(t, err)
			}
			for i := range 20 {
				a.floats(1000+100*i, refs...)
			}
			eventually(t, func() bool {
				s := r.status(t)
				return s.Error != "" && s.State == forward.StateRetrying || a.settled("out")
			})
			if c.toxic == "" {
				require.NoError(t, restart(proxy))
			} else {
				require.NoError(t, proxy.Toxics.RemoveToxic(context.Background(), "x"))
			}
			eventually(t, func() bool { return a.settled("out") })
			r.stop()
			require.Equal(t, archive.Tally{Sent: 2500}, a.tally("out"))
			require.Equal(t, 2500, p.samples())
			p.faultless(t)
		})
	}
}

// restart has a proxy that was stopped listen again where it was.
func restart(p *toxiproxy.Proxy) error {
	l, err := net.Listen("tcp", p.Listen)
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	return p.Start()
}

// patience bounds the wait for what happens in another goroutine or process, which only something that hangs outlasts.
const patience = 2 * time.Minute

// eventually waits for something of other goroutines and processes.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, time.Millisecond)
}
