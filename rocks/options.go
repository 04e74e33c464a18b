package rocks

// #include "engine.h"
import "C"

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"unsafe"
)

// Family is a column family by its index in Options.Families.
type Family uint8

// Profile says what a family is used for. It decides the block size, filters,
// compression and memtable of the family, and may change from one start to the
// next: files written under another profile stay readable.
type Profile uint8

const (
	// ProfilePoint is for small records read one at a time, hits and misses: 8 KiB
	// blocks, LZ4, a filter of 10 bits a key.
	ProfilePoint Profile = iota
	// ProfileScan is for chunks read in key order: 16 KiB blocks, LZ4, no filter.
	ProfileScan
	// ProfileLog is for a journal with ascending keys, appended, read from the front
	// and trimmed there: 32 KiB blocks, not compressed because its records are, a big
	// memtable, files moved below level 0 as they are. Trim it with
	// DeleteFilesInRange; a range tombstone would span all live files and have
	// compaction rewrite them.
	ProfileLog
	// ProfileSealed is ProfileScan for what is written once, behind all that is there in the order of keys: each flushed
	// file goes below level 0 as it is, and is never written again until something comes into its range.
	ProfileSealed
)

// FamilySpec is a column family to open, and to create where it is missing.
type FamilySpec struct {
	// Name is the family's name on disk.
	Name    string
	Profile Profile
}

// RecoveryMode says what Open does about a write-ahead log with a damaged end.
// Neither mode can notice one that was cut off cleanly.
type RecoveryMode uint8

const (
	// RecoveryTolerate drops a last record that is not whole, as a crash leaves it,
	// and refuses to open where bytes are damaged. The default.
	RecoveryTolerate RecoveryMode = iota
	// RecoveryPointInTime opens with everything before the first damage, however
	// much followed it, and then drops the log. It loses acknowledged data silently,
	// so use it to look (ReadOnly) or to salvage after copying the log aside.
	RecoveryPointInTime
)

// Options of Open. The zero value of every field but Families is its default.
type Options struct {
	// Families are addressed by their index here, at most 126, in any order. Those
	// on disk must all be named.
	Families []FamilySpec
	// MemoryBytes bounds block cache and memtables together: a quarter, 16 to 512
	// MiB, for memtables, the rest for the cache. 0 is DefaultMemoryBytes, the least
	// is 32 MiB.
	MemoryBytes int64
	// MaxWALBytes bounds the write-ahead log and so the time to replay it: beyond it
	// the families with the oldest entries are flushed. 0 is 256 MiB.
	MaxWALBytes int64
	// ReadOnly opens for inspection and changes no file. Families missing on disk
	// read as empty. The folder must have no writer.
	ReadOnly bool
	// Recovery is what to do about a damaged write-ahead log.
	Recovery RecoveryMode
	// MemtableBytes is the size at which one family's memtable is flushed, for tests
	// that want many files of little data. 0 derives it from MemoryBytes.
	MemtableBytes int64
}

func (o *Options) validate() error {
	if len(o.Families) > familiesMax {
		return fmt.Errorf("%d families, at most %d", len(o.Families), familiesMax)
	}
	seen := map[string]bool{defaultFamily: true}
	for _, spec := range o.Families {
		if spec.Name == "" || seen[spec.Name] {
			return fmt.Errorf("family name %q is empty, reserved or used twice", spec.Name)
		}
		seen[spec.Name] = true
		if spec.Profile > ProfileSealed {
			return fmt.Errorf("family %s has no valid profile", spec.Name)
		}
	}
	if o.Recovery > RecoveryPointInTime {
		return errors.New("no valid recovery mode")
	}
	if o.MemoryBytes < 0 || o.MaxWALBytes < 0 || o.MemtableBytes < 0 {
		return errors.New("negative size")
	}
	return nil
}

