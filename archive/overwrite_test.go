package archive_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/internal/testkit"
)

// floats is a batch of one row.
func floats(ref storage.SeriesRef, times []int64, values ...float64) *arrival.Batch {
	b := &arrival.Batch{Rows: []arrival.Row{{Ref: ref, Count: uint32(len(times))}}, Times: times}
	for _, v := range values {
		b.Values = append(b.Values, math.Float64bits(v))
	}
	return b
}

// TestRejectOverwrites brings another value for samples that lie in every place where
// a sample can be: the tail, a coded piece, a run on its way, a run on disk, and the
// same request.
func TestRejectOverwrites(t *testing.T) {
	dir := t.TempDir()
	o := options()
	o.RejectOverwrites = true
	a := testkit.Open(t, dir, o)
	send := func(b *arrival.Batch) arrival.Result {
		t.Helper()
		res, err := a.Write(context.Background(), b)
		require.NoError(t, err)
		return res
	}
	refused := func(b *arrival.Batch, stored, overwrites int) {
		t.Helper()
		res := send(b)
		require.Equal(t, stored, res.Samples+res.Histograms, "stored")
		require.Equal(t, overwrites, res.Rejected[arrival.ReasonOverwrite], "refused")
		require.Equal(t, overwrites, res.Rejected.Total())
		require.Equal(t, overwrites > 0, strings.HasPrefix(res.Example, "overwrite: {"), res.Example)
	}
	ref := resolve(t, a, seriesLabels(1))
	// 50 samples are two coded pieces and a tail.
	var times []int64
	var values []float64
	for i := range 50 {
		times, values = append(times, day0+int64(i)*15_000), append(values, float64(i))
	}
	refused(floats(ref, times, values...), 50, 0)

	everywhere := func(when string) {
		t.Helper()
		for _, i := range []int{0, 10, 30, 49} {
			refused(floats(ref, []int64{times[i]}, values[i]), 1, 0)          // the same again
			refused(floats(ref, []int64{times[i]}, -1), 0, 1)                 // another value
			refused(floats(ref, []int64{times[i]}, math.NaN()), 0, 1)         // of another kind
			refused(histograms(ref, 3, times[i]), 0, 1)                       // a histogram there
			refused(floats(ref, []int64{times[i] - 86400_000}, -1), 1, 0)     // a day where nothing is
			refused(floats(ref, []int64{times[i] - 86400_000}, -2), 0, 1)     // and now something is
			refused(floats(ref, []int64{times[i] - 86400_000}, -1), 1, 0)     // the same
			refused(floats(ref, []int64{times[i] - 1, times[i]}, 7, 8), 1, 1) // one of two
			refused(floats(ref, []int64{times[i] - 1}, 7), 1, 0)
			require.Equal(t, values[i], valueAt(t, a, 1, times[i]), when)
		}
		shift := func(ts []int64) {
			for i := range ts {
				ts[i] += 50 * 15_000
			}
		}
		// The next round needs times where nothing is.
		shift(times)
		refused(floats(ref, append([]int64(nil), times...), values...), 50, 0)
	}
	everywhere("in memory")
	require.NoError(t, a.Maintain(true))
	everywhere("on disk")
	require.NoError(t, a.Maintain(true))
	require.NoError(t, a.Close())
	a = testkit.Open(t, dir, o)
	<-a.Started()
	everywhere("after a start")

	// Twice in one request: the first stays.
	refused(floats(ref, []int64{day0 + 40_000_000, day0 + 40_000_000}, 1, 2), 1, 1)
	require.Equal(t, 1.0, valueAt(t, a, 1, day0+40_000_000))
	// In two rows of one request, of which the first is new by itself.
	b := floats(ref, []int64{day0 + 41_000_000, day0 + 41_000_000}, 1, 2)
	b.Rows = []arrival.Row{{Ref: ref, Count: 1}, {Ref: ref, First: 1, Count: 1}}
	refused(b, 1, 1)

	// Histograms of a series of their own.
	other := resolve(t, a, seriesLabels(2))
	refused(histograms(other, 1, day0), 1, 0)
	refused(histograms(other, 1, day0), 1, 0)
	refused(histograms(other, 2, day0), 0, 1)
	refused(floats(other, []int64{day0}, 1), 0, 1)
	require.NoError(t, a.Maintain(true))
	refused(histograms(other, 2, day0), 0, 1)
	refused(histograms(other, 2, day0+1, day0+1), 2, 0)
}

func histograms(ref storage.SeriesRef, i int64, times ...int64) *arrival.Batch {
	b := &arrival.Batch{Rows: []arrival.Row{{Ref: ref}}}
	for _, ts := range times {
		b.Histograms = append(b.Histograms, arrival.Histogram{TimeMillis: ts, Int: tsdbutil.GenerateTestHistogram(i)})
	}
	return b
}

// valueAt is the float sample of the series at a time.
func valueAt(t testing.TB, a *archive.Archive, series int, at int64) float64 {
	t.Helper()
	q, err := a.Querier(at, at)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "i", fmt.Sprint(series)))
	require.True(t, set.Next(), "no series")
	it := set.At().Iterator(nil)
	require.Equal(t, chunkenc.ValFloat, it.Next())
	_, v := it.At()
	return v
}

// TestRejectOverwritesOfTwoWriters: of several who send different values for the same
// sample at once exactly one is heard.
func TestRejectOverwritesOfTwoWriters(t *testing.T) {
	o := options()
	o.RejectOverwrites = true
	a := testkit.Open(t, t.TempDir(), o)
	ref := resolve(t, a, seriesLabels(1))
	for round := range 50 {
		var wg sync.WaitGroup
		stored := make([]int, 4)
		for w := range stored {
			wg.Go(func() {
				res, err := a.Write(context.Background(), floats(ref, []int64{day0 + int64(round)*1000}, float64(w)))
				if err == nil {
					stored[w] = res.Samples
				}
			})
		}
		wg.Wait()
		total := 0
		for w, n := range stored {
			if total += n; n == 1 {
				require.Equal(t, float64(w), valueAt(t, a, 1, day0+int64(round)*1000))
			}
		}
		require.Equal(t, 1, total)
	}
}
