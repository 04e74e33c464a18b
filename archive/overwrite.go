package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/archive/chunk"
	"varve/archive/format"
	"varve/arrival"
)

// overwriteGuard refuses samples whose series has another value at the same time. It
// exists only if Options.RejectOverwrites is set.
//
// A sample later than all that its series has is new, which is known without a look
// at the disk for every sample but the first of a series since its page came to
// memory. For the others the stored samples are read and compared. The lock is held from the
// look until the batch can be read, so that of two writers one sees the other.
type overwriteGuard struct {
	a *Archive

	mu     sync.Mutex
	looks  map[format.Ref]*look
	order  []*look // the looks, by their first time once they are read
	column chunk.Column
	it     chunk.Iterator
}

// look is a series of a batch that may have samples at the batch's times.
type look struct {
	ref        format.Ref
	metric     format.PairID
	mint, maxt int64 // of the batch's samples, inclusive
	newest     *int64
	// floats and histograms are what the archive has from mint on, and what the batch
	// has brought so far.
	floats     map[int64]uint64
	histograms map[int64]*arrival.Histogram
}

// unknownNewest stands for a series of which something may lie anywhere.
const unknownNewest = math.MaxInt64

// newestWindow is how far behind a batch's samples of a series a look goes on, so that
// it finds the newest sample of a series that is written to at about now. A clock that was
// set back by more than that before a start lets overwrites of what was written ahead of it pass.
const newestWindow = 24 * time.Hour

// enter drops from the batch what would overwrite, and holds the guard until leave
// unless there is an error. Called when the batch's pages are in memory.
func (g *overwriteGuard) enter(ctx context.Context, b *arrival.Batch, rejected *arrival.Rejected, first *refused) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	err := g.refuse(ctx, b, rejected, first)
	if err != nil {
		g.mu.Unlock()
		var u *arrival.Unavailable
		if !errors.As(err, &u) && ctx.Err() == nil {
			err = &arrival.Unavailable{Reason: "overload", RetryAfter: time.Second, Err: err}
		}
	}
	return err
}

func (g *overwriteGuard) leave() {
	if g != nil {
		g.mu.Unlock()
	}
}

func (g *overwriteGuard) refuse(ctx context.Context, b *arrival.Batch, rejected *arrival.Rejected, first *refused) error {
	g.looks, g.order = map[format.Ref]*look{}, g.order[:0]
	for i := range b.Rows {
		row := &b.Rows[i]
		for _, t := range b.Times[row.First : row.First+row.Count] {
			g.note(row.Ref, t)
		}
	}
	for i := range b.Histograms {
		g.note(b.Rows[b.Histograms[i].Row].Ref, b.Histograms[i].TimeMillis)
	}
	if len(g.looks) == 0 {
		return nil
	}
	// A series that needs a look needs it for all its samples, also those before the
	// one that told, which may have come in the same batch.
	for i := range b.Rows {
		row := &b.Rows[i]
		if l := g.looks[row.Ref]; l != nil {
			for _, t := range b.Times[row.First : row.First+row.Count] {
				l.mint, l.maxt = min(l.mint, t), max(l.maxt, t)
			}
		}
	}
	for i := range b.Histograms {
		h := &b.Histograms[i]
		if l := g.looks[b.Rows[h.Row].Ref]; l != nil {
			l.mint, l.maxt = min(l.mint, h.TimeMillis), max(l.maxt, h.TimeMillis)
		}
	}
	if err := g.read(ctx); err != nil {
		return err
	}
	stays := func(ok bool, ref format.Ref, t int64) bool {
		if !ok {
			rejected[arrival.ReasonOverwrite]++
			first.is(ref, t, arrival.ReasonOverwrite)
		}
		return ok
	}
	compact(b, func(row *arrival.Row, k uint32) bool {
		l := g.looks[row.Ref]
		return l == nil || stays(l.takesFloat(b.Times[k], b.Values[k]), row.Ref, b.Times[k])
	})
	b.Histograms = slices.DeleteFunc(b.Histograms, func(h arrival.Histogram) bool {
		l := g.looks[b.Rows[h.Row].Ref]
		return l != nil && !stays(l.takesHistogram(&h), b.Rows[h.Row].Ref, h.TimeMillis)
	})
	return nil
}

// note takes note of a sample's time, and that its series needs a look if the
// sample is not surely its newest.
func (g *overwriteGuard) note(ref format.Ref, t int64) {
	if ref == 0 {
		return
	}
	p := g.a.live.page(ref)
	newest := p.newestOf(ref)
	if t > *newest {
		*newest = t
		return
	}
	if g.looks[ref] == nil {
		l := &look{ref: ref, metric: p.slots[ref-p.first].metric, mint: t, maxt: t, newest: newest}
		g.looks[ref] = l
		g.order = append(g.order, l)
	}
}

