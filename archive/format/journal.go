package format

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"

	"varve/arrival"
)

// A journal record holds what one group commit took in: a version byte, a flag
// byte, sections, a JournalStamp, and a CRC32C over the key and all before it. A section is its
// kind, its length in 4 bytes little endian, and its body.
//
// Float values are XORed with the series' previous value in the same segment,
// zero at the segment's begin, and stripped of zero bytes at both ends. A record
// with the flag journalSegment begins a segment: who reads the journal begins there.
const (
	journalVersion = 2
	journalSegment = 1 << 0
	// JournalTrailer is the length of the stamp and the checksum at the end of a record.
	JournalTrailer = 3*8 + 4
)

// JournalStamp says when a record came in, and what the journal took in up to it, from the archive's first
// record on: the distance of two stamps is what lies between two places of the journal.
type JournalStamp struct {
	// ArrivedMillis is the wall clock at the commit, Unix ms.
	ArrivedMillis int64
	// Samples and Bytes are those of all records up to and including this one. Bytes counts whole values, with their trailers.
	Samples, Bytes uint64
}

// SectionKind tells what a section of a journal record holds.
type SectionKind uint8

// The kinds of sections. A reader refuses a kind that it does not know, because
// skipping one would lose samples.
const (
	SectionFloats          SectionKind = 1
	SectionFloatsWithStart SectionKind = 2
	SectionHistogram       SectionKind = 3
	SectionFloatHistogram  SectionKind = 4
	SectionExemplar        SectionKind = 5
	SectionMetadata        SectionKind = 6
)

// sectionUnforwarded in the byte of a section's kind says that cursors pass over it.
const sectionUnforwarded = 1 << 7

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// BeginJournal begins a record.
func BeginJournal(dst []byte, segment bool) []byte {
	flags := byte(0)
	if segment {
		flags = journalSegment
	}
	return append(dst, journalVersion, flags)
}

// EndJournal appends the stamp and the checksum of the record that lies in rec.
func EndJournal(rec []byte, seq Sequence, stamp JournalStamp) []byte {
	rec = AppendStamp(rec, stamp)
	return binary.LittleEndian.AppendUint32(rec, journalChecksum(seq, rec))
}

// AppendStamp appends a stamp, as records end with it and as the edges of segments are kept in meta.
func AppendStamp(dst []byte, s JournalStamp) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.ArrivedMillis))
	dst = binary.LittleEndian.AppendUint64(dst, s.Samples)
	return binary.LittleEndian.AppendUint64(dst, s.Bytes)
}

// ParseStamp reads what AppendStamp wrote.
func ParseStamp(b []byte) (JournalStamp, error) {
	r := reader{b: b}
	s := r.stamp()
	return s, r.end("journal stamp")
}

// RecordStamp reads the stamp of a record without checking anything else of it.
func RecordStamp(rec []byte) (JournalStamp, error) {
	if len(rec) < JournalTrailer {
		return JournalStamp{}, corrupt("journal record of %d bytes", len(rec))
	}
	return ParseStamp(rec[len(rec)-JournalTrailer : len(rec)-4])
}

func (r *reader) stamp() JournalStamp {
	return JournalStamp{ArrivedMillis: int64(r.uint64()), Samples: r.uint64(), Bytes: r.uint64()}
}

// BeginsSegment tells whether the record, of which only the begin is looked at, begins a segment.
func BeginsSegment(rec []byte) bool { return len(rec) > 1 && rec[1]&journalSegment != 0 }

func journalChecksum(seq Sequence, body []byte) uint32 {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], uint64(seq))
	return crc32.Update(crc32.Checksum(key[:], castagnoli), castagnoli, body)
}

// BeginSection appends a section's head. at is what EndSection needs to close it.
func BeginSection(dst []byte, kind SectionKind) (_ []byte, at int) {
	dst = append(dst, byte(kind), 0, 0, 0, 0)
	return dst, len(dst)
}

