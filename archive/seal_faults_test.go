package archive_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/arrival"
	"varve/internal/testkit"
)

// putter writes a sample to the archive and the model, and cuts it to a run.
func putter(t *testing.T, a *archive.Archive, m model) func(point) {
	return func(p point) {
		t.Helper()
		write(t, a, []point{p})
		m.add([]point{p})
		require.NoError(t, a.Maintain(true))
	}
}

// TestPartlyDroppedRuns shows that of two sealed runs, of which the one with the overwritten
// sample goes later, neither comes to light again: in a new query, in one that began after the
// day was sealed, or after a kill.
func TestPartlyDroppedRuns(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o := options()
	a := testkit.Open(t, dir, o)
	m := model{}
	put := putter(t, a, m)
	day := format.DayOf(day0)
	mint, maxt := day0, day0+1000
	put(point{series: 1, t: day0 - 1000, v: 9}) // another day, in the file of the older run
	put(point{series: 1, t: day0 + 5, v: 1})
	require.NoError(t, a.CompactHot(nil, nil))
	put(point{series: 1, t: day0 + 5, v: 2}) // overwritten, in a file of its own
	require.NoError(t, a.CompactHot(a.HotKeys()[2], format.AppendDayPrefix(nil, day+1)))
	_, err := a.Seal(context.Background(), day, nil)
	require.NoError(t, err)
	q, err := a.Querier(mint, maxt) // began after the day was sealed
	require.NoError(t, err)
	defer q.Close()
	look := func() string {
		return read(t, storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return unclosed{q}, nil }), mint, maxt)
	}
	want := m.dump(mint, maxt)
	require.Equal(t, want, look())
	a.OnStep(func(step string) {
		if step != "dropped files" {
			return
		}
		if got := read(t, a, mint, maxt); got != want {
			t.Errorf("a new query while runs are dropped: %s", got)
		}
		b, _ := crash(t, dir, o)
		if got := read(t, b, mint, maxt); got != want {
			t.Errorf("after a kill while runs are dropped: %s", got)
		}
		require.NoError(t, b.Close())
	})
	_, err = a.Reclaim()
	require.NoError(t, err)
	if got := look(); got != want {
		t.Errorf("a query that began after the sealing: %s", got)
	}
	if got := read(t, a, mint, maxt); got != want {
		t.Errorf("at the end: %s", got)
	}
}

// TestGenerationWrap shows that what comes while generation 255 is sealed, and so has
// generation 0, wins over it.
func TestGenerationWrap(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	m := model{}
	put := putter(t, a, m)
	put(point{series: 1, t: day0 + 5, v: 0})
	for range 255 {
		_, err := a.Seal(context.Background(), format.DayOf(day0), nil)
		require.NoError(t, err)
	}
	_, err := a.Reclaim()
	require.NoError(t, err)
	put(point{series: 1, t: day0 + 7, v: 1}) // generation 255
	var bad []string
	a.OnStep(func(step string) {
		if step == "raised" {
			put(point{series: 1, t: day0 + 7, v: 2}) // generation 0
		}
		if got, want := read(t, a, day0, day0+1000), m.dump(day0, day0+1000); got != want {
			bad = append(bad, fmt.Sprintf("%s: got %s want %s", step, got, want))
		}
	})
	_, err = a.Seal(context.Background(), format.DayOf(day0), nil)
	require.NoError(t, err)
	require.Empty(t, bad)
}

