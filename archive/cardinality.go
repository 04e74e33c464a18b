package archive

import (
	"context"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
	"varve/rocks"
)

// CardinalityRequest asks how series and bytes are spread over labels and their values.
type CardinalityRequest struct {
	// Label is the one whose values are listed; empty lists the labels.
	Label string
	// Matchers narrow the series to those that one of the selectors matches; none for all.
	Matchers [][]*labels.Matcher
	// Days is how many days, up to today, are looked at: from 1 to CardinalityDaysMax.
	Days int
	// BySeries sorts by series instead of bytes. Limit bounds the list.
	BySeries bool
	Limit    int
}

// CardinalityDaysMax is the greatest number of days of a CardinalityRequest.
const CardinalityDaysMax = 366

// Cardinality is the answer.
type Cardinality struct {
	// Series have samples on one of the days and match. Bytes is about what their samples of these days take on disk.
	Series, Bytes uint64
	// Days have samples.
	Days int
	// Entries are the values of the label, or the labels, the greatest first; Left are not listed.
	Entries []CardinalityEntry
	Left    int
}

// CardinalityEntry is a value of a label, or a label.
type CardinalityEntry struct {
	Name string
	// Values is how many the label has, 0 for a value.
	Values, Series, Bytes uint64
}

// Cardinality tells how series and bytes are spread. It reads the label index of the days' months once or twice from beginning to
// end, and nothing of samples:
//
//  1. The series with samples on the days are a bitmap, cut to those that match.
//  2. What each metric takes on the days is asked of RocksDB's own index, for the runs and for the bundles of at most so many days
//     that rangesMax holds. The days' records know what all bundles take, and metrics are given their shares of that. Where
//     nothing is in table files yet, all series have the same share.
//  3. A series has an equal part of what its metric takes.
//  4. The postings of each pair come by once, as the union over the months, and are added up: for a value at once, for a label in
//     its sum. Of values only the greatest are kept, and only their texts are read.
//
// Memory is 4 bytes a series, 4 a label pair in use where labels are listed, and what is listed.
func (a *Archive) Cardinality(ctx context.Context, r CardinalityRequest) (out Cardinality, err error) {
	if r.Days < 1 || r.Days > CardinalityDaysMax || r.Limit < 1 {
		return out, fmt.Errorf("cardinality of %d days, at most %d entries: both must be positive, and days no more than %d", r.Days, r.Limit, CardinalityDaysMax)
	}
	today := format.DayOf(format.ClampTime(a.o.Now().UnixMilli()))
	first := max(today-format.Day(r.Days)+1, format.MinDay)
	v, err := a.view(first.StartMillis(), format.ClampTime(today.EndMillis()-1))
	if err != nil {
		return out, err
	}
	defer v.Close()
	c := &cardinality{v: v, ctx: ctx, first: max(first, v.kept.seriesFirst), last: today, request: &r}
	if c.first > c.last {
		return out, nil
	}
	return c.run()
}

type cardinality struct {
	v           *view
	ctx         context.Context
	request     *CardinalityRequest
	first, last format.Day
	months      []format.Month
	// series are those that are counted.
	series *roaring.Bitmap
	// metricOf has the place in shares of each series' metric.
	metricOf pages
	// shares are the bytes of one series of each metric; the first is for series without a name.
	shares []float64
	days   int
	// refs is scratch of bytes.
	refs [512]uint32
}

func (c *cardinality) run() (out Cardinality, err error) {
	if c.months, err = c.v.index().monthsIn(c.first.Month(), c.last.Month()); err != nil {
		return out, err
	}
	active, err := c.v.index().active(c.first, c.last+1)
	if err != nil {
		return out, err
	}
	if err := c.weigh(active); err != nil {
		return out, err
	}
	if c.series, err = c.matching(active); err != nil {
		return out, err
	}
	out.Days, out.Series, out.Bytes = c.days, c.series.GetCardinality(), uint64(c.bytes(c.series))
	if c.request.Label != "" {
		err = c.values(&out)
	} else {
		err = c.labels(&out)
	}
	return out, err
}

// matching returns the series of active that the request is about.
func (c *cardinality) matching(active *roaring.Bitmap) (*roaring.Bitmap, error) {
	if len(c.request.Matchers) == 0 {
		return active, nil
	}
	all := roaring.New()
	for _, ms := range c.request.Matchers {
		found, err := c.v.findRefs(c.ctx, c.first, c.last, ms)
		if err != nil {
			return nil, err
		}
		all.Or(found)
	}
	all.And(active)
	return all, nil
}

