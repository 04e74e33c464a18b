package otlp_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
)

func stamp(t time.Time) pcommon.Timestamp { return pcommon.NewTimestampFromTime(t) }

// bad are the ways in which a data point of a gauge, or its metric, can be wrong,
// with what the answer says of each.
var bad = []struct {
	name string
	says string
	// in makes one bad data point in metrics.
	in func(ms pmetric.MetricSlice)
}{
	{"no value", "invalid_value", func(ms pmetric.MetricSlice) {
		m := ms.AppendEmpty()
		m.SetName("bad")
		m.SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(stamp(at))
	}},
	{"no time", "invalid_series", func(ms pmetric.MetricSlice) { addGauge(ms, "bad", 1).SetTimestamp(0) }},
	{"time beyond reason", "invalid_series", func(ms pmetric.MetricSlice) { addGauge(ms, "bad", 1).SetTimestamp(math.MaxUint64) }},
	{"far in the future", `too_far_in_future: {__name__="bad", instance="one", job="shop"} at `, func(ms pmetric.MetricSlice) { addGauge(ms, "bad", 1).SetTimestamp(stamp(at.Add(time.Hour))) }},
	{"attribute of underscores", "invalid_labels", func(ms pmetric.MetricSlice) { addGauge(ms, "bad", 1).Attributes().PutStr("__", "x") }},
	{"attribute without a name", "invalid_labels", func(ms pmetric.MetricSlice) { addGauge(ms, "bad", 1).Attributes().PutStr("", "x") }},
	{"attribute that becomes the name", "invalid_labels", func(ms pmetric.MetricSlice) { addGauge(ms, "bad", 1).Attributes().PutStr("..name..", "x") }},
	{"value too long", "invalid_labels", func(ms pmetric.MetricSlice) {
		addGauge(ms, "bad", 1).Attributes().PutStr("x", strings.Repeat("y", 20_000))
	}},
	{"value not UTF-8", "invalid_labels", func(ms pmetric.MetricSlice) { addGauge(ms, "bad", 1).Attributes().PutStr("x", "\xff") }},
	{"too many labels", "invalid_labels", func(ms pmetric.MetricSlice) {
		p := addGauge(ms, "bad", 1)
		for i := range 70 {
			p.Attributes().PutStr(fmt.Sprintf("a%d", i), "x")
		}
	}},
	{"no name", "invalid_series", func(ms pmetric.MetricSlice) { addGauge(ms, "", 1) }},
	{"name of no letters", "invalid_series", func(ms pmetric.MetricSlice) { addGauge(ms, "...", 1) }},
	{"no temporality", "invalid_series", func(ms pmetric.MetricSlice) {
		m := ms.AppendEmpty()
		m.SetName("bad")
		p := m.SetEmptySum().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.SetIntValue(1)
	}},
	{"delta refused", "delta", func(ms pmetric.MetricSlice) {
		m := ms.AppendEmpty()
		m.SetName("bad")
		m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		p := m.Sum().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.SetIntValue(1)
	}},
	{"scale too small", "invalid_histogram", func(ms pmetric.MetricSlice) { addExponential(ms, "bad", -5, 1) }},
	{"count and buckets differ", "invalid_histogram", func(ms pmetric.MetricSlice) { addExponential(ms, "bad", 3, 77) }},
	{"a classic histogram with a bad label", "invalid_labels", func(ms pmetric.MetricSlice) {
		addClassic(ms, "bad").Attributes().PutStr("x", "\xff")
	}},
	{"a summary with a bad label", "invalid_labels", func(ms pmetric.MetricSlice) {
		m := ms.AppendEmpty()
		m.SetName("bad")
		p := m.SetEmptySummary().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.QuantileValues().AppendEmpty().SetQuantile(.5)
		p.Attributes().PutStr("x", "\xff")
	}},
}

func addExponential(ms pmetric.MetricSlice, name string, scale int32, count uint64) pmetric.ExponentialHistogramDataPoint {
	m := ms.AppendEmpty()
	m.SetName(name)
	m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p := m.ExponentialHistogram().DataPoints().AppendEmpty()
	p.SetTimestamp(stamp(at))
	p.SetStartTimestamp(stamp(startAt))
	p.SetScale(scale)
	p.SetCount(count)
	p.SetSum(4)
	p.Positive().BucketCounts().FromRaw([]uint64{1})
	return p
}

func addClassic(ms pmetric.MetricSlice, name string) pmetric.HistogramDataPoint {
	m := ms.AppendEmpty()
	m.SetName(name)
	m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p := m.Histogram().DataPoints().AppendEmpty()
	p.SetTimestamp(stamp(at))
	p.SetStartTimestamp(stamp(startAt))
	p.ExplicitBounds().FromRaw([]float64{1, 2})
	p.BucketCounts().FromRaw([]uint64{1, 2, 3})
	p.SetCount(6)
	p.SetSum(10)
	return p
}

