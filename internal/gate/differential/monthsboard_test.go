package differential_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// resolutionHeader tells what an answer comes from.
const resolutionHeader = "X-Varve-Resolution"

// monthPanel is one query of the dashboard.
type monthPanel struct {
	query string
	// reference is how 2.42 has to be asked for the same, query if empty: its ranges
	// hold the sample on their left edge too.
	reference string
	// close tells that the last bits depend on the order of additions.
	close bool
	// step is an hour if it is zero.
	step time.Duration
}

// monthBoard is answered from rollups alone, exactly.
var monthBoard = []monthPanel{
	{query: `sum by (instance) (rate(month_requests_total[1h]))`, close: true},
	{query: `increase(month_requests_total[1h])`},
	{query: `rate(month_requests_total{code="200"}[5m])`, step: 30 * time.Minute},
	{query: `max by (mode) (rate(month_cpu_seconds_total[10m]))`, close: true, step: 10 * time.Minute},
	{query: `increase(month_cpu_seconds_total[1d])`, close: true},
	{
		query: `sum by (instance) (increase(month_requests_total{code="500"}[1d])) / sum by (instance) (increase(month_requests_total[1d]))`, close: true,
		step: 6 * time.Hour,
	},
	{query: `histogram_quantile(0.9, sum by (le, instance) (rate(month_latency_seconds_bucket[1h])))`, close: true},
	{query: `sum(rate(month_latency_seconds_sum[6h])) / sum(rate(month_latency_seconds_count[6h]))`, close: true},
	{query: `month_memory_bytes`},
	{query: `month_temperature_celsius > 20`},
	{query: `sum by (job) (month_memory_bytes)`},
	{query: `timestamp(month_temperature_celsius)`},
	{query: `max_over_time(month_memory_bytes[1h])`},
	{query: `min_over_time(month_temperature_celsius[5m])`, step: 30 * time.Minute},
	{query: `last_over_time(month_temperature_celsius[1d])`},
	{query: `avg_over_time(month_temperature_celsius[6h])`, close: true},
	{query: `sum_over_time(month_memory_bytes[1h])`},
	{query: `count_over_time({__name__=~"month_(up|info|requests_total)"}[1h])`},
	{query: `100 * avg_over_time(month_up[1d])`, close: true},
	{query: `changes(month_up[1d])`},
	{query: `resets(month_requests_total[1d])`},
	{query: `delta(month_temperature_celsius[1h])`, close: true},
	{query: `month_memory_bytes - month_memory_bytes offset 1d`},
	{query: `rate(month_requests_total[1h]) / rate(month_requests_total[1h] offset 1d)`},
	{query: `topk(2, sum by (instance, mode) (rate(month_cpu_seconds_total[1h])))`, close: true},
	{query: `rate(month_requests_total{code="200"}[1h]) * on (instance) group_left (version) month_info`},
	{query: `absent(month_temperature_celsius{instance="d"})`},
	{query: `absent_over_time(month_memory_bytes{instance="c"}[1h])`},
	{query: `count by (instance) ({__name__=~"month_.+",instance!="edge"})`},
	{query: `max_over_time(sum by (instance) (rate(month_requests_total[1h]))[1d:1h])`, reference: `max_over_time(sum by (instance) (rate(month_requests_total[1h]))[23h59m59s:1h])`, close: true},
	{query: `avg_over_time(month_temperature_celsius[1d:5m])`, reference: `avg_over_time(month_temperature_celsius[23h59m59s:5m])`, close: true},
	{query: `month_memory_bytes / on (instance) max_over_time(month_memory_bytes[30d] @ end())`},
	{query: `quantile(0.5, avg_over_time(month_temperature_celsius[1h]))`, close: true},
	{query: `month_native_seconds`},
	{query: `rate(month_native_seconds[1h])`, close: true},
	{query: `sum(increase(month_native_seconds[1d]))`, close: true},
	{query: `count_over_time(month_native_seconds[1h])`},
	{query: `histogram_count(month_native_seconds)`},
	{query: `histogram_sum(month_native_seconds)`},
	{query: `histogram_count(rate(month_native_seconds[1h]))`, close: true},
	{query: `histogram_sum(sum(increase(month_native_seconds[1d])))`, close: true},
	{query: `histogram_count(sum by (job) (rate(month_native_seconds[5m])))`, close: true, step: 30 * time.Minute},
	{query: `month_edge_level`, reference: `last_over_time(month_edge_level[4m59s999ms])`},
	{query: `sum_over_time(month_edge_level[1h])`, reference: `sum_over_time(month_edge_level[59m59s999ms])`},
	{query: `count_over_time(month_edge_level[5m])`, reference: `count_over_time(month_edge_level[4m59s999ms])`, step: 15 * time.Minute},
	{query: `min_over_time(month_edge_ratio[1d])`, reference: `min_over_time(month_edge_ratio[23h59m59s999ms])`},
	{query: `avg_over_time(month_edge_ratio[1h])`, reference: `avg_over_time(month_edge_ratio[59m59s999ms])`, close: true},
}

