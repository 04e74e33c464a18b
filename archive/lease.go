package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"varve/archive/format"
	"varve/rocks"
)

// intakes are the days that are being taken in: at most one, because an intake is a job. Safe for use by
// several goroutines.
type intakes struct {
	// now is what views look at: it is set before the lease is on disk, and changed after the lease has left it. It
	// is never nil and its value is replaced, never changed.
	now atomic.Pointer[leasedDay]

	mu   sync.Mutex
	open *Intake
	// left is an intake that could not be ended, because the disk took no writes. It is changed with sealing held.
	left *Intake
}

// leasedDay is a day that is being taken in, if there is one.
type leasedDay struct {
	some bool
	day  format.Day
}

// leasedIn returns the day if it is leased as of the snapshot. Views open while an intake is under way, and their
// snapshots then tell whether what it brings is there whole or to be passed over.
func (l *leasedDay) leasedIn(snap *rocks.Snapshot) (*format.Day, error) {
	if !l.some {
		return nil, nil
	}
	_, leased, err := snap.Get(family(format.FamilyMeta), format.AppendLeaseName(nil, l.day), nil)
	if err != nil {
		return nil, fmt.Errorf("read the lease of %s: %w", Date(l.day), err)
	}
	if !leased {
		return nil, nil
	}
	return &l.day, nil
}

// isLeased tells whether the view passes over the bundles of the day.
func (v *view) isLeased(day format.Day) bool { return v.leased != nil && *v.leased == day }

// begin notes an intake. It is false if the archive is closing: who closes it then finds none to end.
func (n *intakes) begin(i *Intake) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i.a.closing.Load() {
		return false
	}
	n.open = i
	n.now.Store(&leasedDay{some: true, day: i.day})
	return true
}

// done notes that the lease of an intake is over.
func (n *intakes) done() { n.now.Store(&leasedDay{}) }

// closed notes that the intake has ended, or is to be ended by the next job.
func (n *intakes) closed(i *Intake, left bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == i {
		n.open = nil
	}
	if n.left = nil; left {
		n.left = i
	}
}

// end ends the intake that is open, if there is one.
func (n *intakes) end() error {
	n.mu.Lock()
	i := n.open
	n.mu.Unlock()
	if i == nil {
		return nil
	}
	return i.Close()
}

// endLeft ends an intake that could not be ended before. Called with sealing held.
func (n *intakes) endLeft(a *Archive) error {
	n.mu.Lock()
	i := n.left
	n.mu.Unlock()
	if i == nil {
		return nil
	}
	if err := a.writable(); err != nil {
		return err
	}
	if err := i.undo(); err != nil {
		return fmt.Errorf("end the intake of %s: %w", Date(i.day), err)
	}
	n.closed(i, false)
	return nil
}

// endLeases removes, at a start, what intakes left that a kill ended: files that no database knows, and the bundles and clocks of
// leased days, of which none were there before.
func (a *Archive) endLeases() error {
	if err := os.RemoveAll(filepath.Join(a.dir, intakeDir)); err != nil {
		return err
	}
	var days []format.Day
	err := a.eachMeta(format.MetaLeasePrefix, func(name, _ []byte) error {
		day, err := format.ParseLeaseName(append([]byte(format.MetaLeasePrefix), name...))
		days = append(days, day)
		return err
	})
	if err != nil {
		return err
	}
	for _, day := range days {
		var b rocks.Batch
		clocks := keyRange{format.FamilyClocks, format.AppendClockPrefix(nil, 0, day, 0), format.AppendClockPrefix(nil, 0, day+1, 0)}
		if err := errors.Join(a.takeRange(&b, bundlesOf(day)), a.takeRange(&b, clocks)); err != nil {
			return fmt.Errorf("end the lease of %s: %w", Date(day), err)
		}
		b.Delete(family(format.FamilyMeta), format.AppendLeaseName(nil, day))
		if err := a.db.Write(&b, true); err != nil {
			return fmt.Errorf("end the lease of %s: %w", Date(day), err)
		}
	}
	return nil
}

// bundlesOf are the keys of the bundles of a day.
func bundlesOf(day format.Day) keyRange {
	return keyRange{format.FamilyRaw, format.AppendDayPrefix(nil, day), format.AppendDayPrefix(nil, day+1)}
}

// takeRange drops the files that lie in a range of keys, and puts deletes of the keys that are left into the batch.
func (a *Archive) takeRange(b *rocks.Batch, r keyRange) error {
	f := family(r.family)
	if err := a.db.DeleteFilesInRange(f, r.lower, r.upper); err != nil {
		return err
	}
	a.step("dropped files")
	it := a.db.NewIterator(f, rocks.IterOptions{Lower: r.lower, Upper: r.upper, NoFillCache: true})
	defer it.Close()
	var few rocks.Batch
	for it.SeekToFirst(); it.Valid(); it.Next() {
		if few.Len() == fewRuns {
			b.DeleteRange(f, r.lower, r.upper)
			return nil
		}
		few.Delete(f, it.Key())
	}
	b.Append(&few)
	return it.Err()
}
