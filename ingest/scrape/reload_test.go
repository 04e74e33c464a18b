package scrape_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"varve/ingest/scrape"
)

// connKey is that of a request's connection in its context.
type connKey struct{}

// givenUp says whether who made a request waits for the answer no more: it was under way when its job changed, and is heard late.
func givenUp(r *http.Request) bool {
	raw, err := r.Context().Value(connKey{}).(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	end := time.NewTimer(50 * time.Millisecond)
	defer end.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		closed := false
		err := raw.Control(func(fd uintptr) {
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			closed = err == nil && n == 0 || err != nil && !errors.Is(err, unix.EAGAIN)
		})
		if closed || err != nil {
			return true
		}
		select {
		case <-end.C:
			return false
		case <-look.C:
		}
	}
}

// TestReloadTakesCredentials shows that a job with other credentials uses these from the reload on: once a target hears the new ones, it hears
// the old ones no more, and no scrape in between fails.
func TestReloadTakesCredentials(t *testing.T) {
	for _, tolerant := range []bool{false, true} {
		t.Run(fmt.Sprint("tolerant ", tolerant), func(t *testing.T) {
			var latest, late atomic.Int64
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, password, _ := r.BasicAuth()
				n, err := strconv.ParseInt(password, 10, 64)
				switch {
				case err != nil:
					late.Add(1)
				case n >= latest.Load():
					latest.Store(n)
				case !givenUp(r):
					late.Add(1)
				}
			}))
			server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
			server.Start()
			t.Cleanup(server.Close)
			hurried := func(password int) string {
				return fmt.Sprintf("- job_name: hurried\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  basic_auth: {username: u, password: '%d'}\n  static_configs: [{targets: [%s]}]\n",
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
		// A scrape that takes too long on a busy machine costs its connection.
		cut := 0
		for labels, s := range r.named("up") {
			if strings.Contains(labels, `job="stays"`) {
				cut += count(s, 0)
			}
		}
		require.Positive(t, connections.Load())
		require.LessOrEqual(t, connections.Load(), int64(1+cut), "tolerant: %t", tolerant)
	}
}
