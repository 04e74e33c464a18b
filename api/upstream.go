package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// PrometheusVersion is the release of Prometheus whose query API and engine are
// built in. status/buildinfo answers it as the version, because Grafana and other
// clients decide by it what they may ask for.
const PrometheusVersion = "3.15.0"

// Version says which Varve this is.
type Version struct{ Version, Revision, BuildDate string }

// remoteReadFrameBytes is Prometheus' own default for a frame of streamed chunks.
const remoteReadFrameBytes = 1 << 20

// noCrossOrigin matches no origin: browsers may not read answers from pages of
// other sites.
var noCrossOrigin = regexp.MustCompile(`^[^\s\S]$`)

// upstream returns Prometheus' API over our engine and storage, without its write
// and admin endpoints.
func (a *API) upstream() http.Handler {
	targets := a.o.Targets
	if targets == nil {
		targets = nothing{}
	}
	enabled := features.NewRegistry()
	enabled.Enable(features.API, "remote_write_receiver")
	engine := a.o.Engine
	api := v1.NewAPI(
		engine, a.o.Storage, nil, nil, a.o.Storage,
		func(context.Context) v1.ScrapePoolsRetriever { return nothing{} },
		func(context.Context) v1.TargetRetriever { return targets },
		func(context.Context) v1.AlertmanagerRetriever { return nothing{} },
		a.upstreamConfig, a.o.Flags,
		v1.GlobalURLOptions{ListenAddress: a.o.ListenAddress, Host: a.o.ExternalURL.Host, Scheme: a.o.ExternalURL.Scheme},
		a.whenReady, nil, "", false, false, 0,
		a.o.Logger,
		func(context.Context) v1.RulesRetriever { return nothing{} },
		a.o.Limits.RemoteReadSamples, a.o.Limits.Concurrency, remoteReadFrameBytes, false,
		noCrossOrigin, a.o.Actions.RuntimeInfo, a.buildInfo(),
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		a.o.Registry, a.o.Registry, renderStatistics,
		false, nil, false, false, false, false, a.o.LookbackDelta, false, false,
		asOverride[v1.OverrideErrorCode](a.status), enabled, v1.OpenAPIOptions{}, a.o.Parser,
	)
	r := route.New()
	api.Register(r.WithPrefix("/api/v1"))
	return r
}

// upstreamConfig carries the only settings that upstream reads from its own
// configuration here: remote read attaches the external labels.
func (a *API) upstreamConfig() config.Config {
	return config.Config{GlobalConfig: config.GlobalConfig{ExternalLabels: a.o.Actions.ExternalLabels()}}
}

// buildInfo looks like a Prometheus to clients that ask for its version, and
// names Varve where people look.
func (a *API) buildInfo() *v1.PrometheusVersion {
	return &v1.PrometheusVersion{
		Version: PrometheusVersion, Revision: a.o.Version.Revision, Branch: "varve-" + a.o.Version.Version,
		BuildUser: "varve", BuildDate: a.o.Version.BuildDate, GoVersion: runtime.Version(),
	}
}

func (a *API) whenReady(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := a.o.Actions.Ready(); err != nil {
			w.Header().Set("Retry-After", retryAfterSeconds)
			respondError(w, http.StatusServiceUnavailable, errorUnavailable, err.Error())
			return
		}
		next(w, r)
	}
}

// nothing stands for the parts of a Prometheus that Varve doesn't have: it scrapes
// nothing beyond itself, evaluates no rules and alerts nobody.
type nothing struct{}

func (nothing) ScrapePools() []string                       { return []string{} }
func (nothing) TargetsActive() map[string][]*scrape.Target  { return map[string][]*scrape.Target{} }
func (nothing) TargetsDropped() map[string][]*scrape.Target { return map[string][]*scrape.Target{} }
func (nothing) TargetsDroppedCounts() map[string]int        { return map[string]int{} }
func (nothing) ScrapePoolConfig(string) (*config.ScrapeConfig, error) {
	return nil, errors.New("no such scrape pool")
}
func (nothing) Alertmanagers() []*url.URL            { return nil }
func (nothing) DroppedAlertmanagers() []*url.URL     { return nil }
func (nothing) RuleGroups() []*rules.Group           { return nil }
func (nothing) AlertingRules() []*rules.AlertingRule { return nil }
