package archive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/archive/format"
	"varve/internal/testkit"
	"varve/rocks"
)

// TestIntakeUnderWrites takes days in while samples of the same days and series arrive, runs are cut, the index is flushed and queries run: each
// view has all that was taken in of a day or nothing, and what arrived is never lost and wins over what was taken in.
func TestIntakeUnderWrites(t *testing.T) {
	const both, still = 8, 5 // series that are written to as well, and series that are not
	dir := testkit.MemoryDir(t)
	o := options()
	o.MemtableBytes = 128 << 10
	a := testkit.Open(t, dir, o)
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	defer func() {
		cancel()
		working.Wait()
	}()
	var mu sync.Mutex // guards sent
	sent := everything{}
	leased := make(chan format.Day)
	working.Go(func() {
		r := rand.New(rand.NewPCG(1, 1))
		day := <-leased
		for n := 1; ctx.Err() == nil; n++ {
			select {
			case day = <-leased:
			default:
			}
			var points []point
			for range 5 {
				points = append(points, point{series: r.IntN(both), t: day.StartMillis() + r.Int64N(5760)*15_000, v: -float64(n)})
			}
			write(t, a, points)
			mu.Lock()
			sent.send(points)
			mu.Unlock()
		}
	})
	working.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if err := a.Maintain(n%2 == 0); err != nil {
				t.Error(err)
			}
		}
	})
	working.Go(func() {
		for ctx.Err() == nil {
			requireWholeDays(t, a, both)
		}
	})
	want := everything{}
	for n := range format.Day(4) {
		day := intakeDay - n
		var all []incoming
		for series := range both + still {
			all = append(all, regular(t, day, series))
		}
		refs, all := inOrder(t, a, all)
		i, err := a.OpenIntake(t.Context(), day)
		require.NoError(t, err)
		leased <- day
		addAll(t, i, refs, all)
		report, err := i.Commit(t.Context())
		require.NoError(t, err)
		requireDigests(t, i, day, refs, all, report)
		require.NoError(t, i.Close())
		mu.Lock()
		want.take(t, day, all)
		mu.Unlock()
	}
	cancel()
	working.Wait()
	for series, samples := range sent {
		for at, s := range samples {
			want.put(series, at, s)
		}
	}
	requireSame(t, want.dump(math.MinInt64, math.MaxInt64), see(t, a, math.MinInt64, math.MaxInt64), "unsealed")
	sealAll(t, a, false)
	requireSame(t, want.dump(math.MinInt64, math.MaxInt64), see(t, a, math.MinInt64, math.MaxInt64), "sealed")
}

// requireWholeDays shows that of the series from first on a view has whole days, and all of them the same.
func requireWholeDays(t testing.TB, a *archive.Archive, first int) {
	q, err := a.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Error(err)
		return
	}
	defer q.Close()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	counts := map[int]int{}
	for set.Next() {
		var series int
		if _, err := fmt.Sscan(set.At().Labels().Get("i"), &series); err != nil || series < first {
			continue
		}
		n := 0
		for it := set.At().Iterator(nil); it.Next() == chunkenc.ValFloat; n++ {
		}
		counts[n]++
	}
	if err := set.Err(); err != nil {
		t.Error(err)
	}
	if len(counts) > 1 {
		t.Errorf("numbers of samples of series that have the same: %v", counts)
	}
	for n := range counts {
		if n%5760 != 0 {
			t.Errorf("%d samples are no whole days", n)
		}
	}
}

// TestIntakeRetention shows that what rules don't keep of a day is left out and counted, for the series that they are about.
func TestIntakeRetention(t *testing.T) {
	o := options()
	o.Retention = archive.Retention{Rules: []archive.RetentionRule{
		{Matchers: [][]*labels.Matcher{{matcher("i=1")}}, Keep: []time.Duration{2 * 24 * time.Hour}},
	}}
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	write(t, a, []point{{series: 9, t: clock().UnixMilli(), v: 1}})
	refs, all := inOrder(t, a, []incoming{regular(t, intakeDay, 1), regular(t, intakeDay, 2)})
	i, err := a.OpenIntake(t.Context(), intakeDay)
	require.NoError(t, err)
	addAll(t, i, refs, all)
	r, err := i.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, i.Close())
	require.EqualValues(t, 5760, r.Expired)
	require.EqualValues(t, 5760, r.Samples)
	require.EqualValues(t, 1, r.Series)
}