// EndSection fills in the length of the section that began at at and ends with dst.
func EndSection(dst []byte, at int) {
	binary.LittleEndian.PutUint32(dst[at-4:], uint32(len(dst)-at))
}

// MarkUnforwarded marks sections that are whole, so that cursors pass over them.
func MarkUnforwarded(sections []byte) {
	for len(sections) >= 5 {
		sections[0] |= sectionUnforwarded
		sections = sections[5+binary.LittleEndian.Uint32(sections[1:]):]
	}
}

// FloatValueSizeMax is the most bytes that PutFloatValue writes, those behind
// the value that it may scribble over included.
const FloatValueSizeMax = 9

// AppendFloatHead appends the refs and times of the float samples of b, both as
// runs. The values follow: one PutFloatValue for each sample. All rows of b have a
// ref and their samples are the columns, row by row.
func AppendFloatHead(dst []byte, b *arrival.Batch) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b.Times)))
	dst = appendRefRuns(dst, b.Rows)
	prev := int64(0)
	for i := 0; i < len(b.Times); {
		t, j := b.Times[i], i+1
		for j < len(b.Times) && b.Times[j] == t {
			j++
		}
		dst = binary.AppendVarint(dst, t-prev)
		dst = binary.AppendUvarint(dst, uint64(j-i))
		prev, i = t, j
	}
	return dst
}

// appendRefRuns writes rows of one sample with ascending refs as distance and
// length, and any other row as distance, an odd marker and its number of samples.
func appendRefRuns(dst []byte, rows []arrival.Row) []byte {
	prev := Ref(0)
	for i := 0; i < len(rows); {
		r := &rows[i]
		if r.Count == 0 {
			i++
			continue
		}
		dst = binary.AppendVarint(dst, int64(r.Ref-prev))
		if r.Count > 1 {
			dst = binary.AppendUvarint(dst, uint64(r.Count)<<1|1)
			prev, i = r.Ref, i+1
			continue
		}
		j := i + 1
		for j < len(rows) && rows[j].Count == 1 && rows[j].Ref == rows[j-1].Ref+1 {
			j++
		}
		dst = binary.AppendUvarint(dst, uint64(j-i)<<1)
		prev, i = rows[j-1].Ref, j
	}
	return dst
}

// AppendStarts appends the start timestamps of a section with them, as
// distances before the sample. They stand between head and values.
func AppendStarts(dst []byte, b *arrival.Batch) []byte {
	for i, s := range b.Starts {
		if s == 0 {
			dst = append(dst, 0)
			continue
		}
		// Shifted by one, so that zero can say that there is none.
		d := b.Times[i] - s
		dst = binary.AppendUvarint(dst, (uint64(d<<1)^uint64(d>>63))+1)
	}
	return dst
}

// PutFloatValue writes x at b[o:], which has room for FloatValueSizeMax bytes, and
// returns the offset behind it. The low four bits of the first byte count the bytes
// that follow, the high four the zero bytes that were stripped at the low end.
func PutFloatValue(b []byte, o int, x uint64) int {
	if x == 0 {
		b[o] = 0
		return o + 1
	}
	low := bits.TrailingZeros64(x) >> 3
	n := 8 - low - bits.LeadingZeros64(x)>>3
	b[o] = byte(low<<4 | n)
	binary.LittleEndian.PutUint64(b[o+1:], x>>(low*8))
	return o + 1 + n
}

// AppendHistogram appends a section with one histogram sample of the series.
func AppendHistogram(dst []byte, ref Ref, h *arrival.Histogram) []byte {
	kind := SectionHistogram
	var buf encoding.Encbuf
	if h.Float != nil {
		kind = SectionFloatHistogram
		record.EncodeFloatHistogram(&buf, h.Float)
	} else {
		record.EncodeHistogram(&buf, h.Int)
	}
	dst, at := BeginSection(dst, kind)
	dst = binary.AppendUvarint(dst, uint64(ref))
	dst = binary.AppendVarint(dst, h.TimeMillis)
	dst = binary.AppendVarint(dst, h.StartMillis)
	dst = append(dst, buf.Get()...)
	EndSection(dst, at)
	return dst
}

