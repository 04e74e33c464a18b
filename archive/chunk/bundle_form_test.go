package chunk_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/archive/chunk"
)

// ExampleBundleBuilder is the worked example of docs/format/bundle.md: four series of a
// target, of which the first is constant, the second counts, the third repeats it, and
// the fourth is a little above it and ends with a stale marker on times of its own.
func ExampleBundleBuilder() {
	clock := []int64{1_700_000_000_000, 1_700_000_015_000, 1_700_000_030_000, 1_700_000_045_000, 1_700_000_060_000}
	stale := math.Float64frombits(value.StaleNaN)
	id := chunk.ClockID(3<<16 | 1)
	var b chunk.BundleBuilder
	for _, s := range []struct {
		ref    uint64
		clock  chunk.ClockID
		times  []int64
		values []float64
	}{
		{ref: 512, clock: id, times: clock, values: []float64{12.5, 12.5, 12.5, 12.5, 12.5}},
		{ref: 513, clock: id, times: clock, values: []float64{7, 19, 43, 43, 50}},
		{ref: 514, clock: id, times: clock, values: []float64{7, 19, 43, 43, 50}},
		{ref: 520, clock: id, times: clock[1:4], values: []float64{1.5, 2.25, stale}},
		{ref: 521, clock: chunk.NoClock, times: []int64{10, 25}, values: []float64{math.Pi, math.Pi}},
	} {
		if err := b.Add(s.ref, s.clock, clock, -1, &chunk.Column{Times: s.times, Values: s.values}); err != nil {
			panic(err)
		}
	}
	key := []byte("a key")
	data := b.Append(nil, key)
	fmt.Printf("% x\n", data)

	var bundle chunk.Bundle
	fmt.Println(chunk.ParseBundle(key, data, 521, &bundle))
	for i := range bundle.Len() {
		fmt.Println(bundle.Ref(i), bundle.Clock(i) == id, bundle.Samples(i))
	}
	// Output:
	// 01 12 0c 06 01 fa 01 20 07 00 01 0e 06 18 0c 38 04 01 38 06 09 03 02 01 03 0a 14 01 02 01 09 ac 02 4b 02 02 13 02 02 06 00 09 14 0f 02 02 18 2d 44 54 fb 21 09 40 b2 2e 06 cb
	// <nil>
	// 512 true 0
	// 513 true 0
	// 514 true 0
	// 520 true 3
	// 521 false 2
}

// TestBundleConstants shows that a constant takes two or three bytes, and many neighbours
// with the same value take as much as one.
func TestBundleConstants(t *testing.T) {
	clock := steadyClock(5760)
	f := func(want int, values ...float64) {
		t.Helper()
		var series []sealedSeries
		for i, v := range values {
			series = append(series, sealedSeries{ref: uint64(100 + i), clock: 0, times: clock, values: slices.Repeat([]float64{v}, len(clock)), base: -1})
		}
		clocks := map[chunk.ClockID][]int64{0: clock}
		data := seal(t, clocks, series)
		const frame = 1 + 1 + 4 // version, the first chunk's clock, checksum
		require.Equal(t, want, len(data)-frame, "% x", data)
		var b chunk.Bundle
		var c chunk.Column
		require.NoError(t, chunk.ParseBundle(bundleKey, data, uint64(100+len(values)-1), &b))
		for i := range series {
			checkSealed(t, &b, &c, clocks, &series[i], math.MinInt64, math.MaxInt64)
		}
	}
	f(2, 0)
	f(2, 63)
	f(3, 64)
	f(3, -100)
	f(3, 0.5)
	f(9, math.Pi)
	f(9, math.Inf(1))
	f(9, math.Copysign(0, -1))
	f(9, math.MinInt64)
	f(9, math.Float64frombits(value.StaleNaN))
	f(2, 1, 1)
	f(2, 1, 1, 1)
	f(3, 1, 1, 1, 1)
	f(4, 1, 2)
	f(3, slices.Repeat([]float64{5}, 100)...)
	f(4, slices.Repeat([]float64{5}, 200)...)
}

