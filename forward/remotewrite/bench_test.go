package remotewrite_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"varve/forward"
	"varve/forward/remotewrite"
)

// sink is a transport that reads requests and takes everything.
type sink struct{ header http.Header }

func (s *sink) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	if err := r.Body.Close(); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusNoContent, Header: s.header, Body: http.NoBody, Request: r}, nil
}

// BenchmarkSend is all that a batch costs but the network: encoding, compression, the request and its answer.
func BenchmarkSend(b *testing.B) {
	for _, shape := range []struct{ series, samples int }{{2000, 1}, {200, 10}} {
		for name, message := range versions {
			b.Run(fmt.Sprintf("%s/%dx%d", name, shape.series, shape.samples), func(b *testing.B) {
				total := fmt.Sprint(shape.series * shape.samples)
				client := &http.Client{Transport: &sink{http.Header{"X-Prometheus-Remote-Write-Samples-Written": {total}}}}
				s := newSender(b, "http://localhost/", message, func(o *remotewrite.Options) { o.Client = client })
				batch := &forward.Batch{}
				for i := range shape.series {
					x := forward.Series{Target: &forward.Target{Labels: labels.FromStrings(
						"__name__", fmt.Sprintf("node_cpu_seconds_total_%d", i%50), "instance", fmt.Sprintf("host-%03d.example.org:9100", i/50), "job", "node",
						"cluster", "production-1", "cpu", fmt.Sprint(i%50), "mode", "idle", "namespace", "monitoring",
						"pod", fmt.Sprintf("node-exporter-%05x", i/50*7919), "container", "node-exporter", "endpoint", "metrics", "service", "node-exporter", "zone", "eu-central-1a",
					)}}
					for j := range shape.samples {
						x.Floats = append(x.Floats, forward.Float{TimeMillis: start + int64(j)*15000, Value: float64(i*1000+j) * 1.37})
					}
					batch.Series = append(batch.Series, x)
				}
				prepare(b, s, batch)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Send(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.Samples()), "ns/sample")
			})
		}
	}
}
