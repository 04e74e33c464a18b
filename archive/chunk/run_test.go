package chunk_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/archive/chunk"
)

// ExampleAppendRun is the worked example of docs/format/run.md: three floats, and
// then a histogram with a start timestamp.
func ExampleAppendRun() {
	times := []int64{1_700_000_000_000, 1_700_000_015_000, 1_700_000_030_001}
	values := []uint64{math.Float64bits(1), math.Float64bits(1), math.Float64bits(1.5)}
	pieces := []chunk.Piece{{
		Encoding: chunkenc.EncXOR, Samples: 3, MinMillis: times[0], MaxMillis: times[2],
		Data: chunk.AppendXOR(nil, times, values),
	}}
	var rare chunk.RareBuilder
	if err := rare.AppendHistogram(1_700_000_045_000, 1_699_999_999_000, &histogram.Histogram{Count: 3, Sum: 2, ZeroCount: 3}); err != nil {
		panic(err)
	}
	pieces = rare.Pieces(pieces)

	key := []byte("a key")
	run := chunk.AppendRun(nil, key, 300, pieces)
	fmt.Printf("% x\n", run[:4])
	fmt.Printf("% x | % x\n", run[4:9], pieces[0].Data)
	rest := run[9+len(pieces[0].Data):]
	fmt.Printf("% x | % x\n", rest[:len(rest)-4-len(pieces[1].Data)], pieces[1].Data)
	fmt.Printf("% x\n", rest[len(rest)-4:])

	first, parsed, err := chunk.ParseRun(key, run, nil)
	fmt.Println(first, err)
	for _, p := range parsed {
		fmt.Println(p.Encoding, p.Samples, p.MinMillis, p.MaxMillis)
	}
	// Output:
	// 01 ac 02 02
	// 01 16 b1 ea 01 | 00 03 80 a0 ab fe f9 62 3f f0 00 00 00 00 00 00 98 75 40 00 ec 06
	// 05 19 ae ea 01 00 | 00 01 80 00 1f c0 00 31 79 fc c2 f9 13 9a 00 00 00 00 00 00 00 07 06 70 28
	// ad f2 0e 70
	// 300 <nil>
	// XOR 3 1700000000000 1700000030001
	// histogramST 1 1700000045000 1700000045000
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed appends the checksum that makes a body a run.
func sealed(key, body []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
	return binary.BigEndian.AppendUint32(slices.Clone(body), sum)
}

// TestRunRoundTrip shows that ParseRun returns what AppendRun was given, into the same
// memory, behind whatever stood in the buffer.
func TestRunRoundTrip(t *testing.T) {
	var memory []chunk.Piece
	rapid.Check(t, func(t *rapid.T) {
		pieces := drawPieces(t, false)
		for range rapid.IntRange(0, 2).Draw(t, "wide") {
			n := rapid.IntRange(1, 9).Draw(t, "n")
			pieces = append(pieces, floatPiece(drawTimes(t, n), drawValues(t, n)))
		}
		if len(pieces) == 0 {
			t.Skip("a run has a piece")
		}
		key := rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "key")
		first := rapid.Uint64().Draw(t, "first")
		run := chunk.AppendRun([]byte("before"), key, first, pieces)
		require.Equal(t, "before", string(run[:6]))
		have, parsed, err := chunk.ParseRun(key, run[6:], memory)
		require.NoError(t, err)
		require.Equal(t, first, have)
		require.Equal(t, pieces, parsed)
		memory = parsed
	})
}

// TestRunFlippedBits shows that a flip of any one bit, and the loss of any bytes at the
// end, of run or key is noticed.
func TestRunFlippedBits(t *testing.T) {
	var b chunk.RareBuilder
	require.NoError(t, b.AppendHistogram(5, 2, &histogram.Histogram{Count: 3, Sum: 2, ZeroCount: 3}))
	pieces := b.Pieces([]chunk.Piece{floatPiece([]int64{1, 2, 9}, []uint64{1, 2, 3})})
	key := []byte("the key it is stored under")
	run := chunk.AppendRun(nil, key, 77, pieces)
	parse := func() error {
		first, pieces, err := chunk.ParseRun(key, run, nil)
		if err != nil {
			require.Zero(t, first)
			require.Empty(t, pieces)
		}
		return err
	}
	require.NoError(t, parse())
	for _, bytes := range [][]byte{run, key} {
		for bit := range 8 * len(bytes) {
			bytes[bit/8] ^= 1 << (bit % 8)
			require.ErrorIs(t, parse(), chunk.ErrCorrupt)
			bytes[bit/8] ^= 1 << (bit % 8)
		}
	}
	whole := run
	for k := range whole {
		run = whole[:k]
		require.ErrorIs(t, parse(), chunk.ErrCorrupt)
	}
}

