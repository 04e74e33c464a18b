package archive_test

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/digest"
	"varve/internal/testkit"
)

// benchSeries are 500 series with a sample every 15 s, counters, gauges and constants among them.
func benchSeries(b *testing.B) (all []incoming) {
	for i := range 500 {
		in := incoming{series: i}
		for at := day0; at < day0+format.DayMillis; at += 120 * 15_000 {
			var times []int64
			var values []float64
			for k := range int64(120) {
				n := (at-day0)/15_000 + k
				v := [...]float64{
					float64(n * int64(i%11)), math.Round(1e3*math.Sin(float64(n+int64(i))/40)) / 1e3, float64(i), float64(n / 40), float64(n*1500 + (n*n*int64(i))%1400),
				}[i%5]
				times, values = append(times, at+k*15_000), append(values, v)
			}
			in.chunks = append(in.chunks, xorChunk(b, times, values))
		}
		all = append(all, in)
	}
	return all
}

// BenchmarkIntake takes days in, and reads them back.
func BenchmarkIntake(b *testing.B) {
	o := options()
	o.MemoryBytes = 256 << 20
	a := testkit.Open(b, b.TempDir(), o)
	refs, all := inOrder(b, a, benchSeries(b))
	var adding, reading time.Duration
	var report archive.IntakeReport
	samples := 0
	day := intakeDay
	for b.Loop() {
		began := time.Now()
		i, err := a.OpenIntake(b.Context(), day)
		require.NoError(b, err)
		for n := range all {
			if err := i.Add(refs[n], all[n].chunks); err != nil {
				b.Fatal(err)
			}
		}
		report, err = i.Commit(b.Context())
		require.NoError(b, err)
		adding += time.Since(began)
		began = time.Now()
		require.NoError(b, i.Digests(b.Context(), func(storage.SeriesRef, digest.Series) error { return nil }))
		reading += time.Since(began)
		require.NoError(b, i.Close())
		samples += int(report.Samples)
		b.StopTimer()
		day--
		for n := range all {
			shift(b, &all[n], -format.DayMillis)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(samples)/adding.Seconds()/1e6, "Msamples/s")
	b.ReportMetric(float64(samples)/reading.Seconds()/1e6, "Mread/s")
	b.ReportMetric(float64(report.Bytes)/float64(report.Samples), "B/sample")
}

// BenchmarkIntakeByWriting writes the same days through the write port, scrape by scrape, and seals them.
func BenchmarkIntakeByWriting(b *testing.B) {
	o := options()
	o.MemoryBytes = 256 << 20
	a := testkit.Open(b, b.TempDir(), o)
	refs, all := inOrder(b, a, benchSeries(b))
	var times []int64
	values := make([][]uint64, len(all))
	for n := range all {
		times = times[:0]
		for _, c := range all[n].chunks {
			for it := c.Chunk.Iterator(nil); it.Next() != 0; {
				at, v := it.At()
				times, values[n] = append(times, at), append(values[n], math.Float64bits(v))
			}
		}
	}
	shifted := int64(0)
	samples := 0
	for b.Loop() {
		for k, at := range times {
			batch := &arrival.Batch{}
			for n := range refs {
				batch.Rows = append(batch.Rows, arrival.Row{Ref: refs[n], First: uint32(n), Count: 1})
				batch.Times, batch.Values = append(batch.Times, at-shifted), append(batch.Values, values[n][k])
			}
			res, err := a.Write(b.Context(), batch)
			require.NoError(b, err)
			samples += res.Samples
			if k%240 == 239 {
				require.NoError(b, a.Maintain(false))
			}
		}
		require.NoError(b, a.Maintain(true))
		sealAll(b, a, false)
		shifted += format.DayMillis
	}
	b.ReportMetric(float64(samples)/b.Elapsed().Seconds()/1e6, "Msamples/s")
}

// shift moves the chunks of a series in time.
func shift(t testing.TB, in *incoming, by int64) {
	for n := range in.chunks {
		var times []int64
		var values []float64
		it := in.chunks[n].Chunk.Iterator(nil)
		for it.Next() != 0 {
			at, v := it.At()
			times, values = append(times, at+by), append(values, v)
		}
		in.chunks[n] = xorChunk(t, times, values)
	}
}
