package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"varve/ingest"
	gate "varve/internal/gate/server"
	"varve/internal/testkit"
)

// exportStart is a midnight.
const exportStart = int64(1_700_006_400_000)

// exportedData returns a data directory with some series of a day and a half.
func exportedData(t *testing.T) string {
	dir := t.TempDir()
	a := testkit.Open(t, dir, testkit.Options())
	app := ingest.NewAppendable(a, ingest.Limits{}, ingest.NewMetrics(nil), "test").AppenderV2(context.Background())
	for i := range int64(36 * 60) {
		for _, instance := range []string{"a", "b\"\n"} {
			_, err := app.Append(0, labels.FromStrings("__name__", "requests_total", "instance", instance), 0, exportStart+i*60_000+7, float64(i)/4, nil, nil, storage.AOptions{})
			require.NoError(t, err)
		}
	}
	_, err := app.Append(0, labels.FromStrings("__name__", "odd"), 0, exportStart, math.Inf(1), nil, nil, storage.AOptions{})
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	require.NoError(t, a.Close())
	return dir
}

// exportRun runs a verb and returns what it printed.
func exportRun(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	require.Zero(t, execute(append([]string{"export"}, args...), &out, &errs), errs.String())
	return out.String(), errs.String()
}

// TestExportAndBack shows that blocks of a data directory are served by a Prometheus, from which an export by remote read gives
// the same lines and, as OpenMetrics, promtool makes blocks that a Prometheus gives the same lines of.
func TestExportAndBack(t *testing.T) {
	prometheus := gate.Prometheus3(t)
	dir := exportedData(t)
	blocks := filepath.Join(t.TempDir(), "blocks")
	out, _ := exportRun(t, "tsdb", "--data", dir, "--all", "--output", blocks)
	require.Contains(t, out, "2 blocks: 4321 samples")
	out, _ = exportRun(t, "tsdb", "--data", dir, "--all", "--output", blocks)
	require.Equal(t, 2, strings.Count(out, "was there"))
	want, told := exportRun(t, "jsonl", "--data", dir, "--match", "requests_total", "--match", `{__name__="odd"}`)
	require.Equal(t, 3, strings.Count(want, "\n"))
	require.Contains(t, told, "3 series, 4321 samples")

	p := exportServe(t, prometheus, blocks)
	from := []string{"--url", p.URL("/"), "--all", "--start", "2023-11-14"}
	got, _ := exportRun(t, append([]string{"jsonl"}, from...)...)
	require.Equal(t, want, got)

	file := filepath.Join(t.TempDir(), "all.om")
	exportRun(t, append([]string{"openmetrics", "--output", file}, from...)...)
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		gate.Lacking(t, "no promtool in PATH: apt-get install prometheus")
	}
	again := t.TempDir()
	text, err := exec.Command(promtool, "tsdb", "create-blocks-from", "openmetrics", file, again).CombinedOutput()
	require.NoError(t, err, string(text))
	got, _ = exportRun(t, "jsonl", "--url", exportServe(t, prometheus, again).URL("/"), "--all", "--start", "1699920000")
	require.Equal(t, want, got)
}

func exportServe(t *testing.T, binary, data string) *gate.Server {
	t.Helper()
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(config, []byte("global: {}\n"), 0o600))
	address, err := gate.FreeAddress()
	require.NoError(t, err)
	return exportStarted(t, gate.Options{Binary: binary, Address: address, Args: []string{
		"--config.file=" + config, "--web.listen-address=" + address, "--storage.tsdb.path=" + data, "--storage.tsdb.retention.time=100y",
	}})
}

func exportStarted(t *testing.T, o gate.Options) *gate.Server {
	t.Helper()
	s, err := gate.Start(o)
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx), s.Output())
	return s
}

