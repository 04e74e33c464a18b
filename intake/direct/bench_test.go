package direct_test

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/intake"
	"varve/intake/blocks"
	"varve/intake/direct"
	"varve/internal/testkit"
)

// BenchmarkImport brings a block of a day of 300 series, a sample every 15 s with jitter as of 3 targets, into an empty archive, with the
// proof. Reported are samples a second.
func BenchmarkImport(b *testing.B) {
	const series, step = 300, 15_000
	random := rand.New(rand.NewPCG(1, 1))
	dir := b.TempDir()
	clocks := make([][]int64, 3)
	for i := range clocks {
		for at := begin + int64(i)*1000; at < begin+intake.DayMillis-step; at += step {
			clocks[i] = append(clocks[i], at+random.Int64N(3))
		}
	}
	var all []storage.Series
	for i := range series {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(b, err)
		v := 0.0
		for _, at := range clocks[i%3] {
			switch i % 4 {
			case 0:
				v += float64(random.IntN(100)) // counter
			case 1:
				v = math.Round(random.Float64()*1000) / 10 // gauge of one decimal
			case 2:
				v += random.NormFloat64() // gauge of all bits
			}
			app.Append(0, at, v)
		}
		ls := labels.FromStrings(prommodel.MetricNameLabel, fmt.Sprintf("metric_%d", i/3), "instance", fmt.Sprint(i%3), "job", "node")
		all = append(all, &storage.SeriesEntry{Lset: ls, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return c.Iterator(nil) }})
	}
	_, err := tsdb.CreateBlock(all, dir, 2*intake.DayMillis, slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	total := uint64(0)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		a := testkit.Open(b, b.TempDir(), options())
		s, err := blocks.Open(b.Context(), []string{dir}, blocks.Options{Scratch: b.TempDir()})
		require.NoError(b, err)
		b.StartTimer()
		r, err := intake.Run(b.Context(), s, direct.New(a, direct.Options{}), intake.Options{})
		require.NoError(b, err)
		require.True(b, r.Equal())
		require.Equal(b, 1, r.Leased)
		total += r.Samples
		require.NoError(b, s.Close())
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "samples/s")
}
