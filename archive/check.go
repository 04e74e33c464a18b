package archive

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// Fault is something that Check found wrong.
type Fault struct {
	Family string // column family, or the name of a file beside the database
	Key    []byte
	What   string
}

// String is the fault on one line.
func (f Fault) String() string {
	if len(f.Key) == 0 {
		return fmt.Sprintf("%s: %s", f.Family, f.What)
	}
	return fmt.Sprintf("%s: key %x: %s", f.Family, f.Key, f.What)
}

// CheckReport counts what Check has looked at.
type CheckReport struct {
	Series, Pairs, Runs, Bundles, Clocks, Samples, JournalRecords, Exemplars, Deletes, Faults int
	// RollupBundles and Buckets are of all resolutions.
	RollupBundles, Buckets int
	// Stale counts series that the index has active on a day without samples. It is
	// harmless, and no fault: refused writes before a crash can leave it behind.
	Stale int
}

// Check verifies an archive that no process has open, and changes nothing: every
// record's form and checksum, the catalogue both ways, the index against the data
// both ways, the journal against the watermarks. Each fault is given to report. The
// error is that of the check itself, for example when the archive is in use.
func Check(dir string, report func(Fault)) (CheckReport, error) {
	return check(dir, 256<<20, report, nil)
}

// check is Check with so much memory for RocksDB. pace, unless it is nil, is told of what is read and may end it.
func check(dir string, memoryBytes int64, report func(Fault), pace func(family string, done, total uint64, bytes int) error) (CheckReport, error) {
	db, err := openRocks(filepath.Join(dir, databaseDir), rocks.Options{Families: families(), ReadOnly: true, MemoryBytes: memoryBytes})
	if err != nil {
		return CheckReport{}, fmt.Errorf("check %s: %w", dir, err)
	}
	c := &checker{
		db: db, report: report, pace: pace, pairs: roaring.New(), series: roaring.New(),
		active: map[format.Day]*roaring.Bitmap{}, data: map[format.Day]*roaring.Bitmap{}, journal: map[format.Day]*roaring.Bitmap{},
		gone: map[format.Day]*roaring.Bitmap{}, marks: map[string]uint64{}, cursors: map[string]format.Cursor{}, seen: map[format.Ref]format.Day{},
		rolls: map[rollKey]format.RollRecord{}, days: map[format.Day]format.DayRecord{}, sealed: map[format.Day]format.DayRecord{}, leased: map[format.Day]bool{},
		clockCache: newClockCache(int(memoryBytes / 4)), rollClocks: newRollClockCache(int(memoryBytes / 4)),
	}
	c.measure()
	for _, step := range []func() error{
		func() error { return c.meta(filepath.Join(dir, ackName)) }, c.symbols, c.seriesRecords, c.lookups,
		c.journalRecords, c.runs, c.clocks, c.bundles, c.expired, c.actives, c.postings, c.exemplars, c.metadata, c.tombstones, c.rollups, c.dirty, c.gaps,
	} {
		if err = errors.Join(err, step()); c.ended != nil {
			break
		}
	}
	if err = errors.Join(err, c.ended, db.Close()); err != nil {
		return c.n, fmt.Errorf("check %s: %w", dir, err)
	}
	return c.n, nil
}

// checker gathers in one pass over each family what the later ones are held against.
type checker struct {
	db     *rocks.DB
	report func(Fault)
	n      CheckReport
	// pace is told of what is read. ended is its error: what was gathered up to then is not whole, and proves no fault.
	pace  func(family string, done, total uint64, bytes int) error
	ended error
	// total are the bytes of all walks, done those of walks that are over, told what pace was told last.
	total, done, told uint64

	marks   map[string]uint64
	cursors map[string]format.Cursor
	ack     uint64
	pairs   *roaring.Bitmap
	series  *roaring.Bitmap
	// metrics has the metric of each series.
	metrics pages
	// active is what the index says, data what runs say, journal what a start-up would add to both.
	active, data, journal map[format.Day]*roaring.Bitmap
	// days is what the records of days say of bundles, sealed what was found.
	days, sealed map[format.Day]format.DayRecord
	// leased are days that were being taken in: what is there of their bundles goes with the next start.
	leased     map[format.Day]bool
	clockCache clockCache
	rolls      map[rollKey]format.RollRecord
	rollClocks *rollClockCache
	// floors tell what has expired and may be there in part.
	floors format.Floors
	// gone are the series of which a rule removed the samples of a day.
	gone map[format.Day]*roaring.Bitmap
	// value is scratch.
	value []byte
	// seen remembers the last day of each series in journal: adding a ref again costs as much as the first time.
	seen map[format.Ref]format.Day
}

