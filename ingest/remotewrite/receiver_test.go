package remotewrite_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"varve/arrival"
	"varve/ingest"
	"varve/ingest/ingesttest"
	"varve/ingest/remotewrite"
)

const nowMillis = 1_700_000_000_000

// wire1 and wire2 compress a message.
func wire1(t require.TestingT, series ...prompb.TimeSeries) []byte {
	b, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, b)
}

func wire2(t require.TestingT, symbols []string, series ...writev2.TimeSeries) []byte {
	b, err := (&writev2.Request{Symbols: symbols, Timeseries: series}).Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, b)
}

// one1 is a series of 1.0 with one sample, from label names and values in turn.
func one1(v float64, nameValues ...string) prompb.TimeSeries {
	ts := prompb.TimeSeries{Samples: []prompb.Sample{{Value: v, Timestamp: nowMillis}}}
	for i := 0; i < len(nameValues); i += 2 {
		ts.Labels = append(ts.Labels, prompb.Label{Name: nameValues[i], Value: nameValues[i+1]})
	}
	return ts
}

// symbols2 is a table for the series below: references 1, 2 name the metric up.
var symbols2 = []string{"", "__name__", "up", "job", "node", "Whether it is up.", "seconds", "latency_bucket"}

func one2(refs ...uint32) writev2.TimeSeries {
	return writev2.TimeSeries{LabelsRefs: refs, Samples: []writev2.Sample{{Value: 1, Timestamp: nowMillis}}}
}

// TestNegotiation shows which message each Content-Type and Content-Encoding
// stands for, and that 415 comes before the body is read.
func TestNegotiation(t *testing.T) {
	body1 := wire1(t, one1(1, "__name__", "up"))
	body2 := wire2(t, symbols2, one2(1, 2))
	for _, c := range []struct {
		contentType, encoding []string
		version               int // 0: 415
	}{
		{[]string{"application/x-protobuf"}, []string{"snappy"}, 1},
		{[]string{"application/x-protobuf"}, nil, 1},
		{[]string{"application/x-protobuf"}, []string{""}, 1},
		{[]string{"application/x-protobuf"}, []string{"Snappy"}, 1},
		{nil, []string{"snappy"}, 1},
		{[]string{""}, []string{"snappy"}, 1},
		{[]string{"application/x-protobuf;proto=prometheus.WriteRequest"}, []string{"snappy"}, 1},
		{[]string{"application/x-protobuf; proto=prometheus.WriteRequest"}, []string{"snappy"}, 1},
		{[]string{"application/x-protobuf; charset=utf-8"}, []string{"snappy"}, 1},
		{[]string{"Application/X-Protobuf"}, []string{"snappy"}, 1},
		{[]string{"application/x-protobuf;proto=io.prometheus.write.v2.Request"}, []string{"snappy"}, 2},
		{[]string{"application/x-protobuf; proto=io.prometheus.write.v2.Request"}, []string{"snappy"}, 2},
		{[]string{`application/x-protobuf; proto="io.prometheus.write.v2.Request"`}, nil, 2},
		{[]string{"application/x-protobuf;proto=io.prometheus.write.v3.Request"}, []string{"snappy"}, 0},
		{[]string{"application/x-protobuf;proto="}, []string{"snappy"}, 0},
		{[]string{"application/x-protobuf;proto=a;proto=b"}, []string{"snappy"}, 0},
		{[]string{"application/json"}, []string{"snappy"}, 0},
		{[]string{"text/plain; proto=io.prometheus.write.v2.Request"}, []string{"snappy"}, 0},
		{[]string{";"}, []string{"snappy"}, 0},
		{[]string{"application/x-protobuf", "application/json"}, []string{"snappy"}, 0},
		{[]string{"application/x-protobuf"}, []string{"gzip"}, 0},
		{[]string{"application/x-protobuf"}, []string{"deflate"}, 0},
		{[]string{"application/x-protobuf"}, []string{"zstd"}, 0},
		{[]string{"application/x-protobuf"}, []string{"identity"}, 0},
		{[]string{"application/x-protobuf"}, []string{"snappy, gzip"}, 0},
		{[]string{"application/x-protobuf"}, []string{"snappy", "gzip"}, 0},
		{[]string{"application/x-protobuf;proto=io.prometheus.write.v2.Request"}, []string{"gzip"}, 0},
	} {
		r := newReceiver()
		body := body1
		if c.version == 2 {
			body = body2
		}
		read := &counting{Reader: bytes.NewReader(body)}
		req := httptest.NewRequest(http.MethodPost, "/", read)
		req.Header["Content-Type"], req.Header["Content-Encoding"] = c.contentType, c.encoding
		answer := r.send(t, req)
		if c.version == 0 {
			require.Equal(t, http.StatusUnsupportedMediaType, answer.code, c)
			require.Zero(t, read.reads, c)
			continue
		}
		require.Equal(t, http.StatusNoContent, answer.code, c)
		require.Empty(t, answer.body)
		require.Equal(t, c.version == 2, answer.written != nil, c)
		require.Contains(t, r.sink.Written(), `{__name__="up"}`)
	}
}

