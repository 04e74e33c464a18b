package packages_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// booted is a Debian that systemd has booted, as a container with a network of its own.
type booted struct {
	*debian
	// init is the container's first process, as the machine numbers it.
	init      int
	container *server.Server
}

// boot boots a Debian and ends it with the test.
func boot(t testing.TB, file string) *booted {
	t.Helper()
	need(t, "systemd-nspawn", "nsenter", "unshare")
	b := &booted{debian: cleanDebian(t, file)}
	var err error
	// The namespace of processes ends with its first one, so that nothing of the container outlives the test.
	b.container, err = server.Start(server.Options{Binary: "unshare", Args: []string{
		"--pid", "--fork", "--kill-child=SIGKILL", "--mount", "--mount-proc",
		"systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "--private-network", "--console=pipe", "--directory=" + b.root,
		"/lib/systemd/systemd", "--show-status=no", "--log-target=null",
	}})
	require.NoError(t, err)
	t.Cleanup(b.container.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := server.Wait(ctx, "systemd has booted", func() (bool, error) {
		select {
		case <-b.container.Exited():
			server.Lacking(t, "systemd does not boot in a container here: %s", b.container.Output())
		default:
		}
		if b.init = systemdBelow(t, b.container.Pid()); b.init == 0 {
			return false, nil
		}
		state, err := b.tryIn(nil, "systemctl", "is-system-running")
		if err != nil && strings.TrimSpace(state) != "degraded" {
			return false, fmt.Errorf("%w: %s", err, state)
		}
		return true, nil
	}); err != nil {
		server.Lacking(t, "systemd does not boot in a container here: %v\n%s", err, b.container.Output())
	}
	return b
}

// systemdBelow finds the systemd that descends from a process, or 0.
func systemdBelow(t testing.TB, pid int) int {
	t.Helper()
	for _, child := range children(t, pid) {
		exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(child), "exe"))
		if err == nil && filepath.Base(exe) == "systemd" {
			return child
		}
		if found := systemdBelow(t, child); found != 0 {
			return found
		}
	}
	return 0
}

// tryIn runs a command in the container.
func (b *booted) tryIn(input []byte, name string, args ...string) (string, error) {
	all := append([]string{"--target", strconv.Itoa(b.init), "--all", "--", "/usr/bin/env"}, quiet...)
	cmd := exec.Command("nsenter", append(append(all, name), args...)...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b *booted) in(name string, args ...string) string {
	b.t.Helper()
	out, err := b.tryIn(nil, name, args...)
	if err != nil {
		log, _ := b.tryIn(nil, "journalctl", "--no-pager", "--lines=40")
		b.t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, log)
	}
	return out
}

// property is one of the service.
func (b *booted) property(name string) string {
	b.t.Helper()
	return strings.TrimSpace(b.in("systemctl", "show", "--property="+name, "--value", "varve.service"))
}

// write writes a sample with the verb that imports, which runs in the container.
func (b *booted) write(name string, at time.Time) {
	b.t.Helper()
	out, err := b.tryIn([]byte(sample(name, at)), "varve", "import", "openmetrics", "--", "-")
	require.NoError(b.t, err, out)
	require.Contains(b.t, out, "1 samples stored")
}

// requireKept asks for it with the verb that exports.
func (b *booted) requireKept(name string, at time.Time) {
	b.t.Helper()
	out := b.in("varve", "export", "csv", "--url=http://127.0.0.1:9095", "--match="+name, "--start="+strconv.FormatInt(at.Unix()-60, 10), "--output=-")
	require.Contains(b.t, out, "42.5", out)
}

