package server

import (
	"fmt"
	"net"
	"os"
	"sync"
)

// taken are the addresses that this process has given away.
var taken = struct {
	sync.Mutex
	addresses map[string]bool
}{addresses: map[string]bool{}}

// Loopback returns an IP address of the loopback interface that no other process uses: its lower bits are the process's number. All of
// 127.0.0.0/8 leads to this machine, and a port of one such address is not one of the others. So a port of it that was free stays free until
// the test listens on it, or listens again, whatever other tests do on 127.0.0.1 meanwhile. Connections are made from 127.0.0.1, so that
// none takes the port that it is to lead to either.
func Loopback() string {
	pid := os.Getpid()
	// Numbers of processes have 22 bits at most.
	own := net.IPv4(127, byte(64|pid>>16&63), byte(pid>>8), byte(pid)).String()
	l, err := net.Listen("tcp", net.JoinHostPort(own, "0"))
	if err != nil {
		// The interface has no more than the usual address.
		return "127.0.0.1"
	}
	_ = l.Close()
	return own
}

// FreeAddress returns an address on the loopback interface that nothing listens on, and that it never returned before. The port is from the range
// that the kernel gives to those that ask for port 0.
func FreeAddress() (string, error) {
	taken.Lock()
	defer taken.Unlock()
	host := Loopback()
	for {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
		if !taken.addresses[address] {
			taken.addresses[address] = true
			return address, nil
		}
	}
}
