package main

func background() row {
	one := 1
	work := panel{
		kind: timeline, title: "Compactor", unit: "none", width: 8, height: 8, steps: []step{{color: "transparent"}, {from: 1, color: "blue"}},
		texts: map[string]string{"0": "idle", "1": "at work"}, description: "When the compactor sealed, rolled up, expired or cleaned, and when a job failed. GET /api/v1/status/compactor names the job.",
		queries: []query{
			{expr: `max by (instance) (varve_compactor_running{@})`, legend: "{{instance}} at work"},
			{expr: `max by (instance) (varve_compactor_failed{@})`, legend: "{{instance}} failed"},
		},
	}
	perSample := line("Bytes a sample", "decbytes", "What sealing, rolling up and intake wrote: bytes of bundles for each sample or bucket, over six hours.",
		query{expr: `sum by (instance) (increase(varve_archive_sealed_bundle_bytes_total{@}[6h])) / (sum by (instance) (increase(varve_archive_sealed_samples_total{@}[6h])) > 0)`, legend: "{{instance}} sealed"},
		query{expr: `sum by (instance) (increase(varve_archive_sealed_run_bytes_total{@}[6h])) / (sum by (instance) (increase(varve_archive_sealed_samples_total{@}[6h])) > 0)`, legend: "{{instance}} before sealing"},
		query{expr: `sum by (instance) (increase(varve_archive_rolled_bundle_bytes_total{@}[6h])) / (sum by (instance) (increase(varve_archive_rolled_buckets_total{@}[6h])) > 0)`, legend: "{{instance}} a bucket of rollups"},
		query{expr: `sum by (instance) (increase(varve_archive_intake_bytes_total{@}[6h])) / (sum by (instance) (increase(varve_archive_intake_samples_total{@}[6h])) > 0)`, legend: "{{instance}} taken in whole"})
	perSample.decimals = &one
	return row{title: "Sealing, rollups, retention, deletes", panels: []panel{
		line("Jobs due", "short", "Jobs that were due when the compactor last looked. A number that stays up for hours is a backlog: raise compactor.cpu_share.",
			query{expr: `varve_compactor_planned_jobs{@}`, legend: "{{instance}}"},
			query{expr: `varve_compactor_held_days{@} > 0`, legend: "{{instance}} days held by a query"}),
		work, perSample,
		line("Time of the job under way", "s", "How long the job of the compactor has taken by now.",
			query{expr: `varve_compactor_job_seconds{@}`, legend: "{{instance}}"}),
		line("Samples sealed and rolled up", "short", "Samples a second that were rewritten as bundles, that were read for rollups, and that imports brought in as whole days.",
			query{expr: `sum by (instance) (rate(varve_archive_sealed_samples_total{@}[$__rate_interval]))`, legend: "{{instance}} sealed"},
			query{expr: `sum by (instance) (rate(varve_archive_rolled_samples_total{@}[$__rate_interval]))`, legend: "{{instance}} rolled up"},
			query{expr: `sum by (instance) (rate(varve_archive_intake_samples_total{@}[$__rate_interval]))`, legend: "{{instance}} taken in"}),
		line("Days done", "short", "Days that were sealed, also again after late samples, and taken in whole, in six hours.",
			query{expr: `sum by (instance) (increase(varve_archive_sealed_days_total{@}[6h]))`, legend: "{{instance}} sealed"},
			query{expr: `sum by (instance) (increase(varve_archive_intake_days_total{@}[6h]))`, legend: "{{instance}} taken in"}),
		line("Part of a core", "percentunit", "Time that background work takes, by kind. compactor.cpu_share bounds it.",
			query{expr: `sum by (instance) (rate(varve_archive_seal_seconds_total{@}[$__rate_interval]))`, legend: "{{instance}} seal"},
			query{expr: `sum by (instance) (rate(varve_archive_roll_seconds_total{@}[$__rate_interval]))`, legend: "{{instance}} roll up"},
			query{expr: `sum by (instance) (rate(varve_archive_clean_seconds_total{@}[$__rate_interval]))`, legend: "{{instance}} clean deletes"},
			query{expr: `sum by (instance) (rate(varve_archive_forget_seconds_total{@}[$__rate_interval]))`, legend: "{{instance}} remove series"},
			query{expr: `sum by (instance) (rate(varve_archive_intake_seconds_total{@}[$__rate_interval]))`, legend: "{{instance}} take in"}),
		line("Failures", "short", "Jobs that ended with an error, in an hour. They are tried again; the log has the error.",
			query{expr: `sum by (instance) (increase(varve_archive_seal_failures_total{@}[1h])) > 0`, legend: "{{instance}} seal"},
			query{expr: `sum by (instance) (increase(varve_archive_roll_failures_total{@}[1h])) > 0`, legend: "{{instance}} roll up"},
			query{expr: `sum by (instance) (increase(varve_archive_expire_failures_total{@}[1h])) > 0`, legend: "{{instance}} expire"},
			query{expr: `sum by (instance) (increase(varve_archive_clean_failures_total{@}[1h])) > 0`, legend: "{{instance}} clean deletes"},
			query{expr: `sum by (instance) (increase(varve_archive_forget_failures_total{@}[1h])) > 0`, legend: "{{instance}} remove series"},
			query{expr: `sum by (instance) (increase(varve_archive_intake_failures_total{@}[1h])) > 0`, legend: "{{instance}} take in"}),
		line("Expired and deleted", "bytes", "Bytes before compression that left the archive by retention and by deletes, in an hour.",
			query{expr: `sum by (instance) (increase(varve_archive_expired_bytes_total{@}[1h]))`, legend: "{{instance}} expired"},
			query{expr: `sum by (instance) (increase(varve_archive_deleted_bytes_total{@}[1h]))`, legend: "{{instance}} deleted"}),
		line("Waits for somebody", "bytes", "Bytes that are past their age and too many to expire unless somebody forces it: a wrong rule or a wrong clock? See varve plan.",
			query{expr: `varve_compactor_unforced_bytes{@}`, legend: "{{instance}}"}),
		line("Deletes", "short", "Deletes by state: active ones can be undone and keep their days from being sealed.",
			query{expr: `sum by (state) (varve_archive_deletes{state=~"active|cleaning",@})`, legend: "{{state}}"},
			query{expr: `sum(varve_archive_masked_series{@})`, legend: "series with hidden samples"}),
		line("Series without data", "short", "Series that wait to be removed, and that were removed in an hour.",
			query{expr: `sum by (instance) (varve_archive_leaving_series{@})`, legend: "{{instance}} waiting"},
			query{expr: `sum by (instance) (increase(varve_archive_forgotten_series_total{@}[1h]))`, legend: "{{instance}} removed"}),
		line("Overwritten", "short", "Samples that replaced another value of the same series and time, in an hour: two senders of the same series?",
			query{expr: `sum by (instance) (increase(varve_archive_overwritten_total{@}[1h]))`, legend: "{{instance}}"}),
	}}
}