// bytes adds up the shares of series.
func (c *cardinality) bytes(set *roaring.Bitmap) (sum float64) {
	var (
		refs = &c.refs
		page *[1 << 16]uint32
		high uint32
	)
	it := set.ManyIterator()
	for n := it.NextMany(refs[:]); n > 0; n = it.NextMany(refs[:]) {
		for _, ref := range refs[:n] {
			if page == nil || ref>>16 != high {
				high = ref >> 16
				if page = c.metricOf[high]; page == nil {
					page = &noPage
				}
			}
			sum += c.shares[page[ref&(1<<16-1)]]
		}
	}
	return sum
}

// weigh finds what a series of each metric takes.
func (c *cardinality) weigh(active *roaring.Bitmap) error {
	names, err := c.pairsOf(model.MetricNameLabel)
	if err != nil {
		return err
	}
	var metrics []format.PairID
	series := []uint64{0}
	unnamed := active.Clone()
	err = c.eachPair(names, active, func(id format.PairID, set *roaring.Bitmap) error {
		metrics, series = append(metrics, id), append(series, set.GetCardinality())
		place := uint32(len(metrics))
		it := set.Iterator()
		for it.HasNext() {
			c.metricOf.set(it.Next(), place)
		}
		unnamed.AndNot(set)
		return nil
	})
	if err != nil {
		return err
	}
	series[0] = unnamed.GetCardinality()
	taken, err := c.taken(append([]format.PairID{0}, metrics...), series)
	c.shares = make([]float64, len(series))
	for i, n := range series {
		if n > 0 {
			c.shares[i] = taken[i] / float64(n)
		}
	}
	return err
}

// rangesMax is how many ranges of keys RocksDB is asked about: each takes some microseconds.
const rangesMax = 60_000

// taken estimates what each metric takes on the days. series has the number of series of each.
func (c *cardinality) taken(metrics []format.PairID, series []uint64) ([]float64, error) {
	days, err := c.v.a.Days()
	if err != nil {
		return nil, err
	}
	var sealed, unsealed []DayStatus
	for _, d := range days {
		if d.Day < c.first || d.Day > c.last {
			continue
		}
		c.days++
		if d.Bytes > 0 {
			sealed = append(sealed, d)
		}
		if d.Runs {
			unsealed = append(unsealed, d)
		}
	}
	bundles, runs := uint64(0), uint64(0)
	for _, d := range sealed {
		bundles += d.Bytes
	}
	for _, d := range unsealed {
		runs += d.RunBytes
	}
	perDay := max(1, len(metrics))
	of := func(f format.Family, days []DayStatus, total uint64, ranges func(DayStatus, format.PairID) []rocks.Range) ([]float64, error) {
		return c.spread(spread{family: f, metrics: metrics, series: series, total: total, days: days, ranges: ranges})
	}
	raw, err := of(format.FamilyRaw, spaced(sealed, rangesMax/perDay), bundles, func(d DayStatus, m format.PairID) []rocks.Range {
		lower := format.AppendRawPrefix(nil, d.Day, m)
		return []rocks.Range{{Lower: lower, Upper: format.PrefixEnd(lower)}}
	})
	if err != nil {
		return nil, err
	}
	hot, err := of(format.FamilyHot, spaced(unsealed, rangesMax/(perDay*format.SlotsPerDay)), runs, func(d DayStatus, m format.PairID) (all []rocks.Range) {
		g := c.v.a.days.record(d.Day).Generation
		for slot := range uint8(format.SlotsPerDay) {
			lower := format.AppendHotPrefix(nil, d.Day, g, slot, m)
			all = append(all, rocks.Range{Lower: lower, Upper: format.PrefixEnd(lower)})
		}
		return all
	})
	for i := range hot {
		hot[i] += raw[i]
	}
	return hot, err
}

// spaced returns at most n of the days, at least one where there is one, spread evenly, the newest among them.
func spaced(days []DayStatus, n int) []DayStatus {
	n = max(n, 1)
	if len(days) <= n {
		return days
	}
	out := make([]DayStatus, 0, n)
	for i := range n {
		out = append(out, days[len(days)-1-i*len(days)/n])
	}
	return out
}

// spread is what is known of the bytes of a family.
type spread struct {
	family  format.Family
	metrics []format.PairID
	series  []uint64
	// total is to be spread over the metrics, by what ranges of the days say.
	total  uint64
	days   []DayStatus
	ranges func(DayStatus, format.PairID) []rocks.Range
}

// rangesAtOnce bounds the ranges, of some 100 bytes each, that are in memory.
const rangesAtOnce = 4096

