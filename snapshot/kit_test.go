package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"

	"varve/internal/testkit"
	"varve/snapshot"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// memory is a bucket in memory that counts, and fails as it is told.
type memory struct {
	objstore.Bucket // nil: a method that isn't here is not used

	mu      sync.Mutex
	objects map[string]object
	// uploads counts those that took effect, by object.
	uploads map[string]int
	calls   int
	// plan says what becomes of a call; nil: it succeeds.
	plan func(c call) fault
	// hidden are objects that listings don't show yet.
	hidden func(name string) bool
}

type object struct {
	content  []byte
	modified time.Time
}

// call is one call of the bucket. Number counts from 1.
type call struct {
	number   int
	op, name string
}

type fault int

const (
	none    fault = iota
	before        // an error, and nothing has happened
	after         // it has happened, and the answer is an error
	cut           // the body breaks off in its middle
	half          // the body ends in its middle, and nobody says so
	vanish        // an upload is acknowledged, and the object isn't there
	flipped       // a body with one wrong bit
)

var (
	errInternal = errors.New("500 Internal Server Error")
	errNoObject = errors.New("404 Not Found")
)

func newMemory() *memory { return &memory{objects: map[string]object{}, uploads: map[string]int{}} }

func (b *memory) next(ctx context.Context, op, name string) (fault, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	var f fault
	if b.plan != nil {
		f = b.plan(call{b.calls, op, name})
	}
	if err := ctx.Err(); err != nil {
		return before, err
	}
	if f == before {
		return f, errInternal
	}
	return f, nil
}

func (b *memory) Name() string                    { return "memory" }
func (b *memory) Close() error                    { return nil }
func (b *memory) IsObjNotFoundErr(err error) bool { return errors.Is(err, errNoObject) }
func (b *memory) IsAccessDeniedErr(error) bool    { return false }
func (b *memory) SupportedIterOptions() []objstore.IterOptionType {
	return []objstore.IterOptionType{objstore.Recursive, objstore.UpdatedAt}
}

func (b *memory) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	f, err := b.next(ctx, "upload", name)
	if err != nil {
		return err
	}
	size, err := objstore.TryToGetSize(r)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if int64(len(content)) != size {
		return fmt.Errorf("%d bytes came of %d", len(content), size)
	}
	switch f {
	case cut:
		return errInternal
	case vanish:
		return nil
	case half:
		content = content[:len(content)/2]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[name] = object{content, time.Now()}
	if f != half {
		b.uploads[name]++
	}
	if f == after {
		return errInternal
	}
	return nil
}

func (b *memory) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.GetRange(ctx, name, 0, -1)
}

func (b *memory) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	f, err := b.next(ctx, "get", name)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[name]
	if !ok {
		return nil, errNoObject
	}
	content := o.content[min(off, int64(len(o.content))):]
	if length >= 0 {
		content = content[:min(length, int64(len(content)))]
	}
	switch f {
	case after, vanish:
		return nil, errInternal
	case cut:
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[:len(content)/2]), broken{})), nil
	case half:
		return io.NopCloser(bytes.NewReader(content[:len(content)/2])), nil
	case flipped:
		content = bytes.Clone(content)
		if len(content) > 0 {
			content[len(content)/2] ^= 4
		}
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset by peer") }

func (b *memory) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	f, err := b.next(ctx, "attributes", name)
	if err != nil {
		return objstore.ObjectAttributes{}, err
	}
	if f != none {
		return objstore.ObjectAttributes{}, errInternal
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[name]
	if !ok {
		return objstore.ObjectAttributes{}, errNoObject
	}
	return objstore.ObjectAttributes{Size: int64(len(o.content)), LastModified: o.modified}, nil
}

func (b *memory) Delete(ctx context.Context, name string) error {
	f, err := b.next(ctx, "delete", name)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, name)
	if f != none {
		return errInternal
	}
	return nil
}

func (b *memory) IterWithAttributes(ctx context.Context, dir string, each func(objstore.IterObjectAttributes) error, _ ...objstore.IterOption) error {
	f, err := b.next(ctx, "list", dir)
	if err != nil {
		return err
	}
	b.mu.Lock()
	objects := maps.Clone(b.objects)
	hidden := b.hidden
	b.mu.Unlock()
	names := slices.Sorted(maps.Keys(objects))
	for i, name := range names {
		if f != none && i == len(names)/2 {
			return errInternal
		}
		if !strings.HasPrefix(name, dir) || hidden != nil && hidden(name) {
			continue
		}
		a := objstore.IterObjectAttributes{Name: name}
		a.SetLastModified(objects[name].modified)
		if err := each(a); err != nil {
			return err
		}
	}
	return nil
}