func (c *checker) fault(f format.Family, key []byte, what string, args ...any) {
	if c.ended != nil {
		return
	}
	c.n.Faults++
	c.report(Fault{Family: format.FamilyNames[f], Key: append([]byte(nil), key...), What: fmt.Sprintf(what, args...)})
}

// walk calls each for every record of a family. An error of each is a fault of that record.
func (c *checker) walk(f format.Family, each func(key, value []byte) error) error {
	w := c.begin(f)
	defer w.end()
	it := c.db.NewIterator(family(f), rocks.IterOptions{NoFillCache: true, ReadaheadBytes: 2 << 20})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		if !w.read(len(it.Key()) + len(it.Value())) {
			return nil
		}
		if err := each(it.Key(), it.Value()); err != nil {
			c.fault(f, it.Key(), "%v", err)
		}
	}
	if err := it.Err(); err != nil {
		if errors.Is(err, rocks.ErrCorrupt) {
			c.fault(f, nil, "%v", err)
			return nil
		}
		return err
	}
	return nil
}

func (c *checker) meta(ackPath string) error {
	if err := c.readFloors(); err != nil {
		return err
	}
	err := c.walk(format.FamilyMeta, func(key, value []byte) error {
		if string(key) == format.MetaIncarnation {
			return nil
		}
		if string(key) == format.MetaFloors {
			return nil // Read before.
		}
		if bytes.HasPrefix(key, []byte(format.MetaDayPrefix)) {
			return c.dayRecord(key, value)
		}
		if bytes.HasPrefix(key, []byte(format.MetaLeasePrefix)) {
			return c.lease(key, value)
		}
		if bytes.HasPrefix(key, []byte(format.MetaRollPrefix)) {
			return c.rollRecord(key, value)
		}
		if known, err := c.placeRecord(key, value); known {
			return err
		}
		v, err := format.ParseUint64(value)
		c.marks[string(key)] = v
		return err
	})
	if err != nil {
		return err
	}
	if v := c.marks[format.MetaVersion]; v != format.Version {
		c.fault(format.FamilyMeta, []byte(format.MetaVersion), "format version %d, this build knows %d", v, format.Version)
	}
	ack, err := openAckFile(ackPath)
	if err != nil {
		return err
	}
	c.ack = ack.sequence
	return ack.close()
}

// readFloors reads what is known to have expired.
func (c *checker) readFloors() error {
	c.floors.Series = format.MinDay
	value, ok, err := c.db.Get(family(format.FamilyMeta), []byte(format.MetaFloors), nil)
	if err != nil || !ok {
		return err
	}
	if err := c.floors.Parse(value); err != nil {
		c.fault(format.FamilyMeta, []byte(format.MetaFloors), "%v", err)
		return nil
	}
	for _, l := range c.floors.Levels {
		if l.Day < c.floors.Series {
			c.fault(format.FamilyMeta, []byte(format.MetaFloors), "%d ms are kept from %s on, the index from %s", l.Resolution, Date(l.Day), Date(c.floors.Series))
		}
	}
	return nil
}