func (c *cardinality) spread(s spread) ([]float64, error) {
	asked := make([]float64, len(s.metrics))
	sum := 0.0
	var ranges []rocks.Range
	var places []int
	ask := func() error {
		sizes, err := c.v.a.db.ApproximateBytes(family(s.family), ranges)
		for i, n := range sizes {
			asked[places[i]] += float64(n)
			sum += float64(n)
		}
		ranges, places = ranges[:0], places[:0]
		if err == nil {
			err = c.ctx.Err()
		}
		return err
	}
	for _, d := range s.days {
		for i, m := range s.metrics {
			for _, r := range s.ranges(d, m) {
				ranges, places = append(ranges, r), append(places, i)
			}
			if len(ranges) >= rangesAtOnce {
				if err := ask(); err != nil {
					return asked, err
				}
			}
		}
	}
	if err := ask(); err != nil {
		return asked, err
	}
	all := uint64(0)
	for _, n := range s.series {
		all += n
	}
	for i := range asked {
		switch {
		case sum > 0:
			asked[i] *= float64(s.total) / sum
		case all > 0:
			asked[i] = float64(s.total) * float64(s.series[i]) / float64(all)
		}
	}
	return asked, nil
}

// pairsOf are the ids of the pairs of a label.
func (c *cardinality) pairsOf(label string) (*roaring.Bitmap, error) {
	ids := roaring.New()
	n := 0
	err := c.v.a.cat.values(label, "", func(_ string, id format.PairID) error {
		ids.Add(uint32(id))
		if n++; n&4095 == 0 {
			return c.ctx.Err()
		}
		return nil
	})
	return ids, err
}

// values lists the values of a label.
func (c *cardinality) values(out *Cardinality) error {
	ids, err := c.pairsOf(c.request.Label)
	if err != nil {
		return err
	}
	most := greatest[format.PairID]{max: c.request.Limit, bySeries: c.request.BySeries}
	err = c.eachPair(ids, c.series, func(id format.PairID, set *roaring.Bitmap) error {
		most.add(ranked[format.PairID]{of: id, series: set.GetCardinality(), bytes: c.bytes(set)})
		return nil
	})
	if err != nil {
		return err
	}
	recs := []format.Series{{}}
	for _, e := range most.all {
		recs[0].Pairs = append(recs[0].Pairs, e.of)
	}
	// A pair may have been forgotten since.
	texts, err := c.v.a.cat.textsOf(recs, func(format.PairID) error { return nil })
	if err != nil {
		return err
	}
	out.Left = most.left
	for _, e := range most.sorted() {
		if texts[e.of].name == c.request.Label {
			out.Entries = append(out.Entries, CardinalityEntry{Name: texts[e.of].value, Series: e.series, Bytes: uint64(e.bytes)})
		}
	}
	return nil
}

// labels lists the labels.
func (c *cardinality) labels(out *Cardinality) error {
	names, err := c.v.a.cat.names()
	if err != nil {
		return err
	}
	var labelOf pages
	all := roaring.New()
	for i, name := range names {
		ids, err := c.pairsOf(name)
		if err != nil {
			return err
		}
		ids.Iterate(func(id uint32) bool {
			labelOf.set(id, uint32(i+1))
			return true
		})
		all.Or(ids)
	}
	sums := make([]ranked[int], len(names))
	err = c.eachPair(all, c.series, func(id format.PairID, set *roaring.Bitmap) error {
		e := &sums[labelOf.get(uint32(id))-1]
		// A series has one value of a label.
		e.values++
		e.series += set.GetCardinality()
		e.bytes += c.bytes(set)
		return nil
	})
	if err != nil {
		return err
	}
	most := greatest[int]{max: c.request.Limit, bySeries: c.request.BySeries}
	for i := range sums {
		if sums[i].of = i; sums[i].values > 0 {
			most.add(sums[i])
		}
	}
	out.Left = most.left
	for _, e := range most.sorted() {
		out.Entries = append(out.Entries, CardinalityEntry{Name: names[e.of], Values: e.values, Series: e.series, Bytes: uint64(e.bytes)})
	}
	return nil
}

