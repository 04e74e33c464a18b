package remotewrite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/remotewrite"
	"varve/internal/testkit"
)

// pyAttr is an attribute of a point or a resource in Python.
type pyAttr struct{ key, value string }

// pyPoint is one series as OpenTelemetry's Python exporter holds it before it writes: the label pairs with
// __name__ and le among them, a value and nanoseconds.
type pyPoint struct {
	attrs []pyAttr
	name  string
	value float64
	nanos int64
}

// The exporter's two patterns; Python's \w has the letters and digits of all scripts.
var (
	pyName  = regexp.MustCompile(`^\d|[^\p{L}\p{N}_:]`)
	pyLabel = regexp.MustCompile(`^\d|[^\p{L}\p{N}_]`)
)

const pyNanos = int64(1_699_999_999_123_999_999)

const pyMillis = pyNanos / 1_000_000

// pySeries writes a point as the exporter does: attributes are sorted by the keys that they have before those are
// cleaned, and the time is floored to ms.
func pySeries(p pyPoint) prompb.TimeSeries {
	attrs := append(slices.Clone(p.attrs), pyAttr{"__name__", pyName.ReplaceAllString(p.name, "_")})
	slices.SortStableFunc(attrs, func(x, y pyAttr) int { return strings.Compare(x.key, y.key) })
	var ts prompb.TimeSeries
	for _, a := range attrs {
		name := a.key
		if name != "__name__" {
			name = pyLabel.ReplaceAllString(name, "_")
		}
		ts.Labels = append(ts.Labels, prompb.Label{Name: name, Value: a.value})
	}
	ts.Samples = []prompb.Sample{{Value: p.value, Timestamp: p.nanos / 1_000_000}}
	return ts
}

// pyHistogram is how the exporter writes a histogram: a series a bucket that counts what is in it, the bound as
// le unless that is false in Python, and the sum and the count.
func pyHistogram(name string, bounds []float64, counts []float64, sum float64, attrs ...pyAttr) []prompb.TimeSeries {
	var out []prompb.TimeSeries
	add := func(name string, v float64, le string) {
		own := slices.Clone(attrs)
		if le != "" {
			own = append(own, pyAttr{"le", le})
		}
		out = append(out, pySeries(pyPoint{attrs: own, name: name, value: v, nanos: pyNanos}))
	}
	total := 0.0
	for i, bound := range bounds {
		le := pyFloat(bound)
		if bound == 0 {
			le = ""
		}
		add(name, counts[i], le)
		total += counts[i]
	}
	add(name, counts[len(bounds)], "+Inf")
	add(name+"_sum", sum, "")
	add(name+"_count", total+counts[len(bounds)], "")
	return out
}

// pyFloat is Python's str of a float.
func pyFloat(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// pyPost sends series with the headers of the exporter.
func (r *receiver) pyPost(t require.TestingT, path string, series []prompb.TimeSeries, header ...string) posted {
	b, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	require.NoError(t, err)
	req := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(snappy.Encode(nil, b)))
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	req.Header.Set("User-Agent", "python-requests/2.28.1")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return r.send(t, req)
}

func optionReceiver(o remotewrite.Options) *receiver {
	sink := ingesttest.NewSink()
	return &receiver{remotewrite.New(sink, ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, o), sink}
}

var pyResource = []pyAttr{
	{"service.name", "shop"}, {"telemetry.sdk.language", "python"}, {"telemetry.sdk.name", "opentelemetry"}, {"telemetry.sdk.version", "1.24.0"},
	{"host.name", "h"}, {"process.pid", "7"}, {"deployment.environment", "prod"}, {"service.version", "2"}, {"service.instance.id", "x"},
}

func pyOne(name string, v float64, attrs ...pyAttr) prompb.TimeSeries {
	return pySeries(pyPoint{attrs: attrs, name: name, value: v, nanos: pyNanos})
}

// valueOf is the only sample of a series that was written.
func valueOf(t testing.TB, r *receiver, series string) float64 {
	t.Helper()
	s, ok := r.sink.Written()[series]
	require.True(t, ok, "no %s in %v", series, r.sink.Written())
	require.Len(t, s.Samples, 1)
	require.Equal(t, pyMillis, s.Samples[0].TimeMillis)
	return math.Float64frombits(s.Samples[0].Bits)
}

