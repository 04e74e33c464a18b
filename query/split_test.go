package query_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/query"
)

// All parts share one view and one Select for each selector; without a view each
// part opens a querier.
func TestSharedView(t *testing.T) {
	o := query.Options{Parts: 3}
	o.ForceSplit()
	e := newEngine(t, o)
	for _, test := range []struct {
		see              func(storage.Queryable) storage.Queryable
		selects, thinned int64
	}{{asIs, 2, 1}, {hideThin, 2, 0}, {hideView, 6, 0}} {
		store := hour()
		var mu sync.Mutex
		var hints []storage.SelectHints
		store.hook = func(_ context.Context, h *storage.SelectHints) error {
			mu.Lock()
			defer mu.Unlock()
			hints = append(hints, *h)
			return nil
		}
		q := newRange(t, e, test.see(store), "sum by (host) (a) + avg by (host) (rate(a[2m] offset 1m))")
		require.NoError(t, q.Exec(t.Context()).Err)
		require.Equal(t, test.selects, store.selects.Load())
		require.Equal(t, test.thinned, store.thinned.Load())
		require.Zero(t, store.queriers.Load())
		if test.selects == 2 {
			slices.SortFunc(hints, func(a, b storage.SelectHints) int { return int(a.Range - b.Range) })
			require.Equal(t, []storage.SelectHints{
				{Start: -lookback.Milliseconds() + 1, End: 3_600_000, Step: 60_000, Func: "sum", By: true, Grouping: []string{"host"}},
				{Start: -180_000 + 1, End: 3_540_000, Step: 60_000, Func: "rate", Range: 120_000},
			}, hints, "the hints are those of the whole query")
		}
	}
}

// A storage is told the exact points at which plain selectors are evaluated, and
// none for those where it would not be exact.
func TestThinning(t *testing.T) {
	type points [3]int64
	for _, test := range []struct {
		text string
		want []points
	}{
		{"a", []points{{0, 3_600_000, 60_000}}},
		{"a offset 90s", []points{{-90_000, 3_510_000, 60_000}}},
		{"a offset -90s", []points{{90_000, 3_690_000, 60_000}}},
		{"timestamp(a)", []points{{0, 3_600_000, 60_000}}},
		{"sum_over_time(a[5m:40s])", []points{{-280_000, 3_600_000, 40_000}}},
		{"sum_over_time((a offset 90s)[5m:40s] offset -2m)", []points{{-160_000 - 90_000, 3_720_000 - 90_000, 40_000}}},
		{"max_over_time(max_over_time(a[2m:20s])[5m:])", []points{{-240_000 - 100_000, 3_600_000, 20_000}}},
		{"a + sum(a)", []points{{0, 3_600_000, 60_000}, {0, 3_600_000, 60_000}}},
		{"rate(a[5m])", nil},
		{"a smoothed", nil},
		{"a @ 100", nil},
		{"max_over_time(a[5m:1m] @ 100)", nil},
		{"max_over_time((a @ 100)[5m:1m])", nil},
		{"info(a)", nil},
		{"histogram_count(a)", nil},
	} {
		for _, n := range []int{1, 3} {
			o := testOptions(n, false)
			o.ForceSplit()
			store := hour()
			var got []points
			var mu sync.Mutex
			store.stepped = func(first, last, step int64) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, points{first, last, step})
			}
			require.NoError(t, newRange(t, newEngine(t, o), store, test.text).Exec(t.Context()).Err)
			require.Equal(t, test.want, got, "%s in %d parts", test.text, n)
		}
	}
	store := hour()
	var got []points
	store.stepped = func(first, last, step int64) { got = append(got, points{first, last, step}) }
	q, err := newEngine(t, query.Options{}).NewInstantQuery(t.Context(), store, nil, "a offset 1m", time.Unix(600, 0))
	require.NoError(t, err)
	require.NoError(t, q.Exec(t.Context()).Err)
	require.Equal(t, []points{{540_000, 540_000, 1}}, got)
}

// A failing storage is asked once: its error is the answer, and the work of the
// other parts ends.
func TestStorageError(t *testing.T) {
	for _, see := range []func(storage.Queryable) storage.Queryable{asIs, hideView} {
		o := query.Options{Parts: 3}
		o.ForceSplit()
		e := newEngine(t, o)
		store := hour()
		broken := errors.New("chunk checksum differs")
		store.hook = func(context.Context, *storage.SelectHints) error { return promql.ErrStorage{Err: broken} }
		q := newRange(t, e, see(store), "sum(a)")
		r := q.Exec(t.Context())
		require.ErrorContains(t, r.Err, broken.Error())
		require.Equal(t, http.StatusInternalServerError, query.Status(r.Err))
		store.hook = func(context.Context, *storage.SelectHints) error { return broken }
		store.selects.Store(0)
		q = newRange(t, e, see(store), "sum(a)")
		require.ErrorIs(t, q.Exec(t.Context()).Err, broken)
		parts, _, rerun := query.Split(q)
		require.Equal(t, 3, parts)
		require.Empty(t, rerun)
		require.LessOrEqual(t, store.selects.Load(), int64(3))
	}
}

