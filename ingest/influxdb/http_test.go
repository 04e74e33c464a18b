package influxdb_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/influxdb"
	"varve/ingest/ingesttest"
)

var errBroken = errors.New("broken")

// TestAnswers shows what both versions say, status and form.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		method  string
		body    string
		query   string
		headers []string
		limits  ingest.Limits
		code    int
		codeV2  string
		text    string
		retry   string
		samples int
	}{
		"stored":         {body: "a b=1", code: 204, samples: 1},
		"empty":          {code: 204},
		"gzip":           {body: zipped(t, "a b=1\nc d=2"), headers: []string{"Content-Encoding", "gzip"}, code: 204, samples: 2},
		"broken gzip":    {body: "a b=1", headers: []string{"Content-Encoding", "gzip"}, code: 400, codeV2: "invalid", text: "malformed gzip"},
		"half gzip":      {body: zipped(t, "a b=1\nc d=2")[:20], headers: []string{"Content-Encoding", "gzip"}, code: 400, codeV2: "invalid", text: "malformed gzip"},
		"deflate":        {body: "a b=1", headers: []string{"Content-Encoding", "deflate"}, code: 415, codeV2: "unsupported media type", text: "send gzip or identity"},
		"too big":        {body: "a b=1 5", limits: ingest.Limits{DecodedBytesMax: 6}, code: 413, codeV2: "request too large", text: "too big"},
		"too big a bomb": {body: zipped(t, strings.Repeat("a b=1\n", 1000)), headers: []string{"Content-Encoding", "gzip"}, limits: ingest.Limits{DecodedBytesMax: 600}, code: 413, codeV2: "request too large", text: "too big"},
		"method":         {method: http.MethodGet, code: 405, codeV2: "method not allowed", text: "only POST"},
		"precision":      {body: "a b=1", query: "precision=y", code: 400, codeV2: "invalid", text: "invalid precision"},
		"micro":          {body: "a b=1 5", query: "precision=%C2%B5", code: 204, samples: 1},
		"overload":       {body: "a b=1", limits: ingest.Limits{InFlight: ingest.NewBudget(10)}, code: 503, codeV2: "unavailable", text: "in flight", retry: "1"},
		"disk":           {body: "a b=1", err: &arrival.Unavailable{Reason: "disk_full", RetryAfter: 1500 * time.Millisecond, Err: errBroken}, code: 503, codeV2: "unavailable", text: "disk_full", retry: "2"},
		"other trouble":  {body: "a b=1", err: errBroken, code: 503, codeV2: "unavailable", text: "broken", retry: "5"},
		"rate":           {body: "a b=1", err: &ingest.RateLimited{RetryAfter: 3 * time.Second}, code: 429, codeV2: "too many requests", text: "more samples a second", retry: "3"},
		"partial":        {body: "a b=1\na b=x\nc d=1", code: 400, codeV2: "invalid", text: "partial write: unable to parse 'a b=x': invalid boolean dropped=1", samples: 2},
		"bad":            {body: "a b=x", code: 400, codeV2: "invalid", text: "unable to parse 'a b=x': invalid boolean"},
		"bad but text":   {body: "a b=x\na b=\"x\"", code: 400, codeV2: "invalid", text: "partial write: unable to parse 'a b=x': invalid boolean dropped=1"},
		"the future":     {body: "a b=1 9000000000000000000\na b=1 5", code: 400, codeV2: "invalid", text: `partial write: too_far_in_future: {__name__="a_b"} at `, samples: 1},
		"all the future": {body: "a b=1 9000000000000000000", code: 400, codeV2: "invalid", text: "\ntoo_far_in_future: 1 dropped=1"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				sink := ingesttest.NewSink()
				sink.Err, sink.FutureMillis = c.err, nowMillis+600_000
				in := influxdb.New(sink, c.limits, ingest.NewMetrics(nil), discard, fixedNow, influxdb.Options{})
				h := in.Write()
				if version == 2 {
					h = in.WriteV2()
				}
				method := http.MethodPost
				if c.method != "" {
					method = c.method
				}
				r := httptest.NewRequest(method, "/x?"+c.query, strings.NewReader(c.body))
				for i := 0; i < len(c.headers); i += 2 {
					r.Header.Set(c.headers[i], c.headers[i+1])
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				code := c.code
				if code == http.StatusTooManyRequests && version == 1 {
					code = http.StatusServiceUnavailable
				}
				require.Equal(t, code, w.Code, w.Body)
				require.Equal(t, c.retry, w.Header().Get("Retry-After"))
				require.NotEmpty(t, w.Header().Get("X-Influxdb-Version"))
				require.Len(t, samples(sink), c.samples)
				if c.code == 204 {
					require.Empty(t, w.Body.String())
					continue
				}
				require.Equal(t, "application/json", w.Header().Get("Content-Type"))
				if version == 1 {
					require.Contains(t, errorOf(t, w.Body.Bytes()), c.text)
					continue
				}
				var e map[string]string
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
				require.Equal(t, c.codeV2, e["code"])
				require.Contains(t, e["message"], c.text)
				require.Len(t, e, 2)
			}
		})
	}
}