// TestOneBadDataPoint shows that a data point that is wrong costs itself alone: the
// 999 around it, also those of its own metric, are stored, and the answer is a
// success that counts and names it.
func TestOneBadDataPoint(t *testing.T) {
	for _, c := range bad {
		t.Run(c.name, func(t *testing.T) {
			md, ms := newMetrics()
			const before = 500
			for i := range before {
				addGauge(ms, fmt.Sprintf("good_%d", i), float64(i))
			}
			c.in(ms)
			// Good data points in the metric of the bad one.
			if last := ms.At(ms.Len() - 1); last.Type() == pmetric.MetricTypeGauge && last.Name() == "bad" {
				p := last.Gauge().DataPoints().AppendEmpty()
				p.SetTimestamp(stamp(at))
				p.SetDoubleValue(-1)
			} else {
				addGauge(ms, "bad", -1)
			}
			for i := range 999 - before - 1 {
				addGauge(ms, fmt.Sprintf("good_%d", before+i), float64(before+i))
			}
			sink := ingesttest.NewSink()
			sink.FutureMillis = at.UnixMilli() + 60_000
			h := newHandler(t, sink, ingest.Limits{}, otlp.Options{Delta: otlp.DeltaRefuse, DisableTargetInfo: true})
			rejected, text := export(t, h, md)
			require.EqualValues(t, 1, rejected, text)
			require.Contains(t, text, c.says)
			written := sink.Written()
			require.Len(t, written, 999)
			require.Equal(t, []float64{-1}, floats(written[labelsOf("bad", "")]))
			for i := range 998 {
				require.Equal(t, []float64{float64(i)}, floats(written[labelsOf(fmt.Sprintf("good_%d", i), "")]))
			}
		})
	}
}

// TestBadBesideGood shows that what is wrong with a resource, a scope, an exemplar or
// metadata costs no data point.
func TestBadBesideGood(t *testing.T) {
	md, ms := newMetrics()
	rm := md.ResourceMetrics().At(0)
	rm.Resource().Attributes().PutStr("__", "x")
	rm.ScopeMetrics().At(0).Scope().Attributes().PutStr("é", "x")
	m := ms.AppendEmpty()
	m.SetName("requests")
	m.SetDescription("\xff")
	m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	m.Sum().SetIsMonotonic(true)
	p := m.Sum().DataPoints().AppendEmpty()
	p.SetTimestamp(stamp(at))
	p.SetIntValue(7)
	p.SetStartTimestamp(math.MaxUint64)
	p.Exemplars().AppendEmpty()
	good := p.Exemplars().AppendEmpty()
	good.SetTimestamp(stamp(at))
	good.SetDoubleValue(1)
	good.SetTraceID(pcommon.TraceID{1})
	long := p.Exemplars().AppendEmpty()
	long.SetTimestamp(stamp(at))
	long.SetDoubleValue(2)
	long.FilteredAttributes().PutStr("", "x")
	sink := ingesttest.NewSink()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{PromoteScopeMetadata: true, PromoteAllResourceAttributes: true, DisableTargetInfo: true})
	rejected, text := export(t, h, md)
	require.Zero(t, rejected, text)
	require.Contains(t, text, "invalid_labels: 1")
	require.Contains(t, text, "invalid_exemplar: 2")
	require.Len(t, sink.Written(), 1)
	for _, s := range sink.Written() {
		require.Equal(t, []float64{7}, floats(s))
		require.Zero(t, s.Samples[0].StartMillis)
		require.Len(t, s.Exemplars, 1)
		require.Equal(t, `{trace_id="01000000000000000000000000000000"}`, s.Exemplars[0].Labels.String())
	}
	require.Empty(t, sink.Families())
}

// TestTargetInfoBounded shows that two data points make no more than some samples of
// target_info, however far apart they are.
func TestTargetInfoBounded(t *testing.T) {
	for _, latest := range []time.Time{at, time.Unix(0, math.MaxInt64)} {
		md, ms := newMetrics()
		addGauge(ms, "old", 1).SetTimestamp(1_000_000)
		addGauge(ms, "new", 1).SetTimestamp(stamp(latest))
		sink := ingesttest.NewSink()
		export(t, newHandler(t, sink, ingest.Limits{}, otlp.Options{}), md)
		info := sink.Written()[`{__name__="target_info", host_name="box", instance="one", job="shop"}`].Samples
		require.Greater(t, len(info), 2)
		require.LessOrEqual(t, len(info), 70)
		require.EqualValues(t, 1, info[0].TimeMillis)
		require.Equal(t, latest.UnixMilli(), info[len(info)-1].TimeMillis)
	}
}

