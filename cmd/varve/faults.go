package main

import (
	"errors"
	"strings"
	"sync"
	"time"

	"varve/api"
	"varve/archive"
	"varve/compactor"
	"varve/rocks"
)

// faultLog remembers the damage that the server met since its start. The zero value is ready, and safe for use by several goroutines.
type faultLog struct {
	mu    sync.Mutex
	count uint64
	last  api.Fault
}

const (
	// faultTextMax bounds the text that is kept of a fault.
	faultTextMax = 2000
	// sameFault is how soon the same text again is the same fault: an error is asked about several times on its way up.
	sameFault = time.Second
)

// note counts an error if it is about damage.
func (f *faultLog) note(err error) {
	if errors.Is(err, archive.ErrCorrupt) || errors.Is(err, rocks.ErrCorrupt) {
		f.add(err.Error(), time.Now())
	}
}

func (f *faultLog) add(text string, now time.Time) {
	if len(text) > faultTextMax {
		text = strings.ToValidUTF8(text[:faultTextMax], "") + "..."
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if text == f.last.Text && now.Sub(f.last.At) < sameFault {
		return
	}
	f.count++
	f.last = api.Fault{At: now.UTC(), Text: text}
}

// total is how many faults there were.
func (f *faultLog) total() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

func (f *faultLog) integrity() api.Integrity {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := api.Integrity{FaultsSinceStart: f.count}
	if f.count > 0 {
		last := f.last
		i.LastFault = &last
	}
	return i
}

// status is storageStatus, and notes what is damage.
func (f *faultLog) status(err error) int {
	f.note(err)
	return storageStatus(err)
}

// jobs has the damage noted that jobs of the compactor meet.
func (f *faultLog) jobs(next func(compactor.Outcome)) func(compactor.Outcome) {
	return func(o compactor.Outcome) {
		f.note(o.Err)
		next(o)
	}
}
