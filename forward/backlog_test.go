package forward_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/forward"
)

// away is a peer that answers nothing until it is back.
func away(back *atomic.Bool, hang bool) func(context.Context, int, *forward.Batch) (forward.Outcome, error) {
	return func(ctx context.Context, _ int, _ *forward.Batch) (forward.Outcome, error) {
		if back.Load() {
			return forward.Outcome{}, nil
		}
		if hang {
			<-ctx.Done()
			return forward.Outcome{}, ctx.Err()
		}
		return forward.Outcome{}, errors.New("away")
	}
}

// TestDropOldest shows that, while a peer is dead or hangs, what is over the limit of age or of bytes is dropped and counted exactly, that what isn't is
// delivered when the peer is back, and that what isn't wanted doesn't count.
func TestDropOldest(t *testing.T) {
	for _, c := range []struct {
		name  string
		hang  bool
		limit func(o *forward.Output)
		// least and most are how many samples may be left when the peer is back. 300 of 10 s each came in.
		least, most int
	}{
		{"age, dead", false, func(o *forward.Output) { o.BacklogAge = 5 * time.Minute }, 270, 310},
		{"age, hanging", true, func(o *forward.Output) { o.BacklogAge = 5 * time.Minute }, 270, 330},
		{"bytes, dead", false, func(o *forward.Output) { o.BacklogBytes = 500 * recordBytes }, 400, 500},
		{"bytes, hanging", true, func(o *forward.Output) { o.BacklogBytes = 500 * recordBytes }, 400, 600},
		{"no limit", false, func(o *forward.Output) {}, 3000, 3000},
		{"limit but no policy", false, func(o *forward.Output) { o.BacklogAge, o.Policy = time.Second, forward.CatchUp }, 3000, 3000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, p := newFakeArchive(), newPeer()
				refs := a.named(11)
				var back atomic.Bool
				p.answer = away(&back, c.hang)
				o := output(p)
				o.Policy, o.InFlightBytes, o.Shards = forward.DropOldest, 1, 2
				o.Exclude = append(o.Exclude, matchers("i", "=", "11"))
				c.limit(&o)
				start(t, a, t.TempDir(), o)
				for i := range 300 {
					a.floats(100*i, refs...)
					pass(10 * time.Second)
				}
				back.Store(true)
				pass(2 * time.Minute)
				tally := a.tally("out")
				require.True(t, a.settled("out"))
				require.Equal(t, uint64(300), tally.Filtered)
				require.Equal(t, uint64(3000), tally.Sent+tally.Dropped)
				require.Equal(t, p.samples(), int(tally.Sent))
				require.GreaterOrEqual(t, p.samples(), c.least)
				require.LessOrEqual(t, p.samples(), c.most)
				for _, have := range p.series {
					require.GreaterOrEqual(t, have[len(have)-1].time, int64(29900), "the newest is there")
				}
				p.faultless(t)
			})
		})
	}
}

// TestDropsNoMoreThanNeeded shows that what was dropped isn't counted again as backlog while the place is slow to move over it.
func TestDropsNoMoreThanNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(10)
		a.perRead = 1
		a.fail = func(call string) error {
			if call == "done" {
				<-time.NewTimer(time.Minute).C
			}
			return nil
		}
		var back atomic.Bool
		p.answer = away(&back, false)
		o := output(p)
		o.Policy, o.BacklogBytes = forward.DropOldest, 900*recordBytes
		for i := range 100 {
			a.floats(100*i, refs...)
		}
		start(t, a, t.TempDir(), o)
		pass(5 * time.Minute)
		back.Store(true)
		pass(3 * time.Hour)
		require.Equal(t, archive.Tally{Sent: 900, Dropped: 100}, a.tally("out"))
		require.Equal(t, 900, p.samples())
	})
}

// TestDropWithinBatch shows that of a batch that waits only what is too old is dropped.
func TestDropWithinBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(5)
		a.perRead = 1
		var back atomic.Bool
		p.answer = away(&back, false)
		o := output(p)
		o.Policy, o.BacklogAge, o.BatchDelay, o.BackoffMax = forward.DropOldest, time.Minute, 20*time.Second, 3*time.Second
		start(t, a, t.TempDir(), o)
		a.floats(1, refs...)
		pass(10 * time.Second)
		a.floats(101, refs...)
		pass(52 * time.Second)
		require.Equal(t, archive.Tally{}, a.tally("out"), "the batch isn't settled")
		back.Store(true)
		pass(7 * time.Second)
		require.Equal(t, archive.Tally{Sent: 5, Dropped: 5}, a.tally("out"))
		require.Equal(t, []sample{{101, 101}}, p.series[`{__name__="m", i="1"}`])
	})
}

// TestMemoryIsBounded shows that a dead peer makes an output hold no more than it may, and one read, however much comes in, and that all of it is there
// in the end.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		refs := a.named(100)
		var back atomic.Bool
		p.answer = away(&back, false)
		o := output(p)
		o.InFlightBytes = 100 << 10
		r := start(t, a, t.TempDir(), o)
		for i := range 1000 {
			a.floats(1000*i, refs...)
			pass(time.Millisecond)
			require.Less(t, r.status(t).InFlightBytes, int64(125<<10))
		}
		require.Greater(t, r.status(t).InFlightBytes, int64(100<<10))
		require.Equal(t, uint64(100_000), r.status(t).Lag.Samples)
		pass(2 * time.Minute)
		require.Equal(t, forward.StateRetrying, r.status(t).State)
		back.Store(true)
		pass(5 * time.Minute)
		require.True(t, a.settled("out"))
		require.Equal(t, archive.Tally{Sent: 100_000}, a.tally("out"))
		p.faultless(t)
	})
}

// TestNothingLeftIsNoTrouble shows that an output whose last batch was dropped is not shown as trying to send it.
func TestNothingLeftIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p := newFakeArchive(), newPeer()
		var back atomic.Bool
		p.answer = away(&back, false)
		o := output(p)
		o.Policy, o.BacklogAge = forward.DropOldest, time.Minute
		r := start(t, a, t.TempDir(), o)
		a.floats(1, a.named(3)...)
		pass(30 * time.Second)
		require.Equal(t, forward.StateRetrying, r.status(t).State)
		pass(2 * time.Minute)
		require.True(t, a.settled("out"))
		require.Equal(t, archive.Tally{Dropped: 3}, a.tally("out"))
		require.Equal(t, forward.StateRunning, r.status(t).State)
		p.faultless(t)
	})
}
