package opentsdb_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/opentsdb"
)

func sample(millis int64, v float64) ingesttest.Sample {
	return ingesttest.Sample{TimeMillis: millis, Bits: math.Float64bits(v)}
}

// Each form of a point is stored as the series and sample that it stands for.
func TestPoints(t *testing.T) {
	f := func(body, series string, want ingesttest.Sample) {
		t.Helper()
		sink := ingesttest.NewSink()
		w := post(handler(t, sink, opentsdb.Options{}, ingest.Limits{}), "", body)
		require.Equal(t, http.StatusNoContent, w.Code, w.Body.String())
		require.Empty(t, w.Body.String())
		require.Equal(t, map[string][]ingesttest.Sample{series: {want}}, written(sink))
	}
	f(`{"metric":"sys.cpu","timestamp":1700000000,"value":18,"tags":{"host":"a","dc":"b"}}`, `{__name__="sys.cpu", dc="b", host="a"}`, sample(1700000000000, 18))
	f(` [ {"tags":{},"value":"-1.5e3","timestamp":"1700000000123","metric":"m"} ] `, `{__name__="m"}`, sample(1700000000123, -1500))
	f(`{"metric":"m","timestamp":1700000000.25,"value":1}`, `{__name__="m"}`, sample(1700000000250, 1))
	f(`{"metric":"m","timestamp":"1700000000.123","value":1,"tags":null}`, `{__name__="m"}`, sample(1700000000123, 1))
	f(`{"metric":"m","timestamp":1.7e9,"value":"+1"}`, `{__name__="m"}`, sample(1700000000000, 1))
	f(`{"metric":"m","timestamp":4294967295,"value":1}`, `{__name__="m"}`, sample(4294967295000, 1))
	f(`{"metric":"m","timestamp":4294967296,"value":1}`, `{__name__="m"}`, sample(4294967296, 1))
	f(`{"metric":"m","timestamp":9999999999999.9,"value":1}`, `{__name__="m"}`, sample(9999999999999, 1))
	f(`{"metric":"m","timestamp":1,"value":123456789012345678901234567890}`, `{__name__="m"}`, sample(1000, 123456789012345678901234567890))
	f(`{"metric":"m","timestamp":1,"value":-0.0}`, `{__name__="m"}`, sample(1000, math.Copysign(0, -1)))
	f(`{"metric":"m","timestamp":1,"value":1,"tags":{"a":"","b":null,"c":5,"d":true}}`, `{__name__="m", c="5", d="true"}`, sample(1000, 1))
	f(`{"metric":"m","timestamp":1,"value":1,"tags":{"a":"b","a":"c"}}`, `{__name__="m", a="c"}`, sample(1000, 1))
	f(`{"metric":"m","timestamp":1,"value":1,"tags":{"__name__":"b"}}`, `{__name__="m", exported___name__="b"}`, sample(1000, 1))
	f(`{"metric":"x","metric":"a b\u00e9","timestamp":1,"value":1,"other":{"tags":[1,{}]},"tags":{"\"k\"":"\\"}}`, `{"\"k\""="\\", __name__="a bé"}`, sample(1000, 1))
	f(`{"m\u0065tric":"m","timestamp":1,"value":"\u0031"}`, `{__name__="m"}`, sample(1000, 1))
}