// eachPair calls f for those of the pairs that series of within carry, in the months, with these series. The set is f's until it
// returns. All months are walked side by side, so that the sets of a pair come together and none is kept.
func (c *cardinality) eachPair(pairs, within *roaring.Bitmap, f func(format.PairID, *roaring.Bitmap) error) error {
	fresh := c.pending(pairs)
	set := roaring.New()
	give := func(id format.PairID) error {
		if p := fresh[id]; p != nil {
			set.Or(p)
			delete(fresh, id)
		}
		if set.And(within); set.IsEmpty() {
			return nil
		}
		err := f(id, set)
		set.Clear()
		return err
	}
	walks := make([]*pairWalk, 0, len(c.months))
	defer func() {
		for _, w := range walks {
			w.it.Close()
		}
	}()
	for _, m := range c.months {
		w := &pairWalk{it: c.v.a.db.NewIterator(family(format.FamilyIndex), rocks.IterOptions{
			Snapshot: c.v.snap, Lower: format.AppendMonthPrefix(nil, m), Upper: format.AppendMonthPrefix(nil, m+1), NoFillCache: true, ReadaheadBytes: 256 << 10,
		}), pairs: pairs}
		walks = append(walks, w)
		w.it.SeekToFirst()
		if err := w.find(); err != nil {
			return err
		}
	}
	for n := 0; ; n++ {
		next := format.PairID(0)
		for _, w := range walks {
			if w.id != 0 && (next == 0 || w.id < next) {
				next = w.id
			}
		}
		if next == 0 {
			break
		}
		for _, w := range walks {
			if err := w.take(next, set); err != nil {
				return err
			}
		}
		if err := give(next); err != nil {
			return err
		}
		if n&255 == 0 && c.ctx.Err() != nil {
			return c.ctx.Err()
		}
	}
	for _, id := range sortedIDs(fresh) {
		if err := give(id); err != nil {
			return err
		}
	}
	return nil
}

func sortedIDs(sets map[format.PairID]*roaring.Bitmap) []format.PairID {
	ids := make([]format.PairID, 0, len(sets))
	for id := range sets {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// pending copies what the view finds of the pairs in memory.
func (c *cardinality) pending(pairs *roaring.Bitmap) map[format.PairID]*roaring.Bitmap {
	out := map[format.PairID]*roaring.Bitmap{}
	x := c.v.a.index
	x.mu.Lock()
	defer x.mu.Unlock()
	x.addPending(c.v.epoch, func(p *postings) {
		for k, b := range p.pairs {
			if !pairs.Contains(uint32(k.pair)) || !slices.Contains(c.months, k.month) {
				continue
			}
			if out[k.pair] == nil {
				out[k.pair] = roaring.New()
			}
			out[k.pair].Or(b)
		}
	})
	return out
}

// pairWalk walks the postings of a month.
type pairWalk struct {
	it    *rocks.Iterator
	pairs *roaring.Bitmap
	// id is the pair that the iterator stands at, 0 at the end.
	id   format.PairID
	high uint64
}

// find goes on to the next container of one of the pairs, if the one it stands at is of another.
func (w *pairWalk) find() error {
	for near := 0; w.it.Valid(); near++ {
		m, id, high, err := format.ParseIndexKey(w.it.Key())
		if err != nil {
			return err
		}
		if w.pairs.Contains(uint32(id)) {
			w.id, w.high = id, high
			return nil
		}
		if near < nearMax {
			w.it.Next()
			continue
		}
		near = 0
		following := w.pairs.Iterator()
		if following.AdvanceIfNeeded(uint32(id)); !following.HasNext() {
			break
		}
		w.it.Seek(format.AppendIndexPrefix(nil, m, format.PairID(following.Next())))
	}
	w.id = 0
	return w.it.Err()
}

// take adds to set the containers of a pair, if the walk stands at it, and goes on.
func (w *pairWalk) take(id format.PairID, set *roaring.Bitmap) error {
	for w.id == id {
		if err := addContainer(set, w.it.Value(), w.high); err != nil {
			return fmt.Errorf("postings of label pair %d: %w", id, err)
		}
		w.it.Next()
		if err := w.find(); err != nil {
			return err
		}
	}
	return nil
}

// findRefs is find without the labels of what it finds, and without a bound on how much that is.
func (v *view) findRefs(ctx context.Context, first, last format.Day, ms []*labels.Matcher) (*roaring.Bitmap, error) {
	conditions, err := v.conditions(ms)
	if err != nil {
		return nil, err
	}
	months, err := v.index().monthsIn(first.Month(), last.Month())
	if err != nil {
		return nil, err
	}
	found := roaring.New()
	for _, m := range months {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i := range conditions {
			conditions[i].left = false
		}
		set, err := v.findInMonth(m, first, last, conditions)
		if err != nil {
			return nil, err
		}
		// Conditions are left where there are few candidates.
		if slices.ContainsFunc(conditions, func(c condition) bool { return c.left }) {
			sel := &selection{refs: refsOf(set)}
			if sel.labels, err = v.a.cat.labelsOf(sel.refs); err != nil {
				return nil, err
			}
			sel.filter(conditions)
			set = roaring.New()
			for _, ref := range sel.refs {
				set.Add(uint32(ref))
			}
		}
		found.Or(set)
	}
	return found, nil
}
