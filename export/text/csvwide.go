package text

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"varve/export"
)

// csvWide writes a record for each time that any series has a sample at, with a column for each series; that of a series
// that has none is empty. Columns are named as in PromQL. Series are read side by side, stretch by stretch of time.
func (w *writer) csvWide(ctx context.Context) (err error) {
	var sets []labels.Labels
	w.list, err = w.o.Source.List(ctx, w.o.Request, false, w.o.Scratch, func(ls labels.Labels) error {
		if len(sets) >= w.o.ColumnsMax {
			return fmt.Errorf("%w: there are more than %d series, which are a column each; narrow the selectors, or use the long form", export.ErrTooWide, w.o.ColumnsMax)
		}
		sets = append(sets, ls)
		return nil
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.list.Close()) }()
	b := append(w.buf[:0], "time"...)
	for _, ls := range sets {
		b = appendField(append(b, ','), ls.String())
	}
	w.buf = append(b, lineEnd...)
	if err := w.put(); err != nil || len(sets) == 0 {
		return err
	}
	t := &table{w: w, sets: sets, matchers: export.Narrow(sets), sampled: make([]bool, len(sets))}
	if err := t.write(ctx); err != nil {
		return err
	}
	for _, sampled := range t.sampled {
		if sampled {
			w.stats.Series++
		}
	}
	return nil
}

// tableSamples is about how many samples of a table are read at a time.
const tableSamples = 2 << 20

// stretchMin is how many ms are read at a time at least, unless the storage refuses that as too many samples.
const stretchMin = 10_000

// table writes records of all series.
type table struct {
	w        *writer
	sets     []labels.Labels
	matchers []*labels.Matcher
	sampled  []bool
	heads    columnHeap
	its      []chunkenc.Iterator
}

// write reads stretch by stretch, each so long that it has about as many samples as the budget, if it is like the one
// before; the first is a minute.
func (t *table) write(ctx context.Context) error {
	budget := float64(tableSamples)
	if n := t.w.o.Walker.SamplesBudget; n > 0 {
		budget = float64(n)
	}
	request := t.w.o.Request
	span := int64(60_000)
	for at := request.MinMillis; at <= request.MaxMillis; {
		last := request.MaxMillis
		if span < last-at+1 {
			last = at + span - 1
		}
		before := t.w.stats.Samples
		if err := t.stretch(ctx, at, last); err != nil {
			tooLarge := t.w.o.Source.TooLarge
			if tooLarge == nil || !tooLarge(err) || t.w.stats.Samples > before || last == at {
				return err
			}
			span = (last - at + 1) / 2
			continue
		}
		read := float64(t.w.stats.Samples-before) + 1
		span = int64(min(max(float64(last-at+1)*min(budget/read, 4), stretchMin), math.MaxInt64/8))
		if t.w.o.Progress != nil {
			t.w.o.Progress(Progress{
				SeriesTotal: int64(len(t.sets)), Done: float64(last-request.MinMillis+1) / float64(request.MaxMillis-request.MinMillis+1),
				Samples: t.w.stats.Samples, Bytes: t.w.stats.Bytes,
			})
		}
		if last == math.MaxInt64 {
			return nil
		}
		at = last + 1
	}
	return nil
}

// stretch writes the records from mint to maxt, both inclusive.
func (t *table) stretch(ctx context.Context, mint, maxt int64) (err error) {
	q, err := t.w.o.Source.Queryable.Querier(mint, maxt)
	if err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	found := q.Select(ctx, true, &storage.SelectHints{Start: mint, End: maxt}, t.matchers...)
	t.heads, t.its = t.heads[:0], t.its[:0]
	for column := 0; found.Next(); {
		s := found.At()
		for column < len(t.sets) && labels.Compare(t.sets[column], s.Labels()) < 0 {
			column++
		}
		if column == len(t.sets) {
			break
		}
		if !labels.Equal(t.sets[column], s.Labels()) {
			continue
		}
		it := s.Iterator(nil)
		t.its = append(t.its, it)
		if err := t.advance(it, column); err != nil {
			return err
		}
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("read %d series: %w", len(t.sets), err)
	}
	return t.records(ctx)
}

// advance puts the next sample of a column on the heap.
func (t *table) advance(it chunkenc.Iterator, column int) error {
	at, v, ok := t.w.next(it)
	if !ok {
		return it.Err()
	}
	t.sampled[column] = true
	heap.Push(&t.heads, columnHead{at, v, column, it})
	return nil
}

func (t *table) records(ctx context.Context) error {
	for n := 0; len(t.heads) > 0; n++ {
		if n&1023 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		at := t.heads[0].t
		t.w.buf = t.w.appendTime(t.w.buf[:0], at)
		column := 0
		for len(t.heads) > 0 && t.heads[0].t == at {
			h := heap.Pop(&t.heads).(columnHead)
			for ; column <= h.column; column++ {
				t.w.buf = append(t.w.buf, ',')
			}
			t.w.buf = appendFloat(t.w.buf, h.v)
			if err := t.advance(h.it, h.column); err != nil {
				return err
			}
		}
		for ; column < len(t.sets); column++ {
			t.w.buf = append(t.w.buf, ',')
		}
		t.w.buf = append(t.w.buf, lineEnd...)
		if err := t.w.put(); err != nil {
			return err
		}
	}
	return nil
}

type columnHead struct {
	t      int64
	v      float64
	column int
	it     chunkenc.Iterator
}

// columnHeap implements heap.Interface: by time, then by column.
type columnHeap []columnHead

func (h columnHeap) Len() int { return len(h) }
func (h columnHeap) Less(i, j int) bool {
	return h[i].t < h[j].t || h[i].t == h[j].t && h[i].column < h[j].column
}
func (h columnHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *columnHeap) Push(x any) { *h = append(*h, x.(columnHead)) }

// Pop implements heap.Interface.
func (h *columnHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
