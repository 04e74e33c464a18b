package rocks

// #include "engine.h"
import "C"

import (
	"sync"
	"time"
)

// Snapshot is the state of all families at one moment. It pins old versions of
// what changes, so hold it no longer than a query runs. It does not see through
// DeleteFilesInRange. Safe for concurrent use.
type Snapshot struct {
	db *DB
	at time.Time

	// mu guards the fields below. RocksDB asks an iterator's snapshot for its number
	// whenever the iterator opens another file, so the C object lives until it is
	// released and no iterator is left.
	mu        sync.RWMutex
	c         *C.rocksdb_snapshot_t
	options   *C.rocksdb_readoptions_t
	iterators int
	released  bool
}

// NewSnapshot returns a snapshot of now. The caller must Release it. On a closed
// DB every read through it gives ErrClosed.
func (db *DB) NewSnapshot() *Snapshot {
	s := &Snapshot{db: db, at: time.Now()}
	if !db.gate.enter() {
		s.released = true
		return s
	}
	defer db.gate.leave()
	s.c = C.rocksdb_create_snapshot(db.c)
	s.options = C.rocksdb_readoptions_create()
	C.rocksdb_readoptions_set_snapshot(s.options, s.c)
	kindSnapshot.created()
	kindReadOptions.created()
	db.mu.Lock()
	db.snapshots[s] = struct{}{}
	db.mu.Unlock()
	return s
}

// Get is DB.Get at the snapshot.
func (s *Snapshot) Get(f Family, key, dst []byte) (value []byte, found bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.released {
		return nil, false, closed("get at snapshot")
	}
	return s.db.get(s.options, f, key, dst)
}

// MultiGet is DB.MultiGet at the snapshot. each must not use the snapshot.
func (s *Snapshot) MultiGet(f Family, keys [][]byte, each func(i int, value []byte, found bool) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.released {
		return closed("multiget at snapshot")
	}
	return s.db.multiGet(s.options, f, keys, each)
}

// Release frees the snapshot, as soon as no iterator is left that reads at it.
// Releasing again, or after DB.Close, does nothing.
func (s *Snapshot) Release() { s.release() }

// release reports whether the snapshot was not released before.
func (s *Snapshot) release() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		return false
	}
	s.released = true
	s.destroyUnused()
	return true
}

// hold returns the C snapshot for an iterator, which must drop it; nil when the
// snapshot is released.
func (s *Snapshot) hold() *C.rocksdb_snapshot_t {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		return nil
	}
	s.iterators++
	return s.c
}

func (s *Snapshot) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.iterators--
	s.destroyUnused()
}

// destroyUnused wants mu to be locked.
func (s *Snapshot) destroyUnused() {
	if !s.released || s.iterators > 0 {
		return
	}
	C.rocksdb_readoptions_destroy(s.options)
	C.rocksdb_release_snapshot(s.db.c, s.c)
	kindReadOptions.destroyed()
	kindSnapshot.destroyed()
	s.c, s.options = nil, nil
	s.db.mu.Lock()
	delete(s.db.snapshots, s)
	s.db.mu.Unlock()
}
