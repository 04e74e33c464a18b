package intake_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/stretchr/testify/require"

	"varve/intake"
)

var begin = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC).UnixMilli()

func interval(mint, maxt int64) tombstones.Interval {
	return tombstones.Interval{Mint: mint, Maxt: maxt}
}

// TestRun shows that what arrives is the source's samples, of equal times the later source's, whichever way a day takes, with
// chunks that overlap, span midnights and have deletes, and that a rerun writes nothing.
func TestRun(t *testing.T) {
	for seed := range uint64(30) {
		s, want := randomSource(t, seed, 4)
		target := newFakeTarget()
		if seed%3 == 0 {
			target.taken[begin+intake.DayMillis] = true
		}
		state := filepath.Join(t.TempDir(), "state")
		o := intake.Options{State: state, Workers: int(seed % 3), PieceBytes: 500}
		r, err := intake.Run(t.Context(), s, target, o)
		require.NoError(t, err)
		require.True(t, r.Equal(), "%v", r.Unequal)
		require.Equal(t, want, target.stored)
		require.Equal(t, count(want), r.Samples)
		require.Zero(t, s.open.Load())
		opened, writes := s.opened.Load(), target.writes
		again, err := intake.Run(t.Context(), s, target, o)
		require.NoError(t, err)
		require.Equal(t, opened, s.opened.Load(), "days are passed over")
		require.Equal(t, r.Samples, again.Samples)
		require.Equal(t, r.Series, again.Series)
		require.NoError(t, os.Remove(state))
		again, err = intake.Run(t.Context(), s, target, o)
		require.NoError(t, err)
		require.True(t, again.Equal())
		require.Equal(t, count(want), again.Repeated)
		require.Equal(t, writes, target.writes, "all is there")
	}
}

// TestBounds shows that samples outside of start and end stay out, whichever way a day takes.
func TestBounds(t *testing.T) {
	for seed := range uint64(20) {
		s, all := randomSource(t, seed, 3)
		from, to := begin+intake.DayMillis/2+1, begin+2*intake.DayMillis+7_777_777
		want := samples{}
		for name, of := range all {
			for at, v := range of {
				if at >= from && at < to {
					want.put(name, at, v)
				}
			}
		}
		target := newFakeTarget()
		target.taken[begin] = seed%2 == 0
		r, err := intake.Run(t.Context(), s, target, intake.Options{Start: from, End: to})
		require.NoError(t, err)
		require.True(t, r.Equal(), "%v", r.Unequal)
		require.Equal(t, want, target.stored)
	}
}

// TestProof shows that one sample that is lost, changed or invented is found, on a leased day and at the write port, and that the day
// isn't noted as done.
func TestProof(t *testing.T) {
	harms := map[string]func(samples){
		"lost":    func(s samples) { name, at := first(s); delete(s[name], at) },
		"changed": func(s samples) { name, at := first(s); s[name][at] = math.Nextafter(s[name][at], 9) },
		"series":  func(s samples) { name, _ := first(s); delete(s, name) },
	}
	for name, harm := range harms {
		for _, taken := range []bool{false, true} {
			t.Run(fmt.Sprint(name, taken), func(t *testing.T) {
				s, want := randomSource(t, 3, 1)
				target := newFakeTarget()
				target.taken[begin] = taken
				target.harm = harm
				o := intake.Options{State: filepath.Join(t.TempDir(), "state")}
				r, err := intake.Run(t.Context(), s, target, o)
				require.NoError(t, err)
				require.False(t, r.Equal())
				require.Len(t, r.Unequal, 1)
				require.Equal(t, "2026-01-05", r.Unequal[0].Day)
				require.EqualValues(t, 1, r.Unequal[0].Series)
				hurt, _ := first(want)
				require.Equal(t, hurt, r.Unequal[0].First)
				target.harm = nil
				r, err = intake.Run(t.Context(), s, target, o)
				require.NoError(t, err)
				require.True(t, r.Equal())
				require.Equal(t, 1, r.Written)
				require.Equal(t, want, target.stored)
			})
		}
	}
}

// TestOverwritten shows that a live sample that takes the place of one that was written is reported as a difference.
func TestOverwritten(t *testing.T) {
	s, want := randomSource(t, 4, 1)
	target := newFakeTarget()
	target.taken[begin] = true
	name, at := first(want)
	target.live = func(stored samples) { stored.put(name, at, 17) }
	r, err := intake.Run(t.Context(), s, target, intake.Options{})
	require.NoError(t, err)
	require.Len(t, r.Unequal, 1)
	require.Equal(t, name, r.Unequal[0].First)
	require.Contains(t, r.Unequal[0].What, "other values of 1")
}

