package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
)

// process is a running server.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	base   string
	exited chan error

	mu    sync.Mutex // guards log and lines
	log   bytes.Buffer
	lines chan string
	token string
}

var addressInLog = regexp.MustCompile(` address=(\S+)`)

// start runs the server on a free port and waits until it is ready.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	args = append([]string{"serve", "--storage.path=" + dir, "--storage.memory=32MiB"}, args...)
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--web.listen-address=") }) {
		args = append(args, "--web.listen-address=127.0.0.1:0")
	}
	p := &process{t: t, cmd: command(args...), exited: make(chan error, 1), lines: make(chan string, 1000)}
	out, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	p.cmd.Stdout = p.cmd.Stderr
	require.NoError(t, p.cmd.Start())
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			p.mu.Lock()
			p.log.WriteString(scan.Text() + "\n")
			p.mu.Unlock()
			p.lines <- scan.Text()
		}
		close(p.lines)
		p.exited <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
		}
	})
	starting := p.awaitLine("Varve starts.")
	p.base = "http://" + addressInLog.FindStringSubmatch(starting)[1]
	p.awaitLine("Ready.")
	return p
}

// patience bounds the wait for what another process does, or several in turn. Only something that hangs outlasts it.
const patience = 3 * time.Minute

// awaitLine returns the next line of the log that contains text.
func (p *process) awaitLine(text string) string {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			require.True(p.t, ok, "the server ended:\n%s", p.logged())
			if strings.Contains(line, text) {
				return line
			}
		case <-deadline:
			require.FailNow(p.t, "no such line", "%q in:\n%s", text, p.logged())
		}
	}
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) call(method, path string, body []byte, header ...string) (int, string) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, bytes.NewReader(body))
	require.NoError(p.t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if p.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	answer, err := http.DefaultClient.Do(r)
	require.NoError(p.t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	require.NoError(p.t, err)
	return answer.StatusCode, string(b)
}

// write sends one sample by remote write 1.0.
func (p *process) write(name string, at time.Time, value float64) int {
	p.t.Helper()
	req := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: name}, {Name: "job", Value: "test"}},
		Samples: []prompb.Sample{{Value: value, Timestamp: at.UnixMilli()}},
	}}, Metadata: []prompb.MetricMetadata{{MetricFamilyName: name, Type: prompb.MetricMetadata_GAUGE, Help: "Help of " + name}}}
	wire, err := req.Marshal()
	require.NoError(p.t, err)
	code, body := p.call(http.MethodPost, "/api/v1/write", snappy.Encode(nil, wire),
		"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy", "X-Prometheus-Remote-Write-Version", "0.1.0")
	require.Contains(p.t, []int{204, 400, 401, 403}, code, body)
	return code
}

// value returns the result of an instant query for one series.
func (p *process) value(query string, at time.Time) string {
	p.t.Helper()
	code, body := p.call(http.MethodGet, "/api/v1/query?"+url.Values{"query": {query}, "time": {fmt.Sprint(at.Unix())}}.Encode(), nil)
	require.Equal(p.t, 200, code, body)
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	require.NoError(p.t, json.Unmarshal([]byte(body), &answer))
	if len(answer.Data.Result) == 0 {
		return ""
	}
	require.Len(p.t, answer.Data.Result, 1, body)
	return answer.Data.Result[0].Value[1].(string)
}

// terminate stops the server in the orderly way and requires that it says 0.
func (p *process) terminate() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	p.awaitExit()
}

func (p *process) awaitExit() {
	p.t.Helper()
	for range p.lines {
	}
	require.NoError(p.t, <-p.exited, "log:\n%s", p.logged())
}

