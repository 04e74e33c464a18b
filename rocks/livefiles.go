package rocks

// #include "engine.h"
import "C"

import (
	"slices"
	"strings"
	"unsafe"
)

// LiveFile is a table file that the database consists of.
type LiveFile struct {
	// Name is that of the file in the database's folder.
	Name   string
	Family Family
	Level  int
	Bytes  int64
	// Smallest and Largest are its first and its last key.
	Smallest, Largest []byte
}

// LiveFiles lists the table files, none when the DB is closed. It may be stale when it
// returns, unless nobody writes.
func (db *DB) LiveFiles() []LiveFile {
	if !db.gate.enter() {
		return nil
	}
	defer db.gate.leave()
	list := C.rocksdb_livefiles(db.c)
	kindFileList.created()
	defer func() {
		C.rocksdb_livefiles_destroy(list)
		kindFileList.destroyed()
	}()
	var files []LiveFile
	for i := range C.rocksdb_livefiles_count(list) {
		// The family "default" has no files.
		f := slices.Index(db.names, C.GoString(C.rocksdb_livefiles_column_family_name(list, i)))
		if f < 0 {
			continue
		}
		var n C.size_t
		key := func(at *C.char) []byte { return C.GoBytes(unsafe.Pointer(at), C.int(n)) }
		files = append(files, LiveFile{
			Name:   strings.TrimPrefix(C.GoString(C.rocksdb_livefiles_name(list, i)), "/"),
			Family: Family(f), Level: int(C.rocksdb_livefiles_level(list, i)), Bytes: int64(C.rocksdb_livefiles_size(list, i)),
			Smallest: key(C.rocksdb_livefiles_smallestkey(list, i, &n)),
			Largest:  key(C.rocksdb_livefiles_largestkey(list, i, &n)),
		})
	}
	return files
}