// TestOneBadLineInAThousand shows that bad lines are named, a few of many, and take nothing along.
func TestOneBadLineInAThousand(t *testing.T) {
	var b strings.Builder
	bad := []string{"junk", "a,b= c=1", "a b=x", `a b="x`, `a,b=c\`, "a b=1 x", ",", "=", "a b=NaN", "\xff\xfe\x00", "a,b=c,b=d e=1", strings.Repeat("x", 5000)}
	for i := range 12_000 {
		if i%1000 == 500 {
			b.WriteString(bad[i/1000] + "\n")
		}
		fmt.Fprintf(&b, "m,i=%d f=%d %d\n", i, i, 5_000_000)
	}
	sink := ingesttest.NewSink()
	w := send(newInput(sink, influxdb.Options{}).Write(), "/write", b.String())
	require.Equal(t, 400, w.Code)
	text := errorOf(t, w.Body.Bytes())
	require.Contains(t, text, "partial write: unable to parse 'junk': missing fields\n")
	require.True(t, strings.HasSuffix(text, "dropped=12"), text)
	require.LessOrEqual(t, len(text), 1<<10)
	require.Len(t, samples(sink), 12_000)
}

// TestPieces shows that a body is written in pieces and nothing is lost between them.
func TestPieces(t *testing.T) {
	sink := ingesttest.NewSink()
	var b strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&b, "m f=%d %d000000\n", i, i)
	}
	w := send(newInput(sink, influxdb.Options{}).Write(), "/write", b.String())
	require.Equal(t, 204, w.Code)
	require.Equal(t, 4, sink.Writes())
	require.Len(t, samples(sink), 200_000)
}

// TestBudget shows that whatever becomes of a request, what it holds comes back.
func TestBudget(t *testing.T) {
	sink := ingesttest.NewSink()
	budget := ingest.NewBudget(64 << 20)
	in := influxdb.New(sink, ingest.Limits{InFlight: budget}, ingest.NewMetrics(nil), discard, fixedNow, influxdb.Options{})
	for _, body := range []string{"a b=1", "junk", strings.Repeat("a b=1\n", 100_000)} {
		send(in.Write(), "/write", body)
		send(in.ImportHandler(), "/", body)
	}
	r := httptest.NewRequest(http.MethodPost, "/write", iotest.ErrReader(errBroken))
	w := httptest.NewRecorder()
	in.Write().ServeHTTP(w, r)
	require.Equal(t, 503, w.Code)
	sink.OnWrite = func() { panic("out of memory") }
	require.Panics(t, func() { send(in.Write(), "/write", "a b=1") })
	require.Zero(t, budget.Used())
}

// TestPingAndHealth shows what needs no judge.
func TestPingAndHealth(t *testing.T) {
	in := newInput(ingesttest.NewSink(), influxdb.Options{Version: "1.9"})
	get := func(h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	w := get(in.Ping(), "GET", "/ping?verbose=true", "X-Request-Id", "mine\x01")
	require.Equal(t, 200, w.Code)
	require.JSONEq(t, `{"version":"1.9"}`, w.Body.String())
	require.Equal(t, `mine\x01`, w.Header().Get("Request-Id"))
	require.Equal(t, 204, get(in.Ping(), "HEAD", "/ping").Code)
	w = get(in.Health(), "GET", "/health")
	require.Equal(t, 200, w.Code)
	require.JSONEq(t, `{"name":"influxdb","message":"ready for queries and writes","status":"pass","checks":[],"version":"1.9"}`, w.Body.String())
	require.Equal(t, 405, get(in.Health(), "POST", "/health").Code)
	require.NotEqual(t, get(in.Ping(), "GET", "/ping").Header().Get("Request-Id"), get(in.Ping(), "GET", "/ping").Header().Get("Request-Id"))

	// Databases that are written to are listed, however many clients there are.
	for i := range 2000 {
		send(in.Write(), fmt.Sprintf("/write?db=d%d", i), "")
	}
	w = send(in.Query(), "/query", "q=SHOW+DATABASES", "Content-Type", "application/x-www-form-urlencoded")
	require.Contains(t, w.Body.String(), `["d999"]]`)
	require.Equal(t, 400, send(in.Query(), "/query", "q="+strings.Repeat("SHOW+DATABASES;", 101), "Content-Type", "application/x-www-form-urlencoded").Code)
	require.Equal(t, 400, send(in.Query(), "/query", strings.Repeat("x", 2<<20), "Content-Type", "application/x-www-form-urlencoded").Code)
}

// chunks hands out what it holds in reads of n bytes, then the error.
func chunks(s string, n int, err error) io.Reader {
	var readers []io.Reader
	for len(s) > 0 {
		m := min(n, len(s))
		readers = append(readers, strings.NewReader(s[:m]))
		s = s[m:]
	}
	if err != nil {
		readers = append(readers, iotest.ErrReader(err))
	}
	return io.MultiReader(readers...)
}

// TestImport shows that what is read in pieces through a small buffer is what a body as a
// whole is, wherever the pieces end.
func TestImport(t *testing.T) {
	body := "a b=1 5000000\n\n# c\nc d=\"x\ny z=1\n\",e=2 6000000\r\njunk\nf g=3 7000000\nopen t=\"x 5\nh i=4 8000000\nlast j=5 9000000"
	want := []string{`{__name__="a_b"} 5 1`, `{__name__="c_e"} 6 2`, `{__name__="f_g"} 7 3`, `{__name__="h_i"} 8 4`, `{__name__="last_j"} 9 5`}
	for _, lineBytesMax := range []int{45, 64, 1000} {
		for n := 1; n < len(body)+2; n++ {
			sink := ingesttest.NewSink()
			in := newInput(sink, influxdb.Options{LineBytesMax: lineBytesMax})
			report, err := in.Import(t.Context(), chunks(body, n, nil), influxdb.Precision{})
			require.NoError(t, err)
			require.Equal(t, want, samples(sink), "%d %d %v", lineBytesMax, n, report.Examples)
			require.Equal(t, influxdb.ImportReport{
				Lines: 7, Samples: 5, Refused: 2, Dropped: 1, Bytes: int64(len(body)), Examples: []string{"unable to parse 'junk': missing fields", `unable to parse 'open t="x 5': unbalanced quotes`},
			}, report)
		}
	}
}

// TestImportLongLines shows that a line without an end costs no memory and takes none along.
func TestImportLongLines(t *testing.T) {
	sink := ingesttest.NewSink()
	in := newInput(sink, influxdb.Options{LineBytesMax: 100})
	body := "a b=1 5000000\n" + strings.Repeat("x", 1000) + " y=1\nc d=1 5000000\n" + strings.Repeat("z", 1000)
	report, err := in.Import(t.Context(), strings.NewReader(body), influxdb.Precision{})
	require.NoError(t, err)
	require.Equal(t, []string{`{__name__="a_b"} 5 1`, `{__name__="c_d"} 5 1`}, samples(sink))
	require.Equal(t, 2, report.Refused)
	require.Contains(t, report.Examples[0], "line too long")
}

// TestImportResumes shows that a report after an error tells where to go on, and that what
// lies before is stored.
func TestImportResumes(t *testing.T) {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "m f=%d %d\n", i, i)
	}
	body := b.String()
	p, err := influxdb.ParsePrecision("ms")
	require.NoError(t, err)
	sink := ingesttest.NewSink()
	in := newInput(sink, influxdb.Options{LineBytesMax: 1000})
	report, err := in.Import(t.Context(), chunks(body[:len(body)/2], 1<<20, errBroken), p)
	require.ErrorIs(t, err, errBroken)
	require.Positive(t, report.Bytes)
	require.Len(t, samples(sink), report.Samples)
	require.Equal(t, strings.Count(body[:report.Bytes], "\n"), report.Samples)
	sink.OnWrite = func() { sink.Err = errBroken }
	second, err := in.Import(t.Context(), strings.NewReader(body[report.Bytes:]), p)
	require.ErrorIs(t, err, errBroken)
	require.Equal(t, strings.Count(body[report.Bytes:][:second.Bytes], "\n"), second.Samples)
	sink.Err, sink.OnWrite = nil, nil
	_, err = in.Import(t.Context(), strings.NewReader(body[report.Bytes+second.Bytes:]), p)
	require.NoError(t, err)
	require.Len(t, samples(sink), 10_000)
}

// TestImportHandler shows what the endpoint answers.
func TestImportHandler(t *testing.T) {
	sink := ingesttest.NewSink()
	in := newInput(sink, influxdb.Options{DatabaseLabel: "db"})
	server := httptestServer(t, in.ImportHandler())
	post := func(query, body string, headers ...string) (int, influxdb.ImportReport) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server+query, bytes.NewReader([]byte(body)))
		require.NoError(t, err)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		defer http.DefaultClient.CloseIdleConnections()
		var report influxdb.ImportReport
		if resp.StatusCode == 200 || resp.StatusCode == 503 {
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&report))
		}
		return resp.StatusCode, report
	}
	code, report := post("?precision=ms&db=x", zipped(t, "a b=1 5\njunk\n"), "Content-Encoding", "gzip")
	require.Equal(t, 200, code)
	require.Equal(t, influxdb.ImportReport{Lines: 2, Samples: 1, Refused: 1, Bytes: 13, Examples: []string{"unable to parse 'junk': missing fields"}}, report)
	require.Equal(t, []string{`{__name__="a_b", db="x"} 5 1`}, samples(sink))
	code, report = post("?extra_label=x%3Dz", "c b=1 5000000")
	require.Equal(t, 200, code)
	require.Equal(t, 1, report.Samples)
	require.Contains(t, samples(sink), `{__name__="c_b", x="z"} 5 1`)
	code, _ = post("?precision=y", "a b=1")
	require.Equal(t, 400, code)
	code, _ = post("", "junk", "Content-Encoding", "gzip")
	require.Equal(t, 400, code)
	code, _ = post("", zipped(t, "a b=1 5\njunk\n")[:20], "Content-Encoding", "gzip")
	require.Equal(t, 400, code)
	code, _ = post("", "junk", "Content-Encoding", "br")
	require.Equal(t, 415, code)
	sink.Err = errBroken
	code, report = post("", "a b=1")
	require.Equal(t, 503, code)
	require.Contains(t, report.Error, "broken")
	r := httptest.NewRecorder()
	in.ImportHandler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, 405, r.Code)
}

// TestRefusedOnce shows that what is refused of requests, messages and imports that come again and again while the archive is away is
// counted once, when the rest is stored.
func TestRefusedOnce(t *testing.T) {
	for name, bring := range map[string]func(*influxdb.Input) int{
		"request": func(in *influxdb.Input) int { return send(in.Write(), "/write", "junk\na b=1 5\nc d=1 6").Code },
		"import":  func(in *influxdb.Input) int { return send(in.ImportHandler(), "/", "junk\na b=1 5\nc d=1 6").Code },
		"message": func(in *influxdb.Input) int {
			if _, err := in.Receiver(influxdb.Precision{}).Receive(t.Context(), []byte("junk\na b=1 5\nc d=1 6"), nil); err != nil {
				return 503
			}
			return 204
		},
	} {
		t.Run(name, func(t *testing.T) {
			sink, reg := ingesttest.NewSink(), prometheus.NewRegistry()
			in := influxdb.New(sink, ingest.Limits{}, ingest.NewMetrics(reg), discard, fixedNow, influxdb.Options{})
			sink.Err = &arrival.Unavailable{Reason: "disk_full", Err: errBroken}
			for range 3 {
				require.Equal(t, 503, bring(in))
			}
			require.Zero(t, ingesttest.Counted(t, reg, "varve_ingest_rejected_total"))
			sink.Err = nil
			require.NotEqual(t, 503, bring(in))
			require.EqualValues(t, 1, ingesttest.Counted(t, reg, "varve_ingest_rejected_total"))
			require.EqualValues(t, 2, ingesttest.Counted(t, reg, "varve_ingest_written_total"))
		})
	}
}

// TestImportOneLineEach shows that lines which lie at the same place of the buffer, one
// after the other, are not named after each other.
func TestImportOneLineEach(t *testing.T) {
	sink := ingesttest.NewSink()
	in := newInput(sink, influxdb.Options{LineBytesMax: 20})
	_, err := in.Import(t.Context(), strings.NewReader("measurement,t=1 b=1 5000000\nmeasurement,t=2 b=2 5000000\nmeasurement,t=3 b=3 5000000\n"), influxdb.Precision{})
	require.NoError(t, err)
	require.Equal(t, []string{`{__name__="measurement_b", t="1"} 5 1`, `{__name__="measurement_b", t="2"} 5 2`, `{__name__="measurement_b", t="3"} 5 3`}, samples(sink))
}

// TestManyFields shows that a line with more fields than any needs is refused alone, before it takes many times its
// size in memory.
func TestManyFields(t *testing.T) {
	sink := ingesttest.NewSink()
	in := newInput(sink, influxdb.Options{})
	body := "a b=1 5\nm " + strings.Repeat("a=1,", 1<<16) + "b=1 5\nc d=1 5"
	w := send(in.Write(), "/write?precision=ms", body)
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, errorOf(t, w.Body.Bytes()), "more than 65536 fields dropped=1")
	require.Equal(t, []string{`{__name__="a_b"} 5 1`, `{__name__="c_d"} 5 1`}, samples(sink))
}
