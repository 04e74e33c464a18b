package archive

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varve/archive/format"
	"varve/arrival"
	"varve/rocks"
)

// metrics are the archive's counts, collected together with what it and RocksDB
// say of themselves.
type metrics struct {
	a *Archive

	samples, histograms, exemplars prometheus.Counter
	rejected                       *prometheus.CounterVec
	overwritten                    prometheus.Counter
	commits, commitFailures        prometheus.Counter
	commitSeconds                  prometheus.Histogram
	commitSamples, commitBytes     prometheus.Histogram
	runs, runSamples               prometheus.Counter
	seal                           sealMetrics
	clean                          cleanMetrics
	intake                         intakeMetrics
	roll                           rollMetrics
	expire                         expireMetrics
	forget                         forgetMetrics
}

// forgetMetrics count what was forgotten.
type forgetMetrics struct {
	series, pairs, bytes, failures, seconds prometheus.Counter
}

// forgot counts what a Forget has removed.
func (m *metrics) forgot(r *ForgetReport, err error) {
	m.forget.series.Add(float64(r.Series))
	m.forget.pairs.Add(float64(r.Pairs))
	m.forget.bytes.Add(float64(r.Bytes))
	m.forget.seconds.Add(r.Took.Seconds())
	if err != nil {
		m.forget.failures.Inc()
	}
}

// expireMetrics count what expired.
type expireMetrics struct {
	samples, buckets, series, bytes, failures prometheus.Counter
}

// expired counts what an Expire has dropped.
func (m *metrics) expired(r *ExpireReport, err error) {
	if err != nil {
		m.expire.failures.Inc()
		return
	}
	for _, l := range r.Levels {
		count := m.expire.buckets
		if l.Resolution == 0 {
			count = m.expire.samples
		}
		count.Add(float64(l.Samples))
		m.expire.bytes.Add(float64(l.Bytes))
	}
	m.expire.series.Add(float64(r.Series))
}

// rollMetrics count what rolling up did.
type rollMetrics struct {
	series, samples, buckets, bundles, bundleBytes, replaced, failures, seconds prometheus.Counter
}

// rolled counts what a Roll has done.
func (m *metrics) rolled(r *RollReport, err error) {
	m.roll.series.Add(float64(r.Series))
	m.roll.samples.Add(float64(r.Samples))
	m.roll.buckets.Add(float64(r.Buckets))
	m.roll.bundles.Add(float64(r.Bundles))
	m.roll.bundleBytes.Add(float64(r.BundleBytes))
	m.roll.replaced.Add(float64(r.Replaced))
	m.roll.seconds.Add(r.Took.Seconds())
	if err != nil {
		m.roll.failures.Inc()
	}
}

// trimmed counts what a Trim has removed.
func (m *metrics) trimmed(r *TrimReport, err error) {
	if err != nil {
		m.expire.failures.Inc()
	}
	m.expire.samples.Add(float64(r.Samples))
	m.expire.buckets.Add(float64(r.Buckets))
	m.expire.series.Add(float64(r.Series))
	m.expire.bytes.Add(float64(max(r.Bytes, 0)))
}

// cleanMetrics count what cleaning deletes did.
type cleanMetrics struct {
	samples, exemplars, bytes, failures, seconds prometheus.Counter
}

// cleaned counts what a Clean has done.
func (m *metrics) cleaned(r *CleanReport, err error) {
	m.clean.samples.Add(float64(r.Samples))
	m.clean.exemplars.Add(float64(r.Exemplars))
	m.clean.bytes.Add(float64(max(r.Bytes, 0)))
	m.clean.seconds.Add(r.Took.Seconds())
	if err != nil {
		m.clean.failures.Inc()
	}
}

// intakeMetrics count what intakes of whole days brought in.
type intakeMetrics struct {
	days, samples, bytes, failures, seconds prometheus.Counter
}

// takenIn counts the end of an intake.
func (m *metrics) takenIn(r *IntakeReport, err error) {
	m.intake.seconds.Add(r.Took.Seconds())
	if err != nil {
		m.intake.failures.Inc()
		return
	}
	m.intake.days.Inc()
	m.intake.samples.Add(float64(r.Samples))
	m.intake.bytes.Add(float64(r.Bytes))
}

// sealMetrics count what sealing did.
type sealMetrics struct {
	days, runs, runBytes, samples, bundles, bundleBytes, replaced, clocks, failures prometheus.Counter
	seconds                                                                         prometheus.Counter
}

