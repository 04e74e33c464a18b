package archive_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/arrival"
	"varve/internal/testkit"
)

// movingClock is a clock that a test sets.
type movingClock struct{ ms int64 }

func (c *movingClock) Now() time.Time { return time.UnixMilli(c.ms) }

func tailOptions(c *movingClock) archive.Options {
	o := options()
	o.Manual = true
	o.Now = c.Now
	return o
}

// got is what a cursor delivered: for each series the times in their order, and the last value of each.
type got struct {
	times  map[string][]int64
	values map[string]map[int64]uint64
}

func newGot() *got { return &got{times: map[string][]int64{}, values: map[string]map[int64]uint64{}} }

func (g *got) add(t testing.TB, c *archive.Cursor, r *archive.Arrivals) {
	sets := make([]labels.Labels, len(r.Refs))
	require.NoError(t, c.Labels(r.Refs, sets))
	for i, ls := range sets {
		key := ls.String()
		g.times[key] = append(g.times[key], r.Times[i])
		if g.values[key] == nil {
			g.values[key] = map[int64]uint64{}
		}
		g.values[key][r.Times[i]] = r.Values[i]
	}
}

// ascending requires that no series came out of order or twice.
func (g *got) ascending(t testing.TB) {
	for key, times := range g.times {
		for i := 1; i < len(times); i++ {
			require.Greater(t, times[i], times[i-1], "%s at %d of %d", key, i, len(times))
		}
	}
}

// require requires that everything of the model was delivered with its last value, and nothing else.
func (g *got) requireModel(t testing.TB, m model) {
	n := 0
	for i, samples := range m {
		key := seriesLabels(i).String()
		for at, v := range samples {
			if have, ok := g.values[key][at]; !ok || have != v {
				require.Failf(t, "not as in the model", "%s at %d: %x, want %x (there: %v)", key, at, have, v, ok)
			}
		}
		require.Len(t, g.values[key], len(samples), key)
		n++
	}
	require.Len(t, g.values, n)
}

// readNow reads what is there, and is false if there is nothing.
func readNow(t testing.TB, c *archive.Cursor, into *archive.Arrivals) bool {
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error, 1)
	go func() { waiting <- c.Read(ctx, into) }()
	for {
		select {
		case err := <-waiting:
			cancel()
			require.NoError(t, err)
			return true
		default:
		}
		if c.Waiting() {
			cancel()
			err := <-waiting
			if err == nil {
				return true
			}
			require.ErrorIs(t, err, context.Canceled)
			return false
		}
	}
}

// drain reads and settles all there is.
func drain(t testing.TB, c *archive.Cursor, g *got) {
	var r archive.Arrivals
	for readNow(t, c, &r) {
		g.add(t, c, &r)
		require.NoError(t, c.Done(r.Position, archive.Tally{Sent: uint64(r.Samples())}))
	}
}

