// Package rocks is the storage engine: one RocksDB with several column families
// and one write-ahead log. It is the only package that calls C, and it calls
// RocksDB's C interface directly.
//
// The nouns: a DB is an open folder. A Batch is an atomic change over any of its
// families, built without C. A Snapshot is a moment that reads refer to. An
// Iterator walks the keys of a family in order. State and FamilyStats are what an
// operator wants to see.
//
// A DB is safe for concurrent use, as is a Snapshot; a Batch and an Iterator
// belong to one goroutine at a time. Close waits for the calls that are running;
// calls after it return ErrClosed. Every C object is counted (Live) and destroyed
// by Close at the latest.
//
// Every write goes through the log; a write with sync returns when the log is on
// disk. An error carries RocksDB's text, which names the file, and wraps the class
// that callers decide by: ErrCorrupt, ErrNoSpace, ErrIO, ErrStalled, ErrClosed,
// ErrLocked.
//
// The package knows nothing of what its keys and values mean. It does not retry,
// log, watch the disk or turn itself read-only, and it opens a damaged log only as
// far as Options.Recovery allows: those decisions belong to its caller.
package rocks

// #cgo LDFLAGS: -lrocksdb
// #cgo noescape rk_write
// #cgo nocallback rk_write
// #include "engine.h"
import "C"

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"varve/durable"
)

const (
	defaultFamily = "default"
	currentFile   = "CURRENT"
)

// DB is an open database. Safe for concurrent use.
type DB struct {
	dir      string
	readOnly bool
	gate     *gate
	lock     *os.File
	config   *config

	c        *C.rocksdb_t
	names    []string                            // by Family
	families []*C.rocksdb_column_family_handle_t // by Family; nil: missing on disk, read-only
	standard *C.rocksdb_column_family_handle_t   // the family "default", unused but owed a Destroy
	ids      []uint32                            // RocksDB's ids by Family
	ordered  bool                                // ids[f] == f+1 for all: batches need no translation

	reads             *C.rocksdb_readoptions_t
	writes, syncWrite *C.rocksdb_writeoptions_t
	scratch           sync.Pool // *[]byte of translated batches
	unsynced          atomic.Bool
	writeErrors       atomic.Uint64

	// mu guards what is open and must be destroyed before c. It is taken last: after
	// the lock of a Snapshot or an Iterator, never before.
	mu        sync.Mutex
	iterators map[*Iterator]struct{}
	snapshots map[*Snapshot]struct{}
	writers   map[*FileWriter]struct{}
}

// Open opens the database in folder dir and creates folder, database and missing
// families unless o.ReadOnly. It takes as long as the write-ahead log is long
// (Options.MaxWALBytes). A folder that is open already gives ErrLocked, a damaged
// one ErrCorrupt, a missing one with ReadOnly fs.ErrNotExist.
func Open(dir string, o Options) (*DB, error) {
	db, err := open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", dir, err)
	}
	return db, nil
}

func open(dir string, o Options) (_ *DB, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if !o.ReadOnly {
		if err := makeFolder(dir); err != nil {
			return nil, err
		}
	}
	lock, err := lockFolder(dir, o.ReadOnly)
	if err != nil {
		return nil, err
	}
	db := &DB{
		dir: dir, readOnly: o.ReadOnly, gate: newGate(), lock: lock,
		iterators: map[*Iterator]struct{}{}, snapshots: map[*Snapshot]struct{}{}, writers: map[*FileWriter]struct{}{},
		scratch: sync.Pool{New: func() any { return new([]byte) }},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.destroy())
		}
	}()
	if db.config, err = newConfig(&o); err != nil {
		return nil, err
	}
	existing, err := existingFamilies(dir, o.ReadOnly, db.config)
	if err != nil {
		return nil, err
	}
	if err := db.openFamilies(o.Families, existing); err != nil {
		if errors.Is(err, ErrLocked) {
			return nil, inUse(dir)
		}
		return nil, err
	}
	db.reads = C.rocksdb_readoptions_create()
	kindReadOptions.created()
	db.writes, db.syncWrite = newWriteOptions(false), newWriteOptions(true)
	return db, nil
}

// makeFolder creates dir with its parents and makes their names durable.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.Sync(parent)
}

