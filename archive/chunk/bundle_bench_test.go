package chunk_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
)

func sums(r *rand.Rand, n int) []uint64 {
	values := make([]uint64, n)
	v := 0.0
	for i := range values {
		v += float64(r.IntN(1000)) / 1000
		values[i] = math.Float64bits(v)
	}
	return values
}

func anything(r *rand.Rand, n int) []uint64 {
	values := make([]uint64, n)
	for i := range values {
		values[i] = math.Float64bits(r.NormFloat64())
	}
	return values
}

// mix is what a busy node_exporter exposes: of 50 series 32 are constant, 11 count, 6 are
// decimals and one is a sum of decimals.
var mixed = []struct {
	series int
	values func(r *rand.Rand, n int) []uint64
}{{32, constant}, {11, counter}, {6, gauge}, {1, sums}}

// bundleSets are what the series of a bundle are.
var bundleSets = []struct {
	name   string
	values func(r *rand.Rand, series, n int) []uint64
}{
	{"mix", func(r *rand.Rand, series, n int) []uint64 {
		for _, m := range mixed {
			if series -= m.series; series < 0 {
				return m.values(r, n)
			}
		}
		panic("more series than the mix has")
	}},
	{"constant", func(r *rand.Rand, _, n int) []uint64 { return constant(r, n) }},
	{"counter", func(r *rand.Rand, _, n int) []uint64 { return counter(r, n) }},
	{"gauge", func(r *rand.Rand, _, n int) []uint64 { return gauge(r, n) }},
	{"sums", func(r *rand.Rand, _, n int) []uint64 { return sums(r, n) }},
	{"anything", func(r *rand.Rand, _, n int) []uint64 { return anything(r, n) }},
}

// benchBundle is the samples of 50 series on one clock, sealed and in upstream's chunks.
type benchBundle struct {
	clock   []int64
	columns []chunk.Column
	bits    [][]uint64
	bundle  chunk.Bundle
	sealed  []chunk.Piece
	xor     [][][]byte
	bytes   int
}

const bundleBenchSeries = 50

func newBenchBundle(b *testing.B, samples int, values func(r *rand.Rand, series, n int) []uint64) *benchBundle {
	r := rand.New(rand.NewPCG(3, 4))
	x := &benchBundle{clock: jittered(r, samples), columns: make([]chunk.Column, bundleBenchSeries)}
	for i := range x.columns {
		v := values(r, i, samples)
		x.bits = append(x.bits, v)
		x.columns[i].Times = x.clock
		for _, u := range v {
			x.columns[i].Values = append(x.columns[i].Values, math.Float64frombits(u))
		}
		var chunks [][]byte
		for at := 0; at < samples; at += 120 {
			end := min(at+120, samples)
			chunks = append(chunks, chunk.AppendXOR(nil, x.clock[at:end], v[at:end]))
		}
		x.xor = append(x.xor, chunks)
	}
	var builder chunk.BundleBuilder
	data := x.build(b, &builder, nil)
	x.bytes = len(data)
	if err := chunk.ParseBundle(bundleKey, data, bundleBenchSeries-1, &x.bundle); err != nil {
		b.Fatal(err)
	}
	for i := range x.columns {
		x.sealed = append(x.sealed, chunk.Piece{
			Samples: samples, MinMillis: x.clock[0], MaxMillis: x.clock[samples-1],
			Sealed: &chunk.Sealed{Bundle: &x.bundle, Chunk: i, Clock: fixedClock(x.clock)},
		})
	}
	return x
}

func (x *benchBundle) build(b *testing.B, builder *chunk.BundleBuilder, dst []byte) []byte {
	builder.Reset()
	for i := range x.columns {
		if err := builder.Add(uint64(i), 1<<16, x.clock, -1, &x.columns[i]); err != nil {
			b.Fatal(err)
		}
	}
	return builder.Append(dst, bundleKey)
}