func disk() row {
	return row{title: "Disk", panels: []panel{
		stacked("Bytes by family", "bytes", "Table files by family: raw holds samples, sealed and not; rollups the buckets; journal what outputs and a start read; the rest finds and names series.",
			query{expr: `sum by (family) (varve_rocksdb_family_bytes{@}) > 0`, legend: "{{family}}"}),
		line("Free space", "bytes", "Free space of the disk, and the floor below which writes are refused.",
			query{expr: `min by (instance) (varve_archive_disk_free_bytes{@})`, legend: "{{instance}} free"},
			query{expr: `max by (instance) (varve_archive_disk_floor_bytes{@})`, legend: "{{instance}} floor"}),
		line("Growth", "bytes", "How much larger the table files are than a day before.",
			query{expr: `sum by (instance) (varve_rocksdb_family_bytes{@}) - sum by (instance) (varve_rocksdb_family_bytes{@} offset 1d)`, legend: "{{instance}}"}),
		line("Files", "short", "Table files. Some thousands are usual for years of data.",
			query{expr: `sum by (family) (varve_rocksdb_family_files{@}) > 0`, legend: "{{family}}"}),
	}}
}

func engine() row {
	return row{title: "RocksDB", panels: []panel{
		line("Stalls and errors", "short", "1 while RocksDB stops writes, and background errors since the start. Both must be 0.",
			query{expr: `varve_rocksdb_write_stopped{@}`, legend: "{{instance}} stopped"},
			query{expr: `varve_rocksdb_background_errors{@}`, legend: "{{instance}} errors"}),
		line("Compaction behind", "bytes", "Estimated bytes that RocksDB's compaction is behind. If it keeps growing the disk is too slow, and writes will be slowed down.",
			query{expr: `varve_rocksdb_pending_compaction_bytes{@}`, legend: "{{instance}}"}),
		line("Hit rate of the block cache", "percentunit", "Share of blocks that were found in memory. Low for index and filter: raise storage.memory.",
			query{expr: `sum by (kind) (rate(varve_rocksdb_block_cache_hits_total{@}[$__rate_interval])) / (sum by (kind) (rate(varve_rocksdb_block_cache_hits_total{@}[$__rate_interval])) + sum by (kind) (rate(varve_rocksdb_block_cache_misses_total{@}[$__rate_interval])))`, legend: "{{kind}}"}),
	}}
}

