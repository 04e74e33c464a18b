package chunk_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive/chunk"
	"varve/rollup"
)

// benchRollups are the rollups of a day of 50 series, which are what a busy node_exporter
// has.
type benchRollups struct {
	window  chunk.RollupWindow
	clock   *chunk.RollupClock
	columns []*rollup.Columns
	bundle  chunk.Rollups
	data    []byte
	buckets int
}

func newBenchRollups(t require.TestingT, minutes int64) *benchRollups {
	const samples = 5760
	r := rand.New(rand.NewPCG(3, 4))
	x := &benchRollups{window: chunk.RollupWindow{StartMillis: fiveMinutes.StartMillis, ResolutionMillis: minutes * 60_000}}
	times := make([]int64, samples)
	for i := range times {
		times[i] = x.window.StartMillis + 2000 + int64(i)*15_000 + r.Int64N(3)
	}
	values := make([]float64, samples)
	for _, m := range mixed {
		for range m.series {
			for i, bits := range m.values(r, samples) {
				values[i] = math.Float64frombits(bits)
			}
			c := rolledUp(x.window, times, values)
			x.columns, x.clock, x.buckets = append(x.columns, c), clockOfRows(c), c.Len()
		}
	}
	var b chunk.RollupBuilder
	x.data = x.build(t, &b, nil)
	require.NoError(t, chunk.ParseRollups(bundleKey, x.data, uint64(len(x.columns)-1), x.window, &x.bundle))
	return x
}

func (x *benchRollups) build(t require.TestingT, b *chunk.RollupBuilder, dst []byte) []byte {
	b.Reset(x.window)
	for i, c := range x.columns {
		require.NoError(t, b.Add(uint64(i), 1, x.clock, -1, c))
	}
	return b.Append(dst, bundleKey)
}

func perBucket(b *testing.B, buckets int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(buckets), "ns/bucket")
}

var rollupBenchSets = []struct {
	name    string
	columns chunk.RollupColumns
}{
	{"rate", chunk.RollupFirst | chunk.RollupLast | chunk.RollupCorrections | chunk.RollupResets | chunk.RollupTimes},
	{"sum", chunk.RollupSums},
	{"max", chunk.RollupMax},
	{"all", chunk.RollupAll},
}

// BenchmarkRollupDecode decodes series as functions need them: all of a mix, and single kinds
// of it.
func BenchmarkRollupDecode(b *testing.B) {
	for _, of := range []struct {
		name    string
		minutes int64
	}{{"5m", 5}, {"1h", 60}} {
		x := newBenchRollups(b, of.minutes)
		for _, kind := range []struct {
			name       string
			first, end int
		}{{"mix", 0, 50}, {"counter", 32, 43}, {"gauge", 43, 49}} {
			for _, set := range rollupBenchSets {
				b.Run(of.name+"/"+kind.name+"/"+set.name, func(b *testing.B) {
					b.ReportAllocs()
					var d chunk.RollupDecoder
					var c rollup.Columns
					n := 0
					for b.Loop() {
						c.Reset()
						i := kind.first + n%(kind.end-kind.first)
						if _, err := d.Decode(&x.bundle, i, x.clock, chunk.RollupRange{FromMillis: 0, ToMillis: allTimes, Columns: set.columns}, &c); err != nil {
							b.Fatal(err)
						}
						n++
					}
					perBucket(b, x.buckets)
				})
			}
		}
	}
}

// BenchmarkRollupEncode writes the bundle of the mix.
func BenchmarkRollupEncode(b *testing.B) {
	for _, of := range []struct {
		name    string
		minutes int64
	}{{"5m", 5}, {"1h", 60}} {
		b.Run(of.name, func(b *testing.B) {
			x := newBenchRollups(b, of.minutes)
			b.ReportAllocs()
			var builder chunk.RollupBuilder
			var dst []byte
			for b.Loop() {
				dst = x.build(b, &builder, dst[:0])
			}
			perBucket(b, x.buckets*len(x.columns))
			b.ReportMetric(float64(len(dst))/float64(x.buckets*len(x.columns)), "B/bucket")
		})
	}
}

// BenchmarkParseRollups parses the bundle of the mix and finds a series in it.
func BenchmarkParseRollups(b *testing.B) {
	x := newBenchRollups(b, 60)
	b.ReportAllocs()
	b.SetBytes(int64(len(x.data)))
	var bundle chunk.Rollups
	for b.Loop() {
		if err := chunk.ParseRollups(bundleKey, x.data, uint64(len(x.columns)-1), x.window, &bundle); err != nil {
			b.Fatal(err)
		}
		bundle.Find(uint64(len(x.columns) / 2))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(x.columns)), "ns/series")
}
