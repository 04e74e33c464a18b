package query_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/query"
)

// BenchmarkSplit shows what parts gain over decoded arrays, where no part repeats
// the work of another: upstream's engine, ours in one part and in two, and with
// a storage that thins. One hour, a step a minute.
func BenchmarkSplit(b *testing.B) {
	store := &arrays{}
	for i := range 4000 {
		store.series = append(store.series, floats(scrapeMillis, 240, func(n int) float64 { return float64(n * i) },
			"__name__", "a_total", "host", fmt.Sprintf("h%02d", i%50), "pod", fmt.Sprintf("p%04d", i), "job", "j"))
	}
	sortSeries(store.series)
	one, two := testOptions(1, false), testOptions(2, false)
	for _, text := range []string{
		"sum by (host) (rate(a_total[5m]))", "rate(a_total[5m])", "a_total", "sum by (host) (a_total)", "a_total * 2", "quantile_over_time(0.9, a_total[5m])",
	} {
		for _, v := range []struct {
			name   string
			engine promql.QueryEngine
			see    func(storage.Queryable) storage.Queryable
		}{
			{"upstream", newUpstream(false, 1<<28), hideView},
			{"parts=1", newEngine(b, one), hideThin},
			{"parts=2", newEngine(b, two), hideThin},
			{"parts=2,thinned", newEngine(b, two), asIs},
		} {
			b.Run(fmt.Sprintf("%s/%s", text, v.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					q, err := v.engine.NewRangeQuery(context.Background(), v.see(store), nil, text, time.Unix(0, 0), time.Unix(3600, 0), time.Minute)
					require.NoError(b, err)
					require.NoError(b, q.Exec(context.Background()).Err)
					if v.name != "upstream" {
						parts, _, rerun := query.Split(q)
						require.Empty(b, rerun)
						require.Equal(b, v.name != "parts=1", parts == 2)
					}
					q.Close()
				}
			})
		}
	}
}
