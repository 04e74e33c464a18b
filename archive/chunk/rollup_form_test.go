package chunk_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/archive/chunk"
	"varve/rollup"
)

// ExampleRollupBuilder is the worked example of docs/format/rollup.md: three buckets of five minutes
// of four series of a target. The first is constant, the second counts, the third is a gauge
// that ends in the second bucket, and the fourth has times of its own.
func ExampleRollupBuilder() {
	window := chunk.RollupWindow{StartMillis: 1_700_006_400_000, ResolutionMillis: 300_000}
	var times []int64
	var values [3][]float64
	for i := range int64(9) {
		times = append(times, window.StartMillis+40_000+100_000*i)
		values[0] = append(values[0], 12.5)
		values[1] = append(values[1], float64(7+i*i))
		values[2] = append(values[2], float64(i%4)/4)
	}
	values[2][5] = math.Float64frombits(value.StaleNaN)
	values[2] = values[2][:6]
	id := chunk.ClockID(3<<16 | 1)
	var clock chunk.RollupClock
	var b chunk.RollupBuilder
	b.Reset(window)
	add := func(ref uint64, id chunk.ClockID, times []int64, values []float64) {
		var c rollup.Columns
		var samples rollup.Builder
		samples.Begin(window.ResolutionMillis, &c)
		for i, v := range values {
			samples.Float(times[i], v)
		}
		samples.Finish()
		if clock.Ends == nil {
			clock = chunk.RollupClock{Ends: c.Ends, Counts: c.Counts, FirstMillis: c.FirstMillis, LastMillis: c.LastMillis}
		}
		if err := b.Add(ref, id, &clock, -1, &c); err != nil {
			panic(err)
		}
	}
	add(512, id, times, values[0])
	add(513, id, times, values[1])
	add(514, id, times, values[2])
	add(520, chunk.NoClock, times[2:4], []float64{math.Pi, math.Pi})
	key := []byte("a key")
	data := b.Append(nil, key)
	fmt.Printf("% x\n", data)

	var rollups chunk.Rollups
	fmt.Println(chunk.ParseRollups(key, data, 520, window, &rollups))
	for i := range rollups.Len() {
		fmt.Println(rollups.Ref(i), rollups.Clock(i) == id)
	}
	data, err := chunk.AppendRollupClock(nil, key, window, &clock)
	fmt.Printf("% x %v\n", data, err)
	// Output:
	// 01 12 0c 06 01 fa 01 20 17 00 22 11 12 21 00 05 09 0e 02 03 31 06 09 16 03 05 4e 03 01 81 01 84 b0 09 0b 02 00 02 01 02 a0 ef 0f 80 e2 09 01 01 1c 10 22 11 41 32 40 19 00 04 01 00 02 02 05 09 04 02 01 01 01 80 04 01 00 02 02 01 80 1b 06 02 1e 02 01 82 0d 00 09 80 e6 d5 84 fa 62 a0 8d 06 02 02 00 09 80 e6 d5 84 fa 62 a0 8d 06 02 02 18 2d 44 54 fb 21 09 40 87 b9 f7 90
	// <nil>
	// 512 true
	// 513 true
	// 514 true
	// 520 false
	// 03 01 86 0b 01 80 b1 bd 84 fa 62 e0 a7 12 80 01 80 e6 d5 84 fa 62 e0 a7 12 80 72 2b 4c 47 <nil>
}

// TestRollupConstants shows that a constant takes two or three bytes, and many neighbours
// with the same value take as much as one.
func TestRollupConstants(t *testing.T) {
	var times []int64
	for i := range 5760 {
		times = append(times, fiveMinutes.StartMillis+5000+int64(i)*15_000)
	}
	f := func(want int, v float64) {
		t.Helper()
		values := make([]float64, len(times))
		for i := range values {
			values[i] = v
		}
		c := rolledUp(fiveMinutes, times, values)
		clocks := map[chunk.ClockID]*chunk.RollupClock{9: clockOfRows(c)}
		const frame, place = 1 + 4, 1 + 1
		one := []rolledSeries{{ref: 0, clock: 9, base: -1, columns: c}}
		require.Len(t, rollUp(t, fiveMinutes, clocks, one), frame+place+want)
		var many []rolledSeries
		for i := range uint64(1000) {
			many = append(many, rolledSeries{ref: i, clock: 9, base: -1, columns: c})
		}
		data := rollUp(t, fiveMinutes, clocks, many)
		require.Len(t, data, frame+place+2+want)
		checkRolled(t, fiveMinutes, data, clocks, many, nil, wholeOnly)
	}
	f(1, 0)
	f(2, 100)
	f(2, 0.1)
	f(3, 12.75)
	f(8, math.Pi)
	f(8, math.Inf(1))
	f(8, math.NaN())
}

