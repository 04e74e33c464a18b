package ccms_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/forward"
	"varve/forward/ccms"
	"varve/forward/lineprotocol"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// start is when the samples of tests begin, in Unix ms.
const start = 1_700_000_000_000

// listen starts the handler and returns its address.
func listen(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func newSender(t testing.TB, o ccms.Options) *ccms.Sender {
	t.Helper()
	o.Name, o.HTTP = "test", config.DefaultHTTPClientConfig
	s, err := ccms.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// series is a prepared series with these values, ten seconds apart.
func series(t testing.TB, s forward.Sender, ls labels.Labels, values ...float64) forward.Series {
	t.Helper()
	target := &forward.Target{Labels: ls}
	require.NoError(t, s.Prepare(target))
	out := forward.Series{Target: target}
	for i, v := range values {
		out.Floats = append(out.Floats, forward.Float{TimeMillis: start + int64(i)*10_000 + 999, Value: v})
	}
	return out
}

func matcher(name, v string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchRegexp, name, v)
}

// table is a map of metrics with each kind of row.
func table() []ccms.Metric {
	return []ccms.Metric{
		{Name: "cpu_load", Selector: []*labels.Matcher{matcher("__name__", "node_load1")}, Frequency: 10 * time.Second},
		{Name: "net_bw", Selector: []*labels.Matcher{matcher("__name__", "net_bytes"), matcher("device", "ib.*")}, Scale: 8e-6},
		{Name: "flops", Selector: []*labels.Matcher{matcher("__name__", "flops")}, Type: "hwthread", IDLabel: "cpu", IDRegex: "cpu([0-9]+)"},
		{Name: "gpu", Selector: []*labels.Matcher{matcher("__name__", "gpu")}, Type: "accelerator", IDLabel: "gpu", SubType: "memory", SubIDLabel: "bank"},
		{Name: "up"},
	}
}

var configured = map[string]int64{"cpu_load": 10, "net_bw": 60, "flops": 10, "gpu": 10, "up": 10}

// Series become the store's metrics by the table and the rule for hosts; what has no place there is counted, and no rule of the store is broken.
func TestSend(t *testing.T) {
	cc := &store{metrics: configured}
	huge := math.MaxFloat64
	for _, path := range []string{"", "/", "/api/write", "/api/write/"} {
		cc.slots = nil
		s := newSender(t, ccms.Options{URL: listen(t, cc) + path, Cluster: "c 1", Metrics: table()})
		old := series(t, s, labels.FromStrings("__name__", "up", "instance", "h"), 1)
		old.Floats[0].TimeMillis = 999
		h := series(t, s, labels.FromStrings("__name__", "up", "instance", "h"))
		h.Histograms = []forward.Histogram{{TimeMillis: start, Int: &histogram.Histogram{}}}
		out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{
			series(t, s, labels.FromStrings("__name__", "node_load1", "instance", "node-1.example:9100", "job", "ignored"), 0.5, 0.75),
			series(t, s, labels.FromStrings("__name__", "net_bytes", "instance", "node-1.example:9100", "device", "ib0"), 1e6, huge),
			series(t, s, labels.FromStrings("__name__", "net_bytes", "instance", "node-1.example:9100", "device", "eth0"), 1, 2),
			series(t, s, labels.FromStrings("__name__", "flops", "instance", "[::1]:9100", "cpu", "cpu3"), 10, math.NaN(), math.Inf(1), math.Float64frombits(value.StaleNaN)),
			series(t, s, labels.FromStrings("__name__", "flops", "instance", "n", "cpu", "three"), 10),
			series(t, s, labels.FromStrings("__name__", "flops", "instance", "n"), 10),
			series(t, s, labels.FromStrings("__name__", "gpu", "instance", "fe80::1", "gpu", "0", "bank", "a b"), 1),
			series(t, s, labels.FromStrings("__name__", "gpu", "instance", "n", "gpu", "0"), 1),
			series(t, s, labels.FromStrings("__name__", "up"), 1),
			series(t, s, labels.FromStrings("__name__", "up", "instance", "n 1"), 1),
			series(t, s, labels.FromStrings("__name__", "other", "instance", "n"), 1, 2),
			old, h,
		}})
		require.NoError(t, err)
		require.Equal(t, map[string]int{
			ccms.ReasonUnmapped: 4, ccms.ReasonNoHost: 1, ccms.ReasonNoID: 3,
			lineprotocol.ReasonNotFinite: 2, lineprotocol.ReasonStale: 1, lineprotocol.ReasonTime: 1, lineprotocol.ReasonHistogram: 1,
		}, out.Skipped)
		require.Empty(t, out.Refusals)
		require.Empty(t, cc.faults)
		require.Equal(t, map[string]map[int64]float64{
			`cpu_load,cluster=c\ 1,hostname=node-1.example,type=node`:                                 {1700000000: 0.5, 1700000010: 0.75},
			`net_bw,cluster=c\ 1,hostname=node-1.example,type=node`:                                   {1700000000: 8, 1700000010: huge * 8e-6},
			`flops,cluster=c\ 1,hostname=::1,type=hwthread,type-id=3`:                                 {1700000000: 10},
			`gpu,cluster=c\ 1,hostname=fe80::1,type=accelerator,type-id=0,stype=memory,stype-id=a\ b`: {1700000000: 1},
			`up,cluster=c\ 1,hostname=n\ 1,type=node`:                                                 {1700000000: 1},
		}, cc.slots)
	}
}

