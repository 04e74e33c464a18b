package text_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/text"
)

// TestLines shows what becomes of each kind of line, and of which the sender is told.
func TestLines(t *testing.T) {
	for _, c := range []struct {
		name, line, want string // want "": refused
		parameters       []string
	}{
		{name: "bare", line: `up 1`, want: `{__name__="up"} 1 @1700000000000`},
		{name: "labels", line: `up{job="a",instance="b:1"} 0.5 1600000000123`, want: `{__name__="up", instance="b:1", job="a"} 0.5 @1600000000123`},
		{name: "blanks", line: " \tup \t{ job = \"a\" , } \t 2 \t 1600000000123 \t", want: `{__name__="up", job="a"} 2 @1600000000123`},
		{name: "carriage return", line: "up 1\r", want: `{__name__="up"} 1 @1700000000000`},
		{name: "escapes", line: `up{a="x\"y\\z\nq}",b="}"} 1`, want: `{__name__="up", a="x\"y\\z\nq}", b="}"} 1 @1700000000000`},
		{name: "UTF-8 name", line: `{"my.metric",a="ö"} 1`, want: `{__name__="my.metric", a="ö"} 1 @1700000000000`},
		{name: "quoted label name", line: `up{"a b"="c"} 1`, want: `{__name__="up", "a b"="c"} 1 @1700000000000`},
		{name: "empty value of a label", line: `up{a="",b="c"} 1`, want: `{__name__="up", b="c"} 1 @1700000000000`},
		{name: "no labels", line: `up{} 1`, want: `{__name__="up"} 1 @1700000000000`},
		{name: "infinite", line: `up -Inf`, want: `{__name__="up"} -Inf @1700000000000`},
		{name: "plus infinite", line: `up +Inf`, want: `{__name__="up"} +Inf @1700000000000`},
		{name: "NaN", line: `up NaN`, want: `{__name__="up"} NaN @1700000000000`},
		{name: "exponent", line: `up 1.5e-3`, want: `{__name__="up"} 0.0015 @1700000000000`},
		{name: "before 1970", line: `up 1 -86400000000`, want: `{__name__="up"} 1 @-86400000000`},
		{name: "comment", line: "# something\nup 1", want: `{__name__="up"} 1 @1700000000000`},
		{name: "empty lines", line: "\n\n\r\nup 1\n\n", want: `{__name__="up"} 1 @1700000000000`},
		{name: "default time", line: "up 1", want: `{__name__="up"} 1 @5`, parameters: []string{"timestamp", "5"}},
		{name: "guessed seconds", line: `up 1 1600000000`, want: `{__name__="up"} 1 @1600000000000`},
		{name: "guessed fraction", line: `up 1 1600000000.5`, want: `{__name__="up"} 1 @1600000000500`},
		{name: "guessed milliseconds", line: `up 1 1600000000000`, want: `{__name__="up"} 1 @1600000000000`},
		{name: "OpenMetrics by type", line: `up 1 1e3`, want: `{__name__="up"} 1 @1000000`, parameters: []string{"Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8"}},
		{name: "OpenMetrics by parameter", line: `up 1 5`, want: `{__name__="up"} 1 @5000`, parameters: []string{"format", "openmetrics"}},
		{name: "milliseconds by type", line: `up 1 5`, want: `{__name__="up"} 1 @5`, parameters: []string{"Content-Type", "text/plain; version=0.0.4"}},
		{name: "milliseconds by parameter", line: `up 1 5`, want: `{__name__="up"} 1 @5`, parameters: []string{"format", "prometheus", "Content-Type", "application/openmetrics-text"}},
		{name: "no binary fraction", line: `up 1 1520879607.789`, want: `{__name__="up"} 1 @1520879607789`, parameters: []string{"format", "openmetrics"}},
		{name: "finer than a millisecond", line: `up 1 1.0019999`, want: `{__name__="up"} 1 @1001`, parameters: []string{"format", "openmetrics"}},
		{name: "finer, before 1970", line: `up 1 -1.0011`, want: `{__name__="up"} 1 @-1002`, parameters: []string{"format", "openmetrics"}},
		{name: "extra labels", line: `up{a="1",b="2"} 1`, want: `{__name__="up", a="x", b="2", c="y=z"} 1 @1700000000000`, parameters: []string{"extra_label", "a=w", "extra_label", "c=y=z", "extra_label", "a=x"}},
		{name: "exemplar", line: `up_total 17 1520879607.789 # {trace_id="KOO"} 0.67 1520879606.5`, parameters: []string{"format", "openmetrics"},
			want: join(`{__name__="up_total"} # {trace_id="KOO"} 0.67 @1520879606500`, `{__name__="up_total"} 17 @1520879607789`)},
		{name: "exemplar without times", line: `up_total 17 # {} 1`, want: join(`{__name__="up_total"} # {} 1 @1700000000000`, `{__name__="up_total"} 17 @1700000000000`)},

		{name: "no value", line: `up`},
		{name: "no value after labels", line: `up{a="b"}`},
		{name: "None", line: `up None`},
		{name: "True", line: `up True`},
		{name: "hexadecimal", line: `up 0x1p3`},
		{name: "underscores", line: `up 1_000`},
		{name: "two points", line: `up 1.2.3`},
		{name: "point", line: `up .`},
		{name: "minus", line: `up -`},
		{name: "bad time", line: `up 1 soon`},
		{name: "fraction of a millisecond", line: `up 1 5.5`, parameters: []string{"format", "prometheus"}},
		{name: "something behind", line: `up 1 5 6`},
		{name: "open brace", line: `up{a="b" 1`},
		{name: "open quote", line: `up{a="b} 1`},
		{name: "no name", line: `{a="b"} 1`},
		{name: "no equals", line: `up{a"b"} 1`},
		{name: "no quotes", line: `up{a=b} 1`},
		{name: "bad name", line: `1up 1`},
		{name: "label twice", line: `up{a="1",a="2"} 1`},
		{name: "not UTF-8", line: "up{a=\"\xff\"} 1"},
		{name: "not printable", line: "\x1b[31mup 1"},
		{name: "long label", line: `up{a="` + strings.Repeat("x", 17<<10) + `"} 1`},
		{name: "long line", line: `up{a="` + strings.Repeat("x", 1<<20) + `"} 1`},
	} {
		for _, known := range []bool{false, true} {
			// Between lines that are good, whole and byte by byte.
			i := newImporter(text.Options{})
			body := join(`good{a="b"} 1 1`, c.line, `good{a="b"} 2 2`, "")
			if known {
				i.prometheus(t, body, c.parameters...)
				i.sink.Clear()
			}
			var a answer
			if len(body) < 1<<16 {
				a = i.send(t, i.in.Prometheus(), request("/", dribble(body), c.parameters...))
			} else {
				a = i.prometheus(t, body, c.parameters...)
			}
			got := i.written()
			good := 0
			for line := range strings.SplitSeq(got, "\n") {
				if strings.Contains(line, "good") {
					good++
					got = strings.Replace(got, line+"\n", "", 1)
					got = strings.TrimSuffix(got, line)
				}
			}
			require.Equal(t, 2, good, c.name)
			require.Equal(t, c.want, strings.TrimSpace(got), c.name)
			if c.want != "" {
				require.Equal(t, http.StatusNoContent, a.code, "%s: %s", c.name, a.body)
				continue
			}
			require.Equal(t, http.StatusBadRequest, a.code, c.name)
			require.Equal(t, 1, a.Refused, c.name)
			require.Len(t, a.Examples, 1)
			require.Contains(t, a.Examples[0], "line 2: ", c.name)
			require.Equal(t, 3, a.Lines)
			for _, r := range a.Examples[0] {
				require.True(t, r >= 0x20 && r < 0x7f, "%s: %q", c.name, a.Examples[0])
			}
		}
	}
}

