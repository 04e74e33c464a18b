package chunk_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/archive/chunk"
	"varve/rollup"
)

// rolledSeries is what goes into a rollup bundle of one series.
type rolledSeries struct {
	ref     uint64
	clock   chunk.ClockID
	base    int
	columns *rollup.Columns
}

var fiveMinutes = chunk.RollupWindow{StartMillis: 1_700_006_400_000, ResolutionMillis: 300_000}

const allTimes = math.MaxInt64

// rolledUp returns the buckets of samples.
func rolledUp(w chunk.RollupWindow, times []int64, values []float64) *rollup.Columns {
	var b rollup.Builder
	var c rollup.Columns
	b.Begin(w.ResolutionMillis, &c)
	for i, v := range values {
		b.Float(times[i], v)
	}
	b.Finish()
	return &c
}

// clockOfRows is the clock of the buckets of a series.
func clockOfRows(c *rollup.Columns) *chunk.RollupClock {
	return &chunk.RollupClock{Ends: c.Ends, Counts: c.Counts, FirstMillis: c.FirstMillis, LastMillis: c.LastMillis}
}

// rollUp makes a rollup bundle of the series.
func rollUp(t require.TestingT, w chunk.RollupWindow, clocks map[chunk.ClockID]*chunk.RollupClock, series []rolledSeries) []byte {
	var b chunk.RollupBuilder
	b.Reset(w)
	for _, s := range series {
		require.NoError(t, b.Add(s.ref, s.clock, clocks[s.clock], s.base, s.columns))
	}
	require.Equal(t, len(series), b.Len())
	data := b.Append([]byte("before"), bundleKey)
	require.Equal(t, "before", string(data[:6]))
	require.LessOrEqual(t, len(data)-6, b.Size()+16*len(series))
	return data[6:]
}

// requireColumns shows that the columns of got in the set are those of want from index first
// to end, bit for bit, and that there are no others.
func requireColumns(t require.TestingT, want, got *rollup.Columns, first, end int, set chunk.RollupColumns) {
	require.Equal(t, want.Ends[first:end], got.Ends)
	require.Equal(t, want.Counts[first:end], got.Counts)
	f := func(in chunk.RollupColumns, name string, want, got []float64) {
		if set&in == 0 {
			require.Empty(t, got, name)
			return
		}
		require.Equal(t, bitsOf(want[first:end]), bitsOf(got), name)
	}
	f(chunk.RollupFirst, "first", want.First, got.First)
	f(chunk.RollupLast, "last", want.Last, got.Last)
	f(chunk.RollupMin, "min", want.Min, got.Min)
	f(chunk.RollupMax, "max", want.Max, got.Max)
	f(chunk.RollupSums, "sums", want.Sums, got.Sums)
	f(chunk.RollupCorrections, "corrections", want.Corrections, got.Corrections)
	g := func(in chunk.RollupColumns, name string, want, got []int64) {
		if set&in == 0 {
			require.Empty(t, got, name)
			return
		}
		require.Equal(t, want[first:end], got, name)
	}
	g(chunk.RollupResets, "resets", want.Resets, got.Resets)
	g(chunk.RollupChanges, "changes", want.Changes, got.Changes)
	g(chunk.RollupTimes, "first times", want.FirstMillis, got.FirstMillis)
	g(chunk.RollupTimes, "last times", want.LastMillis, got.LastMillis)
	if set&chunk.RollupEnded != 0 {
		require.Equal(t, want.Ended[first:end], got.Ended)
	}
	requireHistograms(t, want, got, first, end, set)
}