// sealing counts what a Seal has done since the report that was told before.
func (m *metrics) sealing(r, told *SealReport) {
	for _, c := range []struct {
		into      prometheus.Counter
		now, then int
	}{
		{m.seal.runs, r.Runs, told.Runs}, {m.seal.runBytes, r.RunBytes, told.RunBytes}, {m.seal.samples, r.Samples, told.Samples},
		{m.seal.bundles, r.Bundles, told.Bundles}, {m.seal.bundleBytes, r.BundleBytes, told.BundleBytes},
		{m.seal.replaced, r.Replaced, told.Replaced}, {m.seal.clocks, r.Clocks, told.Clocks}, {m.overwritten, r.Overwritten, told.Overwritten},
	} {
		c.into.Add(float64(c.now - c.then))
	}
	*told = *r
}

// sealed counts the end of a Seal.
func (m *metrics) sealed(took time.Duration, err error) {
	m.seal.seconds.Add(took.Seconds())
	if err != nil {
		m.seal.failures.Inc()
		return
	}
	m.seal.days.Inc()
}

func newMetrics(a *Archive) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "varve", Subsystem: "archive", Name: name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "varve", Subsystem: "archive", Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		a:          a,
		samples:    counter("samples_total", "Float samples that are durable."),
		histograms: counter("histograms_total", "Native histogram samples that are durable."),
		exemplars:  counter("exemplars_total", "Exemplars that are durable."),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "varve", Subsystem: "archive", Name: "rejected_total", Help: "Samples and exemplars that were refused, by reason.",
		}, []string{"reason"}),
		overwritten:    counter("overwritten_total", "Samples that replaced another value of the same series and time. Counted when the older value goes: at once if it is among the newest of its series, else when the day is sealed."),
		commits:        counter("commits_total", "Group commits that succeeded, each with one fsync."),
		commitFailures: counter("commit_failures_total", "Group commits that failed."),
		commitSeconds:  histogram("commit_duration_seconds", "Time of a group commit, fsync included.", prometheus.ExponentialBuckets(0.0001, 2, 16)),
		commitSamples:  histogram("commit_samples", "Samples in a group commit.", prometheus.ExponentialBuckets(1, 4, 12)),
		commitBytes:    histogram("commit_bytes", "Bytes of a group commit in the write-ahead log.", prometheus.ExponentialBuckets(256, 4, 12)),
		runs:           counter("runs_total", "Runs that were cut."),
		runSamples:     counter("run_samples_total", "Samples in runs that were cut."),
		seal: sealMetrics{
			days:        counter("sealed_days_total", "Days that were sealed whole, each time counted."),
			failures:    counter("seal_failures_total", "Sealings that ended before the day was whole."),
			runs:        counter("sealed_runs_total", "Runs that were read for sealing."),
			runBytes:    counter("sealed_run_bytes_total", "Bytes of the runs that were read for sealing."),
			samples:     counter("sealed_samples_total", "Samples that were written to bundles."),
			bundles:     counter("sealed_bundles_total", "Bundles that were written."),
			bundleBytes: counter("sealed_bundle_bytes_total", "Bytes of the bundles that were written, keys included."),
			replaced:    counter("sealed_bundles_replaced_total", "Bundles that went because late samples came to a sealed day."),
			clocks:      counter("sealed_clocks_total", "Shared timestamp columns that were made."),
			seconds:     counter("seal_seconds_total", "Time spent sealing."),
		},
		roll: rollMetrics{
			series:      counter("rolled_series_total", "Series that were rolled up, counted on each day and each time."),
			samples:     counter("rolled_samples_total", "Samples that were read for rolling up."),
			buckets:     counter("rolled_buckets_total", "Buckets of rollups that were written, of all resolutions."),
			bundles:     counter("rolled_bundles_total", "Bundles of rollups that were written."),
			bundleBytes: counter("rolled_bundle_bytes_total", "Bytes of the bundles of rollups that were written, keys included."),
			replaced:    counter("rolled_bundles_replaced_total", "Bundles of rollups that were made anew, because of late samples or deletes."),
			failures:    counter("roll_failures_total", "Roll-ups of days that ended before they were done."),
			seconds:     counter("roll_seconds_total", "Time spent rolling up."),
		},
		expire: expireMetrics{
			samples:  counter("expired_samples_total", "Sealed samples that expired by the rules of retention."),
			buckets:  counter("expired_buckets_total", "Buckets of rollups that expired, of all resolutions."),
			series:   counter("expired_series_total", "Series of which something expired, each time counted."),
			bytes:    counter("expired_bytes_total", "Bytes, before compression, of samples and buckets that expired."),
			failures: counter("expire_failures_total", "Times that an error kept something from expiring."),
		},
		forget: forgetMetrics{
			series:   counter("forgotten_series_total", "Series that were removed because no data is left of them."),
			pairs:    counter("forgotten_label_pairs_total", "Label pairs that were removed because no series carries them."),
			bytes:    counter("forgotten_bytes_total", "Bytes, before compression, that went with series and label pairs."),
			failures: counter("forget_failures_total", "Times that an error ended the removal of series without data."),
			seconds:  counter("forget_seconds_total", "Time spent looking for series without data and removing them."),
		},
		intake: intakeMetrics{
			days:     counter("intake_days_total", "Whole days that were brought in, past the journal."),
			samples:  counter("intake_samples_total", "Samples of whole days that were brought in."),
			bytes:    counter("intake_bytes_total", "Bytes of the bundles of whole days that were brought in, keys included."),
			failures: counter("intake_failures_total", "Days that could not be brought in at the last step."),
			seconds:  counter("intake_seconds_total", "Time from the lease of a day until it was there."),
		},
		clean: cleanMetrics{
			samples:   counter("deleted_samples_total", "Samples that were removed from disk because of a delete."),
			exemplars: counter("deleted_exemplars_total", "Exemplars that were removed from disk because of a delete."),
			bytes:     counter("deleted_bytes_total", "Bytes, before compression, that went with deleted samples and exemplars."),
			failures:  counter("clean_failures_total", "Cleanings of deletes that ended before they were done."),
			seconds:   counter("clean_seconds_total", "Time spent cleaning deletes."),
		},
	}
	for r := arrival.ReasonFuture; r < arrival.ReasonCount; r++ {
		m.rejected.WithLabelValues(r.String())
	}
	return m
}

