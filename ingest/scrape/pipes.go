package scrape

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// pipes is a listener inside the process, for connections with and without TLS. It is
// safe for use by several goroutines.
//
// A server has to know whether a connection is encrypted when it accepts it, and the
// one who dials does not say. So a connection is offered to Accept once its first byte
// has come, which tells.
type pipes struct {
	tls      *tls.Config
	accepted chan net.Conn
	closed   chan struct{}

	mu sync.Mutex // guards waiting and isClosed
	// waiting are connections whose first byte has not come.
	waiting  map[net.Conn]struct{}
	isClosed bool
	admits   sync.WaitGroup
}

func newPipes(certificate tls.Certificate) *pipes {
	return &pipes{
		tls:      &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
		accepted: make(chan net.Conn), closed: make(chan struct{}), waiting: make(map[net.Conn]struct{}),
	}
}

// dial connects to the listener, whatever the address.
func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed {
		return nil, net.ErrClosed
	}
	p.waiting[server] = struct{}{}
	p.admits.Add(1)
	go p.admit(server)
	return client, nil
}

const (
	// firstByteTimeout is for connections that are dialed and not used.
	firstByteTimeout = time.Minute
	// tlsHandshake is the first byte of a TLS connection, which no HTTP request begins with.
	tlsHandshake = 0x16
)

// admit offers a connection to Accept once it is known what it is.
func (p *pipes) admit(c net.Conn) {
	defer p.admits.Done()
	first := &begun{Conn: c}
	err := c.SetReadDeadline(time.Now().Add(firstByteTimeout))
	if err == nil {
		_, err = c.Read(first.byte[:])
	}
	p.mu.Lock()
	delete(p.waiting, c)
	p.mu.Unlock()
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return
	}
	var offered net.Conn = first
	if first.byte[0] == tlsHandshake {
		offered = tls.Server(first, p.tls)
	}
	select {
	case p.accepted <- offered:
	case <-p.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It returns when no goroutine is left.
func (p *pipes) Close() error {
	p.mu.Lock()
	if !p.isClosed {
		p.isClosed = true
		close(p.closed)
	}
	for c := range p.waiting {
		c.Close()
	}
	p.mu.Unlock()
	p.admits.Wait()
	return nil
}

// Addr implements net.Listener.
func (*pipes) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "inside the process" }

// begun is a connection whose first byte was read already.
type begun struct {
	net.Conn
	byte [1]byte
	// given tells that the byte was given to a reader.
	given bool
}

// Read implements net.Conn.
func (b *begun) Read(p []byte) (int, error) {
	if b.given || len(p) == 0 {
		return b.Conn.Read(p)
	}
	b.given = true
	return copy(p, b.byte[:]), nil
}
