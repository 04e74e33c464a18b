package archive

import (
	"context"
	"errors"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"varve/archive/format"
)

// How the label APIs answer: each text, a label's name or value, needs ONE series that
// carries it and has a sample in the time range. So series are tried until one proves the text,
// those first for which memory decides, and samples are read for the rest only.

var (
	errStop = errors.New("stop")
	// errManyValues ends a walk over a label's values when there are more than series.
	errManyValues = errors.New("more values than series")
)

const (
	// valuesWait is how many values wait for samples to be read together. For the name
	// alone the first should do, so that begins with one.
	valuesWait = 4096
	// triesFactor is how fast grows what is tried together: the first nearly always has
	// samples, and those that ended come in thousands.
	triesFactor = 16
	// To look up a pair's postings takes as long as to look at the labels of four series, so a walk
	// is given up, in favour of the latter, after a fourth as many values, and a few.
	postingsCost, walkedMin = 4, 16
	// probesMax is how many series of a pair memory is asked for before it waits.
	probesMax = 64
)

// LabelValues implements storage.LabelQuerier: the values of the label among the
// series that match and have a sample in the view's time range, sorted.
func (v *view) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	t, err := v.texts(ctx)
	if err != nil {
		return nil, nil, err
	}
	valueOf := func(ls labels.Labels, add func(string)) {
		if value := ls.Get(name); value != "" {
			add(value)
		}
	}
	narrowed, err := t.narrow(ms)
	if err == nil && !narrowed {
		err = t.matching(ms, valueOf)
	} else if err == nil {
		if err = t.walk(name, false); errors.Is(err, errManyValues) {
			err = t.series(valueOf)
		}
	}
	if err == nil {
		err = t.settle()
	}
	if err != nil {
		return nil, nil, err
	}
	return t.sorted(hints), nil, nil
}

// LabelNames implements storage.LabelQuerier like LabelValues.
func (v *view) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	t, err := v.texts(ctx)
	if err != nil {
		return nil, nil, err
	}
	namesOf := func(ls labels.Labels, add func(string)) {
		ls.Range(func(l labels.Label) { add(l.Name) })
	}
	if len(ms) > 0 {
		err = t.matching(ms, namesOf)
	} else if err = t.names(); errors.Is(err, errManyValues) {
		err = t.series(namesOf)
	}
	if err == nil {
		err = t.settle()
	}
	if err != nil {
		return nil, nil, err
	}
	return t.sorted(hints), nil, nil
}

// texts gather label names or values that a series in scope carries.
type texts struct {
	*scope
	ctx context.Context
	// found are those that a series with a sample in the range proves; waiting has for
	// others the series that carry them and are not decided.
	found   map[string]struct{}
	waiting map[string]*roaring.Bitmap
	// isNarrowed tells that only series that match are in scope.
	isNarrowed bool
}

func (v *view) texts(ctx context.Context) (*texts, error) {
	s, err := v.scope(v.mint, v.maxt)
	return &texts{scope: s, ctx: ctx, found: map[string]struct{}{}, waiting: map[string]*roaring.Bitmap{}}, err
}

// sorted returns what was found, cut to the limit of the hints.
func (t *texts) sorted(hints *storage.LabelHints) []string {
	out := make([]string, 0, len(t.found))
	for text := range t.found {
		out = append(out, text)
	}
	slices.Sort(out)
	if hints != nil && hints.Limit > 0 && len(out) > hints.Limit {
		out = out[:hints.Limit]
	}
	return out
}

func (t *texts) prove(text string) {
	t.found[text] = struct{}{}
	delete(t.waiting, text)
}

func (t *texts) wait(text string) *roaring.Bitmap {
	set := t.waiting[text]
	if set == nil {
		set = roaring.New()
		t.waiting[text] = set
	}
	return set
}

// narrow leaves the series that match in scope. It is false, and the scope as it was, if only
// their labels tell which match.
func (t *texts) narrow(ms []*labels.Matcher) (bool, error) {
	if len(ms) == 0 {
		return true, nil
	}
	conditions, err := t.v.conditions(ms)
	if err != nil {
		return false, err
	}
	matched := roaring.New()
	for _, m := range t.months {
		set, err := t.v.findInMonth(m, format.DayOf(t.mint), format.DayOf(t.maxt), conditions)
		if err = errors.Join(err, t.ctx.Err()); err != nil {
			return false, err
		}
		matched.Or(set)
	}
	if slices.ContainsFunc(conditions, func(c condition) bool { return c.left }) {
		return false, nil
	}
	t.active.And(matched)
	t.live.And(matched)
	t.isNarrowed = true
	return true, t.v.countSeries(int(matched.GetCardinality()))
}

