package query

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"

	"varve/rollup"
)

// plan is what the storage has to answer for one selector of a prepared statement, in place
// of samples:
//
//   - of a function over a range: the finished value at every point of the grid. The call is
//     rewritten, so that its window (t-1ms, t] holds that value or nothing;
//   - of a plain selector: the last sample before every point of the grid.
type plan struct {
	grid grid // data times: offsets and @ are subtracted
	// windows tells that it is a function over rangeMillis.
	windows     bool
	function    rollup.Function
	rangeMillis int64
	lookback    int64
	// resolution is that of the rows, 0 if raw samples are to be read wherever they are kept.
	resolution int64
	// edges allows raw samples at the bounds of windows that don't fall on those of buckets.
	edges bool
	// thrifty passes over raw samples if they seem to be too many.
	thrifty bool
	// neverExact tells that it is approximate, whatever the buckets say.
	neverExact bool
	// countsOnly tells that the engine takes histograms without their buckets, and hintsShow that the reset hints which it
	// makes for them, of what it happened to read before, may become a warning of what is around.
	countsOnly, hintsShow bool
	// ahead is the second argument of predict_linear, in seconds, as of shiftMillis behind the points of the grid: upstream
	// doesn't subtract the offset of the selector there.
	ahead       float64
	shiftMillis int64
	// call is the original argument, with the offset already subtracted.
	call     *parser.MatrixSelector
	position posrange.PositionRange
}

// planner rewrites a statement that was prepared, but not executed:
//
//  1. It walks the expression and keeps the points of evaluation as upstream will: those of the
//     statement, of subqueries (evaluator.subqueryTimeRange), and of what is evaluated once.
//  2. A call of a function that package rollup answers or estimates, over a selector, may be planned; so may a
//     selector outside of any range. The rest, and what upstream evaluates at odd times, is left.
//  3. decide and decideInstants choose from what is answered. A planned call becomes
//     f(x[1ms]) for the same f where that keeps one sample as it is, else sum_over_time(x[1ms]). The engine
//     itself drops names, finds duplicates and makes the labels of absent_over_time.
//
// The mirrored parts of upstream v0.315.0 are subquery, setOffsets and the choice of
// functions; PLANNER tests hold them against the engine.
type planner struct {
	policy      policy
	resolutions []int64 // that may be used, ascending
	rawSince    int64
	lookback    int64
	defaultStep func(int64) int64
	// startTimestamps is upstream's feature, of which buckets know nothing.
	startTimestamps bool

	plans map[*parser.VectorSelector]*plan
}

// evaluation is the points at which upstream evaluates an expression.
type evaluation struct {
	start, end, interval int64
	// within is the nearest function or aggregation around it, empty for none.
	within string
}

func millis(t time.Time) int64 { return t.UnixNano() / int64(time.Millisecond) }

// rewrite plans a statement. It leaves it as it is if there is nothing to plan.
func (p *planner) rewrite(stmt *parser.EvalStmt) {
	e := evaluation{start: millis(stmt.Start), end: millis(stmt.End), interval: stmt.Interval.Milliseconds()}
	if stmt.Interval == 0 {
		e.interval = 1
	}
	if e.interval <= 0 || e.end < e.start {
		return
	}
	setOffsets(e.start, stmt.Expr)
	stmt.Expr = p.expr(stmt.Expr, e)
}

func (p *planner) expr(expr parser.Expr, e evaluation) parser.Expr {
	switch n := expr.(type) {
	case *parser.StepInvariantExpr:
		e.end = e.start
		n.Expr = p.expr(n.Expr, e)
	case *parser.ParenExpr:
		n.Expr = p.expr(n.Expr, e)
	case *parser.UnaryExpr:
		n.Expr = p.expr(n.Expr, e)
	case *parser.AggregateExpr:
		e.within = n.Op.String()
		n.Expr = p.expr(n.Expr, e)
		if n.Param != nil {
			n.Param = p.expr(n.Param, e)
		}
	case *parser.BinaryExpr:
		e.within = n.Op.String()
		n.LHS, n.RHS = p.expr(n.LHS, e), p.expr(n.RHS, e)
	case *parser.SubqueryExpr:
		inner, ok := e.subquery(n, p.defaultStep)
		if !ok {
			return n
		}
		if inner.start != e.start {
			setOffsets(inner.start, n.Expr)
		}
		n.Expr = p.expr(n.Expr, inner)
	case *parser.VectorSelector:
		p.instants(n, e)
	case *parser.Call:
		return p.call(n, e)
	}
	return expr
}

