package ints_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"varve/archive/chunk/ints"
)

// lists are named generators of lists of n values, of the kinds that orders,
// coders and header fields are there for.
var lists = []struct {
	name string
	make func(r *rand.Rand, n int) []int64
}{
	{"equal", func(r *rand.Rand, n int) []int64 { return fill(n, func(int) int64 { return 7 }) }},
	{"equal, odd", func(r *rand.Rand, n int) []int64 { return fill(n, func(int) int64 { return -3 }) }},
	{"equal, wide", func(r *rand.Rand, n int) []int64 { return fill(n, func(int) int64 { return math.MinInt64 }) }},
	{"line", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(i int) int64 { return 1_000_000 - 15*int64(i) })
	}},
	{"random", func(r *rand.Rand, n int) []int64 { return fill(n, func(int) int64 { return int64(r.Uint64()) }) }},
	{"extremes", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(int) int64 {
			return []int64{math.MinInt64, math.MaxInt64, 0, -1, 1, math.MinInt64 + 1}[r.IntN(6)]
		})
	}},
	{"halves", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(int) int64 { return int64(r.IntN(2)) << 63 })
	}},
	{"quarters", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(int) int64 { return int64(r.IntN(4)) << 62 })
	}},
	{"counter", func(r *rand.Rand, n int) []int64 {
		v := int64(1e9)
		return fill(n, func(int) int64 { v += 1500 + int64(100*r.NormFloat64()); return v })
	}},
	{"bursts", func(r *rand.Rand, n int) []int64 {
		v := int64(0)
		return fill(n, func(int) int64 {
			if r.IntN(30) == 0 {
				v += 4096 * int64(r.IntN(1000))
			}
			return v
		})
	}},
	{"resets", func(r *rand.Rand, n int) []int64 {
		v := int64(0)
		return fill(n, func(int) int64 {
			if v += int64(r.IntN(50)); r.IntN(300) == 0 {
				v = 0
			}
			return v
		})
	}},
	{"gauge", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(int) int64 { return 50000 + int64(300*r.NormFloat64()) })
	}},
	{"walk", func(r *rand.Rand, n int) []int64 {
		v := int64(1 << 40)
		return fill(n, func(int) int64 { v += 4096 * int64(r.IntN(21)-10); return v })
	}},
	{"toggle", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(int) int64 { return int64(r.IntN(2)) })
	}},
	{"levels", func(r *rand.Rand, n int) []int64 {
		levels := fill(9, func(int) int64 { return int64(r.Uint64() >> 20) })
		return fill(n, func(int) int64 { return levels[r.IntN(1+r.IntN(9))] })
	}},
	{"palette", func(r *rand.Rand, n int) []int64 {
		palette := fill(64, func(int) int64 { return int64(r.Uint64() >> 20) })
		return fill(n, func(i int) int64 { return palette[(i+r.IntN(2)*i)%64] })
	}},
	{"steps", func(r *rand.Rand, n int) []int64 {
		v := int64(0)
		return fill(n, func(int) int64 {
			if r.IntN(200) == 0 {
				v++
			}
			return v
		})
	}},
	{"ramp", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(i int) int64 { return int64(i)*int64(i)*3 + int64(i)*77 + int64(r.IntN(2)) })
	}},
	{"outliers", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(int) int64 {
			if r.IntN(40) == 0 {
				return int64(r.Uint64())
			}
			return int64(r.IntN(64))
		})
	}},
	{"magnitudes", func(r *rand.Rand, n int) []int64 {
		return fill(n, func(int) int64 { return int64(r.Uint64() >> r.IntN(64)) })
	}},
	{"pauses", func(r *rand.Rand, n int) []int64 {
		v, left := int64(0), 0
		return fill(n, func(int) int64 {
			if left--; left < 0 {
				left = r.IntN(8)
				v += int64(r.IntN(2000))
			}
			return v
		})
	}},
	{"valley", func(r *rand.Rand, n int) []int64 {
		v := int64(0)
		return fill(n, func(i int) int64 {
			if i < 4*n/9 || i >= 5*n/9 {
				v += 1 + int64(r.IntN(900))
			}
			return v
		})
	}},
	{"rare", func(r *rand.Rand, n int) []int64 {
		v := int64(0)
		return fill(n, func(int) int64 { v += int64(1) << (bits.TrailingZeros64(r.Uint64()|1<<40) & 63); return v })
	}},
}