// monthModern is what 2.42 does not have, or has another result of: it interpolates
// linearly within the buckets of native histograms.
var monthModern = []monthPanel{
	{query: `histogram_quantile(0.9, rate(month_native_seconds[1h]))`, close: true},
	{query: `histogram_quantile(0.5, sum(increase(month_native_seconds[1d])))`, close: true},
	{query: `histogram_fraction(0, 0.5, rate(month_native_seconds[5m]))`, close: true, step: 15 * time.Minute},
	{query: `avg_over_time(month_native_seconds[6h])`, close: true},
	{query: `resets(month_native_seconds[1d])`},
	{query: `histogram_avg(month_native_seconds)`},
	{query: `histogram_avg(rate(month_native_seconds[1h]))`, close: true},
	{query: `histogram_avg(sum(increase(month_native_seconds[6h])))`, close: true},
}

// monthFacts are single figures over the whole month.
var monthFacts = []monthPanel{
	{query: `increase(month_requests_total[30d])`},
	{query: `max_over_time(month_temperature_celsius[30d])`},
	{query: `avg_over_time(month_temperature_celsius[30d])`, close: true},
	{query: `sum by (instance) (count_over_time(month_requests_total[30d]))`},
	{query: `changes(month_memory_bytes[30d])`},
	{query: `resets(month_cpu_seconds_total[30d])`},
	{query: `histogram_quantile(0.99, sum by (le) (rate(month_latency_seconds_bucket[30d])))`, close: true},
	{query: `max_over_time(sum(rate(month_requests_total[5m]))[30d:5m])`, reference: `max_over_time(sum(rate(month_requests_total[5m]))[719h59m59s:5m])`, close: true},
	{query: `topk(3, increase(month_requests_total[30d]))`},
}

// fittedPanel is a query that no bucket fits. Where samples are gone its windows
// are fitted to buckets: the answer says so, and is off by no more than within of
// the larger value.
type fittedPanel struct {
	query  string
	within float64
	// resets tells that it takes a restart for a fall, in one sample of a window or in
	// all that stand for them.
	resets bool
	// shift moves the start and with it all points off the bounds of buckets.
	shift time.Duration
}

