package opentsdb_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/forward"
	"varve/forward/lineprotocol"
	"varve/forward/opentsdb"
	"varve/internal/testkit/leaks"
)

// patience bounds the wait for what happens in another goroutine or process, which only something that hangs outlasts.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// start is when the samples of tests begin, in Unix ms.
const start = 1_700_000_000_000

// newSender returns a sender, closed with the test.
func newSender(t testing.TB, o opentsdb.Options) *opentsdb.Sender {
	t.Helper()
	o.Name, o.HTTP, o.Timeout = "test", config.DefaultHTTPClientConfig, patience
	s, err := opentsdb.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// series is a prepared series with these values, a second and a bit apart.
func series(t testing.TB, s forward.Sender, ls labels.Labels, values ...float64) forward.Series {
	t.Helper()
	target := &forward.Target{Labels: ls}
	require.NoError(t, s.Prepare(target))
	out := forward.Series{Target: target}
	for i, v := range values {
		out.Floats = append(out.Floats, forward.Float{TimeMillis: start + int64(i)*1001, Value: v})
	}
	return out
}

// dataPoint is a point as OpenTSDB reads it.
type dataPoint struct {
	Metric    string            `json:"metric"`
	Timestamp int64             `json:"timestamp"`
	Value     json.Number       `json:"value"`
	Tags      map[string]string `json:"tags"`
}

// text is the point as a put line without the command.
func (p dataPoint) text() string {
	s := fmt.Sprintf("%s %d %s", p.Metric, p.Timestamp, p.Value)
	labels.FromMap(p.Tags).Range(func(l labels.Label) { s += " " + l.Name + "=" + l.Value })
	return s
}

var charset = regexp.MustCompile(`^[-_./0-9A-Za-z]+$`)

// fault is what OpenTSDB finds wrong with a point.
func (p dataPoint) fault() string {
	if !charset.MatchString(p.Metric) {
		return fmt.Sprintf("Invalid metric name (%q): illegal character", p.Metric)
	}
	if p.Timestamp <= 0 || p.Timestamp > 9999999999999 {
		return "Timestamp was invalid"
	}
	if _, err := p.Value.Float64(); err != nil {
		return "Unable to parse value to a number"
	}
	if len(p.Tags) == 0 {
		return "Missing tags"
	}
	if len(p.Tags) > 8 {
		return fmt.Sprintf("Too many tags: %d maximum allowed: 8", len(p.Tags))
	}
	for name, v := range p.Tags {
		if !charset.MatchString(name) || !charset.MatchString(v) {
			return fmt.Sprintf("Invalid tag (%q=%q): illegal character", name, v)
		}
	}
	return ""
}

// stub is an OpenTSDB that knows its rules, and keeps what it took.
type stub struct {
	// refuse is a reason against a point that the rules allow; it may be nil.
	refuse func(dataPoint) string

	mu      sync.Mutex
	queries []string
	stored  []string
}

// ServeHTTP is /api/put.
func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, r.URL.RawQuery)
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	var points []dataPoint
	if err := json.NewDecoder(body).Decode(&points); err != nil || r.Method != http.MethodPost || r.URL.Path != "/api/put" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"error":{"code":400,"message":"Unable to parse the given JSON: %v"}}`, err)
		return
	}
	if len(points) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"code":400,"message":"No datapoints found in content"}}`)
		return
	}
	faults := []map[string]any{}
	for _, p := range points {
		reason := p.fault()
		if reason == "" && s.refuse != nil {
			reason = s.refuse(p)
		}
		if reason == "" {
			s.stored = append(s.stored, p.text())
			continue
		}
		faults = append(faults, map[string]any{"error": reason, "datapoint": map[string]any{
			"metric": p.Metric, "timestamp": p.Timestamp, "value": p.Value.String(), "tags": p.Tags,
		}})
	}
	if len(faults) > 0 {
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"success": len(points) - len(faults), "failed": len(faults), "errors": faults})
}

