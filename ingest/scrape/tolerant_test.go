package scrape_test

import (
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"varve/ingest/scrape"
)

// aggregatorText is what the HEROS aggregator serves: no metadata, blank lines,
// timestamps in milliseconds, values of labels as they are, and Python's None and
// True where a source has no number.
const aggregatorText = `sensor_room_inbound{prefix="sensor",key="room",unit=""} 0 1700000000000
sensor_room_value{prefix="sensor",key="room",unit="C"} 21.5 1700000000000

sensor_door_inbound{prefix="sensor",key="door",unit=""} -1 1700000000000
sensor_door_value{prefix="sensor",key="door",unit="the "big" one"} 1 1700000000000
sensor_lamp_inbound{prefix="sensor",key="lamp"} None 1700000000000
sensor_lamp_value{prefix="sensor",key="lamp"} True 1700000000000
sensor_path_value{prefix="sensor",key="C:\dir\"} 1 1700000000000

sensor_time_value{prefix="sensor"} 1 yesterday
sensor_room_value{prefix="sensor",key="room",unit="C"} 22.5 1700000000000
sensor_last_raw_value{prefix="sensor"} 3 1700000000000
`

// TestAggregator shows that of the HEROS aggregator's text, the lines that upstream
// would lose the scrape for cost themselves alone.
func TestAggregator(t *testing.T) {
	address := target(t, "text/plain; charset=utf-8", func() string { return aggregatorText })
	// Ten seconds never pass for the log.
	began := time.Now()
	r := start(t, scrape.Options{Tolerant: true, Now: func() time.Time { return began }}, job("heros-datasources", []string{address}, `metric_relabel_configs: [{target_label: group, replacement: heros}]`))
	r.wholeScrapes(2)
	for name, want := range map[string][]float64{
		"sensor_room_inbound": {0}, "sensor_room_value": {21.5, 22.5}, "sensor_door_inbound": {-1}, "sensor_last_raw_value": {3},
	} {
		s := r.only(name).Samples
		require.GreaterOrEqual(t, len(s), len(want))
		for i, v := range want {
			require.Equal(t, math.Float64bits(v), s[i].Bits, name)
			require.EqualValues(t, 1700000000000, s[i].TimeMillis, name)
		}
	}
	for _, name := range []string{"sensor_door_value", "sensor_lamp_inbound", "sensor_lamp_value", "sensor_path_value", "sensor_time_value"} {
		require.Empty(t, r.named(name))
	}
	require.GreaterOrEqual(t, r.counter("varve_scrape_lines_left_out_total"), 10.)
	require.Contains(t, r.log.String(), "the \\\\\\\"big\\\\\\\" one")
	require.Equal(t, 1, strings.Count(r.log.String(), "is left out"), "one line in ten seconds")
}

// TestIntolerant shows what the same text does to a scraper that is not tolerant, as
// to Prometheus: nothing of it is stored and the target is down.
func TestIntolerant(t *testing.T) {
	address := target(t, "text/plain; charset=utf-8", func() string { return aggregatorText })
	r := start(t, scrape.Options{}, job("heros-datasources", []string{address}))
	r.scrapes(1)
	require.Equal(t, math.Float64bits(0), r.only("up").Samples[0].Bits)
	require.Empty(t, r.named("sensor_room_value"))
}

// TestBadLinesInLargeText shows that one line in a thousand that is bad takes no other
// along, whatever is wrong with it, in either format, compressed or not.
func TestBadLinesInLargeText(t *testing.T) {
	badLines := []string{
		`bad{a="x"y"} 1`, `bad None`, `bad`, `{a="no name"} 1`, `bad{a="open 1`, `bad} 1`, "bad{a=\"\xff\"} 1", `bad 1 2 3`, `# TYPE bad nonsense`,
		"bad 1 " + strings.Repeat("9", 40), `1bad 2`, "bad{a=\"" + strings.Repeat("long", 300_000) + "\"} 1",
	}
	var text strings.Builder
	const lines = 12_000
	for i := range lines {
		if i%1000 == 500 {
			text.WriteString(badLines[i/1000] + "\n")
			continue
		}
		fmt.Fprintf(&text, "good{n=\"%d\"} %d\n", i, i)
	}
	for _, contentType := range []string{plainText, "application/openmetrics-text; version=1.0.0; charset=utf-8"} {
		for _, zip := range []bool{false, true} {
			var stored atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", contentType)
				if stored.Load() {
					return
				}
				if !zip {
					fmt.Fprint(w, text.String())
					return
				}
				require.Contains(t, r.Header.Get("Accept-Encoding"), "gzip")
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				fmt.Fprint(z, text.String())
				_ = z.Close()
			}))
			r := start(t, scrape.Options{Tolerant: true}, "- job_name: large\n  scrape_interval: 3s\n  scrape_timeout: 3s\n  static_configs: [{targets: ["+strings.TrimPrefix(server.URL, "http://")+"]}]\n")
			// On a busy machine a scrape may be too slow, and the next one is whole.
			r.until("a whole scrape", func() bool { return len(r.named("good")) >= lines-len(badLines) })
			stored.Store(true)
			require.Len(t, r.named("good"), lines-len(badLines), contentType)
			require.Empty(t, r.named("bad"), contentType)
			require.GreaterOrEqual(t, r.counter("varve_scrape_lines_left_out_total"), float64(len(badLines)), contentType)
			r.stop()
			server.Close()
		}
	}
}

