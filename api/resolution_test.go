package api_test

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"varve/api"
	"varve/query"
	"varve/rollup"
)

// rolledStorage has one bucket of an hour a series, and no raw samples.
type rolledStorage struct{ api.Storage }

func (s rolledStorage) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Storage.Querier(mint, maxt)
	return rolledQuerier{q}, err
}

type rolledQuerier struct{ storage.Querier }

func (rolledQuerier) Resolutions() []int64 { return []int64{time.Hour.Milliseconds()} }
func (rolledQuerier) RawSince() int64      { return math.MaxInt64 / 2 }
func (rolledQuerier) SelectArchived(context.Context, int64, int64, ...*labels.Matcher) query.ArchivedSet {
	return &oneSeries{}
}

type oneSeries struct{ read bool }

func (s *oneSeries) Next() bool                      { s.read = !s.read; return s.read }
func (*oneSeries) At() query.ArchivedSeries          { return oneBucket{} }
func (*oneSeries) Err() error                        { return nil }
func (*oneSeries) Warnings() annotations.Annotations { return nil }

type oneBucket struct{}

func (oneBucket) Labels() labels.Labels { return labels.FromStrings("__name__", "up") }
func (oneBucket) RawSince() int64       { return math.MaxInt64 / 2 }
func (oneBucket) HiddenSince() int64    { return math.MaxInt64 }
func (oneBucket) Raw(chunkenc.Iterator, int64, int64) chunkenc.Iterator {
	return chunkenc.NewNopIterator()
}

func (oneBucket) Covered(_ int64, dst []query.Stretch) []query.Stretch {
	hour := time.Hour.Milliseconds()
	return append(dst, query.Stretch{To: rollup.EndOf(now.UnixMilli(), hour)})
}

func (oneBucket) Buckets(_, _, _ int64, c *rollup.Columns) error {
	c.Reset()
	end := rollup.StartOf(now.UnixMilli(), time.Hour.Milliseconds())
	c.Append(end, &rollup.Row{Count: 2, FirstMillis: end - 60_000, LastMillis: end, First: 1, Last: 3, Min: 1, Max: 3, Sum: 4, Changes: 1}, nil)
	return nil
}

// A query names the resolution in a parameter or in a header, and the answer names in the same header what it is from.
func TestResolution(t *testing.T) {
	f := newFixture(t, func(o *api.Options) { o.Storage = rolledStorage{o.Storage} })
	whole := url.Values{"query": {"sum_over_time(up[1h])"}, "time": {rollupTime(0)}}
	odd := url.Values{"query": {"sum_over_time(up[1h])"}, "time": {rollupTime(time.Minute)}}
	for _, test := range []struct {
		form              url.Values
		parameter, header string
		code              int
		want              string
	}{
		{whole, "", "", http.StatusOK, "1h"},
		{odd, "", "", http.StatusOK, "1h;approximate"},
		{odd, "strict", "", http.StatusUnprocessableEntity, ""},
		{odd, "", "strict", http.StatusUnprocessableEntity, ""},
		{odd, "auto", "strict", http.StatusOK, "1h;approximate"},
		{whole, "raw", "", http.StatusOK, "raw"},
		{whole, "1h", "", http.StatusOK, "1h"},
		{whole, "5m", "", http.StatusUnprocessableEntity, ""},
		{whole, "quick", "", http.StatusBadRequest, ""},
		{whole, "", "quick", http.StatusBadRequest, ""},
	} {
		form := url.Values{"query": test.form["query"], "time": test.form["time"]}
		if test.parameter != "" {
			form.Set("resolution", test.parameter)
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			target, body := "/api/v1/query?"+form.Encode(), ""
			if method == http.MethodPost {
				target, body = "/api/v1/query", form.Encode()
			}
			code, header, answer := f.call(method, target, body, "Content-Type", "application/x-www-form-urlencoded", "X-Varve-Resolution", test.header)
			require.Equal(t, test.code, code, answer)
			require.Equal(t, test.want, header.Get("X-Varve-Resolution"), "%v", test)
		}
	}
	code, header, _ := f.call(http.MethodGet, "/api/v1/query_range?query=up&start="+rollupTime(0)+"&end="+rollupTime(0)+"&step=1h", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "1h", header.Get("X-Varve-Resolution"))
	_, answer := f.get("/api/v1/query?" + whole.Encode())
	require.Contains(t, answer, `"infos":["PromQL info: answered from rollups of 1h: exact"]`)
	require.Contains(t, answer, `"4"`)
}

// rollupTime is the last full hour before now, and a while on.
func rollupTime(on time.Duration) string {
	return now.Truncate(time.Hour).Add(on).UTC().Format(time.RFC3339)
}
