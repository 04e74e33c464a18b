package main

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// queryRun runs the verb over the times of exportedData.
func queryRun(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	all := append([]string{"export", "query", "--start", strconv.FormatInt(exportStart/1000, 10), "--end", strconv.FormatInt(exportStart/1000+36*3600-1, 10)}, args...)
	if !slices.Contains(args, "--step") {
		all = append(all, "--step", "1m")
	}
	var out, errs bytes.Buffer
	require.Equal(t, code, execute(all, &out, &errs), errs.String())
	return out.String(), errs.String()
}

// TestExportQueryDir exports a data directory in every format, to files that are named by their ending and to standard output, and reads the values
// of the CSV back.
func TestExportQueryDir(t *testing.T) {
	dir := exportedData(t)
	out, errs := queryRun(t, 0, "--query", "requests_total", "--time", "unix", dir)
	require.Contains(t, errs, "-: 2 series, 4318 values")
	require.Contains(t, errs, "Answered from raw.")
	records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	require.NoError(t, err)
	require.Equal(t, []string{"time", `requests_total{instance="a"}`, `requests_total{instance="b\"\n"}`}, records[0])
	require.Len(t, records, 2160)
	for i, r := range records[1:] {
		// A sample is 7 ms behind the minute, so a step sees that of the minute before.
		want := strconv.FormatFloat(float64(i)/4, 'f', -1, 64)
		require.Equal(t, []string{strconv.FormatInt(exportStart/1000+int64(i+1)*60, 10), want, want}, r)
	}
	parts, errs := queryRun(t, 0, "--query", "requests_total", "--time", "unix", "--max-points", "100", dir)
	require.Equal(t, out, parts)
	require.Contains(t, errs, "requests: 22;")

	folder := t.TempDir()
	for _, ending := range []string{"csv", "jsonl", "gp", "py", "png", "svg", "csv.gz"} {
		name := filepath.Join(folder, "a."+ending)
		queryRun(t, 0, "--query", "requests_total", "--query", "sum(requests_total)", "--output", name, "--title", "Requests", "--unit", "1", dir)
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		begin := map[string]string{"csv": "time,", "jsonl": `{"query":"requests_total",`, "gp": "# Written by varve", "py": "#!/usr/bin/env python3", "png": "\x89PNG", "svg": "<?xml", "csv.gz": "\x1f\x8b"}[ending]
		require.True(t, strings.HasPrefix(string(b), begin), ending)
		if ending == "csv.gz" {
			z, err := gzip.NewReader(bytes.NewReader(b))
			require.NoError(t, err)
			plain, err := io.ReadAll(z)
			require.NoError(t, err)
			require.Equal(t, 2160, strings.Count(string(plain), "\n"))
		}
	}
	out, _ = queryRun(t, 0, "--query", "requests_total", "--format", "png", "--width", "700", "--height", "300", dir)
	img, err := png.Decode(strings.NewReader(out))
	require.NoError(t, err)
	require.Equal(t, 700, img.Bounds().Dx())
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 7)
}

// TestExportQuerySnapshot shows that a snapshot is queried from a local copy, which is fetched once, and gives what the directory gave.
func TestExportQuerySnapshot(t *testing.T) {
	dir := exportedData(t)
	form := filepath.Join(t.TempDir(), "store.yml")
	require.NoError(t, os.WriteFile(form, []byte(fmt.Sprintf("type: FILESYSTEM\nconfig: {directory: %q}\n", t.TempDir())), 0o600))
	var made, errs bytes.Buffer
	require.Zero(t, execute([]string{"snapshot", "create", dir, "--objstore.config-file", form, "--quiet"}, &made, &errs), errs.String())
	id, _, _ := strings.Cut(made.String(), " ")
	want, _ := queryRun(t, 0, "--query", "requests_total", dir)
	copies := t.TempDir()
	for range 2 {
		got, _ := queryRun(t, 0, "--query", "requests_total", "--snapshot", id, "--snapshot.dir", copies, "--objstore.config-file", form, "--quiet")
		require.Equal(t, want, got)
	}
	got, _ := queryRun(t, 0, "--query", "requests_total", "--snapshot", id, "--snapshot.dir", copies)
	require.Equal(t, want, got)
}

