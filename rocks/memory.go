package rocks

import (
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	mib = 1 << 20

	memoryBytesMin        = 32 * mib
	memoryBytesDefaultMax = 4 << 30
	memtableBytesMin      = 16 * mib
	memtableBytesMax      = 512 * mib
	walBytesDefault       = 256 * mib
)

// DefaultMemoryBytes is the engine's budget where none is configured: a quarter
// of the cgroup's memory limit or of the host's memory, whichever is smaller,
// and between 32 MiB and 4 GiB. The Go heap and the page cache need the rest.
func DefaultMemoryBytes() int64 {
	limit := uint64(math.MaxInt64)
	for _, read := range []memlimit.Provider{memlimit.FromCgroup, memlimit.FromSystem} {
		if n, err := read(); err == nil && n > 0 {
			limit = min(limit, n)
		}
	}
	if limit == math.MaxInt64 {
		return memoryBytesMin
	}
	return min(max(int64(limit/4), memoryBytesMin), memoryBytesDefaultMax)
}

// budget splits Options.MemoryBytes: a quarter, between 16 and 512 MiB, bounds
// the memtables of all families together (RocksDB flushes the oldest when they
// reach it), the rest is the block cache, which holds index and filter blocks
// too. RocksDB may overshoot while memtables are being flushed, and the cache by
// what iterators pin; State shows both.
type budget struct {
	memtableBytes, cacheBytes uint64
}

func splitMemory(total int64) budget {
	if total <= 0 {
		total = DefaultMemoryBytes()
	}
	total = max(total, memoryBytesMin)
	memtables := min(max(total/4, memtableBytesMin), memtableBytesMax)
	return budget{memtableBytes: uint64(memtables), cacheBytes: uint64(total - memtables)}
}
