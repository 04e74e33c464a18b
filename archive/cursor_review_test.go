package archive_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/internal/testkit"
)

// failingContext is canceled after its error was asked for some times.
type failingContext struct {
	context.Context
	good int
}

// Err implements context.Context.
func (c *failingContext) Err() error {
	if c.good--; c.good >= 0 {
		return nil
	}
	return context.Canceled
}

// TestTailReadFails shows that what a Read did not give because it failed is given by the next one.
func TestTailReadFails(t *testing.T) {
	for _, whole := range []bool{true, false} {
		clock := &movingClock{day0}
		o := tailOptions(clock)
		o.JournalBytesMax = 500
		a, err := archive.Open(testkit.MemoryDir(t)+"/a", o)
		require.NoError(t, err)
		defer a.Close()
		<-a.Started()
		a.SmallSegments(200)
		c, err := a.OpenCursor("out", archive.Start{All: whole})
		require.NoError(t, err)
		defer c.Close()
		// So many runs that reading looks at its context between them.
		w := &liveWriter{clock, 200, model{}}
		steps := func() {
			for i := range 40 {
				w.step(t, a)
				if i%4 == 0 {
					require.NoError(t, a.Maintain(true))
				}
			}
			require.NoError(t, a.Maintain(true))
		}
		steps()
		g := newGot()
		var r archive.Arrivals
		failed := 0
		for good := range 12 {
			if err := c.Read(&failingContext{context.Background(), good % 3}, &r); err == nil {
				g.add(t, c, &r)
				require.NoError(t, c.Done(r.Position, archive.Tally{}))
			} else {
				require.ErrorIs(t, err, context.Canceled)
				failed++
			}
			// What is trimmed meanwhile is owed too.
			steps()
		}
		require.Greater(t, failed, 4, "it failed between runs too")
		drain(t, c, g)
		g.requireModel(t, w.m)
	}
}

// TestTailWholeNewSeries shows that a series whose first sample of a day arrives while the day is read by time is not left out,
// neither when it is read from the journal nor when that was trimmed.
func TestTailWholeNewSeries(t *testing.T) {
	for _, trimmed := range []bool{false, true} {
		clock := &movingClock{day0}
		o := tailOptions(clock)
		if trimmed {
			o.JournalBytesMax = 500
		}
		a, err := archive.Open(testkit.MemoryDir(t)+"/a", o)
		require.NoError(t, err)
		defer a.Close()
		<-a.Started()
		a.SmallSegments(200)
		c, err := a.OpenCursor("out", archive.Start{All: true})
		require.NoError(t, err)
		defer c.Close()
		w := &liveWriter{clock, 3, model{}}
		for range 4000 {
			w.step(t, a)
		}
		clock.ms = day0 + 5*86400_000
		w.step(t, a)
		require.NoError(t, a.Maintain(true))
		g := newGot()
		var r archive.Arrivals
		late := 50
		for readNow(t, c, &r) {
			g.add(t, c, &r)
			require.NoError(t, c.Done(r.Position, archive.Tally{}))
			if late < 80 {
				late++
				points := []point{{late, day0 + 12*3600_000 + int64(late), 1}}
				write(t, a, points)
				w.m.add(points)
				if trimmed {
					w.step(t, a)
					w.step(t, a)
					require.NoError(t, a.Maintain(true))
				}
			}
		}
		g.requireModel(t, w.m)
	}
}

// TestTailRewindKeepsUnsettled shows that going back gives what was read and not settled again, also if there is nothing further back, or if it fails.
func TestTailRewindKeepsUnsettled(t *testing.T) {
	clock := &movingClock{day0}
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", tailOptions(clock))
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	defer c.Close()
	var r archive.Arrivals
	again := func() {
		require.True(t, readNow(t, c, &r))
		require.Equal(t, []int64{day0}, r.Times)
	}
	write(t, a, []point{{1, day0, 1}})
	again()
	require.NoError(t, c.RewindArrivals(clock.Now()))
	again()
	c.KeepBehind(10 * time.Minute)
	require.NoError(t, c.RewindArrivals(clock.Now()))
	again()
	a.SetFree(func(string) (int64, int64, error) { return 0, 1 << 40, nil })
	require.Error(t, c.Rewind(archive.Start{}))
	a.SetFree(func(string) (int64, int64, error) { return 1 << 40, 1 << 40, nil })
	again()
	require.NoError(t, c.Done(r.Position, archive.Tally{}))
	require.False(t, readNow(t, c, &r))
}

// TestTailTimeOrder shows that what is read by time never comes much later than what is newer, however little there is.
func TestTailTimeOrder(t *testing.T) {
	for _, series := range []int{20, 700} {
		clock := &movingClock{day0}
		a, err := archive.Open(testkit.MemoryDir(t)+"/a", tailOptions(clock))
		require.NoError(t, err)
		defer a.Close()
		<-a.Started()
		w := &liveWriter{clock, series, model{}}
		for i := range 2000 {
			switch {
			case series > 512 && i%100 != 0:
				clock.ms += 15_000
			case i < 1000 && i%20 != 0:
				clock.ms += 60_000 // Sparse at first.
			default:
				w.step(t, a)
			}
		}
		require.NoError(t, a.Maintain(true))
		c, err := a.OpenCursor("out", archive.Start{All: true})
		require.NoError(t, err)
		defer c.Close()
		g := newGot()
		var r archive.Arrivals
		newest := int64(0)
		for readNow(t, c, &r) {
			for _, at := range r.Times {
				require.Greater(t, at, newest-40*60_000)
				newest = max(newest, at)
			}
			require.LessOrEqual(t, r.Samples(), 1<<17)
			g.add(t, c, &r)
			require.NoError(t, c.Done(r.Position, archive.Tally{}))
		}
		g.requireModel(t, w.m)
		g.ascending(t)
	}
}

// TestTailTrimFails shows that a trim that fails leaves what is owed as it was, and that the lag of a gap begins with its arrival.
func TestTailTrimFails(t *testing.T) {
	clock := &movingClock{day0}
	o := tailOptions(clock)
	o.JournalBytesMax = 500
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", o)
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	a.SmallSegments(200)
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	defer c.Close()
	w := &liveWriter{clock, 5, model{}}
	steps := func() {
		for range 50 {
			w.step(t, a)
		}
	}
	steps()
	require.NoError(t, a.Maintain(true))
	steps()
	lag, err := c.Lag()
	require.NoError(t, err)
	require.Equal(t, uint64(500), lag.Samples)
	require.NotZero(t, lag.GapDays)
	require.Equal(t, day0+15_000, lag.Since.UnixMilli())
	require.NoError(t, a.CutAll())
	a.SetFree(func(string) (int64, int64, error) { return 0, 1 << 40, nil })
	require.Error(t, a.TrimJournal())
	a.SetFree(func(string) (int64, int64, error) { return 1 << 40, 1 << 40, nil })
	lag, err = c.Lag()
	require.NoError(t, err)
	require.Equal(t, uint64(500), lag.Samples)
	g := newGot()
	drain(t, c, g)
	g.requireModel(t, w.m)
	g.ascending(t)
}
