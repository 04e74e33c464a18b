// Package api is Varve's HTTP interface: what Prometheus, Grafana, scrapers and
// operators see.
//
// The Prometheus query API is upstream's web/api/v1 itself, mounted over our
// engine and storage, so that its answers are the ones clients know. Only the
// paths of the routing table (routes.go) reach it. What upstream has to learn
// from scrape targets, its own database or its own configuration is answered
// here instead: metadata, status/tsdb, status/config, running queries,
// federation. Inputs are handlers that are passed in with the paths where their
// senders expect them, which a reload may change.
//
// Each path belongs to one group of package access, whose Guard stands in front
// of all of them. Behind it stand the limits: body, query text, concurrency of
// what doesn't run through the engine, time. Server adds the limits of the
// connection, and drains.
//
// An API and a Server may be used by several goroutines. The package stores
// nothing and decides nothing about samples; it knows neither the archive nor
// the configuration file.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"varve/api/access"
	"varve/api/ui"
)

// Limits bounds what a request may take. A zero field is an error, so that
// nothing is unbounded by omission.
type Limits struct {
	// RegexBytes bounds a regular expression of a remote read request. Those in
	// PromQL are the Parser's to bound.
	RegexBytes int
	// FormBytes bounds the body of a POST form and a compressed remote read request.
	FormBytes int64
	// Timeout bounds requests that read without the engine: series, labels,
	// exemplars, federation, remote read. The engine has a limit of its own.
	Timeout time.Duration
	// Concurrency is how many of those run at once; more wait, within Timeout.
	Concurrency int
	// FederateSeries bounds the series of one federation answer.
	FederateSeries int
	// RemoteReadSamples bounds the samples of an answer that isn't streamed.
	RemoteReadSamples int
}

func (l Limits) validate() error {
	if l.RegexBytes <= 0 || l.FormBytes <= 0 || l.Timeout <= 0 || l.Concurrency <= 0 || l.FederateSeries <= 0 || l.RemoteReadSamples <= 0 {
		return errors.New("api: every limit must be positive")
	}
	return nil
}

// DefaultLimits returns the limits of the default configuration.
func DefaultLimits() Limits {
	return Limits{
		RegexBytes: 1 << 10, FormBytes: 1 << 20, Timeout: 2 * time.Minute, Concurrency: 20, FederateSeries: 1_000_000, RemoteReadSamples: 5_000_000,
	}
}

// StorageStatus is the answer of status/tsdb: Prometheus' fields, and where the
// bytes are.
type StorageStatus struct {
	v1.TSDBStatus
	// BytesByMetricName and BytesByLabelName have the widest first.
	BytesByMetricName []v1.TSDBStat `json:"bytesByMetricName"`
	BytesByLabelName  []v1.TSDBStat `json:"bytesByLabelName"`
	// BytesByFamily has the kinds of data on disk.
	BytesByFamily []v1.TSDBStat `json:"bytesByFamily"`
	DiskBytes     uint64        `json:"diskBytes"`
	// ReadOnly is why writes are refused at the moment, empty if they aren't.
	ReadOnly string `json:"readOnly,omitempty"`
}

// Storage is what the API reads from.
type Storage interface {
	storage.SampleAndChunkQueryable
	storage.ExemplarQueryable
}

// Catalogue tells about what is stored. It may be called by several goroutines.
type Catalogue interface {
	// Metadata returns what writers said of the metric families, of one if metric
	// isn't empty, of at most limit families if limit is positive.
	Metadata(ctx context.Context, metric string, limit int) (map[string][]metadata.Metadata, error)
	// Status returns at most limit entries in each list.
	Status(ctx context.Context, limit int) (StorageStatus, error)
}

