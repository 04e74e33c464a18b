package otlp_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
	"varve/internal/testkit/race"
)

// walkOptions are ways to translate that walks and the converter have to agree on.
var walkOptions = append([]otlp.Options{
	{DisableTargetInfo: true, PromoteResourceAttributes: []string{"host.name"}},
	{ConvertHistogramsToNHCB: true, Delta: otlp.DeltaRefuse, LookbackDelta: time.Second},
}, options...)

// twoWays are two handlers with the same options, of which one does not walk, and what they wrote.
type twoWays struct {
	handlers   [2]*otlp.Handler
	sinks      [2]*ingesttest.Sink
	registries [2]*prometheus.Registry
}

func newTwoWays(t testing.TB, limits ingest.Limits, o otlp.Options, sink func() *ingesttest.Sink) *twoWays {
	w := &twoWays{}
	for i := range w.handlers {
		w.sinks[i], w.registries[i] = sink(), prometheus.NewRegistry()
		h, err := otlp.New(w.sinks[i], limits, ingest.NewMetrics(w.registries[i]).For("otlp"), discard, fixedNow, o)
		require.NoError(t, err)
		w.handlers[i] = h
	}
	w.handlers[1].WithoutWalks()
	return w
}

// post sends a body to both and holds them to the same answer, the same samples and the same counts.
func (w *twoWays) post(t testing.TB, body []byte) {
	var codes [2]int
	var answers [2]string
	for i, h := range w.handlers {
		w.sinks[i].Clear()
		a := post(h, body, "application/x-protobuf", "")
		codes[i], answers[i] = a.Code, a.Body.String()
	}
	require.Equal(t, codes[1], codes[0], "%q and %q", answers[0], answers[1])
	require.Equal(t, answers[1], answers[0])
	require.Equal(t, printed(w.sinks[1]), printed(w.sinks[0]))
	require.Equal(t, w.sinks[1].Families(), w.sinks[0].Families())
	require.Equal(t, counters(t, w.registries[1]), counters(t, w.registries[0]))
}

// refuseAfter makes both refuse what is later, unless it is zero.
func (w *twoWays) refuseAfter(millis int64) {
	for _, s := range w.sinks {
		s.FutureMillis = millis
	}
}

// printed are the samples of a sink: as text, for NaN equals nothing.
func printed(s *ingesttest.Sink) map[string]string {
	out := map[string]string{}
	for ls, series := range s.Written() {
		text := fmt.Sprint(series.Samples)
		for _, h := range series.Histograms {
			text += fmt.Sprint(" ", h.TimeMillis, h.StartMillis, h.Int, h.Float)
		}
		for _, e := range series.Exemplars {
			text += fmt.Sprint(" ", e)
		}
		out[ls] = text
	}
	return out
}

// counters are those of a registry, by name and labels.
func counters(t testing.TB, from prometheus.Gatherer) map[string]float64 {
	families, err := from.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetCounter() != nil {
				out[f.GetName()+fmt.Sprint(m.GetLabel())] = m.GetCounter().GetValue()
			}
		}
	}
	return out
}

