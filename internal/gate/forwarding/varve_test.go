package forwarding_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"varve/internal/gate/powercut"
	"varve/internal/gate/server"
)

const (
	// readyTimeout and stopTimeout bound a start and an orderly stop, on a machine that has other things to do.
	readyTimeout = 2 * time.Minute
	stopTimeout  = 2 * time.Minute
	// drainTimeout bounds the wait for outputs that have a target again.
	drainTimeout = 5 * time.Minute
	checkTimeout = 5 * time.Minute
)

// varve is a Varve on one directory and one address, which is started and ended again and again.
type varve struct {
	t       *testing.T
	binary  string
	dir     string
	address string
	// configuration is written before each start and each reload.
	configuration func() string
	server        *server.Server // nil while it is down
	kills         int
	// power, unless it is nil, makes of every kill a loss of power.
	power *power
}

// power takes from what servers had not synced.
type power struct {
	recorder *powercut.Recorder
	random   *rand.Rand
}

func newPower(t *testing.T, random *rand.Rand) *power {
	t.Helper()
	r, err := powercut.NewRecorder(t.TempDir())
	if errors.Is(err, powercut.ErrNoCompiler) {
		server.Lacking(t, "%v", err)
	}
	require.NoError(t, err)
	return &power{recorder: r, random: random}
}

func (v *varve) syncLog() string { return filepath.Join(v.dir, "syncs.log") }

// cut leaves of the data what a loss of power may.
func (p *power) cut(v *varve) {
	v.t.Helper()
	if _, err := os.Stat(v.data()); errors.Is(err, os.ErrNotExist) {
		return // It was killed before it had anything to lose.
	}
	damage, err := powercut.Cut(v.data(), v.syncLog(), powercut.Options{Random: p.random, Exact: p.random.IntN(2) == 0, Torn: p.random.IntN(4) == 0})
	require.NoError(v.t, err)
	v.t.Logf("power cut of %s: %v", filepath.Base(v.dir), damage)
	require.NoError(v.t, os.Remove(v.syncLog()))
}

func newVarve(t *testing.T, configuration func() string) *varve {
	t.Helper()
	address, err := server.FreeAddress()
	require.NoError(t, err)
	v := &varve{t: t, binary: server.Binary(t, ""), dir: keptOnFailure(t), address: address, configuration: configuration}
	t.Cleanup(func() {
		if v.server == nil {
			return
		}
		if t.Failed() {
			t.Logf("the end of the output of the server at %s:\n%s", v.dir, v.server.Output())
		}
		v.server.Kill()
	})
	return v
}

// keptOnFailure returns a directory that is removed unless the test fails.
func keptOnFailure(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "varve-forwarding-")
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s is kept", dir)
			return
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

func (v *varve) data() string { return filepath.Join(v.dir, "data") }

func (v *varve) writeConfiguration() string {
	v.t.Helper()
	file := filepath.Join(v.dir, "varve.yml")
	require.NoError(v.t, os.WriteFile(file, []byte(v.configuration()), 0o600))
	return file
}

// start starts it and waits until it is ready.
func (v *varve) start() {
	v.t.Helper()
	v.launch()
	ctx, cancel := context.WithTimeout(v.t.Context(), readyTimeout)
	defer cancel()
	require.NoError(v.t, v.server.WaitReady(ctx))
}

// launch starts it.
func (v *varve) launch() {
	v.t.Helper()
	var env []string
	if v.power != nil {
		env = v.power.recorder.Env(v.data(), v.syncLog())
		// It may be killed before it begins its record.
		record, err := os.OpenFile(v.syncLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		require.NoError(v.t, err)
		require.NoError(v.t, record.Close())
	}
	s, err := server.Start(server.Options{
		Binary: v.binary, Address: v.address, Env: env,
		Args: []string{"serve", "--config.file", v.writeConfiguration(), "--storage.path", v.data(), "--web.listen-address", v.address},
	})
	require.NoError(v.t, err)
	v.server = s
}

// kill ends it at once. It must not have ended by itself.
func (v *varve) kill() {
	v.t.Helper()
	select {
	case <-v.server.Exited():
		require.Fail(v.t, "the server ended by itself", v.server.Output())
	default:
	}
	v.server.Kill()
	v.server = nil
	v.kills++
	// No request to the next one is to try a connection to this one.
	http.DefaultClient.CloseIdleConnections()
	if v.power != nil {
		v.power.cut(v)
	}
}

// stop ends it in order.
func (v *varve) stop() {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), stopTimeout)
	defer cancel()
	s := v.server
	v.server = nil
	require.NoError(v.t, s.Terminate(ctx))
}

// reload has it read its configuration again, which is to succeed.
func (v *varve) reload() {
	v.t.Helper()
	v.writeConfiguration()
	v.post("/-/reload", nil)
}

// post is a request that is to succeed.
func (v *varve) post(path string, form url.Values) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), checkTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.server.URL(path), strings.NewReader(form.Encode()))
	require.NoError(v.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(v.t, err)
	require.NoError(v.t, resp.Body.Close())
	require.Equal(v.t, 2, resp.StatusCode/100, "%s answered %s", path, resp.Status)
}

