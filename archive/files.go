package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"varve/durable"
)

// ackFile says beside the database which journal record was acknowledged last, so
// that a write-ahead log which lost its end is noticed. It has two copies of one
// record, written in turn, so that a torn write leaves the other.
type ackFile struct {
	f           *os.File
	turn        int
	incarnation [16]byte
	bound       bool // the file had a record
	sequence    uint64
}

// A copy: "VRVA", version u32, incarnation, sequence u64, CRC32C over all before;
// numbers big endian. Copies lie 4096 bytes apart, so that they don't share a sector.
const (
	ackMagic  = "VRVA"
	ackSize   = 4 + 4 + 16 + 8 + 4
	ackStride = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func openAckFile(path string) (*ackFile, error) {
	_, statErr := os.Stat(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if errors.Is(statErr, os.ErrNotExist) {
		if err := durable.Sync(filepath.Dir(path)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	a := &ackFile{f: f}
	for turn := range 2 {
		var b [ackSize]byte
		if _, err := f.ReadAt(b[:], int64(turn)*ackStride); err != nil && !errors.Is(err, io.EOF) {
			return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
		}
		body := b[:ackSize-4]
		if string(b[:4]) != ackMagic || crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[ackSize-4:]) {
			continue
		}
		if seq := binary.BigEndian.Uint64(b[24:]); !a.bound || seq >= a.sequence {
			a.sequence, a.bound, a.turn = seq, true, 1-turn
			a.incarnation = [16]byte(b[8:24])
		}
	}
	return a, nil
}

// bind checks that file and database belong together.
func (a *ackFile) bind(incarnation [16]byte) error {
	if a.bound && a.incarnation != incarnation {
		return fmt.Errorf("the file %q belongs to another archive (%x) than the database (%x): put the right one back, or remove it", ackName, a.incarnation, incarnation)
	}
	a.incarnation = incarnation
	return nil
}

// write records that seq is acknowledged, with fdatasync. One caller at a time.
func (a *ackFile) write(seq uint64) error {
	if seq <= a.sequence {
		return nil
	}
	b := make([]byte, 0, ackSize)
	b = append(b, ackMagic...)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = append(b, a.incarnation[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := a.f.WriteAt(b, int64(a.turn)*ackStride); err != nil {
		return fmt.Errorf("write %s: %w", ackName, err)
	}
	if err := unix.Fdatasync(int(a.f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", ackName, err)
	}
	a.turn, a.sequence = 1-a.turn, seq
	return nil
}

func (a *ackFile) close() error { return a.f.Close() }

// freeBytes asks how much of the file system of dir an ordinary user may still use, and its size.
func freeBytes(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// makeRoom gives the reserve file up when the disk is too full to open the database.
func makeRoom(dir string, o *Options) error {
	free, total, err := freeBytes(dir)
	if err != nil {
		return err
	}
	floor := diskFloor{bytesMin: o.DiskFloorBytes, shareMin: o.DiskFloorShare}
	if free >= floor.floor(total) {
		return nil
	}
	if err := os.Remove(filepath.Join(dir, reserveName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// keepReserve makes the reserve file when there is room for it above the floor.
func (a *Archive) keepReserve() error {
	path := filepath.Join(a.dir, reserveName)
	if st, err := os.Stat(path); err == nil && st.Size() == a.o.ReserveBytes {
		return nil
	}
	free, total, err := freeBytes(a.dir)
	if err != nil {
		return err
	}
	if free < a.disk.floor(total)+2*a.o.ReserveBytes {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, a.o.ReserveBytes)
	if errors.Is(err, unix.EOPNOTSUPP) {
		// A file system without preallocation keeps no reserve; the floor still holds.
		err = nil
	}
	return errors.Join(err, f.Close())
}

// copyLogs copies the write-ahead log of a database that does not open to a folder beside it.
func copyLogs(dir string, now time.Time) (string, error) {
	aside := dir + "-damaged-log-" + now.UTC().Format("20060102T150405Z")
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".log") {
			continue
		}
		if err := copyFile(filepath.Join(dir, e.Name()), filepath.Join(aside, e.Name())); err != nil {
			return "", fmt.Errorf("copy %s aside: %w", e.Name(), err)
		}
	}
	return aside, durable.Sync(aside)
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}
