package chunk_test

import (
	"errors"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"varve/archive/chunk"
)

// TestIteratorSeek shows that any sequence of Next and Seek goes where the contract of
// chunkenc.Iterator says, over a plain model.
func TestIteratorSeek(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c chunk.Column
		require.NoError(t, c.Decode(drawPieces(t, false), math.MinInt64, math.MaxInt64))
		want := columnSamples(&c)
		var it chunk.Iterator
		it.Reset(&c)
		at := -1
		for range 30 {
			var kind chunkenc.ValueType
			if rapid.Bool().Draw(t, "next") {
				kind = it.Next()
				at++
			} else {
				to := rapid.Int64Range(-40, 100).Draw(t, "seek")
				kind = it.Seek(to)
				for at = max(at, 0); at < len(want) && want[at].Time < to; at++ {
				}
			}
			if at = min(at, len(want)); at == len(want) {
				require.Equal(t, chunkenc.ValNone, kind)
				require.NoError(t, it.Err())
				continue
			}
			require.Equal(t, want[at].Kind, kind)
			require.Equal(t, want[at], current(&it, kind))
		}
	})
}

// TestIteratorCopies shows that histograms are copies: the caller may change them, and
// may give an object to fill, whatever it holds.
func TestIteratorCopies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c chunk.Column
		require.NoError(t, c.Decode(drawPieces(t, false), math.MinInt64, math.MaxInt64))
		want := columnSamples(&c)
		h, fh := &histogram.Histogram{Count: 7}, &histogram.FloatHistogram{Count: 7}
		var it chunk.Iterator
		it.Reset(&c)
		for i := 0; ; i++ {
			kind := it.Next()
			if kind == chunkenc.ValNone {
				break
			}
			switch kind {
			case chunkenc.ValFloat:
				_, none := it.AtHistogram(h)
				require.Nil(t, none)
				_, noneFloat := it.AtFloatHistogram(fh)
				require.Nil(t, noneFloat)
			case chunkenc.ValHistogram:
				at, have := it.AtHistogram(h)
				require.Same(t, h, have)
				require.Equal(t, want[i], sample{at, want[i].Start, kind, 0, describe(have), have.CounterResetHint})
				float := have.ToFloat(nil)
				spoil(have.PositiveSpans, have.NegativeSpans, have.PositiveBuckets, have.NegativeBuckets)
				_, haveFloat := it.AtFloatHistogram(fh)
				require.Equal(t, describeFloat(float), describeFloat(haveFloat))
				require.Equal(t, float.CounterResetHint, haveFloat.CounterResetHint)
			case chunkenc.ValFloatHistogram:
				_, none := it.AtHistogram(h)
				require.Nil(t, none)
				at, have := it.AtFloatHistogram(fh)
				require.Same(t, fh, have)
				require.Equal(t, want[i], sample{at, want[i].Start, kind, 0, describeFloat(have), have.CounterResetHint})
				spoil(have.PositiveSpans, have.NegativeSpans, have.PositiveBuckets, have.NegativeBuckets)
			}
		}
		require.Equal(t, want, columnSamples(&c))
	})
}

func spoil[T int64 | float64](positive, negative []histogram.Span, positiveBuckets, negativeBuckets []T) {
	for _, spans := range [][]histogram.Span{positive, negative} {
		for i := range spans {
			spans[i].Length += 5
		}
	}
	for _, buckets := range [][]T{positiveBuckets, negativeBuckets} {
		for i := range buckets {
			buckets[i] += 1000
		}
	}
}

// TestIteratorFails shows that a zero iterator and one that failed are exhausted.
func TestIteratorFails(t *testing.T) {
	var it chunk.Iterator
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.Equal(t, chunkenc.ValNone, it.Seek(0))
	require.NoError(t, it.Err())
	broken := errors.New("broken")
	it.Fail(broken)
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.Equal(t, chunkenc.ValNone, it.Seek(0))
	require.ErrorIs(t, it.Err(), broken)
}