// TestTolerantAsks shows that a tolerant scraper asks targets as the job says: over
// TLS with the job's authority, with its credentials, parameters and headers, and
// that protobuf passes with its native histograms.
func TestTolerantAsks(t *testing.T) {
	reg := prometheus.NewRegistry()
	native := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "native", NativeHistogramBucketFactor: 1.1})
	reg.MustRegister(native)
	native.Observe(3)
	var asked atomic.Pointer[http.Request]
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r)
		if user, password, ok := r.BasicAuth(); !ok || user != "u" || password != "p" {
			http.Error(w, "", http.StatusUnauthorized)
			return
		}
		promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600))
	address := strings.TrimPrefix(server.URL, "https://")
	r := start(t, scrape.Options{Tolerant: true, Dir: dir}, unhurried(job("secure", []string{address}, "scheme: https", "metrics_path: /some/path", "params: {x: [y z]}",
		"basic_auth: {username: u, password: p}", "tls_config: {ca_file: ca.pem}", "http_headers: {X-More: {values: [more]}}", "scrape_native_histograms: true")))
	r.until("a native histogram", func() bool {
		found := r.named("native")
		return len(found) == 1 && len(r.only("native").Histograms) > 0
	})
	got := asked.Load()
	require.Equal(t, "/some/path", got.URL.Path)
	require.Equal(t, "y z", got.URL.Query().Get("x"))
	require.Equal(t, "more", got.Header.Get("X-More"))
	require.Equal(t, address, got.Host)
	require.Contains(t, got.UserAgent(), "Prometheus")
	require.NotEmpty(t, got.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"))
	require.NotContains(t, fmt.Sprint(got.Header), "Varve")
	require.Equal(t, "https", r.scraper.Targets().TargetsActive()["secure"][0].URL().Scheme)

	// Without the authority the certificate is not trusted, and the page about
	// targets says so.
	require.NoError(t, r.scraper.Apply([]byte(unhurried(job("strict", []string{address}, "scheme: https")))))
	r.until("an error", func() bool {
		active := r.scraper.Targets().TargetsActive()["strict"]
		return len(active) == 1 && active[0].LastError() != nil && strings.Contains(active[0].LastError().Error(), "certificate")
	})
}

// TestTolerantOfNoHalfAnswer shows that an answer that breaks off is a failed scrape,
// and what other answers than 200 become.
func TestTolerantOfNoHalfAnswer(t *testing.T) {
	var broken atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.Header().Set("Content-Type", plainText)
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half 1\n")
	}))
	t.Cleanup(server.Close)
	r := start(t, scrape.Options{Tolerant: true}, job("half", []string{strings.TrimPrefix(server.URL, "http://")}))
	r.scrapes(1)
	require.Equal(t, math.Float64bits(0), r.only("up").Samples[0].Bits)
	require.Empty(t, r.named("half"))
	broken.Store(true)
	r.until("the status", func() bool {
		err := r.scraper.Targets().TargetsActive()["half"][0].LastError()
		return err != nil && strings.Contains(err.Error(), "418")
	})
}

// TestFallbackFormat shows that a body without a content type is repaired in the
// format that the job falls back to.
func TestFallbackFormat(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		fmt.Fprint(w, "good 1\nbad None\n")
	}))
	t.Cleanup(server.Close)
	r := start(t, scrape.Options{Tolerant: true}, job("fallback", []string{strings.TrimPrefix(server.URL, "http://")}, "fallback_scrape_protocol: PrometheusText0.0.4"))
	r.wholeScrapes(1)
	r.stop()
	require.Equal(t, count(r.only("up"), 1), count(r.only("good"), 1))
}
