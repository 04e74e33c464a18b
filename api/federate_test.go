package api_test

import (
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"varve/api"
)

const protobufAccept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

func federateTarget(selectors ...string) string {
	return "/federate?" + url.Values{"match[]": selectors}.Encode()
}

func TestFederationText(t *testing.T) {
	// A table of what must appear, what must be left out, and in which order.
	t.Parallel()
	minute := time.Minute
	fresh := func(v float64) []sample { return []sample{{age: 2 * minute, value: v - 1}, {age: minute, value: v}} }
	f := newFixture(t, nil)
	f.append(labels.FromStrings("__name__", "b_metric", "instance", "i", "a", "2"), fresh(2)...)
	f.append(labels.FromStrings("__name__", "b_metric", "instance", "i", "a", "1"), fresh(1)...)
	f.append(labels.FromStrings("__name__", "a_metric", "A_first", "x"), fresh(3)...)
	f.append(labels.FromStrings("__name__", "c_old"), sample{age: 6 * minute, value: 4})
	f.append(labels.FromStrings("__name__", "c_ended"), sample{age: 2 * minute, value: 5}, sample{age: minute, value: math.Float64frombits(value.StaleNaN)})
	f.append(labels.FromStrings("__name__", "c_back"), sample{age: 3 * minute, value: 5}, sample{age: 2 * minute, value: math.Float64frombits(value.StaleNaN)}, sample{age: 0, value: 6})
	f.append(labels.FromStrings("__name__", "d_future"), sample{age: minute, value: 7}, sample{age: -minute, value: 8})
	f.append(labels.FromStrings("__name__", "e_escaped", "text", "a\"b\\c\nd"), fresh(9)...)
	f.append(labels.FromStrings("__name__", "f_site", "site", "own"), fresh(10)...)
	f.append(labels.FromStrings("__name__", "g_special", "k", "inf"), fresh(math.Inf(1))...)
	f.append(labels.FromStrings("__name__", "g_special", "k", "nan"), sample{age: minute, value: math.NaN()})
	f.append(labels.FromStrings("nameless", "x"), fresh(11)...)

	for _, c := range []struct {
		name      string
		selectors []string
		external  labels.Labels
		want      string
	}{
		{"nothing selected", nil, labels.EmptyLabels(), ""},
		{"nothing found", []string{"no_such"}, labels.EmptyLabels(), ""},
		{"sorted by name, then labels; an empty instance", []string{`b_metric`, `a_metric`}, labels.EmptyLabels(), `
# TYPE a_metric untyped
a_metric{A_first="x",instance=""} 3 1799999940000
# TYPE b_metric untyped
b_metric{a="1",instance="i"} 1 1799999940000
b_metric{a="2",instance="i"} 2 1799999940000`},
		{"each series once", []string{`b_metric{a="1"}`, `b_metric`, `{__name__=~"b_.*",a="1"}`}, labels.EmptyLabels(), `
# TYPE b_metric untyped
b_metric{a="1",instance="i"} 1 1799999940000
b_metric{a="2",instance="i"} 2 1799999940000`},
		{"older than the lookback, ended", []string{`{__name__=~"c_old|c_ended"}`}, labels.EmptyLabels(), ""},
		{"began again", []string{`c_back`}, labels.EmptyLabels(), `
# TYPE c_back untyped
c_back{instance=""} 6 1800000000000`},
		{"samples of the future don't count", []string{`d_future`}, labels.EmptyLabels(), `
# TYPE d_future untyped
d_future{instance=""} 7 1799999940000`},
		{"escaping", []string{`e_escaped`}, labels.EmptyLabels(), `
# TYPE e_escaped untyped
e_escaped{text="a\"b\\c\nd",instance=""} 9 1799999940000`},
		{"external labels never override", []string{`f_site`, `a_metric`}, labels.FromStrings("site", "ext", "zone", "z"), `
# TYPE a_metric untyped
a_metric{A_first="x",instance="",site="ext",zone="z"} 3 1799999940000
# TYPE f_site untyped
f_site{site="own",instance="",zone="z"} 10 1799999940000`},
		{"an external instance label", []string{`a_metric`}, labels.FromStrings("instance", "ext"), `
# TYPE a_metric untyped
a_metric{A_first="x",instance="ext"} 3 1799999940000`},
		{"special values", []string{`g_special`}, labels.EmptyLabels(), `
# TYPE g_special untyped
g_special{k="inf",instance=""} +Inf 1799999940000
g_special{k="nan",instance=""} NaN 1799999940000`},
		{"without a name", []string{`{nameless="x"}`}, labels.EmptyLabels(), ""},
	} {
		f.external = c.external
		code, body := f.get(federateTarget(c.selectors...))
		require.Equal(t, http.StatusOK, code, c.name)
		require.Equal(t, strings.TrimPrefix(c.want, "\n"), strings.TrimSuffix(body, "\n"), c.name)
	}
	code, body := f.get(federateTarget("up{"))
	require.Equal(t, 400, code, body)
}

