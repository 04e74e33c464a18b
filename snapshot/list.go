package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Listed is a line of the list of snapshots.
type Listed struct {
	ID          string    `json:"id,omitempty"`
	Object      string    `json:"object"`
	Taken       time.Time `json:"taken"`
	Varve       string    `json:"varve,omitempty"`
	Incarnation string    `json:"incarnation,omitempty"`
	Last        uint64    `json:"last"`
	Series      uint64    `json:"series"`
	Days        int       `json:"days"`
	Files       int       `json:"files"`
	Bytes       int64     `json:"bytes"`
	SentBytes   int64     `json:"sentBytes"`
	// Damaged says why the manifest can't be read, "" if it can. The rest is then empty but for ID and Object.
	Damaged string `json:"damaged,omitempty"`
	// Foreign is an object among the manifests that has no manifest's name. The rest is empty but for Object.
	Foreign bool `json:"foreign,omitempty"`
}

const listParallel = 8

// List returns what lies among the manifests, the oldest first. Only what the bucket itself refuses is an error.
func (s *Store) List(ctx context.Context) ([]Listed, error) {
	all, err := s.manifests(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return all, nil
}

// manifests lists all. With files every manifest is read, and files is called with each that can be, one at a time; one
// that is listed and can't be found is then an error, since it may need any file. Without, those that are known aren't read again.
func (s *Store) manifests(ctx context.Context, files func(Manifest)) ([]Listed, error) {
	began := s.changesNow()
	objects, err := s.list(ctx, manifestsFolder)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var all []Listed
	err = each(ctx, listParallel, objects, func(ctx context.Context, o listed) error {
		l, m, err := s.listOne(ctx, o.name, files != nil)
		if files == nil && errors.Is(err, ErrNotFound) {
			return nil // pruned since it was listed
		}
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, l)
		if files != nil && m.ID != "" {
			files(m)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Listed) int {
		// Names of snapshots begin with the time they were made.
		if d := strings.Compare(a.ID, b.ID); d != 0 {
			return d
		}
		return strings.Compare(a.Object, b.Object)
	})
	if err == nil {
		s.listedAll(all, began)
	}
	return all, err
}

// listOne reads one manifest, unless it is known and need not be read.
func (s *Store) listOne(ctx context.Context, object string, read bool) (l Listed, m Manifest, err error) {
	id := idOf(manifestsFolder, object)
	if id == "" {
		return Listed{Object: object, Foreign: true}, m, nil
	}
	s.mu.Lock()
	l, known := s.known[id]
	s.mu.Unlock()
	if known && !read {
		return l, m, nil
	}
	m, err = s.Get(ctx, id)
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrFormat) {
		return Listed{ID: id, Object: object, Damaged: err.Error()}, Manifest{}, nil
	}
	return m.listed(), m, err
}

func (m *Manifest) listed() Listed {
	return Listed{
		ID: m.ID, Object: manifestObject(m.ID), Taken: m.Taken, Varve: m.Varve, Incarnation: m.Incarnation, Last: m.Last,
		Series: m.Series, Days: len(m.Days), Files: len(m.Files), Bytes: m.Bytes, SentBytes: m.Stats.SentBytes,
	}
}

// Get reads a manifest. Errors are ErrID, ErrNotFound, ErrFormat, ErrDamaged, or the bucket's.
func (s *Store) Get(ctx context.Context, id string) (Manifest, error) {
	if err := checkID(id); err != nil {
		return Manifest{}, err
	}
	m, err := s.manifest(ctx, id)
	if errors.Is(err, ErrDamaged) {
		// It may have been damaged on its way.
		m, err = s.manifest(ctx, id)
	}
	if s.notFound(err) {
		return m, fmt.Errorf("%w: %s; see the list of snapshots for those that there are", ErrNotFound, id)
	}
	if err == nil {
		s.mu.Lock()
		s.known[id] = m.listed()
		s.mu.Unlock()
	}
	return m, err
}

func (s *Store) manifest(ctx context.Context, id string) (Manifest, error) {
	b, err := s.get(ctx, manifestObject(id), manifestBytesMax)
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(b)
	if err == nil && m.ID != id {
		err = fmt.Errorf("%w: it says that it is %s", ErrDamaged, m.ID)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", manifestObject(id), err)
	}
	return m, nil
}