// TestBundleOutliers shows that no value among others is rounded: the twelve values in
// which VictoriaMetrics' issue 9448 lost three.
func TestBundleOutliers(t *testing.T) {
	values := []float64{1, 2, 16, 32, -1, -9, -10, 100, 1 << 64, 1, 2, 3}
	clock := steadyClock(len(values))
	clocks := map[chunk.ClockID][]int64{7: clock}
	s := sealedSeries{ref: 1, clock: 7, times: clock, values: values, base: -1}
	data := seal(t, clocks, []sealedSeries{s})
	require.Less(t, len(data), 50)
	var b chunk.Bundle
	var c chunk.Column
	require.NoError(t, chunk.ParseBundle(bundleKey, data, 1, &b))
	checkSealed(t, &b, &c, clocks, &s, math.MinInt64, math.MaxInt64)
}

// TestBundleDifferences shows that the buckets of a histogram take less when each is
// pointed to the one below, however long the chain gets, and that equal ones are repeats.
func TestBundleDifferences(t *testing.T) {
	clock := steadyClock(1000)
	clocks := map[chunk.ClockID][]int64{1: clock}
	var apart, chained []sealedSeries
	for le := range 40 {
		values := make([]float64, len(clock))
		for i := range values {
			values[i] = float64(i*i%977 + i*1000 + le/2*(i/100))
			if i%250 == 3 {
				values[i] = math.Pi
			}
		}
		s := sealedSeries{ref: uint64(le), clock: 1, times: clock, values: values, base: -1}
		apart = append(apart, s)
		s.base = le - 1
		chained = append(chained, s)
	}
	large, small := seal(t, clocks, apart), seal(t, clocks, chained)
	require.Less(t, len(small), len(large)/4)
	var b chunk.Bundle
	var c chunk.Column
	require.NoError(t, chunk.ParseBundle(bundleKey, small, 39, &b))
	for _, i := range []int{39, 0, 17, 16, 18, 38, 39, 5} {
		checkSealed(t, &b, &c, clocks, &chained[i], clock[400], clock[420])
		checkSealed(t, &b, &c, clocks, &chained[i], math.MinInt64, math.MaxInt64)
	}
	for i := range chained {
		checkSealed(t, &b, &c, clocks, &chained[i], math.MinInt64, math.MaxInt64)
	}
}

// TestBundleDistantBase shows that the base of a difference may be any earlier series of the
// same times: one that repeats another, one further back; and that one of other times, a
// constant or one of other values is not used.
func TestBundleDistantBase(t *testing.T) {
	clock := steadyClock(200)
	clocks := map[chunk.ClockID][]int64{1: clock, 2: clock[:150]}
	counter := func(more float64) []float64 {
		values := make([]float64, len(clock))
		for i := range values {
			values[i] = float64(i*i%977*1000+i*i%491) + more*float64(i/50)
		}
		return values
	}
	roots := slices.Clone(counter(3))
	for i := range roots {
		roots[i] = math.Sqrt(roots[i])
	}
	series := []sealedSeries{
		{ref: 1, clock: 1, times: clock, values: counter(0), base: -1},
		{ref: 2, clock: 1, times: clock, values: counter(0), base: -1},
		{ref: 3, clock: 1, times: clock, values: roots, base: 1},
		{ref: 4, clock: 1, times: clock, values: make([]float64, 200), base: 0},
		{ref: 5, clock: 1, times: clock, values: counter(1), base: 1},
		{ref: 6, clock: 1, times: clock, values: counter(2), base: 0},
	}
	small := len(seal(t, clocks, series))
	series[5].base = 2
	larger := len(seal(t, clocks, series))
	require.Less(t, small+100, larger, "roots are no base")
	series[5].base = 3
	require.Equal(t, larger, len(seal(t, clocks, series)), "nor is a constant")
	series[5].base = 0
	series = append(series,
		sealedSeries{ref: 7, clock: 2, times: clock[:150], values: counter(0)[:150], base: 0},
		sealedSeries{ref: 8, clock: 2, times: clock[:150], values: counter(1)[:150], base: 0},
		sealedSeries{ref: 9, clock: 2, times: clock[10:140], values: counter(1)[10:140], base: 6},
	)
	var b chunk.Bundle
	var c chunk.Column
	require.NoError(t, chunk.ParseBundle(bundleKey, seal(t, clocks, series), 9, &b))
	for i := range series {
		checkSealed(t, &b, &c, clocks, &series[i], math.MinInt64, math.MaxInt64)
	}
}

