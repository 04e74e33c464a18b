// Package durable makes what is written to files outlast a power cut.
//
// A file's bytes are safe once it is synced, its name only once the folder is. Calls for
// different paths may be made at the same time. Nothing here is for a hot path, since each
// call waits for the disk; the archive's log and journal have ways of their own.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Sync makes the bytes of a file durable, or the names in a folder.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Replace writes a file, readable for its owner alone: after a crash it has the old content or the new, or isn't there if it wasn't.
// What comes in between is a file of its own beside it, whose name ends with .tmp: of two who replace it at once the later wins.
func Replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return Sync(filepath.Dir(path))
}