// baseOptions are the settings without a setter in the C interface, and those
// whose default is wanted but must not depend on the version of the library:
//   - paranoid_file_checks reads every new file back before it counts;
//   - memtable_protection_bytes_per_key guards entries in memory;
//   - max_bgerror_resume_count=0: an engine that resumes by itself after a failed
//     flush may have lost its manifest (RocksDB before 9.5);
//   - ttl=0 keeps RocksDB from rewriting files only because they are old;
//   - everything about log recycling, archiving, compression and deferred flushing
//     stays off: each had a data loss bug after this version.
const baseOptions = "paranoid_checks=true;paranoid_file_checks=true;force_consistency_checks=true;" +
	"flush_verify_memtable_count=true;verify_sst_unique_id_in_manifest=true;" +
	"memtable_protection_bytes_per_key=8;max_bgerror_resume_count=0;ttl=0;" +
	"recycle_log_file_num=0;WAL_ttl_seconds=0;WAL_size_limit_MB=0;manual_wal_flush=false;" +
	"wal_compression=kNoCompression;atomic_flush=false;unordered_write=false;enable_pipelined_write=false;" +
	"track_and_verify_wals_in_manifest=false;compaction_style=kCompactionStyleLevel"

// engineOptions adds what depends on the way of opening. Replaying the log without
// flushing it lets a full disk open. After a salvage the log must be flushed and so
// retired: RocksDB would meet its damage again at the next opening.
func (o *Options) engineOptions() string {
	salvage := o.Recovery == RecoveryPointInTime && !o.ReadOnly
	return baseOptions + ";avoid_flush_during_recovery=" + strconv.FormatBool(!salvage)
}

// Values of the C interface that its header leaves unnamed.
const (
	walTolerateCorruptedTail = 0
	walPointInTime           = 2
	infoLogFatal             = 4
	forceOptimized           = 3
)

// config owns the C objects that must outlive the database. Options share the
// cache; they are destroyed after the database is closed.
type config struct {
	db       *C.rocksdb_options_t
	families []*C.rocksdb_options_t // default first, then Options.Families
	tables   []*C.rocksdb_block_based_table_options_t
	cache    *C.rocksdb_cache_t
}

func newConfig(o *Options) (*config, error) {
	memory := splitMemory(o.MemoryBytes)
	if o.MemtableBytes > 0 {
		memory.memtableBytes = max(memory.memtableBytes, 4*uint64(o.MemtableBytes))
	}
	c := &config{cache: C.rocksdb_cache_create_lru(C.size_t(memory.cacheBytes))}
	kindCache.created()
	var err error
	if c.db, err = newBaseOptions(o); err != nil {
		c.destroy()
		return nil, err
	}
	c.setDatabase(o, memory)
	for _, spec := range append([]FamilySpec{{Name: defaultFamily}}, o.Families...) {
		family, err := newBaseOptions(o)
		if err != nil {
			c.destroy()
			return nil, err
		}
		c.families = append(c.families, family)
		c.setFamily(family, spec.Profile, o, memory)
	}
	return c, nil
}

func newBaseOptions(o *Options) (*C.rocksdb_options_t, error) {
	defaults, parsed := C.rocksdb_options_create(), C.rocksdb_options_create()
	defer C.rocksdb_options_destroy(defaults)
	text := C.CString(o.engineOptions())
	defer C.free(unsafe.Pointer(text))
	var status *C.char
	C.rocksdb_get_options_from_string(defaults, text, parsed, &status)
	if err := takeError("parse engine options", status); err != nil {
		C.rocksdb_options_destroy(parsed)
		return nil, err
	}
	kindOptions.created()
	return parsed, nil
}

