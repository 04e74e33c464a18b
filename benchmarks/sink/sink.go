// Package sink is what outputs are measured against: a receiver of remote write 1.0
// and 2.0 in the process of the benchmark that counts what it is sent and keeps
// nothing, and receivers that are dead in one of the ways that receivers are.
//
// A Sink has a port of the loopback from New to Close. Until Open nobody listens
// there, so that connections are refused, and nobody else gets the port.
//
// The methods are safe for several goroutines, but for Open and Close.
package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"
	"golang.org/x/sys/unix"
)

// Hang is the status of a sink that reads requests and never answers.
const Hang = -1

// Sink is a receiver.
type Sink struct {
	status   int
	fd       int
	address  string
	server   *http.Server
	serving  chan error
	buffers  sync.Pool
	samples  atomic.Int64
	requests atomic.Int64
	bytes    atomic.Int64
	faults   atomic.Pointer[error]
}

// buffer is what a request is read and decompressed into.
type buffer struct{ body, plain []byte }

// New reserves a port. Status is what all requests are answered with, or Hang. With 2xx
// they are counted.
func New(status int) (*Sink, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("sink: open socket: %w", err)
	}
	s := &Sink{status: status, fd: fd, buffers: sync.Pool{New: func() any { return new(buffer) }}}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, errors.Join(fmt.Errorf("sink: bind: %w", err), s.Close())
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sink: name of socket: %w", err), s.Close())
	}
	own, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return nil, errors.Join(fmt.Errorf("sink: %T is no IPv4 address", name), s.Close())
	}
	s.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(own.Port))
	return s, nil
}

// Open begins to take requests.
func (s *Sink) Open() error {
	if err := unix.Listen(s.fd, unix.SOMAXCONN); err != nil {
		return fmt.Errorf("sink: listen: %w", err)
	}
	// The listener has a descriptor of its own, which the file's end doesn't close.
	file := os.NewFile(uintptr(s.fd), s.address)
	s.fd = -1
	listener, err := net.FileListener(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("sink: listen: %w", err)
	}
	// Requests that hang end with the server.
	ctx, cancel := context.WithCancel(context.Background())
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	s.server.RegisterOnShutdown(cancel)
	s.serving = make(chan error, 1)
	go func() {
		defer cancel()
		s.serving <- s.server.Serve(listener)
	}()
	return nil
}

// Close ends all connections and gives the port back.
func (s *Sink) Close() error {
	if s.server != nil {
		err := s.server.Close()
		if served := <-s.serving; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		s.server = nil
		return err
	}
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// URL is where to write.
func (s *Sink) URL() string { return "http://" + s.address + "/api/v1/write" }

// Samples is how many were taken: floats and native histograms, with those that came twice.
func (s *Sink) Samples() int64 { return s.samples.Load() }

// Requests is how many were answered or hang.
func (s *Sink) Requests() int64 { return s.requests.Load() }

// Bytes are those of the bodies that were taken, compressed.
func (s *Sink) Bytes() int64 { return s.bytes.Load() }

// Fault is the first request that could not be read, nil without one.
func (s *Sink) Fault() error {
	if err := s.faults.Load(); err != nil {
		return *err
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.status == Hang {
		s.requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		return
	}
	if s.status/100 != 2 {
		s.requests.Add(1)
		http.Error(w, http.StatusText(s.status), s.status)
		return
	}
	b, ok := s.buffers.Get().(*buffer)
	if !ok {
		b = new(buffer)
	}
	defer s.buffers.Put(b)
	samples, err := b.take(r)
	if err != nil {
		err = fmt.Errorf("sink: %w", err)
		s.faults.CompareAndSwap(nil, &err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.requests.Add(1)
	s.bytes.Add(int64(len(b.body)))
	s.samples.Add(int64(samples))
	// Floats and histograms are not told apart: the sender adds them up.
	w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(samples))
	w.WriteHeader(s.status)
}

// bodyBytesMax bounds a request.
const bodyBytesMax = 64 << 20

// take reads a request and counts its samples.
func (b *buffer) take(r *http.Request) (samples int, err error) {
	if r.ContentLength < 0 || r.ContentLength > bodyBytesMax {
		return 0, fmt.Errorf("a body of %d bytes", r.ContentLength)
	}
	if int64(cap(b.body)) < r.ContentLength {
		b.body = make([]byte, r.ContentLength)
	}
	b.body = b.body[:r.ContentLength]
	if _, err := io.ReadFull(r.Body, b.body); err != nil {
		return 0, fmt.Errorf("read a body: %w", err)
	}
	if n, err := s2.DecodedLen(b.body); err != nil || n > bodyBytesMax {
		return 0, errors.Join(fmt.Errorf("a body of %d bytes decompressed", n), err)
	}
	if b.plain, err = s2.Decode(b.plain[:cap(b.plain)], b.body); err != nil {
		return 0, fmt.Errorf("decompress a body: %w", err)
	}
	protocol := 1
	if strings.Contains(r.Header.Get("Content-Type"), "io.prometheus.write.v2.Request") {
		protocol = 2
	}
	return Count(b.plain, protocol)
}
