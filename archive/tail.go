package archive

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/storage"

	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// tailReader decodes the journal. Values lean on those before in a segment, so that it knows the last of each series.
type tailReader struct {
	journal format.Journal
	// ready tells that last is as it must be before the record at next.
	ready bool
	next  format.Sequence
	last  map[storage.SeriesRef]*[pageSize]uint64 // by the first ref of a page
	used  map[storage.SeriesRef]struct{}          // pages of this segment
}

// forget makes the reader find its place anew.
func (t *tailReader) forget() {
	t.ready, t.last, t.used = false, nil, nil
}

// begin forgets the values of the segment before, and the pages that it didn't use.
func (t *tailReader) begin() {
	for first, p := range t.last {
		if _, used := t.used[first]; !used {
			delete(t.last, first)
			continue
		}
		*p = [pageSize]uint64{}
	}
	if t.last == nil {
		t.last = map[storage.SeriesRef]*[pageSize]uint64{}
	}
	t.used = map[storage.SeriesRef]struct{}{}
}

// page returns the last values of the page that a series is in.
func (t *tailReader) page(ref storage.SeriesRef) *[pageSize]uint64 {
	first := ref &^ (pageSize - 1)
	p := t.last[first]
	if p == nil {
		p = &[pageSize]uint64{}
		t.last[first] = p
	}
	t.used[first] = struct{}{}
	return p
}

// A Read of the journal ends with the record that makes it this large.
const (
	readSamplesMax = 1 << 16
	readBytesMax   = 4 << 20
)

