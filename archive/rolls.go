package archive

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/format"
	"varve/rocks"
)

// rollKey is a day at a resolution.
type rollKey struct {
	resolution uint32 // ms
	day        format.Day
}

// rollStates is how far each day is rolled up, and which series of it are to be rolled up
// anew. It is safe for use by several goroutines.
type rollStates struct {
	// resolutions are those in use, in ms, ascending, each a multiple of the one before.
	resolutions []uint32
	lengths     []int64 // the same
	// floors tell what has expired.
	floors *atomic.Pointer[format.Floors]

	mu      sync.Mutex
	records map[rollKey]format.RollRecord
	dirty   map[rollKey]*dirtySeries
}

// dirtySeries are the series of a day whose rollups at a resolution are to be made anew.
type dirtySeries struct {
	refs *roaring.Bitmap
	// again are those of them that became dirty since a roll-up began to read them.
	again *roaring.Bitmap
}

// load reads the records and containers of all days.
func (s *rollStates) load(db *rocks.DB, resolutions []time.Duration) error {
	for _, d := range resolutions {
		ms := d.Milliseconds()
		if ms < 1 || d%time.Millisecond != 0 || format.DayMillis%ms != 0 || len(s.lengths) > 0 && (ms <= s.lengths[len(s.lengths)-1] || ms%s.lengths[len(s.lengths)-1] != 0) {
			return fmt.Errorf("rollups of %v: resolutions must be parts of a day that ascend, each a multiple of the one before", resolutions)
		}
		s.lengths, s.resolutions = append(s.lengths, ms), append(s.resolutions, uint32(ms))
	}
	s.records, s.dirty = map[rollKey]format.RollRecord{}, map[rollKey]*dirtySeries{}
	prefix := []byte(format.MetaRollPrefix)
	it := db.NewIterator(family(format.FamilyMeta), rocks.IterOptions{Lower: prefix, Upper: format.PrefixEnd(prefix)})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		resolution, day, err := format.ParseRollName(it.Key())
		if err != nil {
			return err
		}
		var r format.RollRecord
		if err := r.Parse(it.Value()); err != nil {
			return fmt.Errorf("roll record of %s at %d ms: %w", Date(day), resolution, err)
		}
		s.records[rollKey{resolution, day}] = r
	}
	if err := it.Err(); err != nil {
		return err
	}
	return eachDirty(db, nil, nil, func(k rollKey, value []byte, high uint64) error {
		return addContainer(s.dirtyOf(k).refs, value, high)
	})
}

// eachDirty calls f for the dirty containers between two keys, nil for all.
func eachDirty(db *rocks.DB, snap *rocks.Snapshot, between *[2][]byte, f func(k rollKey, value []byte, high uint64) error) error {
	return eachRefs(db, format.FamilyDirty, snap, between, f)
}

// eachRefs calls f for the containers of a family of them by resolution and day.
func eachRefs(db *rocks.DB, from format.Family, snap *rocks.Snapshot, between *[2][]byte, f func(k rollKey, value []byte, high uint64) error) error {
	o := rocks.IterOptions{Snapshot: snap}
	if between != nil {
		o.Lower, o.Upper = between[0], between[1]
	}
	it := db.NewIterator(family(from), o)
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		resolution, day, high, err := format.ParseDirtyKey(it.Key())
		if err != nil {
			return err
		}
		if err := f(rollKey{resolution, day}, it.Value(), high); err != nil {
			return fmt.Errorf("series of %s in family %s: %w", Date(day), format.FamilyNames[from], err)
		}
	}
	return it.Err()
}

func (s *rollStates) dirtyOf(k rollKey) *dirtySeries {
	d := s.dirty[k]
	if d == nil {
		d = &dirtySeries{refs: roaring.New(), again: roaring.New()}
		s.dirty[k] = d
	}
	return d
}