// TestRollupRepeats shows that a series which is another one takes a few bytes.
func TestRollupRepeats(t *testing.T) {
	c := drawnGauge(2000)
	clocks := map[chunk.ClockID]*chunk.RollupClock{9: clockOfRows(c)}
	var series []rolledSeries
	for i := range uint64(100) {
		series = append(series, rolledSeries{ref: i, clock: 9, base: int(i) - 1, columns: c})
	}
	one, all := rollUp(t, fiveMinutes, clocks, series[:1]), rollUp(t, fiveMinutes, clocks, series)
	require.LessOrEqual(t, len(all), len(one)+5)
	checkRolled(t, fiveMinutes, all, clocks, series, nil, wholeOnly)
}

// TestRollupUnlikeNeighbours shows that series with the same samples stay apart where their times or
// ends differ.
func TestRollupUnlikeNeighbours(t *testing.T) {
	g, one := drawnGauge(2000), drawnGauge(2000)
	for i, m := range one.Counts {
		one.First[i], one.Last[i], one.Min[i], one.Max[i], one.Sums[i], one.Corrections[i], one.Resets[i], one.Changes[i] = 2, 2, 2, 2, float64(2*m), 0, 0, 0
	}
	ended := *one
	ended.Ended = append([]bool(nil), one.Ended...)
	ended.Ended[50] = true
	later := *g
	later.FirstMillis = append([]int64(nil), g.FirstMillis...)
	later.FirstMillis[3]++
	clocks := map[chunk.ClockID]*chunk.RollupClock{5: clockOfRows(g), 6: clockOfRows(g), 9 << 16: clockOfRows(g)}
	series := []rolledSeries{
		{ref: 1, clock: 5, base: -1, columns: g}, {ref: 2, clock: 6, base: 0, columns: g}, {ref: 3, clock: 9 << 16, base: 1, columns: g},
		{ref: 4, clock: 5, base: 0, columns: &later}, {ref: 5, clock: 5, base: 0, columns: g},
		{ref: 6, clock: 5, base: 0, columns: one}, {ref: 7, clock: 5, base: 0, columns: &ended}, {ref: 8, clock: 5, base: 0, columns: one},
		{ref: 9, clock: 6, base: 0, columns: one},
	}
	checkRolled(t, fiveMinutes, rollUp(t, fiveMinutes, clocks, series), clocks, series, nil, wholeOnly)
}

// drawnGauge is a gauge of n samples.
func drawnGauge(n int) *rollup.Columns {
	r := rand.New(rand.NewPCG(5, 6))
	var times []int64
	var values []float64
	for i := range n {
		times, values = append(times, fiveMinutes.StartMillis+1+int64(i)*15_000), append(values, float64(r.IntN(1000))/100)
	}
	return rolledUp(fiveMinutes, times, values)
}

// TestRollupTimes shows what the times of a series take: nothing if they are those of its
// clock, a few bytes where a few rows are otherwise.
func TestRollupTimes(t *testing.T) {
	c := drawnGauge(5760)
	clock := clockOfRows(c)
	clocks := map[chunk.ClockID]*chunk.RollupClock{9: clock}
	size := func(c *rollup.Columns, id chunk.ClockID) int {
		series := []rolledSeries{{ref: 1, clock: id, base: -1, columns: c}}
		data := rollUp(t, fiveMinutes, clocks, series)
		checkRolled(t, fiveMinutes, data, clocks, series, [][2]int{{3, 9}}, wholeOnly)
		return len(data)
	}
	whole := size(c, 9)
	require.Less(t, size(c, chunk.NoClock), whole+40, "regular times")

	late := drawnGauge(5760 - 70)
	require.Less(t, size(late, 9), whole, "it ends in the midst of a bucket")
	less := *c
	less.Counts, less.LastMillis = append([]int64(nil), c.Counts...), append([]int64(nil), c.LastMillis...)
	less.Counts[100]--
	less.LastMillis[100] -= 15_000
	require.Less(t, size(&less, 9), whole+14, "a sample is missing")
}

