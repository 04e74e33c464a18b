package influxdb_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"varve/forward"
	"varve/forward/influxdb"
	"varve/forward/lineprotocol"
	"varve/internal/gate/server"
)

func formatted(v any) string { return fmt.Sprint(v) }

// postLines writes as another client would.
func postLines(t testing.TB, url, lines string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(lines))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

// target is a stub that judges each request's lines.
func target(t testing.TB, judge func(w http.ResponseWriter, r *http.Request, lines []string)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		b, err := io.ReadAll(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		judge(w, r, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// send sends as the core does: what the target refused by name is taken out, and the rest is sent again. It returns the refusals and what was
// skipped at last.
func send(t testing.TB, s *influxdb.Sender, b *forward.Batch) forward.Outcome {
	t.Helper()
	places := make([][]int, len(b.Series)) // of the floats that are left
	rest := &forward.Batch{Series: slices.Clone(b.Series)}
	for i := range rest.Series {
		rest.Series[i].Floats = slices.Clone(rest.Series[i].Floats)
		for j := range rest.Series[i].Floats {
			places[i] = append(places[i], j)
		}
	}
	var all []forward.Refusal
	for {
		out, err := s.Send(t.Context(), rest)
		if err == nil {
			out.Refusals = all
			return out
		}
		var refused *forward.Refused
		require.ErrorAs(t, err, &refused)
		require.NotEmpty(t, out.Refusals, "%v", err)
		gone := map[[2]int]bool{}
		for _, r := range out.Refusals {
			require.Equal(t, -1, r.Histogram)
			gone[[2]int{r.Series, r.Float}] = true
			r.Float = places[r.Series][r.Float]
			all = append(all, r)
		}
		for i := range rest.Series {
			var floats []forward.Float
			var left []int
			for j, f := range rest.Series[i].Floats {
				if !gone[[2]int{i, j}] {
					floats, left = append(floats, f), append(left, places[i][j])
				}
			}
			rest.Series[i].Floats, places[i] = floats, left
		}
	}
}

// refused are the floats of the refusals: series, sample.
func refused(out forward.Outcome) [][2]int {
	var r [][2]int
	for _, refusal := range out.Refusals {
		r = append(r, [2]int{refusal.Series, refusal.Float})
	}
	return r
}

// A whole answer has the meaning that the target gives it, also where the status alone says something else.
func TestAnswers(t *testing.T) {
	type kind string
	kindOf := func(err error) kind {
		var retry *forward.Retry
		var blocked *forward.Blocked
		var refused *forward.Refused
		switch {
		case err == nil:
			return "taken"
		case errors.As(err, &retry):
			return kind(fmt.Sprintf("retry %s", retry.After))
		case errors.As(err, &blocked):
			return "blocked"
		case errors.As(err, &refused):
			return "refused"
		case errors.Is(err, forward.ErrTooLarge):
			return "too large"
		}
		return "other"
	}
	for _, c := range []struct {
		status       int
		header, body string
		want         kind
	}{
		{204, "", "", "taken"},
		{200, "", "", "taken"},
		{400, "", `{"error":"partial write: something new dropped=1"}`, "refused"},
		{400, "", `{"error":"partial write: max-values-per-tag limit exceeded (100000/100000): measurement=\"up\" tag=\"a\" value=\"1\" dropped=1"}`, "refused"},
		{400, "", `{"error":"partial write: field type conflict: input field \"value\" on measurement \"other\" is type float, already exists as type integer dropped=1"}`, "refused"},
		{400, "", `{"error":"partial write: points beyond retention policy dropped=7"}`, "refused"},
		{400, "", `{"error":"partial write: points beyond retention policy dropped=x"}`, "refused"},
		{400, "", `{"code":"invalid","message":"no such thing","line":99}`, "refused"},
		{400, "", `not json`, "refused"},
		{400, "", `{"error":"database is required"}`, "blocked"},
		{422, "", `{"code":"unprocessable entity","message":"failure writing points to database: partial write: new"}`, "refused"},
		{401, "", `{"code":"unauthorized","message":"unauthorized access"}`, "blocked"},
		{403, "", `{"error":"\"u\" user is not authorized to write to database \"metrics\""}`, "blocked"},
		{404, "", `{"error":"database not found: \"metrics\""}`, "blocked"},
		{404, "", `{"code":"not found","message":"bucket \"b\" not found"}`, "blocked"},
		{413, "", `{"error":"Request Entity Too Large"}`, "too large"},
		{413, "", `{"code":"request too large","message":"cannot read data: points batch is too large"}`, "too large"},
		{429, "7", `{"code":"too many requests","message":"org 1 has exceeded limited_write plan limit"}`, "retry 7s"},
		{500, "", `{"error":"retention policy not found: none"}`, "blocked"},
		{500, "", `{"error":"timeout"}`, "retry 0s"},
		{500, "", `{"code":"internal error","message":"unexpected error writing points to database: timeout"}`, "retry 0s"},
		{503, "30", "", "retry 30s"},
		{307, "", "", "blocked"},
	} {
		t.Run(fmt.Sprint(c.status, c.body), func(t *testing.T) {
			url := target(t, func(w http.ResponseWriter, _ *http.Request, _ []string) {
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			s := newSender(t, influxdb.Options{URL: url, Database: "metrics"})
			out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "a", "1"), 1, math.NaN())}})
			require.Equal(t, c.want, kindOf(err), "%v", err)
			if err != nil {
				require.Empty(t, out.Refusals)
				require.NotContains(t, err.Error(), "{", "the message, not its envelope: %v", err)
			} else {
				require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 1}, out.Skipped)
			}
		})
	}
}

