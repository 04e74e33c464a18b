package snapshot_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"varve/snapshot"
)

// Slots divide the UTC day.
func TestSlot(t *testing.T) {
	for _, c := range []struct {
		every, at time.Duration
		now, want string
	}{
		{24 * time.Hour, 3 * time.Hour, "2025-06-01T02:59:59Z", "2025-05-31T03:00:00Z"},
		{24 * time.Hour, 3 * time.Hour, "2025-06-01T03:00:00Z", "2025-06-01T03:00:00Z"},
		{6 * time.Hour, time.Hour, "2025-06-01T18:00:00Z", "2025-06-01T13:00:00Z"},
		{time.Hour, 0, "2025-06-01T18:59:00Z", "2025-06-01T18:00:00Z"},
		{24 * time.Hour, 3 * time.Hour, "1970-01-01T00:00:00Z", "1969-12-31T03:00:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		require.NoError(t, err)
		require.Equal(t, c.want, snapshot.Slot(snapshot.Schedule{Every: c.every, At: c.at}, now).Format(time.RFC3339))
	}
}

// A schedule over days: the first snapshot is made at once since none is there, the others at their time; one that fails is tried
// again in between; old ones are pruned; a restart makes none that isn't due, and one that was missed.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		o := src.options(b)
		registry := prometheus.NewRegistry()
		o.Registerer = registry
		var taken []time.Time
		src.taken = func() { taken = append(taken, time.Now()); src.grow() }
		s := open(t, o)
		start := time.Now() // midnight UTC
		c := snapshot.Schedule{Every: 24 * time.Hour, At: 3 * time.Hour, Keep: snapshot.Keep{Last: 3}}
		run := func(s *snapshot.Store) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			var wait sync.WaitGroup
			wait.Go(func() { assert.NoError(t, s.Run(ctx, c)) })
			return func() { cancel(); wait.Wait() }
		}
		stop := run(s)
		advance(5*24*time.Hour + time.Hour)
		require.Len(t, taken, 6)
		require.Equal(t, start, taken[0])
		require.Equal(t, start.Add(3*time.Hour), taken[1])
		require.Equal(t, start.Add(4*24*time.Hour+3*time.Hour), taken[5])
		require.WithinDuration(t, start.Add(5*24*time.Hour+3*time.Hour), s.Status().Next, 0)
		require.Equal(t, 3, s.Status().Snapshots)
		require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP varve_snapshot_created_total Snapshots made.
# TYPE varve_snapshot_created_total counter
varve_snapshot_created_total 6
# HELP varve_snapshot_snapshots Snapshots in the bucket when it was last listed, and those made and removed since.
# TYPE varve_snapshot_snapshots gauge
varve_snapshot_snapshots 3
# HELP varve_snapshot_running 1 while a snapshot is made or snapshots are pruned.
# TYPE varve_snapshot_running gauge
varve_snapshot_running 0
`), "varve_snapshot_created_total", "varve_snapshot_snapshots", "varve_snapshot_running"))

		// The bucket is down over the next time, and for half an hour longer than a Create is patient.
		b.mu.Lock()
		b.plan = func(call) fault { return before }
		b.mu.Unlock()
		advance(3 * time.Hour)
		require.NotNil(t, s.Status().LastFailure)
		b.mu.Lock()
		b.plan = nil
		b.mu.Unlock()
		advance(2 * time.Hour)
		require.Nil(t, s.Status().LastFailure)
		list, err := s.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 3)
		require.WithinDuration(t, start.Add(5*24*time.Hour+4*time.Hour), list[2].Taken, time.Hour)
		stop()
		require.True(t, s.Status().Next.IsZero())

		o.Registerer = nil
		had := len(taken)
		s = open(t, o)
		stop = run(s)
		advance(time.Minute)
		stop()
		require.Len(t, taken, had)
		advance(3 * 24 * time.Hour)
		stop = run(open(t, o))
		advance(time.Minute)
		stop()
		require.Len(t, taken, had+1)
		require.Error(t, s.Run(t.Context(), snapshot.Schedule{Every: time.Second}))
	})
}

// A clock that was ahead and is set back doesn't put off the next snapshot by as much; one that was behind and is set is noticed soon.
func TestRunAfterClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		o := src.options(b)
		var wrong atomic.Int64
		o.Now = func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) }
		made := 0
		src.taken = func() { made++; src.grow() }
		s := open(t, o)
		wrong.Store(int64(4 * 365 * 24 * time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { assert.NoError(t, s.Run(ctx, snapshot.Schedule{Every: 24 * time.Hour, At: 3 * time.Hour})) })
		advance(time.Hour)
		require.Equal(t, 1, made)
		wrong.Store(0)
		advance(3 * time.Hour)
		require.Equal(t, 2, made)
		require.WithinDuration(t, time.Now().Add(23*time.Hour), s.Status().Next, 0)
		wrong.Store(int64(30 * 24 * time.Hour))
		advance(time.Hour)
		require.Equal(t, 3, made)
		cancel()
		wait.Wait()
	})
}

// What another archive has in the bucket is no reason to make no snapshot, and no success of this one.
func TestRunBesideAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, b := newSource(t, 1), newMemory()
		_, _, err := open(t, src.options(b)).Create(t.Context(), nil)
		require.NoError(t, err)
		for incarnation, made := range map[string]int{"": 0, strings.Repeat("ab", 16): 1} {
			o := src.options(b)
			o.Incarnation = incarnation
			n := 0
			src.taken = func() { n++ }
			s := open(t, o)
			ctx, cancel := context.WithCancel(t.Context())
			var wait sync.WaitGroup
			wait.Go(func() { assert.NoError(t, s.Run(ctx, snapshot.Schedule{Every: 24 * time.Hour})) })
			advance(time.Minute)
			require.Equal(t, made, n)
			cancel()
			wait.Wait()
		}
		o := src.options(b)
		o.Incarnation = strings.Repeat("ab", 16)
		s := open(t, o)
		_, err = s.List(t.Context())
		require.NoError(t, err)
		require.Nil(t, s.Status().LastSuccess)
		all, err := s.List(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 2)
		r, err := s.Prune(t.Context(), snapshot.Keep{Last: 1}, true)
		require.NoError(t, err)
		require.Empty(t, r.Removed, "of another archive")
		r, err = open(t, src.options(b)).Prune(t.Context(), snapshot.Keep{Last: 1}, true)
		require.NoError(t, err)
		require.Len(t, r.Removed, 1)
	})
}
