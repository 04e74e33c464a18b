package otlp_test

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
)

// app is a program that counts with the OpenTelemetry SDK and exports to a handler.
type app struct {
	reader   *sdk.ManualReader
	exporter *otlpmetrichttp.Exporter
	provider *sdk.MeterProvider
	meter    metric.Meter
}

// startApp starts an app whose sums and histograms have the temporality.
func startApp(t *testing.T, h http.Handler, temporality metricdata.Temporality) *app {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/api/v1/otlp/v1/metrics", h)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	select1 := func(kind sdk.InstrumentKind) metricdata.Temporality {
		if kind == sdk.InstrumentKindUpDownCounter || kind == sdk.InstrumentKindObservableUpDownCounter {
			return metricdata.CumulativeTemporality
		}
		return temporality
	}
	exporter, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(server.URL+"/api/v1/otlp/v1/metrics"),
		otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression), otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{}), otlpmetrichttp.WithTimeout(2*time.Minute))
	require.NoError(t, err)
	reader := sdk.NewManualReader(sdk.WithTemporalitySelector(select1))
	provider := sdk.NewMeterProvider(
		sdk.WithReader(reader),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "shop"), attribute.String("service.instance.id", "one"))),
		sdk.WithExemplarFilter(exemplar.AlwaysOnFilter),
		sdk.WithView(sdk.NewView(sdk.Instrument{Name: "native"}, sdk.Stream{Aggregation: sdk.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})),
	)
	t.Cleanup(func() {
		require.NoError(t, provider.Shutdown(context.Background()))
		require.NoError(t, exporter.Shutdown(context.Background()))
	})
	return &app{reader: reader, exporter: exporter, provider: provider, meter: provider.Meter("lib")}
}

// export sends what the app has measured and returns it as the app sees it.
func (a *app) export(t *testing.T) metricdata.ResourceMetrics {
	t.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(t, a.reader.Collect(t.Context(), &rm))
	require.NoError(t, a.exporter.Export(t.Context(), &rm))
	return rm
}

// TestSDK shows that what a program measures with the OpenTelemetry SDK for Go is
// what is stored: counters, up-down counters, gauges, both kinds of histograms and
// their exemplars, exported as cumulative values and as deltas.
func TestSDK(t *testing.T) {
	for name, temporality := range map[string]metricdata.Temporality{"cumulative": metricdata.CumulativeTemporality, "delta": metricdata.DeltaTemporality} {
		t.Run(name, func(t *testing.T) {
			sink := ingesttest.NewSink()
			a := startApp(t, newHandler(t, sink, ingest.Limits{}, otlp.Options{FutureMax: untilToday}), temporality)
			counter, err := a.meter.Int64Counter("requests", metric.WithDescription("Requests."), metric.WithUnit("1"))
			require.NoError(t, err)
			floats64, err := a.meter.Float64Counter("spent", metric.WithUnit("s"))
			require.NoError(t, err)
			updown, err := a.meter.Int64UpDownCounter("queue")
			require.NoError(t, err)
			gauge, err := a.meter.Float64Gauge("temperature")
			require.NoError(t, err)
			classic, err := a.meter.Float64Histogram("latency", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(1, 5, 10))
			require.NoError(t, err)
			native, err := a.meter.Float64Histogram("native")
			require.NoError(t, err)

			span := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{7}, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled}))
			with := metric.WithAttributes(attribute.String("http.method", "GET"))
			var total, spent, sum float64
			observed := 0
			for round := range 5 {
				for i := range 10 {
					v := float64(i) * math.Pow(1.7, float64(round))
					counter.Add(span, int64(i), with)
					floats64.Add(span, v, with)
					updown.Add(span, int64(5-i), with)
					gauge.Record(span, v, with)
					classic.Record(span, v, with)
					native.Record(span, v, with)
					total, spent, sum, observed = total+float64(i), spent+v, sum+v, observed+1
				}
				a.export(t)
				last := func(series string) float64 {
					vs := floats(sink.Written()[labelsOf(series, `http_method="GET", `)])
					require.Len(t, vs, round+1, "%s: %v", series, keys(sink))
					return vs[round]
				}
				require.Equal(t, total, last("requests_total"))
				require.InEpsilon(t, spent, last("spent_seconds_total"), 1e-12)
				require.Equal(t, 5*float64(round+1), last("queue"))
				require.Equal(t, 9*math.Pow(1.7, float64(round)), last("temperature"))
				require.Equal(t, float64(observed), last("latency_seconds_count"))
				require.InEpsilon(t, sum, last("latency_seconds_sum"), 1e-12)
				buckets := sink.Written()[`{__name__="latency_seconds_bucket", http_method="GET", instance="one", job="shop", le="+Inf"}`]
				require.Equal(t, float64(observed), floats(buckets)[round])

				h := sink.Written()[labelsOf("native", `http_method="GET", `)].Histograms
				require.Len(t, h, round+1)
				require.NotNil(t, h[round].Int)
				require.EqualValues(t, observed, h[round].Int.Count)
				require.InEpsilon(t, sum, h[round].Int.Sum, 1e-12)
				require.EqualValues(t, round+1, h[round].Int.ZeroCount)
				require.NoError(t, h[round].Int.Validate())
				require.Equal(t, h[0].StartMillis, h[round].StartMillis, "one counter, from its first start")
				require.NotZero(t, h[0].StartMillis)
			}
			require.NotEmpty(t, sink.Written()[labelsOf("requests_total", `http_method="GET", `)].Exemplars)
			for _, e := range sink.Written()[labelsOf("requests_total", `http_method="GET", `)].Exemplars {
				require.Equal(t, "07000000000000000000000000000000", e.Labels.Get("trace_id"))
				require.Equal(t, "0900000000000000", e.Labels.Get("span_id"))
			}
			require.Equal(t, "Requests.", sink.Families()["requests_total"].Help)
			require.EqualValues(t, "counter", sink.Families()["requests_total"].Type)
			require.EqualValues(t, "histogram", sink.Families()["native"].Type)
		})
	}
}

func keys(sink *ingesttest.Sink) (names []string) {
	for name := range sink.Written() {
		names = append(names, name)
	}
	return names
}

// TestSDKRefusedDelta shows that the SDK reads a partial success: the gauge beside
// the delta is stored, and the exporter reports what was refused.
func TestSDKRefusedDelta(t *testing.T) {
	sink := ingesttest.NewSink()
	a := startApp(t, newHandler(t, sink, ingest.Limits{}, otlp.Options{Delta: otlp.DeltaRefuse}), metricdata.DeltaTemporality)
	counter, err := a.meter.Int64Counter("requests")
	require.NoError(t, err)
	gauge, err := a.meter.Int64Gauge("temperature")
	require.NoError(t, err)
	counter.Add(t.Context(), 1)
	gauge.Record(t.Context(), 4)
	var rm metricdata.ResourceMetrics
	require.NoError(t, a.reader.Collect(t.Context(), &rm))
	err = a.exporter.Export(t.Context(), &rm)
	require.ErrorContains(t, err, "1 metric data points")
	require.ErrorContains(t, err, "delta temporality")
	require.Equal(t, []float64{4}, floats(sink.Written()[labelsOf("temperature", "")]))
}
