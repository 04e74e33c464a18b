package rocks

// #cgo noescape rk_file_put
// #cgo nocallback rk_file_put
// #include "engine.h"
import "C"

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"unsafe"
)

// FileWriter writes a table file for Ingest: keys in ascending order, past memtables and
// the log. The file has the block size, compression and filter of its family. It grows on
// disk as it is written; what is held in memory is a block and the file's index.
//
// It belongs to one goroutine. It must be ended, by Finish or Abort.
type FileWriter struct {
	db      *DB
	path    string
	family  string
	entries uint64

	// mu guards what follows, which DB.Close changes from another goroutine.
	mu    sync.Mutex
	c     *C.rocksdb_sstfilewriter_t
	env   *C.rocksdb_envoptions_t
	cause error // why c is gone, or can't go on
}

// NewFileWriter begins a file for family f. A file that is at path already is replaced. Its
// folder must be there, on the file system of the database.
func (db *DB) NewFileWriter(f Family, path string) (*FileWriter, error) {
	if !db.gate.enter() {
		return nil, closed("write file " + path)
	}
	defer db.gate.leave()
	family, err := db.handle(f)
	switch {
	case err != nil:
		return nil, wrap("write file "+path, err)
	case family == nil || db.readOnly:
		return nil, fmt.Errorf("write file %s: the database is open for reading only", path)
	}
	w := &FileWriter{db: db, path: path, family: db.names[f]}
	w.env = C.rocksdb_envoptions_create()
	kindOtherOptions.created()
	w.c = C.rocksdb_sstfilewriter_create(w.env, db.config.families[f+1])
	kindFileWriter.created()
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var status *C.char
	C.rocksdb_sstfilewriter_open(w.c, name, &status)
	if err := takeError("write file "+path, status); err != nil {
		w.destroy(err)
		return nil, err
	}
	db.mu.Lock()
	db.writers[w] = struct{}{}
	db.mu.Unlock()
	return w, nil
}

// Put adds a key, which must lie behind the one before. Both are copied. After an error the
// file can only be aborted.
func (w *FileWriter) Put(key, value []byte) error {
	if !w.db.gate.enter() {
		return closed("write file " + w.path)
	}
	defer w.db.gate.leave()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause != nil {
		return w.cause
	}
	status := C.rk_file_put(w.c, (*C.char)(unsafe.Pointer(unsafe.SliceData(key))), C.size_t(len(key)),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(value))), C.size_t(len(value)))
	if status != nil {
		w.cause = takeError(fmt.Sprintf("write file %s for family %s, key %x", w.path, w.family, key), status)
		return w.cause
	}
	w.entries++
	return nil
}

// Bytes is about how long the file is by now.
func (w *FileWriter) Bytes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.c == nil {
		return 0
	}
	var n C.uint64_t
	C.rocksdb_sstfilewriter_file_size(w.c, &n)
	return uint64(n)
}

// Finish ends the file, which is on disk when it returns, and tells its length and how many
// keys it has. A file without keys is an error. After an error the file is gone.
func (w *FileWriter) Finish() (bytes, entries uint64, err error) {
	bytes, err = w.finish()
	w.end(closed("write file " + w.path))
	if err != nil {
		return 0, 0, errors.Join(err, removeFile(w.path))
	}
	return bytes, w.entries, nil
}

func (w *FileWriter) finish() (bytes uint64, err error) {
	if !w.db.gate.enter() {
		return 0, closed("write file " + w.path)
	}
	defer w.db.gate.leave()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause != nil {
		return 0, w.cause
	}
	if w.entries == 0 {
		return 0, fmt.Errorf("write file %s: it has no keys", w.path)
	}
	var status *C.char
	C.rocksdb_sstfilewriter_finish(w.c, &status)
	var n C.uint64_t
	C.rocksdb_sstfilewriter_file_size(w.c, &n)
	return uint64(n), takeError("finish file "+w.path, status)
}

// Abort ends the writer and removes its file. Behind Finish, or again, it does nothing.
func (w *FileWriter) Abort() error {
	if !w.end(closed("write file " + w.path)) {
		return nil
	}
	return removeFile(w.path)
}

func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// end takes the writer out of those that are open. It is false if it was out already.
func (w *FileWriter) end(cause error) bool {
	ended := w.destroy(cause)
	w.db.mu.Lock()
	delete(w.db.writers, w)
	w.db.mu.Unlock()
	return ended
}

// destroy reports whether there was anything to destroy. Later calls meet cause.
func (w *FileWriter) destroy(cause error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.c == nil {
		return false
	}
	C.rocksdb_sstfilewriter_destroy(w.c)
	kindFileWriter.destroyed()
	C.rocksdb_envoptions_destroy(w.env)
	kindOtherOptions.destroyed()
	w.c, w.env, w.cause = nil, nil, cause
	return true
}

// ingestTries: what comes into the memtable between the flush and the ingestion needs another flush.
const ingestTries = 3

// Ingest moves files that FileWriters finished into family f, all of them or none, as if
// their keys were written now: snapshots that are open don't see them. When it returns that is durable, and the files
// are gone from their paths; after an error they may be or not. It looks at the end and the outermost
// blocks of the files, not at what is between.
//
// The keys of a file, from its first to its last, should be nobody else's at the time: the
// family is flushed before, and what is in the memtable between them then makes RocksDB refuse, which gives ErrStalled after
// some tries, because flushing with writers at a stop is where this version has had bugs. The files must not overlap each other.
func (db *DB) Ingest(f Family, paths []string) error {
	if !db.gate.enter() {
		return closed("ingest")
	}
	defer db.gate.leave()
	family, err := db.handle(f)
	switch {
	case err != nil:
		return wrap("ingest", err)
	case family == nil || db.readOnly:
		return errors.New("ingest: the database is open for reading only")
	case len(paths) == 0:
		return nil
	}
	for range ingestTries {
		if err = db.flush(f); err != nil {
			return err
		}
		if err = db.ingest(f, paths); !errors.Is(err, ErrStalled) {
			break
		}
	}
	return err
}

func (db *DB) ingest(f Family, paths []string) error {
	options := C.rocksdb_ingestexternalfileoptions_create()
	kindOtherOptions.created()
	defer func() {
		C.rocksdb_ingestexternalfileoptions_destroy(options)
		kindOtherOptions.destroyed()
	}()
	C.rocksdb_ingestexternalfileoptions_set_move_files(options, 1)
	C.rocksdb_ingestexternalfileoptions_set_snapshot_consistency(options, 1)
	C.rocksdb_ingestexternalfileoptions_set_allow_global_seqno(options, 1)
	C.rocksdb_ingestexternalfileoptions_set_allow_blocking_flush(options, 0)
	memory := C.calloc(C.size_t(len(paths)), C.size_t(unsafe.Sizeof(uintptr(0))))
	defer C.free(memory)
	names := unsafe.Slice((**C.char)(memory), len(paths))
	for i, path := range paths {
		names[i] = C.CString(path)
		defer C.free(unsafe.Pointer(names[i]))
	}
	var status *C.char
	C.rocksdb_ingest_external_file_cf(db.c, db.families[f], &names[0], C.size_t(len(paths)), options, &status)
	return takeFamilyError("ingest into", db.names[f], status)
}
