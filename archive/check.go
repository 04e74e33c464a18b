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
	db, err := rocks.Open(filepath.Join(dir, databaseDir), rocks.Options{Families: families(), ReadOnly: true, MemoryBytes: 256 << 20})
	if err != nil {
		return CheckReport{}, fmt.Errorf("check %s: %w", dir, err)
	}
	c := &checker{
		db: db, report: report, series: roaring.New(),
		metrics: map[format.Ref]format.PairID{}, pairs: map[format.PairID]bool{},
		active: map[format.Day]*roaring.Bitmap{}, data: map[format.Day]*roaring.Bitmap{}, journal: map[format.Day]*roaring.Bitmap{},
		gone: map[format.Day]*roaring.Bitmap{}, marks: map[string]uint64{}, cursors: map[string]format.Cursor{}, seen: map[format.Ref]format.Day{},
		rolls: map[rollKey]format.RollRecord{}, days: map[format.Day]format.DayRecord{}, sealed: map[format.Day]format.DayRecord{}, leased: map[format.Day]bool{}, clockCache: newClockCache(64 << 20), rollClocks: newRollClockCache(64 << 20),
	}
	err = errors.Join(
		c.meta(filepath.Join(dir, ackName)), c.symbols(), c.seriesRecords(), c.lookups(),
		c.journalRecords(), c.runs(), c.clocks(), c.bundles(), c.expired(), c.actives(), c.postings(), c.exemplars(), c.metadata(), c.tombstones(), c.rollups(), c.dirty(), c.gaps(), db.Close(),
	)
	if err != nil {
		return c.n, fmt.Errorf("check %s: %w", dir, err)
	}
	return c.n, nil
}

// checker gathers in one pass over each family what the later ones are held against.
type checker struct {
	db     *rocks.DB
	report func(Fault)
	n      CheckReport

	marks   map[string]uint64
	cursors map[string]format.Cursor
	ack     uint64
	pairs   map[format.PairID]bool
	series  *roaring.Bitmap
	metrics map[format.Ref]format.PairID
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
	// seen remembers the last day of each series in journal: adding a ref again costs as much as the first time.
	seen map[format.Ref]format.Day
}

func (c *checker) fault(f format.Family, key []byte, what string, args ...any) {
	c.n.Faults++
	c.report(Fault{Family: format.FamilyNames[f], Key: append([]byte(nil), key...), What: fmt.Sprintf(what, args...)})
}

// walk calls each for every record of a family. An error of each is a fault of that record.
func (c *checker) walk(f format.Family, each func(key, value []byte) error) error {
	it := c.db.NewIterator(family(f), rocks.IterOptions{NoFillCache: true, ReadaheadBytes: 2 << 20})
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
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
	texts := map[format.PairID]string{}
	return errors.Join(
		c.walk(format.FamilySymbols, func(key, value []byte) error {
			id, ok := format.ParsePairKey(key)
			if !ok {
				return nil
			}
			name, val, err := format.ParsePair(value)
			if err != nil {
				return err
			}
			if uint64(id) >= c.marks[format.MetaNextPair] {
				return fmt.Errorf("pair id %d was never handed out", id)
			}
			c.n.Pairs++
			c.pairs[id] = true
			texts[id] = string(format.AppendTextKey(nil, string(name), string(val)))
			return nil
		}),
		c.walk(format.FamilySymbols, func(key, value []byte) error {
			if len(key) == 0 || key[0] != 'n' {
				return nil
			}
			if _, _, err := format.ParseTextKey(key); err != nil {
				return err
			}
			id, err := format.ParsePairID(value)
			if err != nil {
				return err
			}
			if texts[id] != string(key) {
				return fmt.Errorf("pair %d has another text", id)
			}
			delete(texts, id)
			return nil
		}),
		c.lostTexts(texts),
	)
}

func (c *checker) lostTexts(texts map[format.PairID]string) error {
	for id := range texts {
		c.fault(format.FamilySymbols, format.AppendPairKey(nil, id), "the pair is not found by its text")
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
			if !c.pairs[id] {
				return fmt.Errorf("label pair %d has no text", id)
			}
		}
		c.n.Series++
		c.series.Add(uint32(ref))
		c.metrics[format.Ref(ref)] = s.Metric
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
	known, ok := c.metrics[ref]
	if !ok {
		return fmt.Errorf("names series %d, which does not exist", ref)
	}
	if known != metric {
		return fmt.Errorf("names metric %d, series %d is of metric %d", metric, ref, known)
	}
	return nil
}

