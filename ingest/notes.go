package ingest

import (
	"context"

	"varve/arrival"
)

// Note is a small record that an input keeps over a restart.
type Note = arrival.Note

// Notes keeps notes beside the samples. It is safe for use by several goroutines.
type Notes interface {
	// SaveNotes writes all notes at once. With durable it returns when they are
	// fsynced, without it they are durable together with the next thing that is: a
	// crash loses the newest first. It keeps no reference to the notes. Errors are
	// those of Sink.Write.
	SaveNotes(ctx context.Context, notes []Note, durable bool) error
	// EachNote calls f for every note whose name begins with prefix, in the order of
	// names, with the whole name. The value is f's during the call only.
	EachNote(prefix string, f func(name string, value []byte) error) error
}
