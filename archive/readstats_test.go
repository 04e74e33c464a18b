package archive_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/internal/testkit"
	"varve/rollup"
)

// readAll decodes whatever matches and returns how many series and samples that is.
func readAll(ctx context.Context, t testing.TB, a *archive.Archive, selector string) (series, samples int) {
	q, err := a.Querier(day0, day0+5*86400_000)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(ctx, true, nil, matchersOf(t, selector)...)
	var it chunkenc.Iterator
	for set.Next() {
		series++
		it = set.At().Iterator(it)
		for it.Next() != chunkenc.ValNone {
			samples++
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return series, samples
}

// hundreds writes 200 samples each of ten series, a minute apart.
func hundreds(t testing.TB, a *archive.Archive) {
	var points []point
	for n := range 200 {
		for i := range 10 {
			points = append(points, point{i, day0 + int64(n)*60_000, float64(n % 7)})
		}
	}
	write(t, a, points)
}

// TestReadStatistics counts what is read wherever it lies, for whoever asked, and adds up several Selects.
func TestReadStatistics(t *testing.T) {
	t.Parallel()
	o := options()
	o.Resolutions = []time.Duration{5 * time.Minute}
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	hundreds(t, a)
	for _, stage := range []struct {
		name string
		move func()
	}{
		{"memory", func() {}},
		{"runs", func() { require.NoError(t, a.Maintain(true)) }},
		{"sealed", func() { sealAll(t, a, false) }},
	} {
		name := stage.name
		stage.move()
		ctx, read := archive.WithReadStatistics(t.Context())
		require.Zero(t, read(), name)
		series, samples := readAll(ctx, t, a, `{job="job1"}`)
		s := read()
		require.EqualValues(t, series, s.Series, name)
		require.EqualValues(t, samples, s.Samples, name)
		require.GreaterOrEqual(t, s.Chunks, s.Series, name)
		require.Positive(t, s.Bytes, name)
		require.Positive(t, s.Find, name)
		require.Positive(t, s.Load, name)
		require.Positive(t, s.Decode, name)
		readAll(ctx, t, a, `{i="2"}`)
		require.EqualValues(t, series+1, read().Series, name)
		require.EqualValues(t, samples+200, read().Samples, name)
		readAll(t.Context(), t, a, `{job="job1"}`)
		require.EqualValues(t, samples+200, read().Samples, "of others nothing is counted")
	}
	_, err := a.Roll(t.Context(), intakeDay, nil)
	require.NoError(t, err)
	ctx, read := archive.WithReadStatistics(t.Context())
	q, err := a.Querier(day0, day0+86400_000)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.(interface {
		SelectArchived(context.Context, int64, int64, ...*labels.Matcher) *archive.ArchivedSet
	}).SelectArchived(ctx, day0, day0+86400_000, matchersOf(t, `{i="2"}`)...)
	require.True(t, set.Next())
	var c rollup.Columns
	require.NoError(t, set.At().Buckets(300_000, day0, day0+86400_000, &c))
	require.Positive(t, c.Len())
	s := read()
	require.EqualValues(t, 1, s.Series)
	require.EqualValues(t, c.Len(), s.Samples)
	require.EqualValues(t, 1, s.Chunks)
	require.Positive(t, s.Bytes)
	raw := set.At().Raw(nil, day0, day0+86400_000)
	for raw.Next() != chunkenc.ValNone {
	}
	require.EqualValues(t, c.Len()+200, read().Samples)
}

// BenchmarkReadStatistics reads ten sealed series without and with the counting.
func BenchmarkReadStatistics(b *testing.B) {
	a := testkit.Open(b, testkit.MemoryDir(b), options())
	hundreds(b, a)
	require.NoError(b, a.Maintain(true))
	sealAll(b, a, false)
	for name, asked := range map[string]bool{"unasked": false, "asked": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx := b.Context()
				if asked {
					ctx, _ = archive.WithReadStatistics(ctx)
				}
				series, samples := readAll(ctx, b, a, `{__name__=~"metric_.*"}`)
				require.Equal(b, 10, series)
				require.Equal(b, 2000, samples)
			}
		})
	}
}
