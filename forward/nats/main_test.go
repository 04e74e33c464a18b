package nats_test

import (
	"context"
	"math"
	"os"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/forward"
	"varve/forward/nats"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
	"varve/natsconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

const (
	// patience bounds the wait for what happens in another goroutine or process, which only something that hangs outlasts.
	patience = 2 * time.Minute
	// ackTimeout is for servers that answer, however slow the machine is.
	ackTimeout = 30 * time.Second
)

// start is when the samples of tests begin, in Unix ms.
const start = 1_700_000_000_000

// run starts a server with JetStream, ended with the test.
func run(t testing.TB, change ...func(*natsserver.Options)) *natsserver.Server {
	t.Helper()
	// On an address of our own, so that nobody takes the port while a test has the server come back.
	o := &natsserver.Options{
		Host: server.Loopback(), Port: -1, JetStream: true, StoreDir: folder(t), NoSigs: true, NoLog: true,
		AuthTimeout: patience.Seconds(), WriteDeadline: patience,
	}
	for _, c := range change {
		c(o)
	}
	s, err := natsserver.NewServer(o)
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { stop(s) })
	require.True(t, s.ReadyForConnections(patience))
	return s
}

// folder is one for a server, which may put something there after it said that it has stopped.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "varve-test-")
	require.NoError(t, err)
	t.Cleanup(func() {
		require.Eventually(t, func() bool { return os.RemoveAll(dir) == nil }, patience, time.Millisecond)
	})
	return dir
}

func stop(s *natsserver.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// newSender returns a sender that makes the stream VARVE, closed with the test.
func newSender(t testing.TB, url string, change ...func(*nats.Options)) *nats.Sender {
	t.Helper()
	o := nats.Options{
		Options: natsconn.Options{Name: "test", URLs: []string{url}, ConnectTimeout: ackTimeout, ReconnectWait: 10 * time.Millisecond},
		Subject: "varve.{__name__}.{job}", Stream: nats.Stream{Name: "VARVE", Create: true},
		Metadata: true, Exemplars: true, Histograms: true, AckTimeout: ackTimeout,
	}
	for _, c := range change {
		c(&o)
	}
	s, err := nats.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// prepare gives the sender every target of the batch.
func prepare(t testing.TB, s *nats.Sender, b *forward.Batch) *forward.Batch {
	t.Helper()
	for i := range b.Series {
		require.NoError(t, s.Prepare(b.Series[i].Target))
	}
	return b
}

// send prepares and sends a batch that is expected to arrive whole.
func send(t testing.TB, s *nats.Sender, b *forward.Batch) {
	t.Helper()
	o, err := s.Send(t.Context(), prepare(t, s, b))
	require.NoError(t, err)
	require.Empty(t, o.Refusals)
}

// dial connects as a consumer does.
func dial(t testing.TB, url string) (*client.Conn, jetstream.JetStream) {
	t.Helper()
	c, err := client.Connect(url, client.Timeout(patience))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	js, err := jetstream.New(c, jetstream.WithDefaultTimeout(patience))
	require.NoError(t, err)
	return c, js
}

// message is one of a stream.
type message struct {
	subject, id string
	content     []byte
}

// stored reads the stream VARVE from its beginning.
func stored(t testing.TB, url string) (out []message) {
	t.Helper()
	c, js := dial(t, url)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := js.Stream(ctx, "VARVE")
	require.NoError(t, err)
	for i := uint64(1); i <= stream.CachedInfo().State.LastSeq; i++ {
		m, err := stream.GetMsg(ctx, i)
		require.NoError(t, err)
		out = append(out, message{m.Subject, m.Header.Get("Nats-Msg-Id"), m.Data})
	}
	return out
}

func series(name string, pairs ...string) forward.Series {
	return forward.Series{Target: &forward.Target{Labels: labels.FromStrings(append([]string{model.MetricNameLabel, name}, pairs...)...)}}
}

// plain is a batch of n series of one sample each, over some subjects.
func plain(id string, n int) *forward.Batch {
	b := &forward.Batch{ID: id}
	for i := range n {
		s := series("up", "job", string(rune('a'+i%3)), "instance", string(rune('a'+i/26%26))+string(rune('a'+i%26)))
		s.Floats = []forward.Float{{TimeMillis: start + int64(i), Value: float64(i)}}
		b.Series = append(b.Series, s)
	}
	return b
}

// rich is a batch with everything that an archive can hold.
func rich() *forward.Batch {
	up := series("up", "job", "a.b c", "instance", "x")
	for i, v := range []float64{1.5, math.Copysign(0, -1), math.Inf(1), math.NaN(), math.Float64frombits(value.StaleNaN), math.Float64frombits(0x7ff8_dead_beef_0001)} {
		up.Floats = append(up.Floats, forward.Float{TimeMillis: start + int64(i), Value: v})
	}
	up.Floats[0].StartMillis = start - 100
	up.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Value: 2, Ts: start, HasTs: true}}
	sizes := series("sizes")
	h := &histogram.Histogram{
		CounterResetHint: histogram.CounterReset, Schema: 2, Count: 9, Sum: 12.5, ZeroThreshold: 0.001, ZeroCount: 2,
		PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}, PositiveBuckets: []int64{1, 1, -1},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 2}}, NegativeBuckets: []int64{1, 1},
	}
	custom := &histogram.FloatHistogram{
		Schema: histogram.CustomBucketsSchema, Count: 3.5, Sum: 1, CustomValues: []float64{-1, 0.5, 2}, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []float64{1.25, 2.25},
	}
	sizes.Histograms = []forward.Histogram{
		{TimeMillis: start, StartMillis: start - 1, Int: h}, {TimeMillis: start + 1, Float: custom},
		{TimeMillis: start + 2, Int: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}},
	}
	return &forward.Batch{
		ID: "inc-1-9-0", Series: []forward.Series{up, sizes},
		Families: []forward.FamilyMetadata{{Family: "up", Metadata: metadata.Metadata{Type: model.MetricTypeGauge, Help: "Whether it is up."}}},
	}
}

// natsOptions are a server's.
type natsOptions = natsserver.Options

// noise is a text that does not shrink.
func noise(n int) string {
	b, x := make([]byte, n), uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = 'a' + byte(x>>24)%26
	}
	return string(b)
}