// TestGenerationHeld has a query stay open while its day is sealed as often as there are
// generations: the number of runs that wait for it is not given to new ones.
func TestGenerationHeld(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	m := model{}
	put := putter(t, a, m)
	q, err := a.Querier(day0, day0+1000)
	require.NoError(t, err)
	put(point{series: 1, t: day0 + 5, v: 0}) // generation 0
	sealed := 0
	for i := range 256 {
		put(point{series: 1, t: day0 + 10 + int64(i), v: 0})
		_, err := a.Seal(context.Background(), format.DayOf(day0), nil)
		if err != nil {
			require.ErrorIs(t, err, archive.ErrBusy)
			require.ErrorContains(t, err, "query")
			break
		}
		sealed++
		_, err = a.Reclaim()
		require.NoError(t, err)
	}
	require.Equal(t, 255, sealed, "the generation that the query holds is used again")
	put(point{series: 2, t: day0 + 5, v: 77})
	require.NoError(t, q.Close())
	_, err = a.Reclaim()
	require.NoError(t, err)
	requireSame(t, m.dump(day0, day0+1000), read(t, a, day0, day0+1000), "after the query")
	testkit.SealAll(t, a)
	requireSame(t, m.dump(day0, day0+1000), read(t, a, day0, day0+1000), "sealed")
}

// sendMixed writes a series that is a float and a histogram in turn.
func sendMixed(t *testing.T, a *archive.Archive, series, n int, from, every int64) {
	ref := resolve(t, a, seriesLabels(series))
	for i := 0; i < n; {
		b := &arrival.Batch{Rows: []arrival.Row{{Ref: ref}}}
		for ; i < n && len(b.Times)+len(b.Histograms) < 1000; i++ {
			at := day0 + from + int64(i)*every
			if i%2 == 0 {
				b.Times = append(b.Times, at)
				b.Values = append(b.Values, math.Float64bits(float64(i)))
			} else {
				b.Histograms = append(b.Histograms, arrival.Histogram{Row: 0, TimeMillis: at, Int: tsdbutil.GenerateTestHistogram(int64(i))})
			}
		}
		b.Rows[0].Count = uint32(len(b.Times))
		_, err := a.Write(context.Background(), b)
		require.NoError(t, err)
	}
	require.NoError(t, a.Maintain(true))
}

// TestSealMixedKinds seals a series that changes its kind more often than a bundle has chunks.
func TestSealMixedKinds(t *testing.T) {
	for name, others := range map[string]int{"alone": 0, "behind others": 180} {
		t.Run(name, func(t *testing.T) {
			a := testkit.Open(t, testkit.MemoryDir(t), options())
			for i := range others {
				write(t, a, []point{{series: i * 5, t: day0, v: 1}})
			}
			sendMixed(t, a, 2000, 5000, 0, 15_000)
			all := ask(day0, day0+86400_000-1)
			want := all(t, a)
			r, err := a.Seal(context.Background(), format.DayOf(day0), nil)
			require.NoError(t, err)
			require.Equal(t, 5000+others, r.Samples)
			_, err = a.Reclaim()
			require.NoError(t, err)
			requireSame(t, want, all(t, a), name)
		})
	}
}

// TestHugeHistogram shows that a histogram which no sealed chunk can hold is refused.
func TestHugeHistogram(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	const n = 1<<20 + 1
	h := &histogram.Histogram{PositiveSpans: []histogram.Span{{Length: n}}, PositiveBuckets: make([]int64, n)}
	b := &arrival.Batch{Rows: []arrival.Row{{Ref: resolve(t, a, seriesLabels(1))}}, Histograms: []arrival.Histogram{{TimeMillis: day0 + 5, Int: h}}}
	res, err := a.Write(context.Background(), b)
	require.NoError(t, err)
	require.Equal(t, 1, res.Rejected[arrival.ReasonInvalidHistogram])
	testkit.SealAll(t, a)
}

// TestSealEndsSoon shows that a Seal looks at its context however little it writes.
func TestSealEndsSoon(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	for j := range 4 {
		var points []point
		for i := range 500 {
			points = append(points, point{series: j*500 + i, t: day0, v: 1}, point{series: j*500 + i, t: day0 + 15000, v: 1})
		}
		write(t, a, points)
	}
	require.NoError(t, a.Maintain(true))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := a.Seal(ctx, format.DayOf(day0), nil)
	require.ErrorIs(t, err, context.Canceled)
}

