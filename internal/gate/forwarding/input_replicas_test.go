package forwarding_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// replicasConfiguration has a timeout that no replica exceeds because the machine stalls.
const replicasConfiguration = targetConfiguration + `
  - name: pair
    ha: {cluster_label: cluster, replica_label: __replica__, failover_timeout: 15s}
    remote_write: {}
`

// replicaConfiguration is that of one Prometheus of a pair. The target tells its replicas apart, so that a sample says whose it is.
const replicaConfiguration = `
global: {scrape_interval: 500ms, external_labels: {cluster: one, __replica__: %[1]s}}
remote_write:
  - url: http://%[2]s/api/v1/write
    queue_config: {batch_send_deadline: 200ms, min_shards: 1, max_shards: 1, max_backoff: 200ms}
scrape_configs:
  - job_name: pair
    params: {replica: [%[1]s]}
    static_configs: [{targets: ['%[3]s']}]
`

// whose are the values that replicas read.
var whose = map[string]float64{"a": 1, "b": 2}

// TestReplicas shows that of two Prometheus that scrape the same target the samples of one are stored, without its label; that when
// it dies those of the other go on where its own end, without a gap and without the two being mixed, and that this holds
// across a kill of Varve and when the first comes back.
func TestReplicas(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "whose %v\n", whose[r.URL.Query().Get("replica")])
	}))
	defer target.Close()
	v := newVarve(t, func() string { return replicasConfiguration })
	v.start()
	replicas := map[float64]*prometheus{}
	for name, value := range whose {
		p := newPrometheus(t)
		p.configure(fmt.Sprintf(replicaConfiguration, name, v.address, target.Listener.Addr()))
		p.start()
		replicas[value] = p
	}
	last := func() float64 {
		values := stored(t, v)
		return values[len(values)-1]
	}
	enough := func(n int) { atLeast(t, v, n) }
	enough(10)
	first := last()
	require.Contains(t, []float64{1, 2}, first)
	replicas[first].server.Kill()
	require.Eventually(t, func() bool { return last() != first }, readyTimeout, 100*time.Millisecond, "the other replica is listened to")
	second := last()
	enough(len(stored(t, v)) + 5)
	replicas[first].start()
	enough(len(stored(t, v)) + 8)
	v.kill()
	v.start()
	enough(len(stored(t, v)) + 8)
	require.Equal(t, second, last())
	require.Eventually(t, func() bool {
		dropped, _ := v.sum("varve_ingest_dropped_total", "input", "pair", "reason", "replica")
		return dropped > 0
	}, readyTimeout, 100*time.Millisecond, "the other replica is heard too")
	replicas[second].server.Kill()
	require.Eventually(t, func() bool { return last() == first }, readyTimeout, 100*time.Millisecond, "the first replica is listened to again")
	enough(len(stored(t, v)) + 4)

	all := read(t, v.server.URL(""), true, nil, is(model.MetricNameLabel, "whose"))
	require.Len(t, all, 1, "%v", all)
	replicas[second].start()
	scraped := map[float64][]point{}
	for value, p := range replicas {
		for _, points := range read(t, p.url(""), false, nil, is(model.MetricNameLabel, "whose")) {
			scraped[value] = append(scraped[value], wellScraped(points)...)
		}
	}
	for key, points := range all {
		require.NotContains(t, key, "replica")
		points = wellScraped(points)
		changes := 0
		for i := 1; i < len(points); i++ {
			from, to := points[i-1], points[i]
			if from.bits != to.bits {
				changes++
			}
			// What a busy machine was too late to scrape nobody has. A little may be lost where the target changes hands.
			lost := 0
			for _, p := range scraped[math.Float64frombits(to.bits)] {
				if p.millis > from.millis && p.millis < to.millis {
					lost++
				}
			}
			require.LessOrEqual(t, lost, 3, "a gap before point %d of %d, from %v to %v",
				i, len(points), math.Float64frombits(from.bits), math.Float64frombits(to.bits))
		}
		require.Equal(t, 2, changes, "replicas are mixed")
	}
}

// wellScraped leaves the points with a value: a scrape that took too long makes a stale marker.
func wellScraped(points []point) (out []point) {
	for _, p := range points {
		if !math.IsNaN(math.Float64frombits(p.bits)) {
			out = append(out, p)
		}
	}
	return out
}

// stored are the values of the pair's series, in the order of time.
func stored(t *testing.T, v *varve) (values []float64) {
	t.Helper()
	for _, points := range read(t, v.server.URL(""), true, nil, is(model.MetricNameLabel, "whose")) {
		for _, p := range wellScraped(points) {
			values = append(values, math.Float64frombits(p.bits))
		}
	}
	return values
}

func atLeast(t *testing.T, v *varve, samples int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(stored(t, v)) >= samples }, readyTimeout, 100*time.Millisecond, "%d samples", samples)
}
