package archive

import "errors"

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
