package result

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"varve/export/text"
)

// queriesOfAll have every kind of series and of reference to the range.
var queriesOfAll = []string{
	`{__name__=~"steady|late|gappy|odd|hostile"}`, `rate(steady[1m])`, `sum(steady) by (n)`, `steady @ end() - steady @ start()`,
	`max_over_time(steady[5m:30s] @ start())`, `durations`, `fdurations`, `vector(time())`, `topk(1, steady)`,
}

// TestPartsChangeNothing shows that the answer in many parts is, byte by byte, that in one, in all forms whose lines don't depend on the
// parts, also for what refers to the bounds of the range.
func TestPartsChangeNothing(t *testing.T) {
	e := newEngine(t)
	for _, format := range []Format{CSV, CSVLong, Gnuplot, Matplotlib} {
		o := Options{Read: Read{Source: e, Queries: queriesOfAll, Grid: all()}, Format: format}
		whole, stats := written(t, o)
		require.Equal(t, len(queriesOfAll), stats.Requests)
		o.Read = small(o.Read)
		parts, partStats := written(t, o)
		require.Greater(t, partStats.Requests, 20*len(queriesOfAll)/2)
		require.Equal(t, stats.Values, partStats.Values)
		require.Equal(t, whole, parts, "format %d", format)
	}
}

// TestAgainstEngine reads wide and long CSV and JSON lines back and compares every value with what the engine says, bit by bit but for the
// kind of NaN, and histograms by their text. Names, separators and forms of time vary.
func TestAgainstEngine(t *testing.T) {
	e := newEngine(t)
	want := map[string]string{} // by query, labels as JSON and time
	for _, q := range queriesOfAll {
		a, err := e.Range(t.Context(), q, all(), math.MaxInt64)
		require.NoError(t, err)
		for _, s := range a.Series {
			for _, p := range s.Floats {
				want[key(q, s.Labels, p.T)] = string(appendValue(nil, p.F))
			}
			for _, h := range s.Histograms {
				want[key(q, s.Labels, h.T)] = string(h.JSON)
			}
		}
		a.release()
	}
	read := small(Read{Source: e, Queries: queriesOfAll, Grid: all()})
	for _, separator := range []rune{',', ';', '\t', '|'} {
		got := map[string]string{}
		out, stats := written(t, Options{Read: read, Format: CSVLong, Separator: separator, Times: text.UnixMillis})
		records := records(t, out, separator)
		require.Equal(t, []string{"time", "query", "metric", "value"}, records[0])
		for _, r := range records[1:] {
			at, err := strconv.ParseInt(r[0], 10, 64)
			require.NoError(t, err)
			got[key(r[1], labelsOf(t, r[2]), at)] = r[3]
		}
		require.Equal(t, want, got)
		require.Len(t, got, int(stats.Values))
	}
	for _, times := range []text.TimeFormat{text.RFC3339, text.UnixSeconds} {
		got := map[string]string{}
		out, _ := written(t, Options{Read: read, Format: CSV, Times: times})
		table := records(t, out, ',')
		columns := map[string][2]string{}
		for k := range want {
			query, rest, _ := strings.Cut(k, "\xff")
			metric, _, _ := strings.Cut(rest, "\xff")
			columns[query+" "+Name(labelsOf(t, metric))] = [2]string{query, metric}
		}
		for _, row := range table[1:] {
			for i, cell := range row[1:] {
				if cell != "" {
					c, ok := columns[table[0][i+1]]
					require.True(t, ok, table[0][i+1])
					got[key(c[0], labelsOf(t, c[1]), timeOf(t, row[0], times))] = cell
				}
			}
		}
		require.Equal(t, want, got)
	}
	got := map[string]string{}
	out, _ := written(t, Options{Read: read, Format: JSONLines})
	for line := range strings.Lines(out) {
		readLine(t, line, got)
	}
	require.Equal(t, want, got)
}

func readLine(t *testing.T, line string, into map[string]string) {
	var l struct {
		Query              string
		Metric             map[string]string
		Values, Histograms []json.RawMessage
		Timestamps         []int64
	}
	require.NoError(t, json.Unmarshal([]byte(line), &l))
	require.Len(t, append(l.Values, l.Histograms...), len(l.Timestamps))
	for i, v := range l.Values {
		text := strings.ReplaceAll(strings.Trim(string(v), `"`), "Infinity", "Inf")
		if text == "null" {
			text = "NaN"
		}
		f, err := strconv.ParseFloat(text, 64)
		require.NoError(t, err)
		into[key(l.Query, labels.FromMap(l.Metric), l.Timestamps[i])] = string(appendValue(nil, f))
	}
	for i, h := range l.Histograms {
		into[key(l.Query, labels.FromMap(l.Metric), l.Timestamps[i])] = string(h)
	}
}

