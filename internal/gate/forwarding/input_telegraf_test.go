package forwarding_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

const telegrafInputs = targetConfiguration + `
  - {name: v1, path: /v1, external_labels: {via: v1}, influxdb: {}}
  - name: v2
    listen_address: 127.0.0.1:0
    tokens: [{name: telegraf, token: s3cret}]
    external_labels: {via: v2}
    influxdb: {}
  - {name: udp, external_labels: {via: udp}, influxdb: {udp_listen_address: '%[1]s'}}
  - {name: put, path: /put, external_labels: {via: put}, opentsdb: {}}
  - name: bridge
    path: /bridge
    relabel_configs: [{action: labeldrop, regex: url}]
    external_labels: {via: bridge}
    influxdb: {}
  - name: scraped
    external_labels: {via: scraped}
    relabel_configs: [{action: labeldrop, regex: job|instance}]
    scrape:
      scrape_configs:
        - {job_name: page, scrape_interval: 1s, static_configs: [{targets: ['%[2]s']}]}
`

// telegrafConfiguration has a file of lines that goes out by every way in, and a page that is scraped, with the metric as the field.
const telegrafConfiguration = `
[agent]
  interval = "500ms"
  flush_interval = "500ms"
  omit_hostname = true
[[inputs.file]]
  files = ["%[1]s"]
  data_format = "influx"
  [inputs.file.tags]
    from = "file"
[[inputs.prometheus]]
  urls = ["http://%[2]s/metrics"]
  metric_version = 2
  [inputs.prometheus.tags]
    from = "page"
[[outputs.influxdb]]
  urls = ["http://%[3]s/v1"]
  database = "telegraf"
  username = "any"
  password = "any"
  [outputs.influxdb.tagpass]
    from = ["file"]
[[outputs.influxdb_v2]]
  urls = ["http://%[4]s"]
  token = "s3cret"
  organization = "o"
  bucket = "b"
  [outputs.influxdb_v2.tagpass]
    from = ["file"]
[[outputs.influxdb]]
  urls = ["udp://%[5]s"]
  [outputs.influxdb.tagpass]
    from = ["file"]
[[outputs.opentsdb]]
  host = "http://%[7]s"
  port = %[6]s
  http_path = "/put/api/put"
  http_batch_size = 50
  [outputs.opentsdb.tagpass]
    from = ["file"]
[[outputs.influxdb]]
  urls = ["http://%[3]s/bridge"]
  database = "telegraf"
  [outputs.influxdb.tagpass]
    from = ["page"]
`

// telegrafLines have times, so that it is no matter how often the file is read. Text is left out, and one series only has it.
func telegrafLines(at time.Time) (text string) {
	for i := range 20 {
		at := at.Add(time.Duration(i) * time.Second).UnixNano()
		text += fmt.Sprintf("cpu,cpu=cpu%d,host=ab usage_idle=%d.25,usage_user=%di,on=%v,note=\"text\" %d\n", i%4, i, i*7, i%2 == 0, at)
		text += fmt.Sprintf("load,of=a\\ b value=%d.5 %d\nonly note=\"text\" %d\n", i, at, at)
	}
	return text
}

// telegrafSeries are the metrics that every output of Telegraf's makes of the lines: OpenTSDB's changes characters and leaves truth values out.
const telegrafSeries = "cpu_usage"