func (c *checker) symbols() error {
	found := roaring.New()
	return errors.Join(
		c.walk(format.FamilySymbols, func(key, value []byte) error {
			id, ok := format.ParsePairKey(key)
			if !ok {
				return nil
			}
			if _, _, err := format.ParsePair(value); err != nil {
				return err
			}
			if uint64(id) >= c.marks[format.MetaNextPair] {
				return fmt.Errorf("pair id %d was never handed out", id)
			}
			c.n.Pairs++
			c.pairs.Add(uint32(id))
			return nil
		}),
		c.walk(format.FamilySymbols, func(key, value []byte) error {
			if len(key) == 0 || key[0] != 'n' {
				return nil
			}
			name, text, err := format.ParseTextKey(key)
			if err != nil {
				return err
			}
			id, err := format.ParsePairID(value)
			if err != nil {
				return err
			}
			same, err := c.hasText(id, name, text)
			if err != nil {
				return err
			}
			if !same || !found.CheckedAdd(uint32(id)) {
				return fmt.Errorf("pair %d has another text", id)
			}
			return nil
		}),
		c.lostTexts(found),
	)
}

// hasText tells whether the pair has this text. It is asked for again rather than remembered: there may be more than fits into memory.
func (c *checker) hasText(id format.PairID, name, text []byte) (bool, error) {
	value, ok, err := c.db.Get(family(format.FamilySymbols), format.AppendPairKey(nil, id), c.value[:0])
	if err != nil || !ok {
		return false, err
	}
	c.value = value
	n, v, err := format.ParsePair(value)
	return err == nil && bytes.Equal(n, name) && bytes.Equal(v, text), nil
}

func (c *checker) lostTexts(found *roaring.Bitmap) error {
	for _, id := range roaring.AndNot(c.pairs, found).ToArray() {
		c.fault(format.FamilySymbols, format.AppendPairKey(nil, format.PairID(id)), "the pair is not found by its text")
	}
	return nil
}

func (c *checker) seriesRecords() error {
	var s format.Series
	return c.walk(format.FamilySeries, func(key, value []byte) error {
		ref, err := format.ParseUint64(key)
		if err != nil {
			return err
		}
		if err := s.Parse(value); err != nil {
			return err
		}
		if ref >= c.marks[format.MetaNextRef] || ref > refMax {
			return fmt.Errorf("ref %d was never handed out", ref)
		}
		for _, id := range s.Pairs {
			if !c.pairs.Contains(uint32(id)) {
				return fmt.Errorf("label pair %d has no text", id)
			}
		}
		c.n.Series++
		c.series.Add(uint32(ref))
		c.metrics.set(uint32(ref), uint32(s.Metric))
		return nil
	})
}

func (c *checker) lookups() error {
	found := roaring.New()
	err := c.walk(format.FamilyLookup, func(_, value []byte) error {
		ref, err := format.ParseUint64(value)
		if err != nil {
			return err
		}
		if ref > refMax || !c.series.Contains(uint32(ref)) {
			return fmt.Errorf("names series %d, which does not exist", ref)
		}
		if !found.CheckedAdd(uint32(ref)) {
			return fmt.Errorf("names series %d, as another record does", ref)
		}
		return nil
	})
	for _, ref := range roaring.AndNot(c.series, found).ToArray() {
		c.fault(format.FamilySeries, format.AppendUint64(nil, uint64(ref)), "series is not found by its labels")
	}
	return err
}

// journalRecords reads what a start-up would read and remembers which days it would add.
func (c *checker) journalRecords() error {
	var j format.Journal
	began := false
	last := uint64(0)
	err := c.walk(format.FamilyJournal, func(key, value []byte) error {
		seq, err := format.ParseUint64(key)
		if err != nil {
			return err
		}
		last = seq
		if seq < c.marks[format.MetaJournal] {
			return c.keptRecord(&j, seq, value)
		}
		if err := j.Open(format.Sequence(seq), value); err != nil {
			return err
		}
		if began = began || j.Segment; !began {
			if seq >= min(c.marks[format.MetaCut], c.marks[format.MetaIndex]) {
				return errors.New("the first record lies inside a segment")
			}
			return nil
		}
		c.n.JournalRecords++
		return c.journalSections(&j, seq)
	})
	// What lies before the journal's first record is in runs.
	if journal := c.marks[format.MetaJournal]; journal > 0 {
		last = max(last, journal-1)
	}
	if last < c.ack {
		c.fault(format.FamilyJournal, nil, "record %d was acknowledged, the last one is %d", c.ack, last)
	}
	return err
}