func key(query string, ls labels.Labels, at int64) string {
	return query + "\xff" + string(appendMetric(nil, ls)) + "\xff" + strconv.FormatInt(at, 10)
}

func labelsOf(t testing.TB, metric string) labels.Labels {
	set := map[string]string{}
	require.NoError(t, json.Unmarshal([]byte(metric), &set))
	return labels.FromMap(set)
}

func timeOf(t testing.TB, cell string, f text.TimeFormat) int64 {
	if f == text.RFC3339 {
		at, err := time.Parse(time.RFC3339, cell)
		require.NoError(t, err)
		return at.UnixMilli()
	}
	at, err := strconv.ParseFloat(cell, 64)
	require.NoError(t, err)
	return int64(math.Round(at * 1000))
}

func records(t testing.TB, out string, separator rune) [][]string {
	r := csv.NewReader(strings.NewReader(out))
	r.Comma = separator
	all, err := r.ReadAll()
	require.NoError(t, err)
	require.Equal(t, strings.Count(out, "\n"), strings.Count(out, "\r\n"), "a feed inside of a field")
	return all
}

// TestGaps shows that lines break where values are missing: the row of gnuplot's data that ends a run has NaN, however long nothing comes, and a
// series that begins late has NaN before.
func TestGaps(t *testing.T) {
	e := newEngine(t)
	out, _ := written(t, Options{Read: Read{Source: e, Queries: []string{`gappy{n="1"}`}, Grid: all()}, Format: Gnuplot})
	rows, gaps := 0, 0
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "17") {
			rows++
			if strings.HasSuffix(line, ",NaN\n") {
				gaps++
			}
		}
	}
	// 500 samples in 9 stretches of 60, of which 5 have values, and each looks 15 s further: one more step.
	require.Equal(t, 4, gaps)
	require.Equal(t, 60*4+4+20+4, rows)
	out, stats := written(t, Options{Read: Read{Source: e, Queries: []string{`gappy`, `odd`, `durations`}, Grid: all()}, Format: Gnuplot})
	require.Contains(t, out, "linespoints", "a point alone has a mark")
	require.Equal(t, 3, stats.Series)
	require.Len(t, stats.Notes, 3)
	_, err := Write(t.Context(), &bytes.Buffer{}, Options{Read: Read{Source: e, Queries: []string{`durations`}, Grid: all()}, Format: Matplotlib})
	require.ErrorIs(t, err, ErrEmpty)
}

// TestNothing shows what is refused, with which error, and that nothing is written then.
func TestNothing(t *testing.T) {
	e := newEngine(t)
	read := func(queries ...string) Read { return Read{Source: e, Queries: queries, Grid: all()} }
	long := small(read("steady"))
	for _, c := range []struct {
		o    Options
		want error
		text string
	}{
		{Options{Read: read("nonesuch")}, ErrEmpty, "nonesuch"},
		{Options{Read: read("nonesuch"), Format: CSVLong}, ErrEmpty, "nonesuch"},
		{Options{Read: read()}, ErrOption, "no query"},
		{Options{Read: read("up", "up")}, ErrOption, "twice"},
		{Options{Read: Read{Source: e, Queries: []string{"up"}, Grid: Grid{First: 2, Last: 1, Step: 1}}}, ErrOption, "ends before"},
		{Options{Read: Read{Source: e, Queries: []string{"up"}, Grid: Grid{First: 1, Last: 1}}}, ErrOption, "step"},
		{Options{Read: Read{Source: e, Queries: []string{"up"}, Grid: Grid{First: math.MinInt64, Last: math.MaxInt64, Step: 1}}}, ErrOption, "years"},
		{Options{Read: read("steady"), Separator: '"'}, ErrOption, "separator"},
		{Options{Read: read("steady"), Separator: 'e'}, ErrOption, "separator"},
		{Options{Read: read("steady"), ColumnsMax: 1}, ErrTooLarge, "long form"},
		{Options{Read: read("steady"), SpoolBytesMax: 1000}, ErrTooLarge, "longer step"},
		{Options{Read: read("steady"), Width: 5}, ErrOption, "pixels"},
		{Options{Read: small(read("sum_over_time(steady[range()])"))}, ErrOption, "range()"},
		{Options{Read: small(read("steady offset -range()"))}, ErrOption, "range()"},
		{Options{Read: Read{Source: e, Queries: []string{"steady{"}, Grid: all()}}, nil, "parse error"},
		{Options{Read: Read{Source: e, Queries: []string{`range_avg(steady)`}, Grid: all(), PointsMax: 10}}, ErrOption, "taken apart"},
		{Options{Read: Read{Source: e, Queries: []string{`"text"`}, Grid: all()}}, nil, "invalid expression type"},
		{Options{Read: long, Format: 99}, ErrOption, "format"},
	} {
		var out bytes.Buffer
		_, err := Write(t.Context(), &out, c.o)
		require.ErrorContains(t, err, c.text)
		if c.want != nil {
			require.ErrorIs(t, err, c.want)
		}
		require.Zero(t, out.Len())
	}
}

