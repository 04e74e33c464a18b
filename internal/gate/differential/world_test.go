package differential_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

const (
	// drainTimeout is how long what was scraped may take to Varve after scraping
	// ended: longer than any back-off of a sender.
	drainTimeout = 3 * time.Minute
	readyTimeout = 2 * time.Minute
)

// rules make samples that no target exposed, and alerts.
const rules = `
groups:
- name: gate
  interval: 1s
  rules:
  - record: gate:requests:rate10s
    expr: sum by (method) (rate(gate_requests_total[10s]))
  - alert: TargetDown
    expr: up == 0
    for: 1s
`

// varveConfiguration keeps Varve's own metrics out, which the reference lacks.
const varveConfiguration = "self_scrape: {enabled: false}\nlog: {level: warn}\n"

// sender is one remote write configuration of a reference.
type sender struct {
	name, protocol string
	url            string
}

// world is a reference with everything that it scrapes and writes to.
type world struct {
	t         *testing.T
	reference *server.Server
	config    func(scrape bool) string
	file      string
	seconds   int
	// begin and end are the times between which it scraped.
	begin, end time.Time
	metadata   map[string][]metadataEntry
}

type metadataEntry struct{ Type, Help, Unit string }

// newWorld starts a reference that scrapes everything and writes to the senders'
// URLs. Modern adds what 3.x knows.
func newWorld(t *testing.T, binary string, modern bool, seconds int, senders []sender) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, file: filepath.Join(dir, "prometheus.yml"), seconds: seconds}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(rules), 0o600))
	address, err := server.FreeAddress()
	require.NoError(t, err)
	scrapes := []string{
		scrape("prometheus", "", address),
		scrape("gate", "", newTarget(t, 1, false).address(), newTarget(t, 2, true).address()),
	}
	if node := startNodeExporter(t); node != "" {
		scrapes = append(scrapes, scrape("node", "", node))
	}
	vanishing := newTarget(t, 3, false)
	scrapes = append(scrapes, scrape("vanishing", "", vanishing.address()))
	features := "exemplar-storage,native-histograms"
	if modern {
		scrapes = append(scrapes, scrape("buckets", "  convert_classic_histograms_to_nhcb: true\n  scrape_native_histograms: true\n", newTarget(t, 4, false).address()))
		features = "exemplar-storage,metadata-wal-records"
	}
	w.config = func(scraping bool) string { return configuration(scraping, modern, scrapes, senders) }
	require.NoError(t, os.WriteFile(w.file, []byte(w.config(true)), 0o600))

	w.reference, err = server.Start(server.Options{
		Binary: binary, Address: address,
		Args: []string{
			"--config.file=" + w.file, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + address, "--enable-feature=" + features,
		},
	})
	require.NoError(t, err)
	t.Cleanup(w.reference.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	require.NoError(t, w.reference.WaitReady(ctx))
	w.begin = time.Now()
	w.run(vanishing)
	return w
}

// run scrapes as often as is configured, at one scrape a second, lets a target
// vanish in the middle of it, and freezes the data.
func (w *world) run(vanishing *target) {
	w.waitScrapes(w.seconds / 2)
	vanishing.server.CloseClientConnections()
	vanishing.server.Close()
	w.waitScrapes(w.seconds)
	w.end = time.Now()
	w.metadata = metadata(w.t, w.reference.URL(""))
	require.NotEmpty(w.t, w.metadata)
	require.NoError(w.t, os.WriteFile(w.file, []byte(w.config(false)), 0o600))
	require.NoError(w.t, w.reference.Signal(syscall.SIGHUP))
}

// waitScrapes waits until the reference scraped itself n times.
func (w *world) waitScrapes(n int) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Duration(3*w.seconds)*time.Second+readyTimeout)
	defer cancel()
	require.NoError(w.t, server.Wait(ctx, fmt.Sprintf("there were %d scrapes", n), func() (bool, error) {
		got := instant(ctx, w.reference.URL(""), url.Values{"query": {fmt.Sprintf(`count_over_time(up{job="prometheus"}[1h]) >= %d`, n)}})
		return strings.HasPrefix(got, "map["), fmt.Errorf("the answer was %q", got)
	}))
}

