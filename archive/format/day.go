package format

import (
	"encoding/binary"
)

// DayRecord tells how far a day is sealed. A day without a record was never sealed,
// and its runs have generation 0.
type DayRecord struct {
	// Generation is that of the runs that are cut from now on.
	Generation Generation
	// Folding tells that the runs of the generation before are being sealed. What lies
	// before (Metric, Ref) of them is in bundles.
	Folding bool
	Metric  PairID
	Ref     Ref
	// SealedMillis is when the day was last sealed whole, Unix ms. Zero: never yet.
	SealedMillis int64
	// Bundles, Samples and Bytes (of keys and values) count what the day has in raw.
	Bundles, Samples, Bytes uint64
	// Digest is the sum, modulo 2^64, over the bundles, of the hash of each one's key and
	// checksum. It is the guard against bundles that go missing.
	Digest uint64
}

const (
	dayVersion = 1
	dayFolding = 1
)

// AppendDayName appends the name of a day's record in the meta family.
func AppendDayName(dst []byte, d Day) []byte { return appendDay(append(dst, MetaDayPrefix...), d) }

// ParseDayName reads what AppendDayName wrote.
func ParseDayName(name []byte) (Day, error) {
	if len(name) != len(MetaDayPrefix)+4 {
		return 0, corrupt("name of a day record of %d bytes", len(name))
	}
	return parseDay(name[len(MetaDayPrefix):]), nil
}

// AppendLeaseName appends the name of the record of a day that is being taken in whole.
func AppendLeaseName(dst []byte, d Day) []byte { return appendDay(append(dst, MetaLeasePrefix...), d) }

// ParseLeaseName reads what AppendLeaseName wrote.
func ParseLeaseName(name []byte) (Day, error) {
	if len(name) != len(MetaLeasePrefix)+4 {
		return 0, corrupt("name of a lease of %d bytes", len(name))
	}
	return parseDay(name[len(MetaLeasePrefix):]), nil
}

// Append appends the record.
func (r *DayRecord) Append(dst []byte) []byte {
	flags := byte(0)
	if r.Folding {
		flags = dayFolding
	}
	dst = append(dst, dayVersion, byte(r.Generation), flags)
	for _, v := range []uint64{uint64(r.Metric), uint64(r.Ref), uint64(r.SealedMillis), r.Bundles, r.Samples, r.Bytes} {
		dst = binary.AppendUvarint(dst, v)
	}
	return binary.LittleEndian.AppendUint64(dst, r.Digest)
}

// Parse reads a record.
func (r *DayRecord) Parse(b []byte) error {
	if len(b) < 3 || b[0] != dayVersion || b[2]&^dayFolding != 0 {
		return corrupt("day record of %d bytes begins with %x", len(b), b[:min(3, len(b))])
	}
	*r = DayRecord{Generation: Generation(b[1]), Folding: b[2] == dayFolding}
	rest := reader{b: b[3:]}
	r.Metric = PairID(rest.uvarint32())
	r.Ref = Ref(rest.uvarint())
	r.SealedMillis = int64(rest.uvarint())
	r.Bundles, r.Samples, r.Bytes = rest.uvarint(), rest.uvarint(), rest.uvarint()
	r.Digest = rest.uint64()
	return rest.end("day record")
}

// FoldedGeneration is the generation of the runs that are being sealed.
func (r *DayRecord) FoldedGeneration() Generation { return r.Generation - 1 }

// AddBundle counts a bundle with its hash, RemoveBundle counts one that went.
func (r *DayRecord) AddBundle(samples, bytes int, hash uint64) {
	r.Bundles, r.Samples, r.Bytes, r.Digest = r.Bundles+1, r.Samples+uint64(samples), r.Bytes+uint64(bytes), r.Digest+hash
}

// RemoveBundle undoes AddBundle.
func (r *DayRecord) RemoveBundle(samples, bytes int, hash uint64) {
	r.Bundles, r.Samples, r.Bytes, r.Digest = r.Bundles-1, r.Samples-uint64(samples), r.Bytes-uint64(bytes), r.Digest-hash
}