// counting is a source that makes up series and remembers what was asked for.
type counting struct {
	series int
	asked  []Grid
	// pointsMax refuses more values than that.
	pointsMax int64
	err       error
	released  int
}

func (c *counting) Range(_ context.Context, _ string, g Grid, _ int64) (Answer, error) {
	c.asked = append(c.asked, g)
	if c.err != nil {
		return Answer{}, c.err
	}
	if g.Points()*int64(c.series) > c.pointsMax {
		return Answer{}, fmt.Errorf("%w: %d points", ErrTooLarge, g.Points())
	}
	var a Answer
	for i := range c.series {
		s := Series{Labels: labels.FromStrings("n", strconv.Itoa(i))}
		for t := g.First; t <= g.Last; t += g.Step {
			s.Floats = append(s.Floats, promql.FPoint{T: t, F: float64(i)})
		}
		a.Series = append(a.Series, s)
	}
	a.Release = func() { c.released++ }
	return a, nil
}

// TestPartSizes shows that parts cover the grid without gap or overlap, none longer than allowed, that what is refused is asked for in
// halves, that they grow back to what memory allows, that one point which is too much is the end, and that all answers are released.
func TestPartSizes(t *testing.T) {
	for _, c := range []struct {
		points, pointsMax, refused int64
		series                     int
	}{{30_000, 11_000, math.MaxInt64, 3}, {11_000, 11_000, math.MaxInt64, 3}, {11_001, 11_000, math.MaxInt64, 1}, {5_000, 11_000, 700, 7}, {100_000, 5_000, 10_000, 5}} {
		s := &counting{series: c.series, pointsMax: c.refused}
		g := Grid{First: start, Last: start + (c.points-1)*1000, Step: 1000}
		next := g.First
		parts := 0
		report, err := (&Read{Source: s, Queries: []string{"x"}, Grid: g, PointsMax: c.pointsMax}).Parts(t.Context(), func(p *Part) error {
			require.Equal(t, next, p.Grid.First)
			require.LessOrEqual(t, p.Grid.Points(), c.pointsMax)
			next = p.Grid.Last + g.Step
			parts++
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, g.Last+g.Step, next)
		require.Equal(t, uint64(c.points)*uint64(c.series), report.Values)
		require.Equal(t, parts, s.released)
		if c.points <= c.pointsMax && c.refused == math.MaxInt64 {
			require.Equal(t, 1, parts)
		}
		// What was refused may have taken the source all of its time, so it isn't tried again at each part.
		require.LessOrEqual(t, len(s.asked), parts+parts/4+6)
	}
	s := &counting{series: 10, pointsMax: 9}
	_, err := (&Read{Source: s, Queries: []string{"x"}, Grid: all()}).Parts(t.Context(), func(*Part) error { return nil })
	require.ErrorIs(t, err, ErrTooLarge)
	s = &counting{series: 10, pointsMax: math.MaxInt64}
	broken := errors.New("full")
	_, err = (&Read{Source: s, Queries: []string{"x"}, Grid: all()}).Parts(t.Context(), func(*Part) error { return broken })
	require.ErrorIs(t, err, broken)
	require.Len(t, s.asked, 1)
	require.Equal(t, 1, s.released)
}

// TestSpill shows that a table which doesn't fit into memory goes through a file, comes back as it was, and leaves no file behind.
func TestSpill(t *testing.T) {
	s := &counting{series: 40, pointsMax: math.MaxInt64}
	g := Grid{First: start, Last: start + 29_999*1000, Step: 1000}
	dir := t.TempDir()
	var out bytes.Buffer
	stats, err := Write(t.Context(), &out, Options{Read: Read{Source: s, Queries: []string{"x"}, Grid: g}, Scratch: dir, Begin: func(Report) {
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left, "the file has no name")
	}})
	require.NoError(t, err)
	require.Equal(t, uint64(40*30_000), stats.Values)
	require.Equal(t, 30_001, strings.Count(out.String(), "\n"))
	require.Greater(t, stats.Values*9, uint64(memoryBytes))
	for line := range strings.Lines(strings.SplitAfterN(out.String(), "\n", 2)[1]) {
		require.True(t, strings.HasSuffix(line, ",38,39\r\n") || strings.Contains(line, ",9\r\n"), line)
	}
}