// existingFamilies lists the families on disk, none for a new database. Data files
// without the file that says which of them count are never taken for a new
// database: RocksDB would delete them.
func existingFamilies(dir string, readOnly bool, c *config) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, currentFile)); err == nil {
		return listFamilies(dir, c)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if readOnly {
		return nil, fmt.Errorf("no database there: %w", fs.ErrNotExist)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".sst" || ext == ".log" {
			return nil, fmt.Errorf("%w: there is %s but no file %s; restore the folder from a snapshot, or move it away to start anew",
				ErrCorrupt, e.Name(), currentFile)
		}
	}
	return nil, nil
}

func listFamilies(dir string, c *config) ([]string, error) {
	path := C.CString(dir)
	defer C.free(unsafe.Pointer(path))
	var n C.size_t
	var status *C.char
	list := C.rocksdb_list_column_families(c.db, path, &n, &status)
	if err := takeError("list families", status); err != nil {
		return nil, err
	}
	defer C.rocksdb_list_column_families_destroy(list, n)
	names := make([]string, n)
	for i, name := range unsafe.Slice(list, n) {
		names[i] = C.GoString(name)
	}
	return names, nil
}

// openFamilies opens the database with all families at once, as RocksDB demands.
func (db *DB) openFamilies(specs []FamilySpec, existing []string) error {
	var names []string // to open: default first
	var options []*C.rocksdb_options_t
	add := func(name string, o *C.rocksdb_options_t) {
		names, options = append(names, name), append(options, o)
	}
	add(defaultFamily, db.config.families[0])
	unknown := slices.Clone(existing)
	remove := func(name string) { unknown = slices.DeleteFunc(unknown, func(s string) bool { return s == name }) }
	remove(defaultFamily)
	for i, spec := range specs {
		db.names = append(db.names, spec.Name)
		if db.readOnly && !slices.Contains(existing, spec.Name) {
			continue
		}
		add(spec.Name, db.config.families[i+1])
		remove(spec.Name)
	}
	if len(unknown) > 0 {
		return &UnknownFamilies{unknown}
	}
	handles, err := db.openEngine(names, options)
	if err != nil {
		return err
	}
	db.standard = handles[0]
	db.families = make([]*C.rocksdb_column_family_handle_t, len(specs))
	db.ids = make([]uint32, len(specs))
	db.ordered = true
	for i, name := range names[1:] {
		f := slices.Index(db.names, name)
		db.families[f] = handles[i+1]
		db.ids[f] = uint32(C.rocksdb_column_family_handle_get_id(handles[i+1]))
		db.ordered = db.ordered && db.ids[f] == uint32(f)+1
	}
	return nil
}

// openEngine makes the C call, with its arrays in C memory: Go memory that holds
// pointers must not be handed over.
func (db *DB) openEngine(names []string, options []*C.rocksdb_options_t) ([]*C.rocksdb_column_family_handle_t, error) {
	n := len(names)
	word := unsafe.Sizeof(uintptr(0))
	memory := C.calloc(C.size_t(3*n), C.size_t(word))
	defer C.free(memory)
	cNames := unsafe.Slice((**C.char)(memory), n)
	cOptions := unsafe.Slice((**C.rocksdb_options_t)(unsafe.Add(memory, uintptr(n)*word)), n)
	cHandles := unsafe.Slice((**C.rocksdb_column_family_handle_t)(unsafe.Add(memory, uintptr(2*n)*word)), n)
	for i := range n {
		cNames[i], cOptions[i] = C.CString(names[i]), options[i]
		defer C.free(unsafe.Pointer(cNames[i]))
	}
	path := C.CString(db.dir)
	defer C.free(unsafe.Pointer(path))
	var status *C.char
	if db.readOnly {
		db.c = C.rocksdb_open_for_read_only_column_families(db.config.db, path, C.int(n), &cNames[0], &cOptions[0], &cHandles[0], 0, &status)
	} else {
		db.c = C.rocksdb_open_column_families(db.config.db, path, C.int(n), &cNames[0], &cOptions[0], &cHandles[0], &status)
	}
	if err := takeError("recover", status); err != nil {
		db.c = nil
		return nil, err
	}
	kindDB.created()
	for range n {
		kindFamily.created()
	}
	return slices.Clone(cHandles), nil
}

func newWriteOptions(sync bool) *C.rocksdb_writeoptions_t {
	o := C.rocksdb_writeoptions_create()
	kindWriteOptions.created()
	if sync {
		C.rocksdb_writeoptions_set_sync(o, 1)
	}
	return o
}