// listen starts the stub and returns its address.
func listen(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// What is sent keeps to OpenTSDB's rules: charset, 1 to 8 tags, times, finite values.
func TestPost(t *testing.T) {
	o := &stub{}
	s := newSender(t, opentsdb.Options{URL: listen(t, o), Gzip: true, KeepLabels: []string{"z", "y"}})
	many := series(t, s, labels.FromStrings("__name__", "many", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "y", "8", "z", "9"), 1)
	h := series(t, s, labels.FromStrings("__name__", "h"))
	h.Histograms = []forward.Histogram{{TimeMillis: start, Int: &histogram.Histogram{}}}
	early := series(t, s, labels.FromStrings("__name__", "early"), 1, 2, 3)
	early.Floats[0].TimeMillis = 999
	early.Floats[1].TimeMillis = 1000
	early.Floats[2].TimeMillis = (1 << 32) * 1000
	out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{
		series(t, s, labels.FromStrings("__name__", "up"), 1, 0.5),
		series(t, s, labels.FromStrings("__name__", "job:x y", "in_stance", "host:9100", "é", "\"\\"), -1e300, math.NaN(), math.Inf(-1), math.Float64frombits(value.StaleNaN)),
		many, h, early,
	}})
	require.NoError(t, err)
	require.Equal(t, forward.Outcome{Skipped: map[string]int{
		lineprotocol.ReasonNotFinite: 2, lineprotocol.ReasonStale: 1, lineprotocol.ReasonHistogram: 1, lineprotocol.ReasonTime: 2,
	}}, out)
	require.Equal(t, []string{
		"up 1700000000 1 source=varve",
		"up 1700000001 0.5 source=varve",
		"job_.x_20y 1700000000 -1e+300 _C3_A9=_22_5C in__stance=host_.9100",
		"many 1700000000 1 a=1 b=2 c=3 d=4 e=5 f=6 y=8 z=9",
		"early 1 2 source=varve",
	}, o.stored)
	require.Equal(t, []string{"details"}, o.queries)
	cut, lost := s.Cut()
	require.Equal(t, [2]uint64{1, 1}, [2]uint64{cut, lost})

	// Nothing is posted where nothing is left.
	out, err = s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), math.NaN())}})
	require.NoError(t, err)
	require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 1}, out.Skipped)
	require.Len(t, o.queries, 1)
}

// In milliseconds times keep what seconds lose, and those that would be taken for seconds are skipped.
func TestPostMilliseconds(t *testing.T) {
	o := &stub{}
	s := newSender(t, opentsdb.Options{URL: listen(t, o) + "/api/put?tenant=1", Milliseconds: true, Sync: true, DefaultTag: opentsdb.Tag{Name: "no labels", Value: "x"}})
	b := series(t, s, labels.FromStrings("__name__", "up"), 1, 2, 3)
	b.Floats[0].TimeMillis = 1<<32 - 1
	b.Floats[1].TimeMillis = 1 << 32
	out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{b}})
	require.NoError(t, err)
	require.Equal(t, map[string]int{lineprotocol.ReasonTime: 1}, out.Skipped)
	require.Equal(t, []string{"up 4294967296 2 no_20labels=x", "up 1700000002002 3 no_20labels=x"}, o.stored)
	require.Equal(t, []string{"tenant=1&sync&details"}, o.queries)
}

// Points that the server refuses are named, the others are stored, also where the answer is longer than what is read of it.
func TestPostRefusals(t *testing.T) {
	o := &stub{refuse: func(p dataPoint) string {
		if p.Tags["bad"] != "" && p.Timestamp%2 == 0 {
			return "Unknown metric: " + strings.Repeat("x", 100)
		}
		return ""
	}}
	s := newSender(t, opentsdb.Options{URL: listen(t, o)})
	b := &forward.Batch{Series: []forward.Series{
		series(t, s, labels.FromStrings("__name__", "good", "a_b", "1"), 1, 2, 3),
		series(t, s, labels.FromStrings("__name__", "mixed", "bad", "yes:1"), math.NaN(), 2, 3, 4),
	}}
	out, err := s.Send(t.Context(), b)
	var refused *forward.Refused
	require.ErrorAs(t, err, &refused)
	require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 1}, out.Skipped)
	require.Len(t, out.Refusals, 1)
	require.Equal(t, [3]int{1, 2, -1}, [3]int{out.Refusals[0].Series, out.Refusals[0].Float, out.Refusals[0].Histogram})
	require.Contains(t, out.Refusals[0].Reason, "Unknown metric")
	require.Subset(t, o.stored, []string{"good 1700000000 1 a__b=1", "good 1700000001 2 a__b=1", "good 1700000002 3 a__b=1", "mixed 1700000001 2 bad=yes_.1", "mixed 1700000003 4 bad=yes_.1"})

	b.Series[1] = series(t, s, labels.FromStrings("__name__", "mixed", "bad", "yes"), make([]float64, 2000)...)
	// Two samples that are one point to the target: it refuses both, and names it twice.
	twice := series(t, s, labels.FromStrings("__name__", "mixed", "bad", "yes"), 1, 2)
	twice.Floats[1].TimeMillis = twice.Floats[0].TimeMillis + 1
	out, err = s.Send(t.Context(), &forward.Batch{Series: []forward.Series{twice}})
	require.ErrorAs(t, err, &refused)
	require.Len(t, out.Refusals, 2)

	for total := 0; ; {
		out, err = s.Send(t.Context(), b)
		if err == nil {
			require.Equal(t, 1000, total)
			break
		}
		require.ErrorAs(t, err, &refused)
		require.NotEmpty(t, out.Refusals)
		total += len(out.Refusals)
		gone := map[int]bool{}
		for _, r := range out.Refusals {
			require.Equal(t, 1, r.Series)
			gone[r.Float] = true
		}
		var rest []forward.Float
		for i, f := range b.Series[1].Floats {
			if !gone[i] {
				rest = append(rest, f)
			}
		}
		b.Series[1].Floats = rest
	}
}

