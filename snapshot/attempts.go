package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thanos-io/objstore"
)

const (
	pauseFirst = 250 * time.Millisecond
	pauseMax   = 30 * time.Second
	// stallUpload: S3 parts are read into memory whole, so that it is long until the next read on a slow line:
	// 16 MiB in 15 minutes are 18 kB/s.
	stallUpload   = 15 * time.Minute
	stallDownload = 2 * time.Minute
)

var (
	errStalled = errors.New("no byte moved for too long")
	// errPermanent marks what is no use to try again.
	errPermanent = errors.New("")
)

// permanent makes an error one that isn't tried again.
func permanent(err error) error { return &permanentError{err} }

type permanentError struct{ error }

func (e *permanentError) Unwrap() error      { return e.error }
func (*permanentError) Is(target error) bool { return target == errPermanent }

// attempts tries one thing again and again: pauses double from pauseFirst to pauseMax, each cut at random by up
// to a half, so that those who failed together don't come back together. It gives up when the pauses since the last
// progress add up to the patience.
type attempts struct {
	s        *Store
	what     string
	patience time.Duration

	pause, paused time.Duration
	failed        int
}

// progress begins anew with short pauses.
func (a *attempts) progress() { a.pause, a.paused = 0, 0 }

// again waits before the next attempt, or returns why there is none.
func (a *attempts) again(ctx context.Context, err error) error {
	a.failed++
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", a.what, context.Cause(ctx))
	case errors.Is(err, errPermanent), a.s.notFound(err):
		return fmt.Errorf("%s: %w", a.what, err)
	case anyOf(err, a.s.o.Bucket.IsAccessDeniedErr):
		return fmt.Errorf("%s: %w; check the rights of the bucket's user", a.what, err)
	case a.paused >= a.patience:
		return fmt.Errorf("%s: given up after %d attempts: %w", a.what, a.failed, err)
	}
	a.pause = min(max(2*a.pause, pauseFirst), pauseMax)
	wait := a.pause - rand.N(a.pause/2)
	a.s.o.Logger.Warn("object storage: trying again", "what", a.what, "err", err, "attempt", a.failed, "in", wait)
	a.s.metrics.retries.Inc()
	a.paused += wait
	if err := a.s.o.sleep(ctx, wait); err != nil {
		return fmt.Errorf("%s: %w", a.what, err)
	}
	return nil
}

// retry calls f until it succeeds.
func (s *Store) retry(ctx context.Context, what string, patience time.Duration, f func(ctx context.Context) error) error {
	a := attempts{s: s, what: what, patience: patience}
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}

// notFound says whether an error is that of an object that isn't there.
func (s *Store) notFound(err error) bool { return anyOf(err, s.o.Bucket.IsObjNotFoundErr) }

// anyOf asks of an error and of all that it wraps: the providers know their own errors only as they made them.
func anyOf(err error, is func(error) bool) bool {
	if err == nil {
		return false
	}
	if is(err) {
		return true
	}
	switch w := err.(type) {
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(w.Unwrap(), func(e error) bool { return anyOf(e, is) })
	case interface{ Unwrap() error }:
		return anyOf(w.Unwrap(), is)
	}
	return false
}

// short is the patience for small things that somebody waits for.
func (s *Store) short() time.Duration { return s.o.Patience / 20 }

// watch is a context that ends when nobody has called its moved for a while.
func watch(ctx context.Context, d time.Duration) (watched context.Context, moved, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(d, func() { cancel(errStalled) })
	return watched, func() { t.Reset(d) }, func() {
		t.Stop()
		cancel(nil)
	}
}

