package format

import "encoding/binary"

// RollupKey names a bundle of rollups: the buckets of one metric's series that end on
// one day or at the midnight behind it, up to and including Last, behind the bundle before.
type RollupKey struct {
	// Resolution is the length of a bucket in milliseconds.
	Resolution uint32
	Day        Day
	Metric     PairID
	// Last is the highest ref in the bundle.
	Last Ref
}

// rollupLengths are the resolutions, in milliseconds, with which families of rollups begin, the first of them included.
var rollupLengths = [...]uint32{0, 2 * 60_000, 15 * 60_000, 2 * 3600_000, 12 * 3600_000}

// RollupFamily returns the family that has the rollups of a resolution: one for the usual choices each. A new day of a resolution
// lies behind all others then, so that none of the files of older days is written again. Resolutions that
// share a family are kept apart by their keys.
func RollupFamily(resolution uint32) Family {
	n := len(rollupLengths) - 1
	for resolution < rollupLengths[n] {
		n--
	}
	return familyRollups + Family(n)
}

// RollupFamilies returns all families that have rollups.
func RollupFamilies() []Family {
	out := make([]Family, len(rollupLengths))
	for i := range out {
		out[i] = familyRollups + Family(i)
	}
	return out
}

// RollupKeySize is the length of the key of a bundle of rollups.
const RollupKeySize = 20

// AppendRollupDay appends what the keys of one day's bundles of a resolution begin with.
func AppendRollupDay(dst []byte, resolution uint32, d Day) []byte {
	return appendDay(binary.BigEndian.AppendUint32(dst, resolution), d)
}

// Append appends the key.
func (k *RollupKey) Append(dst []byte) []byte {
	dst = appendDayMetric(binary.BigEndian.AppendUint32(dst, k.Resolution), k.Day, k.Metric)
	return binary.BigEndian.AppendUint64(dst, uint64(k.Last))
}

// ParseRollupKey reads what Append wrote.
func ParseRollupKey(key []byte) (RollupKey, error) {
	if len(key) != RollupKeySize {
		return RollupKey{}, corrupt("rollup key of %d bytes, want %d", len(key), RollupKeySize)
	}
	return RollupKey{
		Resolution: binary.BigEndian.Uint32(key), Day: parseDay(key[4:]),
		Metric: PairID(binary.BigEndian.Uint32(key[8:])), Last: Ref(binary.BigEndian.Uint64(key[12:])),
	}, nil
}

// AppendDirtyDay appends what the keys of the containers of one day at a resolution begin with.
func AppendDirtyDay(dst []byte, resolution uint32, d Day) []byte {
	return AppendRollupDay(dst, resolution, d)
}

// AppendDirtyKey appends the key of the container of refs whose rollups of the day at the
// resolution are to be made anew.
func AppendDirtyKey(dst []byte, resolution uint32, d Day, high uint64) []byte {
	return appendUint48(AppendDirtyDay(dst, resolution, d), high)
}

// ParseDirtyKey reads what AppendDirtyKey wrote.
func ParseDirtyKey(key []byte) (resolution uint32, d Day, high uint64, err error) {
	if len(key) != 14 {
		return 0, 0, 0, corrupt("dirty key of %d bytes, want 14", len(key))
	}
	return binary.BigEndian.Uint32(key), parseDay(key[4:]), parseUint48(key[8:]), nil
}

// RollRecord tells how far a day is rolled up at a resolution. A day without a record was
// never rolled up.
type RollRecord struct {
	// Rolling tells that the day is being rolled up for the first time. What lies before
	// (Metric, Ref) is done.
	Rolling bool
	Metric  PairID
	Ref     Ref
	// RolledMillis is when something of the day was last rolled up, Unix ms.
	RolledMillis int64
	// Bundles, Buckets and Bytes (of keys and values) count what is there.
	Bundles, Buckets, Bytes uint64
	// Digest is like that of a DayRecord.
	Digest uint64
}

const (
	rollVersion = 1
	rollRolling = 1
)

// AppendRollName appends the name of the record of a day at a resolution in the meta family.
func AppendRollName(dst []byte, resolution uint32, d Day) []byte {
	return AppendRollupDay(append(dst, MetaRollPrefix...), resolution, d)
}

// ParseRollName reads what AppendRollName wrote.
func ParseRollName(name []byte) (resolution uint32, d Day, err error) {
	if len(name) != len(MetaRollPrefix)+8 {
		return 0, 0, corrupt("name of a roll record of %d bytes", len(name))
	}
	name = name[len(MetaRollPrefix):]
	return binary.BigEndian.Uint32(name), parseDay(name[4:]), nil
}

// Append appends the record.
func (r *RollRecord) Append(dst []byte) []byte {
	flags := byte(0)
	if r.Rolling {
		flags = rollRolling
	}
	dst = append(dst, rollVersion, flags)
	for _, v := range []uint64{uint64(r.Metric), uint64(r.Ref), uint64(r.RolledMillis), r.Bundles, r.Buckets, r.Bytes} {
		dst = binary.AppendUvarint(dst, v)
	}
	return binary.LittleEndian.AppendUint64(dst, r.Digest)
}

// Parse reads a record.
func (r *RollRecord) Parse(b []byte) error {
	if len(b) < 2 || b[0] != rollVersion || b[1]&^rollRolling != 0 {
		return corrupt("roll record of %d bytes begins with %x", len(b), b[:min(2, len(b))])
	}
	*r = RollRecord{Rolling: b[1] == rollRolling}
	rest := reader{b: b[2:]}
	r.Metric = PairID(rest.uvarint32())
	r.Ref = Ref(rest.uvarint())
	r.RolledMillis = int64(rest.uvarint())
	r.Bundles, r.Buckets, r.Bytes = rest.uvarint(), rest.uvarint(), rest.uvarint()
	r.Digest = rest.uint64()
	return rest.end("roll record")
}

// AddBundle counts a bundle with its hash, RemoveBundle counts one that went.
func (r *RollRecord) AddBundle(buckets, bytes int, hash uint64) {
	r.Bundles, r.Buckets, r.Bytes, r.Digest = r.Bundles+1, r.Buckets+uint64(buckets), r.Bytes+uint64(bytes), r.Digest+hash
}

// RemoveBundle undoes AddBundle.
func (r *RollRecord) RemoveBundle(buckets, bytes int, hash uint64) {
	r.Bundles, r.Buckets, r.Bytes, r.Digest = r.Bundles-1, r.Buckets-uint64(buckets), r.Bytes-uint64(bytes), r.Digest-hash
}
