package otlp_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
)

// hostile are requests that hold everything a good one may, and everything that is
// wrong in bad.
func hostile() []pmetric.Metrics {
	var out []pmetric.Metrics
	for _, b := range bad {
		md, ms := newMetrics()
		addGauge(ms, "good", 1)
		b.in(ms)
		out = append(out, md)
	}
	out = append(out, delta(1), delta(2))
	md, ms := newMetrics()
	p := addClassic(ms, "classic")
	e := p.Exemplars().AppendEmpty()
	e.SetIntValue(1)
	e.SetTimestamp(stamp(at))
	p.Attributes().PutEmptyMap("map").PutEmptySlice("list").AppendEmpty().SetBool(true)
	p.Attributes().PutEmptyBytes("bytes").FromRaw([]byte{1, 2})
	x := addExponential(ms, "native", 20, 1<<40)
	x.SetZeroCount(1)
	x.Negative().SetOffset(-1 << 31)
	x.Negative().BucketCounts().FromRaw([]uint64{0, 0, 1 << 63, 5})
	x.Positive().SetOffset(1<<31 - 1)
	x.Positive().BucketCounts().FromRaw([]uint64{1, 0, 0, 0, 0, 0, 2})
	s := ms.AppendEmpty()
	s.SetName("summary")
	q := s.SetEmptySummary().DataPoints().AppendEmpty()
	q.SetTimestamp(stamp(at))
	q.QuantileValues().AppendEmpty().SetQuantile(.5)
	return append(out, md)
}

// options are the ways to translate that a fuzzed request goes through.
var options = []otlp.Options{
	{},
	{TranslationStrategy: "NoTranslation", PromoteAllResourceAttributes: true, PromoteScopeMetadata: true, TypeAndUnitLabels: true, ConvertHistogramsToNHCB: true},
	{Delta: otlp.DeltaKeep, NoLabelNameUnderscoreSanitization: true, SqueezeUnderscores: true, KeepIdentifyingResourceAttributes: true},
}

// exercise posts a body to handlers of all options, twice to each, and holds them to
// what is promised of any body.
func exercise(t *testing.T, body []byte, contentType string) {
	limits := ingest.Limits{DecodedBytesMax: 1 << 20, InFlight: ingest.NewBudget(64 << 20), ErrorBytesMax: 1 << 20, ErrorExamplesMax: 1 << 10}
	for _, o := range options {
		h := newHandler(t, ingesttest.NewSink(), limits, o)
		for range 2 {
			w := post(h, body, contentType, "")
			switch w.Code {
			case http.StatusOK:
				rejected, text := success(t, w)
				require.GreaterOrEqual(t, rejected, int64(0))
				require.False(t, rejected > 0 && text == "", "what was rejected has to be named")
				for _, c := range text {
					require.True(t, c >= ' ' && c < 0x7f, "control characters in %q", text)
				}
				// What the converter itself stops at had to be taken out before.
				for _, converterSays := range []string{"could not get aggregation temporality", "unsupported metric type", "cannot convert exponential", "unsupported exemplar", "normalization for"} {
					require.False(t, strings.Contains(text, converterSays), text)
				}
			case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			default:
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			require.Zero(t, limits.InFlight.Used())
		}
	}
}

// FuzzProto shows what exercise promises of any body for those that are protobuf.
func FuzzProto(f *testing.F) {
	for _, md := range hostile() {
		b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add(nestedValue(20))
	f.Fuzz(func(t *testing.T, body []byte) { exercise(t, body, "application/x-protobuf") })
}

// FuzzJSON shows what exercise promises of any body for those that are JSON.
func FuzzJSON(f *testing.F) {
	for _, md := range hostile() {
		b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalJSON()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"x","gauge":{"dataPoints":[{"timeUnixNano":"1700000000000000000","asDouble":"NaN"}]}}]}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) { exercise(t, body, "application/json") })
}

// FuzzZstd shows that bytes that are no zstd are the sender's fault and need no more
// memory than they may.
func FuzzZstd(f *testing.F) {
	f.Add(zstandard([]byte{0x0a, 0x00}))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		h := newHandler(t, ingesttest.NewSink(), ingest.Limits{DecodedBytesMax: 1 << 20}, otlp.Options{})
		switch w := post(h, body, "application/x-protobuf", "zstd"); w.Code {
		case http.StatusOK, http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}
