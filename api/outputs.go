package api

import (
	"errors"
	"net/http"
	"time"
)

// ErrNoOutput is wrapped by errors about an output that is not configured.
var ErrNoOutput = errors.New("no such output")

// Outputs are the systems that what comes in is forwarded to. It may be called by several goroutines.
type Outputs interface {
	// OutputsStatus is a list, as JSON, of what each is at, by name.
	OutputsStatus() (any, error)
	// PauseOutput stops sending until ResumeOutput, or until the server ends.
	PauseOutput(name string) error
	ResumeOutput(name string) error
	// RewindOutput sends again what is not older than from: everything if all is set, nothing but what arrives from now on
	// for the zero time.
	RewindOutput(name string, from time.Time, all bool) error
}

func (a *API) serveOutputs(w http.ResponseWriter, _ *http.Request) {
	status, err := a.o.Outputs.OutputsStatus()
	if err != nil {
		a.respondOutput(w, err)
		return
	}
	respond(w, status)
}

// steerOutput answers a request for one output, whose name is in the path.
func (a *API) steerOutput(steer func(name string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := steer(r.PathValue("name")); err != nil {
			a.respondOutput(w, err)
			return
		}
		respond(w, struct{}{})
	}
}

// serveRewind reads to: now, beginning or a time.
func (a *API) serveRewind(w http.ResponseWriter, r *http.Request) {
	var from time.Time
	text := r.FormValue("to") // It parses the form, which timeParam reads.
	switch text {
	case "":
		respondError(w, http.StatusBadRequest, errorBadData, "to is missing: now, beginning or a time")
		return
	case "now", "beginning":
	default:
		ms, err := timeParam(r, "to", 0)
		if err != nil {
			respondError(w, http.StatusBadRequest, errorBadData, err.Error())
			return
		}
		from = time.UnixMilli(ms)
	}
	a.steerOutput(func(name string) error { return a.o.Outputs.RewindOutput(name, from, text == "beginning") })(w, r)
}

func (a *API) respondOutput(w http.ResponseWriter, err error) {
	if errors.Is(err, ErrNoOutput) {
		respondError(w, http.StatusNotFound, errorNotFound, err.Error())
		return
	}
	w.Header().Set("Retry-After", retryAfterSeconds)
	respondError(w, http.StatusServiceUnavailable, errorUnavailable, err.Error())
}
