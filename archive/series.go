package archive

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/archive/chunk"
	"varve/archive/format"
)

// Select implements storage.Querier. The series come sorted by labels whatever
// sortSeries says, their samples lie between hints.Start and hints.End where hints
// are given. Reading begins at once, in another goroutine. A series may turn out to
// have no samples, except when hints.Func is "series".
func (v *view) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return v.selectSeries(ctx, hints, grid{}, ms)
}

// SelectSteps is Select for an instant selector that is evaluated at firstMillis,
// firstMillis+stepMillis and so on up to lastMillis: of the samples that belong to no
// step, being neither the last at or before one, some may be left out. hints.Start is the
// first time that any step looks back to.
func (v *view) SelectSteps(ctx context.Context, hints *storage.SelectHints, firstMillis, lastMillis, stepMillis int64, ms ...*labels.Matcher) storage.SeriesSet {
	return v.selectSeries(ctx, hints, grid{first: firstMillis, last: lastMillis, step: stepMillis, lookback: firstMillis - hints.Start + 1}, ms)
}

// grid is the steps that an instant selector is evaluated at. A zero step is none.
type grid struct{ first, last, step, lookback int64 }

func (v *view) selectSeries(ctx context.Context, hints *storage.SelectHints, g grid, ms []*labels.Matcher) storage.SeriesSet {
	mint, maxt := v.mint, v.maxt
	justSeries := false
	limit := 0
	if hints != nil {
		mint, maxt = max(mint, format.ClampTime(hints.Start)), min(maxt, format.ClampTime(hints.End))
		justSeries = hints.Func == "series"
		limit = hints.Limit
	}
	s := &seriesSet{v: v, ctx: ctx, stats: readStatsOf(ctx), grid: g, mint: mint, maxt: maxt, at: -1, done: make(chan struct{})}
	if mint > maxt {
		close(s.done)
		return s
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(v.ctx, cancel)
	v.reads.Add(1)
	go func() {
		defer v.reads.Done()
		defer close(s.done)
		defer cancel()
		defer stop()
		s.err = s.read(ctx, ms, justSeries, limit)
	}()
	return s
}

// seriesSet is the answer of a Select.
type seriesSet struct {
	v          *view
	ctx        context.Context
	stats      *readStats
	grid       grid
	mint, maxt int64

	done chan struct{} // closed when what follows is set
	sel  *selection
	data []samples
	err  error

	at int
}

func (s *seriesSet) read(ctx context.Context, ms []*labels.Matcher, justSeries bool, limit int) error {
	began := s.stats.now()
	sel, err := s.v.find(ctx, s.mint, s.maxt, ms)
	if err != nil {
		return err
	}
	if justSeries {
		if sel, err = s.v.withSamples(ctx, sel, s.mint, s.maxt); err != nil {
			return err
		}
	}
	if limit > 0 && len(sel.refs) > limit {
		sel.refs, sel.labels = sel.refs[:limit], sel.labels[:limit]
	}
	if !justSeries {
		if sel, err = s.v.withRaw(sel, s.maxt); err != nil {
			return err
		}
	}
	s.sel = sel
	s.stats.found(began, sel)
	if justSeries {
		s.data = make([]samples, len(sel.refs))
		return nil
	}
	s.data, err = s.v.load(ctx, sel, s.mint, s.maxt)
	return err
}

func (s *seriesSet) Next() bool {
	<-s.done
	if s.err != nil || s.sel == nil || s.at+1 >= len(s.data) {
		return false
	}
	s.at++
	return true
}

func (s *seriesSet) At() storage.Series {
	return &series{ctx: s.ctx, stats: s.stats, labels: s.sel.labels[s.at], samples: &s.data[s.at], mint: s.mint, maxt: s.maxt, grid: s.grid}
}

func (s *seriesSet) Err() error {
	<-s.done
	return s.err
}

func (*seriesSet) Warnings() annotations.Annotations { return nil }

// series is a series with its coded samples. Its iterators are independent of each other.
type series struct {
	ctx        context.Context // of the Select; decoding ends with it
	stats      *readStats
	labels     labels.Labels
	samples    *samples
	mint, maxt int64
	grid       grid
}

// Labels implements storage.Series.
func (s *series) Labels() labels.Labels { return s.labels }

// Within returns the series with only its samples between mint and maxt, both inclusive.
func (s *series) Within(mint, maxt int64) storage.Series {
	w := *s
	w.mint, w.maxt = max(s.mint, mint), min(s.maxt, maxt)
	return &w
}

// Iterator implements storage.Series. It decodes all samples at once.
func (s *series) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*seriesIterator)
	if !ok {
		it = &seriesIterator{}
	}
	if err := it.decode(s); err != nil {
		it.Fail(err)
		return it
	}
	it.Reset(&it.column)
	return it
}

// seriesIterator is the one type of iterator that the engine meets.
type seriesIterator struct {
	chunk.Iterator
	column chunk.Column
	pieces []chunk.Piece
}

func (it *seriesIterator) decode(s *series) error {
	// The engine looks at its context between series of a step, not while it asks for them.
	if err := s.ctx.Err(); err != nil {
		return err
	}
	it.pieces = s.samples.appendPieces(it.pieces[:0])
	began := s.stats.now()
	if err := it.column.Decode(it.pieces, s.mint, s.maxt); err != nil {
		return err
	}
	s.stats.decoded(began, len(it.column.Times))
	if g := s.grid; g.step > 0 {
		it.column.Thin(g.first, g.last, g.step, g.lookback)
	}
	return nil
}

// chunkView is the view as a ChunkQuerier.
type chunkView struct{ *view }

// Select implements storage.ChunkQuerier: the chunks are coded anew, with at most 120 samples each.
func (c *chunkView) Select(ctx context.Context, sortSeries bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return &chunkSeriesSet{c.view.Select(ctx, sortSeries, hints, ms...)}
}

type chunkSeriesSet struct{ storage.SeriesSet }

func (s *chunkSeriesSet) At() storage.ChunkSeries {
	return &chunkSeries{s.SeriesSet.At().(*series)}
}

type chunkSeries struct{ *series }

// Iterator implements storage.ChunkSeries.
func (s *chunkSeries) Iterator(chunks.Iterator) chunks.Iterator {
	var it seriesIterator
	if err := it.decode(s.series); err != nil {
		return errChunks{err}
	}
	metas, err := it.column.Chunks(nil)
	if err != nil {
		return errChunks{err}
	}
	return storage.NewListChunkSeriesIterator(metas...)
}

type errChunks struct{ err error }

func (errChunks) At() chunks.Meta { return chunks.Meta{} }
func (errChunks) Next() bool      { return false }
func (e errChunks) Err() error    { return e.err }
