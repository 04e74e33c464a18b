package forwarding_test

import (
	"context"
	"errors"
	"math"
	"net"
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
	port     int
	server   *natsserver.Server
	restarts int
}

func newNATS(t *testing.T) *natsServer {
	t.Helper()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	n := &natsServer{t: t, dir: t.TempDir()}
	n.port, err = strconv.Atoi(port)
	require.NoError(t, err)
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: n.port, JetStream: true, StoreDir: n.dir, NoSigs: true, NoLog: true})
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

func (n *natsServer) url() string { return "nats://127.0.0.1:" + strconv.Itoa(n.port) }

// contents reads the stream from its beginning: of samples that are there again the last counts.
func (n *natsServer) contents() (messages int, out contents, again int) {
	t := n.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), checkTimeout)
	defer cancel()
	conn, err := client.Connect(n.url())
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	stream, err := js.Stream(ctx, "GATE")
	require.NoError(t, err)
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	require.NoError(t, err)
	have := map[string]map[int64]uint64{}
	for total := int(stream.CachedInfo().State.Msgs); messages < total; {
		batch, err := consumer.Fetch(min(1000, total-messages), jetstream.FetchMaxWait(10*time.Second))
		require.NoError(t, err)
		for m := range batch.Messages() {
			messages++
			again += add(t, have, m.Data())
		}
		if err := batch.Error(); !errors.Is(err, client.ErrTimeout) {
			require.NoError(t, err)
		}
		require.NoError(t, ctx.Err(), "%d of %d messages were read", messages, total)
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
