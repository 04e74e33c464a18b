package remoteread_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/intake"
	"varve/intake/remoteread"
	"varve/internal/gate/server"
)

// TestPrometheus shows that what Debian's Prometheus scraped comes out of it as it went in, with its external labels, in chunks
// and in samples.
func TestPrometheus(t *testing.T) {
	binary := server.Prometheus2(t)
	var scrapes atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := scrapes.Add(1)
		fmt.Fprintf(w, "count %d\nnan NaN\nthird %v\n", n, float64(n)/3)
	}))
	defer target.Close()
	p := server.StartPrometheus(t, binary, `
global: {scrape_interval: 200ms, external_labels: {site: here}}
scrape_configs: [{job_name: t, static_configs: [{targets: ["`+strings.TrimPrefix(target.URL, "http://")+`"]}]}]
`)
	const wanted = 15
	stored := p.URL("/api/v1/query?" + url.Values{"query": {fmt.Sprintf(`count_over_time({__name__="count"}[1h]) >= %d`, wanted)}}.Encode())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	// That a target was asked does not mean that the answer came in time, and was stored.
	require.NoError(t, server.Wait(ctx, "some scrapes are stored", func() (bool, error) {
		_, body, err := server.Get(ctx, stored)
		return strings.Contains(string(body), `"value"`), err
	}))
	u, err := url.Parse(p.URL("/api/v1/read"))
	require.NoError(t, err)
	const span = 3_600_000
	end := time.Now().UnixMilli()
	matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, "count|nan|third")}
	for _, samplesOnly := range []bool{false, true} {
		source, err := remoteread.Open(remoteread.Options{
			URL: u, HTTP: config_util.DefaultHTTPClientConfig, SamplesOnly: samplesOnly,
			Selection: remoteread.Selection{Start: end - span, End: end, Selectors: [][]*labels.Matcher{matchers}},
		})
		require.NoError(t, err)
		seen := 0
		for start := intake.DayStart(end - span); start <= end; start += intake.DayMillis {
			day, err := source.OpenDay(t.Context(), start)
			require.NoError(t, err)
			require.NoError(t, day.Series(t.Context(), func(ls labels.Labels, handle uint64) error {
				require.Equal(t, "here", ls.Get("site"))
				chunks, err := day.Chunks(t.Context(), handle, nil)
				require.NoError(t, err)
				last := 0.0
				for _, c := range chunks {
					it := c.Chunk.Iterator(nil)
					for it.Next() != chunkenc.ValNone {
						_, v := it.At()
						if value.IsStaleNaN(v) {
							continue // The target was too slow once.
						}
						switch ls.Get(model.MetricNameLabel) {
						case "nan":
							require.True(t, math.IsNaN(v))
						case "count":
							require.Greater(t, v, last)
							last = v
						}
						seen++
					}
				}
				return nil
			}))
			require.NoError(t, day.Close())
		}
		require.GreaterOrEqual(t, seen, 3*wanted, "samples only: %v", samplesOnly)
		require.NoError(t, source.Close())
	}
}