// TestBundleRepeats shows that series repeat whichever earlier one they are like, by its
// number, and that series of other lengths come back though their streams may be the same.
func TestBundleRepeats(t *testing.T) {
	clocks := map[chunk.ClockID][]int64{1: steadyClock(100), 2: steadyClock(90)}
	var series []sealedSeries
	for i, id := range []chunk.ClockID{1, 2, 1, 2, 1, 1, 1, 1, 2, 2} {
		s := sealedSeries{ref: uint64(i), clock: id, times: clocks[id], base: -1}
		for j := range s.times {
			s.values = append(s.values, float64(j*5))
		}
		if i%3 == 1 {
			s.values[50]--
		}
		series = append(series, s)
	}
	data := seal(t, clocks, series)
	require.Less(t, len(data), 120)
	var b chunk.Bundle
	var c chunk.Column
	require.NoError(t, chunk.ParseBundle(bundleKey, data, uint64(len(series)-1), &b))
	for i := range series {
		checkSealed(t, &b, &c, clocks, &series[i], math.MinInt64, math.MaxInt64)
	}
}

// TestSealedManyBundles shows that what a column remembers of a bundle is never taken for
// another's, also where one is parsed anew.
func TestSealedManyBundles(t *testing.T) {
	clock := steadyClock(50)
	clocks := map[chunk.ClockID][]int64{1: clock}
	bundles := make([]chunk.Bundle, 70)
	var series [][]sealedSeries
	for i := range bundles {
		var own []sealedSeries
		for le := range 3 {
			s := sealedSeries{ref: uint64(le), clock: 1, times: clock, base: le - 1}
			for j := range clock {
				s.values = append(s.values, float64(i*1_000_000+j*j*977%1009*1000+le*(j/9)))
			}
			own = append(own, s)
		}
		series = append(series, own)
		require.NoError(t, chunk.ParseBundle(bundleKey, seal(t, clocks, own), 2, &bundles[i]))
	}
	var c chunk.Column
	for le := range 3 {
		for i := range bundles {
			checkSealed(t, &bundles[i], &c, clocks, &series[i][le], math.MinInt64, math.MaxInt64)
		}
	}
	require.NoError(t, chunk.ParseBundle(bundleKey, seal(t, clocks, series[7]), 2, &bundles[69]))
	checkSealed(t, &bundles[69], &c, clocks, &series[7][2], math.MinInt64, math.MaxInt64)
}

// TestBundleValueSizes shows which form values take by what it comes to, in bytes behind
// the times.
func TestBundleValueSizes(t *testing.T) {
	const n = 480
	nan := math.Float64frombits(value.StaleNaN)
	r := rand.New(rand.NewPCG(1, 1))
	steps := make([]int, n)
	for i := range steps {
		steps[i] = r.IntN(8)
	}
	f := func(sizeMax int, form func(i int) float64) {
		t.Helper()
		values := make([]float64, n)
		for i := range values {
			values[i] = form(i)
		}
		clocks := map[chunk.ClockID][]int64{0: steadyClock(n)}
		data := seal(t, clocks, []sealedSeries{{clock: 0, times: clocks[0], values: values, base: -1}})
		require.LessOrEqual(t, len(data), sizeMax)
	}
	sum := 0.0
	f(200, func(i int) float64 { return float64(1_000_000 + steps[i]) })
	f(205, func(i int) float64 { // Markers before the first value cost a run.
		if i < 4 {
			return nan
		}
		return float64(1_000_000 + steps[i])
	})
	f(210, func(i int) float64 { // An outlier does, and the ends of int64 are such.
		if i > 7 && i < 11 {
			return math.MinInt64
		}
		return float64(1_000_000 + steps[i])
	})
	f(215, func(i int) float64 { // The same one later costs little more.
		if i%160 == 3 {
			return math.Pi * 1e30
		}
		return float64(1_000_000 + steps[i])
	})
	f(220, func(i int) float64 { // Two long decimals don't make all others longer.
		if i%200 == 3 {
			return 12.3456789
		}
		return float64(1_000_000 + steps[i])
	})
	f(285, func(i int) float64 { // Many do.
		if i%3 == 2 {
			return float64(1_000_000+steps[i]) + 0.1*float64(steps[i])
		}
		return float64(1_000_000 + steps[i])
	})
	f(285, func(i int) float64 { // Sums of decimals are nearly decimals.
		sum += float64(steps[i]) / 1000
		return sum
	})
	for _, every := range []int{8, 16} {
		f(100, func(i int) float64 { // Also if many of them are decimals.
			if i%every == 0 {
				sum += float64(steps[i]) / 1000
			}
			return sum
		})
	}
	f(60, func(i int) float64 { // Few changes make a digit cheap.
		if i%48 == 7 {
			return 2.1 + float64(i/48)/10
		}
		return 2
	})
}

