package influxdb_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
	"varve/internal/gate/server"
)

// patience bounds the wait for what happens in another goroutine or process, which only something that hangs outlasts.
const patience = 2 * time.Minute

// runUDP runs a listener until stop is called, which returns what Run does.
func runUDP(t *testing.T, sink ingest.Sink, o influxdb.UDPOptions) (conn net.Conn, reg *prometheus.Registry, stop func() error) {
	t.Helper()
	reg = prometheus.NewRegistry()
	o.Address, o.StopTimeout = "127.0.0.1:0", patience
	u, err := newInput(sink, influxdb.Options{DatabaseLabel: "db"}).ListenUDP("udp", influxdb.NewUDPMetrics(reg), o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	conn, err = net.Dial("udp", u.Addr().String())
	require.NoError(t, err)
	stopped := false
	stop = func() error {
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if !stopped {
			require.NoError(t, stop())
		}
		require.NoError(t, conn.Close())
	})
	return conn, reg, stop
}

func write(t testing.TB, conn net.Conn, datagram string) {
	t.Helper()
	_, err := conn.Write([]byte(datagram))
	require.NoError(t, err)
}

// waitReceived returns when so many datagrams were read.
func waitReceived(t testing.TB, reg *prometheus.Registry, datagrams int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, server.Wait(ctx, "all datagrams are received", func() (bool, error) {
		return testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`
# HELP varve_ingest_udp_datagrams_total Datagrams received, those that were dropped included.
# TYPE varve_ingest_udp_datagrams_total counter
varve_ingest_udp_datagrams_total{input="udp"} %d
`, datagrams)), "varve_ingest_udp_datagrams_total") == nil, nil
	}))
}

// TestUDP shows that datagrams are stored, a batch at a time, and that a quote left open in
// one does not reach the next.
func TestUDP(t *testing.T) {
	sink := ingesttest.NewSink()
	written := make(chan struct{}, 10)
	sink.OnWrite = func() { written <- struct{}{} }
	p, err := influxdb.ParsePrecision("s")
	require.NoError(t, err)
	// A batch ends by its datagrams here, an hour would be too long.
	conn, _, stop := runUDP(t, sink, influxdb.UDPOptions{Precision: p, DatagramsMax: 5, Delay: time.Hour, Database: "d"})
	for _, d := range []string{"a b=1 1\nc d=2 1\n", "open t=\"x 5", "junk\ne f=3 2", "", "m t=\"\ny\",v=1 3"} {
		write(t, conn, d)
	}
	<-written
	want := []string{`{__name__="a_b", db="d"} 1000 1`, `{__name__="c_d", db="d"} 1000 2`, `{__name__="e_f", db="d"} 2000 3`, `{__name__="m_v", db="d"} 3000 1`}
	require.Equal(t, want, samples(sink))
	require.Equal(t, 1, sink.Writes())
	require.NoError(t, stop())
}

// TestUDPDelay shows that a batch ends by time too.
func TestUDPDelay(t *testing.T) {
	sink := ingesttest.NewSink()
	written := make(chan struct{}, 10)
	sink.OnWrite = func() { written <- struct{}{} }
	conn, _, _ := runUDP(t, sink, influxdb.UDPOptions{Delay: time.Millisecond})
	for i := range 3 {
		write(t, conn, fmt.Sprintf("a b=%d %d000000", i, i))
		<-written
	}
	require.Len(t, samples(sink), 3)
}

// TestUDPStop shows that what was received before the stop is stored, in batches of every size.
func TestUDPStop(t *testing.T) {
	for _, o := range []influxdb.UDPOptions{{Delay: time.Hour}, {DatagramsMax: 7, Delay: time.Hour}, {BytesMax: 100}, {DatagramsMax: 1}} {
		sink := ingesttest.NewSink()
		o.BatchesMax = 100
		conn, reg, stop := runUDP(t, sink, o)
		for i := range 100 {
			write(t, conn, fmt.Sprintf("a,i=%d b=1 5000000", i))
		}
		// The kernel may take its time to deliver.
		waitReceived(t, reg, 100)
		require.NoError(t, stop())
		require.Len(t, samples(sink), 100)
	}
}