// TestRunStructure shows what a run with a right checksum may still not be.
func TestRunStructure(t *testing.T) {
	key := []byte("key")
	xor := chunk.AppendXOR(nil, []int64{5, 8}, []uint64{1, 1})
	piece := slices.Concat([]byte{1, byte(len(xor)), 3}, xor)
	f := func(want error, body ...[]byte) {
		t.Helper()
		first, pieces, err := chunk.ParseRun(key, sealed(key, slices.Concat(body...)), nil)
		if want == nil {
			require.NoError(t, err)
			require.Equal(t, uint64(9), first)
			require.NotEmpty(t, pieces)
			return
		}
		require.ErrorIs(t, err, want)
		require.Empty(t, pieces)
	}
	f(nil, []byte{1, 9, 1}, piece)
	f(nil, []byte{1, 9, 2}, piece, piece)
	f(chunk.ErrVersion, []byte{2, 9, 1}, piece)
	f(chunk.ErrVersion, []byte{0, 9, 1}, piece)
	f(chunk.ErrVersion, []byte{1, 9, 1}, []byte{7}, piece[1:])
	f(chunk.ErrVersion, []byte{1, 9, 1}, []byte{0}, piece[1:])
	f(chunk.ErrCorrupt, []byte{1})
	f(chunk.ErrCorrupt, []byte{1, 9})
	f(chunk.ErrCorrupt, []byte{1, 9, 0})
	f(chunk.ErrCorrupt, []byte{1, 9, 0}, piece)
	f(chunk.ErrCorrupt, []byte{1, 9, 2}, piece)
	f(chunk.ErrCorrupt, []byte{1, 9, 1}, piece, []byte{0})
	f(chunk.ErrCorrupt, []byte{1, 9, 1}, piece[:len(piece)-1])
	f(chunk.ErrCorrupt, []byte{1, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, piece)
	f(chunk.ErrCorrupt, []byte{1, 9, 1, 1, byte(len(xor)), 0}, xor)                 // two samples at one time
	f(chunk.ErrCorrupt, []byte{1, 9, 1, 1, 1, 0, 9, 9, 9, 9, 9})                    // no room for a header
	f(chunk.ErrCorrupt, []byte{1, 9, 1, 1, 3, 0}, []byte{0, 0, 0}, []byte{9, 9, 9}) // no samples
	f(chunk.ErrCorrupt, []byte{1, 9, 1, 1, 3, 7}, []byte{0, 1, 0})                  // one sample that spans time
	f(chunk.ErrCorrupt, []byte{1, 9, 1, 1, 3, 1}, []byte{0, 3, 0})                  // three samples in two milliseconds
	f(chunk.ErrCorrupt, []byte{1, 9, 1, 1, 12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		binary.AppendVarint([]byte{0, 2}, math.MaxInt64)) // ends before it begins
}

// TestRunVersion pins the bytes of every version that was ever written. A change here
// is a change of the format: add a version instead.
func TestRunVersion(t *testing.T) {
	want := []chunk.Piece{
		{Encoding: chunkenc.EncXOR, Samples: 2, MinMillis: 5, MaxMillis: 8, Data: []byte{0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0}},
	}
	v1 := []byte{1, 9, 1, 1, 13, 3, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0}
	v1 = sealed([]byte("key"), v1)
	first, pieces, err := chunk.ParseRun([]byte("key"), v1, nil)
	require.NoError(t, err)
	require.Equal(t, uint64(9), first)
	require.Equal(t, want, pieces)
	require.Equal(t, v1, chunk.AppendRun(nil, []byte("key"), 9, want))

	// Upstream's numbers are on disk.
	require.Equal(t, [...]chunkenc.Encoding{1, 2, 3, 4, 5, 6}, [...]chunkenc.Encoding{
		chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram,
		chunkenc.EncXOR2, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST,
	})
}

// FuzzRun shows that no bytes make ParseRun or Column.Decode panic or take memory out
// of proportion, even with a right checksum; and that what they accept can be written
// and read again.
func FuzzRun(f *testing.F) {
	key := []byte("key")
	seed := func(pieces ...chunk.Piece) {
		run := chunk.AppendRun(nil, key, 5, pieces)
		f.Add(run[:len(run)-4])
	}
	floats := floatPiece([]int64{1000, 2000, 3001}, []uint64{1, 1, math.Float64bits(1)})
	seed(floats)
	seed(floats, floatPiece([]int64{1500, 2000}, []uint64{3, 4}))
	for _, start := range []int64{0, 7} {
		var b chunk.RareBuilder
		for i := range int64(4) {
			b.AppendFloat(1000+i, start*i, uint64(i))
			h := &histogram.Histogram{
				Count: uint64(i), Sum: 1, PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}}, PositiveBuckets: []int64{i, 0},
				NegativeSpans: []histogram.Span{{Offset: 2, Length: 1}}, NegativeBuckets: []int64{i},
			}
			require.NoError(f, b.AppendHistogram(2000+i, start, h))
			require.NoError(f, b.AppendFloatHistogram(1999+i, start, h.ToFloat(nil)))
		}
		seed(b.Pieces(nil)...)
		for _, p := range b.Pieces(nil) {
			seed(p, floats)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		first, pieces, err := chunk.ParseRun(key, sealed(key, body), nil)
		if err != nil {
			require.Empty(t, pieces)
			return
		}
		require.LessOrEqual(t, len(pieces), len(body))
		run := chunk.AppendRun(nil, key, first, pieces)
		again, same, err := chunk.ParseRun(key, run, nil)
		require.NoError(t, err)
		require.Equal(t, first, again)
		require.Equal(t, pieces, same)

		var c chunk.Column
		err = c.Decode(pieces, math.MinInt64, math.MaxInt64)
		// A bit may stand for a bucket of 8 bytes, half a byte for a sample.
		require.LessOrEqual(t, c.Bytes(), 2000*len(body)+10_000)
		if err != nil {
			require.ErrorIs(t, err, chunk.ErrCorrupt)
			return
		}
		if len(body) < 300 { // Spelling out thousands of long histograms would take all of the time.
			require.Equal(t, merged(pieces), columnSamples(&c))
		}
		metas, err := c.Chunks(nil)
		require.NoError(t, err)
		samples := 0
		for _, m := range metas {
			samples += m.Chunk.NumSamples()
		}
		require.Equal(t, len(c.Times), samples)
		c.Thin(0, math.MaxInt64, 1<<50, 5000)
	})
}