// TestBundleLongBodies shows that bodies may be of any length.
func TestBundleLongBodies(t *testing.T) {
	clocks := map[chunk.ClockID][]int64{1: steadyClock(20_000)}
	r := rand.New(rand.NewPCG(8, 9))
	var series []sealedSeries
	for i, n := range []int{20_000, 3_000, 100, 20_000} {
		s := sealedSeries{ref: uint64(i), clock: 1, times: clocks[1][:n], base: -1}
		for range n {
			s.values = append(s.values, r.NormFloat64())
		}
		series = append(series, s)
	}
	data := seal(t, clocks, series)
	require.Greater(t, len(data), 2<<16)
	var b chunk.Bundle
	var c chunk.Column
	require.NoError(t, chunk.ParseBundle(bundleKey, data, 3, &b))
	for i := range series {
		checkSealed(t, &b, &c, clocks, &series[i], math.MinInt64, math.MaxInt64)
	}
}

// TestBundleRefuses shows that series that can't be added leave the bundle as it was.
func TestBundleRefuses(t *testing.T) {
	clock := []int64{10, 20, 30}
	var b chunk.BundleBuilder
	column := &chunk.Column{Times: clock, Values: []float64{1, 2, 4}}
	require.NoError(t, b.Add(5, 0, clock, -1, column))
	before, size := b.Append(nil, bundleKey), b.Size()

	require.Error(t, b.Add(4, 0, clock, -1, column), "refs ascend")
	require.Error(t, b.Add(6, 0, clock[:2], -1, column), "a time that the clock hasn't")
	require.Error(t, b.Add(6, 0, []int64{10, 21, 30, 40}, -1, column))
	require.Error(t, b.Add(6, 0, clock, 1, column), "a base that isn't there")
	require.Error(t, b.Add(6, 0, clock, -1, &chunk.Column{}), "no samples")
	require.Equal(t, before, b.Append(nil, bundleKey))
	require.Equal(t, size, b.Size())

	for i := range chunk.BundleChunksMax - 1 {
		require.NoError(t, b.Add(uint64(6+i), 0, clock, -1, column))
	}
	require.ErrorIs(t, b.Add(1<<20, 0, clock, -1, column), chunk.ErrBundleFull)
	var bundle chunk.Bundle
	require.NoError(t, chunk.ParseBundle(bundleKey, b.Append(nil, bundleKey), 1<<20, &bundle))
	require.Equal(t, chunk.BundleChunksMax, bundle.Len())
	first, end := bundle.Find(1 << 20)
	require.Equal(t, []int{chunk.BundleChunksMax - 1, chunk.BundleChunksMax}, []int{first, end})
	first, end = bundle.Find(1)
	require.Equal(t, first, end)
}

// smallBundle has every kind of chunk of floats.
func smallBundle(t *testing.T) []byte {
	clock := steadyClock(30)
	var series []sealedSeries
	for i, form := range []func(i int) float64{
		func(int) float64 { return 7 },
		func(int) float64 { return 0.75 },
		func(int) float64 { return math.Pi },
		func(i int) float64 { return float64(i * i) },
		func(i int) float64 { return float64(i*i) + float64(i/10) },
		func(i int) float64 { return float64(i * i) },
		func(i int) float64 { return math.Sqrt(float64(i)) },
	} {
		s := sealedSeries{ref: uint64(i * 3), clock: 5, times: clock, base: -1}
		if i == 4 {
			s.base = 3
		}
		for j := range clock {
			s.values = append(s.values, form(j))
		}
		series = append(series, s)
	}
	last := series[5]
	last.clock, last.times, last.values, last.ref = chunk.NoClock, last.times[:9], last.values[:9], 30
	return seal(t, map[chunk.ClockID][]int64{5: clock}, append(series, last))
}

