package format

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/storage"
)

// PairID numbers a label pair (name and value) from 1. The pair of a metric name
// is also the metric's id: there is no second numbering.
type PairID uint32

// GroupID numbers a group of series, those that are scraped together.
type GroupID uint32

// Sequence numbers the records of the journal from 1.
type Sequence uint64

// Ref is the ordinal of a series, from 1.
type Ref = storage.SeriesRef

// Generation counts how often the sealing of a day was begun. It goes from 255 to 0:
// at most two generations of a day have runs at any time, so it only tells them apart.
type Generation uint8

func appendDay(dst []byte, d Day) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(int64(d)+dayBias))
}

func parseDay(b []byte) Day { return Day(int64(binary.BigEndian.Uint32(b)) - dayBias) }

func appendMonth(dst []byte, m Month) []byte {
	return binary.BigEndian.AppendUint16(dst, uint16(int32(m)+monthBias))
}

func appendUint48(dst []byte, v uint64) []byte {
	return append(dst, byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func parseUint48(b []byte) uint64 {
	return uint64(b[0])<<40 | uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
}

// AppendUint64 appends v big endian: the form of the numbers in meta and of
// the keys of series and journal.
func AppendUint64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

// ParseUint64 reads what AppendUint64 wrote.
func ParseUint64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, corrupt("number of %d bytes, want 8", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// AppendLookupKey appends the key of a label set in the lookup family.
func AppendLookupKey(dst []byte, hi, lo uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, hi), lo)
}

// The symbols family holds three kinds of records, told apart by the first byte.
const (
	symbolByID   = 'p'
	symbolByText = 'n'
	symbolGroup  = 'g'
)

// AppendPairKey appends the key under which the text of a pair is found.
func AppendPairKey(dst []byte, id PairID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, symbolByID), uint32(id))
}

// ParsePairKey reads what AppendPairKey wrote. ok is false for other kinds of records.
func ParsePairKey(key []byte) (id PairID, ok bool) {
	if len(key) != 5 || key[0] != symbolByID {
		return 0, false
	}
	return PairID(binary.BigEndian.Uint32(key[1:])), true
}

// AppendNamePrefix appends what the text keys of all pairs of one label name
// begin with. The length of the name comes first, so that no name is a prefix of another.
func AppendNamePrefix(dst []byte, name string) []byte {
	dst = append(dst, symbolByText)
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	return append(dst, name...)
}

// AppendTextKey appends the key under which the id of a pair is found.
func AppendTextKey(dst []byte, name, value string) []byte {
	return append(AppendNamePrefix(dst, name), value...)
}

// ParseTextKey reads what AppendTextKey wrote. The results alias key.
func ParseTextKey(key []byte) (name, value []byte, err error) {
	if len(key) == 0 || key[0] != symbolByText {
		return nil, nil, corrupt("symbol key of kind %q", key[:min(1, len(key))])
	}
	n, w := binary.Uvarint(key[1:])
	if w <= 0 || n > uint64(len(key)-1-w) {
		return nil, nil, corrupt("symbol key with a name of %d bytes in %d", n, len(key))
	}
	rest := key[1+w:]
	return rest[:n], rest[n:], nil
}

// AppendGroupKey appends the key of the group that a job and an instance make.
// A pair id of zero stands for a label that the series lacks.
func AppendGroupKey(dst []byte, job, instance PairID) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, symbolGroup), uint32(job))
	return binary.BigEndian.AppendUint32(dst, uint32(instance))
}

// ParseGroupKey reads what AppendGroupKey wrote. ok is false for other kinds of records.
func ParseGroupKey(key []byte) (job, instance PairID, ok bool) {
	if len(key) != 9 || key[0] != symbolGroup {
		return 0, 0, false
	}
	return PairID(binary.BigEndian.Uint32(key[1:])), PairID(binary.BigEndian.Uint32(key[5:])), true
}

// SymbolGroups is the range of the keys of all groups: from lower on, before upper.
func SymbolGroups() (lower, upper []byte) { return []byte{symbolGroup}, []byte{symbolGroup + 1} }

// AppendMetadataKey appends the key of what was said of a metric family from
// since (Unix ms) on. A family need not be the name of a series, so it has no pair id.
func AppendMetadataKey(dst []byte, metricFamily string, since int64) []byte {
	dst = appendText(dst, metricFamily)
	return binary.BigEndian.AppendUint64(dst, uint64(since)^1<<63)
}

// ParseMetadataKey reads what AppendMetadataKey wrote.
func ParseMetadataKey(key []byte) (metricFamily string, since int64, err error) {
	r := reader{b: key}
	metricFamily = r.text()
	if r.bad || len(r.b) != 8 {
		return "", 0, corrupt("metadata key of %d bytes", len(key))
	}
	return metricFamily, int64(binary.BigEndian.Uint64(r.b) ^ 1<<63), nil
}

