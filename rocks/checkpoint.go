package rocks

// #include "engine.h"
import "C"

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"varve/durable"
)

// checkpointAttempts: RocksDB of this version may find its manifest gone while it
// copies it, which the next attempt does not.
const checkpointAttempts = 3

// Checkpoint makes folder dir, which must not exist, a consistent copy that can
// be opened. Table files are hard links, so dir must be on the same file system.
// Memtables are flushed first. When it returns, dir and all in it are durable; as
// long as it is not, the folder is called dir.partial, and a leftover of that name
// is removed.
func (db *DB) Checkpoint(dir string) error {
	if !db.gate.enter() {
		return closed("checkpoint")
	}
	defer db.gate.leave()
	return wrap("checkpoint "+dir, db.checkpoint(dir))
}

func (db *DB) checkpoint(dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is in the way: %w", dir, fs.ErrExist), err)
	}
	partial := dir + ".partial"
	var err error
	for range checkpointAttempts {
		if err = os.RemoveAll(partial); err != nil {
			return err
		}
		if err = db.createCheckpoint(partial); err == nil || errors.Is(err, ErrNoSpace) {
			break
		}
	}
	if err == nil {
		err = syncTree(partial)
	}
	if err == nil {
		err = os.Rename(partial, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(partial))
	}
	return durable.Sync(filepath.Dir(dir))
}

func (db *DB) createCheckpoint(dir string) error {
	var status *C.char
	checkpoint := C.rocksdb_checkpoint_object_create(db.c, &status)
	if err := takeError("create", status); err != nil {
		return err
	}
	kindCheckpoint.created()
	defer func() {
		C.rocksdb_checkpoint_object_destroy(checkpoint)
		kindCheckpoint.destroyed()
	}()
	path := C.CString(dir)
	defer C.free(unsafe.Pointer(path))
	C.rocksdb_checkpoint_create(checkpoint, path, 0, &status)
	return takeError("create", status)
}

// syncTree makes a folder durable with everything in it.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return durable.Sync(path)
	})
}
