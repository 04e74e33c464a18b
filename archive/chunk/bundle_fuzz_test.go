package chunk_test

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/archive/chunk"
)

// steadyClock is a clock of n times.
func steadyClock(n int) []int64 {
	clock := make([]int64, n)
	for i := range clock {
		clock[i] = 1_700_000_000_000 + int64(i)*15000
	}
	return clock
}

// FuzzBundle shows that no bytes make ParseBundle or Column.Decode panic, that errors say
// what is wrong, and that of what decodes as a whole a part decodes to the same samples.
func FuzzBundle(f *testing.F) {
	clock := steadyClock(40)
	values := make([]float64, len(clock))
	for _, form := range []func(i int) float64{
		func(int) float64 { return 7 },
		func(i int) float64 { return float64(i * i) },
		func(i int) float64 { return float64(i*i%17) / 100 },
		func(i int) float64 { return math.Sqrt(float64(i)) },
		func(i int) float64 { return math.Float64frombits(oddValues[i%len(oddValues)]) },
	} {
		for i := range values {
			values[i] = form(i)
		}
		more := slices.Clone(values)
		more[7]++
		data := seal(f, map[chunk.ClockID][]int64{5: clock}, []sealedSeries{
			{ref: 1, clock: 5, times: clock, values: values, base: -1},
			{ref: 2, clock: 5, times: clock, values: more, base: 0},
			{ref: 3, clock: 5, times: clock, values: values, base: -1},
			{ref: 9, clock: chunk.NoClock, times: clock[2:], values: values[2:], starts: clock[2:], base: -1},
			{ref: 10, clock: 5, times: clock[3:20], values: values[3:20], base: -1},
		})
		f.Add(data[:len(data)-4])
	}
	var rare, floatRare chunk.RareBuilder
	for i, at := range clock {
		h := &histogram.Histogram{
			Count: uint64(6 * i), ZeroCount: uint64(i), Sum: float64(i) / 4,
			PositiveSpans: []histogram.Span{{Offset: 1, Length: uint32(2 + i/20)}}, PositiveBuckets: []int64{int64(2 * i), int64(i), 1}[:2+i/20],
		}
		require.NoError(f, rare.AppendHistogram(at, at-1000, h))
		h.Schema, h.CustomValues = histogram.CustomBucketsSchema, []float64{0.5, 1, 2.5}
		require.NoError(f, floatRare.AppendFloatHistogram(at+1_000_000_000, 0, h.ToFloat(nil)))
	}
	var column chunk.Column
	require.NoError(f, column.Decode(floatRare.Pieces(rare.Pieces(nil)), math.MinInt64, math.MaxInt64))
	var builder chunk.BundleBuilder
	require.NoError(f, builder.Add(1, chunk.NoClock, nil, -1, &column))
	require.NoError(f, builder.Add(2, 9, column.Times, -1, &column))
	data := builder.Append(nil, nil)
	f.Add(data[:len(data)-4])
	// A decimal with an exponent beyond all powers of ten.
	f.Add([]byte{1, 0x10, 0, 31 << 3, 0x80})
	f.Add([]byte{1, 0x10, 0, 19<<3 | 2, 1, 0x80, 0x80})
	f.Add([]byte{1, 0x12, 0, 19, 4})
	f.Fuzz(func(t *testing.T, body []byte) {
		var b chunk.Bundle
		data := sealed(bundleKey, body)
		if err := chunk.ParseBundle(bundleKey, data, 1000, &b); err != nil {
			require.True(t, errors.Is(err, chunk.ErrCorrupt) || errors.Is(err, chunk.ErrVersion), "%v", err)
			require.Zero(t, b.Len())
			return
		}
		require.LessOrEqual(t, b.Len(), chunk.BundleChunksMax)
		require.EqualValues(t, 1000, b.Ref(b.Len()-1))
		var whole, part chunk.Column
		for i := range min(b.Len(), 100) {
			piece := []chunk.Piece{{MinMillis: math.MinInt64, MaxMillis: math.MaxInt64, Sealed: &chunk.Sealed{Bundle: &b, Chunk: i, Clock: fixedClock(clock)}}}
			if err := whole.Decode(piece, math.MinInt64, math.MaxInt64); err != nil {
				require.ErrorIs(t, err, chunk.ErrCorrupt)
				require.Empty(t, whole.Times)
				continue
			}
			require.Len(t, whole.Values, len(whole.Times))
			n := len(whole.Times)
			first, end := n/3, n-n/4
			require.NoError(t, part.Decode(piece, whole.Times[first], whole.Times[end-1]))
			require.Equal(t, columnSamples(&whole)[first:end], columnSamples(&part))
		}
	})
}

// FuzzBundleRoundTrip shows that samples made of any bytes come back. Each 9 bytes are an
// operation on the value before, or its bits, and a step in time.
func FuzzBundleRoundTrip(f *testing.F) {
	op := func(kind byte, v uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{kind}, v) }
	f.Add(op(0, math.Float64bits(1.5)))
	f.Add(slices.Concat(op(0, math.Float64bits(1)), op(1, 1), op(1, 14), op(1, 16), op(0, math.Float64bits(-1)), op(0, math.Float64bits(1<<64))))
	f.Add(slices.Concat(op(2, 12345), op(2, 12346), op(2, 12399), op(0, value.StaleNaN), op(0, 1<<63)))
	f.Add(slices.Concat(op(3, 5), op(3, 7), op(3, 7), op(4, 1), op(4, 1<<40)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var times []int64
		var values []float64
		now, v := int64(0), 0.0
		for ; len(data) >= 9 && len(times) < 1000; data = data[9:] {
			operand := binary.LittleEndian.Uint64(data[1:])
			switch data[0] & 7 {
			case 0:
				v = math.Float64frombits(operand)
			case 1:
				v += float64(int64(operand))
			case 2:
				v = float64(int64(operand)>>20) / 100
			case 3:
				v += float64(operand%1000) / 1000
			case 4:
				v = math.Float64frombits(math.Float64bits(v) ^ operand)
			}
			now += 1 + int64(data[0]>>3)
			times, values = append(times, now), append(values, v)
		}
		if len(times) == 0 {
			return
		}
		clocks := map[chunk.ClockID][]int64{1 << 16: times}
		more := slices.Clone(values)
		for i := range more {
			more[i] += float64(i & 3)
		}
		series := []sealedSeries{
			{ref: 1, clock: 1 << 16, times: times, values: values, base: -1},
			{ref: 2, clock: 1 << 16, times: times, values: more, base: 0},
			{ref: 3, clock: chunk.NoClock, times: times, values: values, base: -1},
		}
		var b chunk.Bundle
		var c chunk.Column
		require.NoError(t, chunk.ParseBundle(bundleKey, seal(t, clocks, series), 3, &b))
		for i := range series {
			checkSealed(t, &b, &c, clocks, &series[i], math.MinInt64, math.MaxInt64)
			checkSealed(t, &b, &c, clocks, &series[i], times[len(times)/2], math.MaxInt64)
		}
	})
}