// AppendJournalExemplar appends a section with one exemplar of the series.
func AppendJournalExemplar(dst []byte, ref Ref, e *exemplar.Exemplar) []byte {
	dst, at := BeginSection(dst, SectionExemplar)
	dst = binary.AppendUvarint(dst, uint64(ref))
	dst = binary.AppendVarint(dst, e.Ts)
	dst = AppendExemplar(dst, e)
	EndSection(dst, at)
	return dst
}

// AppendJournalMetadata appends a section with what was said of a metric family.
func AppendJournalMetadata(dst []byte, family string, m metadata.Metadata) []byte {
	dst, at := BeginSection(dst, SectionMetadata)
	dst = appendText(dst, family)
	dst = AppendMetadata(dst, m)
	EndSection(dst, at)
	return dst
}

// Journal reads one record. The zero value is ready for Open and may be used again.
type Journal struct {
	// Segment is true when the record begins a segment.
	Segment bool
	Stamp   JournalStamp
	body    []byte

	// Unforwarded tells that cursors pass over the current section.
	Unforwarded bool
	// The current section, by kind. All of it is valid until the next call of Next.
	Floats     Floats
	Ref        Ref
	TimeMillis int64
	Start      int64
	Int        *histogram.Histogram
	Float      *histogram.FloatHistogram
	Exemplar   exemplar.Exemplar
	Family     string
	Metadata   metadata.Metadata
}

// Floats are the float samples of a section. XORs are to be undone by the reader.
type Floats struct {
	Refs   []Ref
	Times  []int64
	XORs   []uint64
	Starts []int64 // empty, or as long as Times
}

// Open checks the record's checksum and stands before its first section. value
// must stay unchanged while the record is read.
func (j *Journal) Open(seq Sequence, value []byte) error {
	n := len(value) - JournalTrailer
	if n < 2 {
		return corrupt("journal record %d of %d bytes", seq, len(value))
	}
	summed := len(value) - 4
	if journalChecksum(seq, value[:summed]) != binary.LittleEndian.Uint32(value[summed:]) {
		return corrupt("journal record %d: checksum mismatch", seq)
	}
	if value[0] != journalVersion {
		return corrupt("journal record %d of version %d", seq, value[0])
	}
	j.Segment = value[1]&journalSegment != 0
	j.body = value[2:n]
	var err error
	j.Stamp, err = ParseStamp(value[n:summed])
	return err
}

// Next reads the next section. ok is false behind the last one.
func (j *Journal) Next() (kind SectionKind, ok bool, err error) {
	if len(j.body) == 0 {
		return 0, false, nil
	}
	if len(j.body) < 5 {
		return 0, false, corrupt("journal section head of %d bytes", len(j.body))
	}
	kind = SectionKind(j.body[0] &^ sectionUnforwarded)
	j.Unforwarded = j.body[0]&sectionUnforwarded != 0
	n := binary.LittleEndian.Uint32(j.body[1:])
	if uint64(n) > uint64(len(j.body)-5) {
		return 0, false, corrupt("journal section of %d bytes in %d", n, len(j.body)-5)
	}
	r := reader{b: j.body[5 : 5+n]}
	j.body = j.body[5+n:]
	return kind, true, j.section(kind, &r)
}

func (j *Journal) section(kind SectionKind, r *reader) error {
	switch kind {
	case SectionFloats, SectionFloatsWithStart:
		return j.Floats.parse(r, kind == SectionFloatsWithStart)
	case SectionHistogram, SectionFloatHistogram:
		return j.histogram(kind, r)
	case SectionExemplar:
		j.Ref = Ref(r.uvarint())
		j.Exemplar = exemplar.Exemplar{Ts: r.varint(), HasTs: true}
		if r.bad {
			return r.end("journal exemplar")
		}
		return ParseExemplar(r.b, &j.Exemplar)
	case SectionMetadata:
		j.Family = r.text()
		if r.bad {
			return r.end("journal metadata")
		}
		var err error
		j.Metadata, err = ParseMetadata(r.b)
		return err
	}
	return corrupt("journal section of kind %d", kind)
}

