package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/api"
)

// serving starts a server with the fixture's guard and returns its address.
func serving(t *testing.T, f *fixture, connections int) (*api.Server, string, <-chan error) {
	t.Helper()
	s, err := api.NewServer(api.ServerOptions{Guard: f.options.Guard, Connections: connections, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return s, "http://" + l.Addr().String(), done
}

func fetch(t *testing.T, method, target string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	require.NoError(t, err)
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

func TestServerAnswersWhileItStarts(t *testing.T) {
	// Before there is an API the process is alive and everything else is to come
	// back later; afterwards the API answers.
	t.Parallel()
	f := filled(t, nil)
	s, base, done := serving(t, f, 10)
	for target, want := range map[string]int{"/-/healthy": 200, "/-/ready": 503, "/api/v1/query?query=up": 503} {
		code, _ := fetch(t, http.MethodGet, base+target)
		require.Equal(t, want, code, target)
	}
	code, _ := fetch(t, http.MethodPost, base+"/api/v1/write")
	require.Equal(t, 503, code)
	s.Use(f.handler)
	code, _ = fetch(t, http.MethodGet, base+"/-/ready")
	require.Equal(t, 200, code)
	require.NoError(t, s.Shutdown(t.Context()))
	require.NoError(t, <-done)
}

func TestShutdownAnswersOpenRequests(t *testing.T) {
	// A write that was begun is answered, one that comes during the stop is told to
	// come back, and the server ends without an error.
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	f := newFixture(t, func(o *api.Options) {
		o.Inputs = writer(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-finish
			w.WriteHeader(http.StatusNoContent)
		})
	})
	s, base, done := serving(t, f, 10)
	s.Use(f.handler)
	first := make(chan int, 1)
	go func() {
		code, _ := fetch(t, http.MethodPost, base+"/api/v1/write")
		first <- code
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	require.NoError(t, <-done)
	code, _, _ := f.call(http.MethodPost, "/api/v1/write", "")
	require.Equal(t, 503, code)
	close(finish)
	require.Equal(t, 204, <-first)
	require.NoError(t, <-stopped)
}

func TestBodiesHaveADeadlineOfTheirOwn(t *testing.T) {
	// The deadline for a body reaches the connection through all wrappers, and is
	// lifted at the body's end, so that a handler may take longer than a sender.
	t.Parallel()
	f := newFixture(t, func(o *api.Options) {
		o.Inputs = writer(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_, err := r.Body.Read(make([]byte, 1))
			fmt.Fprint(w, err)
		})
	})
	s, base, done := serving(t, f, 10)
	s.Use(f.handler)
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprint(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, 200, answer.StatusCode, string(body))
	require.Contains(t, string(body), "timeout")
	require.NoError(t, s.Shutdown(t.Context()))
	require.NoError(t, <-done)
}

func TestShutdownCutsOffWhatTakesTooLong(t *testing.T) {
	// A request that never ends doesn't keep the server from stopping in time.
	t.Parallel()
	begun := make(chan struct{})
	f := newFixture(t, func(o *api.Options) {
		o.Inputs = writer(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
		})
	})
	s, base, done := serving(t, f, 10)
	s.Use(f.handler)
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprint(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Shutdown(ctx), context.Canceled)
	require.NoError(t, <-done)
}

func TestConnectionsAndHeadersAreBounded(t *testing.T) {
	// A connection over the limit waits until another closes; headers of 1 MiB are
	// refused.
	t.Parallel()
	f := filled(t, nil)
	s, base, done := serving(t, f, 1)
	s.Use(f.handler)
	addr := strings.TrimPrefix(base, "http://")
	first, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	fmt.Fprint(first, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(first), nil)
	require.NoError(t, err)
	require.Equal(t, 200, answer.StatusCode)

	second, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	fmt.Fprint(second, "GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	require.NoError(t, second.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err = second.Read(make([]byte, 1))
	require.ErrorContains(t, err, "timeout")
	require.NoError(t, first.Close())
	require.NoError(t, second.SetReadDeadline(time.Now().Add(2*time.Minute)))
	answer, err = http.ReadResponse(bufio.NewReader(second), nil)
	require.NoError(t, err)
	require.Equal(t, 200, answer.StatusCode)
	require.NoError(t, second.Close())

	third, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	go func() {
		// The server may close while this is still being sent.
		_, _ = fmt.Fprintf(third, "GET /-/healthy HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 1<<20))
	}()
	answer, err = http.ReadResponse(bufio.NewReader(third), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, answer.StatusCode)
	require.NoError(t, third.Close())
	require.NoError(t, s.Shutdown(t.Context()))
	require.NoError(t, <-done)
}

// deadlineRecorder is a response that knows deadlines.
type deadlineRecorder struct {
	http.ResponseWriter
	deadlines []time.Time
}

func (d *deadlineRecorder) SetReadDeadline(t time.Time) error {
	d.deadlines = append(d.deadlines, t)
	return nil
}

// TestBodiesOfEveryRequestHaveADeadline shows that the time of a body is limited before anybody is asked who they are, and whatever the
// path: net/http waits for the body of a request that was denied, and a connection would be held for ever by who has no credentials.
func TestBodiesOfEveryRequestHaveADeadline(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	s, err := api.NewServer(api.ServerOptions{Guard: f.options.Guard, Connections: 1, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	for _, denied := range []int{http.StatusUnauthorized, http.StatusNotFound, http.StatusNoContent} {
		h := s.Beside(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(denied) })).Handler
		w := &deadlineRecorder{ResponseWriter: httptest.NewRecorder()}
		began := time.Now()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("x")))
		require.Len(t, w.deadlines, 1)
		require.WithinRange(t, w.deadlines[0], began.Add(time.Minute), time.Now().Add(time.Minute))
		w = &deadlineRecorder{ResponseWriter: httptest.NewRecorder()}
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		require.Empty(t, w.deadlines, "there is no body")
	}
}

func TestRefusedBodiesAreNotAskedFor(t *testing.T) {
	// A client that waits to be asked for its body gets the refusal at once, and nothing asks.
	t.Parallel()
	f := newFixture(t, func(o *api.Options) {
		o.Inputs = writer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "taken", http.StatusConflict) })
	})
	s, base, done := serving(t, f, 10)
	s.Use(f.handler)
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(2*time.Minute)))
	_, err = io.WriteString(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
	require.NoError(t, err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusConflict, answer.StatusCode)
	// The server would wait for the body's deadline.
	require.NoError(t, conn.Close())
	require.NoError(t, s.Shutdown(t.Context()))
	require.NoError(t, <-done)
}
