package query_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/query"
)

// Each rule by which a query is not split is found in the prepared expression,
// and what looks like it but is harmless is split.
func TestAudit(t *testing.T) {
	const (
		split  = ""
		groups = "aggregation that depends on the order of groups"
		choice = "choice among series in no order"
		names  = "range function over series that may differ in name only"
		param  = "aggregation parameter that moves with the step"
		still  = "no selector moves with the step"
		fixed  = "subquery with a fixed time below a moving function"
		hints  = "histograms combined by what was read before"
		either = "or with delayed name removal"
		byName = "grouping by name with delayed name removal"
	)
	for _, test := range []struct{ text, why, whyDelayed string }{
		{`a`, split, split},
		{`sum by (x) (rate(a[5m]))`, split, split},
		{`avg(a)`, split, split},
		{`topk(3, a)`, split, split},
		{`topk(3, rate(a[5m]))`, split, split},
		{`max(sum by (x) (a))`, split, split},
		{`quantile(0.9, sum by (x) (a))`, split, split},
		{`sum(sum(a))`, split, split},
		{`sum(a + b)`, split, split},
		{`sum(-a)`, split, split},
		{`topk(2, -a)`, split, split},
		{`histogram_quantile(0.9, sum by (le) (rate(a[5m])))`, split, split},
		{`a - a @ end()`, split, split},
		{`topk(2, sum by (x) (a))`, groups, groups},
		{`sum(sum by (x) (a))`, groups, groups},
		{`stdvar(label_replace(max by (x) (a), "y", "z", "", ""))`, groups, groups},
		{`avg(sum_over_time(sum by (x) (a)[5m:1m]))`, groups, groups},
		{`limitk(2, count without (x) (a))`, groups, groups},
		{`a + sum(sum by (x) (a @ 10))`, split, split},
		{`topk(2, a + b)`, choice, choice},
		{`limitk(2, a > 0)`, choice, choice},
		{`bottomk(2, label_replace(a, "y", "z", "", ""))`, choice, choice},
		{`topk(2, -{x="y"})`, choice, choice},
		{`a * on () group_left topk(1, b @ 10 + c @ 10)`, choice, choice},
		{`rate({x="y"}[5m])`, names, split},
		{`rate({__name__=~"a|b"}[5m])`, names, split},
		{`last_over_time({x="y"}[5m])`, split, split},
		{`max_over_time(({x="y"})[5m:1m])`, names, split},
		{`max_over_time((a or b)[5m:1m])`, names, either},
		{`max_over_time((a + b)[5m:1m])`, split, split},
		{`max_over_time((a * on (x) group_left (__name__) b)[5m:1m])`, names, split},
		{`max_over_time(count_values("__name__", a)[5m:1m])`, names, split},
		{`max_over_time(sum by (__name__) (a)[5m:1m])`, names, byName},
		{`a or b`, split, either},
		{`sum by (__name__) (a)`, split, byName},
		{`topk(scalar(b), a)`, param, param},
		{`quantile(scalar(b @ 10), a)`, param, param},
		{`count_values("x", a)`, split, split},
		{`1`, still, still},
		{`time()`, still, still},
		{`sum(a @ 10)`, still, still},
		{`max_over_time(a[5m:1m] @ 10) + b`, split, split},
		{`quantile_over_time(scalar(b), a[5m:1m] @ 10)`, fixed, fixed},
		{`histogram_count(a)`, split, split},
		{`histogram_count(sum(rate(a[5m])))`, split, split},
		{`histogram_count(sum(a))`, hints, hints},
		{`histogram_sum(sum_over_time(a[5m]))`, hints, hints},
	} {
		for _, delayed := range []bool{false, true} {
			o := testOptions(4, delayed)
			o.ForceSplit()
			q, err := newEngine(t, o).NewRangeQuery(context.Background(), &arrays{}, nil, test.text, time.Unix(0, 0), time.Unix(600, 0), 15*time.Second)
			require.NoError(t, err, test.text)
			want := test.why
			if delayed {
				want = test.whyDelayed
			}
			parts, why, _ := query.Split(q)
			require.Equal(t, want, why, "%s, delayed %v", test.text, delayed)
			require.Zero(t, parts, "parts before Exec")
			q.Close()
		}
	}
}

// Only ranges of whole milliseconds, with steps enough for what the selectors
// reach back, are split.
func TestAuditSteps(t *testing.T) {
	for _, test := range []struct {
		text       string
		start, end time.Duration
		step       time.Duration
		parts      int
	}{
		{`sum(a)`, 0, 24 * time.Hour, 5 * time.Minute, 4},
		{`sum(a)`, 0, time.Hour, time.Minute, 4},                      // parts of 15m are more than 2 lookbacks
		{`sum(a)`, 0, 35 * time.Minute, time.Minute / 2, 3},           // 4 parts would be less
		{`sum(rate(a[5m]))`, 0, 35 * time.Minute, time.Minute / 2, 3}, // as a lookback
		{`sum(rate(a[5m])[5m:])`, 0, time.Hour, time.Minute, 0},       // not valid
		{`sum_over_time(sum(a)[10m:])`, 0, time.Hour, time.Minute, 2}, // 15m before each step
		{`sum(rate(a[1h]))`, 0, time.Hour, time.Minute, 1},
		{`sum(a)`, 0, 24 * time.Hour, 2 * time.Hour, 1}, // 13 steps
		{`sum(a)`, 0, 24*time.Hour + time.Nanosecond, 5 * time.Minute, 4},
		{`sum(a)`, time.Nanosecond, 24 * time.Hour, 5 * time.Minute, 1},
		{`sum(a)`, 0, 24 * time.Hour, 5*time.Minute + time.Nanosecond, 1},
		{`sum(a)`, time.Hour, 0, time.Minute, 1},
	} {
		o := testOptions(4, false)
		q, err := newEngine(t, o).NewRangeQuery(context.Background(), &arrays{}, nil, test.text, time.Unix(0, 0).Add(test.start), time.Unix(0, 0).Add(test.end), test.step)
		if test.parts == 0 {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.NoError(t, q.Exec(context.Background()).Err)
		parts, _, _ := query.Split(q)
		require.Equal(t, test.parts, parts, "%s from %v to %v step %v", test.text, test.start, test.end, test.step)
		q.Close()
	}
}