// TestTail shows that a cursor gives what arrives in order, every bit of it, and goes on after a restart where it was settled.
func TestTail(t *testing.T) {
	clock := &movingClock{day0}
	dir := testkit.MemoryDir(t) + "/a"
	o := tailOptions(clock)
	a, err := archive.Open(dir, o)
	require.NoError(t, err)
	<-a.Started()
	write(t, a, []point{{1, day0 - 5, 1}})
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	_, err = a.OpenCursor("out", archive.Start{})
	require.ErrorIs(t, err, archive.ErrCursorOpen)

	ref := resolve(t, a, seriesLabels(1))
	h := &histogram.Histogram{Schema: 1, Count: 3, Sum: 4, ZeroThreshold: 0.1, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	b := &arrival.Batch{
		Rows:       []arrival.Row{{Ref: ref, Count: 2}},
		Times:      []int64{day0, day0 + 1},
		Values:     []uint64{0x7ff0000000000002, math.Float64bits(-0.5)},
		Starts:     []int64{0, day0 - 100},
		Histograms: []arrival.Histogram{{TimeMillis: day0 + 2, StartMillis: 7, Int: h}},
		Exemplars:  []arrival.Exemplar{{Exemplar: exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "x"), Value: 2, Ts: day0 + 3, HasTs: true}}},
		Metadata:   []arrival.Metadata{{Family: "metric_1", Metadata: metadata.Metadata{Type: "counter", Help: "h"}}},
	}
	_, err = a.Write(context.Background(), b)
	require.NoError(t, err)
	var r archive.Arrivals
	require.True(t, readNow(t, c, &r))
	check := func() {
		require.Equal(t, []storage.SeriesRef{ref, ref}, r.Refs)
		require.Equal(t, []int64{day0, day0 + 1}, r.Times)
		require.Equal(t, []uint64{0x7ff0000000000002, math.Float64bits(-0.5)}, r.Values)
		require.Equal(t, []int64{0, day0 - 100}, r.Starts)
		require.Len(t, r.Histograms, 1)
		require.Equal(t, day0+2, r.Histograms[0].TimeMillis)
		require.Equal(t, int64(7), r.Histograms[0].StartMillis)
		require.True(t, h.Equals(r.Histograms[0].Int))
		require.Len(t, r.Exemplars, 1)
		require.Equal(t, "x", r.Exemplars[0].Labels.Get("trace_id"))
		require.Equal(t, "metric_1", r.Metadata[0].Family)
	}
	check()
	require.Equal(t, "h", c.Metadata("metric_1_total").Help)
	lag, err := c.Lag()
	require.NoError(t, err)
	require.Equal(t, uint64(3), lag.Samples)
	require.NotZero(t, lag.Bytes)
	require.Equal(t, clock.Now(), lag.Since)

	// What isn't settled comes again.
	require.NoError(t, c.Close())
	require.NoError(t, a.Close())
	a, err = archive.Open(dir, o)
	require.NoError(t, err)
	<-a.Started()
	c, err = a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	require.True(t, readNow(t, c, &r))
	check()
	require.NoError(t, c.Done(r.Position, archive.Tally{Sent: 3}))
	require.False(t, readNow(t, c, &r))
	lag, err = c.Lag()
	require.NoError(t, err)
	require.Zero(t, lag)
	require.NoError(t, c.Close())
	require.NoError(t, a.Close())
	a, err = archive.Open(dir, o)
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	c, err = a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	require.False(t, readNow(t, c, &r))
	write(t, a, []point{{1, day0 + 9, 9}})
	require.True(t, readNow(t, c, &r))
	require.Equal(t, []int64{day0 + 9}, r.Times)
	require.Equal(t, archive.Tally{Sent: 3}, c.Totals())
	all, err := a.Cursors()
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.ErrorIs(t, a.RemoveCursor("out"), archive.ErrCursorOpen)
	require.NoError(t, c.Close())
	require.NoError(t, a.RemoveCursor("out"))
}

// TestTailWaits shows that a Read that waits is woken by a write and ended by its context.
func TestTailWaits(t *testing.T) {
	a, err := archive.Open(t.TempDir(), options())
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	defer c.Close()
	ended := make(chan error, 1)
	var r archive.Arrivals
	go func() { ended <- c.Read(context.Background(), &r) }()
	write(t, a, []point{{1, day0, 1}})
	require.NoError(t, <-ended)
	require.Equal(t, []int64{day0}, r.Times)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- c.Read(ctx, &r) }()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// liveWriter writes steps of some series, as scrapes do.
type liveWriter struct {
	clock  *movingClock
	series int
	m      model
}

func (w *liveWriter) step(t testing.TB, a *archive.Archive) {
	w.clock.ms += 15_000
	var points []point
	for i := range w.series {
		points = append(points, point{i, w.clock.ms - int64(i%3)*1000, float64(w.clock.ms%1000*10 + int64(i))})
	}
	write(t, a, points)
	w.m.add(points)
}