// TestUDPOverload shows that datagrams beyond the queue are dropped and counted, and that
// those in it are written when the disk is back.
func TestUDPOverload(t *testing.T) {
	sink := ingesttest.NewSink()
	held, release := make(chan struct{}, 1000), make(chan struct{})
	sink.OnWrite = func() {
		held <- struct{}{}
		<-release
	}
	conn, reg, stop := runUDP(t, sink, influxdb.UDPOptions{DatagramsMax: 2, BatchesMax: 2, Delay: time.Hour})
	// One batch is being written, one waits, and then there is none.
	for i := range 20 {
		write(t, conn, fmt.Sprintf("a,i=%d b=1 5000000", i))
		if i == 1 {
			<-held
		}
	}
	waitReceived(t, reg, 20)
	close(release)
	require.NoError(t, stop())
	require.Len(t, samples(sink), 4)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP varve_ingest_udp_dropped_datagrams_total Datagrams received and dropped, because the disk does not keep up (reason="queue_full") or the process stopped before it took them (reason="stopped").
# TYPE varve_ingest_udp_dropped_datagrams_total counter
varve_ingest_udp_dropped_datagrams_total{input="udp",reason="queue_full"} 16
varve_ingest_udp_dropped_datagrams_total{input="udp",reason="stopped"} 0
`), "varve_ingest_udp_dropped_datagrams_total"))
}

// stubborn refuses a number of writes, then stores.
type stubborn struct {
	*ingesttest.Sink
	refusals int
	refused  chan struct{}
}

func (s *stubborn) Write(ctx context.Context, b *arrival.Batch) (arrival.Result, error) {
	if s.refusals != 0 {
		s.refusals--
		s.refused <- struct{}{}
		return arrival.Result{}, &arrival.Unavailable{Reason: "stalled", RetryAfter: time.Millisecond, Err: errBroken}
	}
	return s.Sink.Write(ctx, b)
}

// TestUDPRetries shows that a batch waits for the archive, but not beyond the stop.
func TestUDPRetries(t *testing.T) {
	s := &stubborn{Sink: ingesttest.NewSink(), refusals: 3, refused: make(chan struct{}, 100)}
	written := make(chan struct{}, 1)
	s.OnWrite = func() { written <- struct{}{} }
	conn, _, stop := runUDP(t, s, influxdb.UDPOptions{DatagramsMax: 1})
	write(t, conn, "a b=1")
	<-written
	require.Len(t, s.refused, 3)
	require.NoError(t, stop())

	s = &stubborn{Sink: ingesttest.NewSink(), refusals: -1, refused: make(chan struct{}, 1_000_000)}
	conn, reg, stop := runUDP(t, s, influxdb.UDPOptions{DatagramsMax: 1})
	write(t, conn, "a b=1")
	<-s.refused
	require.NoError(t, stop())
	require.Empty(t, samples(s.Sink))
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP varve_ingest_udp_dropped_datagrams_total Datagrams received and dropped, because the disk does not keep up (reason="queue_full") or the process stopped before it took them (reason="stopped").
# TYPE varve_ingest_udp_dropped_datagrams_total counter
varve_ingest_udp_dropped_datagrams_total{input="udp",reason="queue_full"} 0
varve_ingest_udp_dropped_datagrams_total{input="udp",reason="stopped"} 1
`), "varve_ingest_udp_dropped_datagrams_total"))
}

// TestUDPWaits shows that lines without a time get that at which they came, and that what is refused is counted once, however
// often a batch is tried.
func TestUDPWaits(t *testing.T) {
	s := &stubborn{Sink: ingesttest.NewSink(), refusals: 3, refused: make(chan struct{}, 100)}
	written := make(chan struct{}, 1)
	s.OnWrite = func() { written <- struct{}{} }
	reg := prometheus.NewRegistry()
	// A minute passes with each attempt.
	now := func() time.Time { return time.UnixMilli(nowMillis).Add(time.Duration(len(s.refused)) * time.Minute) }
	in := influxdb.New(s, ingest.Limits{}, ingest.NewMetrics(reg), discard, now, influxdb.Options{})
	u, err := in.ListenUDP("udp", influxdb.NewUDPMetrics(nil), influxdb.UDPOptions{Address: "127.0.0.1:0", DatagramsMax: 1})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	conn, err := net.Dial("udp", u.Addr().String())
	require.NoError(t, err)
	write(t, conn, "a b=1\na b=bad")
	<-written
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, conn.Close())
	require.Equal(t, []string{fmt.Sprintf(`{__name__="a_b"} %d 1`, int64(nowMillis))}, samples(s.Sink))
	families, err := reg.Gather()
	require.NoError(t, err)
	refused := 0.0
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "varve_ingest_rejected_total" {
				refused += m.Counter.GetValue()
			}
		}
	}
	require.Equal(t, 1.0, refused)
}

// TestUDPAddress shows that what can't be listened at is an error.
func TestUDPAddress(t *testing.T) {
	in := newInput(ingesttest.NewSink(), influxdb.Options{})
	_, err := in.ListenUDP("udp", influxdb.NewUDPMetrics(nil), influxdb.UDPOptions{Address: "nowhere:x"})
	require.Error(t, err)
	u, err := in.ListenUDP("udp", influxdb.NewUDPMetrics(nil), influxdb.UDPOptions{Address: "127.0.0.1:0"})
	require.NoError(t, err)
	_, err = in.ListenUDP("udp", influxdb.NewUDPMetrics(nil), influxdb.UDPOptions{Address: u.Addr().String()})
	require.Error(t, err)
	require.NoError(t, u.Close())
}