// randomRequest makes a request of the usual kinds, out of few names so that they meet again, with something unusual now
// and then.
func randomRequest(r *rand.Rand) pmetric.Metrics {
	md := pmetric.NewMetrics()
	odd := r.IntN(4) == 0
	sometimes := func() bool { return odd && r.IntN(12) == 0 }
	attributes := func(m pcommon.Map) {
		for range r.IntN(3) {
			m.PutStr(fmt.Sprintf("k.%d", r.IntN(3)), fmt.Sprint(r.IntN(2)))
		}
		if r.IntN(8) == 0 {
			m.PutInt("k_1", int64(r.IntN(2)))
		}
		if sometimes() {
			m.PutStr([]string{"__name__", "", "job", "bad\xff", "_"}[r.IntN(5)], "v")
		}
		if sometimes() {
			m.PutEmptyMap("map").PutBool("b", true)
		}
	}
	moment := func() pcommon.Timestamp {
		switch {
		case sometimes():
			return pcommon.Timestamp(r.Uint64())
		case sometimes():
			return 0
		}
		return stamp(at.Add(time.Duration(r.IntN(4)-3) * 100 * time.Second))
	}
	start := func() pcommon.Timestamp {
		if r.IntN(2) == 0 {
			return 0
		}
		return stamp(startAt) + pcommon.Timestamp(r.IntN(3)*1_500_000)
	}
	number := func(p pmetric.NumberDataPoint) {
		attributes(p.Attributes())
		p.SetTimestamp(moment())
		p.SetStartTimestamp(start())
		switch r.IntN(8) {
		case 0:
			p.SetIntValue(int64(r.Uint64()))
		case 1:
			p.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
		case 2:
			if !odd {
				p.SetDoubleValue(math.NaN())
			}
		default:
			p.SetDoubleValue(r.Float64())
		}
		if sometimes() {
			e := p.Exemplars().AppendEmpty()
			e.SetDoubleValue(1)
			e.SetTimestamp(moment())
		}
	}
	temporality := func() pmetric.AggregationTemporality {
		if sometimes() {
			return pmetric.AggregationTemporality(r.IntN(4))
		}
		return pmetric.AggregationTemporalityCumulative
	}
	for range 1 + r.IntN(3) {
		rm := md.ResourceMetrics().AppendEmpty()
		if r.IntN(8) > 0 {
			rm.Resource().Attributes().PutStr("service.name", "shop")
		}
		if r.IntN(2) > 0 {
			rm.Resource().Attributes().PutStr("host.name", fmt.Sprint(r.IntN(2)))
		}
		if r.IntN(4) == 0 {
			attributes(rm.Resource().Attributes())
		}
		for range 1 + r.IntN(2) {
			sm := rm.ScopeMetrics().AppendEmpty()
			sm.Scope().SetName([]string{"", "a", "b"}[r.IntN(3)])
			sm.SetSchemaUrl([]string{"", "https://x"}[r.IntN(2)])
			if r.IntN(3) == 0 {
				attributes(sm.Scope().Attributes())
			}
			for range 1 + r.IntN(3) {
				m := sm.Metrics().AppendEmpty()
				m.SetName([]string{"a.b", "a_b", "requests", "target_info", "..."}[r.IntN(4)+map[bool]int{true: 1}[sometimes()]])
				m.SetUnit([]string{"", "s", "By"}[r.IntN(3)])
				m.SetDescription([]string{"", "Target metadata", "text"}[r.IntN(3)])
				if sometimes() {
					continue
				}
				points := r.IntN(3)
				if !odd {
					points++
				}
				switch r.IntN(4) {
				case 0:
					m.SetEmptyGauge()
					for range points {
						number(m.Gauge().DataPoints().AppendEmpty())
					}
				case 1:
					m.SetEmptySum().SetAggregationTemporality(temporality())
					m.Sum().SetIsMonotonic(r.IntN(2) == 0)
					for range points {
						number(m.Sum().DataPoints().AppendEmpty())
					}
				case 2, 3:
					m.SetEmptyHistogram().SetAggregationTemporality(temporality())
					for range points {
						p := m.Histogram().DataPoints().AppendEmpty()
						attributes(p.Attributes())
						p.SetTimestamp(moment())
						p.SetStartTimestamp(start())
						p.SetCount(r.Uint64N(100))
						if r.IntN(3) > 0 {
							p.SetSum(r.Float64())
							p.SetMax(1)
						}
						p.ExplicitBounds().FromRaw([]float64{1, 2.5, math.Inf(1)}[:r.IntN(4)])
						p.BucketCounts().FromRaw([]uint64{1, 2, 3, 4}[:r.IntN(5)])
						p.SetFlags(p.Flags().WithNoRecordedValue(r.IntN(8) == 0))
						if sometimes() {
							e := p.Exemplars().AppendEmpty()
							e.SetIntValue(2)
							e.SetTimestamp(stamp(at))
						}
					}
				}
			}
		}
	}
	return md
}

