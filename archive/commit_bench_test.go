package archive_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
)

// BenchmarkWrite is what requests of 100 samples cost that so many senders write at once, each the next when the one
// before is answered, on the disk of the tests' folder: samples a second, the median time of a request, and how many
// share a sync.
func BenchmarkWrite(b *testing.B) {
	const samples = 100
	for _, writers := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			o := options()
			o.Manual = false
			o.Now = nil
			registry := prometheus.NewRegistry()
			o.Registerer = registry
			a, err := archive.Open(b.TempDir()+"/a", o)
			require.NoError(b, err)
			defer func() { require.NoError(b, a.Close()) }()
			<-a.Started()
			refs := make([]storage.SeriesRef, writers*samples)
			for i := range refs {
				refs[i] = resolve(b, a, seriesLabels(i))
			}
			took := make([][]time.Duration, writers)
			at := time.Now().UnixMilli()
			commits := commitsOf(b, registry)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					var batch arrival.Batch
					for n := w; n < b.N; n += writers {
						batch.Reset()
						for i := range samples {
							batch.Rows = append(batch.Rows, arrival.Row{Ref: refs[w*samples+i], First: uint32(i), Count: 1})
							batch.Times = append(batch.Times, at+int64(n))
							batch.Values = append(batch.Values, math.Float64bits(float64(n*i)))
						}
						began := time.Now()
						if _, err := a.Write(context.Background(), &batch); err != nil {
							b.Error(err)
							return
						}
						took[w] = append(took[w], time.Since(began))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Concat(took...)
			slices.Sort(all)
			b.ReportMetric(float64(len(all)*samples)/b.Elapsed().Seconds(), "samples/s")
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(len(all))/(commitsOf(b, registry)-commits), "requests/sync")
		})
	}
}

// commitsOf reads how many groups were committed.
func commitsOf(b *testing.B, registry *prometheus.Registry) float64 {
	families, err := registry.Gather()
	require.NoError(b, err)
	for _, f := range families {
		if f.GetName() == "varve_archive_commits_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	b.Fatal("no count of commits")
	return 0
}
