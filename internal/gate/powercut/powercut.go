// Package powercut acts out the loss of power under a program that was killed.
//
// SIGKILL loses nothing that was written, since the kernel keeps it, so a killed
// server cannot show whether it syncs. A Recorder is a small C library, preloaded
// into the server, that logs which files were created, how much of each was
// synced and which directories were. Cut then makes the directory look as the
// power cut would have left it: each file ends a random way between what was
// synced and what was written, perhaps with a torn end, and files whose
// directory was never synced after their creation may be gone.
//
// Renames and removals count as durable at once, and so do the files that were created in
// a directory before a rename in it, since file systems keep the order of what changes in
// a directory. Go's own files, which do not pass through the C library, are left as they are. What is acted out is
// thus milder than what a disk may do, and never worse.
//
// A Recorder may serve any number of processes, one after the other or at once.
// Cut wants all of them dead.
package powercut

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

//go:embed recorder/recorder.c
var source []byte

// ErrNoCompiler means that the machine has no C compiler for the recorder.
var ErrNoCompiler = errors.New("no gcc in PATH: apt-get install gcc")

// Recorder is the compiled library.
type Recorder struct{ library string }

// NewRecorder compiles the library into the directory.
func NewRecorder(dir string) (*Recorder, error) {
	if _, err := exec.LookPath("gcc"); err != nil {
		return nil, ErrNoCompiler
	}
	library := filepath.Join(dir, "recorder.so")
	cmd := exec.Command("gcc", "-x", "c", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, "-", "-ldl")
	cmd.Stdin = bytes.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the recorder: %w\n%s", err, out)
	}
	return &Recorder{library: library}, nil
}

// Env is the environment of a program whose files below dir are to be recorded
// in the file log, which is appended to. Both paths are absolute, and dir is
// spelled as the program will spell it.
func (r *Recorder) Env(dir, log string) []string {
	return []string{"LD_PRELOAD=" + r.library, "VARVE_POWERCUT_DIR=" + dir, "VARVE_POWERCUT_LOG=" + log}
}

// Damage says what a Cut did.
type Damage struct {
	// Recorded is the number of files that the record knows, Cut that of files
	// that were shortened or torn, Removed that of files that vanished.
	Recorded, Cut, Removed int
	// Bytes is how much was lost in files that did not vanish.
	Bytes int64
}

// String implements fmt.Stringer.
func (d Damage) String() string {
	return fmt.Sprintf("%d files recorded, %d cut by %d bytes, %d removed", d.Recorded, d.Cut, d.Bytes, d.Removed)
}

// Options of a Cut.
type Options struct {
	// Random decides how much of the unsynced bytes survives.
	Random *rand.Rand
	// Exact leaves exactly what was synced, the worst case without tearing.
	Exact bool
	// Torn overwrites a random part of what survives beyond the synced bytes with
	// zeros, as file systems leave it that had grown the file already.
	Torn bool
}

// state is what the record says of a file.
type state struct {
	synced  int64
	created bool
	parent  uint64
	entry   bool // the directory was synced, or a file renamed in it, after the creation
}

// Cut changes the files below dir to what could be left after a power cut, by
// the record in log. Files that the record does not know stay as they are.
func Cut(dir, log string, opts Options) (Damage, error) {
	states, err := readRecord(log)
	if err != nil {
		return Damage{}, err
	}
	damage := Damage{Recorded: len(states)}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("this system has no inode numbers")
		}
		if s, ok := states[stat.Ino]; ok {
			return damage.file(path, info.Size(), s, opts)
		}
		return nil
	})
	if err != nil {
		return damage, fmt.Errorf("cut the power under %s: %w", dir, err)
	}
	return damage, nil
}

func (d *Damage) file(path string, size int64, s *state, opts Options) error {
	if s.created && !s.entry && opts.Random.IntN(2) == 0 {
		d.Removed++
		return os.Remove(path)
	}
	if size <= s.synced {
		return nil
	}
	keep := s.synced
	if !opts.Exact {
		keep += opts.Random.Int64N(size - s.synced + 1)
	}
	d.Cut++
	d.Bytes += size - keep
	if err := os.Truncate(path, keep); err != nil {
		return err
	}
	if !opts.Torn || keep == s.synced {
		return nil
	}
	zeros := opts.Random.Int64N(keep-s.synced) + 1
	return tear(path, keep-zeros, zeros)
}

// tear overwrites n bytes with zeros.
func tear(path string, at, n int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteAt(make([]byte, n), at)
	return err
}

// readRecord reads the log of a recorder. An inode that was removed and used
// again begins anew with its creation.
func readRecord(log string) (map[uint64]*state, error) {
	data, err := os.ReadFile(log)
	if err != nil {
		return nil, fmt.Errorf("read the record of syncs: %w", err)
	}
	states := map[uint64]*state{}
	at := func(inode uint64) *state {
		if states[inode] == nil {
			states[inode] = &state{}
		}
		return states[inode]
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var inode, second uint64
		switch text := lines.Text(); {
		case scan(text, "c %d %d", &inode, &second):
			states[inode] = &state{created: true, parent: second}
		case scan(text, "s %d %d", &inode, &second):
			s := at(inode)
			s.synced = max(s.synced, int64(second))
		case scan(text, "d %d", &inode), scan(text, "r %d", &inode):
			for _, s := range states {
				s.entry = s.entry || s.parent == inode
			}
		default:
			return nil, fmt.Errorf("record of syncs %s: line %q is of no kind", log, text)
		}
	}
	return states, lines.Err()
}

func scan(text, format string, fields ...any) bool {
	n, err := fmt.Sscanf(text, format, fields...)
	return err == nil && n == len(fields)
}
