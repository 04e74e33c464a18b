package format

import "encoding/binary"

// Floors tell from which day on data is kept for all series. What lies before a floor has expired: it is not
// read any more, and is removed or about to be. Floors that are not there expired nothing.
type Floors struct {
	// Series is the first day of which the index is kept: the lowest of the others.
	Series Day
	// Levels are ascending by resolution.
	Levels []LevelFloor
}

// LevelFloor is the first day that is kept of samples, or of the buckets of a resolution.
type LevelFloor struct {
	// Resolution is the length of a bucket in milliseconds, 0 for samples.
	Resolution uint32
	Day        Day
}

const floorsVersion = 1

// Of returns the first day that is kept at the resolution, 0 for samples: MinDay if none expired.
func (f *Floors) Of(resolution uint32) Day {
	for _, l := range f.Levels {
		if l.Resolution == resolution {
			return l.Day
		}
	}
	return MinDay
}

// Append appends the record.
func (f *Floors) Append(dst []byte) []byte {
	dst = appendDay(append(dst, floorsVersion), f.Series)
	dst = binary.AppendUvarint(dst, uint64(len(f.Levels)))
	for _, l := range f.Levels {
		dst = appendDay(binary.BigEndian.AppendUint32(dst, l.Resolution), l.Day)
	}
	return dst
}

// levelFloorSize is the length of a floor in the record.
const levelFloorSize = 8

// Parse reads a record.
func (f *Floors) Parse(b []byte) error {
	if len(b) < 5 || b[0] != floorsVersion {
		return corrupt("floors of %d bytes begin with %x", len(b), b[:min(1, len(b))])
	}
	*f = Floors{Series: parseDay(b[1:])}
	rest := reader{b: b[5:]}
	n := rest.uvarint()
	if rest.bad || uint64(len(rest.b)) != n*levelFloorSize || n > uint64(len(b)) {
		return corrupt("floors of %d levels in %d bytes", n, len(b))
	}
	for i := range int(n) {
		at := rest.b[i*levelFloorSize:]
		l := LevelFloor{Resolution: binary.BigEndian.Uint32(at), Day: parseDay(at[4:])}
		if i > 0 && l.Resolution <= f.Levels[i-1].Resolution {
			return corrupt("floors of %d ms behind those of %d ms", l.Resolution, f.Levels[i-1].Resolution)
		}
		f.Levels = append(f.Levels, l)
	}
	return nil
}

// AppendTrimName appends the name of the record of a day from which rules remove series.
func AppendTrimName(dst []byte, d Day) []byte { return appendDay(append(dst, MetaTrimPrefix...), d) }

// ParseTrimName reads what AppendTrimName wrote.
func ParseTrimName(name []byte) (Day, error) {
	if len(name) != len(MetaTrimPrefix)+4 {
		return 0, corrupt("name of a trim record of %d bytes", len(name))
	}
	return parseDay(name[len(MetaTrimPrefix):]), nil
}

// AppendExpiredDay appends what the keys of the containers of one day at a resolution begin with in the family
// expired. The resolution is that of a bucket in ms, 0 for samples.
func AppendExpiredDay(dst []byte, resolution uint32, d Day) []byte {
	return AppendRollupDay(dst, resolution, d)
}

// AppendExpiredKey appends the key of the container of refs of which a rule removed the samples, or the
// buckets, of a day. ParseDirtyKey reads it.
func AppendExpiredKey(dst []byte, resolution uint32, d Day, high uint64) []byte {
	return AppendDirtyKey(dst, resolution, d, high)
}
