package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// sink is where fetched bytes go. Restart forgets what it got.
type sink interface {
	io.Writer
	Restart() error
}

// wrongReads: content that came back wrong is read this often before it counts as damaged in the bucket, since it may
// have been damaged on its way.
const wrongReads = 2

// fetch reads a file's content from the bucket and checks it. It goes on where the connection was cut. ErrDamaged names file
// and object.
func (s *Store) fetch(ctx context.Context, f File, w sink, t *tracker) error {
	if f.Bytes == 0 {
		// There is nothing to get, and S3's client can't tell an empty object from a body that breaks off.
		if f.SHA256 != sha256.Sum256(nil) {
			return damage(f, "the manifest says that it is empty and has another hash")
		}
		return nil
	}
	for try := 1; ; try++ {
		got, sum, err := s.fetchOnce(ctx, f, w, t)
		if err == nil && sum == f.SHA256 {
			return nil
		}
		t.moved(-got)
		if err == nil {
			err = damage(f, fmt.Sprintf("its content has SHA-256 %s", sum))
		}
		if !errors.Is(err, ErrDamaged) || try >= wrongReads || s.absent(ctx, f) {
			return err
		}
		if err := w.Restart(); err != nil {
			return err
		}
	}
}

// absent says whether it is certain that the object isn't what is wanted, so that reading it again is no use.
func (s *Store) absent(ctx context.Context, f File) bool {
	held, _, err := s.holds(ctx, f.SHA256.object(), f.Bytes, 0)
	return err != nil || !held
}

func damage(f File, what string) error {
	return fmt.Errorf("%w: file %s (object %s): %s", ErrDamaged, f.Path, f.SHA256.object(), what)
}

func (s *Store) fetchOnce(ctx context.Context, f File, w io.Writer, t *tracker) (got int64, sum Sum, err error) {
	object, h := f.SHA256.object(), sha256.New()
	a := attempts{s: s, what: fmt.Sprintf("fetch %s (%s)", f.Path, object), patience: s.o.Patience}
	for got < f.Bytes {
		n, err := s.fetchRest(ctx, f, got, io.MultiWriter(&sinkErrors{w}, h), t)
		got += n
		s.metrics.fetchedBytes.Add(float64(n))
		if n > 0 {
			a.progress()
		}
		if err == nil && got == f.Bytes {
			break
		}
		if s.notFound(err) {
			return got, sum, damage(f, "it is missing from the bucket")
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
			// Cut on the way, or an object that is too short?
			if held, size, look := s.holds(ctx, object, f.Bytes, s.short()); look == nil && !held {
				return got, sum, damage(f, fmt.Sprintf("it has %d bytes in the bucket and not %d", max(size, 0), f.Bytes))
			}
		}
		if err := a.again(ctx, err); err != nil {
			return got, sum, err
		}
	}
	return got, Sum(h.Sum(nil)), nil
}

// fetchRest reads from an offset to the end.
func (s *Store) fetchRest(ctx context.Context, f File, from int64, w io.Writer, t *tracker) (n int64, err error) {
	ctx, touch, stop := watch(ctx, stallDownload)
	defer stop()
	var r io.ReadCloser
	if from == 0 {
		r, err = s.o.Bucket.Get(ctx, f.SHA256.object())
	} else {
		r, err = s.o.Bucket.GetRange(ctx, f.SHA256.object(), from, f.Bytes-from)
	}
	if errors.Is(err, io.EOF) {
		return 0, nil // S3's client says so of an object that ends before the offset
	}
	if err != nil {
		return 0, stalled(ctx, err)
	}
	n, err = copyCounted(ctx, w, io.LimitReader(&watched{r, touch}, f.Bytes-from), t)
	if err == nil && from == 0 && n == f.Bytes {
		if extra, _ := r.Read(make([]byte, 1)); extra > 0 {
			err = permanent(damage(f, fmt.Sprintf("it has more than its %d bytes in the bucket", f.Bytes)))
		}
	}
	closeErr := r.Close()
	if err == nil && n < f.Bytes-from {
		err = closeErr
	}
	return n, stalled(ctx, err)
}

// sinkErrors makes errors of the local disk permanent.
type sinkErrors struct{ w io.Writer }

func (e *sinkErrors) Write(p []byte) (int, error) {
	n, err := e.w.Write(p)
	if err != nil {
		err = permanent(err)
	}
	return n, err
}

// discard is a sink for content that is only hashed.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Restart() error              { return nil }
