package packages_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// exposureMax is what "systemd-analyze security" may say of the unit, of 0 to 10. Its own scale calls
// less than 2 "OK". What is left are the network and the local sockets that the service is for.
const exposureMax = 1.2

// unit reads the keys of a unit file. A key may have several values; an empty one forgets those before.
func unit(t testing.TB, text string) map[string][]string {
	t.Helper()
	keys := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "["):
		case !ok:
			t.Fatalf("the unit has a line that is neither section nor key: %q", line)
		case value == "":
			keys[key] = nil
		default:
			keys[key] = append(keys[key], value)
		}
	}
	return keys
}

func unitPath(t testing.TB) string {
	return filepath.Join(server.ModuleRoot(t), "packaging/systemd/varve.service")
}

func TestUnitIsValid(t *testing.T) {
	// systemd itself finds no fault in the unit, installed beside the program, and its review says how little is left open.
	need(t, "systemd-analyze")
	root := t.TempDir()
	path := filepath.Join(root, "varve.service")
	text := strings.ReplaceAll(read(t, filepath.Dir(unitPath(t)), "varve.service"), "/usr/bin/varve", server.Binary(t, ""))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "varve.service")

	review, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", fmt.Sprintf("--threshold=%d", int(exposureMax*10)), unitPath(t)).CombinedOutput()
	require.NoError(t, err, "%s", review)
	found := regexp.MustCompile(`Overall exposure level for varve\.service: ([0-9.]+)`).FindSubmatch(review)
	require.NotNil(t, found, "%s", review)
	exposure, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(t, err)
	require.LessOrEqual(t, exposure, exposureMax)
	t.Logf("exposure %.1f", exposure)
}

func TestUnitGivesTimeToStop(t *testing.T) {
	// The unit waits longer than the server takes to drain and close, and does not limit a start, which reads the journal back.
	keys := unit(t, read(t, filepath.Dir(unitPath(t)), "varve.service"))
	stop, err := time.ParseDuration(keys["TimeoutStopSec"][0])
	require.NoError(t, err)
	require.Greater(t, stop, 30*time.Second)
	require.Equal(t, []string{"infinity"}, keys["TimeoutStartSec"])
	require.Equal(t, []string{"notify"}, keys["Type"])
}

func TestUnitAllowsTheSystemCalls(t *testing.T) {
	// Whatever the server asks of the kernel while it starts, takes a sample, answers and stops, the unit's filter lets through.
	need(t, "strace", "systemd-analyze")
	allowed := map[string]bool{}
	for _, filter := range unit(t, read(t, filepath.Dir(unitPath(t)), "varve.service"))["SystemCallFilter"] {
		list, denied := strings.CutPrefix(filter, "~")
		for _, name := range strings.Fields(list) {
			for _, call := range systemCalls(t, name) {
				allowed[call] = !denied
			}
		}
	}
	for _, call := range systemCalls(t, "@default") {
		allowed[call] = true
	}
	dir := t.TempDir()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	summary := filepath.Join(dir, "calls")
	s, err := server.Start(server.Options{Binary: "strace", Address: address, Args: []string{
		"-f", "-c", "-U", "name", "-o", summary, server.Binary(t, ""), "serve", "--storage.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address,
	}})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
	writeAndRead(t, server.Binary(t, ""), address)
	for _, child := range children(t, s.Pid()) {
		require.NoError(t, syscall.Kill(child, syscall.SIGTERM))
	}
	select {
	case <-s.Exited():
	case <-ctx.Done():
		t.Fatal(s.Output())
	}
	used := strings.Fields(read(t, dir, "calls"))
	require.Greater(t, len(used), 40, "%v", used)
	for _, call := range used {
		if regexp.MustCompile(`^[a-z_0-9]+$`).MatchString(call) && call != "total" && call != "syscall" {
			require.True(t, allowed[call], "the server uses %s, which SystemCallFilter of the unit refuses", call)
		}
	}
}

// systemCalls returns the calls of a set of systemd's, or the call itself.
func systemCalls(t testing.TB, name string) []string {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	var calls []string
	for line := range strings.Lines(output(t, "systemd-analyze", "syscall-filter", name)) {
		line = strings.TrimSpace(line)
		if line != "" && line != name && !strings.HasPrefix(line, "#") {
			calls = append(calls, systemCalls(t, line)...)
		}
	}
	return calls
}

// children returns the processes that a process has started and that still live.
func children(t testing.TB, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	var all []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			// A thread that has ended since.
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			require.NoError(t, err)
			all = append(all, child)
		}
	}
	slices.Sort(all)
	return all
}
