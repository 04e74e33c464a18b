package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Schedule says when snapshots are made and which are kept.
type Schedule struct {
	// Every is the time between snapshots, at least a minute.
	Every time.Duration
	// At moves them: of the UTC day, for an Every that divides a day. With Every 6h and At 1h they are due at 1, 7, 13 and 19 o'clock.
	At time.Duration
	// Keep is applied after each snapshot, unless it says nothing.
	Keep Keep
}

// Pauses after a snapshot that failed: they double, and never pass the next regular time.
const (
	againFirst = time.Minute
	againMax   = time.Hour
	// lookMax: the clock is looked at as often, since waiting doesn't notice that it was set, as after a boot without one.
	lookMax = 10 * time.Minute
)

// slot is the last time not later than now at which a snapshot is due.
func (c Schedule) slot(now time.Time) time.Time {
	// Days of Unix time begin at midnight UTC.
	since := now.Sub(time.Unix(0, 0)) - c.At
	k := since / c.Every
	if since%c.Every < 0 {
		k--
	}
	return time.Unix(0, 0).UTC().Add(c.At + k*c.Every)
}

// Run makes snapshots when they are due, until the context ends, which is no error. One that was missed while the process was
// down is made at once. One that fails is tried again after a pause; it is logged, counted and in the status.
func (s *Store) Run(ctx context.Context, c Schedule) error {
	if c.Every < time.Minute {
		return fmt.Errorf("schedule of snapshots: every %s is less than a minute", c.Every)
	}
	next := c.slot(s.o.Now())
	if all, err := s.List(ctx); ctx.Err() != nil {
		return nil
	} else if err != nil {
		s.o.Logger.Warn("the bucket can't be listed: a snapshot is made now", "err", err)
	} else {
		for _, l := range all {
			if s.own(&l) && !l.Taken.Before(next) {
				next = next.Add(c.Every)
				break
			}
		}
	}
	pause := againFirst
	for ctx.Err() == nil {
		now := s.o.Now()
		if next.After(now.Add(c.Every)) {
			next = c.slot(now).Add(c.Every) // the clock was ahead, and has been set back
		}
		s.due(next)
		if wait := next.Sub(now); wait > 0 {
			if s.o.sleep(ctx, min(wait, lookMax)) != nil {
				break
			}
			continue // the clock may have been moved meanwhile
		}
		if s.scheduled(ctx, c.Keep) {
			pause, next = againFirst, c.slot(s.o.Now()).Add(c.Every)
			continue
		}
		now = s.o.Now()
		next = now.Add(pause)
		if regular := c.slot(now).Add(c.Every); regular.Before(next) {
			next = regular
		}
		pause = min(2*pause, againMax)
	}
	s.due(time.Time{})
	return nil
}

// own says whether it is a snapshot, and of the archive that Create takes them of.
func (s *Store) own(l *Listed) bool {
	return l.Damaged == "" && !l.Foreign && (s.o.Incarnation == "" || l.Incarnation == s.o.Incarnation)
}

func (s *Store) due(next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Next = next
}

// scheduled makes one snapshot and prunes. It says whether there is a new snapshot.
func (s *Store) scheduled(ctx context.Context, keep Keep) bool {
	m, stats, err := s.Create(ctx, nil)
	switch {
	case ctx.Err() != nil:
		return false
	case errors.Is(err, ErrBusy):
		s.o.Logger.Info("the snapshot that is due waits for another", "err", err)
		return false
	case err != nil:
		s.o.Logger.Error("the snapshot that is due was not made", "err", err)
		return false
	}
	s.o.Logger.Info("snapshot made", "id", m.ID, "files", stats.Files, "bytes", stats.Bytes, "sentBytes", stats.SentBytes, "took", stats.Took)
	if keep.Nothing() {
		return true
	}
	report, err := s.Prune(ctx, keep, false)
	if err != nil {
		if ctx.Err() == nil {
			s.o.Logger.Error("old snapshots stay", "err", err)
		}
		return true
	}
	s.o.Logger.Info("snapshots pruned", "removed", len(report.Removed), "kept", len(report.Kept), "files", report.RemovedFiles)
	return true
}