// Each kind of bad point is refused alone, in OpenTSDB's words, with the point, and the points around it are stored.
func TestRefusedPoints(t *testing.T) {
	f := func(point, why string) {
		t.Helper()
		sink := ingesttest.NewSink()
		h := handler(t, sink, opentsdb.Options{}, ingest.Limits{NameBytesMax: 50, LabelsMax: 4})
		body := fmt.Sprintf(`[{"metric":"before","timestamp":1,"value":1},%s,{"metric":"behind","timestamp":1,"value":1}]`, point)
		w := post(h, "?details&sync", body)
		require.Equal(t, http.StatusBadRequest, w.Code)
		a := details(t, w)
		require.Equal(t, [3]int{1, 2, 1}, [3]int{a.Failed, a.Success, len(a.Errors)}, w.Body.String())
		require.Contains(t, a.Errors[0].Error, why)
		require.Empty(t, a.Rejected)
		require.Len(t, written(sink), 2)
		w = post(h, "?summary", body)
		require.Equal(t, http.StatusBadRequest, w.Code)
		require.Contains(t, w.Body.String(), `{"failed":1,"success":2`)
		w = post(h, "", body)
		require.Equal(t, http.StatusBadRequest, w.Code)
		require.Contains(t, w.Body.String(), `{"error":{"code":400,"message":"One or more data points had errors"`)
		// What was refused is not known by its bytes the second time.
		require.Len(t, details(t, post(h, "?details", body)).Errors, 1)
	}
	f(`{"timestamp":1,"value":1}`, "Metric name was empty")
	f(`{"metric":"","timestamp":1,"value":1}`, "Metric name was empty")
	f(`{"metric":null,"timestamp":1,"value":1}`, "Metric name was empty")
	f(`{"metric":7,"timestamp":1,"value":1}`, "the metric is no string")
	for _, ts := range []string{`0`, `-5`, `"-5"`, `""`, `"x"`, `"12a"`, `"1.2.3"`, `null`, `true`, `[1]`, `10000000000000`, `1e300`, `"NaN"`, `"1e"`} {
		f(fmt.Sprintf(`{"metric":"m","timestamp":%s,"value":1}`, ts), "Invalid timestamp")
	}
	f(`{"metric":"m","value":1}`, "Invalid timestamp")
	f(`{"metric":"m","timestamp":1}`, "Empty value")
	f(`{"metric":"m","timestamp":1,"value":""}`, "Empty value")
	f(`{"metric":"m","timestamp":1,"value":null}`, "Empty value")
	for _, v := range []string{`"x"`, `true`, `{}`, `[1]`, `"0x10"`, `"1 "`, `"1_0"`} {
		f(fmt.Sprintf(`{"metric":"m","timestamp":1,"value":%s}`, v), "Unable to parse value to a number")
	}
	for _, v := range []string{`NaN`, `"NaN"`, `Infinity`, `-Infinity`, `"-Inf"`, `1e999`, `"1e999"`} {
		f(fmt.Sprintf(`{"metric":"m","timestamp":1,"value":%s}`, v), "value is NaN or Infinite")
	}
	f(`{"metric":"m","timestamp":1,"value":1,"tags":[]}`, "the tags are no object")
	f(`{"metric":"m","timestamp":1,"value":1,"tags":{"a":{}}}`, `tag "a" is no text`)
	f(`{"metric":"m","timestamp":1,"value":1,"tags":{"":"x"}}`, "a tag has no name")
	f(`{"metric":"m","timestamp":1,"value":1,"tags":{"a":"1","b":"2","c":"3","d":"4","e":"5"}}`, "Too many tags")
	f(`{"metric":"m","timestamp":1,"value":1,"tags":{"`+strings.Repeat("n", 51)+`":"x"}}`, "51 bytes, at most 50")
	f("{\"metric\":\"m\",\"timestamp\":1,\"value\":1,\"tags\":{\"a\":\"\xff\"}}", "not UTF-8")
	f(`5`, "a point is no object")
	f(`[{"metric":"m","timestamp":1,"value":1}]`, "a point is no object")
}

// Bodies that can't be read are refused with OpenTSDB's error, and nothing of them is stored.
func TestMalformed(t *testing.T) {
	const good = `{"metric":"m","timestamp":1,"value":1}`
	for body, message := range map[string]string{
		``: "Missing request content", " \n": "Missing request content", `[]`: "No datapoints found in content", `{`: "Unable to parse the given JSON", `"x"`: "Unable to parse the given JSON",
		`[` + good: "Unable to parse the given JSON", `[` + good + `,]`: "Unable to parse the given JSON", good + ` x`: "Unable to parse the given JSON", good + "\x00": "Unable to parse the given JSON",
		`[` + good + ` ` + good + `]`: "Unable to parse the given JSON", `[` + good + `,{"metric":"m"]`: "Unable to parse the given JSON", `[` + good + `,` + strings.Repeat(`[`, 1000): "Unable to parse the given JSON",
		good[:len(good)-1] + `,"tags":{"a":1,}}`: "Unable to parse the given JSON",
	} {
		sink := ingesttest.NewSink()
		w := post(handler(t, sink, opentsdb.Options{}, ingest.Limits{}), "?details", body)
		require.Equal(t, http.StatusBadRequest, w.Code, body)
		require.Contains(t, w.Body.String(), `{"error":{"code":400,"message":"`+message+`"`, body)
		require.Empty(t, sink.Written(), body)
	}
}

