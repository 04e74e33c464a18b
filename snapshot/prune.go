package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"varve/durable"
)

// How a prune and the Creates of other processes keep out of each other's way, without a lock, which object storage
// doesn't have:
//
//	Create: write a claim on its files;    then list claims, and wait for prunes whose claim has one of its files;
//	        then look what the bucket holds, send the rest, look at all again, write the manifest, remove the claim.
//	Prune:  write a claim on what it is about to remove; wait (Settle); then list manifests and claims, and spare
//	        what one of those that came to be needs; then remove, manifests first; remove the claim.
//
// Each writes its own claim before it reads the other's. If Create doesn't see Prune's claim, Create's was written
// before Prune's was, and Prune, which lists later, sees it, or the manifest that came of it. If it does, it waits, and
// looks what there is only when the prune is over. Where listings lag by L, Create may miss a claim written less than L
// before it listed, and Prune one less than L before it did: both happen only if Prune waits less than 2L in between.
//
// A claim is good for as long as its kind lasts, by the bucket's clock, and is written again in between by its process,
// which stops when that fails for too long. What a killed Create sent stays for that time and is then nobody's; files of
// nobody that are younger than orphanAge stay in any case.

// orphanAge is how old a file must be, by the bucket's clock, to be removed.
const orphanAge = 24 * time.Hour

// PruneReport says what was removed, or would be.
type PruneReport struct {
	DryRun bool `json:"dryRun"`
	// Kept are snapshots that stay, by ID, with the rules that want them. Removed are those that don't, the oldest first.
	Kept    map[string][]string `json:"kept"`
	Removed []Listed            `json:"removed"`
	// Files that no snapshot needs any more.
	RemovedFiles int `json:"removedFiles"`
	// YoungFiles belong to no snapshot and stay, since they are younger than a day; ClaimedFiles, since a Create counts on them.
	YoungFiles   int `json:"youngFiles"`
	ClaimedFiles int `json:"claimedFiles"`
	// Foreign are objects that Varve didn't write. They stay.
	Foreign []string `json:"foreign"`
}

// Prune removes snapshots that no rule keeps, and files that no snapshot needs.
//
// Nothing at all is removed if a manifest can't be read, since it might need any file; the error names it. A file that a
// manifest or a Create under way needs is never removed. With dryRun nothing is written and nothing removed.
func (s *Store) Prune(ctx context.Context, k Keep, dryRun bool) (r PruneReport, err error) {
	if k.Nothing() {
		return r, fmt.Errorf("prune: %w: they would remove every snapshot; say how many to keep", ErrKeep)
	}
	return s.prune(ctx, dryRun, func(all []Listed) (map[string][]string, error) {
		kept := k.choose(all, s.o.Now())
		for i := range all {
			// Another archive has rules of its own, which may keep more.
			if l := &all[i]; !s.own(l) && kept[l.ID] == nil {
				kept[l.ID] = []string{"another archive's"}
			}
		}
		return kept, nil
	})
}

// Delete removes these snapshots and files that no other needs, as Prune does.
func (s *Store) Delete(ctx context.Context, ids []string, dryRun bool) (r PruneReport, err error) {
	for _, id := range ids {
		if err := checkID(id); err != nil {
			return r, fmt.Errorf("delete: %w", err)
		}
	}
	return s.prune(ctx, dryRun, func(all []Listed) (map[string][]string, error) {
		kept := map[string][]string{}
		for _, l := range all {
			if !slices.Contains(ids, l.ID) {
				kept[l.ID] = []string{"not asked for"}
			}
		}
		for _, id := range ids {
			if !slices.ContainsFunc(all, func(l Listed) bool { return l.ID == id }) {
				return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
			}
		}
		return kept, nil
	})
}

// orphan is a file that no snapshot needs.
type orphan struct {
	sum      Sum
	modified time.Time
}

type chooser func([]Listed) (kept map[string][]string, err error)