// requireHistograms is requireColumns for native histograms.
func requireHistograms(t require.TestingT, want, got *rollup.Columns, first, end int, set chunk.RollupColumns) {
	n := 0
	for i, at := range want.HistogramAt {
		if int(at) < first || int(at) >= end || set&chunk.RollupHistograms == 0 {
			continue
		}
		require.Less(t, n, len(got.Histograms))
		require.Equal(t, int(at)-first, int(got.HistogramAt[n]))
		w, g := want.Histograms[i], got.Histograms[n]
		n++
		for _, h := range []struct {
			in        chunk.RollupColumns
			want, got **histogram.FloatHistogram
		}{
			{chunk.RollupFirst, &w.First, &g.First}, {chunk.RollupLast, &w.Last, &g.Last},
			{chunk.RollupSums, &w.Sum, &g.Sum}, {chunk.RollupCorrections, &w.Correction, &g.Correction},
		} {
			if set&h.in == 0 || *h.want == nil {
				require.Nil(t, *h.got)
			} else {
				require.Equal(t, describeFloat(*h.want), describeFloat(*h.got))
				require.Equal(t, (*h.want).CounterResetHint, (*h.got).CounterResetHint)
			}
			*h.want, *h.got = nil, nil
		}
		require.Equal(t, w, g)
	}
	require.Len(t, got.Histograms, n)
	require.Len(t, got.HistogramAt, n)
}

// checkRolled shows that every series comes back, as a whole and in parts.
func checkRolled(t require.TestingT, w chunk.RollupWindow, data []byte, clocks map[chunk.ClockID]*chunk.RollupClock, series []rolledSeries, parts [][2]int, sets []chunk.RollupColumns) {
	var b chunk.Rollups
	require.NoError(t, chunk.ParseRollups(bundleKey, data, series[len(series)-1].ref, w, &b))
	require.Equal(t, len(series), b.Len())
	var d chunk.RollupDecoder
	for i, s := range series {
		require.Equal(t, s.ref, b.Ref(i))
		at, ok := b.Find(s.ref)
		require.True(t, ok)
		require.Equal(t, i, at)
		clock := clocks[b.Clock(i)]
		c := s.columns
		for k, part := range append(parts, [2]int{0, c.Len()}) {
			first, end := min(part[0], c.Len()), min(part[1], c.Len())
			from, to := int64(math.MinInt64), c.Ends[0]-1
			if first > 0 {
				from = c.Ends[first-1]
			}
			if end > 0 {
				to = c.Ends[end-1]
			}
			set := sets[k%len(sets)]
			var got rollup.Columns
			there, err := d.Decode(&b, i, clock, chunk.RollupRange{FromMillis: from, ToMillis: to, Columns: set}, &got)
			require.NoError(t, err)
			require.Equal(t, chunk.RollupAll, there)
			if first < end {
				requireColumns(t, c, &got, first, end, set)
			} else {
				require.Zero(t, got.Len())
			}
		}
	}
}

var wholeOnly = []chunk.RollupColumns{chunk.RollupAll}

// drawSamples draws what metrics are like: counters with resets, gauges, constants, and any
// bits, with gaps and ends.
func drawRolled(t *rapid.T, w chunk.RollupWindow) *rollup.Columns {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	kind := rapid.IntRange(0, 8).Draw(t, "kind")
	step := rapid.SampledFrom([]int64{7_000, 15_000, 60_000, 300_000, 1_100_000}).Draw(t, "step")
	scale := rapid.SampledFrom([]float64{1, 10, 1000, 1e9, 3}).Draw(t, "scale")
	jitter := rapid.SampledFrom([]int64{1, 1, 50}).Draw(t, "jitter")
	n := rapid.IntRange(1, 600).Draw(t, "samples")
	v := math.Trunc(r.Float64() * 1000)
	var times []int64
	var values []float64
	at := w.StartMillis + 1 + r.Int64N(2*w.ResolutionMillis)
	for range n {
		at += step + r.Int64N(jitter)
		if r.IntN(100) == 0 {
			at += 5 * w.ResolutionMillis
		}
		switch kind {
		case 1:
			v += float64(r.IntN(50)) / scale
		case 2:
			if v += float64(r.IntN(50)); r.IntN(40) == 0 {
				v = float64(r.IntN(5))
			}
		case 3:
			v = math.Round(r.NormFloat64()*500) / scale
		case 4:
			v = r.NormFloat64()
		case 5:
			v = math.Float64frombits(r.Uint64())
		case 6:
			v = math.Float64frombits(oddValues[r.IntN(len(oddValues))])
		case 7:
			if v += 4096 * float64(r.IntN(3)-1); r.IntN(20) == 0 {
				v = math.NaN()
			} else if math.IsNaN(v) {
				v = 4096
			}
		case 8:
			v = float64(int64(1)<<61+r.Int64N(1<<61)) * float64(1-2*r.IntN(2))
		}
		x := v
		if r.IntN(60) == 0 {
			x = math.Float64frombits(value.StaleNaN)
		}
		times, values = append(times, at), append(values, x)
	}
	return rolledUp(w, times, values)
}

