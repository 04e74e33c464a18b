package format

import (
	"encoding/binary"
)

// Cursor is the record of an output's place: what was delivered, and what is owed beside the journal behind it.
type Cursor struct {
	// Next is the first sequence of the journal that is not delivered.
	Next Sequence
	// Stamp is that of the last record that was delivered, or passed over.
	Stamp JournalStamp
	// CreatedMillis is when the cursor was made, Unix ms.
	CreatedMillis int64
	// Sent, Dropped, Refused and Filtered count samples since then.
	Sent, Dropped, Refused, Filtered uint64

	// Whole tells that everything the archive holds from WholeFromMillis on (inclusive, Unix ms) is owed, whenever it arrived.
	Whole           bool
	WholeFromMillis int64
	// WholeSinceMillis is when that was asked for, Unix ms.
	WholeSinceMillis int64
	// Skips say what of the journal behind Next was read by time already, in the order of their times.
	Skips []Skip

	// NextGap numbers the next gap. Of the gap Gap everything before GapFromMillis is delivered.
	NextGap, Gap  uint32
	GapFromMillis int64
}

// Skip is a stretch of time that was read from the archive: the samples from FromMillis (inclusive, Unix ms) up to the next Skip
// that arrived in records before Before. The last one of a list is the end, with Before zero.
type Skip struct {
	FromMillis int64
	Before     Sequence
}

// SkipsMax bounds the skips of a cursor.
const SkipsMax = 1 << 12

const cursorVersion = 1

// AppendCursor appends the record of a cursor.
func AppendCursor(dst []byte, c *Cursor) []byte {
	dst = append(dst, cursorVersion)
	dst = binary.AppendUvarint(dst, uint64(c.Next))
	dst = AppendStamp(dst, c.Stamp)
	dst = binary.AppendVarint(dst, c.CreatedMillis)
	for _, n := range []uint64{c.Sent, c.Dropped, c.Refused, c.Filtered} {
		dst = binary.AppendUvarint(dst, n)
	}
	whole := byte(0)
	if c.Whole {
		whole = 1
	}
	dst = append(dst, whole)
	dst = binary.AppendVarint(dst, c.WholeFromMillis)
	dst = binary.AppendVarint(dst, c.WholeSinceMillis)
	dst = binary.AppendUvarint(dst, uint64(len(c.Skips)))
	for _, s := range c.Skips {
		dst = binary.AppendVarint(dst, s.FromMillis)
		dst = binary.AppendUvarint(dst, uint64(s.Before))
	}
	dst = binary.AppendUvarint(dst, uint64(c.NextGap))
	dst = binary.AppendUvarint(dst, uint64(c.Gap))
	return binary.AppendVarint(dst, c.GapFromMillis)
}

// Parse reads what AppendCursor wrote.
func (c *Cursor) Parse(b []byte) error {
	r := reader{b: b}
	if v := r.byte(); v != cursorVersion && !r.bad {
		return corrupt("cursor of version %d", v)
	}
	*c = Cursor{Next: Sequence(r.uvarint()), Stamp: r.stamp(), CreatedMillis: r.varint()}
	c.Sent, c.Dropped, c.Refused, c.Filtered = r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint()
	c.Whole = r.byte() != 0
	c.WholeFromMillis, c.WholeSinceMillis = r.varint(), r.varint()
	n := r.count(2)
	if n > SkipsMax {
		return corrupt("cursor with %d stretches of time", n)
	}
	for range n {
		c.Skips = append(c.Skips, Skip{r.varint(), Sequence(r.uvarint())})
	}
	c.NextGap, c.Gap, c.GapFromMillis = r.uvarint32(), r.uvarint32(), r.varint()
	return r.end("cursor")
}

// GapKey is the key of what a cursor owes of 65,536 neighbouring refs on one day, because the journal was trimmed under it.
type GapKey struct {
	Cursor string
	// Gap numbers the cursor's gaps: those of a lower number come first.
	Gap  uint32
	Day  Day
	High uint64 // ref>>16
}

// Append appends the key.
func (k *GapKey) Append(dst []byte) []byte {
	dst = AppendGapPrefix(dst, k.Cursor)
	dst = binary.BigEndian.AppendUint32(dst, k.Gap)
	return appendUint48(appendDay(dst, k.Day), k.High)
}

