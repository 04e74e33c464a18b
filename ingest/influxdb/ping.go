package influxdb

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"crypto/rand"
)

// Ping returns the handler for GET and HEAD /ping: 204, or with verbose=true 200 and the
// version in JSON.
func (in *Input) Ping() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.head(w, r)
		if !reads(w, r) {
			return
		}
		if verbose := r.URL.Query().Get("verbose"); verbose != "" && verbose != "0" && verbose != "false" {
			answerJSON(w, http.StatusOK, struct {
				Version string `json:"version"`
			}{in.version})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// Health returns the handler for GET and HEAD /health, as InfluxDB 1.8 and 2.x have it. It
// says that requests are answered, not that the disk is well: writes tell that.
func (in *Input) Health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.head(w, r)
		if !reads(w, r) {
			return
		}
		answerJSON(w, http.StatusOK, struct {
			Name    string   `json:"name"`
			Message string   `json:"message"`
			Status  string   `json:"status"`
			Checks  []string `json:"checks"`
			Version string   `json:"version"`
		}{"influxdb", "ready for queries and writes", "pass", []string{}, in.version})
	})
}

// reads tells whether the method is GET or HEAD, and answers if it is not.
func reads(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	refuseV1(w, http.StatusMethodNotAllowed, "only GET and HEAD are allowed")
	return false
}

// requestIDs names requests: the id tells an answer in a client's log from every other.
type requestIDs struct {
	prefix string
	next   atomic.Uint64
}

// newRequestPrefix is what the ids of one Input have in common, and no other's.
func newRequestPrefix(now time.Time) string {
	var random [6]byte
	// It never fails, and the time alone would do.
	_, _ = rand.Read(random[:])
	return fmt.Sprintf("%08x-%s", uint32(now.Unix()), hex.EncodeToString(random[:2])+"-"+hex.EncodeToString(random[2:4])+"-"+hex.EncodeToString(random[4:6]))
}

// requestIDBytesMax bounds the ids that clients bring.
const requestIDBytesMax = 128

// of returns the id that a client gave, or a new one.
func (ids *requestIDs) of(r *http.Request) string {
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		if id := r.Header.Get(name); id != "" && len(id) <= requestIDBytesMax {
			return printable([]byte(id))
		}
	}
	return fmt.Sprintf("%s-%012x", ids.prefix, ids.next.Add(1))
}
