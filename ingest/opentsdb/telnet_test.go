package opentsdb_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/opentsdb"
	gate "varve/internal/gate/server"
)

// listen serves put lines until the test ends.
func listen(t testing.TB, sink ingest.Sink, o opentsdb.Options, limits ingest.Limits) (server *opentsdb.Telnet, address string) {
	t.Helper()
	if o.AnswerTimeout == 0 {
		o.AnswerTimeout = patience
	}
	server, err := opentsdb.NewTelnet(o, sink, limits, ingest.NewMetrics(nil), discard, time.Now)
	require.NoError(t, err)
	// On an address of our own, where nobody else listens when the server does no more.
	l, err := net.Listen("tcp", net.JoinHostPort(gate.Loopback(), "0"))
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, server.Shutdown(ctx))
		require.ErrorIs(t, <-done, opentsdb.ErrClosed)
	})
	return server, l.Addr().String()
}

func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// exchange sends lines, says that no more comes, and returns what is said until the server closes its side: all is written then.
func exchange(t testing.TB, address, lines string) string {
	t.Helper()
	conn := dial(t, address)
	_, err := io.WriteString(conn, lines)
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(said)
}

// Good lines are stored without a word, bad ones are refused one by one in OpenTSDB's words.
func TestLines(t *testing.T) {
	sink := ingesttest.NewSink()
	_, address := listen(t, sink, opentsdb.Options{LineBytesMax: 200, BatchBytes: 300}, ingest.Limits{LabelsMax: 4})
	good := func(line, series string, want ingesttest.Sample) {
		t.Helper()
		sink.Clear()
		require.Empty(t, exchange(t, address, line+"\n"))
		require.Equal(t, map[string][]ingesttest.Sample{series: {want}}, written(sink))
	}
	good("put sys.cpu 1700000000 1.5 host=a dc=b", `{__name__="sys.cpu", dc="b", host="a"}`, sample(1700000000000, 1.5))
	good("put m 1700000000123 -1e3", `{__name__="m"}`, sample(1700000000123, -1000))
	good("put m 1700000000.123 1 a=b=c\r", `{__name__="m", a="b=c"}`, sample(1700000000123, 1))
	good(" put\tm  1  1  a=b   a=b c=  ", `{__name__="m", a="b"}`, sample(1000, 1))
	bad := func(line, answer string) {
		t.Helper()
		sink.Clear()
		lines := "put before 1 1\n" + line + "\nput behind 1 1\n"
		require.Equal(t, answer+"\n", exchange(t, address, lines))
		require.Len(t, sink.Written(), 2)
		// It is not known by its bytes the second time.
		require.Equal(t, answer+"\n", exchange(t, address, lines))
	}
	const illegal = "put: illegal argument: "
	bad("put", illegal+"not enough arguments: want a metric, a time, a value and tags")
	bad("put m 1", illegal+"not enough arguments: want a metric, a time, a value and tags")
	bad("put m x 1 a=b", illegal+`invalid timestamp: "x"`)
	bad("put m 0 1 a=b", illegal+`invalid timestamp: "0"`)
	bad("put m 1 x a=b", `put: invalid value: Unable to parse value to a number: "x"`)
	bad("put m 1 NaN a=b", `put: invalid value: value is NaN or Infinite: "NaN"`)
	bad("put m 1 1 a", illegal+`invalid tag: "a"`)
	bad("put m 1 1 =a", illegal+`invalid tag: "=a"`)
	bad("put m 1 1 a=b a=c", illegal+`duplicate tag: "a=c"`)
	bad("put m 1 1 a=1 b=1 c=1 d=1 e=1", illegal+"Too many tags: more than 4")
	bad("put m 1 1 a=\xff", illegal+`invalid labels: value "\xff" of label "a" is not UTF-8`)
	bad("put m 1 1 a="+strings.Repeat("x", 200), illegal+"the line has more than 200 bytes")
	bad("put m 1 1 a="+strings.Repeat("x", 5000), illegal+"the line has more than 200 bytes")
	bad("dropcaches", "unknown command: dropcaches.  Try `help'.")
	bad("GET / HTTP/1.1", "unknown command: GET.  Try `help'.")
	bad("\x00\x1b[2J x", "unknown command: \"\\x00\\x1b[2J\".  Try `help'.")
	bad("help", "available commands: exit help put version")
	bad("\n\nversion\n\n", "net.opentsdb 2.4.0 built at revision varve (MODIFIED)")
	require.Equal(t, illegal+"the last line has no end\n", exchange(t, address, "put whole 1 1\nput cut 1 12"))
	require.NotContains(t, sink.Written(), `{__name__="cut"}`)
	require.Contains(t, sink.Written(), `{__name__="whole"}`)
}