// monthFitted is what Grafana makes of $__rate_interval and of a time range that
// ends now. The bounds follow from the data and from how far a window may move: by
// half of a bucket at either end, and one that is shorter than a bucket becomes the
// bucket around its end. What grows, and the temperature, goes up and down by 30 % a
// day: by 8 % of its middle in an hour, which is 11 % of its lowest. Growth is noisy by
// 10 % in a minute, the temperature by one of at least 14 degrees.
var monthFitted = []fittedPanel{
	// Buckets of an hour that end where the windows do.
	{query: `sum by (instance) (rate(month_requests_total[1h15s]))`, within: 0.01},
	{query: `rate(month_requests_total{code="200"}[1h1m])`, within: 0.01},
	{query: `histogram_quantile(0.9, sum by (le, instance) (rate(month_latency_seconds_bucket[1h15s])))`, within: 0.1},
	// A bucket of five minutes for four: one minute of noise in five.
	{query: `rate(month_cpu_seconds_total[4m])`, within: 0.08},
	{query: `avg_over_time(month_temperature_celsius[17m])`, within: 0.03},
	// Up to half an hour away.
	{query: `increase(month_requests_total{code="200"}[90m])`, within: 0.12, shift: 17*time.Minute + 13*time.Second},
	{query: `max_over_time(month_temperature_celsius[1h])`, within: 0.12, shift: 4*time.Minute + 1*time.Second},
	// The last samples of buckets: up to an hour old here, and noisy, or five minutes.
	{query: `month_temperature_celsius`, within: 0.2, shift: 17*time.Minute + 13*time.Second},
	{query: `quantile_over_time(0.9, month_temperature_celsius[1h])`, within: 0.1},
	// One minute of noise in sixty, which is as large as the growth here.
	{query: `histogram_count(rate(month_native_seconds[1h15s]))`, within: 0.018},
	// The growth of a bucket of five minutes for that of its last one.
	{query: `irate(month_requests_total{code="200"}[5m])`, within: 0.2},
	{query: `idelta(month_requests_total{code="200"}[5m])`, within: 0.2, resets: true},
	{query: `irate(month_requests_total{code="200"}[5m])`, within: 0.2, shift: 17*time.Minute + 13*time.Second},
	// The ends of a bucket for all of its samples, and its means.
	{query: `deriv(month_requests_total{code="200"}[5m])`, within: 0.1, resets: true},
	{query: `deriv(month_requests_total{code="200"}[1h])`, within: 0.01, resets: true},
	{query: `predict_linear(month_requests_total{code="200"}[1h], 600)`, within: 0.001, resets: true},
}

// closeMax is the relative error that the order of additions may make: each of a
// few thousand rounds by half of 2.2e-16 at most, and the errors mostly cancel.
const closeMax = 1e-12

// monthComparison asks both servers.
type monthComparison struct {
	t *testing.T
	// modern tells that the reference has the same engine.
	modern          bool
	month           *month
	reference, base string
	// answers are those of the reference, which don't change.
	answers map[string]answer

	asked, points, fitted, fittedOff, differing int
	// errorMax is the largest relative error of exact answers, worst whose it is.
	errorMax float64
	worst    string
}

// all asks everything. Samples of days before the cut have expired.
func (c *monthComparison) all(cut time.Time) {
	c.t.Helper()
	c.samples(cut)
	c.catalogue()
	c.board()
}

// board asks all panels, over the whole month and at instants.
func (c *monthComparison) board() {
	c.t.Helper()
	panels := monthBoard
	if c.modern {
		panels = slices.Concat(monthBoard, monthModern)
	}
	for _, p := range panels {
		if p.step == 0 {
			p.step = time.Hour
		}
		c.exact(p, "/api/v1/query_range", c.grid(p.step, 0))
		for _, at := range []time.Time{c.month.begin.Add(30 * time.Hour), c.month.begin.AddDate(0, 0, 15), c.month.end.Add(-3 * 24 * time.Hour)} {
			c.exact(p, "/api/v1/query", url.Values{"time": {stamp(at)}})
		}
	}
	for _, p := range monthFacts {
		c.exact(p, "/api/v1/query", url.Values{"time": {stamp(c.month.end)}})
	}
	for _, p := range monthFitted {
		c.inexact(p)
	}
}

// grid is the whole month.
func (c *monthComparison) grid(step, shift time.Duration) url.Values {
	return url.Values{
		"start": {stamp(c.month.begin.Add(time.Hour + shift))}, "end": {stamp(c.month.end)}, "step": {strconv.Itoa(int(step.Seconds()))},
	}
}