// scraped is one entry of an exposition as Prometheus' scraper reads it.
type scraped struct {
	at        int64
	value     float64
	histogram *histogram.FloatHistogram
	kind      string
}

// scrape parses an answer with the parser of Prometheus' scraper.
func scrape(t *testing.T, contentType, body string) map[string]scraped {
	t.Helper()
	p, err := textparse.New([]byte(body), contentType, labels.NewSymbolTable(), textparse.ParserOptions{FallbackContentType: "text/plain"})
	require.NoError(t, err)
	out := map[string]scraped{}
	kind := ""
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		var l labels.Labels
		switch entry {
		case textparse.EntryType:
			_, k := p.Type()
			kind = string(k)
		case textparse.EntrySeries:
			_, at, v := p.Series()
			p.Labels(&l)
			require.NotContains(t, out, l.String())
			out[l.String()] = scraped{at: *at, value: v, kind: kind}
		case textparse.EntryHistogram:
			_, at, h, fh := p.Histogram()
			p.Labels(&l)
			if h != nil {
				fh = h.ToFloat(nil)
			}
			require.NotContains(t, out, l.String())
			out[l.String()] = scraped{at: *at, histogram: fh, kind: kind}
		}
	}
}

func TestFederationOfHistogramsAsAScraperReadsIt(t *testing.T) {
	// Native histograms come through protobuf whole, gauges as gauges, those with
	// custom buckets as classic ones in either format; text leaves the others out.
	t.Parallel()
	f := newFixture(t, nil)
	whole := tsdbutil.GenerateTestHistogram(5)
	gauge := tsdbutil.GenerateTestGaugeFloatHistogram(7)
	custom := tsdbutil.GenerateTestCustomBucketsHistogram(3)
	f.append(labels.FromStrings("__name__", "h", "kind", "counter"), sample{age: time.Minute, histogram: whole})
	f.append(labels.FromStrings("__name__", "h", "kind", "float"), sample{age: time.Minute, value: 42})
	f.append(labels.FromStrings("__name__", "h", "kind", "gauge"), sample{age: time.Minute, float: gauge})
	f.append(labels.FromStrings("__name__", "h_custom"), sample{age: time.Minute, histogram: custom})
	f.append(labels.FromStrings("__name__", "h_ended"), sample{age: time.Minute, histogram: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}})

	code, header, body := f.call(http.MethodGet, federateTarget(`{__name__=~"h.*"}`), "", "Accept", protobufAccept)
	require.Equal(t, 200, code)
	got := scrape(t, header.Get("Content-Type"), body)
	at := now.Add(-time.Minute).UnixMilli()
	counter := got[`{__name__="h", instance="", kind="counter"}`]
	require.Equal(t, at, counter.at)
	require.Equal(t, "histogram", counter.kind)
	require.True(t, counter.histogram.Equals(whole.ToFloat(nil)), "%v %v", counter.histogram, whole)
	asGauge := got[`{__name__="h", instance="", kind="gauge"}`]
	require.True(t, asGauge.histogram.Equals(gauge), "%v %v", asGauge.histogram, gauge)
	require.Equal(t, histogram.GaugeType, asGauge.histogram.CounterResetHint)
	require.Equal(t, 42.0, got[`{__name__="h", instance="", kind="float"}`].value)
	require.Equal(t, float64(custom.Count), got[`{__name__="h_custom_count", instance=""}`].value)
	require.Contains(t, got, `{__name__="h_custom_bucket", instance="", le="+Inf"}`)
	for name := range got {
		require.NotContains(t, name, "h_ended")
	}

	code, header, body = f.call(http.MethodGet, federateTarget(`{__name__=~"h.*"}`), "")
	require.Equal(t, 200, code)
	text := scrape(t, header.Get("Content-Type"), body)
	require.Equal(t, 42.0, text[`{__name__="h", instance="", kind="float"}`].value)
	require.NotContains(t, text, `{__name__="h", instance="", kind="counter"}`)
	cumulative := 0.0
	counts := custom.ToFloat(nil)
	for it := counts.PositiveBucketIterator(); it.Next(); {
		cumulative += it.At().Count
	}
	require.Equal(t, cumulative, text[`{__name__="h_custom_bucket", instance="", le="+Inf"}`].value)
	require.Equal(t, custom.Sum, text[`{__name__="h_custom_sum", instance=""}`].value)
}