// Lines that come in pieces, and more than a buffer of them, are all stored.
func TestPieces(t *testing.T) {
	sink := ingesttest.NewSink()
	_, address := listen(t, sink, opentsdb.Options{LineBytesMax: 100, BatchBytes: 1000}, ingest.Limits{})
	var lines strings.Builder
	const n = 5000
	for i := range n {
		fmt.Fprintf(&lines, "put m%d %d %d a=b\n", i%10, i+1, i)
	}
	conn := dial(t, address)
	rest := lines.String()
	for i := 0; len(rest) > 0; i++ {
		size := min(1+i*7%97, len(rest))
		_, err := io.WriteString(conn, rest[:size])
		require.NoError(t, err)
		rest = rest[size:]
	}
	require.NoError(t, conn.CloseWrite())
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Empty(t, said)
	stored := 0
	for _, s := range sink.Written() {
		stored += len(s.Samples)
	}
	require.Equal(t, n, stored)
}

// A client that waits for its answer gets it without closing, and exit ends the connection after what came before it.
func TestDialogue(t *testing.T) {
	sink := ingesttest.NewSink()
	_, address := listen(t, sink, opentsdb.Options{}, ingest.Limits{})
	conn := dial(t, address)
	from := bufio.NewReader(conn)
	for line, want := range map[string]string{"version": "net.opentsdb 2.4.0", "put m 1 x a=b": "put: invalid value"} {
		_, err := fmt.Fprintln(conn, line)
		require.NoError(t, err)
		said, err := from.ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, said, want)
	}
	_, err := io.WriteString(conn, "put m 1 1 a=b\nexit\nput n 1 1 a=b\n")
	require.NoError(t, err)
	_, err = from.ReadString('\n')
	require.Error(t, err)
	require.Len(t, sink.Written(), 1)
}

// changing is a sink that fails until it is healed.
type changing struct {
	*ingesttest.Sink
	mu     sync.Mutex
	err    error
	failed chan struct{}
}

func (c *changing) Write(ctx context.Context, b *arrival.Batch) (arrival.Result, error) {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		select {
		case c.failed <- struct{}{}:
		default:
		}
		return arrival.Result{}, err
	}
	return c.Sink.Write(ctx, b)
}

func (c *changing) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = nil
}

func failing() *changing {
	return &changing{
		Sink: ingesttest.NewSink(), failed: make(chan struct{}, 1),
		err: &arrival.Unavailable{Reason: "disk_full", RetryAfter: time.Millisecond, Err: errors.New("no room")},
	}
}

// While the archive can't write nothing is answered; when it can, all is written once and bad lines are refused once.
func TestArchiveAway(t *testing.T) {
	sink := failing()
	_, address := listen(t, sink, opentsdb.Options{}, ingest.Limits{})
	said := make(chan string, 1)
	go func() { said <- exchange(t, address, "put m 1 1 a=b\nput n 1 x a=b\n") }()
	<-sink.failed
	<-sink.failed
	require.Empty(t, sink.Written())
	sink.heal()
	require.Equal(t, "put: invalid value: Unable to parse value to a number: \"x\"\n", <-said)
	require.Equal(t, map[string][]ingesttest.Sample{`{__name__="m", a="b"}`: {sample(1000, 1)}}, written(sink.Sink))
}

