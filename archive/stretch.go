package archive

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// servedDay is a day that a cursor reads from the archive, stretch by stretch.
type servedDay struct {
	ready bool
	gap   uint32 // of the gap, or
	whole bool
	day   format.Day
	// out names the series in the order in which they are stored, spans are what is owed of each; nil for all. refs are those that were
	// looked up of all.
	out   []samples
	spans []format.GapSpan
	refs  *roaring.Bitmap
	// arrived is when what is read came in at the earliest, Unix ms; now for all, which nobody waited for.
	arrived int64

	// The stretch of time that is being read, both inclusive, in Unix ms, and of its series the first that is not read yet.
	reading  bool
	from, to int64
	next     int
	final    bool
	read     int // samples of the stretch
	length   int64
}

const (
	// stretchMillis is how much time is read at once of many series: a target may refuse what is an hour behind.
	stretchMillis = int64(30 * time.Minute / time.Millisecond)
	// stretchSeries is how many series are read at once.
	stretchSeries = 512
	// stretchSamplesFew makes the next stretch longer, as long as all its series are read at once: then they are put in the order of time.
	stretchSamplesFew = 1 << 14
)

// nameSeries sets the series of the day in the order of their keys. Those that are gone are left out.
func (c *Cursor) nameSeries(s *servedDay, refs *roaring.Bitmap) error {
	s.out = make([]samples, 0, refs.GetCardinality())
	for it := refs.Iterator(); it.HasNext(); {
		first := it.PeekNext() &^ (pageSize - 1)
		err := c.a.cat.records(format.Ref(first), format.Ref(first)+pageSize, func(ref format.Ref, rec *format.Series) error {
			if refs.Contains(uint32(ref)) {
				s.out = append(s.out, samples{ref: ref, metric: rec.Metric})
			}
			return nil
		})
		if err != nil {
			return err
		}
		if first > math.MaxUint32-pageSize {
			break
		}
		it.AdvanceIfNeeded(first + pageSize)
	}
	slices.SortFunc(s.out, func(x, y samples) int {
		return cmp.Or(cmp.Compare(x.metric, y.metric), cmp.Compare(x.ref, y.ref))
	})
	return nil
}

// begin begins a stretch at from that ends no later than end.
func (s *servedDay) begin(from, end int64) {
	if s.length == 0 || len(s.out) > stretchSeries {
		s.length = stretchMillis
	}
	s.reading, s.next, s.read = true, 0, 0
	s.from, s.to = from, min(from+s.length-1, end)
}

// readWhole reads the next stretch of all that the archive holds, or a part of it. Called with mu held.
func (c *Cursor) readWhole(ctx context.Context, into *Arrivals) error {
	s := &c.served
	if !s.ready || !s.whole || !s.reading && s.day != format.DayOf(max(c.ahead.wholeFrom, format.MinTimeMillis)) {
		length := s.length
		if !s.ready {
			c.allMetadata(into)
		}
		day, any, err := c.a.activeDayFrom(format.DayOf(c.ahead.wholeFrom))
		if err != nil {
			return err
		}
		if end := format.DayOf(c.wholeEnd()); !any || day > end {
			day = end
		}
		*s = servedDay{whole: true, day: day, length: length}
		c.ahead.wholeFrom = max(c.ahead.wholeFrom, day.StartMillis())
	}
	if !s.reading {
		// The series are looked up for each stretch, since any day may have new ones, and after the head: those of all arrivals that it
		// passes over are there.
		head, _ := c.a.head()
		refs, err := c.activeOn(s.day)
		if err != nil {
			return err
		}
		if !s.ready || !refs.Equals(s.refs) {
			if err := c.nameSeries(s, refs); err != nil {
				return err
			}
			s.refs, s.ready = refs, true
		}
		s.arrived = c.a.o.Now().UnixMilli()
		c.beginWhole(s, head)
	}
	done, err := c.readStretch(ctx, into)
	if err != nil || !done {
		return err
	}
	c.ahead.wholeFrom = s.to + 1
	if s.final {
		c.ahead.whole = false
		c.ahead.skips = append(slices.Clone(c.ahead.skips), format.Skip{FromMillis: s.to + 1})
		*s = servedDay{}
	}
	return nil
}

