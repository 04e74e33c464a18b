package rocks

// #cgo noescape rk_get
// #cgo nocallback rk_get
// #cgo noescape rk_multi_get
// #cgo nocallback rk_multi_get
// #include "engine.h"
import "C"

import (
	"fmt"
	"math"
	"sync"
	"unsafe"
)

// Get returns the value of key, appended to dst[:0], and whether there is one.
// The value is the caller's. Without room in dst a new slice is made.
func (db *DB) Get(f Family, key, dst []byte) (value []byte, found bool, err error) {
	if !db.gate.enter() {
		return nil, false, closed("get")
	}
	defer db.gate.leave()
	return db.get(db.reads, f, key, dst)
}

func (db *DB) get(options *C.rocksdb_readoptions_t, f Family, key, dst []byte) ([]byte, bool, error) {
	family, err := db.handle(f)
	if err != nil || family == nil {
		return nil, false, wrap("get", err)
	}
	var found C.rk_value
	var pinned *C.rocksdb_pinnableslice_t
	dst = dst[:0]
	status := C.rk_get(db.c, options, family, (*C.char)(unsafe.Pointer(unsafe.SliceData(key))), C.size_t(len(key)),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(dst))), C.size_t(cap(dst)), &found, &pinned)
	if status != nil {
		return nil, false, takeFamilyError("get from", db.names[f], status)
	}
	if found.found == 0 {
		return nil, false, nil
	}
	if pinned == nil {
		return dst[:found.len], true, nil
	}
	kindValues.created()
	dst = append(dst, bytesAt(&found.data, found.len)...)
	C.rocksdb_pinnableslice_destroy(pinned)
	kindValues.destroyed()
	return dst, true, nil
}

// MultiGet reads many keys at once, in any order and with repetitions, and calls
// each for every key in the order given. A value is memory of the engine, valid
// until each returns. It stops at the first error of each and returns it as it is.
// When a key cannot be read, each is not called at all.
func (db *DB) MultiGet(f Family, keys [][]byte, each func(i int, value []byte, found bool) error) error {
	if !db.gate.enter() {
		return closed("multiget")
	}
	defer db.gate.leave()
	return db.multiGet(db.reads, f, keys, each)
}

// lookups is the reusable memory of a MultiGet: the keys end to end, as a [][]byte
// cannot cross into C.
type lookups struct {
	keys   []byte
	lens   []C.uint32_t
	values []C.rk_value
}

var lookupsPool = sync.Pool{New: func() any { return new(lookups) }}

// multiGetMax bounds the keys of one call into RocksDB, and so what it pins.
const multiGetMax = 1024

func (db *DB) multiGet(options *C.rocksdb_readoptions_t, f Family, keys [][]byte, each func(int, []byte, bool) error) error {
	family, err := db.handle(f)
	if err != nil {
		return wrap("multiget", err)
	}
	if family == nil {
		for i := range keys {
			if err := each(i, nil, false); err != nil {
				return err
			}
		}
		return nil
	}
	for first := 0; first < len(keys); first += multiGetMax {
		part := keys[first:min(first+multiGetMax, len(keys))]
		if err := db.multiGetPart(options, f, family, part, first, each); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) multiGetPart(options *C.rocksdb_readoptions_t, f Family, family *C.rocksdb_column_family_handle_t,
	keys [][]byte, first int, each func(int, []byte, bool) error,
) error {
	l := lookupsPool.Get().(*lookups)
	defer lookupsPool.Put(l)
	l.keys, l.lens, l.values = l.keys[:0], l.lens[:0], append(l.values[:0], make([]C.rk_value, len(keys))...)
	for _, k := range keys {
		if len(k) > math.MaxUint32 {
			return fmt.Errorf("multiget: key of %d bytes", len(k))
		}
		l.keys, l.lens = append(l.keys, k...), append(l.lens, C.uint32_t(len(k)))
	}
	var block unsafe.Pointer
	n := C.size_t(len(keys))
	status := C.rk_multi_get(db.c, options, family, n, (*C.char)(unsafe.Pointer(unsafe.SliceData(l.keys))),
		unsafe.SliceData(l.lens), unsafe.SliceData(l.values), &block)
	if status != nil {
		return takeFamilyError("multiget from", db.names[f], status)
	}
	kindValues.created()
	defer func() {
		C.rk_multi_get_free(block, n)
		kindValues.destroyed()
	}()
	for i := range l.values {
		v := &l.values[i]
		var value []byte
		if v.found != 0 {
			value = bytesAt(&v.data, v.len)
		}
		if err := each(first+i, value, v.found != 0); err != nil {
			return err
		}
	}
	return nil
}

// handle returns the family's handle, nil where a read-only database lacks it.
func (db *DB) handle(f Family) (*C.rocksdb_column_family_handle_t, error) {
	if int(f) >= len(db.families) {
		return nil, fmt.Errorf("no family %d", f)
	}
	return db.families[f], nil
}

// bytesAt is n bytes of C memory whose address is stored at p as an integer.
func bytesAt(p *C.uintptr_t, n C.size_t) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(p)), n)
}