// names are the objects of a folder.
func (b *memory) names(folder string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for name := range b.objects {
		if strings.HasPrefix(name, folder) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// change replaces an object's bytes, or removes it if the content is nil.
func (b *memory) change(name string, f func([]byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.objects[name]
	if o.content = f(bytes.Clone(o.content)); o.content == nil {
		delete(b.objects, name)
		return
	}
	b.objects[name] = o
}

// source is what stands for an archive: a folder with table files that never change and small ones that do.
type source struct {
	t      testing.TB
	dir    string
	random *rand.Rand
	tables int
	last   uint64
	// taken, if set, is called in Take.
	taken func()
}

func newSource(t testing.TB, seed uint64) *source {
	s := &source{t: t, dir: testkit.MemoryDir(t), random: rand.New(rand.NewPCG(seed, 7))}
	require.NoError(t, os.Mkdir(filepath.Join(s.dir, "db"), 0o700))
	s.write("acknowledged", 4132)
	s.write("db/CURRENT", 16)
	s.write("db/EMPTY.log", 0)
	for range 5 {
		s.grow()
	}
	return s
}

func (s *source) write(path string, bytes int) {
	b := make([]byte, bytes)
	for i := range b {
		b[i] = byte(s.random.Uint32())
	}
	require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, path), b, 0o600))
}

// grow adds a table, and changes a small file.
func (s *source) grow() {
	s.tables++
	s.last += 10
	s.write(fmt.Sprintf("db/%06d.sst", s.tables), 1000+s.random.IntN(3000))
	s.write("db/CURRENT", 16)
}

// shrink removes the oldest table that there is, as a compaction does.
func (s *source) shrink() {
	tables, err := filepath.Glob(filepath.Join(s.dir, "db/*.sst"))
	require.NoError(s.t, err)
	if len(tables) > 1 {
		require.NoError(s.t, os.Remove(tables[0]))
	}
}

func (s *source) Take(_ context.Context, dir string) (snapshot.Taken, error) {
	if s.taken != nil {
		s.taken()
	}
	t := snapshot.Taken{
		Incarnation: [16]byte{1, 2, 3}, Taken: time.Now(), Last: s.last, Series: 3,
		Days:    []snapshot.Day{{Day: time.Unix(86400, 0), Samples: 5, Digest: 1 << 63}},
		Cursors: []snapshot.Cursor{{Name: "out", Next: 4}},
	}
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		f := snapshot.TakenFile{Path: filepath.ToSlash(rel), Immutable: strings.HasSuffix(rel, ".sst")}
		if f.Immutable {
			f.Family = "raw"
			err = os.Link(path, to)
		} else {
			var b []byte
			if b, err = os.ReadFile(path); err == nil {
				err = os.WriteFile(to, b, 0o600)
			}
		}
		if err != nil {
			return err
		}
		info, err := os.Stat(to)
		if err != nil {
			return err
		}
		f.Bytes = info.Size()
		t.Files = append(t.Files, f)
		return nil
	})
	return t, err
}

// tree reads a folder.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out[filepath.ToSlash(rel)] = string(b)
		return err
	}))
	return out
}

// options of a store that takes snapshots of the source.
func (s *source) options(b objstore.Bucket) snapshot.Options {
	scratch := filepath.Join(testkit.MemoryDir(s.t), "scratch")
	return snapshot.Options{
		Bucket: b, Scratch: scratch, Take: s.Take, HashCache: filepath.Join(filepath.Dir(scratch), "hashes"), Version: "test",
	}
}

func open(t testing.TB, o snapshot.Options) *snapshot.Store {
	t.Helper()
	s, err := snapshot.New(o)
	require.NoError(t, err)
	return s
}

// restored restores to a new folder and reads it.
func restored(t testing.TB, s *snapshot.Store, id string) map[string]string {
	t.Helper()
	dir := filepath.Join(testkit.MemoryDir(t), "restored")
	_, err := s.Restore(t.Context(), id, dir, snapshot.RestoreOptions{}, nil)
	require.NoError(t, err)
	entries, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing stays beside the folder")
	return tree(t, dir)
}

// modified is when an object was written.
func (b *memory) modified(name string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.objects[name].modified
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// slowly is a bucket of which each call takes a while, before and after it takes effect.
type slowly struct {
	*memory
	wait func()
}

func (b *slowly) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	b.wait()
	defer b.wait()
	return b.memory.Upload(ctx, name, r, o...)
}

func (b *slowly) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	b.wait()
	defer b.wait()
	return b.memory.Attributes(ctx, name)
}

func (b *slowly) Delete(ctx context.Context, name string) error {
	b.wait()
	defer b.wait()
	return b.memory.Delete(ctx, name)
}

func (b *slowly) IterWithAttributes(ctx context.Context, dir string, each func(objstore.IterObjectAttributes) error, o ...objstore.IterOption) error {
	b.wait()
	defer b.wait()
	return b.memory.IterWithAttributes(ctx, dir, each, o...)
}