// TestNoRecordedValue shows that a data point that says its series has ended becomes
// a stale marker.
func TestNoRecordedValue(t *testing.T) {
	md, ms := newMetrics()
	gone := pmetric.DefaultDataPointFlags.WithNoRecordedValue(true)
	m := ms.AppendEmpty()
	m.SetName("gone")
	p := m.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetTimestamp(stamp(at))
	p.SetFlags(gone)
	e := addExponential(ms, "native", 3, 1)
	e.SetFlags(gone)
	c := addClassic(ms, "classic")
	c.SetFlags(gone)
	sink := ingesttest.NewSink()
	rejected, text := export(t, newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true}), md)
	require.Zero(t, rejected, text)
	require.Equal(t, value.StaleNaN, sink.Written()[labelsOf("gone", "")].Samples[0].Bits)
	require.True(t, value.IsStaleNaN(sink.Written()[labelsOf("native", "")].Histograms[0].Int.Sum))
	for name, s := range sink.Written() {
		for _, v := range s.Samples {
			require.Equal(t, value.StaleNaN, v.Bits, name)
		}
	}
}

// TestArchiveInTrouble shows that a request in several pieces that fails on the way
// is answered 503.
func TestArchiveInTrouble(t *testing.T) {
	md, ms := newMetrics()
	m := ms.AppendEmpty()
	m.SetName("many")
	points := m.SetEmptyGauge().DataPoints()
	points.EnsureCapacity(70_000)
	for i := range 70_000 {
		p := points.AppendEmpty()
		p.SetTimestamp(stamp(at.Add(time.Duration(i) * time.Millisecond)))
		p.SetIntValue(int64(i))
	}
	sink := ingesttest.NewSink()
	sink.OnWrite = func() { sink.Err = &ingest.RateLimited{RetryAfter: time.Second} }
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{})
	w := post(h, protoBody(t, md), "application/x-protobuf", "")
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, 1, sink.Writes())
	sink.Err, sink.OnWrite = nil, nil
	rejected, _ := export(t, h, md)
	require.Zero(t, rejected)
}

// TestLongTexts shows that texts which labels.Labels can't hold are refused with what bears them, wherever they are: it
// would panic or mix up labels. The rest is stored.
func TestLongTexts(t *testing.T) {
	long := strings.Repeat("x", 17<<20)
	number := func(md pmetric.Metrics) pmetric.NumberDataPoint {
		return addGauge(md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics(), "bad", 1)
	}
	for name, c := range map[string]struct {
		rejected int64
		spoil    func(md pmetric.Metrics)
	}{
		"service name":    {1, func(md pmetric.Metrics) { number(md); attributes(md).PutStr("service.name", long) }},
		"promoted":        {1, func(md pmetric.Metrics) { number(md); attributes(md).PutStr("host.name", long) }},
		"of target_info":  {0, func(md pmetric.Metrics) { attributes(md).PutStr("other", long) }},
		"map":             {0, func(md pmetric.Metrics) { attributes(md).PutEmptyMap("other").PutStr("a", long) }},
		"resource key":    {0, func(md pmetric.Metrics) { attributes(md).PutStr(long, "") }},
		"attribute":       {1, func(md pmetric.Metrics) { number(md).Attributes().PutStr("a", long) }},
		"attribute's key": {1, func(md pmetric.Metrics) { number(md).Attributes().PutStr(long, "a") }},
		"metric":          {1, func(md pmetric.Metrics) { number(md); first(md).SetName(long) }},
		"unit":            {1, func(md pmetric.Metrics) { number(md); first(md).SetUnit(long) }},
		"scope": {1, func(md pmetric.Metrics) {
			number(md)
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).Scope().SetName(long)
		}},
		"scope's attribute": {1, func(md pmetric.Metrics) {
			number(md)
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).Scope().Attributes().PutStr("a", long)
		}},
		"exemplar": {0, func(md pmetric.Metrics) {
			sum := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().AppendEmpty()
			sum.SetName("sum")
			sum.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			p := sum.Sum().DataPoints().AppendEmpty()
			p.SetTimestamp(stamp(at))
			p.SetIntValue(1)
			e := p.Exemplars().AppendEmpty()
			e.SetIntValue(1)
			e.SetTimestamp(stamp(at))
			e.FilteredAttributes().PutStr("a", long)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			sink := ingesttest.NewSink()
			h := newHandler(t, sink, ingest.Limits{}, otlp.Options{PromoteScopeMetadata: true, PromoteResourceAttributes: []string{"host.name"}})
			md, _ := newMetrics()
			c.spoil(md)
			good := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
			addGauge(good, "good", 1)
			rejected, text := export(t, h, md)
			require.Equal(t, c.rejected, rejected, text)
			require.NotEmpty(t, text)
			require.Contains(t, sink.Written(), `{__name__="good"}`)
		})
	}
}

func attributes(md pmetric.Metrics) pcommon.Map {
	return md.ResourceMetrics().At(0).Resource().Attributes()
}

func first(md pmetric.Metrics) pmetric.Metric {
	return md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
}

// TestPanic shows that what a panic leaves behind keeps no other request from its deltas.
func TestPanic(t *testing.T) {
	sink := ingesttest.NewSink()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true})
	sink.OnWrite = func() { panic("a fault") }
	require.Panics(t, func() { post(h, protoBody(t, oneDelta("a", 1, 1)), "application/x-protobuf", "") })
	sink.OnWrite = nil
	rejected, text := export(t, h, oneDelta("a", 2, 2))
	require.Zero(t, rejected, text)
}
