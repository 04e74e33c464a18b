package chunk_test

import (
	"math"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/archive/chunk"
)

// drawPieces draws the pieces of a series in order of arrival, over few times so that
// they overlap and collide.
func drawPieces(t *rapid.T, onlyFloats bool) []chunk.Piece {
	var pieces []chunk.Piece
	ascending := rapid.Bool().Draw(t, "mostly ascending")
	next := int64(-20)
	for range rapid.IntRange(0, 8).Draw(t, "pieces") {
		if !onlyFloats && rapid.Bool().Draw(t, "rare") {
			var b chunk.RareBuilder
			for _, a := range drawArrivals(t, rapid.IntRange(1, 12).Draw(t, "n")) {
				if err := a.addTo(&b); err != nil {
					t.Fatal(err)
				}
			}
			pieces = b.Pieces(pieces)
			continue
		}
		n := rapid.IntRange(1, 12).Draw(t, "n")
		if !ascending || rapid.IntRange(0, 9).Draw(t, "late") == 0 {
			next = rapid.Int64Range(-20, 60).Draw(t, "begin")
		}
		var times []int64
		for range n {
			next += rapid.Int64Range(1, 4).Draw(t, "step")
			times = append(times, next)
		}
		pieces = append(pieces, floatPiece(times, drawValues(t, n)))
	}
	return pieces
}

func floatPiece(times []int64, values []uint64) chunk.Piece {
	return chunk.Piece{
		Encoding: chunkenc.EncXOR, Samples: len(times), MinMillis: times[0], MaxMillis: times[len(times)-1],
		Data: chunk.AppendXOR(nil, times, values),
	}
}

// merged is the plain model of Column.Decode over all of time: what upstream's
// iterators read, the last arrival at each time, and a hint only where the sample
// before is the one before in the same piece.
func merged(pieces []chunk.Piece) []sample {
	type origin struct{ piece, index int }
	latest := map[int64]origin{}
	samples := make([][]sample, len(pieces))
	for i, p := range pieces {
		samples[i] = upstreamSamples(p)
		for k, s := range samples[i] {
			latest[s.Time] = origin{i, k}
		}
	}
	var times []int64
	for t := range latest {
		times = append(times, t)
	}
	slices.Sort(times)
	var out []sample
	for i, t := range times {
		o := latest[t]
		s := samples[o.piece][o.index]
		follows := i > 0 && latest[times[i-1]] == origin{o.piece, o.index - 1}
		if s.Hint != histogram.GaugeType && !follows {
			s.Hint = histogram.UnknownCounterReset
		}
		out = append(out, s)
	}
	return out
}

func between(samples []sample, mint, maxt int64) []sample {
	var out []sample
	for _, s := range samples {
		if s.Time >= mint && s.Time <= maxt {
			out = append(out, s)
		}
	}
	return out
}

// TestColumnIsTheModel shows that a Column, used again and again, is what the plain
// model says for any bounds, hints included, for floats alone and for mixed kinds.
func TestColumnIsTheModel(t *testing.T) {
	for _, onlyFloats := range []bool{true, false} {
		var c chunk.Column
		rapid.Check(t, func(t *rapid.T) {
			pieces := drawPieces(t, onlyFloats)
			want := merged(pieces)
			for range 4 {
				mint := rapid.Int64Range(-30, 80).Draw(t, "mint")
				maxt := rapid.Int64Range(-30, 80).Draw(t, "maxt")
				if rapid.IntRange(0, 4).Draw(t, "unbounded") == 0 {
					mint, maxt = math.MinInt64, math.MaxInt64
				}
				require.NoError(t, c.Decode(pieces, mint, maxt))
				expected := between(want, mint, maxt)
				require.Equal(t, expected, columnSamples(&c))
				requireTidy(t, &c, expected)
			}
		})
	}
}

// requireTidy holds the column's slices against its documentation.
func requireTidy(t require.TestingT, c *chunk.Column, want []sample) {
	require.Len(t, c.Times, len(want))
	require.Len(t, c.Values, len(want))
	if slices.ContainsFunc(want, func(s sample) bool { return s.Start != 0 }) {
		require.Len(t, c.Starts, len(want))
	} else {
		require.Nil(t, c.Starts)
	}
	if slices.ContainsFunc(want, func(s sample) bool { return s.Kind != chunkenc.ValFloat }) {
		require.Len(t, c.Kinds, len(want))
	} else {
		require.Nil(t, c.Kinds)
	}
	require.GreaterOrEqual(t, c.Bytes(), 16*len(want))
}

