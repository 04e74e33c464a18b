package scrape_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/ingest/scrape"
)

// TestReloadTakesCredentials shows that a job with other credentials uses these from the reload on: once a target hears the new ones, it hears
// the old ones no more, and no scrape in between fails.
func TestReloadTakesCredentials(t *testing.T) {
	for _, tolerant := range []bool{false, true} {
		t.Run(fmt.Sprint("tolerant ", tolerant), func(t *testing.T) {
			var latest, late atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, password, _ := r.BasicAuth()
				n, err := strconv.ParseInt(password, 10, 64)
				if err != nil || n < latest.Load() {
					late.Add(1)
				}
				latest.Store(n)
			}))
			t.Cleanup(server.Close)
			hurried := func(password int) string {
				return fmt.Sprintf("- job_name: hurried\n  scrape_interval: 20ms\n  scrape_timeout: 20ms\n  basic_auth: {username: u, password: '%d'}\n  static_configs: [{targets: [%s]}]\n",
					password, strings.TrimPrefix(server.URL, "http://"))
			}
			r := start(t, scrape.Options{Tolerant: tolerant}, hurried(0))
			for i := range 20 {
				require.NoError(t, r.scraper.Apply([]byte(hurried(i))))
				r.until("a scrape", func() bool { return latest.Load() == int64(i) })
			}
			r.stop()
			require.Zero(t, late.Load())
		})
	}
}

// TestReloadKeepsJobs shows that a job whose text stays is scraped over the connection that it has, however often the configuration is
// read again for the sake of another.
func TestReloadKeepsJobs(t *testing.T) {
	var connections, scrapes atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { scrapes.Add(1) }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	other := target(t, plainText, func() string { return "other 1\n" })
	stays := job("stays", []string{strings.TrimPrefix(server.URL, "http://")}, "bearer_token: secret", "metric_relabel_configs: [{target_label: group, replacement: heros}]")
	for _, tolerant := range []bool{false, true} {
		connections.Store(0)
		r := start(t, scrape.Options{Tolerant: tolerant}, stays)
		for i := range 5 {
			before := scrapes.Load()
			require.NoError(t, r.scraper.Apply([]byte(stays+job(fmt.Sprint("other", i), []string{other}))))
			r.until("scrapes", func() bool { return scrapes.Load() > before+1 })
		}
		r.stop()
		require.EqualValues(t, 1, connections.Load(), "tolerant: %t", tolerant)
	}
}