func TestWhatWasWrittenIsThereAfterRestarts(t *testing.T) {
	// A sample and its metadata are answered at once, after SIGTERM and after
	// SIGKILL; the stopped archive has no faults; a second server on the same
	// directory is refused.
	dir := filepath.Join(t.TempDir(), "data")
	at := time.Now().Truncate(time.Second)
	p := start(t, dir)
	require.Equal(t, 204, p.write("one", at, 41.5))
	require.Equal(t, "41.5", p.value("one", at))
	code, _, stderr := invoke(t, "serve", "--storage.path="+dir, "--web.listen-address=127.0.0.1:0", "--storage.memory=32MiB")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "in use")
	p.terminate()
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	p = start(t, dir)
	require.Equal(t, "41.5", p.value("one", at))
	require.Equal(t, 204, p.write("two", at, 42.5))
	require.NoError(t, p.cmd.Process.Kill())
	for range p.lines {
	}
	require.Error(t, <-p.exited)

	p = start(t, dir, "--web.enable-lifecycle")
	require.Equal(t, "41.5", p.value("one", at))
	require.Equal(t, "42.5", p.value("two", at))
	code, body := p.call(http.MethodGet, "/api/v1/metadata?metric=two", nil)
	require.Equal(t, 200, code)
	require.Contains(t, body, "Help of two")
	code, _ = p.call(http.MethodPost, "/-/quit", nil)
	require.Equal(t, 200, code)
	p.awaitExit()
	code, stdout, stderr := invoke(t, "check", "data", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, " 0 faults")
	code, stdout, stderr = invoke(t, "inspect", "--limit=1000", dir)
	require.Zero(t, code, stderr)
	require.Regexp(t, `"one" +\d+ +1\n`, stdout)
	require.Regexp(t, `"journal" +\d+ +\d+\n`, stdout)
}

func TestStorageStatus(t *testing.T) {
	// The widest metric and its series are told of, in Prometheus' fields and ours. The server's own, of which some are wider, stay out.
	p := start(t, t.TempDir(), "--config.file="+writeFile(t, "varve.yaml", "self_scrape: {enabled: false}\n"))
	for i := range 3 {
		p.write("wide", time.Now().Add(-time.Duration(i)*time.Second), 1)
	}
	code, body := p.call(http.MethodGet, "/api/v1/status/tsdb", nil)
	require.Equal(t, 200, code, body)
	require.Contains(t, body, `{"name":"wide","value":1}`)
	require.Contains(t, body, `"diskBytes":`)
	require.Contains(t, body, `"bytesByFamily":[{"name":`)
	p.terminate()
}

func TestItScrapesItself(t *testing.T) {
	// Without any configuration the server's own metrics are there to look at, as
	// the job varve, and switching it off by a reload ends them.
	p := start(t, t.TempDir())
	require.Eventually(t, func() bool { return p.value(`up{job="varve"}`, time.Now()) == "1" }, patience, 100*time.Millisecond)
	// Between two questions there may be a scrape that the machine was too slow for.
	require.Eventually(t, func() bool { return p.value(`varve_build_info{job="varve"}`, time.Now()) == "1" }, patience, 100*time.Millisecond)
	require.Eventually(t, func() bool {
		code, body := p.call(http.MethodGet, "/api/v1/targets", nil)
		return code == 200 && strings.Contains(body, `"health":"up"`)
	}, patience, 100*time.Millisecond)
	p.terminate()

	conf := writeFile(t, "varve.yaml", "self_scrape: {interval: 1s}\n")
	p = start(t, t.TempDir(), "--config.file="+conf)
	require.Eventually(t, func() bool { return p.value(`up{job="varve"}`, time.Now()) == "1" }, patience, 100*time.Millisecond)
	require.NoError(t, os.WriteFile(conf, []byte("self_scrape: {enabled: false}\n"), 0o600))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.awaitLine("was read again")
	require.Eventually(t, func() bool {
		_, body := p.call(http.MethodGet, "/api/v1/targets", nil)
		return strings.Contains(body, `"activeTargets":[]`)
	}, patience, 100*time.Millisecond)
	p.terminate()
}

