package otlp_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
)

// delta is a request with deltas of a counter, an explicit and an exponential
// histogram, of the second that ends n seconds after startAt.
func delta(n int) pmetric.Metrics {
	md, ms := newMetrics()
	from, to := stamp(startAt.Add(time.Duration(n-1)*time.Second)), stamp(startAt.Add(time.Duration(n)*time.Second))
	m := ms.AppendEmpty()
	m.SetName("requests")
	m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	m.Sum().SetIsMonotonic(true)
	p := m.Sum().DataPoints().AppendEmpty()
	p.SetIntValue(int64(n))
	p.SetStartTimestamp(from)
	p.SetTimestamp(to)

	c := addClassic(ms, "classic")
	ms.At(ms.Len() - 1).Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	c.SetStartTimestamp(from)
	c.SetTimestamp(to)

	e := addExponential(ms, "native", int32(n%4), 1)
	ms.At(ms.Len() - 1).ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	e.SetStartTimestamp(from)
	e.SetTimestamp(to)
	addGauge(ms, "gauge", 1)
	return md
}

// TestDelta shows that deltas add up under the first start, that a repeated request
// changes nothing, and that one that is too late is refused.
func TestDelta(t *testing.T) {
	sink := ingesttest.NewSink()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true})
	for _, n := range []int{1, 2, 2, 4} {
		rejected, text := export(t, h, delta(n))
		require.Zero(t, rejected, text)
	}
	rejected, text := export(t, h, delta(3))
	require.EqualValues(t, 3, rejected, text)
	require.Contains(t, text, "not later")
	written := sink.Written()
	require.Equal(t, []float64{1, 3, 7}, floats(written[labelsOf("requests_total", "")]))
	for _, s := range written[labelsOf("requests_total", "")].Samples {
		require.Equal(t, startAt.UnixMilli(), s.StartMillis)
	}
	require.Equal(t, []float64{6, 12, 18}, floats(written[labelsOf("classic_count", "")]))
	require.Equal(t, []float64{10, 20, 30}, floats(written[labelsOf("classic_sum", "")]))
	require.Equal(t, []float64{3, 6, 9}, floats(written[`{__name__="classic_bucket", instance="one", job="shop", le="2"}`]))
	hs := written[labelsOf("native", "")].Histograms
	require.Len(t, hs, 3)
	for i, h := range hs {
		require.EqualValues(t, i+1, h.Int.Count)
		require.Equal(t, 4*float64(i+1), h.Int.Sum)
		require.NoError(t, h.Int.Validate())
	}
	require.EqualValues(t, 0, hs[2].Int.Schema, "the coarsest of those added")
	require.EqualValues(t, "counter", sink.Families()["requests_total"].Type)
}

// TestDeltaRepeatedAfterTrouble shows that a request that the archive could not write
// adds up once when it is sent again.
func TestDeltaRepeatedAfterTrouble(t *testing.T) {
	sink := ingesttest.NewSink()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true})
	export(t, h, delta(1))
	sink.Err = &arrival.Unavailable{Reason: "disk_full", Err: errors.New("no space")}
	for range 3 {
		require.Equal(t, http.StatusServiceUnavailable, post(h, protoBody(t, delta(2)), "application/x-protobuf", "").Code)
	}
	sink.Err = nil
	rejected, text := export(t, h, delta(2))
	require.Zero(t, rejected, text)
	require.Equal(t, []float64{1, 3}, floats(sink.Written()[labelsOf("requests_total", "")]))
	require.EqualValues(t, 2, sink.Written()[labelsOf("native", "")].Histograms[1].Int.Count)
}

