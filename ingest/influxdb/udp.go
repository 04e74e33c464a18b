package influxdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varve/ingest"
)

// UDPOptions are those of a UDP listener. Zero fields mean their defaults.
type UDPOptions struct {
	// Address to listen at, as in net.ListenPacket.
	Address string
	// Precision of the times in lines: datagrams have no place to say it.
	Precision Precision
	// Database is the parameter db of all lines, see Options.DatabaseLabel.
	Database string
	// DatagramsMax and BytesMax end a batch that is written at once, and Delay ends it when
	// that long has passed since its first datagram. Defaults 1000, 1 MiB and 100 ms.
	DatagramsMax, BytesMax int
	Delay                  time.Duration
	// BatchesMax is how many batches wait for the disk before datagrams are dropped. Default 8.
	BatchesMax int
	// StopTimeout is how long the disk may take for what was received before the stop. Default 5 s.
	StopTimeout time.Duration
	// SocketBytes is the size of the kernel's buffer that is asked for; it gives less
	// without a word. Default 8 MiB.
	SocketBytes int
}

func (o UDPOptions) withDefaults() UDPOptions {
	for field, value := range map[*int]int{&o.DatagramsMax: 1000, &o.BytesMax: 1 << 20, &o.BatchesMax: 8, &o.SocketBytes: 8 << 20} {
		if *field <= 0 {
			*field = value
		}
	}
	if o.Delay <= 0 {
		o.Delay = 100 * time.Millisecond
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = 5 * time.Second
	}
	return o
}

// UDPMetrics count datagrams, by the name of the input. What is in them is counted as of
// every other way.
type UDPMetrics struct {
	received, dropped *prometheus.CounterVec
}

// NewUDPMetrics registers the metrics with reg, which may be nil.
func NewUDPMetrics(reg prometheus.Registerer) *UDPMetrics {
	m := &UDPMetrics{
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_udp_datagrams_total",
			Help: "Datagrams received, those that were dropped included.",
		}, []string{"input"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varve_ingest_udp_dropped_datagrams_total",
			Help: "Datagrams received and dropped, because the disk does not keep up (reason=\"queue_full\") or the process stopped before it took them (reason=\"stopped\").",
		}, []string{"input", "reason"}),
	}
	if reg != nil {
		reg.MustRegister(m.received, m.dropped)
	}
	return m
}

// UDP takes lines in datagrams. UDP has no answers: what can't be stored is counted and
// logged.
//
//	socket -> read: fills a batch -> full -> write: one delivery a batch -> sink
//	               ^                          |
//	               +---------- free <---------+
//
// The batches are all the memory that there is. When none is free datagrams are read,
// counted and dropped.
type UDP struct {
	in   *Input
	o    UDPOptions
	conn *net.UDPConn
	free chan *batch
	full chan *batch

	received, queueFull, stopped prometheus.Counter
}

// batch is some datagrams, one behind the other with a newline between them.
type batch struct {
	bytes []byte
	ends  []int // of the datagrams
	// millis is when the first came: the time of lines without one, however long the batch waits for the disk.
	millis int64
}

// datagramBytesMax is more than a datagram can hold.
const datagramBytesMax = 64 << 10

// ListenUDP opens the socket. Run or Close must be called. name is the input's, for metrics.
func (in *Input) ListenUDP(name string, metrics *UDPMetrics, o UDPOptions) (*UDP, error) {
	o = o.withDefaults()
	address, err := net.ResolveUDPAddr("udp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", o.Address, err)
	}
	conn, err := net.ListenUDP("udp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := conn.SetReadBuffer(o.SocketBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("set the size of the socket's buffer: %w", err), conn.Close())
	}
	u := &UDP{
		in: in, o: o, conn: conn, free: make(chan *batch, o.BatchesMax), full: make(chan *batch, o.BatchesMax),
		received: metrics.received.WithLabelValues(name), queueFull: metrics.dropped.WithLabelValues(name, "queue_full"),
		stopped: metrics.dropped.WithLabelValues(name, "stopped"),
	}
	for range o.BatchesMax {
		u.free <- &batch{}
	}
	return u, nil
}

// Addr is the address that it listens at.
func (u *UDP) Addr() net.Addr { return u.conn.LocalAddr() }

// Close closes a listener that does not run.
func (u *UDP) Close() error { return u.conn.Close() }

// What a stop waits for: datagrams that the kernel has already, which are there at once,
// but not for ever where they keep coming.
const (
	drainPause = 20 * time.Millisecond
	drainTime  = time.Second
)

// Run takes datagrams until ctx is done, then writes what was received, closes the socket
// and returns nil. It returns an error if the socket breaks.
func (u *UDP) Run(ctx context.Context) error {
	var writer sync.WaitGroup
	writer.Go(func() { u.write(ctx) })
	err := u.read(ctx)
	close(u.full)
	writer.Wait()
	return errors.Join(err, u.conn.Close())
}