// Server-wide actions and facts, all safe for several goroutines.
type Actions struct {
	// Ready returns why queries can't be answered yet, or nil.
	Ready func() error
	// Reload reads the configuration again; its error is shown to the caller.
	Reload func() error
	// Quit begins an orderly stop and returns at once.
	Quit func()
	// ConfigYAML is the configuration in effect, with secrets hidden.
	ConfigYAML func() string
	// ExternalLabels are attached to what federation and remote read hand out.
	ExternalLabels func() labels.Labels
	// RuntimeInfo is the answer of status/runtimeinfo.
	RuntimeInfo func() (v1.RuntimeInfo, error)
}

// Options is what an API is made of. Every field is needed unless it says
// otherwise.
type Options struct {
	Guard     *access.Guard
	Engine    promql.QueryEngine
	Storage   Storage
	Catalogue Catalogue
	// StorageStatus returns the status for errors that are the storage's: 422 for
	// its limits, 503 while it starts, 500 for failures, 0 for all other errors.
	StorageStatus func(error) int
	// Compactor is asked to work; nil if there is none.
	Compactor Compactor
	// Outputs are steered; nil if there are none.
	Outputs Outputs
	// Deletes makes and cleans deletes; nil if there are none.
	Deletes Deletes
	// Snapshots are made and listed; nil if they can't be.
	Snapshots Snapshots
	// Intake is how imports bring whole days, by POST: handlers by path.
	Intake map[string]http.Handler
	// Overview tells what the page shows of the archive; nil if nobody knows.
	Overview Overview
	// Checker checks the data; nil if it can't be.
	Checker Checker
	// ReadStatistics counts what the storage reads under a context; nil if it can't.
	ReadStatistics func(context.Context) (context.Context, func() ReadStatistics)
	// Canary tells whether the server tries itself with samples of its own; nil if it doesn't.
	Canary func() bool
	// Queries lists and cancels what the engine runs; nil if it can't.
	Queries Queries
	Actions Actions
	// Inputs take samples.
	Inputs Inputs
	// Targets are those that the server scrapes itself; nil for none.
	Targets v1.TargetRetriever
	Limits  Limits
	// Parser is the one that the engine uses, with the engine's bounds on texts.
	Parser        parser.Parser
	LookbackDelta time.Duration
	Registry      *prometheus.Registry
	Logger        *slog.Logger
	// Version is Varve's own.
	Version Version
	// Flags are shown by status/flags. They must not hold secrets.
	Flags map[string]string
	// ExternalURL is how users reach the server. Its path is the prefix of every
	// route. Nil means the root of ListenAddress.
	ExternalURL   *url.URL
	ListenAddress string
	// EnableAdmin and EnableLifecycle switch the endpoints of those groups on.
	EnableAdmin, EnableLifecycle bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (o *Options) validate() error {
	switch {
	case o.Guard == nil, o.Engine == nil, o.Storage == nil, o.Catalogue == nil, o.StorageStatus == nil, o.Inputs == nil, o.Parser == nil, o.Registry == nil, o.Logger == nil:
		return errors.New("api: an option is missing")
	case o.Actions.Ready == nil, o.Actions.Reload == nil, o.Actions.Quit == nil, o.Actions.ConfigYAML == nil, o.Actions.ExternalLabels == nil, o.Actions.RuntimeInfo == nil:
		return errors.New("api: an action is missing")
	case o.LookbackDelta <= 0:
		return errors.New("api: the lookback delta must be positive")
	}
	return o.Limits.validate()
}

// API answers every request that the server takes.
type API struct {
	o        Options
	handler  http.Handler
	served   []served
	metrics  *metrics
	slots    chan struct{}
	draining atomic.Bool
}

// New returns the API. It registers its metrics with the registry.
func New(o Options) (*API, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.ExternalURL == nil {
		o.ExternalURL = &url.URL{Scheme: "http", Host: o.ListenAddress}
	}
	a := &API{o: o, metrics: newMetrics(o.Registry), slots: make(chan struct{}, o.Limits.Concurrency)}
	page, err := ui.New()
	if err != nil {
		return nil, err
	}
	a.handler = a.routes(page)
	return a, nil
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// Drain makes every later write answer 503, so that senders keep their samples
// for the next start, while everything else goes on.
func (a *API) Drain() { a.draining.Store(true) }
