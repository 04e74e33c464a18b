package main

func outputs() row {
	states := panel{
		kind: timeline, title: "State of outputs", unit: "none", width: 8, height: 8, steps: []step{{color: "transparent"}, {from: 1, color: "blue"}},
		texts:       map[string]string{"0": "", "1": "so"},
		description: "Which state each output was in. Retrying mends itself when the peer is back; blocked and failed need a look at GET /api/v1/status/outputs.",
		queries:     []query{{expr: `max by (output, state) (varve_forward_state{@}) > 0`, legend: "{{output}} {{state}}"}},
	}
	return row{title: "Outputs", panels: []panel{
		line("Lag", "s", "How long the oldest sample has waited that an output has not settled.",
			query{expr: `max by (output) (varve_forward_lag_seconds{@})`, legend: "{{output}}"}),
		states,
		line("Sent", "short", "Samples a second that peers took, and those that filters keep from an output.",
			query{expr: `sum by (output) (rate(varve_forward_samples_sent_total{@}[$__rate_interval]))`, legend: "{{output}}"},
			query{expr: `sum by (output) (rate(varve_forward_samples_filtered_total{@}[$__rate_interval])) > 0`, legend: "{{output}} filtered"}),
		line("What waits", "bytes", "Bytes of the journal that an output has not settled, memory of what it has read, and its file of dead letters.",
			query{expr: `max by (output) (varve_forward_lag_bytes{@})`, legend: "{{output}} journal"},
			query{expr: `sum by (output) (varve_forward_in_flight_bytes{@})`, legend: "{{output}} in memory"},
			query{expr: `max by (output) (varve_forward_dead_letter_bytes{@}) > 0`, legend: "{{output}} dead letters"}),
		line("Samples that wait", "short", "Samples that an output has not settled, as far as they are known, and days that it reads from the archive since the journal was trimmed.",
			query{expr: `max by (output) (varve_forward_lag_samples{@})`, legend: "{{output}}"},
			query{expr: `max by (output) (varve_forward_gap_days{@}) > 0`, legend: "{{output}} days owed"}),
		line("Not delivered", "short", "Samples in an hour that were given up, refused by the peer (dead letters), or that the protocol can't express.",
			query{expr: `sum by (output) (increase(varve_forward_samples_dropped_total{@}[1h])) > 0`, legend: "{{output}} dropped"},
			query{expr: `sum by (output, reason) (increase(varve_forward_samples_dead_lettered_total{@}[1h])) > 0`, legend: "{{output}} dead: {{reason}}"},
			query{expr: `sum by (output, reason) (increase(varve_forward_samples_skipped_total{@}[1h])) > 0`, legend: "{{output}} skipped: {{reason}}"}),
		line("Attempts", "ops", "Attempts to send that failed, and batches sent again, a second.",
			query{expr: `sum by (output) (rate(varve_forward_sends_failed_total{@}[$__rate_interval]))`, legend: "{{output}} failed"},
			query{expr: `sum by (output) (rate(varve_forward_retries_total{@}[$__rate_interval]))`, legend: "{{output}} again"}),
		line("Time of an attempt", "s", "99 in 100 attempts to send were faster.",
			query{expr: `histogram_quantile(0.99, sum by (output, le) (rate(varve_forward_send_duration_seconds_bucket{@}[$__rate_interval])))`, legend: "{{output}}"}),
		line("Queries of outputs", "short", "Queries whose results are sent that failed in an hour, and steps that were given up because they failed for too long.",
			query{expr: `sum by (output) (increase(varve_forward_query_failures_total{@}[1h])) > 0`, legend: "{{output}} failed"},
			query{expr: `sum by (output) (increase(varve_forward_query_steps_dropped_total{@}[1h])) > 0`, legend: "{{output}} steps given up"}),
	}}
}