// TestRollupEmptyRows shows that of rows without samples nothing is kept, whatever is in them.
func TestRollupEmptyRows(t *testing.T) {
	c := drawnGauge(100)
	for i := range c.Ends {
		if i%2 == 0 {
			c.Counts[i] = 0
		}
	}
	data := rollUp(t, fiveMinutes, nil, []rolledSeries{{ref: 1, clock: chunk.NoClock, base: -1, columns: c}})
	for i := range c.Ends {
		if i%2 == 0 {
			c.FirstMillis[i], c.LastMillis[i], c.Resets[i], c.Changes[i] = 0, 0, 0, 0
			c.First[i], c.Last[i], c.Min[i], c.Max[i], c.Sums[i], c.Corrections[i] = 0, 0, 0, 0, 0, 0
		}
	}
	checkRolled(t, fiveMinutes, data, nil, []rolledSeries{{ref: 1, clock: chunk.NoClock, base: -1, columns: c}}, nil, wholeOnly)
}

// TestRollupRefuses shows what Add refuses, and that nothing was added then.
func TestRollupRefuses(t *testing.T) {
	clock := &chunk.RollupClock{}
	f := func(want string, ref uint64, id chunk.ClockID, of *chunk.RollupClock, base int, change func(c *rollup.Columns)) {
		t.Helper()
		var b chunk.RollupBuilder
		b.Reset(fiveMinutes)
		good := drawnGauge(2000)
		require.NoError(t, b.Add(5, chunk.NoClock, nil, -1, good))
		before, size := b.Append(nil, nil), b.Size()
		bad := drawnGauge(2000)
		change(bad)
		require.ErrorContains(t, b.Add(ref, id, of, base, bad), want)
		require.Equal(t, size, b.Size())
		require.Equal(t, before, b.Append(nil, nil))
		require.NoError(t, b.Add(6, chunk.NoClock, nil, 0, good), "it goes on")
	}
	as := func(*rollup.Columns) {}
	none := chunk.NoClock
	f("not behind series 5", 5, none, nil, -1, as)
	f("not behind series 5", 4, none, nil, -1, as)
	f("base 1 of 1", 6, none, nil, 1, as)
	f("without times", 6, 1, nil, -1, as)
	f("column of", 6, none, nil, -1, func(c *rollup.Columns) { c.First = c.First[1:] })
	f("column of", 6, none, nil, -1, func(c *rollup.Columns) { c.LastMillis = nil })
	f("column of", 6, none, nil, -1, func(c *rollup.Columns) { c.Min = c.Min[1:] })
	f("columns behind", 6, none, nil, -1, func(c *rollup.Columns) { c.Ended = c.Ended[1:] })
	f("of 0, 0, 0 and 0 rows", 6, 1, clock, -1, func(c *rollup.Columns) { *c = rollup.Columns{} })
	f("bucket 1 ends", 6, none, nil, -1, func(c *rollup.Columns) { c.Ends[1] = c.Ends[0] })
	f("bucket 1 ends", 6, none, nil, -1, func(c *rollup.Columns) { c.Ends[1]++ })
	f("bucket 0 ends", 6, none, nil, -1, func(c *rollup.Columns) { c.Ends[0] = fiveMinutes.StartMillis })
	f("bucket 99 ends", 6, none, nil, -1, func(c *rollup.Columns) { c.Ends[99] = math.MaxInt64 })
	f("samples from", 6, none, nil, -1, func(c *rollup.Columns) { c.FirstMillis[7] = c.Ends[6] })
	f("samples from", 6, none, nil, -1, func(c *rollup.Columns) { c.LastMillis[7] = c.Ends[7] + 1 })
	f("samples from", 6, none, nil, -1, func(c *rollup.Columns) { c.LastMillis[7] = c.FirstMillis[7] })
	f("samples from", 6, none, nil, -1, func(c *rollup.Columns) { c.Counts[7] = -1 })
	h := &histogram.FloatHistogram{Count: 1, Sum: 2, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{1}}
	with := func(change func(r *rollup.HistogramRow)) func(c *rollup.Columns) {
		return func(c *rollup.Columns) {
			r := rollup.HistogramRow{Count: 2, FirstMillis: c.Ends[3] - 5, LastMillis: c.Ends[3] - 1, First: h, Last: h}
			change(&r)
			c.HistogramAt, c.Histograms = []int32{3}, []rollup.HistogramRow{r}
		}
	}
	f("without its first", 6, none, nil, -1, with(func(r *rollup.HistogramRow) { r.First = nil }))
	f("1 histograms at 2 rows", 6, none, nil, -1, func(c *rollup.Columns) {
		c.HistogramAt, c.Histograms = []int32{3, 4}, make([]rollup.HistogramRow, 1)
	})
	f("in row 100", 6, none, nil, -1, func(c *rollup.Columns) {
		c.HistogramAt, c.Histograms = []int32{100}, make([]rollup.HistogramRow, 1)
	})
	f("histograms in row 3: 0", 6, none, nil, -1, with(func(r *rollup.HistogramRow) { r.Count = 0 }))
	f("histograms: bucket 0", 6, none, nil, -1, with(func(r *rollup.HistogramRow) { r.Count = 1 }))
	for want, change := range map[string]func(h *histogram.FloatHistogram){
		"stale marker":  func(h *histogram.FloatHistogram) { h.Sum = math.Float64frombits(value.StaleNaN) },
		"schema 77":     func(h *histogram.FloatHistogram) { h.Schema = 77 },
		"1 bounds":      func(h *histogram.FloatHistogram) { h.CustomValues = []float64{1} },
		"hint 4":        func(h *histogram.FloatHistogram) { h.CounterResetHint = 4 },
		"fit its spans": func(h *histogram.FloatHistogram) { h.PositiveBuckets = nil },
	} {
		f(want, 6, none, nil, -1, with(func(r *rollup.HistogramRow) { r.Sum = h.Copy(); change(r.Sum) }))
	}
	f("buckets", 6, none, nil, -1, with(func(r *rollup.HistogramRow) {
		r.Sum = h.Copy()
		r.Sum.PositiveSpans[0].Length, r.Sum.PositiveBuckets = chunk.HistogramBucketsMax+1, make([]float64, chunk.HistogramBucketsMax+1)
	}))

	var b chunk.RollupBuilder
	require.ErrorContains(t, b.Add(5, none, nil, -1, drawnGauge(3)), "window")
	b.Reset(fiveMinutes)
	c := drawnGauge(3)
	for i := range uint64(chunk.BundleChunksMax) {
		require.NoError(t, b.Add(i, none, nil, -1, c))
	}
	require.ErrorIs(t, b.Add(chunk.BundleChunksMax, none, nil, -1, c), chunk.ErrBundleFull)
	data := b.Append(nil, bundleKey)
	var r chunk.Rollups
	require.NoError(t, chunk.ParseRollups(bundleKey, data, chunk.BundleChunksMax-1, fiveMinutes, &r))
	require.Equal(t, chunk.BundleChunksMax, r.Len())
}

