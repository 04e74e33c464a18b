// Package blocks reads Prometheus' and Thanos' blocks as a source of package intake: data directories, single blocks, or a
// bucket that holds some.
//
// Of a data directory it reads all blocks, and what is in no block yet: the write-ahead logs are copied to the scratch folder and replayed
// there by upstream's own code, which takes the memory that Prometheus takes for it. Nothing is ever written to a
// directory that is read. Of a server that runs, a snapshot is better (POST /api/v1/admin/tsdb/snapshot): its
// compactions remove blocks, and then the import ends with an error and is to be run again.
//
// Blocks of a bucket are downloaded when their first day is read and removed behind their last one, so the scratch folder holds the blocks of two
// days at most. Blocks that are marked for deletion, and those left over from a compaction, are passed over.
// Downsampled blocks of Thanos hold aggregates and not samples: they are refused, or passed over if asked for.
//
// Where samples of equal times differ the later block wins: by when it was made, what was in no block yet last.
package blocks

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/thanos-io/objstore"

	"varve/intake"
)

// Options say what is read. The zero Options read all of local directories.
type Options struct {
	// Bucket is where blocks are, if not on local disk: directories are then prefixes in it, none means its root.
	Bucket objstore.Bucket
	// Scratch is a folder for downloads and for the replay of write-ahead logs. Default: that of the system.
	Scratch string
	// ScratchBytesMax bounds downloads; more is an error that says how much it takes. Default: none.
	ScratchBytesMax uint64
	// Start (inclusive) and End (exclusive) bound the blocks that are looked at, Unix ms. 0 is open.
	Start, End int64
	// Match selects series by any of several sets of matchers, by their labels with external ones. Empty: all.
	Match [][]*labels.Matcher
	// SkipBroken leaves out blocks that can't be read, and says so in Skipped. Else they are errors.
	SkipBroken bool
	// SkipDownsampled passes Thanos' downsampled blocks over, where else they are an error.
	SkipDownsampled bool
	// NoHead leaves out what is in no block yet.
	NoHead bool
	Logger *slog.Logger
}

// block is one block that is read.
type block struct {
	meta     meta
	external labels.Labels
	sources  map[ulid.ULID]bool
	prefix   string // in the bucket, if it is there
	bytes    uint64
	head     bool

	// mu guards what follows, and is held while the block is fetched.
	mu     sync.Mutex
	dir    string // "": not here
	open   *tsdb.Block
	users  int
	broken error
}

// Source is the blocks. It implements intake.Source, and is safe for use by several goroutines.
type Source struct {
	o       Options
	scratch string // a folder of its own, removed by Close
	blocks  []*block
	pool    chunkenc.Pool

	mu      sync.Mutex
	skipped []string
	fetched uint64 // bytes in scratch
}

var _ intake.Source = (*Source)(nil)

// Open finds the blocks of the directories. It must be closed.
func Open(ctx context.Context, dirs []string, o Options) (_ intake.Source, err error) {
	if o.End == 0 {
		o.End = math.MaxInt64
	}
	if o.Start == 0 {
		o.Start = math.MinInt64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Scratch != "" {
		if err := os.MkdirAll(o.Scratch, 0o700); err != nil {
			return nil, err
		}
	}
	s := &Source{o: o, pool: chunkenc.NewPool()}
	if s.scratch, err = os.MkdirTemp(o.Scratch, "varve-import-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(s.scratch))
		}
	}()
	if o.Bucket != nil {
		err = s.findInBucket(ctx, dirs)
	} else {
		err = s.findLocal(ctx, dirs)
	}
	if err != nil {
		return nil, err
	}
	if err := s.choose(); err != nil {
		return nil, err
	}
	return s, nil
}

// choose leaves out what is not asked for, twice there or superseded, and puts the rest in order.
func (s *Source) choose() error {
	slices.SortStableFunc(s.blocks, func(a, b *block) int {
		return cmp.Or(btoi(a.head)-btoi(b.head), a.meta.ULID.Compare(b.meta.ULID))
	})
	seen := map[ulid.ULID]bool{}
	s.keep(func(b *block) error {
		if seen[b.meta.ULID] {
			return errors.New("it is there twice")
		}
		seen[b.meta.ULID] = true
		return nil
	})
	old := superseded(s.blocks)
	s.keep(func(b *block) error { return old[b] })
	var refused error
	s.keep(func(b *block) error {
		if b.meta.MaxTime < s.o.Start || b.meta.MinTime >= s.o.End {
			return errors.New("it is outside of the time that is asked for")
		}
		if n := b.meta.Thanos.Downsample.Resolution; n > 0 && !s.o.SkipDownsampled && refused == nil {
			refused = fmt.Errorf("block %s: %w to one aggregate every %d s, which are not its samples: import the raw blocks of the same time, and skip downsampled ones", b.meta.ULID, ErrDownsampled, n/1000)
		} else if n > 0 {
			return ErrDownsampled
		}
		return nil
	})
	return refused
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// keep drops the blocks for which there is a reason to.
func (s *Source) keep(why func(*block) error) {
	s.blocks = slices.DeleteFunc(s.blocks, func(b *block) bool {
		err := why(b)
		if err != nil {
			s.o.Logger.Debug("block passed over", "block", b.meta.ULID, "why", err)
		}
		return err != nil
	})
}

// newBlock makes a block of its meta.json.
func newBlock(b []byte) (*block, error) {
	m, err := parseMeta(b)
	if err != nil {
		return nil, err
	}
	n := &block{meta: m, external: m.externalLabels(), sources: map[ulid.ULID]bool{}, bytes: m.fileBytes()}
	for _, id := range m.Compaction.Sources {
		n.sources[id] = true
	}
	return n, nil
}

// findLocal looks for blocks in directories, which may be blocks themselves.
func (s *Source) findLocal(ctx context.Context, dirs []string) error {
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, metaName)); err == nil {
			if err := s.addLocal(dir, false); err != nil {
				return err
			}
			continue
		}
		// The logs are read first: what a compaction moves from them to a block meanwhile is then found twice, and not never.
		head := filepath.Join(s.scratch, fmt.Sprintf("head-%d", len(s.blocks)))
		hasHead := false
		if !s.o.NoHead {
			var err error
			if hasHead, err = replayHead(ctx, dir, head, s.o.Logger); err != nil {
				err = fmt.Errorf("what %s has in no block yet: %w; import a snapshot of the server instead, or leave the head out", dir, err)
				if !s.o.SkipBroken || ctx.Err() != nil {
					return err
				}
				s.skip(err)
			}
		}
		n, err := s.addAll(dir, false)
		if err == nil && hasHead {
			_, err = s.addAll(head, true)
		}
		if err != nil {
			return err
		}
		if n == 0 && !hasHead {
			s.o.Logger.Warn("there are no blocks", "dir", dir)
		}
	}
	return nil
}