func inputs() row {
	connected := panel{
		kind: timeline, title: "NATS: connected", unit: "none", width: 8, height: 8, steps: oneIsGood, texts: map[string]string{"0": "away", "1": "connected"},
		description: "Whether an input has a connection and its consumer or subscriptions.",
		queries:     []query{{expr: `min by (input) (varve_ingest_nats_connected{@})`, legend: "{{input}}"}},
	}
	return row{title: "Inputs with a life of their own", collapsed: true, panels: []panel{
		line("NATS: messages", "ops", "Messages a second by what became of them: stored, partial, poison (refused for good), repeated (refused before).",
			query{expr: `sum by (input, outcome) (rate(varve_ingest_nats_messages_total{@}[$__rate_interval]))`, legend: "{{input}} {{outcome}}"},
			query{expr: `sum by (input) (rate(varve_ingest_nats_dropped_total{@}[$__rate_interval])) > 0`, legend: "{{input}} lost"}),
		line("NATS: waiting", "short", "Messages in the stream that have not been brought yet.",
			query{expr: `max by (input) (varve_ingest_nats_pending_messages{@})`, legend: "{{input}}"}),
		connected,
		line("NATS: again", "ops", "Messages a second that JetStream brought again, and that were held because the archive could not take them.",
			query{expr: `sum by (input) (rate(varve_ingest_nats_redelivered_total{@}[$__rate_interval]))`, legend: "{{input}} redelivered"},
			query{expr: `sum by (input) (rate(varve_ingest_nats_retries_total{@}[$__rate_interval]))`, legend: "{{input}} held"}),
		line("Datagrams", "ops", "Datagrams a second, and those dropped because the disk did not keep up.",
			query{expr: `sum by (input) (rate(varve_ingest_udp_datagrams_total{@}[$__rate_interval]))`, legend: "{{input}}"},
			query{expr: `sum by (input, reason) (rate(varve_ingest_udp_dropped_datagrams_total{@}[$__rate_interval])) > 0`, legend: "{{input}} dropped: {{reason}}"}),
		line("Replicas", "short", "Failovers in an hour by cluster, and samples of waiting replicas for which the buffer had no room, so that a failover would leave a gap.",
			query{expr: `sum by (input, cluster) (increase(varve_ingest_replica_failovers_total{@}[1h]))`, legend: "{{input}} {{cluster}} failovers"},
			query{expr: `sum by (input) (increase(varve_ingest_replica_buffer_lost_total{@}[1h])) > 0`, legend: "{{input}} samples without room"}),
		line("Memory for failovers", "bytes", "What is kept of replicas that are not elected, to fill the gap of a failover.",
			query{expr: `sum by (input) (varve_ingest_replica_buffer_bytes{@}) > 0`, legend: "{{input}}"}),
		line("Who is listened to", "short", "1 for the replica of a cluster whose samples are stored.",
			query{expr: `max by (cluster, replica) (varve_ingest_replica_elected{@})`, legend: "{{cluster}}: {{replica}}"}),
		line("Thinning", "ops", "Points a second that thinning wrote, and how often those of an interval could not be written or were refused.",
			query{expr: `sum by (input) (rate(varve_ingest_thin_points_total{@}[$__rate_interval])) > 0`, legend: "{{input}} points"},
			query{expr: `sum by (input) (rate(varve_ingest_thin_failures_total{@}[$__rate_interval])) > 0`, legend: "{{input}} failures"},
			query{expr: `sum by (input, reason) (rate(varve_ingest_thin_refused_total{@}[$__rate_interval]))`, legend: "{{input}} refused: {{reason}}"}),
		line("Thinning: behind", "s", "How long ago the last interval ended whose points are written.",
			query{expr: `time() - (max by (input) (varve_ingest_thin_closed_timestamp_seconds{@}) > 0)`, legend: "{{input}}"}),
		line("Series of inputs", "short", "Series of an input in the last one to two hours where their number is limited, and those that are thinned.",
			query{expr: `sum by (input) (varve_ingest_active_series{@}) > 0`, legend: "{{input}}"},
			query{expr: `sum by (input) (varve_ingest_thin_series{@}) > 0`, legend: "{{input}} thinned"}),
		line("Scraping by Varve", "short", "Targets of inputs that scrape, and lines a second that tolerant scrapes left out.",
			query{expr: `sum by (input, scrape_job) (prometheus_target_scrape_pool_targets{@} and on (job, instance) varve_build_info)`, legend: "{{input}} {{scrape_job}}"},
			query{expr: `sum by (input) (rate(varve_scrape_lines_left_out_total{@}[$__rate_interval])) > 0`, legend: "{{input}} lines left out"}),
		line("Federation", "ops", "Federation requests a second that failed, and warnings of the storage.",
			query{expr: `sum(rate(varve_federation_errors_total{@}[$__rate_interval]))`, legend: "errors"},
			query{expr: `sum(rate(varve_federation_warnings_total{@}[$__rate_interval]))`, legend: "warnings"}),
		line("Exemplars and histograms", "short", "Exemplars and native histograms a second that became durable.",
			query{expr: `sum(rate(varve_archive_exemplars_total{@}[$__rate_interval]))`, legend: "exemplars"},
			query{expr: `sum(rate(varve_archive_histograms_total{@}[$__rate_interval]))`, legend: "histograms"}),
	}}
}