// mark notes, in memory and in the batch, that the series' rollups of the day are to be made
// anew. A day that was never rolled up has all of that before it, and needs no note. Buckets whose
// samples have expired can't be made anew: they stay as they are.
func (s *rollStates) mark(batch *rocks.Batch, day format.Day, refs *roaring.Bitmap) {
	if refs.IsEmpty() || day < s.floors.Load().Of(0) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.records {
		if k.day != day || day < s.floors.Load().Of(k.resolution) {
			continue
		}
		d := s.dirtyOf(k)
		d.refs.Or(refs)
		d.again.Or(refs)
		eachHigh(refs, func(high uint64) { putDirty(batch, k, d.refs, high) })
	}
}

// putDirty writes the container of refs that have the same high part, or takes it away.
func putDirty(batch *rocks.Batch, k rollKey, refs *roaring.Bitmap, high uint64) {
	key := format.AppendDirtyKey(nil, k.resolution, k.day, high)
	value, ok := format.AppendContainer(nil, refs, uint32(high<<16))
	if !ok {
		batch.Delete(family(format.FamilyDirty), key)
		return
	}
	batch.Put(family(format.FamilyDirty), key, value)
}

// of lists the resolutions in use at which the day is kept: none if its samples have expired, so that
// nothing can be rolled up.
func (s *rollStates) of(day format.Day) (out []uint32) {
	f := s.floors.Load()
	if day < f.Of(0) {
		return nil
	}
	for _, resolution := range s.resolutions {
		if day >= f.Of(resolution) {
			out = append(out, resolution)
		}
	}
	return out
}

// isDirty tells whether series of the day wait to be rolled up anew.
func (s *rollStates) isDirty(day format.Day) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resolution := range s.of(day) {
		if d := s.dirty[rollKey{resolution, day}]; d != nil && !d.refs.IsEmpty() {
			return true
		}
	}
	return false
}

// isRolled tells whether the day was rolled up at all resolutions in use at which it is kept.
func (s *rollStates) isRolled(day format.Day) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resolution := range s.of(day) {
		if r, ok := s.records[rollKey{resolution, day}]; !ok || r.Rolling {
			return false
		}
	}
	return true
}

// isRolling tells whether a roll-up of the day was begun and not ended.
func (s *rollStates) isRolling(day format.Day) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resolution := range s.resolutions {
		if s.records[rollKey{resolution, day}].Rolling {
			return true
		}
	}
	return false
}

// todo returns the record of the day at the resolution, and the series that are to be rolled
// up: nil for all of them.
func (s *rollStates) todo(k rollKey) (r format.RollRecord, refs *roaring.Bitmap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[k]
	if !ok || r.Rolling {
		r.Rolling = true
		return r, nil
	}
	if d := s.dirty[k]; d != nil {
		return r, d.refs.Clone()
	}
	return r, roaring.New()
}

// reading notes that the series of the day are read from now on: what becomes dirty later is
// not in what is read.
func (s *rollStates) reading(day format.Day, refs *roaring.Bitmap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resolution := range s.resolutions {
		if d := s.dirty[rollKey{resolution, day}]; d != nil {
			d.again.AndNot(refs)
		}
	}
}

// rolled writes a batch, together with the day's records, from which on the done series are no
// longer dirty.
//
// Containers are written as they are in memory: whoever marks afterwards writes later.
func (s *rollStates) rolled(day format.Day, records map[uint32]format.RollRecord, done *roaring.Bitmap, batch *rocks.Batch, write func(*rocks.Batch) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := map[rollKey]*roaring.Bitmap{}
	for resolution, r := range records {
		k := rollKey{resolution, day}
		batch.Put(family(format.FamilyMeta), format.AppendRollName(nil, k.resolution, k.day), r.Append(nil))
		d := s.dirty[k]
		if d == nil || r.Rolling {
			continue
		}
		clean := roaring.AndNot(roaring.And(done, d.refs), d.again)
		left[k] = roaring.AndNot(d.refs, clean)
		eachHigh(clean, func(high uint64) { putDirty(batch, k, left[k], high) })
	}
	if err := write(batch); err != nil {
		return err
	}
	for resolution, r := range records {
		s.records[rollKey{resolution, day}] = r
	}
	for k, refs := range left {
		s.dirty[k].refs = refs
	}
	return nil
}
