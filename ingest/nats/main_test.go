package nats_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	natsserver "github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/nats"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
	"varve/natsconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

const (
	// patience bounds the wait for what happens in another goroutine or process, which only something that hangs outlasts.
	patience = 2 * time.Minute
	// stopTimeout is less, so that Run ends before a test gives it up.
	stopTimeout = patience / 2
	// askTimeout bounds one of several questions to a server that may be away.
	askTimeout = 10 * time.Second
)

var discard = slog.New(slog.DiscardHandler)

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
	t.Cleanup(func() { eventually(t, func() bool { return os.RemoveAll(dir) == nil }) })
	return dir
}

func stop(s *natsserver.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// dial connects as a publisher does.
func dial(t testing.TB, url string) (*client.Conn, jetstream.JetStream) {
	t.Helper()
	c, err := client.Connect(url, client.Timeout(patience), client.MaxReconnects(-1), client.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	js, err := jetstream.New(c, jetstream.WithDefaultTimeout(patience))
	require.NoError(t, err)
	return c, js
}

// receiver takes write requests and remembers what it stored, by series and time.
type receiver struct {
	mu       sync.Mutex // guards what follows
	samples  map[string]float64
	calls    int
	messages int // the largest number of series at a time
	err      error
	failures int
	// gate, if there is one, must be open before anything is stored.
	gate chan struct{}
}

func newReceiver() *receiver { return &receiver{samples: map[string]float64{}} }

// Receive implements ingest.Receiver. A series called refuse is refused.
func (r *receiver) Receive(ctx context.Context, message []byte, _ []ingest.Sent) (result arrival.Result, err error) {
	body, err := snappy.Decode(nil, message)
	if err != nil {
		return result, fmt.Errorf("%w block", ingest.ErrMalformed)
	}
	var request prompb.WriteRequest
	if request.Unmarshal(body) != nil {
		return result, fmt.Errorf("%w request", ingest.ErrMalformed)
	}
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return result, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.err != nil {
		r.failures++
		return result, r.err
	}
	r.messages = max(r.messages, len(request.Timeseries))
	for _, ts := range request.Timeseries {
		for _, s := range ts.Samples {
			name := fmt.Sprint(ts.Labels)
			if len(ts.Labels) == 1 {
				name = ts.Labels[0].Value
			}
			if name == "refuse" {
				result.Rejected[arrival.ReasonFuture]++
				continue
			}
			r.samples[fmt.Sprint(name, "@", s.Timestamp)] = s.Value
			result.Samples++
		}
	}
	return result, nil
}

func (r *receiver) stored() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.samples)
}

func (r *receiver) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *receiver) failed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures
}

// stalledReceiver takes nothing and tells when what it was brought was sent.
type stalledReceiver struct{ sent chan []ingest.Sent }

// Receive implements ingest.Receiver.
func (r *stalledReceiver) Receive(ctx context.Context, _ []byte, sent []ingest.Sent) (result arrival.Result, err error) {
	select {
	case r.sent <- slices.Clone(sent):
	case <-ctx.Done():
	}
	return result, errAway
}

var errAway = &arrival.Unavailable{Reason: "disk_full", RetryAfter: time.Millisecond, Err: errors.New("no room")}

// write is a message of one sample of each of n series.
func write(name string, millis int64, n int) []byte {
	var request prompb.WriteRequest
	for i := range n {
		request.Timeseries = append(request.Timeseries, prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: fmt.Sprint(name, i)}},
			Samples: []prompb.Sample{{Timestamp: millis, Value: math.Sqrt(float64(millis + int64(i)))}},
		})
	}
	if name == "refuse" {
		request.Timeseries[0].Labels[0].Value = name
	}
	body, err := request.Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, body)
}

// options are those of an input that consumes the stream VARVE.
func options(url string, r ingest.Receiver, change ...func(*nats.Options)) nats.Options {
	o := nats.Options{
		Name: "in put", Connection: natsconn.Options{Name: "test", URLs: []string{url}, ReconnectWait: 10 * time.Millisecond},
		Stream: nats.Stream{Name: "VARVE", Create: true, Subjects: []string{"varve.>"}}, Durable: "varve", AckWait: time.Minute,
		Receivers: map[nats.Payload]ingest.Receiver{nats.PayloadPrometheus: r}, StopTimeout: stopTimeout,
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

// impatient has messages come again soon.
func impatient(o *nats.Options) { o.AckWait = 2 * time.Second }

// begin runs an input until end is called or the test ends.
func begin(t testing.TB, o nats.Options) (in *nats.Input, end func()) {
	t.Helper()
	in, err := nats.New(o, nats.NewMetrics(nil), discard, time.Now)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(end)
	return in, end
}

// published counts messages, for their identifiers.
var published atomic.Int64

// publish publishes a message until the stream has it, once: one whose acknowledgement comes late is published again.
func publish(t testing.TB, js jetstream.JetStream, subject string, data []byte) {
	t.Helper()
	id := strconv.FormatInt(published.Add(1), 10)
	eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		_, err := js.Publish(ctx, subject, data, jetstream.WithMsgID(id))
		return err == nil
	})
}

// flush waits until the server has read what was published.
func flush(t testing.TB, c *client.Conn) {
	t.Helper()
	require.NoError(t, c.FlushTimeout(patience))
}

func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond)
}

// connected waits until the input has its consumer, and so the stream is there.
func connected(t testing.TB, in *nats.Input) {
	t.Helper()
	eventually(t, func() bool { return in.Status().Connected })
}

// says waits until the last trouble of an input is the one.
func says(t testing.TB, in *nats.Input, text string) {
	t.Helper()
	// Before that it may be one of a slow machine.
	eventually(t, func() bool { return strings.Contains(in.Status().LastError, text) })
}

// settled waits until the stream has no message that is not acknowledged. One that the consumer has not been told of yet does not count.
func settled(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
		defer cancel()
		consumer, err := js.Consumer(ctx, "VARVE", "varve")
		if err != nil {
			return false
		}
		info := consumer.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
}

// letters are the lines of the file of dead letters.
func letters(t testing.TB, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "in%20put.jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}
