package rocks

// #include <stdlib.h>
// #include "engine.h"
import "C"

import (
	"strconv"
	"strings"
	"unsafe"
)

// KeysEstimate is about how many keys a family has, 0 when it or the DB is not there. What was put and deleted since in
// another table is taken off, what was put twice counts twice until it is compacted.
//
// It asks each table for its properties, which is a read for those that are not open: for a start, a check or a page, not for
// every scrape. RocksDB's own estimate costs nothing but knows nothing of tables that were there at Open, whose statistics are
// not read then.
func (db *DB) KeysEstimate(f Family) uint64 {
	if !db.gate.enter() {
		return 0
	}
	defer db.gate.leave()
	family, err := db.handle(f)
	if err != nil || family == nil {
		return 0
	}
	name := C.CString("rocksdb.aggregated-table-properties")
	defer C.free(unsafe.Pointer(name))
	entries, deletions := uint64(0), uint64(0)
	if text := C.rocksdb_property_value_cf(db.c, family, name); text != nil {
		entries, deletions = parseTableProperties(C.GoString(text))
		C.rocksdb_free(unsafe.Pointer(text))
	}
	for _, memtables := range []string{"active-mem-table", "imm-mem-tables"} {
		entries += familyNumber(db, family, "rocksdb.num-entries-"+memtables)
		deletions += familyNumber(db, family, "rocksdb.num-deletes-"+memtables)
	}
	// A deletion is an entry, and takes another off.
	return entries - min(entries, 2*deletions)
}

func familyNumber(db *DB, family *C.rocksdb_column_family_handle_t, name string) uint64 {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	var value C.uint64_t
	if C.rocksdb_property_int_cf(db.c, family, text, &value) != 0 {
		return 0
	}
	return uint64(value)
}

// parseTableProperties reads the numbers out of what RocksDB prints of the properties of tables:
// "# data blocks=3; # entries=120; # deletions=7; ...".
func parseTableProperties(text string) (entries, deletions uint64) {
	for property := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(property), "=")
		switch name {
		case "# entries":
			entries, _ = strconv.ParseUint(value, 10, 64) // RocksDB prints numbers.
		case "# deletions":
			deletions, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return entries, deletions
}