type counting struct {
	io.Reader
	reads int
}

func (c *counting) Read(p []byte) (int, error) {
	c.reads++
	return c.Reader.Read(p)
}

// TestMethod shows that only POST is taken.
func TestMethod(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodHead, http.MethodDelete, http.MethodOptions} {
		answer := newReceiver().send(t, httptest.NewRequest(method, "/", nil))
		require.Equal(t, http.StatusMethodNotAllowed, answer.code)
		require.Equal(t, "POST", answer.header.Get("Allow"))
		require.Nil(t, answer.written)
	}
}

// TestBrokenBodies shows that a body that cannot be decoded is 400 with nothing
// written, with the headers of 2.0 all zero and none for 1.0.
func TestBrokenBodies(t *testing.T) {
	good1, good2 := wire1(t, one1(1, "__name__", "up")), wire2(t, symbols2, one2(1, 2))
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	var framed bytes.Buffer
	f := snappy.NewBufferedWriter(&framed)
	_, err = f.Write([]byte("framed, not a block"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	for name, body := range map[string][]byte{
		"empty":              {},
		"no snappy":          []byte("hello, world"),
		"gzip":               zipped.Bytes(),
		"framed snappy":      framed.Bytes(),
		"cut 1.0":            good1[:len(good1)-3],
		"cut 2.0":            good2[:len(good2)-3],
		"no protobuf":        snappy.Encode(nil, []byte("\xff\xff\xff\xff not a message")),
		"length beyond end":  snappy.Encode(nil, []byte{0x0a, 0x7f, 1, 2, 0x2a, 0x7f, 1}),
		"wrong wire type":    snappy.Encode(nil, []byte{0x08, 1, 0x20, 1, 0x28, 1}),
		"lying about length": {0xff, 0xff, 0xff, 0x07, 0},
	} {
		for version, contentType := range map[int]string{1: contentType1, 2: contentType2} {
			r := newReceiver()
			answer := r.post(t, contentType, body)
			require.Equal(t, http.StatusBadRequest, answer.code, "%s %d", name, version)
			require.Contains(t, answer.body, "nothing is written")
			require.Zero(t, r.sink.Writes())
			require.Zero(t, r.sink.SeriesCount())
			if version == 2 {
				require.Equal(t, []int{0, 0, 0}, answer.written)
			} else {
				require.Nil(t, answer.written)
			}
		}
	}
}

// TestMalformedTail shows that a request whose last series is malformed writes and
// creates nothing, though the series before it are fine, known or new.
func TestMalformedTail(t *testing.T) {
	r := newReceiver()
	require.Equal(t, 204, r.post(t, contentType1, wire1(t, one1(1, "__name__", "up"))).code)
	r.sink.Clear()
	good, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{one1(1, "__name__", "up"), one1(1, "__name__", "new")}}).Marshal()
	require.NoError(t, err)
	// A label message that says its name is longer than the label, before a fine sample.
	label := []byte{0x0a, 0x02, 0x0a, 0x7f}
	sample := []byte{0x12, 0x10, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31}
	bad := append([]byte{0x0a, byte(len(label) + len(sample))}, append(label, sample...)...)
	answer := r.post(t, contentType1, snappy.Encode(nil, append(good, bad...)))
	require.Equal(t, http.StatusBadRequest, answer.code)
	require.Zero(t, r.sink.Writes())
	require.Equal(t, 1, r.sink.SeriesCount())
}

