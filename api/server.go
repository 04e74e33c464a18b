package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"varve/api/access"
)

const (
	// A client that sends its request line and headers slower than this is
	// holding a connection, not asking anything.
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	headerBytesMax    = 64 << 10
	// http2StreamsMax bounds the requests at once on one connection.
	http2StreamsMax = 100
)

// ServerOptions is what a Server is made of.
type ServerOptions struct {
	Guard *access.Guard
	// Connections bounds the open ones; more wait in the kernel's queue.
	Connections int
	Logger      *slog.Logger
}

// Server takes connections from its start and answers 503 until it is given an
// API, so that probes and senders are answered while the archive opens.
type Server struct {
	o    ServerOptions
	http *http.Server
	api  atomic.Pointer[API]
}

// NewServer returns a server that doesn't listen yet.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Guard == nil || o.Logger == nil || o.Connections <= 0 {
		return nil, errors.New("api: a server needs a guard, a logger and a positive number of connections")
	}
	s := &Server{o: o}
	s.http = s.Beside(http.HandlerFunc(s.serve))
	return s, nil
}

// Beside returns a server with the limits of this one, for another address. The time of bodies is limited before
// anybody is asked who they are: net/http reads what is left of a body before it answers, of one that is denied too.
func (s *Server) Beside(h http.Handler) *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Expect") != "" {
				// net/http has to find its own body in its request, or it asks for all of what is refused and waits for it.
				r = r.WithContext(r.Context())
			}
			limitBodyTime(w, r, false)
			h.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: http2StreamsMax},
		ErrorLog:          slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
	}
}

// Limited returns l with as many connections at a time as the server's own address has.
func (s *Server) Limited(l net.Listener) net.Listener {
	return netutil.LimitListener(l, s.o.Connections)
}

// Use makes the server answer with a from now on.
func (s *Server) Use(a *API) { s.api.Store(a) }

// Serve takes connections from l until Shutdown, then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(s.o.Guard.Listener(s.Limited(l)))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// Shutdown refuses further writes, takes no further connections and waits until
// every open request is answered. Those that aren't when ctx ends are cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	if a := s.api.Load(); a != nil {
		a.Drain()
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("wait for open requests: %w", err), s.http.Close())
	}
	return err
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if a := s.api.Load(); a != nil {
		a.ServeHTTP(w, r)
		return
	}
	s.o.Guard.Public(http.HandlerFunc(serveStarting)).ServeHTTP(w, r)
}

func serveStarting(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/-/healthy" {
		fmt.Fprintln(w, "Varve is healthy.")
		return
	}
	w.Header().Set("Retry-After", retryAfterSeconds)
	http.Error(w, "Varve is starting.", http.StatusServiceUnavailable)
}
