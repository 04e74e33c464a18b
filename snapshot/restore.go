package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"varve/durable"
)

// RestoreOptions say what is done with the files when they are all there.
type RestoreOptions struct {
	// Adopt makes the restored data an archive of its own, before the folder gets its name. May be nil.
	Adopt func(dir string) error
}

// RestoreReport says what was restored.
type RestoreReport struct {
	Manifest Manifest `json:"-"`
	ID       string   `json:"id"`
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
	// Fetched were read from the bucket; the others an attempt before had brought.
	FetchedFiles int           `json:"fetchedFiles"`
	FetchedBytes int64         `json:"fetchedBytes"`
	Took         time.Duration `json:"tookNanos"`
}

// markEnding is of a file beside the partial folder that says which snapshot it is of, and is locked by whoever
// restores. Beside it, so that it can be removed after the folder got its name.
const markEnding = ".restoring"

// Restore brings a snapshot into a folder, which must be empty or absent. Until every file is there, was hashed and is
// durable, and Adopt has succeeded, the folder is called dir.partial: a folder of the right name is whole.
//
// If it returns an error, or the process is killed, dir.partial stays, and the same call goes on with it: files that
// are whole are not fetched again. Restoring another snapshot there is refused until it is removed.
func (s *Store) Restore(ctx context.Context, id, dir string, o RestoreOptions, progress Progress) (RestoreReport, error) {
	started := s.o.Now()
	m, err := s.Get(ctx, id)
	if err != nil {
		return RestoreReport{}, fmt.Errorf("restore: %w", err)
	}
	r := RestoreReport{Manifest: m, ID: id, Files: len(m.Files), Bytes: m.Bytes}
	if dir, err = filepath.Abs(dir); err != nil {
		return r, fmt.Errorf("restore %s: %w", id, err)
	}
	if err := emptyOrAbsent(dir); err != nil {
		return r, fmt.Errorf("restore %s: %w", id, err)
	}
	t := &restoration{s: s, m: m, dir: dir, partial: dir + partialEnding, t: s.track(id, progress)}
	err = t.run(ctx, o)
	r.FetchedFiles, r.FetchedBytes, r.Took = t.fetchedFiles, t.fetchedBytes, s.o.Now().Sub(started)
	if err == nil {
		return r, nil
	}
	err = fmt.Errorf("restore %s: %w", id, err)
	if t.began {
		err = fmt.Errorf("%w; what was fetched is kept in %s: restore again to go on, or remove it", err, t.partial)
	}
	return r, err
}

// emptyOrAbsent says why a folder can't be restored to.
func emptyOrAbsent(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: %s is not a folder", ErrTarget, dir)
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%w: %s is not empty: give another, or move what is in it", ErrTarget, dir)
	}
	return err
}

// restoration is one Restore.
type restoration struct {
	s            *Store
	m            Manifest
	dir, partial string
	root         *os.Root
	t            *tracker
	// began: the partial folder is ours.
	began bool

	mu           sync.Mutex
	fetchedFiles int
	fetchedBytes int64
}

// restoreMark is the content of that file.
type restoreMark struct {
	ID   string `json:"id"`
	Root Sum    `json:"root"`
}

func (r *restoration) run(ctx context.Context, o RestoreOptions) (err error) {
	if err := os.MkdirAll(r.partial, 0o700); err != nil {
		return err
	}
	release, err := r.mark()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	r.began = true
	if r.root, err = os.OpenRoot(r.partial); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.root.Close()) }()
	missing, err := r.survey(ctx)
	if err != nil {
		return err
	}
	if err := r.room(missing); err != nil {
		return err
	}
	if err := r.fetchAll(ctx, missing); err != nil {
		return err
	}
	if err := r.sync(); err != nil {
		return err
	}
	if o.Adopt != nil {
		r.t.begin(Adopting, 0, 0)
		if err := o.Adopt(r.partial); err != nil {
			return fmt.Errorf("make it an archive of its own: %w", err)
		}
	}
	return r.publish()
}

