package format

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/oklog/ulid/v2"
)

// TombstoneID names a delete: a ULID, of which 48 bits are the time in ms and the rest is random.
// It is the key of the tombstones family.
type TombstoneID [16]byte

// NewTombstoneID makes an id at a moment. It fails only if the system has no randomness to give.
func NewTombstoneID(now time.Time) (TombstoneID, error) {
	id, err := ulid.New(uint64(max(now.UnixMilli(), 0)), io.Reader(rand.Reader))
	if err != nil {
		return TombstoneID{}, fmt.Errorf("make an id: %w", err)
	}
	return TombstoneID(id), nil
}

// String is the id in the 26 characters of a ULID.
func (id TombstoneID) String() string { return ulid.ULID(id).String() }

// ParseTombstoneText reads what String returns.
func ParseTombstoneText(text string) (TombstoneID, error) {
	id, err := ulid.ParseStrict(text)
	if err != nil {
		return TombstoneID{}, fmt.Errorf("%q is not the id of a delete: %w", text, err)
	}
	return TombstoneID(id), nil
}

// ParseTombstoneKey reads the key of a tombstone.
func ParseTombstoneKey(key []byte) (id TombstoneID, err error) {
	if len(key) != len(id) {
		return id, corrupt("tombstone key of %d bytes, want %d", len(key), len(id))
	}
	return TombstoneID(key), nil
}

// TombstoneState is what has become of a delete.
type TombstoneState uint8

// The states of a tombstone. The numbers are those on disk.
const (
	// TombstoneActive hides samples, which are all still there.
	TombstoneActive TombstoneState = 1
	// TombstoneCleaning hides samples while they are removed. It can't be undone.
	TombstoneCleaning TombstoneState = 2
	// TombstoneCleaned is the receipt of a delete whose samples are gone.
	TombstoneCleaned TombstoneState = 3
	// TombstoneUndone is the receipt of a delete that was taken back.
	TombstoneUndone TombstoneState = 4
)

// TombstoneStates are all states, in their order.
var TombstoneStates = []TombstoneState{TombstoneActive, TombstoneCleaning, TombstoneCleaned, TombstoneUndone}

