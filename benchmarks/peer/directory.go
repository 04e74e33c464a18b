package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is what a data directory takes.
type Disk struct {
	// Bytes is what the file system allocated, FixedBytes the part of it in logs,
	// reserves and the like, which have a fixed size or go away by themselves, IndexBytes the part
	// that names series and finds them. Varve keeps that in files with the rest:
	// Families tells. LogBytes are the part of FixedBytes in write-ahead logs.
	Bytes, FixedBytes, IndexBytes, LogBytes int64
}

// Disk adds up the data directory.
func (s *Server) Disk() (Disk, error) {
	var total Disk
	err := filepath.WalkDir(s.DataDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return ignoreGone(err)
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreGone(err)
		}
		bytes := info.Size()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			bytes = stat.Blocks * 512
		}
		total.Bytes += bytes
		name := strings.TrimPrefix(path, s.DataDir+"/")
		if isFixed(s.Spec.Kind, name) {
			total.FixedBytes += bytes
		}
		if isLog(s.Spec.Kind, name) {
			total.LogBytes += bytes
		}
		if isIndex(s.Spec.Kind, name) {
			total.IndexBytes += bytes
		}
		return nil
	})
	if err != nil {
		return Disk{}, fmt.Errorf("size of the data of %s: %w", s.Spec.Name, err)
	}
	return total, nil
}

// isIndex says which files hold nothing but the index.
func isIndex(kind Kind, path string) bool {
	switch kind {
	case VictoriaMetrics:
		return strings.HasPrefix(path, "indexdb/")
	case Prometheus:
		return filepath.Base(path) == "index"
	default:
		return false
	}
}

// isLog says which files are write-ahead logs.
func isLog(kind Kind, path string) bool {
	switch kind {
	case Varve:
		return strings.HasSuffix(path, ".log")
	case Prometheus:
		return strings.HasPrefix(path, "wal/") || strings.HasPrefix(path, "wbl/")
	default:
		return false
	}
}

// isFixed says which files do not grow with the data.
func isFixed(kind Kind, path string) bool {
	switch kind {
	case Varve:
		// The manifest is allocated 4 MiB ahead; it, the options and the engine's own log
		// do not grow with the data.
		name := filepath.Base(path)
		return isLog(kind, path) || strings.Contains(name, "reserve") || strings.HasPrefix(name, "MANIFEST-") ||
			strings.HasPrefix(name, "OPTIONS-") || strings.HasPrefix(name, "LOG")
	default:
		return isLog(kind, path)
	}
}

// ignoreGone drops the error of a file that a running server removed meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// DropCached asks the kernel to forget the pages of all files of a directory, so
// that the next reader goes to the disk.
func DropCached(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		// Only clean pages can be dropped.
		err = errors.Join(file.Sync(), unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
		return errors.Join(err, file.Close())
	})
}

// SyncTimes writes n times 30 KB to a file in dir, each followed by fdatasync, for
// at most 3 seconds, and returns the times, sorted.
func SyncTimes(dir string, n int) ([]time.Duration, error) {
	file, err := os.CreateTemp(dir, "fdatasync-*")
	if err != nil {
		return nil, fmt.Errorf("measure fdatasync: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	block := make([]byte, SyncWriteBytes)
	var times []time.Duration
	started := time.Now()
	for range n {
		began := time.Now()
		if _, err := file.Write(block); err != nil {
			return nil, fmt.Errorf("measure fdatasync: %w", err)
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return nil, fmt.Errorf("measure fdatasync: %w", err)
		}
		times = append(times, time.Since(began))
		if time.Since(started) > 3*time.Second {
			break
		}
	}
	slices.Sort(times)
	return times, nil
}

// SyncWriteBytes is how much SyncTimes writes at a time: what a commit group of
// some thousand samples amounts to.
const SyncWriteBytes = 30_000

// FileSystem names the type of the file system that holds dir.
func FileSystem(dir string) string {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return "unknown"
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.TMPFS_MAGIC: "tmpfs", unix.XFS_SUPER_MAGIC: "xfs",
		unix.BTRFS_SUPER_MAGIC: "btrfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
	if name, known := names[stat.Type]; known {
		return name
	}
	return fmt.Sprintf("0x%x", stat.Type)
}
