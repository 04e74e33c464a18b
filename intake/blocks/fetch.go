package blocks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"golang.org/x/sync/errgroup"
)

// fetchParallel is how many files are downloaded at once.
const fetchParallel = 4

// fetchTries is how often a download is begun.
const fetchTries = 3

// findInBucket looks for blocks below prefixes.
func (s *Source) findInBucket(ctx context.Context, prefixes []string) error {
	if len(prefixes) == 0 {
		prefixes = []string{""}
	}
	for _, prefix := range prefixes {
		prefix = strings.Trim(prefix, "/")
		if _, err := ulid.ParseStrict(path.Base(prefix)); err == nil {
			if err := s.addFromBucket(ctx, prefix); err != nil {
				return err
			}
			continue
		}
		var found []string
		err := s.o.Bucket.Iter(ctx, prefix, func(name string) error {
			if _, err := ulid.ParseStrict(path.Base(name)); err == nil && strings.HasSuffix(name, "/") {
				found = append(found, strings.TrimSuffix(name, "/"))
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list the bucket: %w", err)
		}
		for _, name := range found {
			if err := s.addFromBucket(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Source) addFromBucket(ctx context.Context, prefix string) error {
	marked, err := s.o.Bucket.Exists(ctx, path.Join(prefix, deletionName))
	if err != nil {
		return fmt.Errorf("block %s in the bucket: %w", prefix, err)
	}
	if marked {
		s.o.Logger.Info("block passed over", "block", prefix, "why", "it is marked for deletion")
		return nil
	}
	raw, err := s.read(ctx, path.Join(prefix, metaName))
	if err != nil && s.o.Bucket.IsObjNotFoundErr(err) {
		s.skip(fmt.Errorf("block %s in the bucket: its upload has not ended, it has no %s", prefix, metaName))
		return nil
	}
	var b *block
	if err == nil {
		b, err = newBlock(raw)
	}
	if err == nil && b.meta.ULID.String() != path.Base(prefix) {
		err = fmt.Errorf("%s is of block %s", metaName, b.meta.ULID)
	}
	if err != nil {
		err = fmt.Errorf("block %s in the bucket: %w", prefix, err)
		if s.o.SkipBroken && ctx.Err() == nil {
			s.skip(err)
			return nil
		}
		return err
	}
	b.prefix = prefix
	s.blocks = append(s.blocks, b)
	return nil
}

// read reads a small object.
func (s *Source) read(ctx context.Context, name string) ([]byte, error) {
	r, err := s.o.Bucket.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, metaBytesMax+1))
	return b, errors.Join(err, r.Close())
}

// segmentName is that of a file of chunks. Nothing else of a bucket becomes a path.
var segmentName = regexp.MustCompile(`^[0-9]{6,20}$`)

// fetch downloads the block. Called with b.mu held.
func (s *Source) fetch(ctx context.Context, b *block) error {
	files := []string{metaName, indexName}
	if ok, err := s.o.Bucket.Exists(ctx, path.Join(b.prefix, tombstonesName)); err != nil {
		return err
	} else if ok {
		files = append(files, tombstonesName)
	}
	err := s.o.Bucket.Iter(ctx, path.Join(b.prefix, chunksName), func(name string) error {
		if base := path.Base(name); segmentName.MatchString(base) {
			files = append(files, path.Join(chunksName, base))
		}
		return nil
	})
	if err != nil {
		return err
	}
	bytes := uint64(0)
	for _, name := range files {
		a, err := s.o.Bucket.Attributes(ctx, path.Join(b.prefix, name))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		bytes += uint64(max(0, a.Size))
	}
	if err := s.reserve(bytes); err != nil {
		return err
	}
	dir := filepath.Join(s.scratch, b.meta.ULID.String())
	err = os.MkdirAll(filepath.Join(dir, chunksName), 0o700)
	if err == nil {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(fetchParallel)
		for _, name := range files {
			g.Go(func() error {
				return s.fetchFile(ctx, path.Join(b.prefix, name), filepath.Join(dir, filepath.FromSlash(name)))
			})
		}
		err = g.Wait()
	}
	if err != nil {
		s.reserved(-int64(bytes))
		return errors.Join(err, os.RemoveAll(dir))
	}
	b.dir, b.bytes = dir, bytes
	return nil
}

// reserve counts bytes that scratch will hold.
func (s *Source) reserve(bytes uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := s.o.ScratchBytesMax; most > 0 && s.fetched+bytes > most {
		return fmt.Errorf("the blocks of one day take %d bytes in the scratch folder, %d are allowed: allow more", s.fetched+bytes, most)
	}
	s.fetched += bytes
	return nil
}

func (s *Source) reserved(change int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched = uint64(int64(s.fetched) + change)
}

// fetchFile downloads a file, anew where it breaks off.
func (s *Source) fetchFile(ctx context.Context, name, file string) error {
	for try := 1; ; try++ {
		err := s.fetchOnce(ctx, name, file)
		if err == nil || try == fetchTries || ctx.Err() != nil || s.o.Bucket.IsObjNotFoundErr(err) {
			return err
		}
		s.o.Logger.Warn("download again", "object", name, "err", err)
		timer := time.NewTimer(time.Duration(try) * time.Second)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (s *Source) fetchOnce(ctx context.Context, name, file string) (err error) {
	r, err := s.o.Bucket.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// use opens the block, or counts another user of it.
func (s *Source) use(ctx context.Context, b *block) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := errors.Join(ctx.Err(), b.broken); err != nil {
		return err
	}
	if b.dir == "" {
		if err := s.fetch(ctx, b); err != nil {
			return fmt.Errorf("download block %s: %w", b.meta.ULID, err)
		}
	}
	if b.open == nil {
		open, err := openBlock(b.dir, s)
		if err != nil {
			return s.breakDown(b, err)
		}
		b.open = open
	}
	b.users++
	return nil
}

// openBlock opens a block. Upstream's readers panic on some broken files.
func openBlock(dir string, s *Source) (b *tsdb.Block, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("reading it panics: %v", r)
		}
	}()
	return tsdb.OpenBlock(s.o.Logger, dir, s.pool, nil)
}

// breakDown turns an error about a block into the one that its reader gets: of SkipBroken the one to begin anew without it. Called with b.mu held.
func (s *Source) breakDown(b *block, err error) error {
	where := b.dir
	if b.prefix != "" {
		where = b.prefix + " in the bucket"
	}
	if err = fmt.Errorf("block %s (%s): %w", b.meta.ULID, where, err); errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w; a running server removes blocks that it has compacted: import a snapshot of it, or run again, what is done is kept", err)
	}
	if !s.o.SkipBroken {
		return fmt.Errorf("%w; mend or remove the block, or skip broken blocks", err)
	}
	if b.broken == nil {
		b.broken = err
		s.skip(err)
	}
	return err
}

// release ends a use. The block stays open for the next day.
func (b *block) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users--
}

// drop closes a block that nobody uses, and removes it if it was downloaded.
func (s *Source) drop(b *block) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users > 0 {
		return nil
	}
	if b.open != nil {
		err, b.open = b.open.Close(), nil
	}
	if b.prefix != "" && b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
		s.reserved(-int64(b.bytes))
		b.dir = ""
	}
	return err
}
