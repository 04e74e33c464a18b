package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A claim is an object that tells other processes about files: "create" counts on them, "prune" is about to remove
// them. See prune.go for why that suffices.
type claim struct {
	Format int       `json:"format"`
	Kind   claimKind `json:"kind"`
	ID     string    `json:"id"`
	Files  []Sum     `json:"files"`
}

type claimKind string

const (
	creating claimKind = "create"
	pruning  claimKind = "prune"
)

const (
	// createClaimFor: the claim of a Create that was killed holds its files for a day, so that the next one finds them.
	createClaimFor = 24 * time.Hour
	// pruneClaimFor: a Create that needs a file which a killed prune was about to remove waits as long at most.
	pruneClaimFor = time.Hour
	// refreshes of a claim in the time that it is good for.
	refreshes = 6
)

func (k claimKind) lasts() time.Duration {
	if k == pruning {
		return pruneClaimFor
	}
	return createClaimFor
}

// decodeClaim reads a claim.
func decodeClaim(b []byte) (claim, error) {
	var c claim
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return claim{}, err
	}
	if c.Format != formatFirst || c.Kind != creating && c.Kind != pruning || !ValidID(c.ID) {
		return claim{}, fmt.Errorf("claim of format %d, kind %.20q", c.Format, c.Kind)
	}
	return c, nil
}

// held is a claim of this process. It is written again from time to time, so that it stays good.
type held struct {
	s      *Store
	claim  claim
	object string
	body   []byte
	// written is when, by the bucket's clock where it tells, and at by ours.
	written, at time.Time
	stop        context.CancelFunc
	done        sync.WaitGroup
}

var errClaimLost = errors.New("the claim on files could not be written again for too long: somebody might remove them")

// claim writes a claim. The context that comes back ends when the claim may no longer be good. Release must be called.
func (s *Store) claim(ctx context.Context, c claim, patience time.Duration) (*held, context.Context, error) {
	c.Format = formatFirst
	body, err := json.Marshal(c)
	if err != nil {
		return nil, nil, err
	}
	h := &held{s: s, claim: c, object: claimObject(c.ID), body: append(body, '\n'), at: s.o.Now()}
	if err := s.put(ctx, h.object, h.body, patience); err != nil {
		return nil, nil, err
	}
	h.written = h.at
	err = s.retry(ctx, "look at "+h.object, patience, func(ctx context.Context) error {
		a, err := s.o.Bucket.Attributes(ctx, h.object)
		if err == nil && !a.LastModified.IsZero() {
			h.written = a.LastModified
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, lost := context.WithCancelCause(ctx)
	keeping, stop := context.WithCancel(ctx)
	h.stop = func() { stop(); h.done.Wait(); lost(nil) }
	h.done.Go(func() { h.keep(keeping, lost) })
	return h, ctx, nil
}

// keep writes the claim again.
func (h *held) keep(ctx context.Context, lost context.CancelCauseFunc) {
	every := h.claim.Kind.lasts() / refreshes
	t := time.NewTicker(every)
	defer t.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := h.s.put(ctx, h.object, h.body, every/2); err == nil {
			failures = 0
		} else if failures++; failures >= refreshes/2 {
			lost(errClaimLost)
			return
		}
	}
}

// bucketNow is the time by the clock that LastModified is of.
func (h *held) bucketNow() time.Time { return h.written.Add(h.s.o.Now().Sub(h.at)) }

// end stops keeping the claim and leaves it in the bucket until it expires.
func (h *held) end() { h.stop() }

// release removes the claim, also when the context has ended.
func (h *held) release(ctx context.Context) error {
	h.stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return h.s.remove(ctx, h.object)
}

// found is a claim in the bucket.
type found struct {
	claim
	object string
	// broken says why it can't be read. One such may be of anything.
	broken error
	// live: it is young enough to count.
	live bool
}

// claims reads all claims but one's own. now is the bucket's time.
func (s *Store) claims(ctx context.Context, now time.Time, own string) ([]found, error) {
	objects, err := s.list(ctx, claimsFolder)
	if err != nil {
		return nil, err
	}
	var all []found
	for _, o := range objects {
		id := idOf(claimsFolder, o.name)
		if id == "" || id == own {
			continue
		}
		f := found{object: o.name}
		b, err := s.get(ctx, o.name, manifestBytesMax)
		if s.notFound(err) {
			continue // it was released just now
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		if err == nil {
			f.claim, err = decodeClaim(b)
		}
		if err == nil && f.ID != id {
			err = fmt.Errorf("it says that it is %s", f.ID)
		}
		lasts := createClaimFor
		if f.broken = err; err == nil {
			lasts = f.Kind.lasts()
		}
		f.live = o.modified.IsZero() || now.Sub(o.modified) < lasts
		all = append(all, f)
	}
	return all, nil
}

// waitForPrunes returns when no prune is under way that may not know of this claim and removes files of it. All
// that begin later see the claim.
func (s *Store) waitForPrunes(ctx context.Context, h *held, t *tracker) error {
	mine := make(map[Sum]bool, len(h.claim.Files))
	for _, sum := range h.claim.Files {
		mine[sum] = true
	}
	var waited time.Duration
	for pause := time.Second; ; pause = min(2*pause, pauseMax) {
		all, err := s.claims(ctx, h.bucketNow(), h.claim.ID)
		if err != nil {
			return err
		}
		blocker, why := "", ""
		for _, f := range all {
			switch {
			case !f.live:
			case f.broken != nil:
				blocker, why = f.object, fmt.Sprintf("can't be read (%s) and may be that of a prune: it is ignored when it is %s old", f.broken, createClaimFor)
			case f.Kind == pruning && f.touches(mine):
				blocker, why = f.object, fmt.Sprintf("removes files that this snapshot needs, or was killed: in the latter case it is ignored when it is %s old", pruneClaimFor)
			}
		}
		if blocker == "" {
			return nil
		}
		if waited >= s.o.Patience {
			return fmt.Errorf("%w: %s %s, or remove it", ErrBusy, blocker, why)
		}
		t.begin(Waiting, 0, 0)
		s.o.Logger.Info("waiting for a claim, which may be of a prune of files that this snapshot needs", "claim", blocker, "why", why)
		waited += pause
		if err := s.o.sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (c *claim) touches(mine map[Sum]bool) bool {
	for _, sum := range c.Files {
		if mine[sum] {
			return true
		}
	}
	return false
}
