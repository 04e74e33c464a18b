package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// States that a service manager is told, in the words of sd_notify(3).
const (
	notifyReady    = "READY=1"
	notifyStopping = "STOPPING=1"
)

// notifySocketEnv names where a service manager listens; it is set for services of
// Type=notify alone.
const notifySocketEnv = "NOTIFY_SOCKET"

// notifyManager tells the service manager, if there is one that wants to know, the state
// and a line of text for people, which "systemctl status" shows. The text may be empty.
//
// It is one datagram and does not wait for an answer. Without a manager it does nothing.
func notifyManager(state, text string) (err error) {
	name := os.Getenv(notifySocketEnv)
	if name == "" {
		return nil
	}
	// A name that begins with @ is in the abstract namespace, which package net knows too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager at %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	message := state
	if text != "" {
		// A line break would begin another assignment.
		message += "\nSTATUS=" + strings.ReplaceAll(text, "\n", " ")
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("tell the service manager at %s: %w", name, err)
	}
	return nil
}

// tellManager tells the service manager and logs if that fails: a server whose manager
// does not listen serves all the same.
func (s *server) tellManager(state, text string) {
	if err := notifyManager(state, text); err != nil {
		s.o.logger.Warn("The service manager was not told.", "state", state, "err", err)
	}
}
