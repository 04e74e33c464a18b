package archive

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// ErrCorrupt marks data that cannot be what was written.
var ErrCorrupt = format.ErrCorrupt

// ErrStarting is the error of queries while a start-up still reads the journal
// back: an answer now could lack acknowledged samples.
var ErrStarting = errors.New("the archive is starting: it reads its journal back, ask again in a few seconds")

// health says whether the archive takes writes. A failed commit makes it
// read-only. A full disk heals: a probe is written now and then until one succeeds.
// Any other fault of the disk stays until a restart, because after a failed fsync
// nobody knows what the disk holds.
type health struct {
	broken atomic.Bool // false: everything is well, nothing below matters

	mu        sync.Mutex
	reason    string
	err       error
	permanent bool
	probed    time.Time
}

// probeEvery is the shortest time between two probes of a disk that was full.
const probeEvery = time.Second

func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.permanent {
		return
	}
	h.err = err
	h.reason, h.permanent = "disk_error", true
	if errors.Is(err, rocks.ErrNoSpace) {
		h.reason, h.permanent = "disk_full", false
	}
	if errors.Is(err, rocks.ErrStalled) {
		h.reason, h.permanent = "overload", false
	}
	if errors.Is(err, rocks.ErrClosed) || errors.Is(err, errShutdown) {
		h.reason = "shutdown"
	}
	h.broken.Store(true)
}

func (h *health) recovered() {
	if !h.broken.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.permanent {
		h.reason, h.err = "", nil
		h.broken.Store(false)
	}
}

// unavailable wraps the error of a write that was not stored.
func (h *health) unavailable(err error) *arrival.Unavailable {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := &arrival.Unavailable{Reason: h.reason, RetryAfter: 5 * time.Second, Err: err}
	if h.permanent {
		u.RetryAfter = 30 * time.Second
		u.Err = fmt.Errorf("%w; the archive is read-only until it is restarted: check the disk first", err)
	}
	return u
}

// ReadOnly returns why the archive takes no writes, "" when it does, and the error behind it.
func (a *Archive) ReadOnly() (reason string, err error) {
	if !a.state.broken.Load() {
		return "", nil
	}
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	return a.state.reason, a.state.err
}

// commitStallMax is how long a commit may take before further writes are refused.
const commitStallMax = 5 * time.Second

// writable refuses a write early, before it costs memory, when its commit could not succeed.
func (a *Archive) writable() error {
	if a.closing.Load() {
		return &arrival.Unavailable{Reason: "shutdown", RetryAfter: 5 * time.Second, Err: errShutdown}
	}
	if at := a.commitStarted.Load(); at != 0 && a.o.Now().Sub(time.Unix(0, at)) > commitStallMax {
		return &arrival.Unavailable{Reason: "overload", RetryAfter: 5 * time.Second, Err: errors.New("a commit has been waiting for the disk for over 5 s")}
	}
	if !a.state.broken.Load() {
		return nil
	}
	return a.probe()
}

// probe finds out whether a disk that was full takes writes again.
func (a *Archive) probe() error {
	h := &a.state
	h.mu.Lock()
	err, permanent := h.err, h.permanent
	now := a.o.Now()
	due := !permanent && now.Sub(h.probed) >= probeEvery
	if due {
		h.probed = now
	}
	h.mu.Unlock()
	if due {
		var b rocks.Batch
		b.Put(family(format.FamilyMeta), []byte(format.MetaProbe), format.AppendUint64(nil, uint64(now.UnixMilli())))
		if err = a.disk.check(); err == nil {
			err = a.db.Write(&b, true)
		}
		if err == nil {
			h.recovered()
			return nil
		}
		h.failed(err)
	}
	if err == nil {
		return nil
	}
	return h.unavailable(err)
}