// TestAnswers shows what is answered to requests that are not right as a whole.
func TestAnswers(t *testing.T) {
	i := newImporter(text.Options{})
	a := i.prometheus(t, "up 1\nup 2\n", "verbose", "1")
	require.Equal(t, http.StatusOK, a.code)
	require.Equal(t, [3]int{2, 2, 0}, [3]int{a.Lines, a.Samples, a.Refused})
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	require.Equal(t, http.StatusNoContent, i.prometheus(t, "").code)
	require.Equal(t, http.StatusNoContent, i.prometheus(t, "\n# only a comment\n# EOF\n").code)
	for _, bad := range [][]string{{"timestamp", "now"}, {"extra_label", "a"}, {"extra_label", "=b"}, {"format", "xml"}} {
		a := i.prometheus(t, "up 1", bad...)
		require.Equal(t, http.StatusBadRequest, a.code, bad)
		require.Contains(t, a.Error, "malformed")
	}
	r := request("/", strings.NewReader("up 1"))
	r.Method = http.MethodGet
	require.Equal(t, http.StatusMethodNotAllowed, i.send(t, i.in.Prometheus(), r).code)
	require.Equal(t, http.StatusUnsupportedMediaType, i.prometheus(t, "up 1", "Content-Encoding", "zstd").code)
	require.Equal(t, http.StatusBadRequest, i.prometheus(t, "up 1", "Content-Encoding", "gzip").code)
	i.sink.Clear()
	require.Equal(t, http.StatusNoContent, i.prometheus(t, string(zipped(t, "up 1\n")), "Content-Encoding", "gzip").code)
	require.Equal(t, `{__name__="up"} 1 @1700000000000`, i.written())
	cut := zipped(t, strings.Repeat("up 1\n", 1000))
	require.Equal(t, http.StatusBadRequest, i.prometheus(t, string(cut[:len(cut)-4]), "Content-Encoding", "gzip").code)
	broken := io.MultiReader(strings.NewReader("up 1\n"), failing{})
	require.Equal(t, http.StatusServiceUnavailable, i.send(t, i.in.Prometheus(), request("/", broken)).code)

	i.sink.Err = &arrival.Unavailable{Reason: "disk_full", RetryAfter: 3 * time.Second, Err: errors.New("full")}
	a = i.prometheus(t, "up 1")
	require.Equal(t, http.StatusServiceUnavailable, a.code)
	require.Equal(t, "3", a.header.Get("Retry-After"))
	i.sink.Err = &ingest.RateLimited{RetryAfter: 1500 * time.Millisecond}
	a = i.prometheus(t, "up 1")
	require.Equal(t, http.StatusTooManyRequests, a.code)
	require.Equal(t, "2", a.header.Get("Retry-After"))
	i.sink.Err = nil
	i.sink.FutureMillis = nowMillis
	a = i.prometheus(t, fmt.Sprintf("up 1 %d\nup 2 %d\n", nowMillis, nowMillis+1))
	require.Equal(t, http.StatusBadRequest, a.code)
	require.Equal(t, "too_far_in_future: 1", a.Reasons)
	require.Equal(t, 1, a.Samples)
	i.sink.SeriesMax = 1
	a = i.prometheus(t, "up 1\nnew 1\n")
	require.Equal(t, "series_limit: 1", a.Reasons)
	require.Contains(t, a.Examples[0], `line 2: series_limit: "{__name__=\"new\"}"`)
}

