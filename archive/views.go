package archive

import "sync"

// views counts readers by the epoch they began in. A reader registers before it
// takes its snapshot; what a commit moves from memory to disk is given the epoch that
// begins with that commit, and may be forgotten in memory when no reader of an older epoch is left.
type views struct {
	mu    sync.Mutex
	now   uint64
	count map[uint64]int
}

func newViews() *views { return &views{now: 1, count: map[uint64]int{}} }

// open registers a reader.
func (v *views) open() (epoch uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.count[v.now]++
	return v.now
}

// close ends a reader of the epoch.
func (v *views) close(epoch uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.count[epoch]--; v.count[epoch] == 0 {
		delete(v.count, epoch)
	}
}

// advance begins an epoch, after a commit and before any reader that shall rely on it.
func (v *views) advance() (epoch uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now++
	return v.now
}

// oldest is the epoch of the oldest reader, the current one when there is none.
func (v *views) oldest() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	oldest := v.now
	for e := range v.count {
		oldest = min(oldest, e)
	}
	return oldest
}

// open counts the readers.
func (v *views) readers() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, c := range v.count {
		n += c
	}
	return n
}
