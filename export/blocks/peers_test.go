package blocks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/bucket"
	"varve/internal/gate/server"
)

// classic are the series that Debian's Prometheus knows: no histograms with custom buckets.
var classic = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "custom")}}

// questions are asked of Prometheus or Thanos and of the archive's engine.
var questions = []string{
	`sum by (instance) (rate(requests_total[7m]))`, `temperature`, `{__name__="short"}`, `odd`, `histogram_quantile(0.9, rate(durations[3h]))`,
	`histogram_count(sizes)`, `count({__name__=~".+", __name__!="custom"})`, `max_over_time(temperature[1h]) - min_over_time(temperature[1h])`,
}

// run runs a program and returns what it says.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
	return string(out)
}

func path(t testing.TB, name, deb string) string {
	p, err := exec.LookPath(name)
	if err != nil {
		server.Lacking(t, "no %s in PATH: apt-get install %s", name, deb)
	}
	return p
}

// TestPromtool shows that Debian's promtool lists and analyzes the blocks, and dumps the very floats of the archive.
func TestPromtool(t *testing.T) {
	promtool := path(t, "promtool", "prometheus")
	s := filled(t)
	dir := t.TempDir()
	o := options(t, s, dir)
	o.Request.Selectors = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "requests_total|temperature|short")}}
	report, err := Run(t.Context(), o)
	require.NoError(t, err)
	list := run(t, promtool, "tsdb", "list", dir)
	for _, b := range report.Blocks {
		require.Contains(t, list, b.ID.String())
	}
	analysis := run(t, promtool, "tsdb", "analyze", dir, report.Blocks[0].ID.String())
	require.Contains(t, analysis, "Series: 5\n")
	// Debian's dump wants a write-ahead log, which Prometheus makes when it starts.
	require.NoError(t, os.Mkdir(filepath.Join(dir, "wal"), 0o755))
	var want, got []string
	for name, samples := range read(t, s, o.Request.MinMillis, o.Request.MaxMillis, o.Request.Selectors[0]...) {
		for _, sample := range samples {
			want = append(want, fmt.Sprintf("%s %s %d", name, strconv.FormatFloat(float64Of(sample), 'f', -1, 64), sample.t))
		}
	}
	for line := range strings.Lines(run(t, promtool, "tsdb", "dump", dir)) {
		if strings.HasPrefix(line, "{") {
			i := strings.LastIndexByte(line, '}')
			fields := strings.Fields(line[i+1:])
			v, err := strconv.ParseFloat(fields[0], 64)
			require.NoError(t, err)
			got = append(got, fmt.Sprintf("%s} %s %s", line[:i], strconv.FormatFloat(v, 'f', -1, 64), fields[1]))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	require.Equal(t, want, got)
}

// ask sends a range query and returns the series, each as text, sorted. Thanos may answer from aggregates up to a resolution.
func ask(t testing.TB, s *server.Server, expr string, from, to int64, step time.Duration, resolution string) []string {
	t.Helper()
	q := url.Values{"query": {expr}, "start": {strconv.FormatInt(from/1000, 10)}, "end": {strconv.FormatInt(to/1000, 10)}, "step": {strconv.Itoa(int(step.Seconds()))}, "max_source_resolution": {resolution}}
	status, body, err := server.Get(t.Context(), s.URL("/api/v1/query_range?"+q.Encode()))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, "%s", body)
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	require.NoError(t, json.Unmarshal(body, &answer))
	out := []string{}
	for _, r := range answer.Data.Result {
		if r.Values == nil {
			continue
		}
		var b strings.Builder
		b.WriteString(labels.FromMap(r.Metric).String())
		for _, v := range r.Values {
			f, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(t, err)
			fmt.Fprintf(&b, " %.0f=%g", v[0], f)
		}
		out = append(out, b.String())
	}
	slices.Sort(out)
	return out
}

