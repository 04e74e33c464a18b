package nats_test

import (
	"fmt"
	"testing"

	"varve/forward"
	"varve/forward/nats"
)

// BenchmarkSend is a batch of 2000 samples to a server in the same process, which stores it, with one subject and with one for each of
// 50 metrics.
func BenchmarkSend(b *testing.B) {
	for _, payload := range []nats.Payload{nats.PayloadPrometheus, nats.PayloadInflux, nats.PayloadJSON} {
		for _, subject := range []string{"varve", "varve.{__name__}"} {
			b.Run(fmt.Sprintf("%s/%s", payload, subject), func(b *testing.B) {
				server := run(b)
				s := newSender(b, server.ClientURL(), func(o *nats.Options) {
					o.Payload, o.Subject, o.Stream.Memory, o.Stream.MaxBytes = payload, subject, true, 64<<20
				})
				batch := &forward.Batch{}
				for i := range 2000 {
					x := series(fmt.Sprintf("node_cpu_seconds_total_%d", i%50), "instance", fmt.Sprintf("host-%03d.example.org:9100", i/50), "job", "node", "mode", "idle", "zone", "eu-central-1a")
					x.Floats = []forward.Float{{TimeMillis: start, Value: float64(i) * 1.37}}
					batch.Series = append(batch.Series, x)
				}
				prepare(b, s, batch)
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					n++
					batch.ID = fmt.Sprintf("inc-%d-%d-0", n, n)
					if _, err := s.Send(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.Samples()), "ns/sample")
			})
		}
	}
}