// A peer that hangs up, one that hangs, and one that isn't there are worth a retry, and no error shows a password.
func TestNetworkErrors(t *testing.T) {
	url := target(t, func(w http.ResponseWriter, _ *http.Request, _ []string) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	for _, url := range []string{url, "http://127.0.0.1:1"} {
		s := newSender(t, influxdb.Options{URL: url, Database: "metrics", User: "me", Password: "secret"})
		_, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), 1)}})
		var retry *forward.Retry
		require.ErrorAs(t, err, &retry)
		require.NotContains(t, err.Error(), "secret")
	}
	hanging := make(chan struct{})
	url = target(t, func(_ http.ResponseWriter, r *http.Request, _ []string) { close(hanging); <-r.Context().Done() })
	s := newSender(t, influxdb.Options{URL: url})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-hanging; cancel() }()
	_, err := s.Send(ctx, &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), 1)}})
	require.ErrorIs(t, err, context.Canceled)
}

// The parameters and credentials are where the protocol has them.
func TestRequest(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(tokens, []byte("from file\n"), 0o600))
	for _, c := range []struct {
		o                      influxdb.Options
		path, want, authorized string
	}{
		{influxdb.Options{Database: "d b", RetentionPolicy: "r", Consistency: "quorum", User: "u", Password: "p&"}, "", "/write?consistency=quorum&db=d+b&p=p%26&precision=n&rp=r&u=u", ""},
		{influxdb.Options{Database: "d", Precision: lineprotocol.Milliseconds}, "/proxy/", "/proxy/write?db=d&precision=ms", ""},
		{influxdb.Options{Precision: lineprotocol.Microseconds}, "/write?x=y", "/write?precision=u&x=y", ""},
		{influxdb.Options{Protocol: influxdb.V2, Org: "o", Bucket: "b/r", Token: "secret"}, "", "/api/v2/write?bucket=b%2Fr&org=o&precision=ns", "Token secret"},
		{influxdb.Options{Protocol: influxdb.V2, Bucket: "b", TokenFile: tokens, Precision: lineprotocol.Microseconds}, "/api/v2/write", "/api/v2/write?bucket=b&precision=us", "Token from file"},
	} {
		var uri, authorized string
		c.o.URL = target(t, func(w http.ResponseWriter, r *http.Request, _ []string) {
			uri, authorized = r.RequestURI, r.Header.Get("Authorization")
			w.WriteHeader(http.StatusNoContent)
		}) + c.path
		s := newSender(t, c.o)
		_, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), 1)}})
		require.NoError(t, err)
		require.Equal(t, c.want, uri)
		require.Equal(t, c.authorized, authorized)
	}
}

