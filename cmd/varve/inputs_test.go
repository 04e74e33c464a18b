package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	gate "varve/internal/gate/server"
)

// inputOf is what the status has of an input.
func (p *process) inputOf(name string) (out struct {
	Kind, Address, State, Error string
	Paths                       []string
	Detail                      any
}) {
	p.t.Helper()
	code, body := p.call(http.MethodGet, "/api/v1/status/inputs", nil)
	require.Equal(p.t, 200, code, body)
	var answer struct{ Data []json.RawMessage }
	require.NoError(p.t, json.Unmarshal([]byte(body), &answer))
	for _, text := range answer.Data {
		var named struct{ Name string }
		require.NoError(p.t, json.Unmarshal(text, &named))
		if named.Name == name {
			require.NoError(p.t, json.Unmarshal(text, &out))
		}
	}
	return out
}

// valuesOf are the values of one series, by time, as a range of it has them.
func (p *process) valuesOf(query string) map[float64]float64 {
	p.t.Helper()
	var answer struct {
		Result []struct{ Values [][2]any }
	}
	p.data("query?"+url.Values{"query": {query}}.Encode(), &answer)
	require.Len(p.t, answer.Result, 1, query)
	out := map[float64]float64{}
	for _, pair := range answer.Result[0].Values {
		v, err := strconv.ParseFloat(pair[1].(string), 64)
		require.NoError(p.t, err)
		out[pair[0].(float64)] = v
	}
	return out
}

// TestInputs writes by the inputs that are there without being configured, by one on an address and one on a path of its own; a reload
// changes one while the others go on, closes one and says what can't begin, and then again what can.
func TestInputs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "varve.yaml")
	configure := func(text string) { require.NoError(t, os.WriteFile(file, []byte("inputs:\n"+text), 0o600)) }
	own := "  - {name: own, listen_address: '127.0.0.1:0', tokens: [{name: t, token: s3cret}], external_labels: {via: own}, influxdb: {}}\n"
	pathed := "  - {name: pathed, path: /p, external_labels: {via: pathed}, influxdb: {}}\n"
	configure(own + pathed)
	p := start(t, filepath.Join(dir, "data"), "--web.enable-lifecycle", "--config.file="+file)
	now := time.Now()
	line := func(metric string) []byte { return fmt.Appendf(nil, "%s value=1 %d\n", metric, now.UnixNano()) }
	post := func(path string, body []byte, want int) {
		t.Helper()
		code, text := p.call(http.MethodPost, path, body)
		require.Equal(t, want, code, "%s: %s", path, text)
	}
	post("/write?db=d", line("a"), 204)
	post("/api/v2/write?bucket=d", line("b"), 204)
	post("/p/write", line("c"), 204)
	post("/api/put", fmt.Appendf(nil, `{"metric":"d","timestamp":%d,"value":1,"tags":{"x":"y"}}`, now.Unix()), 204)
	post("/api/v1/import/prometheus", []byte("e 1\n"), 204)
	post("/api/v1/otlp/v1/metrics", []byte("{"), 415)
	require.Equal(t, 204, p.write("f", now, 1))
	address := p.inputOf("own").Address
	ownWrite := func(token string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/write", strings.NewReader(string(line("g"))))
		require.NoError(t, err)
		r.Header.Set("Authorization", "Token "+token)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	require.Equal(t, 401, ownWrite("other"))
	require.Equal(t, 204, ownWrite("s3cret"))
	for _, query := range []string{"a", "b", `c{via="pathed"}`, `d{x="y"}`, "e", "f", `g{via="own"}`} {
		require.Equal(t, "1", p.value(query, time.Now().Add(time.Second)), query)
	}
	code, body := p.call(http.MethodGet, "/ping", nil)
	require.Equal(t, 204, code, body)

	// The one on an address of its own goes on, and keeps its port.
	configure(own + strings.Replace(pathed, "via: pathed", "via: changed", 1) + "  - {name: opentsdb, disabled: true, opentsdb: {}}\n")
	post("/-/reload", nil, 200)
	require.Equal(t, address, p.inputOf("own").Address)
	post("/p/write", line("h"), 204)
	require.Equal(t, "1", p.value(`h{via="changed"}`, now.Add(time.Second)))
	post("/api/put", []byte("[]"), 404)

	// An address that is taken fails that input alone.
	taken, err := net.Listen("tcp", net.JoinHostPort(gate.Loopback(), "0"))
	require.NoError(t, err)
	configure(own + fmt.Sprintf("  - {name: third, listen_address: '%s', influxdb: {}}\n", taken.Addr()))
	post("/-/reload", nil, 500)
	require.Equal(t, "failed", p.inputOf("third").State)
	require.Contains(t, p.inputOf("third").Error, "address already in use")
	require.Equal(t, 204, ownWrite("s3cret"))
	post("/p/write", line("i"), 404)
	require.NoError(t, taken.Close())
	post("/-/reload", nil, 200)
	require.Equal(t, "running", p.inputOf("third").State)
	require.NotContains(t, p.logged(), "s3cret")
	p.terminate()
}

