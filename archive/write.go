package archive

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/arrival"
)

// Seed returns the seed under which a series' own key is hashed: the key of its
// sorted labels as remote write 1.0 label bytes. Other encodings derive theirs from it.
func (a *Archive) Seed() arrival.Seed { return a.cat.seed }

// Lookup sets Ref in every row whose Key is known and returns how many rows are
// left without a ref. It takes no lock and may be called from any goroutine.
func (a *Archive) Lookup(rows []arrival.Row) int {
	slots := a.cat.keys.slots.Load()
	unknown := 0
	for i := range rows {
		if rows[i].Ref == 0 {
			if rows[i].Ref = slots.get(rows[i].Key); rows[i].Ref == 0 {
				unknown++
			}
		}
	}
	return unknown
}

// Resolve finds or makes the series of the label sets and sets Ref, or Refused
// where a limit forbids a new series. It remembers Key for the series. A series
// that it makes is durable with the next Write that succeeds. An error is ours,
// never the sender's.
func (a *Archive) Resolve(ctx context.Context, unknown []arrival.Unknown) error {
	if err := a.writable(); err != nil {
		return err
	}
	return a.cat.resolve(ctx, unknown)
}

// Write stores the batch and returns when what it reports as written is fsynced.
// Rows without a ref are passed over. Samples too far ahead of the clock, and those
// that would overwrite where that is not allowed, are refused one by one, counted in
// the result. It changes b: rows and columns that
// were not written are gone from it.
//
// The error is *arrival.Unavailable, or that of ctx when it ended first; in both
// cases the same batch may be sent again.
func (a *Archive) Write(ctx context.Context, b *arrival.Batch) (arrival.Result, error) {
	var res arrival.Result
	if err := ctx.Err(); err != nil {
		return res, err
	}
	if err := a.writable(); err != nil {
		return res, err
	}
	passes, err := a.prepared(ctx, b)
	if err != nil {
		return res, err
	}
	var first refused
	if err := a.refuse(b, &res.Rejected, &first); err != nil {
		return arrival.Result{}, forgottenMeanwhile(err)
	}
	for {
		if err := a.guard.enter(ctx, b, &res.Rejected, &first); err != nil {
			return arrival.Result{}, err
		}
		a.mu.Lock()
		if passes == a.leaves.Load() {
			break
		}
		// Series began to leave since the batch was prepared: those of it are told to stay.
		a.mu.Unlock()
		a.guard.leave()
		if passes, err = a.prepared(ctx, b); err != nil {
			return arrival.Result{}, err
		}
	}
	g := a.group
	if len(g.record) > a.o.GroupBytesMax {
		a.mu.Unlock()
		a.guard.leave()
		return arrival.Result{}, a.overload()
	}
	a.arrive(g, b, &res)
	a.guard.leave()
	if err := a.join(g); err != nil {
		return arrival.Result{}, err
	}
	a.m.stored(&res)
	res.Example = a.example(first)
	return res, nil
}

// refused is a sample that was refused.
type refused struct {
	ref        format.Ref
	timeMillis int64
	reason     arrival.Reason
}

// is notes the sample if it is the first.
func (r *refused) is(ref format.Ref, timeMillis int64, reason arrival.Reason) {
	if r.reason == arrival.ReasonNone {
		*r = refused{ref, timeMillis, reason}
	}
}

// example tells of the sample. Labels that can't be read are no reason to refuse what was written beside it.
func (a *Archive) example(r refused) string {
	if r.reason == arrival.ReasonNone {
		return ""
	}
	found, err := a.cat.labelsOf([]format.Ref{r.ref})
	if err != nil {
		return ""
	}
	return arrival.ExampleOf(r.reason, found[0], r.timeMillis)
}

