package archive_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/internal/testkit"
	"varve/query"
)

// fill writes targets x metrics counters, one scrape of 15 s after the other, as
// scraping does it, and brings them to runs now and then.
func fill(b testing.TB, a *archive.Archive, targets, metrics, scrapes int) {
	refs := make([][]arrival.Row, targets)
	for i := range targets {
		for m := range metrics {
			ls := labels.FromStrings("__name__", fmt.Sprintf("node_metric_%d_total", m/8), "cluster", "prod", "instance", fmt.Sprintf("10.0.0.%d:9100", i), "job", "node", "device", fmt.Sprintf("d%d", m%8), "mode", "user")
			refs[i] = append(refs[i], arrival.Row{Ref: resolve(b, a, ls), First: uint32(m), Count: 1})
		}
	}
	for s := range scrapes {
		for i := range targets {
			batch := &arrival.Batch{Rows: refs[i]}
			for m := range metrics {
				batch.Times = append(batch.Times, day0+int64(s)*15_000+int64(i)*113+int64(s*7%5))
				batch.Values = append(batch.Values, math.Float64bits(float64(s*(m+1)+i)))
			}
			_, err := a.Write(context.Background(), batch)
			require.NoError(b, err)
		}
		if s%60 == 59 {
			require.NoError(b, a.Maintain(true))
		}
	}
}

// BenchmarkQuery measures dashboard queries over runs on disk: 32,000 series of one hour.
func BenchmarkQuery(b *testing.B) {
	a := testkit.Open(b, testkit.MemoryDir(b), func() archive.Options {
		o := options()
		o.MemoryBytes = 1 << 30
		return o
	}())
	fill(b, a, 128, 256, 240)
	engine, err := query.NewEngine(query.Options{})
	require.NoError(b, err)
	defer func() { require.NoError(b, engine.Close()) }()
	start, end := time.UnixMilli(day0+300_000), time.UnixMilli(day0+3600_000)
	for _, q := range []string{
		`sum by (instance) (max_over_time({__name__=~"node_metric_(1|2|3|4|5|6|7|8)_total"}[5m]))`,
		`sum by (instance) (rate(node_metric_3_total[5m]))`,
		`rate(node_metric_3_total[5m])`,
		`node_metric_3_total`,
		`{__name__=~"node_metric_.*"}`,
		`node_metric_3_total * 2`,
	} {
		b.Run(q, func(b *testing.B) {
			for b.Loop() {
				qry, err := engine.NewRangeQuery(context.Background(), a, nil, q, start, end, time.Minute)
				require.NoError(b, err)
				res := qry.Exec(context.Background())
				require.NoError(b, res.Err)
				qry.Close()
			}
		})
	}
}