// The answers to success with each parameter.
func TestSuccess(t *testing.T) {
	h := handler(t, ingesttest.NewSink(), opentsdb.Options{}, ingest.Limits{})
	const body = `[{"metric":"m","timestamp":1,"value":1},{"metric":"n","timestamp":1,"value":1}]`
	for query, want := range map[string]string{
		"": "", "?sync": "", "?sync&sync_timeout=60000": "", "?summary": `{"failed":0,"success":2}`, "?details": `{"failed":0,"success":2,"errors":[]}`,
		"?summary=true&details&sync_timeout=1": `{"failed":0,"success":2,"timeouts":0,"errors":[]}`, "?undetails&x=details": "",
	} {
		w := post(h, query, body)
		require.Equal(t, want, w.Body.String())
		if want == "" {
			require.Equal(t, http.StatusNoContent, w.Code)
		} else {
			require.Equal(t, http.StatusOK, w.Code)
		}
	}
}

// Gzip is read, other encodings and methods are not, and too much is too much.
func TestTransport(t *testing.T) {
	sink := ingesttest.NewSink()
	h := handler(t, sink, opentsdb.Options{}, ingest.Limits{CompressedBytesMax: 1000, DecodedBytesMax: 1000})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write([]byte(`{"metric":"m","timestamp":1,"value":1}`))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	try := func(method, encoding string, body []byte) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/api/put", bytes.NewReader(body))
		r.Header.Set("Content-Encoding", encoding)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	require.Equal(t, http.StatusNoContent, try("POST", "gzip", zipped.Bytes()).Code)
	require.Len(t, sink.Written(), 1)
	require.Equal(t, http.StatusBadRequest, try("POST", "gzip", []byte("{}")).Code)
	w := try("POST", "br", nil)
	require.Equal(t, http.StatusUnsupportedMediaType, w.Code)
	require.Contains(t, w.Body.String(), `{"error":{"code":415`)
	w = try("POST", "", make([]byte, 1001))
	require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
	require.Contains(t, w.Body.String(), `{"error":{"code":413`)
	for _, method := range []string{"GET", "OPTIONS", "PUT"} {
		w = try(method, "", nil)
		require.Equal(t, http.StatusMethodNotAllowed, w.Code)
		require.Equal(t, "POST", w.Header().Get("Allow"))
	}
	w = httptest.NewRecorder()
	opentsdb.Version().ServeHTTP(w, httptest.NewRequest("GET", "/api/version", nil))
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `"version":"2.4.0"`)
	w = httptest.NewRecorder()
	opentsdb.Version().ServeHTTP(w, httptest.NewRequest("DELETE", "/api/version", nil))
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
}