// TestColumnWideTimes shows that floats come back over all of int64.
func TestColumnWideTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var pieces []chunk.Piece
		for range rapid.IntRange(1, 5).Draw(t, "pieces") {
			n := rapid.IntRange(1, 30).Draw(t, "n")
			pieces = append(pieces, floatPiece(drawTimes(t, n), drawValues(t, n)))
		}
		var c chunk.Column
		require.NoError(t, c.Decode(pieces, math.MinInt64, math.MaxInt64))
		want := merged(pieces)
		require.Equal(t, want, columnSamples(&c))
		mint, maxt := rapid.Int64().Draw(t, "mint"), rapid.Int64().Draw(t, "maxt")
		require.NoError(t, c.Decode(pieces, mint, maxt))
		require.Equal(t, between(want, mint, maxt), columnSamples(&c))
	})
}

// TestColumnHintsAreTheHeads shows that a series of histograms that arrives in order
// yields the hints that upstream's own chunks of the same samples yield.
func TestColumnHintsAreTheHeads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g histograms
		var b chunk.RareBuilder
		list := chunks.Meta{Chunk: chunkenc.NewHistogramChunk()}
		app, err := list.Chunk.Appender()
		require.NoError(t, err)
		var upstream []sample
		flush := func() { upstream = append(upstream, collect(list.Chunk.Iterator(nil))...) }
		for i := range rapid.IntRange(1, 60).Draw(t, "n") {
			h := g.draw(t)
			// Upstream recodes when the spans change; that case is left out here.
			h.PositiveSpans, h.PositiveBuckets = spanSets[0], []int64{g.counts[0], g.counts[1] - g.counts[0]}
			h.NegativeSpans, h.NegativeBuckets = nil, nil
			require.NoError(t, b.AppendHistogram(int64(i), 0, h.Copy()))
			next, recoded, nextApp, err := app.AppendHistogram(nil, 0, int64(i), h, false)
			require.NoError(t, err)
			require.False(t, recoded)
			if app = nextApp; next != nil {
				flush()
				list.Chunk = next
			}
		}
		flush()
		var c chunk.Column
		require.NoError(t, c.Decode(b.Pieces(nil), math.MinInt64, math.MaxInt64))
		require.Equal(t, upstream, columnSamples(&c))
	})
}

// TestColumnHintAtMint shows that the hint of the first sample from mint on takes the
// pieces before mint into account, though they aren't decoded.
func TestColumnHintAtMint(t *testing.T) {
	growing := func() chunk.Piece {
		var b chunk.RareBuilder
		for i := range int64(4) {
			require.NoError(t, b.AppendHistogram(10+10*i, 0, &histogram.Histogram{Count: uint64(i)}))
		}
		return b.Pieces(nil)[0]
	}()
	at := func(times ...int64) chunk.Piece { return floatPiece(times, make([]uint64, len(times))) }
	f := func(want histogram.CounterResetHint, pieces ...chunk.Piece) {
		t.Helper()
		var c chunk.Column
		require.NoError(t, c.Decode(pieces, 25, math.MaxInt64))
		have := columnSamples(&c)
		require.Equal(t, want, have[0].Hint)
		require.Equal(t, between(merged(pieces), 25, math.MaxInt64), have)
	}
	f(histogram.NotCounterReset, growing)
	f(histogram.NotCounterReset, at(15), growing, at(15))
	f(histogram.NotCounterReset, at(1, 20), growing)
	f(histogram.NotCounterReset, at(20), at(20), growing)
	f(histogram.UnknownCounterReset, growing, at(20))
	f(histogram.UnknownCounterReset, at(20), growing, at(1, 20))
	f(histogram.UnknownCounterReset, growing, at(20), at(7))
	f(histogram.UnknownCounterReset, at(22), growing)
	f(histogram.UnknownCounterReset, growing, at(24))
	f(histogram.UnknownCounterReset, growing, at(24, 25, 26))
	f(histogram.UnknownCounterReset, at(1, 5, 9), growing, at(22))
}