// TestResume shows that a run that is ended at any call of the target goes on with the next one, which does each
// day once more at most.
func TestResume(t *testing.T) {
	for n := 1; ; n++ {
		s, want := randomSource(t, 5, 3)
		target := newFakeTarget()
		state := filepath.Join(t.TempDir(), "state")
		ctx, cancel := context.WithCancel(t.Context())
		calls, stopped := 0, false
		target.stop = func(string) error {
			if calls++; calls == n {
				stopped = true
				cancel()
				return context.Canceled
			}
			return nil
		}
		_, err := intake.Run(ctx, s, target, intake.Options{State: state, Workers: 1})
		cancel()
		if !stopped {
			require.NoError(t, err)
			require.Greater(t, n, 100)
			return
		}
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, s.open.Load())
		target.stop = nil
		r, err := intake.Run(t.Context(), s, target, intake.Options{State: state})
		require.NoError(t, err)
		require.True(t, r.Equal())
		require.Equal(t, want, target.stored)
		require.Equal(t, 3, r.Before+r.Leased+r.Written)
		require.LessOrEqual(t, r.Written, 1)
	}
}

// TestManyDays shows that a source which says that it spans ages is refused, however far they go, and that bounds help.
func TestManyDays(t *testing.T) {
	for _, far := range []int64{1 << 50, math.MaxInt64 - 1} {
		s := &fakeSource{series: []fakeSeries{{labels.FromStrings(model.MetricNameLabel, "b"), []intake.Chunk{
			chunkOf(t, []int64{begin + 1}, []float64{1}), chunkOf(t, []int64{far}, []float64{1}), chunkOf(t, []int64{-far}, []float64{1}),
		}}}}
		_, err := intake.Run(t.Context(), s, newFakeTarget(), intake.Options{})
		require.ErrorContains(t, err, "--start")
		r, err := intake.Run(t.Context(), s, newFakeTarget(), intake.Options{Start: begin - 5*intake.DayMillis, End: begin + 5*intake.DayMillis})
		require.NoError(t, err)
		require.EqualValues(t, 1, r.Samples)
	}
}

// TestEmptyDays shows that the state file isn't written for each of many days without samples, but for all of them in the end.
func TestEmptyDays(t *testing.T) {
	s := &fakeSource{series: []fakeSeries{{labels.FromStrings(model.MetricNameLabel, "b"), []intake.Chunk{
		chunkOf(t, []int64{0}, []float64{1}), chunkOf(t, []int64{begin + 1}, []float64{1}),
	}}}}
	o := intake.Options{State: filepath.Join(t.TempDir(), "state"), End: begin + 3*intake.DayMillis}
	began := time.Now()
	r, err := intake.Run(t.Context(), s, newFakeTarget(), o)
	require.NoError(t, err)
	require.Equal(t, 2, r.Leased)
	t.Log(time.Since(began))
	again, err := intake.Run(t.Context(), s, newFakeTarget(), o)
	require.NoError(t, err)
	require.Equal(t, r.Empty+2, again.Before)
}

// TestBusy shows that a target that is busy is waited for, for ever longer, and that a wait ends with the context.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, want := randomSource(t, 6, 1)
		target := newFakeTarget()
		target.busy = 12
		began := time.Now()
		_, err := intake.Run(t.Context(), s, target, intake.Options{Workers: 1})
		require.NoError(t, err)
		require.Equal(t, want, target.stored)
		require.Equal(t, 62700*time.Millisecond, time.Since(began))
		target, ctx := newFakeTarget(), context.Context(nil)
		target.busy = math.MaxInt
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err = intake.Run(ctx, s, target, intake.Options{Workers: 1})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestReadAgain shows that a day whose source had to leave something out begins anew.
func TestReadAgain(t *testing.T) {
	s, want := randomSource(t, 7, 2)
	s.again.Store(2)
	target := newFakeTarget()
	var last intake.Progress
	r, err := intake.Run(t.Context(), s, target, intake.Options{Progress: func(p intake.Progress) { last = p }})
	require.NoError(t, err)
	require.True(t, r.Equal())
	require.Equal(t, want, target.stored)
	require.Equal(t, count(want), last.Samples)
	require.Equal(t, 2, last.Days)
	require.Equal(t, 2, last.DaysTotal)
	require.Zero(t, s.open.Load())
}

// TestRefused shows that series and days that the target doesn't take are counted and named, and the rest arrives.
func TestRefused(t *testing.T) {
	s := &fakeSource{series: []fakeSeries{
		{labels.FromStrings(model.MetricNameLabel, "a", "refuse", "x"), []intake.Chunk{chunkOf(t, []int64{begin + 1}, []float64{1})}},
		{labels.FromStrings(model.MetricNameLabel, "b"), []intake.Chunk{chunkOf(t, []int64{begin + 1, begin + intake.DayMillis}, []float64{1, 2})}},
	}}
	target := newFakeTarget()
	opened := 0
	target.stop = func(call string) error {
		if call == "open" {
			if opened++; opened == 2 {
				return fmt.Errorf("%w: too old", intake.ErrDayRefused)
			}
		}
		return nil
	}
	r, err := intake.Run(t.Context(), s, target, intake.Options{ExtraLabels: labels.FromStrings("site", "s")})
	require.NoError(t, err)
	require.Equal(t, map[string]intake.Refusal{"not wanted": {Series: 1, Example: `{__name__="a", refuse="x", site="s"}`}}, r.RefusedSeries)
	require.Len(t, r.RefusedDays, 1)
	require.Equal(t, "2026-01-06", r.RefusedDays[0].Day)
	require.Equal(t, samples{`{__name__="b", site="s"}`: {begin + 1: 1}}, target.stored)
}