// Answers that name no points keep their meaning, and faults of the store are worth a retry.
func TestPostAnswers(t *testing.T) {
	const point = `{"errors":[{"datapoint":{"metric":"up","timestamp":1700000000,"value":"1","tags":{"source":"varve"}},"error":%q}],"failed":1,"success":0}`
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{204, "", "<nil>"},
		{200, `{"success":1,"failed":0,"errors":[]}`, "<nil>"},
		{400, fmt.Sprintf(point, "Storage exception: region is not there"), "*forward.Retry"},
		{400, fmt.Sprintf(point, "Please throttle writes: 10000 RPCs waiting"), "*forward.Retry"},
		{400, strings.Replace(fmt.Sprintf(point, "bad"), `"up"`, `"other"`, 1), "*forward.Refused"},
		{400, `{"error":{"code":400,"message":"Unable to parse the given JSON"}}`, "*forward.Refused"},
		{400, `{"errors":"no list"}`, "*forward.Refused"},
		{400, `[`, "*forward.Refused"},
		{400, `{"error":{"code":400,"message":"Chunked request not supported."}}`, "*forward.Blocked"},
		{413, "", "*fmt.wrapError"},
		{404, "", "*forward.Blocked"},
		{401, "", "*forward.Blocked"},
		{301, "", "*forward.Blocked"},
		{500, "", "*forward.Retry"},
		{503, "", "*forward.Retry"},
		{429, "", "*forward.Retry"},
	} {
		url := listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		s := newSender(t, opentsdb.Options{URL: url})
		out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), 1)}})
		require.Equal(t, c.want, fmt.Sprintf("%T", err), "%d %s: %v", c.status, c.body, err)
		require.Zero(t, out)
		require.Equal(t, c.status == 413, errors.Is(err, forward.ErrTooLarge) && c.status != 400, c.status)
	}
}

// A request that the server finds too long is cut, as long as that is possible.
func TestPostChunked(t *testing.T) {
	url := listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"error":{"code":400,"message":"Chunked request not supported."}}`, http.StatusBadRequest)
	}))
	s := newSender(t, opentsdb.Options{URL: url})
	_, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), 1, 2)}})
	require.ErrorIs(t, err, forward.ErrTooLarge)
	var blocked *forward.Blocked
	require.False(t, errors.As(err, &blocked))
}

// Options that can't work are refused with the output's name.
func TestNewRefuses(t *testing.T) {
	for want, o := range map[string]opentsdb.Options{
		"http://":     {URL: "host:4242"},
		"be read":     {URL: "http://u:secret@host:port:port"},
		"host:port":   {URL: "http://host", Protocol: opentsdb.Telnet},
		"at least":    {URL: "http://host", TagsMax: -1},
		"labels to":   {URL: "http://host", TagsMax: 1, KeepLabels: []string{"a", "b"}},
		"default tag": {URL: "http://host", DefaultTag: opentsdb.Tag{Name: "a"}},
	} {
		o.Name = "test"
		_, err := opentsdb.New(o)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "output test")
		require.NotContains(t, err.Error(), "secret")
	}
	s := newSender(t, opentsdb.Options{URL: "http://host"})
	require.Error(t, s.Prepare(&forward.Target{Labels: labels.FromStrings("a", "b")}))
}

// A batch of 10 000 samples over loopback, to a target that reads it and answers.
func BenchmarkSend(b *testing.B) {
	url := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	s := newSender(b, opentsdb.Options{URL: url})
	batch := &forward.Batch{}
	for i := range 1000 {
		v := float64(i)
		batch.Series = append(batch.Series, series(b, s, labels.FromStrings("__name__", fmt.Sprintf("metric_%d_total", i%50), "instance", fmt.Sprintf("host-%d:9100", i/50), "job", "node"), v, v+1, v+2, v+3.1, v+4, v+5, v+6.7, v+8, v+8, v+9))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := s.Send(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10_000, "ns/sample")
}