// TestRefusedOnce shows that what is refused of a body that comes again and again while the archive is away is counted once, when
// the rest is stored.
func TestRefusedOnce(t *testing.T) {
	sink, reg := ingesttest.NewSink(), prometheus.NewRegistry()
	h := text.New(sink, ingest.Limits{}, ingest.NewMetrics(reg), discard, fixedNow, text.Options{}).Prometheus()
	post := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("/", strings.NewReader("up 1\nup{ 2\nup 3\n")))
		return w.Code
	}
	sink.Err = &arrival.Unavailable{Reason: "disk_full", Err: errors.New("full")}
	for range 3 {
		require.Equal(t, http.StatusServiceUnavailable, post())
	}
	require.Zero(t, ingesttest.Counted(t, reg, "varve_ingest_rejected_total"))
	sink.Err = nil
	require.Equal(t, http.StatusBadRequest, post())
	require.EqualValues(t, 1, ingesttest.Counted(t, reg, "varve_ingest_rejected_total"))
	require.EqualValues(t, 2, ingesttest.Counted(t, reg, "varve_ingest_written_total"))
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("reset by peer") }

// TestOverload shows that a request that finds no memory is told to come back, and that all is given back.
func TestOverload(t *testing.T) {
	i := newImporter(text.Options{})
	require.True(t, i.budget.TryAcquire(256<<20-10))
	w := request("/", strings.NewReader("up 1\n"))
	a := answer{}
	func() {
		defer i.budget.Release(256<<20 - 10)
		rec := newRecorder()
		i.in.Prometheus().ServeHTTP(rec, w)
		a.code, a.header = rec.Code, rec.Header()
	}()
	require.Equal(t, http.StatusServiceUnavailable, a.code)
	require.Equal(t, "1", a.header.Get("Retry-After"))
	require.Zero(t, i.budget.Used())
}

