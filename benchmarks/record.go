package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"varve/benchmarks/peer"
	"varve/benchmarks/recording"
)

// recordInterval is the time between recorded scrapes: fifteen phases of it give
// true increments of stepMillis.
const recordInterval = time.Second

// recordedTargets are the names of the recordings of a session.
var recordedTargets = []string{"node", "prometheus", "varve"}

// record makes a session of recordings: a node exporter, a Prometheus and a Varve,
// each doing real work. Prometheus scrapes all three every second and forwards to
// Varve; both are asked queries, at a rate that rises and falls.
func record(ctx context.Context, s *settings) (err error) {
	root, err := os.MkdirTemp(s.directory, "varve-recording-")
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	b := &bench{settings: s, root: root, began: time.Now()}
	_, err = b.recordSession(ctx, s.scrapes)
	return err
}

// recordSession records the given number of scrapes and returns the session's
// directory.
func (b *bench) recordSession(ctx context.Context, scrapes int) (string, error) {
	cache, err := b.recordingsDir()
	if err != nil {
		return "", err
	}
	session := filepath.Join(cache, sessionName(time.Now(), scrapes))
	if err := os.MkdirAll(session, 0o755); err != nil {
		return "", fmt.Errorf("record: %w", err)
	}
	servers, err := b.startRecorded(ctx)
	defer func() {
		for _, server := range servers {
			server.Kill()
		}
	}()
	if err != nil {
		return "", errors.Join(err, os.Remove(session))
	}
	b.say("recording %d scrapes of %s into %s", scrapes, strings.Join(recordedTargets, ", "), session)
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	for _, server := range servers[1:] {
		group.Go(func() { keepAsking(ctx, server) })
	}
	plan := recording.Plan{Directory: session, Interval: recordInterval, Scrapes: scrapes, Progress: func(target string, done, failed int) {
		if target == recordedTargets[0] && done%10 == 0 {
			b.show("recorded %d of %d scrapes of each target, %d failed", done, scrapes, failed)
		}
	}}
	for i, server := range servers {
		plan.Targets = append(plan.Targets, recording.Target{Name: recordedTargets[i], URL: "http://" + server.Address + "/metrics"})
	}
	err = recording.Record(ctx, plan)
	cancel()
	group.Wait()
	if err != nil {
		return "", errors.Join(fmt.Errorf("record: %w", err), os.Remove(session))
	}
	b.say("recorded %d scrapes of %d targets", scrapes, len(servers))
	return session, nil
}

// startRecorded starts the servers in the order of recordedTargets, as far as it
// comes.
func (b *bench) startRecorded(ctx context.Context) ([]*peer.Server, error) {
	varve, err := b.buildVarve(ctx)
	if err != nil {
		return nil, err
	}
	specs := []peer.Spec{
		{Name: "node", Kind: peer.NodeExporter, Binary: "prometheus-node-exporter"},
		{Name: "varve", Kind: peer.Varve, Binary: varve},
		{Name: "prometheus", Kind: peer.Prometheus, Binary: "prometheus"},
	}
	var servers []*peer.Server
	for _, spec := range specs {
		if spec.Binary, err = findProgram(spec.Binary); err != nil {
			return servers, fmt.Errorf("record %s: %w; on Debian: apt-get install prometheus prometheus-node-exporter", spec.Name, err)
		}
		if spec.Kind == peer.Prometheus {
			spec.Config = recordedConfig(servers[0].Address, servers[1].Address)
		}
		server, err := b.start(ctx, spec, "recorded-"+spec.Name)
		if err != nil {
			return servers, err
		}
		servers = append(servers, server)
	}
	servers[1], servers[2] = servers[2], servers[1]
	return servers, nil
}

// recordedConfig makes a Prometheus scrape itself and the others, and forward.
func recordedConfig(node, varve string) string {
	return fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 5s}
scrape_configs:
- {job_name: node, static_configs: [{targets: [%q]}]}
- {job_name: prometheus, static_configs: [{targets: ["SELF"]}]}
- {job_name: varve, static_configs: [{targets: [%q]}]}
remote_write:
- {url: "http://%s/api/v1/write"}
`, node, varve, varve)
}

// recordedQueries are asked while the recording runs. The last one fails, as some
// always do.
var recordedQueries = []string{
	`sum by (mode) (rate(node_cpu_seconds_total[1m]))`,
	`rate(node_network_receive_bytes_total[2m])`,
	`histogram_quantile(0.9, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[5m])))`,
	`topk(5, avg_over_time(go_goroutines[5m]))`,
	`count by (job) ({__name__=~".+"})`,
	`node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes`,
	`max_over_time(process_resident_memory_bytes[10m])`,
	`sum(`,
}

// keepAsking asks a server one query after the other, until the context ends. The
// pause between them swings between 50 ms and about 2 s within eleven minutes, which
// is no multiple of the scrapes' interval.
func keepAsking(ctx context.Context, server *peer.Server) {
	began := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		now := time.Now()
		parameters := url.Values{
			"query": {recordedQueries[n%len(recordedQueries)]}, "step": {"15"},
			"start": {strconv.FormatInt(now.Add(-time.Duration(5+n%50)*time.Minute).Unix(), 10)}, "end": {strconv.FormatInt(now.Unix(), 10)},
		}
		// What the answer says does not matter, only that the server worked.
		_, _, _ = ask(ctx, server, "query_range", parameters, 30*time.Second)
		swing := math.Sin(2 * math.Pi * now.Sub(began).Minutes() / 11)
		pause(ctx, time.Duration(320*math.Pow(6.4, swing))*time.Millisecond)
	}
}

// recordingsDir is where sessions are kept.
func (b *bench) recordingsDir() (string, error) {
	if b.settings.recordings != "" {
		return b.settings.recordings, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache for recordings, or name one by --recordings: %w", err)
	}
	return filepath.Join(cache, "varve-bench", "recordings"), nil
}

// sessionName holds what a later run must know to choose among sessions: when it
// was, and the number of scrapes.
func sessionName(now time.Time, scrapes int) string {
	return now.UTC().Format("20060102T150405Z") + "-" + strconv.Itoa(scrapes)
}

// longestSession finds the session with the most scrapes, the newest among equals.
// It is empty if there is none. One that is still being recorded does not count.
func longestSession(cache string) (session string, scrapes int) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return "", 0
	}
	for _, entry := range entries {
		_, count, _ := strings.Cut(entry.Name(), "-")
		n, err := strconv.Atoi(count)
		dir := filepath.Join(cache, entry.Name())
		complete := !slices.ContainsFunc(recordedTargets, func(name string) bool {
			_, err := os.Stat(filepath.Join(dir, name+recording.Extension))
			return err != nil
		})
		if err == nil && complete && n >= scrapes {
			session, scrapes = dir, n
		}
	}
	return session, scrapes
}

// sessionFor is a session of at least so many scrapes: a kept one, else one that is
// recorded now.
func (b *bench) sessionFor(ctx context.Context, scrapes int) (string, error) {
	cache, err := b.recordingsDir()
	if err != nil {
		return "", err
	}
	if session, found := longestSession(cache); found >= scrapes {
		return session, nil
	}
	if _, err := exec.LookPath("prometheus-node-exporter"); err != nil {
		return "", fmt.Errorf("there is no recording of %d scrapes in %s, and none can be made: %w; on Debian: apt-get install prometheus prometheus-node-exporter", scrapes, cache, err)
	}
	return b.recordSession(ctx, scrapes)
}
