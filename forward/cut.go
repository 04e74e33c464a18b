package forward

import (
	"slices"

	"github.com/prometheus/prometheus/model/metadata"

	"varve/archive"
)

// sharesMax is how many reads a batch may have parts of: their places fit an uint16.
const sharesMax = 1 << 16

// share is what a batch has of one read.
type share struct {
	read           *read
	items, samples int64
	tally          archive.Tally // without Sent
	dropped        bool          // something of it was over the limits
}

// place says where in the batch's arrays the samples of a series begin.
type place struct{ float, histogram int32 }

// batch is what is sent at once, grouped by target. Its arrays are used again for the next batch of the shard.
type batch struct {
	shares []share
	bytes  int64

	series []Series
	// owners and places go with series.
	owners []*target
	places []place
	// floats are those of all series one after the other, and floatShares the shares that they are of. Histograms likewise.
	floats          []Float
	floatShares     []uint16
	histograms      []Histogram
	histogramShares []uint16
	families        []FamilyMetadata
	// superseded samples have another one at the same time that arrived later.
	superseded int

	// Scratch: what was cut, in the order of arrival, with the slot of its series, and how many a slot has.
	cutFloats    []Float
	cutShares    []uint16
	slots        []int32
	counts       []place
	cutExemplars []slotExemplar
	cutHists     []slotHistogram
}

type slotExemplar struct {
	slot int32
	targetExemplar
}

type slotHistogram struct {
	slot  int32
	share uint16
	Histogram
}

func (b *batch) reset() {
	clear(b.series)
	clear(b.owners)
	clear(b.histograms)
	clear(b.families)
	clear(b.cutExemplars)
	clear(b.cutHists)
	clear(b.shares)
	*b = batch{
		shares: b.shares[:0], series: b.series[:0], owners: b.owners[:0], places: b.places[:0],
		floats: b.floats[:0], floatShares: b.floatShares[:0], histograms: b.histograms[:0], histogramShares: b.histogramShares[:0],
		families: b.families[:0], cutFloats: b.cutFloats[:0], cutShares: b.cutShares[:0], slots: b.slots[:0], counts: b.counts[:0],
		cutExemplars: b.cutExemplars[:0], cutHists: b.cutHists[:0],
	}
}

// gather cuts up to most items off the front of the parts, and returns the parts that something is left of. id is no other batch's.
func (b *batch) gather(id uint64, held []*part, most int) []*part {
	b.reset()
	whole := 0
	for whole < len(held) && most > 0 && len(b.shares) < sharesMax {
		p := held[whole]
		most -= b.take(id, p, most)
		if p.left() == 0 {
			b.bytes += partBytes
			p.recycle()
			whole++
		}
	}
	return slices.Delete(held, 0, whole)
}

// take cuts up to most items off a part and returns how many. The order of floats and histograms of one series is not known here: a series is
// of one kind but for the moment when it changes.
func (b *batch) take(id uint64, p *part, most int) int {
	at := uint16(len(b.shares))
	s := share{read: p.read}
	floats := min(most, len(p.floats)-p.cut.floats)
	b.cutFloats = append(b.cutFloats, p.floats[p.cut.floats:p.cut.floats+floats]...)
	for _, t := range p.targets[p.cut.floats : p.cut.floats+floats] {
		slot := b.slot(id, t)
		b.counts[slot].float++
		b.slots = append(b.slots, slot)
		b.cutShares = append(b.cutShares, at)
	}
	p.cut.floats += floats
	b.bytes += int64(floats) * floatBytes
	n := floats
	for ; n < most && p.cut.histograms < len(p.histograms); n++ {
		h := &p.histograms[p.cut.histograms]
		slot := b.slot(id, h.target)
		b.counts[slot].histogram++
		b.cutHists = append(b.cutHists, slotHistogram{slot, at, h.Histogram})
		b.bytes += histogramBytes(&h.Histogram)
		p.cut.histograms++
	}
	s.samples = int64(n)
	for ; n < most && p.cut.exemplars < len(p.exemplars); n++ {
		e := p.exemplars[p.cut.exemplars]
		b.cutExemplars = append(b.cutExemplars, slotExemplar{b.slot(id, e.target), e})
		b.bytes += exemplarBytes
		p.cut.exemplars++
	}
	for ; n < most && p.cut.families < len(p.families); n++ {
		b.families = append(b.families, p.families[p.cut.families])
		b.bytes += familyBytes
		p.cut.families++
	}
	s.items = int64(n)
	b.shares = append(b.shares, s)
	return n
}

