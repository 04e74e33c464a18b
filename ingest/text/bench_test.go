package text_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/text"
	"varve/internal/testkit/race"
)

func floatOf(bits uint64) float64 { return math.Float64frombits(bits) }

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func newTableInput() *text.Input {
	return text.New(ingesttest.NewTable(), ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, text.Options{})
}

// bareWriter is a ResponseWriter that keeps the status only.
type bareWriter struct {
	header http.Header
	code   int
}

func (w *bareWriter) Header() http.Header         { return w.header }
func (w *bareWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *bareWriter) WriteHeader(code int)        { w.code = code }

// post returns what posts the same body again and again.
func post(t testing.TB, h http.Handler, target string, body []byte) func() {
	reader := bytes.NewReader(body)
	r := httptest.NewRequest(http.MethodPost, target, nil)
	r.Body = io.NopCloser(reader)
	w := &bareWriter{header: http.Header{}}
	return func() {
		reader.Reset(body)
		h.ServeHTTP(w, r)
		if w.code != http.StatusNoContent {
			require.Equal(t, http.StatusNoContent, w.code)
		}
	}
}

func csvRows(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "host%d,\"dc %d\",%d.5,%d,1600000000\n", i/64, i%64, i, i*7)
	}
	return b.Bytes()
}

const csvTarget = "/?format=1:label:host,2:label:dc,3:metric:cpu,4:metric:mem,5:time:unix_s"

// TestNoAllocations shows that lines and records of known series allocate nothing.
func TestNoAllocations(t *testing.T) {
	in := newTableInput()
	for name, send := range map[string]func(n int) func(){
		"lines":   func(n int) func() { return post(t, in.Prometheus(), "/", exposition(n)) },
		"records": func(n int) func() { return post(t, in.CSV(), csvTarget, csvRows(n)) },
	} {
		few, many := send(100), send(10_000)
		many()
		fewAllocs, manyAllocs := testing.AllocsPerRun(20, few), testing.AllocsPerRun(20, many)
		t.Logf("%s: %v allocations for 100, %v for 10 000", name, fewAllocs, manyAllocs)
		// The race detector makes sync.Pool drop a part of what it is given.
		if !race.Enabled {
			require.LessOrEqual(t, manyAllocs-fewAllocs, 5.0, name)
		}
	}
}

// BenchmarkPrometheus reads lines of known series, each another one.
func BenchmarkPrometheus(b *testing.B) {
	const n = 100_000
	body := exposition(n)
	send := post(b, newTableInput().Prometheus(), "/", body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "samples/s")
}

// BenchmarkPrometheusOneSeries reads lines of one series, as files with the past of a series have them.
func BenchmarkPrometheusOneSeries(b *testing.B) {
	const n = 100_000
	var body bytes.Buffer
	for i := range n {
		fmt.Fprintf(&body, "node_cpu_seconds_total{cpu=\"0\",instance=\"host:9100\",job=\"node\",mode=\"idle\"} %d.25 %d\n", i, 1600000000000+i*15000)
	}
	send := post(b, newTableInput().Prometheus(), "/", body.Bytes())
	b.SetBytes(int64(body.Len()))
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "samples/s")
}

// BenchmarkCSV reads records of two samples each.
func BenchmarkCSV(b *testing.B) {
	const n = 50_000
	body := csvRows(n)
	send := post(b, newTableInput().CSV(), csvTarget, body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
	b.ReportMetric(2*float64(b.N)*n/b.Elapsed().Seconds(), "samples/s")
}