// stored counts the result of a write.
func (m *metrics) stored(r *arrival.Result) {
	m.samples.Add(float64(r.Samples))
	m.histograms.Add(float64(r.Histograms))
	m.exemplars.Add(float64(r.Exemplars))
	for reason, n := range r.Rejected {
		if n > 0 {
			m.rejected.WithLabelValues(arrival.Reason(reason).String()).Add(float64(n))
		}
	}
}

func (m *metrics) own() []prometheus.Collector {
	return []prometheus.Collector{
		m.samples, m.histograms, m.exemplars, m.rejected, m.overwritten, m.commits, m.commitFailures,
		m.commitSeconds, m.commitSamples, m.commitBytes, m.runs, m.runSamples, m.a.clocks.hits, m.a.clocks.misses,
		m.seal.days, m.seal.failures, m.seal.runs, m.seal.runBytes, m.seal.samples, m.seal.bundles, m.seal.bundleBytes,
		m.seal.replaced, m.seal.clocks, m.seal.seconds,
		m.roll.series, m.roll.samples, m.roll.buckets, m.roll.bundles, m.roll.bundleBytes, m.roll.replaced, m.roll.failures, m.roll.seconds,
		m.expire.samples, m.expire.buckets, m.expire.series, m.expire.bytes, m.expire.failures,
		m.clean.samples, m.clean.exemplars, m.clean.bytes, m.clean.failures, m.clean.seconds,
		m.intake.days, m.intake.samples, m.intake.bytes, m.intake.failures, m.intake.seconds,
		m.forget.series, m.forget.pairs, m.forget.bytes, m.forget.failures, m.forget.seconds,
	}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("varve_"+name, help, labels, nil)
}