// TestRollupRoundTrip shows that buckets of all kinds of metrics come back bit for bit, in whole
// and in parts, whatever clock they are stored with.
func TestRollupRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := chunk.RollupWindow{
			StartMillis:      rapid.SampledFrom([]int64{0, 1_700_006_400_000, -86_400_000}).Draw(t, "start"),
			ResolutionMillis: rapid.SampledFrom([]int64{60_000, 300_000, 3_600_000}).Draw(t, "resolution"),
		}
		clocks := map[chunk.ClockID]*chunk.RollupClock{}
		var series []rolledSeries
		ref := rapid.Uint64Range(0, 1<<40).Draw(t, "ref")
		for i := range rapid.IntRange(1, 6).Draw(t, "series") {
			s := rolledSeries{ref: ref, columns: drawRolled(t, w), clock: chunk.NoClock, base: rapid.IntRange(-1, i-1).Draw(t, "base")}
			switch rapid.IntRange(0, 3).Draw(t, "clock") {
			case 1: // its own
				s.clock = chunk.ClockID(7<<16 | i)
				clocks[s.clock] = clockOfRows(s.columns)
			case 2: // that of another, if there is one
				for id := range clocks {
					s.clock = id
				}
			case 3: // the same series again, a little higher
				if i > 0 {
					again := *series[i-1].columns
					again.Sums, again.Last = slices.Clone(again.Sums), slices.Clone(again.Last)
					for k, m := range again.Counts {
						if m > 0 {
							again.Sums[k]++
							again.Last[k]++
						}
					}
					s.columns, s.clock = &again, series[i-1].clock
				}
			}
			series = append(series, s)
			ref += rapid.Uint64Range(1, 300).Draw(t, "gap")
		}
		part := func() [2]int {
			first := rapid.IntRange(0, 80).Draw(t, "first")
			return [2]int{first, first + rapid.IntRange(0, 80).Draw(t, "length")}
		}
		set := func() chunk.RollupColumns {
			return chunk.RollupColumns(rapid.Uint16Range(0, uint16(chunk.RollupAll)).Draw(t, "set"))
		}
		data := rollUp(t, w, clocks, series)
		checkRolled(t, w, data, clocks, series, [][2]int{part(), part()}, []chunk.RollupColumns{set(), set(), chunk.RollupAll})
	})
}