// verb runs a verb of the program on the data directory of a server that is down.
func (v *varve) verb(words ...string) string {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), checkTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, v.binary, append(words, v.data())...).CombinedOutput()
	require.NoError(v.t, err, "varve %s: %s", strings.Join(words, " "), out)
	return string(out)
}

// outputStatus is what is asked of the status of an output.
type outputStatus struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Error  string `json:"error"`
	Totals struct {
		Sent     uint64 `json:"sent"`
		Dropped  uint64 `json:"dropped"`
		Refused  uint64 `json:"refused"`
		Filtered uint64 `json:"filtered"`
	} `json:"totals"`
	Lag struct {
		Seconds   float64    `json:"seconds"`
		Samples   uint64     `json:"samples"`
		Bytes     uint64     `json:"bytes"`
		GapDays   int        `json:"gapDays"`
		WholeFrom *time.Time `json:"wholeFrom"`
	} `json:"lag"`
}

func (s *outputStatus) drained() bool {
	return s.State == "running" && s.Lag.Seconds == 0 && s.Lag.Samples == 0 && s.Lag.Bytes == 0 && s.Lag.GapDays == 0 && s.Lag.WholeFrom == nil
}

// outputs is the status of all outputs, by name.
func (v *varve) outputs(ctx context.Context) (map[string]outputStatus, error) {
	status, body, err := server.Get(ctx, v.server.URL("/api/v1/status/outputs"))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data []outputStatus `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("the status of outputs is %d, %w: %s", status, err, body)
	}
	all := map[string]outputStatus{}
	for _, o := range answer.Data {
		all[o.Name] = o
	}
	return all, nil
}

// output is the status of one output. Outputs begin a moment after the server is ready.
func (v *varve) output(name string) (out outputStatus) {
	v.t.Helper()
	v.await(name, "the output is there", func(o *outputStatus) bool {
		out = *o
		return o.Name != ""
	})
	return out
}

// begun waits until the outputs have their cursors: what arrives before, a new one that begins now doesn't have.
func (v *varve) begun(names ...string) {
	v.t.Helper()
	for _, name := range names {
		v.await(name, "the output has begun", func(o *outputStatus) bool {
			return o.Name != "" && o.State != "stopped" && o.State != "failed"
		})
	}
}

// drain waits until the outputs have sent all there is.
func (v *varve) drain(names ...string) time.Duration {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), drainTimeout)
	defer cancel()
	began := time.Now()
	require.NoError(v.t, server.Wait(ctx, fmt.Sprintf("outputs %v have sent everything", names), func() (bool, error) {
		all, err := v.outputs(ctx)
		if err != nil {
			return false, err
		}
		for _, name := range names {
			o, ok := all[name]
			if !ok || !o.drained() {
				return false, fmt.Errorf("output %s: %+v", name, o)
			}
		}
		return true, nil
	}))
	return time.Since(began)
}

// await waits until a condition on an output holds.
func (v *varve) await(name, what string, condition func(*outputStatus) bool) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), drainTimeout)
	defer cancel()
	require.NoError(v.t, server.Wait(ctx, what, func() (bool, error) {
		all, err := v.outputs(ctx)
		if err != nil {
			return false, err
		}
		o := all[name]
		return condition(&o), fmt.Errorf("output %s: %+v", name, o)
	}))
}

// metric is the sum of the server's own series of a name that have the label pairs. There must be some of the name.
func (v *varve) metric(name string, pairs ...string) float64 {
	v.t.Helper()
	sum, there := v.sum(name, pairs...)
	require.True(v.t, there, name)
	return sum
}

// sum is the same where there need not be any.
func (v *varve) sum(name string, pairs ...string) (sum float64, there bool) {
	v.t.Helper()
	status, body, err := server.Get(v.t.Context(), v.server.URL("/metrics"))
	require.NoError(v.t, err)
	require.Equal(v.t, http.StatusOK, status)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(body)))
	require.NoError(v.t, err)
	for _, m := range families[name].GetMetric() {
		if matches(m, pairs) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return sum, families[name] != nil
}

func matches(m *dto.Metric, pairs []string) bool {
	have := map[string]string{}
	for _, l := range m.GetLabel() {
		have[l.GetName()] = l.GetValue()
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if have[pairs[i]] != pairs[i+1] {
			return false
		}
	}
	return true
}

// seed is what the environment variable says, or of a run of the usual length always the same, so that it fails or passes for
// everybody. longer names the variable of longer runs, which draw another.
func seed(t *testing.T, longer string) uint64 {
	t.Helper()
	otherwise := 1
	if os.Getenv(longer) != "" {
		otherwise = int(time.Now().UnixNano() & 0x7fffffff)
	}
	n := number(t, envSeed, otherwise)
	t.Logf("seed %d, which %s repeats", n, envSeed)
	return uint64(n)
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "environment variable %s", name)
	return n
}
