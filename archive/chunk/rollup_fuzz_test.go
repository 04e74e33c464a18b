package chunk_test

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive/chunk"
	"varve/rollup"
)

// FuzzRollups shows that no bytes make ParseRollups or Decode panic, that errors say what is
// wrong, and that of what decodes as a whole a part decodes to the same rows.
func FuzzRollups(f *testing.F) {
	data, clocks, _ := smallRollups(f)
	clock := clocks[5]
	f.Add(data[:len(data)-4])
	for i := range 40 {
		f.Add(data[:len(data)*i/40])
	}
	f.Add([]byte{1, 0x10, 0, 2, 0x11, 0x11, 0x11, 0x11, 0x3f, 1, 0x82, 1, 0x82, 1, 0x82, 1, 0x82, 1, 0x82, 1, 0x82})
	f.Add([]byte{1, 0x30, 0, 6, 0, 0x11, 0x11, 0x11, 0x11, 0, 0x05, 1, 0, 0x11, 0x11, 0x11, 0x11, 0x40, 9, 9})
	f.Fuzz(func(t *testing.T, body []byte) {
		var b chunk.Rollups
		if err := chunk.ParseRollups(bundleKey, sealed(bundleKey, body), math.MaxUint64, fiveMinutes, &b); err != nil {
			require.True(t, errors.Is(err, chunk.ErrCorrupt) || errors.Is(err, chunk.ErrVersion), err)
			require.Zero(t, b.Len())
			return
		}
		var whole, part, again chunk.RollupDecoder
		for i := range min(b.Len(), 40) {
			var want, got rollup.Columns
			if _, err := whole.Decode(&b, i, clock, chunk.RollupRange{FromMillis: math.MinInt64, ToMillis: allTimes, Columns: chunk.RollupAll}, &want); err != nil {
				require.ErrorIs(t, err, chunk.ErrCorrupt)
				continue
			}
			first := len(want.Ends) / 3
			end := len(want.Ends) - len(want.Ends)/4
			if first == end {
				continue
			}
			set := chunk.RollupColumns(len(body)) & chunk.RollupAll &^ chunk.RollupHistograms
			r := chunk.RollupRange{FromMillis: want.Ends[first] - 1, ToMillis: want.Ends[end-1], Columns: set}
			_, err := part.Decode(&b, i, clock, r, &got)
			require.NoError(t, err)
			requireColumns(t, &want, &got, first, end, set)
			var more rollup.Columns
			_, err = again.Decode(&b, i, clock, chunk.RollupRange{FromMillis: r.FromMillis, ToMillis: r.ToMillis, Columns: chunk.RollupAll}, &more)
			require.NoError(t, err)
			requireColumns(t, &want, &more, first, end, chunk.RollupAll)
		}
	})
}

// FuzzRollupsRoundTrip shows that all columns come back whose bytes say anything.
func FuzzRollupsRoundTrip(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	long := make([]byte, 0, 4000)
	for i := range 500 {
		long = binary.LittleEndian.AppendUint64(long, math.Float64bits(float64(i*i%37)/10))
	}
	f.Add(long, uint8(3))
	f.Add(long[:800], uint8(0xff))
	f.Fuzz(func(t *testing.T, data []byte, flags uint8) {
		take := func() uint64 {
			var word [8]byte
			data = data[copy(word[:], data):]
			return binary.LittleEndian.Uint64(word[:])
		}
		float := func() float64 {
			bits := take()
			if flags&1 == 0 {
				return math.Float64frombits(bits)
			}
			return float64(int32(bits)) / 100
		}
		var c rollup.Columns
		end := fiveMinutes.StartMillis
		for len(data) > 0 && c.Len() < 300 {
			shape := take()
			end += fiveMinutes.ResolutionMillis * int64(1+shape>>60)
			row := rollup.Row{Ended: shape&1 != 0}
			if shape&2 == 0 {
				row.Count, row.FirstMillis, row.LastMillis = 2+int64(shape>>8&0xffff), end-1-int64(shape>>32&0xffff), end
				row.First, row.Last, row.Min, row.Max, row.Sum, row.Correction = float(), float(), float(), float(), float(), float()
				if flags&2 != 0 {
					row.Min, row.Max = min(row.First, row.Last), max(row.First, row.Last)
				}
				row.Resets, row.Changes = int64(take()), int64(take())
			}
			c.Append(end, &row, nil)
		}
		if c.Len() == 0 {
			return
		}
		above := c
		above.Sums = make([]float64, c.Len())
		for i, m := range c.Counts {
			if m > 0 {
				above.Sums[i] = c.First[i] + 1
			}
		}
		series := []rolledSeries{
			{ref: 1, clock: chunk.NoClock, base: -1, columns: &c},
			{ref: 2, clock: chunk.NoClock, base: 0, columns: &above},
			{ref: 3, clock: chunk.NoClock, base: 1, columns: &c},
		}
		checkRolled(t, fiveMinutes, rollUp(t, fiveMinutes, nil, series), nil, series, [][2]int{{c.Len() / 2, c.Len()}}, []chunk.RollupColumns{chunk.RollupColumns(flags) << 2 & chunk.RollupAll, chunk.RollupAll})
	})
}

// FuzzRollupClock shows that what parses as a clock is a sound one.
func FuzzRollupClock(f *testing.F) {
	data, err := chunk.AppendRollupClock(nil, bundleKey, fiveMinutes, clockOfRows(drawnGauge(300)))
	require.NoError(f, err)
	f.Add(data[:len(data)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		var c, again chunk.RollupClock
		if err := chunk.ParseRollupClock(bundleKey, sealed(bundleKey, body), fiveMinutes, &c); err != nil {
			require.ErrorIs(t, err, chunk.ErrCorrupt)
			return
		}
		data, err := chunk.AppendRollupClock(nil, bundleKey, fiveMinutes, &c)
		require.NoError(t, err)
		require.NoError(t, chunk.ParseRollupClock(bundleKey, data, fiveMinutes, &again))
		require.True(t, c.Equal(&again))
	})
}