// TestRollupAnything shows that columns come back that are of no samples at all.
func TestRollupAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	float := func() float64 {
		switch r.IntN(4) {
		case 0:
			return math.Float64frombits(r.Uint64())
		case 1:
			return math.Float64frombits(oddValues[r.IntN(len(oddValues))])
		case 2:
			return float64(r.IntN(100)) / 10
		default:
			return math.Ldexp(float64(r.Int64()-r.Int64()), r.IntN(40))
		}
	}
	for range 300 {
		n := 1 + r.IntN(60)
		c := &rollup.Columns{}
		sparse := r.IntN(3) == 0
		for i := range n {
			end := fiveMinutes.StartMillis + int64(i+1)*fiveMinutes.ResolutionMillis
			row := rollup.Row{Ended: r.IntN(3) == 0}
			if !sparse || r.IntN(2) == 0 {
				row = rollup.Row{
					Count: 2 + r.Int64N(1<<r.IntN(63)), FirstMillis: end - 1 - r.Int64N(1000), LastMillis: end, Ended: row.Ended,
					First: float(), Last: float(), Min: float(), Max: float(), Sum: float(), Correction: float(), Resets: int64(r.Uint64()), Changes: int64(r.Uint64()),
				}
			}
			c.Append(end, &row, nil)
		}
		again := *c
		again.Sums = slices.Clone(c.Sums)
		for i, m := range again.Counts {
			if m > 0 {
				again.Sums[i]++
			}
		}
		series := []rolledSeries{
			{ref: 3, clock: chunk.NoClock, base: -1, columns: c},
			{ref: 5, clock: chunk.NoClock, base: 0, columns: &again},
			{ref: 6, clock: chunk.NoClock, base: 0, columns: c},
		}
		data := rollUp(t, fiveMinutes, nil, series)
		checkRolled(t, fiveMinutes, data, nil, series, [][2]int{{n / 3, n}}, []chunk.RollupColumns{chunk.RollupSums | chunk.RollupCorrections | chunk.RollupFirst, chunk.RollupAll})
	}
}

// TestRollupDifferences shows that the buckets of a classic histogram cost less as differences,
// however they are read, and that chains of them end.
func TestRollupDifferences(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const buckets, n = 30, 5760
	times := make([]int64, n)
	for i := range times {
		times[i] = fiveMinutes.StartMillis + 5000 + int64(i)*15_000
	}
	counts := make([]float64, buckets)
	values := make([][]float64, buckets)
	for range n {
		for range r.IntN(6) {
			for i := min(int(math.Abs(r.NormFloat64()*4+12)), buckets-1); i < buckets; i++ {
				counts[i]++
			}
		}
		for i := range values {
			values[i] = append(values[i], counts[i])
		}
	}
	var alone, based []rolledSeries
	clocks := map[chunk.ClockID]*chunk.RollupClock{}
	for i := range values {
		c := rolledUp(fiveMinutes, times, values[i])
		clocks[9] = clockOfRows(c)
		alone = append(alone, rolledSeries{ref: uint64(i), clock: 9, base: -1, columns: c})
		based = append(based, rolledSeries{ref: uint64(i), clock: 9, base: i - 1, columns: c})
	}
	whole, difference := rollUp(t, fiveMinutes, clocks, alone), rollUp(t, fiveMinutes, clocks, based)
	require.Less(t, len(difference), len(whole)*9/10)
	checkRolled(t, fiveMinutes, difference, clocks, based, [][2]int{{100, 150}, {100, 150}, {0, 10}}, []chunk.RollupColumns{chunk.RollupFirst, chunk.RollupAll, chunk.RollupSums | chunk.RollupMax})

	// In any order, so that what is remembered is of use to some and in the way of others.
	var b chunk.Rollups
	require.NoError(t, chunk.ParseRollups(bundleKey, difference, buckets-1, fiveMinutes, &b))
	var d chunk.RollupDecoder
	for range 500 {
		i, first := r.IntN(buckets), r.IntN(200)
		end := first + 1 + r.IntN(88)
		set := chunk.RollupColumns(r.IntN(int(chunk.RollupAll) + 1))
		c := based[i].columns
		from := fiveMinutes.StartMillis
		if first > 0 {
			from = c.Ends[first-1]
		}
		var got rollup.Columns
		_, err := d.Decode(&b, i, clocks[9], chunk.RollupRange{FromMillis: from, ToMillis: c.Ends[end-1], Columns: set}, &got)
		require.NoError(t, err)
		requireColumns(t, c, &got, first, end, set)
	}
	require.Positive(t, d.Bytes())
}