// TestBundleFlippedBits shows that any flipped bit, any missing end and any other key is
// noticed before a chunk is looked at.
func TestBundleFlippedBits(t *testing.T) {
	data := smallBundle(t)
	var b chunk.Bundle
	require.NoError(t, chunk.ParseBundle(bundleKey, data, 100, &b))
	for bit := range 8 * len(data) {
		data[bit/8] ^= 1 << (bit % 8)
		require.ErrorIs(t, chunk.ParseBundle(bundleKey, data, 100, &b), chunk.ErrCorrupt)
		require.Zero(t, b.Len())
		data[bit/8] ^= 1 << (bit % 8)
	}
	for n := range data {
		require.ErrorIs(t, chunk.ParseBundle(bundleKey, data[:n], 100, &b), chunk.ErrCorrupt)
	}
	require.ErrorIs(t, chunk.ParseBundle([]byte("another key"), data, 100, &b), chunk.ErrCorrupt)
	require.ErrorIs(t, chunk.ParseBundle(bundleKey, data, 29, &b), chunk.ErrCorrupt, "refs below 0")
}

// TestBundleStructure shows that a directory which no builder writes is an error although
// its checksum is right.
func TestBundleStructure(t *testing.T) {
	var b chunk.Bundle
	require.ErrorIs(t, chunk.ParseBundle(bundleKey, sealed(bundleKey, []byte{2, 0x11, 0, 0}), 9, &b), chunk.ErrVersion)
	f := func(want string, body ...byte) {
		t.Helper()
		err := chunk.ParseBundle(bundleKey, sealed(bundleKey, append([]byte{1}, body...)), 9, &b)
		if want == "" {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, chunk.ErrCorrupt)
		require.ErrorContains(t, err, want)
	}
	f("", 0x11, 0, 0)
	f("no chunks")
	f("first entry", 0x01, 0)
	f("first entry", 0x19, 1, 0, 0)
	f("cut short", 0x11, 0)
	f("cut short", 0x11, 0, 0, 0x08)
	f("times 3", 0x11, 3, 0)
	f("times a", 0x11, 0x0a, 1, 1, 0, 0)
	f("times", 0x11, 0x80, 0x80, 0x80, 0x40, 0)
	f("group", 0x11, 4, 1, 0)
	f("0 samples", 0x11, 1, 0, 0, 0)
	f("samples", 0x11, 2, 0x81, 0xdd, 0x35, 0, 0)
	f("", 0x11, 2, 0x80, 0xdd, 0x34, 0, 0)
	f("exponent", 0x12, 0, 19, 1)
	f("", 0x12, 0, 18, 1)
	f("repeats the chunk 1 before", 0x14, 0, 1)
	f("repeats the chunk 0 before", 0x30, 0, 1, 0, 0x04, 0)
	f("unlike", 0x11, 0, 0, 0x04, 1)
	f("", 0x30, 0, 1, 0, 0x04, 1)
	f("difference to the chunk 1", 0x15, 0, 1, 0)
	f("difference to a chunk unlike", 0x11, 0, 0, 0x05, 1, 0)
	f("difference to a chunk unlike", 0x30, 0, 1, 0, 0x15, 8, 1, 0)
	f("", 0x30, 0, 1, 0, 0x05, 1, 0)
	f("repeats a chunk unlike", 0x30, 0, 1, 0, 0x25, 1, 1, 0, 0x14, 8, 1)
	f("", 0x30, 0, 1, 0, 0x25, 1, 1, 0, 0x14, 0, 1)
	chain := []byte{0x30, 0, 1, 0}
	for range 16 {
		chain = append(chain, 0x2d, 0, 1, 1, 0)
	}
	f("", chain...)
	f("difference to a chunk unlike", append(chain, 0x2d, 0, 1, 1, 0)...)
	f("", append(chain, 0x2d, 0, 2, 1, 0)...)
	f("no clock", 0x11, 0xfc, 0xff, 0x1f, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0)
	f("cut short", 0x30, 0, 2, 0)
	f("more", 0x71, 0, 0xff, 0xff, 0x03, 0)
	f("", 0x71, 0, 5, 0)
	f("no starts", 0x91, 0, 0, 0)
	f("", 0x91, 0, 1, 0x80, 0, 0x81, 0, 0)
	f("gap", 0x11, 0, 0, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0x09, 2, 0)
	f("before ref 9", 0x11, 0, 0, 0x09, 10, 0)
}