func TestServiceUnderSystemd(t *testing.T) {
	// systemd itself runs the service with all restrictions of the unit: an installation starts it, which ends when the
	// server says that it is ready. It takes and answers, is reloaded, and refuses a reload with a mistake by name. An upgrade
	// restarts it with its data, and leaves it off where the administrator has switched it off. A kill is followed by a
	// new start. It stops in order, and a removal takes it away.
	long(t)
	older, newer := deb(t, versionOld), deb(t, versionNew)
	b := boot(t, older)
	at := time.Now()
	install := []string{"install", "--yes", "--no-install-recommends"}

	b.in("apt-get", append(install, b.give(older, "/older.deb"))...)
	require.Equal(t, "active", b.property("ActiveState"))
	require.Equal(t, "enabled", b.property("UnitFileState"))
	require.Equal(t, "Ready on 127.0.0.1:9095.", b.property("StatusText"))
	require.Equal(t, "Varve is ready.\n", b.in("varve", "check", "server"))
	b.write("gate_kept", at)
	b.requireKept("gate_kept", at)
	review := b.in("systemd-analyze", "security", "--no-pager", "varve.service")
	require.Regexp(t, `Overall exposure level for varve\.service: [01]\.`, review)

	// The process has the restrictions, and not only the unit: it is not root, has no rights of root, a filter, and a world that it can't write.
	pid := b.property("MainPID")
	status := b.in("cat", "/proc/"+pid+"/status")
	for _, line := range []string{`Seccomp:\s+2`, `NoNewPrivs:\s+1`, `CapEff:\s+0+`, `CapBnd:\s+0+`} {
		require.Regexp(t, `(?m)^`+line+`$`, status)
	}
	require.NotRegexp(t, `(?m)^Uid:\s+0`, status)
	var writable []string
	for line := range strings.Lines(b.in("cat", "/proc/"+pid+"/mountinfo")) {
		if f := strings.Fields(line); strings.HasPrefix(f[5], "rw") && !strings.HasPrefix(f[4], "/proc") {
			writable = append(writable, f[4])
		}
	}
	require.Contains(t, writable, "/var/lib/varve")
	require.NotContains(t, writable, "/")
	require.NotContains(t, writable, "/etc/varve")

	b.in("systemctl", "reload", "varve")
	require.Contains(t, b.in("journalctl", "--no-pager", "--unit=varve"), "The configuration was read again.")
	whole := read(t, b.root, "etc/varve/varve.yml")
	require.NoError(t, os.WriteFile(b.path("etc/varve/varve.yml"), []byte(whole+"\nno_such_key: 1\n"), 0o640))
	_, err := b.tryIn(nil, "systemctl", "reload", "varve")
	require.Error(t, err)
	require.Contains(t, b.in("journalctl", "--no-pager", "--unit=varve"), "no_such_key")
	require.Equal(t, pid, b.property("MainPID"))
	require.NoError(t, os.WriteFile(b.path("etc/varve/varve.yml"), []byte(whole), 0o640))

	b.in("apt-get", append(install, b.give(newer, "/newer.deb"))...)
	require.Equal(t, "active", b.property("ActiveState"))
	require.NotEqual(t, pid, b.property("MainPID"))
	b.requireKept("gate_kept", at)

	pid = b.property("MainPID")
	b.in("systemctl", "kill", "--signal=SIGKILL", "varve")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, server.Wait(ctx, "the service is started again", func() (bool, error) {
		return b.property("NRestarts") == "1" && b.property("ActiveState") == "active", nil
	}))
	require.NotEqual(t, pid, b.property("MainPID"))
	b.requireKept("gate_kept", at)

	b.in("systemctl", "disable", "--now", "varve")
	require.Equal(t, "success", b.property("Result"))
	require.Equal(t, "0", b.property("ExecMainStatus"))
	b.in("apt-get", "install", "--reinstall", "--yes", "/newer.deb")
	require.Equal(t, "disabled", b.property("UnitFileState"))
	require.Equal(t, "inactive", b.property("ActiveState"))
	b.in("varve", "check", "data", "/var/lib/varve")

	b.in("systemctl", "enable", "--now", "varve")
	b.in("apt-get", "purge", "--yes", "varve")
	require.Equal(t, "not-found", b.property("LoadState"))
	require.Equal(t, "inactive", b.property("ActiveState"))
	require.DirExists(t, b.path("var/lib/varve/db"))
	b.poweroff()
}

// poweroff ends the container in order.
func (b *booted) poweroff() {
	b.t.Helper()
	_, _ = b.tryIn(nil, "systemctl", "poweroff")
	select {
	case <-b.container.Exited():
	case <-time.After(patience):
		b.t.Error("the container does not power off")
		_ = syscall.Kill(b.init, syscall.SIGKILL)
	}
}