// expected is what the engine answers from the archive, in the form of ask. Each series gets some labels more.
func expected(t testing.TB, q storage.Queryable, expr string, from, to int64, step time.Duration, more labels.Labels) []string {
	t.Helper()
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, promqltest.DefaultMaxSamplesPerQuery)
	asked, err := engine.NewRangeQuery(t.Context(), q, nil, expr, time.UnixMilli(from), time.UnixMilli(to), step)
	require.NoError(t, err)
	defer asked.Close()
	r := asked.Exec(t.Context())
	require.NoError(t, r.Err)
	matrix, err := r.Matrix()
	require.NoError(t, err)
	out := []string{}
	for _, series := range matrix {
		out = append(out, text(series, more))
	}
	slices.Sort(out)
	return out
}

func text(series promql.Series, more labels.Labels) string {
	b := labels.NewBuilder(series.Metric)
	more.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	var out strings.Builder
	out.WriteString(b.Labels().String())
	for _, p := range series.Floats {
		fmt.Fprintf(&out, " %d=%g", p.T/1000, p.F)
	}
	return out.String()
}

// TestPrometheus shows that Prometheus 2 and 3 serve the folder as their data directory, and answer as the engine does over
// the archive.
func TestPrometheus(t *testing.T) {
	s := filled(t)
	for name, binary := range map[string]func(testing.TB) string{"2": server.Prometheus2, "3": server.Prometheus3} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := options(t, s, dir)
			o.Request.Selectors = classic
			_, err := Run(t.Context(), o)
			require.NoError(t, err)
			p := startPrometheus(t, binary(t), dir)
			for _, q := range questions {
				if name == "2" && strings.Contains(q, "histogram_") {
					continue // Debian's engine is of the time before histograms were settled.
				}
				// At starts of seconds both see the same times; ranges of Prometheus 2 have their left bound, which no sample is at.
				want := expected(t, s, q, start+hour+1000, start+59*hour, 10*time.Minute, labels.EmptyLabels())
				require.NotEmpty(t, want, q)
				require.Equal(t, want, ask(t, p, q, start+hour+1000, start+59*hour, 10*time.Minute, "0s"), q)
			}
		})
	}
}

func startPrometheus(t testing.TB, binary, data string) *server.Server {
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(config, []byte("global: {}\n"), 0o600))
	return startReady(t, binary, "/-/ready", func(address string) []string {
		return []string{"--config.file=" + config, "--web.listen-address=" + address, "--storage.tsdb.path=" + data, "--storage.tsdb.retention.time=100y", "--enable-feature=native-histograms"}
	})
}

func startReady(t testing.TB, binary, ready string, args func(address string) []string) *server.Server {
	t.Helper()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	p, err := server.Start(server.Options{Binary: binary, Address: address, ReadyPath: ready, Args: args(address)})
	require.NoError(t, err)
	t.Cleanup(p.Kill)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	require.NoError(t, p.WaitReady(ctx), p.Output())
	return p
}

// TestThanos shows that Thanos verifies blocks in a bucket, samples and aggregates, and that its store and querier serve them with
// the answers of the engine over the archive; of aggregates, for steps and ranges of whole buckets.
func TestThanos(t *testing.T) {
	thanos := server.Peer(t, "thanos-0.42.4")
	a := rolledArchive(t)
	folder := t.TempDir()
	config := fmt.Sprintf("type: FILESYSTEM\nconfig: {directory: %q}\n", folder)
	external := labels.FromStrings("cluster", "x")
	place := thanosBucket(t, config)
	o := options(t, a, t.TempDir())
	o.Place, o.ExternalLabels = place, external
	o.Request.Selectors = classic
	o.Block = 48 * time.Hour
	_, err := Run(t.Context(), o)
	require.NoError(t, err)
	verified := run(t, thanos, "tools", "bucket", "verify", "--objstore.config="+config, "--issues=index_known_issues", "--issues=overlapped_blocks")
	require.NotContains(t, verified, "level=warn")
	require.NotContains(t, verified, "level=error")
	querier := serveThanos(t, thanos, config)
	for _, q := range questions {
		want := expected(t, a, q, start+hour+1000, start+59*hour, 10*time.Minute, extra(q, external))
		require.NotEmpty(t, want, q)
		require.Equal(t, want, ask(t, querier, q, start+hour+1000, start+59*hour, 10*time.Minute, "0s"), q)
	}
}

