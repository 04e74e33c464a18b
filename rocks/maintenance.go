package rocks

// #include "engine.h"
import "C"

import (
	"bytes"
	"fmt"
	"slices"
	"unsafe"
)

// DeleteFilesInRange drops the table files whose keys all lie between lower,
// inclusive, and upper, exclusive; empty is no bound. It reads and rewrites
// nothing, and snapshots do not hold the files. Keys in memtables, on level 0 and
// in files that reach beyond the range stay visible, so the caller masks the range
// first, or lets DeleteRange follow. Iterators that are open keep what they see.
func (db *DB) DeleteFilesInRange(f Family, lower, upper []byte) error {
	if !db.gate.enter() {
		return closed("delete files")
	}
	defer db.gate.leave()
	family, err := db.handle(f)
	if err != nil || family == nil {
		return wrap("delete files", err)
	}
	last := lastBelow(upper)
	if bytes.Compare(lower, last) > 0 {
		return nil
	}
	var status *C.char
	C.rocksdb_delete_file_in_range_cf(db.c, family,
		(*C.char)(unsafe.Pointer(unsafe.SliceData(lower))), C.size_t(len(lower)),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(last))), C.size_t(len(last)), &status)
	return takeFamilyError("delete files of", db.names[f], status)
}

// lastBelow returns a key below upper with no key of ours between: the C interface
// takes an inclusive end. Keys that go on with 64 bytes of 0xff after the place
// where they fall below upper are missed, which leaves a file in place.
func lastBelow(upper []byte) []byte {
	ceiling := bytes.Repeat([]byte{0xff}, 64)
	n := len(upper)
	if n == 0 {
		return ceiling
	}
	head := upper[:n-1]
	if upper[n-1] == 0 {
		return head
	}
	last := append(bytes.Clone(head), upper[n-1]-1)
	return append(last, ceiling...)
}

// Flush writes all memtables to table files and waits for it.
func (db *DB) Flush() error {
	if !db.gate.enter() {
		return closed("flush")
	}
	defer db.gate.leave()
	for f, family := range db.families {
		if family == nil {
			continue
		}
		if err := db.flush(Family(f)); err != nil {
			return err
		}
	}
	return nil
}

// flush writes one family's memtable to a table file.
func (db *DB) flush(f Family) error {
	options := C.rocksdb_flushoptions_create()
	kindOtherOptions.created()
	defer func() {
		C.rocksdb_flushoptions_destroy(options)
		kindOtherOptions.destroyed()
	}()
	var status *C.char
	C.rocksdb_flush_cf(db.c, options, db.families[f], &status)
	return takeFamilyError("flush", db.names[f], status)
}

// CompactRange rewrites the files that hold keys from lower to upper, both
// inclusive, empty for no bound, so that what was deleted or replaced there frees
// its space. It may take long; DB.Close interrupts it. RocksDB does not say how it
// went, so an error is what background work met meanwhile.
func (db *DB) CompactRange(f Family, lower, upper []byte) error {
	if !db.gate.enter() {
		return closed("compact")
	}
	defer db.gate.leave()
	family, err := db.handle(f)
	if err != nil || family == nil {
		return wrap("compact", err)
	}
	options := C.rocksdb_compactoptions_create()
	kindOtherOptions.created()
	defer func() {
		C.rocksdb_compactoptions_destroy(options)
		kindOtherOptions.destroyed()
	}()
	C.rocksdb_compactoptions_set_exclusive_manual_compaction(options, 0)
	C.rocksdb_compactoptions_set_bottommost_level_compaction(options, forceOptimized)
	before := db.State().BackgroundErrors
	C.rocksdb_compact_range_cf_opt(db.c, family, options,
		(*C.char)(unsafe.Pointer(bound(lower))), C.size_t(len(lower)),
		(*C.char)(unsafe.Pointer(bound(upper))), C.size_t(len(upper)))
	if n := db.State().BackgroundErrors; n > before {
		return fmt.Errorf("compact family %s: %w: %d background errors meanwhile", db.names[f], ErrIO, n-before)
	}
	return nil
}

// rewriteTriesMax bounds how often Rewrite begins anew. Each time RocksDB would have to move files once more at the wrong moment.
const rewriteTriesMax = 4

// Rewrite is CompactRange that leaves no file as it was that has keys from lower to upper, both inclusive. After it, and unless something was
// written there after a snapshot that is still open, the files stay what they are until more is written to the range.
//
// CompactRange alone looks once on which level the files lie. A file that is being moved down from level 0 at that moment, which costs RocksDB
// nothing and happens right after a flush, is passed over: it keeps its sequence numbers, and RocksDB writes it again when some snapshot is released.
func (db *DB) Rewrite(f Family, lower, upper []byte) error {
	if !db.gate.enter() {
		return closed("rewrite")
	}
	defer db.gate.leave()
	if family, err := db.handle(f); err != nil || family == nil {
		return wrap("rewrite", err)
	}
	if err := db.flush(f); err != nil {
		return err
	}
	old := map[string]struct{}{}
	for _, file := range db.overlapping(f, lower, upper) {
		old[file.Name] = struct{}{}
	}
	for range rewriteTriesMax {
		if err := db.CompactRange(f, lower, upper); err != nil {
			return err
		}
		left := slices.ContainsFunc(db.overlapping(f, lower, upper), func(file LiveFile) bool {
			_, is := old[file.Name]
			return is
		})
		if !left {
			break
		}
	}
	return nil
}

// overlapping are the family's files that have keys from lower to upper, both inclusive, empty for no bound.
func (db *DB) overlapping(f Family, lower, upper []byte) []LiveFile {
	return slices.DeleteFunc(db.LiveFiles(), func(file LiveFile) bool {
		return file.Family != f || bytes.Compare(file.Largest, lower) < 0 || len(upper) > 0 && bytes.Compare(file.Smallest, upper) > 0
	})
}

// bound is the address of a key, nil for an empty one.
func bound(key []byte) *byte {
	if len(key) == 0 {
		return nil
	}
	return &key[0]
}

// Range is a range of keys: Lower inclusive, Upper exclusive.
type Range struct{ Lower, Upper []byte }

// ApproximateBytes estimates how many bytes of table files each range of the family
// takes, to the size of a block, without reading them. Memtables are not counted.
func (db *DB) ApproximateBytes(f Family, ranges []Range) ([]uint64, error) {
	if !db.gate.enter() {
		return nil, closed("estimate sizes")
	}
	defer db.gate.leave()
	family, err := db.handle(f)
	sizes := make([]uint64, len(ranges))
	if err != nil || family == nil || len(ranges) == 0 {
		return sizes, wrap("estimate sizes", err)
	}
	for i, r := range ranges {
		var status *C.char
		lower, upper := (*C.char)(unsafe.Pointer(unsafe.SliceData(r.Lower))), (*C.char)(unsafe.Pointer(unsafe.SliceData(r.Upper)))
		lowerLen, upperLen := C.size_t(len(r.Lower)), C.size_t(len(r.Upper))
		C.rk_approximate_size(db.c, family, lower, lowerLen, upper, upperLen, (*C.uint64_t)(&sizes[i]), &status)
		if err := takeFamilyError("estimate sizes of", db.names[f], status); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}
