package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"varve/api/access"
)

// ErrNoDelete is wrapped by errors about a delete that never was, ErrDeleteEnded by those about one that
// can't be undone any more.
var (
	ErrNoDelete    = errors.New("no such delete")
	ErrDeleteEnded = errors.New("the delete can't be undone")
)

// deleteHeader carries the id of the delete that a request made.
const deleteHeader = "X-Varve-Delete"

// Deletes makes, lists and takes back deletes of samples. It may be called by several goroutines.
type Deletes interface {
	// Delete hides what has arrived, and returns the delete's id, "" if no series matches.
	Delete(ctx context.Context, r DeleteRequest) (id string, err error)
	// Deletes lists all, the oldest first.
	Deletes() ([]Delete, error)
	Undelete(id string) (Delete, error)
	// Clean removes from disk what the deletes hide, all of them if no id is given, and returns when
	// that is done.
	Clean(ctx context.Context, ids []string) ([]Delete, error)
}

// DeleteRequest says what to delete. Times are Unix ms, both inclusive.
type DeleteRequest struct {
	Matchers             [][]*labels.Matcher
	Selectors            []string
	MinMillis, MaxMillis int64
	Author, Reason       string
}

// Delete is a delete and what has become of it.
type Delete struct {
	ID string `json:"id"`
	// State is active, cleaning, cleaned or undone.
	State   string    `json:"state"`
	Created time.Time `json:"created"`
	// UndoUntil is when the grace ends. Ended is when it was cleaned or undone.
	UndoUntil time.Time  `json:"undoUntil"`
	Ended     *time.Time `json:"ended,omitempty"`
	Match     []string   `json:"match"`
	Start     time.Time  `json:"start"`
	End       time.Time  `json:"end"`
	Author    string     `json:"author,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	// Series were matched, with samples on Days days.
	Series uint64 `json:"series"`
	Days   int    `json:"days"`
	// FreedSamples, FreedExemplars and FreedBytes are gone from disk. Bytes are those before compression.
	FreedSamples   uint64 `json:"freedSamples"`
	FreedExemplars uint64 `json:"freedExemplars"`
	FreedBytes     int64  `json:"freedBytes"`
	// FreedBuckets could not be made anew without what was deleted, because their samples have expired.
	FreedBuckets uint64 `json:"freedBuckets"`
}

// addDeletes serves Prometheus' endpoints for deletes, and what it has none for.
func (a *API) addDeletes(t *table) {
	if a.o.Deletes == nil {
		return
	}
	const base = "/api/v1/admin/tsdb/"
	form := func(h http.HandlerFunc) http.Handler { return a.readForm(a.admin(h)) }
	t.add(base+"delete_series", access.Admin, a.readForm(a.limitReads(a.admin(a.serveDelete))), http.MethodPost, http.MethodPut)
	t.add(base+"deletes", access.Admin, a.admin(a.serveDeletes), http.MethodGet)
	t.add(base+"undelete", access.Admin, form(a.serveUndelete), http.MethodPost, http.MethodPut)
	t.add(base+"clean_tombstones", access.Admin, form(a.serveClean), http.MethodPost, http.MethodPut)
}

// serveDelete answers as Prometheus does, 204 also if nothing matches, and names the delete in a header.
func (a *API) serveDelete(w http.ResponseWriter, r *http.Request) {
	selectors := r.Form["match[]"]
	if len(selectors) == 0 {
		respondError(w, http.StatusBadRequest, errorBadData, "no match[] parameter provided")
		return
	}
	d := DeleteRequest{Selectors: selectors, Author: access.Caller(r.Context()), Reason: r.Form.Get("reason")}
	if len(d.Reason) > reasonBytesMax {
		respondError(w, http.StatusBadRequest, errorBadData, fmt.Sprintf("the reason is longer than %d bytes", reasonBytesMax))
		return
	}
	for _, s := range selectors {
		ms, err := a.o.Parser.ParseMetricSelector(s)
		if err != nil {
			respondError(w, http.StatusBadRequest, errorBadData, fmt.Sprintf("invalid parameter \"match[]\": %v", err))
			return
		}
		// As for /series. Prometheus doesn't ask for it here, where it matters most.
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			respondError(w, http.StatusBadRequest, errorBadData, fmt.Sprintf("match[] %s must contain at least one non-empty matcher", s))
			return
		}
		d.Matchers = append(d.Matchers, ms)
	}
	var err error
	if d.MinMillis, err = timeParam(r, "start", math.MinInt64); err == nil {
		d.MaxMillis, err = timeParam(r, "end", math.MaxInt64)
	}
	if err == nil && d.MinMillis > d.MaxMillis {
		err = errors.New("end timestamp must not be before start timestamp")
	}
	if err != nil {
		respondError(w, http.StatusBadRequest, errorBadData, err.Error())
		return
	}
	id, err := a.o.Deletes.Delete(r.Context(), d)
	if err != nil {
		a.respondDelete(w, r, err)
		return
	}
	if id != "" {
		w.Header().Set(deleteHeader, id)
	}
	w.WriteHeader(http.StatusNoContent)
}

// reasonBytesMax bounds the reason that is kept with a delete.
const reasonBytesMax = 1 << 10

// timeParam reads a time as Prometheus does, in seconds or as RFC 3339, and returns it in Unix ms.
func timeParam(r *http.Request, name string, absent int64) (int64, error) {
	text := r.Form.Get(name)
	if text == "" {
		return absent, nil
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(seconds) {
		// Beyond the times that anything has, so that the conversion can't overflow.
		const far = 1e12
		return int64(math.Round(max(-far, min(far, seconds)) * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, fmt.Errorf("invalid parameter %q: cannot parse %q to a valid timestamp", name, text)
	}
	return t.UnixMilli(), nil
}

func (a *API) serveDeletes(w http.ResponseWriter, r *http.Request) {
	all, err := a.o.Deletes.Deletes()
	if err != nil {
		a.respondDelete(w, r, err)
		return
	}
	respond(w, all)
}

func (a *API) serveUndelete(w http.ResponseWriter, r *http.Request) {
	id := r.Form.Get("id")
	if id == "" {
		respondError(w, http.StatusBadRequest, errorBadData, "no id parameter provided: GET /api/v1/admin/tsdb/deletes lists them")
		return
	}
	d, err := a.o.Deletes.Undelete(id)
	if err != nil {
		a.respondDelete(w, r, err)
		return
	}
	respond(w, d)
}

// serveClean answers 204 as Prometheus does if no id is named, else with the receipts.
func (a *API) serveClean(w http.ResponseWriter, r *http.Request) {
	ids := r.Form["id"]
	receipts, err := a.o.Deletes.Clean(r.Context(), ids)
	if err != nil {
		a.respondDelete(w, r, err)
		return
	}
	if len(ids) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	respond(w, receipts)
}

func (a *API) respondDelete(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil: // The client went away.
	case errors.Is(err, ErrNoDelete):
		respondError(w, http.StatusNotFound, errorNotFound, err.Error())
	case errors.Is(err, ErrDeleteEnded):
		respondError(w, http.StatusConflict, errorConflict, err.Error())
	default:
		code, known := a.status(err)
		switch {
		case !known:
			respondError(w, http.StatusInternalServerError, errorInternal, err.Error())
		case code == http.StatusServiceUnavailable:
			w.Header().Set("Retry-After", retryAfterSeconds)
			respondError(w, code, errorUnavailable, err.Error())
		default:
			respondError(w, code, errorExecution, err.Error())
		}
	}
}
