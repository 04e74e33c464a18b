package format_test

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/archive/format"
	"varve/arrival"
)

// TestLayout pins every key and value byte by byte: docs/format quotes these. A
// change here is a new format version.
func TestLayout(t *testing.T) {
	f := func(name string, got []byte, want string) {
		t.Helper()
		require.Equal(t, want, hex.EncodeToString(got), name)
	}
	hot := format.HotKey{Day: 20000, Generation: 1, Slot: 11, Metric: 7, Ref: 0x1234, Sequence: 0x55}
	f("hot", hot.Append(nil), "80004e20"+"01"+"0b"+"00000007"+"0000000000001234"+"0000000000000055")
	before := format.HotKey{Day: -1}
	f("hot before 1970", before.Append(nil), "7fffffff"+"00"+"00"+"00000000"+"0000000000000000"+"0000000000000000")
	f("active", format.AppendActiveKey(nil, 20000, 0x010203), "80004e20"+"000000010203")
	f("index", format.AppendIndexKey(nil, 660, 9, 1), "8294"+"00000009"+"000000000001")
	ex := format.ExemplarKey{Metric: 7, Ref: 2, TimeMillis: 20000*format.DayMillis + 5, Sequence: 3}
	f("exemplar", ex.Append(nil), "80004e20"+"00000007"+"0000000000000002"+"00000005"+"0000000000000003")
	raw := format.RawKey{Day: 20000, Metric: 7, Last: 0x1234}
	f("raw", raw.Append(nil), "80004e20"+"00000007"+"0000000000001234"+"00000000")
	raw.From = format.DayMillis - 1
	f("raw, last ms", raw.Append(nil), "80004e20"+"00000007"+"0000000000001234"+"05265bff")
	clock := format.ClockKey{Window: 20000, Group: 2, Ordinal: 1}
	f("clock", clock.Append(nil), "00000000"+"80004e20"+"00000002"+"0001")
	f("day name", format.AppendDayName(nil, -1), "6461792f"+"7fffffff")
	day := format.DayRecord{Generation: 3, Folding: true, Metric: 7, Ref: 300, SealedMillis: 5, Bundles: 1, Samples: 200, Bytes: 9, Digest: 0x0102}
	f("day", day.Append(nil), "01"+"03"+"01"+"07"+"ac02"+"05"+"01"+"c801"+"09"+"0201000000000000")
	rollup := format.RollupKey{Resolution: 300_000, Day: 20000, Metric: 7, Last: 0x1234}
	f("rollup", rollup.Append(nil), "000493e0"+"80004e20"+"00000007"+"0000000000001234")
	f("dirty", format.AppendDirtyKey(nil, 300_000, 20000, 0x010203), "000493e0"+"80004e20"+"000000010203")
	f("expired", format.AppendExpiredKey(nil, 300_000, 20000, 0x010203), "000493e0"+"80004e20"+"000000010203")
	f("trim name", format.AppendTrimName(nil, -1), "7472696d2f"+"7fffffff")
	f("lease name", format.AppendLeaseName(nil, -1), "6c656173652f"+"7fffffff")
	floors := format.Floors{Series: -1, Levels: []format.LevelFloor{{Day: 20000}, {Resolution: 300_000, Day: -1}}}
	f("floors", floors.Append(nil), "01"+"7fffffff"+"02"+"00000000"+"80004e20"+"000493e0"+"7fffffff")
	f("roll name", format.AppendRollName(nil, 300_000, -1), "726f6c6c2f"+"000493e0"+"7fffffff")
	roll := format.RollRecord{Rolling: true, Metric: 7, Ref: 300, RolledMillis: 5, Bundles: 1, Buckets: 200, Bytes: 9, Digest: 0x0102}
	f("roll", roll.Append(nil), "01"+"01"+"07"+"ac02"+"05"+"01"+"c801"+"09"+"0201000000000000")
	f("pair", format.AppendPairKey(nil, 5), "70"+"00000005")
	f("text", format.AppendTextKey(nil, "job", "a"), "6e"+"03"+"6a6f62"+"61")
	f("group", format.AppendGroupKey(nil, 1, 2), "67"+"00000001"+"00000002")
	f("metadata", format.AppendMetadataKey(nil, "up", 1), "02"+"7570"+"8000000000000001")
	f("lookup", format.AppendLookupKey(nil, 1, 2), "0000000000000001"+"0000000000000002")
	s := format.Series{Metric: 1, Group: 2, CreatedMillis: 3, Pairs: []format.PairID{1, 200}}
	f("series", s.Append(nil), "01"+"01"+"02"+"06"+"02"+"01"+"c801")
	g := format.Group{ID: 1, First: 2, End: 18}
	f("group record", g.Append(nil), "010212")
	f("page record", format.AppendPageName(nil, 256), "706167652f"+"0000000000000100")
	f("pair record", format.AppendPair(nil, "job", "a"), "03"+"6a6f62"+"61")
}