// TestExportQueryNothing shows that a result without a value, and what can't be asked, end with 1, a message of what to do, and no file.
func TestExportQueryNothing(t *testing.T) {
	dir := exportedData(t)
	file := filepath.Join(t.TempDir(), "out.csv")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--query", "nonesuch", dir}, "the result is empty: no series of nonesuch has a value from 2023-11-15T00:00:00Z"},
		{[]string{"--query", "nonesuch", "--long", dir}, "the result is empty"},
		{[]string{"--query", "nonesuch", "--format", "png", dir}, "the result is empty"},
		{[]string{"--query", "up{", dir}, "parse error"},
		{[]string{"--query", "up", "--url", "http://127.0.0.1:1", dir}, "one of them"},
		{[]string{"--query", "up", "--url", "127.0.0.1:1"}, "first path segment"},
		{[]string{"--query", "up", "--url", "ftp://127.0.0.1/"}, "http://"},
		{[]string{"--query", "up", "--separator", "1", dir}, "--separator"},
		{[]string{"--query", "up", "--step", "0", dir}, "step must be positive"},
		{[]string{"--query", "up", "--step", "x", dir}, "--step"},
		{[]string{"--query", "up", "--max-points", "0", dir}, "--max-points"},
		{[]string{"--query", "up", "--long", "--format", "svg", dir}, "--long"},
		{[]string{"--query", "up", "--resolution", "quick", dir}, "resolution"},
		{[]string{"--query", "up", "--resolution", "quick"}, "resolution"},
		{[]string{"--query", "up", "--http.header", "a b:c"}, "--http.header"},
		{[]string{"--query", "up", "--snapshot", "x"}, "--snapshot"},
		{[]string{"--query", "up", "--width", "1", dir}, "pixels"},
		{[]string{dir}, "--query"},
	} {
		_, errs := queryRun(t, 1, append([]string{"--output", file}, c.args...)...)
		require.Contains(t, errs, c.says, "%v", c.args)
		require.NoFileExists(t, file)
	}
	_, errs := queryRun(t, 0, "--query", "nonesuch", "--query", "requests_total", dir)
	require.Contains(t, errs, "No series of nonesuch has a value in that time.")
}

// TestExportQueryWindow shows the times that are asked for: by default the last hour up to now, styx's window, and else what the flags say.
func TestExportQueryWindow(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_250)
	text := func(s string) *string { return &s }
	f := func(start, end, duration, step string, want ...int64) {
		t.Helper()
		e := &exportQuery{start: text(start), end: text(end), duration: text(duration), step: text(step), now: func() time.Time { return now }}
		g, err := e.grid()
		require.NoError(t, err)
		require.Equal(t, want, []int64{g.First, g.Last, g.Step})
	}
	f("", "", "1h", "", 1_799_996_400_000, 1_800_000_000_000, 5_000)
	f("", "2024-01-02", "1d", "1m", 1_704_067_200_000, 1_704_153_600_000, 60_000)
	f("2024-01-01", "2024-01-01T00:00:00.5Z", "1h", "0.25", 1_704_067_200_000, 1_704_067_200_500, 250)
}

// TestExportQueryURL shows what is sent to a server: the path of the URL is kept, headers, credentials of a file, and what its error says.
func TestExportQueryURL(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/sub/path/api/v1/query_range" || r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("X-Scope-Orgid") != "team a" || r.FormValue("resolution") != "1h" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"status":"error","errorType":"forbidden","error":"not so"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[%s,"1"]]}]}}`, r.FormValue("start"))
	}))
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "http.yml")
	require.NoError(t, os.WriteFile(file, []byte("authorization: {credentials: secret}\n"), 0o600))
	for _, base := range []string{s.URL + "/sub/path", s.URL + "/sub/path/"} {
		out, _ := queryRun(t, 0, "--query", "1", "--url", base, "--http.config.file", file, "--http.header", "x-scope-orgid: team a", "--resolution", "1h")
		require.Equal(t, "time,{}\r\n2023-11-15T00:00:00.000Z,1\r\n", out)
	}
	_, errs := queryRun(t, 1, "--query", "1", "--url", s.URL, "--http.config.file", file)
	require.Contains(t, errs, "answered 403 Forbidden: forbidden: not so")
	require.Equal(t, 3, asked)
}
