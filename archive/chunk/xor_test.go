package chunk_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/archive/chunk"
)

// upstreamXOR encodes the samples with upstream's appender.
func upstreamXOR(times []int64, values []uint64) []byte {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		panic(err)
	}
	for i, t := range times {
		app.Append(0, t, math.Float64frombits(values[i]))
	}
	return c.Bytes()
}

// upstreamDecode reads a chunk with upstream's iterator.
func upstreamDecode(data []byte) (times []int64, values []uint64, err error) {
	c, err := chunkenc.FromData(chunkenc.EncXOR, data)
	if err != nil {
		return nil, nil, err
	}
	it := c.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		t, v := it.At()
		times, values = append(times, t), append(values, math.Float64bits(v))
	}
	return times, values, it.Err()
}

func bitsOf(values []float64) []uint64 {
	out := make([]uint64, len(values))
	for i, v := range values {
		out[i] = math.Float64bits(v)
	}
	return out
}

// oddValues are the bit patterns that a careless codec loses.
var oddValues = []uint64{
	0, 1 << 63, 1, 1<<63 | 1, math.MaxUint64, 1<<63 - 1, 0x000fffffffffffff,
	value.StaleNaN, value.NormalNaN, 0x7ff0000000000001, 0xfff8dead0000beef,
	math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1)),
	math.Float64bits(math.MaxFloat64), math.Float64bits(math.SmallestNonzeroFloat64), math.Float64bits(1),
}

// drawTimes draws strictly ascending times: steady, jittered, around the limits of the
// timestamp codes, and anywhere in int64.
func drawTimes(t *rapid.T, n int) []int64 {
	switch rapid.IntRange(0, 3).Draw(t, "times") {
	case 0:
		times := rapid.SliceOfNDistinct(rapid.Int64(), n, n, rapid.ID[int64]).Draw(t, "anywhere")
		slices.Sort(times)
		return times
	case 1:
		times := []int64{math.MinInt64}
		for range n - 1 {
			step := rapid.SampledFrom([]uint64{1, 1 << 13, 1 << 20, 1 << 62, 1<<64 - 1 - uint64(n)}).Draw(t, "leap")
			last := times[len(times)-1]
			times = append(times, last+int64(max(1, min(step, uint64(math.MaxInt64-last)-uint64(n-len(times))))))
		}
		return times
	default:
		times := []int64{rapid.Int64Range(-1<<41, 1<<41).Draw(t, "first")}
		edges := []int64{0, 0, 0, 1, -1, 8191, 8192, 8193, -8190, -8191, -8192, 65535, 65536, 65537, -65535, -65536, 524287, 524288, 524289, -524287, -524288, 1 << 30}
		delta := int64(15000)
		for range n - 1 {
			delta = max(1, delta+rapid.SampledFrom(edges).Draw(t, "dod"))
			times = append(times, times[len(times)-1]+delta)
		}
		return times
	}
}

func drawValues(t *rapid.T, n int) []uint64 {
	values := make([]uint64, 0, n)
	v := math.Float64bits(rapid.Float64Range(0, 1e9).Draw(t, "first value"))
	for range n {
		switch rapid.IntRange(0, 6).Draw(t, "value") {
		case 0:
			v = rapid.Uint64().Draw(t, "bits")
		case 1:
			v = rapid.SampledFrom(oddValues).Draw(t, "odd")
		case 2:
			v = math.Float64bits(math.Float64frombits(v) + float64(rapid.IntRange(0, 1000).Draw(t, "counter")))
		case 3:
			v ^= 1 << rapid.IntRange(0, 63).Draw(t, "bit")
		}
		values = append(values, v)
	}
	return values
}

// TestXORIsUpstreams shows that AppendXOR writes the bytes upstream's appender writes,
// and that DecodeXOR reads back what was written, over hostile times and values.
func TestXORIsUpstreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 130).Draw(t, "n")
		times, values := drawTimes(t, n), drawValues(t, n)
		prefix := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "prefix")

		data := chunk.AppendXOR(slices.Clone(prefix), times, values)
		require.Equal(t, prefix, data[:len(prefix)], "what stood before stays")
		data = data[len(prefix):]
		require.Equal(t, upstreamXOR(times, values), data)

		haveTimes, haveValues, err := chunk.DecodeXOR(data, []int64{-7}, []float64{7})
		require.NoError(t, err)
		require.Equal(t, append([]int64{-7}, times...), haveTimes)
		require.Equal(t, append([]uint64{math.Float64bits(7)}, values...), bitsOf(haveValues))
	})
}