func TestReload(t *testing.T) {
	// SIGHUP and /-/reload put a good file into effect; a bad one leaves everything
	// as it was and says so in the answer, the log and a metric.
	write := func(path, token, rest string) {
		text := "web:\n  tokens: [{name: a, token: " + token + "}]\nself_scrape: {enabled: false}\n" + rest
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	path := filepath.Join(t.TempDir(), "varve.yaml")
	write(path, "first", "federation: {external_labels: {site: one}}\n")
	p := start(t, t.TempDir(), "--config.file="+path, "--web.enable-lifecycle", "--log.level=info")
	p.token = "first"
	metric := func(want string) {
		t.Helper()
		_, body := p.call(http.MethodGet, "/metrics", nil)
		require.Contains(t, body, "varve_config_last_reload_successful "+want+"\n")
	}
	metric("1")
	at := time.Now()
	p.write("one", at, 1)

	for _, bad := range []string{"no_such_key: 1\n", "federation: {external_labels: {__name__: x}}\n", "web: {}\n"} {
		write(path, "second", bad)
		code, body := p.call(http.MethodPost, "/-/reload", nil)
		require.Equal(t, 500, code)
		require.Contains(t, body, path+":")
		metric("0")
		_, body = p.call(http.MethodGet, "/federate?match[]=one", nil)
		require.Contains(t, body, `site="one"`)
	}

	write(path, "second", "federation: {external_labels: {site: two}}\nquery: {max_samples: 1000}\n")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.awaitLine("The configuration was read again.")
	require.Contains(t, p.awaitLine("next start"), "query.max_samples")
	code, _ := p.call(http.MethodGet, "/metrics", nil)
	require.Equal(t, 401, code)
	p.token = "second"
	metric("1")
	_, body := p.call(http.MethodGet, "/federate?match[]=one", nil)
	require.Contains(t, body, `site="two"`)
	_, body = p.call(http.MethodGet, "/api/v1/status/config", nil)
	require.Contains(t, body, "max_samples: 50000000")
	p.terminate()
}

func TestSecretsAreShownNowhere(t *testing.T) {
	// Canaries in every secret appear in no answer, no log line, no profile and no
	// stack of a crash.
	canaries := []string{"canary-0ne", "canary-tw0"}
	file := writeFile(t, "token", canaries[1]+"\n")
	conf := writeFile(t, "varve.yaml", "web:\n  tokens:\n    - {name: a, token: "+canaries[0]+"}\n    - {name: b, token_file: "+file+"}\nlog: {level: debug}\n")
	p := start(t, t.TempDir(), "--config.file="+conf, "--web.enable-admin-api", "--web.enable-lifecycle")
	p.token = canaries[0]
	seen := []string{}
	for _, path := range []string{
		"/", "/metrics", "/nowhere", "/api/v1/status/config", "/api/v1/status/flags", "/api/v1/status/runtimeinfo", "/api/v1/status/buildinfo",
		"/api/v1/status/tsdb", "/api/v1/status/queries", "/api/v1/status/self_metrics", "/api/v1/targets", "/api/v1/features",
		"/api/v1/query?query=up", "/api/v1/nothing", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1",
	} {
		_, body := p.call(http.MethodGet, path, nil)
		seen = append(seen, body)
	}
	_, body := p.call(http.MethodGet, "/api/v1/status/config", nil)
	require.Contains(t, body, `token: \u003csecret\u003e`, "the configuration itself is shown")
	_, body = p.call(http.MethodPost, "/-/reload", nil)
	seen = append(seen, body)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGQUIT))
	for range p.lines {
	}
	require.Error(t, <-p.exited)
	require.Contains(t, p.logged(), "goroutine ")
	for _, text := range append(seen, p.logged()) {
		for _, canary := range canaries {
			require.NotContains(t, text, canary)
		}
	}
}

func TestWarningsAtStart(t *testing.T) {
	// An open door to everybody and writes that aren't synced are warned of, a safe
	// start is not.
	warnings := func(args ...string) string {
		t.Helper()
		p := start(t, t.TempDir(), args...)
		defer p.terminate()
		var found []string
		for _, line := range strings.Split(p.logged(), "\n") {
			if strings.Contains(line, "level=WARN") {
				found = append(found, line)
			}
		}
		return strings.Join(found, "\n")
	}
	require.Empty(t, warnings())
	open := warnings("--web.listen-address=0.0.0.0:0", "--storage.sync=interval")
	require.Contains(t, open, "EVERYBODY")
	require.Contains(t, open, "power cut")
	tokens := writeFile(t, "varve.yaml", "web: {tokens: [{name: a, token: b}]}\n")
	require.Empty(t, warnings("--web.listen-address=0.0.0.0:0", "--config.file="+tokens))
}
