package remotewrite_test

import (
	"log/slog"
	"math"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/remotewrite"
	"varve/ingest"
	"varve/ingest/ingesttest"
	receiver "varve/ingest/remotewrite"
	"varve/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// versions are the messages by the name that subtests have.
var versions = map[string]string{"1.0": remotewrite.Message1, "2.0": remotewrite.Message2}

// start is when the samples of tests begin, in Unix ms. It is recent, since a Prometheus takes nothing old into an empty head
// once it has something new.
var start = time.Now().Add(-10 * time.Minute).Truncate(time.Second).UnixMilli()

// newSender returns a sender of everything, closed with the test.
func newSender(t testing.TB, url, message string, change ...func(*remotewrite.Options)) *remotewrite.Sender {
	t.Helper()
	o := remotewrite.Options{Name: "test", URL: url, Message: message, HTTP: config.DefaultHTTPClientConfig, Metadata: true, Exemplars: true, Histograms: true, UserAgent: "varve/test", Timeout: 2 * time.Minute}
	for _, c := range change {
		c(&o)
	}
	s, err := remotewrite.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// prepare gives the sender every target of the batch.
func prepare(t testing.TB, s *remotewrite.Sender, b *forward.Batch) *forward.Batch {
	t.Helper()
	for i := range b.Series {
		require.NoError(t, s.Prepare(b.Series[i].Target))
	}
	return b
}

// varve is a second Varve's receiver over a sink in memory.
func varve(t testing.TB) (url string, sink *ingesttest.Sink) {
	t.Helper()
	sink = ingesttest.NewSink()
	return receive(t, sink), sink
}

// receive serves Varve's receiver over the sink.
func receive(t testing.TB, sink ingest.Sink) (url string) {
	t.Helper()
	s := httptest.NewServer(receiver.New(sink, ingest.Limits{}, ingest.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler), time.Now, receiver.Options{}))
	t.Cleanup(s.Close)
	return s.URL
}

func series(name string, pairs ...string) forward.Series {
	return forward.Series{Target: &forward.Target{Labels: labels.FromStrings(append([]string{model.MetricNameLabel, name}, pairs...)...)}}
}

// odd are values whose bits are easily lost.
var odd = []float64{
	1.5, 0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(value.StaleNaN), math.Float64frombits(0x7ff8_dead_beef_0001),
	math.SmallestNonzeroFloat64, math.MaxFloat64, -1e-300,
}

// floats is a batch of a few series with odd values.
func floats() *forward.Batch {
	b := &forward.Batch{ID: "i-1-2-0"}
	for _, job := range []string{"a", "b", "é \"\n"} {
		s := series("up", "job", job)
		for i, v := range odd {
			s.Floats = append(s.Floats, forward.Float{TimeMillis: start + int64(i)*1000, Value: v})
		}
		b.Series = append(b.Series, s)
	}
	return b
}

// rich is a batch with everything that an archive can hold.
func rich() *forward.Batch {
	b := floats()
	b.Series[0].Floats[1].StartMillis = start - 5000
	b.Series[0].Metadata = metadata.Metadata{Type: model.MetricTypeGauge, Help: "Whether it is up.", Unit: "ratio"}
	b.Series[1].Metadata = b.Series[0].Metadata
	b.Series[0].Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Value: 2, Ts: start, HasTs: true}}
	whole := series("sizes", "job", "a")
	whole.Metadata = metadata.Metadata{Type: model.MetricTypeHistogram, Help: "Sizes."}
	h := &histogram.Histogram{
		Schema: 2, Count: 9, Sum: 12.5, ZeroThreshold: 0.001, ZeroCount: 2, PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}},
		PositiveBuckets: []int64{1, 1, -1}, NegativeSpans: []histogram.Span{{Offset: 0, Length: 2}}, NegativeBuckets: []int64{1, 1},
	}
	h.CounterResetHint = histogram.CounterReset
	stale := &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	custom := &histogram.FloatHistogram{
		Schema: histogram.CustomBucketsSchema, Count: 3.5, Sum: 1, CustomValues: []float64{-1, 0.5, 2}, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []float64{1.25, 2.25},
	}
	whole.Histograms = []forward.Histogram{
		{TimeMillis: start, StartMillis: start - 1, Int: h}, {TimeMillis: start + 1000, Float: h.ToFloat(nil)},
		{TimeMillis: start + 2000, Float: custom}, {TimeMillis: start + 3000, Int: stale},
	}
	whole.Exemplars = []exemplar.Exemplar{{Labels: labels.EmptyLabels(), Value: math.NaN(), Ts: start + 7, HasTs: true}}
	mixed := series("mixed")
	mixed.Floats = []forward.Float{{TimeMillis: start, Value: 1}}
	mixed.Histograms = []forward.Histogram{{TimeMillis: start + 500, Int: h}}
	b.Series = append(b.Series, whole, mixed)
	b.Families = []forward.FamilyMetadata{
		{Family: "up", Metadata: b.Series[0].Metadata}, {Family: "sizes", Metadata: whole.Metadata},
		{Family: "other", Metadata: metadata.Metadata{Type: model.MetricTypeStateset, Help: "x"}},
	}
	return b
}