// TestXORLongChunk shows that the longest chunks work, steady and random.
func TestXORLongChunk(t *testing.T) {
	const n = 65534
	times, values := make([]int64, n), make([]uint64, n)
	r := rand.New(rand.NewPCG(1, 65534))
	for i := range times {
		times[i] = int64(i) * 15000
	}
	for _, random := range []bool{false, true} {
		for i := range values {
			if random {
				values[i] = r.Uint64()
				times[i] = times[max(i, 1)-1] + 1 + r.Int64N(1<<40)
			}
		}
		data := chunk.AppendXOR(nil, times, values)
		require.Equal(t, upstreamXOR(times, values), data)
		haveTimes, haveValues, err := chunk.DecodeXOR(data, nil, nil)
		require.NoError(t, err)
		require.Equal(t, times, haveTimes)
		require.Equal(t, values, bitsOf(haveValues))
	}
}

// TestDecodeXORCutShort shows that every proper prefix of a chunk is an error that
// leaves the columns alone, not a shorter answer.
func TestDecodeXORCutShort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		data := chunk.AppendXOR(nil, drawTimes(t, n), drawValues(t, n))
		for k := range data {
			times, values, err := chunk.DecodeXOR(data[:k:k], []int64{1}, []float64{2})
			require.ErrorIs(t, err, chunk.ErrCorrupt, "%d of %d bytes", k, len(data))
			require.Equal(t, []int64{1}, times)
			require.Equal(t, []float64{2}, values)
		}
	})
}

// TestDecodeXORBroken shows that codes which no appender writes are errors, also where
// upstream's iterator would make something of them.
func TestDecodeXORBroken(t *testing.T) {
	f := func(samples byte, bits ...byte) {
		t.Helper()
		data := append([]byte{0, samples, 10, 0, 0, 0, 0, 0, 0, 0, 1, 5}, bits...)
		for range 2 {
			_, _, err := chunk.DecodeXOR(data, nil, nil)
			require.ErrorIs(t, err, chunk.ErrCorrupt)
			data = append(data, make([]byte, 100)...) // Far from the end, too.
		}
	}
	f(2, 0b10_000000, 0, 0, 0, 0, 0, 0, 0, 0)              // a window that was never opened
	f(2, 0b11_11111_1, 0b00010_000, 0, 0, 0, 0, 0, 0, 0)   // 31 leading zeros and 34 bits
	f(2, 0b11_00001_0, 0b00000_000, 0, 0, 0, 0, 0, 0, 0)   // 1 leading zero and 64 bits
	f(3, 0b0_0_11_0000, 0b1_000000_0, 0, 0, 0, 0, 0, 0, 0) // the same later
}

// FuzzDecodeXOR shows that no input makes DecodeXOR panic or allocate beyond its
// bound, and that what it accepts upstream's iterator reads the same way.
func FuzzDecodeXOR(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 0})
	f.Add(chunk.AppendXOR(nil, []int64{1000}, []uint64{value.StaleNaN}))
	f.Add(chunk.AppendXOR(nil, []int64{1000, 16000, 31001, 46000, 1 << 50}, []uint64{1, 1, 2, value.StaleNaN, 7 << 40}))
	steady := make([]int64, 300)
	for i := range steady {
		steady[i] = int64(i) * 1000
	}
	f.Add(chunk.AppendXOR(nil, steady, make([]uint64, 300)))
	f.Fuzz(func(t *testing.T, data []byte) {
		times, values, err := chunk.DecodeXOR(data, nil, nil)
		require.LessOrEqual(t, len(times), 4*len(data))
		require.Len(t, values, len(times))
		if err != nil {
			require.ErrorIs(t, err, chunk.ErrCorrupt)
			require.Empty(t, times)
			return
		}
		wantTimes, wantValues, err := upstreamDecode(data)
		require.NoError(t, err)
		require.Equal(t, wantTimes, times)
		if len(times) > 0 {
			require.Equal(t, wantValues, bitsOf(values))
		}
	})
}