// TestLeftoverOrder has a full disk keep the older of two generations from being dropped.
func TestLeftoverOrder(t *testing.T) {
	a := testkit.Open(t, testkit.MemoryDir(t), options())
	m := model{}
	put := putter(t, a, m)
	seal := func() {
		_, err := a.Seal(context.Background(), format.DayOf(day0), nil)
		require.NoError(t, err)
	}
	full := false
	a.SetFree(func(string) (int64, int64, error) {
		if full {
			return 0, 1 << 40, nil
		}
		return 1 << 39, 1 << 40, nil
	})
	put(point{series: 1, t: day0 + 5, v: 1})
	seal()
	q, err := a.Querier(day0, day0+1000)
	require.NoError(t, err)
	put(point{series: 1, t: day0 + 5, v: 2})
	seal()
	full = true
	_, err = a.Reclaim() // the first of the two is free, yet the disk is full
	require.Error(t, err)
	full = false
	require.NoError(t, q.Close())
	var bad []string
	a.OnStep(func(step string) {
		if got, want := read(t, a, day0, day0+1000), m.dump(day0, day0+1000); got != want {
			bad = append(bad, fmt.Sprintf("%s: got %s want %s", step, got, want))
		}
	})
	_, err = a.Reclaim()
	require.NoError(t, err)
	require.Empty(t, bad)
}

// TestRejectOverwritesOfFarTimes has one request touch two times that are weeks apart: what
// lies between is not read.
func TestRejectOverwritesOfFarTimes(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o := options()
	o.RejectOverwrites = true
	o.QueryBytesMax = 200_000
	now := time.UnixMilli(day0).Add(24 * 40 * time.Hour)
	o.Now = func() time.Time { return now }
	a := testkit.Open(t, dir, o)
	end := now.UnixMilli() - 86400_000
	for _, s := range []int{1, 2, 3, 4, 5} {
		ref := resolve(t, a, seriesLabels(s))
		for at := day0; at < end; at += 86400_000 {
			b := &arrival.Batch{Rows: []arrival.Row{{Ref: ref}}}
			for k := range int64(1440) {
				b.Times = append(b.Times, at+k*60_000)
				b.Values = append(b.Values, math.Float64bits(math.Sqrt(float64(k*int64(s)))))
			}
			b.Rows[0].Count = uint32(len(b.Times))
			_, err := a.Write(context.Background(), b)
			require.NoError(t, err)
			require.NoError(t, a.Maintain(true))
		}
	}
	one := func(points ...point) error {
		b := &arrival.Batch{}
		for _, p := range points {
			b.Rows = append(b.Rows, arrival.Row{Ref: resolve(t, a, seriesLabels(p.series)), First: uint32(len(b.Times)), Count: 1})
			b.Times = append(b.Times, p.t)
			b.Values = append(b.Values, math.Float64bits(p.v))
		}
		_, err := a.Write(context.Background(), b)
		return err
	}
	require.NoError(t, one(point{series: 1, t: day0 + 1, v: 7}), "one alone")
	require.NoError(t, one(point{series: 2, t: end - 86400_000 + 1, v: 7}), "the other alone")
	require.NoError(t, one(point{series: 1, t: day0 + 2, v: 7}, point{series: 2, t: end - 86400_000 + 2, v: 7}), "both together")
}

// TestCloseWhileSealing closes an archive in the middle of a sealing, which ends first.
func TestCloseWhileSealing(t *testing.T) {
	a, err := archive.Open(testkit.MemoryDir(t), options())
	require.NoError(t, err)
	<-a.Started()
	a.SmallSeals()
	for i := range 200 {
		write(t, a, []point{{series: i, t: day0 + int64(i), v: float64(i)}})
	}
	require.NoError(t, a.Maintain(true))
	closed := make(chan error, 1)
	begun := false
	a.OnStep(func(string) {
		if !begun {
			begun = true
			go func() { closed <- a.Close() }()
			for !a.Closing() {
				runtime.Gosched()
			}
		}
	})
	_, err = a.Seal(context.Background(), format.DayOf(day0), nil)
	require.Error(t, err)
	require.NoError(t, <-closed)
}
