package forwarding_test

import (
	"context"
	"math"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/golang/snappy"
	natsserver "github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// natsServer is a NATS server with JetStream in this process.
type natsServer struct {
	t        *testing.T
	dir      string
	host     string
	port     int
	server   *natsserver.Server
	restarts int
}

func newNATS(t *testing.T) *natsServer {
	t.Helper()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	n := &natsServer{t: t, host: host}
	n.dir, err = os.MkdirTemp("", "varve-forwarding-")
	require.NoError(t, err)
	t.Cleanup(func() {
		// The server may put something there after it said that it has stopped.
		require.Eventually(t, func() bool { return os.RemoveAll(n.dir) == nil }, stopTimeout, 10*time.Millisecond)
	})
	n.port, err = strconv.Atoi(port)
	require.NoError(t, err)
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: n.host, Port: n.port, JetStream: true, StoreDir: n.dir, NoSigs: true, NoLog: true})
	require.NoError(n.t, err)
	s.Start()
	n.server = s
	require.True(n.t, s.ReadyForConnections(readyTimeout))
}

func (n *natsServer) stop() {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

func (n *natsServer) restart() {
	n.stop()
	n.start()
	n.restarts++
}

func (n *natsServer) url() string { return "nats://" + net.JoinHostPort(n.host, strconv.Itoa(n.port)) }

// contents reads the stream from its beginning: of samples that are there again the last counts.
func (n *natsServer) contents() (messages int, out contents, again int) {
	t := n.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), checkTimeout)
	defer cancel()
	conn, err := client.Connect(n.url(), client.Timeout(readyTimeout))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	stream, err := js.Stream(ctx, "GATE")
	require.NoError(t, err)
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	require.NoError(t, err)
	have := map[string]map[int64]uint64{}
	var late error
	for total := int(stream.CachedInfo().State.Msgs); messages < total; {
		require.NoError(t, ctx.Err(), "%d of %d messages were read, %v", messages, total, late)
		batch, err := consumer.Fetch(min(1000, total-messages), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			late = err
			continue
		}
		for m := range batch.Messages() {
			messages++
			again += add(t, have, m.Data())
		}
		// On a slow machine a part of it may come with the next one.
		late = batch.Error()
	}
	out = contents{}
	for key, samples := range have {
		for at, bits := range samples {
			out[key] = append(out[key], point{millis: at, bits: bits})
		}
	}
	return messages, out, again
}

// add adds the samples of a message, and returns how many were there already.
func add(t *testing.T, have map[string]map[int64]uint64, message []byte) (again int) {
	t.Helper()
	plain, err := snappy.Decode(nil, message)
	require.NoError(t, err)
	var m prompb.WriteRequest
	require.NoError(t, m.Unmarshal(plain))
	b := labels.NewScratchBuilder(8)
	for _, s := range m.Timeseries {
		require.Empty(t, s.Histograms)
		key := s.ToLabels(&b, nil).String()
		if have[key] == nil {
			have[key] = map[int64]uint64{}
		}
		for _, sample := range s.Samples {
			if _, ok := have[key][sample.Timestamp]; ok {
				again++
			}
			have[key][sample.Timestamp] = math.Float64bits(sample.Value)
		}
	}
	return again
}