func fill(n int, next func(i int) int64) []int64 {
	x := make([]int64, n)
	for i := range x {
		x[i] = next(i)
	}
	return x
}

func randomness(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// lengths are around the borders of blocks, dictionaries and the choice of a coder.
var lengths = []int{1, 2, 3, 4, 5, 11, 12, 13, 31, 32, 33, 100, 127, 128, 129, 130, 255, 256, 257, 480, 1000, 5760}

// checkStream decodes a stream whole, with bytes behind it and without, and some of
// its prefixes.
func checkStream(t *testing.T, d *ints.Decoder, src []byte, x []int64) {
	t.Helper()
	got := make([]int64, len(x))
	for _, behind := range []int{0, 1, 7, 8, 20} {
		padded := append(slices.Clone(src), make([]byte, behind)...)
		for i := range behind {
			padded[len(src)+i] = 0xff
		}
		used, err := d.Decode(padded, len(x), got)
		if err != nil || used != len(src) || !slices.Equal(got, x) {
			t.Fatalf("%d values, %d bytes behind: used %d of %d, %v", len(x), behind, used, len(src), err)
		}
	}
	for _, n := range []int{0, 1, 2, 3, len(x) / 3, len(x) - 1, 128, 129, 257} {
		if n < 0 || n >= len(x) {
			continue
		}
		used, err := d.Decode(src, len(x), got[:n])
		if err != nil || used != 0 || !slices.Equal(got[:n], x[:n]) {
			t.Fatalf("prefix of %d of %d: used %d, %v", n, len(x), used, err)
		}
	}
	for _, first := range []int{1, 2, 3, len(x) / 3, len(x) - 1, len(x), 961, 4797, 4801} {
		for _, n := range []int{0, 1, 2, 100, 959, 961, len(x)} {
			if n = min(n, len(x)-first); n < 0 {
				continue
			}
			want := 0
			if first+n == len(x) {
				want = len(src)
			}
			used, err := d.DecodeFrom(src, len(x), first, got[:n])
			if err != nil || used != want && n > 0 || !slices.Equal(got[:n], x[first:first+n]) {
				t.Fatalf("%d of %d from %d on: used %d instead of %d, %v", n, len(x), first, used, want, err)
			}
		}
	}
}

// TestRoundTrip shows that lists of every kind and length come back, whole and in
// part, from reused encoders and decoders, and that nothing before them is touched.
func TestRoundTrip(t *testing.T) {
	var e ints.Encoder
	var d ints.Decoder
	for _, l := range lists {
		for _, n := range lengths {
			for seed := range uint64(4) {
				x := l.make(randomness(seed), n)
				kept := slices.Clone(x)
				dst := e.Append([]byte("before"), x)
				if string(dst[:6]) != "before" || !slices.Equal(x, kept) {
					t.Fatalf("%s, %d values: Append changed what it was given", l.name, n)
				}
				checkStream(t, &d, dst[6:], x)
			}
		}
	}
}

// TestLongRuns shows that runs of more zeros than a symbol stands for come back, also
// where the middle of the list parts them.
func TestLongRuns(t *testing.T) {
	var e ints.Encoder
	var d ints.Decoder
	for _, zeros := range []int{65_534, 65_535, 65_536, 131_070, 200_000} {
		for _, before := range []int{1, 1200, 40_000} {
			r := randomness(uint64(zeros + before))
			v := int64(0)
			x := fill(before+zeros+1200, func(i int) int64 {
				if i < before || i >= before+zeros {
					v += 1 + int64(r.IntN(900))
				}
				return v
			})
			checkStream(t, &d, e.Append(nil, x), x)
		}
	}
}

// TestAccepts shows that what the format allows is read, though no encoder writes it.
func TestAccepts(t *testing.T) {
	for _, c := range []struct {
		name string
		src  []byte
		want []int64
	}{
		{"a small value in a wide field", []byte{0xc0, 0x02}, []int64{1, 1, 1}},
		{"a long uvarint", []byte{0xc0, 0x82, 0x80, 0x00}, []int64{1, 1}},
		{"nothing but patches", []byte{0x00, 0x02, 0x80, 2, 0, 1, 2, 4}, []int64{1, 2, 3}},
		{"a patch of width 64", []byte{0x00, 0x02, 0xc0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []int64{1, 2}},
		{"turn with bias and step", []byte{0x1a, 0x02, 3, 2, 4, 0}, []int64{1, 7, 16, 28}},
		{"step 0", []byte{0x09, 0x02, 0, 2, 8}, []int64{1, 1}},
	} {
		var d ints.Decoder
		x := make([]int64, len(c.want))
		used, err := d.Decode(c.src, len(x), x)
		if err != nil || used != len(c.src) || !slices.Equal(x, c.want) {
			t.Errorf("%s: %v, used %d of %d, %v", c.name, x, used, len(c.src), err)
		}
	}
}

// TestSizes shows what lists of 480 and of 5760 values take at most, in bytes: what they
// took when the format was settled, and no more than a hundredth on top.
func TestSizes(t *testing.T) {
	var e ints.Encoder
	for _, l := range lists {
		var sizes [2]int
		for i, n := range []int{480, 5760} {
			for seed := range uint64(8) {
				sizes[i] += len(e.Append(nil, l.make(randomness(seed), n)))
			}
		}
		settled := settledSizes[l.name]
		if sizes[0] > settled[0]+settled[0]/100 || sizes[1] > settled[1]+settled[1]/100 {
			t.Errorf("%q: %d, settled %d", l.name, sizes, settled)
		}
	}
}

var settledSizes = map[string][2]int{
	"equal":       {8, 8},
	"equal, odd":  {8, 8},
	"equal, wide": {88, 88},
	"line":        {72, 72},
	"random":      {30798, 369046},
	"extremes":    {1609, 15664},
	"halves":      {638, 5942},
	"quarters":    {1107, 11691},
	"counter":     {4363, 50620},
	"bursts":      {374, 3558},
	"resets":      {2932, 34343},
	"gauge":       {5093, 59738},
	"walk":        {2328, 26898},
	"toggle":      {518, 5818},
	"levels":      {1851, 16320},
	"palette":     {6320, 37411},
	"steps":       {70, 362},
	"ramp":        {1164, 13404},
	"outliers":    {3839, 44909},
	"magnitudes":  {19628, 226727},
	"pauses":      {1777, 21236},
	"valley":      {4634, 54485},
	"rare":        {1189, 13182},
}

// TestWorkedExample pins the bytes of docs/format/ints.md.
func TestWorkedExample(t *testing.T) {
	var e ints.Encoder
	for _, c := range []struct {
		x    []int64
		want string
	}{
		{[]int64{5, 5, 5}, "8a"},
		{[]int64{-100, -100}, "c0 c7 01"},
		{[]int64{100, 104, 112, 116, 900, 904}, "19 c8 01 04 02 82 01 88 00 03 61"},
		{[]int64{7, 7, 7, 9, 7, 7, 7, 7, 7, 7, 9, 7, 7, 7, 7, 7, 12, 7, 7, 7}, "04 0e e1 c2 9f 90 20 cd 26"},
	} {
		if got := fmt.Sprintf("% x", e.Append(nil, c.x)); got != c.want {
			t.Errorf("%v\nis   %s\nwant %s", c.x, got, c.want)
		}
	}
}

// TestCutShort shows that no stream decodes when its last bytes are missing, be it a few
// or nearly all.
func TestCutShort(t *testing.T) {
	var e ints.Encoder
	var d ints.Decoder
	for _, l := range lists {
		for _, n := range []int{1, 5, 100, 700, 5760} {
			src := e.Append(nil, l.make(randomness(1), n))
			x := make([]int64, n)
			for left := range src {
				if left > 100 && left < len(src)-100 {
					continue
				}
				if _, err := d.Decode(src[:left], n, x); !errors.Is(err, ints.ErrCorrupt) {
					t.Fatalf("%s, %d values, %d bytes of %d: %v", l.name, n, left, len(src), err)
				}
			}
		}
	}
}

// TestRunBeyondTheEnd shows that a run which is longer than the list is noticed, in one
// piece and in parts. It decodes a list that ends with a run as one of a value less, which
// has the same middle.
func TestRunBeyondTheEnd(t *testing.T) {
	var e ints.Encoder
	var d ints.Decoder
	for _, n := range []int{901, 5001} {
		r := randomness(1)
		x := fill(n+1, func(i int) int64 {
			if i == 0 || i >= n-50 {
				return 0
			}
			return r.Int64N(901) - 450
		})
		src := e.Append(nil, x)
		if used, err := d.Decode(src, n, x[:n]); !errors.Is(err, ints.ErrCorrupt) {
			t.Errorf("%d values: used %d of %d, %v", n, used, len(src), err)
		}
	}
}

// TestRefuses shows that bytes which no encoder writes are errors.
func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		src  []byte
		n    int
		want int
	}{
		{"nothing", nil, 1, 1},
		{"no values", []byte{0x80}, 0, 0},
		{"more wanted than there are", []byte{0x80}, 1, 2},
		{"unknown flag", []byte{0x20, 0, 0, 0}, 2, 2},
		{"equal, wide, with a value in the flags", []byte{0xc1, 2}, 2, 2},
		{"equal, wide, cut off", []byte{0xc0, 0x80}, 2, 2},
		{"first value cut off", []byte{0x01, 0x80}, 2, 2},
		{"first value cut off, which is a code by itself", []byte{0x05, 0xfd, 0x80}, 2, 2},
		{"turn of one value", []byte{0x02, 0, 0}, 1, 1},
		{"width 65", []byte{0x01, 0, 65, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 2, 2},
		{"no patches", []byte{0x01, 0, 0x80, 0}, 2, 2},
		{"more patches than residuals", []byte{0x01, 0, 0x80, 2, 0, 0, 1, 1}, 2, 2},
		{"patch outside", []byte{0x01, 0, 0x80, 1, 1, 1}, 2, 2},
		{"patch cut off", []byte{0x01, 0, 0x80, 1, 0, 0x80}, 2, 2},
		{"empty dictionary", []byte{0x03, 0, 0, 0}, 2, 2},
		{"dictionary too large", append([]byte{0x03, 0, 65}, make([]byte, 80)...), 2, 2},
		{"dictionary with bias", []byte{0x13, 0, 2, 1, 0, 1, 0}, 2, 2},
		{"rank outside", []byte{0x03, 0, 1, 0, 8, 0, 1}, 2, 2},
		{"code of 12 bits", []byte{0x04, 0, 0xce, 0, 0, 0, 0, 0, 0, 0}, 2, 2},
		{"symbol 152", []byte{0x04, 0, 0x1f, 0x13, 0, 0, 0, 0, 0, 0}, 2, 2},
		{"symbols that go back", []byte{0x04, 0, 0x7c, 0, 0, 0, 0, 0, 0, 0}, 2, 2},
		{"overfull code", []byte{0x04, 0, 0x1e, 0x32, 0, 0, 0, 0, 0, 0}, 2, 2},
		{"parts that are packed", []byte{0x20, 0, 0, 0, 0}, 2, 2},
		{"no parts", []byte{0x24, 0, 0x0e, 0}, 3, 3},
		{"one part", []byte{0x24, 0, 0x0e, 1, 0}, 3, 3},
		{"more parts than residuals", []byte{0x24, 0, 0x0e, 3, 0, 0}, 3, 3},
		{"first part cut off", []byte{0x24, 0, 0x0e, 2, 5, 0}, 3, 3},
		{"first part too long", []byte{0x24, 0, 0x0e, 2, 1, 0, 0}, 3, 3},
		{"state cut off", []byte{0x25, 0, 0x0e, 2, 0}, 3, 3},
		{"state that the part before does not lead to", []byte{0x25, 0, 0x0e, 2, 0, 2}, 3, 3},
		{"run beyond the end", []byte{0x05, 0, 0b111<<5 | 0b0001<<1 | 1, 0}, 2, 2},
	} {
		var d ints.Decoder
		if used, err := d.Decode(c.src, c.n, make([]int64, c.want)); !errors.Is(err, ints.ErrCorrupt) {
			t.Errorf("%s: used %d, %v", c.name, used, err)
		}
	}
}

// TestAllocations shows that a warm decoder and a warm encoder allocate nothing.
func TestAllocations(t *testing.T) {
	var e ints.Encoder
	var d ints.Decoder
	for _, l := range lists {
		x := l.make(randomness(1), 5760)
		dst := e.Append(nil, x)
		dst = append(dst, make([]byte, 64)...)
		got := make([]int64, len(x))
		if n := testing.AllocsPerRun(10, func() { e.Append(dst[:0], x) }); n != 0 {
			t.Errorf("%s: Append allocates %v times", l.name, n)
		}
		if n := testing.AllocsPerRun(10, func() { d.Decode(dst, len(x), got) }); n != 0 {
			t.Errorf("%s: Decode allocates %v times", l.name, n)
		}
	}
}

// FuzzDecode shows that any bytes decode or are refused without a panic, and that any
// stretch of what decodes is the same.
func FuzzDecode(f *testing.F) {
	var e ints.Encoder
	for i, l := range lists {
		for _, n := range []int{1, 2, 5, 60, 300, 2300} {
			f.Add(e.Append(nil, l.make(randomness(uint64(i)), n)), uint16(n-1))
		}
	}
	var d ints.Decoder
	f.Fuzz(func(t *testing.T, src []byte, count uint16) {
		n := int(count)%4096 + 1
		x := make([]int64, n)
		used, err := d.Decode(src, n, x)
		if err != nil {
			if !errors.Is(err, ints.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if used < 1 || used > len(src) {
			t.Fatalf("used %d of %d bytes", used, len(src))
		}
		part := make([]int64, n/2)
		if _, err := d.Decode(src, n, part); err != nil || !slices.Equal(part, x[:n/2]) {
			t.Fatalf("prefix of %d of %d: %v", n/2, n, err)
		}
		for _, first := range []int{n / 3, n * 3 / 4, n - 1} {
			part := make([]int64, min(n/8+1, n-first))
			if _, err := d.DecodeFrom(src, n, first, part); err != nil || !slices.Equal(part, x[first:first+len(part)]) {
				t.Fatalf("%d of %d from %d on: %v", len(part), n, first, err)
			}
		}
		if n <= 600 {
			checkStream(t, &d, e.Append(nil, x), x)
		}
	})
}

// FuzzRoundTrip shows that any list comes back. Bytes turn into values of different
// widths, as differences or as they are.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("some values"), byte(0))
	f.Add(binary.LittleEndian.AppendUint64(nil, 1<<63), byte(8))
	f.Add(slices.Repeat([]byte{0, 0, 0, 1}, 100), byte(1|16))
	var e ints.Encoder
	var d ints.Decoder
	f.Fuzz(func(t *testing.T, raw []byte, shape byte) {
		width := int(shape&7) + 1
		var x []int64
		var last int64
		for len(raw) >= width {
			var word [8]byte
			copy(word[:], raw[:width])
			raw = raw[width:]
			v := int64(binary.LittleEndian.Uint64(word[:])) << (shape & 8) // any step
			if shape&16 != 0 {
				v += last
			}
			x = append(x, v)
			last = v
		}
		if len(x) == 0 {
			return
		}
		checkStream(t, &d, e.Append(nil, x), x)
	})
}

func ExampleEncoder() {
	var e ints.Encoder
	var d ints.Decoder
	src := e.Append(nil, []int64{100, 115, 130, 145, 161})
	x := make([]int64, 5)
	used, err := d.Decode(src, len(x), x)
	fmt.Println(used == len(src), err, x)
	// Output: true <nil> [100 115 130 145 161]
}
