package dashboards_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/peers"
	"varve/internal/gate/server"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) {
	code := m.Run()
	server.RemoveBinaries()
	http.DefaultClient.CloseIdleConnections()
	if err := leaks.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

const (
	readyTimeout = 3 * time.Minute
	// exposeTimeout bounds the wait for metrics that appear when something happened.
	exposeTimeout = 4 * time.Minute
)

// everything is a configuration with all features. Its parts in %q are addresses.
const everything = `
storage: {memory: 64MiB, runs: {max_age: 2s}}
web:
  enable_admin_api: true
  enable_lifecycle: true
  rules: [{who: [anonymous], may: [write, query, federate, metadata, admin, debug]}]
query: {max_cores: 2}
ingest: {overwrites: reject}
compactor: {interval: 1s, seal_delay: 0s, quiet: 0s, reseal_after: 0s, cpu_share: 1}
retention: [{match: '{env="old"}', raw: 7d, 5m: 30d}]
snapshots: {objstore_config_file: bucket.yml, every: 1d}
self_scrape: {interval: 1s}
inputs:
  - {name: write, remote_write: {}, limits: {max_active_series: 100000}}
  - {name: pairs, path: /pairs, remote_write: {}, ha: {cluster_label: cluster, replica_label: __replica__, failover_timeout: 1s}}
  - {name: thin, path: /thin, remote_write: {}, downsample: 1s}
  - {name: datagrams, influxdb: {udp_listen_address: %q}}
  - {name: lines, opentsdb: {telnet_listen_address: %q}}
  - {name: otlp, otlp: {}}
  - {name: files, import: {}}
  - {name: queue, nats: {urls: [%q], stream: {name: IN, create: true, subjects: [in.>]}, durable: gate, payload: influx}}
  - name: node
    scrape:
      tolerant: true
      scrape_configs: [{job_name: node, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{targets: [%q]}]}]
outputs:
  - name: central
    filter_include: ['{job="varve"}']
    max_backoff: 1s
    remote_write: {url: %q}
    queries: [{name: load, query: 'avg by (job) (up)', metric: job_up, interval: 1s, delay: 1s}]
  - {name: refusing, filter_include: ['{__name__="gate_refused"}'], remote_write: {url: %q}}
  - {name: narrow, filter_include: ['{__name__="gate_odd"}'], influxdb: {url: %q, database: metrics}}
canary: {enabled: true, interval: 1s}
log: {level: warn}
`

// rig is a server with all features and those that it talks to.
type rig struct {
	t *testing.T
	*server.Server
	// exposed is what it has shown by now, by name, and nodes what a node_exporter shows.
	exposed, nodes map[string]*metric
}

// metric is what is exposed under a name.
type metric struct {
	kind, help string
	labels     map[string]bool
	// family is the name under which HELP and TYPE are told: without _bucket, _sum and _count.
	family string
}

func startNodeExporter(t *testing.T) *server.Server {
	t.Helper()
	binary, err := exec.LookPath("prometheus-node-exporter")
	if err != nil {
		server.Lacking(t, "no prometheus-node-exporter in PATH: apt-get install prometheus-node-exporter")
	}
	address, err := server.FreeAddress()
	require.NoError(t, err)
	s, err := server.Start(server.Options{Binary: binary, Address: address, Args: []string{"--web.listen-address=" + address}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	require.NoError(t, s.WaitListening(ctx))
	return s
}

// peer answers every request of an output with the status, after a number of failures.
func peer(t *testing.T, status int, failures int64) string {
	t.Helper()
	var seen atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if seen.Add(1) <= failures {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// startVarve starts a server with the configuration, beside which lies bucket.yml.
func startVarve(t *testing.T, configuration string) *server.Server {
	t.Helper()
	dir := t.TempDir()
	bucket := "type: FILESYSTEM\nconfig: {directory: " + filepath.Join(dir, "bucket") + "}\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bucket.yml"), []byte(bucket), 0o600))
	file := filepath.Join(dir, "varve.yml")
	require.NoError(t, os.WriteFile(file, []byte(configuration), 0o600))
	address, err := server.FreeAddress()
	require.NoError(t, err)
	s, err := server.Start(server.Options{
		Binary: server.Binary(t, ""), Address: address,
		Args: []string{"serve", "--config.file", file, "--storage.path", filepath.Join(dir, "data"), "--web.listen-address", address},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the output of the server:\n%s", s.Output())
		}
		s.Kill()
	})
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
	return s
}

func newRig(t *testing.T) *rig {
	t.Helper()
	node := startNodeExporter(t)
	queue := peers.StartNATS(t)
	udp, err := server.FreeAddress()
	require.NoError(t, err)
	telnet, err := server.FreeAddress()
	require.NoError(t, err)
	configuration := fmt.Sprintf(everything, udp, telnet, "nats://"+queue.Address, strings.TrimPrefix(node.URL(""), "http://"),
		peer(t, http.StatusNoContent, 3)+"/api/v1/write", peer(t, http.StatusBadRequest, 0)+"/api/v1/write", peer(t, http.StatusNoContent, 0))
	r := &rig{t: t, exposed: map[string]*metric{}, nodes: map[string]*metric{}}
	r.Server = startVarve(t, configuration)
	_, text, err := server.Get(t.Context(), node.URL("/metrics"))
	require.NoError(t, err)
	note(t, text, r.nodes)
	return r
}

// look adds what the server exposes by now.
func (r *rig) look() {
	r.t.Helper()
	_, text, err := server.Get(r.t.Context(), r.URL("/metrics"))
	require.NoError(r.t, err)
	note(r.t, text, r.exposed)
}

// note adds what the text exposes.
func note(t *testing.T, text []byte, into map[string]*metric) {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	require.NoError(t, err)
	for name, f := range families {
		kind := strings.ToLower(f.GetType().String())
		add := func(name string, more ...string) {
			m := into[name]
			if m == nil {
				m = &metric{kind: kind, help: f.GetHelp(), labels: map[string]bool{}, family: f.GetName()}
				into[name] = m
			}
			for _, s := range f.GetMetric() {
				for _, l := range s.GetLabel() {
					m.labels[l.GetName()] = true
				}
			}
			for _, l := range more {
				m.labels[l] = true
			}
		}
		switch f.GetType() {
		case dto.MetricType_HISTOGRAM:
			add(name+"_bucket", "le")
			add(name + "_sum")
			add(name + "_count")
		case dto.MetricType_SUMMARY:
			add(name, "quantile")
			add(name + "_sum")
			add(name + "_count")
		default:
			add(name)
		}
	}
}

// send writes series over remote write.
func (r *rig) send(path string, series ...prompb.TimeSeries) {
	r.t.Helper()
	body, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	require.NoError(r.t, err)
	resp, err := http.Post(r.URL(path), "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, body)))
	require.NoError(r.t, err)
	require.NoError(r.t, resp.Body.Close())
	require.Contains(r.t, []int{http.StatusNoContent, http.StatusBadRequest}, resp.StatusCode, "%s", path)
}

// one is a series with a sample.
func one(at time.Time, value float64, pairs ...string) prompb.TimeSeries {
	s := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: value}}}
	for i := 0; i < len(pairs); i += 2 {
		s.Labels = append(s.Labels, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return s
}

// ask is a request of which only the status matters.
func (r *rig) ask(path string, form url.Values) int {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.URL(path), strings.NewReader(form.Encode()))
	require.NoError(r.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(r.t, err)
	require.NoError(r.t, resp.Body.Close())
	return resp.StatusCode
}

// happens are metrics that show when something happened, and not before.
var happens = []string{
	"varve_forward_samples_dead_lettered_total", "varve_forward_samples_skipped_total", "varve_http_denied_total", "varve_http_requests_total",
	"varve_ingest_replica_elected", "varve_ingest_replica_failovers_total", "varve_ingest_requests_total", "varve_ingest_thin_refused_total",
	"varve_query_failed_total", "varve_query_reruns_total",
}

// drive makes everything happen, and returns when all of it shows.
func (r *rig) drive() {
	r.t.Helper()
	start := time.Now()
	r.send("/pairs/api/v1/write", one(start, 1, "__name__", "gate_pair", "__replica__", "a", "cluster", "c"))
	r.send("/api/v1/write", one(start.Add(time.Hour), 1, "__name__", "gate_future"))
	require.Contains(r.t, []int{http.StatusForbidden, http.StatusUnauthorized}, r.ask("/-/reload", nil))
	// The schedule may be making the first one.
	require.Contains(r.t, []int{http.StatusOK, http.StatusConflict}, r.ask("/api/v1/admin/snapshots?wait=true", nil))
	ctx, cancel := context.WithTimeout(r.t.Context(), exposeTimeout)
	defer cancel()
	documents := readDocument(r.t)
	var missing []string
	require.NoError(r.t, server.Wait(ctx, "all metrics were seen", func() (bool, error) {
		now := time.Now()
		r.send("/pairs/api/v1/write", one(now, 1, "__name__", "gate_pair", "__replica__", "b", "cluster", "c"))
		r.send("/api/v1/write", one(now, 1, "__name__", "gate_refused"), one(now, math.NaN(), "__name__", "gate_odd"))
		// Another value stands already at each second for which thinning will have a point.
		for second := range 20 {
			r.send("/api/v1/write", one(now.Truncate(time.Second).Add(time.Duration(second)*time.Second), -1, "__name__", "gate_thinned"))
		}
		r.send("/thin/api/v1/write", one(now, 1, "__name__", "gate_thinned"))
		// Many series on both sides of an operator, in a query that is evaluated in parts.
		r.ask("/api/v1/query_range", url.Values{
			"query": {"rate(varve_rocksdb_family_bytes[1m]) + on () varve_rocksdb_family_bytes"}, "step": {"1"},
			"start": {fmt.Sprint(now.Add(-time.Hour).Unix())}, "end": {fmt.Sprint(now.Unix())},
		})
		r.look()
		missing = missing[:0]
		for _, name := range happens {
			if r.exposed[name] == nil {
				missing = append(missing, name)
			}
		}
		// Others show a while after the start, or with the first of something, such as a round of the canary.
		for name, d := range documents {
			if f := r.family(name); f == nil || f.kind != d.kind || joined(f.labels) != d.labels {
				missing = append(missing, name)
			}
		}
		return len(missing) == 0, fmt.Errorf("not yet: %v", missing)
	}))
}