// TestDeltaBounded shows that a sum that was not used for long is forgotten where
// others need the memory, and begins anew with the start of the delta it begins with.
func TestDeltaBounded(t *testing.T) {
	sink := ingesttest.NewSink()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true, DeltaStateBytesMax: 20_000})
	others := func(round int) {
		md, ms := newMetrics()
		for i := range 100 {
			m := ms.AppendEmpty()
			m.SetName(fmt.Sprintf("other_%d_%d", round, i))
			m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			p := m.Sum().DataPoints().AppendEmpty()
			p.SetIntValue(1)
			p.SetTimestamp(stamp(at))
		}
		export(t, h, md)
	}
	export(t, h, delta(1))
	export(t, h, delta(2))
	for round := range 5 {
		others(round)
	}
	export(t, h, delta(3))
	got := sink.Written()[labelsOf("requests_total", "")]
	require.Equal(t, []float64{1, 3, 3}, floats(got))
	require.Equal(t, startAt.UnixMilli(), got.Samples[1].StartMillis)
	require.Equal(t, startAt.Add(2*time.Second).UnixMilli(), got.Samples[2].StartMillis)
}

// TestDeltaKept shows that deltas can be stored as they are.
func TestDeltaKept(t *testing.T) {
	sink := ingesttest.NewSink()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true, Delta: otlp.DeltaKeep})
	export(t, h, delta(1))
	export(t, h, delta(2))
	require.Equal(t, []float64{1, 2}, floats(sink.Written()[labelsOf("requests_total", "")]))
	require.NotContains(t, sink.Families(), "requests_total", "of an unknown type nothing is said")
}

// TestDeltaNotFinite shows that an infinite delta is refused and does not spoil the sum.
func TestDeltaNotFinite(t *testing.T) {
	sink := ingesttest.NewSink()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true})
	export(t, h, delta(1))
	md := delta(2)
	inf := 1e308
	md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).SetDoubleValue(inf * 10)
	rejected, text := export(t, h, md)
	require.EqualValues(t, 1, rejected)
	require.Contains(t, text, "invalid_value")
	export(t, h, delta(3))
	require.Equal(t, []float64{1, 4}, floats(sink.Written()[labelsOf("requests_total", "")]))
}

// oneDelta is a request with a delta of a counter, which ends n seconds after startAt.
func oneDelta(name string, n int, v int64) pmetric.Metrics {
	md, ms := newMetrics()
	m := ms.AppendEmpty()
	m.SetName(name)
	m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	m.Sum().SetIsMonotonic(true)
	p := m.Sum().DataPoints().AppendEmpty()
	p.SetIntValue(v)
	p.SetStartTimestamp(stamp(startAt))
	p.SetTimestamp(stamp(startAt.Add(time.Duration(n) * time.Second)))
	return md
}

// TestDeltaOfTomorrow shows that a delta with a clock far ahead is refused, and that those which follow
// are not refused for being older.
func TestDeltaOfTomorrow(t *testing.T) {
	sink := ingesttest.NewSink()
	sink.FutureMillis = at.Add(10 * time.Minute).UnixMilli()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true})
	export(t, h, oneDelta("requests", 1, 1))
	rejected, text := export(t, h, oneDelta("requests", 86_400, 100))
	require.EqualValues(t, 1, rejected)
	require.Contains(t, text, "too_far_in_future")
	rejected, text = export(t, h, oneDelta("requests", 2, 2))
	require.Zero(t, rejected, text)
	require.Equal(t, []float64{1, 3}, floats(sink.Written()[labelsOf("requests_total", "")]))
}

// TestDeltaOfRefusedSeries shows that a delta whose series is refused is in no sum.
func TestDeltaOfRefusedSeries(t *testing.T) {
	sink := ingesttest.NewSink()
	sink.SeriesMax = 1
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{DisableTargetInfo: true})
	export(t, h, oneDelta("first", 1, 1))
	rejected, text := export(t, h, oneDelta("second", 1, 1))
	require.EqualValues(t, 1, rejected, text)
	sink.SeriesMax = 2
	rejected, text = export(t, h, oneDelta("second", 2, 2))
	require.Zero(t, rejected, text)
	require.Equal(t, []float64{2}, floats(sink.Written()[labelsOf("second_total", "")]))
}
