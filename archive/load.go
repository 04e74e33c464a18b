package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/common/model"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/rocks"
)

// samples are the coded samples of one series. Immutable once loaded.
type samples struct {
	ref    format.Ref
	metric format.PairID
	// disk are the chunks of bundles and then the pieces of runs, in the order of their
	// keys; memory are the pieces of open runs.
	// Where two have a sample at the same time, the later arrival comes later.
	disk, memory []chunk.Piece
	// masks are what tombstones hide of the series, since is the first day of which anything is seen.
	masks seriesMasks
	since format.Day
}

// appendPieces appends the series' pieces, those that arrived earlier first as far as it matters.
func (s *samples) appendPieces(dst []chunk.Piece) []chunk.Piece {
	return append(append(dst, s.disk...), s.memory...)
}

// loader reads the samples of a selection between two times, metric by metric and
// slot by slot in the order of the keys.
type loader struct {
	v          *view
	ctx        context.Context
	mint, maxt int64
	out        []samples
	arena      []byte
	pieces     []chunk.Piece
	it, raw    *rocks.Iterator
	runDays    []runDay
	masked     bool // one of the series has masks, or is cut off on a day that is read
	steps      int
	taken      int
	// read are the bytes of runs and bundles that were read.
	read int
}

// arenaBytes is the size of the pieces of memory that runs are copied to, pieceBytes what
// the description of each takes.
const (
	arenaBytes = 256 << 10
	pieceBytes = 72
)

// load returns the samples of the selection's series, in its order.
func (v *view) load(ctx context.Context, sel *selection, mint, maxt int64) ([]samples, error) {
	out := make([]samples, len(sel.refs))
	if err := v.name(out, sel); err != nil {
		return nil, err
	}
	_, err := v.fill(ctx, out, mint, maxt)
	return out, err
}

// fill reads what samples with ref and metric stand for. taken is what they count
// against the limit of the query.
func (v *view) fill(ctx context.Context, out []samples, mint, maxt int64) (taken int, err error) {
	if mint = max(mint, v.kept.rawFirst.StartMillis()); mint > maxt {
		return 0, nil
	}
	if err := v.limit(out); err != nil {
		return 0, err
	}
	l := loader{v: v, ctx: ctx, mint: mint, maxt: maxt, out: out}
	stats := readStatsOf(ctx)
	began := stats.now()
	defer func() { stats.loaded(began, l.read, out) }()
	metrics := l.byMetric()
	for i := range out {
		out[i].masks = v.masks.of(out[i].ref)
		l.masked = l.masked || out[i].masks != nil || out[i].since > format.DayOf(mint)
	}
	// The iterator comes first: what leaves memory between the two reads is then found
	// in memory, since the view's snapshot is older still.
	days := rocks.IterOptions{
		Snapshot: v.snap, Lower: format.AppendDayPrefix(nil, format.DayOf(mint)),
		Upper: format.AppendDayPrefix(nil, format.DayOf(maxt)+1), ReadaheadBytes: 256 << 10,
	}
	l.it = v.a.db.NewIterator(family(format.FamilyHot), days)
	defer l.it.Close()
	l.raw = v.a.db.NewIterator(family(format.FamilyRaw), days)
	defer l.raw.Close()
	if err := l.findRunDays(); err != nil {
		return 0, err
	}
	for metric, at := range metrics {
		// Runs of a sealed day arrived later than what is sealed of it.
		if err := l.sealedMetric(metric, at); err != nil {
			return l.taken, err
		}
		if err := l.metric(metric, at); err != nil {
			return l.taken, err
		}
	}
	if err := errors.Join(l.raw.Err(), l.it.Err()); err != nil {
		return l.taken, fmt.Errorf("read samples: %w", err)
	}
	err = l.memory()
	return l.taken, err
}

// limit sets the days from which on samples of the series are seen.
func (v *view) limit(out []samples) error {
	if len(v.kept.days) > 1 {
		refs := roaring.New()
		for i := range out {
			refs.Add(uint32(out[i].ref))
		}
		if err := v.learn(refs); err != nil {
			return err
		}
	}
	lacking, err := v.a.trims.lacking(v.kept, v.gone, v.a.cat)
	if err != nil {
		return err
	}
	for i := range out {
		out[i].since = v.kept.raw(out[i].ref)
		for day, refs := range lacking {
			if refs.Contains(uint32(out[i].ref)) {
				out[i].since = max(out[i].since, day+1)
			}
		}
	}
	return nil
}

