// Package blocks writes blocks of Prometheus' TSDB, which Prometheus, Thanos and Mimir serve, from what package export
// reads.
//
// A block is made in three passes. The series of its time are listed in a scratch file; then their samples are read, slice
// by slice, and go to chunks, while places of chunks are noted in another scratch file with a digest; then the index
// is made of that. What is held in memory are the strings of the labels, which the index wants sorted first, and one slice.
// After that the block is read back and compared with the digests, flushed to disk, and only then gets its name.
//
// With a Resolution blocks of aggregates are made, as Thanos' compactor does when it downsamples.
//
// Chunks are XOR and histogram chunks of at most 120 samples. Start timestamps, metadata and exemplars are not in blocks;
// stale markers are, and every NaN keeps its bits.
package blocks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"varve/export"
)

// Bounds of Options.Block.
const (
	BlockMin = 2 * time.Hour
	BlockMax = 14 * 24 * time.Hour
)

// Resolutions of blocks of aggregates: those that Thanos reads.
const (
	FiveMinutes = 5 * time.Minute
	OneHour     = time.Hour
)

// ErrOption is wrapped by errors about options that can't be.
var ErrOption = errors.New("invalid option")

// Options say what blocks are made.
type Options struct {
	Source *export.Source
	// Request has the selectors and the time, of which both bounds are known.
	Request export.Request
	// Block is how long blocks are. They begin at multiples of it.
	Block time.Duration
	// Resolution is that of aggregates; 0 makes blocks of samples. The time of the request is widened to whole buckets.
	Resolution time.Duration
	// ExternalLabels are those that Thanos and Mimir add to all series of a block. No series may have one of their names.
	ExternalLabels labels.Labels
	// Place is where blocks go to.
	Place Place
	// Origin says whose series these are, so that blocks of another origin in the same place are not taken for them.
	Origin string
	// SkipVerification leaves out that each block is read back.
	SkipVerification bool
	// Again makes blocks that are there already once more.
	Again bool
	// Progress is called now and then, from one goroutine. It may be nil.
	Progress func(Progress)
	// Walker has bounds for reading; its Source and Request are set by Run.
	Walker export.Walker
	// Now is the time for names of blocks; nil is time.Now.
	Now func() time.Time

	// segmentBytes is the size of files of chunks, 0 that of upstream.
	segmentBytes int64
}

// Progress is how far a Run is.
type Progress struct {
	// Done of Blocks are written, or there already. MinMillis and MaxMillis are those of the one that is being made.
	Done, Blocks         int
	MinMillis, MaxMillis int64
	// Series of SeriesTotal of this block are read.
	Series, SeriesTotal int64
	// Samples are those of the Run so far, buckets if it makes aggregates.
	Samples uint64
	// Step says what is done with the block: list, read, index, verify, store.
	Step string
}

// Stats count what went to blocks.
type Stats struct {
	Series, Floats, Histograms uint64
	// Buckets are those of aggregates, of which each series counts its own.
	Buckets uint64
	// StartTimestamps, and HistogramBuckets where aggregates are made, were left out: blocks have no room for them.
	StartTimestamps, HistogramBuckets uint64
	// Incomplete are stretches of time of series, of which the samples expired and no buckets are kept.
	Incomplete uint64
	Chunks     uint64
	Bytes      int64
}

func (s *Stats) add(o *Stats) {
	s.Series += o.Series
	s.Floats += o.Floats
	s.Histograms += o.Histograms
	s.Buckets += o.Buckets
	s.StartTimestamps += o.StartTimestamps
	s.HistogramBuckets += o.HistogramBuckets
	s.Incomplete += o.Incomplete
	s.Chunks += o.Chunks
	s.Bytes += o.Bytes
}

// Block is one that was made or was there.
type Block struct {
	ID                   ulid.ULID
	MinMillis, MaxMillis int64 // MaxMillis is exclusive
	Existed              bool
	Stats                Stats
}

// Report is what Run did, also if it ended early.
type Report struct {
	Blocks []Block
	Stats  Stats
	// Empty are blocks that were not made since no series had samples.
	Empty int
	Took  time.Duration
}

// Run makes the blocks of a request that are not there yet, the oldest first. When it ended early, for whatever reason, a
// Run with the same options goes on with the block it was at.
func Run(ctx context.Context, o Options) (report Report, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	began := o.Now()
	defer func() { report.Took = o.Now().Sub(began) }()
	if err := o.check(); err != nil {
		return report, err
	}
	o.Walker.Source = o.Source
	if o.Walker.Source == nil {
		return report, fmt.Errorf("%w: no source", ErrOption)
	}
	windows := o.windows()
	p := Progress{Blocks: len(windows)}
	for _, w := range windows {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		p.MinMillis, p.MaxMillis, p.Series, p.SeriesTotal = w.min, w.max, 0, 0
		block, err := o.block(ctx, w, &p)
		if err != nil {
			return report, fmt.Errorf("block from %s to %s: %w", date(w.min), date(w.max), err)
		}
		if block == nil {
			report.Empty++
		} else {
			report.Blocks = append(report.Blocks, *block)
			report.Stats.add(&block.Stats)
		}
		p.Done++
		o.tell(&p)
	}
	return report, nil
}

