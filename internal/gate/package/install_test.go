package packages_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"varve/internal/gate/server"
)

// sample is one that the tests write, as OpenMetrics.
func sample(name string, at time.Time) string {
	return fmt.Sprintf("# TYPE %s gauge\n%s{room=\"a \\\"b\\\"\"} 42.5 %d\n# EOF\n", name, name, at.Unix())
}

// writeAndRead writes a sample with the verb that imports and asks for it.
func writeAndRead(t testing.TB, binary, address string) {
	t.Helper()
	at := time.Now()
	cmd := exec.Command(binary, "import", "openmetrics", "--url=http://"+address, "--", "-")
	cmd.Stdin = strings.NewReader(sample("gate_written", at))
	require.Contains(t, outputOf(t, cmd), "1 samples stored")
	requireSample(t, address, "gate_written", at)
}

// requireSample asks for the value of a sample that was written.
func requireSample(t testing.TB, address, name string, at time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, body, err := server.Get(ctx, "http://"+address+"/api/v1/query?query="+url.QueryEscape(name)+fmt.Sprintf("&time=%d", at.Unix()))
	require.NoError(t, err)
	require.Equal(t, 200, status, "%s", body)
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  []any
			}
		}
	}
	require.NoError(t, json.Unmarshal(body, &answer))
	require.Len(t, answer.Data.Result, 1, "%s", body)
	require.Equal(t, map[string]string{"__name__": name, "room": `a "b"`}, answer.Data.Result[0].Metric)
	require.Equal(t, "42.5", answer.Data.Result[0].Value[1])
}

// start starts the server as the unit says: its command line, with the variables of its environment file, and its user.
// It runs in the machine's own network.
func (d *debian) start(address string) *server.Server {
	d.t.Helper()
	keys := unit(d.t, read(d.t, d.root, "lib/systemd/system/varve.service"))
	environment := map[string]string{}
	for line := range strings.Lines(read(d.t, d.root, strings.TrimPrefix(keys["EnvironmentFile"][0], "-"))) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			environment[name] = strings.Trim(value, `"`)
		}
	}
	require.Len(d.t, keys["ExecStart"], 1)
	args := []string{"--userspec=" + keys["User"][0] + ":" + keys["Group"][0], d.root}
	for field := range strings.FieldsSeq(keys["ExecStart"][0]) {
		if name, ok := strings.CutPrefix(field, "$"); ok {
			args = append(args, strings.Fields(environment[name])...)
		} else {
			args = append(args, field)
		}
	}
	s, err := server.Start(server.Options{Binary: "chroot", Address: address, Args: args})
	require.NoError(d.t, err)
	d.t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	require.NoError(d.t, s.WaitReady(ctx))
	return s
}

func (d *debian) stop(s *server.Server) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(d.t, s.Terminate(ctx))
}

// owner returns user, group and mode of a file, as the Debian names them.
func (d *debian) owner(name string) string {
	d.t.Helper()
	return strings.TrimSpace(d.run("stat", "-c", "%U:%G %a", name))
}

func TestInstalledUpgradedPurged(t *testing.T) {
	// In a Debian, in long tests a clean one where apt finds all that the package needs, it is installed; the server starts as the unit says, takes
	// and answers. An upgrade keeps data, owners and what was configured, a removal keeps these too, and a purge leaves
	// nothing but the data, which it says, and which a later installation serves again.
	older, newer := deb(t, versionOld), deb(t, versionNew)
	d := newDebian(t, older)
	address, err := server.FreeAddress()
	require.NoError(t, err)
	at := time.Now()

	d.install(d.give(older, "/older.deb"))
	require.Equal(t, "install ok installed", d.state())
	require.Equal(t, "varve:varve 700", d.owner("/var/lib/varve"))
	require.Equal(t, "root:varve 750", d.owner("/etc/varve"))
	require.Equal(t, "root:varve 640", d.owner("/etc/varve/varve.yml"))
	require.Contains(t, d.run("getent", "passwd", "varve"), ":/var/lib/varve:/usr/sbin/nologin")
	require.Contains(t, d.remains(), "/etc/systemd/system/multi-user.target.wants/varve.service")
	require.Empty(t, d.run("dpkg", "--verify", "varve"))

	configured := "ARGS=\"--web.listen-address=" + address + " --log.level=warn\"\n"
	require.NoError(t, os.WriteFile(d.path("etc/default/varve"), []byte(configured), 0o644))
	s := d.start(address)
	info, err := os.Stat(fmt.Sprintf("/proc/%d", s.Pid()))
	require.NoError(t, err)
	require.NotZero(t, info.Sys().(*syscall.Stat_t).Uid, "the server runs as root")
	cmd := exec.Command(server.Binary(t, ""), "import", "openmetrics", "--url=http://"+address, "--", "-")
	cmd.Stdin = strings.NewReader(sample("gate_kept", at))
	outputOf(t, cmd)
	requireSample(t, address, "gate_kept", at)
	require.Equal(t, "Varve is ready.\n", d.runConnected("varve", "check", "server", "http://"+address))
	d.stop(s)

	// What the administrator has changed stays. The question of dpkg is not asked, since the package's own file is the same.
	d.run("chown", "root:root", "/etc/varve/varve.yml")
	d.run("chmod", "0644", "/etc/varve/varve.yml")
	d.install(d.give(newer, "/newer.deb"))
	require.Equal(t, "install ok installed", d.state())
	require.Equal(t, versionNew, d.run("dpkg-query", "-W", "-f", "${Version}", "varve"))
	require.Equal(t, configured, read(t, d.root, "etc/default/varve"))
	require.Equal(t, "root:root 644", d.owner("/etc/varve/varve.yml"))
	require.Equal(t, "varve:varve 700", d.owner("/var/lib/varve"))
	s = d.start(address)
	requireSample(t, address, "gate_kept", at)
	d.stop(s)

	d.run("dpkg", "--remove", "varve")
	require.Equal(t, "deinstall ok config-files", d.state())
	require.NoFileExists(t, d.path("usr/bin/varve"))
	require.NoFileExists(t, d.path("lib/systemd/system/varve.service"))
	require.Equal(t, configured, read(t, d.root, "etc/default/varve"))
	require.DirExists(t, d.path("var/lib/varve/db"))

	out := d.run("dpkg", "--purge", "varve")
	require.Contains(t, out, "rm -r /var/lib/varve")
	require.Empty(t, d.state())
	require.Equal(t, []string{"/var/lib/varve"}, slices.DeleteFunc(d.remains(), func(f string) bool {
		return strings.HasPrefix(f, "/var/lib/varve/")
	}))
	require.Equal(t, "varve:varve 700", d.owner("/var/lib/varve"))

	d.install("/newer.deb")
	require.Equal(t, "root:varve 640", d.owner("/etc/varve/varve.yml"))
	require.NoError(t, os.WriteFile(d.path("etc/default/varve"), []byte(configured), 0o644))
	s = d.start(address)
	requireSample(t, address, "gate_kept", at)
	d.stop(s)

	// Without data a purge leaves nothing at all.
	require.NoError(t, os.RemoveAll(d.path("var/lib/varve")))
	d.run("dpkg", "--purge", "varve")
	require.NoFileExists(t, d.path("var/lib/varve"))
	_, err = os.Stat(filepath.Join(d.root, "etc/varve"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// runConnected runs a command in the Debian with the machine's network.
func (d *debian) runConnected(name string, args ...string) string {
	d.t.Helper()
	all := append([]string{d.root, "/usr/bin/env"}, quiet...)
	return output(d.t, "chroot", append(append(all, name), args...)...)
}
