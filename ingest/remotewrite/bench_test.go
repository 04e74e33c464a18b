package remotewrite_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/remotewrite"
)

// benchSeries is the working set of the benchmarks.
const benchSeries = 100_000

// tableSink knows series by an open table, as the archive does, and stores nothing:
// what is measured is the input alone.
type tableSink struct {
	slots []tableSlot
	next  storage.SeriesRef
}

type tableSlot struct {
	key arrival.Key
	ref storage.SeriesRef
}

func newTableSink() *tableSink { return &tableSink{slots: make([]tableSlot, 1<<19)} }

func (s *tableSink) slot(k arrival.Key) *tableSlot {
	for i := k.Hi; ; i++ {
		at := &s.slots[i&uint64(len(s.slots)-1)]
		if at.ref == 0 || at.key == k {
			return at
		}
	}
}

func (*tableSink) Seed() arrival.Seed { return 1 }

func (s *tableSink) Lookup(rows []arrival.Row) int {
	missing := 0
	for i := range rows {
		if rows[i].Ref = s.slot(rows[i].Key).ref; rows[i].Ref == 0 {
			missing++
		}
	}
	return missing
}

func (s *tableSink) Resolve(_ context.Context, unknown []arrival.Unknown) error {
	for i := range unknown {
		at := s.slot(unknown[i].Key)
		if at.ref == 0 {
			s.next++
			*at = tableSlot{unknown[i].Key, s.next}
		}
		unknown[i].Ref = at.ref
	}
	return nil
}

func (*tableSink) Write(_ context.Context, b *arrival.Batch) (arrival.Result, error) {
	return arrival.Result{Samples: len(b.Times), Metadata: len(b.Metadata)}, nil
}

// benchBodies returns the bodies of one pass over the working set, decoded.
func benchBodies(tb testing.TB, version, samples int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var bodies [][]byte
	for at := 0; at < benchSeries; at += samples {
		var req1 prompb.WriteRequest
		var req2 writev2.Request
		symbols := writev2.NewSymbolTable()
		for i := at; i < at+samples; i++ {
			ls := []prompb.Label{
				{Name: "__name__", Value: fmt.Sprintf("http_server_requests_seconds_%03d_total", i%200)},
				{Name: "code", Value: []string{"200", "404", "500"}[i%3]},
				{Name: "handler", Value: fmt.Sprintf("/api/v1/resource_%d", i%40)},
				{Name: "instance", Value: fmt.Sprintf("10.0.%d.%d:9100", i/200%250, i%200)},
				{Name: "job", Value: "node"},
				{Name: "pod", Value: fmt.Sprintf("server-%08x", i)},
			}
			v, t := math.Round(rng.Float64()*1e6)/8, int64(1_700_000_000_000+i%997)
			req1.Timeseries = append(req1.Timeseries, prompb.TimeSeries{Labels: ls, Samples: []prompb.Sample{{Value: v, Timestamp: t}}})
			ts := writev2.TimeSeries{Samples: []writev2.Sample{{Value: v, Timestamp: t}}}
			for _, l := range ls {
				ts.LabelsRefs = append(ts.LabelsRefs, symbols.Symbolize(l.Name), symbols.Symbolize(l.Value))
			}
			ts.Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: symbols.Symbolize(fmt.Sprintf("Requests that the server number %d answered, by code.", i%200))}
			req2.Timeseries = append(req2.Timeseries, ts)
		}
		req2.Symbols = symbols.Symbols()
		body, err := req1.Marshal()
		if version == 2 {
			body, err = req2.Marshal()
		}
		require.NoError(tb, err)
		bodies = append(bodies, body)
	}
	return bodies
}

// cpuNanos is the CPU time of the process: unlike the clock it does not count
// what other processes took of the cores.
func cpuNanos() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func benchmarkDecode(b *testing.B, version int) {
	for _, samples := range []int{500, 2000} {
		bodies := benchBodies(b, version, samples)
		wires := make([][]byte, len(bodies))
		bytes := 0
		for i := range bodies {
			wires[i] = snappy.Encode(nil, bodies[i])
			bytes += len(bodies[i])
		}
		d := remotewrite.NewDecoder(newTableSink(), ingest.Limits{}, version)
		for _, body := range bodies {
			_, err := d.Decode(body)
			require.NoError(b, err)
		}
		stage := func(name string, f func(i int) error) {
			b.Run(fmt.Sprintf("%s/samples=%d", name, samples), func(b *testing.B) {
				b.ReportAllocs()
				n, cpu := 0, cpuNanos()
				for b.Loop() {
					if err := f(n % len(bodies)); err != nil {
						b.Fatal(err)
					}
					n++
				}
				b.ReportMetric(float64(cpuNanos()-cpu)/float64(n*samples), "cpu-ns/sample")
			})
		}
		b.Logf("%d bytes a sample decoded", bytes/benchSeries)
		stage("snappy", func(i int) error { _, err := d.Decompress(wires[i]); return err })
		stage("walk", func(i int) error { return d.Walk(bodies[i]) })
		stage("resolved", func(i int) error { _, err := d.Decode(bodies[i]); return err })
		stage("all", func(i int) error {
			body, err := d.Decompress(wires[i])
			if err != nil {
				return err
			}
			_, err = d.Decode(body)
			return err
		})
	}
}

// BenchmarkDecode1 measures the stages of decoding 1.0 with every series known.
func BenchmarkDecode1(b *testing.B) { benchmarkDecode(b, 1) }

// BenchmarkDecode2 measures the stages of decoding 2.0 with every series known.
func BenchmarkDecode2(b *testing.B) { benchmarkDecode(b, 2) }

// BenchmarkHandler measures ServeHTTP without a network and without a disk.
func BenchmarkHandler(b *testing.B) {
	for version, contentType := range map[int]string{1: contentType1, 2: contentType2} {
		for _, samples := range []int{500, 2000} {
			b.Run(fmt.Sprintf("version=%d/samples=%d", version, samples), func(b *testing.B) {
				bodies := benchBodies(b, version, samples)
				h := remotewrite.New(newTableSink(), ingest.Limits{}, ingest.NewMetrics(prometheus.NewRegistry()), discard, fixedNow, remotewrite.Options{})
				readers := make([]*rewinding, len(bodies))
				for i := range bodies {
					readers[i] = &rewinding{b: snappy.Encode(nil, bodies[i])}
				}
				r := httptest.NewRequest(http.MethodPost, "/", nil)
				r.Header.Set("Content-Type", contentType)
				r.Header.Set("Content-Encoding", "snappy")
				w := &bareWriter{header: make(http.Header)}
				n := 0
				send := func() {
					body := readers[n%len(readers)]
					body.at = 0
					r.Body, r.ContentLength = body, int64(len(body.b))
					h.ServeHTTP(w, r)
					if w.code != http.StatusNoContent {
						b.Fatal(w.code)
					}
					n++
				}
				for range readers {
					send()
				}
				b.ReportAllocs()
				n = 0
				cpu := cpuNanos()
				for b.Loop() {
					send()
				}
				b.ReportMetric(float64(cpuNanos()-cpu)/float64(n*samples), "cpu-ns/sample")
			})
		}
	}
}