// arrive journals the batch and brings it to the open runs, in one pass. Called
// with the archive's lock held; readers see the samples from here on.
func (a *Archive) arrive(g *group, b *arrival.Batch, res *arrival.Result) {
	now := a.o.Now().UnixMilli()
	if b.Unforwarded && len(b.Times)+len(b.Histograms)+len(b.Exemplars) > 0 {
		a.begin(g)
		first := len(g.record)
		defer func() { format.MarkUnforwarded(g.record[first:]) }()
	}
	if len(b.Times) > 0 {
		a.begin(g)
		a.appendFloats(g, b, now)
		res.Samples = len(b.Times)
		g.samples += len(b.Times)
	}
	for i := range b.Histograms {
		a.begin(g)
		a.appendHistogram(g, b, &b.Histograms[i], now, res)
	}
	for i := range b.Exemplars {
		a.begin(g)
		e := &b.Exemplars[i]
		ref := b.Rows[e.Row].Ref
		g.record = format.AppendJournalExemplar(g.record, ref, &e.Exemplar)
		a.putExemplar(&g.batch, g.sequence, ref, &e.Exemplar)
		res.Exemplars++
	}
	for i := range b.Metadata {
		m := &b.Metadata[i]
		if a.metadata.set(&g.batch, m.Family, m.Metadata, now) {
			a.begin(g)
			g.record = format.AppendJournalMetadata(g.record, m.Family, m.Metadata)
		}
		res.Metadata++
	}
}

// appendFloats writes the float samples to the journal record and to the open
// runs. This is the loop that decides what a sample costs: the series' slot is
// touched once for both.
func (a *Archive) appendFloats(g *group, b *arrival.Batch, now int64) {
	kind := format.SectionFloats
	if len(b.Starts) > 0 {
		kind = format.SectionFloatsWithStart
	}
	rec, section := format.BeginSection(g.record, kind)
	rec = format.AppendFloatHead(rec, b)
	if kind == format.SectionFloatsWithStart {
		rec = format.AppendStarts(rec, b)
	}
	rec = slices.Grow(rec, len(b.Times)*format.FloatValueSizeMax)
	o := len(rec)
	rec = rec[:cap(rec)]

	w := runWriter{a: a, runs: a.live, segment: a.segment, sequence: g.sequence, now: now}
	for i := range b.Rows {
		row := &b.Rows[i]
		if row.Count == 0 {
			continue
		}
		s := w.series(row.Ref)
		for k := row.First; k < row.First+row.Count; k++ {
			t, v := b.Times[k], b.Values[k]
			o = format.PutFloatValue(rec, o, v^s.last)
			s.last = v
			if len(b.Starts) > 0 && b.Starts[k] != 0 {
				w.putStarted(s, row.Ref, t, b.Starts[k], v)
				continue
			}
			w.put(s, row.Ref, t, v)
		}
	}
	w.done()
	a.m.overwritten.Add(float64(w.overwritten))
	g.record = rec[:o]
	format.EndSection(g.record, section)
}

func (a *Archive) appendHistogram(g *group, b *arrival.Batch, h *arrival.Histogram, now int64, res *arrival.Result) {
	ref := b.Rows[h.Row].Ref
	if bucketCount(h) > chunk.HistogramBucketsMax {
		res.Rejected[arrival.ReasonInvalidHistogram]++
		return
	}
	w := runWriter{a: a, runs: a.live, segment: a.segment, sequence: g.sequence, now: now}
	err := w.putHistogram(ref, h)
	w.done()
	if err != nil {
		res.Rejected[arrival.ReasonInvalidHistogram]++
		return
	}
	g.record = format.AppendHistogram(g.record, ref, h)
	res.Histograms++
	g.samples++
}

func bucketCount(h *arrival.Histogram) int {
	if h.Float != nil {
		return len(h.Float.PositiveBuckets) + len(h.Float.NegativeBuckets)
	}
	return len(h.Int.PositiveBuckets) + len(h.Int.NegativeBuckets)
}

// runWriter brings samples to open runs. It holds the lock of the page it last
// touched: the series of a target are neighbours, so the lock is taken once for many.
type runWriter struct {
	a           *Archive
	runs        *openRuns
	segment     uint32
	sequence    format.Sequence
	now         int64
	overwritten int

	page  *page
	bytes int
}