// TestTelegraf shows that Telegraf writes to every input that it has an output for, the same series by each, and that what it scrapes
// has the names and values that Varve scrapes.
func TestTelegraf(t *testing.T) {
	telegraf := server.Peer(t, "telegraf-")
	at := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE heros_a_inbound gauge\nheros_a_inbound{prefix=\"tank\",key=\"a\"} -1 %d\n# TYPE heros_total counter\nheros_total 12345.5 %d\n", at.UnixMilli(), at.UnixMilli())
	}))
	defer page.Close()
	udp, err := server.FreeAddress()
	require.NoError(t, err)
	v := newVarve(t, func() string { return fmt.Sprintf(telegrafInputs, udp, page.Listener.Addr()) })
	v.start()
	dir := t.TempDir()
	lines, conf := filepath.Join(dir, "lines"), filepath.Join(dir, "telegraf.conf")
	require.NoError(t, os.WriteFile(lines, []byte(telegrafLines(at)), 0o600))
	host, port, err := net.SplitHostPort(v.address)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(conf, []byte(fmt.Sprintf(telegrafConfiguration, lines, page.Listener.Addr(), v.address, v.inputAddress("v2"), udp, port, host)), 0o600))
	s, err := server.Start(server.Options{Binary: telegraf, Address: v.address, Args: []string{"--config", conf}})
	require.NoError(t, err)
	defer s.Kill()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Output())
		}
	})
	drop := func(b *labels.Builder) { b.Del("via", "from") }
	all := func(via string) contents { return read(t, v.server.URL(""), true, drop, is("via", via)) }
	var want contents
	require.Eventually(t, func() bool { want = all("v1"); return want.samples() >= 20*4 }, readyTimeout, 100*time.Millisecond)
	require.Equal(t, 20*4, want.samples())
	require.Len(t, want, 4*3+1, "%v", want)
	for _, via := range []string{"v2", "udp", "put"} {
		var lost []string
		require.Eventually(t, func() bool {
			lost = differences(only(want, telegrafSeries), only(all(via), telegrafSeries))
			return len(lost) == 0
		}, readyTimeout, 200*time.Millisecond, "what came by %s: %v", via, &lost)
	}
	require.Eventually(t, func() bool { return len(differences(want, all("v2"))) == 0 }, readyTimeout, 100*time.Millisecond)
	heros := func(via string) contents {
		return read(t, v.server.URL(""), true, drop, is("via", via), labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, "heros.*"))
	}
	require.Eventually(t, func() bool { return heros("bridge").samples() == 2 && heros("scraped").samples() == 2 }, readyTimeout, 100*time.Millisecond)
	equal(t, "what Telegraf scraped", heros("scraped"), heros("bridge"))
}

// only returns the series of metrics whose name begins with a prefix.
func only(c contents, prefix string) contents {
	out := contents{}
	for key, points := range c {
		if strings.HasPrefix(key, `{__name__="`+prefix) {
			out[key] = points
		}
	}
	return out
}

// inputAddress is the address of an input's own, once it runs.
func (v *varve) inputAddress(name string) (address string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), readyTimeout)
	defer cancel()
	require.NoError(v.t, server.Wait(ctx, "input "+name+" runs", func() (bool, error) {
		_, body, err := server.Get(ctx, v.server.URL("/api/v1/status/inputs"))
		if err != nil {
			return false, err
		}
		var answer struct {
			Data []struct{ Name, Address, State, Error string }
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return false, fmt.Errorf("%w: %s", err, body)
		}
		for _, in := range answer.Data {
			if in.Name == name && in.State == "running" {
				address = in.Address
				return true, nil
			}
		}
		return false, fmt.Errorf("it does not: %s", body)
	}))
	return address
}

// throttledConfiguration takes ten seconds for all lines, which Telegraf has at once: a machine that stalls now and then doesn't make it as slow.
const throttledConfiguration = targetConfiguration + `
  - {name: v1, path: /v1, external_labels: {via: v1}, limits: {max_samples_per_second: 5, burst_samples: 30}, influxdb: {}}
  - {name: v2, path: /v2, external_labels: {via: v2}, limits: {max_samples_per_second: 5, burst_samples: 30}, influxdb: {}}
`

const throttledTelegraf = `
[agent]
  interval = "5s"
  flush_interval = "200ms"
  metric_batch_size = 10
  omit_hostname = true
[[inputs.file]]
  files = ["%[1]s"]
  data_format = "influx"
[[outputs.influxdb]]
  urls = ["http://%[2]s/v1"]
[[outputs.influxdb_v2]]
  urls = ["http://%[2]s/v2"]
  token = "any"
  organization = "o"
  bucket = "b"
`

// TestTelegrafThrottled shows that Telegraf loses nothing where it is told to come back later.
func TestTelegrafThrottled(t *testing.T) {
	telegraf := server.Peer(t, "telegraf-")
	v := newVarve(t, func() string { return throttledConfiguration })
	v.start()
	dir := t.TempDir()
	lines, conf := filepath.Join(dir, "lines"), filepath.Join(dir, "telegraf.conf")
	require.NoError(t, os.WriteFile(lines, []byte(telegrafLines(time.Now().Add(-10*time.Minute).Truncate(time.Second))), 0o600))
	require.NoError(t, os.WriteFile(conf, []byte(fmt.Sprintf(throttledTelegraf, lines, v.address)), 0o600))
	s, err := server.Start(server.Options{Binary: telegraf, Address: v.address, Args: []string{"--config", conf}})
	require.NoError(t, err)
	defer s.Kill()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Output())
		}
	})
	for via, code := range map[string]string{"v1": "503", "v2": "429"} {
		var got contents
		require.Eventually(t, func() bool {
			got = read(t, v.server.URL(""), true, nil, is("via", via))
			return got.samples() == 20*4
		}, drainTimeout, 200*time.Millisecond, "what came by %s: %v", via, &got)
		require.Positive(t, v.metric("varve_ingest_requests_total", "input", via, "code", code))
	}
}
