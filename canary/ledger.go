package canary

import "slices"

// ledgerMax bounds the rounds that are remembered: a day and more at the usual interval, 64 KiB.
const ledgerMax = 8192

// ledger remembers rounds that this process wrote and that were acknowledged.
type ledger struct {
	// last is the newest round that is known to be durable, Unix ms, 0 if none is.
	last int64
	// times are of this process's rounds, ascending.
	times []int64
}

// found notes a round of the time before this process.
func (l *ledger) found(atMillis int64) { l.last = atMillis }

func (l *ledger) acknowledged(atMillis int64) {
	l.last = atMillis
	i, there := slices.BinarySearch(l.times, atMillis)
	if there {
		return
	}
	l.times = slices.Insert(l.times, i, atMillis)
	if len(l.times) > ledgerMax {
		l.times = slices.Delete(l.times, 0, len(l.times)-ledgerMax)
	}
}

func (l *ledger) has(atMillis int64) bool {
	_, there := slices.BinarySearch(l.times, atMillis)
	return there
}

// between are the rounds later than from, up to and including to.
func (l *ledger) between(fromMillis, toMillis int64) []int64 {
	i, _ := slices.BinarySearch(l.times, fromMillis+1)
	k, _ := slices.BinarySearch(l.times, toMillis+1)
	return l.times[i:max(i, k)]
}