// addAll adds the blocks in a directory.
func (s *Source) addAll(dir string, head bool) (n int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		n++
		if err := s.addLocal(filepath.Join(dir, e.Name()), head); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *Source) addLocal(dir string, head bool) error {
	b, err := readLocal(dir)
	if err == nil {
		b.head = head
		s.blocks = append(s.blocks, b)
		return nil
	}
	err = fmt.Errorf("block %s: %w", dir, err)
	if s.o.SkipBroken {
		s.skip(err)
		return nil
	}
	return fmt.Errorf("%w; mend or move it, or skip broken blocks", err)
}

func readLocal(dir string) (*block, error) {
	raw, err := os.ReadFile(filepath.Join(dir, metaName))
	if err != nil {
		return nil, err
	}
	b, err := newBlock(raw)
	if err != nil {
		return nil, err
	}
	b.dir, b.bytes = dir, 0
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			b.bytes += uint64(info.Size())
		}
		return err
	})
	return b, err
}

// skip notes what is left out.
func (s *Source) skip(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skipped = append(s.skipped, err.Error())
	s.o.Logger.Warn("left out", "err", err)
}

// Skipped says what was left out, and why.
func (s *Source) Skipped() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.skipped)
}

// Span implements intake.Source.
func (s *Source) Span() (mint, maxt int64, ok bool) {
	mint, maxt = math.MaxInt64, math.MinInt64
	for _, b := range s.blocks {
		mint, maxt = min(mint, b.meta.MinTime), max(maxt, b.maxMillis())
	}
	mint, maxt = max(mint, s.o.Start), min(maxt, s.o.End-1)
	return mint, maxt, mint <= maxt
}

// maxMillis bounds the times of the block's samples, inclusive. MaxTime is exclusive, but not in a block that was made of one time.
func (b *block) maxMillis() int64 { return max(b.meta.MinTime, b.meta.MaxTime-1) }

// Size implements intake.Source. Of blocks that are cut by Start or End their part in time is counted.
func (s *Source) Size() (samples, bytes uint64) {
	for _, b := range s.blocks {
		from, to := max(b.meta.MinTime, s.o.Start), min(b.meta.MaxTime, s.o.End)
		part := 1.0
		if whole := float64(b.meta.MaxTime) - float64(b.meta.MinTime); whole > 0 {
			part = max(0, (float64(to)-float64(from))/whole)
		}
		samples += uint64(float64(b.meta.Stats.NumSamples) * part)
		bytes += uint64(float64(b.bytes) * part)
	}
	return samples, bytes
}

// overlapping are the blocks with samples of a day, older ones first.
func (s *Source) overlapping(start int64) (out []*block) {
	for _, b := range s.blocks {
		if b.meta.MinTime < start+intake.DayMillis && b.maxMillis() >= start {
			out = append(out, b)
		}
	}
	return out
}

// Identity implements intake.Source: the names of the day's blocks, with what is deleted of them, and the selection. A block that
// was found broken is not as it was, so that a day which lacks it is read again by the next run.
func (s *Source) Identity(start int64) string {
	h := sha256.New()
	for _, b := range s.overlapping(start) {
		id := b.meta.ULID.String()
		if b.head { // made anew each time
			id = "head"
		}
		fmt.Fprintf(h, "%s %d %d %d %d %s\n", id, b.meta.MinTime, b.meta.MaxTime, b.meta.Stats.NumSamples, b.meta.Stats.NumTombstones, b.external)
		if b.isBroken() {
			fmt.Fprintln(h, "broken")
		}
	}
	if s.o.SkipBroken {
		fmt.Fprintln(h, "skip broken")
	}
	for _, set := range s.o.Match {
		fmt.Fprintf(h, "match %q\n", set)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Close implements intake.Source.
func (s *Source) Close() (err error) {
	for _, b := range s.blocks {
		err = errors.Join(err, s.drop(b))
	}
	return errors.Join(err, os.RemoveAll(s.scratch))
}
