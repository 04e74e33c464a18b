package blocks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Folders of a data directory with what is in no block yet: the write-ahead log, that of samples out of order, and
// chunks that left memory.
var headFolders = []string{"wal", "wbl", "chunks_head"}

// replayHead makes blocks in dst of what a data directory has in none. It works on a copy: a replay repairs what it
// finds torn, and a running server writes. ok is false if there is nothing.
func replayHead(ctx context.Context, dir, dst string, logger *slog.Logger) (ok bool, err error) {
	if _, err := os.Stat(filepath.Join(dir, headFolders[0])); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	for _, name := range headFolders {
		if err := copyFolder(ctx, filepath.Join(dir, name), filepath.Join(dst, name)); err != nil {
			return false, err
		}
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	o := tsdb.DefaultOptions()
	o.NoLockfile = true
	o.RetentionDuration = 0
	o.MaxBlockChunkSegmentSize = 64 << 20                               // upstream sets the space of a whole one aside for each block
	o.OutOfOrderTimeWindow = (20 * 365 * 24 * time.Hour).Milliseconds() // any: what is in the log was taken once
	o.FloatChunkEncoding = chunkenc.EncXOR2                             // has start timestamps, if there are any
	o.EnableSTStorage = true
	o.EnableHistogramSTEncoding = true
	db, err := tsdb.Open(dst, logger, nil, o, nil)
	if err != nil {
		return false, fmt.Errorf("replay: %w", err)
	}
	db.DisableCompactions()
	err = compactHead(ctx, db)
	if err = errors.Join(err, db.Close()); err != nil {
		return false, err
	}
	for _, name := range headFolders {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dst, name)))
	}
	return true, err
}

func compactHead(ctx context.Context, db *tsdb.DB) error {
	if h := db.Head(); h.NumSeries() > 0 && h.MinTime() <= h.MaxTime() {
		if err := db.CompactHead(tsdb.NewRangeHead(h, h.MinTime(), h.MaxTime())); err != nil {
			return err
		}
	}
	return db.CompactOOOHead(ctx)
}

// copyFolder copies a folder, if there is one, with those in it. Files that go meanwhile are passed over: a server truncates its logs.
func copyFolder(ctx context.Context, from, to string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if e.IsDir() {
			err = copyFolder(ctx, source, target)
		} else {
			err = copyFile(source, target)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