// smallRollups is a bundle with an entry of each kind.
func smallRollups(t require.TestingT) (data []byte, clocks map[chunk.ClockID]*chunk.RollupClock, series []rolledSeries) {
	g := drawnGauge(400)
	above := *g
	above.Sums, above.Last, above.Max = append([]float64(nil), g.Sums...), append([]float64(nil), g.Last...), append([]float64(nil), g.Max...)
	for i := range above.Sums {
		above.Sums[i] += 1
		above.Last[i] += 1
		above.Max[i] += 1
	}
	one := rolledUp(fiveMinutes, g.LastMillis, make([]float64, g.Len()))
	odd := make([]float64, g.Len())
	for i := range odd {
		odd[i] = math.Float64frombits(oddValues[i%len(oddValues)])
	}
	var h, both rollup.Columns
	var b rollup.Builder
	for _, c := range []*rollup.Columns{&h, &both} {
		b.Begin(fiveMinutes.ResolutionMillis, c)
		for i, at := range g.LastMillis {
			if c == &both && i%3 == 1 {
				b.Float(at-5, float64(i))
			}
			b.Histogram(at, &histogram.FloatHistogram{
				Count: float64(i), Sum: float64(i) / 4, PositiveSpans: []histogram.Span{{Length: uint32(1 + i%2)}}, PositiveBuckets: []float64{float64(i), 1}[:1+i%2],
			})
		}
		b.Finish()
	}
	clocks = map[chunk.ClockID]*chunk.RollupClock{5: clockOfRows(g)}
	series = []rolledSeries{
		{ref: 30, clock: 5, base: -1, columns: g},
		{ref: 31, clock: 5, base: 0, columns: &above},
		{ref: 33, clock: 5, base: -1, columns: g},
		{ref: 34, clock: 5, base: -1, columns: one},
		{ref: 35, clock: chunk.NoClock, base: -1, columns: rolledUp(fiveMinutes, g.FirstMillis, odd)},
		{ref: 90, clock: 5, base: -1, columns: &h},
		{ref: 100, clock: 5, base: -1, columns: &both},
	}
	return rollUp(t, fiveMinutes, clocks, series), clocks, series
}

