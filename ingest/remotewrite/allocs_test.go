package remotewrite_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"

	"varve/ingest"
	"varve/ingest/remotewrite"
	"varve/internal/testkit/race"
)

// TestNoAllocations shows that a request of known series allocates nothing for a
// sample: whatever ServeHTTP allocates is the same for 500 samples and for 2000.
func TestNoAllocations(t *testing.T) {
	for version, contentType := range map[int]string{1: contentType1, 2: contentType2} {
		for _, samples := range []int{500, 2000} {
			t.Run(fmt.Sprintf("version %d, %d samples", version, samples), func(t *testing.T) {
				body := &rewinding{b: snappy.Encode(nil, benchBodies(t, version, samples)[0])}
				h := remotewrite.New(newTableSink(), ingest.Limits{}, ingest.NewMetrics(nil), discard, fixedNow, remotewrite.Options{})
				r := httptest.NewRequest(http.MethodPost, "/", nil)
				r.Header.Set("Content-Type", contentType)
				r.Header.Set("Content-Encoding", "snappy")
				r.ContentLength = int64(len(body.b))
				w := &bareWriter{header: make(http.Header)}
				// AllocsPerRun's first call is not counted: it creates the series.
				allocs := testing.AllocsPerRun(100, func() {
					body.at = 0
					r.Body = body
					h.ServeHTTP(w, r)
					require.Equal(t, http.StatusNoContent, w.code)
				})
				// The race detector makes sync.Pool drop a part of what it is given.
				if !race.Enabled {
					require.LessOrEqual(t, allocs, 3.0)
				}
			})
		}
	}
}
