package archive

import (
	"fmt"
	"slices"
	"sync"

	"varve/archive/format"
	"varve/rocks"
)

// leftRuns are the runs of a generation that was sealed whole.
type leftRuns struct {
	day        format.Day
	generation format.Generation
	// epoch is the first whose readers find the samples in bundles.
	epoch uint64
}

// leftovers are the runs that wait for their last reader. Safe for use by several goroutines.
type leftovers struct {
	mu   sync.Mutex
	runs []leftRuns
}

func (l *leftovers) add(r leftRuns) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs = append(l.runs, r)
}

// has tells whether runs of the generation wait.
func (l *leftovers) has(d format.Day, g format.Generation) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.runs, func(r leftRuns) bool { return r.day == d && r.generation == g })
}

// take returns those that no reader from the epoch on needs. The others stay.
func (l *leftovers) take(epoch uint64) (free []leftRuns, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs = slices.DeleteFunc(l.runs, func(r leftRuns) bool {
		if r.epoch > epoch {
			return false
		}
		free = append(free, r)
		return true
	})
	return free, len(l.runs)
}

// Reclaim drops the runs of sealed days that no reader needs any more, and what has expired, and returns the
// number of generations of a day that still wait for a reader, and one more if what has expired does. It frees the disk at once.
//
// Snapshots do not hold files that are dropped, so it waits for every reader that began
// before the day was sealed. Later ones read no runs of the generation. Dropping comes first and the range delete second: a range
// delete may lie in a file that is dropped, and would then cover the rest no more.
func (a *Archive) Reclaim() (waiting int, err error) {
	if waiting, err = a.left.drop(a); err != nil {
		return waiting, err
	}
	held, err := a.dropExpired()
	if held {
		waiting++
	}
	return waiting, err
}

// drop drops the runs that no reader needs any more, and returns how many generations wait.
func (l *leftovers) drop(a *Archive) (waiting int, err error) {
	free, waiting := l.take(a.views.oldest())
	for i, r := range free {
		if err := a.dropRuns(r); err != nil {
			for _, r := range free[i:] {
				l.add(r)
			}
			return waiting + len(free) - i, fmt.Errorf("drop runs of %s: %w", Date(r.day), err)
		}
		a.step("reclaimed")
	}
	return waiting, nil
}

// Settle brings to table files what the engine has in memory and in its log, and drops
// what nothing needs: what the archive takes on disk then is what it needs. It takes seconds, and
// nothing depends on it.
func (a *Archive) Settle() error {
	if err := a.db.Flush(); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	if _, err := a.tidyFree(); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	a.tails.mu.Lock()
	kept := a.tails.kept
	a.tails.mu.Unlock()
	if kept == 0 {
		return nil // Nobody has looked yet what cursors need.
	}
	mark := format.AppendUint64(nil, uint64(kept))
	journal := family(format.FamilyJournal)
	sizes, err := a.db.ApproximateBytes(journal, []rocks.Range{{Lower: format.AppendUint64(nil, 0), Upper: mark}})
	if err != nil || sizes[0] == 0 {
		return err
	}
	// Files of level 0 are not dropped, so they are moved down first.
	if err := a.db.CompactRange(journal, nil, mark); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	return a.db.DeleteFilesInRange(journal, nil, mark)
}

// fewRuns are deleted one by one. A reader steps over every deleted key until a compaction
// has worked the delete in, so what is left of many is compacted at once.
const fewRuns = 1000

func (a *Archive) dropRuns(r leftRuns) error {
	lower := format.AppendGenerationPrefix(nil, r.day, r.generation)
	return a.dropRange(keyRange{format.FamilyHot, lower, format.PrefixEnd(lower)})
}

// dropRange drops keys that no reader needs, and frees their space.
func (a *Archive) dropRange(r keyRange) error {
	f, lower, upper := family(r.family), r.lower, r.upper
	if err := a.db.DeleteFilesInRange(f, lower, upper); err != nil {
		return err
	}
	a.step("dropped files")
	var b rocks.Batch
	it := a.db.NewIterator(f, rocks.IterOptions{Lower: lower, Upper: upper, NoFillCache: true})
	for it.SeekToFirst(); it.Valid() && b.Len() <= fewRuns; it.Next() {
		b.Delete(f, it.Key())
	}
	it.Close()
	if err := it.Err(); err != nil || b.Len() == 0 {
		return err
	}
	if b.Len() <= fewRuns && !r.compacts() {
		return a.writeBatch(&b)
	}
	if b.Len() > fewRuns {
		b.Reset()
		b.DeleteRange(f, lower, upper)
	}
	if err := a.writeBatch(&b); err != nil {
		return err
	}
	return a.db.CompactRange(f, lower, upper)
}

// findLeftovers looks, at a start, for runs of generations that were sealed before, and notes the days that have others.
func (a *Archive) findLeftovers() error {
	return a.eachGeneration(func(d format.Day, g format.Generation) {
		if r := a.days.record(d); g != r.Generation && !(r.Folding && g == r.FoldedGeneration()) {
			a.left.add(leftRuns{day: d, generation: g})
		} else if d >= a.kept.floors.Load().Of(0) {
			a.days.know(d)
		}
	})
}