// TestRollupFlippedBits shows that no bit of a bundle can change unnoticed, nor its key, and
// that it can't be cut short.
func TestRollupFlippedBits(t *testing.T) {
	data, clocks, series := smallRollups(t)
	checkRolled(t, fiveMinutes, data, clocks, series, [][2]int{{2, 7}, {0, 3}}, []chunk.RollupColumns{chunk.RollupAll, chunk.RollupHistograms | chunk.RollupSums, chunk.RollupAll})
	var b chunk.Rollups
	for bit := range 8 * len(data) {
		data[bit/8] ^= 1 << (bit % 8)
		require.ErrorIs(t, chunk.ParseRollups(bundleKey, data, 100, fiveMinutes, &b), chunk.ErrCorrupt)
		require.Zero(t, b.Len())
		data[bit/8] ^= 1 << (bit % 8)
	}
	for n := range data {
		require.ErrorIs(t, chunk.ParseRollups(bundleKey, data[:n], 100, fiveMinutes, &b), chunk.ErrCorrupt)
	}
	require.ErrorIs(t, chunk.ParseRollups([]byte("another key"), data, 100, fiveMinutes, &b), chunk.ErrCorrupt)
	require.ErrorIs(t, chunk.ParseRollups(bundleKey, data, 69, fiveMinutes, &b), chunk.ErrCorrupt, "refs below 0")
	require.ErrorIs(t, chunk.ParseRollups(bundleKey, data, 100, chunk.RollupWindow{}, &b), chunk.ErrCorrupt, "no window")
}

// TestRollupStructure shows what ParseRollups makes of entries that no writer makes.
func TestRollupStructure(t *testing.T) {
	var b chunk.Rollups
	require.ErrorIs(t, chunk.ParseRollups(bundleKey, sealed(bundleKey, []byte{2, 0x11, 0, 0}), 9, fiveMinutes, &b), chunk.ErrVersion)
	f := func(want string, body ...byte) {
		t.Helper()
		err := chunk.ParseRollups(bundleKey, sealed(bundleKey, append([]byte{1}, body...)), 9, fiveMinutes, &b)
		if want == "" {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, chunk.ErrCorrupt)
		require.ErrorContains(t, err, want)
	}
	f("", 0x11, 0, 0)
	f("no series")
	f("first entry", 0x01, 0)
	f("first entry", 0x19, 1, 0, 0)
	f("cut short", 0x11, 0)
	f("gap of 0", 0x11, 0, 0, 0x08)
	f("cut short", 0x11, 0, 0, 0x09, 2)
	f("times 3", 0x11, 3, 0)
	f("times a", 0x11, 0x0a, 1, 1, 0, 0)
	f("times", 0x11, 0x80, 0x80, 0x80, 0x40, 0)
	f("group", 0x11, 4, 1, 0)
	f("no clock", 0x11, 0xfc, 0xff, 0x1f, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0)
	f("", 0x11, 1, 0, 0)
	f("", 0x11, 2, 0, 0)
	f("cut short", 0x11, 2, 9, 0)
	f("exponent", 0x12, 0, 19, 1)
	f("", 0x12, 0, 18, 1)
	f("cut short", 0x13, 0, 1, 2)
	f("repeats no series", 0x14, 0, 1)
	f("repeats no series", 0x30, 0, 1, 0, 0x04, 0)
	f("unlike", 0x11, 0, 0, 0x04, 1)
	f("", 0x30, 0, 1, 0, 0x04, 1)
	f("unlike", 0x30, 0, 1, 0, 0x14, 8, 1)
	f("to no series", 0x15, 0, 1, 0)
	f("difference to a series unlike", 0x11, 0, 0, 0x05, 1, 0)
	f("difference to a series unlike", 0x36, 0, 1, 0, 0x05, 1, 0)
	f("difference to a series unlike", 0x30, 0, 1, 0, 0x15, 8, 1, 0)
	f("", 0x30, 0, 1, 0, 0x05, 1, 0)
	f("cut short", 0x30, 0, 2, 0)
	chain := []byte{0x30, 0, 1, 0}
	for range 8 {
		chain = append(chain, 0x25, 1, 1, 0)
	}
	f("", chain...)
	f("difference to a series unlike", append(chain, 0x25, 1, 1, 0)...)
	f("", append(chain, 0x25, 2, 1, 0)...)
	f("more", 0x71, 0, 0xff, 0xff, 0x03, 0)
	f("", 0x71, 0, 5, 0)
	f("", 0x91, 0, 1, 0, 0)
	f("cut short", 0x91, 0, 9, 0, 0)
	f("gap of 0", 0x11, 0, 0, 0x09, 0, 0)
	f("gap", 0x11, 0, 0, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0x09, 2, 0)
	f("before ref 9", 0x11, 0, 0, 0x09, 10, 0)
}

