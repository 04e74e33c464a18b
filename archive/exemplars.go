package archive

import (
	"context"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"varve/archive/format"
	"varve/rocks"
)

// putExemplar puts an exemplar into the commit of its arrival. Called with the archive's lock held.
func (a *Archive) putExemplar(b *rocks.Batch, seq format.Sequence, ref format.Ref, e *exemplar.Exemplar) {
	p := a.live.page(ref)
	p.mu.Lock()
	metric := p.slots[ref-p.first].metric
	p.mu.Unlock()
	key := format.ExemplarKey{Metric: metric, Ref: ref, TimeMillis: e.Ts, Sequence: seq}
	b.Put(family(format.FamilyExemplars), key.Append(nil), format.AppendExemplar(nil, e))
}

// ExemplarQuerier implements storage.ExemplarQueryable.
func (a *Archive) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return &exemplarQuerier{a: a, ctx: ctx}, nil
}

type exemplarQuerier struct {
	a   *Archive
	ctx context.Context
}

// Select returns the exemplars with start <= time <= end (Unix ms) of the series
// that match any of the matcher lists. Of exemplars of a series at one time the last to arrive is returned.
func (q *exemplarQuerier) Select(start, end int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	v, err := q.a.view(start, end)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	seen := map[format.Ref]bool{}
	out := []exemplar.QueryResult{} // An empty list in the answer, not null.
	for _, ms := range matchers {
		sel, err := v.find(q.ctx, v.mint, v.maxt, ms)
		if err != nil {
			return nil, err
		}
		for i, ref := range sel.refs {
			if seen[ref] {
				continue
			}
			seen[ref] = true
			es, err := v.exemplars(q.ctx, ref, v.masks.of(ref))
			if err != nil {
				return nil, err
			}
			if len(es) > 0 {
				out = append(out, exemplar.QueryResult{SeriesLabels: sel.labels[i], Exemplars: es})
			}
		}
	}
	slices.SortFunc(out, func(x, y exemplar.QueryResult) int { return labels.Compare(x.SeriesLabels, y.SeriesLabels) })
	return out, nil
}

// exemplars reads those of one series in the view's time range that its masks don't hide.
func (v *view) exemplars(ctx context.Context, ref format.Ref, own seriesMasks) ([]exemplar.Exemplar, error) {
	rec, err := v.a.cat.record(ref)
	if err != nil {
		return nil, err
	}
	it := v.a.db.NewIterator(family(format.FamilyExemplars), rocks.IterOptions{Snapshot: v.snap})
	defer it.Close()
	var out []exemplar.Exemplar
	if err := v.learn(roaring.BitmapOf(uint32(ref))); err != nil {
		return nil, err
	}
	last := format.DayOf(v.maxt)
	for day := max(format.DayOf(v.mint), v.kept.raw(ref)); day <= last; day++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		prefix := format.AppendExemplarPrefix(nil, day, rec.Metric, ref)
		it.Seek(prefix)
		if !it.Valid() {
			break
		}
		k, err := format.ParseExemplarKey(it.Key())
		if err != nil {
			return nil, err
		}
		// A day without exemplars at all is skipped together with those behind it.
		if found := format.DayOf(k.TimeMillis); found > day {
			day = found - 1
			continue
		}
		if out, err = v.exemplarsOfDay(it, out, k, rec.Metric, ref, day, own); err != nil {
			return nil, err
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read exemplars: %w", err)
	}
	return out, nil
}

func (v *view) exemplarsOfDay(it *rocks.Iterator, out []exemplar.Exemplar, k format.ExemplarKey, metric format.PairID, ref format.Ref, day format.Day, own seriesMasks) ([]exemplar.Exemplar, error) {
	for k.Metric == metric && k.Ref == ref && format.DayOf(k.TimeMillis) == day {
		if k.TimeMillis >= v.mint && k.TimeMillis <= v.maxt && !own.hides(k.TimeMillis, k.Sequence) {
			e := exemplar.Exemplar{Ts: k.TimeMillis, HasTs: true}
			if err := format.ParseExemplar(it.Value(), &e); err != nil {
				return nil, err
			}
			if n := len(out); n > 0 && out[n-1].Ts == e.Ts {
				out[n-1] = e
			} else {
				out = append(out, e)
			}
		}
		if it.Next(); !it.Valid() {
			break
		}
		var err error
		if k, err = format.ParseExemplarKey(it.Key()); err != nil {
			return nil, err
		}
	}
	return out, nil
}