// matching adds the texts of the series that match.
func (t *texts) matching(ms []*labels.Matcher, of func(labels.Labels, func(string))) error {
	sel, err := t.v.find(t.ctx, t.mint, t.maxt, ms)
	if err != nil {
		return err
	}
	t.add(sel, of)
	return nil
}

// series adds the texts of all series.
func (t *texts) series(of func(labels.Labels, func(string))) error {
	refs := refsOf(t.active)
	for len(refs) > 0 {
		n := min(len(refs), lookBatch)
		sets, err := t.v.a.cat.labelsOf(refs[:n])
		if err = errors.Join(err, t.ctx.Err()); err != nil {
			return err
		}
		t.add(&selection{refs: refs[:n], labels: sets}, of)
		refs = refs[n:]
	}
	return nil
}

// add adds the texts of series.
func (t *texts) add(sel *selection, of func(labels.Labels, func(string))) {
	for i, ref := range sel.refs {
		state := undecided
		of(sel.labels[i], func(text string) {
			if _, ok := t.found[text]; ok {
				return
			}
			if state == undecided {
				state = t.state(ref)
			}
			switch state {
			case live:
				t.prove(text)
			case unknown:
				t.wait(text).Add(uint32(ref))
			default:
			}
		})
	}
}

// names adds the names of labels.
func (t *texts) names() error {
	names, err := t.v.a.cat.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.walk(name, true); err != nil && !errors.Is(err, errStop) {
			return err
		}
	}
	return nil
}

// walk adds the values of a label or, if asked for the name alone, the name, and ends with errStop
// once that is proven. It is errManyValues if it is cheaper to look at the labels of the series.
func (t *texts) walk(name string, nameAlone bool) error {
	if t.active.IsEmpty() {
		return nil
	}
	walked, walkedMax := uint64(0), t.active.GetCardinality()/postingsCost+walkedMin
	waits, waitsMax := 0, valuesWait
	if nameAlone {
		waitsMax = 1
	}
	return t.v.a.cat.values(name, "", func(text string, id format.PairID) error {
		if nameAlone {
			text = name
		}
		if t.isCarried(id) {
			t.prove(text)
			if nameAlone {
				return errStop
			}
			return nil
		}
		if walked++; walked > walkedMax {
			return errManyValues
		}
		proven, rest, err := t.carried(id)
		if err = errors.Join(err, t.ctx.Err()); err != nil {
			return err
		}
		if proven {
			t.prove(text)
		} else if !rest.IsEmpty() {
			t.wait(text).Or(rest)
			waits++
		}
		if waits == waitsMax {
			waits, waitsMax = 0, min(waitsMax*triesFactor, valuesWait)
			if err := t.settle(); err != nil {
				return err
			}
		}
		if _, ok := t.found[text]; ok && nameAlone {
			return errStop
		}
		return nil
	})
}

// isCarried tells whether the series that was last seen to carry the pair is in scope and known to
// have samples in the range.
func (t *texts) isCarried(id format.PairID) bool {
	ref, ok := t.v.masks.seen.carrier(id)
	return ok && t.state(ref) == live
}

// carried tells whether a series that carries the pair is known to have samples in the range.
// If not, rest are the series that may have some.
func (t *texts) carried(id format.PairID) (proven bool, rest *roaring.Bitmap, err error) {
	rest = roaring.New()
	for _, m := range t.months {
		if err := t.v.index().addPostings(m, id, rest); err != nil {
			return false, nil, err
		}
	}
	rest.And(t.active)
	probes := 0
	var dead []uint32
	for it := rest.Iterator(); it.HasNext() && probes < probesMax; probes++ {
		ref := it.Next()
		switch t.state(format.Ref(ref)) {
		case live:
			if !t.isNarrowed {
				t.v.masks.seen.carry(id, format.Ref(ref))
			}
			return true, nil, nil
		case without:
			dead = append(dead, ref)
		default:
		}
	}
	for _, ref := range dead {
		rest.Remove(ref)
	}
	return false, rest, nil
}

// settle decides what waits, by reading samples of a few series of each text at a time.
func (t *texts) settle() error {
	for tries := 1; len(t.waiting) > 0; tries *= triesFactor {
		var look []format.Ref
		for text, set := range t.waiting {
			set.AndNot(t.dead)
			if set.IsEmpty() {
				delete(t.waiting, text)
				continue
			}
			first := len(look)
			for it := set.Iterator(); it.HasNext() && len(look) < first+tries; {
				ref := format.Ref(it.Next())
				if t.state(ref) == live {
					look = look[:first]
					t.prove(text)
					break
				}
				look = append(look, ref)
			}
		}
		slices.Sort(look)
		if err := t.look(t.ctx, slices.Compact(look)); err != nil {
			return err
		}
	}
	return nil
}
