package snapshot

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"golang.org/x/time/rate"
)

// burstBytes is how much is read at once under a bound on the rate.
const burstBytes = 256 << 10

// staleError says that a file doesn't have the content that it was hashed with.
type staleError struct {
	path string
	// guessed: the hash was the cache's.
	guessed bool
}

func (e *staleError) Error() string {
	return fmt.Sprintf("%s has other bytes than when it was hashed: a file of a checkpoint changed, or the disk reads it differently each time", e.path)
}

// send uploads a file until the bucket holds it.
func (c *creation) send(ctx context.Context, f File) error {
	s, object := c.s, f.SHA256.object()
	return s.retry(ctx, fmt.Sprintf("send %s (%s)", f.Path, object), s.o.Patience, func(ctx context.Context) error {
		moved, err := c.sendOnce(ctx, f, object)
		s.metrics.sentBytes.Add(float64(moved))
		if err == nil {
			var held bool
			var size int64
			if held, size, err = s.holds(ctx, object, f.Bytes, s.short()); err == nil && !held {
				err = fmt.Errorf("the bucket took it and has %d bytes of %d", max(size, 0), f.Bytes)
			}
		}
		if err != nil {
			c.t.moved(-moved)
		}
		return err
	})
}

func (c *creation) sendOnce(ctx context.Context, f File, object string) (moved int64, err error) {
	file, err := c.dir.Open(f.Path)
	if err != nil {
		return 0, permanent(err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	ctx, touch, stop := watch(ctx, stallUpload)
	defer stop()
	r := &contentReader{
		ctx: ctx, r: file, want: f.SHA256, size: f.Bytes, h: c.s.newHash(ctx), limit: c.s.limit,
		moved: func(n int64) { touch(); c.t.moved(n) },
	}
	err = c.s.o.Bucket.Upload(ctx, object, r)
	if r.stale {
		// Whatever the client made of it, this is the reason. The last bytes were not handed out, so there is no object.
		err = permanent(&staleError{path: f.Path, guessed: c.hashed.guessed[f.Path]})
	}
	return r.handed, stalled(ctx, err)
}

// contentReader reads a file that is to have a known content, and fails at its end if it hasn't: it hands the last
// bytes out only when the hash is right, so that no store takes the upload for complete.
type contentReader struct {
	ctx   context.Context
	r     io.Reader
	want  Sum
	size  int64
	read  int64
	h     hash.Hash
	limit *rate.Limiter
	moved func(bytes int64)
	// handed are bytes that the caller got.
	handed int64
	stale  bool
	ended  bool
}

var errStale = errors.New("the file changed since it was hashed")

// ObjectSize implements objstore.ObjectSizer: S3 needs to know it beforehand.
func (c *contentReader) ObjectSize() (int64, error) { return c.size, nil }

// Read implements io.Reader.
func (c *contentReader) Read(p []byte) (int, error) {
	if c.stale {
		return 0, errStale
	}
	if c.read == c.size {
		if !c.ended && c.size == 0 && Sum(c.h.Sum(nil)) != c.want {
			c.stale = true
			return 0, errStale
		}
		c.ended = true
		return 0, io.EOF
	}
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	p = p[:min(int64(len(p)), c.size-c.read, burstBytes)]
	if len(p) == 0 {
		return 0, nil
	}
	if c.limit != nil {
		if err := c.limit.WaitN(c.ctx, len(p)); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p)
	if _, err := c.h.Write(p[:n]); err != nil {
		return 0, err
	}
	if c.read += int64(n); c.read == c.size && Sum(c.h.Sum(nil)) != c.want || err == io.EOF && c.read < c.size {
		c.stale = true
		return 0, errStale
	}
	c.handed += int64(n)
	c.moved(int64(n))
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// sumSet is a set of contents for several goroutines.
type sumSet struct {
	mu  sync.Mutex
	set map[Sum]bool
}

func (s *sumSet) add(sum Sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = map[Sum]bool{}
	}
	s.set[sum] = true
}

func (s *sumSet) has(sum Sum) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set[sum]
}
