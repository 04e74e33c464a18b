// Package snapshot keeps copies of a data directory in object storage, and brings them back.
//
// A snapshot is a checkpoint of the archive: a folder of files that don't change any more. Each file lies in
// the bucket once, under its SHA-256, whichever snapshots it is of; a manifest names a snapshot's files and is
// written when all of them are there. So a snapshot is whole or it isn't one, and what the bucket holds is never sent again.
//
//	varve/files/<2 hex>/<SHA-256>   a file's bytes
//	varve/snapshots/<ULID>.json     a manifest, written last, removed first
//	varve/uploads/<ULID>.json       a claim: files that a Create counts on, or that a Prune is about to remove
//
// A Store creates, lists, verifies, restores and prunes, and does so on a schedule. It knows no archive: Options has
// funcs that make a checkpoint, and callers give those that open a restored folder. Each archive needs a prefix or a
// bucket of its own to be pruned by the same rules; those that share one do no harm to each other.
//
// Nothing that comes from outside becomes a path: IDs are ULIDs that are made here and checked when they come back, and
// paths in a manifest are checked before anything is done with it and opened through os.Root.
//
// A Store is safe for use by several goroutines. One Create or Prune runs at a time; the others get ErrBusy. Stores of
// several processes may work on one bucket at once, see prune.go.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"golang.org/x/time/rate"
)

// Errors that callers tell apart. All are wrapped with what was being done to what.
var (
	// ErrBusy: a Create or Prune is under way, here or in another process with the same Scratch.
	ErrBusy = errors.New("a snapshot or a prune is under way")
	// ErrID: what was given is no name of a snapshot.
	ErrID = errors.New("not the name of a snapshot")
	// ErrNotFound: the bucket has no snapshot of that name.
	ErrNotFound = errors.New("no such snapshot")
	// ErrDamaged: a manifest or a file in the bucket is not what it was when it was written.
	ErrDamaged = errors.New("damaged snapshot")
	// ErrFormat: a manifest is of a format that this version doesn't know.
	ErrFormat = errors.New("snapshot of an unknown format")
	// ErrTarget: the folder to restore to can't be used.
	ErrTarget = errors.New("folder to restore to")
	// ErrKeep: the rules to prune by would keep nothing.
	ErrKeep = errors.New("rules to prune by")
)

// Taken is what a checkpoint holds. Files are all regular files of the folder, by path.
type Taken struct {
	Incarnation [16]byte
	Taken       time.Time
	// Last is the last sequence of the journal in it.
	Last    uint64
	Series  uint64
	Files   []TakenFile
	Days    []Day
	Cursors []Cursor
}

// TakenFile is a file of a checkpoint.
type TakenFile struct {
	// Path is relative to the checkpoint's folder, with slashes.
	Path  string
	Bytes int64
	// Family is whose data is in a table file, "" for other files.
	Family string
	// Immutable says that a file of this path, size, time and inode always has the same bytes.
	Immutable bool
}

// Options of a Store.
type Options struct {
	// Bucket is closed by the caller, after the last call.
	Bucket objstore.Bucket
	// Scratch is a folder for checkpoints on the file system of the data, made if need be. It is the Store's alone: what is
	// left in it by a process that was killed, which is all folders that are named by a ULID, is removed. Empty: the Store can't Create.
	Scratch string
	// Take makes a checkpoint in a folder that doesn't exist.
	Take func(ctx context.Context, dir string) (Taken, error)
	// Incarnation is that of the archive, in hex. Snapshots of others in the bucket are then no reason for the schedule to make none, nor the
	// last success, and Prune leaves them alone. Empty: all are of this archive, and Prune applies its rules to each archive's.
	Incarnation string
	// Before is called before Take: it seals what is due. May be nil.
	Before func(ctx context.Context) error
	// Parallel is how many files are sent, fetched or hashed at once; 4 if 0.
	Parallel int
	// BytesPerSecond bounds what Create sends, of all files together. No bound if 0.
	BytesPerSecond int64
	// CPUShare is the part of the time that hashing may take of one core, above 0; 1, which is as fast as it goes on several cores, if 0.
	CPUShare float64
	// Patience is how long one file is tried again for before Create, Verify or Restore gives up, not counting
	// the attempts themselves; 10 minutes if 0. Lists and manifests are tried again for a twentieth of it.
	Patience time.Duration
	// Settle is how long Prune waits between announcing what it will remove and looking for who needs it: at least
	// twice the time that an object may be missing from a listing after it was written. 1 s if 0, none if negative.
	Settle time.Duration
	// HashCache is a file that remembers the hashes of immutable files; none if empty. It is only a hint.
	HashCache string
	// RehashAll reads every file, whatever the cache says.
	RehashAll bool
	// Version is Varve's, for the manifest.
	Version string
	// Now is the clock, time.Now if nil.
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer

	// sleep waits for a time or the end of a context. Tests have one that doesn't wait.
	sleep func(ctx context.Context, d time.Duration) error
}

// Store makes and keeps snapshots in a bucket.
type Store struct {
	o       Options
	limit   *rate.Limiter // nil without a bound
	pace    pace
	metrics *metrics
	ids     *ids

	// busy is held by the Create or Prune that runs.
	busy sync.Mutex

	// mu guards what is below, and is never held while something is waited for.
	mu     sync.Mutex
	status Status
	// changes counts the snapshots that came and went.
	changes int
	// known are manifests that were read, without their files: they never change.
	known map[string]Listed
	// abandoned are claims of Creates that failed, see dropAbandoned.
	abandoned []string
}

// New opens a store. Nothing is asked of the bucket. Folders in Scratch that killed runs left are removed.
func New(o Options) (*Store, error) {
	if o.Bucket == nil {
		return nil, errors.New("open snapshots: no bucket")
	}
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Minute
	}
	if o.Settle == 0 {
		o.Settle = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CPUShare == 0 {
		o.CPUShare = 1
	}
	if o.sleep == nil {
		o.sleep = sleep
	}
	s := &Store{o: o, ids: newIDs(), known: map[string]Listed{}}
	s.pace.share, s.pace.sleep = o.CPUShare, o.sleep
	s.metrics = newMetrics(s, o.Registerer)
	if o.BytesPerSecond > 0 {
		s.limit = rate.NewLimiter(rate.Limit(o.BytesPerSecond), burstBytes)
	}
	if o.Scratch == "" {
		return s, nil
	}
	release, err := s.lockScratch()
	if errors.Is(err, ErrBusy) {
		// Another process is at work in it and cleans up itself.
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return s, errors.Join(s.clearScratch(), release())
}

// sleep waits for d, or less if the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
