package scrape_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"varve/archive"
	"varve/ingest"
	"varve/ingest/scrape"
	"varve/internal/gate/server"
	"varve/internal/testkit"
)

// TestNodeExporter shows that Debian's Prometheus and a Scraper make the same series
// of Debian's node_exporter, and that what does not change between scrapes has the
// same value, in the archive as there.
func TestNodeExporter(t *testing.T) {
	binary, err := exec.LookPath("prometheus-node-exporter")
	if err != nil {
		server.Lacking(t, "no prometheus-node-exporter in PATH: apt-get install prometheus-node-exporter")
	}
	prometheus2 := server.Prometheus2(t)
	address, err := server.FreeAddress()
	require.NoError(t, err)
	node, err := server.Start(server.Options{Binary: binary, Args: []string{"--web.listen-address=" + address}, Address: address, ReadyPath: "/"})
	require.NoError(t, err)
	t.Cleanup(node.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	require.NoError(t, node.WaitReady(ctx))
	// On a busy machine a scrape may take too long, and doesn't count.
	const configuration = "scrape_configs:\n- job_name: node\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs: [{targets: [%s], labels: {room: '3'}}]\n"
	prometheus := server.StartPrometheus(t, prometheus2, fmt.Sprintf(configuration, address))

	require.NoError(t, server.Wait(ctx, "three scrapes are in Prometheus", func() (bool, error) {
		for _, n := range prometheusValues(t, ctx, prometheus, "sum(sum_over_time(up[1h]))") {
			return n >= 3, nil
		}
		return false, nil
	}))

	a := testkit.Open(t, t.TempDir(), testkit.Options())
	for _, tolerant := range []bool{false, true} {
		s, err := scrape.New(scrape.Options{
			Name: "node", Appendable: ingest.NewAppendable(a, ingest.Limits{}, ingest.NewMetrics(nil), "scrape"), Tolerant: tolerant,
			Logger: slog.New(slog.DiscardHandler), DiscoveryInterval: time.Millisecond,
		})
		require.NoError(t, err)
		require.NoError(t, s.Apply([]byte(fmt.Sprintf(configuration, address))))
		running, stop := context.WithCancel(ctx)
		ran := make(chan error, 1)
		go func() { ran <- s.Run(running) }()
		from := time.Now()
		require.NoError(t, server.Wait(ctx, "three scrapes are in the archive", func() (bool, error) {
			up := read(t, a, from, labels.MustNewMatcher(labels.MatchEqual, "__name__", "up"))[`{__name__="up", instance="`+address+`", job="node", room="3"}`]
			return len(slices.DeleteFunc(up, func(v float64) bool { return v != 1 })) >= 3, nil
		}))
		stop()
		require.NoError(t, <-ran)

		job := labels.MustNewMatcher(labels.MatchEqual, "job", "node")
		got := read(t, a, from, job)
		want := prometheusSeries(t, ctx, prometheus)
		require.Greater(t, len(got), 300)
		for ls := range want {
			require.Contains(t, got, ls, "tolerant %t: in Prometheus alone", tolerant)
		}
		for ls := range got {
			require.Contains(t, want, ls, "tolerant %t: in the archive alone", tolerant)
		}
		for _, name := range []string{"node_uname_info", "node_boot_time_seconds", "node_memory_MemTotal_bytes", "node_exporter_build_info", "up"} {
			values := prometheusValues(t, ctx, prometheus, "last_over_time("+name+"[1h])")
			require.NotEmpty(t, values, name)
			for ls, v := range values {
				if name == "up" {
					v = 1
				}
				require.Contains(t, got[ls], v, ls)
			}
		}
	}
}

// read returns the values of series since a time by the text of their labels, without
// stale markers.
func read(t *testing.T, a *archive.Archive, from time.Time, matcher *labels.Matcher) map[string][]float64 {
	t.Helper()
	q, err := a.Querier(from.UnixMilli(), math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	out := make(map[string][]float64)
	set := q.Select(t.Context(), true, nil, matcher)
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			_, v := it.At()
			out[set.At().Labels().String()] = append(out[set.At().Labels().String()], v)
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}

// ask asks Prometheus and decodes what is under data.
func ask(t *testing.T, ctx context.Context, prometheus *server.Server, path string, data any) {
	t.Helper()
	code, body, err := server.Get(ctx, prometheus.URL(path))
	require.NoError(t, err)
	require.Equal(t, 200, code, "%s", body)
	require.NoError(t, json.Unmarshal(body, &struct{ Data any }{data}))
}

func prometheusSeries(t *testing.T, ctx context.Context, prometheus *server.Server) map[string]struct{} {
	t.Helper()
	var sets []map[string]string
	ask(t, ctx, prometheus, "/api/v1/series?match[]="+url.QueryEscape(`{job="node"}`), &sets)
	out := make(map[string]struct{}, len(sets))
	for _, set := range sets {
		out[normal(set)] = struct{}{}
	}
	return out
}

func prometheusValues(t *testing.T, ctx context.Context, prometheus *server.Server, name string) map[string]float64 {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	ask(t, ctx, prometheus, "/api/v1/query?query="+url.QueryEscape(name), &data)
	out := make(map[string]float64)
	for _, r := range data.Result {
		var v float64
		_, err := fmt.Sscan(r.Value[1].(string), &v)
		require.NoError(t, err)
		out[normal(r.Metric)] = v
	}
	return out
}

// normal is the text of labels, with the numbers of quantile and le as Prometheus
// writes them since 3.0: 1 is 1.0.
func normal(set map[string]string) string {
	for _, name := range []string{"quantile", "le"} {
		if v, ok := set[name]; ok && !strings.ContainsAny(v, ".e") && v != "+Inf" {
			set[name] = v + ".0"
		}
	}
	return labels.FromMap(set).String()
}
