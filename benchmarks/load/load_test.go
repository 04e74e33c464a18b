package load_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"varve/benchmarks/load"
	"varve/benchmarks/wire"
	"varve/internal/testkit/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaks.Patient(m)) }

// frames makes lanes of random-looking bodies of the given size.
func frames(lanes, count, size int) [][]wire.Frame {
	all := make([][]wire.Frame, lanes)
	for lane := range lanes {
		for k := range count {
			body := bytes.Repeat([]byte{byte(lane), byte(k), 7}, size/3)
			all[lane] = append(all[lane], wire.Frame{Body: body, Samples: 10, LastRound: k})
		}
	}
	return all
}

func serve(t *testing.T, handler http.HandlerFunc) load.Target {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return load.Target{Address: strings.TrimPrefix(server.URL, "http://"), Path: "/api/v1/write", Protocol: 1}
}

// Shows that every body arrives whole and in order on its own connection, with
// bodies beyond what a socket buffer takes, and that the report counts them.
func TestRunSendsAll(t *testing.T) {
	var mu sync.Mutex
	got := map[string][][]byte{}
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Encoding") != "snappy" {
			w.WriteHeader(http.StatusBadRequest)
		}
		got[r.RemoteAddr] = append(got[r.RemoteAddr], body)
		if len(got[r.RemoteAddr])%2 == 0 {
			fmt.Fprintln(w, "ok with a body")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	lanes := frames(3, 4, 9<<20)
	report, err := load.Run(t.Context(), target, lanes, load.Options{LeadRoundsMax: 1})
	require.NoError(t, err)
	require.EqualValues(t, 120, report.Acknowledged)
	require.EqualValues(t, 12, report.Requests)
	require.Len(t, report.Latencies, 12)
	require.Equal(t, []int{4, 4, 4}, report.Done)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, got, 3)
	for _, bodies := range got {
		lane := bodies[0][0]
		require.Len(t, bodies, 4)
		for k, body := range bodies {
			require.True(t, bytes.Equal(lanes[lane][k].Body, body))
		}
	}
}

// Shows that a refusal ends the run with the server's words and that what was
// acknowledged before is counted.
func TestRunRefused(t *testing.T) {
	count := 0
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if count++; count == 3 {
			http.Error(w, "out of space", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	report, err := load.Run(t.Context(), target, frames(1, 5, 300), load.Options{})
	require.ErrorIs(t, err, load.ErrRefused)
	require.ErrorContains(t, err, "out of space")
	require.EqualValues(t, 20, report.Acknowledged)
	require.Equal(t, []int{2}, report.Done)
}

// Shows the heads of requests that are no remote write.
func TestRunOtherContent(t *testing.T) {
	var mu sync.Mutex
	var got []http.Header
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r.Header)
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	})
	target.ContentType = "text/plain"
	_, err := load.Run(t.Context(), target, frames(1, 1, 300), load.Options{})
	require.NoError(t, err)
	target.Encoding = "gzip"
	_, err = load.Run(t.Context(), target, frames(1, 1, 300), load.Options{})
	require.NoError(t, err)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, got, 2)
	for i, encoding := range []string{"", "gzip"} {
		require.Equal(t, "text/plain", got[i].Get("Content-Type"))
		require.Equal(t, encoding, got[i].Get("Content-Encoding"))
		require.Empty(t, got[i].Get("X-Prometheus-Remote-Write-Version"))
	}
}

// Shows that a paced run does not go faster than it is told.
func TestRunPaced(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	report, err := load.Run(t.Context(), target, frames(2, 10, 300), load.Options{SamplesPerSecond: 1000})
	require.NoError(t, err)
	require.EqualValues(t, 200, report.Acknowledged)
	require.GreaterOrEqual(t, report.Elapsed, 180*time.Millisecond)
}

// Shows that a run of bounded time ends although frames are left.
func TestRunBounded(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	report, err := load.Run(t.Context(), target, frames(1, 1000, 300), load.Options{SamplesPerSecond: 1000, For: 50 * time.Millisecond})
	require.NoError(t, err)
	require.Positive(t, report.Acknowledged)
	require.Less(t, report.Acknowledged, int64(10_000))
}

// Shows that only the loopback is ever loaded.
func TestRunLoopbackOnly(t *testing.T) {
	for _, address := range []string{"192.0.2.1:80", "example.org:80", "[::1]:80"} {
		_, err := load.Run(t.Context(), load.Target{Address: address}, frames(1, 1, 300), load.Options{})
		require.ErrorContains(t, err, "loopback")
	}
}

// Shows the nearest-rank percentiles of small lists.
func TestPercentile(t *testing.T) {
	list := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	require.EqualValues(t, 5, load.Percentile(list, 0.5))
	require.EqualValues(t, 10, load.Percentile(list, 0.99))
	require.EqualValues(t, 1, load.Percentile(list, 0))
	require.EqualValues(t, 10, load.Percentile(list, 1))
	require.Zero(t, load.Percentile(nil, 0.5))
}
