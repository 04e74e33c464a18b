package ingest

import (
	"fmt"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"varve/arrival"
)

// Rules say which series of an input are stored and under which labels. They are
// applied in the order of the fields, as those of outputs are: the filters see the
// labels as they came, relabelling sees the external labels too.
type Rules struct {
	// Include lets through series that match all of any of the lists, all series if
	// there is none. Exclude leaves out those that match all of any of its lists. A
	// label that a series lacks is empty, as in PromQL.
	Include, Exclude [][]*labels.Matcher
	// External labels are added where a series lacks them.
	External labels.Labels
	// Relabel is applied last.
	Relabel []*relabel.Config
}

// none tells that every series is stored as it came.
func (r *Rules) none() bool { return !r.filters() && !r.rewrites() }

func (r *Rules) filters() bool { return len(r.Include) > 0 || len(r.Exclude) > 0 }

func (r *Rules) rewrites() bool { return len(r.Relabel) > 0 || !r.External.IsEmpty() }

// checked returns the rules with relabelling that is fit for use. Names are UTF-8.
func (r *Rules) checked() (Rules, error) {
	out := *r
	out.Relabel = make([]*relabel.Config, len(r.Relabel))
	for i, given := range r.Relabel {
		c := *given
		if err := c.Validate(model.UTF8Validation); err != nil {
			return Rules{}, fmt.Errorf("relabelling rule %d: %w", i+1, err)
		}
		out.Relabel[i] = &c
	}
	for _, selector := range append(append([][]*labels.Matcher{}, r.Include...), r.Exclude...) {
		if len(selector) == 0 {
			return Rules{}, fmt.Errorf("a filter without a matcher")
		}
	}
	return out, nil
}

// wanted tells whether the filters let a series through.
func (r *Rules) wanted(ls labels.Labels) bool {
	return (len(r.Include) == 0 || matchesAny(r.Include, ls)) && !matchesAny(r.Exclude, ls)
}

func matchesAny(selectors [][]*labels.Matcher, ls labels.Labels) bool {
next:
	for _, selector := range selectors {
		for _, m := range selector {
			if !m.Matches(ls.Get(m.Name)) {
				continue next
			}
		}
		return true
	}
	return false
}

// fingerprint appends a text that differs where the rules do.
func (r *Rules) fingerprint(dst []byte) []byte {
	dst = appendSelectors(dst, "include", r.Include)
	dst = appendSelectors(dst, "exclude", r.Exclude)
	dst = fmt.Appendf(dst, "external %q\n", r.External.String())
	for _, c := range r.Relabel {
		dst = fmt.Appendf(dst, "relabel %q %q %q %d %q %q %q\n", c.SourceLabels, c.Separator, c.Regex.String(), c.Modulus, c.TargetLabel, c.Replacement, c.Action)
	}
	return dst
}

func appendSelectors(dst []byte, kind string, selectors [][]*labels.Matcher) []byte {
	for _, selector := range selectors {
		dst = append(dst, kind...)
		for _, m := range selector {
			dst = fmt.Appendf(dst, " %q", m.String())
		}
		dst = append(dst, '\n')
	}
	return dst
}

// rewriter applies rules. It keeps its memory and is for one goroutine at a time.
type rewriter struct {
	builder *labels.Builder
	sets    *LabelSets
}

func newRewriter(limits Limits) *rewriter {
	return &rewriter{builder: labels.NewBuilder(labels.EmptyLabels()), sets: NewLabelSets(limits)}
}

// rewrite returns the labels without the label named without, unless that is empty,
// with external labels and relabelled. The reason is ReasonFiltered where relabelling
// drops the series, ReasonInvalidLabels where what it makes cannot be stored.
func (w *rewriter) rewrite(r *Rules, ls labels.Labels, without string) (labels.Labels, arrival.Reason) {
	if without == "" && !r.rewrites() {
		return ls, arrival.ReasonNone
	}
	b := w.builder
	b.Reset(ls)
	if without != "" {
		b.Del(without)
	}
	r.External.Range(func(l labels.Label) {
		if b.Get(l.Name) == "" {
			b.Set(l.Name, l.Value)
		}
	})
	if !relabel.ProcessBuilder(b, r.Relabel...) {
		return labels.EmptyLabels(), arrival.ReasonFiltered
	}
	w.sets.Clear()
	b.Range(func(l labels.Label) { w.sets.Add(l.Name, l.Value) })
	out, err := w.sets.Series()
	if err != nil {
		return labels.EmptyLabels(), arrival.ReasonInvalidLabels
	}
	return out, arrival.ReasonNone
}