// TestWalkTargetInfoOfItsOwn shows that a metric called target_info that meets the one of a resource before it is stored alike both
// ways: the later of two samples of one time wins.
func TestWalkTargetInfoOfItsOwn(t *testing.T) {
	w := newTwoWays(t, ingest.Limits{}, walkOptions[0], ingesttest.NewSink)
	md := pmetric.NewMetrics()
	for _, name := range []string{"a", "target_info"} {
		r := md.ResourceMetrics().AppendEmpty()
		r.Resource().Attributes().PutStr("service.name", "shop")
		r.Resource().Attributes().PutStr("k", "v")
		m := r.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName(name)
		p := m.SetEmptyGauge().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.SetDoubleValue(7)
		if name == "target_info" {
			p.Attributes().PutStr("k", "v")
		}
	}
	body := protoBody(t, md)
	for range 3 {
		w.post(t, body)
	}
	require.False(t, w.handlers[0].Walks(body))
}

// walkSeed is the same whenever CI runs, another each time with VARVE_LONG=1, and what WALK_SEED says.
func walkSeed(t *testing.T) uint64 {
	t.Helper()
	if text := os.Getenv("WALK_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		return seed
	}
	if os.Getenv("VARVE_LONG") != "" {
		return uint64(time.Now().UnixNano())
	}
	return 1
}

// TestWalkRandom shows that a request is answered and stored alike whether it is walked or converted, for random requests
// and damaged ones, and that most of those which come again are walked.
func TestWalkRandom(t *testing.T) {
	seed := walkSeed(t)
	t.Logf("WALK_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for n, o := range walkOptions {
		for _, full := range []bool{false, true} {
			w := newTwoWays(t, ingest.Limits{}, o, func() *ingesttest.Sink {
				s := ingesttest.NewSink()
				if full {
					s.SeriesMax = 300
				}
				return s
			})
			walked := 0
			const requests = 150
			for i := range requests {
				body := protoBody(t, randomRequest(r))
				if i%10 == 9 {
					damage(r, body)
				}
				for range 2 {
					w.post(t, body)
				}
				if w.handlers[0].Walks(body) {
					walked++
				}
				// What is known may be refused for its time.
				w.refuseAfter(at.Add(-50 * time.Second).UnixMilli())
				w.post(t, body)
				w.refuseAfter(0)
			}
			t.Logf("options %d, full %t: %d of %d requests walked", n, full, walked, requests)
			require.True(t, full || walked > 0)
		}
	}
}

// damage changes a byte or two.
func damage(r *rand.Rand, body []byte) {
	for range 1 + r.IntN(2) {
		if len(body) > 0 {
			body[r.IntN(len(body))] = byte(r.Uint64())
		}
	}
}

// TestWalkGivesUp shows that what walks don't know takes the long way, each time it comes, beside what they do know.
func TestWalkGivesUp(t *testing.T) {
	w := newTwoWays(t, ingest.Limits{}, otlp.Options{}, ingesttest.NewSink)
	good, ms := newMetrics()
	addGauge(ms, "good", 1)
	for range 2 {
		w.post(t, protoBody(t, good))
	}
	require.True(t, w.handlers[0].Walks(protoBody(t, good)))
	for i, md := range hostile() {
		body := protoBody(t, md)
		for range 3 {
			w.post(t, body)
		}
		// This sink knows no future.
		require.Equal(t, i < len(bad) && bad[i].name == "far in the future", w.handlers[0].Walks(body), i)
	}
	require.True(t, w.handlers[0].Walks(protoBody(t, good)))
	// Messages after one another are one message, whose parts are merged.
	for range 3 {
		w.post(t, append(protoBody(t, good), protoBody(t, good)...))
	}
}

