package api

import (
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varve/api/access"
	"varve/api/ui"
	"varve/query"
)

// upstreamRoutes are the paths below /api/v1 that upstream's API answers, with
// their groups. What it also offers but Varve doesn't have (rules and alert
// management excepted, whose empty lists are the truth and which Grafana asks
// for) is not here, so it is not found rather than pretended.
var upstreamRoutes = []struct {
	path  string
	group access.Group
	// read marks what goes to the storage without the engine's limits.
	read bool
}{
	{"query", access.Query, false},
	{"query_range", access.Query, false},
	{"query_exemplars", access.Query, true},
	{"format_query", access.Query, false},
	{"parse_query", access.Query, false},
	{"series", access.Query, true},
	{"labels", access.Query, true},
	{"label/{name}/values", access.Query, true},
	{"targets", access.Metadata, false},
	{"targets/metadata", access.Metadata, false},
	{"alertmanagers", access.Metadata, false},
	{"alerts", access.Metadata, false},
	{"rules", access.Metadata, false},
	{"features", access.Metadata, false},
	{"status/buildinfo", access.Metadata, false},
	{"status/runtimeinfo", access.Metadata, false},
	{"status/flags", access.Metadata, false},
	{"status/self_metrics", access.Debug, false},
}

// routes builds the one table of everything that is served.
func (a *API) routes(page *ui.Page) http.Handler {
	t := &table{mux: http.NewServeMux(), a: a}
	upstream := a.upstream()
	for _, route := range upstreamRoutes {
		h := upstream
		if route.read {
			h = a.limitReads(h)
		}
		if route.path == "query" || route.path == "query_range" {
			h = a.countQuery(chooseResolution(h))
		}
		t.add("/api/v1/"+route.path, route.group, a.readForm(nameClient(h)), http.MethodGet, http.MethodPost)
	}
	t.add("/api/v1/read", access.Federate, a.readForm(a.limitReads(a.checkRemoteRead(upstream))), http.MethodPost)
	t.add("/federate", access.Federate, a.readForm(a.limitReads(http.HandlerFunc(a.federate))), http.MethodGet)
	if last, ok := a.o.Storage.(lastSamples); ok {
		t.add("/latest", access.Federate, a.readForm(a.limitReads(a.latest(last))), http.MethodGet)
	}
	t.add("/api/v1/metadata", access.Metadata, http.HandlerFunc(a.serveMetadata), http.MethodGet)
	t.add("/api/v1/status/tsdb", access.Metadata, a.limitReads(http.HandlerFunc(a.serveStorageStatus)), http.MethodGet)
	t.add("/api/v1/status/config", access.Metadata, http.HandlerFunc(a.serveConfig), http.MethodGet)
	if a.o.Queries != nil {
		t.add("/api/v1/status/queries", access.Metadata, http.HandlerFunc(a.serveQueries), http.MethodGet)
		t.add("/api/v1/status/queries/{id}", access.Admin, a.admin(a.cancelQuery), http.MethodDelete)
	}
	if a.o.Compactor != nil {
		t.add("/api/v1/status/compactor", access.Metadata, http.HandlerFunc(a.serveCompactorStatus), http.MethodGet)
		t.add("/api/v1/status/retention", access.Metadata, http.HandlerFunc(a.serveRetentionStatus), http.MethodGet)
		t.add("/api/v1/admin/compactor/run", access.Admin, a.admin(a.serveCompact), http.MethodPost)
		t.add("/api/v1/admin/compactor/pause", access.Admin, a.admin(a.servePause), http.MethodPost)
		t.add("/api/v1/admin/compactor/resume", access.Admin, a.admin(a.serveResume), http.MethodPost)
	}
	if a.o.Outputs != nil {
		t.add("/api/v1/status/outputs", access.Metadata, http.HandlerFunc(a.serveOutputs), http.MethodGet)
		t.add("/api/v1/admin/outputs/{name}/pause", access.Admin, a.admin(a.steerOutput(a.o.Outputs.PauseOutput)), http.MethodPost)
		t.add("/api/v1/admin/outputs/{name}/resume", access.Admin, a.admin(a.steerOutput(a.o.Outputs.ResumeOutput)), http.MethodPost)
		t.add("/api/v1/admin/outputs/{name}/rewind", access.Admin, a.admin(a.serveRewind), http.MethodPost)
	}
	t.add("/api/v1/status/inputs", access.Metadata, http.HandlerFunc(a.serveInputs), http.MethodGet)
	a.addDeletes(t)
	a.addSnapshots(t)
	a.addExport(t)
	for path, h := range a.o.Intake {
		t.add(path, access.Admin, a.admin(h.ServeHTTP), http.MethodPost)
	}
	t.add("/-/reload", access.Lifecycle, a.lifecycle(a.serveReload), http.MethodPost, http.MethodPut)
	t.add("/-/quit", access.Lifecycle, a.lifecycle(a.serveQuit), http.MethodPost, http.MethodPut)
	t.public("/-/healthy", a.serveHealthy)
	t.public("/-/ready", a.serveReady)

	t.add("/metrics", access.Debug, promhttp.HandlerFor(a.o.Registry, promhttp.HandlerOpts{Registry: a.o.Registry, EnableOpenMetrics: true}), http.MethodGet)
	for name, h := range map[string]http.HandlerFunc{"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace} {
		t.add("/debug/pprof/"+name, access.Debug, a.admin(h), http.MethodGet)
	}
	a.addOverview(t)
	a.addPage(t, page)
	a.served = t.served
	notFound := a.metrics.observe("not_found", a.o.Guard.Protect(access.Metadata, http.HandlerFunc(serveNotFound)))
	t.mux.Handle("/", a.toInputs(a.o.Guard, "", a.o.Inputs.Endpoint, notFound))
	return a.underPrefix(t.mux)
}