// decodeBody decodes a bundle of one chunk of the kind on a clock of four times.
func decodeBody(kind byte, body []byte, c *chunk.Column) error {
	var b chunk.Bundle
	data := sealed(bundleKey, append([]byte{1, 0x10 | kind, 0}, body...))
	if err := chunk.ParseBundle(bundleKey, data, 9, &b); err != nil {
		return err
	}
	return c.Decode(sealedPieces(&b, 9, map[chunk.ClockID][]int64{0: steadyClock(4)}), math.MinInt64, math.MaxInt64)
}

// TestBundleValuesBroken shows that streams of floats that no encoder writes are errors.
func TestBundleValuesBroken(t *testing.T) {
	f := func(want string, body ...byte) {
		t.Helper()
		var c chunk.Column
		err := decodeBody(0, body, &c)
		if want == "" {
			require.NoError(t, err)
			require.Len(t, c.Values, 4)
			return
		}
		require.ErrorIs(t, err, chunk.ErrCorrupt)
		require.ErrorContains(t, err, want)
		require.Empty(t, c.Times)
	}
	const equal = 0x80 // a stream of the same integer, which is in the low bits in zigzag form
	f("", 0, equal)
	f("", 18<<3, equal|2)
	f("no values")
	f("form 3", 3, equal)
	f("exponent 19", 19<<3, equal)
	f("exponent 31", 31<<3|2, 1, equal, equal)
	f("form 1 with exponent 1", 1|1<<3, equal)
	f("", 1, equal)
	f("behind", 0, equal, 0)
	f("corrupt integer stream", 0)
	f("", 2|3<<3, 1, equal|2, equal)
	f("cut short", 2|3<<3, 3, equal, equal)
	f("behind", 2|3<<3, 2, equal, equal, equal)
	f("", 4, 1, 3, 1, equal)
	f("", 4, 2, 0, 2, 0, 2<<2|3, equal)
	f("exceptions", 4, 9, 0, 1, equal)
	f("exceptions", 4, 1, 4, 1, equal)
	f("exceptions", 4, 1, 2, 2<<2|1, equal)
	f("exceptions", 4, 1, 0, 0, 1, 2, 3)
	f("exceptions", 4, 2, 0, 3<<2|1, 0, 1, equal)
}

// TestBundleDifferencesBroken shows the same of differences and of what they are based on.
func TestBundleDifferencesBroken(t *testing.T) {
	const equal = 0x80
	f := func(want string, base, difference []byte) {
		t.Helper()
		data := slices.Concat([]byte{1, 0x30, 0, byte(len(base))}, base, []byte{5, 1}, difference)
		var b chunk.Bundle
		require.NoError(t, chunk.ParseBundle(bundleKey, sealed(bundleKey, data), 9, &b))
		var c chunk.Column
		err := c.Decode(sealedPieces(&b, 9, map[chunk.ClockID][]int64{0: steadyClock(4)}), math.MinInt64, math.MaxInt64)
		if want == "" {
			require.NoError(t, err)
			require.Equal(t, []float64{0.3, 0.3, 0.3, 0.3}, c.Values)
			return
		}
		require.ErrorIs(t, err, chunk.ErrCorrupt)
		require.ErrorContains(t, err, want)
		require.Empty(t, c.Times)
	}
	f("", []byte{0, equal | 2}, []byte{1 << 3, equal | 4})
	f("", []byte{2 << 3, equal | 2}, []byte{1 << 3, equal | 4})
	f("no values", []byte{0, equal}, nil)
	f("form 1", []byte{0, equal}, []byte{1, equal})
	f("form 1", []byte{1, equal}, []byte{0, equal})
	f("form 2", []byte{2, 1, equal, equal}, []byte{0, equal})
	f("form 3", []byte{3, equal}, []byte{0, equal})
	f("corrupt integer stream", []byte{0}, []byte{0, equal})
	f("behind", []byte{0, equal}, []byte{0, equal, 0})
	f("behind", []byte{0, equal, 0}, []byte{0, equal})
}

