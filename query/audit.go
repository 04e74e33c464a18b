package query

import (
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
)

// audit reads a prepared expression and finds whether the answers of its parts
// put together are the answer of the whole. Upstream evaluates an expression
// over all steps before it evaluates the one around it, and a few decisions are
// made over the whole range:
//
//  1. An aggregation's parameter: its extremes over all steps decide on early
//     returns, errors and the text of annotations.
//  2. Range functions that drop the name refuse equal label sets among all
//     series of the range, not among those of a step.
//  3. The groups of an aggregation stand in the order in which they appear among
//     the series that the range holds. An aggregation over them that depends on
//     the order (a sum of floats, the winner of a tie) may come out different.
//  4. Operators that match series leave them in the order of a Go map, another
//     in each part. The last bits of a sum over them vary between two runs of
//     upstream, too, but the series that topk chooses do not vary between steps.
//  5. With delayed name removal the first step of a series decides whether its
//     name is dropped.
//  6. A subquery with a fixed time, below a function that moves with the step,
//     counts the samples it read by the steps of the range.
//  7. Native histograms read for count and sum only get reset hints by what the
//     iterator read before, which sums of histograms compare.
type audit struct {
	lookback     time.Duration
	delayedNames bool

	// moving counts the selectors that follow the step, reach is how far the
	// furthest of them looks behind it.
	moving int
	reach  time.Duration
	// trustsNames tells that series with one name are taken to differ in labels
	// that stay when names are dropped, which does not hold where types and
	// units are stored as labels. Only the series themselves tell.
	trustsNames bool
	// objection is the first rule that forbids to split, or empty.
	objection string
}

// scope is where in a query an expression stands.
type scope struct {
	// still is evaluated once for all steps.
	still bool
	// behind is how far subqueries around it look back, window the range of the
	// range selector around it.
	behind, window time.Duration
	// within is the nearest function or aggregation around it.
	within string
}

// order is what decides the order of the series that an expression returns.
type order int

const (
	orderStored order = iota // the storage, or nothing: the same in every part
	orderMap                 // a Go map, at least sometimes
	orderGroups              // which series the part holds
)

// traits is what an audit finds out about the series an expression returns.
type traits struct {
	order order
	// distinct series differ in more than their names.
	distinct bool
}

func (a *audit) object(why string) {
	if a.objection == "" {
		a.objection = why
	}
}

func (a *audit) expr(expr parser.Expr, s scope) traits {
	switch n := expr.(type) {
	case *parser.NumberLiteral, *parser.StringLiteral:
		return traits{orderStored, true}
	case *parser.VectorSelector:
		return a.selector(n, s)
	case *parser.MatrixSelector:
		s.window = n.Range
		return a.expr(n.VectorSelector, s)
	case *parser.SubqueryExpr:
		return a.subquery(n, s)
	case *parser.StepInvariantExpr:
		s.still = true
		return a.expr(n.Expr, s)
	case *parser.ParenExpr:
		return a.expr(n.Expr, s)
	case *parser.UnaryExpr:
		t := a.expr(n.Expr, s)
		if n.Op == parser.SUB && !t.distinct {
			t.order = max(t.order, orderMap) // equal label sets are merged through a map
		}
		return t
	case *parser.BinaryExpr:
		return a.binary(n, s)
	case *parser.AggregateExpr:
		return a.aggregation(n, s)
	case *parser.Call:
		return a.call(n, s)
	}
	a.object("unknown expression")
	return traits{orderGroups, false}
}

func (a *audit) selector(n *parser.VectorSelector, s scope) traits {
	if !s.still && n.Timestamp == nil {
		a.moving++
		reach := s.behind + s.window
		if s.window == 0 || n.Anchored || n.Smoothed {
			reach += a.lookback
		}
		a.reach = max(a.reach, reach)
		if n.SkipHistogramBuckets && !hidesHints[s.within] {
			a.object("histograms combined by what was read before")
		}
	}
	return traits{orderStored, slices.ContainsFunc(n.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != ""
	})}
}

// hidesHints are the functions whose results do not carry the reset hints of
// the histograms they read.
var hidesHints = map[string]bool{
	"rate": true, "increase": true, "delta": true, "irate": true, "idelta": true,
	"histogram_count": true, "histogram_sum": true, "histogram_avg": true,
}

func (a *audit) subquery(n *parser.SubqueryExpr, s scope) traits {
	if n.Timestamp != nil {
		if !s.still {
			a.object("subquery with a fixed time below a moving function")
		}
		s.still = true
	}
	s.behind += n.Range
	s.window = 0
	return a.expr(n.Expr, s)
}

func (a *audit) binary(n *parser.BinaryExpr, s scope) traits {
	s.within = n.Op.String()
	a.expr(n.LHS, s)
	a.expr(n.RHS, s)
	if n.Op == parser.LOR && a.delayedNames && !s.still {
		a.object("or with delayed name removal")
	}
	keepsName := n.Op.IsSetOperator() || n.Op.IsComparisonOperator() && !n.ReturnBool
	addsName := n.VectorMatching != nil && slices.ContainsFunc(n.VectorMatching.Include, schema.IsMetadataLabel)
	return traits{orderMap, !keepsName && !addsName}
}

