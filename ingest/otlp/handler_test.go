package otlp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/protobuf/encoding/protowire"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
)

// TestEncodings shows that both encodings, plain and compressed, say the same, and
// that the answer comes in the request's.
func TestEncodings(t *testing.T) {
	md, ms := newMetrics()
	addGauge(ms, "temperature", 21.5).Attributes().PutStr("room.no", "3")
	request := pmetricotlp.NewExportRequestFromMetrics(md)
	proto, err := request.MarshalProto()
	require.NoError(t, err)
	json, err := request.MarshalJSON()
	require.NoError(t, err)
	want := labelsOf("temperature", "")[:len(`{__name__="temperature", instance="one", job="shop"`)] + `, room_no="3"}`
	for _, body := range []struct {
		bytes       []byte
		contentType string
	}{
		{proto, "application/x-protobuf"}, {proto, "application/protobuf"},
		{json, "application/json"}, {json, "application/json; charset=utf-8"},
	} {
		for encoding, compress := range map[string]func([]byte) []byte{"": same, "identity": same, "gzip": gzipped, "zstd": zstandard} {
			sink := ingesttest.NewSink()
			h := newHandler(t, sink, ingest.Limits{}, otlp.Options{})
			w := post(h, compress(body.bytes), body.contentType, encoding)
			require.Equal(t, http.StatusOK, w.Code, "%s %s: %s", body.contentType, encoding, w.Body)
			require.Equal(t, strings.Contains(body.contentType, "json"), w.Header().Get("Content-Type") == "application/json")
			rejected, text := success(t, w)
			require.Zero(t, rejected)
			require.Empty(t, text)
			require.Equal(t, []float64{21.5}, floats(sink.Written()[want]), "%v", sink.Written())
			require.Contains(t, sink.Families(), "temperature")
		}
	}
}

func same(b []byte) []byte { return b }

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zstandard(b []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

// TestAnswers shows the status of everything that is not stored, with a
// google.rpc.Status in the request's encoding.
func TestAnswers(t *testing.T) {
	md, ms := newMetrics()
	addGauge(ms, "x", 1)
	good := protoBody(t, md)
	nested := nestedValue(200)
	unavailable := &arrival.Unavailable{Reason: "disk_full", RetryAfter: 7 * time.Second, Err: errors.New("no space")}
	for _, c := range []struct {
		name         string
		contentType  string
		encoding     string
		body         []byte
		sinkErr      error
		code         int
		retryAfter   string
		rpc          uint64
		textContains string
	}{
		{"no type", "", "", good, nil, 415, "", 12, "Content-Type"},
		{"other type", "text/plain", "", good, nil, 415, "", 12, "Content-Type"},
		{"other compression", "application/x-protobuf", "br", good, nil, 415, "", 12, "encoding"},
		{"truncated", "application/x-protobuf", "", good[:len(good)-3], nil, 400, "", 3, "malformed"},
		{"no protobuf", "application/x-protobuf", "", []byte("hello"), nil, 400, "", 3, "malformed"},
		{"a group", "application/x-protobuf", "", []byte{0x0b, 0x0c}, nil, 400, "", 3, "group"},
		{"no gzip", "application/x-protobuf", "gzip", good, nil, 400, "", 3, "gzip"},
		{"no zstd", "application/x-protobuf", "zstd", good, nil, 400, "", 3, "zstd"},
		{"too deep", "application/x-protobuf", "", nested, nil, 400, "", 3, "deep"},
		{"too big", "application/x-protobuf", "", make([]byte, 5000), nil, 413, "", 8, "too big"},
		{"too big unpacked", "application/x-protobuf", "gzip", gzipped(make([]byte, 5000)), nil, 413, "", 8, "too big"},
		{"too big unpacked", "application/x-protobuf", "zstd", zstandard(make([]byte, 5000)), nil, 413, "", 8, "too big"},
		{"too big decoded", "application/x-protobuf", "", bytes.Repeat([]byte{0x0a, 0x00}, 2000), nil, 413, "", 8, "decoded form"},
		{"our trouble", "application/x-protobuf", "", good, unavailable, 503, "7", 14, "disk_full"},
		{"rate", "application/x-protobuf", "", good, &ingest.RateLimited{RetryAfter: 1500 * time.Millisecond}, 429, "2", 8, "samples a second"},
	} {
		sink := ingesttest.NewSink()
		sink.Err = c.sinkErr
		h := newHandler(t, sink, ingest.Limits{CompressedBytesMax: 4096, DecodedBytesMax: 4096}, otlp.Options{})
		w := post(h, c.body, c.contentType, c.encoding)
		require.Equal(t, c.code, w.Code, "%s: %q", c.name, w.Body)
		require.Equal(t, c.retryAfter, w.Header().Get("Retry-After"), c.name)
		require.Equal(t, "application/x-protobuf", w.Header().Get("Content-Type"), c.name)
		code, text := rpcStatus(t, w.Body.Bytes())
		require.Equal(t, c.rpc, code, c.name)
		require.Contains(t, text, c.textContains, c.name)
		require.Empty(t, sink.Written(), c.name)
	}
	h := newHandler(t, ingesttest.NewSink(), ingest.Limits{}, otlp.Options{})
	for _, body := range []string{`{"resourceMetrics":[`, `{}garbage`, ``, `{"resourceMetrics":[{"scopeMetrics":7}]}`} {
		w := post(h, []byte(body), "application/json", "")
		require.Equal(t, 400, w.Code, body)
		require.Contains(t, w.Body.String(), `{"code":3,"message":"malformed`)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/metrics", http.NoBody))
	require.Equal(t, 405, w.Code)
	require.Equal(t, "POST", w.Header().Get("Allow"))
}

// nestedValue is a request whose resource has an attribute of lists within lists.
func nestedValue(depth int) []byte {
	field := func(number protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), b)
	}
	var value []byte
	for range depth {
		value = field(5, field(1, value))
	}
	return field(1, field(1, field(1, field(2, value))))
}

