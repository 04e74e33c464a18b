package peers

import (
	"net"
	"testing"

	"varve/internal/gate/server"
)

// NATS is Debian's nats-server with JetStream, which can be killed and come back where it was, with what it had.
type NATS struct {
	// Address is host:port.
	Address string

	t       testing.TB
	running *server.Server
	options server.Options
}

// StartNATS starts one.
func StartNATS(t testing.TB) *NATS {
	t.Helper()
	binary, dir := program(t, "nats-server", "nats-server"), t.TempDir()
	n := &NATS{t: t}
	var at []string
	n.running, at = begin(t, 1, func(at []string) server.Options {
		host, port, err := net.SplitHostPort(at[0])
		must(t, err)
		n.options = server.Options{Binary: binary, Address: at[0], Args: []string{"-a", host, "-p", port, "-js", "-sd", dir}}
		return n.options
	}, (*server.Server).WaitListening)
	n.Address = at[0]
	return n
}

// Restart kills it and starts it again.
func (n *NATS) Restart() {
	n.t.Helper()
	n.running.Kill()
	var err error
	n.running, err = server.Start(n.options)
	must(n.t, err)
	n.t.Cleanup(n.running.Kill)
	must(n.t, n.running.WaitListening(n.t.Context()))
}