// TestKeyOrder shows that the byte order of keys is the order of their fields, days
// before 1970 included, and that keys read back.
func TestKeyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() format.HotKey {
		return format.HotKey{
			Day: format.Day(r.IntN(5) - 2), Generation: format.Generation(r.IntN(3)), Slot: uint8(r.IntN(12)),
			Metric: format.PairID(r.IntN(3)), Ref: format.Ref(r.IntN(300)), Sequence: format.Sequence(r.IntN(300)),
		}
	}
	less := func(x, y format.HotKey) bool {
		for _, d := range []int64{
			int64(x.Day) - int64(y.Day), int64(x.Generation) - int64(y.Generation), int64(x.Slot) - int64(y.Slot),
			int64(x.Metric) - int64(y.Metric), int64(x.Ref) - int64(y.Ref), int64(x.Sequence) - int64(y.Sequence),
		} {
			if d != 0 {
				return d < 0
			}
		}
		return false
	}
	for range 10_000 {
		x, y := random(), random()
		bx, by := x.Append(nil), y.Append(nil)
		require.Equal(t, less(x, y), bytes.Compare(bx, by) < 0, "%+v %+v", x, y)
		back, err := format.ParseHotKey(bx)
		require.NoError(t, err)
		require.Equal(t, x, back)
	}
}

// TestCalendar holds days and months against package time over five millennia.
func TestCalendar(t *testing.T) {
	for _, ms := range []int64{format.MinTimeMillis, -1, 0, 1, format.MaxTimeMillis, 951782400000 - 1, 951782400000} {
		checkCalendar(t, ms)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		checkCalendar(t, format.MinTimeMillis+r.Int64N(format.MaxTimeMillis-format.MinTimeMillis))
	}
}

func checkCalendar(t *testing.T, ms int64) {
	at := time.UnixMilli(ms).UTC()
	midnight := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	first := time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)
	d := format.DayOf(ms)
	require.Equal(t, midnight.UnixMilli(), d.StartMillis())
	require.Equal(t, midnight.UnixMilli()+format.DayMillis, d.EndMillis())
	require.Equal(t, format.Month((at.Year()-1970)*12+int(at.Month())-1), d.Month())
	require.Equal(t, first.UnixMilli(), d.Month().FirstDay().StartMillis())
	require.Equal(t, uint8(at.Hour()/2), format.SlotOf(ms))
	require.Equal(t, midnight.UnixMilli()+int64(at.Hour()/2)*format.SlotMillis, format.SlotStart(ms))
}

// TestContainers shows that all three forms of a container read back, and that the
// form taken is the smallest.
func TestContainers(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, sparse := range []int{1, 2, 3, 17, 1000, 40_000} {
		for _, base := range []uint32{0, 65536, math.MaxUint32 &^ 65535} {
			set := roaring.New()
			for v := uint32(0); v < 65536; v += uint32(1 + r.IntN(sparse)) {
				set.Add(base + v)
			}
			form, ok := format.AppendContainer(nil, set, base)
			require.True(t, ok)
			require.LessOrEqual(t, len(form), 8193)
			back := roaring.New()
			require.NoError(t, format.AddContainer(back, form, base))
			require.True(t, back.Equals(set), "sparse %d base %d", sparse, base)
		}
	}
	full := roaring.New()
	full.AddRange(0, 65536)
	form, ok := format.AppendContainer(nil, full, 0)
	require.True(t, ok)
	require.Len(t, form, 5)
	_, ok = format.AppendContainer(nil, full, 65536)
	require.False(t, ok)
}