func (p *planner) call(n *parser.Call, e evaluation) parser.Expr {
	f, ok := rollup.FunctionNamed(n.Func.Name)
	if !ok || f != rollup.LastOverTime && f != rollup.FirstOverTime { // which return histograms as they are
		e.within = n.Func.Name
	}
	if ok {
		arg, ranged := n.Args[0].(*parser.MatrixSelector)
		ahead, constant := 0.0, true
		if f == rollup.PredictLinear {
			ahead, constant = numberOf(n.Args[1])
		}
		if ranged && constant {
			return p.windows(n, f, arg, ahead, e)
		}
	}
	for i, arg := range n.Args {
		switch a := arg.(type) {
		case *parser.MatrixSelector:
			continue
		case *parser.VectorSelector:
			// The start of a sample is in no bucket; and with a fixed time upstream's timestamp
			// forgets the offset.
			if n.Func.Name == "start_timestamp" || n.Func.Name == "timestamp" && a.Timestamp != nil && a.OriginalOffset != 0 {
				continue
			}
		}
		if n.Func.Name == "info" && i == 1 {
			continue // names labels, and is not evaluated
		}
		n.Args[i] = p.expr(arg, e)
	}
	return n
}

// pointsOf returns the times that a selector is evaluated for, false if they are not to be
// planned.
func (p *planner) pointsOf(n *parser.VectorSelector, e evaluation, rangeMillis int64) (grid, bool) {
	if n.Anchored || n.Smoothed {
		return grid{}, false
	}
	g := points(e.start-n.Offset.Milliseconds(), e.end-n.Offset.Milliseconds(), e.interval)
	if n.Timestamp != nil {
		g.last = g.first
		if g.first != *n.Timestamp-n.OriginalOffset.Milliseconds() {
			// Upstream evaluates it at a shifted time: below a subquery with a negative offset.
			return grid{}, false
		}
	}
	if g.count() == 0 || g.first-rangeMillis < -timeMax || g.last > timeMax {
		return grid{}, false
	}
	if e.showsHints(n) && p.policy != policyFixed && p.rawKept(g, rangeMillis) {
		return grid{}, false
	}
	return g, true
}

// showsHints tells whether an answer may depend on the reset hints that the engine makes for histograms without their
// buckets.
func (e evaluation) showsHints(n *parser.VectorSelector) bool {
	return n.SkipHistogramBuckets && !hidesHints[e.within]
}

// rawKept tells whether all raw samples of windows of a range are kept.
func (p *planner) rawKept(g grid, rangeMillis int64) bool { return g.first-rangeMillis+1 >= p.rawSince }

// instants plans a plain selector.
func (p *planner) instants(n *parser.VectorSelector, e evaluation) {
	g, ok := p.pointsOf(n, e, p.lookback)
	if !ok {
		return
	}
	if resolution, ok := p.decideInstants(g); ok {
		p.plans[n] = &plan{grid: g, lookback: p.lookback, resolution: resolution, hintsShow: e.showsHints(n), position: n.PosRange}
	}
}

// keepsOne are the functions that leave one sample as it is; sum_over_time does it for all
// samples but -0, and drops the name.
var keepsOne = []rollup.Function{
	rollup.MinOverTime, rollup.MaxOverTime, rollup.LastOverTime, rollup.FirstOverTime, rollup.PresentOverTime, rollup.AbsentOverTime,
}

