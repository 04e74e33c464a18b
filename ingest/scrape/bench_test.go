package scrape_test

import (
	"bytes"
	"fmt"
	"testing"

	"varve/ingest/scrape"
)

// BenchmarkRepair measures what looking at a text costs a tolerant scrape, for one
// where every line is good and one with a bad line in a thousand.
func BenchmarkRepair(b *testing.B) {
	for name, every := range map[string]int{"good": 0, "one bad in 1000": 1000} {
		var text bytes.Buffer
		for i := range 10_000 {
			if every > 0 && i%every == every/2 {
				text.WriteString("bad None\n")
				continue
			}
			fmt.Fprintf(&text, "node_network_receive_bytes_total{device=\"eth%d\",instance=\"a-%d\"} %d\n", i%7, i, i*1000)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(text.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, ok := scrape.Repair(bytes.NewReader(text.Bytes()), plainText); !ok {
					b.Fatal("no text")
				}
			}
		})
	}
}