// The aggregations whose result depends on the order of what they aggregate:
// through the rounding of floats, or by choosing series.
var (
	roundingAggregations = []parser.ItemType{parser.SUM, parser.AVG, parser.STDDEV, parser.STDVAR}
	choosingAggregations = []parser.ItemType{parser.TOPK, parser.BOTTOMK, parser.LIMITK}
)

func (a *audit) aggregation(n *parser.AggregateExpr, s scope) traits {
	inner := s
	inner.within = n.Op.String()
	of := a.expr(n.Expr, inner)
	if n.Param != nil {
		a.expr(n.Param, inner)
		a.parameter(n.Param, s)
	}
	named := !n.Without && slices.ContainsFunc(n.Grouping, schema.IsMetadataLabel)
	if named && a.delayedNames && !s.still {
		a.object("grouping by name with delayed name removal")
	}
	chooses := slices.Contains(choosingAggregations, n.Op)
	switch {
	case of.order == orderGroups && !s.still && (chooses || slices.Contains(roundingAggregations, n.Op)):
		a.object("aggregation that depends on the order of groups")
	case of.order == orderMap && chooses:
		a.object("choice among series in no order")
	}
	switch {
	case chooses, n.Op == parser.LIMIT_RATIO:
		return traits{orderMap, false}
	case n.Op == parser.COUNT_VALUES:
		label, ok := n.Param.(*parser.StringLiteral)
		return traits{orderMap, !named && ok && !schema.IsMetadataLabel(label.Val)}
	case !n.Without && len(n.Grouping) == 0:
		return traits{orderStored, true}
	}
	groups := orderGroups
	if s.still {
		groups = orderStored // every part evaluates the same
	}
	return traits{max(of.order, groups), !named}
}

func (a *audit) parameter(param parser.Expr, s scope) {
	if s.still || param.Type() != parser.ValueTypeScalar {
		return
	}
	switch param.(type) {
	case *parser.NumberLiteral, *parser.StepInvariantExpr:
	default:
		a.object("aggregation parameter that moves with the step")
	}
}

func (a *audit) call(n *parser.Call, s scope) traits {
	inner := s
	inner.within = n.Func.Name
	var first, ranged traits
	isRanged := false
	for i, arg := range n.Args {
		if n.Func.Name == "info" && i == 1 {
			continue // names labels, and is not evaluated
		}
		t := a.expr(arg, inner)
		if i == 0 {
			first = t
		}
		if overRange(arg) {
			ranged, isRanged = t, true
		}
	}
	switch n.Func.Name {
	case "label_replace", "label_join":
		return traits{max(first.order, orderMap), false}
	case "sort", "sort_desc", "sort_by_label", "sort_by_label_desc", "info":
		return traits{orderMap, first.distinct}
	case "last_over_time", "first_over_time":
		return ranged
	case "absent_over_time":
		return traits{orderStored, true}
	}
	if !isRanged {
		return traits{orderMap, true}
	}
	if !a.delayedNames && !s.still {
		if !ranged.distinct {
			a.object("range function over series that may differ in name only")
		}
		a.trustsNames = true
	}
	return traits{ranged.order, true}
}

// overRange tells whether an argument is a range of samples.
func overRange(arg parser.Expr) bool {
	if still, ok := arg.(*parser.StepInvariantExpr); ok {
		arg = still.Expr
	}
	switch arg.(type) {
	case *parser.MatrixSelector, *parser.SubqueryExpr:
		return true
	}
	return false
}

// plan returns the number of parts, at most want, into which a prepared
// statement may be split, and the audit's findings. Below two parts why tells
// what forbids it.
func (e *Engine) plan(stmt *parser.EvalStmt, want int) (parts int, a *audit, why string) {
	a = &audit{lookback: stmt.LookbackDelta, delayedNames: e.options.DelayedNameRemoval}
	if stmt.Interval <= 0 || stmt.End.Before(stmt.Start) {
		return 1, a, "not a range"
	}
	if stmt.Interval%time.Millisecond != 0 || stmt.Start.UnixNano()%int64(time.Millisecond) != 0 {
		return 1, a, "steps between milliseconds"
	}
	a.expr(stmt.Expr, scope{})
	if a.objection != "" {
		return 1, a, a.objection
	}
	if a.moving == 0 {
		return 1, a, "no selector moves with the step"
	}
	if want < 2 {
		return 1, a, "one core"
	}
	span := stmt.End.Sub(stmt.Start)
	steps := int(span/stmt.Interval) + 1
	// A part of one step would be evaluated as an instant query: without the
	// warning that sorting is void, and in another order.
	parts = min(want, steps/max(2, e.options.private.stepsMin))
	if a.reach > 0 && !e.options.private.anyReach {
		// Each part reads what lies before its first step again: at most half of its
		// span, so that two parts on idle cores still take a quarter less time than the whole.
		parts = min(parts, int(span/(2*a.reach)))
	}
	if parts < 2 {
		return 1, a, "too few steps"
	}
	return parts, a, ""
}
