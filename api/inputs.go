package api

import (
	"context"
	"net/http"
	"strings"

	"varve/api/access"
)

// Endpoint is where an input takes requests.
type Endpoint struct {
	// Path begins with a slash and doesn't end with one; requests may.
	Path    string
	Handler http.Handler
	// Public lets everybody ask, such as whether the server is alive.
	Public bool
	// Influx tells that clients may show credentials in the ways of InfluxDB.
	Influx bool
	// Long tells that a body may take any time as long as it goes on coming.
	Long bool
}

// Inputs are the ways in. It may be called by several goroutines.
type Inputs interface {
	// Endpoint returns what is at a path of the server's own address, without a slash at its end.
	Endpoint(path string) (Endpoint, bool)
	// InputsStatus is a list, as JSON, of the inputs and what each is at.
	InputsStatus() (any, error)
}

func (a *API) serveInputs(w http.ResponseWriter, _ *http.Request) {
	status, err := a.o.Inputs.InputsStatus()
	if err != nil {
		respondError(w, http.StatusInternalServerError, errorInternal, err.Error())
		return
	}
	respond(w, status)
}

// InputHandler answers requests to an input's own address: what find has, under the names of the input in the metrics,
// to those whom the guard lets through.
func (a *API) InputHandler(input string, guard *access.Guard, find func(path string) (Endpoint, bool)) http.Handler {
	return a.toInputs(guard, "input "+input+" ", find, http.HandlerFunc(serveNotFound))
}

// toInputs passes requests to the endpoint that they ask for, and all others to otherwise.
func (a *API) toInputs(guard *access.Guard, prefix string, find func(path string) (Endpoint, bool), otherwise http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if len(path) > 1 {
			path = strings.TrimSuffix(path, "/")
		}
		e, ok := find(path)
		if !ok {
			otherwise.ServeHTTP(w, r)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), endpointKey{}, a.guarded(guard, &e)))
		a.metrics.observed(prefix+e.Path).ServeHTTP(w, r)
	})
}

// endpointKey is where a request carries the handler that answers it.
type endpointKey struct{}

func serveEndpoint(w http.ResponseWriter, r *http.Request) {
	h, _ := r.Context().Value(endpointKey{}).(http.Handler)
	h.ServeHTTP(w, r)
}

// guarded is the handler of an endpoint behind what stands in front of all of them.
func (a *API) guarded(guard *access.Guard, e *Endpoint) http.Handler {
	if e.Public {
		return guard.Public(e.Handler)
	}
	h := guard.Protect(access.Write, a.untilDrained(e.Handler, e.Long))
	if e.Influx {
		return guard.FromInflux(h)
	}
	return h
}

// untilDrained passes requests on until the server drains.
func (a *API) untilDrained(next http.Handler, long bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.draining.Load() {
			w.Header().Set("Retry-After", retryAfterSeconds)
			w.Header().Set("Connection", "close")
			http.Error(w, "the server is stopping", http.StatusServiceUnavailable)
			return
		}
		limitBodyTime(w, r, long)
		next.ServeHTTP(w, r)
	})
}