func memory() row {
	return row{title: "Memory and processor", panels: []panel{
		line("Resident memory", "bytes", "Of the whole process, and the limit that Go's collector works towards for its part.",
			query{expr: `process_resident_memory_bytes{@} and on (job, instance) varve_build_info`, legend: "{{instance}} resident"},
			query{expr: `go_gc_gomemlimit_bytes{@} and on (job, instance) varve_build_info`, legend: "{{instance}} limit of Go"}),
		stacked("What takes it", "bytes", "Of all chosen servers: RocksDB's caches and buffers, and of Go's heap what is known by name. The rest of the heap is queries and garbage.",
			query{expr: `sum(varve_rocksdb_block_cache_bytes{kind="used",@})`, legend: "RocksDB block cache"},
			query{expr: `sum(varve_rocksdb_memtable_bytes{@})`, legend: "RocksDB memtables"},
			query{expr: `sum(varve_archive_open_run_bytes{@})`, legend: "open runs"},
			query{expr: `sum(varve_archive_key_table_bytes{@})`, legend: "series keys"},
			query{expr: `sum by (cache) (varve_archive_cache_bytes{@})`, legend: "cache of {{cache}}"}),
		line("Go's heap", "bytes", "Heap in use, and what Go has of the system and not given back.",
			query{expr: `go_memstats_heap_inuse_bytes{@} and on (job, instance) varve_build_info`, legend: "{{instance}} in use"},
			query{expr: `go_memstats_sys_bytes{@} - go_memstats_heap_released_bytes{@} and on (job, instance) varve_build_info`, legend: "{{instance}} taken"}),
		line("Caches", "percentunit", "How full Varve's caches are, and how often timestamps of sealed series were found decoded.",
			query{expr: `sum by (cache) (varve_archive_cache_bytes{@}) / sum by (cache) (varve_archive_cache_limit_bytes{@})`, legend: "{{cache}} full"},
			query{expr: `sum(rate(varve_archive_clock_cache_hits_total{@}[$__rate_interval])) / (sum(rate(varve_archive_clock_cache_hits_total{@}[$__rate_interval])) + sum(rate(varve_archive_clock_cache_misses_total{@}[$__rate_interval])))`, legend: "clocks found"}),
		line("Processor", "percentunit", "Cores in use: 100 % is one.",
			query{expr: `rate(process_cpu_seconds_total{@}[$__rate_interval]) and on (job, instance) varve_build_info`, legend: "{{instance}}"}),
		line("Goroutines and files", "short", "Goroutines, and open files and connections with their limit.",
			query{expr: `go_goroutines{@} and on (job, instance) varve_build_info`, legend: "{{instance}} goroutines"},
			query{expr: `process_open_fds{@} and on (job, instance) varve_build_info`, legend: "{{instance}} open files"}),
	}}
}
