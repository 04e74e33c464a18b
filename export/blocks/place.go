package blocks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"varve/durable"
)

// Place is where blocks go to: a Folder or a Bucket.
type Place interface {
	// find looks for a block by its identity.
	find(ctx context.Context, identity string) (ulid.ULID, bool, error)
	// draft makes a folder to build a block in.
	draft(ctx context.Context, id ulid.ULID, identity string) (*draft, error)
	// keep gives a finished block its name.
	keep(ctx context.Context, d *draft) error
}

// draft is a block that is being made. It belongs to this process for as long as its lock is held.
type draft struct {
	id       ulid.ULID
	identity string
	dir      string
	lock     *os.File
	kept     bool
}

const draftSuffix = ".tmp"

func newDraft(parent string, id ulid.ULID, identity string) (*draft, error) {
	d := &draft{id: id, identity: identity, dir: filepath.Join(parent, id.String()+draftSuffix)}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if d.lock, err = lockDir(d.dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.dir))
	}
	return d, nil
}

// lockDir locks a folder for as long as the file is open.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// close removes what was not kept.
func (d *draft) close() error {
	var err error
	if !d.kept {
		err = os.RemoveAll(d.dir)
	}
	return errors.Join(err, d.lock.Close())
}

// sweep removes the drafts of processes that ended before they were done.
func sweep(parent string) error {
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, isDraft := strings.CutSuffix(e.Name(), draftSuffix)
		if _, err := ulid.ParseStrict(name); !isDraft || err != nil || !e.IsDir() {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		lock, err := lockDir(dir)
		if err != nil {
			continue // Somebody is at it.
		}
		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Folder is a folder with blocks, as a data directory of Prometheus is.
type Folder struct{ dir string }

// NewFolder returns a folder, that is made when the first block is. Drafts that were left in it are removed.
func NewFolder(dir string) (*Folder, error) {
	if err := sweep(dir); err != nil {
		return nil, fmt.Errorf("clear %s: %w", dir, err)
	}
	return &Folder{dir}, nil
}

func (f *Folder) find(_ context.Context, identity string) (ulid.ULID, bool, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return ulid.ULID{}, false, nil
	}
	if err != nil {
		return ulid.ULID{}, false, err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil {
			continue
		}
		m, ok, err := readMeta(filepath.Join(f.dir, e.Name()))
		if err != nil {
			return ulid.ULID{}, false, err
		}
		if x := m.Thanos.Extensions; ok && x != nil && x.Varve != nil && x.Varve.Export == identity {
			return m.ULID, true, nil
		}
	}
	return ulid.ULID{}, false, nil
}

func (f *Folder) draft(_ context.Context, id ulid.ULID, identity string) (*draft, error) {
	return newDraft(f.dir, id, identity)
}

func (f *Folder) keep(_ context.Context, d *draft) error {
	// Files were flushed when they were closed.
	for _, dir := range []string{filepath.Join(d.dir, chunksName), d.dir} {
		if err := durable.Sync(dir); err != nil {
			return err
		}
	}
	if err := os.Rename(d.dir, filepath.Join(f.dir, d.id.String())); err != nil {
		return err
	}
	d.kept = true
	return durable.Sync(f.dir)
}

// Bucket is object storage, with blocks as Thanos and Mimir keep them. Beside them lies, below varve-exports/, for each
// block a note of a few bytes by which a rerun knows what was done. It may be removed when there will be none.
type Bucket struct {
	bucket  objstore.Bucket
	scratch string
}

// NewBucket returns a bucket. Blocks are built in the folder scratch, one at a time.
func NewBucket(b objstore.Bucket, scratch string) (*Bucket, error) {
	if err := sweep(scratch); err != nil {
		return nil, fmt.Errorf("clear %s: %w", scratch, err)
	}
	return &Bucket{b, scratch}, nil
}

// note is what is known of the block of an identity.
type note struct {
	ULID ulid.ULID `json:"ulid"`
	// Done is set when meta.json was stored. The block may have been compacted away since.
	Done bool `json:"done"`
}

const (
	notesFolder  = "varve-exports/"
	noteBytesMax = 4 << 10
)

func noteName(identity string) string { return notesFolder + identity + ".json" }

func (b *Bucket) note(ctx context.Context, identity string) (n note, ok bool, err error) {
	r, err := b.bucket.Get(ctx, noteName(identity))
	if err != nil {
		if b.bucket.IsObjNotFoundErr(err) {
			return n, false, nil
		}
		return n, false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	text, err := io.ReadAll(io.LimitReader(r, noteBytesMax))
	if err != nil {
		if b.bucket.IsObjNotFoundErr(err) { // some storages tell when it is read
			return n, false, nil
		}
		return n, false, err
	}
	return n, json.Unmarshal(text, &n) == nil, nil
}

func (b *Bucket) setNote(ctx context.Context, identity string, n note) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return b.bucket.Upload(ctx, noteName(identity), bytes.NewReader(text))
}

func (b *Bucket) find(ctx context.Context, identity string) (ulid.ULID, bool, error) {
	n, ok, err := b.note(ctx, identity)
	if err != nil || !ok || n.Done {
		return n.ULID, ok && n.Done, err
	}
	whole, err := b.bucket.Exists(ctx, n.ULID.String()+"/"+metaName)
	if err != nil {
		return n.ULID, false, err
	}
	if whole {
		n.Done = true
		return n.ULID, true, b.setNote(ctx, identity, n)
	}
	// The next attempt has another name.
	return n.ULID, false, b.remove(ctx, n.ULID)
}

func (b *Bucket) remove(ctx context.Context, id ulid.ULID) error {
	var names []string
	err := b.bucket.Iter(ctx, id.String()+"/", func(name string) error {
		names = append(names, name)
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := b.bucket.Delete(ctx, name); err != nil && !b.bucket.IsObjNotFoundErr(err) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

func (b *Bucket) draft(_ context.Context, id ulid.ULID, identity string) (*draft, error) {
	return newDraft(b.scratch, id, identity)
}

func (b *Bucket) keep(ctx context.Context, d *draft) error {
	if err := b.setNote(ctx, d.identity, note{ULID: d.id}); err != nil {
		return err
	}
	all, err := files(d.dir)
	if err != nil {
		return err
	}
	for _, f := range all {
		if err := b.upload(ctx, d, f.RelPath); err != nil {
			return fmt.Errorf("upload %s: %w; run the same command again to go on", f.RelPath, err)
		}
	}
	if err := b.whole(ctx, d, all); err != nil {
		return err
	}
	if err := b.upload(ctx, d, metaName); err != nil {
		return fmt.Errorf("upload %s: %w; run the same command again to go on", metaName, err)
	}
	return b.setNote(ctx, d.identity, note{ULID: d.id, Done: true})
}

// whole looks for what was uploaded: another process that makes the same block takes it for what a killed one left, and removes it. A block
// gets its meta.json, by which it counts, when the rest is there.
func (b *Bucket) whole(ctx context.Context, d *draft, all []File) error {
	for _, f := range all {
		name := d.id.String() + "/" + f.RelPath
		a, err := b.bucket.Attributes(ctx, name)
		if err == nil && a.Size != f.SizeBytes {
			err = fmt.Errorf("it has %d bytes of %d", a.Size, f.SizeBytes)
		}
		if err != nil {
			return fmt.Errorf("look for %s, which was uploaded: %w; if another process exports the same, wait for it, and run the same command again", name, err)
		}
	}
	return nil
}

func (b *Bucket) upload(ctx context.Context, d *draft, rel string) (err error) {
	f, err := os.Open(filepath.Join(d.dir, filepath.FromSlash(rel)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return b.bucket.Upload(ctx, d.id.String()+"/"+rel, f)
}