// Trouble that is not the sender's tells when to come back.
func TestTrouble(t *testing.T) {
	f := func(err error, code int, after string) {
		t.Helper()
		sink := ingesttest.NewSink()
		sink.Err = err
		w := post(handler(t, sink, opentsdb.Options{}, ingest.Limits{}), "?details", `{"metric":"m","timestamp":1,"value":1}`)
		require.Equal(t, code, w.Code)
		require.Equal(t, after, w.Header().Get("Retry-After"))
		require.Contains(t, w.Body.String(), fmt.Sprintf(`{"error":{"code":%d,"message":"`, code))
	}
	f(&arrival.Unavailable{Reason: "disk_full", RetryAfter: 7 * time.Second, Err: errors.New("full")}, 503, "7")
	f(&ingest.RateLimited{RetryAfter: 1500 * time.Millisecond}, 429, "2")
	f(errors.New("other"), 503, "5")
	sink := ingesttest.NewSink()
	w := post(handler(t, sink, opentsdb.Options{}, ingest.Limits{InFlight: ingest.NewBudget(10)}), "", `{"metric":"m","timestamp":1,"value":1}`)
	require.Equal(t, 503, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
}

// What the archive refuses is counted in the answer, though no point is named.
func TestRefusedByArchive(t *testing.T) {
	sink := ingesttest.NewSink()
	sink.FutureMillis, sink.SeriesMax = 5000, 2
	h := handler(t, sink, opentsdb.Options{}, ingest.Limits{})
	w := post(h, "?details", `[{"metric":"a","timestamp":1,"value":1},{"metric":"a","timestamp":6,"value":1},{"metric":"b","timestamp":1,"value":1},{"metric":"c","timestamp":1,"value":1}]`)
	require.Equal(t, 400, w.Code)
	a := details(t, w)
	require.Equal(t, [3]int{2, 2, 0}, [3]int{a.Failed, a.Success, len(a.Errors)})
	require.Contains(t, a.Rejected, "too_far_in_future: 1")
	require.Contains(t, a.Rejected, "series_limit: 1")
}

// Names are as they come, without the forwarder's escapes, or in the classic characters.
func TestNames(t *testing.T) {
	f := func(o opentsdb.Options, metric, tags, want string) {
		t.Helper()
		sink := ingesttest.NewSink()
		w := post(handler(t, sink, o, ingest.Limits{}), "", fmt.Sprintf(`{"metric":%q,"timestamp":1,"value":1,"tags":%s}`, metric, tags))
		require.Equal(t, http.StatusNoContent, w.Code, w.Body.String())
		for name := range sink.Written() {
			require.Equal(t, want, name)
		}
		require.Len(t, sink.Written(), 1)
	}
	source := labels.Label{Name: "source", Value: "varve"}
	restored := opentsdb.Options{Names: opentsdb.NamesRestored, DefaultTag: source}
	f(opentsdb.Options{}, "a__b", `{"x__y":"_.","source":"varve"}`, `{__name__="a__b", source="varve", x__y="_."}`)
	f(restored, "job_.rate__sum", `{"x__y":"a_20b_._C3_A9"}`, `{__name__="job:rate_sum", x_y="a b:é"}`)
	f(restored, "sys_cpu", `{"my_tag":"a_b","other":"_5F","lower":"_c3"}`, `{__name__="sys_cpu", lower="_c3", my_tag="a_b", other="_5F"}`)
	f(restored, "up", `{"source":"varve"}`, `{__name__="up"}`)
	f(restored, "up", `{"source":"varve","a":"b"}`, `{__name__="up", a="b", source="varve"}`)
	f(restored, "up", `{"source":"other"}`, `{__name__="up", source="other"}`)
	classic := opentsdb.Options{Names: opentsdb.NamesClassic}
	f(classic, "1sys.cpu:x-é", `{"my.tag":"a.b","0":"x","a:b":"c"}`, `{_0="x", __name__="_1sys_cpu:x__", a_b="c", my_tag="a.b"}`)
}

// Under classic names two tags may become one: such a point is refused alone.
func TestNamesCollide(t *testing.T) {
	sink := ingesttest.NewSink()
	w := post(handler(t, sink, opentsdb.Options{Names: opentsdb.NamesClassic}, ingest.Limits{}), "?details",
		`[{"metric":"m","timestamp":1,"value":1,"tags":{"a.b":"1","a-b":"2"}},{"metric":"m","timestamp":1,"value":1}]`)
	require.Equal(t, 400, w.Code)
	require.Contains(t, details(t, w).Errors[0].Error, "given twice")
	require.Len(t, sink.Written(), 1)
}

// One bad point in a thousand costs no other, and more points than are written at a time are all written.
func TestMany(t *testing.T) {
	const points = 70_000
	var body strings.Builder
	bad := 0
	for i := range points {
		value := "1"
		if i%1000 == 7 {
			value = `"x"`
			bad++
		}
		fmt.Fprintf(&body, `,{"metric":"m%d","timestamp":%d,"value":%s,"tags":{"a":"b"}}`, i%100, i+1, value)
	}
	sink := ingesttest.NewSink()
	w := post(handler(t, sink, opentsdb.Options{}, ingest.Limits{}), "?details", "["+body.String()[1:]+"]")
	require.Equal(t, 400, w.Code)
	a := details(t, w)
	require.Equal(t, [3]int{bad, points - bad, bad}, [3]int{a.Failed, a.Success, len(a.Errors)})
	stored := 0
	for _, s := range sink.Written() {
		stored += len(s.Samples)
	}
	require.Equal(t, points-bad, stored)
	require.Equal(t, 2, sink.Writes())
}

// Options that make no sense are refused.
func TestOptions(t *testing.T) {
	for _, o := range []opentsdb.Options{{Names: 9}, {DefaultTag: labels.Label{Name: "a"}}, {BatchDelay: -1}, {ConnectionsMax: -1}} {
		_, err := opentsdb.New(o, ingesttest.NewSink(), ingest.Limits{}, ingest.NewMetrics(nil), discard, time.Now)
		require.Error(t, err)
		_, err = opentsdb.NewTelnet(o, ingesttest.NewSink(), ingest.Limits{}, ingest.NewMetrics(nil), discard, time.Now)
		require.Error(t, err)
	}
}