// TestRollupAppends shows that Decode adds to what is there, and leaves other columns alone.
func TestRollupAppends(t *testing.T) {
	c := rolledUp(fiveMinutes, []int64{fiveMinutes.StartMillis + 1, fiveMinutes.StartMillis + 400_000}, []float64{3, 5})
	data := rollUp(t, fiveMinutes, nil, []rolledSeries{{ref: 1, clock: chunk.NoClock, base: -1, columns: c}})
	var b chunk.Rollups
	require.NoError(t, chunk.ParseRollups(bundleKey, data, 1, fiveMinutes, &b))
	var d chunk.RollupDecoder
	got := rollup.Columns{Ends: []int64{7}, Counts: []int64{9}, Last: []float64{1}, Min: []float64{8}}
	there, err := d.Decode(&b, 0, nil, chunk.RollupRange{FromMillis: fiveMinutes.StartMillis, ToMillis: allTimes, Columns: chunk.RollupLast | chunk.RollupResets}, &got)
	require.NoError(t, err)
	require.Equal(t, chunk.RollupAll, there)
	require.Equal(t, rollup.Columns{
		Ends: []int64{7, c.Ends[0], c.Ends[1]}, Counts: []int64{9, 1, 1}, Last: []float64{1, 3, 5}, Min: []float64{8}, Resets: []int64{0, 0},
	}, got)
}

// TestRollupMissingColumns shows that columns which weren't kept are reported, and that the others
// come back.
func TestRollupMissingColumns(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var times []int64
	var values []float64
	for i := range 2000 {
		times, values = append(times, fiveMinutes.StartMillis+1+int64(i)*15_000), append(values, float64(r.IntN(1000)))
	}
	full := rolledUp(fiveMinutes, times, values)
	size := len(rollUp(t, fiveMinutes, nil, []rolledSeries{{ref: 1, clock: chunk.NoClock, base: -1, columns: full}}))
	for name, drop := range map[chunk.RollupColumns]func(c *rollup.Columns){
		chunk.RollupMin:  func(c *rollup.Columns) { c.Min = nil },
		chunk.RollupMax:  func(c *rollup.Columns) { c.Max = nil },
		chunk.RollupSums: func(c *rollup.Columns) { c.Sums = nil },
		chunk.RollupCorrections | chunk.RollupResets: func(c *rollup.Columns) { c.Corrections, c.Resets = nil, nil },
		chunk.RollupResets:                           func(c *rollup.Columns) { c.Resets = nil },
		chunk.RollupChanges:                          func(c *rollup.Columns) { c.Changes = nil },
		chunk.RollupSums | chunk.RollupCorrections:   func(c *rollup.Columns) { c.Sums, c.Corrections = nil, nil },
		chunk.RollupMin | chunk.RollupMax:            func(c *rollup.Columns) { c.Min, c.Max = nil, nil },
	} {
		kept := *full
		drop(&kept)
		data := rollUp(t, fiveMinutes, nil, []rolledSeries{{ref: 1, clock: chunk.NoClock, base: -1, columns: &kept}})
		if name != chunk.RollupChanges {
			require.Less(t, len(data), size)
		}
		var b chunk.Rollups
		require.NoError(t, chunk.ParseRollups(bundleKey, data, 1, fiveMinutes, &b))
		var d chunk.RollupDecoder
		var got rollup.Columns
		there, err := d.Decode(&b, 0, nil, chunk.RollupRange{FromMillis: 0, ToMillis: allTimes, Columns: chunk.RollupAll}, &got)
		require.NoError(t, err)
		require.Equal(t, chunk.RollupAll&^name, there)
		want := *full
		nan, none := make([]float64, full.Len()), make([]int64, full.Len())
		for i := range nan {
			nan[i], none[i] = math.NaN(), -1
		}
		for column, x := range map[chunk.RollupColumns]*[]float64{chunk.RollupMin: &want.Min, chunk.RollupMax: &want.Max, chunk.RollupSums: &want.Sums, chunk.RollupCorrections: &want.Corrections} {
			if name&column != 0 {
				*x = nan
			}
		}
		for column, x := range map[chunk.RollupColumns]*[]int64{chunk.RollupResets: &want.Resets, chunk.RollupChanges: &want.Changes} {
			if name&column != 0 {
				*x = none
			}
		}
		requireColumns(t, &want, &got, 0, want.Len(), chunk.RollupAll)
	}
}