// with adds the query to parameters.
func with(parameters url.Values, query string, more ...string) url.Values {
	all := url.Values{"query": {query}}
	for k, v := range parameters {
		all[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		all.Set(more[i], more[i+1])
	}
	return all
}

// ask asks the reference, once, and Varve.
func (c *monthComparison) ask(path string, theirs, ours url.Values) (want, got answer) {
	c.t.Helper()
	key := path + theirs.Encode()
	want, ok := c.answers[key]
	if !ok {
		want = ask(c.t, c.reference, path, theirs, false)
		require.Equal(c.t, http.StatusOK, want.status, "%v: %s", theirs, want.Error)
		c.answers[key] = want
	}
	c.asked++
	return want, ask(c.t, c.base, path, ours, false)
}

// exact holds that Varve answers with the points and values of the reference, from
// rollups, and says so.
func (c *monthComparison) exact(p monthPanel, path string, parameters url.Values) {
	c.t.Helper()
	reference := p.reference
	if reference == "" || c.modern {
		reference = p.query
	}
	want, got := c.ask(path, with(parameters, reference), with(parameters, p.query, "resolution", "strict"))
	if path == "/api/v1/query_range" {
		require.NotEmpty(c.t, want.series, p.query)
	}
	off := p.query + " " + parameters.Encode()
	if got.status != http.StatusOK {
		c.differ("%s: %d %s", off, got.status, got.Error)
		return
	}
	if d := c.sources(got, false, strings.HasPrefix(p.query, "absent(")); d != "" {
		c.differ("%s: %s", off, d)
	}
	limit := 0.0
	if p.close {
		limit = closeMax
	}
	c.matrix(off, want, got, func(_ map[string]string, x, y point) bool {
		e := x.relative(y)
		if e > c.errorMax {
			c.errorMax, c.worst = e, p.query
		}
		return e <= limit
	}, nil)
}

// sources says what is wrong with the header and the annotation of an answer that
// is in part from rollups. Nothing tells that no series may have been there to read.
func (c *monthComparison) sources(got answer, approximate, nothing bool) string {
	list, marked := strings.CutSuffix(got.header.Get(resolutionHeader), ";approximate")
	word := "exact"
	if approximate {
		word = "approximate"
	}
	infos := strings.Join(got.Infos, "\n")
	switch {
	case marked != approximate:
		return fmt.Sprintf("the header is %q, and the answer ought to be %s", got.header.Get(resolutionHeader), word)
	case nothing && list == "raw" && infos == "":
		return ""
	case !strings.Contains(list, "5m") && !strings.Contains(list, "1h"):
		return fmt.Sprintf("the header is %q: nothing from rollups", list)
	case !strings.Contains(infos, "answered from rollups of "+list+": "+word):
		return fmt.Sprintf("no annotation of rollups of %s, %s: %q", list, word, infos)
	}
	return ""
}

// inexact holds that what no bucket fits is answered all the same, marked and
// within a bound, and refused if it has to be exact.
func (c *monthComparison) inexact(p fittedPanel) {
	c.t.Helper()
	parameters := with(c.grid(time.Hour, p.shift), p.query)
	want, got := c.ask("/api/v1/query_range", parameters, parameters)
	if got.status != http.StatusOK {
		c.differ("%s: %d %s", p.query, got.status, got.Error)
		return
	}
	if d := c.sources(got, true, false); d != "" {
		c.differ("%s: %s", p.query, d)
	}
	// What is near a silence belongs to other buckets than windows, so that one has
	// it and the other doesn't.
	known := func(labels map[string]string, at float64) bool {
		return c.month.steady(labels["instance"], time.UnixMilli(int64(at*1000)), 3*time.Hour, p.resets)
	}
	worst := 0.0
	c.matrix(p.query, want, got, func(labels map[string]string, x, y point) bool {
		c.fitted++
		e := x.relative(y)
		if e > closeMax {
			c.fittedOff++
		}
		if !known(labels, x.at) {
			return true
		}
		worst = max(worst, e)
		return e <= p.within
	}, known)
	c.t.Logf("%s: off by %.2g at most, %.2g are allowed", p.query, worst, p.within)
	strict := ask(c.t, c.base, "/api/v1/query_range", with(parameters, p.query, "resolution", "strict"), false)
	if strict.status != http.StatusUnprocessableEntity {
		c.differ("%s: strict answers %d %s", p.query, strict.status, strict.Error)
	}
}

// point is a value of an answer: a float, or the numbers of a native histogram.
type point struct {
	at     float64
	values []float64
}

// relative is the largest relative difference, infinite between a float and a
// histogram or histograms of different buckets.
func (p point) relative(q point) float64 {
	if len(p.values) != len(q.values) {
		return math.Inf(1)
	}
	largest := 0.0
	for i, x := range p.values {
		y := q.values[i]
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		e := math.Abs(x-y) / max(math.Abs(x), math.Abs(y))
		if math.IsNaN(e) {
			return math.Inf(1)
		}
		largest = max(largest, e)
	}
	return largest
}

// matrix compares point by point. Counts, if not nil, tells which points must
// be in both; by default all.
func (c *monthComparison) matrix(what string, want, got answer, alike func(labels map[string]string, want, got point) bool, counts func(labels map[string]string, at float64) bool) {
	c.t.Helper()
	theirs, ours := c.parsed(want), c.parsed(got)
	for name := range ours {
		if _, ok := theirs[name]; !ok && counts == nil {
			c.differ("%s: varve alone has %s", what, name)
		}
	}
	for name, points := range theirs {
		var labels map[string]string
		require.NoError(c.t, json.Unmarshal([]byte(name), &labels))
		missing, surplus, off := 0, 0, 0
		var first string
		at := map[float64]point{}
		for _, p := range ours[name] {
			at[p.at] = p
		}
		for _, p := range points {
			c.points++
			q, ok := at[p.at]
			delete(at, p.at)
			switch {
			case !ok && (counts == nil || counts(labels, p.at)):
				missing++
				first = cmpFirst(first, "%.3f is missing", p.at)
			case ok && !alike(labels, p, q):
				off++
				first = cmpFirst(first, "%.3f: reference %v, varve %v", p.at, p.values, q.values)
			}
		}
		for t, q := range at {
			if counts == nil || counts(labels, t) {
				surplus++
				first = cmpFirst(first, "%.3f: varve alone has %v", t, q.values)
			}
		}
		if missing+surplus+off > 0 {
			c.differ("%s\n  %s: of %d points %d are missing, %d too many, %d differ: %s", what, name, len(points), missing, surplus, off, first)
		}
	}
}

func cmpFirst(first, format string, args ...any) string {
	if first != "" {
		return first
	}
	return fmt.Sprintf(format, args...)
}

// parsed is an answer's points by the JSON of the labels.
func (c *monthComparison) parsed(a answer) map[string][]point {
	c.t.Helper()
	all := make(map[string][]point, len(a.series))
	for _, s := range a.series {
		var element struct {
			Value, Histogram   *[2]json.RawMessage
			Values, Histograms [][2]json.RawMessage
		}
		require.NoError(c.t, json.Unmarshal([]byte(s.points), &element))
		for _, one := range []*[2]json.RawMessage{element.Value, element.Histogram} {
			if one != nil {
				element.Values = append(element.Values, *one)
			}
		}
		points := make([]point, 0, len(element.Values)+len(element.Histograms))
		for _, v := range append(element.Values, element.Histograms...) {
			p := point{at: c.numbers(v[0])[0]}
			p.values = c.numbers(v[1])
			points = append(points, p)
		}
		require.NotEmpty(c.t, points, s.labels)
		all[s.labels] = points
	}
	return all
}

// numbers are those of a value in JSON: a number, one in quotes, a list, or the
// count, the sum and the buckets of a histogram.
func (c *monthComparison) numbers(value json.RawMessage) []float64 {
	c.t.Helper()
	var list []json.RawMessage
	switch value[0] {
	case '{':
		var h struct{ Count, Sum, Buckets json.RawMessage }
		require.NoError(c.t, json.Unmarshal(value, &h))
		list = []json.RawMessage{h.Count, h.Sum, h.Buckets}
	case '[':
		require.NoError(c.t, json.Unmarshal(value, &list))
	default:
		number, err := strconv.ParseFloat(strings.Trim(string(value), `"`), 64)
		require.NoError(c.t, err)
		return []float64{number}
	}
	var all []float64
	for _, element := range list {
		all = append(all, c.numbers(element)...)
	}
	return all
}

// differ reports a difference.
func (c *monthComparison) differ(format string, args ...any) {
	c.t.Helper()
	c.differing++
	switch {
	case c.differing <= differencesMax:
		c.t.Errorf(format, args...)
	case c.differing == differencesMax+1:
		c.t.Error("there are more differences")
	}
}
