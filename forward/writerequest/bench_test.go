package writerequest_test

import (
	"fmt"
	"testing"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"varve/forward"
	"varve/forward/writerequest"
)

// shapes are batches that an output usually has: scraped once, and caught up from the archive.
var shapes = []struct{ series, samples int }{{2000, 1}, {200, 10}}

// fleet is a batch of series with a dozen labels, as node_exporter behind service discovery has.
func fleet(series, samples int) *forward.Batch {
	b := &forward.Batch{ID: "fleet"}
	for i := range series {
		ls := labels.FromStrings(
			model.MetricNameLabel, fmt.Sprintf("node_cpu_seconds_total_%d", i%50), "instance", fmt.Sprintf("host-%03d.example.org:9100", i/50), "job", "node",
			"cluster", "production-1", "cpu", fmt.Sprint(i%50), "mode", []string{"idle", "user", "system", "iowait"}[i%4], "namespace", "monitoring",
			"pod", fmt.Sprintf("node-exporter-%05x", i/50*7919), "container", "node-exporter", "endpoint", "metrics", "service", "node-exporter", "zone", "eu-central-1a",
		)
		s := forward.Series{Target: &forward.Target{Labels: ls}, Metadata: metadata.Metadata{Type: model.MetricTypeCounter, Help: "Seconds the CPUs spent in each mode."}}
		for j := range samples {
			s.Floats = append(s.Floats, forward.Float{TimeMillis: 1_700_000_000_000 + int64(j)*15000, Value: float64(i*1000+j) * 1.37})
		}
		b.Series = append(b.Series, s)
	}
	return b
}

// perSample reports the cost of a sample beside that of a batch.
func perSample(b *testing.B, batch *forward.Batch, bytes int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.Samples()), "ns/sample")
	b.ReportMetric(float64(bytes)/float64(batch.Samples()), "B/sample")
}

// BenchmarkEncode1 is the message of 1.0, with labels encoded before and anew.
func BenchmarkEncode1(b *testing.B) {
	for _, shape := range shapes {
		for _, cached := range []bool{true, false} {
			b.Run(fmt.Sprintf("%dx%d/cached=%t", shape.series, shape.samples, cached), func(b *testing.B) {
				batch := fleet(shape.series, shape.samples)
				encoded := make([][]byte, len(batch.Series))
				if cached {
					for i := range batch.Series {
						encoded[i] = writerequest.AppendLabels(nil, batch.Series[i].Labels)
					}
				}
				var wire []byte
				b.ReportAllocs()
				for b.Loop() {
					wire = wire[:0]
					for i := range batch.Series {
						wire = writerequest.AppendSeries(wire, encoded[i], &batch.Series[i], writerequest.Parts{Metadata: true})
					}
				}
				perSample(b, batch, len(wire))
			})
		}
	}
}

// BenchmarkEncode2 is the message of 2.0, with labels hashed before and anew.
func BenchmarkEncode2(b *testing.B) {
	for _, shape := range shapes {
		for _, cached := range []bool{true, false} {
			b.Run(fmt.Sprintf("%dx%d/cached=%t", shape.series, shape.samples, cached), func(b *testing.B) {
				batch := fleet(shape.series, shape.samples)
				hashes := make([][]uint32, len(batch.Series))
				if cached {
					for i := range batch.Series {
						hashes[i] = writerequest.AppendHashes(nil, batch.Series[i].Labels)
					}
				}
				var wire []byte
				var r writerequest.Request
				b.ReportAllocs()
				for b.Loop() {
					r.Reset()
					for i := range batch.Series {
						r.Add(&batch.Series[i], hashes[i], writerequest.Parts{Metadata: true})
					}
					wire = r.Append(wire[:0])
				}
				perSample(b, batch, len(wire))
			})
		}
	}
}

// BenchmarkSnappy is the compression of both messages by both libraries at hand.
func BenchmarkSnappy(b *testing.B) {
	for _, shape := range shapes {
		batch := fleet(shape.series, shape.samples)
		var one []byte
		var r writerequest.Request
		for i := range batch.Series {
			one = writerequest.AppendSeries(one, nil, &batch.Series[i], writerequest.Parts{Metadata: true})
			r.Add(&batch.Series[i], nil, writerequest.Parts{Metadata: true})
		}
		for version, wire := range map[int][]byte{1: one, 2: r.Append(nil)} {
			for name, encode := range map[string]func(dst, src []byte) []byte{"golang": snappy.Encode, "klauspost": s2.EncodeSnappy} {
				b.Run(fmt.Sprintf("%d.0/%dx%d/%s", version, shape.series, shape.samples, name), func(b *testing.B) {
					var out []byte
					buf := make([]byte, snappy.MaxEncodedLen(len(wire)))
					b.ReportAllocs()
					for b.Loop() {
						out = encode(buf, wire)
					}
					perSample(b, batch, len(out))
				})
			}
		}
	}
}