// Nothing is posted if nothing can be written.
func TestNothingToSend(t *testing.T) {
	url := target(t, func(http.ResponseWriter, *http.Request, []string) { t.Error("a request") })
	s := newSender(t, influxdb.Options{URL: url})
	b := series(t, s, labels.FromStrings("__name__", "up"), math.NaN())
	b.Histograms = []forward.Histogram{{TimeMillis: 1, Int: &histogram.Histogram{}}}
	out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{b}})
	require.NoError(t, err)
	require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 1, lineprotocol.ReasonHistogram: 1}, out.Skipped)
}

// A target that names the bad line by its number, of which it tells one or several an answer, gets the rest, and stores
// nothing of a request with a bad line. It is QuestDB, InfluxDB 2 and InfluxDB 3.
func TestNumberedLines(t *testing.T) {
	for name, answer := range map[string]func(bad []int) string{
		"questdb": func(bad []int) string {
			return fmt.Sprintf(`{"code":"invalid","message":"failed to parse line protocol:errors encountered on line(s):\nerror in line %d: table: t, column: value; cast error from protocol type: FLOAT to column type: LONG","line":%d,"errorId":"1f"}`, bad[0], bad[0])
		},
		"questdb all": func(bad []int) string {
			text := ""
			for _, n := range bad {
				text += fmt.Sprintf(`\nerror in line %d: cast error`, n)
			}
			return fmt.Sprintf(`{"code":"invalid","message":"failed to parse line protocol:errors encountered on line(s):%s","line":%d,"errorId":"1f"}`, text, bad[0])
		},
		"influxdb 2": func(bad []int) string {
			return fmt.Sprintf(`{"code":"invalid","message":"no data written: cast error","line":%d}`, bad[0])
		},
		"influxdb 3": func(bad []int) string {
			return fmt.Sprintf(`{"error":"partial write of line protocol occurred","data":[{"original_line":"x","line_number":%d,"error_message":"cast error"}]}`, bad[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stored []string
			url := target(t, func(w http.ResponseWriter, r *http.Request, lines []string) {
				if r.Header.Get("Content-Encoding") != "" {
					http.Error(w, "gzip encoding is not supported", http.StatusUnsupportedMediaType)
					return
				}
				var bad []int
				for i, l := range lines {
					if strings.Contains(l, "bad=") {
						bad = append(bad, i+1)
					}
				}
				if len(bad) > 0 {
					w.WriteHeader(http.StatusBadRequest)
					_, _ = io.WriteString(w, answer(bad))
					return
				}
				stored = append(stored, lines...)
				w.WriteHeader(http.StatusNoContent)
			})
			s := newSender(t, influxdb.Options{URL: url})
			b := &forward.Batch{Series: []forward.Series{
				series(t, s, labels.FromStrings("__name__", "a"), 1, 2),
				series(t, s, labels.FromStrings("__name__", "b", "bad", "1"), 3, math.NaN(), 4),
				series(t, s, labels.FromStrings("__name__", "c"), 5),
			}}
			out := send(t, s, b)
			require.Equal(t, [][2]int{{1, 0}, {1, 2}}, refused(out))
			require.Contains(t, out.Refusals[0].Reason, "cast error")
			require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 1}, out.Skipped)
			require.Equal(t, []string{"a value=1 1700000000000000000", "a value=2 1700000001000000000", "c value=5 1700000000000000000"}, stored)

			s = newSender(t, influxdb.Options{URL: url, Gzip: true})
			_, err := s.Send(t.Context(), b)
			var blocked *forward.Blocked
			require.ErrorAs(t, err, &blocked)
			require.ErrorContains(t, err, "switch gzip off")
		})
	}
}

