package opentsdb_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/opentsdb"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// patience bounds the wait for what happens in another goroutine or process, which only something that hangs outlasts.
const patience = 2 * time.Minute

var discard = slog.New(slog.DiscardHandler)

// handler returns a handler over a sink in memory.
func handler(t testing.TB, sink ingest.Sink, opts opentsdb.Options, limits ingest.Limits) *opentsdb.Handler {
	t.Helper()
	h, err := opentsdb.New(opts, sink, limits, ingest.NewMetrics(nil), discard, time.Now)
	require.NoError(t, err)
	return h
}

// post posts a body.
func post(h http.Handler, query, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/put"+query, strings.NewReader(body)))
	return w
}

// answer is what is answered with details or summary.
type answer struct {
	Failed, Success int
	Rejected        string
	Errors          []struct {
		Datapoint *struct {
			Metric    any
			Timestamp any
			Value     any
			Tags      any
		}
		Error string
	}
}

func details(t testing.TB, w *httptest.ResponseRecorder) (a answer) {
	t.Helper()
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a), w.Body.String())
	return a
}

// values are the samples of a series as numbers, by time.
func written(sink *ingesttest.Sink) map[string][]ingesttest.Sample {
	out := map[string][]ingesttest.Sample{}
	for name, s := range sink.Written() {
		out[name] = s.Samples
	}
	return out
}

// rewinding is a request body that can be sent again without an allocation.
type rewinding struct{ bytes.Reader }

func (*rewinding) Close() error { return nil }

// bareWriter is a ResponseWriter that keeps the status only.
type bareWriter struct {
	header http.Header
	code   int
}

func (w *bareWriter) Header() http.Header         { return w.header }
func (w *bareWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *bareWriter) WriteHeader(code int)        { w.code = code }

var _ io.Writer = (*bareWriter)(nil)
