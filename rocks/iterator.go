package rocks

// #cgo noescape rk_iterator_create
// #cgo nocallback rk_iterator_create
// #cgo noescape rk_next
// #cgo nocallback rk_next
// #cgo noescape rk_prev
// #cgo nocallback rk_prev
// #cgo noescape rk_first
// #cgo nocallback rk_first
// #cgo noescape rk_last
// #cgo nocallback rk_last
// #cgo noescape rk_seek
// #cgo nocallback rk_seek
// #cgo noescape rk_seek_for_prev
// #cgo nocallback rk_seek_for_prev
// #include "engine.h"
import "C"

import (
	"errors"
	"sync"
	"unsafe"
)

// IterOptions of an iterator. The zero value walks the whole family as it is now.
// Checksums of blocks are verified whenever they are read from disk.
type IterOptions struct {
	// Snapshot is the moment to read at, nil for now.
	Snapshot *Snapshot
	// Lower, inclusive, and Upper, exclusive, bound the keys. Empty is no bound. They
	// are copied.
	Lower, Upper []byte
	// ReadaheadBytes reads that much at once from disk. 0 leaves it to RocksDB, which
	// starts at 8 KiB and doubles to 256 KiB on sequential reads.
	ReadaheadBytes int
	// NoFillCache keeps a long scan from pushing everything else out of the cache.
	NoFillCache bool
}

// Iterator walks the keys of one family in order, at one moment. It starts
// nowhere: call a Seek first. When Valid turns false, ask Err: an error ends an
// iteration like the last key does, for good, and what was read before may be
// incomplete. An iterator pins files and memtables, so hold it no longer than a
// query runs, and Close it.
//
// It belongs to one goroutine. Moving on a closed DB is safe and gives ErrClosed.
type Iterator struct {
	db       *DB
	family   string
	snapshot *Snapshot // held, or nil
	pos      C.rk_position
	err      error

	// mu guards c and cause, which DB.Close changes from another goroutine.
	mu    sync.Mutex
	c     C.rk_iterator
	cause error // why c is gone
}

var errIteratorClosed = closed("iterator")

// NewIterator returns an iterator over family f. Problems show in Err.
func (db *DB) NewIterator(f Family, o IterOptions) *Iterator {
	it := &Iterator{db: db}
	if !db.gate.enter() {
		it.cause = errIteratorClosed
		it.err = it.cause
		return it
	}
	defer db.gate.leave()
	it.err = it.create(f, o)
	it.cause = it.err
	return it
}

func (it *Iterator) create(f Family, o IterOptions) error {
	family, err := it.db.handle(f)
	if err != nil || family == nil {
		return wrap("iterator", err)
	}
	it.family = it.db.names[f]
	var snapshot *C.rocksdb_snapshot_t
	if o.Snapshot != nil {
		if o.Snapshot.db != it.db {
			return errors.New("iterator: snapshot of another database")
		}
		if snapshot = o.Snapshot.hold(); snapshot == nil {
			return closed("iterator at snapshot")
		}
		it.snapshot = o.Snapshot
	}
	noFill := C.int(0)
	if o.NoFillCache {
		noFill = 1
	}
	C.rk_iterator_create(&it.c, it.db.c, family, snapshot,
		(*C.char)(unsafe.Pointer(unsafe.SliceData(o.Lower))), C.size_t(len(o.Lower)),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(o.Upper))), C.size_t(len(o.Upper)),
		C.size_t(max(o.ReadaheadBytes, 0)), noFill)
	kindIterator.created()
	it.db.mu.Lock()
	it.db.iterators[it] = struct{}{}
	it.db.mu.Unlock()
	return nil
}

// SeekToFirst moves to the first key within the bounds.
func (it *Iterator) SeekToFirst() {
	if it.begin() {
		C.rk_first(it.c.it, &it.pos)
	}
	it.moved()
}

// SeekToLast moves to the last key within the bounds.
func (it *Iterator) SeekToLast() {
	if it.begin() {
		C.rk_last(it.c.it, &it.pos)
	}
	it.moved()
}

// Seek moves to the first key at or after key.
func (it *Iterator) Seek(key []byte) {
	if it.begin() {
		C.rk_seek(it.c.it, (*C.char)(unsafe.Pointer(unsafe.SliceData(key))), C.size_t(len(key)), &it.pos)
	}
	it.moved()
}

// SeekForPrev moves to the last key at or before key.
func (it *Iterator) SeekForPrev(key []byte) {
	if it.begin() {
		C.rk_seek_for_prev(it.c.it, (*C.char)(unsafe.Pointer(unsafe.SliceData(key))), C.size_t(len(key)), &it.pos)
	}
	it.moved()
}

// Next moves to the next key. It does nothing unless the iterator is valid.
func (it *Iterator) Next() {
	if it.begin() && it.pos.valid != 0 {
		C.rk_next(it.c.it, &it.pos)
	}
	it.moved()
}

// Prev moves to the key before. It does nothing unless the iterator is valid.
func (it *Iterator) Prev() {
	if it.begin() && it.pos.valid != 0 {
		C.rk_prev(it.c.it, &it.pos)
	}
	it.moved()
}

// begin locks for a move and reports whether the engine may be asked.
func (it *Iterator) begin() bool {
	it.mu.Lock()
	return it.c.it != nil && it.err == nil
}

// moved ends a move: it keeps the error, if that is why the move led nowhere, and
// unlocks.
func (it *Iterator) moved() {
	switch {
	case it.err != nil:
	case it.c.it == nil:
		it.pos.valid, it.err = 0, it.cause
	case it.pos.valid == 0:
		var status *C.char
		C.rocksdb_iter_get_error(it.c.it, &status)
		it.err = takeFamilyError("iterate", it.family, status)
	}
	it.mu.Unlock()
}

// Valid reports whether the iterator is at a key.
func (it *Iterator) Valid() bool { return it.pos.valid != 0 }

// Key returns the key, nil unless valid. It is memory of the engine: valid until
// the next move or Close, not to be changed.
func (it *Iterator) Key() []byte {
	if it.pos.valid == 0 {
		return nil
	}
	return bytesAt(&it.pos.key, it.pos.key_len)
}

// Value returns the value under the same terms as Key.
func (it *Iterator) Value() []byte {
	if it.pos.valid == 0 {
		return nil
	}
	return bytesAt(&it.pos.value, it.pos.value_len)
}

// Err returns what ended the iteration, nil if that was the end of the keys. Once
// set it stays, and no move leads anywhere.
func (it *Iterator) Err() error { return it.err }

// Close frees the iterator. Err stays as it is. Closing again, or after DB.Close,
// does nothing.
func (it *Iterator) Close() {
	it.destroy(errIteratorClosed)
	it.pos.valid = 0
	it.db.mu.Lock()
	delete(it.db.iterators, it)
	it.db.mu.Unlock()
}

// destroy reports whether there was anything to destroy. Later moves meet cause.
func (it *Iterator) destroy(cause error) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.c.it == nil {
		return false
	}
	C.rk_iterator_destroy(&it.c)
	kindIterator.destroyed()
	it.cause = cause
	if it.snapshot != nil {
		it.snapshot.drop()
	}
	return true
}