// A value that the scale takes beyond what a float holds is not sent.
func TestScaleOverflow(t *testing.T) {
	cc := &store{metrics: configured}
	s := newSender(t, ccms.Options{URL: listen(t, cc), Cluster: "c", Metrics: []ccms.Metric{{Name: "up", Scale: 10}}})
	out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "instance", "n"), math.MaxFloat64)}})
	require.NoError(t, err)
	require.Equal(t, map[string]int{lineprotocol.ReasonNotFinite: 1}, out.Skipped)
	require.Empty(t, cc.slots)
}

// The host's name is the first group of the regex, which has to match the whole value. Names that the store makes no folder of are refused.
func TestHostname(t *testing.T) {
	var got string
	o := ccms.Options{Cluster: "c", Metrics: []ccms.Metric{{Name: "up"}}, Publish: func(_ context.Context, m []byte) error {
		got = string(m)
		return nil
	}}
	f := func(label, regex, v, want string) {
		t.Helper()
		o.HostnameLabel, o.HostnameRegex = label, regex
		s := newSender(t, o)
		got = ""
		_, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "instance", v, "host", "other"), 1)}})
		require.NoError(t, err)
		if want != "" {
			want = "up,cluster=c,hostname=" + want + ",type=node value=1 1700000000\n"
		}
		require.Equal(t, want, got)
	}
	f("", "", "a:9100", "a")
	f("", "", "a", "a")
	f("", "", "2001:db8::1", "2001:db8::1")
	f("", "", "[2001:db8::1]:9100", "2001:db8::1")
	f("", "", "[2001:db8::1]", "2001:db8::1")
	f("", "", ":9100", "")
	f("host", "", "a:1", "other")
	f("none", "", "a:1", "")
	f("", `([^.:]+)\..*`, "a.b:1", "a")
	f("", `([^.:]+)\..*`, "ab:1", "")
	f("", `[a-z]+`, "ab", "ab")

	o.HostnameLabel, o.HostnameRegex = "", ""
	s := newSender(t, o)
	for _, bad := range []string{"..", "a..b", "a/b", `a\b`, "a\nb"} {
		require.Error(t, s.Prepare(&forward.Target{Labels: labels.FromStrings("__name__", "up", "instance", bad)}), bad)
	}
}

// Over NATS lines go in small messages, and a publisher's error is worth a retry.
func TestPublish(t *testing.T) {
	var messages []string
	o := ccms.Options{Cluster: "c", Metrics: []ccms.Metric{{Name: "up"}}, MessageBytesMax: 120, Publish: func(_ context.Context, m []byte) error {
		messages = append(messages, string(m))
		return nil
	}}
	s := newSender(t, o)
	b := &forward.Batch{Series: []forward.Series{
		series(t, s, labels.FromStrings("__name__", "up", "instance", "a"), 1, 2, 3, 4),
		series(t, s, labels.FromStrings("__name__", "up", "instance", strings.Repeat("x", 200)), 5),
	}}
	_, err := s.Send(t.Context(), b)
	require.NoError(t, err)
	require.Len(t, messages, 3)
	cc := &store{metrics: configured}
	for _, m := range messages {
		require.NoError(t, cc.write(m))
	}
	require.Empty(t, cc.faults)
	require.Len(t, cc.slots, 2)

	o.Publish = func(context.Context, []byte) error { return errors.New("no servers") }
	s = newSender(t, o)
	_, err = s.Send(t.Context(), b)
	var retry *forward.Retry
	require.ErrorAs(t, err, &retry)
}