// TestFamilies shows what becomes metadata.
func TestFamilies(t *testing.T) {
	i := newImporter(text.Options{})
	a := i.prometheus(t, join(
		"# HELP up Whether it is up.\\nOr \\\\ not.",
		"# TYPE up gauge",
		"up 1",
		"# TYPE latency_seconds histogram",
		"# UNIT latency_seconds seconds",
		`latency_seconds_count 1`,
		`# TYPE "my.metric" counter`,
		"# HELP alone Only help.",
		"# TYPE old untyped",
		"# TYPE bad thing",
		"# TYPE",
		"# HELP",
		"# EOF",
	))
	require.Equal(t, http.StatusBadRequest, a.code)
	require.Equal(t, 3, a.Refused)
	require.Equal(t, map[string]metadata.Metadata{
		"up":              {Type: model.MetricTypeGauge, Help: "Whether it is up.\nOr \\ not."},
		"latency_seconds": {Type: model.MetricTypeHistogram, Unit: "seconds"},
		"my.metric":       {Type: model.MetricTypeCounter},
		"alone":           {Type: model.MetricTypeUnknown, Help: "Only help."},
	}, i.sink.Families())
}

// TestCreated shows that _created lines become start timestamps of the samples before them, and where they don't.
func TestCreated(t *testing.T) {
	i := newImporter(text.Options{})
	body := join(
		"# TYPE foo counter",
		`foo_total{a="1"} 17 100`,
		`foo_created{a="1"} 50.5 100`,
		`foo_total{a="1"} 18 200`,
		`foo_created{a="1"} 150 200`,
		`foo_total{a="2"} 5 200`,
		`foo_created{a="2"} 60`,
		`foo_total 9 300`,
		`foo_created 70`,
		"# TYPE h histogram",
		`h_bucket{x="y",le="1.0"} 1 300`,
		`h_bucket{x="y",le="+Inf"} 2 300`,
		`h_count{x="y"} 2 300`,
		`h_sum{x="y"} 3 300`,
		`h_created{x="y"} 80 300`,
		"# TYPE s summary",
		`s{quantile="0.5"} 1 300`,
		`s_sum 3 300`,
		`s_created 90 300`,
		"# TYPE g gauge",
		`g_created 100 300`,
		"# TYPE lone counter",
		`lone_created{a="1"} 110 300`,
		"# EOF",
	)
	want := join(
		`{__name__="foo_total", a="1"} 17 @100000 since 50500`,
		`{__name__="foo_total", a="1"} 18 @200000 since 150000`,
		`{__name__="foo_total", a="2"} 5 @200000 since 60000`,
		`{__name__="foo_total"} 9 @300000 since 70000`,
		`{__name__="g_created"} 100 @300000`,
		`{__name__="h_bucket", le="+Inf", x="y"} 2 @300000 since 80000`,
		`{__name__="h_bucket", le="1.0", x="y"} 1 @300000 since 80000`,
		`{__name__="h_count", x="y"} 2 @300000 since 80000`,
		`{__name__="h_sum", x="y"} 3 @300000 since 80000`,
		`{__name__="lone_created", a="1"} 110 @300000`,
		`{__name__="s", quantile="0.5"} 1 @300000 since 90000`,
		`{__name__="s_sum"} 3 @300000 since 90000`,
	)
	require.Equal(t, http.StatusNoContent, i.prometheus(t, body, "format", "openmetrics").code)
	require.Equal(t, want, i.written())
}

