package archive

import (
	"errors"
	"strings"
	"time"

	"varve/archive/format"
	"varve/rocks"
)

// OnStep makes f be told of the steps of sealing. Nothing may be being sealed.
func (a *Archive) OnStep(f func(step string)) { a.stepped = f }

// SmallSeals makes bundles, chunks and batches of sealing so small that little data has
// many of each.
func (a *Archive) SmallSeals() {
	a.sealLimits = sealLimits{bundleBytes: 200, bundleChunks: 5, chunkSamples: 50, batchBytes: 1000}
}

// OpenDatabase opens the database of a closed archive, to damage it.
func OpenDatabase(dir string) (*rocks.DB, error) {
	return rocks.Open(dir+"/"+databaseDir, rocks.Options{Families: families()})
}

// MakeFormer makes a database with the families that builds before the first release had.
func MakeFormer(dir string) error {
	var specs []rocks.FamilySpec
	for _, f := range families() {
		if !strings.HasPrefix(f.Name, format.FormerRollups) {
			specs = append(specs, f)
		}
	}
	db, err := rocks.Open(dir+"/"+databaseDir, rocks.Options{Families: append(specs, rocks.FamilySpec{Name: format.FormerRollups})})
	if err != nil {
		return err
	}
	return db.Close()
}

// SetFree replaces what tells the free space.
// Every commit asks it.
func (a *Archive) SetFree(f func(dir string) (free, total int64, err error)) {
	a.disk.free, a.disk.always = f, true
}

// CompactHot compacts the runs between two keys into files of their own.
func (a *Archive) CompactHot(lower, upper []byte) error {
	return a.db.CompactRange(family(format.FamilyHot), lower, upper)
}

// HotKeys lists the keys of all runs.
func (a *Archive) HotKeys() (keys [][]byte) {
	it := a.db.NewIterator(family(format.FamilyHot), rocks.IterOptions{})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		keys = append(keys, append([]byte(nil), it.Key()...))
	}
	return keys
}

// Closing tells whether Close was called.
func (a *Archive) Closing() bool { return a.closing.Load() }

// SmallSegments makes segments of the journal end after so many bytes.
func (a *Archive) SmallSegments(bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.segmentBytesMax = bytes
}

// JournalRecords counts the records of the journal that are kept, by the watermark.
func (a *Archive) JournalRecords() (n int) {
	a.tails.mu.Lock()
	kept := a.tails.kept
	a.tails.mu.Unlock()
	it := a.db.NewIterator(family(format.FamilyJournal), rocks.IterOptions{Lower: format.AppendUint64(nil, uint64(kept))})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		n++
	}
	return n
}

// Waiting tells whether a Read waits for something to arrive.
func (c *Cursor) Waiting() bool { return c.waits.Load() }

// TrimJournal does only what Maintain does with the journal.
func (a *Archive) TrimJournal() error {
	a.upkeep.mu.Lock()
	defer a.upkeep.mu.Unlock()
	return a.writeWatermarks(true)
}

// CutAll does what Maintain does before that.
func (a *Archive) CutAll() error {
	a.upkeep.mu.Lock()
	defer a.upkeep.mu.Unlock()
	return errors.Join(a.cutDue(true), a.flushIndex(true))
}

// FilesOf returns the names of the table files of a family.
func (a *Archive) FilesOf(f format.Family) (names []string) {
	for _, file := range a.db.LiveFiles() {
		if file.Family == family(f) {
			names = append(names, file.Name)
		}
	}
	return names
}

// WaitLong makes Tidy wait for readers however long it takes until they are closed.
func (a *Archive) WaitLong() { a.untidy.waitMax = time.Hour }

// Untidy counts the days that Tidy has yet to look after.
func (a *Archive) Untidy() int {
	a.untidy.mu.Lock()
	defer a.untidy.mu.Unlock()
	return len(a.untidy.raw) + len(a.untidy.rolls)
}