// A storage that panics in a part ends the query, not the process.
func TestStoragePanic(t *testing.T) {
	for _, see := range []func(storage.Queryable) storage.Queryable{asIs, hideView} {
		o := query.Options{Parts: 3}
		o.ForceSplit()
		e := newEngine(t, o)
		store := hour()
		var once sync.Once
		store.hook = func(context.Context, *storage.SelectHints) (err error) {
			once.Do(func() { panic("index out of range") })
			return nil
		}
		q := newRange(t, e, see(store), "sum(a)")
		require.NoError(t, q.Exec(t.Context()).Err, "run again in one piece")
		_, _, rerun := query.Split(q)
		require.Equal(t, "error", rerun)
		require.Zero(t, store.queriers.Load())
		require.Zero(t, e.BusyCores())
	}
}

// Selectors that return too many series fail the query, without a second try,
// and exactly as many as allowed do not.
func TestSeriesLimit(t *testing.T) {
	for _, parts := range []int{1, 3} {
		o := query.Options{Limits: query.Limits{SeriesMax: 8}, Parts: parts}
		o.ForceSplit()
		e := newEngine(t, o)
		store := hour()
		require.NoError(t, newRange(t, e, store, "sum(a) + sum(rate(a[5m]))").Exec(t.Context()).Err)
		q := newRange(t, e, store, "sum(a) + sum(rate(a[5m])) + sum(a)")
		r := q.Exec(t.Context())
		require.ErrorIs(t, r.Err, query.ErrTooManySeries)
		require.Equal(t, http.StatusUnprocessableEntity, query.Status(r.Err))
		_, _, rerun := query.Split(q)
		require.Empty(t, rerun)
	}
}

// Series whose types are stored as labels may collide once names are dropped,
// which only the whole notices: the query is run again and fails as upstream's.
func TestTypesAsLabels(t *testing.T) {
	o := testOptions(2, false)
	o.ForceSplit()
	e := newEngine(t, o)
	half := func(from, to int) func(*arraySeries) *arraySeries {
		return func(s *arraySeries) *arraySeries { return &arraySeries{labels: s.labels, samples: s.samples[from:to]} }
	}
	store := &arrays{series: []*arraySeries{
		half(0, 100)(floats(scrapeMillis, 240, func(i int) float64 { return float64(i) }, "__name__", "a", "__type__", "counter")),
		half(140, 240)(floats(scrapeMillis, 240, func(i int) float64 { return float64(i) }, "__name__", "a", "__type__", "gauge")),
	}}
	for _, see := range []func(storage.Queryable) storage.Queryable{asIs, hideView} {
		q := newRange(t, e, see(store), "rate(a[1m])")
		require.ErrorContains(t, q.Exec(t.Context()).Err, "same labelset")
		_, _, rerun := query.Split(q)
		require.Equal(t, "typed", rerun)
	}
}

// A query is split under a sample limit only if the whole would keep it: with
// every limit near its peak it fails, or not, as upstream's does.
func TestSampleLimit(t *testing.T) {
	store := churning(3)
	for _, text := range []string{
		"load", "sum(load)", "rate(reads_total[5m])", "sum by (zone) (rate(reads_total[5m]))", "latency", "sum(latency)", "reads_total / writes_total",
		"max_over_time(load[4m:30s])", "sum_over_time(load[20s:7s])", "quantile_over_time(0.9, load[5m])", "histogram_quantile(0.9, rate(seconds_bucket[5m]))",
	} {
		run := func(e promql.QueryEngine, s storage.Queryable) (string, int) {
			q, err := e.NewRangeQuery(t.Context(), s, nil, text, time.Unix(0, 0), time.Unix(3600, 0), time.Minute)
			require.NoError(t, err)
			defer q.Close()
			r := q.Exec(t.Context())
			return fmt.Sprint(r.Err), q.Stats().Samples.PeakSamples
		}
		verdict, peak := run(newUpstream(false, 1<<24), plain{store})
		require.Equal(t, "<nil>", verdict)
		for _, limit := range []int{peak / 2, peak - 1, peak, peak + 1, peak * 3 / 2, 3 * peak} {
			want, _ := run(newUpstream(false, limit), plain{store})
			for _, parts := range []int{2, 4} {
				o := testOptions(parts, false)
				o.SamplesMax = limit
				o.ForceSplit()
				got, _ := run(newEngine(t, o), store)
				require.Equal(t, want, got, "%s with %d samples, peak %d, in %d parts", text, limit, peak, parts)
			}
		}
	}
}
