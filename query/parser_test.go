package query_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/query"
)

// A text beyond a limit is refused with the sentinel of that limit, and what
// lies just within is accepted.
func TestTextLimits(t *testing.T) {
	e := newEngine(t, query.Options{})
	regex := func(n int, re string) string { return "sum({" + strings.Repeat(`a=~"`+re+`",`, n) + `b="c"})` }
	for _, test := range []struct {
		name, text string
		want       error
	}{
		{"longest", "a" + strings.Repeat(" ", 16<<10-1), nil},
		{"too long", "a" + strings.Repeat(" ", 16<<10), query.ErrTextTooLong},
		{"deepest brackets", strings.Repeat("(", 199) + "a" + strings.Repeat(")", 199), nil},
		{"too many brackets", strings.Repeat("(", 200) + "a" + strings.Repeat(")", 200), query.ErrTooDeep},
		{"too many open brackets", strings.Repeat("(", 16<<10), query.ErrTooDeep},
		{"deepest signs", strings.Repeat("-", 199) + "a", nil},
		{"too many signs", strings.Repeat("-", 200) + "a", query.ErrTooDeep},
		{"signs with comments between", strings.Repeat("-#\n", 201) + "a", query.ErrTooDeep},
		{"deep to the right", "a" + strings.Repeat("^a", 300), query.ErrTooDeep},
		{"long to the left", "a" + strings.Repeat("+a", 300), nil},
		{"deep functions", strings.Repeat("abs(", 199) + "a" + strings.Repeat(")", 199), nil},
		{"too deep functions", strings.Repeat("abs(", 200) + "a" + strings.Repeat(")", 200), query.ErrTooDeep},
		{"signs beside brackets", strings.Repeat("-(", 150) + "a" + strings.Repeat(")", 150), query.ErrTooDeep},
		{"brackets side by side", "a" + strings.Repeat("+(a)", 1000), nil},
		{"longest regex", regex(1, strings.Repeat("x", 1<<10)), nil},
		{"too long regex", regex(1, strings.Repeat("x", 1<<10+1)), query.ErrRegexTooLarge},
		{"escaped regex counts unescaped", regex(1, strings.Repeat(`\x61`, 1<<10)), nil},
		{"negated regex", strings.Replace(regex(1, strings.Repeat("x", 1<<10+1)), "=~", "!~", 1), query.ErrRegexTooLarge},
		{"large regex", regex(1, strings.Repeat("x{1000}", 19)), nil},
		{"too large regex", regex(1, strings.Repeat("[^x]{1000}", 21)), query.ErrRegexTooLarge},
		{"nested repeats", regex(1, strings.Repeat("(x{30}){33}", 40)), query.ErrRegexTooLarge},
		{"open repeats", regex(1, strings.Repeat("x{1000,}", 30)), query.ErrRegexTooLarge},
		{"optional repeats", regex(1, strings.Repeat("(x|y){0,1000}", 30)), query.ErrRegexTooLarge},
		{"too large together", regex(15, strings.Repeat("x{1000}", 2)), query.ErrRegexTooLarge},
		{"string that is no regex", `label_replace(a, "b", "` + strings.Repeat("x", 2000) + `", "c", ".*")`, nil},
		{"replacement regex", `label_replace(a, "b", "c", "d", "` + strings.Repeat("x", 1025) + `")`, query.ErrRegexTooLarge},
		{"large replacement regex", `label_replace(a, "b", "c", "d", "` + strings.Repeat("x{1000}", 21) + `")`, query.ErrRegexTooLarge},
	} {
		q, err := e.NewRangeQuery(context.Background(), &arrays{}, nil, test.text, time.Unix(0, 0), time.Unix(600, 0), time.Minute)
		if test.want == nil {
			require.NoError(t, err, test.name)
			q.Close()
			continue
		}
		require.ErrorIs(t, err, test.want, test.name)
		require.Equal(t, http.StatusBadRequest, query.Status(err), test.name)
		require.Less(t, len(err.Error()), 300, test.name)
		_, err = e.NewInstantQuery(context.Background(), &arrays{}, nil, test.text, time.Unix(0, 0))
		require.ErrorIs(t, err, test.want, test.name)
	}
}

