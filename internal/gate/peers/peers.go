// Package peers starts servers of other people for tests and reads back what they hold.
//
// A peer is started on ports that were free a moment ago. Many tests do that at a time, so
// one that ends at its start, because a port was taken meanwhile, is started again on
// others. Peers end with the test. Where the program is not installed the test ends, see
// server.Lacking.
//
// A Peer may be used by several goroutines as far as server.Server may; the functions
// here end the test on an error and are for its own goroutine.
package peers

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"varve/internal/gate/server"
)

// startTimeout bounds the start of a peer, on a machine that has other things to do.
const startTimeout = 3 * time.Minute

// startsMax is how often a start is tried: two tests rarely take the same port, and hardly ever three times.
const startsMax = 3

// begin starts a program on free addresses, as many as it needs, and returns when ready does. command makes the command line of them;
// the first is the one that is waited for.
func begin(t testing.TB, addresses int, command func(addresses []string) server.Options, ready func(*server.Server, context.Context) error) (*server.Server, []string) {
	t.Helper()
	for try := 1; ; try++ {
		free := make([]string, addresses)
		for i := range free {
			var err error
			free[i], err = server.FreeAddress()
			must(t, err)
		}
		o := command(free)
		o.Address = free[0]
		s, err := server.Start(o)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
		err = ready(s, ctx)
		cancel()
		if err == nil {
			t.Cleanup(s.Kill)
			t.Cleanup(http.DefaultClient.CloseIdleConnections)
			return s, free
		}
		s.Kill()
		if try == startsMax || !errors.Is(err, server.ErrExited) {
			t.Fatalf("start %s: %v", o.Binary, err)
		}
	}
}

// program finds one that a package of Debian has.
func program(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		// Not in everybody's PATH.
		path = "/usr/sbin/" + name
		if _, err := os.Stat(path); err != nil {
			server.Lacking(t, "no %s in PATH: apt-get install %s", name, debian)
		}
	}
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