// TestRollupBroken shows that Decode refuses what ParseRollups didn't look at.
func TestRollupBroken(t *testing.T) {
	clock := clockOfRows(drawnGauge(60)) // three rows
	require.Len(t, clock.Ends, 3)
	decode := func(want string, body ...byte) {
		t.Helper()
		var b chunk.Rollups
		require.NoError(t, chunk.ParseRollups(bundleKey, sealed(bundleKey, append([]byte{1}, body...)), 9, fiveMinutes, &b))
		var d chunk.RollupDecoder
		var c rollup.Columns
		_, err := d.Decode(&b, b.Len()-1, clock, chunk.RollupRange{FromMillis: 0, ToMillis: allTimes, Columns: chunk.RollupAll}, &c)
		if want == "" {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, chunk.ErrCorrupt)
		require.ErrorContains(t, err, want)
	}
	floats := func(want string, body ...byte) {
		t.Helper()
		decode(want, append([]byte{0x10, 0}, body...)...)
	}
	floats("", 0, 0x11, 0x11, 0x11, 0x11, 0)
	floats("", 0, 0x11, 0, 0, 0, 0)
	floats("no columns", 0, 0x11, 0, 0, 0)
	floats("form 3", 3, 0x11, 0, 0, 0, 0)
	floats("exponent 19", 19<<3, 0x11, 0, 0, 0, 0)
	floats("exponent 1", 1<<3|1, 0x11, 0, 0, 0, 0)
	floats("flags 80", 0, 0x11, 0, 0, 0, 0x80)
	floats("column 0 with head 0", 0, 0x10, 0, 0, 0, 0)
	floats("column 1 with head 0", 0, 0x01, 0, 0, 0, 0)
	floats("column 1 with head 3", 0, 0x31, 0, 0, 0, 0)
	floats("column 7 with head 4", 0, 0x11, 0, 0, 0x40, 0)
	floats("behind them", 0, 0x11, 0, 0, 0, 0, 0)
	floats("cut short", 0, 0x12, 0, 0, 0, 0)
	floats("", 0, 0x12, 0, 0, 0, 0, 1, 0x82)
	floats("column 0", 0, 0x12, 0, 0, 0, 0, 2, 0x82, 0)
	floats("column 0", 0, 0x12, 0, 0, 0, 0, 0)
	floats("", 0, 0x11, 0, 0, 0, 0x40, 1, 1)
	floats("", 0, 0x11, 0x11, 0x11, 0x11, 0x40, 1, 1)
	floats("cut short", 0, 0x11, 0, 0, 0, 0x40, 1)
	floats("", 2, 0x11, 0x11, 0x11, 0x11, 0x3f, 1, 0x82, 1, 0x82, 1, 0x82, 1, 0x82, 1, 0x82, 1, 0x82)
	floats("residuals of column 3", 2, 0x11, 0x11, 0x11, 0x11, 0x08, 1, 3)
	floats("", 4, 0x11, 0, 0, 0, 0, 1, 0, 2<<2|1, 1)
	floats("exceptions", 4, 0x11, 0, 0, 0, 0, 1, 0, 3<<2|1, 1)
	floats("exceptions", 4, 0x11, 0, 0, 0, 0, 2, 2, 1, 1, 1, 1, 1)
	floats("exceptions", 4, 0x11, 0, 0, 0, 0, 1, 0, 1, 64)
	floats("exceptions", 4, 0x11, 0, 0, 0, 0, 1, 0, 0, 1)
	floats("", 4, 0x11, 0, 0, 0, 0, 2, 0, 2<<2|1, 7, 0, 2<<2|1, 7)
	floats("exceptions", 4, 0x11, 0, 0, 0, 0, 3, 0, 2<<2|1, 7, 0, 2<<2|1, 7, 0, 1, 1)
	floats("9 exceptions", 4, 0x11, 0, 0, 0, 0, 9, 0, 0, 1)

	// A difference of another form, and one to a series without the column.
	base := []byte{0x30, 0, 6, 0, 0x11, 0x11, 0x11, 0x11, 0}
	difference := func(body ...byte) []byte { return append(append(append([]byte(nil), base...), 0x05, 1), body...) }
	decode("", difference(0, 0x11, 0x11, 0x11, 0x11, 0)...)
	decode("", difference(0, 0x11, 0, 0, 0, 0)...)
	decode("difference of form 1", difference(1, 0x11, 0, 0, 0, 0)...)
	decode("difference in column 4", difference(0, 0x11, 0, 0x0a, 0, 0, 1, 0x80)...)
	base[5] = 0x01
	base[4], base[5] = 0x11, 0
	decode("difference in column 2", difference(0, 0x11, 0x11, 0x11, 0x11, 0)...)

	decode("end of the series in row 3 of 3", 0x91, 0, 1, 3, 0)
	decode("end of the series in row 3 of 3", 0x91, 0, 2, 2, 0, 0)
	decode("end of the series", 0x91, 0, 1, 0x80, 0)
	decode("", 0x91, 0, 2, 0, 1, 0)

	// Histograms: integers, hints beyond a byte, parts that are unknown, lists that aren't there, and
	// what is behind them.
	decode("integers 0", 0x16, 0)
	decode("integers 2", 0x16, 0, 1, 0x80, 1, 0x80, 3, 0xc0, 0x80, 0x04, 1, 0x80)
	decode("parts 4", 0x16, 0, 1, 0x80, 1, 0x80, 1, 0x80, 1, 0x88)
	decode("list 0", 0x16, 0, 1, 0x80, 1, 0x80, 1, 0x80, 1, 0x80)
	decode("histograms cut short", 0x17, 0, 9)
	decode("0 rows", 0x17, 0, 1, 0, 0, 0)
	// A bucket with histograms that isn't one of the series'.
	at := binary.AppendVarint([]byte{0, 0xc0}, fiveMinutes.StartMillis+10*fiveMinutes.ResolutionMillis)
	times := append([]byte{1, 1, 0x82, byte(len(at))}, append(at, at...)...)
	decode("isn't there", append(append([]byte{0x17, 0, byte(len(times))}, times...), 0, 0, 0x11, 0, 0, 0, 0)...)
}

