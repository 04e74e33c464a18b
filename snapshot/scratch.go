package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockScratch keeps other processes out of Scratch. The lock ends with the process.
func (s *Store) lockScratch() (release func() error, err error) {
	if err := os.MkdirAll(s.o.Scratch, 0o700); err != nil {
		return nil, err
	}
	return lockFile(filepath.Join(s.o.Scratch, lockName))
}

// lockFile locks a file, which it makes if need be, or returns ErrBusy.
func lockFile(path string) (release func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w: another process holds %s", ErrBusy, path)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// clearScratch removes checkpoints and restored copies of runs that were killed: they keep table files on the disk
// that the archive has removed. What isn't named as this package names is left alone.
func (s *Store) clearScratch() error {
	entries, err := os.ReadDir(s.o.Scratch)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, isMark := strings.CutSuffix(e.Name(), verifyEnding+markEnding)
		name = strings.TrimSuffix(strings.TrimSuffix(name, partialEnding), verifyEnding)
		if !ValidID(name) || !e.IsDir() && !isMark {
			continue
		}
		s.o.Logger.Warn("removing what a snapshot left that was killed", "folder", e.Name())
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.o.Scratch, e.Name())))
	}
	return err
}

// begin takes the store for one Create or Prune. If it succeeds, finish must be called.
func (s *Store) begin() (finish func() error, err error) {
	if !s.busy.TryLock() {
		return nil, ErrBusy
	}
	finish = func() error { s.busy.Unlock(); return nil }
	if s.o.Scratch == "" {
		return finish, nil
	}
	release, err := s.lockScratch()
	if err != nil {
		return nil, errors.Join(err, finish())
	}
	finish = func() error { defer s.busy.Unlock(); return release() }
	if err := s.clearScratch(); err != nil {
		return nil, errors.Join(err, finish())
	}
	return finish, nil
}

// prunePath is a file that lies in Scratch for as long as a prune of this ID may have a claim in the bucket.
func (s *Store) prunePath(id string) string { return filepath.Join(s.o.Scratch, id+pruneEnding) }

// endDeadPrunes removes the claims of prunes that were killed in this Scratch, so that nobody waits for them. The
// caller holds the lock of Scratch, so none of them lives.
func (s *Store) endDeadPrunes(ctx context.Context) error {
	if s.o.Scratch == "" {
		return nil
	}
	entries, err := os.ReadDir(s.o.Scratch)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), pruneEnding)
		if !ok || !ValidID(id) {
			continue
		}
		if err := s.remove(ctx, claimObject(id)); err != nil {
			return err
		}
		if err := os.Remove(s.prunePath(id)); err != nil {
			return err
		}
	}
	return nil
}