func (s *Store) prune(ctx context.Context, dryRun bool, choose chooser) (r PruneReport, err error) {
	finish, err := s.begin()
	if err != nil {
		return r, fmt.Errorf("prune: %w", err)
	}
	defer func() { err = errors.Join(err, finish()) }()
	s.started(jobPrune)
	defer func() { s.pruned(err) }()
	p := &removal{s: s, id: s.ids.next(s.o.Now()), dryRun: dryRun, t: s.track("", s.stepped)}
	if err = p.run(ctx, choose); err != nil {
		if !p.removing {
			p.r.Removed = nil // It was what would have gone.
		}
		err = fmt.Errorf("prune: %w", err)
	}
	return p.r, err
}

// removal is one Prune or Delete.
type removal struct {
	s      *Store
	id     string
	dryRun bool
	t      *tracker
	r      PruneReport

	// needed are contents of snapshots that stay and of Creates under way.
	needed map[Sum]bool
	// seen are manifests that were read.
	seen map[string]bool
	// condemned are files to remove.
	condemned []orphan
	// removing: from here on something is gone.
	removing bool
	// files of snapshots that go, which is what they need if they turn out to stay.
	going map[string][]Sum
}

func (p *removal) run(ctx context.Context, choose chooser) error {
	s := p.s
	p.r.DryRun = p.dryRun
	if !p.dryRun {
		if err := s.endDeadPrunes(ctx); err != nil {
			return err
		}
	}
	if err := p.snapshots(ctx, choose); err != nil {
		return err
	}
	now := s.o.Now()
	if err := p.files(ctx, now); err != nil {
		return err
	}
	if p.dryRun {
		all, err := s.claims(ctx, now, "")
		if err == nil {
			err = p.spare(all)
		}
		p.r.RemovedFiles = len(p.condemned)
		return err
	}
	return p.remove(ctx)
}

// snapshots decides which snapshots go.
func (p *removal) snapshots(ctx context.Context, choose chooser) error {
	p.t.begin(Checking, 0, 0)
	p.needed, p.seen, p.going = map[Sum]bool{}, map[string]bool{}, map[string][]Sum{}
	all, err := p.s.manifests(ctx, func(m Manifest) {
		// Which of them stay is known when all were read; until then each holds its files by itself.
		for _, f := range unique(m.Files) {
			p.going[m.ID] = append(p.going[m.ID], f.SHA256)
		}
	})
	if err != nil {
		return err
	}
	readable := all[:0]
	for _, l := range all {
		switch {
		case l.Foreign:
			p.r.Foreign = append(p.r.Foreign, l.Object)
		case l.Damaged != "":
			return fmt.Errorf("nothing was removed, since %s can't be read and might need any file: %s; restore that object, or remove it if it is no use", l.Object, l.Damaged)
		default:
			readable = append(readable, l)
		}
	}
	if p.r.Kept, err = choose(readable); err != nil {
		return err
	}
	for _, l := range readable {
		p.seen[l.ID] = true
		if _, stays := p.r.Kept[l.ID]; !stays {
			p.r.Removed = append(p.r.Removed, l)
			continue
		}
		p.need(p.going[l.ID])
		delete(p.going, l.ID)
	}
	return nil
}

func (p *removal) need(sums []Sum) {
	for _, sum := range sums {
		p.needed[sum] = true
	}
}

// files finds the files that nobody needs and that are old enough.
func (p *removal) files(ctx context.Context, now time.Time) error {
	objects, err := p.s.list(ctx, filesFolder)
	if err != nil {
		return err
	}
	for _, o := range objects {
		sum, ok := sumOf(o.name)
		if !ok {
			p.r.Foreign = append(p.r.Foreign, o.name)
			continue
		}
		if p.needed[sum] {
			continue
		}
		if now.Sub(o.modified) < orphanAge || o.modified.IsZero() {
			p.r.YoungFiles++
			continue
		}
		p.condemned = append(p.condemned, orphan{sum, o.modified})
	}
	return nil
}

// spare takes away what claims under way count on.
func (p *removal) spare(all []found) error {
	claimed := map[Sum]bool{}
	for _, f := range all {
		switch {
		case !f.live:
		case f.broken != nil:
			return fmt.Errorf("nothing was removed, since the claim %s can't be read and might be on any file: %w; it is ignored when it is %s old", f.object, f.broken, createClaimFor)
		case f.Kind == creating:
			for _, sum := range f.Files {
				claimed[sum] = true
			}
		}
	}
	p.condemned = slices.DeleteFunc(p.condemned, func(o orphan) bool {
		if claimed[o.sum] {
			p.r.ClaimedFiles++
		}
		return claimed[o.sum]
	})
	return nil
}