func date(millis int64) string { return time.UnixMilli(millis).UTC().Format(time.RFC3339) }

func (o *Options) tell(p *Progress) {
	if o.Progress != nil {
		o.Progress(*p)
	}
}

func (o *Options) check() error {
	switch {
	case o.Block < BlockMin || o.Block > BlockMax || o.Block%BlockMin != 0:
		return fmt.Errorf("%w: blocks of %s; they are a multiple of %s, and at most %s", ErrOption, o.Block, BlockMin, BlockMax)
	case o.Resolution != 0 && o.Resolution != FiveMinutes && o.Resolution != OneHour:
		return fmt.Errorf("%w: resolution %s; Thanos knows 5m and 1h", ErrOption, o.Resolution)
	case len(o.Request.Selectors) == 0:
		return fmt.Errorf("%w: no selector", ErrOption)
	case o.Request.MinMillis > o.Request.MaxMillis:
		return fmt.Errorf("%w: the time begins at %s and ends at %s", ErrOption, date(o.Request.MinMillis), date(o.Request.MaxMillis))
	case o.Place == nil:
		return fmt.Errorf("%w: no place for blocks", ErrOption)
	}
	// Far more than years, and far less than what overflows.
	if span := o.Request.MaxMillis/2 - o.Request.MinMillis/2; span/o.Block.Milliseconds() > 1_000_000 {
		return fmt.Errorf("%w: the time from %d to %d makes more than a million blocks; give --start and --end", ErrOption, o.Request.MinMillis, o.Request.MaxMillis)
	}
	return nil
}

// window is the time of a block: min inclusive, max exclusive.
type window struct{ min, max int64 }

// windows are those of the request, cut at multiples of the length of blocks.
func (o *Options) windows() []window {
	first, last, length := o.Request.MinMillis, o.Request.MaxMillis, o.Block.Milliseconds()
	if r := o.Resolution.Milliseconds(); r > 0 {
		first, last = floor(first, r), floor(last, r)+r-1
	}
	var ws []window
	for at := floor(first, length); at <= last; at += length {
		ws = append(ws, window{max(at, first), min(at+length, last+1)})
	}
	return ws
}

// floor is the highest multiple of step that isn't above t.
func floor(t, step int64) int64 {
	over := t % step
	if over < 0 {
		over += step
	}
	return t - over
}

// request is the part of the request that a block has. Buckets have what is later than the start.
func (o *Options) request(w window) export.Request {
	r := export.Request{Selectors: o.Request.Selectors, MinMillis: w.min, MaxMillis: w.max - 1}
	if o.Resolution > 0 {
		r.MinMillis, r.MaxMillis = w.min+1, w.max
	}
	return r
}

// identity says in a few characters what a block is of. Two blocks with one identity are the same, but for what was
// written, or deleted, in between.
func (o *Options) identity(w window) string {
	b, err := json.Marshal([]any{
		"varve export 1", o.Origin, o.Request.String(), w.min, w.max, o.Resolution.Milliseconds(), o.ExternalLabels.String(),
	})
	if err != nil {
		return "" // strings and numbers always have a form
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// block makes one block, nil if nothing is in it.
func (o *Options) block(ctx context.Context, w window, p *Progress) (_ *Block, err error) {
	identity := o.identity(w)
	if !o.Again {
		id, ok, err := o.Place.find(ctx, identity)
		if err != nil {
			return nil, fmt.Errorf("look for it: %w", err)
		}
		if ok {
			return &Block{ID: id, MinMillis: w.min, MaxMillis: w.max, Existed: true}, nil
		}
	}
	id, err := ulid.New(ulid.Timestamp(o.Now()), ulid.DefaultEntropy())
	if err != nil {
		return nil, err
	}
	d, err := o.Place.draft(ctx, id, identity)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	b := &builder{o: o, window: w, request: o.request(w), dir: d.dir, id: id, identity: identity, progress: p}
	made, err := b.build(ctx)
	if err != nil || !made {
		return nil, err
	}
	p.Step = "store"
	o.tell(p)
	if err := o.Place.keep(ctx, d); err != nil {
		return nil, fmt.Errorf("store it: %w", err)
	}
	return &Block{ID: id, MinMillis: w.min, MaxMillis: w.max, Stats: b.stats}, nil
}