// TestCreatedAcrossWindows shows that start timestamps find their samples wherever the window ends, and that every line is
// counted once.
func TestCreatedAcrossWindows(t *testing.T) {
	var body strings.Builder
	body.WriteString("# TYPE foo counter\n# HELP foo Help.\n")
	const series = 8000
	for n := range series {
		fmt.Fprintf(&body, "foo_total{n=\"%d\",filler=%q} %d 100\nfoo_created{n=\"%d\",filler=%q} %d 100\n", n, strings.Repeat("x", n%97), n, n, strings.Repeat("x", n%97), n+1)
	}
	i := newImporter(text.Options{WindowBytesMax: 128 << 10, LineBytesMax: 1000})
	a := i.prometheus(t, body.String(), "format", "openmetrics", "verbose", "1")
	require.Equal(t, http.StatusOK, a.code, a.body)
	require.Equal(t, 2*series+2, a.Lines)
	require.Equal(t, series, a.Samples)
	require.Greater(t, i.sink.Writes(), 3)
	written := i.sink.Written()
	require.Len(t, written, series)
	for name, s := range written {
		require.Len(t, s.Samples, 1, name)
		require.NotZero(t, s.Samples[0].StartMillis, name)
	}
	require.Equal(t, "Help.", i.sink.Families()["foo"].Help)
}

// TestOneSeriesForLong shows that many samples of one counter are read in bounded memory and time, though they might
// all wait for a start timestamp.
func TestOneSeriesForLong(t *testing.T) {
	var body strings.Builder
	body.WriteString("# TYPE foo counter\n")
	const samples = 150_000
	for n := range samples {
		fmt.Fprintf(&body, "foo_total %d %d\n", n, n)
	}
	i := newImporter(text.Options{WindowBytesMax: 256 << 10})
	a := i.prometheus(t, body.String(), "format", "openmetrics", "verbose", "1")
	require.Equal(t, samples, a.Samples)
	require.Equal(t, samples+1, a.Lines)
	require.Len(t, i.sink.Written()[`{__name__="foo_total"}`].Samples, samples)
}

// TestAnyWindow shows that the same is stored whatever the window's size and however the bytes come.
func TestAnyWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var body strings.Builder
	for n := range 5000 {
		switch r.IntN(40) {
		case 0:
			body.WriteString("broken{ 1\n")
		case 1:
			fmt.Fprintf(&body, "# TYPE m%d counter\n", r.IntN(5))
		case 2:
			body.WriteString(strings.Repeat("y", r.IntN(200_000)) + "\n")
		default:
			fmt.Fprintf(&body, "m%d_total{a=\"%s\"} %d %d\n", r.IntN(5), strings.Repeat("z", r.IntN(60)), n, n)
			if r.IntN(3) == 0 {
				fmt.Fprintf(&body, "m%d_created{a=\"%s\"} %d\n", r.IntN(5), strings.Repeat("z", r.IntN(60)), n)
			}
		}
	}
	whole := newImporter(text.Options{WindowBytesMax: 64 << 20, LineBytesMax: 60_000})
	want := whole.prometheus(t, body.String(), "format", "openmetrics")
	require.Equal(t, 1, whole.sink.Writes())
	for _, window := range []int{128 << 10, 150_000, 300_001, 1 << 20} {
		i := newImporter(text.Options{WindowBytesMax: window, LineBytesMax: 60_000})
		got := i.send(t, i.in.Prometheus(), request("/", &chunky{strings.NewReader(body.String()), r}, "format", "openmetrics"))
		require.Equal(t, want.Refused, got.Refused)
		require.Equal(t, want.Lines, got.Lines)
		require.Equal(t, want.Samples, got.Samples)
		require.Equal(t, want.Examples, got.Examples)
		require.Equal(t, whole.written(), i.written())
		require.Equal(t, whole.sink.Families(), i.sink.Families())
	}
}

// chunky is a reader that returns as much as it likes.
type chunky struct {
	io.Reader
	r *rand.Rand
}

func (c *chunky) Read(p []byte) (int, error) {
	return c.Reader.Read(p[:min(len(p), 1+c.r.IntN(50_000))])
}