// readJournal reads what became durable behind the place. Called with mu held.
func (c *Cursor) readJournal(into *Arrivals) (wait <-chan struct{}, err error) {
	head, _ := c.a.head()
	if c.ahead.next > head {
		return c.a.behind(head), nil
	}
	t := &c.tail
	from := c.ahead.next
	if !t.ready || t.next != from {
		if from, err = c.a.segmentOf(c.ahead.next); err != nil {
			return nil, err
		}
		t.forget()
	}
	it := c.a.db.NewIterator(family(format.FamilyJournal), rocks.IterOptions{
		Lower: format.AppendUint64(nil, uint64(from)), Upper: format.AppendUint64(nil, uint64(head)+1), NoFillCache: true,
	})
	defer it.Close()
	own := c.a.deletes.masks.Load()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		seq, err := format.ParseUint64(it.Key())
		if err != nil {
			return nil, err
		}
		if err := c.readRecord(into, format.Sequence(seq), it.Value(), own); err != nil {
			return nil, fmt.Errorf("journal record %d: %w", seq, err)
		}
		if into.Samples() >= readSamplesMax || into.Bytes >= readBytesMax {
			t.ready, t.next = true, c.ahead.next
			return nil, nil
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	c.ahead.next = head + 1
	if skips := c.ahead.skips; len(skips) > 0 && !slices.ContainsFunc(skips, func(s format.Skip) bool { return s.Before > head+1 }) {
		c.ahead.skips = nil
	}
	t.ready, t.next = t.last != nil, c.ahead.next
	return nil, nil
}

// segmentOf is the first record of the segment that the record at or behind seq lies in, or seq if there is none before.
func (a *Archive) segmentOf(seq format.Sequence) (format.Sequence, error) {
	it := a.db.NewIterator(family(format.FamilyJournal), rocks.IterOptions{})
	defer it.Close()
	for it.Seek(format.AppendUint64(nil, uint64(seq))); it.Valid(); it.Prev() {
		if format.BeginsSegment(it.Value()) {
			found, err := format.ParseUint64(it.Key())
			return format.Sequence(found), err
		}
	}
	if err := it.Err(); err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	return seq, nil
}

// readRecord reads one record. What lies before the place is read only because later values lean on it.
func (c *Cursor) readRecord(into *Arrivals, seq format.Sequence, value []byte, masks *masks) error {
	j, t := &c.tail.journal, &c.tail
	if err := j.Open(seq, value); err != nil {
		return err
	}
	if j.Segment {
		t.begin()
	}
	if t.last == nil {
		return fmt.Errorf("%w: the journal begins inside a segment", ErrCorrupt)
	}
	wanted := seq >= c.ahead.next
	f := arrivalFilter{masks: masks, seq: seq, skips: c.ahead.skips}
	for {
		kind, ok, err := j.Next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		c.readSection(into, kind, wanted && !j.Unforwarded, &f)
	}
	if !wanted {
		return nil
	}
	if err := follows(j, value, c.ahead.stamp); err != nil {
		return err
	}
	if into.First == 0 {
		into.First = seq
	}
	into.Last, into.Arrived = seq, time.UnixMilli(j.Stamp.ArrivedMillis)
	into.Bytes += len(value)
	c.ahead.next, c.ahead.stamp = seq+1, j.Stamp
	return nil
}

// follows tells by the sums of the stamps whether records are missing between one that was read and the record.
func follows(j *format.Journal, value []byte, read format.JournalStamp) error {
	if before := j.Stamp.Bytes - uint64(len(value)); before > read.Bytes {
		return fmt.Errorf("%w: %d bytes of the journal before it are missing; run `varve check data`; rewinding the output to now goes on without them",
			ErrCorrupt, before-read.Bytes)
	}
	return nil
}

// arrivalFilter tells what of a record is left out.
type arrivalFilter struct {
	masks *masks
	seq   format.Sequence
	skips []format.Skip
	page  format.Ref
	known bool
	any   bool // the page has masks
}

// hides tells whether a sample is left out: because it was deleted since, or because it was read already.
func (f *arrivalFilter) hides(ref format.Ref, t int64) bool {
	if skipped(f.skips, f.seq, t) {
		return true
	}
	if f.masks.none() {
		return false
	}
	if first := ref &^ (pageSize - 1); !f.known || first != f.page {
		f.page, f.known, f.any = first, true, len(f.masks.byPage[first]) > 0
	}
	return f.any && f.masks.of(ref).hides(t, f.seq)
}

// skipped tells whether a sample that arrived with the sequence was read by time.
func skipped(skips []format.Skip, seq format.Sequence, t int64) bool {
	if len(skips) == 0 {
		return false
	}
	i, found := slices.BinarySearchFunc(skips, t, func(s format.Skip, t int64) int { return cmp.Compare(s.FromMillis, t) })
	if !found {
		i--
	}
	return i >= 0 && seq < skips[i].Before
}

func (c *Cursor) readSection(into *Arrivals, kind format.SectionKind, wanted bool, f *arrivalFilter) {
	j := &c.tail.journal
	switch kind {
	case format.SectionFloats, format.SectionFloatsWithStart:
		c.readFloats(into, &j.Floats, wanted, f)
	case format.SectionHistogram, format.SectionFloatHistogram:
		if wanted && !f.hides(j.Ref, j.TimeMillis) {
			into.Histograms = append(into.Histograms, ArrivedHistogram{
				Ref: j.Ref, Histogram: arrival.Histogram{TimeMillis: j.TimeMillis, StartMillis: j.Start, Int: j.Int, Float: j.Float},
			})
		}
	case format.SectionExemplar:
		if wanted && !f.hides(j.Ref, j.Exemplar.Ts) {
			into.Exemplars = append(into.Exemplars, ArrivedExemplar{j.Ref, j.Exemplar})
		}
	case format.SectionMetadata:
		if wanted {
			into.Metadata = append(into.Metadata, arrival.Metadata{Family: j.Family, Metadata: j.Metadata})
		}
	}
}

func (c *Cursor) readFloats(into *Arrivals, f *format.Floats, wanted bool, filter *arrivalFilter) {
	var page *[pageSize]uint64
	first := storage.SeriesRef(math.MaxUint64)
	plain := len(filter.skips) == 0 && filter.masks.none()
	for i, ref := range f.Refs {
		if page == nil || ref&^(pageSize-1) != first {
			first = ref &^ (pageSize - 1)
			page = c.tail.page(ref)
		}
		last := &page[ref&(pageSize-1)]
		v := f.XORs[i] ^ *last
		*last = v
		if !wanted || !plain && filter.hides(ref, f.Times[i]) {
			continue
		}
		start := int64(0)
		if len(f.Starts) > 0 {
			start = f.Starts[i]
		}
		into.addFloat(ref, f.Times[i], start, v)
	}
}

// Arrivals are what one Read of a cursor gave. The columns are in the order of arrival, or in gaps, series by series in the order of
// time within a stretch of at most half an hour. Read reuses their memory.
type Arrivals struct {
	// Refs, Times (Unix ms) and Values (IEEE 754 bits) are the float samples. Starts (Unix ms, zero for none) is empty or as long.
	Refs   []storage.SeriesRef
	Times  []int64
	Values []uint64
	Starts []int64
	// Histograms and Exemplars name their series by Refs of their own.
	Histograms []ArrivedHistogram
	Exemplars  []ArrivedExemplar
	Metadata   []arrival.Metadata

	// First and Last are the journal's records that this was read from, both inclusive; zero in gaps.
	First, Last format.Sequence
	// Arrived is when the last of it arrived; in gaps the earliest that this can be, and of everything that is owed by time when it is read.
	Arrived time.Time
	// Bytes is what was read: of the journal, or coded samples.
	Bytes int
	// Position is for Done when all of this and all that was read before is delivered.
	Position Position
}

// ArrivedHistogram is a native histogram sample of a series.
type ArrivedHistogram struct {
	Ref storage.SeriesRef
	arrival.Histogram
}

// ArrivedExemplar is an exemplar of a series.
type ArrivedExemplar struct {
	Ref storage.SeriesRef
	exemplar.Exemplar
}

// Samples is the number of samples, floats and histograms.
func (r *Arrivals) Samples() int { return len(r.Times) + len(r.Histograms) }

func (r *Arrivals) empty() bool {
	return r.Samples() == 0 && len(r.Exemplars) == 0 && len(r.Metadata) == 0
}

// Reset empties it and keeps the memory.
func (r *Arrivals) Reset() {
	clear(r.Histograms)
	clear(r.Exemplars)
	clear(r.Metadata)
	*r = Arrivals{
		Refs: r.Refs[:0], Times: r.Times[:0], Values: r.Values[:0], Starts: r.Starts[:0],
		Histograms: r.Histograms[:0], Exemplars: r.Exemplars[:0], Metadata: r.Metadata[:0],
	}
}

// Tally counts what became of samples that a cursor read. It is added to what the archive keeps beside the cursor.
type Tally struct {
	// Sent were taken by the peer, Dropped given up because the backlog was over its limit, Refused by the peer or
	// by the form of its protocol, Filtered not wanted.
	Sent, Dropped, Refused, Filtered uint64
}

// Lag is how far a cursor is behind.
type Lag struct {
	// Since is when the first arrival that is not delivered came in; zero if there is none.
	Since time.Time
	// Samples and Bytes are those of the journal that are not delivered, those in gaps included as far as they are known.
	Samples, Bytes uint64
	// GapDays is the number of days of which something is read from the archive, because the journal was trimmed before it was delivered.
	GapDays int
	// Whole tells that everything from WholeFrom on is read from the archive by time; Samples and Bytes don't count it.
	Whole     bool
	WholeFrom time.Time
}

// Position is a place in what a cursor read. Positions of one cursor ascend.
type Position struct {
	// read counts the reads since the cursor was opened.
	read uint64
}