// TestExportToVictoria shows that VictoriaMetrics imports the lines and exports the same samples. They have few digits, since it
// keeps some fifteen.
func TestExportToVictoria(t *testing.T) {
	path, err := exec.LookPath("victoria-metrics")
	if err != nil {
		gate.Lacking(t, "no victoria-metrics in PATH: apt-get install victoria-metrics")
	}
	address, err := gate.FreeAddress()
	require.NoError(t, err)
	victoria := exportStarted(t, gate.Options{Binary: path, Address: address, ReadyPath: "/health", Args: []string{
		"-httpListenAddr=" + address, "-storageDataPath=" + t.TempDir(), "-retentionPeriod=100y",
	}})
	want, _ := exportRun(t, "jsonl", "--data", exportedData(t), "--all")
	r, err := http.Post(victoria.URL("/api/v1/import"), "application/json", strings.NewReader(want))
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Equal(t, http.StatusNoContent, r.StatusCode)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []byte
	// What it has taken can be found a moment later.
	require.NoError(t, gate.Wait(ctx, "all is there", func() (bool, error) {
		if _, _, err := gate.Get(ctx, victoria.URL("/internal/force_flush")); err != nil {
			return false, err
		}
		_, got, err = gate.Get(ctx, victoria.URL("/api/v1/export?match[]={__name__!=%22%22}&start=0"))
		return len(exportPoints(t, string(got))) >= exportedPoints, err
	}))
	require.Len(t, exportPoints(t, want), exportedPoints)
	require.Equal(t, exportPoints(t, want), exportPoints(t, string(got)))
}

// exportedPoints is how many finite samples exportedData has.
const exportedPoints = 2 * 36 * 60

// exportPoints are the samples of lines, in an order that doesn't depend on the writer.
func exportPoints(t *testing.T, text string) []string {
	var points []string
	for line := range strings.Lines(text) {
		var l struct {
			Metric     map[string]string
			Values     []any
			Timestamps []int64
		}
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		for i, v := range l.Values {
			if v == "Infinity" {
				continue // Debian's VictoriaMetrics doesn't take it, in a line of its own.
			}
			points = append(points, fmt.Sprint(labels.FromMap(l.Metric), l.Timestamps[i], v))
		}
	}
	slices.Sort(points)
	return points
}

// TestExportRefused shows that what can't be exported is said so, with what to do.
func TestExportRefused(t *testing.T) {
	dir := exportedData(t)
	for args, says := range map[string]string{
		"csv --data " + dir:                                           "give --match",
		"csv --all":                                                   "give --data",
		"csv --all --url http://127.0.0.1:1":                          "give --start",
		"csv --match x --all --data " + dir:                           "not both",
		"csv --match {x --data " + dir:                                "parse error",
		"tsdb --all --data " + dir:                                    "give --output or --objstore.config-file",
		"tsdb --all --output x --external-label a --data " + dir:      "name=value",
		"tsdb --all --output x --block-duration 3h --data " + dir:     "multiple of 2h",
		"csv --all --start 2024-01-02 --end 2024-01-01 --data " + dir: "ends before",
		"csv --all --start tomorrow --data " + dir:                    "neither RFC 3339",
	} {
		var out, errs bytes.Buffer
		require.Equal(t, 1, execute(append([]string{"export"}, strings.Fields(args)...), &out, &errs), args)
		require.Contains(t, errs.String(), says, args)
	}
}

// TestExportFile shows that a file gets its name when it is whole, and is compressed as its name says.
func TestExportFile(t *testing.T) {
	dir := exportedData(t)
	out := t.TempDir()
	plain, _ := exportRun(t, "csv", "--data", dir, "--all")
	for _, name := range []string{"a.csv", "a.csv.gz", "a.csv.zst"} {
		exportRun(t, "csv", "--data", dir, "--all", "--output", filepath.Join(out, name))
		st, err := os.Stat(filepath.Join(out, name))
		require.NoError(t, err)
		if name == "a.csv" {
			require.Equal(t, int64(len(plain)), st.Size())
		} else {
			require.Less(t, st.Size(), int64(len(plain)))
		}
	}
	entries, err := os.ReadDir(out)
	require.NoError(t, err)
	require.Len(t, entries, 3)
}