// remove announces, looks again, and removes.
func (p *removal) remove(ctx context.Context) (err error) {
	s := p.s
	if len(p.condemned) == 0 && len(p.r.Removed) == 0 {
		// The bucket's clock isn't known here: if ours is fast, claims that are good must not look old.
		return p.sweepClaims(ctx, s.o.Now().Add(-createClaimFor))
	}
	if s.o.Scratch != "" {
		if err := durable.Replace(s.prunePath(p.id), nil); err != nil {
			return err
		}
	}
	c := claim{Kind: pruning, ID: p.id}
	for _, o := range p.condemned {
		c.Files = append(c.Files, o.sum)
	}
	h, ctx, err := s.claim(ctx, c, s.short())
	if err != nil {
		// It may have been written for all that; the next prune from here removes it.
		return err
	}
	defer func() {
		releaseErr := h.release(ctx)
		if releaseErr == nil && s.o.Scratch != "" {
			releaseErr = os.Remove(s.prunePath(p.id))
		}
		err = errors.Join(err, releaseErr)
	}()
	if s.o.Settle > 0 {
		if err := s.o.sleep(ctx, s.o.Settle); err != nil {
			return err
		}
	}
	if err := p.lookAgain(ctx, h.bucketNow()); err != nil {
		return err
	}
	p.t.begin(Removing, len(p.r.Removed)+len(p.condemned), 0)
	p.removing = true
	// Manifests first: a snapshot without a file would be one that can't be restored.
	for i, l := range p.r.Removed {
		if err := s.remove(ctx, l.Object); err != nil {
			p.r.Removed = p.r.Removed[:i]
			return err
		}
		s.forget(l.ID)
		p.t.file(0, 0, 0)
	}
	var removed atomic.Int64
	err = each(ctx, recheckParallel, p.condemned, func(ctx context.Context, o orphan) error {
		if err := s.remove(ctx, o.sum.object()); err != nil {
			return err
		}
		removed.Add(1)
		p.t.file(0, 0, 0)
		return nil
	})
	p.r.RemovedFiles = int(removed.Load())
	if err != nil {
		return err
	}
	return p.sweepClaims(ctx, h.bucketNow())
}

// lookAgain spares what is needed by manifests and claims that were written since the first look.
func (p *removal) lookAgain(ctx context.Context, now time.Time) error {
	s := p.s
	// Claims first: one that is gone from the second list may have become a manifest, which the third has.
	all, err := s.claims(ctx, now, p.id)
	if err != nil {
		return err
	}
	if err := p.spare(all); err != nil {
		return err
	}
	objects, err := s.list(ctx, manifestsFolder)
	if err != nil {
		return err
	}
	for _, o := range objects {
		id := idOf(manifestsFolder, o.name)
		if id == "" || p.seen[id] {
			continue
		}
		m, err := s.Get(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("nothing was removed: %w", err)
		}
		p.r.Kept[id] = []string{"new"}
		for _, f := range m.Files {
			p.needed[f.SHA256] = true
		}
	}
	p.condemned = slices.DeleteFunc(p.condemned, func(o orphan) bool {
		if p.needed[o.sum] {
			return true
		}
		// By the bucket's clock this time; the first look went by ours.
		if now.Sub(o.modified) < orphanAge {
			p.r.YoungFiles++
			return true
		}
		return false
	})
	return nil
}

// sweepClaims removes claims that have expired.
func (p *removal) sweepClaims(ctx context.Context, now time.Time) error {
	all, err := p.s.claims(ctx, now, p.id)
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.live {
			continue
		}
		if err := p.s.remove(ctx, f.object); err != nil {
			return err
		}
	}
	return nil
}

// forget removes a snapshot from what is known without asking.
func (s *Store) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, id)
	s.changes++
	s.status.Snapshots = max(0, s.status.Snapshots-1)
}
