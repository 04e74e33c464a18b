package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckServer(t *testing.T) {
	// The verb asks below the path of the URL whether the server is ready, or alive, shows the first
	// line of the answer, and fails with what was answered instead, and where nobody answers.
	stuck := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/prefix/-/ready", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Varve is starting.\nmore", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/prefix/-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write([]byte("Varve is healthy.\nmore\n"))
		require.NoError(t, err)
	})
	mux.HandleFunc("/stuck/-/ready", func(http.ResponseWriter, *http.Request) { <-stuck })
	peer := httptest.NewServer(mux)
	defer peer.Close()
	defer close(stuck)

	code, stdout, stderr := invoke(t, "check", "server", peer.URL+"/prefix/", "--alive", "--timeout=3m")
	require.Zero(t, code, stderr)
	require.Equal(t, "Varve is healthy.\n", stdout)

	code, stdout, stderr = invoke(t, "check", "server", peer.URL+"/prefix", "--timeout=3m")
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, `answers 503: "Varve is starting."`)

	code, _, stderr = invoke(t, "check", "server", "--timeout=20ms", peer.URL+"/stuck")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "did not answer within")

	code, _, stderr = invoke(t, "check", "server", "http://127.0.0.1:1", "--timeout=3m")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "give the URL that it listens on")
}