// TestIntakeRollsUp shows that a day that was taken in waits to be rolled up, and the day before to be so anew for series with a sample at the very
// start of it.
func TestIntakeRollsUp(t *testing.T) {
	o := options()
	o.Resolutions = []time.Duration{time.Hour}
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	write(t, a, []point{{series: 1, t: day0 - 10_000, v: 1}})
	require.NoError(t, a.Maintain(true))
	rolls(t, a)
	state := func() (before, day archive.DayStatus) {
		days, err := a.Days()
		require.NoError(t, err)
		for _, d := range days {
			switch d.Day {
			case intakeDay - 1:
				before = d
			case intakeDay:
				day = d
			}
		}
		return before, day
	}
	before, _ := state()
	require.True(t, before.Rolled)
	require.False(t, before.Dirty)
	takeIn(t, a, intakeDay, []incoming{regular(t, intakeDay, 1)})
	before, day := state()
	require.True(t, before.Dirty, "its last bucket lacks the sample of midnight")
	require.False(t, day.Rolled)
	require.False(t, day.Runs)
	require.Equal(t, clock().UnixMilli(), day.Sealed.UnixMilli())
	rolls(t, a)
	before, day = state()
	require.False(t, before.Dirty)
	require.True(t, day.Rolled)
	r, err := a.Roll(t.Context(), intakeDay, nil)
	require.NoError(t, err)
	require.Zero(t, r.Series, "nothing is left to do")
}

// TestIntakeLeft shows that an intake which could not be begun whole, because the disk was full at that very moment, is ended by the next job.
func TestIntakeLeft(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, options())
	calls, full := 0, false
	a.SetFree(func(string) (int64, int64, error) {
		if calls++; full && calls > 1 {
			return 0, 1 << 40, nil
		}
		return 1 << 39, 1 << 40, nil
	})
	calls, full = 0, true
	_, err := a.OpenIntake(t.Context(), intakeDay)
	require.ErrorIs(t, err, rocks.ErrNoSpace)
	_, err = a.Roll(t.Context(), intakeDay-5, nil)
	require.NoError(t, err, "to end it needs no room")
	full = false
	takeIn(t, a, intakeDay, []incoming{regular(t, intakeDay, 1)})
	require.NoError(t, a.Close())
	testkit.Check(t, dir)
}

// TestIntakeOfNothing shows that a day without samples stays as it was.
func TestIntakeOfNothing(t *testing.T) {
	dir := testkit.MemoryDir(t)
	a := testkit.Open(t, dir, options())
	for range 2 {
		r := takeIn(t, a, intakeDay, nil)
		require.Zero(t, r.Samples)
	}
	days, err := a.Days()
	require.NoError(t, err)
	require.Empty(t, days)
	// Samples of other days only.
	refs, all := inOrder(t, a, []incoming{regular(t, intakeDay, 1)})
	i, err := a.OpenIntake(t.Context(), intakeDay-1)
	require.NoError(t, err)
	addAll(t, i, refs, all)
	r, err := i.Commit(t.Context())
	require.NoError(t, err)
	require.Zero(t, r.Samples)
	require.NoError(t, i.Close())
}

// TestIntakeOfNewSeries shows that series which no write has made durable are, with the day that names them.
func TestIntakeOfNewSeries(t *testing.T) {
	dir := testkit.MemoryDir(t)
	o := options()
	a := testkit.Open(t, dir, o)
	all := []incoming{regular(t, intakeDay, 1)}
	takeIn(t, a, intakeDay, all)
	b, to := crash(t, dir, o)
	want := everything{}
	want.take(t, intakeDay, all)
	requireSame(t, want.dump(math.MinInt64, math.MaxInt64), see(t, b, math.MinInt64, math.MaxInt64), "after a kill")
	require.Equal(t, resolve(t, a, seriesLabels(1)), resolve(t, b, seriesLabels(1)))
	require.NoError(t, b.Close())
	testkit.Check(t, to)
}
