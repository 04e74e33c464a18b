package api

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"varve/api/access"
)

// ErrChecking is wrapped by the error of a check that is asked for while one runs.
var ErrChecking = errors.New("a check is running")

// Checker checks the data in the background. It may be called by several goroutines.
type Checker interface {
	// RunCheck begins a check for by, who asked for it. bytesPerSecond bounds how fast it reads, 0 for the default.
	RunCheck(by string, bytesPerSecond int64) error
	// StopCheck ends the check that runs, and tells whether there was one.
	StopCheck() bool
	// CheckStatus is that of the check that runs or of the last one since the start, nil if there was none.
	CheckStatus() *CheckStatus
}

// CheckStatus tells how far a check is and what it found.
type CheckStatus struct {
	Started time.Time `json:"started"`
	// Finished is null while it runs.
	Finished *time.Time `json:"finished"`
	// Done of Total are bytes of table files; Unit says so. Reading is the kind of data that is read.
	Done    uint64 `json:"done"`
	Total   uint64 `json:"total"`
	Unit    string `json:"unit"`
	Reading string `json:"reading"`
	// Faults are the first that were found, FaultCount counts all.
	Faults     []string `json:"faults"`
	FaultCount int      `json:"faultCount"`
	// Error is why it ended before it was done, empty if it didn't.
	Error string `json:"error"`
	By    string `json:"by"`
}

// Bounds of what a request may ask for as the rate of a check, in bytes a second.
const (
	checkRateMin = 1 << 20
	checkRateMax = 4 << 30
)

func (a *API) serveCheck(w http.ResponseWriter, r *http.Request) {
	rate := int64(0)
	if text := r.Form.Get("rate"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < checkRateMin || n > checkRateMax {
			respondError(w, http.StatusBadRequest, errorBadData, "rate must be a number of bytes a second from "+strconv.Itoa(checkRateMin)+" to "+strconv.Itoa(checkRateMax))
			return
		}
		rate = n
	}
	err := a.o.Checker.RunCheck(access.Caller(r.Context()), rate)
	switch {
	case errors.Is(err, ErrChecking):
		respondError(w, http.StatusConflict, errorConflict, err.Error()+": watch it in /api/v1/status/archive, or end it with POST /api/v1/admin/check/stop")
	case err != nil:
		a.respondOverview(w, r, err)
	default:
		respond(w, a.o.Checker.CheckStatus())
	}
}

func (a *API) serveStopCheck(w http.ResponseWriter, _ *http.Request) {
	if !a.o.Checker.StopCheck() {
		respondError(w, http.StatusNotFound, errorNotFound, "no check is running")
		return
	}
	respond(w, a.o.Checker.CheckStatus())
}
