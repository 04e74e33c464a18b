package chunk_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
)

// dataset makes the samples of many series as exporters produce them.
type dataset struct {
	name   string
	times  func(r *rand.Rand, n int) []int64
	values func(r *rand.Rand, n int) []uint64
}

// aligned times are those of a Prometheus that scrapes itself: it puts scrapes within
// 2 ms of the grid onto it, and a few miss it.
func aligned(r *rand.Rand, n int) []int64 {
	times := make([]int64, n)
	for i := range times {
		times[i] = 1_700_000_000_000 + int64(i)*15000
		if r.IntN(50) == 0 {
			times[i] += int64(r.IntN(20))
		}
	}
	return times
}

// jittered times are off the grid by a few milliseconds each.
func jittered(r *rand.Rand, n int) []int64 {
	times := make([]int64, n)
	for i := range times {
		times[i] = 1_700_000_000_000 + int64(i)*15000 + int64(r.IntN(10))
	}
	return times
}

func counter(r *rand.Rand, n int) []uint64 {
	values := make([]uint64, n)
	v := float64(r.IntN(1_000_000))
	rate := r.IntN(2000)
	for i := range values {
		v += float64(rate + r.IntN(rate/4+2))
		values[i] = math.Float64bits(v)
	}
	return values
}

func gauge(r *rand.Rand, n int) []uint64 {
	values := make([]uint64, n)
	v := 40.0
	for i := range values {
		v += math.Round(r.NormFloat64()*100) / 100
		values[i] = math.Float64bits(math.Round(v*100) / 100)
	}
	return values
}

func constant(_ *rand.Rand, n int) []uint64 {
	values := make([]uint64, n)
	for i := range values {
		values[i] = math.Float64bits(42)
	}
	return values
}

var datasets = []dataset{
	{"counter-aligned", aligned, counter},
	{"counter-jitter", jittered, counter},
	{"gauge-aligned", aligned, gauge},
	{"gauge-jitter", jittered, gauge},
	{"constant", aligned, constant},
}

// benchSeries is how many chunks a benchmark goes through, so that the branch
// predictor cannot learn one by heart.
const benchSeries = 512

type benchChunk struct {
	times  []int64
	values []uint64
	data   []byte
}

func (d dataset) chunks(samples int) []benchChunk {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]benchChunk, benchSeries)
	for i := range out {
		c := benchChunk{times: d.times(r, samples), values: d.values(r, samples)}
		c.data = chunk.AppendXOR(nil, c.times, c.values)
		out[i] = c
	}
	return out
}

func perSample(b *testing.B, samples int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
}

// BenchmarkColumn decodes a day of one series from runs of 24 samples and of 120 and
// walks it as a range selector does, beside upstream's iterator over the same chunks.
func BenchmarkColumn(b *testing.B) {
	const day = 5760
	for _, d := range datasets[:2] {
		for _, perPiece := range []int{24, 120} {
			r := rand.New(rand.NewPCG(1, 2))
			times, values := d.times(r, day), d.values(r, day)
			var pieces []chunk.Piece
			for i := 0; i < day; i += perPiece {
				pieces = append(pieces, floatPiece(times[i:i+perPiece], values[i:i+perPiece]))
			}
			late := append(pieces[:len(pieces):len(pieces)], floatPiece(times[100:101], values[:1]), floatPiece(times[3000:3001], values[:1]))
			name := fmt.Sprintf("%s/%d", d.name, perPiece)
			var c chunk.Column
			b.Run(name+"/decode", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_ = c.Decode(pieces, math.MinInt64, math.MaxInt64)
				}
				perSample(b, day)
			})
			b.Run(name+"/decode-late", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_ = c.Decode(late, math.MinInt64, math.MaxInt64)
				}
				perSample(b, day)
			})
			var own chunk.Iterator
			walk := func(it chunkenc.Iterator) (sum float64) {
				for it.Next() != chunkenc.ValNone {
					t, v := it.At()
					sum += v + float64(t-it.AtST())
				}
				return sum
			}
			b.Run(name+"/walk", func(b *testing.B) {
				for b.Loop() {
					own.Reset(&c)
					walk(&own)
				}
				perSample(b, day)
			})
			b.Run(name+"/upstream-decode-and-walk", func(b *testing.B) {
				b.ReportAllocs()
				x := chunkenc.NewXORChunk()
				var it chunkenc.Iterator
				for b.Loop() {
					for i := range pieces {
						x.Reset(pieces[i].Data)
						it = x.Iterator(it)
						walk(it)
					}
				}
				perSample(b, day)
			})
		}
	}
}

func BenchmarkRun(b *testing.B) {
	var pieces []chunk.Piece
	samples := 0
	for _, c := range datasets[0].chunks(24)[:5] {
		pieces = append(pieces, floatPiece(c.times, c.values))
		samples += len(c.times)
	}
	key := make([]byte, 26)
	run := chunk.AppendRun(nil, key, 1<<30, pieces)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		var dst []byte
		for b.Loop() {
			dst = chunk.AppendRun(dst[:0], key, 1<<30, pieces)
		}
		b.ReportMetric(float64(len(run))/float64(samples), "B/sample")
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		var parsed []chunk.Piece
		for b.Loop() {
			_, parsed, _ = chunk.ParseRun(key, run, parsed)
		}
	})
}

func BenchmarkAppendXOR(b *testing.B) {
	for _, d := range datasets {
		for _, samples := range []int{24, 120} {
			name := fmt.Sprintf("%s/%d", d.name, samples)
			chunks := d.chunks(samples)
			b.Run(name+"/varve", func(b *testing.B) {
				b.ReportAllocs()
				var dst []byte
				i := 0
				for b.Loop() {
					c := &chunks[i%benchSeries]
					dst = chunk.AppendXOR(dst[:0], c.times, c.values)
					i++
				}
				perSample(b, samples)
			})
			b.Run(name+"/upstream", func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					c := &chunks[i%benchSeries]
					upstreamXOR(c.times, c.values)
					i++
				}
				perSample(b, samples)
			})
		}
	}
}

func BenchmarkDecodeXOR(b *testing.B) {
	for _, d := range datasets {
		for _, samples := range []int{24, 120} {
			name := fmt.Sprintf("%s/%d", d.name, samples)
			chunks := d.chunks(samples)
			b.Run(name+"/varve", func(b *testing.B) {
				b.ReportAllocs()
				var times []int64
				var values []float64
				i := 0
				for b.Loop() {
					times, values, _ = chunk.DecodeXOR(chunks[i%benchSeries].data, times[:0], values[:0])
					i++
				}
				perSample(b, samples)
			})
			b.Run(name+"/upstream", func(b *testing.B) {
				b.ReportAllocs()
				var it chunkenc.Iterator
				x := chunkenc.NewXORChunk()
				var sum float64
				i := 0
				for b.Loop() {
					x.Reset(chunks[i%benchSeries].data)
					it = x.Iterator(it)
					for it.Next() != chunkenc.ValNone {
						_, v := it.At()
						sum += v
					}
					i++
				}
				perSample(b, samples)
			})
		}
	}
}
