package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"varve/query"
)

// statusEntriesMax is Prometheus' own bound for a list of status/tsdb.
const statusEntriesMax = 10000

// Queries lists and cancels what the engine runs. It may be called by several
// goroutines.
type Queries interface {
	// Running returns the queries that wait or run, the oldest first.
	Running() []query.Running
	// Cancel stops the query with that Running.ID and reports whether there was one.
	Cancel(id string) bool
}

// runningQuery is an entry of status/queries.
type runningQuery struct {
	ID          string    `json:"id"`
	Query       string    `json:"query"`
	Kind        string    `json:"kind"`
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	StepSeconds float64   `json:"stepSeconds"`
	Since       time.Time `json:"since"`
	Seconds     float64   `json:"seconds"`
	Phase       string    `json:"phase"`
	Parts       int       `json:"parts"`
	Client      string    `json:"client"`
	Series      int64     `json:"series"`
}

func (a *API) serveQueries(w http.ResponseWriter, _ *http.Request) {
	now := a.o.Now()
	list := []runningQuery{}
	for _, q := range a.o.Queries.Running() {
		list = append(list, runningQuery{
			ID: q.ID, Query: q.Text, Kind: q.Kind, Start: q.Start, End: q.End, StepSeconds: q.Step.Seconds(),
			Since: q.Since, Seconds: now.Sub(q.Since).Seconds(), Phase: q.Phase, Parts: q.Parts, Client: q.Client, Series: q.Series,
		})
	}
	respond(w, list)
}

func (a *API) cancelQuery(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !a.o.Queries.Cancel(id) {
		respondError(w, http.StatusNotFound, errorNotFound, fmt.Sprintf("no query %q is running", id))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *API) serveStorageStatus(w http.ResponseWriter, r *http.Request) {
	limit, err := positiveParam(r, "limit", 10, statusEntriesMax)
	if err != nil {
		respondError(w, http.StatusBadRequest, errorBadData, err.Error())
		return
	}
	s, err := a.o.Catalogue.Status(r.Context(), limit)
	if err != nil {
		respondError(w, http.StatusInternalServerError, errorInternal, err.Error())
		return
	}
	respond(w, s)
}

func (a *API) serveConfig(w http.ResponseWriter, _ *http.Request) {
	respond(w, map[string]string{"yaml": a.o.Actions.ConfigYAML()})
}

func (a *API) serveHealthy(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "Varve is healthy.")
}

func (a *API) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := a.o.Actions.Ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "Varve is ready.")
}

func (a *API) serveReload(w http.ResponseWriter, _ *http.Request) {
	if err := a.o.Actions.Reload(); err != nil {
		http.Error(w, "the configuration was not changed: "+err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "The configuration was read again.")
}

func (a *API) serveQuit(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "Varve is stopping.")
	a.o.Actions.Quit()
}

// positiveParam returns a number from 1 to most, or what to use without it.
func positiveParam(r *http.Request, name string, without, most int) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return without, nil
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 1:
		return 0, errors.New(name + " must be a positive number")
	case n > most:
		return 0, fmt.Errorf("%s must not exceed %d", name, most)
	}
	return n, nil
}