// TestPythonExporter goes through what OpenTelemetry's Python exporter does, row by row as the seeds of the project
// list it, and shows that each is handled and that the rest of the request is stored. The rows T3
// (authentication) and T4 (TLS) are the server's, see package api; the relay of T16 is in internal/gate/forwarding.
func TestPythonExporter(t *testing.T) {
	good := pyOne("good", 1, pyAttr{"a", "b"})
	const goodSeries = `{__name__="good", a="b"}`
	t.Run("T1 headers", func(t *testing.T) {
		for _, header := range [][]string{nil, {"X-Prometheus-Remote-Write-Version", "9"}, {"User-Agent", ""}} {
			r := newReceiver()
			answer := r.pyPost(t, "/api/v1/write", []prompb.TimeSeries{good}, header...)
			require.Equal(t, http.StatusNoContent, answer.code)
			require.Empty(t, answer.body)
			require.Nil(t, answer.written)
			require.InDelta(t, 1, valueOf(t, r, goodSeries), 0)
		}
	})
	t.Run("T2 paths", func(t *testing.T) {
		for _, path := range []string{"/api/prom/push", "/api/v1/write", "/api/v1/push", "/receive"} {
			for _, slash := range []string{"", "/"} {
				require.Equal(t, http.StatusNoContent, newReceiver().pyPost(t, path+slash, []prompb.TimeSeries{good}).code, path+slash)
			}
		}
	})
	t.Run("T5 tenants", func(t *testing.T) {
		r := newReceiver()
		for _, header := range []string{"X-Scope-OrgID", "X-Scope-Org-ID"} {
			require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{good}, header, "acme").code)
		}
		require.Len(t, r.sink.Written(), 1)
	})
	t.Run("T6 many", func(t *testing.T) {
		r := newReceiver()
		var all []prompb.TimeSeries
		for i := range 50_000 {
			all = append(all, pyOne("many", float64(i), append(slices.Clone(pyResource), pyAttr{"i", strconv.Itoa(i)})...))
		}
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", all).code)
		require.Len(t, r.sink.Written(), 50_000)
		require.Equal(t, 1, r.sink.Writes())
	})
	t.Run("T7 order", func(t *testing.T) {
		r := newReceiver()
		bad := pyOne("m", 2, pyAttr{"a.b", "1"}, pyAttr{"a0", "2"})
		require.Equal(t, "a_b", bad.Labels[1].Name)
		require.Equal(t, "a0", bad.Labels[2].Name, "sorted as Python sorts them")
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{good, bad, good}).code)
		require.InDelta(t, 2, valueOf(t, r, `{__name__="m", a0="2", a_b="1"}`), 0)
	})
	t.Run("T8 duplicates", func(t *testing.T) {
		r := newReceiver()
		twice := pyOne("twice", 2, append(slices.Clone(pyResource), pyAttr{"service_name", "other"})...)
		answer := r.pyPost(t, "/", []prompb.TimeSeries{twice, good, pyOne("twice", 3, pyAttr{"k", "1"}, pyAttr{"k", "1"})})
		require.Equal(t, http.StatusBadRequest, answer.code)
		require.Contains(t, answer.body, `invalid_labels: 2; the rest is written`)
		require.Contains(t, answer.body, `label "service_name" is given twice`)
		require.Len(t, r.sink.Written(), 1)
		require.InDelta(t, 1, valueOf(t, r, goodSeries), 0)
	})
	t.Run("T9 Unicode", func(t *testing.T) {
		r := newReceiver()
		s := pyOne("café", 1, pyAttr{"größe", "ö"})
		require.Equal(t, "café", s.Labels[0].Value)
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{s, good}).code)
		require.InDelta(t, 1, valueOf(t, r, `{__name__="café", "größe"="ö"}`), 0)
	})
	t.Run("T10 empty values", func(t *testing.T) {
		r := newReceiver()
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{pyOne("m", 3, pyAttr{"a", ""}, pyAttr{"b", "x"}), good}).code)
		require.InDelta(t, 3, valueOf(t, r, `{__name__="m", b="x"}`), 0)
	})
	t.Run("T12 names", func(t *testing.T) {
		r := newReceiver()
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{pyOne("requests_1", 1), pyOne("9lives", 2), pyOne("a.b-c", 3)}).code)
		for _, name := range []string{"requests_1", "_lives", "a_b_c"} {
			require.Contains(t, r.sink.Written(), fmt.Sprintf(`{__name__=%q}`, name))
		}
	})
	t.Run("T14 time and width", func(t *testing.T) {
		r := newReceiver()
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{pyOne("wide", 1, pyResource...)}).code)
		for _, s := range r.sink.Written() {
			require.Equal(t, []ingesttest.Sample{{TimeMillis: 1_699_999_999_123, Bits: math.Float64bits(1)}}, s.Samples)
		}
	})
	t.Run("T15 values as sent", func(t *testing.T) {
		r := newReceiver()
		var all []prompb.TimeSeries
		for i, v := range []float64{-1, 0, math.Inf(1), math.NaN(), 1e308, 3} {
			all = append(all, pyOne("m", v, pyAttr{"i", strconv.Itoa(i)}))
		}
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", all).code)
		for i, ts := range all {
			require.Equal(t, math.Float64bits(ts.Samples[0].Value), math.Float64bits(valueOf(t, r, fmt.Sprintf(`{__name__="m", i="%d"}`, i))))
		}
		require.Empty(t, r.sink.Families())
	})
	t.Run("T16 trouble is ours", func(t *testing.T) {
		r := newReceiver()
		r.sink.Err = errors.New("disk")
		answer := r.pyPost(t, "/", []prompb.TimeSeries{good})
		require.Equal(t, http.StatusServiceUnavailable, answer.code)
		require.NotEmpty(t, answer.header.Get("Retry-After"))
		r.sink.Err = nil
		for range 2 {
			require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{good}).code)
		}
	})
}