// TestBundleHistogramsBroken shows the same of histograms.
func TestBundleHistogramsBroken(t *testing.T) {
	const equal = 0x80
	f := func(want string, kind byte, parts ...[]byte) {
		t.Helper()
		var c chunk.Column
		err := decodeBody(kind, slices.Concat(parts...), &c)
		if want == "" {
			require.NoError(t, err)
			require.Len(t, columnSamples(&c), 4)
			return
		}
		require.ErrorIs(t, err, chunk.ErrCorrupt)
		require.ErrorContains(t, err, want)
		require.Empty(t, c.Times)
	}
	part := func(b ...byte) []byte { return b }
	none, zero, one := part(0), part(1, equal), part(1, equal|2)
	zeroFloat, stale := part(2, 0, equal), part(5, 4, 1, 0, 3<<2|1, equal)
	// Schema 3, threshold 0, a positive span of two buckets at 1, no negative ones, no bounds.
	layout := part(1, 6, 0, 1, 2, 2, 0, 0)
	f("", 6, none, zero, zero, zero, zero, stale)
	f("", 7, none, zero, zero, zeroFloat, zeroFloat, stale)
	f("", 6, layout, one, zero, zero, zero, zeroFloat, zero, zero)
	f("", 7, layout, one, zero, zeroFloat, zeroFloat, zeroFloat, zeroFloat, zeroFloat)
	for _, kind := range []byte{6, 7} {
		counts, sums := zero, zeroFloat
		if kind == 7 {
			counts = zeroFloat
		}
		whole := [][]byte{layout, one, zero, counts, counts, sums, counts, counts}
		f("", kind, whole...)
		for i := 1; i < len(whole); i++ {
			parts := slices.Clone(whole)
			parts[i] = part(0)
			f("corrupt", kind, parts...)
			f("corrupt", kind, whole[:i]...)
		}
	}
	f("layout 1 of 0", 6, none, one, zero, zero, zero, stale)
	f("layout -1", 6, none, part(1, equal|1), zero, zero, zero, stale)
	f("without its layout", 6, none, zero, zero, zero, zero, zeroFloat)
	f("without its layout", 6, layout, one, zero, zero, zero, stale, zero, zero)
	f("hint 8", 6, none, zero, part(1, equal|16), zero, zero, stale)
	f("hint -1", 6, none, zero, part(1, equal|1), zero, zero, stale)
	f("behind the buckets", 6, none, zero, zero, zero, zero, stale, zero)
	f("corrupt", 6, layout, one, zero, zero, zero, zeroFloat, zero)
	f("layouts in", 6, part(9), zero, zero, zero, zero, stale)
	f("layout of schema 9", 6, part(1, 18, 0, 0, 0, 0), one, zero, zero, zero, zeroFloat)
	f("layout of schema", 6, part(1, 6, 0, 0, 0, 1, 2, 0, equal), one, zero, zero, zero, zeroFloat) // bounds without custom buckets
	f("buckets in", 6, part(1, 6, 0, 1, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0), one, zero, zero, zero, zeroFloat, zero, zero)
	f("buckets in", 6, part(1, 6, 0, 1, 2, 40, 0, 0), one, zero, zero, zero, zeroFloat, zero, zero)
	f("span of", 6, part(1, 6, 0, 1, 2, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0), one, zero, zero, zero, zeroFloat, zero, zero)
	f("spans in", 6, part(1, 6, 0, 0x7f, 2, 2, 0, 0), one, zero, zero, zero, zeroFloat, zero, zero)
}

// TestBundleHistogramsBounded shows that samples and buckets multiply to no more than a
// chunk may have.
func TestBundleHistogramsBounded(t *testing.T) {
	body := []byte{1, 0x16, 0, 1, 6, 0, 1, 2, 20, 0, 0, 1, 0x82, 1, 0x80, 1, 0x80, 1, 0x80, 2, 0, 0x80}
	for range 20 {
		body = append(body, 1, 0x80)
	}
	var b chunk.Bundle
	var c chunk.Column
	require.NoError(t, chunk.ParseBundle(bundleKey, sealed(bundleKey, body), 1, &b))
	clock := steadyClock(300_000)
	pieces := sealedPieces(&b, 1, map[chunk.ClockID][]int64{0: clock})
	require.ErrorContains(t, c.Decode(pieces, 0, math.MaxInt64), "buckets")
	pieces = sealedPieces(&b, 1, map[chunk.ClockID][]int64{0: clock[:1000]})
	require.NoError(t, c.Decode(pieces, 0, math.MaxInt64))
	require.Len(t, c.Times, 1000)
}