func sampleBatch(r *rand.Rand) *arrival.Batch {
	b := &arrival.Batch{}
	ref := storage.SeriesRef(1)
	for range 1 + r.IntN(50) {
		switch r.IntN(4) {
		case 0:
			ref += storage.SeriesRef(r.IntN(1000))
		case 1:
			ref = storage.SeriesRef(1 + r.IntN(1000))
		default:
			ref++
		}
		n := uint32(1)
		if r.IntN(5) == 0 {
			n = uint32(r.IntN(4))
		}
		b.Rows = append(b.Rows, arrival.Row{Ref: ref, First: uint32(len(b.Times)), Count: n})
		for range n {
			t := int64(1700000000000) + r.Int64N(3)
			if r.IntN(10) == 0 {
				t = -r.Int64N(1 << 50)
			}
			b.Times = append(b.Times, t)
			b.Values = append(b.Values, r.Uint64()>>r.IntN(64)<<r.IntN(64))
		}
	}
	return b
}

// TestJournal shows that a record with all kinds of sections reads back, and that
// each flipped bit of it is noticed.
func TestJournal(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for i := range 300 {
		b := sampleBatch(r)
		if i%2 == 1 {
			for range b.Times {
				b.Starts = append(b.Starts, int64(r.IntN(2))*(1700000000000-r.Int64N(1e9)))
			}
		}
		rec := record(b, i%3 == 0)
		h := &histogram.Histogram{Schema: 1, Count: 3, Sum: 4, ZeroThreshold: 0.1, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1}}
		rec = format.AppendHistogram(rec, 9, &arrival.Histogram{TimeMillis: 5, StartMillis: 1, Int: h})
		e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "x"), Value: math.Inf(1), Ts: 77, HasTs: true}
		rec = format.AppendJournalExemplar(rec, 9, &e)
		rec = format.AppendJournalMetadata(rec, "up", metadata.Metadata{Type: "gauge", Help: "h", Unit: "u"})
		stamp := format.JournalStamp{ArrivedMillis: -5, Samples: 1 << 40, Bytes: uint64(i)}
		rec = format.EndJournal(rec, 42, stamp)

		var j format.Journal
		require.NoError(t, j.Open(42, rec))
		require.Equal(t, i%3 == 0, j.Segment)
		require.Equal(t, stamp, j.Stamp)
		require.Equal(t, i%3 == 0, format.BeginsSegment(rec))
		alone, err := format.RecordStamp(rec)
		require.NoError(t, err)
		require.Equal(t, stamp, alone)
		kind, ok, err := j.Next()
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, len(b.Starts) > 0, kind == format.SectionFloatsWithStart)
		require.Equal(t, refs(b), j.Floats.Refs)
		require.Equal(t, append([]int64{}, b.Times...), append([]int64{}, j.Floats.Times...))
		require.Equal(t, append([]uint64{}, b.Values...), append([]uint64{}, j.Floats.XORs...))
		require.Equal(t, append([]int64{}, b.Starts...), append([]int64{}, j.Floats.Starts...))
		next(t, &j, format.SectionHistogram)
		require.Equal(t, h, j.Int)
		require.Equal(t, []int64{5, 1}, []int64{j.TimeMillis, j.Start})
		next(t, &j, format.SectionExemplar)
		require.True(t, e.Equals(j.Exemplar))
		next(t, &j, format.SectionMetadata)
		require.Equal(t, "up", j.Family)
		_, ok, err = j.Next()
		require.NoError(t, err)
		require.False(t, ok)

		bit := r.IntN(len(rec) * 8)
		rec[bit/8] ^= 1 << (bit % 8)
		require.ErrorIs(t, j.Open(42, rec), format.ErrCorrupt)
		rec[bit/8] ^= 1 << (bit % 8)
		require.ErrorIs(t, j.Open(43, rec), format.ErrCorrupt, "a record under another key")
	}
}

