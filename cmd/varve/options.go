package main

import (
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"varve/archive"
	"varve/config"
	"varve/ingest"
	"varve/query"
)

// archiveOptions turns the configuration into the archive's options.
func (s *server) archiveOptions() (archive.Options, error) {
	c := s.o.config
	kept, err := retention(c)
	if err != nil {
		return archive.Options{}, err
	}
	o := archive.Options{
		MemoryBytes:           s.engineBytes,
		RunAgeMax:             time.Duration(c.Storage.Runs.MaxAge),
		RunBytesMax:           s.sizeOr(c.Storage.Runs.MaxSize, 4, 1<<30),
		FutureMax:             time.Duration(c.Ingest.MaxFuture),
		RejectOverwrites:      c.Ingest.Overwrites == overwritesReject,
		SeriesMax:             uint64(c.Ingest.MaxTotalSeries),
		NewSeriesPerMinuteMax: c.Ingest.MaxNewSeriesPerMinute,
		LabelCacheBytes:       int(s.sizeOr(c.Storage.Caches.Labels, 16, 128<<20)),
		SymbolCacheBytes:      int(s.sizeOr(c.Storage.Caches.Symbols, 32, 64<<20)),
		ClockCacheBytes:       int(s.sizeOr(c.Storage.Caches.Clocks, 32, 64<<20)),
		QuerySeriesMax:        c.Query.MaxSeries,
		QueryBytesMax:         s.sizeOr(c.Query.MaxSize, 4, 1<<30),
		DiskFloorBytes:        int64(c.Storage.MinFree),
		DiskFloorShare:        c.Storage.MinFreePercent / 100,
		ReserveBytes:          int64(c.Storage.Reserve),
		JournalBytesMax:       int64(c.Storage.Journal.MaxSize),
		JournalAgeMax:         time.Duration(c.Storage.Journal.MaxAge),
		OwedMax:               time.Duration(c.Storage.Journal.MaxOwed),
		Registerer:            s.registry,
		Events:                s.archiveEvents(),
	}
	o.Resolutions, o.Retention = resolutions(c), kept
	if c.Storage.Sync != syncAlways {
		o.SyncInterval = time.Duration(c.Storage.SyncInterval)
	}
	return o, nil
}

// resolutions are the lengths of buckets that are made.
func resolutions(c *config.Config) []time.Duration {
	var out []time.Duration
	for _, r := range c.Rollups {
		out = append(out, time.Duration(r.Resolution))
	}
	return out
}

// sizeOr returns size, or for Auto that part of the heap's limit, at most most.
func (s *server) sizeOr(size config.Size, part, most int64) int64 {
	if size != config.Auto {
		return int64(size)
	}
	return min(s.heapLimitBytes/part, most)
}

// archiveEvents logs what the archive, which has no logger, tells of.
func (s *server) archiveEvents() archive.Events {
	log := s.o.logger
	return archive.Events{
		Recovered: func(records, samples int, took time.Duration) {
			log.Info("The journal was read back.", "records", records, "samples", samples, "took", took.Round(time.Millisecond).String())
		},
		Damaged: func(err error) {
			s.faults.note(err)
			log.Error("The start found damage.", "err", err)
		},
		ReadOnly: func(reason string, err error) {
			if reason == "" {
				log.Info("The archive takes writes again.")
				return
			}
			log.Error("The archive takes no writes; queries go on.", "reason", reason, "err", err)
		},
		Maintenance: func(err error) {
			s.faults.note(err)
			log.Error("Background work failed and will be tried again.", "err", err)
		},
	}
}

func (s *server) newEngine() (*query.Engine, error) {
	q := s.o.config.Query
	resolution, err := query.ParseResolution(q.Resolution)
	if err != nil {
		return nil, err
	}
	return query.NewEngine(query.Options{
		Resolution: resolution,
		Limits: query.Limits{
			Timeout: time.Duration(q.Timeout), SamplesMax: q.MaxSamples, SeriesMax: q.MaxSeries, RowsMax: q.MaxRows, Concurrency: q.MaxConcurrency,
			QueueMax: q.MaxQueue, QueueWait: time.Duration(q.MaxQueueWait), TextBytesMax: int(q.MaxText),
			DepthMax: q.MaxNesting, RegexBytesMax: int(q.MaxRegex), RegexStepsMax: q.MaxRegexSteps,
		},
		// What Prometheus 3.15 understands without a feature flag.
		Parser:        parser.Options{ExperimentalDurationExpr: true},
		LookbackDelta: time.Duration(q.LookbackDelta), Parts: q.MaxCores, PerStepStats: true, Logger: s.o.logger, Registerer: s.registry,
	})
}

func ingestLimits(c *config.Config) ingest.Limits {
	i := c.Ingest
	return ingest.Limits{
		CompressedBytesMax: int64(i.MaxCompressed), DecodedBytesMax: int64(i.MaxDecoded), InFlight: ingest.NewBudget(int64(i.MaxInFlight)),
		SeriesMax: i.MaxSeries, LabelsMax: i.MaxLabels, NameBytesMax: int(i.MaxLabelName), ValueBytesMax: int(i.MaxLabelValue),
		ExemplarCharsMax: i.MaxExemplarChars,
	}
}
