// Package intake brings samples in bulk from where they lie, a source, to an archive, the target: whole
// UTC days, one after the other, each proved to have arrived.
//
// Sources are Prometheus and Thanos blocks (package intake/blocks) and live servers
// (intake/remoteread). Targets are an archive in this process (intake/direct) and a running
// server (intake/wire). None of them knows another; package cmd/varve joins them.
//
// Run is the engine. For each day of the source it
//
//  1. reads the labels of all series, resolves them to refs, and sorts those by metric and ref;
//  2. leases the day at the target. If the day has samples already, it goes through the write port;
//  3. adds series by series, while it decodes the same chunks a second time for the digests;
//  4. commits, and compares the digests with what the target decodes from its disk. What went through
//     the write port is looked up sample by sample;
//  5. notes the day in the state file, so that a rerun passes it over.
//
// What is not equal is reported, never put right in silence. What a series costs in memory is said at
// type entry; nothing grows with the number of samples or days.
package intake

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"varve/digest"
)

// DayMillis is the length of a day, in ms. Days begin at midnight UTC.
const DayMillis = int64(24 * 60 * 60 * 1000)

// Answers of a target's OpenDay. A target wraps them with what it knows.
var (
	// ErrDayTaken: the day has samples, so it goes through the write port.
	ErrDayTaken = errors.New("the day has samples already")
	// ErrBusy: another job is at work on the day. Run waits and tries again.
	ErrBusy = errors.New("another job is at work")
	// ErrDayRefused: the target's rules (retention, the future) don't allow the day. It is passed over and reported.
	ErrDayRefused = errors.New("the day is not taken")
)

// ErrReadAgain is the answer of a SourceDay that had to leave a broken part of the source out (and only if
// it was told to): what was read of the day does not count, and it is to be opened again.
var ErrReadAgain = errors.New("the day is to be read again")

// Target is where samples go. Its methods may be called from several goroutines.
type Target interface {
	// Resolve finds or makes the series and fills Ref and Metric of each, or Refused. An error is about none
	// of them in particular: the same call may be made again.
	Resolve(ctx context.Context, series []Series) error
	// OpenDay leases the UTC day that begins at startMillis. Errors: ErrDayTaken, ErrBusy, ErrDayRefused.
	OpenDay(ctx context.Context, startMillis int64) (Day, error)
	// Write is the write port. What it reports as Samples or Repeated is durable and can be queried when it
	// returns. Of equal times in one series the later chunk in the slice wins. Samples and chunks are the caller's again then.
	Write(ctx context.Context, samples []SeriesSamples) (WriteReport, error)
	// Querier reads samples as they are stored, in [mint, maxt], both inclusive, in ms: it is how what
	// went through Write is proved. It sees what was written before it was opened.
	Querier(mint, maxt int64) (storage.Querier, error)
}

// Series is a series to resolve.
type Series struct {
	// Labels are sorted and unique. They are immutable and may be kept.
	Labels labels.Labels
	// Ref and Metric are the answer: the order of Day.Add is by Metric, then Ref. Ref is 0 if Refused says why not.
	Ref     uint64
	Metric  uint32
	Refused string
}

// Day is a leased day. It is for one goroutine.
type Day interface {
	// Add adds the samples of a series that lie in the day, in ascending order of (Metric, Ref). Of equal times the later
	// chunk in the slice wins. The chunks are the caller's again when it returns, and another goroutine may
	// read them at the same time.
	Add(ref uint64, chunks []Chunk) error
	// Commit makes the day durable and visible to queries, whole or not at all.
	Commit(ctx context.Context) (DayReport, error)
	// Digests calls each for every series of the day that has samples, in the order of Add: decoded from what lies on disk. It is
	// legal after Commit.
	Digests(ctx context.Context, each func(ref uint64, d digest.Series) error) error
	// Close ends the lease. Without Commit nothing of the day stays. It may be called twice.
	Close() error
}

// Chunk is a piece of a series in one of upstream's encodings.
type Chunk struct {
	Chunk chunkenc.Chunk
	// MinMillis and MaxMillis bound the times of its samples, both inclusive. Samples ascend strictly in time.
	MinMillis, MaxMillis int64
	// Deleted are stretches of time, both ends inclusive, of which no sample counts.
	Deleted tombstones.Intervals
}

// SeriesSamples are samples of a series for the write port.
type SeriesSamples struct {
	Labels labels.Labels
	Chunks []Chunk
}

// DayReport is what a leased day holds. Bytes are those on disk. Expired are samples that the target left out, because it keeps
// none of their series that long.
type DayReport struct{ Series, Samples, Bytes, Expired uint64 }

// WriteReport says what became of samples at the write port. Each sample is counted once.
type WriteReport struct {
	// Samples were stored.
	Samples uint64
	// Repeated were there already, with the same value. A target that can't tell counts them as stored.
	Repeated uint64
	// Refused were not stored, by Reasons.
	Refused uint64
	Reasons map[string]uint64
}

// Source is what is imported. Its methods may be called from several goroutines.
type Source interface {
	// Span returns the times of the first and the last sample, both inclusive, in ms, or wider bounds. ok is
	// false without samples.
	Span() (mint, maxt int64, ok bool)
	// Size returns how many samples there are about, and how many bytes they take where they lie. 0: not known.
	Size() (samples, bytes uint64)
	// Identity names what a day is read from. A day that the state file says is done is
	// passed over if its name is still the same, and read again if not. It doesn't touch what is costly to reach.
	Identity(startMillis int64) string
	// OpenDay returns everything that overlaps the UTC day that begins at startMillis. Two days may be open at once.
	OpenDay(ctx context.Context, startMillis int64) (SourceDay, error)
	// Close is called after all days are closed.
	Close() error
}

// SourceDay is a day of a source. One goroutine at a time uses it.
type SourceDay interface {
	// Series calls f for each series of the day, each time in the same order. The same label set may come more than once, with another
	// handle: then what comes later is the later source. Handles are opaque; labels are immutable and may be kept. f may call Chunks.
	Series(ctx context.Context, f func(ls labels.Labels, handle uint64) error) error
	// Chunks appends the chunks that may hold samples of the day, older sources first; valid until
	// the next call of any method. Samples outside of the day are the caller's to leave out.
	Chunks(ctx context.Context, handle uint64, dst []Chunk) ([]Chunk, error)
	Close() error
}
