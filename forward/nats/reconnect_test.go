package nats_test

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/nats"
	"varve/internal/gate/peers"
	"varve/internal/gate/server"
)

// deliver sends as an output does: again until the batch is taken.
func deliver(t *testing.T, s *nats.Sender, b *forward.Batch) (failures int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, err := s.Send(t.Context(), b)
		if err == nil {
			return failures
		}
		require.Contains(t, []string{"retry", "blocked"}, class(err), err)
		require.True(t, time.Now().Before(deadline), err)
		failures++
	}
}

// rewound says whether the sender has asked for a rewind.
func rewound(s *nats.Sender) (time.Duration, bool) {
	select {
	case d := <-s.Rewinds():
		return d, true
	default:
		return 0, false
	}
}

// on makes a server listen where it did, with the same streams.
func on(port int, dir string) func(*natsOptions) {
	return func(o *natsOptions) { o.Port, o.StoreDir = port, dir }
}

func portOf(t *testing.T, s *natsserver.Server) int {
	t.Helper()
	return s.Addr().(*net.TCPAddr).Port
}

// TestRestart shows that a server that goes away and comes back in the midst costs retries and no message, and asks for a rewind.
func TestRestart(t *testing.T) {
	dir := folder(t)
	first := run(t, on(-1, dir))
	url, port := first.ClientURL(), portOf(t, first)
	s := newSender(t, url)
	send(t, s, plain("inc-1-1-0", 100))
	_, asked := rewound(s)
	require.False(t, asked)

	acknowledged := time.Now()
	stop(first)
	b := prepare(t, s, plain("inc-2-2-0", 100))
	_, err := s.Send(t.Context(), b)
	require.Equal(t, "retry", class(err), err)

	run(t, on(port, dir))
	deliver(t, s, b)
	// The client calls back after it is connected, maybe later than the first Send succeeds.
	select {
	case d := <-s.Rewinds():
		// The time that the server was away counts, since nothing was acknowledged then.
		require.Greater(t, d, 4*time.Minute)
		require.Less(t, d, 4*time.Minute+time.Since(acknowledged)+patience)
	case <-time.After(patience):
		t.Fatal("no rewind")
	}
	want := wanted(b, subjects)
	for key, what := range want {
		want[key] = append(append([]string(nil), what...), what...)
	}
	require.Equal(t, want, decoded(t, stored(t, url)))
}

// TestRestartUnderLoad shows the same while several goroutines send and the server restarts again and again: in the end the stream
// holds everything, in order for each series.
func TestRestartUnderLoad(t *testing.T) {
	dir := folder(t)
	one := run(t, on(-1, dir))
	url, port := one.ClientURL(), portOf(t, one)
	s := newSender(t, url, func(o *nats.Options) { o.Window = 4; o.AckTimeout = time.Second })
	const senders, batches = 3, 60
	var wg sync.WaitGroup
	step := make(chan int, senders*batches)
	for shard := range senders {
		all := make([]*forward.Batch, batches)
		for i := range all {
			b := &forward.Batch{ID: fmt.Sprintf("inc-%d-%d-%d", i, i, shard)}
			for j := range 20 {
				x := series("up", "job", "a", "instance", fmt.Sprintf("%d-%d", shard, j))
				x.Floats = []forward.Float{{TimeMillis: start + int64(i), Value: float64(j)}}
				b.Series = append(b.Series, x)
			}
			all[i] = prepare(t, s, b)
		}
		wg.Go(func() {
			for _, b := range all {
				deliver(t, s, b)
				step <- 1
			}
		})
	}
	for range 3 {
		for range senders * batches / 5 {
			<-step
		}
		stop(one)
		one = run(t, on(port, dir))
	}
	wg.Wait()
	got := decoded(t, stored(t, url))
	require.Len(t, got, senders*20)
	for key, what := range got {
		last := ""
		distinct := 0
		for _, w := range what {
			require.GreaterOrEqual(t, w, last, key)
			if w != last {
				distinct++
			}
			last = w
		}
		require.Equal(t, batches, distinct, key)
	}
}

// TestBlip shows that a connection that was cut while the server stayed up costs no rewind: what was acknowledged is there.
func TestBlip(t *testing.T) {
	one := run(t)
	s := newSender(t, one.ClientURL(), func(o *nats.Options) { o.Name = "blip" })
	send(t, s, plain("a", 3))
	connections, err := one.Connz(nil)
	require.NoError(t, err)
	for _, c := range connections.Conns {
		if c.Name == "blip" {
			require.NoError(t, one.DisconnectClientByID(c.Cid))
		}
	}
	deliver(t, s, prepare(t, s, plain("b", 3)))
	require.Eventually(t, func() bool {
		c, err := one.Connz(nil)
		return err == nil && len(c.Conns) == 1
	}, patience, time.Millisecond)
	// The client calls back at some time of its own. What that does is done here at once.
	nats.Reconnected(s)
	_, asked := rewound(s)
	require.False(t, asked)
}

// TestLate shows that a server that is not there yet is a reason to retry, and that there is nothing to rewind when it comes.
func TestLate(t *testing.T) {
	address, err := server.FreeAddress()
	require.NoError(t, err)
	s := newSender(t, address)
	b := prepare(t, s, plain("a", 3))
	_, err = s.Send(t.Context(), b)
	require.Equal(t, "retry", class(err), err)
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	run(t, on(n, folder(t)))
	send(t, s, b)
	_, asked := rewound(s)
	require.False(t, asked)
}

// TestClosed shows that Close ends a connection that is not there at the moment, too.
func TestClosed(t *testing.T) {
	one := run(t)
	s := newSender(t, one.ClientURL())
	b := prepare(t, s, plain("a", 3))
	send(t, s, b)
	stop(one)
	_, err := s.Send(t.Context(), b)
	require.Equal(t, "retry", class(err), err)
}

// TestDebian shows with Debian's server, which is three years older than the client, that a kill -9 in the midst loses nothing that was
// acknowledged while the machine stays up, and that a batch sent again is stored once.
func TestDebian(t *testing.T) {
	one := peers.StartNATS(t)
	s := newSender(t, one.Address)
	want := content{}
	for i := range 30 {
		b := prepare(t, s, plain(fmt.Sprintf("inc-%d-%d-0", i, i), 50))
		for j := range b.Series {
			b.Series[j].Floats[0].TimeMillis += int64(i) * 1000
		}
		if i%10 == 9 {
			one.Restart()
		}
		deliver(t, s, b)
		deliver(t, s, b)
		for key, what := range wanted(b, func(ls labels.Labels) string { return subjects(ls) }) {
			want[key] = append(want[key], what...)
		}
	}
	require.Equal(t, want, decoded(t, stored(t, one.Address)))
}