func rpcStatus(t *testing.T, b []byte) (code uint64, text string) {
	t.Helper()
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		require.Positive(t, n)
		b = b[n:]
		switch {
		case number == 1 && wire == protowire.VarintType:
			code, n = protowire.ConsumeVarint(b)
		case number == 2 && wire == protowire.BytesType:
			text, n = protowire.ConsumeString(b)
		default:
			t.Fatalf("field %d", number)
		}
		require.Positive(t, n)
		b = b[n:]
	}
	return code, text
}

// TestBudget shows that a request without room in the budget gets a 503, and that
// every request gives back what it took.
func TestBudget(t *testing.T) {
	md, ms := newMetrics()
	for range 1000 {
		addGauge(ms, "x", 1)
	}
	budget := ingest.NewBudget(100 << 10)
	h := newHandler(t, ingesttest.NewSink(), ingest.Limits{InFlight: budget}, otlp.Options{})
	w := post(h, protoBody(t, md), "application/x-protobuf", "")
	require.Equal(t, 503, w.Code)
	require.Zero(t, budget.Used())

	budget = ingest.NewBudget(64 << 20)
	sink := ingesttest.NewSink()
	h = newHandler(t, sink, ingest.Limits{InFlight: budget}, otlp.Options{})
	export(t, h, md)
	require.Zero(t, budget.Used())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/metrics", bytes.NewReader(protoBody(t, md)))
	r.Header.Set("Content-Type", "application/x-protobuf")
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 503, w.Code)
	require.Zero(t, budget.Used())
}

// TestOptionsChecked shows that options that contradict each other are refused.
func TestOptionsChecked(t *testing.T) {
	for _, o := range []otlp.Options{
		{TranslationStrategy: "Other"},
		{PromoteAllResourceAttributes: true, PromoteResourceAttributes: []string{"x"}},
		{IgnoreResourceAttributes: []string{"x"}},
	} {
		_, err := otlp.New(ingesttest.NewSink(), ingest.Limits{}, ingest.NewMetrics(prometheus.NewRegistry()), discard, fixedNow, o)
		require.Error(t, err, "%+v", o)
	}
}

// TestTranslation shows the names and labels under each option.
func TestTranslation(t *testing.T) {
	build := func() pmetric.Metrics {
		md, ms := newMetrics()
		m := ms.AppendEmpty()
		m.SetName("http.requests")
		m.SetUnit("By")
		sum := m.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		p := sum.DataPoints().AppendEmpty()
		p.SetIntValue(3)
		p.SetTimestamp(stamp(at))
		p.Attributes().PutStr("http.method", "GET")
		return md
	}
	for _, c := range []struct {
		name string
		o    otlp.Options
		want []string
	}{
		{"default", otlp.Options{}, []string{
			`{__name__="http_requests_bytes_total", http_method="GET", instance="one", job="shop"}`,
			`{__name__="target_info", host_name="box", instance="one", job="shop"}`,
		}},
		{"no suffixes", otlp.Options{TranslationStrategy: "UnderscoreEscapingWithoutSuffixes", DisableTargetInfo: true}, []string{
			`{__name__="http_requests", http_method="GET", instance="one", job="shop"}`,
		}},
		{"UTF-8", otlp.Options{TranslationStrategy: "NoTranslation", DisableTargetInfo: true}, []string{
			`{__name__="http.requests", "http.method"="GET", instance="one", job="shop"}`,
		}},
		{"UTF-8 with suffixes", otlp.Options{TranslationStrategy: "NoUTF8EscapingWithSuffixes", DisableTargetInfo: true}, []string{
			`{__name__="http.requests_bytes_total", "http.method"="GET", instance="one", job="shop"}`,
		}},
		{"promoted", otlp.Options{PromoteResourceAttributes: []string{"host.name"}, DisableTargetInfo: true}, []string{
			`{__name__="http_requests_bytes_total", host_name="box", http_method="GET", instance="one", job="shop"}`,
		}},
		{"all promoted but", otlp.Options{PromoteAllResourceAttributes: true, IgnoreResourceAttributes: []string{"host.name", "service.name"}, DisableTargetInfo: true}, []string{
			`{__name__="http_requests_bytes_total", http_method="GET", instance="one", job="shop", service_instance_id="one"}`,
		}},
		{"identifying", otlp.Options{KeepIdentifyingResourceAttributes: true}, []string{
			`{__name__="http_requests_bytes_total", http_method="GET", instance="one", job="shop"}`,
			`{__name__="target_info", host_name="box", instance="one", job="shop", service_instance_id="one", service_name="shop"}`,
		}},
		{"scope", otlp.Options{PromoteScopeMetadata: true, DisableTargetInfo: true}, []string{
			`{__name__="http_requests_bytes_total", http_method="GET", instance="one", job="shop", otel_scope_name="lib", otel_scope_version="1"}`,
		}},
		{"type and unit", otlp.Options{TypeAndUnitLabels: true, DisableTargetInfo: true}, []string{
			`{__name__="http_requests_bytes_total", __type__="counter", __unit__="bytes", http_method="GET", instance="one", job="shop"}`,
		}},
	} {
		sink := ingesttest.NewSink()
		rejected, text := export(t, newHandler(t, sink, ingest.Limits{}, c.o), build())
		require.Zero(t, rejected, text)
		var got []string
		for ls := range sink.Written() {
			got = append(got, ls)
		}
		require.ElementsMatch(t, c.want, got, c.name)
	}
}