// scrape is a scrape configuration. All targets of this package have the same
// label job, but configurations need names of their own.
func scrape(job, more string, targets ...string) string {
	quoted := make([]string, len(targets))
	for i, t := range targets {
		quoted[i] = strconv.Quote(t)
	}
	label := job
	if job == "vanishing" {
		label = "gate"
	}
	return fmt.Sprintf("- job_name: %s\n%s  static_configs: [{targets: [%s], labels: {job: %s}}]\n", job, more, strings.Join(quoted, ", "), label)
}

var targetsPattern = regexp.MustCompile(`targets: \[[^]]*\]`)

func configuration(scraping, modern bool, scrapes []string, senders []sender) string {
	var b strings.Builder
	b.WriteString("global: {scrape_interval: 1s")
	if modern {
		b.WriteString(", scrape_native_histograms: true")
	}
	b.WriteString("}\n")
	if scraping {
		b.WriteString("rule_files: [rules.yml]\n")
	}
	b.WriteString("scrape_configs:\n")
	for _, s := range scrapes {
		// A job that lost its targets ends their series with stale markers; one that
		// vanishes itself just stops.
		if !scraping {
			s = targetsPattern.ReplaceAllString(s, "targets: []")
		}
		b.WriteString(s)
	}
	b.WriteString("remote_write:\n")
	for _, s := range senders {
		fmt.Fprintf(&b, "- name: %s\n  url: %s\n  send_exemplars: true\n  send_native_histograms: true\n", s.name, s.url)
		b.WriteString("  queue_config: {batch_send_deadline: 300ms, max_shards: 4, min_backoff: 30ms}\n")
		b.WriteString("  metadata_config: {send: true, send_interval: 2s}\n")
		if s.protocol != "" {
			fmt.Fprintf(&b, "  protobuf_message: %s\n", s.protocol)
		}
	}
	return b.String()
}

// startNodeExporter returns the address of a node exporter, or none, which takes
// a part of the queries their data.
func startNodeExporter(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("prometheus-node-exporter")
	if err != nil {
		fmt.Fprintln(os.Stderr, "GATE WITHOUT ITS NODE EXPORTER: apt-get install prometheus-node-exporter")
		return ""
	}
	address, err := server.FreeAddress()
	require.NoError(t, err)
	s, err := server.Start(server.Options{Binary: binary, Address: address, Args: []string{"--web.listen-address=" + address}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	require.NoError(t, s.WaitListening(ctx))
	return address
}

// envRehearsal, when 1, puts a Prometheus 3.x in Varve's place. What differs then
// is due to this gate, or to the engines.
const envRehearsal = "DIFFERENTIAL_REHEARSAL"

// startVarve starts an empty Varve and returns its base URL.
func startVarve(t *testing.T) string {
	t.Helper()
	if os.Getenv(envRehearsal) == "1" {
		return server.StartPrometheus(t, server.Prometheus3(t), "global: {scrape_interval: 1s}\n",
			"--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage").URL("")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "varve.yml")
	require.NoError(t, os.WriteFile(file, []byte(varveConfiguration), 0o600))
	address, err := server.FreeAddress()
	require.NoError(t, err)
	s, err := server.Start(server.Options{
		Binary: server.Binary(t, ""), Address: address,
		Args: []string{"serve", "--config.file", file, "--storage.path", filepath.Join(dir, "data"), "--web.listen-address", address},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("varve wrote: %s", s.Output())
		}
		s.Kill()
	})
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
	return s.URL("")
}

// waitDrained waits until the senders have nothing left, Varve has as many samples
// of every job as the reference, and the stale markers with which the end of
// scraping ended every series have come to both.
func (w *world) waitDrained(varve, exclude string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), drainTimeout)
	defer cancel()
	samples := fmt.Sprintf(`sum by (job) (count_over_time({__name__=~".+"%s}[1h]))`, exclude)
	series := fmt.Sprintf(`count by (job, __name__) ({__name__=~".+"%s})`, exclude)
	err := server.Wait(ctx, "varve has what the reference has", func() (bool, error) {
		at := stamp(time.Now())
		for _, query := range []string{samples, series} {
			parameters := url.Values{"query": {query}, "time": {at}}
			want, got := instant(ctx, w.reference.URL(""), parameters), instant(ctx, varve, parameters)
			if want != got || query == series && want != "" {
				return false, fmt.Errorf("%s: the reference has\n%s\nand varve\n%s", query, want, got)
			}
		}
		return !w.pending(ctx), errors.New("senders have something pending")
	})
	// What is missing shows better in the comparison that follows.
	if err != nil {
		w.t.Error(err)
	}
}