// drawRolledHistograms draws the buckets of a series of histograms, or of both kinds.
func drawRolledHistograms(t *rapid.T, w chunk.RollupWindow, floats bool) *rollup.Columns {
	var b rollup.Builder
	var c rollup.Columns
	b.Begin(w.ResolutionMillis, &c)
	g := histograms{}
	at := w.StartMillis
	for range rapid.IntRange(1, 40).Draw(t, "samples") {
		at += rapid.Int64Range(1, w.ResolutionMillis).Draw(t, "step")
		switch kind := rapid.IntRange(0, 9).Draw(t, "sample"); {
		case kind == 0:
			b.Float(at, math.Float64frombits(value.StaleNaN))
		case kind < 4 && floats:
			b.Float(at, float64(rapid.IntRange(0, 9).Draw(t, "value")))
		default:
			if h := g.draw(t).ToFloat(nil); !value.IsStaleNaN(h.Sum) {
				b.Histogram(at, h)
			}
		}
	}
	b.Finish()
	return &c
}

// TestRollupHistograms shows that buckets of native histograms come back, alone and with
// floats in the same series.
func TestRollupHistograms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := fiveMinutes
		clocks := map[chunk.ClockID]*chunk.RollupClock{}
		var series []rolledSeries
		for i := range rapid.IntRange(1, 3).Draw(t, "series") {
			c := drawRolledHistograms(t, w, rapid.Bool().Draw(t, "floats"))
			if c.Len() == 0 {
				continue
			}
			s := rolledSeries{ref: uint64(i), clock: chunk.NoClock, base: -1, columns: c}
			if rapid.Bool().Draw(t, "shared") {
				clocks[1], s.clock = clockOfRows(c), 1
			}
			series = append(series, s)
		}
		if len(series) == 0 {
			return
		}
		for i := range series {
			if clocks[1] != nil {
				series[i].clock = 1
			}
		}
		set := chunk.RollupColumns(rapid.Uint16Range(0, uint16(chunk.RollupAll)).Draw(t, "set"))
		checkRolled(t, w, rollUp(t, w, clocks, series), clocks, series, [][2]int{{1, 5}, {2, 9}}, []chunk.RollupColumns{chunk.RollupAll, set, chunk.RollupAll})
	})
}