// series returns the slot of a series whose page prepare has brought to memory.
func (w *runWriter) series(ref format.Ref) *openSeries {
	p := w.page
	if p == nil || ref-p.first >= pageSize {
		w.done()
		p = w.runs.page(ref)
		p.mu.Lock()
		w.page = p
		w.bytes = p.log.bytes()
		if p.since == 0 {
			p.since, p.opened = w.sequence, w.now
		}
	}
	s := &p.slots[ref-p.first]
	if s.segment != w.segment {
		s.segment, s.last = w.segment, 0
	}
	return s
}

// done gives the page back.
func (w *runWriter) done() {
	if w.page == nil {
		return
	}
	if grown := w.page.log.bytes() - w.bytes; grown != 0 {
		w.runs.bytes.Add(int64(grown))
	}
	w.page.mu.Unlock()
	w.page = nil
}

// put appends a float sample. The first case is the common one: the sample
// follows the tail within its slot.
func (w *runWriter) put(s *openSeries, ref format.Ref, t int64, v uint64) {
	if uint64(t-s.slotStart) < format.SlotMillis && s.n > 0 {
		if delta := uint32(t - s.base); t > s.base && delta > s.tail[s.n-1].delta {
			s.tail[s.n] = point{delta: delta, lo: uint32(v), hi: uint32(v >> 32)}
			if s.n++; s.n == tailMax {
				w.page.closeTail(s)
			}
			return
		}
	}
	w.putCarefully(s, ref, t, v)
}

func (w *runWriter) putCarefully(s *openSeries, ref format.Ref, t int64, v uint64) {
	w.noteDay(s, ref, t)
	if s.flags&flagRare != 0 {
		w.putStarted(s, ref, t, 0, v)
		return
	}
	if w.page.put(s, t, v) {
		w.overwritten++
	}
}

// noteDay tells the index of the day unless it was the last one told.
func (w *runWriter) noteDay(s *openSeries, ref format.Ref, t int64) {
	if d := format.DayOf(t); d != s.day || s.flags&flagDay == 0 {
		s.day = d
		s.flags |= flagDay
		w.a.index.note(ref, d)
	}
}

func (w *runWriter) putStarted(s *openSeries, ref format.Ref, t, start int64, v uint64) {
	w.noteDay(s, ref, t)
	slot := uint8(ref - w.page.first)
	w.page.putRare(slot, t, func(r *rareRun) { r.builder.AppendFloat(t, start, v) })
	w.runs.bytes.Add(rareSampleBytes)
}

func (w *runWriter) putHistogram(ref format.Ref, h *arrival.Histogram) error {
	s := w.series(ref)
	var err error
	w.page.putRare(uint8(ref-w.page.first), h.TimeMillis, func(r *rareRun) {
		if h.Float != nil {
			err = r.builder.AppendFloatHistogram(h.TimeMillis, h.StartMillis, h.Float)
		} else {
			err = r.builder.AppendHistogram(h.TimeMillis, h.StartMillis, h.Int)
		}
	})
	if err == nil {
		w.noteDay(s, ref, h.TimeMillis)
	}
	w.runs.bytes.Add(rareSampleBytes)
	return err
}

// rareSampleBytes is what a sample of a rare run counts against the byte limit
// between two visits of the page, which count exactly.
const rareSampleBytes = 64

