package nats_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/nats"
	"varve/ingest/remotewrite"
)

// cpuNanos is the CPU time of the process: unlike the clock it does not count what other processes took of the cores.
func cpuNanos() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkJSON measures the decoder alone, with 2000 samples of known series a message.
func BenchmarkJSON(b *testing.B) {
	message := jsonLines(2000)
	j := newJSON(ingesttest.NewTable(), ingest.Limits{})
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	cpu := cpuNanos()
	for b.Loop() {
		if _, err := j.Receive(context.Background(), message, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuNanos()-cpu)/float64(b.N*2000), "cpu-ns/sample")
}

// countedSink is a table for several goroutines that tells when it was brought enough.
type countedSink struct {
	mu    sync.Mutex
	table *ingesttest.Table
	left  int
	done  chan struct{}
}

func (s *countedSink) Seed() arrival.Seed { return s.table.Seed() }

func (s *countedSink) Lookup(rows []arrival.Row) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Lookup(rows)
}

func (s *countedSink) Resolve(ctx context.Context, unknown []arrival.Unknown) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Resolve(ctx, unknown)
}

func (s *countedSink) Write(ctx context.Context, b *arrival.Batch) (arrival.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left > 0 {
		if s.left -= len(b.Times); s.left <= 0 {
			close(s.done)
		}
	}
	return s.table.Write(ctx, b)
}

// BenchmarkConsume measures how fast messages that wait in a stream in memory are received by several workers, with a server in the same process, for messages of one
// sample and of 500, joined and one by one. What receives them decodes them and stores nothing.
func BenchmarkConsume(b *testing.B) {
	for _, size := range []int{1, 500} {
		for _, batch := range []int{1, 1024} {
			b.Run(fmt.Sprintf("samples=%d/batch=%d", size, batch), func(b *testing.B) {
				s := run(b, func(o *natsserver.Options) { o.JetStreamMaxMemory = 1 << 30 })
				_, js := dial(b, s.ClientURL())
				sink := &countedSink{table: ingesttest.NewTable(), left: b.N * size, done: make(chan struct{})}
				h := remotewrite.New(sink, ingest.Limits{}, ingest.NewMetrics(nil), discard, time.Now, remotewrite.Options{})
				o := options(s.ClientURL(), h.Receiver(false), func(o *nats.Options) { o.BatchMessages, o.Stream.Memory, o.AckWait = batch, true, time.Minute })
				in, end := begin(b, o)
				connected(b, in)
				end()
				message := write("node_cpu_seconds_total_", 1_700_000_000_000, size)
				for i := range b.N {
					_, err := js.PublishAsync("varve.a", message)
					require.NoError(b, err)
					if i%1000 == 999 || i == b.N-1 {
						<-js.PublishAsyncComplete()
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				cpu := cpuNanos()
				_, end = begin(b, o)
				<-sink.done
				b.StopTimer()
				cpu = cpuNanos() - cpu
				end()
				b.ReportMetric(float64(cpu)/float64(b.N*size), "cpu-ns/sample")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "samples/s")
			})
		}
	}
}
