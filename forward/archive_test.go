package forward_test

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
	"varve/forward"
	"varve/internal/testkit"
)

// TestRealArchive shows that what an archive takes in, before the output begins, while it runs and while it doesn't, is with the
// peer in order, and counted where the archive keeps its cursors. What arrives while a new output reads the archive by time may
// be read twice, and be counted so: the writes wait until it is past that.
func TestRealArchive(t *testing.T) {
	o := testkit.Options()
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, o)
	const series, each = 50, 20
	u := make([]arrival.Unknown, series)
	for i := range u {
		u[i].Labels = labels.FromStrings("__name__", "m", "job", "j", "instance", "i", "n", fmt.Sprint(i))
	}
	require.NoError(t, a.Resolve(context.Background(), u))
	rounds := 0
	write := func() {
		var b arrival.Batch
		for i := range u {
			b.Rows = append(b.Rows, arrival.Row{Ref: u[i].Ref, First: uint32(len(b.Times)), Count: each})
			for j := range each {
				at := now.Add(-time.Hour).UnixMilli() + int64(rounds*each+j)
				b.Times, b.Values = append(b.Times, at), append(b.Values, math.Float64bits(float64(rounds*each+j)))
			}
		}
		rounds++
		res, err := a.Write(context.Background(), &b)
		require.NoError(t, err)
		require.Equal(t, series*each, res.Samples)
	}
	p := newPeer()
	out := output(p)
	out.Shards, out.BatchSamples, out.BatchDelay = 3, 100, 5*time.Millisecond
	run := func(more func()) {
		f := forward.New(forward.Options{
			Open:   func(name string, start archive.Start) (forward.Source, error) { return a.OpenCursor(name, start) },
			Remove: a.RemoveCursor, DeadLetters: t.TempDir(),
		})
		require.NoError(t, f.Apply([]forward.Output{out}))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		caughtUp := func() bool {
			lag := f.Status()[0].Lag
			return p.samples() == rounds*series*each && lag.Samples == 0 && lag.WholeFrom == nil
		}
		eventually(t, caughtUp)
		more()
		eventually(t, caughtUp)
		cancel()
		require.NoError(t, <-ended)
	}
	write()
	run(func() { write(); write() })
	write()
	run(func() { write() })
	p.faultless(t)
	all, err := a.Cursors()
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, archive.Tally{Sent: uint64(rounds * series * each)}, all[0].Totals)
}
