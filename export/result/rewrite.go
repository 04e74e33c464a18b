package result

import (
	"fmt"

	"github.com/prometheus/prometheus/promql/parser"
)

// anyParser knows all of PromQL, what is experimental too: the source decides what it takes.
var anyParser = parser.NewParser(parser.Options{
	EnableExperimentalFunctions: true, ExperimentalDurationExpr: true, EnableExtendedRangeSelectors: true, EnableBinopFillModifiers: true,
})

// divisible returns the text of a query of which parts can be asked for, one behind the other: what refers to the bounds of the
// range is replaced by times. A query that needs none of that is returned as it is.
func divisible(p parser.Parser, query string, g Grid) (string, error) {
	expr, err := p.ParseExpr(query)
	if err != nil {
		return "", fmt.Errorf("the query is not PromQL, so its answer may depend on the range that is asked for at once, and it can't be taken apart: %w", err)
	}
	fixed := false
	at := func(timestamp **int64, bound *parser.ItemType) {
		if *bound == 0 {
			return
		}
		t := g.First
		if *bound == parser.END {
			t = g.Last
		}
		*timestamp, *bound, fixed = &t, 0, true
	}
	var ranged bool
	look := func(d *parser.DurationExpr) { ranged = ranged || refersToRange(d) }
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			at(&n.Timestamp, &n.StartOrEnd)
			look(n.OriginalOffsetExpr)
		case *parser.MatrixSelector:
			look(n.RangeExpr)
		case *parser.SubqueryExpr:
			at(&n.Timestamp, &n.StartOrEnd)
			look(n.OriginalOffsetExpr)
			look(n.RangeExpr)
			look(n.StepExpr)
		case *parser.DurationExpr:
			look(n)
		}
		return nil
	})
	if ranged {
		return "", fmt.Errorf("the query uses range(), the length of what is asked for at once, so it can't be taken apart: write the duration instead")
	}
	if !fixed {
		return query, nil
	}
	return expr.String(), nil
}

// refersToRange tells whether range() is in an expression of durations.
func refersToRange(e parser.Expr) bool {
	switch d := e.(type) {
	case *parser.DurationExpr:
		return d != nil && (d.Op == parser.RANGE || refersToRange(d.LHS) || refersToRange(d.RHS))
	case *parser.ParenExpr:
		return d != nil && refersToRange(d.Expr)
	case *parser.UnaryExpr:
		return d != nil && refersToRange(d.Expr)
	}
	return false
}