// copies are snapshots and the canary.
func copies() row {
	age := []step{{color: "green"}, {from: 90000, color: "yellow"}, {from: 172800, color: "red"}}
	return row{title: "Snapshots and configuration", panels: []panel{
		figure("Age of the last snapshot", "s", "Of the server whose last snapshot is the oldest. Empty without snapshots.", age,
			query{expr: `time() - min(varve_snapshot_last_success_timestamp_seconds{@} > 0)`, legend: "age"}),
		figure("Next snapshot in", "s", "Time until the next one is due. Empty without a schedule.", plain,
			query{expr: `min(varve_snapshot_next_timestamp_seconds{@} > 0) - time()`, legend: "next"}),
		figure("Snapshots kept", "short", "Snapshots in the buckets.", plain, query{expr: `sum(varve_snapshot_snapshots{@})`, legend: "kept"}),
		figure("Failed in a day", "short", "Jobs of snapshots that failed in 24 hours.", zeroIsGood,
			query{expr: `sum(increase(varve_snapshot_failures_total{@}[1d]))`, legend: "failed"}),
		configuration(),
		figure("Configuration read", "s", "How long ago the configuration was read.", plain,
			query{expr: `time() - max(varve_config_last_reload_success_timestamp_seconds{@})`, legend: "ago"}),
		figure("Up since", "s", "How long the server runs that was started last.", plain,
			query{expr: `time() - max(process_start_time_seconds{@} and on (job, instance) varve_build_info)`, legend: "up"}),
		figure("Starting", "none", "1 while a server reads its journal back.", zeroIsGood, query{expr: `max(varve_archive_starting{@})`, legend: "starting"}),
		line("Time of a snapshot", "s", "How long the last one took.",
			query{expr: `varve_snapshot_last_duration_seconds{@} > 0`, legend: "{{instance}}"}),
		snapshotting(),
		line("Bytes of the last snapshot", "bytes", "What had to be sent, and what the bucket held already.",
			query{expr: `sum by (how) (varve_snapshot_last_bytes{@})`, legend: "{{how}}"}),
		line("Bucket", "Bps", "Bytes a second to and from the bucket, and of files that it held already.",
			query{expr: `sum(rate(varve_snapshot_sent_bytes_total{@}[$__rate_interval]))`, legend: "sent"},
			query{expr: `sum(rate(varve_snapshot_fetched_bytes_total{@}[$__rate_interval]))`, legend: "fetched"},
			query{expr: `sum(rate(varve_snapshot_reused_bytes_total{@}[$__rate_interval]))`, legend: "already there"}),
		line("Requests to the bucket", "ops", "Requests a second by operation, those that failed, and those tried again.",
			query{expr: `sum by (operation) (rate(varve_objstore_bucket_operations_total{@}[$__rate_interval])) > 0`, legend: "{{operation}}"},
			query{expr: `sum by (operation) (rate(varve_objstore_bucket_operation_failures_total{@}[$__rate_interval])) > 0`, legend: "{{operation}} failed"},
			query{expr: `sum(rate(varve_snapshot_retries_total{@}[$__rate_interval])) > 0`, legend: "again"}),
		line("Made", "short", "Snapshots made in a day.",
			query{expr: `sum by (instance) (increase(varve_snapshot_created_total{@}[1d]))`, legend: "{{instance}}"}),
	}}
}