// TestTailGap shows that a reader that is stuck while the journal is trimmed under it gets everything once and in order: what it
// had read, what was trimmed, and what came later.
func TestTailGap(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		t.Run(fmt.Sprintf("reopen=%v", reopen), func(t *testing.T) {
			clock := &movingClock{day0}
			o := tailOptions(clock)
			o.JournalBytesMax = 3000
			dir := testkit.MemoryDir(t) + "/a"
			a, err := archive.Open(dir, o)
			require.NoError(t, err)
			defer func() { a.Close() }()
			<-a.Started()
			a.SmallSegments(500)
			c, err := a.OpenCursor("out", archive.Start{})
			require.NoError(t, err)
			w := &liveWriter{clock, 7, model{}}
			for range 20 {
				w.step(t, a)
			}
			g := newGot()
			var r archive.Arrivals
			require.True(t, readNow(t, c, &r))
			g.add(t, c, &r)
			flying := r.Position
			records := 0
			for range 2000 {
				w.step(t, a)
				if clock.ms/15_000%50 == 0 {
					require.NoError(t, a.Maintain(true))
					records = max(records, a.JournalRecords())
				}
			}
			require.NoError(t, a.Maintain(true))
			require.Less(t, a.JournalRecords(), 200)
			require.Less(t, records, 300, "the journal is bounded")
			lag, err := c.Lag()
			require.NoError(t, err)
			require.NotZero(t, lag.GapDays)
			require.Equal(t, uint64(2020*7), lag.Samples)
			days, err := a.Days()
			require.NoError(t, err)
			require.Contains(t, days[0].Needed(false), `output "out"`)
			if reopen {
				require.NoError(t, c.Close())
				require.NoError(t, a.Close())
				a, err = archive.Open(dir, o)
				require.NoError(t, err)
				<-a.Started()
				c, err = a.OpenCursor("out", archive.Start{})
				require.NoError(t, err)
				g = newGot()
			} else {
				require.NoError(t, c.Done(flying, archive.Tally{}))
			}
			for range 20 {
				w.step(t, a)
			}
			drain(t, c, g)
			w.step(t, a)
			drain(t, c, g)
			g.requireModel(t, w.m)
			g.ascending(t)
			lag, err = c.Lag()
			require.NoError(t, err)
			require.Zero(t, lag)
			days, err = a.Days()
			require.NoError(t, err)
			require.Empty(t, days[0].Owed)
			require.NoError(t, c.Close())
		})
	}
}

// TestTailSettle shows that what a cursor has yet to read outlives the settling of the archive, which drops what the
// journal holds and nobody needs.
func TestTailSettle(t *testing.T) {
	clock := &movingClock{day0}
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", tailOptions(clock))
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	a.SmallSegments(500)
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	defer c.Close()
	w := &liveWriter{clock, 5, model{}}
	for range 100 {
		w.step(t, a)
	}
	require.NoError(t, a.Maintain(true))
	require.NoError(t, a.Settle())
	for range 100 {
		w.step(t, a)
	}
	require.NoError(t, a.Maintain(true))
	require.NoError(t, a.Settle())
	g := newGot()
	drain(t, c, g)
	g.requireModel(t, w.m)
	g.ascending(t)
}

// TestTailWhole shows that a cursor that begins with all the archive has gets it in the order of time, and goes over into what
// arrives meanwhile without missing or repeating anything.
func TestTailWhole(t *testing.T) {
	clock := &movingClock{day0}
	o := tailOptions(clock)
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", o)
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	w := &liveWriter{clock, 7, model{}}
	for range 9000 {
		w.step(t, a)
	}
	require.NoError(t, a.Maintain(true))
	_, err = a.Seal(context.Background(), 20119, nil)
	require.NoError(t, err)
	c, err := a.OpenCursor("out", archive.Start{All: true})
	require.NoError(t, err)
	defer c.Close()
	later, err := a.OpenCursor("later", archive.Start{From: clock.Now().Add(-time.Hour)})
	require.NoError(t, err)
	defer later.Close()
	from := clock.ms - 3600_000
	g, l := newGot(), newGot()
	var r archive.Arrivals
	for readNow(t, c, &r) {
		g.add(t, c, &r)
		require.NoError(t, c.Done(r.Position, archive.Tally{}))
		if len(w.m[0]) < 9700 {
			w.step(t, a)
			w.step(t, a)
		}
	}
	drain(t, c, g)
	g.requireModel(t, w.m)
	g.ascending(t)
	drain(t, later, l)
	l.ascending(t)
	for i, samples := range w.m {
		want := map[int64]uint64{}
		for at, v := range samples {
			if at >= from {
				want[at] = v
			}
		}
		require.Equal(t, want, l.values[seriesLabels(i).String()])
	}

	// Rewound, it comes again; to now, nothing does.
	require.NoError(t, later.Rewind(archive.Start{From: time.UnixMilli(clock.ms - 30_000)}))
	l = newGot()
	drain(t, later, l)
	require.NotEmpty(t, l.values)
	l.ascending(t)
	require.NoError(t, later.Rewind(archive.Start{All: true}))
	require.NoError(t, later.Rewind(archive.Start{}))
	l = newGot()
	drain(t, later, l)
	require.Empty(t, l.values)
	w.step(t, a)
	drain(t, later, l)
	require.Len(t, l.values, 7)
}

