package blocks

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/internal/testkit"
)

// BenchmarkRun writes a day of 200 sealed series, a sample each 15 s, to a block and reads it back, or doesn't.
func BenchmarkRun(b *testing.B) {
	s := testkit.NewStorage(b, testkit.Sealed)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	const series, samples = 200, 5760
	for i := range samples {
		app := s.AppenderV2(context.Background())
		for n := range series {
			ls := labels.FromStrings("__name__", "requests_total", "instance", fmt.Sprint(n))
			_, err := app.Append(0, ls, 0, start+int64(i)*15_000, float64(i*(n+1)), nil, nil, storage.AOptions{})
			require.NoError(b, err)
		}
		require.NoError(b, app.Commit())
	}
	s.Archive()
	for _, verified := range []bool{true, false} {
		b.Run(fmt.Sprintf("verified=%t", verified), func(b *testing.B) {
			for b.Loop() {
				o := options(b, s, b.TempDir())
				o.SkipVerification = !verified
				report, err := Run(b.Context(), o)
				require.NoError(b, err)
				require.Equal(b, uint64(series*samples), report.Stats.Floats)
			}
			b.ReportMetric(float64(series*samples*b.N)/b.Elapsed().Seconds(), "samples/s")
		})
	}
}