// TestRollupTimesBroken shows which times of a series are refused.
func TestRollupTimesBroken(t *testing.T) {
	clock := clockOfRows(drawnGauge(60))
	w := chunk.RollupWindow{StartMillis: 0, ResolutionMillis: 100}
	f := func(want string, kind byte, times ...byte) {
		t.Helper()
		var b chunk.Rollups
		body := append([]byte{1, 0x11, kind, byte(len(times))}, times...)
		window := fiveMinutes
		if kind == 2 {
			window = w
		}
		require.NoError(t, chunk.ParseRollups(bundleKey, sealed(bundleKey, append(body, 0)), 9, window, &b))
		var d chunk.RollupDecoder
		var c rollup.Columns
		_, err := d.Decode(&b, 0, clock, chunk.RollupRange{FromMillis: math.MinInt64, ToMillis: allTimes, Columns: chunk.RollupAll}, &c)
		if want == "" {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, chunk.ErrCorrupt)
		require.ErrorContains(t, err, want)
	}
	f("0 rows", 2, 0)
	f("rows", 2, 0x81, 0x80, 0x04)
	f("cut short", 2, 1, 9)
	f("counts", 2, 1, 1, 1, 0, 0)
	f("", 2, 1, 1, 0x82, 2, 0, 0x8a, 0, 0x8a)
	f("row 0 has 1 samples", 2, 1, 1, 0x82, 2, 0, 0x8a, 0, 0x8b)
	f("row 0 has 1 samples", 2, 1, 1, 0x82, 2, 0, 0x8a, 0, 0x8c)
	f("", 2, 1, 1, 0x84, 2, 0, 0x8a, 0, 0x8c)
	f("row 0 has 0 samples", 2, 1, 1, 0x80, 2, 0, 0x8a, 0, 0x8a)
	f("row 0 has -1 samples", 2, 1, 1, 0x81, 2, 0, 0x8a, 0, 0x8a)
	f("row 0 begins at 0", 2, 1, 1, 0x82, 2, 0, 0x80, 0, 0x80)
	f("first times", 2, 1, 1, 0x82, 2, 9, 0x8a, 0, 0x8a)
	f("last times", 2, 1, 1, 0x82, 2, 0, 0x8a, 9, 0x8a)

	f("", 1, 2, 0, 0)
	f("", 1, 2, 1, 1)
	f("no presence", 1, 0)
	f("run of", 1, 2, 1, 9)
	f("row 3 of 3", 1, 2, 0, 0, 3)
	f("row 1 has 5 samples", 1, 2, 0, 0, 1, 5)
	f("row 1 has 2 samples", 1, 2, 0, 0, 1, 2, 5, 5)
	f("", 1, 2, 0, 0, 1, 2, 5, 4, 0, 0)
	f("", 1, 2, 0, 0, 1, 0, 0, 1, 7)
	f("row 3 of 3", 1, 2, 0, 0, 1, 0, 0, 1, 7, 0, 1, 1)
}

