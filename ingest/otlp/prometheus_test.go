package otlp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
	"varve/internal/gate/server"
)

// everything is a request with all kinds of metrics, units and attributes, whose data
// points are of one time.
func everything(now time.Time) pmetric.Metrics {
	md, ms := newMetrics()
	resource := md.ResourceMetrics().At(0).Resource().Attributes()
	resource.PutStr("service.namespace", "corner")
	resource.PutInt("process.pid", 12)
	scope := md.ResourceMetrics().At(0).ScopeMetrics().At(0)
	scope.SetSchemaUrl("https://example.org/schema")
	scope.Scope().Attributes().PutStr("lib.kind", "x")
	for i, name := range []string{"temperature", "system.memory-usage", "1st", "a__b", "ratio", "größe", "requests_total"} {
		p := addGauge(ms, name, float64(i)*1.1)
		ms.At(ms.Len() - 1).SetUnit([]string{"Cel", "By", "1", "By/s", "1", "{things}", ""}[i])
		p.Attributes().PutStr("http.method", "GET")
		p.Attributes().PutInt("http_code", 200)
		p.Attributes().PutStr("http.code", "other")
		p.Attributes().PutStr("3rd", "digit")
		p.Attributes().PutStr("empty", "")
		p.Attributes().PutEmptySlice("list").AppendEmpty().SetInt(1)
		p.Attributes().PutStr("_private", "x")
	}
	for _, monotonic := range []bool{true, false} {
		m := ms.AppendEmpty()
		m.SetName(fmt.Sprintf("work.done.%t", monotonic))
		m.SetUnit("ms")
		m.SetEmptySum().SetIsMonotonic(monotonic)
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		m.Sum().DataPoints().AppendEmpty().SetIntValue(77)
	}
	c := addClassic(ms, "latency")
	e := c.Exemplars().AppendEmpty()
	e.SetDoubleValue(1.5)
	e.SetTraceID(pcommon.TraceID{1, 2})
	e.SetTimestamp(stamp(now))
	n := addExponential(ms, "size", 12, 9)
	n.SetZeroCount(2)
	n.Positive().SetOffset(-7)
	n.Positive().BucketCounts().FromRaw([]uint64{1, 0, 0, 0, 0, 0, 0, 2, 3})
	n.Negative().BucketCounts().FromRaw([]uint64{0, 1})
	s := ms.AppendEmpty()
	s.SetName("quantiles")
	p := s.SetEmptySummary().DataPoints().AppendEmpty()
	p.SetCount(5)
	p.SetSum(6)
	for _, q := range []float64{0, .5, 1} {
		v := p.QuantileValues().AppendEmpty()
		v.SetQuantile(q)
		v.SetValue(q * 3)
	}
	setTimes(ms, now)
	return md
}

// setTimes sets the time of all data points, and their start a minute before.
func setTimes(ms pmetric.MetricSlice, now time.Time) {
	set := func(p interface {
		SetTimestamp(pcommon.Timestamp)
		SetStartTimestamp(pcommon.Timestamp)
	}) {
		p.SetTimestamp(stamp(now))
		p.SetStartTimestamp(stamp(now.Add(-time.Minute)))
	}
	for _, m := range ms.All() {
		switch m.Type() {
		case pmetric.MetricTypeGauge:
			set(m.Gauge().DataPoints().At(0))
		case pmetric.MetricTypeSum:
			set(m.Sum().DataPoints().At(0))
		case pmetric.MetricTypeHistogram:
			set(m.Histogram().DataPoints().At(0))
		case pmetric.MetricTypeExponentialHistogram:
			set(m.ExponentialHistogram().DataPoints().At(0))
		case pmetric.MetricTypeSummary:
			set(m.Summary().DataPoints().At(0))
		}
	}
}

