package archive

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/rocks"
)

// TestCommitPatience shows whom a leader waits for and how long, and that a wait in vain is paid for.
func TestCommitPatience(t *testing.T) {
	const sync = 300 * time.Microsecond
	f := func(what string, p gathering, joined, bytes int, want time.Duration) {
		t.Helper()
		got, about := p.patience(joined, bytes)
		require.Equal(t, want, got, what)
		require.Equal(t, p.about, about, what)
	}
	f("the other half is about", gathering{about: 4, syncTime: sync}, 2, 1000, sync)
	f("all are there", gathering{about: 4, syncTime: sync}, 4, 1000, 0)
	f("one alone", gathering{about: 1, syncTime: sync}, 1, 1000, 0)
	f("a large group", gathering{about: 4, syncTime: sync}, 2, gatherBytesMax, 0)
	f("nothing is synced", gathering{about: 4, syncTime: 10 * time.Microsecond}, 2, 1000, 0)
	f("a slow disk", gathering{about: 4, syncTime: time.Second}, 2, 1000, gatherMax)
	f("a wait in vain before", gathering{about: 4, syncTime: sync, skip: 1}, 2, 1000, 0)

	p := gathering{about: 4, syncTime: sync}
	skipped := func() (n int) {
		for {
			if wait, _ := p.patience(2, 0); wait > 0 {
				return n
			}
			n++
		}
	}
	for want := gatherSkipMin; want < gatherSkipMax; want *= 2 {
		p.waited(true)
		require.Equal(t, want, skipped())
	}
	for range 100 {
		p.waited(true)
		require.Equal(t, gatherSkipMax, skipped())
	}
	p.waited(false)
	require.Zero(t, skipped())
	p.waited(true)
	require.Equal(t, gatherSkipMin, skipped())

	for range 100 {
		p.ended(3, sync)
	}
	require.Equal(t, 3, p.about)
	require.InDelta(t, sync, p.syncTime, float64(time.Microsecond))
}

// TestCommitGathers shows that a leader's group takes those who join while it waits, in one commit, that it goes on
// without them when the time is over, and that a sender alone begins no timer.
func TestCommitGathers(t *testing.T) {
	a, err := Open(t.TempDir()+"/a", Options{Manual: true, MemoryBytes: 64 << 20, ReserveBytes: 1, DiskFloorBytes: 1, DiskFloorShare: 1e-9})
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	<-a.Started()
	u := []arrival.Unknown{{Labels: labels.FromStrings("__name__", "up")}}
	require.NoError(t, a.Resolve(context.Background(), u))
	at := a.o.Now().UnixMilli()
	write := func() error {
		at++
		_, err := a.Write(context.Background(), &arrival.Batch{Rows: []arrival.Row{{Ref: u[0].Ref, Count: 1}}, Times: []int64{at}, Values: []uint64{math.Float64bits(1)}})
		return err
	}
	waits := make(chan time.Duration, 10)
	over := make(chan time.Time)
	p := a.group.gathering
	p.after = func(d time.Duration) (<-chan time.Time, func() bool) {
		waits <- d
		return over, func() bool { return true }
	}
	commits := func() int { return int(counted(t, a.m.commits)) }

	// One alone.
	for range 3 {
		require.NoError(t, write())
	}
	require.Empty(t, waits)

	// Three are about: the leader waits for two more, and all have one commit.
	expect := func() { p.about, p.syncTime, p.skip = 3, time.Millisecond, 0 }
	expect()
	before := commits()
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	wg.Go(func() { errs <- write() })
	require.LessOrEqual(t, <-waits, gatherMax)
	wg.Go(func() { errs <- a.flushGroup() })
	wg.Go(func() { errs <- a.flushGroup() })
	wg.Wait()
	for range 3 {
		require.NoError(t, <-errs)
	}
	require.Equal(t, before+1, commits())
	require.Equal(t, 3, p.about)
	require.Zero(t, p.vain)

	// Nobody comes.
	expect()
	wg.Go(func() { errs <- write() })
	<-waits
	over <- time.Time{}
	wg.Wait()
	require.NoError(t, <-errs)
	require.Equal(t, 1, p.vain)
	require.Equal(t, gatherSkipMin, p.skip)
	require.Equal(t, 1, p.about)

	// A commit that fails tells all who waited in its group, and the next ones go on.
	expect()
	free := a.disk.free
	a.disk.free, a.disk.always, a.disk.spare = func(string) (int64, int64, error) { return 0, 1 << 40, nil }, true, false
	wg.Go(func() { errs <- write() })
	<-waits
	wg.Go(func() { errs <- a.flushGroup() })
	wg.Go(func() { errs <- a.flushGroup() })
	wg.Wait()
	for range 3 {
		err := <-errs
		require.ErrorIs(t, err, rocks.ErrNoSpace)
	}
	a.disk.free = free
	p.about = 1
	require.NoError(t, a.flushGroup())
	require.NoError(t, write())
	require.Same(t, p, a.group.gathering)
}

// TestCommitDiskFloor shows when a commit asks for free space: after a time, after so many bytes, always when there is
// not much to spare, and after every error.
func TestCommitDiskFloor(t *testing.T) {
	asked := 0
	free := int64(100 << 30)
	var failure error
	d := diskFloor{bytesMin: 1 << 30, free: func(string) (int64, int64, error) { asked++; return free, 1 << 40, failure }}
	now := time.UnixMilli(1e12)
	f := func(what string, bytes int, wantAsked bool, wantErr error) {
		t.Helper()
		before := asked
		err := d.checkBefore(bytes, now)
		require.Equal(t, wantAsked, asked > before, what)
		require.ErrorIs(t, err, wantErr, what)
	}
	f("first", 100, true, nil)
	f("at once", 100, false, nil)
	now = now.Add(floorAskEvery - 1)
	f("soon", 100, false, nil)
	now = now.Add(1)
	f("later", 100, true, nil)
	f("bytes", floorAskBytes/2, false, nil)
	f("more bytes", floorAskBytes/2, true, nil)
	now = now.Add(-time.Hour)
	f("the clock was set back", 100, true, nil)
	free = 1<<30 + floorSpareBytes - 1
	now = now.Add(floorAskEvery)
	f("not much is left", 100, true, nil)
	f("not much is left", 100, true, nil)
	free = 1<<30 - 1
	f("nothing is left", 100, true, rocks.ErrNoSpace)
	f("nothing is left", 100, true, rocks.ErrNoSpace)
	free = 100 << 30
	f("there is room again", 100, true, nil)
	f("there is room again", 100, false, nil)
	failure = errors.New("broken")
	f("known to be well", 100, false, nil)
	now = now.Add(floorAskEvery)
	f("broken", 100, true, failure)
	f("broken", 100, true, failure)
}

func counted(t *testing.T, c interface{ Write(*dto.Metric) error }) float64 {
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}
