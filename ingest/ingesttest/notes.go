package ingesttest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"varve/ingest"
)

// Notes implements ingest.Notes in memory. It may be used by several goroutines; Fail
// is set before its first use.
type Notes struct {
	// Fail is asked before notes are saved, unless it is nil; its error is the answer.
	Fail func() error

	mu    sync.Mutex // guards what follows
	saved map[string][]byte
	// waiting are notes that are not durable, in the order they were saved.
	waiting []ingest.Note
	durable map[string][]byte
	saves   int
}

var _ ingest.Notes = (*Notes)(nil)

// NewNotes returns no notes.
func NewNotes() *Notes {
	return &Notes{saved: make(map[string][]byte), durable: make(map[string][]byte)}
}

// SaveNotes implements ingest.Notes.
func (n *Notes) SaveNotes(ctx context.Context, notes []ingest.Note, durable bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n.Fail != nil {
		if err := n.Fail(); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.saves++
	for _, note := range notes {
		note.Value = slices.Clone(note.Value)
		put(n.saved, note)
		n.waiting = append(n.waiting, note)
	}
	if durable {
		n.sync()
	}
	return nil
}

func put(to map[string][]byte, note ingest.Note) {
	if note.Value == nil {
		delete(to, note.Name)
		return
	}
	to[note.Name] = note.Value
}

// Sync makes all notes durable, as a write of samples does.
func (n *Notes) Sync() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sync()
}

func (n *Notes) sync() {
	for _, note := range n.waiting {
		put(n.durable, note)
	}
	n.waiting = nil
}

// Lose drops what is not durable, as a power cut may.
func (n *Notes) Lose() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting, n.saved = nil, maps.Clone(n.durable)
}

// Saves returns how often notes were saved.
func (n *Notes) Saves() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.saves
}

// Names returns the names of all notes, in order.
func (n *Notes) Names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.saved))
}

// EachNote implements ingest.Notes.
func (n *Notes) EachNote(prefix string, f func(name string, value []byte) error) error {
	n.mu.Lock()
	saved := maps.Clone(n.saved)
	n.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(saved)) {
		if strings.HasPrefix(name, prefix) {
			if err := f(name, slices.Clone(saved[name])); err != nil {
				return err
			}
		}
	}
	return nil
}
