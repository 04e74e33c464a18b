package rocks

// #include "engine.h"
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// The classes of errors that callers decide by. An error of this package wraps
// at most one of them, so test with errors.Is.
var (
	// ErrCorrupt: bytes on disk are not what was written. Final until reopened.
	ErrCorrupt = errors.New("corrupt data")
	// ErrNoSpace: the disk, or the quota, is full.
	ErrNoSpace = errors.New("no space left")
	// ErrIO: the disk failed in another way than being full.
	ErrIO = errors.New("disk error")
	// ErrStalled: the engine asks to try the same again later. Nothing was lost.
	ErrStalled = errors.New("engine stalled")
	// ErrClosed: the DB, snapshot or iterator was closed before or during the call.
	ErrClosed = errors.New("database is closed")
	// ErrLocked: the folder is open elsewhere.
	ErrLocked = errors.New("folder is in use")
)

// UnknownFamilies is why a folder is not opened that has families which nobody asked for. It was not touched.
type UnknownFamilies struct{ Names []string }

// Error implements error.
func (e *UnknownFamilies) Error() string {
	return fmt.Sprintf("unknown column families %s: a newer version wrote this folder; open it with that version", strings.Join(e.Names, ", "))
}

// engineError is a status of RocksDB with the operation that met it.
type engineError struct {
	op    string
	class error
	text  string
}

func (e *engineError) Error() string { return e.op + ": " + e.text }

// Unwrap returns the class, nil for a status of no class such as an invalid argument.
func (e *engineError) Unwrap() error { return e.class }

// takeError turns a status text of the C interface into an error and frees it.
// A NULL text is no error.
func takeError(op string, text *C.char) error {
	if text == nil {
		return nil
	}
	defer C.rocksdb_free(unsafe.Pointer(text))
	return classify(op, C.GoString(text))
}

// takeFamilyError is takeError for an operation on one family; it costs nothing
// where there is no error.
func takeFamilyError(op, family string, text *C.char) error {
	if text == nil {
		return nil
	}
	return takeError(fmt.Sprintf("%s family %s", op, family), text)
}

// statusClasses maps the beginning of a status text to its class. The order
// matters: a full disk is an IO error to RocksDB.
var statusClasses = []struct {
	prefix, within string
	class          error
}{
	{"Corruption", "", ErrCorrupt},
	{"IO error", "No space left on device", ErrNoSpace},
	{"IO error", "Disk quota exceeded", ErrNoSpace},
	{"IO error", "Space limit reached", ErrNoSpace},
	{"IO error", "While lock file", ErrLocked},
	{"IO error: lock ", "", ErrLocked},
	{"IO error", "", ErrIO},
	{"Result incomplete", "", ErrStalled},
	{"Resource busy", "", ErrStalled},
	{"Operation timed out", "", ErrStalled},
	{"Operation aborted", "", ErrStalled},
	{"Operation failed. Try again.", "", ErrStalled},
	{"Invalid argument", "requires flush", ErrStalled}, // of Ingest
	{"Shutdown in progress", "", ErrClosed},
}

func classify(op, text string) error {
	e := &engineError{op: op, text: text}
	for _, c := range statusClasses {
		if strings.HasPrefix(text, c.prefix) && strings.Contains(text, c.within) {
			e.class = c.class
			break
		}
	}
	return e
}

func closed(op string) error { return fmt.Errorf("%s: %w", op, ErrClosed) }