// TestWalkForgotten shows that a request is stored after the archive forgot its series' keys, and walked from then on.
func TestWalkForgotten(t *testing.T) {
	sink := ingesttest.NewSink()
	h := newHandler(t, sink, ingest.Limits{}, otlp.Options{})
	md, ms := newMetrics()
	addGauge(ms, "a", 1)
	addClassic(ms, "b")
	ms.RemoveIf(func(m pmetric.Metric) bool {
		return m.Type() == pmetric.MetricTypeHistogram && m.Histogram().DataPoints().At(0).Exemplars().Len() > 0
	})
	body := protoBody(t, md)
	require.False(t, h.Walks(body))
	require.Equal(t, http.StatusOK, post(h, body, "application/x-protobuf", "").Code)
	require.True(t, h.Walks(body))
	want := printed(sink)
	sink.Clear()
	require.Equal(t, http.StatusOK, post(h, body, "application/x-protobuf", "").Code)
	require.Equal(t, want, printed(sink))
	sink.Forget()
	sink.Clear()
	require.False(t, h.Walks(body))
	require.Equal(t, http.StatusOK, post(h, body, "application/x-protobuf", "").Code)
	require.Equal(t, want, printed(sink))
	require.True(t, h.Walks(body))
}

// TestWalkAllocations shows that a sample of a known series takes no memory of its own.
func TestWalkAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector drops what pools hold")
	}
	allocations := func(points int) float64 {
		h := newHandler(t, forgetful{ingesttest.NewSink()}, ingest.Limits{}, otlp.Options{})
		body := protoBody(t, steady(points))
		require.Equal(t, http.StatusOK, post(h, body, "application/x-protobuf", "").Code)
		require.True(t, h.Walks(body))
		w := &bareWriter{header: http.Header{}}
		r, err := http.NewRequest(http.MethodPost, "/v1/metrics", http.NoBody)
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-protobuf")
		return testing.AllocsPerRun(50, func() {
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			h.ServeHTTP(w, r)
		})
	}
	few, many := allocations(10), allocations(1000)
	require.Less(t, many, few+10)
}

// steady is a request of gauges, sums and histograms.
func steady(points int) pmetric.Metrics {
	md, ms := newMetrics()
	g, s, h := ms.AppendEmpty(), ms.AppendEmpty(), ms.AppendEmpty()
	g.SetName("gauge")
	s.SetName("sum")
	h.SetName("histogram")
	s.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	h.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	g.SetEmptyGauge()
	for i := range points {
		for _, p := range []pmetric.NumberDataPoint{g.Gauge().DataPoints().AppendEmpty(), s.Sum().DataPoints().AppendEmpty()} {
			p.SetTimestamp(stamp(at))
			p.SetStartTimestamp(stamp(startAt))
			p.SetDoubleValue(float64(i))
			p.Attributes().PutStr("i", fmt.Sprint(i))
			p.Attributes().PutStr("code", strings.Repeat("x", i%7))
		}
		p := h.Histogram().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(at))
		p.SetStartTimestamp(stamp(startAt))
		p.Attributes().PutStr("i", fmt.Sprint(i))
		p.SetCount(3)
		p.SetSum(3)
		p.ExplicitBounds().FromRaw([]float64{1, 2, 4})
		p.BucketCounts().FromRaw([]uint64{1, 1, 1, 0})
	}
	return md
}

// FuzzWalk shows that any body is answered and stored alike whether it is walked or converted, after a request that made
// some of its keys known.
func FuzzWalk(f *testing.F) {
	for _, md := range append(hostile(), steady(1)) {
		b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
		require.NoError(f, err)
		f.Add(b)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		f.Add(protoBody(f, randomRequest(r)))
	}
	known := protoBody(f, steady(1))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, o := range walkOptions {
			w := newTwoWays(t, ingest.Limits{DecodedBytesMax: 1 << 20}, o, ingesttest.NewSink)
			w.post(t, known)
			for range 2 {
				w.post(t, body)
			}
			w.post(t, known)
		}
	})
}
