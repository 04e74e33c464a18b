package ingest

import "sync/atomic"

// Budget is a number of bytes that requests in flight share. It never makes
// anyone wait: a sender that is told to come back holds no memory here, one that
// waits does.
type Budget struct {
	bytesMax int64
	used     atomic.Int64
}

// NewBudget returns a budget of bytesMax bytes.
func NewBudget(bytesMax int64) *Budget {
	return &Budget{bytesMax: bytesMax}
}

// TryAcquire takes bytes from the budget, or nothing and returns false when that
// many are not left.
func (b *Budget) TryAcquire(bytes int64) bool {
	if b.used.Add(bytes) > b.bytesMax {
		b.used.Add(-bytes)
		return false
	}
	return true
}

// Release gives back what TryAcquire took.
func (b *Budget) Release(bytes int64) {
	if b.used.Add(-bytes) < 0 {
		panic("ingest: more bytes released than acquired")
	}
}

// Used returns the bytes that are taken.
func (b *Budget) Used() int64 { return b.used.Load() }
