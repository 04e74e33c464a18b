package rocks

// #include "engine.h"
import "C"

import (
	"bufio"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// State is what says whether the engine is well. Sizes are bytes.
type State struct {
	// BackgroundErrors counts failed flushes and compactions since Open, WriteErrors
	// failed writes. A failed write does not show among the former.
	BackgroundErrors, WriteErrors uint64
	// WriteStopped: writes wait for flushes or compactions. Otherwise they may be
	// slowed to DelayedWriteBytesPerSecond, 0 for not at all.
	WriteStopped               bool
	DelayedWriteBytesPerSecond uint64
	RunningFlushes             int
	RunningCompactions         int
	PendingCompactionBytes     uint64
	LiveSnapshots              int
	LiveIterators              int
	// OldestSnapshot is when the oldest live snapshot was made, zero without one.
	OldestSnapshot time.Time
	// MemtableBytes counts all families, those being flushed included.
	MemtableBytes uint64
	// TableReaderBytes is held by open table files outside the cache.
	TableReaderBytes                                     uint64
	CacheUsedBytes, CachePinnedBytes, CacheCapacityBytes uint64
}

// State returns the state of now, the zero State when the DB is closed. Cheap
// enough for once a second.
func (db *DB) State() State {
	if !db.gate.enter() {
		return State{}
	}
	defer db.gate.leave()
	var c C.rk_state
	C.rk_read_state(db.c, unsafe.SliceData(db.families), C.size_t(len(db.families)), &c)
	s := State{
		BackgroundErrors:           uint64(c.background_errors),
		WriteErrors:                db.writeErrors.Load(),
		WriteStopped:               c.write_stopped != 0,
		DelayedWriteBytesPerSecond: uint64(c.delayed_write_rate),
		RunningFlushes:             int(c.running_flushes),
		RunningCompactions:         int(c.running_compactions),
		PendingCompactionBytes:     uint64(c.pending_compaction_bytes),
		MemtableBytes:              uint64(c.memtable_bytes),
		TableReaderBytes:           uint64(c.table_reader_bytes),
		CacheUsedBytes:             uint64(C.rocksdb_cache_get_usage(db.config.cache)),
		CachePinnedBytes:           uint64(C.rocksdb_cache_get_pinned_usage(db.config.cache)),
		CacheCapacityBytes:         uint64(C.rocksdb_cache_get_capacity(db.config.cache)),
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	s.LiveIterators, s.LiveSnapshots = len(db.iterators), len(db.snapshots)
	for snapshot := range db.snapshots {
		if s.OldestSnapshot.IsZero() || snapshot.at.Before(s.OldestSnapshot) {
			s.OldestSnapshot = snapshot.at
		}
	}
	return s
}

// CacheCounts counts what was asked of the block cache since Open.
type CacheCounts struct{ Hits, Misses uint64 }

// CacheStats are the counts by what a block holds.
type CacheStats struct{ Data, Index, Filter CacheCounts }

// CacheStats returns the counts of the block cache, zero when the DB is closed. It makes
// RocksDB print all of its statistics: for a scrape, not for every read.
func (db *DB) CacheStats() CacheStats {
	var s CacheStats
	if !db.gate.enter() {
		return s
	}
	defer db.gate.leave()
	name := C.CString("rocksdb.options-statistics")
	defer C.free(unsafe.Pointer(name))
	text := C.rocksdb_property_value(db.c, name)
	if text == nil {
		return s
	}
	defer C.rocksdb_free(unsafe.Pointer(text))
	counts := map[string]*uint64{
		"rocksdb.block.cache.data.hit": &s.Data.Hits, "rocksdb.block.cache.data.miss": &s.Data.Misses,
		"rocksdb.block.cache.index.hit": &s.Index.Hits, "rocksdb.block.cache.index.miss": &s.Index.Misses,
		"rocksdb.block.cache.filter.hit": &s.Filter.Hits, "rocksdb.block.cache.filter.miss": &s.Filter.Misses,
	}
	for scan := bufio.NewScanner(strings.NewReader(C.GoString(text))); scan.Scan(); {
		line, value, found := strings.Cut(scan.Text(), " COUNT : ")
		if into := counts[line]; found && into != nil {
			*into, _ = strconv.ParseUint(strings.TrimSpace(value), 10, 64) // RocksDB prints numbers.
		}
	}
	return s
}

// LevelStats are the table files of one level.
type LevelStats struct {
	Files, Bytes uint64
}

// FamilyStats is what a family holds. Bytes, Files and Levels count table files;
// what is in memtables and the log is not among them.
type FamilyStats struct {
	Bytes, Files                          uint64
	MemtableBytes, PendingCompactionBytes uint64
	Levels                                []LevelStats
}

// FamilyStats returns the numbers of family f, none when it or the DB is not there.
// It walks the list of files: for a page or a scrape, not for every write.
func (db *DB) FamilyStats(f Family) FamilyStats {
	if !db.gate.enter() {
		return FamilyStats{}
	}
	defer db.gate.leave()
	family, err := db.handle(f)
	if err != nil || family == nil {
		return FamilyStats{}
	}
	var c C.rk_family_stats
	C.rk_read_family_stats(db.c, family, &c)
	s := FamilyStats{
		MemtableBytes:          uint64(c.memtable_bytes),
		PendingCompactionBytes: uint64(c.pending_compaction_bytes),
	}
	for i := range int(c.levels) {
		level := LevelStats{Files: uint64(c.files[i]), Bytes: uint64(c.bytes[i])}
		s.Levels = append(s.Levels, level)
		s.Files += level.Files
		s.Bytes += level.Bytes
	}
	return s
}

// SequenceNumber is RocksDB's number of the last change: one for each record of
// each batch written. 0 when the DB is closed.
func (db *DB) SequenceNumber() uint64 {
	if !db.gate.enter() {
		return 0
	}
	defer db.gate.leave()
	return uint64(C.rocksdb_get_latest_sequence_number(db.c))
}