// TestPartialAcceptance shows that the valid part of a request is written and the
// rest named, with counts by reason and examples, and counted in the headers of 2.0.
func TestPartialAcceptance(t *testing.T) {
	r := newReceiver()
	r.sink.FutureMillis = nowMillis
	late := one1(1, "__name__", "late")
	late.Samples = append(late.Samples, prompb.Sample{Value: 2, Timestamp: nowMillis + 1})
	answer := r.post(t, contentType1, wire1(t,
		one1(1, "__name__", "up"),
		one1(1, "job", "no name"),
		one1(1, "__name__", "up", "a\r\nSet-Cookie: x", "1", "a\r\nSet-Cookie: x", "2"),
		one1(1, "__name__", "up", "", "x"),
		late,
	))
	require.Equal(t, http.StatusBadRequest, answer.code)
	require.Nil(t, answer.written)
	require.Contains(t, answer.body, "invalid_labels: 3")
	require.Contains(t, answer.body, "too_far_in_future: 1")
	require.Contains(t, answer.body, `too_far_in_future: {__name__="late"} at `)
	require.Contains(t, answer.body, "no metric name")
	require.Contains(t, answer.body, `"a\r\nSet-Cookie: x"`)
	require.NotContains(t, strings.TrimSuffix(answer.body, "\n"), "\n")
	require.Len(t, r.sink.Written(), 2)
	require.Len(t, r.sink.Written()[`{__name__="late"}`].Samples, 1)

	answer = r.post(t, contentType2, wire2(t, symbols2, one2(1, 2), one2(3, 4), one2(1, 2, 3), one2(1, 99)))
	require.Equal(t, http.StatusBadRequest, answer.code)
	require.Equal(t, []int{1, 0, 0}, answer.written)
	require.Contains(t, answer.body, "invalid_labels: 1, invalid_symbols: 2")
	require.Contains(t, answer.body, "outside the table of symbols: 99 of 8")
	require.Contains(t, answer.body, "odd number")
}

// TestErrorBodyBounded shows that the text of a refusal stays within 1 KiB however
// much is wrong.
func TestErrorBodyBounded(t *testing.T) {
	var series []prompb.TimeSeries
	for range 1000 {
		series = append(series, one1(1, strings.Repeat("n", 5000), strings.Repeat("\x1b", 300)))
	}
	r := newReceiver()
	answer := r.post(t, contentType1, wire1(t, series...))
	require.Equal(t, http.StatusBadRequest, answer.code)
	require.LessOrEqual(t, len(answer.body), 1025)
	require.Contains(t, answer.body, "invalid_labels: 1000")
	require.NotContains(t, answer.body, "\x1b")
	require.Zero(t, r.sink.Writes(), "nothing to write needs no sync")
}

// TestSizes shows 413 for bodies over the limits, by Content-Length before anything
// is read, in chunks, and by the length in the block.
func TestSizes(t *testing.T) {
	limits := ingest.Limits{CompressedBytesMax: 1000, DecodedBytesMax: 2000}
	big := wire1(t, one1(1, "__name__", strings.Repeat("x", 3000)))
	require.Less(t, len(big), 1000)
	noise := make([]byte, 1001)
	for _, c := range []struct {
		name    string
		body    []byte
		chunked bool
		reads   bool
		code    int
	}{
		{"decoded", big, false, true, 413},
		{"decoded, chunked", big, true, true, 413},
		{"compressed", noise, false, false, 413},
		{"compressed, chunked", noise, true, true, 413},
		{"at the limit, broken", noise[:1000], false, true, 400},
		{"at the limit, broken, chunked", noise[:1000], true, true, 400},
	} {
		r := newLimitedReceiver(limits)
		read := &counting{Reader: bytes.NewReader(c.body)}
		req := httptest.NewRequest(http.MethodPost, "/", read)
		req.ContentLength = int64(len(c.body))
		if c.chunked {
			req.ContentLength = -1
		}
		answer := r.send(t, req)
		require.Equal(t, c.code, answer.code, c.name)
		require.Equal(t, c.reads, read.reads > 0, c.name)
	}
}

// TestChunkedBody shows that a body without a Content-Length is taken like any other,
// over a real connection.
func TestChunkedBody(t *testing.T) {
	r := newReceiver()
	server := httptest.NewServer(r)
	defer server.Close()
	var series []prompb.TimeSeries
	for i := range 3000 {
		series = append(series, one1(float64(i), "__name__", "up", "i", strings.Repeat("x", i%100), "n", string(rune('a'+i%26))+strings.Repeat("y", i)))
	}
	wire := wire1(t, series...)
	require.Greater(t, len(wire), 200<<10)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, io.MultiReader(bytes.NewReader(wire[:10]), bytes.NewReader(wire[10:])))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType1)
	resp, err := server.Client().Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNoContent, resp.StatusCode)
	require.Len(t, r.sink.Written(), 3000)
}

