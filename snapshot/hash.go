package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"syscall"

	"varve/durable"
)

// hashCache remembers the hashes of immutable files, so that a snapshot reads only those that are new.
//
// It is a hint. What it says of a file that the bucket doesn't hold is checked while the file is sent, and a file of which it
// lies is read again. What it says of a file that the bucket does hold is believed: it is bound to the archive's incarnation and
// to the file's path, size, time and inode, and immutable files are never written to. Damage of a disk to a file that was hashed
// before is therefore not carried into the bucket.
type hashCache struct {
	Incarnation string                `json:"incarnation"`
	Files       map[string]cachedHash `json:"files"`
}

type cachedHash struct {
	Bytes    int64  `json:"bytes"`
	Modified int64  `json:"modifiedNanos"`
	Inode    uint64 `json:"inode"`
	SHA256   Sum    `json:"sha256"`
}

// cacheBytesMax is about that of the largest manifest.
const cacheBytesMax = 2 * manifestBytesMax

// loadHashCache reads the cache of an archive. Anything wrong with it makes it empty: the files are read then.
func loadHashCache(path, incarnation string) *hashCache {
	empty := &hashCache{Incarnation: incarnation, Files: map[string]cachedHash{}}
	if path == "" {
		return empty
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > cacheBytesMax {
		return empty
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return empty
	}
	c, err := decodeHashCache(b)
	if err != nil || c.Incarnation != incarnation || c.Files == nil {
		return empty
	}
	return c
}

// decodeHashCache reads the first line, a hash in hex of all behind it, and the rest.
func decodeHashCache(b []byte) (*hashCache, error) {
	const line = 2*sha256.Size + 1
	if len(b) < line {
		return nil, io.ErrUnexpectedEOF
	}
	sum := sha256.Sum256(b[line:])
	if string(b[:line]) != hex.EncodeToString(sum[:])+"\n" {
		return nil, errors.New("hashes of files: checksum differs")
	}
	c := new(hashCache)
	return c, json.Unmarshal(b[line:], c)
}

func (c *hashCache) encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return append([]byte(hex.EncodeToString(sum[:])+"\n"), b...), nil
}

// save replaces the file.
func (c *hashCache) save(path string) error {
	if path == "" {
		return nil
	}
	b, err := c.encode()
	if err == nil {
		err = durable.Replace(path, b)
	}
	if err != nil {
		return fmt.Errorf("write the hashes of files: %w", err)
	}
	return nil
}

// keyOf is what the cache knows a file by, without its hash.
func keyOf(info fs.FileInfo) (cachedHash, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return cachedHash{}, false
	}
	return cachedHash{Bytes: info.Size(), Modified: info.ModTime().UnixNano(), Inode: st.Ino}, true
}

// hashed is what hashing found.
type hashed struct {
	files []File
	// guessed are paths whose hash is the cache's.
	guessed map[string]bool
	bytes   int64
	cache   *hashCache
}

// hash finds out the content of the files of a checkpoint.
func (s *Store) hash(ctx context.Context, dir *os.Root, taken Taken, rehash bool, t *tracker) (*hashed, error) {
	incarnation := hex.EncodeToString(taken.Incarnation[:])
	before := loadHashCache(s.o.HashCache, incarnation)
	if rehash {
		clear(before.Files)
	}
	h := &hashed{guessed: map[string]bool{}, cache: &hashCache{Incarnation: incarnation, Files: map[string]cachedHash{}}}
	var mu sync.Mutex
	var total int64
	for _, f := range taken.Files {
		total += f.Bytes
	}
	t.begin(Hashing, len(taken.Files), total)
	err := each(ctx, min(s.o.Parallel, runtime.GOMAXPROCS(0)), taken.Files, func(ctx context.Context, f TakenFile) error {
		sum, key, known, err := s.hashOne(ctx, dir, f, before, t)
		if err != nil {
			return fmt.Errorf("hash %s: %w", f.Path, err)
		}
		mu.Lock()
		defer mu.Unlock()
		h.files = append(h.files, File{Path: f.Path, Bytes: f.Bytes, SHA256: sum, Family: f.Family})
		if known {
			h.guessed[f.Path] = true
		} else {
			h.bytes += f.Bytes
		}
		if key.SHA256 == sum && f.Immutable {
			h.cache.Files[f.Path] = key
		}
		return nil
	})
	return h, err
}

func (s *Store) hashOne(ctx context.Context, dir *os.Root, f TakenFile, before *hashCache, t *tracker) (sum Sum, key cachedHash, known bool, err error) {
	if err := checkPath(f.Path); err != nil {
		return sum, key, false, err
	}
	info, err := dir.Lstat(f.Path)
	if err != nil {
		return sum, key, false, err
	}
	if !info.Mode().IsRegular() || info.Size() != f.Bytes {
		return sum, key, false, fmt.Errorf("it is a file of %d bytes (%s), and the checkpoint says %d", info.Size(), info.Mode(), f.Bytes)
	}
	key, ok := keyOf(info)
	if had, found := before.Files[f.Path]; ok && found && f.Immutable {
		key.SHA256 = had.SHA256
		if key == had {
			t.file(f.Bytes, 0, 0)
			return had.SHA256, key, true, nil
		}
	}
	sum, err = s.hashFile(ctx, dir, f.Path, f.Bytes, t)
	key.SHA256 = sum
	if !ok {
		key = cachedHash{}
	}
	if err == nil {
		t.file(0, 0, 0)
	}
	return sum, key, false, err
}

// hashFile reads a file.
func (s *Store) hashFile(ctx context.Context, dir *os.Root, path string, bytes int64, t *tracker) (sum Sum, err error) {
	file, err := dir.Open(path)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	h := s.newHash(ctx)
	n, err := copyCounted(ctx, h, file, t)
	if err != nil {
		return sum, err
	}
	if n != bytes {
		return sum, fmt.Errorf("%d bytes were read of %d", n, bytes)
	}
	return Sum(h.Sum(nil)), nil
}

// copyCounted copies all of r and tells of it.
func copyCounted(ctx context.Context, w io.Writer, r io.Reader, t *tracker) (n int64, err error) {
	buffer := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return n, context.Cause(ctx)
		}
		got, err := r.Read(buffer)
		if _, err := w.Write(buffer[:got]); err != nil {
			return n, err
		}
		n += int64(got)
		if t != nil {
			t.moved(int64(got))
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
