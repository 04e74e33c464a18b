package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// VerifyOptions say how deep to look. Presence and sizes are always looked at.
type VerifyOptions struct {
	// Contents reads every byte and compares hashes.
	Contents bool
	// Deep is called with a folder that the snapshot was restored to, which is removed afterwards. It implies
	// Contents.
	Deep func(dir string) error
	// Scratch is where that folder is made; Options.Scratch if empty.
	Scratch string
}

// VerifyReport says what was looked at and found.
type VerifyReport struct {
	ID    string `json:"id"`
	Root  Sum    `json:"root"`
	Files int    `json:"files"`
	// Objects are different contents, which is what is looked at.
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// ReadBytes were fetched and hashed.
	ReadBytes int64 `json:"readBytes"`
	Deep      bool  `json:"deep"`
	// Faults are by path.
	Faults []Fault       `json:"faults"`
	Took   time.Duration `json:"tookNanos"`
}

// Fault is something wrong with a file of a snapshot.
type Fault struct {
	Path   string `json:"path"`
	Object string `json:"object"`
	Text   string `json:"text"`
}

// Verify looks whether a snapshot can be restored. All faults are in the report, and if there is one the error is
// ErrDamaged with the first of them. If the bucket can't be asked, that is the error.
func (s *Store) Verify(ctx context.Context, id string, o VerifyOptions, progress Progress) (r VerifyReport, err error) {
	started := s.o.Now()
	m, err := s.Get(ctx, id)
	if err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	files := unique(m.Files)
	r = VerifyReport{ID: id, Root: m.Root, Files: len(m.Files), Objects: len(files), Bytes: m.Bytes, Deep: o.Deep != nil, Faults: []Fault{}}
	t := s.track(id, progress)
	if err := s.look(ctx, files, &r, t); err != nil {
		return r, fmt.Errorf("verify %s: %w", id, err)
	}
	if len(r.Faults) == 0 {
		switch {
		case o.Deep != nil:
			err = s.verifyDeep(ctx, m, o, &r, progress)
		case o.Contents:
			err = s.readAll(ctx, files, &r, t)
		}
	} else if o.Contents {
		err = s.readAll(ctx, files, &r, t)
	}
	r.Took = s.o.Now().Sub(started)
	slices.SortFunc(r.Faults, func(a, b Fault) int { return strings.Compare(a.Path, b.Path) })
	r.Faults = slices.Compact(r.Faults)
	if err == nil && len(r.Faults) > 0 {
		err = fmt.Errorf("%w: %d of %d files, first %s (%s): %s", ErrDamaged, len(r.Faults), r.Files, r.Faults[0].Path, r.Faults[0].Object, r.Faults[0].Text)
	}
	if err != nil {
		return r, fmt.Errorf("verify %s: %w", id, err)
	}
	return r, nil
}

// look asks for presence and sizes.
func (s *Store) look(ctx context.Context, files []File, r *VerifyReport, t *tracker) error {
	var mu sync.Mutex
	t.begin(Checking, len(files), 0)
	return each(ctx, recheckParallel, files, func(ctx context.Context, f File) error {
		held, size, err := s.holds(ctx, f.SHA256.object(), f.Bytes, s.short())
		if err != nil {
			return err
		}
		t.file(0, 0, 0)
		if held {
			return nil
		}
		text := "it is missing from the bucket"
		if size >= 0 {
			text = fmt.Sprintf("it has %d bytes in the bucket and not %d", size, f.Bytes)
		}
		mu.Lock()
		defer mu.Unlock()
		r.Faults = append(r.Faults, Fault{f.Path, f.SHA256.object(), text})
		return nil
	})
}

// readAll reads and hashes what look has not found fault with.
func (s *Store) readAll(ctx context.Context, files []File, r *VerifyReport, t *tracker) error {
	faulty := map[string]bool{}
	for _, f := range r.Faults {
		faulty[f.Path] = true
	}
	files = slices.DeleteFunc(slices.Clone(files), func(f File) bool { return faulty[f.Path] })
	var bytes int64
	for _, f := range files {
		bytes += f.Bytes
	}
	var mu sync.Mutex
	t.begin(Reading, len(files), bytes)
	return each(ctx, s.o.Parallel, files, func(ctx context.Context, f File) error {
		err := s.fetch(ctx, f, discard{}, t)
		mu.Lock()
		defer mu.Unlock()
		r.ReadBytes += f.Bytes
		if errors.Is(err, ErrDamaged) {
			r.Faults = append(r.Faults, Fault{f.Path, f.SHA256.object(), faultText(err)})
			err = nil
		}
		t.file(0, 0, 0)
		return err
	})
}

// faultText is the end of damage's error.
func faultText(err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "): "); ok {
		return rest
	}
	return text
}

// verifyDeep restores to a folder that is removed again.
func (s *Store) verifyDeep(ctx context.Context, m Manifest, o VerifyOptions, r *VerifyReport, progress Progress) (err error) {
	scratch := o.Scratch
	if scratch == "" {
		scratch = s.o.Scratch
	}
	if scratch == "" {
		return errors.New("there is no folder to restore to for a deep look")
	}
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	dir := filepath.Join(scratch, s.ids.next(s.o.Now())+verifyEnding)
	defer func() {
		err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(dir+partialEnding), os.RemoveAll(dir+markEnding))
	}()
	restored, err := s.Restore(ctx, m.ID, dir, RestoreOptions{}, progress)
	r.ReadBytes = restored.FetchedBytes
	if err != nil {
		return err
	}
	if err := o.Deep(dir); err != nil {
		return fmt.Errorf("%w: the restored files: %w", ErrDamaged, err)
	}
	return nil
}