// TestPythonSameTime shows that of one series' samples at one time the last in the order of the wire wins, within a request and
// against what was stored before, and that neither takes the rest of the request along.
func TestPythonSameTime(t *testing.T) {
	o := testkit.Options()
	o.Now = fixedNow
	a := testkit.Open(t, testkit.MemoryDir(t), o)
	r := &receiver{remotewrite.New(a, ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, remotewrite.Options{}), nil}
	one := func(v float64) prompb.TimeSeries { return pyOne("same", v, pyAttr{"a", "b"}) }
	read := func() map[string]float64 {
		q, err := a.Querier(pyMillis, pyMillis)
		require.NoError(t, err)
		defer func() { require.NoError(t, q.Close()) }()
		out := map[string]float64{}
		set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
		for set.Next() {
			it := set.At().Iterator(nil)
			for it.Next() != 0 {
				_, out[set.At().Labels().Get("__name__")] = it.At()
			}
			require.NoError(t, it.Err())
		}
		require.NoError(t, set.Err())
		return out
	}
	require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{pyOne("first", 1), one(1), one(2), one(3), pyOne("last", 1)}).code)
	require.Equal(t, map[string]float64{"first": 1, "same": 3, "last": 1}, read())
	require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", []prompb.TimeSeries{one(5), pyOne("more", 2)}).code)
	require.Equal(t, map[string]float64{"first": 1, "same": 5, "last": 1, "more": 2}, read())
}