// String is the name of the state.
func (s TombstoneState) String() string {
	switch s {
	case TombstoneActive:
		return "active"
	case TombstoneCleaning:
		return "cleaning"
	case TombstoneCleaned:
		return "cleaned"
	case TombstoneUndone:
		return "undone"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Ended tells that the tombstone hides nothing any more.
func (s TombstoneState) Ended() bool { return s == TombstoneCleaned || s == TombstoneUndone }

// DayRange are the days from First to Last, both included.
type DayRange struct{ First, Last Day }

// Tombstone is the record of a delete. It hides the samples of Refs on Days with a time from
// FromMillis to ToMillis, both inclusive, that arrived before Sequence.
type Tombstone struct {
	State TombstoneState
	// Sequence is the first that is not hidden.
	Sequence Sequence
	// CreatedMillis is when it was made, UntilMillis until when it can be undone, EndedMillis
	// when it was cleaned or undone, else zero. Unix ms.
	CreatedMillis, UntilMillis, EndedMillis int64
	// FromMillis and ToMillis are Unix ms, within MinTimeMillis and MaxTimeMillis.
	FromMillis, ToMillis int64
	// Series is the number of series that it was made for.
	Series uint64
	// Days are those on which one of the series had samples. They ascend and don't touch.
	Days []DayRange
	// Refs are the series, at least one; nil once the state is ended.
	Refs *roaring.Bitmap
	// Selectors, Author and Reason are for people.
	Selectors      []string
	Author, Reason string
	// CleanedBefore is the first day that may hold samples to remove. Samples, Exemplars, Buckets
	// whose samples have expired, and Bytes (of keys and values, which may grow) count what was removed until now.
	CleanedBefore               Day
	Samples, Exemplars, Buckets uint64
	Bytes                       int64
}

const tombstoneVersion = 1

// Append appends the record.
func (t *Tombstone) Append(dst []byte) []byte {
	dst = append(dst, tombstoneVersion, byte(t.State))
	dst = binary.AppendUvarint(dst, uint64(t.Sequence))
	for _, v := range []int64{t.CreatedMillis, t.UntilMillis, t.EndedMillis, t.FromMillis, t.ToMillis} {
		dst = binary.AppendVarint(dst, v)
	}
	for _, v := range []uint64{t.Series, t.Samples, t.Exemplars, t.Buckets} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = binary.AppendVarint(dst, t.Bytes)
	dst = binary.AppendVarint(dst, int64(t.CleanedBefore))
	dst = binary.AppendUvarint(dst, uint64(len(t.Selectors)))
	for _, s := range t.Selectors {
		dst = appendText(dst, s)
	}
	dst = appendText(appendText(dst, t.Author), t.Reason)
	dst = binary.AppendUvarint(dst, uint64(len(t.Days)))
	behind := Day(0)
	for _, d := range t.Days {
		dst = binary.AppendVarint(dst, int64(d.First)-int64(behind))
		dst = binary.AppendUvarint(dst, uint64(d.Last-d.First))
		behind = d.Last
	}
	return appendRefs(dst, t.Refs)
}

// appendRefs appends a set of refs as a number of containers, and of each the upper 16 bits, the
// length and the bytes. Nil is the empty set.
func appendRefs(dst []byte, refs *roaring.Bitmap) []byte {
	if refs == nil {
		return append(dst, 0)
	}
	var highs []uint32
	it := refs.Iterator()
	for it.HasNext() {
		high := it.PeekNext() >> 16
		highs = append(highs, high)
		if high == math.MaxUint16 {
			break
		}
		it.AdvanceIfNeeded((high + 1) << 16)
	}
	dst = binary.AppendUvarint(dst, uint64(len(highs)))
	var form []byte
	for _, high := range highs {
		form, _ = AppendContainer(form[:0], refs, high<<16)
		dst = binary.AppendUvarint(dst, uint64(high))
		dst = appendText(dst, string(form))
	}
	return dst
}

// Parse reads a record.
func (t *Tombstone) Parse(b []byte) error {
	if len(b) < 2 || b[0] != tombstoneVersion {
		return corrupt("tombstone of %d bytes begins with %x", len(b), b[:min(2, len(b))])
	}
	*t = Tombstone{State: TombstoneState(b[1])}
	if t.State < TombstoneActive || t.State > TombstoneUndone {
		return corrupt("tombstone in state %d", b[1])
	}
	r := reader{b: b[2:]}
	t.Sequence = Sequence(r.uvarint())
	for _, v := range []*int64{&t.CreatedMillis, &t.UntilMillis, &t.EndedMillis, &t.FromMillis, &t.ToMillis} {
		*v = r.varint()
	}
	for _, v := range []*uint64{&t.Series, &t.Samples, &t.Exemplars, &t.Buckets} {
		*v = r.uvarint()
	}
	t.Bytes = r.varint()
	t.CleanedBefore = r.day(0)
	for range r.count(1) {
		t.Selectors = append(t.Selectors, r.text())
	}
	t.Author, t.Reason = r.text(), r.text()
	behind := Day(0)
	for i := range r.count(2) {
		d := DayRange{First: r.day(behind)}
		d.Last = d.First + Day(min(r.uvarint(), math.MaxInt32))
		if i > 0 && d.First <= behind || d.Last < d.First {
			return corrupt("days of a tombstone are out of order")
		}
		behind = d.Last
		t.Days = append(t.Days, d)
	}
	if err := t.parseRefs(&r); err != nil {
		return err
	}
	if err := r.end("tombstone"); err != nil {
		return err
	}
	return t.check()
}

// day reads a day as a difference to another.
func (r *reader) day(behind Day) Day {
	d := int64(behind) + r.varint()
	if d < math.MinInt32 || d > math.MaxInt32 {
		r.fail()
		return 0
	}
	return Day(d)
}

func (t *Tombstone) parseRefs(r *reader) error {
	last := -1
	for range r.count(2) {
		high, form := r.uvarint(), r.bytes()
		if r.bad {
			return nil // end says so.
		}
		if high > math.MaxUint16 || int(high) <= last {
			return corrupt("series of a tombstone are out of order")
		}
		last = int(high)
		if t.Refs == nil {
			t.Refs = roaring.New()
		}
		if err := AddContainer(t.Refs, form, uint32(high<<16)); err != nil {
			return err
		}
	}
	return nil
}

// check tells whether the fields fit each other.
func (t *Tombstone) check() error {
	switch {
	case t.FromMillis > t.ToMillis || t.FromMillis < MinTimeMillis || t.ToMillis > MaxTimeMillis:
		return corrupt("tombstone from %d to %d ms", t.FromMillis, t.ToMillis)
	case t.State.Ended() != (t.Refs == nil):
		return corrupt("tombstone that is %s with a set of %d series", t.State, t.refCount())
	case t.Refs != nil && t.Refs.GetCardinality() != t.Series:
		return corrupt("tombstone of %d series names %d", t.Series, t.refCount())
	case t.Sequence == 0 || len(t.Days) == 0:
		return corrupt("tombstone of sequence %d with %d stretches of days", t.Sequence, len(t.Days))
	case t.Days[0].First < DayOf(t.FromMillis) || t.Days[len(t.Days)-1].Last > DayOf(t.ToMillis):
		return corrupt("tombstone with days outside of its times")
	}
	return nil
}

func (t *Tombstone) refCount() uint64 {
	if t.Refs == nil {
		return 0
	}
	return t.Refs.GetCardinality()
}