// TestPrometheus shows that Prometheus' own OTLP receiver makes the same series, with
// the same values, of the same bodies, under each way to translate.
func TestPrometheus(t *testing.T) {
	binary := server.Prometheus3(t)
	for _, c := range []struct {
		name, yaml string
		o          otlp.Options
		flags      []string
		bodies     func(now time.Time) []pmetric.Metrics
	}{
		{"defaults", "{}", otlp.Options{}, nil, nil},
		{"no suffixes", "{translation_strategy: UnderscoreEscapingWithoutSuffixes, promote_resource_attributes: [host.name, service.name]}",
			otlp.Options{TranslationStrategy: "UnderscoreEscapingWithoutSuffixes", PromoteResourceAttributes: []string{"host.name", "service.name"}}, nil, nil},
		{"UTF-8", "{translation_strategy: NoTranslation, promote_all_resource_attributes: true, ignore_resource_attributes: [process.pid], promote_scope_metadata: true}",
			otlp.Options{TranslationStrategy: "NoTranslation", PromoteAllResourceAttributes: true, IgnoreResourceAttributes: []string{"process.pid"}, PromoteScopeMetadata: true}, nil, nil},
		{"UTF-8 with suffixes, custom buckets", "{translation_strategy: NoUTF8EscapingWithSuffixes, convert_histograms_to_nhcb: true, keep_identifying_resource_attributes: true}",
			otlp.Options{TranslationStrategy: "NoUTF8EscapingWithSuffixes", ConvertHistogramsToNHCB: true, KeepIdentifyingResourceAttributes: true}, nil, nil},
		{"not sanitised", "{label_name_underscore_sanitization: false, label_name_preserve_multiple_underscores: false}",
			otlp.Options{NoLabelNameUnderscoreSanitization: true, SqueezeUnderscores: true}, nil, nil},
		{"deltas", "{}", otlp.Options{FutureMax: untilToday}, []string{"--enable-feature=otlp-deltatocumulative"}, func(now time.Time) []pmetric.Metrics {
			var out []pmetric.Metrics
			for i := range 4 {
				md := delta(i + 1)
				ms := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
				setTimes(ms, now.Add(time.Duration(i-10)*time.Second))
				out = append(out, md)
			}
			return out
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			prometheus := server.StartPrometheus(t, binary, "otlp: "+c.yaml+"\n", append([]string{"--web.enable-otlp-receiver"}, c.flags...)...)
			now := time.Now().Truncate(time.Millisecond)
			bodies := []pmetric.Metrics{everything(now)}
			if c.bodies != nil {
				bodies = c.bodies(now)
			}
			sink := ingesttest.NewSink()
			h := newHandler(t, sink, ingest.Limits{}, c.o)
			for _, md := range bodies {
				body := protoBody(t, md)
				answer, err := http.Post(prometheus.URL("/api/v1/otlp/v1/metrics"), "application/x-protobuf", bytes.NewReader(body))
				require.NoError(t, err)
				text, err := io.ReadAll(answer.Body)
				require.NoError(t, err)
				require.NoError(t, answer.Body.Close())
				require.Equal(t, http.StatusOK, answer.StatusCode, "%s", text)
				w := post(h, body, "application/x-protobuf", "")
				require.Equal(t, http.StatusOK, w.Code, w.Body)
				rejected, says := success(t, w)
				require.Zero(t, rejected, says)
			}
			want := prometheusSamples(t, prometheus, now)
			got := make(map[string]string)
			for ls, s := range sink.Written() {
				if n := len(s.Samples); n > 0 {
					got[ls] = strconv.FormatFloat(floats(s)[n-1], 'f', -1, 64)
				} else {
					got[ls] = describe(s.Histograms[len(s.Histograms)-1].Int.ToFloat(nil))
				}
			}
			require.Greater(t, len(got), 5)
			require.Equal(t, want, got)
		})
	}
	http.DefaultClient.CloseIdleConnections()
}

// describe is the text of a native histogram that Prometheus' API makes of one.
func describe(h *histogram.FloatHistogram) string {
	number := func(v float64) string {
		if abs := math.Abs(v); abs != 0 && abs < 1e-6 {
			return strconv.FormatFloat(v, 'e', -1, 64)
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	text := "count " + number(h.Count) + " sum " + number(h.Sum)
	for it := h.AllBucketIterator(); it.Next(); {
		if b := it.At(); b.Count > 0 {
			text += fmt.Sprintf(" (%s %s %s)", number(b.Lower), number(b.Upper), number(b.Count))
		}
	}
	return text
}

// prometheusSamples are the newest samples of all series.
func prometheusSamples(t *testing.T, prometheus *server.Server, at time.Time) map[string]string {
	t.Helper()
	code, body, err := server.Get(context.Background(), prometheus.URL("/api/v1/query?query="+url.QueryEscape(`{__name__=~".+"}`)+"&time="+fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000)))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code, "%s", body)
	var answer struct {
		Data struct {
			Result []struct {
				Metric    map[string]string
				Value     [2]any
				Histogram [2]json.RawMessage
			}
		}
	}
	require.NoError(t, json.Unmarshal(body, &answer))
	out := make(map[string]string)
	for _, r := range answer.Data.Result {
		ls := labels.FromMap(r.Metric).String()
		if r.Histogram[1] == nil {
			out[ls] = r.Value[1].(string)
			continue
		}
		var h struct {
			Count, Sum string
			Buckets    [][4]any
		}
		require.NoError(t, json.Unmarshal(r.Histogram[1], &h))
		text := "count " + h.Count + " sum " + h.Sum
		for _, b := range h.Buckets {
			text += fmt.Sprintf(" (%s %s %s)", b[1], b[2], b[3])
		}
		out[ls] = text
	}
	return out
}