// TestOwnTrouble shows that whatever goes wrong on our side is 503 with Retry-After,
// never 4xx, and that 2.0 then says that nothing was written.
func TestOwnTrouble(t *testing.T) {
	full := &arrival.Unavailable{Reason: "disk_full", RetryAfter: 1500 * time.Millisecond, Err: errors.New("no space left")}
	for _, c := range []struct {
		name       string
		set        func(s *ingesttest.Sink)
		ctx        func() context.Context
		retryAfter string
	}{
		{"write unavailable", func(s *ingesttest.Sink) { s.Err = full }, context.Background, "2"},
		{"resolve unavailable", func(s *ingesttest.Sink) { s.ResolveErr = full }, context.Background, "2"},
		{"unknown error", func(s *ingesttest.Sink) { s.Err = errors.New("bug") }, context.Background, "5"},
		{"no wait suggested", func(s *ingesttest.Sink) { s.Err = &arrival.Unavailable{Reason: "shutdown", Err: errors.New("x")} }, context.Background, "1"},
		{"cancelled", func(*ingesttest.Sink) {}, func() context.Context {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			return ctx
		}, "5"},
	} {
		for version, contentType := range map[int]string{1: contentType1, 2: contentType2} {
			r := newReceiver()
			c.set(r.sink)
			body := wire1(t, one1(1, "__name__", "up"), one1(1, "no", "name"))
			if version == 2 {
				body = wire2(t, symbols2, one2(1, 2))
			}
			req := httptest.NewRequestWithContext(c.ctx(), http.MethodPost, "/", bytes.NewReader(body))
			req.Header.Set("Content-Type", contentType)
			answer := r.send(t, req)
			require.Equal(t, http.StatusServiceUnavailable, answer.code, c.name)
			require.Equal(t, c.retryAfter, answer.header.Get("Retry-After"), c.name)
			if version == 2 {
				require.Equal(t, []int{0, 0, 0}, answer.written, c.name)
			} else {
				require.Nil(t, answer.written)
			}
		}
	}
}

// TestCutConnection shows that a body that breaks off is not taken for a whole one
// and not held against the sender.
func TestCutConnection(t *testing.T) {
	body := wire1(t, one1(1, "__name__", "up"))
	for _, length := range []int64{-1, int64(len(body))} {
		r := newReceiver()
		req := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(bytes.NewReader(body[:5]), failing{}))
		req.ContentLength = length
		require.Equal(t, http.StatusServiceUnavailable, r.send(t, req).code)
		require.Zero(t, r.sink.Writes())
	}
	r := newReceiver()
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body[:5]))
	req.ContentLength = int64(len(body))
	require.Equal(t, http.StatusServiceUnavailable, r.send(t, req).code)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestInFlightLimit shows 503 when the bytes in flight are used up, and that every
// answer, a panic included, gives its bytes back.
func TestInFlightLimit(t *testing.T) {
	budget := ingest.NewBudget(100_000)
	r := newLimitedReceiver(ingest.Limits{InFlight: budget})
	body := wire1(t, one1(1, "__name__", "up"))
	require.True(t, budget.TryAcquire(100_000))
	answer := r.post(t, contentType1, body)
	require.Equal(t, http.StatusServiceUnavailable, answer.code)
	require.Equal(t, "1", answer.header.Get("Retry-After"))
	budget.Release(100_000)
	require.Equal(t, http.StatusNoContent, r.post(t, contentType1, body).code)
	require.Zero(t, budget.Used())
	// Room for the body as it came, none for what it decodes to.
	big := wire1(t, one1(1, "__name__", strings.Repeat("x", 16<<10), "b", strings.Repeat("y", 16<<10)))
	require.True(t, budget.TryAcquire(100_000-int64(len(big))))
	require.Equal(t, http.StatusServiceUnavailable, r.post(t, contentType1, big).code)
	budget.Release(100_000 - int64(len(big)))
	require.Zero(t, budget.Used())

	h := remotewrite.New(panicking{ingesttest.NewSink()}, ingest.Limits{InFlight: budget}, ingest.NewMetrics(nil), discard, fixedNow, remotewrite.Options{})
	require.Panics(t, func() { (&receiver{Handler: h}).post(t, contentType1, body) })
	require.Zero(t, budget.Used())
}

type panicking struct{ *ingesttest.Sink }

func (panicking) Write(context.Context, *arrival.Batch) (arrival.Result, error) { panic("bug") }

