package intake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// entry is a handle of a series that the target takes. A day has one for each, 24 bytes, and later a sum of 40 for each series;
// a day that is prepared ahead has its entries too. A million series a day are 90 MB at most.
type entry struct {
	ref    uint64
	handle uint64
	metric uint32
	// ordinal is which call of the source's Series it was.
	ordinal uint32
}

// resolveBatch is how many series are resolved in one call.
const resolveBatch = 4096

// prepared is a day of the source whose series are resolved and in the target's order. It must be closed.
type prepared struct {
	start    int64
	from, to int64 // what of it is asked for: inclusive, exclusive
	source   SourceDay
	entries  []entry
	calls    uint32 // of the source's Series
	refused  map[string]Refusal
}

func (p *prepared) close() error {
	if p.source == nil {
		return nil
	}
	err := p.source.Close()
	p.source = nil
	return err
}

// group returns the entries of the series that begins at i: those with its ref.
func (p *prepared) group(i int) []entry {
	end := i + 1
	for end < len(p.entries) && p.entries[end].ref == p.entries[i].ref {
		end++
	}
	return p.entries[i:end]
}

// prepare opens the source's day and resolves its series.
func (r *run) prepare(ctx context.Context, start int64) (*prepared, error) {
	for {
		p, err := r.tryPrepare(ctx, start)
		if !errors.Is(err, ErrReadAgain) {
			return p, err
		}
		r.o.Logger.Warn("reading the day again", "day", DayName(start), "err", err)
	}
}

func (r *run) tryPrepare(ctx context.Context, start int64) (_ *prepared, err error) {
	r.meter.phase("resolve", start)
	p := &prepared{start: start, refused: map[string]Refusal{}}
	p.from, p.to = r.bounds(start)
	if p.source, err = r.s.OpenDay(ctx, start); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	series := make([]Series, 0, resolveBatch)
	handles := make([]uint64, 0, resolveBatch)
	flush := func() error {
		if err := r.t.Resolve(ctx, series); err != nil {
			return fmt.Errorf("resolve series: %w", err)
		}
		p.take(series, handles)
		clear(series)
		series, handles = series[:0], handles[:0]
		return ctx.Err()
	}
	extra := newExtraLabels(r.o.ExtraLabels)
	err = p.source.Series(ctx, func(ls labels.Labels, handle uint64) error {
		series = append(series, Series{Labels: extra.add(ls)})
		if handles = append(handles, handle); len(series) < resolveBatch {
			return nil
		}
		return flush()
	})
	if err == nil && len(series) > 0 {
		err = flush()
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(p.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.metric, b.metric), cmp.Compare(a.ref, b.ref), cmp.Compare(a.ordinal, b.ordinal))
	})
	return p, nil
}

// take keeps what was resolved.
func (p *prepared) take(series []Series, handles []uint64) {
	for i := range series {
		s := &series[i]
		if s.Ref != 0 {
			p.entries = append(p.entries, entry{ref: s.Ref, handle: handles[i], metric: s.Metric, ordinal: p.calls})
		} else {
			reason := cmp.Or(s.Refused, "unknown")
			refusal := p.refused[reason]
			if refusal.Series++; refusal.Example == "" {
				refusal.Example = s.Labels.String()
			}
			p.refused[reason] = refusal
		}
		p.calls++
	}
}

// errFound ends a walk over the series.
var errFound = errors.New("found")

// name finds the labels of a series.
func (r *run) name(ctx context.Context, p *prepared, ref uint64) (name string, err error) {
	i := slices.IndexFunc(p.entries, func(e entry) bool { return e.ref == ref })
	if i < 0 {
		return fmt.Sprintf("series %d, which the source doesn't have", ref), nil
	}
	ordinal, extra := uint32(0), newExtraLabels(r.o.ExtraLabels)
	err = p.source.Series(ctx, func(ls labels.Labels, _ uint64) error {
		if ordinal == p.entries[i].ordinal {
			name = extra.add(ls).String()
			return errFound
		}
		ordinal++
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return name, err
}

// ranks tells for each call of the source's Series where in entries its handle is, or noRank.
func (p *prepared) ranks() []uint32 {
	ranks := make([]uint32, p.calls)
	for i := range ranks {
		ranks[i] = noRank
	}
	for i, e := range p.entries {
		ranks[e.ordinal] = uint32(i)
	}
	return ranks
}

const noRank = math.MaxUint32

// extraLabels sets labels on series.
type extraLabels struct {
	extra   labels.Labels
	builder *labels.Builder
}

func newExtraLabels(extra labels.Labels) extraLabels {
	return extraLabels{extra, labels.NewBuilder(labels.EmptyLabels())}
}

func (x extraLabels) add(ls labels.Labels) labels.Labels {
	if x.extra.IsEmpty() {
		return ls
	}
	x.builder.Reset(ls)
	x.extra.Range(func(l labels.Label) { x.builder.Set(l.Name, l.Value) })
	return x.builder.Labels()
}
