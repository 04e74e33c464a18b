package otlp_test

import (
	"bytes"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.uber.org/goleak"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/otlp"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

var discard = slog.New(slog.DiscardHandler)

// at is the time of data points in most tests, startAt that of their starts.
var (
	at      = time.UnixMilli(1_700_000_060_000)
	startAt = time.UnixMilli(1_700_000_000_000)
)

func fixedNow() time.Time { return at }

// untilToday is for requests with the times of this machine: they are far ahead of fixedNow.
const untilToday = 200 * 365 * 24 * time.Hour

func newHandler(t testing.TB, sink ingest.Sink, limits ingest.Limits, o otlp.Options) *otlp.Handler {
	t.Helper()
	h, err := otlp.New(sink, limits, ingest.NewMetrics(prometheus.NewRegistry()).For("otlp"), discard, fixedNow, o)
	require.NoError(t, err)
	return h
}

// newMetrics returns a request with one resource and scope, whose metrics are to be
// filled.
func newMetrics() (pmetric.Metrics, pmetric.MetricSlice) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "shop")
	rm.Resource().Attributes().PutStr("service.instance.id", "one")
	rm.Resource().Attributes().PutStr("host.name", "box")
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("lib")
	sm.Scope().SetVersion("1")
	return md, sm.Metrics()
}

// labelsOf is the text of a series' labels.
func labelsOf(name, more string) string {
	return `{__name__="` + name + `", ` + more + `instance="one", job="shop"}`
}

func addGauge(ms pmetric.MetricSlice, name string, v float64) pmetric.NumberDataPoint {
	m := ms.AppendEmpty()
	m.SetName(name)
	p := m.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetTimestamp(pcommon.NewTimestampFromTime(at))
	p.SetDoubleValue(v)
	return p
}

func protoBody(t testing.TB, md pmetric.Metrics) []byte {
	t.Helper()
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	require.NoError(t, err)
	return b
}

// post sends a body and returns the answer.
func post(h http.Handler, body []byte, contentType, contentEncoding string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/metrics", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	if contentEncoding != "" {
		r.Header.Set("Content-Encoding", contentEncoding)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// export sends metrics as protobuf and returns what the answer says of them.
func export(t testing.TB, h http.Handler, md pmetric.Metrics) (rejected int64, text string) {
	t.Helper()
	w := post(h, protoBody(t, md), "application/x-protobuf", "")
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	return success(t, w)
}

func success(t testing.TB, w *httptest.ResponseRecorder) (rejected int64, text string) {
	t.Helper()
	body, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	response := pmetricotlp.NewExportResponse()
	if w.Header().Get("Content-Type") == "application/json" {
		require.NoError(t, response.UnmarshalJSON(body))
	} else {
		require.NoError(t, response.UnmarshalProto(body))
	}
	return response.PartialSuccess().RejectedDataPoints(), response.PartialSuccess().ErrorMessage()
}

// floats are the values of a series, in the order they were written.
func floats(s ingesttest.Series) []float64 {
	var out []float64
	for _, v := range s.Samples {
		out = append(out, math.Float64frombits(v.Bits))
	}
	return out
}