// TestSealedClockFails shows that what goes wrong with a clock is what Decode says.
func TestSealedClockFails(t *testing.T) {
	data := smallBundle(t)
	var b chunk.Bundle
	require.NoError(t, chunk.ParseBundle(bundleKey, data, 30, &b))
	pieces := sealedPieces(&b, 3, nil)
	var c chunk.Column
	pieces[0].Sealed.Clock = brokenClock{}
	require.ErrorIs(t, c.Decode(pieces, 0, math.MaxInt64), errClock)

	pieces[0].Sealed.Clock = fixedClock(steadyClock(30))
	require.NoError(t, c.Decode(pieces, 0, math.MaxInt64))
	pieces[0].MinMillis = steadyClock(30)[1]
	require.ErrorIs(t, c.Decode(pieces, 0, math.MaxInt64), chunk.ErrCorrupt, "a sample before the piece")
	require.Empty(t, c.Times)
	pieces[0].MinMillis, pieces[0].MaxMillis = 0, steadyClock(30)[28]
	require.ErrorIs(t, c.Decode(pieces, 0, math.MaxInt64), chunk.ErrCorrupt, "a sample behind the piece")
	require.NoError(t, c.Decode(pieces, 0, steadyClock(30)[28]))

	// All of the clock's four times, said to be three.
	data = sealed(bundleKey, []byte{1, 0x11, 1, 3, 2, 0, 0, 2})
	require.NoError(t, chunk.ParseBundle(bundleKey, data, 3, &b))
	clocks := map[chunk.ClockID][]int64{0: steadyClock(4)}
	require.ErrorIs(t, c.Decode(sealedPieces(&b, 3, clocks), 0, math.MaxInt64), chunk.ErrCorrupt)
	clocks[0] = clocks[0][:3]
	require.NoError(t, c.Decode(sealedPieces(&b, 3, clocks), 0, math.MaxInt64))
	require.Equal(t, []float64{1, 1, 1}, c.Values)
}

var errClock = errors.New("no clock today")

type brokenClock struct{}

func (brokenClock) Times() ([]int64, error) { return nil, errClock }

// TestSealedAllocatesNothing shows that a warm column, bundle and builder do their
// work in the memory they have.
func TestSealedAllocatesNothing(t *testing.T) {
	data := smallBundle(t)
	clock := steadyClock(30)
	var b chunk.Bundle
	require.NoError(t, chunk.ParseBundle(bundleKey, data, 30, &b))
	var c chunk.Column
	pieces := []chunk.Piece{{MinMillis: math.MinInt64, MaxMillis: math.MaxInt64, Sealed: &chunk.Sealed{Bundle: &b, Clock: fixedClock(clock)}}}
	work := func() {
		if err := chunk.ParseBundle(bundleKey, data, 30, &b); err != nil {
			t.Error(err)
		}
		for i := range b.Len() {
			pieces[0].Sealed.Chunk = i
			if err := c.Decode(pieces, math.MinInt64, math.MaxInt64); err != nil {
				t.Error(err)
			}
		}
	}
	// Every bundle that is parsed has places of its own for what others differ from.
	for range 600 {
		work()
	}
	require.Zero(t, testing.AllocsPerRun(100, work))
	var builder chunk.BundleBuilder
	columns := make([]chunk.Column, b.Len()-1)
	for i := range columns {
		pieces[0].Sealed.Chunk = i
		require.NoError(t, columns[i].Decode(pieces, math.MinInt64, math.MaxInt64))
	}
	var dst []byte
	require.Zero(t, testing.AllocsPerRun(100, func() {
		builder.Reset()
		for i := range columns {
			if err := builder.Add(uint64(i), 5, clock, i-1, &columns[i]); err != nil {
				t.Error(err)
			}
		}
		dst = builder.Append(dst[:0], bundleKey)
	}))
	require.Positive(t, b.Bytes())
	require.Greater(t, c.Bytes(), 16*len(clock))
}