// each calls f for all items, so many at once, until one fails.
func each[T any](ctx context.Context, parallel int, items []T, f func(ctx context.Context, item T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(parallel, len(items)) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= len(items) {
					return
				}
				if err := f(ctx, items[i]); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// holds asks whether the bucket has an object of this size. One of another size is as good as none: it is told of
// in the log, and will be written again or told of as damage.
func (s *Store) holds(ctx context.Context, object string, bytes int64, patience time.Duration) (held bool, size int64, err error) {
	err = s.retry(ctx, "look for "+object, patience, func(ctx context.Context) error {
		a, err := s.o.Bucket.Attributes(ctx, object)
		if err != nil {
			if s.notFound(err) {
				held, size = false, -1
				return nil
			}
			return err
		}
		held, size = a.Size == bytes, a.Size
		return nil
	})
	return held, size, err
}

// get reads a small object whole.
func (s *Store) get(ctx context.Context, object string, bytesMax int64) (content []byte, err error) {
	err = s.retry(ctx, "read "+object, s.short(), func(ctx context.Context) error {
		ctx, moved, stop := watch(ctx, stallDownload)
		defer stop()
		r, err := s.o.Bucket.Get(ctx, object)
		if errors.Is(err, io.EOF) {
			content = nil // S3's client says so of an empty object
			return nil
		}
		if err != nil {
			return stalled(ctx, err)
		}
		content, err = io.ReadAll(&watched{r: io.LimitReader(r, bytesMax+1), moved: moved})
		if err = stalled(ctx, errors.Join(err, r.Close())); err == nil && int64(len(content)) > bytesMax {
			return permanent(fmt.Errorf("%w: it has more than %d bytes", ErrDamaged, bytesMax))
		}
		return err
	})
	return content, err
}

// put writes a small object and reads it back.
func (s *Store) put(ctx context.Context, object string, content []byte, patience time.Duration) error {
	return s.retry(ctx, "write "+object, patience, func(ctx context.Context) error {
		watchedCtx, _, stop := watch(ctx, stallUpload)
		defer stop()
		err := s.o.Bucket.Upload(watchedCtx, object, bytes.NewReader(content), objstore.WithContentType("application/json"))
		if err != nil {
			return stalled(watchedCtx, err)
		}
		back, err := s.get(ctx, object, int64(len(content)))
		if err != nil {
			// Not found is not for ever: it may not be seen yet.
			return errors.New(err.Error())
		}
		if !bytes.Equal(back, content) {
			return fmt.Errorf("%d bytes came back that differ from the %d that were written", len(back), len(content))
		}
		return nil
	})
}

// remove deletes an object; one that isn't there is fine.
func (s *Store) remove(ctx context.Context, object string) error {
	return s.retry(ctx, "remove "+object, s.short(), func(ctx context.Context) error {
		if err := s.o.Bucket.Delete(ctx, object); err != nil && !s.notFound(err) {
			return err
		}
		return nil
	})
}

// listed is an object of a folder.
type listed struct {
	name     string
	modified time.Time // zero if the bucket doesn't say
}

// list returns the objects of a folder and those below it.
func (s *Store) list(ctx context.Context, folder string) (all []listed, err error) {
	var options []objstore.IterOption
	for _, supported := range s.o.Bucket.SupportedIterOptions() {
		if supported == objstore.UpdatedAt {
			options = append(options, objstore.WithUpdatedAt())
		}
	}
	options = append(options, objstore.WithRecursiveIter())
	err = s.retry(ctx, "list "+folder, s.short(), func(ctx context.Context) error {
		all = all[:0]
		err := s.o.Bucket.IterWithAttributes(ctx, folder, func(a objstore.IterObjectAttributes) error {
			modified, _ := a.LastModified()
			all = append(all, listed{a.Name, modified})
			return nil
		}, options...)
		if s.notFound(err) {
			// In a FILESYSTEM bucket: of what another process removed while it was listed. The next attempt doesn't meet it.
			return errors.New(err.Error())
		}
		return err
	})
	return all, err
}

// stalled replaces an error that is of the watchdog's making.
func stalled(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// watched is a reader that says when something moved.
type watched struct {
	r     io.Reader
	moved func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.moved()
	}
	return n, err
}