// A stop writes what has come before it closes the connections, and takes no more.
func TestShutdown(t *testing.T) {
	sink, budget := ingesttest.NewSink(), ingest.NewBudget(1<<20)
	server, address := listen(t, sink, opentsdb.Options{BatchDelay: time.Hour}, ingest.Limits{InFlight: budget})
	conn := dial(t, address)
	const lines, bufferBytes = "put m 1 1 a=b\nput cut 1", 4 << 10
	_, err := io.WriteString(conn, strings.Repeat("\n", bufferBytes-len(lines))+lines)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return budget.Used() > bufferBytes }, patience, time.Millisecond, "all is read, and there is room for more")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, server.Shutdown(ctx))
	require.Equal(t, map[string][]ingesttest.Sample{`{__name__="m", a="b"}`: {sample(1000, 1)}}, written(sink))
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(said), "the last line has no end")
	_, err = net.Dial("tcp", address)
	require.Error(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorIs(t, server.Serve(l), opentsdb.ErrClosed)
}

// A stop that may not last gives up what the archive doesn't take, and says so to the client.
func TestShutdownInVain(t *testing.T) {
	sink := failing()
	server, address := listen(t, sink, opentsdb.Options{}, ingest.Limits{})
	conn := dial(t, address)
	_, err := io.WriteString(conn, "put m 1 1 a=b\n")
	require.NoError(t, err)
	<-sink.failed
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, server.Shutdown(ctx), context.Canceled)
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(said), "put: Storage exception: write samples: disk_full: no room")
	require.Empty(t, sink.Written())
}

// There is a bound on connections, and one that is idle is closed.
func TestConnections(t *testing.T) {
	_, address := listen(t, ingesttest.NewSink(), opentsdb.Options{ConnectionsMax: 1}, ingest.Limits{})
	first, second := dial(t, address), dial(t, address)
	said, _ := io.ReadAll(second) // Closed, or reset.
	require.Empty(t, said)
	_, err := io.WriteString(first, "version\n")
	require.NoError(t, err)
	answer, err := bufio.NewReader(first).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, answer, "net.opentsdb")

	_, address = listen(t, ingesttest.NewSink(), opentsdb.Options{IdleTimeout: 50 * time.Millisecond}, ingest.Limits{})
	began := time.Now()
	said, err = io.ReadAll(dial(t, address))
	require.NoError(t, err)
	require.Empty(t, said)
	require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
}

// A client that reads none of its answers stops being told, and its good lines are stored all the same.
func TestDeafClient(t *testing.T) {
	sink := ingesttest.NewSink()
	_, address := listen(t, sink, opentsdb.Options{AnswerTimeout: 20 * time.Millisecond}, ingest.Limits{})
	conn := dial(t, address)
	bad := strings.Repeat("put m 1 x a=b\n", 1000)
	for range 200 {
		_, err := io.WriteString(conn, bad)
		require.NoError(t, err)
	}
	_, err := io.WriteString(conn, "put good 1 1 a=b\n")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(sink.Written()) == 1 }, patience, time.Millisecond)
}

// The budget bounds what connections hold, and they hold nothing when they are gone.
func TestTelnetBudget(t *testing.T) {
	budget := ingest.NewBudget(8 << 20)
	_, address := listen(t, ingesttest.NewSink(), opentsdb.Options{}, ingest.Limits{InFlight: budget})
	require.Empty(t, exchange(t, address, strings.Repeat("put m 1 1 a=b\n", 20_000)))
	require.Eventually(t, func() bool { return budget.Used() == 0 }, patience, time.Millisecond)
	_, address = listen(t, ingesttest.NewSink(), opentsdb.Options{}, ingest.Limits{InFlight: ingest.NewBudget(10)})
	conn := dial(t, address)
	said, err := io.ReadAll(conn)
	require.Empty(t, said)
	require.NoError(t, err)
}

// Put lines come over TLS as well.
func TestTelnetTLS(t *testing.T) {
	https := httptest.NewTLSServer(nil)
	https.Close()
	sink := ingesttest.NewSink()
	_, address := listen(t, sink, opentsdb.Options{TLS: &tls.Config{Certificates: https.TLS.Certificates, MinVersion: tls.VersionTLS12}}, ingest.Limits{})
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "put m 1 1 a=b\nput m x\n")
	require.NoError(t, err)
	said, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, said, "not enough arguments")
	require.Len(t, sink.Written(), 1)
}
