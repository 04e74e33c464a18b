package archive

import (
	"context"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"varve/archive/format"
)

// selection is a set of series, sorted by labels.
type selection struct {
	refs   []format.Ref
	labels []labels.Labels
}

// condition is a matcher turned into postings. A series meets it if it carries one
// of the pairs, or, when except is set, none of them: that is the form of matchers
// that a series without the label meets too.
type condition struct {
	pairs  []format.PairID
	except bool
	// scan is set instead of pairs when they are found by walking the label's
	// values, which may cost more than looking at the labels of the candidates.
	// resolved then is the condition with its pairs, once it was needed, and left tells
	// that some month's candidates were left to be looked at.
	scan     *labels.Matcher
	resolved *condition
	left     bool
}

// scanMin is the number of candidates from which on the values of a label are
// walked instead of the candidates' labels.
const scanMin = 10_000

// find returns the series that match and have samples on a day between mint and
// maxt (inclusive), sorted by labels.
func (v *view) find(ctx context.Context, mint, maxt int64, ms []*labels.Matcher) (*selection, error) {
	conditions, err := v.conditions(ms)
	if err != nil {
		return nil, err
	}
	if mint = max(mint, v.kept.seriesFirst.StartMillis()); mint > maxt {
		return &selection{}, nil
	}
	first, last := format.DayOf(mint), format.DayOf(maxt)
	months, err := v.index().monthsIn(first.Month(), last.Month())
	if err != nil {
		return nil, err
	}
	found := roaring.New()
	for _, m := range months {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		set, err := v.findInMonth(m, first, last, conditions)
		if err != nil {
			return nil, err
		}
		found.Or(set)
	}
	if last < v.kept.seriesLast {
		if err := v.learn(found); err != nil {
			return nil, err
		}
		found.AndNot(v.kept.hidden(last))
	}
	if !slices.ContainsFunc(conditions, func(c condition) bool { return c.left }) {
		if err := v.countSeries(int(found.GetCardinality())); err != nil {
			return nil, err
		}
	}
	sel, err := v.sorted(found, ms)
	if err != nil {
		return nil, err
	}
	sel.filter(conditions)
	return sel, v.countSeries(len(sel.refs))
}

// countSeries refuses a selector that matches too many series.
func (v *view) countSeries(n int) error {
	if n > v.a.o.QuerySeriesMax {
		return fmt.Errorf("%w: the selector matches %d series, the limit is %d; narrow it or raise query.max_series", ErrQueryLimit, n, v.a.o.QuerySeriesMax)
	}
	return nil
}

// conditions turns matchers into postings, cheap ones first.
func (v *view) conditions(ms []*labels.Matcher) ([]condition, error) {
	var direct, scans []condition
	for _, m := range ms {
		values, ok := values(m)
		if !ok {
			scans = append(scans, condition{scan: m})
			continue
		}
		c := condition{except: m.Matches("")}
		for _, value := range values {
			id, err := v.a.cat.findPair(m.Name, value)
			if err != nil {
				return nil, err
			}
			if id != 0 {
				c.pairs = append(c.pairs, id)
			}
		}
		direct = append(direct, c)
	}
	slices.SortStableFunc(direct, func(x, y condition) int { return boolInt(x.except) - boolInt(y.except) })
	return append(direct, scans...), nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// values lists the values that a matcher names: those it accepts, or, for a
// matcher that accepts a missing label, those it refuses. ok is false when they can't be listed.
func values(m *labels.Matcher) (_ []string, ok bool) {
	switch m.Type {
	case labels.MatchEqual, labels.MatchNotEqual:
		if m.Value == "" {
			return nil, false
		}
		return []string{m.Value}, true
	case labels.MatchRegexp, labels.MatchNotRegexp:
		set := m.SetMatches()
		if len(set) == 0 || slices.Contains(set, "") {
			return nil, false
		}
		return set, true
	}
	return nil, false
}

// resolve walks the values of the label of a scanned matcher.
func (v *view) resolve(m *labels.Matcher) (condition, error) {
	c := condition{except: m.Matches("")}
	prefix := ""
	if m.Type == labels.MatchRegexp && !c.except {
		prefix = m.Prefix()
	}
	err := v.a.cat.values(m.Name, prefix, func(value string, id format.PairID) error {
		if m.Matches(value) != c.except {
			c.pairs = append(c.pairs, id)
		}
		return v.ctx.Err()
	})
	return c, err
}

// findInMonth evaluates the conditions on the postings of one month.
func (v *view) findInMonth(m format.Month, first, last format.Day, conditions []condition) (*roaring.Bitmap, error) {
	from, to := max(first, m.FirstDay()), min(last+1, (m+1).FirstDay())
	whole := from == m.FirstDay() && to == (m+1).FirstDay()
	var set *roaring.Bitmap
	restrict := func() error {
		days, err := v.index().active(from, to)
		if err != nil {
			return err
		}
		if set == nil {
			set = days
		} else {
			set.And(days)
		}
		return nil
	}
	for i := range conditions {
		c := &conditions[i]
		if c.scan != nil {
			if set == nil {
				if c.scan.Matches("") {
					if err := restrict(); err != nil {
						return nil, err
					}
				}
			}
			if set != nil && set.GetCardinality() < scanMin {
				c.left = true
				continue
			}
			if c.resolved == nil {
				resolved, err := v.resolve(c.scan)
				if err != nil {
					return nil, err
				}
				c.resolved = &resolved
			}
			c = c.resolved
		}
		if c.except && set == nil {
			if err := restrict(); err != nil {
				return nil, err
			}
		}
		union := roaring.New()
		for _, id := range c.pairs {
			if err := v.index().addPostings(m, id, union); err != nil {
				return nil, err
			}
		}
		switch {
		case c.except:
			set.AndNot(union)
		case set == nil:
			set = union
		default:
			set.And(union)
		}
		if set.IsEmpty() {
			return set, nil
		}
	}
	if set == nil || !whole {
		if err := restrict(); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// filter drops the series that a condition refuses which was not turned into
// postings for every month.
func (s *selection) filter(conditions []condition) {
	for i := range conditions {
		m := conditions[i].scan
		if !conditions[i].left {
			continue
		}
		n := 0
		for j, ls := range s.labels {
			if m.Matches(ls.Get(m.Name)) {
				s.refs[n], s.labels[n] = s.refs[j], ls
				n++
			}
		}
		s.refs, s.labels = s.refs[:n], s.labels[:n]
	}
}

// sorted brings the series of a set in the order of their labels.
func (v *view) sorted(set *roaring.Bitmap, ms []*labels.Matcher) (*selection, error) {
	for _, m := range ms {
		if m.Type == labels.MatchEqual && m.Name == model.MetricNameLabel && m.Value != "" {
			return v.a.orders.of(v.a.cat, m.Value, set)
		}
	}
	refs := refsOf(set)
	sets, err := v.a.cat.labelsOf(refs)
	if err != nil {
		return nil, err
	}
	sel := &selection{refs: refs, labels: sets}
	sel.sort()
	return sel, nil
}

func refsOf(set *roaring.Bitmap) []format.Ref {
	refs := make([]format.Ref, 0, set.GetCardinality())
	set.Iterate(func(ref uint32) bool {
		refs = append(refs, format.Ref(ref))
		return true
	})
	return refs
}
