package query

import (
	"fmt"
	"regexp/syntax"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/strutil"
)

// boundedParser refuses texts that would cost much to parse or to evaluate.
//
//  1. The length is checked first: everything below costs at most its square.
//  2. A pass over the tokens bounds the nesting of brackets, so that the
//     recursive passes of the parser stay shallow, and the regular expressions,
//     since the parser compiles them.
//  3. The parsed expression's depth is checked, for what nests without brackets.
type boundedParser struct {
	parser.Parser
	limits atomic.Pointer[Limits]
}

func newBoundedParser(o parser.Options, l *Limits) *boundedParser {
	p := &boundedParser{Parser: parser.NewParser(o)}
	p.limits.Store(l)
	return p
}

// ParseExpr implements parser.Parser.
func (p *boundedParser) ParseExpr(text string) (parser.Expr, error) {
	l := p.limits.Load()
	steps, err := l.scan(text)
	if err != nil {
		return nil, err
	}
	expr, err := p.Parser.ParseExpr(text)
	if err != nil {
		return nil, err
	}
	if d := depth(expr); d > l.DepthMax {
		return nil, fmt.Errorf("%w: %d levels, at most %d", ErrTooDeep, d, l.DepthMax)
	}
	return expr, l.checkReplacements(expr, steps)
}

// ParseMetric implements parser.Parser.
func (p *boundedParser) ParseMetric(text string) (labels.Labels, error) {
	if _, err := p.limits.Load().scan(text); err != nil {
		return labels.EmptyLabels(), err
	}
	return p.Parser.ParseMetric(text)
}

// ParseMetricSelector implements parser.Parser.
func (p *boundedParser) ParseMetricSelector(text string) ([]*labels.Matcher, error) {
	if _, err := p.limits.Load().scan(text); err != nil {
		return nil, err
	}
	return p.Parser.ParseMetricSelector(text)
}

// ParseMetricSelectors implements parser.Parser. The limits hold for all texts
// together.
func (p *boundedParser) ParseMetricSelectors(texts []string) ([][]*labels.Matcher, error) {
	l := p.limits.Load()
	bytes, steps := 0, 0
	for _, text := range texts {
		n, err := l.scan(text)
		if err != nil {
			return nil, err
		}
		bytes += len(text)
		steps += n
	}
	if err := l.checkBytes(bytes); err != nil {
		return nil, err
	}
	if err := l.checkSteps(steps); err != nil {
		return nil, err
	}
	return p.Parser.ParseMetricSelectors(texts)
}

// ParseSeriesDesc implements parser.Parser.
func (p *boundedParser) ParseSeriesDesc(text string) (labels.Labels, []parser.SequenceValue, error) {
	if err := p.limits.Load().checkBytes(len(text)); err != nil {
		return labels.EmptyLabels(), nil, err
	}
	return p.Parser.ParseSeriesDesc(text)
}

// RegisterFeatures implements parser.Parser.
func (p *boundedParser) RegisterFeatures(r features.Collector) { p.Parser.RegisterFeatures(r) }

func (l *Limits) checkBytes(n int) error {
	if n > l.TextBytesMax {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTextTooLong, n, l.TextBytesMax)
	}
	return nil
}

func (l *Limits) checkSteps(n int) error {
	if n > l.RegexStepsMax {
		return fmt.Errorf("%w: the text's expressions compile to more than %d steps", ErrRegexTooLarge, l.RegexStepsMax)
	}
	return nil
}

// scan checks the tokens of text and returns the compiled size of its regular
// expressions. Texts that cannot be read are left to the parser's own message.
func (l *Limits) scan(text string) (steps int, err error) {
	if err := l.checkBytes(len(text)); err != nil {
		return 0, err
	}
	var item parser.Item
	nesting, signs, regex := 0, 0, false
	for lexer := parser.Lex(text); ; {
		lexer.NextItem(&item)
		switch item.Typ {
		case parser.EOF, parser.ERROR:
			return steps, nil
		case parser.COMMENT:
			continue
		case parser.LEFT_PAREN, parser.LEFT_BRACKET, parser.LEFT_BRACE:
			nesting++
		case parser.RIGHT_PAREN, parser.RIGHT_BRACKET, parser.RIGHT_BRACE:
			nesting--
		case parser.STRING:
			if regex {
				re, err := strutil.Unquote(item.Val)
				if err != nil {
					return steps, nil
				}
				n, err := l.regexSteps(re)
				if err != nil {
					return 0, err
				}
				steps += n
				if err := l.checkSteps(steps); err != nil {
					return 0, err
				}
			}
		}
		if item.Typ == parser.ADD || item.Typ == parser.SUB {
			signs++
		} else {
			signs = 0
		}
		if nesting+signs > l.DepthMax {
			return 0, fmt.Errorf("%w: more than %d levels", ErrTooDeep, l.DepthMax)
		}
		regex = item.Typ == parser.EQL_REGEX || item.Typ == parser.NEQ_REGEX
	}
}

// regexSteps returns the compiled size of a regular expression, zero for one
// that nobody can compile.
func (l *Limits) regexSteps(text string) (int, error) {
	if len(text) > l.RegexBytesMax {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrRegexTooLarge, len(text), l.RegexBytesMax)
	}
	re, err := syntax.Parse(text, syntax.Perl|syntax.DotNL)
	if err != nil {
		return 0, nil
	}
	return instructions(re), nil
}

// checkReplacements bounds the expressions of label_replace, which are compiled
// when the query runs. steps is the size of those already counted.
func (l *Limits) checkReplacements(expr parser.Expr, steps int) (err error) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		call, ok := node.(*parser.Call)
		if !ok || err != nil || call.Func.Name != "label_replace" || len(call.Args) != 5 {
			return nil
		}
		if text, ok := call.Args[4].(*parser.StringLiteral); ok {
			n := 0
			if n, err = l.regexSteps(text.Val); err == nil {
				steps += n
				err = l.checkSteps(steps)
			}
		}
		return nil
	})
	return err
}

// depth is the number of levels of an expression. A chain of operators that
// associate to the left counts as one level: generated queries hold hundreds of
// operands, and nothing in the evaluation multiplies with their number.
func depth(expr parser.Expr) int {
	deepest := 0
	if b, ok := expr.(*parser.BinaryExpr); ok {
		for ok {
			deepest = max(deepest, depth(b.RHS))
			expr = b.LHS
			b, ok = expr.(*parser.BinaryExpr)
		}
		return max(deepest, depth(expr)) + 1
	}
	for child := range parser.ChildrenIter(expr) {
		if e, ok := child.(parser.Expr); ok && e != nil {
			deepest = max(deepest, depth(e))
		}
	}
	return deepest + 1
}

// instructions estimates the size of the program of re as regexp/syntax does
// for its own, far higher limit. It must not be asked for a tree that the
// package refused to parse.
func instructions(re *syntax.Regexp) int {
	n := 0
	for _, sub := range re.Sub {
		n += instructions(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCapture, syntax.OpStar:
		return n + 2
	case syntax.OpPlus, syntax.OpQuest:
		return n + 1
	case syntax.OpConcat:
		return n
	case syntax.OpAlternate:
		return n + len(re.Sub)
	case syntax.OpRepeat:
		if re.Max < 0 {
			return n*max(1, re.Min) + 2
		}
		return n*re.Min + (n+1)*(re.Max-re.Min)
	}
	return n + 1
}
