package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Compactor is asked to work and what it is at. It may be called by several goroutines.
type Compactor interface {
	// Compact does what is due now. With wait it returns when that is done; else it
	// returns at once and the work goes on.
	Compact(ctx context.Context, wait bool) (CompactorRun, error)
	CompactorStatus() (CompactorStatus, error)
}

// CompactorRun is what one request to the compactor led to.
type CompactorRun struct {
	// Done tells that the work was waited for; without it the rest is empty.
	Done   bool        `json:"done"`
	Sealed []SealedDay `json:"sealed"`
	// HeldDays is the number of sealed days whose runs a query still holds: their space is
	// free when it ends.
	HeldDays int     `json:"heldDays"`
	Seconds  float64 `json:"seconds"`
}

// SealedDay is what the sealing of a day did.
type SealedDay struct {
	Day             string  `json:"day"`
	Series          int     `json:"series"`
	Samples         int     `json:"samples"`
	Runs            int     `json:"runs"`
	RunBytes        int     `json:"runBytes"`
	Bundles         int     `json:"bundles"`
	BundleBytes     int     `json:"bundleBytes"`
	ReplacedBundles int     `json:"replacedBundles"`
	Clocks          int     `json:"clocks"`
	Overwritten     int     `json:"overwritten"`
	Seconds         float64 `json:"seconds"`
}

// CompactorStatus is what the compactor is at and what the days look like.
type CompactorStatus struct {
	// Running is the day that is being sealed, empty if none is.
	Running        string   `json:"running"`
	RunningSeconds float64  `json:"runningSeconds"`
	Planned        []string `json:"planned"`
	HeldDays       int      `json:"heldDays"`
	// LastError is the error of the last job, empty if that went well.
	LastError string      `json:"lastError"`
	Days      []DayStatus `json:"days"`
}

// DayStatus is what lies where of one day.
type DayStatus struct {
	Day string `json:"day"`
	// Sealed is when the day was last sealed whole; absent if never.
	Sealed *time.Time `json:"sealed,omitempty"`
	// Unsealed tells that there are runs that wait.
	Unsealed bool `json:"unsealed"`
	// RunBytes and BundleBytes are about what either takes on disk.
	RunBytes      uint64 `json:"runBytes"`
	BundleBytes   uint64 `json:"bundleBytes"`
	SealedSamples uint64 `json:"sealedSamples"`
}

func (a *API) serveCompact(w http.ResponseWriter, r *http.Request) {
	wait := false
	if text := r.URL.Query().Get("wait"); text != "" {
		var err error
		if wait, err = strconv.ParseBool(text); err != nil {
			respondError(w, http.StatusBadRequest, errorBadData, fmt.Sprintf("wait: %q is neither true nor false", text))
			return
		}
	}
	run, err := a.o.Compactor.Compact(r.Context(), wait)
	if err != nil {
		a.respondCompactor(w, r, err)
		return
	}
	respond(w, run)
}

func (a *API) serveCompactorStatus(w http.ResponseWriter, r *http.Request) {
	status, err := a.o.Compactor.CompactorStatus()
	if err != nil {
		a.respondCompactor(w, r, err)
		return
	}
	respond(w, status)
}

func (a *API) respondCompactor(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // The client went away.
	}
	if code := a.o.StorageStatus(err); code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfterSeconds)
		respondError(w, code, errorUnavailable, err.Error())
		return
	}
	respondError(w, http.StatusInternalServerError, errorInternal, err.Error())
}