// TestLabelRules shows what becomes of each kind of label set, in both protocols.
func TestLabelRules(t *testing.T) {
	long := strings.Repeat("v", 16<<10)
	many := []string{"__name__", "up"}
	for i := range 63 {
		many = append(many, "l"+string(rune('a'+i/26))+string(rune('a'+i%26)), "x")
	}
	for _, c := range []struct {
		name   string
		labels []string
		want   string // "": 400
	}{
		{"sorted", []string{"__name__", "up", "job", "node"}, `{__name__="up", job="node"}`},
		{"unsorted", []string{"job", "node", "__name__", "up"}, `{__name__="up", job="node"}`},
		{"empty value", []string{"__name__", "up", "job", ""}, `{__name__="up"}`},
		{"duplicate", []string{"__name__", "up", "job", "a", "job", "b"}, ""},
		{"duplicate apart", []string{"job", "a", "__name__", "up", "job", "a"}, ""},
		{"duplicate of an empty value", []string{"__name__", "up", "job", "", "job", "b"}, ""},
		{"empty name", []string{"__name__", "up", "", "b"}, ""},
		{"no metric name", []string{"job", "b"}, ""},
		{"empty metric name", []string{"__name__", "", "job", "b"}, ""},
		{"no labels", nil, ""},
		{"UTF-8 names", []string{"__name__", "my.metric é", "la bel\n", "1"}, `{__name__="my.metric é", "la bel\n"="1"}`},
		{"NUL in a value", []string{"__name__", "up", "a", "\x00"}, `{__name__="up", a="\x00"}`},
		{"bad UTF-8 in a value", []string{"__name__", "up", "a", "\xff"}, ""},
		{"bad UTF-8 in a name", []string{"__name__", "up", "\xff", "a"}, ""},
		{"bad UTF-8 in a metric name", []string{"__name__", "up\xc3"}, ""},
		{"longest value", []string{"__name__", "up", "a", long}, `{__name__="up", a="` + long + `"}`},
		{"too long a value", []string{"__name__", "up", "a", long + "v"}, ""},
		{"longest name", []string{"__name__", "up", long[:1024], "a"}, `{__name__="up", ` + long[:1024] + `="a"}`},
		{"too long a name", []string{"__name__", "up", long[:1025], "a"}, ""},
		{"64 labels", many, "64 labels"},
		{"65 labels", append(append([]string{}, many...), "zz", "x"), ""},
	} {
		symbols := writev2.NewSymbolTable()
		var refs []uint32
		for _, s := range c.labels {
			refs = append(refs, symbols.Symbolize(s))
		}
		bodies := map[string][]byte{contentType1: wire1(t, one1(1, c.labels...)), contentType2: wire2(t, symbols.Symbols(), one2(refs...))}
		for contentType, body := range bodies {
			r := newReceiver()
			for range 2 { // new, then known
				r.sink.Clear()
				answer := r.post(t, contentType, body)
				if c.want == "" {
					require.Equal(t, http.StatusBadRequest, answer.code, c.name)
					require.Empty(t, r.sink.Written(), c.name)
					require.Zero(t, r.sink.SeriesCount(), c.name)
					continue
				}
				require.Equal(t, http.StatusNoContent, answer.code, c.name+answer.body)
				require.Len(t, r.sink.Written(), 1)
				if !strings.HasPrefix(c.want, "64") {
					require.Contains(t, r.sink.Written(), c.want)
				}
			}
		}
	}
}

// TestOneSeries shows that senders who order labels differently, leave empty ones
// in, or speak another version write one series.
func TestOneSeries(t *testing.T) {
	r := newReceiver()
	for _, body := range [][]byte{
		wire1(t, one1(1, "__name__", "up", "job", "node")),
		wire1(t, one1(1, "job", "node", "__name__", "up")),
		wire1(t, one1(1, "job", "node", "__name__", "up", "x", "")),
	} {
		require.Equal(t, 204, r.post(t, contentType1, body).code)
	}
	require.Equal(t, 204, r.post(t, contentType2, wire2(t, symbols2, one2(1, 2, 3, 4), one2(3, 4, 1, 2))).code)
	require.Equal(t, 1, r.sink.SeriesCount())
	require.Len(t, r.sink.Written()[`{__name__="up", job="node"}`].Samples, 5)
}

// TestFieldOrder shows that the order of fields in a series message does not matter:
// labels behind and between samples, unknown fields anywhere, symbols behind series.
func TestFieldOrder(t *testing.T) {
	label := func(name, value string) []byte {
		b, err := (&prompb.Label{Name: name, Value: value}).Marshal()
		require.NoError(t, err)
		return append([]byte{0x0a, byte(len(b))}, b...)
	}
	sample := []byte{0x12, 0x10, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31}
	unknown := []byte{0x7a, 0x02, 'h', 'i'}
	name, job := label("__name__", "up"), label("job", "node")
	for _, parts := range [][][]byte{
		{name, job, sample},
		{sample, name, job},
		{name, sample, job},
		{sample, job, sample, name},
		{unknown, name, unknown, job, sample},
		{name, job, unknown, sample},
		{name, job, sample, unknown},
		{name, job, sample, sample},
	} {
		series := bytes.Join(parts, nil)
		body := append([]byte{0x0a, byte(len(series))}, series...)
		r := newReceiver()
		for range 2 {
			answer := r.post(t, contentType1, snappy.Encode(nil, append(body, body...)))
			require.Equal(t, http.StatusNoContent, answer.code, answer.body)
		}
		written := r.sink.Written()
		require.Len(t, written, 1)
		require.Len(t, written[`{__name__="up", job="node"}`].Samples, 4*bytes.Count(series, sample))
		require.Equal(t, math.Float64bits(1), written[`{__name__="up", job="node"}`].Samples[0].Bits)
	}

	req := &writev2.Request{Symbols: symbols2}
	head, err := req.Marshal()
	require.NoError(t, err)
	tail, err := (&writev2.Request{Timeseries: []writev2.TimeSeries{one2(1, 2), one2(1, 2, 3, 4)}}).Marshal()
	require.NoError(t, err)
	r := newReceiver()
	require.Equal(t, 204, r.post(t, contentType2, snappy.Encode(nil, append(tail, head...))).code)
	require.Len(t, r.sink.Written(), 2)
}

