package query

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// grid is the points first, first+step, ..., last, in milliseconds. A grid
// without points has last before first.
type grid struct{ first, last, step int64 }

// points returns the grid of an evaluation, with last on the grid.
func points(first, end, step int64) grid {
	if step <= 0 || end < first {
		return grid{first: first, last: math.MinInt64, step: step}
	}
	return grid{first: first, last: first + (end-first)/step*step, step: step}
}

// count returns the number of points.
func (g grid) count() int64 {
	if g.last < g.first {
		return 0
	}
	return (g.last-g.first)/g.step + 1
}

// subquery returns the grid on which upstream evaluates a subquery of n for the
// points of g: the multiples of its step behind the first window's open left end.
func (g grid) subquery(n *parser.SubqueryExpr, defaultStep func(int64) int64) grid {
	rng, offset := n.Range.Milliseconds(), n.OriginalOffset.Milliseconds()
	step := n.Step.Milliseconds()
	if n.Step == 0 {
		step = defaultStep(rng)
	}
	if step <= 0 {
		return grid{last: math.MinInt64}
	}
	edge := g.first - offset - rng
	first := edge / step * step
	if first <= edge {
		first += step
	}
	return points(first, g.last-offset, step)
}

// selector is what is known of a selector of a prepared statement.
type selector struct {
	// index counts the selectors in the order of the expression.
	index int
	// moves tells that the selected time follows the evaluated steps.
	moves bool
	// thin allows to leave out samples between the points of grid.
	thin bool
	grid grid
	// plan, if not nil, is what the storage answers instead of samples.
	plan *plan
}

// selectorSet finds selectors by the identity of their first matcher, which is
// what upstream hands to Select. Nobody can spell that in a query.
type selectorSet map[*labels.Matcher]*selector

// mark describes the selectors of a statement that has been prepared but not
// executed, for the bounds it has now, and gives each a first matcher of its
// own. stepsMost is the number of steps of the finest evaluation in it.
func mark(stmt *parser.EvalStmt, defaultStep func(int64) int64) (set selectorSet, stepsMost int64) {
	m := marker{set: selectorSet{}, defaultStep: defaultStep}
	start, end := stmt.Start.UnixNano()/int64(time.Millisecond), stmt.End.UnixNano()/int64(time.Millisecond)
	g := points(start, end, stmt.Interval.Milliseconds())
	if stmt.Interval == 0 {
		g = points(start, start, 1)
	}
	m.stepsMost = g.count()
	m.expr(stmt.Expr, place{grid: g, moves: true, known: true})
	return m.set, m.stepsMost
}

type marker struct {
	set         selectorSet
	count       int
	stepsMost   int64
	defaultStep func(int64) int64
}

// place is where an expression is evaluated.
type place struct {
	grid grid
	// moves: not below a subquery with a fixed time.
	moves bool
	// known: grid holds the points of the evaluation, rather than as many.
	known bool
	// ranged: inside a range selector.
	ranged bool
}

func (m *marker) expr(expr parser.Expr, p place) {
	switch n := expr.(type) {
	case *parser.VectorSelector:
		m.selector(n, p)
		return
	case *parser.MatrixSelector:
		p.ranged = true
	case *parser.SubqueryExpr:
		if n.Timestamp != nil {
			p.moves, p.known = false, false
		}
		p.grid = p.grid.subquery(n, m.defaultStep)
		m.stepsMost = max(m.stepsMost, p.grid.count())
	case *parser.StepInvariantExpr:
		p.known = false
		p.grid.last = min(p.grid.first, p.grid.last)
	case *parser.Call:
		if n.Func.Name == "info" {
			p.known = false
		}
	}
	for child := range parser.ChildrenIter(expr) {
		if e, ok := child.(parser.Expr); ok {
			m.expr(e, p)
		}
	}
}

func (m *marker) selector(n *parser.VectorSelector, p place) {
	index := m.count
	m.count++
	if len(n.LabelMatchers) == 0 {
		return
	}
	s := &selector{index: index, moves: p.moves && n.Timestamp == nil}
	offset := n.OriginalOffset.Milliseconds()
	s.grid = grid{first: p.grid.first - offset, last: p.grid.last - offset, step: p.grid.step}
	// A histogram read for count and sum only is compared with the one read
	// before it, which must not be left out.
	s.thin = s.moves && p.known && !p.ranged && !n.Anchored && !n.Smoothed && !n.SkipHistogramBuckets &&
		p.grid.step > 0 && p.grid.first <= p.grid.last
	own := *n.LabelMatchers[0]
	matchers := make([]*labels.Matcher, len(n.LabelMatchers))
	copy(matchers, n.LabelMatchers)
	matchers[0] = &own
	n.LabelMatchers = matchers
	m.set[&own] = s
}

// byIndex returns the selectors in the order of the expression. Those without
// matchers, which only the second argument of info may be, are nil.
func (s selectorSet) byIndex() []*selector {
	n := 0
	for _, known := range s {
		n = max(n, known.index+1)
	}
	out := make([]*selector, n)
	for _, known := range s {
		out[known.index] = known
	}
	return out
}
