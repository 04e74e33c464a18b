package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"varve/api/access"
	"varve/config"
)

// asBinary makes the test binary behave as the command itself, so that tests run
// the real thing in a process of its own.
const asBinary = "VARVE_TEST_AS_BINARY"

func TestMain(m *testing.M) {
	if os.Getenv(asBinary) != "" {
		main()
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asBinary+"=1")
	return cmd
}

// invoke runs the binary to its end.
func invoke(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestVersion(t *testing.T) {
	// The verb answers on standard output and names the query API.
	code, stdout, stderr := invoke(t, "version")
	require.Zero(t, code)
	require.Contains(t, stdout, "varve ")
	require.Contains(t, stdout, "Prometheus 3.")
	require.Empty(t, stderr)
}

func TestConfigPrintsWhatCheckConfigAccepts(t *testing.T) {
	// The printed default configuration is itself a valid file.
	code, stdout, _ := invoke(t, "config")
	require.Zero(t, code)
	require.Equal(t, config.DefaultYAML(), stdout)
	code, stdout, stderr := invoke(t, "check", "config", writeFile(t, "varve.yaml", stdout))
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "is valid")
}

func TestCheckConfigNamesTheLine(t *testing.T) {
	// Every mistake is printed as FILE:LINE: and the exit code says that there are some.
	path := writeFile(t, "varve.yaml", "storage:\n  sink: always\nlog:\n  level: 7\n")
	code, stdout, stderr := invoke(t, "check", "config", path)
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, path+`:2: unknown key "sink"`)

	path = writeFile(t, "varve.yaml", "query:\n  timeout: 0s\nlog:\n  level: loud\n")
	_, _, stderr = invoke(t, "check", "config", path)
	require.Contains(t, stderr, path+":2: query.timeout: ")
	require.Contains(t, stderr, path+":4: log.level: ")

	web := writeFile(t, "web.yml", "basic_auth_users: {alice: plain-text-password}\n")
	code, _, stderr = invoke(t, "check", "config", writeFile(t, "varve.yaml", "web:\n  config_file: "+web+"\n"))
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "not a bcrypt hash")
	require.NotContains(t, stderr, "plain-text-password")

	code, _, stderr = invoke(t, "check", "config", writeFile(t, "varve.yaml", "web:\n  rules:\n    - who: [user:nobody]\n      may: [query]\n"))
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `"user:nobody" is not known`)
}

func TestUsageMistakes(t *testing.T) {
	// What can't be understood is told in one line, help is no mistake.
	f := func(want string, args ...string) {
		t.Helper()
		code, stdout, stderr := invoke(t, args...)
		require.Equal(t, 1, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
	f("nonsense", "nonsense")
	f(`--query.timeout: "soon" is not a duration`, "serve", "--query.timeout=soon")
	f(`"many" is not a whole number`, "serve", "--query.max-samples=many")
	f("unknown long flag", "serve", "--storage.tsdb.path=x")
	f("query.timeout: 0s is out of bounds", "serve", "--query.timeout=0s", "--storage.path="+t.TempDir())
	f("no such file", "serve", "--config.file=missing.yaml", "--storage.path="+t.TempDir())
	code, stdout, _ := invoke(t, "serve", "--help")
	require.Zero(t, code)
	require.Contains(t, stdout, "--web.listen-address")
}

func TestFlagsOverrideAndAreShown(t *testing.T) {
	// Every flag names a key that it changes, and status/flags shows what is in effect.
	texts := map[string]string{
		"storage.path": "elsewhere", "storage.memory": "64MiB", "storage.sync": "interval", "web.listen-address": ":1",
		"web.external-url": "http://x/", "web.config.file": "web.yml", "web.enable-admin-api": "true", "web.enable-lifecycle": "true",
		"web.max-connections": "3", "query.timeout": "9s", "query.max-samples": "8", "query.max-concurrency": "7",
		"query.lookback-delta": "6s", "log.level": "warn", "log.format": "json",
	}
	require.Len(t, settings, len(texts))
	for _, s := range settings {
		c := config.Default()
		o := &overrides{given: []givenFlag{{s, texts[s.flag]}}}
		require.NotEqual(t, texts[s.flag], shown(c, "")[s.flag], s.flag)
		require.NoError(t, o.apply(c))
		require.Equal(t, texts[s.flag], shown(c, "f.yaml")[s.flag])
		require.Equal(t, "f.yaml", shown(c, "f.yaml")["config.file"])
	}
}

func TestConfigurationKnowsAllGroups(t *testing.T) {
	// The groups that a rule may name in a file are those of package access.
	var names []string
	for g := access.Write; g <= access.Debug; g++ {
		names = append(names, g.String())
	}
	text := "web:\n  rules:\n    - {who: [anonymous], may: [" + strings.Join(names, ", ") + "]}\n"
	c, err := config.Read(writeFile(t, "varve.yaml", text), nil)
	require.NoError(t, err)
	p, err := newPolicy(c)
	require.NoError(t, err)
	for g := access.Write; g <= access.Debug; g++ {
		require.True(t, p.Open(g))
	}
	_, err = config.Read(writeFile(t, "varve.yaml", "web: {rules: [{who: [anonymous], may: [everything]}]}\n"), nil)
	require.ErrorContains(t, err, strings.Join(names, ", "))
}

func TestCollectorGivesSmallHeapsRoom(t *testing.T) {
	// A small heap may grow by the headroom at most fourfold, a large one by half.
	f := func(live uint64, want int) {
		t.Helper()
		require.Equal(t, want, gcPercent(live))
	}
	f(0, 400)
	f(1<<20, 400)
	f(48<<20, 200)
	f(96<<20, 100)
	f(192<<20, 50)
	f(8<<30, 50)
}
