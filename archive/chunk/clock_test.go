package chunk_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/archive/chunk"
)

// day is the first ms of a day.
const day = int64(1_700_006_400_000)

// clockKinds make n times of a clock.
var clockKinds = []struct {
	name string
	make func(r *rand.Rand, n int) []int64
}{
	{"exact", func(_ *rand.Rand, n int) []int64 {
		return clockOf(n, func(i int) int64 { return day + 15_000*int64(i) })
	}},
	{"jitter", func(r *rand.Rand, n int) []int64 {
		return clockOf(n, func(i int) int64 { return day + 7_123 + 15_000*int64(i) + int64(r.IntN(5)) })
	}},
	{"gaps", func(r *rand.Rand, n int) []int64 {
		point := day
		return clockOf(n, func(int) int64 {
			point += 10_000
			if r.IntN(100) == 0 {
				point += 10_000 * int64(r.IntN(50))
			}
			return point + int64(r.IntN(3))
		})
	}},
	{"restarts", func(r *rand.Rand, n int) []int64 {
		point := day
		return clockOf(n, func(int) int64 {
			point += 60_000
			if r.IntN(300) == 0 {
				point += int64(r.IntN(600_000))
			}
			return point
		})
	}},
	{"seconds", func(r *rand.Rand, n int) []int64 {
		return clockOf(n, func(i int) int64 { return day + (30_000*int64(i)+int64(r.IntN(2_000)))/1000*1000 })
	}},
	{"drift", func(r *rand.Rand, n int) []int64 {
		t := day
		return clockOf(n, func(int) int64 { t += 1_000 + int64(r.IntN(4)); return t })
	}},
	{"fast", func(r *rand.Rand, n int) []int64 {
		return clockOf(n, func(i int) int64 { return day + 100*int64(i) + int64(r.IntN(2)) })
	}},
	{"hourly", func(r *rand.Rand, n int) []int64 {
		return clockOf(n, func(i int) int64 { return day + 3_600_000*int64(i) + int64(r.IntN(90)) })
	}},
	{"events", func(r *rand.Rand, n int) []int64 {
		t := day
		return clockOf(n, func(int) int64 { t += 1 + int64(r.ExpFloat64()*20_000); return t })
	}},
	{"anything", func(r *rand.Rand, n int) []int64 {
		t := clockOf(n, func(int) int64 { return int64(r.Uint64()) })
		slices.Sort(t)
		return slices.Compact(t)
	}},
	{"extremes", func(_ *rand.Rand, n int) []int64 {
		return []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}[:min(n, 7)]
	}},
	{"a quarter of all", func(_ *rand.Rand, n int) []int64 {
		return []int64{math.MinInt64 / 8, 0, 1, math.MaxInt64 / 8}[:min(n, 4)]
	}},
}

func clockOf(n int, at func(i int) int64) []int64 {
	times := make([]int64, n)
	for i := range times {
		times[i] = at(i)
	}
	return times
}

// TestTimesRoundTrip shows that the times of clocks of all kinds come back, whole and in
// part, from an encoder and a decoder that are used again and again.
func TestTimesRoundTrip(t *testing.T) {
	var e chunk.TimesEncoder
	var d chunk.TimesDecoder
	for _, kind := range clockKinds {
		for _, n := range []int{1, 2, 3, 4, 7, 100, 480, 5760} {
			times := kind.make(rand.New(rand.NewPCG(1, uint64(n))), n)
			src := e.Append([]byte("before"), times)
			require.Equal(t, "before", string(src[:6]), kind.name)
			require.Equal(t, src[6:], chunk.AppendTimes(nil, times), kind.name)
			checkTimes(t, &d, src[6:], times)
		}
	}
}

func checkTimes(t *testing.T, d *chunk.TimesDecoder, src []byte, times []int64) {
	t.Helper()
	for _, n := range []int{0, 1, 2, len(times) / 2, len(times) - 1, len(times)} {
		if n < 0 || n > len(times) {
			continue
		}
		got := make([]int64, n)
		if err := d.Decode(src, len(times), got); err != nil || !slices.Equal(got, times[:n]) {
			t.Fatalf("%d of %d times: %v", n, len(times), err)
		}
	}
	if err := d.Decode(append(slices.Clip(src), 0), len(times), make([]int64, len(times))); !errors.Is(err, chunk.ErrCorrupt) {
		t.Fatalf("a byte behind %d times: %v", len(times), err)
	}
}

