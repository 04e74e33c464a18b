package main

import (
	"strings"

	"varve/benchmarks/dataset"
)

// panel is one query of the dashboard. LONG and SHORT in its text stand for
// matchers of the hosts with the long and the short history.
type panel struct {
	name, query string
	long        bool
	stepSeconds int64
}

// dashboard is what Grafana sends for ten panels: the long ones over all hours at
// a minute a point, the short ones over the last hour. The highest of topk are of a
// metric without ties, which stores may rightly answer in different ways.
var dashboard = []panel{
	{"sum of rates", `sum by (instance) (rate(node_cpu_seconds_total{LONG}[5m]))`, true, 60},
	{"rate", `rate(http_requests_total{SHORT}[5m])`, false, 30},
	{"quantile over time", `quantile_over_time(0.9, node_filesystem_avail_bytes{SHORT}[10m])`, false, 15},
	{"plain selector", `node_cpu_seconds_total{LONG}`, true, 60},
	{"arithmetic", `http_requests_in_flight{SHORT} * 2`, false, 15},
	{"topk", `topk(5, rate(node_schedstat_running_seconds_total{SHORT}[5m]))`, false, 30},
	{"latency quantile", `histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket{SHORT}[5m])))`, false, 60},
	{"join", `rate(http_requests_total{LONG}[5m]) * on (instance) group_left (version) go_info{LONG}`, true, 60},
	{"regular expressions", `sum by (job, code) (rate(http_requests_total{SHORT,handler=~"/api/v1/(orders|carts).*",code=~"5.."}[5m]))`, false, 15},
	{"mean of maxima", `avg by (job) (max_over_time(http_requests_in_flight{SHORT}[10m])) / count by (job) (http_requests_in_flight{SHORT})`, false, 15},
}

// text is the query as it is sent.
func (p panel) text() string {
	long := dataset.ClusterName(0)
	return strings.NewReplacer("LONG", `cluster="`+long+`"`, "SHORT", `cluster!="`+long+`"`).Replace(p.query)
}