// TestMisleadingTail shows that a label value that ends like a sample message is
// never taken for one.
func TestMisleadingTail(t *testing.T) {
	sample := "\x12\x10\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\x80\xd0\x95\xff\xbc\x31"
	r := newReceiver()
	// Bad UTF-8 cannot be part of a valid series, so the first is refused; without
	// samples and in the right place it would be a series of one sample.
	fake := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "a", Value: sample}}}
	require.Equal(t, 400, r.post(t, contentType1, wire1(t, fake)).code)
	require.Empty(t, r.sink.Written())
	// A real sample behind it.
	fake.Samples = []prompb.Sample{{Value: 5, Timestamp: nowMillis}}
	require.Equal(t, 400, r.post(t, contentType1, wire1(t, fake)).code)
	// An exemplar before the sample that is not the only thing in the message.
	mixed := one1(7, "__name__", "up")
	b, err := mixed.Marshal()
	require.NoError(t, err)
	e, err := (&prompb.Exemplar{Value: 3, Timestamp: nowMillis}).Marshal()
	require.NoError(t, err)
	series := append(append(append([]byte{}, b[:len(b)-18]...), append([]byte{0x1a, byte(len(e))}, e...)...), b[len(b)-18:]...)
	for range 2 {
		r.sink.Clear()
		require.Equal(t, 204, r.post(t, contentType1, snappy.Encode(nil, append([]byte{0x0a, byte(len(series))}, series...))).code)
		require.Len(t, r.sink.Written()[`{__name__="up"}`].Samples, 1)
		require.Len(t, r.sink.Written()[`{__name__="up"}`].Exemplars, 1)
	}
}

// TestStartTimestamps shows that 2.0 start timestamps are taken per sample and, from
// older senders, per series, and that 1.0 has none.
func TestStartTimestamps(t *testing.T) {
	ts := writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Value: 1, Timestamp: 10}, {Value: 2, Timestamp: 20, StartTimestamp: 5}}}
	series, err := ts.Marshal()
	require.NoError(t, err)
	series = append(series, 0x30, 0x07) // created_timestamp
	head, err := (&writev2.Request{Symbols: symbols2, Timeseries: []writev2.TimeSeries{one2(1, 2, 3, 4)}}).Marshal()
	require.NoError(t, err)
	r := newReceiver()
	body := append(head, append([]byte{0x2a, byte(len(series))}, series...)...)
	require.Equal(t, 204, r.post(t, contentType2, snappy.Encode(nil, body)).code)
	got := r.sink.Written()
	require.Equal(t, []ingesttest.Sample{{TimeMillis: 10, StartMillis: 7, Bits: math.Float64bits(1)}, {TimeMillis: 20, StartMillis: 5, Bits: math.Float64bits(2)}}, got[`{__name__="up"}`].Samples)
	require.Zero(t, got[`{__name__="up", job="node"}`].Samples[0].StartMillis)
}

