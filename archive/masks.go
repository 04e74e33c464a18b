package archive

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
)

// mask is what a tombstone hides: samples of some series on some days, with a time from
// mint to maxt, both inclusive, that arrived before the sequence. Immutable.
type mask struct {
	id         format.TombstoneID
	sequence   format.Sequence
	mint, maxt int64
	days       []format.DayRange // ascending
	refs       *roaring.Bitmap
}

func newMask(id format.TombstoneID, t *format.Tombstone) *mask {
	return &mask{id: id, sequence: t.Sequence, mint: t.FromMillis, maxt: t.ToMillis, days: t.Days, refs: t.Refs}
}

// on tells whether the mask hides anything on the day.
func (m *mask) on(day format.Day) bool {
	i, found := slices.BinarySearchFunc(m.days, day, func(r format.DayRange, d format.Day) int { return int(r.First) - int(d) })
	return found || i > 0 && m.days[i-1].Last >= day
}

// span is the stretch of the day that the mask hides.
func (m *mask) span(day format.Day) chunk.Span {
	return chunk.Span{FromMillis: max(m.mint, day.StartMillis()), ToMillis: min(m.maxt, day.EndMillis()-1)}
}

// masks is what all tombstones of a moment hide. A view takes it when it is opened. It doesn't
// change, and is safe for use by several goroutines.
type masks struct {
	all    []*mask
	byPage map[format.Ref][]*mask // by the first ref of a page
	// seen are the sightings of views with these masks: they differ from those of others.
	seen *sightings

	mu sync.Mutex
	// onDay remembers what refsOn found.
	onDay map[format.Day]*roaring.Bitmap
}

func newMasks(all []*mask, seen *sightings) *masks {
	m := &masks{all: all, seen: seen, byPage: map[format.Ref][]*mask{}, onDay: map[format.Day]*roaring.Bitmap{}}
	for _, k := range all {
		eachPage(k.refs, func(first format.Ref) { m.byPage[first] = append(m.byPage[first], k) })
	}
	return m
}

// eachPage calls f for each page of refs that has some of the set, with its first ref.
func eachPage(refs *roaring.Bitmap, f func(first format.Ref)) {
	for it := refs.Iterator(); it.HasNext(); {
		first := it.PeekNext() &^ (pageSize - 1)
		f(format.Ref(first))
		if first > math.MaxUint32-pageSize {
			return
		}
		it.AdvanceIfNeeded(first + pageSize)
	}
}

// none tells that nothing is hidden.
func (m *masks) none() bool { return m == nil || len(m.all) == 0 }

// of returns the masks of a series, nil for nearly all.
func (m *masks) of(ref format.Ref) seriesMasks {
	if m.none() {
		return nil
	}
	var own seriesMasks
	for _, k := range m.byPage[ref&^(pageSize-1)] {
		if k.refs.Contains(uint32(ref)) {
			own = append(own, k)
		}
	}
	return own
}

// refsOn returns the series of which something may be hidden on the day. It is for reading.
func (m *masks) refsOn(day format.Day) *roaring.Bitmap {
	m.mu.Lock()
	defer m.mu.Unlock()
	if set := m.onDay[day]; set != nil {
		return set
	}
	set := roaring.New()
	for _, k := range m.all {
		if k.on(day) {
			set.Or(k.refs)
		}
	}
	m.onDay[day] = set
	return set
}

// days returns the days from first to last, both inclusive, on which something may be
// hidden, in order.
func (m *masks) days(first, last format.Day) []format.Day {
	if m.none() {
		return nil
	}
	found := map[format.Day]struct{}{}
	for _, k := range m.all {
		for _, r := range k.days {
			for d := max(r.First, first); d <= min(r.Last, last); d++ {
				found[d] = struct{}{}
			}
		}
	}
	out := make([]format.Day, 0, len(found))
	for d := range found {
		out = append(out, d)
	}
	slices.Sort(out)
	return out
}

// seriesMasks are the masks of one series.
type seriesMasks []*mask

// sealedSequence stands for samples in bundles: a day under a tombstone is not sealed, so they
// arrived before any.
const sealedSequence format.Sequence = 0

// spans are the stretches of the day that are hidden of what arrived as part of the sequence.
// Runs have the sequence of their key, bundles sealedSequence.
func (s seriesMasks) spans(day format.Day, sequence format.Sequence) chunk.Spans {
	var out chunk.Spans
	for _, m := range s {
		if sequence < m.sequence && m.on(day) {
			out = append(out, m.span(day))
		}
	}
	if len(out) < 2 {
		return out
	}
	slices.SortFunc(out, func(x, y chunk.Span) int { return cmp.Compare(x.FromMillis, y.FromMillis) })
	n := 0
	for _, next := range out[1:] {
		if next.FromMillis <= out[n].ToMillis+1 {
			out[n].ToMillis = max(out[n].ToMillis, next.ToMillis)
			continue
		}
		n++
		out[n] = next
	}
	return out[:n+1]
}

// hide appends to dst the pieces, which arrived as part of the sequence, without what is hidden of
// them. A piece lies on one day. dst may end where pieces begins.
func (s seriesMasks) hide(dst, pieces []chunk.Piece, sequence format.Sequence) []chunk.Piece {
	if len(s) == 0 {
		return append(dst, pieces...)
	}
	var spans chunk.Spans
	for i, p := range pieces {
		if day := format.DayOf(p.MinMillis); i == 0 || day != format.DayOf(pieces[i-1].MinMillis) {
			spans = s.spans(day, sequence)
		}
		if p.Hidden = within(spans, p.MinMillis, p.MaxMillis); p.Hidden != nil {
			if h := (*p.Hidden)[0]; h.FromMillis <= p.MinMillis && h.ToMillis >= p.MaxMillis {
				continue
			}
		}
		dst = append(dst, p)
	}
	return dst
}

// within returns the spans that reach between mint and maxt, nil if none does.
func within(spans chunk.Spans, mint, maxt int64) *chunk.Spans {
	for len(spans) > 0 && spans[0].ToMillis < mint {
		spans = spans[1:]
	}
	for len(spans) > 0 && spans[len(spans)-1].FromMillis > maxt {
		spans = spans[:len(spans)-1]
	}
	if len(spans) == 0 {
		return nil
	}
	return &spans
}

// hides tells whether a sample at the time that arrived as part of the sequence is hidden.
func (s seriesMasks) hides(t int64, sequence format.Sequence) bool { return s.first(t, sequence) >= 0 }

// first is the place of the first mask that hides a sample at the time, -1 if none does.
func (s seriesMasks) first(t int64, sequence format.Sequence) int {
	return slices.IndexFunc(s, func(m *mask) bool {
		return sequence < m.sequence && t >= m.mint && t <= m.maxt && m.on(format.DayOf(t))
	})
}

// touch tells whether something of the day may be hidden, or of the first millisecond of the
// next one, which belongs to the day's last bucket.
func (s seriesMasks) touch(day format.Day) bool {
	return slices.ContainsFunc(s, func(m *mask) bool {
		return m.on(day) || m.mint <= day.EndMillis() && m.maxt >= day.EndMillis() && m.on(day+1)
	})
}

// hidesSealed tells whether nothing of what is sealed of the series can be seen between mint and maxt,
// both inclusive and on the day.
func (s seriesMasks) hidesSealed(day format.Day, mint, maxt int64) bool {
	if len(s) == 0 {
		return false
	}
	return slices.ContainsFunc(s.spans(day, sealedSequence), func(h chunk.Span) bool { return h.FromMillis <= mint && h.ToMillis >= maxt })
}