// windows plans a call of f over a selector. Ahead is for predict_linear.
func (p *planner) windows(n *parser.Call, f rollup.Function, arg *parser.MatrixSelector, ahead float64, e evaluation) parser.Expr {
	selector := arg.VectorSelector.(*parser.VectorSelector)
	rangeMillis := arg.Range.Milliseconds()
	g, ok := p.pointsOf(selector, e, rangeMillis)
	if !ok || rangeMillis <= 0 {
		return n
	}
	made := &plan{
		grid: g, windows: true, function: f, rangeMillis: rangeMillis, ahead: ahead, shiftMillis: selector.Offset.Milliseconds(), position: arg.PositionRange(),
		countsOnly: selector.SkipHistogramBuckets, hintsShow: e.showsHints(selector),
	}
	if !p.decide(made) {
		return n
	}
	still := *selector
	still.Offset = 0
	made.call = &parser.MatrixSelector{VectorSelector: &still, Range: arg.Range, EndPos: arg.EndPos}
	moved := *selector
	p.plans[&moved] = made
	name := "sum_over_time"
	if slices.Contains(keepsOne, f) {
		name = f.String()
	}
	return &parser.Call{Func: parser.Functions[name], PosRange: n.PosRange, Args: parser.Expressions{
		&parser.MatrixSelector{VectorSelector: &moved, Range: time.Millisecond, EndPos: arg.EndPos},
	}}
}

// numberOf returns the number that an expression is of constants alone.
func numberOf(expr parser.Expr) (v float64, ok bool) {
	switch n := expr.(type) {
	case *parser.NumberLiteral:
		return n.Val, true
	case *parser.ParenExpr:
		return numberOf(n.Expr)
	case *parser.StepInvariantExpr:
		return numberOf(n.Expr)
	case *parser.UnaryExpr:
		if v, ok = numberOf(n.Expr); n.Op == parser.SUB {
			v = -v
		}
		return v, ok
	case *parser.BinaryExpr:
		x, left := numberOf(n.LHS)
		y, right := numberOf(n.RHS)
		switch n.Op {
		case parser.ADD:
			v = x + y
		case parser.SUB:
			v = x - y
		case parser.MUL:
			v = x * y
		case parser.DIV:
			v = x / y
		default:
			return 0, false
		}
		return v, left && right
	}
	return 0, false
}

// subquery mirrors upstream's evaluator.subqueryTimeRange.
func (e evaluation) subquery(n *parser.SubqueryExpr, defaultStep func(int64) int64) (evaluation, bool) {
	offset, rangeMillis := n.Offset.Milliseconds(), n.Range.Milliseconds()
	interval := n.Step.Milliseconds()
	if n.Step == 0 {
		interval = defaultStep(rangeMillis)
	}
	if interval <= 0 {
		return evaluation{}, false
	}
	edge := e.start - offset - rangeMillis
	start := edge / interval * interval
	if start <= edge {
		start += interval
	}
	last := e.start + (e.end-e.start)/e.interval*e.interval
	return evaluation{start: start, end: last - offset, interval: interval}, true
}

// setOffsets mirrors upstream's setOffsetForAtModifier: it turns @ into offsets from the time
// of evaluation. Exec does it again.
func setOffsets(evalMillis int64, expr parser.Expr) {
	set := func(offset *time.Duration, original time.Duration, at *int64, path []parser.Node) {
		*offset = original
		if at != nil {
			*offset += since(evalMillis, *at) - offsetAround(evalMillis, path)
		}
	}
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			set(&n.Offset, n.OriginalOffset, n.Timestamp, path)
		case *parser.SubqueryExpr:
			set(&n.Offset, n.OriginalOffset, n.Timestamp, path)
		}
		return nil
	})
}

func since(t, at int64) time.Duration { return time.Duration(t-at) * time.Millisecond }

// offsetAround is the offset of the subqueries on the path, from the innermost fixed time on.
func offsetAround(evalMillis int64, path []parser.Node) (sum time.Duration) {
	var fixed *int64
	for _, node := range path {
		n, ok := node.(*parser.SubqueryExpr)
		if !ok {
			continue
		}
		sum += n.OriginalOffset
		if n.Timestamp != nil {
			sum, fixed = n.OriginalOffset, n.Timestamp
		}
	}
	if fixed != nil {
		sum += since(evalMillis, *fixed)
	}
	return sum
}
