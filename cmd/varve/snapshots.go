package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"varve/api"
	"varve/archive"
	"varve/bucket"
	"varve/config"
	"varve/snapshot"
)

// Names in the data directory.
const (
	// localSnapshotsDir has the copies that POST /api/v1/admin/tsdb/snapshot makes; nothing removes them.
	localSnapshotsDir = "snapshots"
	// uploadingDir has what is on its way to object storage.
	uploadingDir = "uploading"
	// hashesName is a file with the hashes of files that don't change.
	hashesName = "hashes"
)

// snapshots makes snapshots of the server's archive, as the API wants it, and on a schedule.
type snapshots struct {
	archive    *archive.Archive
	compacting *compacting
	dataDir    string
	log        *slog.Logger
	// open opens the place; nil if none is configured.
	open     func() (*snapshot.Store, objstore.Bucket, error)
	schedule snapshot.Schedule
	place    atomic.Pointer[place]
	// tried is closed after the first attempt to open the place.
	tried chan struct{}

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

// place is where snapshots go, or why that isn't open yet.
type place struct {
	store  *snapshot.Store
	bucket objstore.Bucket
	err    error
}

func (s *server) newSnapshots(a *archive.Archive, c *compacting) (*snapshots, error) {
	k := s.o.config.Snapshots
	out := &snapshots{archive: a, compacting: c, dataDir: s.dataDir, log: s.o.logger.With("component", "snapshots"), tried: make(chan struct{})}
	out.life, out.end = context.WithCancel(context.Background())
	err := clearCopies(filepath.Join(s.dataDir, localSnapshotsDir), false)
	if k.ObjstoreConfigFile == "" {
		// The store does it otherwise.
		err = errors.Join(err, clearCopies(filepath.Join(s.dataDir, uploadingDir), true))
	}
	if err != nil {
		out.log.Warn("What snapshots left that were cut off could not be removed, and keeps room on the disk.", "err", err)
	}
	if k.ObjstoreConfigFile == "" {
		return out, nil
	}
	text, err := os.ReadFile(k.ObjstoreConfigFile)
	if err == nil {
		err = bucket.Check(text)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshots.objstore_config_file: %s: %w", k.ObjstoreConfigFile, err)
	}
	incarnation := a.Incarnation()
	out.open = func() (*snapshot.Store, objstore.Bucket, error) {
		b, err := bucket.Open(text, "varve", out.log, s.registry)
		if err != nil {
			return nil, nil, err
		}
		store, err := snapshot.New(snapshot.Options{
			Bucket: b, Incarnation: hex.EncodeToString(incarnation[:]), Scratch: filepath.Join(s.dataDir, uploadingDir), HashCache: filepath.Join(s.dataDir, hashesName),
			Take:   func(ctx context.Context, dir string) (snapshot.Taken, error) { return takeCheckpoint(ctx, a, dir) },
			Before: out.before, Parallel: k.Parallel, BytesPerSecond: int64(k.MaxUploadRate), CPUShare: k.CPUShare,
			Logger: out.log, Registerer: s.registry, Version: buildVersion().Version,
		})
		if err != nil {
			return nil, nil, errors.Join(err, b.Close())
		}
		return store, b, nil
	}
	out.schedule = snapshot.Schedule{Every: time.Duration(k.Every), At: time.Duration(k.Offset), Keep: keepRule(k.Keep)}
	return out, nil
}

// before has what is due sealed: it doesn't change any more, so that the next snapshot has it already. A copy of what isn't sealed
// is better than none.
func (s *snapshots) before(ctx context.Context) error {
	if err := s.compacting.compactDue(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("What is due could not be sealed before the snapshot; it is made all the same.", "err", err)
	}
	return ctx.Err()
}

// clearCopies removes from a folder the copies that a kill left half made, or all of them: hard links keep on the disk what the archive
// has removed. Whoever calls it has the archive open, so that nobody makes one.
func clearCopies(dir string, all bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		id, half := strings.CutSuffix(e.Name(), ".partial")
		if snapshot.ValidID(id) && e.IsDir() && (half || all) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

func keepRule(k config.KeepSnapshots) snapshot.Keep {
	return snapshot.Keep{Last: k.Last, Daily: k.Daily, Weekly: k.Weekly, Monthly: k.Monthly, Yearly: k.Yearly}
}

// openBucket opens the object storage that a file describes.
func openBucket(file string, log *slog.Logger, registerer prometheus.Registerer) (objstore.Bucket, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	b, err := bucket.Open(text, "varve", log, registerer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

// takeCheckpoint makes dir a copy of the archive.
func takeCheckpoint(ctx context.Context, a *archive.Archive, dir string) (snapshot.Taken, error) {
	c, err := a.Checkpoint(ctx, dir)
	if err != nil {
		return snapshot.Taken{}, err
	}
	t := snapshot.Taken{Incarnation: c.Incarnation, Taken: c.Taken, Last: c.Last, Series: c.Series}
	for _, f := range c.Files {
		t.Files = append(t.Files, snapshot.TakenFile{Path: f.Path, Bytes: f.Bytes, Family: f.Family, Immutable: f.Immutable})
	}
	for _, d := range c.Days {
		t.Days = append(t.Days, snapshot.Day{Day: d.Day, Samples: d.Samples, Bytes: d.Bytes, Digest: snapshot.Digest(d.Digest), Sealed: d.Sealed})
	}
	for _, k := range c.Cursors {
		t.Cursors = append(t.Cursors, snapshot.Cursor{Name: k.Name, Next: k.Next, Arrived: k.Arrived, Samples: k.Samples})
	}
	return t, nil
}

// Pauses between attempts to open the place.
const (
	openAgainFirst = 10 * time.Second
	openAgainMax   = 10 * time.Minute
)

// run opens the place, which may take its time and must keep no sample waiting, and makes what the schedule asks for, until stop.
func (s *snapshots) run() {
	if s.open == nil {
		return
	}
	opened := make(chan struct{})
	go func() { // An attempt can't be ended; stop doesn't wait for it.
		defer close(opened)
		for pause := openAgainFirst; ; pause = min(2*pause, openAgainMax) {
			store, bucket, err := s.open()
			if err == nil && s.life.Err() != nil {
				_ = bucket.Close() // Nobody is left to be told.
				return
			}
			first := s.place.Swap(&place{store, bucket, err}) == nil
			if first {
				close(s.tried)
			}
			if err == nil {
				return
			}
			s.log.Error("The place for snapshots can't be opened and will be tried again.", "again_in", pause.String(), "err", err)
			if waitFor(s.life, pause) != nil {
				return
			}
		}
	}()
	s.work.Go(func() {
		select {
		case <-opened:
		case <-s.life.Done():
			return
		}
		p := s.place.Load()
		if p == nil || p.err != nil || s.schedule.Every == 0 {
			return
		}
		if err := p.store.Run(s.life, s.schedule); err != nil && s.life.Err() == nil {
			s.log.Error("No snapshots are made any more.", "err", err)
		}
	})
}

// stop ends what is under way, whose files need not be sent again, and waits for it.
func (s *snapshots) stop() error {
	s.end()
	s.work.Wait()
	if p := s.place.Load(); p != nil && p.bucket != nil {
		return p.bucket.Close()
	}
	return nil
}

// store is where snapshots are, or why they can't be had.
func (s *snapshots) store() (*snapshot.Store, error) {
	if s.open == nil {
		return nil, api.ErrNoSnapshots
	}
	switch p := s.place.Load(); {
	case p == nil:
		return nil, errors.New("the place for snapshots is being opened")
	case p.err != nil:
		return nil, fmt.Errorf("the place for snapshots can't be opened: %w", p.err)
	default:
		return p.store, nil
	}
}

// openPatience is how long somebody who asks waits for the first attempt to open the place, which is begun at the start.
const openPatience = 10 * time.Second

// opened is store, once the place was tried.
func (s *snapshots) opened(ctx context.Context) (*snapshot.Store, error) {
	if s.open != nil {
		patience := time.NewTimer(openPatience)
		defer patience.Stop()
		select {
		case <-s.tried:
		case <-patience.C:
		case <-s.life.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.store()
}

// SnapshotStatus implements api.Snapshots.
func (s *snapshots) SnapshotStatus() any {
	out := struct {
		Configured bool `json:"configured"`
		// Closed says why there are none although they are configured.
		Closed string `json:"closed,omitempty"`
		snapshot.Status
	}{Configured: s.open != nil}
	store, err := s.store()
	switch {
	case err == nil:
		out.Status = store.Status()
	case out.Configured:
		out.Closed = err.Error()
	}
	return out
}

// ListSnapshots implements api.Snapshots.
func (s *snapshots) ListSnapshots(ctx context.Context) (any, error) {
	store, err := s.opened(ctx)
	if err != nil {
		return nil, err
	}
	list, err := store.List(ctx)
	if err != nil {
		return nil, err
	}
	slices.Reverse(list)
	return list, nil
}

// snapshotMade is what is told of a snapshot that was made.
type snapshotMade struct {
	ID      string         `json:"id"`
	Taken   time.Time      `json:"taken"`
	Files   snapshot.Stats `json:"files"`
	Seconds float64        `json:"seconds"`
}

// CreateSnapshot implements api.Snapshots. What was begun goes on when the client leaves.
func (s *snapshots) CreateSnapshot(ctx context.Context, wait bool) (any, error) {
	store, err := s.opened(ctx)
	if err != nil {
		return nil, err
	}
	if s.life.Err() != nil {
		return nil, errStopping
	}
	type answer struct {
		made snapshotMade
		err  error
	}
	answers, begun := make(chan answer, 1), make(chan struct{})
	began := time.Now()
	s.work.Go(func() {
		begin := sync.OnceFunc(func() { close(begun) })
		m, stats, err := store.Create(s.life, func(snapshot.Step) { begin() })
		s.logMade(&m, &stats, err)
		answers <- answer{snapshotMade{m.ID, m.Taken, stats, time.Since(began).Seconds()}, snapshotError(err)}
	})
	var enough <-chan struct{} // nil waits for the answer
	if !wait {
		enough = begun
	}
	select {
	case <-enough:
		return struct{}{}, nil // What becomes of it is logged, and in the status.
	case a := <-answers:
		return a.made, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// logMade says what became of a snapshot that was asked for. Who asked may be gone.
func (s *snapshots) logMade(m *snapshot.Manifest, stats *snapshot.Stats, err error) {
	switch {
	case err == nil:
		s.log.Info("A snapshot was made.", "id", m.ID, "files", stats.Files, "bytes", stats.Bytes, "sentBytes", stats.SentBytes, "took", stats.Took.String())
	case errors.Is(err, snapshot.ErrBusy), s.life.Err() != nil:
	default:
		s.log.Error("The snapshot that was asked for was not made.", "err", err)
	}
}

// untilStop is a context that also ends when the server stops.
func (s *snapshots) untilStop(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(s.life, cancel)
	return ctx, func() { unhook(); cancel() }
}

// VerifySnapshot implements api.Snapshots.
func (s *snapshots) VerifySnapshot(ctx context.Context, id string, contents bool) (any, error) {
	store, err := s.opened(ctx)
	if err != nil {
		return nil, err
	}
	ctx, end := s.untilStop(ctx)
	defer end()
	report, err := store.Verify(ctx, id, snapshot.VerifyOptions{Contents: contents}, nil)
	return report, snapshotError(err)
}

// PruneSnapshots implements api.Snapshots.
func (s *snapshots) PruneSnapshots(ctx context.Context, dry bool) (any, error) {
	store, err := s.opened(ctx)
	if err != nil {
		return nil, err
	}
	ctx, end := s.untilStop(ctx)
	defer end()
	report, err := store.Prune(ctx, s.schedule.Keep, dry)
	return report, snapshotError(err)
}

// LocalSnapshot implements api.Snapshots.
func (s *snapshots) LocalSnapshot(ctx context.Context) (string, error) {
	parent := filepath.Join(s.dataDir, localSnapshotsDir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	name := ulid.Make().String()
	_, err := s.archive.Checkpoint(ctx, filepath.Join(parent, name))
	return name, err
}

// snapshotError gives errors the classes that the API knows.
func snapshotError(err error) error {
	switch {
	case errors.Is(err, snapshot.ErrBusy):
		return fmt.Errorf("%w: %w", api.ErrSnapshotBusy, err)
	case errors.Is(err, snapshot.ErrNotFound), errors.Is(err, snapshot.ErrID):
		return fmt.Errorf("%w: %w", api.ErrNoSnapshot, err)
	case errors.Is(err, snapshot.ErrDamaged), errors.Is(err, snapshot.ErrFormat):
		return fmt.Errorf("%w: %w", api.ErrSnapshotDamaged, err)
	case errors.Is(err, snapshot.ErrKeep):
		return fmt.Errorf("%w: %w", api.ErrSnapshotRule, err)
	}
	return err
}
