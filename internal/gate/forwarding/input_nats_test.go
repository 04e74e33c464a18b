package forwarding_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/ledger"
	"varve/internal/gate/server"
)

const queueConfiguration = targetConfiguration + `
  - name: queue
    nats: {urls: [%q], stream: {name: IN, create: true, subjects: [in.>]}, durable: gate, ack_wait: 2s, payload: prometheus}
`

const (
	// envInputCycles is for the nightly gate and for releases.
	envInputCycles = "INPUT_CYCLES"
	// defaultInputCycles is the share of a CI run. In each the consumer is killed, and NATS restarted now and then.
	defaultInputCycles = 5
	queueSeries        = 40
	// poisonEvery is how many messages there are for one that can't be read.
	poisonEvery = 200
)

// TestQueueKilled shows that every sample that was published is in the archive once, though the server that consumes is killed
// with messages that it has not acknowledged, or may have, and NATS is restarted; and that what can't be read is put aside once.
func TestQueueKilled(t *testing.T) {
	cycles := number(t, envInputCycles, defaultInputCycles)
	random := rand.New(rand.NewPCG(seed(t, envInputCycles), 7))
	queue := newNATS(t)
	v := newVarve(t, func() string { return fmt.Sprintf(queueConfiguration, queue.url()) })
	v.start()
	p := newPublisher(t, queue.url())
	require.NoError(t, p.next())
	for range cycles {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.run(ctx) }()
		pause(t, random, 1500*time.Millisecond)
		if random.IntN(2) == 0 {
			queue.restart()
			pause(t, random, time.Second)
		}
		v.kill()
		pause(t, random, 300*time.Millisecond)
		stop()
		require.NoError(t, <-ended)
		v.start()
	}
	var got contents
	var lost []string
	require.Eventually(t, func() bool {
		got = read(t, v.server.URL(""), true, nil, is(ledger.LabelGate, "queue"))
		lost = differences(p.sent, got)
		return len(lost) == 0
	}, drainTimeout, 500*time.Millisecond, "%v", &lost)
	require.Eventually(t, func() bool { return p.unacknowledged(t) == 0 }, readyTimeout, 100*time.Millisecond, "every message is settled")
	letters, err := os.ReadFile(filepath.Join(v.data(), "deadletter", "inputs", "queue.jsonl"))
	require.NoError(t, err)
	for i := range p.poison {
		// A kill may fall between a letter and the word to the server.
		n := strings.Count(string(letters), fmt.Sprintf("\"in.poison.%d\"", i))
		require.GreaterOrEqual(t, n, 1)
		require.LessOrEqual(t, n, 1+v.kills)
	}
	v.stop()
	v.verb("check", "data")
	t.Logf("%d samples in %d messages, %d that can't be read; %d kills, %d restarts of NATS", p.sent.samples(), p.messages, p.poison, v.kills, queue.restarts)
}

// pause waits for a random time: the moment of a kill.
func pause(t *testing.T, random *rand.Rand, most time.Duration) {
	t.Helper()
	timer := time.NewTimer(time.Duration(random.Int64N(int64(most))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// publisher publishes messages, and knows which the server has.
type publisher struct {
	conn             *client.Conn
	js               jetstream.JetStream
	sent             contents
	messages, poison int
}

func newPublisher(t *testing.T, url string) *publisher {
	t.Helper()
	conn, err := client.Connect(url, client.Timeout(readyTimeout), client.MaxReconnects(-1), client.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	p := &publisher{conn: conn, js: js, sent: contents{}}
	require.NoError(t, server.Wait(t.Context(), "the input made the stream", func() (bool, error) {
		_, err := js.Stream(t.Context(), "IN")
		return err == nil, err
	}))
	return p
}

// run publishes until ctx ends. A message is published again until the server has it: what is there twice is harmless.
func (p *publisher) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := p.next(); err != nil {
			return err
		}
	}
	return nil
}

// next publishes a message, the first time and then now and then behind one that can't be read.
func (p *publisher) next() error {
	if p.messages%poisonEvery == 0 {
		if err := p.publish(fmt.Sprintf("in.poison.%d", p.poison), []byte("no message of ours")); err != nil {
			return err
		}
		p.poison++
	}
	m := prompb.WriteRequest{}
	for i := range 5 {
		ls := labels.FromStrings("__name__", "queued", ledger.LabelGate, "queue", "series", fmt.Sprint((p.messages+i)%queueSeries))
		s := prompb.Sample{Timestamp: 1_700_000_000_000 + int64(p.messages)*1000, Value: float64(p.messages) * 1.1}
		m.Timeseries = append(m.Timeseries, prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil), Samples: []prompb.Sample{s}})
		p.sent[ls.String()] = append(p.sent[ls.String()], point{millis: s.Timestamp, bits: math.Float64bits(s.Value)})
	}
	body, err := m.Marshal()
	if err != nil {
		return err
	}
	if err := p.publish(fmt.Sprintf("in.%d", p.messages%7), snappy.Encode(nil, body)); err != nil {
		return err
	}
	p.messages++
	return nil
}

func (p *publisher) publish(subject string, data []byte) error {
	for end := time.Now().Add(readyTimeout); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := p.js.Publish(ctx, subject, data)
		cancel()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// unacknowledged is how many messages the consumer has not settled, -1 while there is none, or no answer.
func (p *publisher) unacknowledged(t *testing.T) int {
	t.Helper()
	consumer, err := p.js.Consumer(t.Context(), "IN", "gate")
	if err != nil {
		return -1
	}
	info := consumer.CachedInfo()
	return info.NumAckPending + int(info.NumPending)
}
