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
	// Compact does what is due now.
	Compact(ctx context.Context, r CompactRequest) (CompactorRun, error)
	CompactorStatus() (CompactorStatus, error)
	RetentionStatus(ctx context.Context) (RetentionStatus, error)
	// Pause stops background work until Resume: a job under way after its batch.
	Pause()
	Resume()
}

// CompactRequest says how work is to be done.
type CompactRequest struct {
	// Wait makes it return when the work is done; else it returns at once and the work goes on.
	Wait bool
	// Force lets expire how much ever is past its age.
	Force bool
}

// CompactorRun is what one request to the compactor led to.
type CompactorRun struct {
	// Done tells that the work was waited for; without it the rest is empty.
	Done   bool        `json:"done"`
	Sealed []SealedDay `json:"sealed"`
	Rolled []RolledDay `json:"rolled"`
	// Cleaned are the deletes whose samples were removed.
	Cleaned []Delete `json:"cleaned"`
	// Expired is what went because it was past its age.
	Expired []ExpiredLevel `json:"expired"`
	// Trimmed are days of which some series went, because their rules keep less.
	Trimmed []TrimmedDay `json:"trimmed"`
	// ForgottenSeries and ForgottenLabelPairs were removed because no data is left of them.
	ForgottenSeries     uint64 `json:"forgottenSeries"`
	ForgottenLabelPairs uint64 `json:"forgottenLabelPairs"`
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

// RolledDay is what the roll-up of a day did, at all resolutions.
type RolledDay struct {
	Day             string  `json:"day"`
	Series          int     `json:"series"`
	Samples         int     `json:"samples"`
	Buckets         int     `json:"buckets"`
	Bundles         int     `json:"bundles"`
	BundleBytes     int     `json:"bundleBytes"`
	ReplacedBundles int     `json:"replacedBundles"`
	Seconds         float64 `json:"seconds"`
}

// CompactorStatus is what the compactor is at and what the days look like.
type CompactorStatus struct {
	// Running is the kind and the day of the job under way, empty if none is; Planned are those
	// that were due when the compactor last looked.
	Running        string   `json:"running"`
	RunningSeconds float64  `json:"runningSeconds"`
	Planned        []string `json:"planned"`
	// Unforced says what is past its age and waits to be forced, and why; empty if nothing does.
	Unforced string `json:"unforced"`
	// Paused tells that background work waits to be resumed.
	Paused   bool `json:"paused"`
	HeldDays int  `json:"heldDays"`
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
	// Rolled tells that the day was rolled up at all resolutions, Dirty that some of it is to be
	// rolled up anew.
	Rolled bool `json:"rolled"`
	Dirty  bool `json:"dirty"`
}

func (a *API) serveCompact(w http.ResponseWriter, r *http.Request) {
	var request CompactRequest
	for name, value := range map[string]*bool{"wait": &request.Wait, "force": &request.Force} {
		text := r.URL.Query().Get(name)
		if text == "" {
			continue
		}
		var err error
		if *value, err = strconv.ParseBool(text); err != nil {
			respondError(w, http.StatusBadRequest, errorBadData, fmt.Sprintf("%s: %q is neither true nor false", name, text))
			return
		}
	}
	run, err := a.o.Compactor.Compact(r.Context(), request)
	if err != nil {
		a.respondCompactor(w, r, err)
		return
	}
	respond(w, run)
}

func (a *API) servePause(w http.ResponseWriter, _ *http.Request) {
	a.o.Compactor.Pause()
	respond(w, struct{}{})
}

func (a *API) serveResume(w http.ResponseWriter, _ *http.Request) {
	a.o.Compactor.Resume()
	respond(w, struct{}{})
}

func (a *API) serveCompactorStatus(w http.ResponseWriter, r *http.Request) {
	status, err := a.o.Compactor.CompactorStatus()
	if err != nil {
		a.respondCompactor(w, r, err)
		return
	}
	respond(w, status)
}

func (a *API) serveRetentionStatus(w http.ResponseWriter, r *http.Request) {
	status, err := a.o.Compactor.RetentionStatus(r.Context())
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