// name sets ref and metric of the selection's series.
func (v *view) name(out []samples, sel *selection) error {
	lastName, id := "", format.PairID(0)
	known := false
	for i, ls := range sel.labels {
		name := ls.Get(model.MetricNameLabel)
		if !known || name != lastName {
			lastName, known, id = name, true, 0
			if name != "" {
				var err error
				if id, err = v.a.cat.findPair(model.MetricNameLabel, name); err != nil {
					return err
				}
			}
		}
		out[i].ref, out[i].metric = sel.refs[i], id
	}
	return nil
}

// byMetric sorts the places of the series by metric and, within, by ref.
func (l *loader) byMetric() map[format.PairID][]int32 {
	metrics := map[format.PairID][]int32{}
	for i := range l.out {
		metrics[l.out[i].metric] = append(metrics[l.out[i].metric], int32(i))
	}
	for _, at := range metrics {
		slices.SortFunc(at, func(x, y int32) int {
			if l.out[x].ref < l.out[y].ref {
				return -1
			}
			return 1
		})
	}
	return metrics
}

// nearMax is how many runs of other series are stepped over before a seek.
const nearMax = 6

// runDay is a day that has runs, with the generations of them that are to be read, the
// older first. Runs of others are in bundles and are about to be dropped: an older one that
// is still there must not win over a bundle that has what came later.
type runDay struct {
	day         format.Day
	generations []format.Generation
}

// findRunDays sets the days of the time range that have runs.
func (l *loader) findRunDays() error {
	last := format.DayOf(l.maxt)
	for day := format.DayOf(l.mint); day <= last; day++ {
		l.it.Seek(format.AppendDayPrefix(nil, day))
		if !l.it.Valid() {
			break
		}
		k, err := format.ParseHotKey(l.it.Key())
		if err != nil {
			return err
		}
		r, err := l.v.dayRecord(k.Day)
		if err != nil {
			return err
		}
		d := runDay{day: k.Day, generations: []format.Generation{r.Generation}}
		if r.Folding {
			d.generations = []format.Generation{r.FoldedGeneration(), r.Generation}
		}
		l.runDays = append(l.runDays, d)
		day = k.Day
	}
	return l.it.Err()
}

// dayRecord is the record of a day as the view sees it.
func (v *view) dayRecord(d format.Day) (r format.DayRecord, err error) {
	value, ok, err := v.snap.Get(family(format.FamilyMeta), format.AppendDayName(nil, d), nil)
	if err != nil || !ok {
		return r, err
	}
	if err := r.Parse(value); err != nil {
		return r, fmt.Errorf("record of day %s: %w; run `varve check data`", Date(d), err)
	}
	return r, nil
}