// Selectors outside queries are bounded like queries, several of them together.
func TestSelectorLimits(t *testing.T) {
	p := newEngine(t, query.Options{}).Parser()
	_, err := p.ParseMetricSelector(`{a=~"` + strings.Repeat("x", 2000) + `"}`)
	require.ErrorIs(t, err, query.ErrRegexTooLarge)
	_, err = p.ParseMetric(`a{b="` + strings.Repeat("x", 20_000) + `"}`)
	require.ErrorIs(t, err, query.ErrTextTooLong)
	_, _, err = p.ParseSeriesDesc("a " + strings.Repeat("1 ", 10_000))
	require.ErrorIs(t, err, query.ErrTextTooLong)
	one := `{a="` + strings.Repeat("x", 1000) + `"}`
	_, err = p.ParseMetricSelectors([]string{one, one})
	require.NoError(t, err)
	_, err = p.ParseMetricSelectors(strings.Split(strings.Repeat(one+" ", 17), " ")[:17])
	require.ErrorIs(t, err, query.ErrTextTooLong)
	large := `{a=~"` + strings.Repeat("x{1000}", 5) + `"}`
	_, err = p.ParseMetricSelectors([]string{large, large, large})
	require.NoError(t, err)
	_, err = p.ParseMetricSelectors([]string{large, large, large, large, large})
	require.ErrorIs(t, err, query.ErrRegexTooLarge)
	_, err = p.ParseMetricSelector(`{a="b"`)
	require.Equal(t, http.StatusBadRequest, query.Status(err))
}

// A query is refused for the steps of its finest subquery, or its own.
func TestStepLimit(t *testing.T) {
	e := newEngine(t, query.Options{Limits: query.Limits{StepsMax: 1000}})
	for _, test := range []struct {
		text string
		ok   bool
	}{
		{"a", true},
		{"max_over_time(a[989s:1s])", true}, // and 10s of steps
		{"max_over_time(a[992s:1s])", false},
		{"max_over_time(a[989s:1s] offset 1h)", true},
		{"max_over_time(a[992s:1s] offset 1h)", false},
		{"max_over_time(a[992s:1s] @ 100)", true}, // evaluated once
		{"max_over_time(a[1001s:1s] @ 100)", false},
		{"max_over_time(max_over_time(a[500s:10s])[480s:1s])", true},
		{"max_over_time(max_over_time(a[600s:1s])[500s:10s])", false},
		{"max_over_time(a[58000s:])", true}, // by the default step of a minute
		{"max_over_time(a[61000s:])", false},
		{"sum(max_over_time(a[1y:1ms])) + 1", false},
	} {
		q, err := e.NewRangeQuery(context.Background(), &arrays{}, nil, test.text, time.Unix(0, 0), time.Unix(10, 0), time.Second)
		if test.ok {
			require.NoError(t, err, test.text)
			q.Close()
			continue
		}
		require.ErrorIs(t, err, query.ErrTooManySteps, test.text)
		require.Equal(t, http.StatusBadRequest, query.Status(err))
	}
	_, err := e.NewRangeQuery(context.Background(), &arrays{}, nil, "a", time.Unix(0, 0), time.Unix(1000, 0), time.Second)
	require.ErrorIs(t, err, query.ErrTooManySteps)
}