func (c *config) setDatabase(o *Options, memory budget) {
	wal := o.MaxWALBytes
	if wal == 0 {
		wal = walBytesDefault
	}
	mode := C.int(walTolerateCorruptedTail)
	if o.Recovery == RecoveryPointInTime {
		mode = walPointInTime
	}
	C.rocksdb_options_set_create_if_missing(c.db, 1)
	C.rocksdb_options_set_create_missing_column_families(c.db, 1)
	C.rocksdb_options_set_wal_recovery_mode(c.db, mode)
	C.rocksdb_options_set_max_total_wal_size(c.db, C.uint64_t(wal))
	C.rocksdb_options_set_db_write_buffer_size(c.db, C.size_t(memory.memtableBytes))
	// One flush and one compaction thread: outside the flush retry bugs of this version.
	C.rocksdb_options_set_max_background_jobs(c.db, 2)
	C.rocksdb_options_set_max_open_files(c.db, C.int(openFilesMax()))
	// An open looks into 16 files of a family at most, and makes these threads for each family, files or not: with the usual 16 an open
	// took more than twice as long.
	C.rocksdb_options_set_max_file_opening_threads(c.db, 2)
	// The information log aborts the process on a full disk, so almost nothing goes there.
	C.rocksdb_options_set_info_log_level(c.db, infoLogFatal)
	C.rocksdb_options_set_keep_log_file_num(c.db, 4)
	C.rocksdb_options_set_max_manifest_file_size(c.db, 64*mib)
	// Write files back as they are written, so that no fsync has to wait for all of one.
	C.rocksdb_options_set_bytes_per_sync(c.db, mib)
	// Statistics of files are not worth reading every one at start.
	C.rocksdb_options_set_skip_stats_update_on_db_open(c.db, 1)
	C.rocksdb_options_set_stats_dump_period_sec(c.db, 0)
	// For the hits and misses of the block cache, which nothing else tells.
	C.rocksdb_options_enable_statistics(c.db)
	C.rocksdb_options_set_stats_persist_period_sec(c.db, 0)
}

// openFilesMax bounds the open table files. A bound, unlike -1, makes Open read a
// part of them only, whatever the size of the archive.
func openFilesMax() int {
	const most, least = 4096, 256
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int(min(max(limit.Cur/2, least), most))
}

func (c *config) setFamily(family *C.rocksdb_options_t, profile Profile, o *Options, memory budget) {
	table := C.rocksdb_block_based_options_create()
	kindTableOptions.created()
	c.tables = append(c.tables, table)
	C.rocksdb_block_based_options_set_block_cache(table, c.cache)
	C.rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1)
	C.rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1)
	C.rocksdb_block_based_options_set_format_version(table, 5)
	C.rocksdb_options_set_max_write_buffer_number(family, 2)
	C.rocksdb_options_set_level_compaction_dynamic_level_bytes(family, 1)

	memtable, blockBytes, compression := memory.memtableBytes/8, 8<<10, C.rocksdb_lz4_compression
	switch profile {
	case ProfilePoint:
		// An open inserts again what memtables held, about 2 us a record, so those of
		// small records stay small: 8 MiB are 100,000 of them.
		memtable = min(memtable, 8*mib)
		// Owned by the table options from here on. Ribbon below level 0 saves a third of
		// a Bloom filter's memory for the same rate of false hits.
		C.rocksdb_block_based_options_set_filter_policy(table, C.rocksdb_filterpolicy_create_ribbon_hybrid(10, 1))
	case ProfileScan:
		memtable, blockBytes = min(memory.memtableBytes/4, 64*mib), 16<<10
	case ProfileSealed:
		memtable, blockBytes = min(memory.memtableBytes/4, 64*mib), 16<<10
		// With more, files that don't touch each other would be merged, and sent again by the next snapshot.
		C.rocksdb_options_set_level0_file_num_compaction_trigger(family, 1)
	case ProfileLog:
		memtable, blockBytes, compression = memory.memtableBytes/4, 32<<10, C.rocksdb_no_compression
		// Every flushed file follows its predecessors in key order, so it can be moved
		// out of level 0 unread, and only there DeleteFilesInRange finds it.
		C.rocksdb_options_set_level0_file_num_compaction_trigger(family, 1)
	}
	if o.MemtableBytes > 0 {
		memtable = uint64(o.MemtableBytes)
	}
	C.rocksdb_options_set_write_buffer_size(family, C.size_t(memtable))
	C.rocksdb_block_based_options_set_block_size(table, C.size_t(blockBytes))
	C.rocksdb_options_set_compression(family, C.int(compression))
	C.rocksdb_options_set_bottommost_compression(family, C.int(compression))
	C.rocksdb_options_set_block_based_table_factory(family, table)
}

func (c *config) destroy() {
	for _, o := range append(c.families, c.db) {
		if o != nil {
			C.rocksdb_options_destroy(o)
			kindOptions.destroyed()
		}
	}
	for _, t := range c.tables {
		C.rocksdb_block_based_options_destroy(t)
		kindTableOptions.destroyed()
	}
	C.rocksdb_cache_destroy(c.cache)
	kindCache.destroyed()
}