// TestSeries2 shows the rules of 2.0 for what a series may hold.
func TestSeries2(t *testing.T) {
	histogram := writev2.Histogram{Timestamp: nowMillis, Count: &writev2.Histogram_CountInt{CountInt: 0}}
	both := one2(1, 2)
	both.Histograms = []writev2.Histogram{histogram}
	for _, c := range []struct {
		name    string
		symbols []string
		series  writev2.TimeSeries
		code    int
		written []int
		text    string
	}{
		{"sample", symbols2, one2(1, 2), 204, []int{1, 0, 0}, ""},
		{"histogram", symbols2, writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Histograms: []writev2.Histogram{histogram}}, 204, []int{0, 1, 0}, ""},
		{"both", symbols2, both, 400, []int{0, 0, 0}, "invalid_series: 2"},
		{"metadata only", symbols2, writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Metadata: writev2.Metadata{Type: 2, HelpRef: 5}}, 204, []int{0, 0, 0}, ""},
		{"metadata only, bad labels", symbols2, writev2.TimeSeries{LabelsRefs: []uint32{3, 4}, Metadata: writev2.Metadata{Type: 2, HelpRef: 5}}, 400, []int{0, 0, 0}, "invalid_labels: 1"},
		{"nothing", symbols2, writev2.TimeSeries{LabelsRefs: []uint32{1, 2}}, 400, []int{0, 0, 0}, "invalid_series: 1"},
		{"exemplar only", symbols2, writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Exemplars: []writev2.Exemplar{{Value: 1, Timestamp: nowMillis}}}, 204, []int{0, 0, 1}, ""},
		{"exemplar only, without a time", symbols2, writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Exemplars: []writev2.Exemplar{{Value: 1}}}, 400, []int{0, 0, 0}, "invalid_exemplar: 1"},
		{"first symbol", []string{"x", "__name__", "up"}, one2(1, 2), 400, []int{0, 0, 0}, "invalid_symbols: 1"},
		{"no symbols", nil, one2(), 400, []int{0, 0, 0}, "invalid_symbols: 1"},
		{"out of range", symbols2, one2(1, 8), 400, []int{0, 0, 0}, "invalid_symbols: 1"},
		{"far out of range", symbols2, one2(1, math.MaxUint32), 400, []int{0, 0, 0}, "invalid_symbols: 1"},
		{"odd", symbols2, one2(1, 2, 3), 400, []int{0, 0, 0}, "invalid_symbols: 1"},
		{"help out of range", symbols2, writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: one2().Samples, Metadata: writev2.Metadata{HelpRef: 99}}, 400, []int{0, 0, 0}, "invalid_symbols: 1"},
		{"exemplar out of range", symbols2, writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: one2().Samples, Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{1, 77}}}}, 400, []int{1, 0, 0}, "invalid_symbols: 1"},
	} {
		answer := newReceiver().post(t, contentType2, wire2(t, c.symbols, c.series))
		require.Equal(t, c.code, answer.code, c.name+answer.body)
		require.Equal(t, c.written, answer.written, c.name)
		require.Contains(t, answer.body, c.text, c.name)
	}
}

// TestUnpackedReferences shows that label references outside a packed field are
// taken, as protobuf allows.
func TestUnpackedReferences(t *testing.T) {
	head, err := (&writev2.Request{Symbols: symbols2}).Marshal()
	require.NoError(t, err)
	sample := []byte{0x12, 0x10, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31}
	series := append([]byte{0x08, 1, 0x08, 2, 0x0a, 1, 3, 0x08, 4}, sample...)
	r := newReceiver()
	require.Equal(t, 204, r.post(t, contentType2, snappy.Encode(nil, append(head, append([]byte{0x2a, byte(len(series))}, series...)...))).code)
	require.Contains(t, r.sink.Written(), `{__name__="up", job="node"}`)
}

// TestMetadata shows the metadata that each protocol stores, and that 2.0 names the
// family of a classic histogram, not its series.
func TestMetadata(t *testing.T) {
	r := newReceiver()
	body, err := (&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{
		{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "a", Help: "help", Unit: "bytes"},
		{Type: 99, MetricFamilyName: "b"},
		{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: ""},
		{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "c", Help: "\xff"},
	}}).Marshal()
	require.NoError(t, err)
	answer := r.post(t, contentType1, snappy.Encode(nil, body))
	require.Equal(t, 400, answer.code)
	require.Contains(t, answer.body, "invalid_series: 2")
	require.Equal(t, map[string]metadata.Metadata{"a": {Type: "counter", Help: "help", Unit: "bytes"}, "b": {Type: "unknown"}}, r.sink.Families())

	r = newReceiver()
	plain, classic := one2(1, 2), one2(1, 7, 3, 4)
	plain.Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: 5}
	classic.Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_HISTOGRAM, UnitRef: 6}
	for range 2 {
		require.Equal(t, 204, r.post(t, contentType2, wire2(t, symbols2, plain, classic, one2(1, 2, 3, 4))).code)
		require.Equal(t, map[string]metadata.Metadata{"up": {Type: "gauge", Help: "Whether it is up."}, "latency": {Type: "histogram", Unit: "seconds"}}, r.sink.Families())
	}
}

// TestEmptyRequest shows that a request without content is a success that needs no
// write.
func TestEmptyRequest(t *testing.T) {
	for _, contentType := range []string{contentType1, contentType2} {
		r := newReceiver()
		require.Equal(t, 204, r.post(t, contentType, snappy.Encode(nil, nil)).code)
		require.Zero(t, r.sink.Writes())
	}
}