// TestColumnRefusesLies shows that a piece which says other bounds or another count
// than its samples have is corrupt, whatever its encoding, and leaves nothing behind.
func TestColumnRefusesLies(t *testing.T) {
	var b chunk.RareBuilder
	for i := range int64(5) {
		b.AppendFloat(100+i, 50, 7)
	}
	for i := range int64(5) {
		require.NoError(t, b.AppendHistogram(200+i, 0, &histogram.Histogram{Count: 1}))
	}
	for i := range int64(5) {
		require.NoError(t, b.AppendFloatHistogram(300+i, 9, &histogram.FloatHistogram{Count: 1}))
	}
	pieces := append(b.Pieces(nil), floatPiece([]int64{1, 2, 3, 4, 5}, make([]uint64, 5)))
	require.Len(t, pieces, 4)
	var c chunk.Column
	f := func(lie func(p *chunk.Piece)) {
		t.Helper()
		for i := range pieces {
			all := slices.Clone(pieces)
			lie(&all[i])
			require.ErrorIs(t, c.Decode(all, math.MinInt64, math.MaxInt64), chunk.ErrCorrupt, "%s", pieces[i].Encoding)
			require.Empty(t, c.Times)
			require.Empty(t, columnSamples(&c))
		}
	}
	f(func(p *chunk.Piece) { p.Samples++ })
	f(func(p *chunk.Piece) { p.Samples-- })
	f(func(p *chunk.Piece) { p.Samples = -1 << 40 })
	f(func(p *chunk.Piece) { p.MinMillis++ })
	f(func(p *chunk.Piece) { p.MaxMillis-- })
	f(func(p *chunk.Piece) { p.Data = p.Data[:len(p.Data)/2] })
	f(func(p *chunk.Piece) { p.Data = nil })
	f(func(p *chunk.Piece) { p.Encoding = 99 })
	f(func(p *chunk.Piece) { p.Encoding = chunkenc.EncNone })
	require.NoError(t, c.Decode(pieces, math.MinInt64, math.MaxInt64))
	require.Len(t, columnSamples(&c), 20)
}

// TestColumnHugeBuckets shows that a histogram chunk whose spans promise billions of
// buckets is refused before room is made for them.
func TestColumnHugeBuckets(t *testing.T) {
	var b chunk.RareBuilder
	require.NoError(t, b.AppendHistogram(1, 0, &histogram.Histogram{Count: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{1}}))
	p := b.Pieces(nil)[0]
	// Threshold 0, schema 0, one span whose length takes the code of 56 bits.
	p.Data = append([]byte{0, 1, 0, 0, 0b0_10_001_11, 0b111110_00, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 40)...)
	var c chunk.Column
	err := c.Decode([]chunk.Piece{p}, math.MinInt64, math.MaxInt64)
	require.ErrorIs(t, err, chunk.ErrCorrupt)
	require.ErrorContains(t, err, "buckets in")
}

// TestColumnUnknownSchema shows that a chunk with a schema which no builder takes is
// refused. Upstream's iterator would reduce its resolution, or panic.
func TestColumnUnknownSchema(t *testing.T) {
	for _, schema := range []int32{9, 52, -5, 100} {
		c := chunkenc.NewHistogramChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		_, _, _, err = app.AppendHistogram(nil, 0, 1, &histogram.Histogram{Schema: schema}, true)
		require.NoError(t, err)
		var column chunk.Column
		p := chunk.Piece{Encoding: chunkenc.EncHistogram, Samples: 1, MinMillis: 1, MaxMillis: 1, Data: c.Bytes()}
		require.ErrorIs(t, column.Decode([]chunk.Piece{p}, 0, 9), chunk.ErrCorrupt)
	}
}

// TestChunksAreTheColumn shows that the chunks of a column hold its samples, at most
// 120 each, in order, without overlap, and with headers that claim nothing false.
func TestChunksAreTheColumn(t *testing.T) {
	for _, onlyFloats := range []bool{true, false} {
		rapid.Check(t, func(t *rapid.T) {
			var c chunk.Column
			require.NoError(t, c.Decode(drawPieces(t, onlyFloats), math.MinInt64, math.MaxInt64))
			metas, err := c.Chunks(nil)
			require.NoError(t, err)
			want := columnSamples(&c)
			var have []sample
			for _, m := range metas {
				require.LessOrEqual(t, m.Chunk.NumSamples(), 120)
				samples := collect(m.Chunk.Iterator(nil))
				require.Equal(t, samples[0].Time, m.MinTime)
				require.Equal(t, samples[len(samples)-1].Time, m.MaxTime)
				have = append(have, samples...)
			}
			for i := range want {
				if want[i].Hint != histogram.GaugeType { // Recoding finds out more or less of these.
					want[i].Hint, have[i].Hint = 0, 0
				}
			}
			require.Equal(t, want, have)
		})
	}
}