// Write applies b atomically. With sync it returns when b is on disk, together
// with everything written before; without, b survives the end of the process but
// not of the machine. An empty batch is nothing to write. It blocks while the
// engine has stopped writes. After an error the batch may or may not be found when
// the database is opened next. b is the caller's again when Write returns. Safe
// for concurrent use; concurrent writes share an fsync.
func (db *DB) Write(b *Batch, sync bool) error {
	if !db.gate.enter() {
		return closed("write")
	}
	defer db.gate.leave()
	rep, err := b.wire()
	if err != nil || rep == nil {
		return wrap("write", err)
	}
	if int(b.top) >= len(db.families) {
		return fmt.Errorf("write: no family %d", b.top)
	}
	if !db.ordered && !db.readOnly {
		scratch := db.scratch.Get().(*[]byte)
		defer db.scratch.Put(scratch)
		*scratch = translate((*scratch)[:0], rep, db.ids)
		rep = *scratch
	}
	options := db.writes
	if sync {
		options = db.syncWrite
	}
	status := C.rk_write(db.c, options, (*C.char)(unsafe.Pointer(unsafe.SliceData(rep))), C.size_t(len(rep)))
	if err := takeError("write", status); err != nil {
		db.writeErrors.Add(1)
		return err
	}
	if !sync {
		db.unsynced.Store(true)
	}
	return nil
}

// SyncWAL makes every write that has returned durable.
func (db *DB) SyncWAL() error {
	if !db.gate.enter() {
		return closed("sync log")
	}
	defer db.gate.leave()
	return db.syncLog()
}

func (db *DB) syncLog() error {
	var status *C.char
	C.rocksdb_flush_wal(db.c, 1, &status)
	return takeError("sync log", status)
}

// Close waits for running calls, makes writes without sync durable and releases
// everything. Memtables are not flushed: the next Open replays the log. Iterators,
// snapshots and file writers that are still open are destroyed and counted in the
// error; slices that such an iterator returned must not be touched any more. A second
// Close returns ErrClosed.
func (db *DB) Close() error {
	if !db.gate.shut(func() { C.rocksdb_disable_manual_compaction(db.c) }) {
		return closed("close")
	}
	var errs []error
	if n, m := db.destroyReaders(); n+m > 0 {
		errs = append(errs, fmt.Errorf("%d iterators and %d snapshots were still open", n, m))
	}
	if n := db.destroyWriters(); n > 0 {
		errs = append(errs, fmt.Errorf("%d file writers were still open", n))
	}
	if db.unsynced.Load() {
		errs = append(errs, db.syncLog())
	}
	errs = append(errs, db.destroy())
	return wrap("close database "+db.dir, errors.Join(errs...))
}

// destroyReaders destroys what callers left open and returns how many iterators
// and snapshots that were.
func (db *DB) destroyReaders() (iterators, snapshots int) {
	db.mu.Lock()
	its, snaps := db.iterators, db.snapshots
	db.iterators, db.snapshots = nil, nil
	db.mu.Unlock()
	for it := range its {
		if it.destroy(errIteratorClosed) {
			iterators++
		}
	}
	for s := range snaps {
		if s.release() {
			snapshots++
		}
	}
	return iterators, snapshots
}

// destroyWriters destroys the file writers that callers left open and returns how many that
// were. Their files stay.
func (db *DB) destroyWriters() (n int) {
	db.mu.Lock()
	writers := db.writers
	db.writers = nil
	db.mu.Unlock()
	for w := range writers {
		if w.destroy(closed("write file " + w.path)) {
			n++
		}
	}
	return n
}

// destroy releases what Open made, as far as it got, in the order RocksDB demands:
// family handles, the database, then what its options share with it.
func (db *DB) destroy() error {
	for _, h := range append(db.families, db.standard) {
		if h != nil {
			C.rocksdb_column_family_handle_destroy(h)
			kindFamily.destroyed()
		}
	}
	if db.c != nil {
		C.rocksdb_close(db.c)
		kindDB.destroyed()
	}
	if db.config != nil {
		db.config.destroy()
	}
	if db.reads != nil {
		C.rocksdb_readoptions_destroy(db.reads)
		kindReadOptions.destroyed()
	}
	for _, o := range []*C.rocksdb_writeoptions_t{db.writes, db.syncWrite} {
		if o != nil {
			C.rocksdb_writeoptions_destroy(o)
			kindWriteOptions.destroyed()
		}
	}
	return db.lock.Close()
}

// wrap is fmt.Errorf with %w, nil for nil.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}