// TestTimesWorkedExample pins the bytes of docs/format/clock.md. The second clock is one
// for which the encoder finds something shorter.
func TestTimesWorkedExample(t *testing.T) {
	exact := clockOf(10, func(i int) int64 { return day + 15_000*int64(i) })
	require.Equal(t, "01 80 c0 b8 84 fa 62 98 75 80", fmt.Sprintf("% x", chunk.AppendTimes(nil, exact)))

	src, err := hex.DecodeString("0280c0b884fa6298750400020208" + "000003a000")
	require.NoError(t, err)
	var d chunk.TimesDecoder
	times := make([]int64, 5)
	require.NoError(t, d.Decode(src, 5, times))
	require.Equal(t, []int64{day, day + 15_000, day + 30_002, day + 60_001, day + 75_000}, times)
}

// TestTimesSizes shows that a clock takes as little as it should: next to nothing without
// jitter, and with it what the jitter is worth.
func TestTimesSizes(t *testing.T) {
	for _, c := range []struct {
		kind     string
		bytesMax int
	}{
		{"exact", 12},
		{"jitter", 1760}, // 5760 * log2(5)/8 = 1672
		{"gaps", 1380},   // 5760 * log2(3)/8 = 1141, and a gap in a hundred
		{"seconds", 800}, // 5760/8 = 720
		{"fast", 745},
	} {
		for _, kind := range clockKinds {
			if kind.name == c.kind {
				times := kind.make(rand.New(rand.NewPCG(1, 1)), 5760)
				require.LessOrEqual(t, len(chunk.AppendTimes(nil, times)), c.bytesMax, c.kind)
			}
		}
	}
}

// TestTimesAllocations shows that a warm decoder allocates nothing.
func TestTimesAllocations(t *testing.T) {
	var d chunk.TimesDecoder
	for _, kind := range clockKinds {
		times := kind.make(rand.New(rand.NewPCG(1, 1)), 1000)
		src := chunk.AppendTimes(nil, times)
		got := make([]int64, len(times))
		require.Zero(t, testing.AllocsPerRun(10, func() { _ = d.Decode(src, len(times), got) }), kind.name)
	}
}

// TestTimesRefuses shows that bytes no encoder writes are errors, and so are times that
// don't ascend.
func TestTimesRefuses(t *testing.T) {
	zeros := make([]byte, 8)
	for _, c := range []struct {
		name string
		src  []byte
		n    int
		want int
	}{
		{"nothing", nil, 1, 1},
		{"no times", []byte{0, 0x80}, 0, 0},
		{"more wanted than there are", []byte{0, 0x80}, 1, 2},
		{"unknown form", append([]byte{3}, zeros...), 2, 2},
		{"plain, equal", []byte{0, 0x80}, 2, 2},
		{"plain, descending", []byte{0, 1, 0, 1, 1}, 2, 2},
		{"grid without interval", []byte{1, 0}, 2, 2},
		{"grid with interval 0", []byte{1, 0, 0, 0x80}, 2, 2},
		{"grid without jitters", []byte{1, 0, 5}, 2, 2},
		{"steps longer than all", []byte{2, 0, 5, 9, 0x82, 0x80}, 2, 2},
		{"steps with something behind", []byte{2, 0, 5, 2, 0x82, 0x80, 0x80}, 2, 2},
		{"jitters with something behind", []byte{2, 0, 5, 1, 0x82, 0x80, 0x80}, 2, 2},
		{"steps of one time", []byte{2, 0, 5, 1, 0x82, 0x80}, 1, 1},
		{"step 0", []byte{2, 0, 5, 1, 0x80, 0x80}, 2, 2},
		{"jitter over the next", []byte{1, 0, 5, 1, 0, 8, 9, 0}, 2, 2},
	} {
		var d chunk.TimesDecoder
		require.ErrorIs(t, d.Decode(c.src, c.n, make([]int64, c.want)), chunk.ErrCorrupt, c.name)
	}
}

// FuzzTimes shows that any bytes decode to ascending times or are refused, and that what
// decodes comes back from its own encoding.
func FuzzTimes(f *testing.F) {
	for i, kind := range clockKinds {
		for _, n := range []int{1, 3, 50, 200} {
			times := kind.make(rand.New(rand.NewPCG(uint64(i), 1)), n)
			f.Add(chunk.AppendTimes(nil, times), uint16(len(times)))
		}
	}
	var e chunk.TimesEncoder
	var d chunk.TimesDecoder
	f.Fuzz(func(t *testing.T, src []byte, count uint16) {
		n := int(count)%1024 + 1
		times := make([]int64, n)
		if err := d.Decode(src, n, times); err != nil {
			require.ErrorIs(t, err, chunk.ErrCorrupt)
			return
		}
		for i := 1; i < n; i++ {
			require.Less(t, times[i-1], times[i])
		}
		checkTimes(t, &d, e.Append(nil, times), times)
	})
}