// TestChunksLong shows that a long plain column is cut at 120 samples.
func TestChunksLong(t *testing.T) {
	times, values := make([]int64, 1000), make([]uint64, 1000)
	for i := range times {
		times[i], values[i] = int64(i)*15000, math.Float64bits(float64(i))
	}
	var c chunk.Column
	require.NoError(t, c.Decode([]chunk.Piece{floatPiece(times, values)}, 0, math.MaxInt64))
	metas, err := c.Chunks(nil)
	require.NoError(t, err)
	require.Len(t, metas, 9)
	require.Equal(t, upstreamXOR(times[:120], values[:120]), metas[0].Chunk.Bytes())
	require.Equal(t, 40, metas[8].Chunk.NumSamples())
}

// TestChunksKeepAResetThatWasSaid shows that a reset which only the sender knew of is
// in the header of a recoded chunk, and is not claimed where another sample came
// between.
func TestChunksKeepAResetThatWasSaid(t *testing.T) {
	var b chunk.RareBuilder
	grow := func(at int64, count uint64, hint histogram.CounterResetHint) {
		require.NoError(t, b.AppendHistogram(at, 0, &histogram.Histogram{Count: count, CounterResetHint: hint}))
	}
	grow(1000, 1, histogram.UnknownCounterReset)
	grow(3000, 5, histogram.CounterReset)
	pieces := b.Pieces(nil)
	require.Len(t, pieces, 2)

	headers := func(pieces []chunk.Piece) (out []chunkenc.CounterResetHeader) {
		var c chunk.Column
		require.NoError(t, c.Decode(pieces, 0, 9999))
		metas, err := c.Chunks(nil)
		require.NoError(t, err)
		for _, m := range metas {
			out = append(out, counterReset(chunk.Piece{Encoding: m.Chunk.Encoding(), Data: m.Chunk.Bytes()}))
		}
		return out
	}
	require.Equal(t, []chunkenc.CounterResetHeader{chunkenc.UnknownCounterReset, chunkenc.CounterReset}, headers(pieces))

	b.Reset()
	grow(2000, 2, histogram.UnknownCounterReset)
	require.Equal(t, []chunkenc.CounterResetHeader{chunkenc.UnknownCounterReset}, headers(b.Pieces(pieces)))
}

// TestNoAllocations shows that reading floats takes no memory once the buffers have
// grown, late samples and thinning included.
func TestNoAllocations(t *testing.T) {
	times, values := make([]int64, 240), make([]uint64, 240)
	for i := range times {
		times[i], values[i] = int64(i)*15000, math.Float64bits(float64(i*i))
	}
	key := []byte("key")
	run := chunk.AppendRun(nil, key, 1, []chunk.Piece{floatPiece(times[:120], values[:120]), floatPiece(times[120:], values[120:])})
	late := floatPiece([]int64{777, 778}, []uint64{1, 2})
	var c chunk.Column
	var it chunk.Iterator
	var pieces []chunk.Piece
	var buf []byte
	f := func(name string, read func()) {
		read()
		require.Zero(t, testing.AllocsPerRun(10, read), name)
	}
	f("append", func() { buf = chunk.AppendXOR(buf[:0], times, values) })
	f("in order", func() {
		_, pieces, _ = chunk.ParseRun(key, run, pieces)
		if c.Decode(pieces, 20000, math.MaxInt64) != nil || len(c.Times) != 238 {
			panic("decode")
		}
		c.Thin(0, math.MaxInt64, 60000, 300000)
		it.Reset(&c)
		for it.Seek(30000); it.Next() != chunkenc.ValNone; {
			it.At()
		}
	})
	f("with late samples", func() {
		_, pieces, _ = chunk.ParseRun(key, run, pieces)
		pieces = append(pieces, late)
		if c.Decode(pieces, math.MinInt64, math.MaxInt64) != nil || len(c.Times) != 242 {
			panic("decode")
		}
	})
}