// read fills batches until ctx is done and the kernel has no more.
func (u *UDP) read(ctx context.Context) error {
	interrupted := make(chan struct{})
	interrupt := context.AfterFunc(ctx, func() {
		_ = u.conn.SetReadDeadline(time.Now()) // a socket that is broken ends the read too
		close(interrupted)
	})
	defer interrupt()
	spare := make([]byte, datagramBytesMax)
	var b *batch
	var deadline time.Time // of the batch, zero while it is empty
	var stopAt time.Time   // zero until ctx is done
	for {
		if stopAt.IsZero() && ctx.Err() != nil {
			if !interrupt() {
				<-interrupted // or it would set its deadline over those that follow
			}
			stopAt = time.Now().Add(drainTime)
		}
		if !stopAt.IsZero() {
			deadline = time.Now().Add(drainPause)
		}
		if err := u.conn.SetReadDeadline(deadline); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		if stopAt.IsZero() && ctx.Err() != nil {
			continue // its deadline may be lost
		}
		if b == nil {
			b = u.emptyBatch()
		}
		into := spare
		if b != nil {
			into = b.room(u.o.BytesMax)
		}
		n, _, err := u.conn.ReadFromUDPAddrPort(into)
		expired := errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case err != nil && !expired:
			u.hand(b)
			return fmt.Errorf("read datagram: %w", err)
		case expired && !stopAt.IsZero(), !stopAt.IsZero() && time.Now().After(stopAt):
			if !expired {
				u.count(b, n)
			}
			u.hand(b)
			return nil
		case !expired:
			if u.count(b, n) && len(b.ends) == 1 {
				deadline = time.Now().Add(u.o.Delay)
			}
		}
		if b != nil && (expired || len(b.ends) >= u.o.DatagramsMax || len(b.bytes) >= u.o.BytesMax) {
			u.hand(b)
			b, deadline = nil, time.Time{}
		}
	}
}

// emptyBatch returns a batch, or nil where all are waiting for the disk.
func (u *UDP) emptyBatch() *batch {
	select {
	case b := <-u.free:
		b.bytes, b.ends = b.bytes[:0], b.ends[:0]
		return b
	default:
		return nil
	}
}

// count takes a datagram of n bytes into the batch, or tells that there is none.
func (u *UDP) count(b *batch, n int) bool {
	u.received.Inc()
	if b == nil {
		u.queueFull.Inc()
		return false
	}
	if len(b.ends) == 0 {
		b.millis = u.in.now().UnixMilli()
	}
	b.take(n)
	return true
}

// hand gives a batch to the writer. There are as many places as batches.
func (u *UDP) hand(b *batch) {
	switch {
	case b == nil:
	case len(b.ends) == 0:
		u.free <- b
	default:
		u.full <- b
	}
}

// room returns memory for a datagram behind the others.
func (b *batch) room(bytesMax int) []byte {
	if cap(b.bytes)-len(b.bytes) <= datagramBytesMax {
		b.bytes = append(make([]byte, 0, bytesMax+2*datagramBytesMax), b.bytes...)
	}
	return b.bytes[len(b.bytes) : len(b.bytes)+datagramBytesMax]
}

// take adds the n bytes that room has.
func (b *batch) take(n int) {
	b.bytes = b.bytes[:len(b.bytes)+n]
	b.ends = append(b.ends, len(b.bytes))
	b.bytes = append(b.bytes, '\n')
}

// write writes the batches until there are no more.
func (u *UDP) write(ctx context.Context) {
	// The disk may take what was received after the stop, for a while.
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(u.o.StopTimeout, cancel)
		context.AfterFunc(writing, func() { timer.Stop() })
	})
	defer stop()
	for b := range u.full {
		u.writeBatch(ctx, writing, b)
		u.free <- b
	}
}

// writeBatch writes a batch as often as the archive asks for, until the stop.
func (u *UDP) writeBatch(ctx, writing context.Context, b *batch) {
	for {
		wait, err := u.deliver(writing, b)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			u.stopped.Add(float64(len(b.ends)))
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// deliver writes a batch once. An error says that it should be tried again, after a wait.
func (u *UDP) deliver(ctx context.Context, b *batch) (wait time.Duration, err error) {
	extra := u.in.names.extraLabels([requestParameters]string{u.o.Database})
	d := u.in.decoder(wayUDP, u.o.Precision, extra)
	d.body, d.nowMillis = b.bytes, b.millis
	d.delivery.Took(len(b.bytes), len(b.bytes))
	from := 0
	for _, end := range b.ends {
		// Each datagram stands for itself: a quote that is open at its end closes in no other.
		if _, err = d.lines(ctx, from, end, true); err != nil {
			break
		}
		from = end + 1
	}
	if err == nil {
		err = d.write(ctx)
	}
	code, text, wait := d.answer(err)
	if code != http.StatusNoContent {
		u.in.log(wayUDP, u.o.Address, code, text)
	}
	// The other classes are about requests: a datagram that is over a limit has no sender to tell.
	d.end(code)
	if err != nil && ingest.ComesAgain(code) {
		return wait, err
	}
	return 0, nil
}

var _ ingest.Receiver = (*messages)(nil)