// hostile are texts that aim at the parser, the compiler of regular expressions
// or the stack.
func hostile() []string {
	const n = 16 << 10
	fill := func(s string) string { return strings.Repeat(s, n/len(s)) }
	nest := func(open, core, shut string) string {
		k := (n - len(core)) / (len(open) + len(shut))
		return strings.Repeat(open, k) + core + strings.Repeat(shut, k)
	}
	all := []string{
		"", " ", "#", "\x00", "\xff\xfe", "a{", `a{b="`, "a[", "a[5m", "a[5m:", "a @", "a offset", "'", "`", `"\`, "{}", `{""=""}`,
		fill("("), fill(")"), fill("["), fill("{"), fill("-"), fill("+"), fill("a+"), fill("#\n"), fill("\""), fill(`\"`), fill("a,"),
		fill("0x"), fill("9"), fill("1e"), fill("1h"), fill("\xff"), fill("𝕏"), fill("a{b="), fill("sum("), fill("by("), fill("@"),
		nest("(", "a", ")"), nest("-(", "a", ")"), nest("abs(", "a", ")"), nest("sum(", "a", ")"), nest("sum by (x) (", "a", ")"),
		nest("max_over_time(", "a", "[5m:1m])"), nest("(", "a", ")[5m:1m]"), nest("a[(", "1", ")]"), nest("a and (", "a", ")"), nest("scalar(vector(", "1", "))"),
		"a" + strings.Repeat("^a", n/2-1), "1" + strings.Repeat("+1", n/2-1), "a" + strings.Repeat(" or a", n/5-1), "a" + strings.Repeat(" unless a", n/9-1),
		"a{" + strings.Repeat("b=\"c\",", n/6-2) + "}", "sum by (" + strings.Repeat("a,", n/2-10) + "b) (c)",
		"topk(1e308, a)", "topk(-1e308, a)", "quantile(NaN, a)", "a[292y]", "a[1000000y]", "a offset 292y", "a offset -292y", "a @ 9e18", "a @ -9e18", "a @ Inf",
		"max_over_time(a[1y:1ms])", "a[0s]", "max_over_time(a[5m:0s])", "max_over_time(max_over_time(a[100y:1d])[100y:1d])", `count_values("\xff", a)`,
		`label_replace(a, "x", "` + strings.Repeat("$1", 4000) + `", "y", "(.*)")`, "limit_ratio(2, a)", "round(a, 0)", "vector(1) % 0", "1 % 0", "-0 ^ -1",
	}
	for _, re := range []string{
		"((a{30}){33})", "(a{1000}){1000}", "(((((a{10}){10}){10}){10}){10})", "(?i:" + strings.Repeat("a?", 100) + strings.Repeat("a", 100) + ")",
		strings.Repeat("(", 1000), strings.Repeat("(?:", 300) + strings.Repeat(")", 300), strings.Repeat("[^a]{1000}", 60), strings.Repeat(`\pL{1000}`, 60),
		strings.Repeat("(a|b|c)", 140), strings.Repeat("(a|b|c|)*", 110), "(a*)*b", "(a|a)*$", strings.Repeat("x*", 500), "[" + strings.Repeat("a-z", 300) + "]",
		strings.Repeat("(x+x+)+y", 100), "(?i)" + strings.Repeat("k", 1000), strings.Repeat(".*", 500), strings.Repeat(`(\d+\.){9}`, 100), `\xff`, "a{,5}", "a{2000}", "(?P<n>",
	} {
		quoted := fmt.Sprintf("%q", re)
		all = append(all, "a{b=~"+quoted+"}", "a{b!~"+quoted+"}", `label_replace(a, "b", "c", "d", `+quoted+`)`, "{"+strings.TrimSuffix(strings.Repeat("b=~"+quoted+",", n/(len(quoted)+5)), ",")+"}")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	tokens := []string{"a", "(", ")", "[", "]", "{", "}", "5m", ":", "1m", "sum", "by", "rate", ",", "+", "-", "^", "or", "@", "offset", "=~", `".*"`, "start()", "1", "NaN", "bool", "on", "group_left", " "}
	for range 300 {
		var b strings.Builder
		for range rnd.IntN(200) {
			b.WriteString(tokens[rnd.IntN(len(tokens))])
		}
		all = append(all, b.String())
	}
	return all
}

// No hostile text panics, takes long, or is answered with anything but an answer
// or an error of the client's.
func TestHostileTexts(t *testing.T) {
	store := &arrays{series: []*arraySeries{
		floats(scrapeMillis, 240, func(i int) float64 { return float64(i) }, "__name__", "a", "b", strings.Repeat("a", 200)),
		floats(scrapeMillis, 240, func(i int) float64 { return negativeZero }, "__name__", "a", "d", strings.Repeat("x", 200)),
	}}
	o := query.Options{Parts: 3, Parser: script}
	o.Timeout, o.SamplesMax = 250*time.Millisecond, 100_000
	o.ForceSplit()
	e := newEngine(t, o)
	for _, text := range hostile() {
		begin := time.Now()
		for _, make := range []func() error{
			func() error { return instant(e, store, text) },
			func() error { return ranged(e, store, text) },
		} {
			status := query.Status(make())
			require.NotEqual(t, http.StatusInternalServerError, status, "%.200s", text)
		}
		// Far more than the timeouts, since the machine may be busy.
		require.Less(t, time.Since(begin), 2*time.Minute, "%.200s", text)
	}
	require.Empty(t, e.Running())
	require.Zero(t, store.queriers.Load())
}

func instant(e *query.Engine, store *arrays, text string) error {
	q, err := e.NewInstantQuery(context.Background(), store, nil, text, time.Unix(1800, 0))
	if err != nil {
		return err
	}
	defer q.Close()
	return q.Exec(context.Background()).Err
}

func ranged(e *query.Engine, store *arrays, text string) error {
	q, err := e.NewRangeQuery(context.Background(), store, nil, text, time.Unix(0, 0), time.Unix(3600, 0), time.Minute)
	if err != nil {
		return err
	}
	defer q.Close()
	return q.Exec(context.Background()).Err
}