func (c *checker) actives() error {
	err := c.walk(format.FamilyActive, func(key, value []byte) error {
		day, high, err := format.ParseActiveKey(key)
		if err != nil {
			return err
		}
		if day < c.floors.Series {
			return nil
		}
		set := c.active[day]
		if set == nil {
			set = roaring.New()
			c.active[day] = set
		}
		return addContainer(set, value, high)
	})
	for day, set := range c.data {
		missing := roaring.AndNot(set, union(c.active[day], c.journal[day]))
		for _, ref := range missing.ToArray() {
			c.fault(format.FamilyActive, format.AppendDayPrefix(nil, day), "series %d has samples on the day but is not active there", ref)
		}
	}
	for day, set := range c.active {
		if day < c.floors.Of(0) {
			continue // Only buckets are left of the day.
		}
		stale := roaring.AndNot(set, union(c.data[day], c.journal[day]))
		if gone := c.gone[day]; gone != nil {
			stale.AndNot(gone) // Of these too.
		}
		c.n.Stale += int(stale.GetCardinality())
	}
	return err
}

func union(x, y *roaring.Bitmap) *roaring.Bitmap {
	u := roaring.New()
	for _, b := range []*roaring.Bitmap{x, y} {
		if b != nil {
			u.Or(b)
		}
	}
	return u
}

// postings holds the index of each month against the series that are active in it.
func (c *checker) postings() error {
	months, allowed := map[format.Month]*roaring.Bitmap{}, map[format.Month]*roaring.Bitmap{}
	for day, set := range c.active {
		m := day.Month()
		months[m] = union(months[m], set)
		allowed[m] = union(allowed[m], set)
	}
	// A flush writes postings before activity, and a kill may come between them: the
	// journal then still has what makes the series active.
	for day, set := range c.journal {
		m := day.Month()
		allowed[m] = union(allowed[m], set)
	}
	count := map[format.Month]map[uint32]int{}
	err := c.walk(format.FamilyIndex, func(key, value []byte) error {
		m, pair, high, err := format.ParseIndexKey(key)
		if err != nil {
			return err
		}
		if m < c.floors.Series.Month() {
			return nil
		}
		if !c.pairs[pair] {
			return fmt.Errorf("names label pair %d, which does not exist", pair)
		}
		set := roaring.New()
		if err := addContainer(set, value, high); err != nil {
			return err
		}
		if count[m] == nil {
			count[m] = map[uint32]int{}
		}
		if unknown := roaring.AndNot(set, c.series); !unknown.IsEmpty() {
			return fmt.Errorf("names series %d, which does not exist", unknown.Minimum())
		}
		for _, ref := range set.ToArray() {
			// Of the month that was cut in two nobody knows who was active before.
			if m != c.floors.Series.Month() && (allowed[m] == nil || !allowed[m].Contains(ref)) {
				return fmt.Errorf("names series %d, which is not active in the month", ref)
			}
			count[m][ref]++
		}
		return nil
	})
	return errors.Join(err, c.countPairs(months, count))
}

// countPairs checks that each series is in the postings of all its pairs: since a
// posting of a pair that the series lacks would make up for one that is missing, the
// pairs themselves are compared where the numbers agree.
func (c *checker) countPairs(months map[format.Month]*roaring.Bitmap, count map[format.Month]map[uint32]int) error {
	var s format.Series
	for m, set := range months {
		for _, ref := range set.ToArray() {
			v, ok, err := c.db.Get(family(format.FamilySeries), format.AppendUint64(nil, uint64(ref)), nil)
			if err != nil {
				return err
			}
			if !ok {
				c.fault(format.FamilyActive, nil, "month %d names series %d, which does not exist", m, ref)
				continue
			}
			if err := s.Parse(v); err != nil {
				continue // Reported with the series.
			}
			if count[m][ref] != len(s.Pairs) {
				c.fault(format.FamilyIndex, format.AppendMonthPrefix(nil, m), "series %d is in %d postings of the month, it has %d labels", ref, count[m][ref], len(s.Pairs))
				continue
			}
			for _, pair := range s.Pairs {
				if err := c.posted(m, pair, ref); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *checker) posted(m format.Month, pair format.PairID, ref uint32) error {
	key := format.AppendIndexKey(nil, m, pair, uint64(ref>>16))
	v, ok, err := c.db.Get(family(format.FamilyIndex), key, nil)
	if err != nil {
		return err
	}
	set := roaring.New()
	if ok {
		if err := addContainer(set, v, uint64(ref>>16)); err != nil {
			return nil // Reported by the walk over the family.
		}
	}
	if !set.Contains(ref) {
		c.fault(format.FamilyIndex, key, "lacks series %d, which has the label", ref)
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
		if metric, ok := c.metrics[k.Ref]; !ok || metric != k.Metric {
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