// TestPythonHistogram shows what becomes of the exporter's histograms with the rule and without, and that PromQL reads
// them with it.
func TestPythonHistogram(t *testing.T) {
	bounds := []float64{0, 5, 10, 25, 50}
	counts := []float64{2, 3, 1, 0, 4, 1}
	attrs := []pyAttr{{"a.b", "1"}, {"a0", "2"}}
	request := append([]prompb.TimeSeries{pyOne("good", 1)}, pyHistogram("latency", bounds, counts, 321, attrs...)...)
	request = append(request, pyHistogram("latency", bounds, []float64{1, 0, 0, 0, 0, 0}, 0, pyAttr{"a0", "3"})...)
	request = append(request, pyOne("last", 2))
	want := map[string]float64{`{__name__="good"}`: 1, `{__name__="last"}`: 2}
	for ls, sum := range map[string]float64{`a0="2", a_b="1"`: 321, `a0="3"`: 0} {
		counted := []float64{2, 5, 6, 6, 10, 11}
		if sum == 0 {
			counted = []float64{1, 1, 1, 1, 1, 1}
		}
		for i, le := range []string{"0.0", "5.0", "10.0", "25.0", "50.0", "+Inf"} {
			want[fmt.Sprintf(`{__name__="latency_bucket", %s, le="%s"}`, ls, le)] = counted[i]
		}
		want[fmt.Sprintf(`{__name__="latency_sum", %s}`, ls)] = sum
		want[fmt.Sprintf(`{__name__="latency_count", %s}`, ls)] = counted[5]
	}
	got := func(r *receiver) map[string]float64 {
		out := map[string]float64{}
		for name := range r.sink.Written() {
			out[name] = valueOf(t, r, name)
		}
		return out
	}
	r := newReceiver()
	require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", request).code)
	asSent := map[string]float64{}
	for _, ts := range request {
		asSent[labelsOf(ts)] = ts.Samples[0].Value
	}
	require.Equal(t, asSent, got(r))

	r = optionReceiver(remotewrite.Options{OTelHistograms: true})
	for range 2 { // With keys that are known, too.
		r.sink.Clear()
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", request).code)
		require.Equal(t, want, got(r))
	}
	// In any order of series.
	slices.Reverse(request)
	r.sink.Clear()
	require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", request).code)
	require.Equal(t, want, got(r))
	// +Inf is made where it is missing.
	r.sink.Clear()
	request = slices.DeleteFunc(pyHistogram("h", []float64{1}, []float64{1, 0}, 1), func(ts prompb.TimeSeries) bool { return strings.Contains(labelsOf(ts), "Inf") })
	require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", request).code)
	require.Equal(t, map[string]float64{`{__name__="h_bucket", le="1.0"}`: 1, `{__name__="h_bucket", le="+Inf"}`: 1, `{__name__="h_sum"}`: 1, `{__name__="h_count"}`: 1}, got(r))
	// 2.0 and messages: the rule is for 1.0, in whatever way it comes.
	r.sink.Clear()
	b, err := (&prompb.WriteRequest{Timeseries: request}).Marshal()
	require.NoError(t, err)
	_, err = r.Receiver(false).Receive(t.Context(), snappy.Encode(nil, b), nil)
	require.NoError(t, err)
	require.Len(t, got(r), 4)
}

// TestPythonHistogramLeavesOthersAlone shows that what isn't such a histogram in all respects is stored as it was sent.
func TestPythonHistogramLeavesOthersAlone(t *testing.T) {
	h := func(change func([]prompb.TimeSeries) []prompb.TimeSeries) []prompb.TimeSeries {
		return change(pyHistogram("h", []float64{0, 1, 2}, []float64{1, 2, 3, 4}, 9))
	}
	drop := func(part string) []prompb.TimeSeries {
		return h(func(all []prompb.TimeSeries) []prompb.TimeSeries {
			return slices.DeleteFunc(all, func(ts prompb.TimeSeries) bool { return strings.Contains(labelsOf(ts), part) })
		})
	}
	for name, request := range map[string][]prompb.TimeSeries{
		"no sum":      drop(`h_sum`),
		"no count":    drop(`h_count`),
		"no bucket":   drop(`le=`),
		"lost bucket": drop(`1.0`),
		"classic already": {
			one1(1, "__name__", "h_bucket", "le", "1"), one1(3, "__name__", "h_bucket", "le", "+Inf"), one1(3, "__name__", "h_count"), one1(1, "__name__", "h_sum"),
		},
		"counted together already": {
			one1(1, "__name__", "h", "le", "1"), one1(3, "__name__", "h", "le", "+Inf"), one1(3, "__name__", "h_count"), one1(1, "__name__", "h_sum"),
		},
		"no number": {one1(1, "__name__", "h", "le", "small"), one1(1, "__name__", "h_count"), one1(1, "__name__", "h_sum")},
		"NaN":       {one1(1, "__name__", "h", "le", "NaN"), one1(1, "__name__", "h_count"), one1(1, "__name__", "h_sum")},
		"other labels": h(func(all []prompb.TimeSeries) []prompb.TimeSeries {
			all[len(all)-1].Labels = append(all[len(all)-1].Labels, prompb.Label{Name: "x", Value: "y"})
			return all
		}),
		"other time": h(func(all []prompb.TimeSeries) []prompb.TimeSeries {
			all[len(all)-1].Samples[0].Timestamp++
			return all
		}),
		"two samples": h(func(all []prompb.TimeSeries) []prompb.TimeSeries {
			all[1].Samples = append(all[1].Samples, prompb.Sample{Timestamp: 1})
			return all
		}),
	} {
		r, plain := optionReceiver(remotewrite.Options{OTelHistograms: true}), newReceiver()
		require.Equal(t, http.StatusNoContent, plain.post(t, contentType1, wire1(t, request...)).code, name)
		require.Equal(t, http.StatusNoContent, r.post(t, contentType1, wire1(t, request...)).code, name)
		require.Equal(t, plain.sink.Written(), r.sink.Written(), name)
	}
	// A series of the histogram's name that is not its bucket stays what it is.
	r := optionReceiver(remotewrite.Options{OTelHistograms: true})
	request := append(pyHistogram("h", []float64{1}, []float64{1, 2}, 9), pyOne("h", 77))
	require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", request).code)
	require.InDelta(t, 77, valueOf(t, r, `{__name__="h"}`), 0)
	require.InDelta(t, 3, valueOf(t, r, `{__name__="h_bucket", le="+Inf"}`), 0)
	// One bad series beside a histogram is refused alone.
	r = optionReceiver(remotewrite.Options{OTelHistograms: true})
	answer := r.pyPost(t, "/", append(pyHistogram("h", []float64{1}, []float64{1, 2}, 9), pyOne("bad", 1, pyAttr{"k", "1"}, pyAttr{"k", "2"})))
	require.Equal(t, http.StatusBadRequest, answer.code)
	require.Len(t, r.sink.Written(), 4)
}

