package api

import (
	"encoding/json"
	"net/http"

	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// The error types of Prometheus' API that are answered here.
const (
	errorBadData     = "bad_data"
	errorConflict    = "conflict"
	errorExecution   = "execution"
	errorInternal    = "internal"
	errorNotFound    = "not_found"
	errorUnavailable = "unavailable"
)

// retryAfterSeconds is what clients are told to wait for a server that starts,
// stops or is full.
const retryAfterSeconds = "5"

// respond answers data in Prometheus' envelope.
func respond(w http.ResponseWriter, data any) {
	writeJSON(w, http.StatusOK, v1.Response{Status: "success", Data: data})
}

// respondError answers an error in Prometheus' envelope.
func respondError(w http.ResponseWriter, code int, errorType, message string) {
	writeJSON(w, code, v1.Response{Status: "error", ErrorType: errorType, Error: message})
}

func writeJSON(w http.ResponseWriter, code int, body v1.Response) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A client that went away is no error of the server.
	_, _ = w.Write(b)
}