// Lines that the target repeats as unreadable are found by their text, also in a row of several metrics.
func TestUnparsableLines(t *testing.T) {
	for name, route := range map[string]*lineprotocol.Route{"plain": nil, "routed": {DefaultMeasurement: "m"}} {
		t.Run(name, func(t *testing.T) {
			rounds := 0
			url := target(t, func(w http.ResponseWriter, _ *http.Request, lines []string) {
				rounds++
				var bad []string
				for _, l := range lines {
					if strings.Contains(l, "is=bad") {
						bad = append(bad, "unable to parse '"+l+"': it's: odd")
					}
				}
				if len(bad) == 0 {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				w.WriteHeader(http.StatusBadRequest)
				_, _ = fmt.Fprintf(w, `{"error":%q}`, "partial write: "+strings.Join(bad, "\n")+" dropped=0")
			})
			s := newSender(t, influxdb.Options{URL: url, Route: route})
			out := send(t, s, &forward.Batch{Series: []forward.Series{
				series(t, s, labels.FromStrings("__name__", "a"), 1),
				series(t, s, labels.FromStrings("__name__", "b", "is", "bad", "what", "isn't: so"), 2, 3),
				series(t, s, labels.FromStrings("__name__", "c", "is", "bad", "what", "isn't: so"), 4),
				series(t, s, labels.FromStrings("__name__", "d"), 5),
			}})
			require.ElementsMatch(t, [][2]int{{1, 0}, {1, 1}, {2, 0}}, refused(out))
			require.Equal(t, 2, rounds)
			require.Contains(t, out.Refusals[0].Reason, "odd")
		})
	}
}

// Options that can't work are refused with the output's name, and no error has the password.
func TestNewRefuses(t *testing.T) {
	authorized := config.DefaultHTTPClientConfig
	authorized.BasicAuth = &config.BasicAuth{Username: "u"}
	for want, o := range map[string]influxdb.Options{
		"http://":     {URL: "ftp://host"},
		"no host":     {URL: "http://"},
		"udp://":      {Protocol: influxdb.UDP, URL: "http://host:1"},
		"no host and": {Protocol: influxdb.UDP, URL: "udp://host"},
		"bucket":      {Protocol: influxdb.V2, URL: "http://host"},
		"at most one": {URL: "http://host", Token: "a", TokenFile: "b"},
		"beside":      {URL: "http://host", Token: "a", HTTP: authorized},
		"classic":     {URL: "http://host", Route: &lineprotocol.Route{}, Histograms: lineprotocol.ClassicBuckets},
		"consistency": {URL: "http://host", Consistency: "some"},
		"datagrams":   {Protocol: influxdb.UDP, URL: "udp://host:1", DatagramBytesMax: 70000},
		"be read":     {URL: "http://u:secret@host:port:port"},
	} {
		o.Name = "test"
		_, err := influxdb.New(o)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "output test")
		require.NotContains(t, err.Error(), "secret")
	}
	s := newSender(t, influxdb.Options{URL: "http://host", Route: &lineprotocol.Route{}})
	require.ErrorIs(t, s.Prepare(&forward.Target{Labels: labels.FromStrings("__name__", "a")}), lineprotocol.ErrNoMeasurement)
	require.ErrorIs(t, s.Prepare(&forward.Target{Labels: labels.FromStrings("a", "b")}), lineprotocol.ErrNoName)
}

// Datagrams to a port where nobody listens are worth a retry, once the host has said so.
func TestUDPNobodyListens(t *testing.T) {
	// On an address of our own, where nobody else comes to listen.
	conn, err := net.ListenPacket("udp", net.JoinHostPort(server.Loopback(), "0"))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	s := newSender(t, influxdb.Options{Protocol: influxdb.UDP, URL: "udp://" + conn.LocalAddr().String()})
	b := &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up"), 1)}}
	require.Eventually(t, func() bool {
		_, err := s.Send(t.Context(), b)
		var retry *forward.Retry
		return errors.As(err, &retry)
	}, patience, time.Millisecond)
}