// TestThanosAggregates shows that Thanos verifies aggregates and answers from them what the engine answers from samples, where
// ranges are whole buckets.
func TestThanosAggregates(t *testing.T) {
	thanos := server.Peer(t, "thanos-0.42.4")
	a := rolledArchive(t)
	for _, resolution := range []time.Duration{FiveMinutes, OneHour} {
		t.Run(resolution.String(), func(t *testing.T) {
			folder := t.TempDir()
			config := fmt.Sprintf("type: FILESYSTEM\nconfig: {directory: %q}\n", folder)
			external := labels.FromStrings("cluster", "x")
			place := thanosBucket(t, config)
			o := options(t, a, t.TempDir())
			o.Place, o.ExternalLabels, o.Resolution, o.Source = place, external, resolution, rolledSource(a)
			o.Block = 48 * time.Hour
			_, err := Run(t.Context(), o)
			require.NoError(t, err)
			verified := run(t, thanos, "tools", "bucket", "verify", "--objstore.config="+config, "--issues=index_known_issues", "--issues=overlapped_blocks")
			require.NotContains(t, verified, "level=warn")
			querier := serveThanos(t, thanos, config)
			for _, q := range []string{
				// Thanos counts buckets where count_over_time is asked for, whoever made the block.
				`sum_over_time(requests_total[2h])`, `min_over_time(requests_total[2h])`, `max_over_time(temperature[3h])`,
			} {
				from, to := start+3*hour, start+59*hour
				want := expected(t, a, q, from, to, time.Hour, external)
				require.NotEmpty(t, want, q)
				require.Equal(t, want, ask(t, querier, q, from, to, time.Hour, "1h"), q)
			}
		})
	}
}

// extra are the external labels that series of a question carry: those that it doesn't aggregate away.
func extra(q string, external labels.Labels) labels.Labels {
	if strings.HasPrefix(q, "sum") || strings.HasPrefix(q, "count(") {
		return labels.EmptyLabels()
	}
	return external
}

// serveThanos starts a store over a bucket and a querier over that.
func serveThanos(t testing.TB, thanos, config string) *server.Server {
	grpc, err := server.FreeAddress()
	require.NoError(t, err)
	startReady(t, thanos, "/-/ready", func(address string) []string {
		return []string{"store", "--objstore.config=" + config, "--data-dir=" + t.TempDir(), "--http-address=" + address, "--grpc-address=" + grpc, "--sync-block-duration=1m"}
	})
	own, err := server.FreeAddress()
	require.NoError(t, err)
	q := startReady(t, thanos, "/-/ready", func(address string) []string {
		return []string{"query", "--endpoint=" + grpc, "--http-address=" + address, "--grpc-address=" + own, "--query.auto-downsampling"}
	})
	require.NoError(t, server.Wait(t.Context(), "thanos query has found the store", func() (bool, error) {
		_, body, err := server.Get(t.Context(), q.URL("/api/v1/stores"))
		return bytes.Contains(body, []byte(`"store"`)) && !bytes.Contains(body, []byte(`"lastError":"`)), err
	}))
	return q
}

func float64Of(s sample) float64 { return math.Float64frombits(s.f) }

// thanosBucket opens object storage from Thanos' form.
func thanosBucket(t testing.TB, config string) Place {
	b, err := bucket.Open([]byte(config), "test", nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	place, err := NewBucket(b, t.TempDir())
	require.NoError(t, err)
	return place
}