var (
	descActive      = describe("archive_active_series", "Series with a slot in memory: those that had samples in the last hour, and their neighbours.")
	descSeries      = describe("archive_series_created", "Series made since the start.")
	descRunBytes    = describe("archive_open_run_bytes", "Memory of open runs and of runs on their way to disk.")
	descKeyBytes    = describe("archive_key_table_bytes", "Memory of the table of series keys.")
	descCacheBytes  = describe("archive_cache_bytes", "Memory of a cache.", "cache")
	descCacheLimit  = describe("archive_cache_limit_bytes", "Most memory that a cache may take.", "cache")
	descReadOnly    = describe("archive_read_only", "1 while writes are refused, with the reason.", "reason")
	descReaders     = describe("archive_readers", "Open queriers.")
	descAcked       = describe("archive_acknowledged_sequence", "Last journal record known to be durable.")
	descJournalFrom = describe("archive_journal_first_sequence", "First journal record that a start-up would read.")
	descDeletes     = describe("archive_deletes", "Deletes, by state: active ones can be undone, those being cleaned can't, cleaned and undone ones are receipts.", "state")
	descMasked      = describe("archive_masked_series", "Series of which a delete hides samples that are still on disk.")
	descLeaving     = describe("archive_leaving_series", "Series without data that wait to be removed, for the journal or for queries.")
	descStarting    = describe("archive_starting", "1 while the journal is read back.")
	descDisk        = describe("rocksdb_family_bytes", "Bytes of table files.", "family")
	descDiskFree    = describe("archive_disk_free_bytes", "Free space of the disk, as a user without privileges may use it.")
	descDiskFloor   = describe("archive_disk_floor_bytes", "Free space below which writes are refused: storage.min_free and min_free_percent.")
	descFiles       = describe("rocksdb_family_files", "Number of table files.", "family")
	descMemtables   = describe("rocksdb_memtable_bytes", "Memory of memtables.")
	descBlockCache  = describe("rocksdb_block_cache_bytes", "Memory of the block cache: used, pinned, capacity.", "kind")
	descBlockHits   = describe("rocksdb_block_cache_hits_total", "Blocks that were found in the cache, by what they hold.", "kind")
	descBlockMisses = describe("rocksdb_block_cache_misses_total", "Blocks that were read from files, by what they hold.", "kind")
	descBackground  = describe("rocksdb_background_errors", "Background errors since the start.")
	descStopped     = describe("rocksdb_write_stopped", "1 while RocksDB stops writes.")
	descPending     = describe("rocksdb_pending_compaction_bytes", "Estimated bytes that compaction is behind.")
)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.own() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{
		descActive, descSeries, descRunBytes, descKeyBytes, descCacheBytes, descCacheLimit, descReadOnly, descReaders, descAcked,
		descJournalFrom, descStarting, descDisk, descDiskFree, descDiskFloor, descFiles, descMemtables, descBlockCache, descBackground, descStopped, descPending,
		descBlockHits, descBlockMisses, descDeletes, descMasked, descLeaving,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.own() {
		c.Collect(ch)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	a := m.a
	active := 0
	a.live.each(func(p *page) {
		p.mu.Lock()
		active += len(p.slots)
		p.mu.Unlock()
	})
	gauge(descActive, float64(active))
	a.cat.mu.Lock()
	created, keyBytes := a.cat.created, a.cat.keys.bytes()
	a.cat.mu.Unlock()
	gauge(descSeries, float64(created))
	gauge(descKeyBytes, float64(keyBytes))
	runBytes := a.live.bytes.Load()
	if r := a.replayed.Load(); r != nil {
		runBytes += r.bytes.Load()
	}
	gauge(descRunBytes, float64(runBytes))
	gauge(descCacheBytes, float64(a.cat.labels.bytes()), "labels")
	gauge(descCacheLimit, float64(a.o.LabelCacheBytes), "labels")
	gauge(descCacheBytes, float64(a.cat.pairs.bytes()+a.cat.ids.Load().bytes()), "symbols")
	gauge(descCacheBytes, float64(a.clocks.times.bytes()), "clocks")
	gauge(descCacheLimit, float64(a.o.ClockCacheBytes), "clocks")
	gauge(descCacheLimit, float64(a.o.SymbolCacheBytes), "symbols")
	reason, _ := a.ReadOnly()
	readOnly := 0.0
	if reason != "" {
		readOnly = 1
	}
	gauge(descReadOnly, readOnly, reason)
	gauge(descReaders, float64(a.views.readers()))
	a.mu.Lock()
	durable := a.durable
	a.mu.Unlock()
	gauge(descAcked, float64(durable))
	gauge(descJournalFrom, float64(a.upkeep.journalMark.Load()))
	starting := 0.0
	if a.StartError() == ErrStarting {
		starting = 1
	}
	gauge(descStarting, starting)
	// A disk that can't be asked has no figures, and other trouble.
	if free, total, err := freeBytes(m.a.dir); err == nil {
		gauge(descDiskFree, float64(free))
		gauge(descDiskFloor, float64(m.a.disk.floor(total)))
	}
	m.collectDeletes(gauge)
	m.collectRocks(gauge, func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	})
}

func (m *metrics) collectDeletes(gauge func(*prometheus.Desc, float64, ...string)) {
	counts, series := m.a.deletes.count()
	for _, state := range format.TombstoneStates {
		gauge(descDeletes, float64(counts[state]), state.String())
	}
	gauge(descMasked, float64(series))
	gauge(descLeaving, float64(m.a.cat.leaving.count()))
}

func (m *metrics) collectRocks(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	for f, name := range format.FamilyNames {
		st := m.a.db.FamilyStats(family(format.Family(f)))
		gauge(descDisk, float64(st.Bytes), name)
		gauge(descFiles, float64(st.Files), name)
	}
	st := m.a.db.State()
	gauge(descMemtables, float64(st.MemtableBytes))
	gauge(descBlockCache, float64(st.CacheUsedBytes), "used")
	gauge(descBlockCache, float64(st.CachePinnedBytes), "pinned")
	gauge(descBlockCache, float64(st.CacheCapacityBytes), "capacity")
	gauge(descBackground, float64(st.BackgroundErrors))
	cache := m.a.db.CacheStats()
	for kind, counts := range map[string]rocks.CacheCounts{"data": cache.Data, "index": cache.Index, "filter": cache.Filter} {
		counter(descBlockHits, float64(counts.Hits), kind)
		counter(descBlockMisses, float64(counts.Misses), kind)
	}
	stopped := 0.0
	if st.WriteStopped {
		stopped = 1
	}
	gauge(descStopped, stopped)
	gauge(descPending, float64(st.PendingCompactionBytes))
}