// beginWhole begins a stretch and remembers which arrivals it has, up to head, so that they are not read from the journal again.
func (c *Cursor) beginWhole(s *servedDay, head format.Sequence) {
	s.begin(c.ahead.wholeFrom, s.day.EndMillis()-1)
	if end := c.wholeEnd(); s.to >= end {
		s.final, s.to = true, max(s.from, end)
	}
	if s.to < c.rec.Stamp.ArrivedMillis && !s.final {
		return // What arrives so late is sent again.
	}
	skips := c.ahead.skips
	for len(skips) > 0 && skips[len(skips)-1].FromMillis >= s.from {
		skips = skips[:len(skips)-1] // It was begun before.
	}
	if n := len(skips); n > format.SkipsMax-2 {
		skips = skips[n/2:]
	}
	c.ahead.skips = append(slices.Clone(skips), format.Skip{FromMillis: s.from, Before: head + 1})
}

// wholeEnd is behind all samples that the archive can have.
func (c *Cursor) wholeEnd() int64 { return c.a.o.Now().Add(c.a.o.FutureMax).UnixMilli() }

// activeDayFrom is the first day from the given one on that has samples.
func (a *Archive) activeDayFrom(from format.Day) (day format.Day, ok bool, err error) {
	if err := a.index.drain(); err != nil {
		return 0, false, err
	}
	day = math.MaxInt32
	a.index.mu.Lock()
	a.index.addPending(latest, func(p *postings) {
		for d := range p.active {
			if d >= from {
				day, ok = min(day, d), true
			}
		}
	})
	a.index.mu.Unlock()
	it := a.db.NewIterator(family(format.FamilyActive), rocks.IterOptions{Lower: format.AppendDayPrefix(nil, from)})
	defer it.Close()
	if it.SeekToFirst(); it.Valid() {
		d, _, err := format.ParseActiveKey(it.Key())
		if err != nil {
			return 0, false, err
		}
		day, ok = min(day, d), true
	}
	return day, ok, it.Err()
}

// activeOn returns the series that have samples on a day.
func (c *Cursor) activeOn(day format.Day) (*roaring.Bitmap, error) {
	if err := c.a.index.drain(); err != nil {
		return nil, err
	}
	return c.a.index.active(nil, day, day+1)
}

// allMetadata adds what is known of all metrics. What was said while the journal was trimmed isn't known apart.
func (c *Cursor) allMetadata(into *Arrivals) {
	c.a.Metadata(func(name string, m metadata.Metadata) bool {
		into.Metadata = append(into.Metadata, arrival.Metadata{Family: name, Metadata: m})
		return true
	})
}

// readStretch reads some series of the stretch, and with the last of them its exemplars. done tells that it is through. Called with mu held.
func (c *Cursor) readStretch(ctx context.Context, into *Arrivals) (done bool, err error) {
	s := &c.served
	v, err := c.a.storedView(s.from, s.to)
	if err != nil {
		return false, err
	}
	defer v.Close()
	v.bytesMax = math.MaxInt64 // The number of series bounds it.
	some := make([]samples, 0, stretchSeries)
	var spans []format.GapSpan
	day := s.day.StartMillis()
	for ; s.next < len(s.out) && len(some) < stretchSeries; s.next++ {
		span := format.GapSpan{Last: format.DayMillis - 1}
		if s.spans != nil {
			span = s.spans[s.next]
		}
		if day+int64(span.Last) < s.from || day+int64(span.First) > s.to {
			continue
		}
		some, spans = append(some, samples{ref: s.out[s.next].ref, metric: s.out[s.next].metric}), append(spans, span)
	}
	if into.Bytes, err = v.fill(ctx, some, s.from, s.to); err != nil {
		return false, err
	}
	var column chunk.Column
	var pieces []chunk.Piece
	for i := 0; i < len(some); i++ {
		pieces = some[i].appendPieces(pieces[:0])
		if err := column.Decode(pieces, max(s.from, day+int64(spans[i].First)), min(s.to, day+int64(spans[i].Last))); err != nil {
			return false, err
		}
		if err := into.addColumn(some[i].ref, &column); err != nil {
			return false, err
		}
		if s.to-s.from >= stretchMillis && into.Samples() > readSamplesMax {
			// There is more than expected, so the stretch ends earlier.
			s.to, s.final, i = s.from+stretchMillis-1, false, -1
			into.dropSamples()
		}
	}
	if s.to-s.from >= stretchMillis {
		into.order(stretchMillis)
	}
	s.read += into.Samples()
	into.Arrived = time.UnixMilli(max(s.to, s.arrived))
	if s.next < len(s.out) {
		return false, nil
	}
	if err := c.stretchExemplars(into, v); err != nil {
		return false, err
	}
	s.reading = false
	if s.length = stretchMillis; s.read < stretchSamplesFew {
		s.length = min(4*max(s.to-s.from+1, stretchMillis), format.DayMillis)
	}
	if len(s.out) > stretchSeries {
		s.length = stretchMillis
	}
	return true, nil
}

