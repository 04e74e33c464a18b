package archive

import (
	"context"
	"errors"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/archive/chunk"
	"varve/archive/format"
)

var errStop = errors.New("stop")

// LabelValues implements storage.LabelQuerier: the values of the label among the
// series that match and have a sample in the view's time range, sorted.
func (v *view) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	var out []string
	if len(ms) > 0 {
		sel, err := v.matching(ctx, ms)
		if err != nil {
			return nil, nil, err
		}
		for _, ls := range sel.labels {
			if value := ls.Get(name); value != "" {
				out = append(out, value)
			}
		}
	} else {
		scope, err := v.scope(ctx)
		if err != nil {
			return nil, nil, err
		}
		err = v.a.cat.values(name, "", func(value string, id format.PairID) error {
			ok, err := scope.has(id)
			if ok {
				out = append(out, value)
			}
			return errors.Join(err, ctx.Err())
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return limited(out, hints), nil, nil
}

// LabelNames implements storage.LabelQuerier like LabelValues.
func (v *view) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	var out []string
	if len(ms) > 0 {
		sel, err := v.matching(ctx, ms)
		if err != nil {
			return nil, nil, err
		}
		seen := map[string]bool{}
		for _, ls := range sel.labels {
			ls.Range(func(l labels.Label) { seen[l.Name] = true })
		}
		for name := range seen {
			out = append(out, name)
		}
		return limited(out, hints), nil, nil
	}
	scope, err := v.scope(ctx)
	if err != nil {
		return nil, nil, err
	}
	names, err := v.a.cat.names()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		err := v.a.cat.values(name, "", func(_ string, id format.PairID) error {
			ok, err := scope.has(id)
			if ok {
				return errStop
			}
			return errors.Join(err, ctx.Err())
		})
		if errors.Is(err, errStop) {
			out = append(out, name)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return limited(out, hints), nil, nil
}

// limited sorts the texts, drops doubles and cuts them to the limit of the hints.
func limited(texts []string, hints *storage.LabelHints) []string {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	if hints != nil && hints.Limit > 0 && len(texts) > hints.Limit {
		texts = texts[:hints.Limit]
	}
	return texts
}

// matching finds the series that match and have a sample in the view's range.
func (v *view) matching(ctx context.Context, ms []*labels.Matcher) (*selection, error) {
	sel, err := v.find(ctx, v.mint, v.maxt, ms)
	if err != nil {
		return nil, err
	}
	return v.withSamples(ctx, sel, v.mint, v.maxt)
}

// scope tells which label pairs belong to series with samples in the view's range.
type scope struct {
	v      *view
	months []format.Month
	live   *roaring.Bitmap
}

func (v *view) scope(ctx context.Context) (*scope, error) {
	first, last := format.DayOf(v.mint), format.DayOf(v.maxt)
	months, err := v.a.index.monthsIn(v.snap, first.Month(), last.Month())
	if err != nil {
		return nil, err
	}
	all := roaring.New()
	for _, m := range months {
		from, to := max(first, m.FirstDay()), min(last+1, (m+1).FirstDay())
		days, err := v.a.index.active(v.snap, from, to)
		if err != nil {
			return nil, err
		}
		all.Or(days)
	}
	live, err := v.exact(ctx, all, v.mint, v.maxt)
	return &scope{v: v, months: months, live: live}, err
}

func (s *scope) has(id format.PairID) (bool, error) {
	for _, m := range s.months {
		set, err := s.v.a.index.postings(s.v.snap, m, id)
		if err != nil {
			return false, err
		}
		if set.Intersects(s.live) {
			return true, nil
		}
	}
	return false, nil
}

// withSamples drops the series of a selection that have no sample between mint and maxt.
func (v *view) withSamples(ctx context.Context, sel *selection, mint, maxt int64) (*selection, error) {
	set := roaring.New()
	for _, ref := range sel.refs {
		set.Add(uint32(ref))
	}
	live, err := v.exact(ctx, set, mint, maxt)
	if err != nil {
		return nil, err
	}
	out := &selection{}
	for i, ref := range sel.refs {
		if live.Contains(uint32(ref)) {
			out.refs, out.labels = append(out.refs, ref), append(out.labels, sel.labels[i])
		}
	}
	return out, nil
}

// exact returns the series of a set that have a sample between mint and maxt. The
// index knows it for whole days; for the days that the range cuts, samples are looked at.
func (v *view) exact(ctx context.Context, set *roaring.Bitmap, mint, maxt int64) (*roaring.Bitmap, error) {
	first, last := format.DayOf(mint), format.DayOf(maxt)
	var edges []format.Day
	if mint > first.StartMillis() || first == last && maxt < last.EndMillis()-1 {
		edges = append(edges, first)
		first++
	}
	if last >= first && maxt < last.EndMillis()-1 {
		edges = append(edges, last)
		last--
	}
	live := roaring.New()
	if first <= last {
		days, err := v.a.index.active(v.snap, first, last+1)
		if err != nil {
			return nil, err
		}
		live = roaring.And(set, days)
	}
	for _, day := range edges {
		active, err := v.a.index.active(v.snap, day, day+1)
		if err != nil {
			return nil, err
		}
		active.And(set)
		active.AndNot(live)
		found, err := v.sampled(ctx, active, max(mint, day.StartMillis()), min(maxt, day.EndMillis()-1))
		if err != nil {
			return nil, err
		}
		live.Or(found)
	}
	return live, nil
}

// sampled returns the series of a set that have a sample between mint and maxt, which
// lie in one day. Most are decided by what is in memory.
func (v *view) sampled(ctx context.Context, set *roaring.Bitmap, mint, maxt int64) (*roaring.Bitmap, error) {
	found := roaring.New()
	var rest []format.Ref
	var column chunk.Column
	for _, ref := range refsOf(set) {
		if v.sampledInMemory(ref, mint, maxt) {
			found.Add(uint32(ref))
		} else {
			rest = append(rest, ref)
		}
	}
	for len(rest) > 0 {
		n := min(len(rest), 4096)
		sets, err := v.a.cat.labelsOf(rest[:n])
		if err != nil {
			return nil, err
		}
		data := make([]samples, n)
		if err := v.name(data, &selection{refs: rest[:n], labels: sets}); err != nil {
			return nil, err
		}
		taken, err := v.fill(ctx, data, mint, maxt)
		if err != nil {
			return nil, err
		}
		for i := range data {
			ok, err := data[i].within(&column, mint, maxt)
			if err != nil {
				return nil, err
			}
			if ok {
				found.Add(uint32(data[i].ref))
			}
		}
		v.bytes.Add(-int64(taken))
		v.forgetLoaded()
		rest = rest[n:]
	}
	return found, nil
}

// forgetLoaded drops what was loaded to be looked at once.
func (v *view) forgetLoaded() {
	v.memoryMu.Lock()
	defer v.memoryMu.Unlock()
	v.loaded = nil
}

func (v *view) sampledInMemory(ref format.Ref, mint, maxt int64) bool {
	// The bounds of a piece are samples themselves: one of them in the range decides.
	for _, p := range v.a.live.appendPieces(nil, ref, v.epoch) {
		if p.MinMillis >= mint && p.MinMillis <= maxt || p.MaxMillis >= mint && p.MaxMillis <= maxt {
			return true
		}
	}
	return false
}

// within tells whether there is a sample between mint and maxt. column is scratch.
func (s *samples) within(column *chunk.Column, mint, maxt int64) (bool, error) {
	if err := column.Decode(s.appendPieces(nil), mint, maxt); err != nil {
		return false, err
	}
	return len(column.Times) > 0, nil
}
