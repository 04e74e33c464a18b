package archive

import "time"

// gathering decides how long a leader waits for others to join its group.
//
// Senders that wait for an answer before they send more fall into halves otherwise: while the group of one half is
// synced the other half gathers, and leads the moment the sync is over, before those who have just been answered can
// send again. Each half then has a sync of its own. The rules:
//
//  1. A leader waits only if fewer are in its group than were about when the sync before it ended: those whom that
//     sync answered, and those who had gathered meanwhile. So one sender alone never waits.
//  2. It waits until as many have joined, and no longer than the last syncs took: if all come, that and one sync stand
//     for two syncs.
//  3. A wait in vain is paid for with groups that are not waited for, more of them each time.
//
// It is the leader's and goes from group to group.
type gathering struct {
	// about is how many senders were about when the last group ended.
	about int
	// syncTime is the mean time of the last syncs.
	syncTime time.Duration
	// skip is how many groups are not waited for, vain how many waits in a row were.
	skip, vain int
	// after begins a timer, except in tests.
	after func(time.Duration) (over <-chan time.Time, stop func() bool)
}

// The bounds of a wait: below the first a sync costs no more than the wait does, as where nothing is synced at all; the
// second is beyond what a sender takes that has its next request at hand.
const (
	gatherMin = 50 * time.Microsecond
	gatherMax = 2 * time.Millisecond
)

// gatherBytesMax is the size of a group for which nobody waits: writing it takes as long as syncing it.
const gatherBytesMax = 256 << 10

// The least and the most groups that are not waited for after a wait in vain.
const (
	gatherSkipMin = 16
	gatherSkipMax = 1 << 10
)

// patience returns how long to wait for others to join a group, and for how many in all.
func (p *gathering) patience(joined, bytes int) (wait time.Duration, about int) {
	about = p.about
	if p.skip > 0 {
		p.skip--
		return 0, about
	}
	if joined >= about || bytes >= gatherBytesMax {
		return 0, about
	}
	if wait = min(p.syncTime, gatherMax); wait < gatherMin {
		return 0, about
	}
	return wait, about
}

// waited takes note of a wait.
func (p *gathering) waited(inVain bool) {
	if !inVain {
		p.vain = 0
		return
	}
	p.skip = min(gatherSkipMin<<min(p.vain, 10), gatherSkipMax)
	p.vain++
}

// ended takes note of a group's end.
func (p *gathering) ended(about int, took time.Duration) {
	p.about = about
	// An eighth: some ten syncs make it forget a slow one.
	p.syncTime += (took - p.syncTime) / 8
}

// gather waits for others to join the group that gathers. Called by the leader, with the archive's lock held, which it gives
// back meanwhile.
func (a *Archive) gather() {
	g := a.group
	p := g.gathering
	wait, about := p.patience(g.joined, len(g.record))
	if wait == 0 {
		return
	}
	g.awaited = about
	g.complete = make(chan struct{})
	a.mu.Unlock()
	over, stop := p.after(wait)
	select {
	case <-g.complete:
		stop()
		p.waited(false)
	case <-over:
		p.waited(true)
	}
	a.mu.Lock()
	g.awaited = 0
}

func newTimer(d time.Duration) (<-chan time.Time, func() bool) {
	t := time.NewTimer(d)
	return t.C, t.Stop
}
