package chunk_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"golang.org/x/sys/unix"

	"varve/archive/chunk"
)

func cpu() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return ts.Nano()
}

func TestTune(t *testing.T) {
	if os.Getenv("TUNE") == "" {
		t.Skip()
	}
	runtime.LockOSThread()
	for _, d := range datasets {
		for _, samples := range []int{24, 120} {
			cs := d.chunks(samples)
			best := func(f func()) float64 {
				m := int64(1 << 60)
				for range 150 {
					a := cpu()
					f()
					m = min(m, cpu()-a)
				}
				return float64(m) / float64(samples*len(cs))
			}
			var times []int64
			var values []float64
			dec := best(func() {
				for i := range cs {
					times, values, _ = chunk.DecodeXOR(cs[i].data, times[:0], values[:0])
				}
			})
			one := best(func() {
				for range cs {
					times, values, _ = chunk.DecodeXOR(cs[3].data, times[:0], values[:0])
				}
			})
			var dst []byte
			enc := best(func() {
				for i := range cs {
					dst = chunk.AppendXOR(dst[:0], cs[i].times, cs[i].values)
				}
			})
			x := chunkenc.NewXORChunk()
			var it chunkenc.Iterator
			up := best(func() {
				for i := range cs {
					x.Reset(cs[i].data)
					it = x.Iterator(it)
					for it.Next() != chunkenc.ValNone {
						it.At()
					}
				}
			})
			fmt.Printf("%-16s %3d decode %.2f learnt %.2f upstream %.2f encode %.2f B/sample %.2f\n", d.name, samples, dec, one, up, enc, float64(len(cs[0].data))/float64(samples))
		}
	}
}
