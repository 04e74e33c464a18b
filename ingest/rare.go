package ingest

import (
	"sync/atomic"
	"time"
)

// rareEvery is the least time between two log lines of a class.
const rareEvery = 10 * time.Second

// The classes of log lines of an input.
const (
	// LogRefusals are about what a sender got wrong.
	LogRefusals = iota
	// LogFailures are about trouble of our own.
	LogFailures
)

// RareLines bounds the rate of log lines: a sender with bad data repeats it with every
// request, and the metrics count them all. The zero value is ready, and safe for use by
// several goroutines.
type RareLines struct {
	nextNanos [LogFailures + 1]atomic.Int64
}

// Due says whether a line of the class may be logged now, and takes it to be.
func (l *RareLines) Due(class int, now time.Time) bool {
	at, next := now.UnixNano(), l.nextNanos[class].Load()
	return at >= next && l.nextNanos[class].CompareAndSwap(next, at+int64(rareEvery))
}