// metric reads the runs of one metric's series. at are their places in out, by ref.
func (l *loader) metric(metric format.PairID, at []int32) error {
	for _, d := range l.runDays {
		for _, g := range d.generations {
			if err := l.generation(format.HotKey{Day: d.day, Generation: g, Metric: metric, Ref: l.out[at[0]].ref}, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// generation reads the runs of the metric's series that have the day and the generation of first.
func (l *loader) generation(first format.HotKey, at []int32) error {
	last := uint8(format.SlotsPerDay - 1)
	if first.Day == format.DayOf(l.maxt) {
		last = format.SlotOf(l.maxt)
	}
	if first.Day == format.DayOf(l.mint) {
		first.Slot = format.SlotOf(l.mint)
	}
	for first.Slot <= last {
		l.it.Seek(first.Append(nil))
		if !l.it.Valid() {
			return l.it.Err()
		}
		k, err := format.ParseHotKey(l.it.Key())
		if err != nil {
			return err
		}
		if k.Day != first.Day || k.Generation != first.Generation {
			return nil
		}
		if k.Slot != first.Slot {
			// Nothing in this slot: go on where there is something.
			first.Slot = k.Slot
			continue
		}
		if k.Metric == first.Metric {
			if err := l.slot(k, at); err != nil {
				return err
			}
		}
		first.Slot++
	}
	return nil
}

// slot reads the runs of the metric's series in the slot of k, where the iterator stands.
func (l *loader) slot(k format.HotKey, at []int32) error {
	begin := k
	i, near := 0, 0
	for {
		if err := l.breathe(); err != nil {
			return err
		}
		for i < len(at) && l.out[at[i]].ref < k.Ref {
			i++
		}
		if i == len(at) {
			return nil
		}
		s := &l.out[at[i]]
		switch {
		case s.ref == k.Ref:
			if err := l.add(s, k); err != nil {
				return err
			}
			near = 0
			l.it.Next()
		case near < nearMax:
			near++
			l.it.Next()
		default:
			near = 0
			key := format.HotKey{Day: begin.Day, Generation: begin.Generation, Slot: begin.Slot, Metric: begin.Metric, Ref: s.ref}
			l.it.Seek(key.Append(nil))
		}
		if !l.it.Valid() {
			return l.it.Err()
		}
		var err error
		if k, err = format.ParseHotKey(l.it.Key()); err != nil {
			return err
		}
		if k.Day != begin.Day || k.Generation != begin.Generation || k.Slot != begin.Slot || k.Metric != begin.Metric {
			return nil
		}
	}
}

// take counts bytes that the query holds.
func (l *loader) take(n int) error {
	l.taken += n
	return l.v.take(n)
}

// breathe notices now and then that the query was ended.
func (l *loader) breathe() error {
	if l.steps++; l.steps&1023 != 0 {
		return nil
	}
	return l.ctx.Err()
}

// add checks a run and keeps it.
func (l *loader) add(s *samples, k format.HotKey) error {
	if k.Day < s.since {
		return nil
	}
	var err error
	if _, l.pieces, err = chunk.ParseRun(l.it.Key(), l.keep(l.it.Value()), l.pieces[:0]); err != nil {
		return fmt.Errorf("run of series %d in family hot, key %x: %w; run `varve check data`", s.ref, l.it.Key(), err)
	}
	l.read += len(l.it.Value())
	at := len(s.disk)
	s.disk = s.masks.hide(s.disk, l.pieces, k.Sequence)
	return l.take(piecesBytes(s.disk[at:]))
}

// piecesBytes is what pieces count against the limit of a query.
func piecesBytes(pieces []chunk.Piece) int {
	n := len(pieces) * pieceBytes
	for i := range pieces {
		n += len(pieces[i].Data)
	}
	return n
}

// keep copies a value that the engine owns.
func (l *loader) keep(value []byte) []byte {
	if len(l.arena)+len(value) > cap(l.arena) {
		l.arena = make([]byte, 0, max(arenaBytes, len(value)))
	}
	first := len(l.arena)
	l.arena = append(l.arena, value...)
	return l.arena[first:len(l.arena):len(l.arena)]
}

// memory adds what the open runs hold. What an earlier Select of the view saw of a
// series, a later one sees too, so that a query subtracts equals from equals.
func (l *loader) memory() error {
	v := l.v
	v.memoryMu.Lock()
	defer v.memoryMu.Unlock()
	seen := map[format.Ref][]chunk.Piece{}
	for _, earlier := range v.loaded {
		for i := range earlier {
			seen[earlier[i].ref] = earlier[i].memory
		}
	}
	v.loaded = append(v.loaded, l.out)
	replayed := l.v.a.replayed.Load()
	n := 0
	for i := range l.out {
		s := &l.out[i]
		if known, ok := seen[s.ref]; ok {
			s.memory = known
		} else {
			if replayed != nil {
				s.memory = replayed.appendPieces(s.memory, s.ref, l.v.epoch, s.masks)
			}
			s.memory = l.v.a.live.appendPieces(s.memory, s.ref, l.v.epoch, s.masks)
			// A piece lies on one day.
			s.memory = slices.DeleteFunc(s.memory, func(p chunk.Piece) bool { return format.DayOf(p.MinMillis) < s.since })
		}
		n += piecesBytes(s.memory)
	}
	return l.v.take(n)
}