// refuse drops what may not be stored from the batch: rows without a ref, samples that lie too far
// ahead, and those older than the samples of their series are kept, at the latest before the first
// day that keys can name.
// The first is noted.
func (a *Archive) refuse(b *arrival.Batch, rejected *arrival.Rejected, first *refused) error {
	now := a.o.Now()
	latest := min(now.Add(a.o.FutureMax).UnixMilli(), format.MaxTimeMillis)
	kept := a.kept.at(now)
	lacking, err := a.trims.lacking(kept, a.trims.gone.Load(), a.cat)
	if err != nil {
		return err
	}
	// What lies behind oldest is kept of every series.
	oldest := kept.rawLast.StartMillis()
	for day := range lacking {
		oldest = max(oldest, day.EndMillis())
	}
	if err := a.learnOld(b, kept, oldest); err != nil {
		return err
	}
	reason := func(ref format.Ref, t int64) arrival.Reason {
		switch {
		case t > latest:
			return arrival.ReasonFuture
		case t < oldest && (t < kept.raw(ref).StartMillis() || lacks(lacking, ref, t)):
			return arrival.ReasonRetention
		}
		return arrival.ReasonNone
	}
	keep := func(ref format.Ref, t int64) bool {
		if ref == 0 {
			return false
		}
		why := reason(ref, t)
		if why == arrival.ReasonNone {
			return true
		}
		rejected[why]++
		first.is(ref, t, why)
		return false
	}
	good := true
	for _, t := range b.Times {
		if t > latest || t < oldest {
			good = false
			break
		}
	}
	for i := 0; good && i < len(b.Rows); i++ {
		good = b.Rows[i].Ref != 0
	}
	if !good {
		compact(b, func(row *arrival.Row, k uint32) bool { return keep(row.Ref, b.Times[k]) })
	}
	b.Histograms = slices.DeleteFunc(b.Histograms, func(h arrival.Histogram) bool {
		return !keep(b.Rows[h.Row].Ref, h.TimeMillis)
	})
	b.Exemplars = slices.DeleteFunc(b.Exemplars, func(e arrival.Exemplar) bool {
		return !keep(b.Rows[e.Row].Ref, e.Ts)
	})
	return nil
}

// lacks tells whether samples of the series were removed from the day of the time or a later one, so that one at the time
// would not be seen.
func lacks(lacking map[format.Day]*roaring.Bitmap, ref format.Ref, t int64) bool {
	for day, refs := range lacking {
		if t < day.EndMillis() && refs.Contains(uint32(ref)) {
			return true
		}
	}
	return false
}

// learnOld finds the rules of the series that have samples before oldest.
func (a *Archive) learnOld(b *arrival.Batch, kept *cutoffs, oldest int64) error {
	if kept.rawFirst == kept.rawLast {
		return nil
	}
	refs := roaring.New()
	for i := range b.Rows {
		row := &b.Rows[i]
		if slices.ContainsFunc(b.Times[row.First:row.First+row.Count], func(t int64) bool { return t < oldest }) {
			refs.Add(uint32(row.Ref))
		}
	}
	for i := range b.Histograms {
		if h := &b.Histograms[i]; h.TimeMillis < oldest {
			refs.Add(uint32(b.Rows[h.Row].Ref))
		}
	}
	for i := range b.Exemplars {
		if e := &b.Exemplars[i]; e.Ts < oldest {
			refs.Add(uint32(b.Rows[e.Row].Ref))
		}
	}
	refs.Remove(0)
	return kept.learn(a.cat, refs)
}

// compact moves the float samples that stay to the front of the columns. Rows keep
// their places, because histograms and exemplars name them by index. stays is asked
// for each sample of a row, in order, with its index in the columns.
func compact(b *arrival.Batch, stays func(row *arrival.Row, k uint32) bool) {
	n := uint32(0)
	for i := range b.Rows {
		row := &b.Rows[i]
		first := n
		for k := row.First; k < row.First+row.Count; k++ {
			if !stays(row, k) {
				continue
			}
			b.Times[n], b.Values[n] = b.Times[k], b.Values[k]
			if len(b.Starts) > 0 {
				b.Starts[n] = b.Starts[k]
			}
			n++
		}
		row.First, row.Count = first, n-first
	}
	b.Times, b.Values = b.Times[:n], b.Values[:n]
	if len(b.Starts) > 0 {
		b.Starts = b.Starts[:n]
	}
}

// prepare brings the pages of all rows to memory.
func (a *Archive) prepare(b *arrival.Batch) error {
	now := a.o.Now().UnixMilli()
	var p *page
	for i := range b.Rows {
		ref := b.Rows[i].Ref
		if ref == 0 {
			continue
		}
		if p == nil || ref-p.first >= pageSize {
			p = a.live.touch(ref, now)
		}
		for p == nil || !p.exists(ref) {
			if _, err := a.live.ensure(ref); err != nil {
				return err
			}
			p = a.live.touch(ref, now)
		}
	}
	return nil
}
