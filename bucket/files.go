package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"gopkg.in/yaml.v2"

	"varve/durable"
)

// files is a FILESYSTEM bucket in which an object that can be seen is whole and durable.
//
// objstore's provider writes an object in place, so that a kill leaves half of one under its name. Here:
//
//  1. the bytes go to a file in the folder unfinishedName, which listings hide,
//  2. it is fsynced and renamed,
//  3. the folders from the object's to the bucket's are fsynced.
//
// An object that is written anew is replaced at once. Deleting leaves empty folders, which listings skip anyway:
// removing them would race with uploads into them.
type files struct {
	*filesystem.Bucket
	dir string
}

const (
	unfinishedName = ".unfinished"
	// unfinishedFor: a file there that is older was left by a process that was killed.
	unfinishedFor = 24 * time.Hour
	// renameAttempts: somebody else may remove an empty folder between making it and renaming into it.
	renameAttempts = 5
)

func openFiles(_ context.Context, config []byte, _ string, _ *slog.Logger, _ *secrets) (objstore.Bucket, error) {
	var c filesystem.Config
	if err := yaml.UnmarshalStrict(config, &c); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(c.Directory)
	if err != nil {
		return nil, err
	}
	b, err := filesystem.NewBucket(dir)
	if err != nil {
		return nil, err
	}
	f := &files{Bucket: b, dir: dir}
	return f, f.sweep()
}

// sweep removes what killed uploads left.
func (f *files) sweep() error {
	entries, err := os.ReadDir(filepath.Join(f.dir, unfinishedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		info, statErr := e.Info()
		if statErr != nil || time.Since(info.ModTime()) < unfinishedFor {
			continue
		}
		if removeErr := os.Remove(filepath.Join(f.dir, unfinishedName, e.Name())); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

// place is where an object lies.
func (f *files) place(name string) (string, error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) || filepath.Clean(local) == "." || strings.HasPrefix(name, unfinishedName+objstore.DirDelim) {
		return "", fmt.Errorf("object name %q leaves the bucket", name)
	}
	return filepath.Join(f.dir, local), nil
}

// Upload implements objstore.Bucket.
func (f *files) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	place, err := f.place(name)
	if err != nil {
		return err
	}
	temporary, err := f.write(ctx, r)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	for range renameAttempts {
		if err = os.MkdirAll(filepath.Dir(place), 0o700); err == nil {
			err = os.Rename(temporary, place)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(temporary))
	}
	return f.syncUp(filepath.Dir(place))
}

// write makes a durable file of what r has, in the folder of the unfinished.
func (f *files) write(ctx context.Context, r io.Reader) (path string, err error) {
	folder := filepath.Join(f.dir, unfinishedName)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	file, err := os.CreateTemp(folder, "object-*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(file, &cancelled{ctx, r})
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// syncUp makes the names of a folder durable, and its own, up to the bucket's.
func (f *files) syncUp(folder string) error {
	for {
		if err := durable.Sync(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if folder == f.dir || len(folder) <= len(f.dir) {
			return nil
		}
		folder = filepath.Dir(folder)
	}
}

// Delete implements objstore.Bucket. An object that isn't there is no error, as with the others.
func (f *files) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	place, err := f.place(name)
	if err != nil {
		return err
	}
	if err := os.Remove(place); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return durable.Sync(filepath.Dir(place))
}

// Get implements objstore.Bucket.
func (f *files) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return f.GetRange(ctx, name, 0, -1)
}

// GetRange implements objstore.Bucket.
func (f *files) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if _, err := f.place(name); err != nil {
		return nil, err
	}
	return f.Bucket.GetRange(ctx, name, off, length)
}

// IterWithAttributes implements objstore.Bucket.
func (f *files) IterWithAttributes(ctx context.Context, dir string, each func(objstore.IterObjectAttributes) error, o ...objstore.IterOption) error {
	return f.Bucket.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error {
		if a.Name == unfinishedName+objstore.DirDelim || strings.HasPrefix(a.Name, unfinishedName+objstore.DirDelim) {
			return nil
		}
		return each(a)
	}, o...)
}

// Iter implements objstore.Bucket.
func (f *files) Iter(ctx context.Context, dir string, each func(string) error, o ...objstore.IterOption) error {
	var kept []objstore.IterOption
	for _, option := range o {
		if option.Type == objstore.Recursive {
			kept = append(kept, option)
		}
	}
	return f.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error { return each(a.Name) }, kept...)
}

// IsObjNotFoundErr implements objstore.Bucket.
func (f *files) IsObjNotFoundErr(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || f.Bucket.IsObjNotFoundErr(err)
}

// IsAccessDeniedErr implements objstore.Bucket.
func (*files) IsAccessDeniedErr(err error) bool { return errors.Is(err, fs.ErrPermission) }