// TestRollupEachColumn shows that each column comes back by itself, whatever it is guessed from.
func TestRollupEachColumn(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for name, next := range map[string]func(v float64) float64{
		"counter":           func(v float64) float64 { return v + float64(r.IntN(9)) },
		"counter of sums":   func(v float64) float64 { return v + float64(r.IntN(1000))/1e9 + 1e-15 },
		"counter of nanos":  func(v float64) float64 { return v + float64(r.IntN(1000))/1e9 },
		"gauge":             func(float64) float64 { return float64(r.IntN(1000)) / 10 },
		"gauge in pages":    func(float64) float64 { return 4096 * float64(100+r.IntN(50)) },
		"gauge of peaks":    func(float64) float64 { return math.Trunc(math.Exp(4 * r.NormFloat64())) },
		"ratio":             func(float64) float64 { return r.Float64() },
		"nearly decimal":    func(float64) float64 { return float64(r.IntN(1000))/1e6 + float64(r.IntN(1000))/1e6 + 0.1 },
		"large":             func(float64) float64 { return float64(int64(1)<<60 + r.Int64N(1<<60)) },
		"not always number": func(float64) float64 { return 1 / math.Trunc(r.Float64()*4) },
	} {
		var times []int64
		var values []float64
		v := 0.0
		for i := range 3000 {
			v = next(v)
			times, values = append(times, fiveMinutes.StartMillis+1+int64(i)*15_000), append(values, v)
		}
		c := rolledUp(fiveMinutes, times, values)
		data := rollUp(t, fiveMinutes, nil, []rolledSeries{{ref: 1, clock: chunk.NoClock, base: -1, columns: c}})
		var b chunk.Rollups
		require.NoError(t, chunk.ParseRollups(bundleKey, data, 1, fiveMinutes, &b))
		for set := chunk.RollupColumns(1); set < chunk.RollupAll; set <<= 1 {
			for _, first := range []int{0, 1, 70} {
				var d chunk.RollupDecoder
				var got rollup.Columns
				_, err := d.Decode(&b, 0, nil, chunk.RollupRange{FromMillis: c.Ends[first] - 1, ToMillis: allTimes, Columns: set}, &got)
				require.NoError(t, err, name)
				requireColumns(t, c, &got, first, c.Len(), set)
			}
		}
	}
}

// TestRollupLongWindow shows that windows of 9216 rows come back, and so do parts at their
// ends.
func TestRollupLongWindow(t *testing.T) {
	const n = 9216
	r := rand.New(rand.NewPCG(1, 9))
	w := chunk.RollupWindow{StartMillis: 1_700_006_400_000, ResolutionMillis: 300_000}
	var times []int64
	var values []float64
	v := 0.0
	for i := range n * 3 {
		v += float64(r.IntN(1000)) / 1000
		times, values = append(times, w.StartMillis+17+int64(i)*100_000), append(values, v)
	}
	c := rolledUp(w, times, values)
	require.Equal(t, n, c.Len())
	series := []rolledSeries{{ref: 1, clock: chunk.NoClock, base: -1, columns: c}}
	checkRolled(t, w, rollUp(t, w, nil, series), nil, series, [][2]int{{n - 1, n}, {n - 288, n}, {5000, 5001}, {0, 1}}, wholeOnly)
}

// TestRollupAllocatesNothing shows that a warm decoder allocates nothing for floats.
func TestRollupAllocatesNothing(t *testing.T) {
	x := newBenchRollups(t, 5)
	var d chunk.RollupDecoder
	var got rollup.Columns
	decode := func() {
		for i := range x.bundle.Len() {
			got.Reset()
			if _, err := d.Decode(&x.bundle, i, x.clock, chunk.RollupRange{FromMillis: 0, ToMillis: allTimes, Columns: chunk.RollupAll}, &got); err != nil {
				panic(err)
			}
		}
	}
	decode()
	require.Zero(t, testing.AllocsPerRun(10, decode))
	var b chunk.Rollups
	require.Zero(t, testing.AllocsPerRun(10, func() {
		if err := chunk.ParseRollups(bundleKey, x.data, x.bundle.Ref(x.bundle.Len()-1), x.window, &b); err != nil {
			panic(err)
		}
	}))
}

// TestRollupClock shows that clocks come back from under their key.
func TestRollupClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := clockOfRows(drawRolled(t, fiveMinutes))
		data, err := chunk.AppendRollupClock([]byte("x"), bundleKey, fiveMinutes, c)
		require.NoError(t, err)
		var got chunk.RollupClock
		require.NoError(t, chunk.ParseRollupClock(bundleKey, data[1:], fiveMinutes, &got))
		require.True(t, c.Equal(&got), fmt.Sprint(c, got))
		require.ErrorIs(t, chunk.ParseRollupClock([]byte("another"), data[1:], fiveMinutes, &got), chunk.ErrCorrupt)
	})
}