func configuration() panel {
	p := figure("Configuration is good", "none", "No after a reload met a mistake: the one before is still in use. The log has the line.", oneIsGood,
		query{expr: `min(varve_config_last_reload_successful{@})`, legend: "good"})
	p.texts = yesNo
	return p
}

func snapshotting() panel {
	return panel{
		kind: timeline, title: "At work", unit: "none", width: 8, height: 8, steps: []step{{color: "transparent"}, {from: 1, color: "blue"}},
		texts: map[string]string{"0": "idle", "1": "at work"}, description: "When snapshots were made or pruned.",
		queries: []query{{expr: `max by (instance) (varve_snapshot_running{@})`, legend: "{{instance}}"}},
	}
}

func canary() row {
	return row{title: "Integrity and canary", panels: []panel{
		figure("Damage met", "short", "Faults since the start that a start, queries, background work or checks of the data met. Anything but 0 is damaged data: see GET /api/v1/status/archive, look at the disk, and run varve check data.", zeroIsGood,
			query{expr: `sum(varve_faults_total{@})`, legend: "faults"}),
		figure("Last check", "s", "How long ago a check of all data was completed, whatever it found. Empty if none was since the start.", plain,
			query{expr: `time() - max(varve_check_last_completed_timestamp_seconds{@} > 0)`, legend: "ago"}),
		figure("Mismatches", "short", "Samples of the canary that were not read back as they were written, since the start. Anything but 0 is lost or altered data: see the log, and keep the data directory.", zeroIsGood,
			query{expr: `sum(varve_canary_mismatches_total{@})`, legend: "mismatches"}),
		figure("Missing", "short", "Of the mismatches, samples that were acknowledged and are not there.", zeroIsGood,
			query{expr: `sum(varve_canary_missing_samples_total{@})`, legend: "missing"}),
		figure("Last write", "s", "How long ago a sample of the canary was acknowledged.", plain,
			query{expr: `time() - min(varve_canary_last_success_timestamp_seconds{operation="write",@} > 0)`, legend: "ago"}),
		figure("Last read", "s", "How long ago samples were read back that were all as written.", plain,
			query{expr: `time() - min(varve_canary_last_success_timestamp_seconds{operation="read",@} > 0)`, legend: "ago"}),
		figure("Failures in a day", "short", "Writes that were not acknowledged and reads that failed in 24 hours. A failure is no mismatch.", plain,
			query{expr: `sum(increase(varve_canary_failures_total{@}[1d]))`, legend: "failures"}),
		figure("Written", "short", "Samples of the canary that were acknowledged, a second.", plain,
			query{expr: `sum(rate(varve_canary_written_samples_total{@}[$__rate_interval]))`, legend: "written"}),
		line("Checked by age", "short", "Samples, and aggregates of samples, a second that were read and compared: fresh ones, those cut, sealed, rolled up, and from before a start.",
			query{expr: `sum by (age) (rate(varve_canary_checked_samples_total{@}[$__rate_interval]))`, legend: "{{age}}"}),
		line("Check of the data", "Bps", "Bytes a second that checks of the data read.",
			query{expr: `sum by (instance) (rate(varve_check_read_bytes_total{@}[$__rate_interval]))`, legend: "{{instance}}"}),
		line("Latency seen by the canary", "s", "99 in 100 writes until they were acknowledged, and reads of up to an hour of samples, were faster.",
			query{expr: `histogram_quantile(0.99, sum by (instance, le) (rate(varve_canary_write_duration_seconds_bucket{@}[$__rate_interval])))`, legend: "{{instance}} write"},
			query{expr: `histogram_quantile(0.99, sum by (instance, le) (rate(varve_canary_read_duration_seconds_bucket{@}[$__rate_interval])))`, legend: "{{instance}} read"}),
	}}
}
