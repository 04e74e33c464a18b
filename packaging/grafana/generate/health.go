package main

import "strings"

// chosen stands in expressions for the choice of servers at the head of the dashboard.
const chosen = `job=~"$job",instance=~"$instance"`

// health is the dashboard of Varve itself.
func health() dashboard {
	d := dashboard{
		uid: "varve", title: "Varve", tags: []string{"varve"}, from: "now-6h", refresh: "1m",
		description: "Whether Varve takes samples, answers queries and keeps up with what it does in the background. docs/metrics.md of Varve has every metric.",
		variables: []variable{
			{name: "job", label: "Job", description: "The job under which Varve is scraped, or varve for its own scrape.", query: "label_values(varve_build_info, job)"},
			{name: "instance", label: "Instance", description: "Servers.", query: `label_values(varve_build_info{job=~"$job"}, instance)`},
		},
		rows: []row{
			overview(), ingestion(), commits(), queries(), background(), disk(), engine(), memory(), outputs(), inputs(), copies(), canary(),
		},
	}
	for _, r := range d.rows {
		for _, p := range r.panels {
			for i := range p.queries {
				p.queries[i].expr = strings.ReplaceAll(p.queries[i].expr, "@", chosen)
			}
		}
	}
	return d
}

// line is a graph of a third of the width.
func line(title, unit, description string, q ...query) panel {
	return panel{kind: graph, title: title, unit: unit, description: description, queries: q, width: 8, height: 8}
}

// stacked is a graph whose series add up.
func stacked(title, unit, description string, q ...query) panel {
	p := line(title, unit, description, q...)
	p.stacked = true
	return p
}

// figure is a number, an eighth of the width.
func figure(title, unit, description string, steps []step, q ...query) panel {
	return panel{kind: number, title: title, unit: unit, description: description, queries: q, steps: steps, width: 3, height: 4}
}

var (
	// zeroIsGood and oneIsGood colour what must be 0 or 1.
	zeroIsGood = []step{{color: "green"}, {from: 1, color: "red"}}
	oneIsGood  = []step{{color: "red"}, {from: 1, color: "green"}}
	yesNo      = map[string]string{"0": "no", "1": "yes"}
	plain      = []step{{color: "text"}}
)

func overview() row {
	read := figure("Takes writes", "none", "Yes while every server takes samples. No means that one is read-only: senders get 503 and keep what they have. See the state \"read-only\" below for the reason.",
		oneIsGood, query{expr: `min(varve_ready_for_writes{@})`, legend: "takes writes"})
	read.texts = yesNo
	answers := figure("Answers queries", "none", "No while a server reads its journal back after a start.", oneIsGood,
		query{expr: `min(varve_ready_for_queries{@})`, legend: "answers queries"})
	answers.texts = yesNo
	two := 2
	perSample := figure("Bytes a sample", "decbytes", "Bytes that sealing wrote for each sample in the last 24 hours, keys included, before RocksDB's own overhead. Empty where nothing was sealed.",
		plain, query{expr: `sum(increase(varve_archive_sealed_bundle_bytes_total{@}[1d])) / (sum(increase(varve_archive_sealed_samples_total{@}[1d])) > 0)`, legend: "bytes a sample"})
	perSample.decimals = &two
	state := panel{
		kind: timeline, title: "Read-only", unit: "none", width: 12, height: 5, steps: zeroIsGood, texts: map[string]string{"0": "takes writes", "1": "read-only"},
		description: "When a server refused writes, and why. Lack of space mends itself; an I/O error needs a look at the disk and a restart.",
		queries:     []query{{expr: `max by (instance, reason) (varve_archive_read_only{@})`, legend: "{{instance}} {{reason}}"}},
	}
	versions := panel{
		kind: table, title: "Servers", unit: "none", width: 12, height: 5, description: "Version and build of each server.",
		queries: []query{{expr: `max by (instance, version, revision, goversion) (varve_build_info{@})`, legend: "", instant: true}},
	}
	return row{title: "Overview", panels: []panel{
		read, answers,
		figure("Samples a second", "short", "Float samples and native histograms that became durable.", plain,
			query{expr: `sum(rate(varve_archive_samples_total{@}[$__rate_interval])) + sum(rate(varve_archive_histograms_total{@}[$__rate_interval]))`, legend: "samples"}),
		figure("Active series", "short", "Series with a slot in memory: those with samples in the last hour, and their neighbours.", plain,
			query{expr: `sum(varve_archive_active_series{@})`, legend: "series"}),
		perSample,
		figure("On disk", "bytes", "Table files of all families. The write-ahead log and files that wait for deletion come on top.", plain,
			query{expr: `sum(varve_rocksdb_family_bytes{@})`, legend: "on disk"}),
		figure("Memory", "bytes", "Resident memory of the processes, RocksDB's included.", plain,
			query{expr: `sum(process_resident_memory_bytes{@} and on (job, instance) varve_build_info)`, legend: "memory"}),
		figure("Lag of outputs", "s", "How long the oldest sample has waited that an output has not sent: of the output that is furthest behind. Empty without outputs.",
			[]step{{color: "green"}, {from: 60, color: "yellow"}, {from: 600, color: "red"}}, query{expr: `max(varve_forward_lag_seconds{@})`, legend: "lag"}),
		state, versions,
	}}
}