// BenchmarkDecode decodes sealed series as a query does, beside upstream's iterator over
// the same samples in chunks of 120.
func BenchmarkDecode(b *testing.B) {
	for _, set := range bundleSets {
		for _, samples := range []int{480, 5760} {
			x := newBenchBundle(b, samples, set.values)
			name := set.name + map[int]string{480: "/480", 5760: "/5760"}[samples]
			b.Run(name+"/sealed", func(b *testing.B) {
				b.ReportAllocs()
				var c chunk.Column
				i := 0
				for b.Loop() {
					if err := c.Decode(x.sealed[i%bundleBenchSeries:][:1], math.MinInt64, math.MaxInt64); err != nil {
						b.Fatal(err)
					}
					i++
				}
				perSample(b, samples)
				b.ReportMetric(float64(x.bytes)/float64(bundleBenchSeries*samples), "B/sample")
			})
			b.Run(name+"/xor", func(b *testing.B) {
				b.ReportAllocs()
				var it chunkenc.Iterator
				c := chunkenc.NewXORChunk()
				var sum float64
				i := 0
				for b.Loop() {
					for _, data := range x.xor[i%bundleBenchSeries] {
						c.Reset(data)
						it = c.Iterator(it)
						for it.Next() != chunkenc.ValNone {
							_, v := it.At()
							sum += v
						}
					}
					i++
				}
				perSample(b, samples)
			})
		}
	}
}

// BenchmarkEncode seals series beside upstream's appender.
func BenchmarkEncode(b *testing.B) {
	for _, set := range bundleSets {
		for _, samples := range []int{480, 5760} {
			x := newBenchBundle(b, samples, set.values)
			name := set.name + map[int]string{480: "/480", 5760: "/5760"}[samples]
			b.Run(name+"/sealed", func(b *testing.B) {
				b.ReportAllocs()
				var builder chunk.BundleBuilder
				var dst []byte
				for b.Loop() {
					dst = x.build(b, &builder, dst[:0])
				}
				perSample(b, bundleBenchSeries*samples)
			})
			b.Run(name+"/xor", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					for _, v := range x.bits {
						for at := 0; at < samples; at += 120 {
							end := min(at+120, samples)
							upstreamXOR(x.clock[at:end], v[at:end])
						}
					}
				}
				perSample(b, bundleBenchSeries*samples)
			})
		}
	}
}

// BenchmarkParseBundle parses a bundle of some kilobytes, of which a third has bodies, and
// finds a series in it.
func BenchmarkParseBundle(b *testing.B) {
	x := newBenchBundle(b, 120, bundleSets[0].values)
	var builder chunk.BundleBuilder
	data := x.build(b, &builder, nil)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	var bundle chunk.Bundle
	for b.Loop() {
		if err := chunk.ParseBundle(bundleKey, data, bundleBenchSeries-1, &bundle); err != nil {
			b.Fatal(err)
		}
		bundle.Find(bundleBenchSeries / 2)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/bundleBenchSeries, "ns/chunk")
}

// BenchmarkDecodeBuckets walks the twelve buckets of a histogram, each through thirty days,
// and one bucket alone.
func BenchmarkDecodeBuckets(b *testing.B) {
	const days, buckets, samples = 30, 12, 5760
	r := rand.New(rand.NewPCG(5, 6))
	clock := steadyClock(samples)
	pieces := make([][]chunk.Piece, buckets)
	size := 0
	for range days {
		var builder chunk.BundleBuilder
		values := make([][]float64, buckets)
		var counts [buckets]float64
		for range samples {
			for range r.IntN(4) {
				for i := min(int(math.Abs(r.NormFloat64()*2+5)), buckets-1); i < buckets; i++ {
					counts[i]++
				}
			}
			for i := range values {
				values[i] = append(values[i], counts[i])
			}
		}
		for i := range values {
			if err := builder.Add(uint64(i), 1, clock, i-1, &chunk.Column{Times: clock, Values: values[i]}); err != nil {
				b.Fatal(err)
			}
		}
		data := builder.Append(nil, nil)
		size += len(data)
		var bundle chunk.Bundle
		if err := chunk.ParseBundle(nil, data, buckets-1, &bundle); err != nil {
			b.Fatal(err)
		}
		for i := range pieces {
			pieces[i] = append(pieces[i], chunk.Piece{
				Samples: samples, MinMillis: math.MinInt64, MaxMillis: math.MaxInt64,
				Sealed: &chunk.Sealed{Bundle: &bundle, Chunk: i, Clock: fixedClock(clock)},
			})
		}
	}
	var c chunk.Column
	decode := func(b *testing.B, bucket int) {
		for day := range days {
			if err := c.Decode(pieces[bucket][day:][:1], math.MinInt64, math.MaxInt64); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			for i := range buckets {
				decode(b, i)
			}
		}
		perSample(b, buckets*days*samples)
		b.ReportMetric(float64(size)/(buckets*days*samples), "B/sample")
	})
	b.Run("last", func(b *testing.B) {
		for b.Loop() {
			c = chunk.Column{}
			decode(b, buckets-1)
		}
		perSample(b, days*samples)
	})
}
