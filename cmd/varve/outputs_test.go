package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/config"
)

// receiver is a peer that hands over what it is sent.
func receiver(t *testing.T) (url string, arrived <-chan prompb.TimeSeries) {
	c := make(chan prompb.TimeSeries, 10_000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wire, err := io.ReadAll(r.Body)
		if err == nil {
			wire, err = snappy.Decode(nil, wire)
		}
		var req prompb.WriteRequest
		if err == nil {
			err = req.Unmarshal(wire)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, ts := range req.Timeseries {
			c <- ts
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s.URL, c
}

// TestOutputs forwards what arrives, steers an output, adds one with what was there before and removes it by reload; a name that is
// gone takes its place in the archive with it.
func TestOutputs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "varve.yaml")
	url, arrived := receiver(t)
	outputs := func(text string) {
		require.NoError(t, os.WriteFile(file, []byte("outputs:\n"+text), 0o600))
	}
	live := fmt.Sprintf("  - {name: live, batch_delay: 10ms, external_labels: {via: live}, filter_exclude: ['other'], remote_write: {url: '%s'}}\n", url)
	old := fmt.Sprintf("  - {name: old, start: beginning, batch_delay: 10ms, external_labels: {via: old}, filter_include: ['m'], remote_write: {url: '%s'}}\n", url)
	outputs(live)
	p := start(t, filepath.Join(dir, "data"), "--web.enable-admin-api", "--web.enable-lifecycle", "--config.file="+file)
	// next is what next arrives of m or other.
	next := func() string {
		t.Helper()
		for deadline := time.After(patience); ; {
			select {
			case ts := <-arrived:
				labels := map[string]string{}
				for _, l := range ts.Labels {
					labels[l.Name] = l.Value
				}
				if name := labels["__name__"]; name == "m" || name == "other" {
					text := name + " " + labels["via"]
					for _, sample := range ts.Samples {
						text += fmt.Sprint(" ", sample.Value)
					}
					return text
				}
			case <-deadline:
				require.FailNow(t, "nothing arrives", p.logged())
			}
		}
	}
	// From now on means from when the output runs.
	for running := false; !running; {
		_, body := p.call(http.MethodGet, "/api/v1/status/outputs", nil)
		running = strings.Contains(body, `"state":"running"`)
	}
	require.Equal(t, 204, p.write("other", time.Now(), 1))
	require.Equal(t, 204, p.write("m", time.Now(), 2))
	require.Equal(t, "m live 2", next())

	post := func(path string, want int) string {
		t.Helper()
		code, body := p.call(http.MethodPost, path, nil)
		require.Equal(t, want, code, body)
		return body
	}
	post("/api/v1/admin/outputs/nobody/pause", 404)
	post("/api/v1/admin/outputs/live/rewind", 400)
	post("/api/v1/admin/outputs/live/rewind?to=soon", 400)
	post("/api/v1/admin/outputs/live/pause", 200)
	require.Equal(t, 204, p.write("m", time.Now(), 3))
	code, body := p.call(http.MethodGet, "/api/v1/status/outputs", nil)
	require.Equal(t, 200, code)
	require.Contains(t, body, `"state":"paused"`)
	post("/api/v1/admin/outputs/live/resume", 200)
	require.Equal(t, "m live 3", next())

	outputs(live + old)
	post("/-/reload", 200)
	before := next()
	if before == "m old 2" { // They were read in two turns, and the first was sent by itself.
		before += strings.TrimPrefix(next(), "m old")
	}
	require.Equal(t, "m old 2 3", before)
	code, body = p.call(http.MethodGet, "/api/v1/status/outputs", nil)
	require.Equal(t, 200, code)
	var status struct {
		Data []struct{ Name, Kind, State string }
	}
	require.NoError(t, json.Unmarshal([]byte(body), &status))
	require.Len(t, status.Data, 2)

	outputs("  - {name: live, opentsdb: {url: 'telnet://h/path'}}\n")
	require.Contains(t, post("/-/reload", 500), "the address for telnet has to be host:port")
	require.Equal(t, 204, p.write("m", time.Now(), 4))
	require.ElementsMatch(t, []string{"m live 4", "m old 4"}, []string{next(), next()}, "nothing has changed")

	outputs(live)
	post("/-/reload", 200)
	p.terminate()
	code, stdout, stderr := invoke(t, "outputs", filepath.Join(dir, "data"))
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `"live"`)
	require.NotContains(t, stdout, `"old"`)
}

// TestOutputOfEachKind makes what a file says into options that the senders accept.
func TestOutputOfEachKind(t *testing.T) {
	file := writeFile(t, "varve.yaml", `
outputs:
  - {name: a, remote_write: {url: 'https://h/w', protobuf_message: io.prometheus.write.v2.Request}}
  - {name: b, influxdb: {url: 'http://h:8086', database: d, precision: s}}
  - {name: c, influxdb: {url: 'udp://h:8089', version: udp}}
  - {name: d, influxdb: {url: 'http://h:8086', version: 2, org: o, bucket: b, token: t, gzip: false, default_measurement: m}}
  - {name: e, opentsdb: {url: 'http://h:4242', default_tag: {a: b}, keep_labels: [job]}}
  - {name: f, opentsdb: {url: 'telnet://h:4242'}}
  - {name: g, nats: {urls: ['h:4222'], subject: 'm.{__name__}', payload: json}}
  - name: h
    cc_metric_store: {url: 'http://h:8082', cluster: c, metrics: [{name: load, selector: node_load1}, {name: bw, query: 'sum(up)', frequency: 60s}]}
  - {name: i, cc_metric_store: {nats: {urls: ['h:4222']}, subject: s, cluster: c, metrics: [{name: bw, query: 'sum(up)', frequency: 60s}]}}
`)
	c, err := config.Read(file, nil)
	require.NoError(t, err)
	out, err := forwardOutputs(c.Outputs)
	require.NoError(t, err)
	require.Len(t, out, 9)
	require.Len(t, out[7].Queries, 1)
	require.False(t, out[7].QueriesOnly)
	require.True(t, out[8].QueriesOnly)
	require.Equal(t, 4*time.Minute, out[6].KeepBehind)
	c.Outputs[7].CCMetricStore.StoreConfig = writeFile(t, "store.json", `{"metrics": {"load": {"frequency": 60}, "bw": {"frequency": 10}}}`)
	_, err = forwardOutputs(c.Outputs)
	require.ErrorContains(t, err, "metric bw: its frequency is 1m0s, but the store's is 10 s")
	require.Zero(t, out[0].KeepBehind)
}