// mark says what the partial folder is of, or finds out that it is of something else. Whoever has release keeps other
// processes off.
func (r *restoration) mark() (release func() error, err error) {
	mark := r.dir + markEnding
	release, err = lockFile(mark)
	if errors.Is(err, ErrBusy) {
		return nil, fmt.Errorf("%w: another process restores to %s", ErrTarget, r.dir)
	}
	if err != nil {
		return nil, err
	}
	if err := r.claim(mark); err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

func (r *restoration) claim(mark string) error {
	entries, err := os.ReadDir(r.partial)
	if err != nil {
		return err
	}
	want := restoreMark{r.m.ID, r.m.Root}
	if len(entries) > 0 {
		b, err := os.ReadFile(mark)
		if err != nil {
			return err
		}
		var had restoreMark
		if len(b) == 0 || json.Unmarshal(b, &had) != nil {
			return fmt.Errorf("%w: %s is in the way and does not look like a restore's: move or remove it", ErrTarget, r.partial)
		}
		if had != want {
			return fmt.Errorf("%w: %s holds what a restore of snapshot %.40q left: go on with that one, or remove the folder", ErrTarget, r.partial, had.ID)
		}
		return nil
	}
	b, err := json.Marshal(want)
	if err != nil {
		return err
	}
	// In place, since the lock is on this file, and durable before anything is in the folder.
	f, err := os.OpenFile(mark, os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close(), durable.Sync(filepath.Dir(mark)))
}

// survey looks at what an attempt before left: files that are whole stay, all else is removed. It returns what is to be
// fetched.
func (r *restoration) survey(ctx context.Context) ([]File, error) {
	wanted := make(map[string]File, len(r.m.Files))
	for _, f := range r.m.Files {
		wanted[f.Path] = f
	}
	r.t.begin(Hashing, 0, 0)
	whole := map[string]bool{}
	err := fs.WalkDir(r.root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		f, ok := wanted[path]
		info, err := e.Info()
		if err != nil {
			return err
		}
		if ok && info.Mode().IsRegular() && info.Size() == f.Bytes {
			sum, err := r.s.hashFile(ctx, r.root, path, f.Bytes, nil)
			if err == nil && sum == f.SHA256 {
				whole[path] = true
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return r.root.Remove(path)
	})
	if err != nil {
		return nil, err
	}
	var missing []File
	for _, f := range r.m.Files {
		if !whole[f.Path] {
			missing = append(missing, f)
		}
	}
	return missing, nil
}

// roomSpare is what an archive needs to open beside its files.
const roomSpare = 64 << 20

// room says no before hours of download do.
func (r *restoration) room(missing []File) error {
	var st unix.Statfs_t
	if err := unix.Statfs(r.partial, &st); err != nil {
		return err
	}
	var need int64
	for _, f := range missing {
		need += f.Bytes
	}
	if free := int64(st.Bavail) * st.Bsize; free < need+roomSpare {
		return fmt.Errorf("%w: %d bytes are free there and %d are needed: make room, or give a folder on another disk", ErrTarget, free, need+roomSpare)
	}
	return nil
}

func (r *restoration) fetchAll(ctx context.Context, missing []File) error {
	var need int64
	for _, f := range missing {
		need += f.Bytes
	}
	r.t.begin(Downloading, len(missing), need)
	return each(ctx, r.s.o.Parallel, missing, func(ctx context.Context, f File) error {
		if err := r.fetch(ctx, f); err != nil {
			return err
		}
		r.mu.Lock()
		r.fetchedFiles++
		r.fetchedBytes += f.Bytes
		r.mu.Unlock()
		r.t.file(0, f.Bytes, 0)
		return nil
	})
}

func (r *restoration) fetch(ctx context.Context, f File) (err error) {
	if at := strings.LastIndexByte(f.Path, '/'); at > 0 {
		if err := r.root.MkdirAll(f.Path[:at], 0o700); err != nil {
			return err
		}
	}
	file, err := r.root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = r.s.fetch(ctx, f, fileSink{file}, r.t)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// fileSink is a file that begins anew.
type fileSink struct{ *os.File }

// Restart implements sink.
func (f fileSink) Restart() error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// sync makes the names of all files durable.
func (r *restoration) sync() error {
	return fs.WalkDir(r.root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return durable.Sync(filepath.Join(r.partial, filepath.FromSlash(path)))
	})
}

// publish gives the folder its name.
func (r *restoration) publish() error {
	if err := r.sync(); err != nil {
		return err
	}
	// An empty folder is replaced by renaming over it.
	if err := unix.Rename(r.partial, r.dir); err != nil {
		return fmt.Errorf("rename %s: %w", r.partial, err)
	}
	r.began = false
	return errors.Join(durable.Sync(filepath.Dir(r.dir)), os.Remove(r.dir+markEnding))
}