// Statuses mean what they say, and one bad line refuses the batch.
func TestAnswers(t *testing.T) {
	for status, want := range map[int]string{
		200: "<nil>", 204: "<nil>", 400: "*forward.Refused", 401: "*forward.Blocked", 404: "*forward.Blocked", 405: "*forward.Blocked",
		413: "*fmt.wrapError", 429: "*forward.Retry", 500: "*forward.Retry", 302: "*forward.Blocked",
	} {
		url := listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		s := newSender(t, ccms.Options{URL: url, Cluster: "c", Metrics: table()})
		out, err := s.Send(t.Context(), &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "instance", "n"), 1)}})
		require.Equal(t, want, fmt.Sprintf("%T", err))
		require.Zero(t, out)
	}
}

// Tokens made of a seed are right, live on for half of their life, and a seed changed on disk is used at once.
func TestSeed(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	now := time.Unix(1_700_000_000, 0)
	cc := &store{metrics: configured, key: public, now: func() time.Time { return now }}
	file := filepath.Join(t.TempDir(), "seed")
	require.NoError(t, os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(private)+"\n"), 0o600))
	for name, o := range map[string]ccms.Options{
		"seed": {Seed: config.Secret(base64.StdEncoding.EncodeToString(private.Seed()))}, "file": {SeedFile: file},
	} {
		t.Run(name, func(t *testing.T) {
			o.URL, o.Cluster, o.Metrics, o.Now = listen(t, cc), "c", table(), cc.now
			s := newSender(t, o)
			b := &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "instance", "n"), 1)}}
			cc.tokens = nil
			for range 7 {
				_, err := s.Send(t.Context(), b)
				require.NoError(t, err)
				now = now.Add(ccms.DefaultTokenLife / 5)
			}
			require.Len(t, cc.tokens, 7)
			require.Equal(t, cc.tokens[0], cc.tokens[2])
			require.NotEqual(t, cc.tokens[2], cc.tokens[3])
		})
	}
	o := ccms.Options{SeedFile: file, URL: listen(t, cc), Cluster: "c", Metrics: table(), Now: cc.now}
	s := newSender(t, o)
	b := &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "instance", "n"), 1)}}
	_, err = s.Send(t.Context(), b)
	require.NoError(t, err)
	cc.key, private, err = ed25519.GenerateKey(nil)
	require.NoError(t, err)
	_, err = s.Send(t.Context(), b)
	var blocked *forward.Blocked
	require.ErrorAs(t, err, &blocked)
	require.NoError(t, os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(private)), 0o600))
	_, err = s.Send(t.Context(), b)
	require.NoError(t, err)
}

// A token file is read again, and a token that was refused while it changed is asked for once more.
func TestTokenFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("one\n"), 0o600))
	good := "one"
	var asked []string
	url := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Authorization"))
		_, _ = io.Copy(io.Discard, r.Body)
		if good == "changes" {
			good = "two"
			if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
				t.Error(err)
			}
		}
		if r.Header.Get("Authorization") != "Bearer "+good {
			http.Error(w, "Token is expired", http.StatusUnauthorized)
		}
	}))
	s := newSender(t, ccms.Options{URL: url, Cluster: "c", Metrics: table(), TokenFile: file})
	b := &forward.Batch{Series: []forward.Series{series(t, s, labels.FromStrings("__name__", "up", "instance", "n"), 1)}}
	_, err := s.Send(t.Context(), b)
	require.NoError(t, err)
	good = "changes"
	_, err = s.Send(t.Context(), b)
	require.NoError(t, err)
	good = "three"
	_, err = s.Send(t.Context(), b)
	var blocked *forward.Blocked
	require.ErrorAs(t, err, &blocked)
	require.Equal(t, []string{"Bearer one", "Bearer one", "Bearer two", "Bearer two"}, asked)
	require.NoError(t, os.Remove(file))
	_, err = s.Send(t.Context(), b)
	require.ErrorAs(t, err, &blocked)
}

