package text_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sort"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/text"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

const nowMillis = 1_700_000_000_000

var discard = slog.New(slog.DiscardHandler)

func fixedNow() time.Time { return time.UnixMilli(nowMillis) }

// importer is an input before a sink in memory.
type importer struct {
	sink   *ingesttest.Sink
	budget *ingest.Budget
	in     *text.Input
}

func newImporter(o text.Options) *importer {
	i := &importer{sink: ingesttest.NewSink(), budget: ingest.NewBudget(256 << 20)}
	i.in = text.New(i.sink, ingest.Limits{InFlight: i.budget}, ingest.NewMetrics(nil), discard, fixedNow, o)
	return i
}

// answer is what a client is told.
type answer struct {
	code   int
	header http.Header
	body   string

	Lines, Samples, Refused, Dropped int
	Reasons                          string
	Examples                         []string
	Error                            string
}

func (i *importer) send(t require.TestingT, h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	a := answer{code: w.Code, header: w.Header(), body: w.Body.String()}
	if w.Code != http.StatusNoContent && w.Code != http.StatusMethodNotAllowed {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a), a.body)
	} else if w.Code == http.StatusNoContent {
		require.Empty(t, a.body)
	}
	require.Zero(t, i.budget.Used())
	return a
}

// prometheus posts lines. parameters are names and values in turn; Content-Type is a header.
func (i *importer) prometheus(t require.TestingT, body string, parameters ...string) answer {
	return i.send(t, i.in.Prometheus(), request("/api/v1/import/prometheus", strings.NewReader(body), parameters...))
}

func (i *importer) csv(t require.TestingT, body, format string, parameters ...string) answer {
	return i.send(t, i.in.CSV(), request("/api/v1/import/csv", strings.NewReader(body), append(parameters, "format", format)...))
}

func request(path string, body io.Reader, parameters ...string) *http.Request {
	q := url.Values{}
	header := http.Header{}
	for k := 0; k < len(parameters); k += 2 {
		if strings.HasPrefix(parameters[k], "Content-") {
			header.Set(parameters[k], parameters[k+1])
			continue
		}
		q.Add(parameters[k], parameters[k+1])
	}
	r := httptest.NewRequest(http.MethodPost, path+"?"+q.Encode(), body)
	r.Header = header
	return r
}

// written prints what is in the sink: a line a sample, with start timestamps and exemplars.
func (i *importer) written() string {
	var lines []string
	for name, s := range i.sink.Written() {
		for _, v := range s.Samples {
			line := fmt.Sprintf("%s %v @%d", name, math.Float64frombits(v.Bits), v.TimeMillis)
			if v.StartMillis != 0 {
				line += fmt.Sprintf(" since %d", v.StartMillis)
			}
			lines = append(lines, line)
		}
		for _, e := range s.Exemplars {
			lines = append(lines, fmt.Sprintf("%s # %s %v @%d", name, e.Labels, e.Value, e.Ts))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func zipped(t require.TestingT, s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(s))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

// dribble is a body that comes a byte at a time.
func dribble(s string) io.Reader { return iotest.OneByteReader(strings.NewReader(s)) }

func join(lines ...string) string { return strings.Join(lines, "\n") }