// slot is the index of a target's series in the batch.
func (b *batch) slot(id uint64, t *target) int32 {
	if t.batch != id {
		t.batch, t.slot = id, int32(len(b.owners))
		b.owners = append(b.owners, t)
		b.counts = append(b.counts, place{})
	}
	return t.slot
}

// group makes series of what was gathered.
func (b *batch) group(known func(t *target) metadata.Metadata) {
	var next place
	for _, c := range b.counts {
		b.places = append(b.places, next)
		next.float += c.float
		next.histogram += c.histogram
	}
	b.groupFloats()
	b.groupHistograms()
	b.series = slices.Grow(b.series, len(b.owners))
	for i, t := range b.owners {
		at, n := b.places[i], b.counts[i]
		b.series = append(b.series, Series{
			Target: &t.Target, Metadata: known(t),
			Floats:     b.floats[at.float : at.float+n.float : at.float+n.float],
			Histograms: b.histograms[at.histogram : at.histogram+n.histogram : at.histogram+n.histogram],
		})
		if n.float > 1 || n.histogram > 1 {
			b.tidy(i)
		}
	}
	for i := range b.cutExemplars {
		e := &b.cutExemplars[i]
		s := &b.series[e.slot]
		s.Exemplars = append(s.Exemplars, e.Exemplar)
	}
}

func (b *batch) groupFloats() {
	n := len(b.cutFloats)
	if len(b.owners) == n && len(b.cutHists) == 0 && len(b.cutExemplars) == 0 {
		// Each has one: they are grouped as they are.
		b.floats, b.cutFloats = b.cutFloats, b.floats
		b.floatShares, b.cutShares = b.cutShares, b.floatShares
		return
	}
	b.floats = slices.Grow(b.floats, n)[:n]
	b.floatShares = slices.Grow(b.floatShares, n)[:n]
	for i, slot := range b.slots {
		to := &b.places[slot].float
		b.floats[*to], b.floatShares[*to] = b.cutFloats[i], b.cutShares[i]
		*to++
	}
	for i := range b.places {
		b.places[i].float -= b.counts[i].float
	}
}

func (b *batch) groupHistograms() {
	n := len(b.cutHists)
	if n == 0 {
		return
	}
	b.histograms = slices.Grow(b.histograms, n)[:n]
	b.histogramShares = slices.Grow(b.histogramShares, n)[:n]
	for i := range b.cutHists {
		h := &b.cutHists[i]
		to := &b.places[h.slot].histogram
		b.histograms[*to], b.histogramShares[*to] = h.Histogram, h.share
		*to++
	}
	for i := range b.places {
		b.places[i].histogram -= b.counts[i].histogram
	}
}

// tidy makes the samples of a series ascend by time. Of those at one time the last that arrived stays.
func (b *batch) tidy(i int) {
	s, at := &b.series[i], b.places[i]
	s.Floats = ascending(b, s.Floats, b.floatShares[at.float:], func(f *Float) int64 { return f.TimeMillis })
	s.Histograms = ascending(b, s.Histograms, b.histogramShares[min(int(at.histogram), len(b.histogramShares)):], func(h *Histogram) int64 { return h.TimeMillis })
}

func ascending[T any](b *batch, samples []T, shares []uint16, at func(*T) int64) []T {
	sorted := true
	for i := 1; i < len(samples); i++ {
		if at(&samples[i-1]) >= at(&samples[i]) {
			sorted = false
			break
		}
	}
	if sorted {
		return samples
	}
	type sharedSample struct {
		sample T
		share  uint16
	}
	all := make([]sharedSample, len(samples))
	for i := range samples {
		all[i] = sharedSample{samples[i], shares[i]}
	}
	slices.SortStableFunc(all, func(x, y sharedSample) int {
		tx, ty := at(&x.sample), at(&y.sample)
		switch {
		case tx < ty:
			return -1
		case tx > ty:
			return 1
		}
		return 0
	})
	n := 0
	for i := range all {
		if i+1 < len(all) && at(&all[i].sample) == at(&all[i+1].sample) {
			b.shares[all[i].share].tally.Filtered++
			b.superseded++
			continue
		}
		samples[n], shares[n] = all[i].sample, all[i].share
		n++
	}
	return samples[:n]
}