// dropSamples takes floats and histograms out again.
func (r *Arrivals) dropSamples() {
	clear(r.Histograms)
	r.Refs, r.Times, r.Values, r.Starts, r.Histograms = r.Refs[:0], r.Times[:0], r.Values[:0], r.Starts[:0], r.Histograms[:0]
}

// order brings the samples in the order of stretches of so many ms. Within a stretch they stay as they are, so that those of a series stay in order.
func (r *Arrivals) order(millis int64) {
	stretch := func(t int64) int64 { return t / millis }
	slices.SortStableFunc(r.Histograms, func(x, y ArrivedHistogram) int {
		return cmp.Compare(stretch(x.TimeMillis), stretch(y.TimeMillis))
	})
	at := make([]int32, len(r.Times))
	for i := range at {
		at[i] = int32(i)
	}
	slices.SortStableFunc(at, func(x, y int32) int { return cmp.Compare(stretch(r.Times[x]), stretch(r.Times[y])) })
	refs, times, values, starts := slices.Clone(r.Refs), slices.Clone(r.Times), slices.Clone(r.Values), slices.Clone(r.Starts)
	for to, from := range at {
		r.Refs[to], r.Times[to], r.Values[to] = refs[from], times[from], values[from]
		if len(starts) > 0 {
			r.Starts[to] = starts[from]
		}
	}
}

// addColumn appends the samples of a series.
func (r *Arrivals) addColumn(ref format.Ref, column *chunk.Column) error {
	var it chunk.Iterator
	it.Reset(column)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		h := ArrivedHistogram{Ref: ref}
		switch kind {
		case chunkenc.ValFloat:
			t, v := it.At()
			r.addFloat(ref, t, it.AtST(), math.Float64bits(v))
			continue
		case chunkenc.ValHistogram:
			h.TimeMillis, h.Int = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			h.TimeMillis, h.Float = it.AtFloatHistogram(nil)
		}
		h.StartMillis = it.AtST()
		r.Histograms = append(r.Histograms, h)
	}
	return it.Err()
}

// addFloat appends a sample. start is zero for none.
func (r *Arrivals) addFloat(ref format.Ref, t, start int64, v uint64) {
	if start != 0 || len(r.Starts) > 0 {
		for len(r.Starts) < len(r.Times) {
			r.Starts = append(r.Starts, 0)
		}
		r.Starts = append(r.Starts, start)
	}
	r.Refs, r.Times, r.Values = append(r.Refs, ref), append(r.Times, t), append(r.Values, v)
}

// stretchExemplars adds the exemplars of the stretch.
func (c *Cursor) stretchExemplars(into *Arrivals, v *view) error {
	s := &c.served
	it := c.a.db.NewIterator(family(format.FamilyExemplars), rocks.IterOptions{
		Snapshot: v.snap, Lower: format.AppendDayPrefix(nil, s.day), Upper: format.AppendDayPrefix(nil, s.day+1),
	})
	defer it.Close()
	it.SeekToFirst()
	if !it.Valid() {
		return it.Err()
	}
	spans := make(map[format.Ref]format.GapSpan, len(s.out))
	for i := range s.out {
		spans[s.out[i].ref] = format.GapSpan{Last: format.DayMillis - 1}
		if s.spans != nil {
			spans[s.out[i].ref] = s.spans[i]
		}
	}
	for ; it.Valid(); it.Next() {
		k, err := format.ParseExemplarKey(it.Key())
		if err != nil {
			return err
		}
		span, ok := spans[k.Ref]
		at := k.TimeMillis - s.day.StartMillis()
		if !ok || k.TimeMillis < s.from || k.TimeMillis > s.to || at < int64(span.First) || at > int64(span.Last) {
			continue
		}
		if v.masks.of(k.Ref).hides(k.TimeMillis, k.Sequence) {
			continue
		}
		e := exemplar.Exemplar{Ts: k.TimeMillis, HasTs: true}
		if err := format.ParseExemplar(it.Value(), &e); err != nil {
			return err
		}
		into.Exemplars = append(into.Exemplars, ArrivedExemplar{k.Ref, e})
	}
	return it.Err()
}