func (c *checker) journalSections(j *format.Journal, seq uint64) error {
	var fault error
	err := eachArrival(j, func(ref format.Ref, t int64, samples uint64) {
		if samples > 0 && fault == nil {
			fault = c.journalled(ref, t, seq)
		}
	})
	if fault != nil {
		return fault
	}
	return err
}

func (c *checker) journalled(ref format.Ref, t int64, seq uint64) error {
	if uint64(ref) > refMax || !c.series.Contains(uint32(ref)) {
		return fmt.Errorf("names series %d, which does not exist", ref)
	}
	// A sample that is replayed comes to runs and index again, whatever is there.
	if seq >= min(c.marks[format.MetaIndex], c.marks[format.MetaCut]) {
		day := format.DayOf(t)
		if last, ok := c.seen[ref]; !ok || last != day {
			c.seen[ref] = day
			addTo(c.journal, day, uint32(ref))
		}
	}
	return nil
}

func (c *checker) runs() error {
	var pieces []chunk.Piece
	var column chunk.Column
	return c.walk(format.FamilyHot, func(key, value []byte) error {
		k, err := format.ParseHotKey(key)
		if err != nil {
			return err
		}
		if _, pieces, err = chunk.ParseRun(key, value, pieces[:0]); err != nil {
			return err
		}
		if k.Day < c.floors.Of(0) {
			return nil // It has expired and is about to go.
		}
		if err := c.ofMetric(k.Ref, k.Metric); err != nil {
			return err
		}
		if err := column.Decode(pieces, format.MinTimeMillis, format.MaxTimeMillis); err != nil {
			return err
		}
		start := k.Day.StartMillis() + int64(k.Slot)*format.SlotMillis
		for _, t := range column.Times {
			if t < start || t >= start+format.SlotMillis {
				return fmt.Errorf("holds a sample at %d ms, outside of its slot", t)
			}
		}
		c.n.Runs++
		c.n.Samples += len(column.Times)
		// Others are in bundles, and what was deleted since may still be in the run.
		if r := c.days[k.Day]; k.Generation == r.Generation || r.Folding && k.Generation == r.FoldedGeneration() {
			addTo(c.data, k.Day, uint32(k.Ref))
		}
		return nil
	})
}

// ofMetric tells whether a series exists and is of the metric.
func (c *checker) ofMetric(ref format.Ref, metric format.PairID) error {
	if uint64(ref) > refMax || !c.series.Contains(uint32(ref)) {
		return fmt.Errorf("names series %d, which does not exist", ref)
	}
	if known := format.PairID(c.metrics.get(uint32(ref))); known != metric {
		return fmt.Errorf("names metric %d, series %d is of metric %d", metric, ref, known)
	}
	return nil
}

func (c *checker) exemplars() error {
	return c.walk(format.FamilyExemplars, func(key, value []byte) error {
		k, err := format.ParseExemplarKey(key)
		if err != nil {
			return err
		}
		if format.DayOf(k.TimeMillis) < c.floors.Of(0) {
			return nil
		}
		if c.ofMetric(k.Ref, k.Metric) != nil {
			return fmt.Errorf("names series %d of metric %d, which does not exist", k.Ref, k.Metric)
		}
		c.n.Exemplars++
		return format.CheckExemplar(value)
	})
}

func (c *checker) metadata() error {
	return c.walk(format.FamilyMetadata, func(key, value []byte) error {
		if _, _, err := format.ParseMetadataKey(key); err != nil {
			return err
		}
		_, err := format.ParseMetadata(value)
		return err
	})
}