// TestLikeUpstream shows that a body which upstream's parsers take is taken to the same series, values, times and
// exemplars.
func TestLikeUpstream(t *testing.T) {
	body := join(
		"# HELP go_gc_duration_seconds A summary.",
		"# TYPE go_gc_duration_seconds summary",
		`go_gc_duration_seconds{quantile="0.0"} 4.9351e-05`,
		`go_gc_duration_seconds{quantile="0.25",} 7.424100000000001e-05`,
		`go_gc_duration_seconds_count 99`,
		`some:aggregate:rate5m{a_b="c"} 1`,
		"# TYPE hh histogram",
		`hh_bucket{le="+Inf"} 1 # {trace="x"} 4 1520879607.789`,
		"# TYPE nan gauge",
		`nan{a="",b="\\\"\n",c="ö"} NaN 1520879607.789`,
		`big 9007199254740993 1`, `small 4.9e-324 1`, `tiny 0.30000000000000004 1`, `long 123456789012345678901234567890 1`, `zero -0 1`, `dot .5 1`, `end 5. 1`,
		"# EOF", "",
	)
	want := map[string]string{}
	p := textparse.NewOpenMetricsParser([]byte(body), labels.NewSymbolTable())
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if entry != textparse.EntrySeries {
			continue
		}
		_, ts, v := p.Series()
		at := int64(nowMillis)
		if ts != nil {
			at = *ts
		}
		var ls labels.Labels
		p.Labels(&ls)
		line := fmt.Sprintf("%v @%d", v, at)
		var e exemplar.Exemplar
		if p.Exemplar(&e) {
			line += fmt.Sprintf(" # %s %v @%d", e.Labels, e.Value, e.Ts)
		}
		want[labels.NewBuilder(ls).Labels().WithoutEmpty().String()] = line
	}
	i := newImporter(text.Options{})
	require.Equal(t, http.StatusNoContent, i.prometheus(t, body, "format", "openmetrics").code)
	got := map[string]string{}
	for name, s := range i.sink.Written() {
		line := fmt.Sprintf("%v @%d", floatOf(s.Samples[0].Bits), s.Samples[0].TimeMillis)
		for _, e := range s.Exemplars {
			line += fmt.Sprintf(" # %s %v @%d", e.Labels, e.Value, e.Ts)
		}
		got[name] = line
	}
	require.Equal(t, want, got)
}

// TestExtraLabelsAreOtherKeys shows that the same bytes under other extra labels are other series.
func TestExtraLabelsAreOtherKeys(t *testing.T) {
	i := newImporter(text.Options{})
	for range 2 {
		for _, extra := range [][]string{nil, {"extra_label", "a=b"}, {"extra_label", "a=c"}, {"extra_label", "b=c"}} {
			require.Equal(t, http.StatusNoContent, i.prometheus(t, "up 1", extra...).code)
		}
	}
	require.Len(t, i.sink.Written(), 4)
}

// TestOneBadOfAThousand shows that what is wrong is refused alone, at any place.
func TestOneBadOfAThousand(t *testing.T) {
	for at := 0; at < 1000; at += 37 {
		for _, bad := range []string{"bad", "bad{", `bad{a="`, "bad None", "bad 1 x", "\x00\xff", `bad{a="b"} 1 # {`} {
			var body strings.Builder
			for n := range 1000 {
				if n == at {
					body.WriteString(bad + "\n")
					continue
				}
				fmt.Fprintf(&body, "good{n=\"%d\"} 1\n", n)
			}
			i := newImporter(text.Options{})
			a := i.prometheus(t, body.String())
			require.Equal(t, http.StatusBadRequest, a.code)
			require.Equal(t, 1, a.Refused, bad)
			require.Contains(t, a.Examples[0], fmt.Sprintf("line %d: ", at+1))
			require.GreaterOrEqual(t, len(i.sink.Written()), 999)
		}
	}
}

