package testkit

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/forward"
)

// Write stores one float sample of each of the series, in one batch. values[i] is of sets[i].
func Write(t testing.TB, a *archive.Archive, atMillis int64, sets []labels.Labels, values []float64) {
	t.Helper()
	u := make([]arrival.Unknown, len(sets))
	for i := range sets {
		u[i].Labels = sets[i]
	}
	require.NoError(t, a.Resolve(t.Context(), u))
	var b arrival.Batch
	for i := range u {
		b.Rows = append(b.Rows, arrival.Row{Ref: u[i].Ref, First: uint32(i), Count: 1})
		b.Times, b.Values = append(b.Times, atMillis), append(b.Values, math.Float64bits(values[i]))
	}
	res, err := a.Write(t.Context(), &b)
	require.NoError(t, err)
	require.Equal(t, len(sets), res.Samples)
}

// ReadBatch reads all float samples of an archive as what an output without filters would send of them.
func ReadBatch(t testing.TB, a *archive.Archive) *forward.Batch {
	t.Helper()
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	b := &forward.Batch{}
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		s := forward.Series{Target: &forward.Target{Labels: set.At().Labels()}}
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			at, v := it.At()
			s.Floats = append(s.Floats, forward.Float{TimeMillis: at, Value: v})
		}
		require.NoError(t, it.Err())
		b.Series = append(b.Series, s)
	}
	require.NoError(t, set.Err())
	return b
}

// Forward runs an output on the archive until all that arrived is settled, while during, which may be nil, runs.
func Forward(t testing.TB, a *archive.Archive, o forward.Output, during func()) {
	t.Helper()
	f := forward.New(forward.Options{
		Open:   func(name string, start archive.Start) (forward.Source, error) { return a.OpenCursor(name, start) },
		Remove: a.RemoveCursor, DeadLetters: t.TempDir(),
	})
	require.NoError(t, f.Apply([]forward.Output{o}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	if during != nil {
		during()
	}
	require.Eventually(t, func() bool {
		s := f.Status()[0]
		return s.State == forward.StateRunning && s.Lag.Samples == 0 && s.Lag.WholeFrom == nil && s.Lag.GapDays == 0 && s.InFlightBytes == 0
	}, 5*time.Minute, 10*time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
}