// AppendIndexPrefix appends what the keys of one pair's postings in one month begin with.
func AppendIndexPrefix(dst []byte, m Month, pair PairID) []byte {
	return binary.BigEndian.AppendUint32(appendMonth(dst, m), uint32(pair))
}

// AppendIndexKey appends the key of the container that holds the refs high<<16 to high<<16+65535.
func AppendIndexKey(dst []byte, m Month, pair PairID, high uint64) []byte {
	return appendUint48(AppendIndexPrefix(dst, m, pair), high)
}

// AppendMonthPrefix appends what the index keys of one month begin with.
func AppendMonthPrefix(dst []byte, m Month) []byte { return appendMonth(dst, m) }

// ParseIndexKey reads what AppendIndexKey wrote.
func ParseIndexKey(key []byte) (m Month, pair PairID, high uint64, err error) {
	if len(key) != 12 {
		return 0, 0, 0, corrupt("index key of %d bytes, want 12", len(key))
	}
	return Month(int32(binary.BigEndian.Uint16(key)) - monthBias), PairID(binary.BigEndian.Uint32(key[2:])), parseUint48(key[6:]), nil
}

// AppendDayPrefix appends what the active, hot and exemplar keys of one day begin with.
func AppendDayPrefix(dst []byte, d Day) []byte { return appendDay(dst, d) }

// AppendActiveKey appends the key of the container of refs that have samples on a day.
func AppendActiveKey(dst []byte, d Day, high uint64) []byte {
	return appendUint48(appendDay(dst, d), high)
}

// ParseActiveKey reads what AppendActiveKey wrote.
func ParseActiveKey(key []byte) (d Day, high uint64, err error) {
	if len(key) != 10 {
		return 0, 0, corrupt("active key of %d bytes, want 10", len(key))
	}
	return parseDay(key), parseUint48(key[4:]), nil
}

// HotKey names a run. Sequence is that of the commit which wrote the run, so
// that of two runs of a series the one with the higher sequence holds the later arrivals.
type HotKey struct {
	Day        Day
	Generation Generation
	Slot       uint8
	Metric     PairID
	Ref        Ref
	Sequence   Sequence
}

// HotKeySize is the length of a run's key.
const HotKeySize = 26

// Append appends the key.
func (k *HotKey) Append(dst []byte) []byte {
	dst = AppendHotPrefix(dst, k.Day, k.Generation, k.Slot, k.Metric)
	dst = binary.BigEndian.AppendUint64(dst, uint64(k.Ref))
	return binary.BigEndian.AppendUint64(dst, uint64(k.Sequence))
}

// AppendHotPrefix appends what the keys of one metric's runs in one slot begin with.
func AppendHotPrefix(dst []byte, d Day, g Generation, slot uint8, metric PairID) []byte {
	dst = append(appendDay(dst, d), byte(g), slot)
	return binary.BigEndian.AppendUint32(dst, uint32(metric))
}

// AppendGenerationPrefix appends what the keys of one day's runs of one generation begin with.
func AppendGenerationPrefix(dst []byte, d Day, g Generation) []byte {
	return append(appendDay(dst, d), byte(g))
}

// HotPrefixSize is the length of what AppendHotPrefix appends.
const HotPrefixSize = 10

// ParseHotKey reads a run's key.
func ParseHotKey(key []byte) (HotKey, error) {
	if len(key) != HotKeySize {
		return HotKey{}, corrupt("hot key of %d bytes, want %d", len(key), HotKeySize)
	}
	if key[5] >= SlotsPerDay {
		return HotKey{}, corrupt("hot key with slot %d", key[5])
	}
	return HotKey{
		Day:        parseDay(key),
		Generation: Generation(key[4]),
		Slot:       key[5],
		Metric:     PairID(binary.BigEndian.Uint32(key[6:])),
		Ref:        Ref(binary.BigEndian.Uint64(key[10:])),
		Sequence:   Sequence(binary.BigEndian.Uint64(key[18:])),
	}, nil
}

// RawKey names a bundle: the sealed chunks of one metric's series on one day, up to
// and including Last, behind the bundle before. A series with too many samples for
// one chunk has bundles of its own, one for each stretch of the day, told apart by From.
type RawKey struct {
	Day    Day
	Metric PairID
	// Last is the highest ref in the bundle, so that a seek to (day, metric, ref) finds
	// the bundle that the ref is in, if it is in any.
	Last Ref
	// From is the first millisecond of the stretch, counted from the start of the day.
	From uint32
}

