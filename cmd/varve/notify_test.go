package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// listenAsManager opens the socket of a service manager and returns how to read what comes.
func listenAsManager(t *testing.T, name string) func() string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return func() string {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		buffer := make([]byte, 4096)
		n, err := conn.Read(buffer)
		require.NoError(t, err)
		return string(buffer[:n])
	}
}

func TestNotifyManager(t *testing.T) {
	// A manager gets the state and one line of text, by a socket with a path and by one
	// without. Without a manager nothing happens, and one that is gone is an error that names it.
	path := filepath.Join(t.TempDir(), "notify")
	for _, name := range []string{path, fmt.Sprint("@varve-notify-test-", os.Getpid())} {
		read := listenAsManager(t, name)
		t.Setenv(notifySocketEnv, name)
		require.NoError(t, notifyManager(notifyReady, "Serving.\nWATCHDOG=1"))
		require.Equal(t, "READY=1\nSTATUS=Serving. WATCHDOG=1", read())
		require.NoError(t, notifyManager(notifyStopping, ""))
		require.Equal(t, "STOPPING=1", read())
	}
	t.Setenv(notifySocketEnv, "")
	require.NoError(t, notifyManager(notifyReady, ""))
	gone := filepath.Join(t.TempDir(), "gone")
	t.Setenv(notifySocketEnv, gone)
	require.ErrorContains(t, notifyManager(notifyReady, ""), gone)
}

func TestServeTellsItsManager(t *testing.T) {
	// The server says that it is ready when it answers queries, and that it stops when it was asked to.
	socket := filepath.Join(t.TempDir(), "notify")
	read := listenAsManager(t, socket)
	cmd := command("serve", "--storage.path="+t.TempDir(), "--web.listen-address=127.0.0.1:0")
	cmd.Env = append(cmd.Env, notifySocketEnv+"="+socket)
	var log strings.Builder
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	require.True(t, strings.HasPrefix(read(), notifyReady))
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.True(t, strings.HasPrefix(read(), notifyStopping))
	require.NoError(t, cmd.Wait(), "%s", log.String())
	require.NotContains(t, log.String(), "was not told")
}