// labelsOf is how a series with these labels is named when it is stored.
func labelsOf(ts prompb.TimeSeries) string {
	b := labels.NewScratchBuilder(len(ts.Labels))
	for _, l := range ts.Labels {
		b.Add(l.Name, l.Value)
	}
	b.Sort()
	return b.Labels().String()
}

// TestPythonHistogramQuantile shows that with the rule histogram_quantile is right where without it is not.
func TestPythonHistogramQuantile(t *testing.T) {
	for rule, name := range map[bool]string{true: "latency_bucket", false: "latency"} {
		o := testkit.Options()
		o.Now = fixedNow
		a := testkit.Open(t, testkit.MemoryDir(t), o)
		r := &receiver{remotewrite.New(a, ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, remotewrite.Options{OTelHistograms: rule}), nil}
		// Nine of ten are between 5 and 10.
		require.Equal(t, http.StatusNoContent, r.pyPost(t, "/", pyHistogram("latency", []float64{0, 5, 10}, []float64{0, 1, 9, 0}, 70)).code)
		engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1000, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{})})
		q, err := engine.NewInstantQuery(t.Context(), a, nil, fmt.Sprintf("histogram_quantile(0.9, %s)", name), time.UnixMilli(pyMillis))
		require.NoError(t, err)
		v, err := q.Exec(t.Context()).Vector()
		require.NoError(t, err)
		if rule {
			require.Len(t, v, 1)
			require.InDelta(t, 5+5*8.0/9, v[0].F, 1e-9)
		} else if len(v) > 0 {
			require.Less(t, v[0].F, 10.0)
			require.NotEqual(t, 5+5*8.0/9, v[0].F)
		}
		q.Close()
		require.NoError(t, engine.Close())
	}
}

// FuzzPythonHistograms shows that the rule never makes a request fail that is taken without it, and changes no series but
// buckets.
func FuzzPythonHistograms(f *testing.F) {
	seeds(f, func(d drawn) []byte {
		b, err := d.request1().Marshal()
		require.NoError(d, err)
		return b
	})
	b, err := (&prompb.WriteRequest{Timeseries: pyHistogram("h", []float64{0, 1}, []float64{1, 2, 3}, 9, pyAttr{"a", "b"})}).Marshal()
	require.NoError(f, err)
	f.Add(b)
	budget := ingest.NewBudget(64 << 20)
	sink := ingesttest.NewSink()
	turning := &receiver{remotewrite.New(sink, ingest.Limits{InFlight: budget}, ingest.NewMetrics(nil), discard, fixedNow, remotewrite.Options{OTelHistograms: true}), sink}
	plain := newReceiver()
	f.Fuzz(func(t *testing.T, body []byte) {
		turning.sink.Clear()
		plain.sink.Clear()
		wire := snappy.Encode(nil, body)
		want := plain.post(t, contentType1, wire)
		got := turning.post(t, contentType1, wire)
		require.Equal(t, want.code, got.code)
		require.Zero(t, budget.Used())
		left := plain.sink.Written()
		for name, series := range turning.sink.Written() {
			if strings.Contains(name, "_bucket") {
				continue
			}
			require.Len(t, series.Samples, len(left[name].Samples), name)
		}
	})
}
