package archive_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
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

// stash is what was read and not settled.
type stash struct {
	position archive.Position
	got      *got
}

// TestTailRandom holds cursors against a model: with late samples and overwrites, new series on old days, reads that fail, a full disk, readers
// that stop, restart, are killed and go back, and a journal that is trimmed under them, everything is delivered, and the last thing that is
// said of a sample is true. Only what was settled counts as delivered, as with a forwarder that ends.
func TestTailRandom(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4}[:draws(2, 4)]
	if s := os.Getenv("TAIL_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		seeds = []uint64{n}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { tailRandom(t, seed) })
	}
}

func tailRandom(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 77))
	clock := &movingClock{day0}
	o := tailOptions(clock)
	o.JournalBytesMax = int64(200 + r.IntN(6000))
	o.JournalAgeMax = time.Duration(1+r.IntN(48)) * time.Hour
	dir := testkit.MemoryDir(t) + "/a"
	a, err := archive.Open(dir, o)
	require.NoError(t, err)
	<-a.Started()
	m := model{}
	names := []string{"now", "all", "slow"}
	cursors, gots, stashes := map[string]*archive.Cursor{}, map[string]*got{}, map[string][]stash{}
	open := func(name string) {
		c, err := a.OpenCursor(name, archive.Start{All: name == "all"})
		require.NoError(t, err)
		if name == "slow" {
			c.KeepBehind(time.Hour)
		}
		cursors[name], stashes[name] = c, nil
	}
	begin := func() {
		a.SmallSegments(200 + r.IntN(800))
		for _, name := range names {
			open(name)
		}
	}
	for _, name := range names {
		gots[name] = newGot()
	}
	begin()
	settle := func(name string, n int) {
		for _, s := range stashes[name][:n] {
			for key, values := range s.got.values {
				if gots[name].values[key] == nil {
					gots[name].values[key] = map[int64]uint64{}
				}
				maps.Copy(gots[name].values[key], values)
			}
		}
		stashes[name] = stashes[name][n:]
	}
	full := false
	free := func(string) (int64, int64, error) {
		if full {
			return 0, 1 << 40, nil
		}
		return 1 << 40, 1 << 40, nil
	}
	a.SetFree(free)
	series := 8
	var reads archive.Arrivals
	for range 1500 {
		name := names[r.IntN(3)]
		c := cursors[name]
		switch p := r.IntN(1000); {
		case p < 400:
			clock.ms += r.Int64N(300_000)
			if r.IntN(100) == 0 {
				clock.ms += r.Int64N(3 * 86400_000)
			}
			var points []point
			for range 1 + r.IntN(20) {
				at := clock.ms - r.Int64N(20_000)
				if r.IntN(10) == 0 {
					at = clock.ms - r.Int64N(20*86400_000)
				}
				if r.IntN(20) == 0 {
					at = clock.ms + r.Int64N(500_000)
				}
				if r.IntN(30) == 0 {
					series++
				}
				points = append(points, point{series - 1 - r.IntN(8), at, float64(r.IntN(1 << 30))})
			}
			write(t, a, points)
			m.add(points)
		case p < 550:
			require.NoError(t, a.Maintain(r.IntN(2) == 0))
		case p < 560:
			full = true
			_ = a.Maintain(true)
			full = false
			require.NoError(t, a.Maintain(true))
		case p < 900:
			if name == "slow" && r.IntN(3) > 0 {
				continue
			}
			if r.IntN(8) == 0 {
				if err := c.Read(&failingContext{context.Background(), 0}, &reads); err == nil {
					t.Fatal("read without a context")
				}
			}
			if len(stashes[name]) < 6 && readNow(t, c, &reads) {
				g := newGot()
				g.add(t, c, &reads)
				stashes[name] = append(stashes[name], stash{reads.Position, g})
			}
			if n := len(stashes[name]); n > 0 && r.IntN(2) == 0 {
				k := r.IntN(n)
				full = r.IntN(6) == 0
				if err := c.Done(stashes[name][k].position, archive.Tally{}); full {
					require.Error(t, err)
					full = false
					if r.IntN(2) == 0 {
						require.NoError(t, c.Done(stashes[name][k].position, archive.Tally{}))
					}
				} else {
					require.NoError(t, err)
				}
				settle(name, k+1)
			}
		case p < 912:
			from := a
			if r.IntN(2) == 0 {
				a, dir = crash(t, dir, o)
			}
			for _, c := range cursors {
				require.NoError(t, c.Close())
			}
			require.NoError(t, from.Close())
			if a == from {
				a, err = archive.Open(dir, o)
				require.NoError(t, err)
				<-a.Started()
			}
			a.SetFree(free)
			begin()
		case p < 925:
			require.NoError(t, c.Close())
			open(name)
		case p < 935:
			full = r.IntN(3) == 0
			err := c.Rewind(archive.Start{From: clock.Now().Add(-time.Duration(r.IntN(300)) * time.Hour)})
			require.Equal(t, full, err != nil)
			full, stashes[name] = false, nil
		case p < 950:
			full = r.IntN(3) == 0
			_ = c.RewindArrivals(clock.Now().Add(-time.Duration(r.IntN(120)) * time.Minute))
			full, stashes[name] = false, nil
		}
	}
	for _, name := range names {
		if n := len(stashes[name]); n > 0 {
			require.NoError(t, cursors[name].Done(stashes[name][n-1].position, archive.Tally{}))
			settle(name, n)
		}
		drain(t, cursors[name], gots[name])
		t.Log(name)
		gots[name].requireModel(t, m)
		lag, err := cursors[name].Lag()
		require.NoError(t, err)
		require.Zero(t, lag, name)
		require.NoError(t, cursors[name].Close())
	}
	require.NoError(t, a.Close())
	_, err = archive.Check(dir, func(f archive.Fault) { t.Error(f) })
	require.NoError(t, err)
}