// A batch of 10 000 samples over loopback, to a target that reads it and answers.
func BenchmarkSend(b *testing.B) {
	drain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	b.Cleanup(drain.Close)
	for name, o := range map[string]influxdb.Options{
		"plain": {}, "gzip": {Gzip: true}, "routed": {Route: &lineprotocol.Route{DefaultMeasurement: "m"}},
	} {
		b.Run(name, func(b *testing.B) {
			o.URL = drain.URL
			s := newSender(b, o)
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
		})
	}
}

// Native histograms are left out and counted, or written as the lines asked for, each of which stands for the histogram.
func TestHistograms(t *testing.T) {
	for as, want := range map[lineprotocol.Histograms][]string{
		lineprotocol.SkipHistograms: {""},
		lineprotocol.CountAndSum:    {"h_count,a=b value=3 1700000000000", "h_sum,a=b value=4.5 1700000000000"},
		lineprotocol.ClassicBuckets: {
			"h_count,a=b value=3 1700000000000", "h_sum,a=b value=4.5 1700000000000",
			"h_bucket,a=b,le=0.001 value=1 1700000000000", "h_bucket,a=b,le=2 value=3 1700000000000", "h_bucket,a=b,le=+Inf value=3 1700000000000",
		},
	} {
		got := []string{""}
		bad := 0
		url := target(t, func(w http.ResponseWriter, _ *http.Request, lines []string) {
			got = lines
			if bad == 0 {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"code":"invalid","message":"bad","line":%d}`, bad)
		})
		s := newSender(t, influxdb.Options{URL: url, Histograms: as, Precision: lineprotocol.Milliseconds})
		h := series(t, s, labels.FromStrings("__name__", "h", "a", "b"))
		h.Histograms = []forward.Histogram{
			{TimeMillis: start - 1, Float: &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}},
			{TimeMillis: start, Int: &histogram.Histogram{
				Count: 3, Sum: 4.5, ZeroCount: 1, ZeroThreshold: 0.001,
				PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}}, PositiveBuckets: []int64{2},
			}},
		}
		b := &forward.Batch{Series: []forward.Series{h}}
		out, err := s.Send(t.Context(), b)
		require.NoError(t, err)
		require.Equal(t, want, got)
		if as == lineprotocol.SkipHistograms {
			require.Equal(t, map[string]int{lineprotocol.ReasonHistogram: 2}, out.Skipped)
			continue
		}
		require.Equal(t, map[string]int{lineprotocol.ReasonStale: 1}, out.Skipped)
		bad = 2
		out, err = s.Send(t.Context(), b)
		var refused *forward.Refused
		require.ErrorAs(t, err, &refused)
		require.Len(t, out.Refusals, 1)
		require.Equal(t, [3]int{0, -1, 1}, [3]int{out.Refusals[0].Series, out.Refusals[0].Float, out.Refusals[0].Histogram})
	}
}

// An answer whose count speaks of other samples than its text names nobody, so that no good sample is refused.
func TestTraceCounts(t *testing.T) {
	s := newSender(t, influxdb.Options{URL: "http://host"})
	b := &forward.Batch{Series: []forward.Series{
		series(t, s, labels.FromStrings("__name__", "up", "i", "1"), 1, 2),
		series(t, s, labels.FromStrings("__name__", "up", "i", "2"), 3, 4),
	}}
	f := func(text string, want int) {
		t.Helper()
		require.Len(t, s.Trace(&forward.Answer{Status: 400, Body: fmt.Sprintf(`{"error":%q}`, "partial write: "+text)}, b), want)
	}
	f("points beyond retention policy dropped=1", 0) // two have that time
	f("points beyond retention policy dropped=2", 2)
	f("points beyond retention policy dropped=3", 0)
	f("points beyond retention policy dropped=4", 4)
	f("points beyond retention policy dropped=5", 0)
	f("points beyond retention policy", 0)
	const conflict = `field type conflict: input field "value" on measurement "up" is type float, already exists as type integer`
	f(conflict+" dropped=4", 4)
	f(conflict+" dropped=2", 0) // one shard has the conflict, another has not
	f(conflict, 0)
	f(strings.Replace(conflict, "value", "other", 1)+" dropped=4", 0)
}
