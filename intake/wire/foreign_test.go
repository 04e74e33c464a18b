package wire_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"varve/intake"
	"varve/intake/wire"
)

// TestForeignServers shows what is said where something else answers: another program, a guard, a redirect, a newer version.
func TestForeignServers(t *testing.T) {
	var answer http.HandlerFunc
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	defer server.Close()
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	client, err := wire.New(wire.Options{URL: u, HTTP: config_util.DefaultHTTPClientConfig, Patience: time.Nanosecond})
	require.NoError(t, err)
	defer client.Close()
	for text, h := range map[string]http.HandlerFunc{
		"is the path of --url right?": http.NotFound,
		"rights of an administrator":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you?", http.StatusForbidden) },
		"the switch": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errorType":"unavailable","error":"the switch"}`)
		},
		"302 Found":        func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
		"the same version": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
		"gave up":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
	} {
		answer = h
		require.ErrorContains(t, client.Resolve(t.Context(), []intake.Series{{}}), text)
		_, err := client.OpenDay(t.Context(), 0)
		require.ErrorContains(t, err, text)
	}
	_, served := served(t, newMemory(), nil)
	for path := range wire.Handlers(wire.HandlerOptions{}) {
		a, err := http.Post(served.URL+path, "application/x-varve-intake; version=2", nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnsupportedMediaType, a.StatusCode)
		require.NoError(t, a.Body.Close())
	}
	http.DefaultClient.CloseIdleConnections()
}