var pendingMetric = regexp.MustCompile(`(?m)^prometheus_remote_storage_(samples|histograms|exemplars)_pending\{.*\} ([0-9.e+]+)$`)

// pending says whether a sender of the reference has something left to send.
func (w *world) pending(ctx context.Context) bool {
	_, body, err := server.Get(ctx, w.reference.URL("/metrics"))
	if err != nil {
		return true
	}
	found := pendingMetric.FindAllSubmatch(body, -1)
	return len(found) == 0 || slices.ContainsFunc(found, func(m [][]byte) bool { return string(m[2]) != "0" })
}

// instant is the sorted text of an answer's values, or of the error.
func instant(ctx context.Context, base string, parameters url.Values) string {
	_, body, err := server.Get(ctx, base+"/api/v1/query?"+parameters.Encode())
	if err != nil {
		return err.Error()
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
				Value  [2]any            `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err.Error()
	}
	var lines []string
	for _, r := range answer.Data.Result {
		lines = append(lines, fmt.Sprint(r.Metric, r.Value[1]))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// metadata asks for the metadata of all families.
func metadata(t *testing.T, base string) map[string][]metadataEntry {
	t.Helper()
	status, body, err := server.Get(t.Context(), base+"/api/v1/metadata")
	require.NoError(t, err)
	require.Equal(t, 200, status)
	var answer struct{ Data map[string][]metadataEntry }
	require.NoError(t, json.Unmarshal(body, &answer))
	return answer.Data
}

// phase returns the milliseconds of a second that are farthest from those of all
// samples that the reference has, and from the full second, on which subqueries
// are evaluated. At such times no edge of a window that is whole seconds long
// meets a sample.
func (w *world) phase() (millis int64, collides bool) {
	w.t.Helper()
	parameters := url.Values{"query": {`{__name__=~"up|gate:requests:rate10s|ALERTS"}[1h]`}, "time": {stamp(time.Now())}}
	_, body, err := server.Get(w.t.Context(), w.reference.URL("/api/v1/query?"+parameters.Encode()))
	require.NoError(w.t, err)
	var answer struct {
		Data struct {
			Result []struct{ Values [][2]any }
		}
	}
	require.NoError(w.t, json.Unmarshal(body, &answer))
	taken := [1000]bool{}
	taken[0] = true
	for _, r := range answer.Data.Result {
		for _, v := range r.Values {
			at, ok := v[0].(float64)
			require.True(w.t, ok)
			m := int64(at*1000+0.5) % 1000
			collides = collides || m == 0
			taken[m] = true
		}
	}
	best, bestDistance := int64(0), int64(-1)
	for candidate := range int64(1000) {
		distance := int64(0)
		for distance < 500 && !taken[(candidate+distance)%1000] && !taken[(candidate+1000-distance)%1000] {
			distance++
		}
		if distance > bestDistance {
			best, bestDistance = candidate, distance
		}
	}
	require.Greater(w.t, bestDistance, int64(1), "samples are everywhere within the second")
	return best, collides
}

// stamp writes a time as the API takes it.
func stamp(at time.Time) string { return fmt.Sprintf("%d.%03d", at.Unix(), at.Nanosecond()/1e6) }
