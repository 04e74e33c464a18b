package snapshot

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Create makes a snapshot. Its steps, each of which may be the last if the process is killed:
//
//  1. what is due is sealed (Before),
//  2. a checkpoint is taken into Scratch, and its files are hashed,
//  3. a claim on their contents is written, so that no prune removes one that the bucket has,
//  4. files that the bucket doesn't hold are sent: what a killed run has sent is found by its content,
//  5. all of the snapshot's files are looked for once more, with their sizes,
//  6. the manifest is written,
//  7. the claim and the checkpoint are removed.
//
// Progress is called for the first time when no other job is in the way any more. Before the manifest is there, no one sees a snapshot. If Create returns an error, calling it again takes a new
// checkpoint and sends what is not there yet.
func (s *Store) Create(ctx context.Context, progress Progress) (m Manifest, stats Stats, err error) {
	if s.o.Take == nil || s.o.Scratch == "" {
		return m, stats, errors.New("create a snapshot: there is no archive to take it of")
	}
	finish, err := s.begin()
	if err != nil {
		return m, stats, fmt.Errorf("create a snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, finish()) }()
	t := s.track("", progress, s.stepped)
	s.started(jobCreate)
	started := s.o.Now()
	defer func() { s.created(m, s.o.Now().Sub(started), err) }()
	if m, err = s.create(ctx, t); err != nil {
		return Manifest{}, stats, fmt.Errorf("create a snapshot: %w", err)
	}
	return m, m.Stats, nil
}

func (s *Store) create(ctx context.Context, t *tracker) (m Manifest, err error) {
	t.begin(Sealing, 0, 0)
	if err := s.endDeadPrunes(ctx); err != nil {
		return m, err
	}
	if s.o.Before != nil {
		if err := s.o.Before(ctx); err != nil {
			return m, fmt.Errorf("seal what is due: %w", err)
		}
	}
	c := &creation{s: s, t: t, id: s.ids.next(s.o.Now()), started: s.o.Now()}
	t.named(c.id)
	t.begin(Checkpointing, 0, 0)
	dir := filepath.Join(s.o.Scratch, c.id)
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if c.taken, err = s.o.Take(ctx, dir); err != nil {
		return m, fmt.Errorf("take a checkpoint: %w", err)
	}
	if c.dir, err = os.OpenRoot(dir); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, c.dir.Close()) }()
	m, err = c.run(ctx, false)
	if stale := (*staleError)(nil); errors.As(err, &stale) && stale.guessed {
		s.o.Logger.Warn("the file of hashes is wrong: all files are read", "file", s.o.HashCache, "path", stale.path)
		m, err = c.run(ctx, true)
	}
	return m, err
}

// creation is one Create.
type creation struct {
	s       *Store
	t       *tracker
	id      string
	started time.Time
	taken   Taken
	dir     *os.Root
	hashed  *hashed
	// sent are contents that were sent by this run.
	sent sumSet
}

// run does all but the checkpoint.
func (c *creation) run(ctx context.Context, rehash bool) (m Manifest, err error) {
	s := c.s
	if c.hashed, err = s.hash(ctx, c.dir, c.taken, rehash || s.o.RehashAll, c.t); err != nil {
		return m, err
	}
	if err := c.hashed.cache.save(s.o.HashCache); err != nil {
		s.o.Logger.Warn("the next snapshot will read all files", "err", err)
	}
	m = c.manifest()
	if _, err := m.encode(); err != nil {
		return m, err
	}
	files := unique(m.Files)
	claim := claim{Kind: creating, ID: c.id}
	for _, f := range files {
		claim.Files = append(claim.Files, f.SHA256)
	}
	h, claimed, err := s.claim(ctx, claim, s.o.Patience)
	if err != nil {
		return m, err
	}
	if err := c.fill(claimed, h, files); err != nil {
		// The claim stays, so that what was sent is there for the next attempt. That one removes it.
		h.end()
		s.abandon(c.id)
		return m, err
	}
	c.t.begin(Publishing, 0, 0)
	m.Stats = c.stats(&m)
	body, err := m.encode()
	if err == nil {
		_, err = ParseManifest(body)
	}
	if err == nil {
		err = s.put(claimed, manifestObject(c.id), body, s.o.Patience)
	}
	if err != nil {
		h.end()
		s.abandon(c.id)
		return m, err
	}
	if err := h.release(ctx); err != nil {
		s.o.Logger.Warn("the claim of a snapshot stays until it expires", "claim", h.object, "err", err)
	}
	return m, nil
}

func (c *creation) manifest() Manifest {
	m := Manifest{
		Varve: strings.ToValidUTF8(c.s.o.Version, "?"), ID: c.id, Taken: c.taken.Taken, Incarnation: hex.EncodeToString(c.taken.Incarnation[:]),
		Last: c.taken.Last, Series: c.taken.Series, Days: c.taken.Days, Files: c.hashed.files,
	}
	for _, cursor := range c.taken.Cursors {
		cursor.Name = strings.ToValidUTF8(cursor.Name, "?")
		m.Cursors = append(m.Cursors, cursor)
	}
	for _, f := range m.Files {
		m.Bytes += f.Bytes
	}
	return m
}

