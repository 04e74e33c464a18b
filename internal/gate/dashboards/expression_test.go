package dashboards_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// targetLabels are those that whoever scrapes adds.
var targetLabels = []string{"job", "instance"}

// standIns take the place of Grafana's variables in ranges.
var standIns = strings.NewReplacer("$__rate_interval", "5m", "$__interval", "1h", "$__range", "1d")

// reader reads expressions against what is exposed.
type reader struct {
	exposed map[string]*metric
	// used collects the names of metrics.
	used map[string]bool
	// collecting takes any metric, to know their names.
	collecting bool
}

// read returns the labels that results of the expression may have, and what is wrong with it.
func (r *reader) read(expr string) (map[string]bool, []string) {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(standIns.Replace(expr))
	if err != nil {
		return nil, []string{err.Error()}
	}
	var faults []string
	result := r.labels(parsed, &faults)
	return result, faults
}

func set(names ...string) map[string]bool {
	s := map[string]bool{}
	for _, n := range names {
		s[n] = true
	}
	return s
}

// labels returns those of the results of e. It knows what dashboards and rules are made of, and
// refuses the rest, so that nothing is checked by half.
func (r *reader) labels(e parser.Expr, faults *[]string) map[string]bool {
	switch e := e.(type) {
	case *parser.ParenExpr:
		return r.labels(e.Expr, faults)
	case *parser.NumberLiteral, *parser.StringLiteral:
		return nil
	case *parser.MatrixSelector:
		return r.labels(e.VectorSelector, faults)
	case *parser.VectorSelector:
		return r.selector(e, faults)
	case *parser.Call:
		var result map[string]bool
		for _, a := range e.Args {
			if l := r.labels(a, faults); l != nil {
				result = l
			}
		}
		if e.Func.Name == "histogram_quantile" && result != nil {
			if !result["le"] {
				*faults = append(*faults, "histogram_quantile of what has no le")
			}
			delete(result, "le")
		}
		return result
	case *parser.AggregateExpr:
		inner := r.labels(e.Expr, faults)
		if e.Without {
			*faults = append(*faults, "without is not checked: say by")
			return nil
		}
		for _, name := range e.Grouping {
			if inner != nil && !inner[name] {
				*faults = append(*faults, fmt.Sprintf("%s has no label %s to group by", e.Expr, name))
			}
		}
		return set(e.Grouping...)
	case *parser.BinaryExpr:
		return r.binary(e, faults)
	case *parser.UnaryExpr:
		return r.labels(e.Expr, faults)
	}
	*faults = append(*faults, fmt.Sprintf("%T is not checked", e))
	return nil
}

func (r *reader) selector(v *parser.VectorSelector, faults *[]string) map[string]bool {
	name := v.Name
	r.used[name] = true
	m := r.exposed[name]
	if name == "up" {
		m = &metric{}
	}
	if m == nil {
		if !r.collecting {
			*faults = append(*faults, fmt.Sprintf("there is no metric %q", name))
		}
		return nil
	}
	result := set(targetLabels...)
	for l := range m.labels {
		if slices.Contains(targetLabels, l) {
			l = "exported_" + l
		}
		result[l] = true
	}
	for _, matcher := range v.LabelMatchers {
		if matcher.Name != model.MetricNameLabel && !result[matcher.Name] {
			*faults = append(*faults, fmt.Sprintf("%s has no label %s", name, matcher.Name))
		}
	}
	return result
}

func (r *reader) binary(e *parser.BinaryExpr, faults *[]string) map[string]bool {
	left, right := r.labels(e.LHS, faults), r.labels(e.RHS, faults)
	if left == nil {
		return right
	}
	if right == nil {
		return left
	}
	match := e.VectorMatching
	for _, name := range match.MatchingLabels {
		if match.On && (!left[name] || !right[name]) {
			*faults = append(*faults, fmt.Sprintf("on (%s): not both sides of %s have it", name, e.Op))
		}
	}
	switch {
	case e.Op == parser.LOR:
		both := map[string]bool{}
		for l := range left {
			both[l] = both[l] || right[l]
		}
		return both
	case e.Op.IsSetOperator() || match.Card == parser.CardManyToOne:
		return left
	case match.On:
		return set(match.MatchingLabels...)
	}
	return left
}

// legendPattern is a label in the name of a series.
var legendPattern = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// TestReaderFindsFaults shows that what the gate is for is found, and what is right is not.
func TestReaderFindsFaults(t *testing.T) {
	exposed := map[string]*metric{
		"a_total": {labels: set("kind", "job")}, "b_bucket": {labels: set("le", "kind")}, "c": {labels: set()},
	}
	for expr, fault := range map[string]string{
		`rate(a_total{kind="x",job=~"$job"}[$__rate_interval])`:                   "",
		`sum by (kind, exported_job) (rate(a_total[$__interval]))`:                "",
		`histogram_quantile(0.9, sum by (kind, le) (rate(b_bucket[5m])))`:         "",
		`c and on (job, instance) a_total`:                                        "",
		`time() - c > 5 and c < 7`:                                                "",
		`sum by (kind) (a_total) > on (job) group_left () 0.1 * sum by (job) (c)`: "on (job)",
		`d`:                                `no metric "d"`,
		`c{kind="x"}`:                      "c has no label kind",
		`sum by (kind) (c)`:                "no label kind to group by",
		`sum without (kind) (a_total)`:     "say by",
		`histogram_quantile(0.9, a_total)`: "no le",
		`rate(a_total`:                     "parse error",
		`sum by (le) (sum(b_bucket))`:      "no label le",
	} {
		r := reader{exposed: exposed, used: map[string]bool{}}
		_, faults := r.read(expr)
		if fault == "" {
			require.Empty(t, faults, "%s", expr)
			continue
		}
		require.Contains(t, strings.Join(faults, "; "), fault, "%s", expr)
	}
}
