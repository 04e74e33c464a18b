package otlp_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
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

// BenchmarkExport measures requests of 1000 data points of known series with five
// attributes each: points a second, and allocations for each point.
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
		name string
		md   pmetric.Metrics
	}{{"gauges", gauges}, {"deltas", deltas}, {"exponential", natives}} {
		b.Run(c.name, func(b *testing.B) {
			h := newHandler(b, forgetful{ingesttest.NewSink()}, ingest.Limits{}, otlp.Options{})
			body := protoBody(b, c.md)
			require.Equal(b, http.StatusOK, post(h, body, "application/x-protobuf", "").Code)
			r, err := http.NewRequest(http.MethodPost, "/v1/metrics", http.NoBody)
			require.NoError(b, err)
			r.Header.Set("Content-Type", "application/x-protobuf")
			w := &bareWriter{header: http.Header{}}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			start := time.Now()
			for b.Loop() {
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				h.ServeHTTP(w, r)
				if w.code != http.StatusOK {
					b.Fatal(w.code)
				}
			}
			b.ReportMetric(float64(b.N)*points/time.Since(start).Seconds(), "points/s")
		})
	}
}

// bareWriter is a ResponseWriter that keeps the status only.
type bareWriter struct {
	header http.Header
	code   int
}

func (w *bareWriter) Header() http.Header         { return w.header }
func (w *bareWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *bareWriter) WriteHeader(code int)        { w.code = code }