// TestScrapeInput scrapes a target that is configured, changes the targets by a reload without ending the others, and lists them.
func TestScrapeInput(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "scraped_total{path=%q} 5\nbad_one{ 1\n", r.URL.Path)
	}))
	defer target.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "varve.yaml")
	configure := func(jobs ...string) {
		text := "inputs:\n  - name: in\n    external_labels: {via: in}\n    scrape:\n      tolerant: true\n      scrape_configs:\n"
		for _, job := range jobs {
			text += fmt.Sprintf("        - {job_name: %s, scrape_interval: 1s, metrics_path: /%s, static_configs: [{targets: ['%s']}]}\n", job, job, target.Listener.Addr())
		}
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	configure("one")
	p := start(t, filepath.Join(dir, "data"), "--web.enable-lifecycle", "--config.file="+file)
	has := func(query string) {
		t.Helper()
		require.Eventually(t, func() bool { return p.value(query, time.Now()) == "5" }, patience, 50*time.Millisecond, query)
	}
	has(`scraped_total{job="one",path="/one",via="in"}`)
	configure("one", "two")
	code, body := p.call(http.MethodPost, "/-/reload", nil)
	require.Equal(t, 200, code, body)
	has(`scraped_total{job="two",path="/two",via="in"}`)
	// A scrape that took all of its time was too slow, by the machine. One that failed sooner was cut off.
	up, took := p.valuesOf(`up{job="one"}[5m]`), p.valuesOf(`scrape_duration_seconds{job="one"}[5m]`)
	require.NotEmpty(t, up)
	for at, v := range up {
		require.True(t, v == 1 || took[at] >= 1, "at %v, after %v s", at, took[at])
	}
	require.Eventually(t, func() bool { // Those of the server's own are found on their own.
		code, body = p.call(http.MethodGet, "/api/v1/targets", nil)
		return code == 200 && strings.Contains(body, `"scrapePool":"two"`) && strings.Contains(body, `"scrapePool":"varve"`)
	}, patience, 50*time.Millisecond)
	p.terminate()
}

// TestInputsInTheWay shows what becomes of an input that can't begin when the configuration is read again: senders to the usual paths
// are told to come back, since they would drop what they have on a 404, and no path of another input is taken from it.
func TestInputsInTheWay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "varve.yaml")
	configure := func(text string) { require.NoError(t, os.WriteFile(file, []byte("inputs: ["+text+"]"), 0o600)) }
	configure("")
	p := start(t, filepath.Join(dir, "data"), "--web.enable-lifecycle", "--config.file="+file)
	call := func(path, body string, want int) {
		t.Helper()
		code, text := p.call(http.MethodPost, path, []byte(body))
		require.Equal(t, want, code, "%s: %s", path, text)
	}
	configure("{name: tsdb, opentsdb: {default_tag: {source: ''}}}, {name: lines, path: /api/v2, influxdb: {}}")
	call("/-/reload", "", 500)
	require.Contains(t, p.inputOf("tsdb").Error, "needs a name and a value")
	call("/api/put", "[]", 503)
	require.Contains(t, p.inputOf("lines").Error, `/api/v2/write is a path of input "influxdb"`)
	call("/api/v2/write?bucket=b", "m value=1", 204)
	configure("{name: lines, path: /lines, influxdb: {}}")
	call("/-/reload", "", 200)
	call("/api/put", "[]", 400)
	call("/lines/write", "m value=1", 204)
	p.terminate()
}