func ingestion() row {
	return row{title: "Ingestion", panels: []panel{
		stacked("Samples by input", "short", "Samples a second that were acknowledged as durable, by input and protocol. The input varve is the server's own scrape.",
			query{expr: `sum by (input, protocol) (rate(varve_ingest_written_total{kind=~"samples|histograms",@}[$__rate_interval])) > 0`, legend: "{{input}} {{protocol}}"}),
		line("Latency of writes", "s", "Time from the start of a write request to its answer, the wait for the disk included. Half of the requests, and 99 of 100, were faster.",
			query{expr: `histogram_quantile(0.5, sum by (protocol, le) (rate(varve_ingest_request_duration_seconds_bucket{@}[$__rate_interval])))`, legend: "{{protocol}} half"},
			query{expr: `histogram_quantile(0.99, sum by (protocol, le) (rate(varve_ingest_request_duration_seconds_bucket{@}[$__rate_interval])))`, legend: "{{protocol}} 99 %"}),
		stacked("Write requests by answer", "reqps", "4xx: something in the request is wrong, and stays so. 429 and 503: come back later, which senders do.",
			query{expr: `sum by (protocol, code) (rate(varve_ingest_requests_total{@}[$__rate_interval]))`, legend: "{{protocol}} {{code}}"}),
		line("Refused by reason", "short", "Samples, series or lines a second that were refused for good; their senders were told. GET /api/v1/status/inputs has an example of each.",
			query{expr: `sum by (input, reason) (rate(varve_ingest_rejected_total{@}[$__rate_interval])) > 0`, legend: "{{input}} {{reason}}"}),
		line("Left out by rule", "short", "What filters, relabelling, replicas and thinning of the configuration left out, a second; senders were told of success.",
			query{expr: `sum by (input, reason) (rate(varve_ingest_dropped_total{@}[$__rate_interval])) > 0`, legend: "{{input}} {{reason}}"}),
		line("Refused by the archive", "short", "What the archive itself refused, a second, by reason: the limits that hold for all inputs.",
			query{expr: `sum by (reason) (rate(varve_archive_rejected_total{@}[$__rate_interval])) > 0`, legend: "{{reason}}"}),
		line("Bytes received", "Bps", "Bytes of request bodies, as received and decompressed.",
			query{expr: `sum by (form) (rate(varve_ingest_bytes_total{@}[$__rate_interval]))`, legend: "{{form}}"}),
		line("In flight", "bytes", "Bytes of requests at work. ingest.max_in_flight is the limit, beyond which senders wait.",
			query{expr: `sum by (input) (varve_ingest_in_flight_bytes{@}) > 0`, legend: "{{input}}"}),
		line("New series", "short", "Series made a minute. A steady stream is churn: labels whose values come and go.",
			query{expr: `60 * sum by (instance) (rate(varve_archive_series_created{@}[$__rate_interval]))`, legend: "{{instance}}"}),
	}}
}

func commits() row {
	return row{title: "Commits and sync", panels: []panel{
		line("Time of a commit", "s", "A commit is one batch and one sync of the disk, and writes wait for it. More than a few ten milliseconds means a slow or busy disk.",
			query{expr: `histogram_quantile(0.5, sum by (instance, le) (rate(varve_archive_commit_duration_seconds_bucket{@}[$__rate_interval])))`, legend: "{{instance}} half"},
			query{expr: `histogram_quantile(0.99, sum by (instance, le) (rate(varve_archive_commit_duration_seconds_bucket{@}[$__rate_interval])))`, legend: "{{instance}} 99 %"}),
		line("Commits", "ops", "Commits a second, each with one sync, and those that failed.",
			query{expr: `sum by (instance) (rate(varve_archive_commits_total{@}[$__rate_interval]))`, legend: "{{instance}}"},
			query{expr: `sum by (instance) (rate(varve_archive_commit_failures_total{@}[$__rate_interval])) > 0`, legend: "{{instance}} failed"}),
		line("Size of a commit", "short", "Samples in a commit on average. Requests that wait share a commit, so it grows with the load.",
			query{expr: `sum by (instance) (rate(varve_archive_commit_samples_sum{@}[$__rate_interval])) / sum by (instance) (rate(varve_archive_commit_samples_count{@}[$__rate_interval]))`, legend: "{{instance}}"}),
		line("Write-ahead log", "Bps", "Bytes a second that commits write to the log.",
			query{expr: `sum by (instance) (rate(varve_archive_commit_bytes_sum{@}[$__rate_interval]))`, legend: "{{instance}}"}),
		line("Runs cut", "ops", "Runs a second that leave memory for the disk, and samples in one on average.",
			query{expr: `sum by (instance) (rate(varve_archive_runs_total{@}[$__rate_interval]))`, legend: "{{instance}} runs"},
			query{expr: `sum by (instance) (rate(varve_archive_run_samples_total{@}[$__rate_interval])) / sum by (instance) (rate(varve_archive_runs_total{@}[$__rate_interval]))`, legend: "{{instance}} samples a run"}),
		line("Journal to read at a start", "short", "Records of the journal that a start would read back. It grows while runs are not cut.",
			query{expr: `varve_archive_acknowledged_sequence{@} - varve_archive_journal_first_sequence{@} + 1`, legend: "{{instance}}"}),
	}}
}