func next(t *testing.T, j *format.Journal, want format.SectionKind) {
	t.Helper()
	kind, ok, err := j.Next()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, want, kind)
}

func refs(b *arrival.Batch) []format.Ref {
	out := []format.Ref{}
	for _, row := range b.Rows {
		for range row.Count {
			out = append(out, row.Ref)
		}
	}
	return out
}

func record(b *arrival.Batch, segment bool) []byte {
	kind := format.SectionFloats
	if len(b.Starts) > 0 {
		kind = format.SectionFloatsWithStart
	}
	rec := format.BeginJournal(nil, segment)
	rec, at := format.BeginSection(rec, kind)
	rec = format.AppendFloatHead(rec, b)
	rec = format.AppendStarts(rec, b)
	o := len(rec)
	rec = append(rec, make([]byte, len(b.Values)*format.FloatValueSizeMax)...)
	for _, v := range b.Values {
		o = format.PutFloatValue(rec, o, v)
	}
	rec = rec[:o]
	format.EndSection(rec, at)
	return rec
}

// FuzzJournal shows that no record makes the reader panic or allocate beyond
// reason. The checksum is made right, so that the sections are reached.
func FuzzJournal(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 9))
	for range 5 {
		f.Add(record(sampleBatch(r), true))
	}
	h := &histogram.FloatHistogram{Schema: -53, CustomValues: []float64{1, 2}, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{2}, Count: 2}
	f.Add(format.AppendHistogram(format.BeginJournal(nil, false), 3, &arrival.Histogram{TimeMillis: 1, Float: h}))
	f.Fuzz(func(t *testing.T, body []byte) {
		rec := format.EndJournal(bytes.Clone(body), 1, format.JournalStamp{})
		var j format.Journal
		if j.Open(1, rec) != nil {
			return
		}
		for {
			_, ok, err := j.Next()
			if err != nil {
				require.ErrorIs(t, err, format.ErrCorrupt)
				return
			}
			if !ok {
				return
			}
		}
	})
}