// TestSeriesLimits shows that series beyond the number for a request are refused and
// the others written, and that so are new ones beyond what the archive allows.
func TestSeriesLimits(t *testing.T) {
	r := newLimitedReceiver(ingest.Limits{SeriesMax: 2})
	answer := r.post(t, contentType1, wire1(t, one1(1, "__name__", "a"), one1(1, "__name__", "b"), one1(1, "__name__", "c"), one1(1, "__name__", "d")))
	require.Equal(t, 400, answer.code)
	require.Contains(t, answer.body, "invalid_series: 2")
	require.Len(t, r.sink.Written(), 2)
	answer = r.post(t, contentType2, wire2(t, symbols2, one2(1, 2), one2(1, 4), one2(1, 5)))
	require.Equal(t, 400, answer.code)
	require.Equal(t, []int{2, 0, 0}, answer.written)

	r = newReceiver()
	r.sink.SeriesMax = 1
	require.Equal(t, 204, r.post(t, contentType1, wire1(t, one1(1, "__name__", "a"))).code)
	answer = r.post(t, contentType1, wire1(t, one1(2, "__name__", "a"), one1(1, "__name__", "b")))
	require.Equal(t, 400, answer.code)
	require.Contains(t, answer.body, "series_limit: 1")
	require.Len(t, r.sink.Written()[`{__name__="a"}`].Samples, 2)
}

// TestMetricsAndLog shows what is counted of a request, and that refusals are logged
// once for many.
func TestMetricsAndLog(t *testing.T) {
	reg := prometheus.NewRegistry()
	var log bytes.Buffer
	sink := ingesttest.NewSink()
	now := time.UnixMilli(nowMillis)
	h := remotewrite.New(sink, ingest.Limits{}, ingest.NewMetrics(reg), slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now }, remotewrite.Options{})
	r := &receiver{h, sink}
	body := wire2(t, symbols2, one2(1, 2), one2(1, 2, 3))
	for range 5 {
		require.Equal(t, 400, r.post(t, contentType2, body).code)
	}
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	now = now.Add(11 * time.Second)
	r.post(t, contentType2, body)
	require.Equal(t, 2, strings.Count(log.String(), "\n"))

	values := map[string]float64{}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				if l.GetName() != "input" {
					name += " " + l.GetValue()
				}
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	require.InDelta(t, 6, values["varve_ingest_requests_total 400 remote_write_2.0"], 0)
	require.InDelta(t, 6, values["varve_ingest_written_total samples remote_write_2.0"], 0)
	require.InDelta(t, 6, values["varve_ingest_rejected_total remote_write_2.0 invalid_symbols"], 0)
	require.InDelta(t, 6*len(body), values["varve_ingest_bytes_total wire remote_write_2.0"], 0)
	require.InDelta(t, 6, values["varve_ingest_request_duration_seconds remote_write_2.0"], 0)
	require.InDelta(t, 0, values["varve_ingest_in_flight_bytes remote_write_2.0"], 0)
}

// TestConcurrentSenders shows that senders of both versions at once, with new and
// known series and metadata, lose and mix up nothing. It is for the race detector.
func TestConcurrentSenders(t *testing.T) {
	const senders, requests = 8, 50
	budget := ingest.NewBudget(64 << 20)
	r := newLimitedReceiver(ingest.Limits{InFlight: budget})
	var wg sync.WaitGroup
	codes := make(chan int, senders*requests)
	for s := range senders {
		wg.Go(func() {
			for i := range requests {
				metric := fmt.Sprintf("metric_%d", i%10)
				if s%2 == 0 {
					codes <- r.post(t, contentType1, wire1(t, one1(float64(i), "__name__", metric, "sender", strconv.Itoa(s)))).code
					continue
				}
				ts := one2(1, 2, 3, 4)
				ts.Metadata = writev2.Metadata{Type: 1, HelpRef: 5}
				codes <- r.post(t, contentType2, wire2(t, []string{"", "__name__", metric, "sender", strconv.Itoa(s), "help of " + metric}, ts)).code
			}
		})
	}
	wg.Wait()
	close(codes)
	for code := range codes {
		require.Equal(t, 204, code)
	}
	written := r.sink.Written()
	require.Len(t, written, senders*10)
	for name, series := range written {
		require.Len(t, series.Samples, requests/10, name)
	}
	require.Len(t, r.sink.Families(), 10)
	require.Equal(t, "help of metric_3", r.sink.Families()["metric_3"].Help)
	require.Zero(t, budget.Used())
}

// TestPlacesCount shows that the same symbols in other places are another series.
func TestPlacesCount(t *testing.T) {
	r := newReceiver()
	symbols := []string{"", "__name__", "up", "a", "b"}
	for range 2 {
		r.sink.Clear()
		require.Equal(t, 204, r.post(t, contentType2, wire2(t, symbols, one2(1, 2, 3, 4), one2(1, 2, 4, 3), one2(1, 3, 2, 4), one2(1, 3), one2(1, 4))).code)
		require.Len(t, r.sink.Written(), 5)
	}
}