// presenceOf reads all runs.
func presenceOf(src []byte, clock int) (runs [][2]int, err error) {
	p := chunk.NewPresence(src, clock)
	for {
		first, end, ok := p.Next()
		if !ok {
			return runs, p.Err()
		}
		runs = append(runs, [2]int{first, end})
	}
}

// TestPresence shows which runs some times of a clock are, and in how many bytes.
func TestPresence(t *testing.T) {
	clock := clockOf(1000, func(i int) int64 { return day + 1000*int64(i) })
	for _, runs := range [][][2]int{
		{{0, 1}},
		{{0, 1000}},
		{{999, 1000}},
		{{0, 999}},
		{{1, 1000}},
		{{0, 1}, {2, 3}, {500, 999}},
		{{10, 20}, {900, 1000}},
	} {
		var times []int64
		for _, r := range runs {
			times = append(times, clock[r[0]:r[1]]...)
		}
		src, ok := chunk.AppendPresence([]byte("before"), clock, times)
		require.True(t, ok)
		require.Equal(t, "before", string(src[:6]))
		got, err := presenceOf(src[6:], len(clock))
		require.NoError(t, err)
		require.Equal(t, runs, got)
	}
	src, _ := chunk.AppendPresence(nil, clock, clock[300:])
	require.Equal(t, []byte{0xac, 0x02, 0x00}, src, "a run up to the end needs no length")
}

// TestPresenceForeignTimes shows that times which the clock has not are noticed, wherever
// they are, and that nothing is appended then.
func TestPresenceForeignTimes(t *testing.T) {
	clock := []int64{10, 20, 30, 40}
	for _, times := range [][]int64{{5}, {5, 10}, {15}, {10, 15, 20}, {10, 20, 25}, {30, 40, 45}, {45}, {10, 35, 40}} {
		dst, ok := chunk.AppendPresence([]byte("before"), clock, times)
		require.False(t, ok, times)
		require.Equal(t, "before", string(dst))
	}
}

// FuzzPresence shows that any bytes are runs within the clock or are refused, and that
// runs come back from the times they stand for.
func FuzzPresence(f *testing.F) {
	f.Add([]byte{0, 5, 3, 0}, uint16(20))
	f.Add(binary.AppendUvarint([]byte{1}, math.MaxUint64), uint16(20))
	f.Add(binary.AppendUvarint(nil, math.MaxUint64), uint16(20))
	f.Add([]byte{0, 5, 0, 3}, uint16(20))
	f.Add([]byte{0, 0}, uint16(0))
	f.Fuzz(func(t *testing.T, src []byte, count uint16) {
		clock := clockOf(int(count)%300, func(i int) int64 { return int64(i) })
		runs, err := presenceOf(src, len(clock))
		var times []int64
		last := -1
		for _, r := range runs {
			if r[0] < 0 || r[0] <= last && last > 0 || r[0] >= r[1] || r[1] > len(clock) {
				t.Fatalf("runs %v of %d", runs, len(clock))
			}
			last = r[1]
			times = append(times, clock[r[0]:r[1]]...)
		}
		if err != nil {
			require.ErrorIs(t, err, chunk.ErrCorrupt)
			return
		}
		again, ok := chunk.AppendPresence(nil, clock, times)
		require.True(t, ok)
		got, err := presenceOf(again, len(clock))
		require.NoError(t, err)
		require.Equal(t, runs, got)
	})
}

func BenchmarkTimes(b *testing.B) {
	for _, kind := range clockKinds {
		times := kind.make(rand.New(rand.NewPCG(1, 1)), 5760)
		var e chunk.TimesEncoder
		var d chunk.TimesDecoder
		src := e.Append(nil, times)
		b.Run(fmt.Sprintf("Encode/%s", kind.name), func(b *testing.B) {
			var dst []byte
			for b.Loop() {
				dst = e.Append(dst[:0], times)
			}
			perTime(b, len(times))
			b.ReportMetric(float64(len(dst))/float64(len(times)), "B/time")
		})
		b.Run(fmt.Sprintf("Decode/%s", kind.name), func(b *testing.B) {
			got := make([]int64, len(times))
			for b.Loop() {
				if err := d.Decode(src, len(times), got); err != nil {
					b.Fatal(err)
				}
			}
			perTime(b, len(times))
		})
	}
}

func perTime(b *testing.B, times int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(times), "ns/time")
}
