package opentsdb_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/lineprotocol"
	"varve/forward/opentsdb"
)

// console is a telnet listener: say answers each line, and with hangUp it is over.
type console struct {
	address string

	mu    sync.Mutex
	lines []string
}

func newConsole(t testing.TB, say func(line string) (answer string, hangUp bool)) *console {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &console{address: l.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { c.serve(conn, say) })
		}
	})
	t.Cleanup(func() { require.NoError(t, l.Close()); running.Wait() })
	return c
}

func (c *console) serve(conn net.Conn, say func(string) (string, bool)) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		answer, hangUp := say(lines.Text())
		if _, err := io.WriteString(conn, answer); err != nil || hangUp {
			return
		}
		c.mu.Lock()
		c.lines = append(c.lines, lines.Text())
		c.mu.Unlock()
	}
}

// Put lines keep to OpenTSDB's rules and count as taken when the server has read them all.
func TestPut(t *testing.T) {
	c := newConsole(t, func(string) (string, bool) { return "", false })
	s := newSender(t, opentsdb.Options{Protocol: opentsdb.Telnet, URL: c.address, Milliseconds: true})
	out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{
		series(t, s, labels.FromStrings("__name__", "up"), 1, math.NaN()),
		series(t, s, labels.FromStrings("__name__", "job:x y", "in_stance", "host:9100", "é", "1"), 0.25),
	}})
	require.NoError(t, err)
	require.Equal(t, forward.Outcome{Skipped: map[string]int{lineprotocol.ReasonNotFinite: 1}}, out)
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Equal(t, []string{"put up 1700000000000 1 source=varve", "put job_.x_20y 1700000000000 0.25 _C3_A9=1 in__stance=host_.9100"}, c.lines)
}

// What the server says of a line refuses the batch, so that it is cut, unless it is about the store.
func TestPutAnswers(t *testing.T) {
	for said, want := range map[string]string{
		"put: illegal argument: Too many tags: 9 maximum allowed: 8\n": "*forward.Refused",
		"put: unknown metric: No such name for 'metrics': 'up'\n":      "*forward.Refused",
		"put: HBase error: region is gone\n":                           "*forward.Retry",
		"put: Please throttle writes: 10000 RPCs waiting\n":            "*forward.Retry",
	} {
		// So long answers that a sender that doesn't listen would stop the server, and be stopped by it.
		c := newConsole(t, func(string) (string, bool) { return said + strings.Repeat("x", 2000) + "\n", false })
		s := newSender(t, opentsdb.Options{Protocol: opentsdb.Telnet, URL: c.address})
		out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "a", strings.Repeat("x", 900)), make([]float64, 8_000)...)}})
		require.Equal(t, want, fmt.Sprintf("%T", err))
		require.ErrorContains(t, err, strings.TrimSpace(said))
		require.Zero(t, out)
	}
}

// A server that hangs up before all is read, that isn't there or that never answers has not taken the batch.
func TestPutNetworkErrors(t *testing.T) {
	b := func(s *opentsdb.Sender) *forward.Batch {
		return &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "a", strings.Repeat("x", 900)), make([]float64, 20_000)...)}}
	}
	c := newConsole(t, func(string) (string, bool) { return "bye\n", true })
	for _, address := range []string{c.address, "127.0.0.1:1"} {
		s := newSender(t, opentsdb.Options{Protocol: opentsdb.Telnet, URL: address})
		_, err := s.Send(t.Context(), b(s))
		var retry *forward.Retry
		require.ErrorAs(t, err, &retry)
	}

	ctx, cancel := context.WithCancel(t.Context())
	stop := make(chan struct{})
	c = newConsole(t, func(string) (string, bool) { cancel(); <-stop; return "", true })
	s := newSender(t, opentsdb.Options{Protocol: opentsdb.Telnet, URL: c.address})
	_, err := s.Send(ctx, b(s))
	close(stop)
	var retry *forward.Retry
	require.ErrorAs(t, err, &retry)
}

// A series whose line the server would not read whole is refused at once.
func TestPutTooLong(t *testing.T) {
	s := newSender(t, opentsdb.Options{Protocol: opentsdb.Telnet, URL: "127.0.0.1:1"})
	require.Error(t, s.Prepare(&forward.Target{Labels: labels.FromStrings("__name__", "up", "a", strings.Repeat("x", 1000))}))
}