// TestTailDeletesCleaned shows that what was deleted isn't given any more when the delete is carried out, though the journal has it still, and that all else is.
func TestTailDeletesCleaned(t *testing.T) {
	clock := &movingClock{day0 + 3*86400_000}
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", tailOptions(clock))
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	a.SmallSegments(300)
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	defer c.Close()
	w := &liveWriter{clock, 6, model{}}
	g := newGot()
	for range 10 {
		w.step(t, a)
	}
	var r archive.Arrivals
	require.True(t, readNow(t, c, &r))
	g.add(t, c, &r)
	for range 50 {
		w.step(t, a)
	}
	until := clock.ms
	d, ok, err := a.Delete(context.Background(), archive.DeleteRequest{
		Matchers:  [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "i", "2")}},
		MinMillis: math.MinInt64, MaxMillis: math.MaxInt64, Grace: time.Minute,
	})
	require.NoError(t, err)
	require.True(t, ok)
	w.step(t, a)
	clock.ms += 3600_000
	_, err = a.Clean(context.Background(), []format.TombstoneID{d.ID}, nil)
	require.NoError(t, err)
	w.step(t, a)
	lag, err := c.Lag()
	require.NoError(t, err)
	require.Equal(t, uint64(62*6), lag.Samples)
	require.NoError(t, c.Done(r.Position, archive.Tally{}))
	drain(t, c, g)
	gone := seriesLabels(2).String()
	after := 0
	for _, at := range g.times[gone] {
		if at > day0+3*86400_000+10*15_000 {
			require.Greater(t, at, until-2000)
			after++
		}
	}
	require.Equal(t, 2, after)
	delete(w.m, 2)
	delete(g.values, gone)
	g.requireModel(t, w.m)
	g.ascending(t)
	lag, err = c.Lag()
	require.NoError(t, err)
	require.Zero(t, lag)
}