// FuzzRecords shows that no bytes make the parsers of keys and small records panic,
// and that what they accept is written back as it was.
func FuzzRecords(f *testing.F) {
	hot := format.HotKey{Day: 3, Slot: 4, Metric: 5, Ref: 6, Sequence: 7}
	f.Add(hot.Append(nil))
	s := format.Series{Metric: 1, Group: 2, Pairs: []format.PairID{3, 4}}
	f.Add(s.Append(nil))
	day := format.DayRecord{Generation: 3, Folding: true, Metric: 7, Ref: 300, SealedMillis: -5, Bundles: 1}
	f.Add(day.Append(nil))
	raw := format.RawKey{Day: 3, Metric: 5, Last: 6}
	f.Add(raw.Append(nil))
	rollup := format.RollupKey{Resolution: 1, Day: 3, Metric: 5, Last: 6}
	f.Add(rollup.Append(nil))
	roll := format.RollRecord{Metric: 7, Ref: 300, RolledMillis: -5, Bundles: 1}
	f.Add(roll.Append(nil))
	f.Add(format.AppendRollName(nil, 1, 2))
	f.Add(format.AppendDirtyKey(nil, 1, 2, 3))
	f.Add(format.AppendMetadata(nil, metadata.Metadata{Type: "counter", Help: "x"}))
	f.Add([]byte{1, 0, 0, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := format.ParseHotKey(b); err == nil {
			require.Equal(t, b, k.Append(nil))
		}
		if k, err := format.ParseRawKey(b); err == nil {
			require.Equal(t, b, k.Append(nil))
		}
		if k, err := format.ParseRollupKey(b); err == nil {
			require.Equal(t, b, k.Append(nil))
		}
		if resolution, day, high, err := format.ParseDirtyKey(b); err == nil {
			require.Equal(t, b, format.AppendDirtyKey(nil, resolution, day, high))
		}
		if resolution, day, err := format.ParseRollName(b); err == nil {
			require.Equal(t, b[len(format.MetaRollPrefix):], format.AppendRollName(nil, resolution, day)[len(format.MetaRollPrefix):])
		}
		var roll format.RollRecord
		if roll.Parse(b) == nil {
			var back format.RollRecord
			require.NoError(t, back.Parse(roll.Append(nil)))
			require.Equal(t, roll, back)
		}
		if k, err := format.ParseClockKey(b); err == nil {
			require.Equal(t, b, k.Append(nil))
		}
		if d, err := format.ParseDayName(b); err == nil {
			require.Equal(t, b[len(format.MetaDayPrefix):], format.AppendDayName(nil, d)[len(format.MetaDayPrefix):])
		}
		var day format.DayRecord
		if day.Parse(b) == nil {
			var back format.DayRecord
			require.NoError(t, back.Parse(day.Append(nil)))
			require.Equal(t, day, back)
		}
		if k, err := format.ParseExemplarKey(b); err == nil && k.TimeMillis%format.DayMillis >= 0 {
			if format.DayOf(k.TimeMillis).StartMillis() <= k.TimeMillis {
				_ = k.Append(nil)
			}
		}
		if name, value, err := format.ParseTextKey(b); err == nil {
			_, _, err = format.ParseTextKey(format.AppendTextKey(nil, string(name), string(value)))
			require.NoError(t, err)
		}
		if m, p, h, err := format.ParseIndexKey(b); err == nil {
			require.Equal(t, b, format.AppendIndexKey(nil, m, p, h))
		}
		if d, h, err := format.ParseActiveKey(b); err == nil {
			require.Equal(t, b, format.AppendActiveKey(nil, d, h))
		}
		var s format.Series
		if s.Parse(b) == nil {
			var back format.Series
			require.NoError(t, back.Parse(s.Append(nil)))
			require.Equal(t, s, back)
		}
		set := roaring.New()
		if format.AddContainer(set, b, 65536) == nil && !set.IsEmpty() {
			form, ok := format.AppendContainer(nil, set, 65536)
			require.True(t, ok)
			back := roaring.New()
			require.NoError(t, format.AddContainer(back, form, 65536))
			require.True(t, back.Equals(set))
		}
		if m, err := format.ParseMetadata(b); err == nil {
			back, err := format.ParseMetadata(format.AppendMetadata(nil, m))
			require.NoError(t, err)
			require.Equal(t, m, back)
		}
		var e exemplar.Exemplar
		_ = format.ParseExemplar(b, &e)
		_, _ = format.ParseGroup(b)
		_, _, _ = format.ParseMetadataKey(b)
		_, _, _ = format.ParsePair(b)
	})
}

// TestPrefixEnd shows that the end of a prefix is behind all keys with it and none beyond.
func TestPrefixEnd(t *testing.T) {
	require.Equal(t, []byte{1, 3}, format.PrefixEnd([]byte{1, 2}))
	require.Equal(t, []byte{2}, format.PrefixEnd([]byte{1, 255}))
	require.Nil(t, format.PrefixEnd([]byte{255, 255}))
}

// TestRollupFamilies shows that resolutions go to families in their order, the usual ones to one each, and that each family is named
// by the shortest of its own.
func TestRollupFamilies(t *testing.T) {
	f := func(resolution time.Duration, want string) {
		t.Helper()
		require.Equal(t, want, format.FamilyNames[format.RollupFamily(uint32(resolution.Milliseconds()))])
	}
	f(time.Millisecond, "rollups_1ms")
	f(time.Minute, "rollups_1ms")
	f(2*time.Minute, "rollups_2m")
	f(5*time.Minute, "rollups_2m")
	f(15*time.Minute-time.Millisecond, "rollups_2m")
	f(15*time.Minute, "rollups_15m")
	f(time.Hour, "rollups_15m")
	f(6*time.Hour, "rollups_2h")
	f(24*time.Hour, "rollups_12h")
	f(math.MaxUint32*time.Millisecond, "rollups_12h")
	require.Len(t, format.RollupFamilies(), 5)
	for _, family := range format.RollupFamilies() {
		require.Contains(t, format.FamilyNames[family], "rollups_")
	}
	for i, name := range format.FamilyNames {
		require.NotEmpty(t, name, i)
	}
}