func (c *creation) stats(m *Manifest) Stats {
	stats := Stats{HashedBytes: c.hashed.bytes, Took: c.s.o.Now().Sub(c.started), Families: map[string]Total{}}
	counted := map[Sum]bool{}
	for _, f := range m.Files {
		sent := c.sent.has(f.SHA256) && !counted[f.SHA256]
		counted[f.SHA256] = true
		stats.add(f.Bytes, sent)
		family := stats.Families[f.Family]
		family.add(f.Bytes, sent)
		stats.Families[f.Family] = family
	}
	return stats
}

// fill makes the bucket hold all files.
func (c *creation) fill(ctx context.Context, h *held, files []File) error {
	s := c.s
	if err := s.waitForPrunes(ctx, h, c.t); err != nil {
		return err
	}
	s.dropAbandoned(ctx)
	c.t.begin(Comparing, 0, 0)
	known := s.knownFiles(ctx, len(c.hashed.guessed) > 0)
	var bytes int64
	for _, f := range files {
		bytes += f.Bytes
	}
	c.t.begin(Uploading, len(files), bytes)
	err := each(ctx, s.o.Parallel, files, func(ctx context.Context, f File) error {
		if known[f.SHA256] {
			// It is looked for below.
			c.t.file(f.Bytes, 0, f.Bytes)
			return nil
		}
		return c.ensure(ctx, f)
	})
	if err != nil {
		return err
	}
	return c.recheck(ctx, files)
}

// ensure sends a file unless it is there.
func (c *creation) ensure(ctx context.Context, f File) error {
	held, size, err := c.s.holds(ctx, f.SHA256.object(), f.Bytes, c.s.o.Patience)
	if err != nil {
		return err
	}
	if held {
		c.t.file(f.Bytes, 0, f.Bytes)
		return nil
	}
	if size >= 0 {
		c.s.o.Logger.Warn("an object in the bucket has the wrong size and is sent again", "object", f.SHA256.object(), "bytes", size, "want", f.Bytes)
	}
	if err := c.send(ctx, f); err != nil {
		return err
	}
	c.sent.add(f.SHA256)
	c.t.file(0, f.Bytes, 0)
	return nil
}

// recheckRounds: a store that loses files as fast as they are sent is no place for a snapshot.
const recheckRounds = 3

// recheckParallel is of requests that carry no bytes.
const recheckParallel = 16

// recheck looks for all files once more and sends those that are gone.
func (c *creation) recheck(ctx context.Context, files []File) error {
	for round := 0; ; round++ {
		c.t.begin(Checking, len(files), 0)
		var gone sumSet
		err := each(ctx, recheckParallel, files, func(ctx context.Context, f File) error {
			held, _, err := c.s.holds(ctx, f.SHA256.object(), f.Bytes, c.s.o.Patience)
			if !held {
				gone.add(f.SHA256)
			}
			c.t.file(0, 0, 0)
			return err
		})
		if err != nil {
			return err
		}
		var again []File
		for _, f := range files {
			if gone.has(f.SHA256) {
				again = append(again, f)
			}
		}
		if len(again) == 0 {
			return nil
		}
		if round == recheckRounds {
			return fmt.Errorf("the bucket does not keep what it was sent: %s (%s) is missing or of another size", again[0].SHA256.object(), again[0].Path)
		}
		c.s.o.Logger.Warn("objects that the bucket should hold are not there and are sent again", "objects", len(again), "first", again[0].SHA256.object())
		var bytes int64
		for _, f := range again {
			bytes += f.Bytes
		}
		c.t.begin(Uploading, len(again), bytes)
		if err := each(ctx, c.s.o.Parallel, again, c.ensure); err != nil {
			return err
		}
	}
}

// knownFiles are contents that the newest manifest names: they need not be asked for one by one. It is only a hint, so an
// error gives none. repeated tells that some snapshot of the archive was made before.
func (s *Store) knownFiles(ctx context.Context, repeated bool) map[Sum]bool {
	known := map[Sum]bool{}
	objects, err := s.list(ctx, manifestsFolder)
	newest := ""
	for _, o := range objects {
		newest = max(newest, idOf(manifestsFolder, o.name))
	}
	if newest == "" {
		if repeated && err == nil {
			s.o.Logger.Warn("the bucket has no snapshot, though one was made of this archive before: everything is sent; if that is a surprise, see whether the bucket is the right one and its disk is mounted")
		}
		return known
	}
	var m Manifest
	if err == nil {
		m, err = s.Get(ctx, newest)
	}
	if err != nil {
		s.o.Logger.Warn("the newest snapshot can't be read: each file is looked for", "snapshot", newest, "err", err)
	}
	for _, f := range m.Files {
		known[f.SHA256] = true
	}
	return known
}

// abandon remembers a claim that a failed Create of this process left.
func (s *Store) abandon(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandoned = append(s.abandoned, id)
}

// dropAbandoned removes claims of attempts before this one, whose own claim stands by now.
func (s *Store) dropAbandoned(ctx context.Context) {
	s.mu.Lock()
	ids := s.abandoned
	s.abandoned = nil
	s.mu.Unlock()
	for _, id := range ids {
		if err := s.remove(ctx, claimObject(id)); err != nil {
			s.o.Logger.Warn("a claim stays until it expires", "claim", claimObject(id), "err", err)
		}
	}
}
