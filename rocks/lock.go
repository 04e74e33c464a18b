package rocks

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFolder keeps a second process, or a second DB in this one, out of the
// folder: exclusively for a writer, shared among readers. RocksDB's own lock file
// does not know readers, and closing a reader beside a writer deletes the
// writer's files in this version. The lock is on the folder itself, so it adds no
// file, and ends with the process. File systems without such locks leave it to
// RocksDB's.
func lockFolder(dir string, readOnly bool) (*os.File, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if readOnly {
		how = syscall.LOCK_SH
	}
	err = syscall.Flock(int(folder.Fd()), how|syscall.LOCK_NB)
	if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) {
		return folder, nil
	}
	return nil, errors.Join(inUse(dir), folder.Close())
}

func inUse(dir string) error {
	return fmt.Errorf("%w: %s is open in another process or twice in this one; stop that one "+
		"(`fuser %s` shows its number) or use another folder", ErrLocked, dir, dir)
}