// newestOf is where the guard keeps the time of the ref's newest sample.
func (p *page) newestOf(ref format.Ref) *int64 {
	if p.newest == nil {
		p.newest = new([pageSize]int64)
		for i := range p.newest {
			p.newest[i] = unknownNewest
		}
	}
	return &p.newest[ref-p.first]
}

// lookSpanMax is how much time the looks that are read together may span: a batch may hold
// samples of today beside some of years ago.
const lookSpanMax = 2 * format.DayMillis

// read gives the looks what the archive has at their times.
func (g *overwriteGuard) read(ctx context.Context) error {
	slices.SortFunc(g.order, func(x, y *look) int { return cmp.Compare(x.mint, y.mint) })
	for rest := g.order; len(rest) > 0; {
		n, maxt := 1, rest[0].end()
		for n < len(rest) && max(maxt, rest[n].end())-rest[0].mint <= lookSpanMax {
			maxt = max(maxt, rest[n].end())
			n++
		}
		if err := g.readTogether(ctx, rest[:n], rest[0].mint, maxt); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func (g *overwriteGuard) readTogether(ctx context.Context, looks []*look, mint, maxt int64) error {
	out := make([]samples, len(looks))
	for i, l := range looks {
		out[i].ref, out[i].metric = l.ref, l.metric
	}
	v, err := g.a.view(mint, maxt)
	if errors.Is(err, ErrStarting) {
		return &arrival.Unavailable{Reason: "starting", RetryAfter: time.Second, Err: err}
	}
	if err != nil {
		return err
	}
	defer v.Close()
	if _, err := v.fill(ctx, out, mint, maxt); err != nil {
		return err
	}
	var pieces []chunk.Piece
	for i, l := range looks {
		pieces = out[i].appendPieces(pieces[:0])
		if err := g.column.Decode(pieces, l.mint, l.end()); err != nil {
			return fmt.Errorf("series %d: %w", l.ref, err)
		}
		l.take(&g.column, &g.it)
		l.settleNewest(&g.column, g.a.o.Now().Add(g.a.o.FutureMax))
	}
	return nil
}

// end is the last time that the look goes to.
func (l *look) end() int64 {
	if *l.newest == unknownNewest {
		return min(l.maxt+newestWindow.Milliseconds(), format.MaxTimeMillis)
	}
	return l.maxt
}

// settleNewest sets the series' newest time if the look went as far as there may be samples.
func (l *look) settleNewest(c *chunk.Column, latest time.Time) {
	if *l.newest != unknownNewest || l.end() < latest.UnixMilli() {
		return
	}
	*l.newest = l.maxt
	if n := len(c.Times); n > 0 {
		*l.newest = max(l.maxt, c.Times[n-1])
	}
}

// take remembers the column's samples.
func (l *look) take(c *chunk.Column, it *chunk.Iterator) {
	l.floats = make(map[int64]uint64, len(c.Times))
	it.Reset(c)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		switch kind {
		case chunkenc.ValFloat:
			t, v := it.At()
			l.floats[t] = math.Float64bits(v)
		case chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			l.keep(&arrival.Histogram{TimeMillis: t, Int: h})
		case chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			l.keep(&arrival.Histogram{TimeMillis: t, Float: h})
		}
	}
}

func (l *look) keep(h *arrival.Histogram) {
	if l.histograms == nil {
		l.histograms = map[int64]*arrival.Histogram{}
	}
	l.histograms[h.TimeMillis] = h
}

// takesFloat reports whether the sample is new, or the same as the one there.
func (l *look) takesFloat(t int64, v uint64) bool {
	if l.histograms[t] != nil {
		return false
	}
	if known, ok := l.floats[t]; ok {
		return known == v
	}
	l.floats[t] = v
	return true
}

// takesHistogram is takesFloat for a histogram. Counter reset hints may differ.
func (l *look) takesHistogram(h *arrival.Histogram) bool {
	if _, ok := l.floats[h.TimeMillis]; ok {
		return false
	}
	known := l.histograms[h.TimeMillis]
	if known == nil {
		l.keep(h)
		return true
	}
	return sameHistogram(known.Int, h.Int) && sameFloatHistogram(known.Float, h.Float)
}

func sameHistogram(x, y *histogram.Histogram) bool {
	return (x == nil) == (y == nil) && (x == nil || x.Equals(y))
}

func sameFloatHistogram(x, y *histogram.FloatHistogram) bool {
	return (x == nil) == (y == nil) && (x == nil || x.Equals(y))
}