// Options that can't work are refused with the output's name, and without their secrets.
func TestNewRefuses(t *testing.T) {
	publish := func(context.Context, []byte) error { return nil }
	up := []ccms.Metric{{Name: "up"}}
	for want, o := range map[string]ccms.Options{
		"cluster":      {Publish: publish, Metrics: up},
		"..":           {Publish: publish, Metrics: up, Cluster: ".."},
		"either":       {Cluster: "c", Metrics: up},
		"either an":    {Cluster: "c", Metrics: up, Publish: publish, URL: "http://h"},
		"http://":      {Cluster: "c", Metrics: up, URL: "h:1"},
		"be read":      {Cluster: "c", Metrics: up, URL: "http://u:secret@h:p:p"},
		"at most one":  {Cluster: "c", Metrics: up, URL: "http://h", Token: "secret", SeedFile: "f"},
		"Ed25519":      {Cluster: "c", Metrics: up, URL: "http://h", Seed: "secret"},
		"is empty":     {Cluster: "c", URL: "http://h"},
		"no name":      {Cluster: "c", URL: "http://h", Metrics: []ccms.Metric{{}}},
		"subtype":      {Cluster: "c", URL: "http://h", Metrics: []ccms.Metric{{Name: "m", SubType: "s"}}},
		"hostname":     {Cluster: "c", URL: "http://h", Metrics: up, HostnameRegex: "("},
		"metric m":     {Cluster: "c", URL: "http://h", Metrics: []ccms.Metric{{Name: "m", IDLabel: "a", IDRegex: "("}}},
		"metric m: er": {Cluster: "c", URL: "http://h", Metrics: []ccms.Metric{{Name: "m", SubType: "s", SubIDLabel: "a", SubIDRegex: "("}}},
	} {
		o.Name = "test"
		_, err := ccms.New(o)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "output test")
		require.NotContains(t, err.Error(), "secret")
	}
}

// The table is compared with the store's configuration: names and frequencies.
func TestCheckMetrics(t *testing.T) {
	const config = `{"main":{},"metrics":{"cpu_load":{"frequency":10,"aggregation":null},"net_bw":{"frequency":60,"aggregation":"sum"}}}`
	require.NoError(t, ccms.CheckMetrics([]byte(config), []ccms.Metric{{Name: "cpu_load", Frequency: 10 * time.Second}, {Name: "net_bw"}}))
	err := ccms.CheckMetrics([]byte(config), []ccms.Metric{{Name: "system"}, {Name: "net_bw", Frequency: 10 * time.Second}})
	require.ErrorContains(t, err, "metric system: the store doesn't know it")
	require.ErrorContains(t, err, "metric net_bw: its frequency is 10s, but the store's is 60 s")
	require.Error(t, ccms.CheckMetrics([]byte("no"), nil))
	require.Error(t, ccms.CheckMetrics([]byte(`{"metrics":{"up":{"frequency":"x"}}}`), nil))
}

// The strict store finds what it is there for.
func TestStore(t *testing.T) {
	for _, bad := range []string{
		"up,cluster=c,hostname=h,type=node value=NaN 1", "up,cluster=c,hostname=h,type=node load=1 1", "up,cluster=c,hostname=h,type=node value=1",
		"up,cluster=c,hostname=h,type=node value=1 1700000000000", "up,cluster=c,hostname=h,type=node value=+Inf 1",
	} {
		require.Error(t, (&store{metrics: configured}).write(bad), bad)
	}
	for _, bad := range []string{
		"nope,cluster=c,hostname=h,type=node value=1 1", "up,hostname=h,type=node value=1 1", "up,cluster=c,type=node value=1 1", "up,cluster=c,hostname=a/b,type=node value=1 1",
		"up,cluster=c,hostname=h value=1 1", "up,cluster=c,hostname=h,type=node,job=x value=1 1", "up,cluster=c,hostname=h,type=node,stype=x value=1 1",
		"up,cluster=c,hostname=h,type=node value=1 2\nup,cluster=c,hostname=h,type=node value=1 1",
	} {
		s := &store{metrics: configured}
		require.NoError(t, s.write(bad))
		require.NotEmpty(t, s.faults, bad)
	}
}

// A batch of 10 000 samples over loopback, to a target that reads it and answers.
func BenchmarkSend(b *testing.B) {
	url := listen(b, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	s := newSender(b, ccms.Options{URL: url, Cluster: "c", Metrics: table()})
	batch := &forward.Batch{}
	for i := range 1000 {
		v := float64(i)
		batch.Series = append(batch.Series, series(b, s, labels.FromStrings("__name__", "up", "instance", fmt.Sprintf("host-%d:9100", i)), v, v+1, v+2, v+3.1, v+4, v+5, v+6.7, v+8, v+8, v+9))
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