func queries() row {
	return row{title: "Queries", panels: []panel{
		stacked("Requests", "reqps", "Requests a second by route and status, writes included.",
			query{expr: `sum by (handler, code) (rate(varve_http_requests_total{@}[$__rate_interval])) > 0`, legend: "{{handler}} {{code}}"}),
		line("Latency of queries", "s", "Time until the answer was written, of 99 in 100 requests, by route.",
			query{expr: `histogram_quantile(0.99, sum by (handler, le) (rate(varve_http_request_duration_seconds_bucket{handler=~".*/(query|query_range|series|labels|label.*|read|federate|query_exemplars)",@}[$__rate_interval])))`, legend: "{{handler}}"}),
		line("At once", "short", "Queries that are evaluated or wait, those that wait, and how many may be evaluated at once.",
			query{expr: `sum by (instance) (prometheus_engine_queries{@} and on (job, instance) varve_build_info)`, legend: "{{instance}} all"},
			query{expr: `sum by (instance) (varve_query_queue_length{@})`, legend: "{{instance}} waiting"},
			query{expr: `sum by (instance) (prometheus_engine_queries_concurrent_max{@} and on (job, instance) varve_build_info)`, legend: "{{instance}} limit"}),
		line("Failed", "ops", "Queries a second that ended with an error, by HTTP status: 422 is a limit or an error of evaluation, 499 the client left, 503 a timeout or a full queue.",
			query{expr: `sum by (status) (rate(varve_query_failed_total{@}[$__rate_interval]))`, legend: "{{status}}"}),
		line("Time by stage", "s", "Mean time of a query by stage: waiting for a place, reading series, evaluating, sorting.",
			query{expr: `sum by (slice) (rate(prometheus_engine_query_duration_seconds_sum{@}[$__rate_interval]) and on (job, instance) varve_build_info) / (sum by (slice) (rate(prometheus_engine_query_duration_seconds_count{@}[$__rate_interval]) and on (job, instance) varve_build_info) > 0)`, legend: "{{slice}}"}),
		line("Samples read", "short", "Samples a second that queries read, and rows that planned ones read instead: buckets of rollups, and samples beside them.",
			query{expr: `sum(rate(prometheus_engine_query_samples_read_total{@}[$__rate_interval]) and on (job, instance) varve_build_info)`, legend: "samples"},
			query{expr: `sum(rate(varve_query_planned_rows_total{@}[$__rate_interval]))`, legend: "rows of planned queries"}),
		line("How queries are answered", "ops", "Queries a second that were answered from rollups, evaluated in several parts at once, or begun again in one piece.",
			query{expr: `sum(rate(varve_query_planned_total{@}[$__rate_interval]))`, legend: "from rollups"},
			query{expr: `sum(rate(varve_query_split_total{@}[$__rate_interval]))`, legend: "in parts"},
			query{expr: `sum(rate(varve_query_parts_total{@}[$__rate_interval]))`, legend: "parts"},
			query{expr: `sum by (reason) (rate(varve_query_reruns_total{@}[$__rate_interval]))`, legend: "again: {{reason}}"}),
		line("Open readers", "short", "Views that queries, outputs and jobs hold open. One that stays open keeps the space of what was dropped meanwhile.",
			query{expr: `varve_archive_readers{@}`, legend: "{{instance}}"}),
		line("Refused for lack of rights", "reqps", "Requests a second without valid credentials or without the right, by group of endpoints.",
			query{expr: `sum by (group, reason) (rate(varve_http_denied_total{@}[$__rate_interval]))`, legend: "{{group}} {{reason}}"}),
	}}
}