// TestTailRewindArrivals shows that what was settled lately can be read again, also if it arrived long ago.
func TestTailRewindArrivals(t *testing.T) {
	clock := &movingClock{day0}
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", tailOptions(clock))
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	a.SmallSegments(300)
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	defer c.Close()
	c.KeepBehind(10 * time.Minute)
	w := &liveWriter{clock, 3, model{}}
	for range 200 {
		w.step(t, a)
		drain(t, c, newGot())
		require.NoError(t, a.Maintain(true))
	}
	require.Less(t, a.JournalRecords(), 60)
	require.NoError(t, c.RewindArrivals(clock.Now().Add(-10*time.Minute)))
	g := newGot()
	drain(t, c, g)
	n := len(g.times[seriesLabels(0).String()])
	require.GreaterOrEqual(t, n, 40)
	require.Less(t, n, 60)
}

// TestSavedTime shows that a time is kept over a restart.
func TestSavedTime(t *testing.T) {
	dir := testkit.MemoryDir(t) + "/a"
	a, err := archive.Open(dir, options())
	require.NoError(t, err)
	_, ok, err := a.SavedTime("q")
	require.NoError(t, err)
	require.False(t, ok)
	require.NoError(t, a.SaveTime("q", time.UnixMilli(-5)))
	require.NoError(t, a.Close())
	a, err = archive.Open(dir, options())
	require.NoError(t, err)
	defer a.Close()
	at, ok, err := a.SavedTime("q")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, int64(-5), at.UnixMilli())
	names, err := a.SavedTimes()
	require.NoError(t, err)
	require.Equal(t, []string{"q"}, names)
	require.NoError(t, a.SaveTime("q", time.Time{}))
	_, ok, err = a.SavedTime("q")
	require.NoError(t, err)
	require.False(t, ok)
}

// BenchmarkTail is what reading the journal back costs a sample: 20,000 series, a commit of 2,000 samples each.
func BenchmarkTail(b *testing.B) {
	clock := &movingClock{day0}
	o := tailOptions(clock)
	o.JournalBytesMax = 1 << 40
	a, err := archive.Open(testkit.MemoryDir(b)+"/a", o)
	require.NoError(b, err)
	defer a.Close()
	<-a.Started()
	refs := make([]storage.SeriesRef, 20_000)
	for i := range refs {
		refs[i] = resolve(b, a, seriesLabels(i))
	}
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(b, err)
	defer c.Close()
	samples := 0
	for step := range 100 {
		for k := 0; k < len(refs); k += 2000 {
			batch := &arrival.Batch{}
			for i := k; i < k+2000; i++ {
				batch.Rows = append(batch.Rows, arrival.Row{Ref: refs[i], First: uint32(i - k), Count: 1})
				batch.Times = append(batch.Times, clock.ms)
				batch.Values = append(batch.Values, math.Float64bits(float64(step*i)))
			}
			_, err := a.Write(context.Background(), batch)
			require.NoError(b, err)
			samples += 2000
		}
		clock.ms += 15_000
	}
	var r archive.Arrivals
	b.ResetTimer()
	c.KeepBehind(time.Hour)
	for b.Loop() {
		require.NoError(b, c.RewindArrivals(time.UnixMilli(day0)))
		for n := 0; n < samples; {
			require.NoError(b, c.Read(context.Background(), &r))
			require.NoError(b, c.Done(r.Position, archive.Tally{}))
			n += r.Samples()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
}

// TestTailDeletes shows that what was deleted isn't given any more, whether it lies in the journal or in a gap.
func TestTailDeletes(t *testing.T) {
	clock := &movingClock{day0 + 3*86400_000}
	o := tailOptions(clock)
	o.JournalBytesMax = 1000
	a, err := archive.Open(testkit.MemoryDir(t)+"/a", o)
	require.NoError(t, err)
	defer a.Close()
	<-a.Started()
	a.SmallSegments(300)
	c, err := a.OpenCursor("out", archive.Start{})
	require.NoError(t, err)
	defer c.Close()
	w := &liveWriter{clock, 6, model{}}
	for range 50 {
		w.step(t, a)
	}
	require.NoError(t, a.Maintain(true))
	for range 10 {
		w.step(t, a)
	}
	until := clock.ms
	_, ok, err := a.Delete(context.Background(), archive.DeleteRequest{
		Matchers:  [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "i", "2")}},
		MinMillis: math.MinInt64, MaxMillis: math.MaxInt64, Grace: time.Hour,
	})
	require.NoError(t, err)
	require.True(t, ok)
	w.step(t, a)
	delete(w.m, 2)
	g := newGot()
	drain(t, c, g)
	times := g.times[seriesLabels(2).String()]
	require.Len(t, times, 1)
	require.Greater(t, times[0], until-2000)
	delete(g.values, seriesLabels(2).String())
	g.requireModel(t, w.m)
}
