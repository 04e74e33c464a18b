package snapshot

import (
	"context"
	"time"
)

// What tests of this package reach into.
var (
	DecodeClaim     = decodeClaim
	DecodeHashCache = decodeHashCache
)

// NoSleep makes pauses take no time, for tests that talk to a server and so can't have a clock of their own.
func NoSleep(o Options) Options {
	o.sleep = func(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }
	return o
}

// Encode returns the bytes of a manifest in the bucket.
func Encode(m *Manifest) ([]byte, error) { return m.encode() }

// Choose applies rules.
func Choose(k Keep, all []Listed, now time.Time) map[string][]string { return k.choose(all, now) }

// Slot is the last time that a snapshot was due.
func Slot(c Schedule, now time.Time) time.Time { return c.slot(now) }

// NewID makes a name for a snapshot.
func NewID(now time.Time) string { return newIDs().next(now) }

// Claim writes a claim of kind "create" or "prune" and never looks after it, as a process that is killed.
func (s *Store) Claim(ctx context.Context, kind string, id string, files []Sum) error {
	h, _, err := s.claim(ctx, claim{Kind: claimKind(kind), ID: id, Files: files}, time.Minute)
	if err == nil {
		h.end()
	}
	return err
}