// AppendGapPrefix appends what all keys of a cursor begin with.
func AppendGapPrefix(dst []byte, cursor string) []byte { return appendText(dst, cursor) }

// AppendGapNumberPrefix appends what the keys of one gap begin with.
func AppendGapNumberPrefix(dst []byte, cursor string, gap uint32) []byte {
	return binary.BigEndian.AppendUint32(AppendGapPrefix(dst, cursor), gap)
}

// AppendGapDayPrefix appends what the keys of one day of a gap begin with.
func AppendGapDayPrefix(dst []byte, cursor string, gap uint32, day Day) []byte {
	return appendDay(AppendGapNumberPrefix(dst, cursor, gap), day)
}

// ParseGapKey reads what Append wrote.
func ParseGapKey(key []byte) (k GapKey, err error) {
	r := reader{b: key}
	k.Cursor = r.text()
	if r.bad || len(r.b) != 4+4+6 {
		return k, corrupt("gap key of %d bytes", len(key))
	}
	k.Gap, k.Day, k.High = binary.BigEndian.Uint32(r.b), parseDay(r.b[4:]), parseUint48(r.b[8:])
	return k, nil
}

// GapSpan is what is owed of one series on a day: everything from First to Last, both inclusive, in ms of the day.
type GapSpan struct{ First, Last uint32 }

// Gap is the value under a GapKey.
type Gap struct {
	// Samples is how many arrivals the record stands for.
	Samples uint64
	// NotedMillis is when the first of them was noted, Unix ms.
	NotedMillis int64
	// ArrivedMillis is when the first of them came in, Unix ms.
	ArrivedMillis int64
	// Lows are the low 16 bits of the refs, ascending. Spans has one for each.
	Lows  []uint16
	Spans []GapSpan
}

const gapVersion = 1

// AppendGap appends the value: neighbouring refs with one span are a run of distance, length, first and last.
func AppendGap(dst []byte, g *Gap) []byte {
	dst = append(dst, gapVersion)
	dst = binary.AppendUvarint(dst, g.Samples)
	dst = binary.AppendVarint(dst, g.NotedMillis)
	dst = binary.AppendVarint(dst, g.ArrivedMillis)
	dst = binary.AppendUvarint(dst, uint64(len(g.Lows)))
	next := 0
	for i := 0; i < len(g.Lows); {
		j := i + 1
		for j < len(g.Lows) && g.Lows[j] == g.Lows[j-1]+1 && g.Spans[j] == g.Spans[i] {
			j++
		}
		dst = binary.AppendUvarint(dst, uint64(int(g.Lows[i])-next))
		dst = binary.AppendUvarint(dst, uint64(j-i))
		dst = binary.AppendUvarint(dst, uint64(g.Spans[i].First))
		dst = binary.AppendUvarint(dst, uint64(g.Spans[i].Last-g.Spans[i].First))
		next = int(g.Lows[j-1]) + 1
		i = j
	}
	return dst
}

// Parse reads what AppendGap wrote, into the memory that g has.
func (g *Gap) Parse(b []byte) error {
	r := reader{b: b}
	if v := r.byte(); v != gapVersion && !r.bad {
		return corrupt("gap of version %d", v)
	}
	g.Samples, g.NotedMillis, g.ArrivedMillis = r.uvarint(), r.varint(), r.varint()
	n := r.uvarint()
	g.Lows, g.Spans = g.Lows[:0], g.Spans[:0]
	if n > 1<<16 {
		return corrupt("gap of %d series", n)
	}
	next := uint64(0)
	for uint64(len(g.Lows)) < n && !r.bad {
		low := next + r.uvarint()
		run := r.uvarint()
		first, length := r.uvarint(), r.uvarint()
		if run == 0 || run > n-uint64(len(g.Lows)) || low > 1<<16 || low+run > 1<<16 || first >= DayMillis || length >= DayMillis-first {
			return corrupt("gap run of %d series from %d on, %d ms from %d on", run, low, length, first)
		}
		for i := range run {
			g.Lows = append(g.Lows, uint16(low+i))
			g.Spans = append(g.Spans, GapSpan{First: uint32(first), Last: uint32(first + length)})
		}
		next = low + run
	}
	return r.end("gap")
}
