package query_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/query"
)

// BenchmarkPlanned shows what rollups of 5m and 1h gain over raw samples, both in decoded arrays so that
// nothing is read from anywhere: 100 series of 30 days, a sample a minute. raw is the engine in one piece, planned
// has one worker.
func BenchmarkPlanned(b *testing.B) {
	const days = 30
	rnd := rand.New(rand.NewPCG(1, 3))
	store := &arrays{}
	for i := range 100 {
		total := 0.0
		store.series = append(store.series, floats(minuteMillis, days*1440, func(int) float64 {
			if total += float64(rnd.IntN(50)); rnd.IntN(20_000) == 0 {
				total = 0
			}
			return total
		}, "__name__", "x_total", "a", fmt.Sprint(i%10), "i", fmt.Sprintf("%03d", i)))
	}
	sortSeries(store.series)
	archive := newRolled(store, 5*minuteMillis, hourMillis)
	o := rollupOptions(false)
	o.Parts = 1
	o.SamplesMax = 1 << 28
	engine := newEngine(b, o)
	for _, test := range []struct {
		text string
		step time.Duration
	}{
		{"sum by (a) (rate(x_total[1h]))", time.Hour},
		{"sum by (a) (rate(x_total[1h15s]))", time.Hour},
		{"sum by (a) (rate(x_total[1d]))", time.Hour},
		{"sum by (a) (rate(x_total[10m]))", 5 * time.Minute},
		{"max_over_time(x_total[29d])", 0},
		{"sum(x_total)", time.Hour},
		{"max by (a) (max_over_time(rate(x_total[10m])[1d:5m]))", 24 * time.Hour},
	} {
		for _, policy := range []query.Resolution{query.Raw, query.Auto} {
			b.Run(fmt.Sprintf("%s/step=%s/%s", test.text, test.step, policy), func(b *testing.B) {
				b.ReportAllocs()
				ctx := query.WithResolution(context.Background(), policy)
				start, end := time.Unix(24*3600, 0), time.Unix(days*24*3600, 0)
				for b.Loop() {
					q, err := engine.NewInstantQuery(ctx, archive, nil, test.text, end)
					if test.step > 0 {
						q, err = engine.NewRangeQuery(ctx, archive, nil, test.text, start, end, test.step)
					}
					require.NoError(b, err)
					require.NoError(b, q.Exec(ctx).Err)
					require.Equal(b, policy == query.Raw, query.SourcesOf(q).String() == "raw")
					q.Close()
				}
			})
		}
	}
}