// TestRefusedBefore shows that a rerun, which passes over the days that are done, tells again what was refused on them.
func TestRefusedBefore(t *testing.T) {
	for way, taken := range map[string]bool{"leased": false, "written": true} {
		s := &fakeSource{series: []fakeSeries{
			{labels.FromStrings(model.MetricNameLabel, "a", "refuse", "x"), []intake.Chunk{chunkOf(t, []int64{begin + 1}, []float64{1})}},
			{labels.FromStrings(model.MetricNameLabel, "b"), []intake.Chunk{chunkOf(t, []int64{begin + 1}, []float64{1})}},
			{labels.FromStrings(model.MetricNameLabel, "c"), []intake.Chunk{chunkOf(t, []int64{begin + 1, begin + 2}, []float64{1, 2})}},
		}}
		target := newFakeTarget()
		target.taken[begin] = taken
		target.expires = `{__name__="c"}`
		o := intake.Options{State: filepath.Join(t.TempDir(), "state")}
		r, err := intake.Run(t.Context(), s, target, o)
		require.NoError(t, err)
		require.True(t, r.Equal(), "%v", r.Unequal)
		require.Equal(t, map[string]uint64{"out_of_retention": 2}, r.RefusedSamples, way)
		again, err := intake.Run(t.Context(), s, target, o)
		require.NoError(t, err)
		require.Equal(t, 1, again.Before)
		require.Equal(t, r.RefusedSeries, again.RefusedSeries, way)
		require.Equal(t, r.RefusedSamples, again.RefusedSamples, way)
	}
}

// TestTakenWhileAdded shows that a target which says only while samples are on their way that the day is taken gets them through the write port.
func TestTakenWhileAdded(t *testing.T) {
	s, want := randomSource(t, 6, 2)
	target := newFakeTarget()
	adds := 0
	target.stop = func(call string) error {
		if call == "add" {
			if adds++; adds == 2 {
				return fmt.Errorf("too late: %w", intake.ErrDayTaken)
			}
		}
		return nil
	}
	r, err := intake.Run(t.Context(), s, target, intake.Options{})
	require.NoError(t, err)
	require.True(t, r.Equal())
	require.Equal(t, 1, r.Written)
	require.Equal(t, want, target.stored)
}

// TestBadChunks shows that a chunk that isn't what is said of it is an error that names the day, and that nothing of it is committed.
func TestBadChunks(t *testing.T) {
	late := chunkOf(t, []int64{begin + 5, begin + 6}, []float64{1, 2})
	late.MaxMillis = begin + 5
	torn := chunkOf(t, []int64{begin + 5, begin + 6, begin + 700, begin + 9999}, []float64{1, 2.2, 17, 1e300})
	torn.Chunk.Reset(torn.Chunk.Bytes()[:12])
	for _, c := range []intake.Chunk{late, torn} {
		s := &fakeSource{series: []fakeSeries{{labels.FromStrings(model.MetricNameLabel, "b"), []intake.Chunk{c}}}}
		target := newFakeTarget()
		_, err := intake.Run(t.Context(), s, target, intake.Options{})
		require.ErrorIs(t, err, intake.ErrBadChunk)
		require.ErrorContains(t, err, "2026-01-05")
		require.Empty(t, target.stored)
	}
}

// TestStateFile shows that a state file that can't be read is an error that says what to do, and that another selection is done anew.
func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.WriteFile(path, []byte(`{"version":2}`), 0o600))
	s, _ := randomSource(t, 8, 1)
	_, err := intake.Run(t.Context(), s, newFakeTarget(), intake.Options{State: path})
	require.ErrorContains(t, err, "move it away")
	require.NoError(t, os.Remove(path))
	_, err = intake.Run(t.Context(), s, newFakeTarget(), intake.Options{State: path})
	require.NoError(t, err)
	r, err := intake.Run(t.Context(), s, newFakeTarget(), intake.Options{State: path, ExtraLabels: labels.FromStrings("a", "b")})
	require.NoError(t, err)
	require.Zero(t, r.Before)
	left, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Len(t, left, 1)
	_, err = intake.Run(t.Context(), s, newFakeTarget(), intake.Options{Start: 5, End: 5})
	require.Error(t, err)
	require.False(t, errors.Is(err, context.Canceled))
}