func TestFederationOfNamesBeyondTheOldCharacterSet(t *testing.T) {
	// A scraper that allows UTF-8 gets names as they are, another gets them escaped
	// in the way it asks for.
	t.Parallel()
	f := newFixture(t, nil)
	f.append(labels.FromStrings("__name__", "my.metric", "the.label", "v"), sample{age: time.Minute, value: 1})
	for accept, want := range map[string]string{
		"text/plain;version=1.0.0;escaping=allow-utf-8":  `{__name__="my.metric", instance="", the.label="v"}`,
		"text/plain;version=0.0.4;escaping=underscores":  `{__name__="my_metric", instance="", the_label="v"}`,
		"text/plain;version=0.0.4;escaping=values":       `{U__the_2e_label="v", __name__="U__my_2e_metric", instance=""}`,
		protobufAccept + ";escaping=allow-utf-8;q=1":     `{__name__="my.metric", instance="", the.label="v"}`,
		protobufAccept + ";escaping=underscores;q=1":     `{__name__="my_metric", instance="", the_label="v"}`,
		protobufAccept + ";escaping=dots;q=1":            `{__name__="my_dot_metric", instance="", the_dot_label="v"}`,
		"application/json":                               ``,
		"application/openmetrics-text;version=1.0.0;q=1": ``,
	} {
		code, header, body := f.call(http.MethodGet, federateTarget(`{"the.label"="v"}`), "", "Accept", accept)
		require.Equal(t, 200, code, accept)
		got := scrape(t, header.Get("Content-Type"), body)
		require.Len(t, got, 1, "%s: %s", accept, body)
		if want == "" {
			require.Contains(t, header.Get("Content-Type"), "text/plain", accept)
			continue
		}
		for name := range got {
			name = strings.ReplaceAll(name, `"the.label"=`, `the.label=`)
			require.Equal(t, want, name, accept)
		}
	}
}

func TestFederationIsBounded(t *testing.T) {
	// One series too many is an error and not a part of the answer.
	t.Parallel()
	f := newFixture(t, func(o *api.Options) { o.Limits.FederateSeries = 2 })
	for _, l := range []string{"a", "b"} {
		f.append(labels.FromStrings("__name__", "up", "job", l), sample{age: time.Minute, value: 1})
	}
	code, body := f.get(federateTarget("up"))
	require.Equal(t, 200, code, body)
	f.append(labels.FromStrings("__name__", "up", "job", "c"), sample{age: time.Minute, value: 1})
	code, body = f.get(federateTarget("up"))
	require.Equal(t, 422, code)
	require.Contains(t, body, "at most 2")
}

// failingQuerier fails after it was opened.
type failingStorage struct{ api.Storage }

func (s failingStorage) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Storage.Querier(mint, maxt)
	return failingQuerier{q}, err
}

type failingQuerier struct{ storage.Querier }

func (failingQuerier) Close() error { return errDisk }

func TestFederationReportsLateErrors(t *testing.T) {
	// An error at the very end of reading is an error of the answer.
	t.Parallel()
	f := newFixture(t, func(o *api.Options) { o.Storage = failingStorage{o.Storage} })
	f.append(labels.FromStrings("__name__", "up"), sample{age: time.Minute, value: 1})
	code, body := f.get(federateTarget("up"))
	require.Equal(t, 500, code, body)
}