// table collects what is served under which path and method.
type table struct {
	mux *http.ServeMux
	a   *API
	// served is what docs/api.md must have.
	served []served
}

// served is a path with its group, "public" for everybody, and its methods.
type served struct {
	path, group string
	methods     []string
}

// public serves path to everybody.
func (t *table) public(path string, h http.HandlerFunc) {
	t.served = append(t.served, served{path, "public", []string{http.MethodGet}})
	t.mux.Handle(path, t.a.o.Guard.Public(h))
}

// add serves path by these methods alone. The methods are checked here rather
// than by the multiplexer, which would show a request of the wrong method to the
// pattern for everything else and answer that the path doesn't exist.
func (t *table) add(path string, group access.Group, h http.Handler, methods ...string) {
	t.served = append(t.served, served{strings.TrimSuffix(path, "{$}"), group.String(), methods})
	name := strings.TrimSuffix(path, "/{$}")
	if name == "" {
		name = "/"
	}
	protected := t.a.o.Guard.Protect(group, h)
	allow := strings.Join(methods, ", ")
	t.mux.Handle(path, t.a.metrics.observe(name, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(methods, r.Method) {
			protected.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Allow", allow)
		http.Error(w, "use "+allow, http.StatusMethodNotAllowed)
	})))
}

// nameClient lets a list of running queries tell whose they are.
func nameClient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who := access.Caller(r.Context()); who != "" {
			r = r.WithContext(query.WithClient(r.Context(), who))
		}
		next.ServeHTTP(w, r)
	})
}

// underPrefix serves h below the path of the external URL, and the two probes at
// the root as well, since whoever probes the process doesn't know its proxy.
func (a *API) underPrefix(h http.Handler) http.Handler {
	prefix := strings.TrimRight(a.o.ExternalURL.Path, "/")
	if prefix == "" {
		return h
	}
	mux := http.NewServeMux()
	mux.Handle(prefix+"/", http.StripPrefix(prefix, h))
	mux.Handle("/-/healthy", h)
	mux.Handle("/-/ready", h)
	mux.Handle("GET /{$}", http.RedirectHandler(prefix+"/", http.StatusFound))
	return mux
}

// admin returns next if the endpoints of administrators are on.
func (a *API) admin(next http.HandlerFunc) http.Handler {
	return onlyIf(a.o.EnableAdmin, "--web.enable-admin-api", next)
}

// lifecycle returns next if reloading and stopping are on.
func (a *API) lifecycle(next http.HandlerFunc) http.Handler {
	return onlyIf(a.o.EnableLifecycle, "--web.enable-lifecycle", next)
}

// onlyIf returns next if the flag is set, else a refusal that names the flag.
func onlyIf(on bool, flag string, next http.HandlerFunc) http.Handler {
	if on {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		respondError(w, http.StatusForbidden, errorUnavailable, "this endpoint is off: start the server with "+flag)
	})
}

func serveNotFound(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		respondError(w, http.StatusNotFound, errorNotFound, "no such endpoint")
		return
	}
	http.NotFound(w, r)
}
