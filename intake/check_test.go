package intake_test

import (
	"bytes"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/intake"
)

// checkable are chunks of all encodings, with samples at 1000, 1010 and 1020.
func checkable(t testing.TB) map[chunkenc.Encoding][]byte {
	all := map[chunkenc.Encoding][]byte{}
	for _, e := range []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST} {
		c, err := chunkenc.NewEmptyChunk(e)
		require.NoError(t, err)
		app, err := c.Appender()
		require.NoError(t, err)
		for i := range int64(3) {
			switch e {
			case chunkenc.EncXOR, chunkenc.EncXOR2:
				app.Append(i, 1000+i*10, float64(i))
			case chunkenc.EncHistogram, chunkenc.EncHistogramST:
				_, _, app, err = app.AppendHistogram(nil, i, 1000+i*10, tsdbutil.GenerateTestHistogram(i), true)
			default:
				_, _, app, err = app.AppendFloatHistogram(nil, i, 1000+i*10, tsdbutil.GenerateTestFloatHistogram(i), true)
			}
			require.NoError(t, err)
		}
		all[e] = c.Bytes()
	}
	return all
}

// TestChunkCheck shows that chunks of all encodings pass, with the times that they have, and that ones that are cut, or
// claim other times or counts, don't.
func TestChunkCheck(t *testing.T) {
	var k intake.ChunkCheck
	for e, data := range checkable(t) {
		c, err := k.Chunk(e, data, 0, math.MaxInt64)
		require.NoError(t, err, "%s", e)
		require.EqualValues(t, 1000, c.MinMillis)
		require.EqualValues(t, 1020, c.MaxMillis)
		require.Equal(t, 3, c.Chunk.NumSamples())
		for _, span := range [][2]int64{{1001, 2000}, {0, 1019}} {
			_, err = k.Chunk(e, data, span[0], span[1])
			require.ErrorIs(t, err, intake.ErrBadChunk, "%s", e)
		}
		for cut := range len(data) / 2 { // At the end there may be room that no sample uses.
			_, err = k.Chunk(e, data[:cut], 0, math.MaxInt64)
			require.ErrorIs(t, err, intake.ErrBadChunk, "%s cut at %d", e, cut)
		}
		more := bytes.Clone(data)
		more[1] += 100
		_, err = k.Chunk(e, more, 0, math.MaxInt64)
		require.ErrorIs(t, err, intake.ErrBadChunk, "%s", e)
		more[0], more[1] = 0, 0
		_, err = k.Chunk(e, more, 0, math.MaxInt64)
		require.ErrorIs(t, err, intake.ErrBadChunk, "%s", e)
	}
	_, err := k.Chunk(99, []byte{0, 1, 2, 3}, 0, 1)
	require.ErrorIs(t, err, intake.ErrBadChunk)
}

// TestChunkCheckLayouts shows that histograms with custom buckets, odd thresholds and far offsets pass, and that one
// that claims more buckets than it has bits for doesn't, before anybody makes room for them.
func TestChunkCheckLayouts(t *testing.T) {
	of := func(h *histogram.Histogram) []byte {
		c := chunkenc.NewHistogramChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		_, _, _, err = app.AppendHistogram(nil, 0, 5, h, true)
		require.NoError(t, err)
		return c.Bytes()
	}
	var k intake.ChunkCheck
	custom := tsdbutil.GenerateTestCustomBucketsHistogram(3)
	custom.CustomValues = append([]float64{-1.5, 0, 0.001}, custom.CustomValues...)
	odd := tsdbutil.GenerateTestHistogram(3)
	odd.ZeroThreshold = 1.0 / 3
	odd.PositiveSpans[0].Offset = -100000
	odd.PositiveSpans[1].Offset = 4000000
	for _, h := range []*histogram.Histogram{custom, odd, {Sum: 1}} {
		_, err := k.Chunk(chunkenc.EncHistogram, of(h), 5, 5)
		if h == custom {
			// The bounds ascend no more where they were put in front of others.
			require.ErrorContains(t, err, "don't ascend")
			h.CustomValues = h.CustomValues[3:]
			_, err = k.Chunk(chunkenc.EncHistogram, of(h), 5, 5)
		}
		require.NoError(t, err)
	}
	// Head, threshold (1 byte), schema 1 (5 bits: 10 001), one span (10 001), length 2^32-1 (11111110, 56 bits).
	huge := []byte{0, 1, 0, 0, 0b10001_100, 0b01_111111, 0b10_000000, 0, 0, 0b00_111111, 0xff, 0xff, 0xff, 0b11_000000, 0, 0, 0, 0}
	_, err := k.Chunk(chunkenc.EncHistogram, huge, 0, 10)
	require.ErrorContains(t, err, "4294967295 buckets in")
}

// FuzzChunkCheck shows that no bytes make the check panic or take long, and that what it lets through decodes as it says.
func FuzzChunkCheck(f *testing.F) {
	for e, data := range checkable(f) {
		f.Add(byte(e), data)
	}
	f.Fuzz(func(t *testing.T, e byte, data []byte) {
		var k intake.ChunkCheck
		c, err := k.Chunk(chunkenc.Encoding(e), data, math.MinInt64, math.MaxInt64)
		if err != nil {
			require.ErrorIs(t, err, intake.ErrBadChunk)
			return
		}
		n, it := 0, c.Chunk.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			n++
			require.GreaterOrEqual(t, it.AtT(), c.MinMillis)
			require.LessOrEqual(t, it.AtT(), c.MaxMillis)
		}
		require.NoError(t, it.Err())
		require.Equal(t, c.Chunk.NumSamples(), n)
	})
}