// TestRollupGuesses pins what each guess makes of other columns, what steps and residuals do,
// and what is by bits: of three rows of 20 samples with the firsts 7, the lasts 12, the minima
// 3, the maxima 20 and 4 resets each.
func TestRollupGuesses(t *testing.T) {
	clock := clockOfRows(drawnGauge(60))
	require.Equal(t, []int64{20, 20, 20}, clock.Counts)
	// The streams are of one value.
	one := func(v int) []byte { return []byte{1, 0x80 | byte(v<<1)} }
	const none, guessed, stream = 0, 1, 2
	decode := func(form byte, heads [8]byte, flags byte, rest ...[]byte) *rollup.Columns {
		t.Helper()
		body := []byte{1, 0x10, 0, form, heads[0] | heads[1]<<4, heads[2] | heads[3]<<4, heads[4] | heads[5]<<4, heads[6] | heads[7]<<4, flags}
		for _, b := range rest {
			body = append(body, b...)
		}
		var b chunk.Rollups
		require.NoError(t, chunk.ParseRollups(bundleKey, sealed(bundleKey, body), 9, fiveMinutes, &b))
		var d chunk.RollupDecoder
		var c rollup.Columns
		_, err := d.Decode(&b, 0, clock, chunk.RollupRange{FromMillis: 0, ToMillis: allTimes, Columns: chunk.RollupAll}, &c)
		require.NoError(t, err)
		return &c
	}
	values := [][]byte{one(7), one(12), one(3), one(20)}
	heads := [8]byte{stream + 1, stream, stream + 1, stream + 1, none, none, stream, stream}
	next := func(v float64) float64 { return math.Nextafter(v, math.Inf(1)) }

	for guess, want := range []float64{191, 209, 227, 1, 43, 141, 61, 401, next(240)} {
		h := heads
		h[4] = stream + byte(guess)
		c := decode(0, h, 0, append(values, one(1), one(4), one(1))...)
		require.Equal(t, []float64{want, want, want}, c.Sums, guess)
		require.Equal(t, []float64{7, 7, 7}, c.First)
		require.Equal(t, []float64{20, 20, 20}, c.Max)
		require.Equal(t, []int64{4, 4, 4}, c.Resets)
		require.Equal(t, []int64{1, 1, 1}, c.Changes)
	}
	for guess, want := range []float64{39, 59, 81, 56, 1, math.SmallestNonzeroFloat64} {
		h := heads
		h[4], h[5] = stream, stream+byte(guess)
		c := decode(0, h, 0, append(values, one(1), one(1), one(4), one(1))...)
		require.Equal(t, []float64{want, want, want}, c.Corrections, guess)
	}
	c := decode(0, [8]byte{stream, stream, stream, stream, guessed, guessed, guessed, stream + 1}, 0, append(values, one(1))...)
	require.Equal(t, []float64{7, 19, 19}, c.First)
	require.Equal(t, []float64{10, 15, 15}, c.Min)
	require.Equal(t, []float64{32, 39, 39}, c.Max)
	require.Equal(t, []float64{190, 310, 310}, c.Sums)
	require.Equal(t, []float64{0, 0, 0}, c.Corrections)
	require.Equal(t, []int64{20, 20, 20}, c.Changes)

	h := heads
	h[4], h[5] = stream, stream
	c = decode(1<<3, h, 0x40, append(append([][]byte{{5, 200, 1}}, values...), one(1), one(1), one(4), one(1))...)
	require.Equal(t, []float64{13.5, 13.5, 13.5}, c.First)
	require.Equal(t, []float64{295.5, 295.5, 295.5}, c.Sums)
	require.Equal(t, []float64{59.5, 59.5, 59.5}, c.Corrections)

	// Residuals: of the lasts, sums and corrections 1, and what is guessed from those.
	c = decode(2, [8]byte{stream + 1, stream, stream + 1, stream, stream, stream, stream, stream}, 1<<1|1<<4|1<<5,
		one(7), one(12), one(7), one(0), one(1), one(1), one(4), one(1), one(1), one(1), one(1))
	require.Equal(t, []float64{7, next(7), next(7)}, c.First)
	require.Equal(t, []float64{next(12), next(12), next(12)}, c.Last)
	require.Equal(t, c.First, c.Min)
	require.Equal(t, c.Last, c.Max)
	require.Equal(t, []float64{next(191), next(191), next(191)}, c.Sums)
	require.Equal(t, []float64{next(39), next(39), next(39)}, c.Corrections)

	c = decode(1, [8]byte{stream + 1, stream, guessed, guessed, none, none, none, none}, 0, one(1), one(0))
	require.Equal(t, []float64{0, 0, 0}, c.Min)
	require.Equal(t, []float64{math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64}, c.Max)
}