func (j *Journal) histogram(kind SectionKind, r *reader) error {
	j.Ref, j.TimeMillis, j.Start = Ref(r.uvarint()), r.varint(), r.varint()
	if r.bad {
		return r.end("journal histogram")
	}
	if err := checkHistogram(r.b, kind == SectionFloatHistogram); err != nil {
		return err
	}
	buf := encoding.Decbuf{B: r.b}
	j.Int, j.Float = nil, nil
	if kind == SectionHistogram {
		j.Int = &histogram.Histogram{}
		record.DecodeHistogram(&buf, j.Int)
	} else {
		j.Float = &histogram.FloatHistogram{}
		record.DecodeFloatHistogram(&buf, j.Float)
	}
	if buf.Err() != nil || buf.Len() != 0 {
		return corrupt("journal histogram: %d bytes left, %v", buf.Len(), buf.Err())
	}
	return nil
}

// checkHistogram walks a histogram as upstream's record package encodes it and
// refuses counts that the bytes cannot hold, because upstream's decoder allocates what they ask for.
func checkHistogram(b []byte, float bool) error {
	r := reader{b: b}
	r.byte() // counter reset hint
	schema := r.varint()
	r.uint64() // zero threshold
	if float {
		r.uint64() // zero count
		r.uint64() // count
	} else {
		r.uvarint()
		r.uvarint()
	}
	r.uint64() // sum
	for range 2 {
		for range r.count(2) { // spans: offset and length
			r.varint()
			r.uvarint32()
		}
	}
	for range 2 {
		r.histogramBuckets(float)
	}
	if histogram.IsCustomBucketsSchema(int32(schema)) {
		r.histogramBuckets(true)
	}
	return r.end("journal histogram")
}

func (r *reader) histogramBuckets(float bool) {
	if float {
		for range r.count(8) {
			r.uint64()
		}
		return
	}
	for range r.count(1) {
		r.varint()
	}
}

func (f *Floats) parse(r *reader, starts bool) error {
	n := r.count(1)
	f.Refs, f.Times, f.XORs, f.Starts = f.Refs[:0], f.Times[:0], f.XORs[:0], f.Starts[:0]
	if err := f.parseRefs(r, n); err != nil {
		return err
	}
	t := int64(0)
	for len(f.Times) < n && !r.bad {
		t += r.varint()
		run := r.uvarint()
		if run == 0 || run > uint64(n-len(f.Times)) {
			return corrupt("journal time run of %d", run)
		}
		for range run {
			f.Times = append(f.Times, t)
		}
	}
	for i := 0; starts && i < n && !r.bad; i++ {
		s := int64(0)
		if z := r.uvarint(); z != 0 {
			z--
			s = f.Times[i] - (int64(z>>1) ^ -int64(z&1))
		}
		f.Starts = append(f.Starts, s)
	}
	for i := 0; i < n && !r.bad; i++ {
		f.XORs = append(f.XORs, r.floatValue())
	}
	return r.end("journal floats")
}

func (f *Floats) parseRefs(r *reader, n int) error {
	ref := Ref(0)
	for len(f.Refs) < n && !r.bad {
		ref += Ref(r.varint())
		run := r.uvarint()
		multi := run&1 != 0
		run >>= 1
		if run == 0 || run > uint64(n-len(f.Refs)) {
			return corrupt("journal ref run of %d", run)
		}
		for i := range run {
			if i > 0 && !multi {
				ref++
			}
			f.Refs = append(f.Refs, ref)
		}
	}
	return nil
}

func (r *reader) floatValue() uint64 {
	c := r.byte()
	n, low := int(c&15), int(c>>4)
	if n+low > 8 || n > len(r.b) {
		r.fail()
		return 0
	}
	x := uint64(0)
	for i := range n {
		x |= uint64(r.b[i]) << (8 * i)
	}
	r.b = r.b[n:]
	return x << (8 * low)
}