// FuzzPrometheus shows that no body makes the reader panic, keep memory of its budget or lose a good line behind it, and
// that a line upstream takes is stored as upstream reads it.
func FuzzPrometheus(f *testing.F) {
	for _, s := range []string{
		`up 1`, `up{a="b"} 1 5`, "# TYPE a counter\na_total 1\na_created 5\n", `a{b="c"} 1 # {d="e"} 2 3`, `{"a b",c="d"} NaN`, "# HELP a b\\n\\\"", "a\\", `a{b="\`,
		`a{b="c",b="d"} 1`, "a 1e400", "a 0x1", "# UNIT a", "# TYPE \"a", "a 1 -0.0005", "a 1 1e18", "a 99999999999999999999 99999999999999999999",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	o := text.Options{WindowBytesMax: 128 << 10, LineBytesMax: 4096}
	i := newImporter(o)
	f.Fuzz(func(t *testing.T, body string, openMetrics bool) {
		i.sink.Clear()
		format := "prometheus"
		if openMetrics {
			format = "openmetrics"
		}
		a := i.prometheus(t, body+"\nlast_good_line 1 5\n", "format", format)
		require.Contains(t, []int{204, 400}, a.code)
		require.Contains(t, i.sink.Written(), `{__name__="last_good_line"}`)
		if a.code == 400 {
			require.Positive(t, a.Refused)
		}
		for _, example := range a.Examples {
			for _, r := range example {
				require.True(t, r >= 0x20 && r < 0x7f, "%q", example)
			}
		}
		if strings.ContainsAny(body, "\n\r#") || openMetrics || len(body) > 4000 {
			return
		}
		p := textparse.NewPromParser([]byte(body+"\n"), labels.NewSymbolTable(), false)
		entry, err := p.Next()
		if err != nil || entry != textparse.EntrySeries {
			return
		}
		var ls labels.Labels
		p.Labels(&ls)
		_, ts, v := p.Series()
		if _, dup := ls.HasDuplicateLabelNames(); dup || !ls.Has("__name__") || ls.Get("__name__") == "last_good_line" || ls.Get("__name__") == "" {
			return
		}
		s, ok := i.sink.Written()[ls.WithoutEmpty().String()]
		if !ok {
			require.Equal(t, 400, a.code, body)
			require.Contains(t, a.Reasons, "invalid_l")
			return
		}
		require.Len(t, s.Samples, 1)
		if v == v {
			require.Equal(t, v, floatOf(s.Samples[0].Bits))
		}
		if ts != nil {
			require.Equal(t, *ts, s.Samples[0].TimeMillis)
		}
	})
}

// TestCanceled shows that a write that ends with the request's context is no fault of the sender.
func TestCanceled(t *testing.T) {
	i := newImporter(text.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	a := i.send(t, i.in.Prometheus(), request("/", strings.NewReader("up 1")).WithContext(ctx))
	require.Equal(t, http.StatusServiceUnavailable, a.code)
}

// exposition is a body of n samples of as many series, as node_exporter writes them.
func exposition(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		b.WriteString(`node_cpu_seconds_total{cpu="`)
		b.WriteString(strconv.Itoa(i % 64))
		b.WriteString(`",instance="host`)
		b.WriteString(strconv.Itoa(i / 64))
		b.WriteString(`:9100",job="node",mode="idle"} `)
		b.WriteString(strconv.FormatFloat(float64(i)*1.25, 'f', -1, 64))
		b.WriteString(" 1600000000000\n")
	}
	return b.Bytes()
}

// TestLargeFamily shows that lines which belong together are not read over and over where there are more of them
// than are written at a time.
func TestLargeFamily(t *testing.T) {
	var b strings.Builder
	b.WriteString("# TYPE a counter\n")
	for b.Len() < 2<<20 {
		b.WriteString("z 1 1\n")
	}
	samples := 0
	for n := 0; b.Len() < 4<<20-2000; n++ {
		for k := range 66 {
			fmt.Fprintf(&b, "a{le=\"%d\"} 1 %d\n", n, k+1)
			samples++
		}
	}
	i := newImporter(text.Options{})
	require.Equal(t, http.StatusNoContent, i.prometheus(t, b.String(), "format", "openmetrics").code)
	require.Less(t, i.sink.Writes(), 20)
	got := 0
	for name, s := range i.sink.Written() {
		if strings.Contains(name, "le=") {
			got += len(s.Samples)
		}
	}
	require.Equal(t, samples, got)
}
