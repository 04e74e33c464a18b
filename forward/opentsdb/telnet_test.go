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

// console is a telnet listener: say answers each line but version, and with hangUp it is over.
type console struct {
	address string
	// version is the answer to that.
	version string

	mu    sync.Mutex
	lines []string
}

func newConsole(t testing.TB, say func(line string) (answer string, hangUp bool)) *console {
	return newVersionedConsole(t, "", say)
}

func newVersionedConsole(t testing.TB, version string, say func(line string) (answer string, hangUp bool)) *console {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &console{address: l.Addr().String(), version: version}
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
		if lines.Text() == "version" {
			if _, err := io.WriteString(conn, c.version); err != nil {
				return
			}
			continue
		}
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

// opentsdbVersion is what OpenTSDB says of its version.
const opentsdbVersion = "net.opentsdb.tools BuildData built at revision abc (MINT)\nBuilt on 2026/01/01 by someone\n"

// A server that hangs up on a line that is too long for it, without a word, refuses the batch, also where the line is the last one or all of
// it, and takes the others; so does one that says why and hangs up. What a batch brings beside a long line is not lost.
func TestPutHangsUp(t *testing.T) {
	for name, c := range map[string]struct{ version, said string }{
		"silent":                 {version: opentsdbVersion},
		"with a word":            {version: opentsdbVersion, said: "put: illegal argument: the line has more than 100 bytes\n"},
		"without a version":      {},
		"a word, and no version": {said: "put: illegal argument: the line has more than 100 bytes\n"},
	} {
		t.Run(name, func(t *testing.T) {
			server := newVersionedConsole(t, c.version, func(line string) (string, bool) {
				if len(line) > 100 {
					return c.said, true
				}
				return "", false
			})
			s := newSender(t, opentsdb.Options{Protocol: opentsdb.Telnet, URL: server.address})
			short := series(t, s, labels.FromStrings("__name__", "up"), 1)
			long := series(t, s, labels.FromStrings("__name__", "up", "a", strings.Repeat("x", 200)), 1)
			many := series(t, s, labels.FromStrings("__name__", "up", "a", strings.Repeat("x", 200)), make([]float64, 20_000)...)
			refused := func(all ...forward.Series) {
				t.Helper()
				out, err := s.Send(t.Context(), &forward.Batch{Series: all})
				var refused *forward.Refused
				require.ErrorAs(t, err, &refused)
				require.Zero(t, out)
			}
			refused(short, many)
			if c.version != "" || c.said != "" {
				refused(long)
				refused(long, short)
				refused(short, long)
			}
			_, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{short, short}})
			require.NoError(t, err)
		})
	}
}

// A server whose answer to version changes is not asked behind batches, and one that hangs up on everybody, as one does that passes
// connections on to nobody, has refused nothing.
func TestPutOddServers(t *testing.T) {
	said := 0
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if lines.Text() == "version" {
					said++
					_, _ = fmt.Fprintln(conn, "version", said)
				}
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { require.NoError(t, l.Close()); served.Wait() })
	s := newSender(t, opentsdb.Options{Protocol: opentsdb.Telnet, URL: l.Addr().String()})
	b := &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), 1)}}
	var retry *forward.Retry
	_, err = s.Send(t.Context(), b)
	require.ErrorAs(t, err, &retry)
	_, err = s.Send(t.Context(), b)
	require.NoError(t, err)

	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served.Go(func() {
		for {
			conn, err := nobody.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { require.NoError(t, nobody.Close()) })
	s = newSender(t, opentsdb.Options{Protocol: opentsdb.Telnet, URL: nobody.Addr().String()})
	s.Patient(patience)
	_, err = s.Send(t.Context(), b)
	require.ErrorAs(t, err, &retry)
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