// AppendRawPrefix appends what the keys of one metric's bundles on one day begin with.
func AppendRawPrefix(dst []byte, d Day, metric PairID) []byte { return appendDayMetric(dst, d, metric) }

func appendDayMetric(dst []byte, d Day, metric PairID) []byte {
	return binary.BigEndian.AppendUint32(appendDay(dst, d), uint32(metric))
}

// RawKeySize is the length of a bundle's key.
const RawKeySize = 20

// Append appends the key.
func (k *RawKey) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(AppendRawPrefix(dst, k.Day, k.Metric), uint64(k.Last))
	return binary.BigEndian.AppendUint32(dst, k.From)
}

// ParseRawKey reads a bundle's key.
func ParseRawKey(key []byte) (RawKey, error) {
	if len(key) != RawKeySize {
		return RawKey{}, corrupt("raw key of %d bytes, want %d", len(key), RawKeySize)
	}
	k := RawKey{
		Day: parseDay(key), Metric: PairID(binary.BigEndian.Uint32(key[4:])),
		Last: Ref(binary.BigEndian.Uint64(key[8:])), From: binary.BigEndian.Uint32(key[16:]),
	}
	if k.From >= DayMillis {
		return RawKey{}, corrupt("raw key with a stretch from ms %d of the day", k.From)
	}
	return k, nil
}

// ClockKey names a clock: timestamps that series of a group share in a window.
type ClockKey struct {
	// Resolution is the distance of the window's samples in milliseconds, zero for raw.
	Resolution uint32
	// Window is the number of the window among those of the resolution; a raw one is a day.
	Window  Day
	Group   GroupID
	Ordinal uint16
}

// ClockKeySize is the length of a clock's key.
const ClockKeySize = 14

// Append appends the key.
func (k *ClockKey) Append(dst []byte) []byte {
	dst = AppendClockPrefix(dst, k.Resolution, k.Window, k.Group)
	return binary.BigEndian.AppendUint16(dst, k.Ordinal)
}

// AppendClockPrefix appends what the keys of a group's clocks in a window begin with.
func AppendClockPrefix(dst []byte, resolution uint32, window Day, g GroupID) []byte {
	dst = appendDay(binary.BigEndian.AppendUint32(dst, resolution), window)
	return binary.BigEndian.AppendUint32(dst, uint32(g))
}

// ParseClockKey reads a clock's key.
func ParseClockKey(key []byte) (ClockKey, error) {
	if len(key) != ClockKeySize {
		return ClockKey{}, corrupt("clock key of %d bytes, want %d", len(key), ClockKeySize)
	}
	return ClockKey{
		Resolution: binary.BigEndian.Uint32(key), Window: parseDay(key[4:]),
		Group: GroupID(binary.BigEndian.Uint32(key[8:])), Ordinal: binary.BigEndian.Uint16(key[12:]),
	}, nil
}

// ExemplarKey names an exemplar.
type ExemplarKey struct {
	Metric     PairID
	Ref        Ref
	TimeMillis int64
	Sequence   Sequence
}

// ExemplarKeySize is the length of an exemplar's key.
const ExemplarKeySize = 28

// Append appends the key.
func (k *ExemplarKey) Append(dst []byte) []byte {
	d := DayOf(k.TimeMillis)
	dst = AppendExemplarPrefix(dst, d, k.Metric, k.Ref)
	dst = binary.BigEndian.AppendUint32(dst, uint32(k.TimeMillis-d.StartMillis()))
	return binary.BigEndian.AppendUint64(dst, uint64(k.Sequence))
}

// AppendExemplarPrefix appends what the exemplar keys of one series on one day begin with.
func AppendExemplarPrefix(dst []byte, d Day, metric PairID, ref Ref) []byte {
	return binary.BigEndian.AppendUint64(appendDayMetric(dst, d, metric), uint64(ref))
}

// ParseExemplarKey reads an exemplar's key.
func ParseExemplarKey(key []byte) (ExemplarKey, error) {
	if len(key) != ExemplarKeySize {
		return ExemplarKey{}, corrupt("exemplar key of %d bytes, want %d", len(key), ExemplarKeySize)
	}
	return ExemplarKey{
		Metric:     PairID(binary.BigEndian.Uint32(key[4:])),
		Ref:        Ref(binary.BigEndian.Uint64(key[8:])),
		TimeMillis: parseDay(key).StartMillis() + int64(binary.BigEndian.Uint32(key[16:])),
		Sequence:   Sequence(binary.BigEndian.Uint64(key[20:])),
	}, nil
}

// PrefixEnd returns the first key behind all keys that begin with prefix, nil
// when there is none. The result is a copy.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
