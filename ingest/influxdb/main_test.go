package influxdb_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

var discard = slog.New(slog.DiscardHandler)

// nowMillis is the clock of the inputs of tests.
const nowMillis = 1_700_000_000_123

func fixedNow() time.Time { return time.UnixMilli(nowMillis) }

func newInput(sink ingest.Sink, o influxdb.Options) *influxdb.Input {
	return influxdb.New(sink, ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, o)
}

// send sends a body to a handler.
func send(h http.Handler, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// errorOf is the text of an error of InfluxDB 1.x.
func errorOf(t testing.TB, body []byte) string {
	t.Helper()
	if len(bytes.TrimSpace(body)) == 0 {
		return ""
	}
	var e struct {
		Error string `json:"error"`
	}
	require.NoError(t, json.Unmarshal(body, &e), string(body))
	return e.Error
}

// samples are what a sink holds, a line each, sorted: labels, time in milliseconds, value.
// Of samples with the same labels and time the last one counts, as in an archive.
func samples(sink *ingesttest.Sink) []string {
	var out []string
	for series, s := range sink.Written() {
		last := map[int64]uint64{}
		for _, v := range s.Samples {
			last[v.TimeMillis] = v.Bits
		}
		for at, bits := range last {
			out = append(out, fmt.Sprintf("%s %d %v", series, at, math.Float64frombits(bits)))
		}
	}
	slices.Sort(out)
	return out
}

func zipped(t testing.TB, body string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(body))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

// httptestServer serves a handler until the test ends.
func httptestServer(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}
