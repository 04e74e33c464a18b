package otlp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
)

// forgetful is a sink that knows its series and keeps no sample.
type forgetful struct{ *ingesttest.Sink }

func (f forgetful) Write(_ context.Context, b *arrival.Batch) (arrival.Result, error) {
	return arrival.Result{Samples: len(b.Times), Histograms: len(b.Histograms)}, nil
}

// BenchmarkExport measures requests of 1000 data points of known series with six attributes each, by a walk and by the
// converter: points a second, and what a sample takes.
func BenchmarkExport(b *testing.B) {
	const points = 1000
	attribute := func(p interface{ PutStr(string, string) }, i int) {
		for a := range 5 {
			p.PutStr(fmt.Sprintf("attribute.%d", a), fmt.Sprintf("value-%d", i%(a+7)))
		}
		p.PutStr("id", fmt.Sprint(i))
	}
	gauges, ms := newMetrics()
	m := ms.AppendEmpty()
	m.SetName("http.server.active_requests")
	m.SetEmptyGauge()
	for i := range points {
		p := m.Gauge().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.SetDoubleValue(float64(i))
		attribute(p.Attributes(), i)
	}
	sums, ms := newMetrics()
	m = ms.AppendEmpty()
	m.SetName("http.server.requests")
	m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	m.Sum().SetIsMonotonic(true)
	for i := range points {
		p := m.Sum().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.SetStartTimestamp(stamp(startAt))
		p.SetIntValue(int64(i))
		attribute(p.Attributes(), i)
	}
	histograms, ms := newMetrics()
	m = ms.AppendEmpty()
	m.SetName("http.server.duration")
	m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i := range points {
		p := m.Histogram().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.SetStartTimestamp(stamp(startAt))
		p.SetCount(10)
		p.SetSum(1)
		p.ExplicitBounds().FromRaw([]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10})
		p.BucketCounts().FromRaw([]uint64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0})
		attribute(p.Attributes(), i)
	}
	deltas, ms := newMetrics()
	m = ms.AppendEmpty()
	m.SetName("http.server.requests")
	m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	m.Sum().SetIsMonotonic(true)
	for i := range points {
		p := m.Sum().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.SetStartTimestamp(stamp(at))
		p.SetIntValue(int64(i))
		attribute(p.Attributes(), i)
	}
	natives, ms := newMetrics()
	for i := range points {
		p := addExponential(ms, "http.server.duration", 3, 3)
		p.Positive().BucketCounts().FromRaw([]uint64{1, 0, 0, 1, 1})
		attribute(p.Attributes(), i)
	}
	for _, c := range []struct {
		name    string
		md      pmetric.Metrics
		samples int // of a data point
	}{{"gauges", gauges, 1}, {"sums", sums, 1}, {"histograms", histograms, 14}, {"deltas", deltas, 1}, {"exponential", natives, 1}} {
		body := protoBody(b, c.md)
		for _, walking := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/walk=%t", c.name, walking), func(b *testing.B) {
				h := newHandler(b, forgetful{ingesttest.NewSink()}, ingest.Limits{}, otlp.Options{})
				if !walking {
					h.WithoutWalks()
				}
				benchmark(b, h, body, points, points*c.samples)
			})
		}
	}
}

// benchmark posts a body of so many data points again and again.
func benchmark(b *testing.B, h http.Handler, body []byte, points, samples int) {
	require.Equal(b, http.StatusOK, post(h, body, "application/x-protobuf", "").Code)
	r, err := http.NewRequest(http.MethodPost, "/v1/metrics", http.NoBody)
	require.NoError(b, err)
	r.Header.Set("Content-Type", "application/x-protobuf")
	w := &bareWriter{header: http.Header{}}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for b.Loop() {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		h.ServeHTTP(w, r)
		if w.code != http.StatusOK {
			b.Fatal(w.code)
		}
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.N*points)/took.Seconds(), "points/s")
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N*samples), "ns/sample")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N*samples), "allocs/sample")
}

// bareWriter is a ResponseWriter that keeps the status only.
type bareWriter struct {
	header http.Header
	code   int
}

func (w *bareWriter) Header() http.Header         { return w.header }
func (w *bareWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *bareWriter) WriteHeader(code int)        { w.code = code }
