package nats_test

import (
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/ingest/nats"
	"varve/internal/gate/server"
)

// debianServer is Debian's nats-server. Its folder is not in everybody's PATH.
func debianServer(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("nats-server"); err == nil {
		return path
	}
	const sbin = "/usr/sbin/nats-server"
	if _, err := os.Stat(sbin); err != nil {
		server.Lacking(t, "no nats-server in PATH: apt-get install nats-server")
	}
	return sbin
}

// Debian's server, which is three years older than the client, is killed in mid-stream again and again: what it acknowledged to the publisher is stored in the end,
// and its consumer goes on.
func TestDebian(t *testing.T) {
	binary, dir := debianServer(t), t.TempDir()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	start := func() *server.Server {
		t.Helper()
		s, err := server.Start(server.Options{Binary: binary, Address: address, Args: []string{"-a", host, "-p", port, "-js", "-sd", dir}})
		require.NoError(t, err)
		t.Cleanup(s.Kill)
		require.NoError(t, s.WaitListening(t.Context()))
		return s
	}
	s := start()
	r := newReceiver()
	in, _ := begin(t, options(address, r, impatient, func(o *nats.Options) { o.Subjects = []string{"varve.a"} }))
	connected(t, in)
	_, js := dial(t, address)
	const rounds, each = 3, 200
	for round := range rounds {
		var publisher sync.WaitGroup
		half := make(chan struct{})
		publisher.Go(func() {
			for i := range each {
				if i == each/2 {
					close(half)
				}
				publish(t, js, "varve.a", write("m", int64(round*each+i), 1))
			}
		})
		<-half
		s.Kill()
		s = start()
		publisher.Wait()
	}
	publish(t, js, "varve.b", write("other", 1, 1))
	eventually(t, func() bool { return r.stored() == rounds*each })
	settled(t, js)
	require.Zero(t, in.Status().Poison)
}
