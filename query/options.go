package query

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"
)

// Limits bound a single query and the number of them. Zero takes the default
// that stands beside the field. They can be changed while the engine runs, see
// Engine.Apply; a query keeps the limits under which it was created.
type Limits struct {
	// Timeout of a query from Exec on, the wait for a slot included. Default 2m.
	Timeout time.Duration
	// SamplesMax is the number of samples a query may hold at once, counted as
	// upstream does. Default 50,000,000, about 1 GB of points.
	SamplesMax int
	// SeriesMax is the number of series that a query's selectors may return in
	// total. Default 1,000,000: labels and iterators of that many take some
	// hundreds of MB.
	SeriesMax int
	// StepsMax is the number of steps of a range query or of a subquery, all of
	// its windows together. Default 5,000,000. Upstream allocates 16 bytes for
	// each step of a subquery before it looks at a series, and does not notice
	// the end of the timeout while it walks the steps of one.
	StepsMax int
	// RowsMax is the number of rows of rollups, and of raw samples between them, that the planned
	// selectors of a query may read: SamplesMax doesn't see them. Default 100,000,000, some
	// tens of seconds of one core.
	RowsMax int
	// Concurrency is the number of queries evaluated at once. Default 20. A
	// Tracker with fewer slots lowers it.
	Concurrency int
	// QueueMax is the number of queries that may wait for a slot. Default 200.
	QueueMax int
	// QueueWait is how long one of them may wait. Default 30s, below the time
	// after which dashboards and proxies give up.
	QueueWait time.Duration
	// TextBytesMax bounds the text of a query or of a selector. Default 16 KiB.
	TextBytesMax int
	// DepthMax bounds the nesting of an expression. Default 200.
	DepthMax int
	// RegexBytesMax bounds a single regular expression. Default 1 KiB.
	RegexBytesMax int
	// RegexStepsMax bounds the compiled size of all regular expressions of one
	// text, in instructions of about 40 bytes, since "x{1000}" repeated makes
	// megabytes out of 1 KiB. Default 20,000.
	RegexStepsMax int
}

func (l Limits) withDefaults() Limits {
	fill := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	if l.Timeout == 0 {
		l.Timeout = 2 * time.Minute
	}
	if l.QueueWait == 0 {
		l.QueueWait = 30 * time.Second
	}
	fill(&l.SamplesMax, 50_000_000)
	fill(&l.SeriesMax, 1_000_000)
	fill(&l.StepsMax, 5_000_000)
	fill(&l.RowsMax, 100_000_000)
	fill(&l.Concurrency, 20)
	fill(&l.QueueMax, 200)
	fill(&l.TextBytesMax, 16<<10)
	fill(&l.DepthMax, 200)
	fill(&l.RegexBytesMax, 1<<10)
	fill(&l.RegexStepsMax, 20_000)
	return l
}

func (l Limits) validate() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"timeout", int64(l.Timeout)},
		{"samples", int64(l.SamplesMax)},
		{"series", int64(l.SeriesMax)},
		{"steps", int64(l.StepsMax)},
		{"rows", int64(l.RowsMax)},
		{"concurrency", int64(l.Concurrency)},
		{"queue length", int64(l.QueueMax)},
		{"queue wait", int64(l.QueueWait)},
		{"text bytes", int64(l.TextBytesMax)},
		{"nesting depth", int64(l.DepthMax)},
		{"regular expression bytes", int64(l.RegexBytesMax)},
		{"regular expression steps", int64(l.RegexStepsMax)},
	} {
		if f.value < 0 {
			return fmt.Errorf("query limit %s is %d: set a positive value, or leave it out for the default", f.name, f.value)
		}
	}
	return nil
}

// Options build an Engine. The zero value is a working configuration.
type Options struct {
	Limits

	// LookbackDelta is how far an instant selector looks back. Default 5m.
	LookbackDelta time.Duration
	// Parts is the number of cores that split queries may keep busy, together.
	// Zero takes GOMAXPROCS, 1 never splits.
	Parts int
	// Resolution is what queries are answered from that are not asked otherwise, see WithResolution.
	Resolution Resolution
	// SubqueryStep gives the step of a subquery that names none, both in
	// milliseconds. Nil: one minute.
	SubqueryStep func(rangeMillis int64) int64
	// Parser switches on syntax that is experimental upstream.
	Parser parser.Options
	// DelayedNameRemoval, TypeAndUnitLabels and StartTimestamps are upstream's
	// feature flags of the same names, off by default as there.
	DelayedNameRemoval, TypeAndUnitLabels, StartTimestamps bool
	// PerStepStats allows a query to ask for statistics of each step.
	PerStepStats bool

	// Logger gets what goes wrong beside a query. Nil discards it.
	Logger *slog.Logger
	// Registerer gets the metrics. Nil: none.
	Registerer prometheus.Registerer
	// Features gets upstream's feature names. Nil: none.
	Features features.Collector
	// Tracker remembers running queries across a crash. Nil: none. Engine.Close
	// closes it. Each query takes one slot, in however many parts it runs.
	Tracker promql.QueryTracker
	// Now stamps the start of queries. Nil: time.Now.
	Now func() time.Time

	private struct {
		// stepsMin is the least number of steps of a part.
		stepsMin int
		// anyReach splits however far selectors reach back.
		anyReach bool
		// anyCore gives every query all of Parts, however many others run.
		anyCore bool
	}
}

// defaultStepsMin keeps parts long enough that parsing the query again and
// evaluating one more step for each of them stays below a few per cent.
const defaultStepsMin = 8

// withDefaults returns o complete and checked.
func (o Options) withDefaults() (Options, error) {
	if err := o.validate(); err != nil {
		return o, err
	}
	if o.Parts < 0 || o.LookbackDelta < 0 {
		return o, errors.New("query parts or lookback delta is negative: set a positive value, or leave it out for the default")
	}
	o.Limits = o.Limits.withDefaults()
	if o.LookbackDelta == 0 {
		o.LookbackDelta = 5 * time.Minute
	}
	if o.Parts == 0 {
		o.Parts = runtime.GOMAXPROCS(0)
	}
	if o.SubqueryStep == nil {
		o.SubqueryStep = func(int64) int64 { return time.Minute.Milliseconds() }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.private.stepsMin == 0 {
		o.private.stepsMin = defaultStepsMin
	}
	return o, nil
}

// noTimeout stands for the timeout of the upstream engines: the deadline is set
// once for the whole query, whatever it is split into.
const noTimeout = time.Duration(math.MaxInt64)

// upstream returns the options of an upstream engine that holds at most
// samplesMax samples. Metrics, the tracker and the query log stay with the
// Engine, so that a query counts once.
func (o Options) upstream(p parser.Parser, samplesMax int, perStepStats bool) promql.EngineOpts {
	return promql.EngineOpts{
		Logger:                   o.Logger,
		MaxSamples:               max(1, samplesMax),
		Timeout:                  noTimeout,
		LookbackDelta:            o.LookbackDelta,
		NoStepSubqueryIntervalFn: o.SubqueryStep,
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       perStepStats,
		EnableDelayedNameRemoval: o.DelayedNameRemoval,
		EnableTypeAndUnitLabels:  o.TypeAndUnitLabels,
		UseStartTimestamps:       o.StartTimestamps,
		Parser:                   p,
	}
}
